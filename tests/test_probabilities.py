"""Probabilities as users read them: `probability > 0.7` means the same pixels in each of their tools as in ours."""

import shutil
import warnings

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from helpers import pixels, write_raster
from stores import TOWN, write_store

from models.encoding import NODATA, SCALE, STEPS
from pipeline import clean, open_maps, run, segment, write_cog

ALL_STEPS = np.append(np.arange(STEPS + 1), NODATA).astype(np.uint8).reshape(14, 18)
THRESHOLDS = [kind(step / STEPS) for step in range(STEPS + 1) for kind in (float, np.float64)]
BETWEEN = [(step + part) / STEPS for step in range(STEPS) for part in (0.01, 0.5, 0.99)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    class_map = np.where(ALL_STEPS == NODATA, NODATA, ALL_STEPS > 125).astype(np.uint8)
    return write_store(
        tmp_path_factory.mktemp("steps") / "s.zarr", class_map, classes=TOWN[:2], probability=ALL_STEPS, block=16
    )


def read_all(store, folder):
    """The same probabilities as each reader gives them, float `(y, x)`."""
    yield "open_maps", open_maps(store).probability.sel({"class": "building"})
    yield "open_maps in float64", open_maps(store).probability.sel({"class": "building"}).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(store)
    yield "open_zarr", plain.probability[0]
    yield "open_zarr in float32", plain.probability[0].astype(np.float32)
    raw = xr.open_zarr(store, mask_and_scale=False).probability
    yield (
        "by hand in float32",
        (raw[0].astype(np.float32) * np.float32(raw.attrs["scale_factor"])).where(raw[0] != NODATA),
    )
    made = write_cog(store, folder / "p.tif", array="probability")
    yield "rioxarray", rioxarray.open_rasterio(made, mask_and_scale=True)[0]
    with rasterio.open(made) as file:
        values, scale = file.read(1, masked=True), file.scales[0]
        yield "rasterio", xr.DataArray((values * scale).filled(np.nan), dims=("y", "x"))
        yield "rasterio in float32", xr.DataArray((values.astype("float32") * scale).filled(np.nan), dims=("y", "x"))


def test_a_users_threshold_is_ours_in_every_reader(store, tmp_path):
    for name, read in read_all(store, tmp_path):
        read = read.compute()
        assert read.dtype in (np.float32, np.float64), name
        assert np.array_equal(np.isnan(read), ALL_STEPS == NODATA), name
        for threshold in THRESHOLDS + BETWEEN:
            ours = (round(float(threshold) * STEPS, 6) < ALL_STEPS) & (ALL_STEPS != NODATA)
            assert np.array_equal(read > threshold, ours), (name, threshold, type(threshold))


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9, 0.996])
def test_clean_decides_as_the_user(store, threshold):
    maps = open_maps(store)
    mine = clean(maps, threshold=threshold).class_map.values == 1
    assert np.array_equal(mine, maps.probability.sel({"class": "building"}).values > threshold)
    least = clean(maps, minimum=threshold).class_map.values == 1
    assert np.array_equal(least, (max(round(threshold * STEPS), 126) <= ALL_STEPS) & (ALL_STEPS != NODATA))


def test_the_scale_is_below_the_step_in_either_float():
    assert SCALE < 1 / STEPS
    assert float(np.float32(SCALE)) == SCALE


def test_old_stores_with_another_scale_are_read_the_same(store, tmp_path):
    """What `open_maps` gives comes from the steps, whatever scale the store was written with."""
    old = shutil.copytree(store, tmp_path / "old.zarr")
    for file in old.rglob("zarr.json"):
        file.write_text(file.read_text().replace(repr(SCALE), "0.004"))
    assert xr.open_zarr(old, mask_and_scale=False).probability.attrs["scale_factor"] == 0.004
    steps = open_maps(old).probability.sel({"class": "building"}).values.ravel()[:-1]
    assert steps[[0, 125, 250]].tolist() == [0, 0.5, 1]
    assert (np.abs(steps - np.arange(STEPS + 1) / STEPS) < 1e-7).all()
    assert (steps.astype(np.float64) <= np.arange(STEPS + 1) / STEPS).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_maps_from_a_store_look_like_those_computed_lazily(tmp_path, bundle_of, classes):
    values = pixels((3, 40, 60))
    values[:, :5] = 0
    scene, bundle = write_raster(tmp_path / "s.tif", values, nodata=0), bundle_of(classes=classes)
    run(scene, bundle, tmp_path / "s.zarr", show=False)
    lazy, kept = segment(scene, bundle), open_maps(tmp_path / "s.zarr")
    assert lazy.attrs == kept.attrs
    assert list(lazy.variables) == list(kept.variables)
    for name, one in lazy.variables.items():
        other = kept.variables[name]
        assert (one.dims, one.dtype, one.attrs) == (other.dims, other.dtype, other.attrs), name
        if name == "probability":
            np.testing.assert_allclose(one.values, other.values, atol=0.5 / STEPS + 1e-6)
        else:
            np.testing.assert_array_equal(one.values, other.values)
    assert kept.rio.crs == lazy.rio.crs
    assert kept.rio.transform() == lazy.rio.transform()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, maps in enumerate((lazy, kept)):  # and users can write either again
            maps.to_zarr(tmp_path / f"{number}.zarr", consolidated=False)
            assert list(xr.open_zarr(tmp_path / f"{number}.zarr", consolidated=False)["class"].values) == list(
                maps["class"].values
            )
