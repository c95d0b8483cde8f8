"""Many scenes of an index on one grid, read as one scene."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from shapely.geometry import box

from pipeline.catalog.index import IndexedScene, content_digest, read_index, write_index
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.source import MosaicSource
from pipeline.mosaic.target import aligned_geobox

UTM = "EPSG:32633"


def write_piece(path, values, left, top):
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    transform = Affine(10, 0, 500000 + 10 * left, 0, -10, 5000000 - 10 * top)
    with rasterio.open(path, "w", dtype=values.dtype, crs=UTM, transform=transform, nodata=0, **profile) as file:
        file.write(values)
    return path


@pytest.fixture
def pieces(tmp_path):
    """Four overlapping pieces of one raster `(2, 96, 128)`, as an index; with the raster."""
    whole = np.random.default_rng(0).integers(1, 999, (2, 96, 128)).astype("uint16")
    scenes = []
    for number, (top, left) in enumerate([(0, 0), (0, 50), (40, 0), (40, 50)]):
        part = whole[:, top : top + 56, left : left + 78]
        source = open_rasters([str(write_piece(tmp_path / f"{number}.tif", part, left, top))])
        scenes.append(IndexedScene(f"s{number}", source, box(0, 0, 1, 1), digest=content_digest(source)))
    return write_index(scenes, tmp_path / "scenes.parquet"), whole


def mosaic_of(index, shape=(96, 128)):
    first = index.scene(0).source.geobox
    return MosaicSource(index, GeoBox(*shape, first.transform, first.crs), tuple(range(len(index))))


def test_an_index_gives_back_the_sources_that_it_was_made_of(pieces):
    index, _ = pieces
    again = read_index(index.path)
    assert again == index
    for number in range(4):
        path = index.path.replace("scenes.parquet", f"{number}.tif")
        assert again.scene(number).source == open_rasters([path])


def test_pieces_are_read_as_the_raster_that_they_were_cut_from(pieces):
    index, whole = pieces
    mosaic = mosaic_of(index)
    for window in (Window(0, 96, 0, 128), Window(30, 70, 20, 100), Window(95, 96, 127, 128)):
        pixels = mosaic.read(window)
        np.testing.assert_array_equal(pixels.data, whole[:, *window.slices])
        assert pixels.valid.all()


def test_what_no_scene_touches_is_missing(pieces):
    mosaic = mosaic_of(pieces[0], (200, 300))
    assert not mosaic.read(Window(150, 160, 0, 10)).valid.any()
    np.testing.assert_array_equal(mosaic.blocks_touched(100), [[True, True, False], [False, False, False]])


def test_a_grid_has_no_empty_row_where_bounds_are_off_its_corners_by_less_than_scenes_of_it_may_lie_apart():
    """As Web Mercator of level 21, half a million pixels from its origin, with the resolution to ten places."""
    side, top = 0.07464553543474244, 39135.75848200917
    found = aligned_geobox(UTM, (0.0746455354, 0.0746455354), (0, top - 2048 * side, 3072 * side, top))
    assert found.shape == (2048, 3072)
