"""Opening scenes: what rasterio reads, exactly, from every kind of source; lazily, from threads and other processes."""

import pickle
import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from helpers import GRID, UTM, pixels, write_raster
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.shutil import copy as copy_raster

from models import SwatheError
from pipeline import open_scene
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.array import ArraySource
from pipeline.io.gdal import read_pixels
from pipeline.io.raster import RasterSource
from pipeline.io.scene import array_source, open_source
from pipeline.io.source import observed

ROTATED = Affine(8, 3, 500_000, 3, -8, 9_000_000)
SOUTH_UP = Affine(10, 0, 500_000, 0, 10, 8_000_000)
NEAR_RGB = ("red", "green", "blue", "nir")

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio"),  # what tests write
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning:zarr"),
]


def whole(source: Any) -> Any:
    return source.read(source.geobox.whole)


def write_vrt(path: Path, tif: Path) -> Path:
    copy_raster(tif, path, driver="VRT")
    return path


def converted(driver: str, **options: Any) -> Callable[[Path, Path], Path]:
    def convert(path: Path, tif: Path) -> Path:
        copy_raster(tif, path, driver=driver, **options)
        return path

    return convert


def write_index(path: Path, tifs: Sequence[Path]) -> Path:
    """A tile index as `gdaltindex` writes: a GeoPackage of one table of footprints with a column `location`."""
    bounds = []
    for tif in tifs:
        with rasterio.open(tif) as file:
            code = file.crs.to_epsg()
            bounds.append(file.bounds)
    left, bottom, right, top = (
        pick(side) for pick, side in zip((min, min, max, max), zip(*bounds, strict=True), strict=True)
    )
    base = sqlite3.connect(path)
    base.executescript(
        f"""
        PRAGMA application_id = 1196444487; PRAGMA user_version = 10300;
        CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT, srs_id INTEGER PRIMARY KEY, organization TEXT,
            organization_coordsys_id INTEGER, definition TEXT, description TEXT);
        INSERT INTO gpkg_spatial_ref_sys VALUES ('utm', {code}, 'EPSG', {code}, 'undefined', '');
        CREATE TABLE gpkg_contents (table_name TEXT PRIMARY KEY, data_type TEXT, identifier TEXT, description TEXT,
            last_change TEXT, min_x REAL, min_y REAL, max_x REAL, max_y REAL, srs_id INTEGER);
        INSERT INTO gpkg_contents VALUES ('tiles', 'features', 'tiles', '', '2020-01-01T00:00:00Z',
            {left}, {bottom}, {right}, {top}, {code});
        CREATE TABLE gpkg_geometry_columns (table_name TEXT, column_name TEXT, geometry_type_name TEXT, srs_id INTEGER,
            z INTEGER, m INTEGER);
        INSERT INTO gpkg_geometry_columns VALUES ('tiles', 'geom', 'POLYGON', {code}, 0, 0);
        CREATE TABLE tiles (fid INTEGER PRIMARY KEY, geom BLOB, location TEXT);
        """
    )
    for tif, (left, bottom, right, top) in zip(tifs, bounds, strict=True):
        ring = np.array([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)], "<f8")
        header = b"GP\x00\x03" + np.int32(code).tobytes() + np.array([left, right, bottom, top], "<f8").tobytes()
        polygon = b"\x01" + np.array([3, 1, 5], "<u4").tobytes() + ring.tobytes()
        base.execute("INSERT INTO tiles (geom, location) VALUES (?, ?)", (header + polygon, str(tif)))
    base.commit()
    base.close()
    return path


# ending -> how it is made from a GeoTIFF
FORMATS: dict[str, Callable[[Path, Path], Path]] = {
    "copy.tif": converted("GTiff", compress="deflate", interleave="band"),
    "big.tif": converted("GTiff", bigtiff="yes", tiled=True),
    "cog.tif": converted("COG", blocksize=64),
    "whole.vrt": write_vrt,
    "lossless.jp2": converted("JP2OpenJPEG", quality="100", reversible="yes"),
    "index.gti.gpkg": lambda path, tif: write_index(path, [tif]),
    "image.img": converted("HFA"),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_every_format_gives_what_rasterio_reads(tmp_path: Path, name: str, dtype: str) -> None:
    tif = write_raster(tmp_path / "scene.tif", pixels((4, 150, 130), dtype), photometric="minisblack")
    path = FORMATS[name](tmp_path / name, tif)
    scene = open_scene(path)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(scene.values, file.read())
        np.testing.assert_array_equal(scene.valid.values, file.dataset_mask() > 0)
        assert scene.rio.transform() == file.transform
        assert scene.rio.crs == file.crs
    with rasterio.open(tif) as file:
        np.testing.assert_array_equal(scene.values, file.read())
        assert scene.dtype == dtype


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32", "uint64", "int64", "float32", "float64"])
def test_every_dtype_is_kept(tmp_path: Path, dtype: str) -> None:
    values = pixels((2, 20, 30), dtype)
    scene = open_scene(write_raster(tmp_path / "scene.tif", values))
    assert scene.dtype == dtype
    np.testing.assert_array_equal(scene.values, values)


@pytest.mark.parametrize(
    ("name", "bands"),
    [("picture.png", 2), ("picture.png", 4), ("picture.png", 3), ("picture.jpg", 3), ("picture.png", 1)],
)
def test_pictures_have_no_position(tmp_path: Path, name: str, bands: int) -> None:
    path = tmp_path / name
    driver = {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
    values = pixels((bands, 40, 50), "uint8")
    if bands in (2, 4):
        values[-1] = np.where(values[-1] > 100, 255, 0)
    write_raster(path, values, driver=driver, crs=None, transform=Affine.identity())
    scene = open_scene(path)
    assert scene.rio.crs is None
    assert "x" not in scene.coords
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(scene.values, file.read()[: bands - (bands in (2, 4))])
        np.testing.assert_array_equal(scene.valid.values, file.dataset_mask() > 0)
    expected = {1: ["band_1"], 2: ["band_1"]}.get(bands, ["red", "green", "blue"])
    assert scene.band.values.tolist() == expected


def test_a_tile_index_by_its_other_name_reads_several_files(tmp_path: Path) -> None:
    values = pixels((1, 60, 100))
    parts = [
        write_raster(tmp_path / "left.tif", values[:, :, :50]),
        write_raster(tmp_path / "right.tif", values[:, :, 50:], transform=GRID * Affine.translation(50, 0)),
    ]
    index = write_index(tmp_path / "tiles.gpkg", parts)
    scene = open_scene(f"GTI:{index}")
    np.testing.assert_array_equal(scene.values, values)
    assert scene.rio.transform() == GRID


@pytest.mark.parametrize(
    "transform", [GRID, ROTATED, SOUTH_UP, Affine(-10, 0, 5e5, 0, -10, 9e6), Affine(1 / 3, 0, 0.1, 0, -1 / 7, 0.2)]
)
def test_position_is_kept_also_of_parts(tmp_path: Path, transform: Affine) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((1, 90, 80)), transform=transform)
    scene = open_scene(path, chunk=32)
    with rasterio.open(path) as file:
        assert scene.rio.transform() == file.transform
        assert open_source(path).geobox == GeoBox(90, 80, file.transform, file.crs.to_wkt())
    assert array_source(scene).geobox == open_source(path).geobox
    part = array_source(scene[:, 30:70:2, 11:]).geobox
    expected = transform * Affine.translation(11, 29.5) * Affine.scale(1, 2)  # each pixel grows about its middle
    assert part.shape == (20, 69)
    assert part.transform.almost_equals(expected, precision=1e-9)
    assert array_source(scene[:, 5:6, 7:8]).geobox.transform.almost_equals(transform * Affine.translation(7, 5), 1e-9)


def test_coordinates_are_rioxarrays(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((2, 33, 44)))
    scene = open_scene(path)
    with rioxarray.open_rasterio(path) as other:
        np.testing.assert_allclose(scene.x, other.x, rtol=0, atol=1e-6)
        np.testing.assert_allclose(scene.y, other.y, rtol=0, atol=1e-6)
        assert scene.rio.crs == other.rio.crs
        assert scene.rio.bounds() == other.rio.bounds()


@pytest.mark.parametrize(
    ("nodata", "dtype"),
    [
        (0, "uint8"),
        (-9999, "int16"),
        (np.nan, "float32"),
        (-np.inf, "float32"),
        (-3.4e38, "float32"),
        (1e30, "float64"),
    ],
)
def test_nodata_counts_where_no_band_holds_a_value(tmp_path: Path, nodata: float, dtype: str) -> None:
    values = pixels((3, 40, 50), dtype)
    values[:, 5:20, 7:30] = np.array(nodata).astype(dtype)
    values[0, 30:35] = np.array(nodata).astype(dtype)  # in one band only: observed
    path = write_raster(tmp_path / "scene.tif", values, nodata=nodata)
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.values, values)
    missing = (~np.isfinite(values) | (values == np.array(nodata).astype(dtype))).all(axis=0)
    assert missing[5:20, 7:30].all()
    assert not missing[30:35].all()
    np.testing.assert_array_equal(scene.valid.values, ~missing)
    np.testing.assert_equal(scene.rio.nodata, np.array(nodata).astype(dtype))
    if np.isfinite(nodata):
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(scene.valid.values, file.dataset_mask() > 0)


def test_nan_and_infinity_are_missing_without_any_nodata(tmp_path: Path) -> None:
    values = pixels((2, 10, 12), "float32")
    values[:, 3, 4], values[0, 5, 6], values[1, 5, 6], values[0, 7, 7] = np.nan, np.inf, -np.inf, np.nan
    valid = open_scene(write_raster(tmp_path / "scene.tif", values)).valid.values
    assert sorted(zip(*np.nonzero(~valid), strict=True)) == [(3, 4), (5, 6)]


def test_a_nodata_that_the_dtype_cannot_hold_hides_nothing() -> None:
    data = np.full((1, 2, 2), 255, np.uint8)
    for impossible in (-1.0, 256.0, 254.5, float("nan"), float("inf")):
        assert observed(data, (impossible,)).all()
    assert not observed(data, (255.0,)).any()


@pytest.mark.parametrize(
    ("bands", "dtype"), [(4, "uint8"), (2, "uint16"), (5, "uint16"), (4, "uint32"), (4, "float32")]
)
def test_alpha_is_the_mask_and_no_band(tmp_path: Path, bands: int, dtype: str) -> None:
    """GDAL itself takes alpha for a mask in files of two or four bands of whole numbers only."""
    values = pixels((bands, 30, 40), dtype)
    values[-1] = 255
    values[-1, 4:9, 6:30] = 0
    path = write_raster(tmp_path / "scene.tif", values, photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
    scene = open_scene(path)
    assert scene.sizes["band"] == bands - 1
    np.testing.assert_array_equal(scene.values, values[:-1])
    np.testing.assert_array_equal(scene.valid.values, values[-1] > 0)
    np.testing.assert_array_equal(whole(open_source(path)).valid, values[-1] > 0)


@pytest.mark.parametrize("inside", [True, False])
def test_masks_in_and_beside_files_count_and_narrow_nodata(tmp_path: Path, inside: bool) -> None:
    values = pixels((3, 50, 60), "uint8").clip(1)
    values[:, :5] = 0
    mask = np.full((50, 60), 255, np.uint8)
    mask[20:30, 10:50] = 0
    path = write_raster(tmp_path / "scene.tif", values, nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    assert (tmp_path / "scene.tif.msk").exists() is not inside
    expected = (mask > 0) & (values > 0).any(axis=0)
    np.testing.assert_array_equal(open_scene(path, chunk=16).valid.values, expected)
    np.testing.assert_array_equal(whole(open_source(path, [2])).valid, (mask > 0) & (values[1] > 0))


def test_valid_mask_of_the_lazy_scene_is_that_of_the_source(tmp_path: Path) -> None:
    """A pixel whose first band is nodata is observed if another band is, also in a file with a mask."""
    values = pixels((2, 20, 20), "uint8").clip(1)
    values[0, 3:9] = 0
    path = write_raster(tmp_path / "scene.tif", values, nodata=0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.where(np.arange(400).reshape(20, 20) % 7, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(open_scene(path).valid.values, whole(open_source(path)).valid)
    assert open_scene(path).valid.values[3:9].any()


def test_scale_and_offset_are_kept_and_not_applied(tmp_path: Path) -> None:
    values = pixels((2, 8, 9), "int16")
    path = write_raster(tmp_path / "scene.tif", values)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0001, 0.5), (-0.1, 3)
    scene = open_scene(path, ["2", 1])
    assert scene.attrs["scales"] == [0.5, 0.0001]
    assert scene.attrs["offsets"] == [3, -0.1]
    np.testing.assert_array_equal(scene.values, values[::-1])


def test_bands_by_name_and_number(tmp_path: Path) -> None:
    values = pixels((4, 10, 12))
    path = write_raster(tmp_path / "scene.tif", values, descriptions=("B8a", "B8A", "Red", "3"))
    assert open_scene(path).band.values.tolist() == ["B8a", "B8A", "Red", "3"]
    for asked, places in [
        (["B8A", "B8a"], [1, 0]),
        (["red"], [2]),
        (["3"], [3]),
        ([3], [2]),
        (["1", 4], [0, 3]),
        ("red", [2]),
        (2, [1]),
    ]:
        np.testing.assert_array_equal(open_scene(path, asked).values, values[places])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("descriptions", "colours", "names"),
    [
        (None, None, ["band_1", "band_2", "band_3", "band_4"]),
        (None, ["blue", "green", "red", "undefined"], ["blue", "green", "red", "band_4"]),
        (("B2", "B3", "B4", "B8"), ["blue", "green", "red", "undefined"], ["B2", "B3", "B4", "B8"]),
        (("B2", "", "", "B8"), None, ["B2", "band_2", "band_3", "B8"]),
        (("same", "same", "same", "same"), ["red", "green", "blue", "undefined"], ["red", "green", "blue", "band_4"]),
        (("a\x1b[31m\nb", "c" * 500, "d", "e"), None, ["a[31m b", "c" * 60, "d", "e"]),
    ],
)
def test_names_come_from_descriptions_then_colours_then_numbers(
    tmp_path: Path, descriptions: Any, colours: Any, names: list[str]
) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((4, 5, 6)), photometric="minisblack", descriptions=descriptions)
    if colours:
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp[name] for name in colours]
    assert list(open_source(path).bands) == names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["LC08_T1_B4.TIF", "LC08_T1_B5.TIF", "LC08_T1_B10.TIF"], ["B4", "B5", "B10"]),
        (["T36_2018_B02_10m.tif", "T36_2018_B8A_20m.tif"], ["B02_10m", "B8A_20m"]),
        (["2018-10-13, Sentinel-2B L1C, B01.tiff", "2018-10-13, Sentinel-2B L1C, B02.tiff"], ["B01", "B02"]),
        (["scene.B1.tif", "scene.B2.tif"], ["B1", "B2"]),
        (["red.tif", "nir_band.tif"], ["red", "nir_band"]),
        (["red/scene.tif", "nir/scene.tif"], ["red", "nir"]),
        (["train_red/red_patch_1.tif", "train_nir/nir_patch_1.tif"], ["red", "nir"]),
        (["a/scene.tif", "a/scene.tif"], ["band_1", "band_2"]),
    ],
)
def test_files_of_one_band_each_are_named_by_what_differs(tmp_path: Path, files: list[str], names: list[str]) -> None:
    bands = [pixels((1, 12, 14), seed=n) for n, _ in enumerate(files)]
    for name, band in zip(files, bands, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_raster(tmp_path / name, band)
    scene = open_scene([tmp_path / name for name in files])
    assert scene.band.values.tolist() == names
    if len(set(files)) == len(files):
        np.testing.assert_array_equal(scene.values, np.concatenate(bands))


def test_a_pattern_sorts_numbers_by_value_and_dtypes_are_joined(tmp_path: Path) -> None:
    for number, dtype in ((1, "uint16"), (2, "int16"), (10, "uint8")):
        write_raster(
            tmp_path / f"x_B{number}.tif", np.full((1, 5, 6), number, dtype), nodata=number if number == 2 else None
        )
    scene = open_scene(tmp_path / "x_B*.tif")
    assert scene.band.values.tolist() == ["B1", "B2", "B10"]
    assert scene.dtype == np.int32
    assert scene.values[:, 0, 0].tolist() == [1, 2, 10]
    assert scene.attrs["nodata_of_bands"] == [None, 2, None]


def test_bands_of_several_dtypes_in_one_file(tmp_path: Path) -> None:
    for name, dtype in (("a", "uint8"), ("b", "float32")):
        write_raster(tmp_path / f"{name}.tif", pixels((1, 8, 9), dtype))
    layers = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">{name}.tif'
        "</SourceFilename></SimpleSource></VRTRasterBand>"
        for n, (name, kind) in enumerate([("a", "Byte"), ("b", "Float32")], 1)
    )
    vrt = tmp_path / "both.vrt"
    vrt.write_text(f'<VRTDataset rasterXSize="9" rasterYSize="8">{layers}</VRTDataset>')
    scene = open_scene(vrt)
    assert scene.dtype == np.float32
    np.testing.assert_array_equal(scene.values[0], pixels((1, 8, 9), "uint8")[0])


# --- arrays and Zarr --------------------------------------------------------------------------------------------------


def example(**coords: Any) -> xr.DataArray:
    values = pixels((3, 30, 40))
    array = xr.DataArray(
        values,
        dims=("band", "y", "x"),
        coords={"x": 5e5 + 10.0 * np.arange(40), "y": 9e6 - 10.0 * np.arange(30), **coords},
    )
    return array.rio.write_crs(UTM)


@pytest.mark.parametrize("chunks", [None, {"x": 7, "y": 11, "band": 1}])
@pytest.mark.parametrize("dims", [("band", "y", "x"), ("y", "x", "band")])
def test_arrays_of_numpy_and_dask(chunks: Any, dims: tuple[str, ...]) -> None:
    array = example(band=["red", "green", "blue"]).transpose(*dims)
    array = array.chunk(chunks) if chunks else array
    source = open_source(array, ["blue", 1])
    assert source.bands == ("blue", "red")
    assert source.geobox.transform == Affine(10, 0, 499_995, 0, -10, 9_000_005)
    np.testing.assert_array_equal(source.read(Window(3, 17, 5, 40)).data, pixels((3, 30, 40))[[2, 0], 3:17, 5:40])
    np.testing.assert_array_equal(open_scene(array).values, pixels((3, 30, 40)))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunks", [None, {"x": 16, "y": 16}])
def test_what_rioxarray_opens(tmp_path: Path, masked: bool, chunks: Any) -> None:
    values = pixels((2, 30, 40), "int16")
    values[:, 4:9, 6:20] = -9999
    path = write_raster(tmp_path / "scene.tif", values, nodata=-9999, transform=ROTATED, descriptions=("red", "nir"))
    with rioxarray.open_rasterio(path, masked=masked, chunks=chunks) as array:
        source = array_source(array)
        read = whole(source)
        assert source.dtype == ("float32" if masked else "int16")
        assert source.bands == ("red", "nir")
        assert source.geobox == open_source(path).geobox
        np.testing.assert_array_equal(read.valid, (values != -9999).any(axis=0))
        np.testing.assert_array_equal(read.data[:, read.valid], values[:, read.valid])
        assert source.identity() == array_source(array).identity()


def test_an_array_of_foreign_byte_order_is_read_as_the_machines_own() -> None:
    array = example().astype(">u2")
    assert whole(array_source(array)).data.dtype == np.dtype("uint16")
    assert array_source(array).dtype.isnative


def zarr_of(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "scene.zarr"
    array = example(band=["red", "green", "blue"]).rename("scene").assign_attrs(**changes)
    array.to_dataset().to_zarr(path, encoding={"scene": {"chunks": (3, 16, 16)}}, consolidated=False)
    return path


def test_a_zarr_group(tmp_path: Path) -> None:
    path = zarr_of(tmp_path, _FillValue=7)
    scene = open_scene(path, ["green"])
    np.testing.assert_array_equal(scene.values, pixels((3, 30, 40))[[1]])
    assert (scene.rio.crs, scene.rio.nodata) == (UTM, 7)
    assert scene.rio.transform() == Affine(10, 0, 499_995, 0, -10, 9_000_005)
    path.rename(tmp_path / "no_ending")
    np.testing.assert_array_equal(open_scene(tmp_path / "no_ending").values, pixels((3, 30, 40)))


def test_a_scene_that_was_opened_goes_through_zarr_and_back(tmp_path: Path) -> None:
    values = pixels((2, 30, 40))
    path = write_raster(tmp_path / "scene.tif", values, nodata=0, transform=ROTATED)
    scene = open_scene(path)
    scene.rename("scene").to_dataset().to_zarr(tmp_path / "again.zarr", consolidated=False)
    again = open_source(tmp_path / "again.zarr")
    assert again.geobox == open_source(path).geobox
    assert again.nodata == (0, 0)
    np.testing.assert_array_equal(whole(again).data, values)


def test_rioxarray_works_on_an_opened_scene(tmp_path: Path) -> None:
    scene = open_scene(write_raster(tmp_path / "scene.tif", pixels((2, 30, 40)), nodata=3))
    clipped = scene.rio.clip_box(500_050, 8_999_800, 500_200, 8_999_950)
    assert clipped.rio.nodata == 3
    assert scene.rio.reproject("EPSG:4326").rio.crs == "EPSG:4326"


# --- lazy, in threads, elsewhere --------------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """Every window that is read from a raster."""
    seen: list[Window] = []

    def counted(path: str, indexes: Sequence[int], window: Window, dtype: Any) -> Any:
        seen.append(window)
        return read_pixels(path, indexes, window, dtype)

    monkeypatch.setattr("pipeline.io.raster.read_pixels", counted)
    return seen


def test_opening_reads_nothing_and_looking_reads_only_what_is_looked_at(tmp_path: Path, reads: list[Window]) -> None:
    values = pixels((2, 100, 100))
    path = write_raster(tmp_path / "scene.tif", values)
    with dask.config.set(scheduler="synchronous"):
        scene = open_scene(path, chunk=32)
        assert not reads
        np.testing.assert_array_equal(scene[:, 40:60, 70:80].values, values[:, 40:60, 70:80])
        assert reads == [Window(40, 60, 70, 80)]


@pytest.mark.parametrize(
    "key",
    [np.s_[0, 5], np.s_[:, ::2, ::3], np.s_[[1, 0], 3:9], np.s_[..., [1, 40, 5]], np.s_[:, ::-1], np.s_[1, 30:0:-7, 7]],
    ids=str,
)
def test_any_index_gives_what_numpy_gives(tmp_path: Path, key: Any) -> None:
    scene = open_scene(write_raster(tmp_path / "scene.tif", pixels((2, 50, 60))), chunk=16)
    np.testing.assert_array_equal(scene[key].values, pixels((2, 50, 60))[key])
    np.testing.assert_array_equal(
        scene.valid[key[1:] if isinstance(key, tuple) else key].values.shape, scene.valid.values[key[1:]].shape
    )


def test_reading_from_many_threads(tmp_path: Path) -> None:
    values = pixels((2, 256, 256))
    tif = write_raster(tmp_path / "scene.tif", values, tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    vrt, index = write_vrt(tmp_path / "scene.vrt", tif), write_index(tmp_path / "scene.gti.gpkg", [tif])
    sources = [open_source(path) for path in (tif, vrt, index)]
    random = np.random.default_rng(0)
    windows = [Window(t, t + 40, c, c + 50) for t, c in random.integers(0, 200, (300, 2)).tolist()]

    def same(number: int) -> bool:
        window = windows[number]
        rows, columns = window.slices
        return np.array_equal(sources[number % 3].read(window).data, values[:, rows, columns])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, range(len(windows))))


def test_each_thread_has_its_own_handle(tmp_path: Path) -> None:
    from pipeline.io.gdal import open_raster, run_with_env

    path = str(write_raster(tmp_path / "scene.tif", pixels((1, 8, 8))))
    found = {}

    def look(name: str) -> None:
        found[name] = [run_with_env(path, lambda: open_raster(path)) for _ in range(2)]

    for name in ("one", "other"):
        thread = threading.Thread(target=look, args=(name,))
        thread.start()
        thread.join()
    assert found["one"][0] is found["one"][1]
    assert found["one"][0] is not found["other"][0]


@pytest.mark.parametrize("kind", ["raster", "zarr", "numpy", "dask"])
def test_sources_and_scenes_go_to_other_processes(tmp_path: Path, kind: str) -> None:
    given: Any = {
        "raster": lambda: write_raster(tmp_path / "scene.tif", pixels((3, 30, 40))),
        "zarr": lambda: zarr_of(tmp_path),
        "numpy": example,
        "dask": lambda: example().chunk(x=16),
    }[kind]()
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps((open_source(given), open_scene(given))))
    code = (
        "import pathlib, pickle, sys, numpy as np\nfrom pipeline.grid.geobox import Window\n"
        f"source, scene = pickle.loads(pathlib.Path({str(sent)!r}).read_bytes())\n"
        "data = source.read(Window(0, 30, 0, 40)).data\n"
        "assert np.array_equal(data, scene.values)\nsys.stdout.buffer.write(data.tobytes())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=True)
    assert done.stdout == pixels((3, 30, 40)).tobytes()
    assert done.stderr == b""


MRF = """<MRF_META><CachedSource><Source>{folder}/source.tif</Source></CachedSource><Raster><Size x="64" y="64" c="1"/>
<PageSize x="64" y="64" c="1"/><Compression>NONE</Compression><DataFile>{folder}/mine.sh</DataFile>
<IndexFile>{folder}/index</IndexFile></Raster></MRF_META>"""
VRT = """<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename>{folder}/scene.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


LOOK_FIRST = "from pipeline.store.cog import written_before\nwritten_before('none.tif', {})\n"


@pytest.mark.parametrize(("name", "first"), [("scene.tif", ""), ("scene.vrt", ""), ("scene.vrt", LOOK_FIRST)])
def test_an_mrf_under_another_name_writes_nothing(tmp_path: Path, name: str, first: str) -> None:
    """In a process of its own: which formats GDAL has at all is settled when it opens its first file."""
    write_raster(tmp_path / "source.tif", np.full((1, 64, 64), 65, np.uint8))
    (tmp_path / "scene.tif").write_text(MRF.format(folder=tmp_path))
    (tmp_path / "scene.vrt").write_text(VRT.format(folder=tmp_path))
    (tmp_path / "mine.sh").write_text("echo mine\n")
    code = (
        f"{first}from models import SwatheError\nfrom pipeline import open_scene\n"
        f"try:\n    open_scene({str(tmp_path / name)!r}).load()\nexcept SwatheError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "cannot be read" in done.stdout
    assert (tmp_path / "mine.sh").read_text() == "echo mine\n"
    assert not (tmp_path / "index").exists()


def test_many_files_in_few_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.io.gdal.OPEN_FILES", 3)
    paths = [write_raster(tmp_path / f"B{n}.tif", np.full((1, 5, 6), n, np.uint8)) for n in range(8)]
    source = open_source(paths)
    for _ in range(2):
        assert whole(source).data[:, 0, 0].tolist() == list(range(8))


def test_a_raster_is_read_in_flat_memory(tmp_path: Path) -> None:
    peaks = []
    for side in (512, 2048):
        path = write_raster(
            tmp_path / f"{side}.tif", np.zeros((3, side, side), np.uint8), tiled=True, compress="deflate"
        )
        source = open_source(path)
        tracemalloc.start()
        for top in range(0, side, 256):
            source.read(Window(top, top + 256, 0, 256))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("kind", ["zarr", "rioxarray"])
def test_identity_of_a_lazy_array_does_not_load_it(tmp_path: Path, kind: str) -> None:
    values = np.zeros((1, 2048, 2048), np.uint16)
    if kind == "zarr":
        path = tmp_path / "scene.zarr"
        xr.Dataset({"scene": (("band", "y", "x"), values)}).to_zarr(
            path, encoding={"scene": {"chunks": (1, 128, 128)}}, consolidated=False
        )
        source = open_source(path)
    else:
        source = array_source(rioxarray.open_rasterio(write_raster(tmp_path / "scene.tif", values, tiled=True)))  # type: ignore[arg-type]
    tracemalloc.start()
    source.identity()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 2
    assert isinstance(source, ArraySource)
    assert not source.array.variable._in_memory


# --- identity ---------------------------------------------------------------------------------------------------------


def change_pixel(path: Path) -> None:
    with rasterio.open(path, "r+") as file:
        file.write(file.read(1) ^ 1, 1)


@pytest.mark.parametrize("how", ["tif", "vrt", "gti", "mask", "zarr", "numpy"])
def test_a_change_of_pixels_is_noticed_and_a_copy_is_not(tmp_path: Path, how: str) -> None:
    (tmp_path / "a").mkdir()
    tif = write_raster(tmp_path / "a/scene.tif", pixels((1, 64, 64)))
    array = example()
    given: Any = {
        "tif": lambda: tif,
        "mask": lambda: tif,
        "vrt": lambda: write_vrt(tmp_path / "a/scene.vrt", tif),
        "gti": lambda: write_index(tmp_path / "a/scene.gti.gpkg", [tif]),
        "zarr": lambda: zarr_of(tmp_path / "a"),
        "numpy": lambda: array,
    }[how]()
    before = open_source(given).identity()
    assert open_source(given).identity() == before
    assert pickle.loads(pickle.dumps(open_source(given))).identity() == before
    if how in ("tif", "zarr"):
        moved = (tmp_path / "a").rename(tmp_path / "b")
        assert open_source(moved / given.name).identity() == before
        given = moved / given.name
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(tif, "r+") as file:
            file.write_mask(np.zeros((64, 64), bool))
    elif how == "zarr":
        import zarr

        zarr.open_group(given, mode="r+")["scene"][0, :9, :9] = 60_000
    elif how == "numpy":
        array[1, 2, 3] += 1
    else:
        change_pixel(given if how == "tif" else tif)
    assert open_source(given).identity() != before


def test_identity_tells_bands_nodata_and_place_apart(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((2, 20, 20)))
    kinds = [open_source(path).identity(), open_source(path, [1]).identity(), open_source(path, [2]).identity()]
    with rasterio.open(path, "r+") as file:
        file.transform = ROTATED
    kinds.append(open_source(path).identity())
    assert len({repr(kind) for kind in kinds}) == 4


def test_a_file_that_is_replaced_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "scene.tif"
    for value in (1, 2, 3):
        write_raster(path, np.full((1, 6, 7), value, np.uint8))
        assert (whole(open_source(path)).data == value).all()
        assert (open_scene(path).values == value).all()


# --- what is refused, and what is said --------------------------------------------------------------------------------


def test_files_on_other_grids_print_both(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "B1.tif", pixels((1, 20, 30)))
    other = write_raster(tmp_path / "B2.tif", pixels((1, 20, 30)), transform=GRID * Affine.translation(1.6, 0))
    with pytest.raises(SwatheError, match="another extent") as error:
        open_scene([one, other])
    text = str(error.value)
    assert "500000.0" in text
    assert "500016.0" in text
    assert len(text.splitlines()) == 2


def test_grids_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "B1.tif", pixels((1, 20, 30)))
    other = write_raster(
        tmp_path / "B2.tif", pixels((1, 20, 30)), transform=GRID * Affine.translation(1e-6, 0) * Affine.scale(1 + 1e-9)
    )
    assert open_scene([one, other]).rio.transform() == GRID


def text_file(path: Path) -> Path:
    path.write_text("not a raster at all\n" * 50)
    return path


def truncated(path: Path) -> Path:
    write_raster(path, pixels((3, 200, 200)))
    path.write_bytes(path.read_bytes()[:5000])
    return path


def huge_vrt(path: Path) -> Path:
    sizes, band = 'rasterXSize="2000000000" rasterYSize="2000000000"', '<VRTRasterBand dataType="Byte" band="1"/>'
    path.write_text(f"<VRTDataset {sizes}>{band}</VRTDataset>")
    return path


def empty_file(path: Path) -> Path:
    path.touch()
    return path


def zarr_with(path: Path, *names: str) -> Path:
    xr.Dataset({name: example() for name in names}).to_zarr(path, consolidated=False)
    return path


def many_bands(path: Path) -> Path:
    return write_raster(path, np.zeros((5000, 1, 1), np.uint8))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda p: p / "none.tif", "no such file"),
    "missing folder": (lambda p: p / "no/none.tif", "and no folder"),
    "empty folder": (lambda p: p, "is empty"),
    "empty pattern": (lambda p: p / "*.tif", "no file matches"),
    "text": (lambda p: text_file(p / "x.tif"), "not recognized"),
    "empty file": (lambda p: empty_file(p / "e.tif"), "cannot be read"),
    "complex": (lambda p: write_raster(p / "c.tif", np.ones((1, 4, 4), np.complex64)), "complex numbers"),
    "many bands": (lambda p: many_bands(p / "m.tif"), "5,000 bands"),
    "huge": (lambda p: huge_vrt(p / "h.vrt"), "at most 1e13"),
    "several bands each": (lambda p: [write_raster(p / f"{n}.tif", pixels((2, 4, 4))) for n in "ab"], "one band each"),
    "nothing": (lambda p: [], "no files given"),
    "a number": (lambda p: 7, "received int"),
    "None": (lambda p: None, "received NoneType"),
    "dataset": (lambda p: xr.Dataset({"a": ("time", [1, 2])}), r"with the dims \(y, x\).*it has a \('time',\)"),
    "times": (lambda p: example().expand_dims(time=2), "2 times.*isel"),
    "dates": (lambda p: example().assign_coords(band=np.array([1, 2, 3], "M8[D]")), "3 times.*isel"),
    "numpy": (lambda p: np.zeros((1, 4, 4)), "received ndarray"),
    "no zarr": (lambda p: p / "none.zarr", "cannot be opened as Zarr"),
    "empty zarr": (lambda p: zarr_with(p / "e.zarr"), "it has none"),
    "two in zarr": (lambda p: zarr_with(p / "e.zarr", "one", "two"), r"it has one \(.*\), two"),
    "dims": (lambda p: example().rename(x="lon"), "received .*lon"),
    "complex array": (lambda p: example().astype(complex), "real numbers; received complex128"),
    "empty array": (lambda p: example()[:, :0], "is empty"),
    "uneven": (lambda p: example()[:, :, [0, 1, 5]], "not evenly spaced"),
    "service": (lambda p: "WMS:http://localhost:9/x", "cannot be read"),
    "memory": (lambda p: "MEM:::DATAPOINTER=1,PIXELS=9,LINES=9", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_scenes_are_refused_in_a_line_or_two(tmp_path: Path, case: str) -> None:
    make, expected = BAD[case]
    with pytest.raises(SwatheError, match=expected) as error:
        open_scene(make(tmp_path))
    assert len(str(error.value).splitlines()) <= 2
    pickle.loads(pickle.dumps(error.value))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["pink"], "no band 'pink'; it has 3"),
        ([4], "no band 4"),
        ([0], "no band 0"),
        ([-1], "no band -1"),
        ([], "no bands asked for"),
        ([1.0], "no band 1.0"),
    ],
)
def test_bands_that_are_not_there(tmp_path: Path, asked: Any, said: str) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((3, 4, 4)))
    with pytest.raises(SwatheError, match=said):
        open_scene(path, asked)


def test_damage_is_found_when_it_is_read_and_says_where(tmp_path: Path) -> None:
    source = open_source(truncated(tmp_path / "cut.tif"))
    with pytest.raises(SwatheError, match=r"cut\.tif \(rows 100 to 200, columns 0 to 200\) cannot be read") as error:
        source.read(Window(100, 200, 0, 200))
    assert error.value.__cause__ is None  # GDAL's own errors cannot be sent between processes
    assert error.value.__context__ is None


def test_a_file_with_control_points_only_says_that_they_are_lost(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 30 + c, -r, 0) for r, c in ((0, 0), (0, 10), (10, 0), (10, 10))]
    path = tmp_path / "gcp.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=10, height=10, count=1, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as file:
        file.write(pixels((1, 10, 10), "uint8"))
    source = open_source(path)
    assert isinstance(source, RasterSource)
    assert "4 ground control points" in source.notes[0]
    assert "gdalwarp" in source.notes[0]
    assert source.geobox.transform is None
    assert open_scene(path).attrs["notes"] == list(source.notes)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 50), (2, 50, 1)])
def test_scenes_of_one_pixel_width(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels(shape))
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.values, pixels(shape))
    assert array_source(scene).geobox == open_source(path).geobox


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    write_raster(
        tmp_path / "plain.png", pixels((3, 9, 9), "uint8"), driver="PNG", crs=None, transform=Affine.identity()
    )
    truncated(tmp_path / "cut.tif")
    text_file(tmp_path / "text.tif")
    code = (
        "import threading\nfrom pipeline import open_scene\nfrom models import SwatheError\n"
        "def look(name):\n"
        "    try:\n        open_scene(name).values\n"
        "    except SwatheError: pass\n"
        "for name in ('plain.png', 'cut.tif', 'text.tif'):\n"
        "    look(name)\n    thread = threading.Thread(target=look, args=(name,)); thread.start(); thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout + done.stderr == b""


def virtual(path: Path, source: Path, dtype: str, nodata: list[Any]) -> Path:
    """A VRT, in which each band may have a nodata of its own, and any."""
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{n}">{"" if value is None else f"<NoDataValue>{value}</NoDataValue>"}'
        f"<SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource>"
        "</VRTRasterBand>"
        for n, value in enumerate(nodata, 1)
    )
    path.write_text(f'<VRTDataset rasterXSize="30" rasterYSize="20">{bands}</VRTDataset>')
    return path


@pytest.mark.parametrize(
    ("dtype", "name", "nodata"),
    [("uint8", "Byte", -9999), ("uint8", "Byte", 254.5), ("uint8", "Byte", "nan"), ("int8", "Int8", 255),
     ("uint16", "UInt16", 70000), ("int16", "Int16", "nan")],
)  # fmt: skip
def test_nodata_tags_that_no_value_can_be_hide_nothing(tmp_path: Path, dtype: str, name: str, nodata: Any) -> None:
    values = pixels((2, 20, 30), dtype)
    path = virtual(tmp_path / "s.vrt", write_raster(tmp_path / "s.tif", values), name, [nodata, nodata])
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.values, values)
    assert scene.valid.values.all()


@pytest.mark.parametrize("nodata", [[1, 2, 3], [1, None, 3]])
def test_each_band_may_have_its_own_nodata(tmp_path: Path, nodata: list[int | None]) -> None:
    values = pixels((3, 20, 30), "uint8").clip(9)
    values[:, 2], values[0, 5], values[1, 7] = [[1], [2], [3]], 1, 1
    path = virtual(tmp_path / "s.vrt", write_raster(tmp_path / "s.tif", values), "Byte", nodata)
    source = open_source(path)
    assert source.nodata == tuple(nodata)
    expected = np.ones((20, 30), bool)
    expected[2] = None in nodata
    np.testing.assert_array_equal(whole(source).valid, expected)
    np.testing.assert_array_equal(open_scene(path).valid.values, expected)
    np.testing.assert_array_equal(whole(source.select([2, 1])).valid, expected)
    assert source.select([3, 1]).nodata == (3, 1)


@pytest.mark.parametrize(
    ("dtype", "name", "nodata"),
    [("uint64", "UInt64", 2**64 - 1), ("int64", "Int64", 2**63 - 1), ("int64", "Int64", -(2**63)),
     ("uint64", "UInt64", 2**53 + 1)],
)  # fmt: skip
def test_nodata_of_more_bits_than_a_float_has(tmp_path: Path, dtype: str, name: str, nodata: int) -> None:
    values = np.full((2, 20, 30), 5, dtype)
    values[:, 3, 4] = values[0, 5, 6] = nodata
    values[:, 7, 8] = nodata - 1 if nodata > 0 else nodata + 1
    path = virtual(tmp_path / "s.vrt", write_raster(tmp_path / "s.tif", values), name, [nodata, nodata])
    assert np.argwhere(~open_scene(path).valid.values).tolist() == [[3, 4]]


def test_the_largest_float_written_with_few_digits(tmp_path: Path) -> None:
    values = pixels((1, 20, 30), "float32")
    values[0, 3, 4] = np.finfo(np.float32).min
    path = virtual(tmp_path / "s.vrt", write_raster(tmp_path / "s.tif", values), "Float32", ["-3.402823e+38"])
    assert np.argwhere(~open_scene(path).valid.values).tolist() == [[3, 4]]


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("bits", [1, 2, 7, 12])
def test_few_bits_and_both_interleaves(tmp_path: Path, bits: int, interleave: str) -> None:
    values = (pixels((3, 20, 30), "uint16") % 2**bits).astype("uint8" if bits <= 8 else "uint16")
    path = write_raster(tmp_path / "s.tif", values, nbits=bits, interleave=interleave, nodata=0)
    np.testing.assert_array_equal(open_scene(path).values, values)
    np.testing.assert_array_equal(open_scene(path).valid.values, values.any(axis=0))


def test_pixels_that_are_points_lie_where_gdal_has_them(tmp_path: Path) -> None:
    """A file of points says where centres lie; the transform that comes of it has corners."""
    path = write_raster(tmp_path / "s.tif", pixels((1, 20, 30)))
    with rasterio.open(path, "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
    scene = open_scene(path)
    assert scene.rio.transform() == GRID
    assert (float(scene.x[0]), float(scene.y[0])) == GRID * (0.5, 0.5)
