"""Scenes on other grids than the mosaic's: the pixels of GDAL's warper, whatever the window."""

from functools import lru_cache

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.warp import read_scene, samples_under

METHODS = ["nearest", "bilinear", "cubic"]
NORTH, SOUTH = "EPSG:32632", "EPSG:32701"
HERE = Affine(10, 0, 700000, 0, -10, 5000000)


def smooth(shape, seed=0, bands=2):
    """Values that change slowly, as scenes' do: 1 to some 60,000."""
    rng, (height, width) = np.random.default_rng(seed), shape
    y, x = np.mgrid[:height, :width]
    waves = [sum(np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.3, 0.3, (4, 3))) for _ in range(bands)]
    return (np.stack(waves) * 7000 + 30000).astype("uint16")


def write(path, values, transform, crs, **more):
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", transform=transform, crs=crs, **(profile | more)) as file:
        file.write(values)
    return open_rasters([str(path)])


def grid(crs, transform, shape):
    return GeoBox(*shape, transform, CRS.from_user_input(crs).to_wkt())


def gdal(path, geobox, method, scale=1.0):
    """Warp by GDAL; rasterio takes no tolerance of 0, and one so small moves no position across a pixel's border."""
    with rasterio.open(path) as file:
        where = {"crs": geobox.crs, "transform": geobox.affine, "height": geobox.height, "width": geobox.width}
        steady = {"XSCALE": 1 / scale, "YSCALE": 1 / scale, "SOURCE_EXTRA": 50}
        with WarpedVRT(file, **where, resampling=Resampling[method], tolerance=1e-9, **steady) as warped:
            return warped.read()


PAIRS = {
    "two zones": (NORTH, HERE, "EPSG:32633", Affine(10, 0, 227800, 0, -10, 5002800), (180, 220)),
    "half a pixel": (NORTH, HERE, NORTH, Affine(10, 0, 699995, 0, -10, 5000005), (130, 170)),
    "finer": (NORTH, HERE, NORTH, Affine(7, 0, 699995, 0, -7, 5000005), (180, 230)),
    "degrees": (NORTH, HERE, "EPSG:4326", Affine(8e-5, 0, 11.54, 0, -8e-5, 45.13), (180, 300)),
    "across 180": ("EPSG:4326", Affine(1e-4, 0, 179.993, 0, -1e-4, -17), SOUTH,
                   Affine(10, 0, 179700, 0, -10, 8117900), (150, 200)),
    "across 180 in degrees": (SOUTH, Affine(10, 0, 180500, 0, -10, 8118800), "EPSG:4326",
                              Affine(1e-4, 0, 179.99, 0, -1e-4, -16.995), (160, 220)),
    "north pole": ("EPSG:3413", Affine(100, 0, -8000, 0, -100, 6000), "EPSG:4326",
                   Affine(0.5, 0, -180, 0, -0.001, 90), (80, 720)),
    "onto the south pole": ("EPSG:4326", Affine(0.05, 0, -180, 0, -0.001, -89.88), "EPSG:3031",
                            Affine(100, 0, -9000, 0, -100, 9000), (180, 180)),
    "rotated": (NORTH, HERE * Affine.rotation(20), NORTH, Affine(10, 0, 699300, 0, -10, 5000600), (220, 220)),
}  # fmt: skip


read_whole = lru_cache(lambda source, geobox, method: read_scene(source, geobox, geobox.whole, method))


@pytest.fixture(scope="module", params=PAIRS)
def pair(request, tmp_path_factory):
    """A scene with a hole, a grid that it does not lie on, and the file's path."""
    crs, transform, target, to, shape = PAIRS[request.param]
    size = (120, 7200) if request.param == "onto the south pole" else (120, 160)
    values = smooth(size)
    values[:, 40:60, 50:80] = 0
    path = tmp_path_factory.mktemp("pair") / "scene.tif"
    return write(path, values, transform, crs, nodata=0), grid(target, to, shape), path


@pytest.mark.parametrize("method", METHODS)
def test_the_pixels_are_those_of_gdal(pair, method):
    source, geobox, path = pair
    if method != "nearest" and max(samples_under(source.geobox, geobox)) > 1.05:
        method = "nearest"  # GDAL and Swathe both take several samples then, and weigh them otherwise
    found, wanted = read_whole(source, geobox, method), gdal(path, geobox, method)
    if source.geobox.affine.c == 179.993:  # GDAL takes what lies east of 180 only from a scene that counts from -180
        with rasterio.open(path) as file:
            values, there = file.read(), Affine.translation(-360, 0) * file.transform
        write(path.with_name("turned.tif"), values, there, "EPSG:4326", nodata=0)
        wanted = np.maximum(wanted, gdal(path.with_name("turned.tif"), geobox, method))
    valid = (wanted != 0).any(axis=0)
    assert valid.sum() > 2000
    np.testing.assert_array_equal(found.valid, valid)
    apart = np.abs(found.data.astype(int) - wanted)
    assert apart.max() <= (0 if method == "nearest" else 1)


@settings(max_examples=6)
@given(data=st.data(), method=st.sampled_from(METHODS))
def test_no_window_changes_a_pixel(pair, data, method):
    source, geobox, _ = pair
    whole = read_whole(source, geobox, method)
    rows = sorted(data.draw(st.lists(st.integers(0, geobox.height), min_size=2, max_size=2, unique=True)))
    columns = sorted(data.draw(st.lists(st.integers(0, geobox.width), min_size=2, max_size=2, unique=True)))
    window = Window(*rows, *columns)
    part = read_scene(source, geobox, window, method)
    if part is None:
        assert not whole.valid[window.slices].any()
    else:
        np.testing.assert_array_equal(part.data, whole.data[:, *window.slices])
        np.testing.assert_array_equal(part.valid, whole.valid[window.slices])


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_that_is_missing_in_one_band_is_missing_on_every_grid(tmp_path, method):
    """Of a band of floats without nodata it is NaN, which a network gets as the band's mean, and never 0."""
    values = np.ones((2, 20, 20), "float32")
    values[0, 5:12, 5:12] = np.nan
    source = write(tmp_path / "a.tif", values, HERE, NORTH)
    for shift in (0, 0.5):
        geobox = grid(NORTH, HERE * Affine.translation(shift, shift), (19, 19))
        pixels = read_scene(source, geobox, geobox.whole, method)
        assert pixels.valid[8, 8]
        assert np.isnan(pixels.data[0, 8, 8])
        assert pixels.data[1, 8, 8] == 1
