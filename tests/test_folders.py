"""Folders of rasters as scenes: bands, tiles side by side, one file, an index; and what is no one scene."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from click.testing import CliRunner
from helpers import GRID, UTM, metadata, pixels, save, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import SwatheError
from pipeline import open_maps, open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.grid.geobox import Window
from pipeline.io.scene import open_source
from pipeline.viz.preview import make_view, read_image

NAMES = ("red", "green", "blue")
WHOLE = pixels((3, 70, 90), seed=5).clip(1)
EDGES = ((0, 40, 70), (0, 32, 64, 90))  # of tiles, rows and columns


def write_tiles(
    folder: Path, values: np.ndarray = WHOLE, overlap: int = 0, leave: tuple[int, ...] = (), **profile: Any
) -> list[Path]:
    """Cut a scene into tiles, without some of them by number."""
    folder.mkdir(exist_ok=True)
    written = []
    for number, ((top, bottom), (left, right)) in enumerate(itertools.product(*map(itertools.pairwise, EDGES))):
        if number not in leave:
            bottom, right = min(bottom + overlap, values.shape[1]), min(right + overlap, values.shape[2])
            part, place = values[:, top:bottom, left:right], GRID * Affine.translation(left, top)
            told = {"transform": place, "descriptions": NAMES[: len(values)], **profile}
            written.append(write_raster(folder / f"tile_{top}_{left}.tif", part, **told))
    return written


def write_index(path: Path, tiles: list[Path], **options: Any) -> Path:
    """As `gdaltindex` does."""
    boxes = []
    for tile in tiles:
        with rasterio.open(tile) as file:
            boxes.append(shapely.box(*file.bounds))
    gpd.GeoDataFrame({"location": [tile.name for tile in tiles]}, geometry=boxes, crs=UTM).to_file(path, **options)
    return path


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize("way", ["folder", "list", "pattern", "index", "GTI", "vrt", "zip"])
def test_tiles_side_by_side_are_the_scene_that_was_cut(tmp_path, way, overlap):
    tiles = write_tiles(tmp_path / "t", overlap=overlap)
    scene: Any = tmp_path / "t"
    if way in ("index", "GTI"):
        index = write_index(tmp_path / "t" / "all.gti.gpkg", tiles)
        scene = f"GTI:{index}" if way == "GTI" else scene
    elif way == "list":
        scene = tiles
    elif way == "pattern":
        scene = tmp_path / "t" / "*.tif"
    elif way == "vrt":
        sources = []
        for tile in tiles:
            with rasterio.open(tile) as file:
                left, top = ~GRID * (file.bounds.left, file.bounds.top)
                size = f'xSize="{file.width}" ySize="{file.height}"/>'
                sources.append((tile.name, f'<DstRect xOff="{left:.0f}" yOff="{top:.0f}" {size}'))
        bands = "".join(
            f'<VRTRasterBand dataType="UInt16" band="{n}">'
            + "".join(f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{n}'
                      f"</SourceBand>{place}</SimpleSource>" for name, place in sources)
            + "</VRTRasterBand>" for n in (1, 2, 3))  # fmt: skip
        (tmp_path / "t" / "index.vrt").write_text(
            f'<VRTDataset rasterXSize="90" rasterYSize="70"><SRS>{UTM}</SRS><GeoTransform>500000,10,0,9000000,0,-10'
            f"</GeoTransform>{bands}</VRTDataset>"
        )
    elif way == "zip":
        scene = shutil.make_archive(str(tmp_path / "tiles"), "zip", tmp_path / "t")
    source = open_source(scene)
    assert (source.bands, source.geobox.shape) == (NAMES, (70, 90))
    assert source.geobox.transform == GRID
    read = source.read(source.geobox.whole)
    np.testing.assert_array_equal(read.data, WHOLE)
    assert read.valid.all()
    array = open_scene(scene, ["blue", 1], chunk=32)
    np.testing.assert_array_equal(array.values, WHOLE[[2, 0]])
    assert array.valid.values.all()


@pytest.mark.parametrize("nodata", [None, 0])
def test_a_hole_between_tiles_is_missing_with_and_without_nodata(tmp_path, nodata):
    write_tiles(tmp_path / "t", leave=(1,), nodata=nodata)
    source = open_source(tmp_path / "t")
    expected = np.ones((70, 90), bool)
    expected[0:40, 32:64] = False
    np.testing.assert_array_equal(source.read(source.geobox.whole).valid, expected)
    np.testing.assert_array_equal(open_scene(tmp_path / "t").valid.values, expected)
    assert any("20.3 % of the scene lies under none and is missing" in note for note in source.notes)
    bundle = save(tmp_path / "bundle", metadata(bands=3))
    run(tmp_path / "t", bundle, tmp_path / "o.zarr", show=False, tile=32, block=32)
    found = open_maps(tmp_path / "o.zarr").class_map.values
    np.testing.assert_array_equal(found != 255, expected)
    whole = write_raster(tmp_path / "whole.tif", np.where(expected, WHOLE, 0), descriptions=NAMES, nodata=0)
    run(whole, bundle, tmp_path / "w.zarr", show=False)
    np.testing.assert_array_equal(found, open_maps(tmp_path / "w.zarr").class_map.values)
    told = CliRunner().invoke(cli, ["info", str(tmp_path / "t")])
    assert "the scene is 5 tiles" in told.output
    report = CliRunner().invoke(cli, ["report", str(tmp_path / "o.zarr"), "-o", str(tmp_path / "r.html")])
    assert report.exit_code == 0, report.output


def test_a_picture_of_tiles_is_that_of_the_scene(tmp_path):
    big = np.repeat(np.repeat(WHOLE, 2, axis=1), 2, axis=2)  # so that tiles begin and end between pixels of the picture
    folder = tmp_path / "t"
    folder.mkdir()
    for (top, bottom), (left, right) in itertools.product(*map(itertools.pairwise, EDGES)):
        part = big[:, 2 * top : 2 * bottom, 2 * left : 2 * right]
        write_raster(folder / f"{top}_{left}.tif", part, transform=GRID * Affine.translation(2 * left, 2 * top))
    source = open_source(folder)
    found = read_image(source, make_view(source.geobox, longest=90), [1, 2, 3])
    np.testing.assert_array_equal(found.data, WHOLE)
    assert found.valid.all()


def test_tiles_that_were_each_given_a_colour_table_are_read_by_colour(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    values = pixels((1, 20, 20), "uint8") % 3
    one = {0: (9, 8, 7, 255), 1: (1, 2, 3, 255), 2: (50, 60, 70, 255)}
    tables = [one, {0: (4, 5, 6, 255), 1: (9, 9, 9, 255), 2: (0, 0, 1, 255)}]
    for number, table in enumerate(tables):
        place = GRID * Affine.translation(20 * number, 0)
        path = write_raster(folder / f"{number}.tif", values, transform=place, photometric="palette")
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, table)
    expected = [np.hstack([np.array([t[v][c] for v in range(3)])[values[0]] for t in tables]) for c in range(3)]
    for bands in (None, list(NAMES)):
        np.testing.assert_array_equal(open_scene(folder, bands).values, expected)


def test_near_infrared_that_one_tile_shows_as_a_mask_is_a_band_of_all(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    values = pixels((4, 64, 128), "uint8", seed=3)
    values[3, :, :64] = np.where(values[3, :, :64] > 120, 255, 0)
    for left in (0, 64):
        place, part = GRID * Affine.translation(left, 0), values[..., left : left + 64]
        write_raster(folder / f"{left}.tif", part, transform=place, photometric="RGB", alpha="yes")
    np.testing.assert_array_equal(open_scene(folder).values, values)
    assert open_source(folder, alpha=True).bands == NAMES


@st.composite
def windows(draw: Any) -> Window:
    top, left = draw(st.integers(0, 69)), draw(st.integers(0, 89))
    return Window(top, draw(st.integers(top + 1, 70)), left, draw(st.integers(left + 1, 90)))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows())
def test_any_window_of_tiles_is_that_of_the_scene(window, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "windows"
    if not folder.exists():
        write_tiles(folder, overlap=5)
    read = open_source(folder).read(window)
    np.testing.assert_array_equal(read.data, WHOLE[:, *window.slices])


def test_where_tiles_overlap_what_one_missed_the_other_gives(tmp_path):
    write_tiles(tmp_path / "t", overlap=6, nodata=0)
    with rasterio.open(tmp_path / "t" / "tile_0_0.tif", "r+") as file:
        values = file.read()
        values[:, :, -6:] = 0
        file.write(values)
    source = open_source(tmp_path / "t")
    np.testing.assert_array_equal(source.read(source.geobox.whole).data, WHOLE)


def test_single_bands_of_a_folder_are_what_the_pattern_gives_and_tiles_of_one_band_are_tiles(tmp_path):
    folder = tmp_path / "bands"
    folder.mkdir()
    for n in (2, 3, 10):
        write_raster(folder / f"x_B{n}.tif", np.full((1, 8, 9), n, "uint16"))
        (folder / f"x_B{n}.tif.aux.xml").write_text("<PAMDataset/>")
    (folder / "readme.txt").write_text("hello")
    assert open_source(folder).bands == open_source(folder / "*.tif").bands == ("B2", "B3", "B10")
    assert open_source(folder).identity() == open_source(folder / "*.tif").identity()
    write_tiles(tmp_path / "t", WHOLE[:1])
    np.testing.assert_array_equal(open_scene(tmp_path / "t").values, WHOLE[:1])


@pytest.mark.parametrize("inside", ["scene.tif", "deep/er/scene.tif", "scene.png"])
def test_a_folder_of_one_file_is_that_file(tmp_path, inside, monkeypatch):
    path = tmp_path / "f" / inside
    path.parent.mkdir(parents=True)
    values = pixels((3, 20, 30), "uint8")
    write_raster(path, values, driver="PNG" if inside.endswith("png") else "GTiff")
    np.testing.assert_array_equal(open_scene(tmp_path / "f").values, values)
    monkeypatch.chdir(tmp_path / "f")
    np.testing.assert_array_equal(open_scene(".").values, values)


def mixture(kind: str, folder: Path) -> None:
    folder.mkdir()
    if kind == "dates":
        for day in ("2020-01-01", "2020-02-01"):
            write_raster(folder / f"{day}_B2.tif", pixels((1, 8, 9)))
    elif kind == "preview":
        write_raster(folder / "B2.tif", pixels((1, 8, 9)))
        write_raster(folder / "preview.tif", pixels((3, 4, 4), "uint8"))
    elif kind == "two scenes":
        for name in "ab":
            write_raster(folder / f"{name}.tif", pixels((3, 8, 9)))
    elif kind == "differ":
        write_tiles(folder, overlap=4)
        with rasterio.open(folder / "tile_0_0.tif", "r+") as file:
            file.write(file.read() + 1)
    elif kind in ("shifted", "CRS", "type", "far"):
        write_tiles(folder)
        x, y = {"shifted": (200.5, 0), "far": (1e9, 1e9)}.get(kind, (200, 0))
        values = WHOLE[:, :9, :9].astype("float32" if kind == "type" else "uint16")
        crs = "EPSG:32737" if kind == "CRS" else UTM
        place = GRID * Affine.translation(x, y)
        write_raster(folder / "t.tif", values, descriptions=NAMES, transform=place, crs=crs)
    elif kind == "text":
        (folder / "a.txt").write_text("a")
    elif kind == "folders":
        for name in "ab":
            (folder / name).mkdir()
            write_raster(folder / name / "x.tif", pixels((1, 8, 9)))
    elif kind == "index":
        write_index(folder / "all.gti.gpkg", write_tiles(folder))
        (folder / "tile_0_0.tif").unlink()


@pytest.mark.parametrize(("kind", "words"), [
    ("dates", "several dates: 20200101, 20200201"), ("preview", "1 of 1 x uint16.*B2.tif.*preview.tif"),
    ("two scenes", "holds 3 bands"), ("differ", "overlap, and differ there"), ("shifted", "different grids"),
    ("CRS", "EPSG:32737"), ("type", "float32"), ("far", "too many"), ("text", "holds no rasters.*a.txt"),
    ("empty", "is empty"), ("folders", "rasters in 2 folders: a, b"), ("index", "tile_0_0.tif"),
])  # fmt: skip
def test_a_mixture_is_refused_with_what_was_found(tmp_path, kind, words):
    mixture(kind, tmp_path / "f")
    with pytest.raises(SwatheError, match=f"(?s){words}") as error:
        open_scene(tmp_path / "f")
    assert len(str(error.value).splitlines()) <= 2


def test_the_identity_of_tiles_tells_their_pixels_and_places(tmp_path):
    write_tiles(tmp_path / "a")
    write_tiles(tmp_path / "b")
    bundle = save(tmp_path / "bundle", metadata(bands=3))
    one, same = (plan(tmp_path / name, bundle).scene_identity for name in "ab")
    assert one == same
    with rasterio.open(tmp_path / "b" / "tile_0_0.tif", "r+") as file:
        file.write(file.read() + 1)
    assert plan(tmp_path / "b", bundle).scene_identity != one
