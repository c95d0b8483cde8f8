"""A scene written in each way that the field stores it gives the same map, nodata and position; or it is refused.

The truth comes from arrays in memory: the engine once over the whole scene, without any of the pipeline's files.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from helpers import pixels, write_item, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.shutil import copy as copy_raster
from test_exact import class_map_of, reference

from models import Bundle, SwatheError
from models.encoding import NODATA
from models.engine import EngineSpec
from pipeline import open_maps, run, segment
from pipeline.io.array import array_source

pytestmark = [
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning:zarr"),
    pytest.mark.filterwarnings("ignore::UserWarning:zarr"),
]
NAMES = ("red", "green", "blue")
UTM, DEGREES = "EPSG:32736", "EPSG:4326"
GRIDS = {
    "north-up": (Affine(10, 0, 500_000, 0, -10, 9_000_000), UTM),
    "south-up": (Affine(10, 0, 500_000, 0, 10, 8_000_000), UTM),
    "mirrored": (Affine(-10, 0, 500_000, 0, -10, 9_000_000), UTM),
    "rotated": (Affine(8, 3, 500_000, 3, -8, 9_000_000), UTM),
    "across 180": (Affine(0.001, 0, 179.99, 0, -0.001, -16), DEGREES),
    "from 0 to 360": (Affine(0.001, 0, 183.2, 0, -0.001, 12), DEGREES),
    "fine": (Affine(0.3, 0, 500_000.1, 0, -0.3, 9_000_000.7), UTM),
}
SPEC = EngineSpec(name="torch", device="cpu", threads=1)


@dataclass(repr=False)
class Scene:
    """Values `(band, y, x)`, which of them are missing, and how nodata says so: by value, or by a mask."""

    values: np.ndarray
    missing: np.ndarray
    nodata: tuple[float | None, ...]
    grid: str
    halved: bool  # the last band is made of squares of 2 x 2 pixels

    def __repr__(self) -> str:
        share = f"{self.missing.mean():.0%} missing"
        return f"{self.values.dtype} {self.values.shape}, {self.grid}, nodata {self.nodata}, {share}, {self.halved}"

    @property
    def transform(self) -> Affine:
        return GRIDS[self.grid][0]

    @property
    def crs(self) -> str:
        return GRIDS[self.grid][1]

    @property
    def masked(self) -> bool:
        return self.nodata == (None,) * 3 and bool(self.missing.any()) and self.values.dtype.kind != "f"

    @property
    def of_one_nodata(self) -> bool:
        return len(set(map(repr, self.nodata))) == 1

    @property
    def observed(self) -> np.ndarray:
        return ~self.missing.all(axis=0)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    dtype, seed = draw(st.sampled_from(["uint16", "uint8", "int16", "float32"])), draw(st.integers(0, 99))
    shape, halved = (draw(st.integers(9, 40)), draw(st.integers(9, 40))), draw(st.booleans())
    grid = draw(st.sampled_from(list(GRIDS)))
    if halved:
        shape = (shape[0] * 2, shape[1] * 2)
    values, random = pixels((3, *shape), dtype, seed), np.random.default_rng(seed)
    if dtype == "uint16":
        values = values.clip(0, 4095)
    kinds = {"none": (None,) * 3, "mask": (None,) * 3, "one": (7.0,) * 3, "each": (3.0, 4.0, 5.0), "zero": (0.0,) * 3}
    kind = draw(st.sampled_from([*kinds, *(["nan", "hidden nan"] if dtype == "float32" else [])]))
    nodata = {**kinds, "nan": (np.nan,) * 3, "hidden nan": (None,) * 3}[kind]
    missing = np.zeros(values.shape, bool)
    if kind != "none":
        top, left = (int(n) for n in random.integers(0, 9, 2))
        missing[:, top : top + 12, left : left + 7] = True
    if kind not in ("none", "mask"):
        missing |= random.random(values.shape) < 0.05
    if kind == "mask" and dtype == "float32":
        missing[:] = False
    for band, gone, sentinel in zip(values, missing, nodata, strict=True):
        if sentinel is not None:
            band[band == sentinel] += 20
        band[gone] = np.nan if kind == "hidden nan" else 9 if sentinel is None else sentinel
    if halved:
        values[2], missing[2] = (one[::2, ::2].repeat(2, 0).repeat(2, 1) for one in (values[2], missing[2]))
    if kind == "mask":  # hides pixels, and not samples
        missing[:] = missing.all(axis=0)
    return Scene(values, missing, nodata, grid, halved)


# --- ways: what is written, and given to the verbs --------------------------------------------------------------------


def tif(path: Path, scene: Scene, **profile: Any) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    told = {"crs": scene.crs, "transform": scene.transform, "descriptions": NAMES, "photometric": "minisblack"}
    return write_raster(path, scene.values, **{**told, "nodata": scene.nodata[0], **profile})


def tiff(**profile: Any) -> Callable[[Path, Scene], Any]:
    return lambda folder, scene: tif(folder / "s.tif", scene, **profile)


def copied(driver: str, ending: str, **options: Any) -> Callable[[Path, Scene], Any]:
    def write(folder: Path, scene: Scene) -> Path:
        copy_raster(tif(folder / "s.tif", scene), folder / f"c.{ending}", driver=driver, **options)
        return folder / f"c.{ending}"

    return write


def masked(inside: bool) -> Callable[[Path, Scene], Any]:
    def write(folder: Path, scene: Scene) -> Path:
        path = tif(folder / "s.tif", scene)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside), rasterio.open(path, "r+") as file:
            file.write_mask(scene.observed)
        return path

    return write


def with_alpha(folder: Path, scene: Scene) -> Path:
    most = np.iinfo(scene.values.dtype).max
    alpha = np.where(scene.observed, most, 0).astype(scene.values.dtype)
    path = folder / "s.tif"
    told = {"crs": scene.crs, "transform": scene.transform, "photometric": "minisblack"}
    write_raster(path, np.concatenate([scene.values, alpha[None]]), **told, descriptions=(*NAMES, "alpha"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:3], ColorInterp.alpha]
    return path


def scaled(folder: Path, scene: Scene) -> Path:
    path = tif(folder / "s.tif", scene)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    return path


def files(folder: Path, scene: Scene, *, said: bool = True, halves: bool = False) -> list[Path]:
    """One file per band, with its own nodata; the last at half the resolution."""
    paths = []
    for number, name in enumerate(NAMES):
        step = 2 if halves and number == 2 else 1
        told = {"crs": scene.crs, "transform": scene.transform * Affine.scale(step), "descriptions": (name,)}
        nodata = scene.nodata[number] if said else None
        values = scene.values[[number], ::step, ::step]
        paths.append(write_raster(folder / f"s_{name}.tif", values, **told, nodata=nodata))
    return paths


def vrt(folder: Path, scene: Scene) -> Path:
    """Each band with its own nodata, as no GeoTIFF has it."""
    kinds = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32"}
    layers = ""
    for number, path in enumerate(files(folder, scene, said=False)):
        nodata = scene.nodata[number]
        layers += (
            f'<VRTRasterBand dataType="{kinds[scene.values.dtype.name]}" band="{number + 1}">'
            f"<Description>{NAMES[number]}</Description>"
            + ("" if nodata is None else f"<NoDataValue>{nodata}</NoDataValue>")
            + f'<SimpleSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename></SimpleSource>'
            "</VRTRasterBand>"
        )
    height, width = scene.observed.shape
    place = ", ".join(map(repr, scene.transform.to_gdal()))
    about = f"<SRS>{scene.crs}</SRS><GeoTransform>{place}</GeoTransform>"
    (folder / "s.vrt").write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">{about}{layers}</VRTDataset>'
    )
    return folder / "s.vrt"


def tiles(folder: Path, scene: Scene) -> Path:
    middle = scene.values.shape[2] // 2
    for name, start, part in (("a", 0, np.s_[..., :middle]), ("b", middle, np.s_[..., middle:])):
        write_raster(
            _made(folder / "tiles") / f"{name}.tif",
            np.ascontiguousarray(scene.values[part]),
            crs=scene.crs,
            transform=scene.transform * Affine.translation(start, 0),
            nodata=scene.nodata[0],
            descriptions=NAMES,
            photometric="minisblack",
        )
    return folder / "tiles"


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def item(folder: Path, scene: Scene, *, halves: bool = False) -> Path:
    """One asset per band, whose nodata the Item alone tells."""
    assets = {}
    for number, path in enumerate(files(folder, scene, said=False, halves=halves)):
        nodata = scene.nodata[number]
        told = [{} if nodata is None else {"nodata": "nan" if np.isnan(nodata) else nodata}]
        assets[NAMES[number]] = {"href": path.name, "type": "image/tiff", "roles": ["data"], "raster:bands": told}
    return write_item(folder / "item.json", assets)


def array(folder: Path | None, scene: Scene, *, corners: bool = False) -> xr.DataArray:
    """As rioxarray has it; or with upper left corners, as stackstac."""
    height, width = scene.observed.shape
    made = xr.DataArray(scene.values, dims=("band", "y", "x"), coords={"band": list(NAMES)}, name="scene")
    where, shift = scene.transform, 0.0 if corners else 0.5
    if not (where.b or where.d):
        x, y = where.c + where.a * (np.arange(width) + shift), where.f + where.e * (np.arange(height) + shift)
        made = made.assign_coords(x=x, y=y)
    if corners:
        made.attrs |= {"transform": where, "crs": scene.crs.lower(), "spec": SimpleNamespace(transform=where)}
    else:
        made = made.rio.write_crs(scene.crs)
        made = made.rio.write_transform(where) if where.b or where.d else made
    if scene.of_one_nodata and scene.nodata[0] is not None:
        made.attrs["_FillValue"] = scene.values.dtype.type(scene.nodata[0])
    elif not scene.of_one_nodata:
        made.attrs["nodata_of_bands"] = list(scene.nodata)
    return made.assign_coords(valid=(("y", "x"), scene.observed)) if scene.masked else made


def dataset(folder: Path | None, scene: Scene) -> xr.Dataset:
    """One variable per band."""
    whole = array(None, scene)
    made = whole.drop_attrs().to_dataset("band")
    for name, sentinel in zip(NAMES, scene.nodata, strict=True):
        if sentinel is not None:
            made[name].attrs["_FillValue"] = scene.values.dtype.type(sentinel)
    if "spatial_ref" in whole.coords:
        made["spatial_ref"].attrs.update(whole.spatial_ref.attrs)
    return made


def written(made: Callable[[None, Scene], Any], version: int | None) -> Callable[[Path, Scene], Path]:
    def write(folder: Path, scene: Scene) -> Path:
        held = made(None, scene)
        held = held.to_dataset() if isinstance(held, xr.DataArray) else held
        if version is None:
            held.to_netcdf(folder / "s.nc", engine="scipy")
            return folder / "s.nc"
        held.to_zarr(folder / "s.zarr", zarr_format=version, consolidated=version == 2)
        return folder / "s.zarr"

    return write


def in_degrees(folder: Path, scene: Scene) -> xr.Dataset:
    return dataset(None, scene).rename(x="lon", y="lat").expand_dims(time=1)


def one(scene: Scene) -> bool:
    return scene.of_one_nodata and not scene.masked


def straight(scene: Scene) -> bool:
    return scene.grid != "rotated"


def north_up(scene: Scene) -> bool:
    return scene.transform.a > 0 > scene.transform.e and straight(scene)


def plain(scene: Scene) -> bool:
    return not scene.masked


def whole_numbers(scene: Scene) -> bool:
    return scene.values.dtype.kind != "f"


Way = tuple[Callable[[Path, Scene], Any], Callable[[Scene], bool]]
WAYS: dict[str, Way] = {
    "pixel-interleaved": (tiff(interleave="pixel"), one),
    "band-interleaved": (tiff(interleave="band", compress="deflate"), one),
    "tiled BigTIFF": (tiff(tiled=True, blockxsize=16, blockysize=32, bigtiff="yes", compress="lzw", predictor=2), one),
    "12 bits": (tiff(nbits=12), lambda s: one(s) and s.values.dtype == np.uint16),
    "scale and offset in tags": (scaled, one),
    "COG": (copied("COG", "tif", blocksize=128), lambda s: one(s) and north_up(s)),
    "JPEG 2000": (
        copied("JP2OpenJPEG", "jp2", quality="100", reversible="yes"),
        lambda s: one(s) and whole_numbers(s) and s.transform.e < 0,
    ),
    "Erdas": (copied("HFA", "img"), lambda s: one(s) and north_up(s)),
    "mask inside": (masked(True), lambda s: s.masked),
    "mask beside": (masked(False), lambda s: s.masked),
    "alpha": (with_alpha, lambda s: s.masked),
    "VRT": (vrt, plain),
    "files": (files, plain),
    "files of two resolutions": (lambda f, s: files(f, s, halves=True), lambda s: plain(s) and s.halved),
    "tiles in a folder": (tiles, lambda s: one(s) and north_up(s)),
    "STAC Item": (item, plain),
    "STAC Item of two resolutions": (lambda f, s: item(f, s, halves=True), lambda s: plain(s) and s.halved),
    "pystac": (lambda f, s: pystac.ItemCollection([pystac.Item.from_file(str(item(f, s)))]), plain),
    "DataArray": (array, lambda s: True),
    "DataArray of dask": (lambda f, s: array(f, s).chunk(x=13, y=7, band=1), lambda s: True),
    "DataArray with corners": (lambda f, s: array(f, s, corners=True), north_up),
    "Dataset": (dataset, lambda s: True),
    "Dataset of dask": (lambda f, s: dataset(f, s).chunk(x=13, y=7), lambda s: True),
    "Dataset in degrees": (in_degrees, straight),
    "Zarr 2": (written(array, 2), one),
    "Zarr 3": (written(array, 3), one),
    "Zarr 2, a variable per band": (written(dataset, 2), plain),
    "Zarr 3, a variable per band": (written(dataset, 3), plain),
    "NetCDF": (written(array, None), lambda s: one(s) and s.values.dtype.name in ("int16", "float32")),
    "NetCDF, a variable per band": (
        written(dataset, None),
        lambda s: plain(s) and s.values.dtype.name in ("int16", "float32"),
    ),
}


# --- the same answer --------------------------------------------------------------------------------------------------


def check(scene: Scene, maps: xr.Dataset, bundle: Bundle) -> None:
    expected = class_map_of(reference(scene.values, scene.missing, bundle, SPEC))
    assert ((expected == NODATA) == ~scene.observed).all()
    np.testing.assert_array_equal(maps.class_map.values, expected)
    found = array_source(maps.class_map).geobox
    assert found.transform is not None
    assert maps.rio.crs == rasterio.crs.CRS.from_user_input(scene.crs)
    corners = [(0, 0), (scene.values.shape[2], 0), (0, scene.values.shape[1])]
    for corner in corners:
        np.testing.assert_allclose(~scene.transform * (found.transform * corner), corner, rtol=0, atol=1e-4)


def bundle_for(scene: Scene, bundle_of: Callable[..., Bundle]) -> Bundle:
    return bundle_of("simple-unet", bands=3, dtype=scene.values.dtype.name)


@settings(max_examples=1)
@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
def test_the_same_map_from_every_way(way: str, data: st.DataObject, bundle_of: Any, tmp_path: Path) -> None:
    write, fits = WAYS[way]
    scene = data.draw(scenes().filter(fits))
    folder, bundle = Path(tempfile.mkdtemp(dir=tmp_path)), bundle_for(scene, bundle_of)
    check(scene, segment(write(folder, scene), bundle, engine="torch", threads=1).compute(), bundle)


@pytest.mark.slow
@settings(max_examples=30)
@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
def test_the_same_store_from_every_way(
    way: str, data: st.DataObject, bundle_of: Any, tmp_path: Path, client: Any
) -> None:
    """As above, through `run`, in several blocks."""
    write, fits = WAYS[way]
    scene = data.draw(scenes().filter(fits))
    folder, bundle = Path(tempfile.mkdtemp(dir=tmp_path)), bundle_for(scene, bundle_of)
    run(write(folder, scene), bundle, folder / "o.zarr", client=client, show=False, engine="torch", threads=1, block=24)
    with open_maps(folder / "o.zarr") as maps:
        check(scene, maps, bundle)


def test_what_these_ways_cannot_say_is_refused(bundle_of: Any, tmp_path: Path) -> None:
    """NetCDF 4 without a library for it is read by GDAL, one variable at a time."""
    values = pixels((3, 20, 20))
    scene = Scene(values, np.zeros(values.shape, bool), (None,) * 3, "north-up", False)
    path = copied("netCDF", "nc", FORMAT="NC4")(tmp_path, scene)
    with pytest.raises(SwatheError, match="3 subdatasets"):
        segment(path, bundle_for(scene, bundle_of))
