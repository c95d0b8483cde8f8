"""Bands of several resolutions as one scene: the same bits for any window, and what GDAL gives for the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from helpers import UTM, metadata, pixels, save, write_item, write_raster
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.warp import reproject

from models import SwatheError
from pipeline import open_maps, open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.resample import RESAMPLINGS
from pipeline.io.scene import open_source
from pipeline.store.store import open_store

SIDE = 60  # of the finest band, in pixels of 10 m


def write_band(
    path: Path, metres: float, *, shift: float = 0.0, more: int = 0, dtype: str = "uint16", **profile: Any
) -> Path:
    """Write a band of the scene at some resolution; its corner lies `shift` metres off, and it has more pixels."""
    side = int(SIDE * 10 / metres) + more
    values = profile.pop("values", None)
    if values is None:
        values = pixels((1, side, side), dtype, seed=int(metres))
    place = Affine(metres, 0, 500_000 - shift, 0, -metres, 9_000_000 + shift)
    return write_raster(path, values, transform=place, **profile)


def warped(path: Path, method: str, band: Path) -> np.ndarray:
    """What GDAL makes of a whole band on another's grid."""
    with rasterio.open(band) as fine, rasterio.open(path) as coarse:
        made = np.zeros(fine.shape, coarse.dtypes[0])
        place = {"dst_transform": fine.transform, "dst_crs": fine.crs, "tolerance": 0}
        reproject(rasterio.band(coarse, 1), made, resampling=Resampling[method], **place)
        return made


@pytest.mark.parametrize("method", RESAMPLINGS)
@pytest.mark.parametrize(("metres", "shift"), [(20, 0), (60, 0), (30, 0), (20, 5), (12.5, 0), (15, 2.5)])
def test_a_whole_scene_is_what_gdal_makes_of_it(tmp_path, method, metres, shift):
    fine = write_band(tmp_path / "B1.tif", 10)
    coarse = write_band(tmp_path / "B2.tif", metres, shift=shift, more=1 if shift else 0)
    scene = open_scene([fine, coarse], resampling=method)
    assert scene.shape == (2, SIDE, SIDE)
    with rasterio.open(fine) as file:
        np.testing.assert_array_equal(scene[0], file.read(1))
        assert scene.rio.transform() == file.transform
    differ = np.abs(scene[1].values.astype(int) - warped(coarse, method, fine))
    if method == "cubic" and metres == 30:  # GDAL's rounding decides whether a pixel has all 16 samples at the edge
        differ = differ[6:-6, 6:-6]
    assert differ.max() <= (0 if method == "nearest" else 1)  # where GDAL's own sum is a half but for its last bits
    assert (differ > 0).mean() < 0.04


HOLES = {"nodata": (0, 0), "none": (None, 7), "nan": (float("nan"), float("nan"))}


@st.composite
def windows(draw: Any) -> Window:
    top, left = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
    return Window(top, draw(st.integers(top + 1, SIDE)), left, draw(st.integers(left + 1, SIDE)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """Scenes of a fine band and a coarse one with holes, read whole."""
    found = {}
    for kind, (nodata, hole) in HOLES.items():
        folder = tmp_path_factory.mktemp(kind)
        for metres, shift in ((20, 0), (60, 0), (15, 2.5), (24, 7)):
            side = int(SIDE * 10 / metres) + (shift > 0)
            values = pixels((1, side, side), "float32" if kind == "nan" else "uint16", seed=3)
            values[0, 2:4, 1:6], values[0, -1, -1] = hole, hole
            coarse = write_band(folder / f"x_{metres}.tif", metres, shift=shift, nodata=nodata, values=values)
            files = [write_band(folder / f"x_B{metres}.tif", 10), coarse]
            for method in RESAMPLINGS:
                source = open_source(files, None, method)
                found[kind, metres, method] = source, source.read(source.geobox.whole), values[0]
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=windows(), kind=st.sampled_from(sorted(HOLES)), metres=st.sampled_from([20, 60, 15, 24]),
       method=st.sampled_from(RESAMPLINGS))  # fmt: skip
def test_a_window_is_the_same_part_of_the_whole_to_the_bit(whole, window, kind, metres, method):
    source, everything, _ = whole[kind, metres, method]
    part, (rows, columns) = source.read(window), window.slices
    assert part.data.tobytes() == np.ascontiguousarray(everything.data[:, rows, columns]).tobytes()
    np.testing.assert_array_equal(part.valid, everything.valid[rows, columns])


@pytest.mark.parametrize("method", RESAMPLINGS)
@pytest.mark.parametrize("kind", ["nodata", "nan"])
def test_missing_samples_are_neither_spread_nor_filled(whole, kind, method):
    source, everything, coarse = whole[kind, 20, method]
    missing = np.isnan(coarse) if kind == "nan" else coarse == 0
    expected = np.kron(missing, np.ones((2, 2), bool))
    found = everything.data[1]
    np.testing.assert_array_equal(np.isnan(found) if kind == "nan" else found == 0, expected)
    low, high = coarse[~missing].min(), coarse[~missing].max()
    spread = 0 if method != "cubic" else (high - low) / 4
    assert low - spread <= found[~expected].min() <= found[~expected].max() <= high + spread
    assert source.nodata[1] == 0 or kind == "nan"


def test_a_value_that_comes_out_as_nodata_moves_to_the_next(tmp_path):
    values = np.array([[[10, 20], [10, 20]]], "uint16").repeat(15, axis=1).repeat(15, axis=2)
    values = np.tile(np.array([0, 200], "uint8"), (1, 30, 15))
    coarse = write_band(tmp_path / "B2.tif", 20, values=values, nodata=50)
    scene = open_source([write_band(tmp_path / "B1.tif", 10, dtype="uint8"), coarse], None, "bilinear")
    found = scene.read(scene.geobox.whole)
    assert 50 not in found.data[1]
    assert (found.data[1] == 51).any()


def test_masks_of_coarse_files_lie_on_the_fine_grid(tmp_path):
    fine, coarse = write_band(tmp_path / "B1.tif", 10), write_band(tmp_path / "B2.tif", 60)
    mask = np.ones((10, 10), bool)
    mask[2, 3] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(coarse, "r+") as file:
        file.write_mask(mask)
    source = open_source([fine, coarse])
    np.testing.assert_array_equal(source.read(source.geobox.whole).valid, np.kron(mask, np.ones((6, 6), bool)))
    np.testing.assert_array_equal(open_scene([fine, coarse], chunk=16).valid.values, np.kron(mask, np.ones((6, 6))))


def test_the_finest_grid_of_the_bands_that_are_taken_decides(tmp_path):
    files = [write_band(tmp_path / f"x_B{n}.tif", metres) for n, metres in ((2, 10), (5, 20), (9, 60), (11, 20))]
    assert open_scene(files).shape == (4, 60, 60)
    assert open_scene(files, ["B5", "B9"]).shape == (2, 30, 30)
    assert open_source(files, ["B9"]).geobox.shape == (10, 10)
    assert open_source(files, ["B9", "B2"]).notes == ("resampled to the grid of 10 m, nearest: B9 (60 m)",)
    assert open_source(files, ["B5", "B11"]).notes == ()
    item = write_item(tmp_path / "item.json", {f.stem: {"href": f.name, "type": "image/tiff"} for f in files})
    assert open_scene(item).shape == (4, 60, 60)
    np.testing.assert_array_equal(open_scene(item).values, open_scene(files).values)
    assert open_scene(item, ["x_B9", "x_B11"]).shape == (2, 30, 30)


REFUSED = [
    ({"crs": "EPSG:32737"}, "EPSG:32737 against EPSG:32736"),
    ({"crs": None}, "no CRS against EPSG:32736"),
    ({"transform": Affine(20, 0, 500_020, 0, -20, 9_000_000)}, "covers another extent"),
    ({"transform": Affine(20, 0, 500_000, 0, -20, 9_000_100)}, "covers another extent"),
    ({"transform": Affine(20, 1, 500_000, 1, -20, 9_000_000)}, "is rotated against the others"),
    ({"transform": Affine(5, 0, 500_000, 0, -60, 9_000_000), "shape": (10, 120)}, "finer along one side"),
    ({"more": 1}, "covers another extent"),
    ({"more": -2}, "covers another extent"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_grids_that_do_not_fit_are_refused_in_words(tmp_path, change, words):
    fine = write_band(tmp_path / "B1.tif", 10)
    place = {"transform": Affine(20, 0, 500_000, 0, -20, 9_000_000), "crs": UTM, **change}
    side = 30 + place.pop("more", 0)
    shape = place.pop("shape", (side, side))
    coarse = write_raster(tmp_path / "B2.tif", pixels((1, *shape)), **place)
    with pytest.raises(SwatheError, match=words) as error:
        open_scene([fine, coarse])
    assert str(coarse) in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_a_border_short_of_less_than_a_coarse_pixel_takes_the_nearest(tmp_path):
    fine = write_band(tmp_path / "B1.tif", 10)
    coarse = write_band(tmp_path / "B2.tif", 70)  # 8 x 8: 560 m of 600
    with rasterio.open(coarse) as file:
        values = file.read(1)
    scene = open_scene([fine, coarse])
    places = np.minimum((np.arange(SIDE) + 0.5) // 7, 7).astype(int)
    np.testing.assert_array_equal(scene[1], values[np.ix_(places, places)])


def test_transforms_that_writers_rounded_still_meet(tmp_path):
    step = 8.983152841195215e-05  # 10 m in degrees
    fine = write_raster(tmp_path / "a_B1.tif", pixels((1, 60, 60)), crs="EPSG:4326",
                        transform=Affine(step, 0, 39.2, 0, -step, -6.1))  # fmt: skip
    values = pixels((1, 20, 20))
    place = Affine(round(3 * step, 9), 0, 39.2000000001, 0, -round(3 * step, 9), -6.1)
    coarse = write_raster(tmp_path / "a_B2.tif", values, crs="EPSG:4326", transform=place)
    np.testing.assert_array_equal(open_scene([fine, coarse])[1], np.kron(values[0], np.ones((3, 3), "uint16")))


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
def test_a_map_is_the_same_however_it_is_cut_and_says_how_it_was_resampled(tmp_path, method):
    bundle = save(tmp_path / "bundle", metadata(bands=3))
    files = [write_band(tmp_path / f"x_{name}.tif", m) for name, m in (("red", 10), ("green", 20), ("blue", 60))]
    prepared = plan(files, bundle, resampling=method)
    assert f"resampled to the grid of 10 m, {method}: green (20 m), blue (60 m)" in str(prepared)
    maps = []
    for number, cut in enumerate(({"tile": 16, "block": 32}, {"tile": 64, "block": 64})):
        run(files, bundle, tmp_path / f"{number}.zarr", show=False, resampling=method, **cut)
        maps.append(open_maps(tmp_path / f"{number}.zarr"))
    np.testing.assert_array_equal(maps[0].class_map.values, maps[1].class_map.values)
    stacked = write_raster(tmp_path / "one.tif", open_scene(files, resampling=method).values,
                           descriptions=("red", "green", "blue"))  # fmt: skip
    run(stacked, bundle, tmp_path / "one.zarr", show=False)
    np.testing.assert_array_equal(open_maps(tmp_path / "one.zarr").class_map.values, maps[0].class_map.values)
    other = "cubic" if method == "bilinear" else "bilinear"
    assert prepared.scene_identity != plan(files, bundle, resampling=other).scene_identity
    assert open_store(tmp_path / "0.zarr")[1].source["resampling"] == method
    with pytest.raises(SwatheError, match="source"):
        run(files, bundle, tmp_path / "0.zarr", show=False, resampling=other)
    command = ["plan", *map(str, files), "-m", str(tmp_path / "bundle"), "--resampling", method]
    told = CliRunner().invoke(cli, command)
    assert f"10 m, {method}: green" in told.output


def test_no_other_way_of_resampling(tmp_path):
    band = write_band(tmp_path / "B1.tif", 10)
    with pytest.raises(SwatheError, match="resampling is nearest, bilinear, cubic; received 'average'"):
        open_scene(band, resampling="average")  # type: ignore[arg-type]


def test_geobox_of_the_scene(tmp_path):
    source = open_source([write_band(tmp_path / "B1.tif", 20), write_band(tmp_path / "B2.tif", 10)])
    assert source.geobox == GeoBox(60, 60, Affine(10, 0, 500_000, 0, -10, 9_000_000), source.geobox.crs)
