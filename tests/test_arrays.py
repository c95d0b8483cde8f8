"""DataArrays and Datasets as libraries make them: where their pixels lie, which are missing, and what values mean."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
import zarr
from affine import Affine
from helpers import GRID, UTM, pixels

from models import SwatheError
from models.metadata import Radiometry
from pipeline import open_scene
from pipeline.io.scene import open_source

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning:zarr")

HEIGHT, WIDTH = 30, 40
NAMES = ("red", "green", "blue")
FINE = Affine(0.3, 0, 500_000.1, 0, -0.3, 9_000_000.7)
LEFT, TOP = GRID.c, GRID.f
X, Y = LEFT + 10.0 * np.arange(WIDTH), TOP - 10.0 * np.arange(HEIGHT)  # upper left corners


def stacked(corners: str = "upper left", step: int = 1, **attributes: Any) -> xr.DataArray:
    """As stackstac makes them: upper left corners by default, transform and CRS among the attributes."""
    x = {"upper left": X, "lower left": X, "centres": X + 5}[corners]
    y = {"upper left": Y, "lower left": Y - 10, "centres": Y - 5}[corners]
    spec = SimpleNamespace(
        epsg=32736, bounds=(LEFT, TOP - 300, LEFT + 400, TOP), resolutions_xy=(10, 10), transform=GRID
    )
    array = xr.DataArray(
        pixels((1, 3, HEIGHT, WIDTH), "float64"),
        dims=("time", "band", "y", "x"),
        coords={"time": np.array(["2026-11-21"], "M8[ns]"), "band": list(NAMES), "x": x, "y": y, "epsg": 32736},
        attrs={"spec": spec, "crs": "epsg:32736", "transform": GRID, "resolution": 10, **attributes},
    )
    return array[:, :, ::step, ::step]


def grid(scene: Any) -> Affine | None:
    return open_source(scene).geobox.transform


@pytest.mark.parametrize("corners", ["upper left", "lower left", "centres"])
def test_corners_and_centres_are_told_apart_by_the_transform(corners: str) -> None:
    source = open_source(stacked(corners))
    assert source.geobox.transform == GRID
    assert open_source(stacked(corners)).geobox.crs is not None
    assert any("upper left corners" in note for note in source.notes) == (corners != "centres")
    scene = open_scene(stacked(corners))
    assert scene.x.values[0] == LEFT + 5
    assert scene.y.values[0] == TOP - 5


@pytest.mark.parametrize("corners", ["upper left", "centres"])
@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (slice(4, 20), slice(7, 30), GRID * Affine.translation(7, 4)),
        (slice(None, None, -1), slice(None), GRID * Affine.translation(0, HEIGHT) * Affine.scale(1, -1)),
        (slice(0, 30, 3), slice(1, 40, 3), GRID * Affine.translation(0, -1) * Affine.scale(3, 3)),
        (slice(5, 6), slice(9, 10), GRID * Affine.translation(9, 5)),
    ],
)
def test_a_part_lies_where_it_was_cut(corners: str, rows: slice, columns: slice, expected: Affine) -> None:
    part = stacked(corners)[:, :, rows, columns]
    assert grid(part) == expected
    written = stacked("centres").drop_attrs().rio.write_crs(UTM).rio.write_transform(GRID)[:, :, rows, columns]
    assert grid(written) == expected


def test_what_may_be_corners_or_centres_is_refused() -> None:
    for doubtful in (stacked("upper left", 2), stacked("centres", 2), stacked("upper left").assign_coords(x=X + 5)):
        with pytest.raises(SwatheError, match="centres or corners"):
            open_source(doubtful)
    without = stacked().drop_vars(("x", "y"))
    assert grid(without) == GRID
    with pytest.raises(SwatheError, match="part of one of 30 x 40"):
        open_source(without[..., 3:, :])
    shifted = stacked().rio.write_crs(UTM).rio.write_transform()  # rioxarray takes corners for centres
    with pytest.raises(SwatheError, match="GeoTransform begins at"):
        open_source(shifted)


def test_a_transform_that_was_written_beside_corners_counts() -> None:
    array = stacked().drop_attrs().rio.write_crs(UTM).rio.write_transform(GRID)
    assert grid(array) == GRID
    coarse = stacked("centres").drop_attrs().rio.write_crs(UTM).rio.write_transform(GRID).coarsen(x=2, y=2).mean()
    assert grid(coarse) == GRID * Affine.scale(2)


def test_attributes_of_another_grid_are_told() -> None:
    moved = stacked("centres").assign_coords(x=X + 3)
    source = open_source(moved)
    assert source.geobox.transform == GRID * Affine.translation(-0.2, 0)
    assert "does not fit" in source.notes[0]
    clipped = stacked().rio.write_crs(UTM).rio.clip_box(LEFT + 50, TOP - 200, LEFT + 150, TOP - 50)
    with pytest.raises(SwatheError, match="GeoTransform begins at"):  # rioxarray takes corners for centres
        open_source(clipped)
    assert "xy_coords='center'" in open_source(clipped.drop_attrs(deep=False)).notes[0]
    lost = stacked().drop_attrs()  # as by arithmetic: what remains tells at least that it is stackstac's
    source = open_source(lost)
    assert source.geobox.transform == GRID * Affine.translation(-0.5, -0.5)
    assert "centres of pixels" in source.notes[0]
    transform = np.empty((), object)
    transform[()] = (10, 0, 300_000, 0, -10, 9_500_000)
    assert grid(lost.assign_coords({"proj:transform": ((), transform)})) == GRID


@pytest.mark.parametrize("dtype", ["float32", "int64", "float64"])
@pytest.mark.parametrize("transform", [GRID, Affine(10, 0, 5e5, 0, 10, 8e6), Affine(-10, 0, 5e5, 0, -10, 9e6)])
def test_coordinates_of_any_type_and_direction(dtype: str, transform: Affine) -> None:
    x = (transform.c + transform.a * (np.arange(WIDTH) + 0.5)).astype(dtype)
    y = (transform.f + transform.e * (np.arange(HEIGHT) + 0.5)).astype(dtype)
    array = xr.DataArray(pixels((HEIGHT, WIDTH)), dims=("y", "x"), coords={"y": y, "x": x}).rio.write_crs(UTM)
    assert grid(array) == transform


def test_rounded_coordinates_are_taken_together() -> None:
    """At a northing of 9,000,000 single precision is of one metre."""
    fine = Affine(2.5, 0, 500_001.3, 0, -2.5, 9_000_001.3)
    x, y = fine.c + 2.5 * (np.arange(400) + 0.5), fine.f - 2.5 * (np.arange(300) + 0.5)
    coords = {"y": y.astype("float32"), "x": x.astype("float32")}
    array = xr.DataArray(pixels((300, 400)), dims=("y", "x"), coords=coords)
    source = open_source(array)
    assert source.geobox.transform is not None
    assert source.geobox.transform.almost_equals(fine, precision=0.5)
    assert "coordinate y is rounded to 0.5" in " ".join(source.notes)
    assert grid(array.rio.write_crs(UTM).rio.write_transform(fine)) == fine
    with pytest.raises(SwatheError, match="not evenly spaced"):
        open_source(array.assign_coords(y=(fine.f - 0.3 * np.arange(300)).astype("float32")))
    with pytest.raises(SwatheError, match="not evenly spaced"):
        open_source(array.assign_coords(y=np.linspace(0, 1, 300) ** 1.1))
    with pytest.raises(SwatheError, match="not of finite numbers"):
        open_source(array.assign_coords(y=[str(n) for n in range(300)]))


@pytest.mark.parametrize("told", [{"res": (10.0, 10.0)}, {"resolution": 10}, {}])
def test_a_single_row_says_its_height_by_an_attribute(told: dict[str, Any]) -> None:
    row = xr.DataArray(pixels((1, WIDTH)), dims=("y", "x"), coords={"y": [TOP - 5], "x": X + 5}, attrs=told)
    source = open_source(row)
    assert source.geobox.transform == (GRID if told else None)
    assert bool(source.notes) is not bool(told)


@pytest.mark.parametrize("names", [("lat", "lon"), ("latitude", "longitude"), ("y", "x")])
def test_axes_of_other_names(names: tuple[str, str]) -> None:
    degrees = Affine(0.25, 0, 10, 0, -0.25, 50)
    coords = {names[0]: 50 - 0.25 * (np.arange(HEIGHT) + 0.5), names[1]: 10 + 0.25 * (np.arange(WIDTH) + 0.5)}
    array = xr.DataArray(pixels((HEIGHT, WIDTH)), dims=names, coords=coords, name="red")
    source = open_source(array.to_dataset())
    assert source.geobox.transform == degrees
    assert (source.geobox.crs is None) is (names == ("y", "x"))
    assert source.bands == ("red",)
    np.testing.assert_array_equal(open_scene(array.to_dataset()).values[0], pixels((HEIGHT, WIDTH)))


@pytest.mark.parametrize("told", [{"crs": "epsg:32736"}, {"crs": 32736}, {"proj:code": UTM}, {"proj:epsg": 32736}])
def test_a_crs_by_every_attribute(told: dict[str, Any]) -> None:
    array = xr.DataArray(pixels((HEIGHT, WIDTH)), dims=("y", "x"), coords={"y": Y, "x": X}, attrs=told)
    assert open_scene(array).rio.crs == UTM
    with pytest.raises(SwatheError, match="CRS cannot be understood"):
        open_scene(array.assign_attrs({next(iter(told)): "EPSG:nothing"}))


def test_coordinates_in_kilometres() -> None:
    axes = {name: (name, values / 1000, {"units": "km"}) for name, values in (("x", X + 5), ("y", Y - 5))}
    made = open_source(xr.DataArray(pixels((HEIGHT, WIDTH)), dims=("y", "x"), coords=axes)).geobox.transform
    assert made is not None
    assert made.almost_equals(GRID, 1e-6)


# --- nodata, scale and offset -----------------------------------------------------------------------------------------


def one_band(dtype: str = "uint16", **attributes: Any) -> xr.DataArray:
    values = np.full((2, 3), 5, dtype)
    values[0] = 7
    return xr.DataArray(values, dims=("y", "x"), attrs=attributes, name="red")


@pytest.mark.parametrize(
    "told",
    [
        {"_FillValue": 7},
        {"missing_value": np.array([7.0])},
        {"nodata": "7"},
        {"nodatavals": (7.0,)},
        {"_FillValue": 7, "nodata": 7},
    ],
)
def test_nodata_by_every_attribute(told: dict[str, Any]) -> None:
    for scene in (one_band(**told), one_band(**told).to_dataset(), one_band().to_dataset().assign_attrs(told)):
        assert open_scene(scene).valid.values.tolist() == [[False] * 3, [True] * 3]
        assert open_source(scene).notes == ()


def test_several_nodata_values_are_told() -> None:
    source = open_source(one_band(_FillValue=5, missing_value=7))
    assert source.nodata == (5.0,)
    assert source.notes == ("nodata is 5; the array's attributes also name 7",)
    both = xr.concat([one_band(), one_band()], "band").assign_attrs(_FillValue=5, nodatavals=(5.0, 7.0))
    assert open_source(both).nodata == (5.0, 7.0)
    assert open_source(one_band(nodatavals=(np.nan,))).read(open_source(one_band()).geobox.whole).valid.all()


def test_nodata_of_the_encoding() -> None:
    whole, broken = one_band(), one_band("float32").where(lambda values: values != 7)
    whole.encoding["_FillValue"] = broken.encoding["_FillValue"] = 7
    for scene in (whole, broken):
        assert open_scene(scene).valid.values.tolist() == [[False] * 3, [True] * 3]
    five = one_band("float32")  # 7 is a value where NaN stands for what is missing
    five.encoding["_FillValue"] = 7
    assert open_scene(five).valid.values.all()


def test_scale_and_offset_are_radiometry_and_decoded_values_are_what_they_are() -> None:
    told = {"scale_factor": 1e-4, "add_offset": -0.1, "units": "reflectance"}
    scene = one_band(**told)
    assert open_source(scene).radiometry == (Radiometry(1e-4, -0.1, "reflectance"),)
    assert open_source(scene.to_dataset()).radiometry == (Radiometry(1e-4, -0.1, "reflectance"),)
    assert open_scene(scene).attrs["scales"] == [1e-4]
    assert open_source(open_scene(scene)).radiometry[0] is not None
    decoded = xr.decode_cf(scene.to_dataset())["red"]
    assert decoded.dtype.kind == "f"
    assert open_source(decoded).radiometry == (Radiometry(1.0, 0.0, "reflectance"),)
    assert open_source(one_band()).radiometry == (None,)
    lists = xr.concat([one_band(), one_band()], "band").assign_attrs(scales=(1.0, 0.5), offsets=(0.0, 3.0))
    assert open_source(lists).radiometry == (None, Radiometry(0.5, 3.0))
    assert open_source(one_band(units="W m-2 sr-1 um-1")).radiometry == (Radiometry(unit="radiance"),)
    assert open_source(one_band(standard_name="toa_bidirectional_reflectance")).radiometry[0] == Radiometry(
        unit="reflectance"
    )
    with pytest.raises(SwatheError, match=r"scale of 0\.0"):
        open_source(one_band(scale_factor=0))


# --- one variable per band --------------------------------------------------------------------------------------------


def dataset() -> xr.Dataset:
    """Each band with its own type and nodata; a flag without numbers and a scalar beside them."""
    values = pixels((3, HEIGHT, WIDTH))
    values[:, :4] = np.array([3, 4, 5])[:, None, None]
    values[0, 4:6] = 3
    coords = {"x": X + 5, "y": Y - 5}
    made = xr.Dataset({name: (("y", "x"), values[n]) for n, name in enumerate(NAMES)}, coords=coords)
    for n, name in enumerate(NAMES):
        made[name].attrs["_FillValue"] = 3 + n
    made["green"].attrs["scale_factor"] = 0.5
    return made.rio.write_crs(UTM)


def check(scene: Any) -> None:
    """The pixels, nodata and position of `dataset`, lazily and as a source, of all bands and of some."""
    values = np.stack([dataset()[name].values for name in NAMES])
    source, lazy = open_source(scene, NAMES), open_scene(scene, NAMES, chunk=16)
    assert source.bands == NAMES
    assert source.nodata == (3, 4, 5)
    assert source.geobox.transform == GRID
    assert source.radiometry == (None, Radiometry(0.5), None)
    read = source.read(source.geobox.whole)
    valid = (values != np.array([3, 4, 5])[:, None, None]).any(axis=0)
    assert not valid[:4].any()
    np.testing.assert_array_equal(read.data, values)
    np.testing.assert_array_equal(read.valid, valid)
    np.testing.assert_array_equal(lazy.values, values)
    np.testing.assert_array_equal(lazy.valid.values, valid)
    assert lazy.band.values.tolist() == list(NAMES)
    part = open_source(scene, ["blue", "red"])
    np.testing.assert_array_equal(part.read(part.geobox.whole).data, values[[2, 0]])
    assert part.nodata == (5, 3)
    again = open_source(lazy)
    assert (again.nodata, again.radiometry, again.geobox) == (source.nodata, source.radiometry, source.geobox)


def test_a_dataset_of_one_variable_per_band() -> None:
    assert open_source(dataset()).bands == NAMES
    check(dataset())
    check(dataset().chunk(x=7, y=11))
    check(dataset().expand_dims(time=1))
    check(dataset().rename(x="X", y="Y"))
    assert open_source(dataset()).identity() == open_source(dataset()).identity()
    assert open_source(dataset()).identity() != open_source(dataset().drop_attrs(deep=False) + 1).identity()
    assert open_source(dataset()[["red"]].rename(red="scene")).bands == ("band_1",)
    assert open_source(dataset().rename(red="image", blue="data")).bands == ("image", "green", "data")
    flagged = dataset().assign(flag=(("y", "x"), np.full((HEIGHT, WIDTH), "a")), day=("time", [1.0, 2.0]))
    check(flagged)
    squeezed = xr.DataArray(pixels((HEIGHT, WIDTH)), dims=("y", "x"), coords={"band": "nir"})
    assert open_source(squeezed).bands == ("nir",)
    assert open_source(flagged).notes == ("left out, for they hold no numbers: flag",)
    check(open_scene(dataset()).to_dataset("band"))


def test_lists_of_bands_follow_the_bands(tmp_path: Path) -> None:
    """However the bands of an opened scene are taken, sorted or stored: by their names, or not at all."""
    scene = open_scene(dataset())
    assert scene.attrs["nodata_of_bands"] == [3, 4, 5]
    for taken in (["blue", "red"], ["green"], ["green", "blue", "red"]):
        part = open_source(scene.sel(band=taken))
        expected = open_source(dataset(), taken)
        assert (part.bands, part.nodata, part.radiometry) == (expected.bands, expected.nodata, expected.radiometry)
    scene.drop_vars("valid").to_dataset("band").to_zarr(tmp_path / "s.zarr", zarr_format=2)
    check(tmp_path / "s.zarr")
    renamed = scene.sel(band=["green", "blue"]).assign_coords(band=["a", "b"])
    nameless = scene.sel(band=["green", "blue"])
    del nameless.attrs["band_names"]
    unknown = dataset().drop_attrs(deep=False)
    for name in NAMES:
        unknown[name].attrs.clear()
    told = unknown.assign_attrs(nodata_of_bands=[3, 4, 5])
    for scene in (renamed, nameless, told, nameless.assign_attrs(nodata_of_bands=[None, 3, None])):
        with pytest.raises(SwatheError, match="does not say which are those of"):
            open_source(scene)
    assert open_source(unknown.assign_attrs(scales=[0.5] * 7)).radiometry == (Radiometry(0.5),) * 3


def test_variables_that_do_not_go_together() -> None:
    with pytest.raises(SwatheError, match="2 times"):
        open_source(dataset().expand_dims(time=2))
    with pytest.raises(SwatheError, match="one variable per band, or one with all"):
        open_source(dataset().assign(cube=(("band", "y", "x"), pixels((2, HEIGHT, WIDTH)))))
    other = dataset()
    other["blue"].attrs["transform"] = tuple(GRID * Affine.translation(0.5, 0.5))
    with pytest.raises(SwatheError, match=r"another grid|centres or corners"):
        open_source(other)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_a_zarr_of_one_variable_per_band(tmp_path: Path, version: int, consolidated: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        dataset().to_zarr(tmp_path / "s.zarr", zarr_format=version, consolidated=consolidated)  # type: ignore[call-overload]
    check(tmp_path / "s.zarr")
    # a group has no order that can be relied on
    assert open_source(tmp_path / "s.zarr").bands == ("blue", "green", "red")
    assert open_source(tmp_path / "s.zarr").paths == (str(tmp_path / "s.zarr"),)


def test_a_classic_netcdf_of_one_variable_per_band(tmp_path: Path) -> None:
    made = dataset().astype("int16")
    made.to_netcdf(tmp_path / "s.nc", engine="scipy")
    check(tmp_path / "s.nc")
    made[["red"]].to_netcdf(tmp_path / "one.nc", engine="scipy")
    assert open_source(tmp_path / "one.nc").bands == ("red",)
    (tmp_path / "bad.nc").write_bytes(b"CDF\x01 and no more")
    with pytest.raises(SwatheError, match=r"bad\.nc cannot be"):
        open_source(tmp_path / "bad.nc")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("said", [False, True])
def test_the_fill_value_of_zarr_is_not_nodata(tmp_path: Path, version: int, said: bool) -> None:
    """zarr itself writes 0 there; only an attribute means that 0 is missing."""
    group = zarr.open_group(tmp_path / "s.zarr", mode="w", zarr_format=version)  # type: ignore[arg-type]
    for name, values in (("x", X + 5), ("y", Y - 5), ("red", np.zeros((HEIGHT, WIDTH), "u2"))):
        dims = ("y", "x") if name == "red" else (name,)
        told: Any = {"dimension_names": dims} if version == 3 else {}
        made = group.create_array(name, shape=values.shape, dtype=values.dtype, **told)
        made[:] = values
        if version == 2:
            made.attrs["_ARRAY_DIMENSIONS"] = list(dims)
        if said and name == "red":
            made.attrs["_FillValue"] = 0
    source = open_source(tmp_path / "s.zarr")
    assert source.nodata == ((0.0,) if said else (None,))
    assert source.read(source.geobox.whole).valid.any() is np.bool_(not said)
    assert bool(source.notes) is (version == 2 and not said)
