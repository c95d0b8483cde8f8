"""Real scenes as mosaics: Landsat, NAIP of several dates, OpenAerialMap."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from helpers import SHARED, write_raster
from rasterio.merge import merge

from models import load_bundle
from pipeline import open_maps, run
from pipeline.catalog.footprint import footprint_of
from pipeline.catalog.index import IndexedScene, content_digest, write_index
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.harmonise import harmonise
from pipeline.mosaic.source import MosaicSource
from pipeline.mosaic.target import aligned_geobox

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")]
ADJOINING = SHARED / "whole_scenes/adjoining"
NAIP = SHARED / "whole_scenes/naip_nd_timeseries"
OAM = SHARED / "oam_buildings/scenes"
LANDSAT = SHARED / "landsat8_redcross/scenes/C_rgb_u16.tif"


def index_of(paths, folder):
    scenes = []
    for path in paths:
        source = open_rasters([str(path)])
        scenes.append(IndexedScene(Path(path).stem, source, footprint_of(source.geobox), digest=content_digest(source)))
    return write_index(scenes, folder / "scenes.parquet")


def cut_into(path, folder, windows):
    """Write windows of a raster as files of their own."""
    made = []
    with rasterio.open(path) as file:
        for number, window in enumerate(windows):
            place = window.to_rasterio()
            size = {"height": window.shape[0], "width": window.shape[1], "transform": file.window_transform(place)}
            profile = {**file.profile, **size, "photometric": None, "driver": "GTiff", "compress": "deflate"}
            part = folder / f"{path.stem}-{number}.tif"
            with rasterio.open(part, "w", **{key: value for key, value in profile.items() if value}) as out:
                out.write(file.read(window=place))
            made.append(part)
    return made


def pieces_of(shape, rows, columns, overlap):
    whole = Window.of(shape)
    for window in whole.split(-(-shape[0] // rows), -(-shape[1] // columns)):
        yield window.buffer(overlap).clip(shape)


def over_all(paths, crs, resolution):
    """Return the grid over all scenes."""
    bounds = np.array([open_rasters([str(path)]).geobox.bounds(crs) for path in paths])
    box = (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0))
    return aligned_geobox(rasterio.CRS.from_user_input(crs).to_wkt(), resolution, box)


def test_four_parts_of_a_landsat_scene_are_that_scene(tmp_path):
    paths = sorted(ADJOINING.glob("rgb*.tif"))
    index = index_of(paths, tmp_path)
    expected, transform = merge([str(path) for path in paths])
    first = index.scene(0).source.geobox
    mosaic = MosaicSource(index, GeoBox(*expected.shape[1:], transform, first.crs), (0, 1, 2, 3))
    np.testing.assert_array_equal(mosaic.read(mosaic.geobox.whole).data, expected)
    assert harmonise(mosaic, "moments") == mosaic  # of one day and one radiometry


def test_pieces_of_one_photograph_are_warped_to_what_it_is_warped_to(tmp_path):
    """No seam where content agrees, though no piece lies on the grid."""
    path = NAIP / "m_4709963_se_14_1_20160816.tif"
    with rasterio.open(path) as file:
        shape, crs = file.shape, file.crs
    cut = cut_into(path, tmp_path, pieces_of(shape, 2, 3, 24))
    grid = over_all([path], crs, (5, 5))
    for folder in ("pieces", "whole"):
        (tmp_path / folder).mkdir()
    pieces, whole = index_of(cut, tmp_path / "pieces"), index_of([path], tmp_path / "whole")
    for resampling in ("nearest", "bilinear"):
        mosaic = MosaicSource(pieces, grid, tuple(range(6)), resampling=resampling)
        found, alone = (one.read(grid.whole) for one in (mosaic, replace(mosaic, index=whole, order=(0,))))
        np.testing.assert_array_equal(found.valid, alone.valid)
        differs = (found.data != alone.data).any(axis=0)
        if resampling == "nearest":
            assert not differs.any()
        chosen = mosaic.chosen(grid.whole)  # at the last pixel of a piece there is less to mix
        near = np.zeros(differs.shape, bool)
        for axis in (0, 1):
            for step in (-1, 1):
                near |= np.roll(chosen, step, axis) != chosen
        assert not (differs & ~near).any()
        assert np.abs(found.data.astype(int) - alone.data).max() < 60


@pytest.mark.parametrize("method", ["moments", "histogram"])
def test_landsat_scenes_of_other_seasons_agree_where_they_overlap(tmp_path, method):
    """Two in UTM and one in degrees; looked at as a picture too."""
    paths = sorted(ADJOINING.glob("mosaic_cog*.tif"))
    grid = over_all(paths, "EPSG:32618", (300, 300))
    plain = MosaicSource(index_of(paths, tmp_path), grid, (0, 1, 2), resampling="bilinear")
    steps = []
    for mosaic in (plain, harmonise(plain, method)):
        read = [mosaic.read_one(number, grid.whole) for number in mosaic.order]
        both = [(one, other, one.valid & other.valid) for n, one in enumerate(read) for other in read[:n]]
        off = [np.median(one.data[:, on].astype(float) - other.data[:, on], axis=1) for one, other, on in both]
        steps.append(np.abs(off).mean())
    assert steps[1] < 0.4 * steps[0]


@pytest.mark.parametrize("name", ["zanzibar_tz_b_z20", "kampala_ug_b_z21"])
def test_buildings_are_those_of_the_uncut_photograph(tmp_path, client, name):
    """Pieces that overlap, on their own grid, in one map: the same in all pixels."""
    path = OAM / f"{name}_image.tif"
    with rasterio.open(path) as file:
        shape = file.shape
    index = index_of(cut_into(path, tmp_path, pieces_of(shape, 2, 3, 40)), tmp_path)
    grid = open_rasters([str(path)]).geobox
    outputs = tmp_path / "merged.zarr", tmp_path / "whole.zarr"
    bundle = load_bundle("buildings")
    merged = run(MosaicSource(index, grid, tuple(range(6))), bundle, outputs[0], client=client, show=False, block=512)
    run(path, bundle, outputs[1], client=client, show=False)
    maps = [open_maps(output) for output in outputs]
    for array in ("class_map", "probability"):
        np.testing.assert_array_equal(maps[0][array].values, maps[1][array].values)
    seams = merged.found["seams"]
    assert seams["border_step"] == pytest.approx(seams["interior_step"], rel=0.5)


def test_a_landsat_scene_in_twelve_pieces_is_that_scene_both_ways(tmp_path, client):
    """Segmented each and merged by `inner`, and merged before: pieces overlap by what the network sees, and 5 pixels.

    The scene came without a place on Earth: any does.
    """
    uncut = open_rasters([str(LANDSAT)])
    values = uncut.read(uncut.geobox.whole).data
    bundle, place = load_bundle("clouds"), Affine(30, 0, 300_000, 0, -30, 5_000_010)
    overlap = bundle.metadata.receptive_field.halo + 5
    described = {"crs": "EPSG:32632", "descriptions": ("red", "green", "blue"), "compress": "lzw"}
    scene = write_raster(tmp_path / "C.tif", values, transform=place, **described)
    pieces = list(pieces_of(values.shape[1:], 3, 4, overlap))
    assert len(pieces) == 12
    assert any(at % bundle.metadata.receptive_field.stride for piece in pieces for at in (piece.top, piece.left))
    paths = []
    for number, piece in enumerate(pieces):
        moved, cut = place * Affine.translation(piece.left, piece.top), values[:, *piece.slices]
        paths.append(write_raster(tmp_path / f"{number}.tif", cut, transform=moved, **described))
    mosaic = MosaicSource(index_of(paths, tmp_path), open_rasters([str(scene)]).geobox, tuple(range(12)))
    options = {"client": client, "show": False, "overviews": False}
    ways = {"whole": (scene, None), "merged": (mosaic, None), "inner": (mosaic, "inner")}
    for name, (source, each) in ways.items():
        run(source, bundle, tmp_path / name, each=each, **options)
    whole, *others = (zarr.open_group(tmp_path / name) for name in ways)
    for layer in ("class_map", "probability"):
        expected = whole[layer][:]
        assert expected.shape[-2:] == (5120, 4608)  # all 23,592,960 pixels
        assert len(np.unique(expected)) > 1
        for other in others:
            np.testing.assert_array_equal(other[layer][:], expected)
