"""Open a scene: any raster, files of one band each, a STAC Item, Zarr, or an array. Nothing is read yet.

`open_scene` returns the lazy DataArray that notebooks use; `open_source` the same scene as what workers read from.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Protocol, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from models.errors import ArgumentError, SceneError, SeveralScenesError
from models.limits import refuse_special
from models.metadata import Radiometry

from ..grid.geobox import Window
from ..grid.xr import coordinates, with_georeference
from .array import ArraySource, array_source, dataset_source
from .array_files import is_netcdf, is_zarr, netcdf_source, zarr_source
from .array_values import BANDS, NODATA_OF_BANDS
from .band_names import common_names, places_of, readings
from .folder import index_of, open_files, open_folder, open_index
from .gdal import file_stamp
from .listing import expand, is_archive
from .products import Product, is_metadata, listing_of, product_of
from .raster import RasterSource
from .resample import RESAMPLINGS, Resampling
from .source import BandNames, NamedSource, Source, find_bands, observed
from .stac import open_item
from .stac_items import StacLike, is_item, is_stac
from .tiled import TiledSource
from .untrusted import UntrustedSource, open_untrusted

SceneLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray | xr.Dataset | StacLike
AnyOpen = RasterSource | TiledSource | ArraySource | UntrustedSource


class LazySource(Source, Protocol):
    """A source whose pixels are read when they are asked for."""

    @property
    def masks(self) -> Any:
        """What narrows what is observed beside nodata; nothing where that is empty."""

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Return where masks let pixels be observed: bool `(y, x)`."""


AnySource = TypeVar("AnySource", bound=Source)
AnyNamed = TypeVar("AnyNamed", bound=NamedSource)
CHUNK, CHUNK_BYTES = 2048, 2**28
UNNAMED = re.compile(r"band_\d+")  # how bands without a name are called


def open_scene(
    scene: SceneLike,
    bands: BandNames | None = None,
    *,
    chunk: int | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    untrusted: bool = False,
) -> xr.DataArray:
    """Open a scene lazily.

    Parameters
    ----------
    scene
        Path or URL (`https://`, `s3://`) of a GeoTIFF, COG, VRT, GTI, JP2, PNG, JPEG or another raster that GDAL reads;
        a list, pattern or folder of files with one band each, or of tiles side by side; Sentinel-2 and Landsat as they
        are delivered, see `products`: a SAFE folder or its zip, a folder of Landsat's files or its tar, or the MTD or
        MTL file; a STAC Item, or a search that found one (`.json`, a URL, or objects of pystac and pystac-client), see
        `stac_items`; a Zarr group (`.zarr`), of version 2 or 3, or a NetCDF file (`.nc`): with one array of dims (band,
        y, x), or one variable of dims (y, x) per band; or a Dataset or DataArray of such. Their axes may be called
        latitude and longitude, and a dim of one time is left out. Coordinates are centres of pixels, or corners where a
        transform among the attributes says so.
    bands
        Names or numbers (from 1) of the bands to take, in this order. Default: all but alpha.
    chunk
        Side of the lazy chunks, in pixels. Default: 2048, less where there are many bands.
    resampling
        How bands of coarser pixels are brought onto the finest grid of those taken: `nearest`, `bilinear`, `cubic`.
    alpha
        Whether bands of rasters that are tagged as alpha are masks, not 0 where observed, or bands as others. Default:
        by their values, at which a bounded look is taken; `notes` say what was decided.
    untrusted
        Decode it in a process of its own, which has no network, sees the scene's folder alone, writes nothing, and is
        ended where it takes too long or too much memory; files of this machine only.

    Returns
    -------
    xarray.DataArray
        Dims (band, y, x), raw values in the file's own dtype, backed by dask: nothing is read yet. Coordinates: band
        names; x and y of pixel centres (row and column for a rotated transform); `spatial_ref`; `valid` (y, x), bool,
        lazy, True = observed. Attributes: `_FillValue`, or `nodata_of_bands` where they differ; `scales`, `offsets`
        and `units` if any; `band_names`, of which these lists are; `notes`, if there is something to know.

    Raises
    ------
    SceneError
        It cannot be opened, or has no such bands.
    """
    return lazy_array(open_source(scene, bands, resampling, alpha, untrusted), chunk)


def lazy_array(source: LazySource | ArraySource, chunk: int | None = None) -> xr.DataArray:
    """Return an open source as `open_scene` does."""
    side = chunk or CHUNK
    while not chunk and side > 64 and side * side * len(source.bands) * source.dtype.itemsize > CHUNK_BYTES:
        side //= 2
    if isinstance(source, ArraySource):
        return _dressed(source.array.chunk({"band": -1, "y": side, "x": side}), source)
    pixels, name = _lazy(source, (-1, side, side)), Path(source.paths[0].partition("?")[0]).stem or "scene"
    array = _dressed(xr.DataArray(pixels, dims=("band", "y", "x"), name=name), source)
    if source.masks:
        valid = array.coords["valid"].data
        array = array.assign_coords(valid=(("y", "x"), valid & _lazy(source, valid.chunks, masks=True)))
    return array


def open_source(
    scene: SceneLike,
    bands: BandNames | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    untrusted: bool = False,
) -> AnyOpen:
    """Open a scene as a source: the same facts as `open_scene`, for reading windows rather than for xarray."""
    if resampling not in RESAMPLINGS:
        raise ArgumentError(f"resampling is {', '.join(RESAMPLINGS)}; received {resampling!r}")
    if untrusted:
        return open_untrusted(_local_paths(scene), bands, resampling, alpha)
    source: AnyOpen
    if bands is not None and opens_by_name(scene, bands):
        if (item := _stac(scene)) is not None:
            source = open_item(item, _names(bands), alpha=alpha)
        else:
            product = _product(_paths(scene)[0])
            source = _open_all(scene, alpha) if product is None else product.open(_names(bands))
    else:
        source = _open_all(scene, alpha)
        source = source if bands is None else take_bands(source, bands)
    return replace(source, resampling=resampling) if isinstance(source, RasterSource) else source


@contextmanager
def advising_index(scene: Any) -> Iterator[None]:
    """Say of paths that are several scenes how they are segmented as one: by an index."""
    try:
        yield
    except SeveralScenesError as error:
        given = [scene] if isinstance(scene, str | os.PathLike) else scene
        if not (isinstance(given, list | tuple) and all(isinstance(one, str | os.PathLike) for one in given)):
            raise
        names = " ".join(quote(os.fspath(one)) for one in given)
        first, _, rest = str(error).partition("\n")
        how = f"{rest}. " if rest else ""
        advice = f"Or, as scenes of a mosaic: `swathe index {names} -o scenes.parquet`, and give scenes.parquet"
        raise SeveralScenesError(f"{first}\n{how}{advice}") from error


def take_bands(source: AnySource, bands: BandNames) -> AnySource:
    """Take bands by name or number (from 1), in the order given, on the finest grid of their own.

    Raises
    ------
    SceneError
        There is none such.
    """
    selected: Source = source.select(bands)
    return selected.on_finest_grid() if isinstance(selected, RasterSource) else selected  # type: ignore[return-value]


def take_named(source: AnyNamed, wanted: Sequence[str]) -> AnyNamed | None:
    """Take bands by their names or common names, in the order given; a note says which were taken for which.

    Returns
    -------
    Of the same kind, or None
        None where not each name has one band, and another.

    Raises
    ------
    SceneError
        The bands cannot be brought onto one grid.
    """
    try:
        places = find_bands(source.all_names, wanted, source.numbers, source.hints)
    except SceneError:
        return None
    if len(set(places)) < len(places):
        return None
    taken = take_bands(source, wanted)
    own = [source.all_names[place] for place in places]
    pairs = [(name, its) for name, its in zip(wanted, own, strict=True) if name.lower() not in map(str.lower, its)]
    if not pairs:
        return taken
    return taken.with_note(f"bands by their common names: {', '.join(f'{name} is {its[0]}' for name, its in pairs)}")


def band_hint(source: NamedSource, wanted: Sequence[str], option: str = "--bands") -> str:
    """Return what to do about bands that cannot be told by their names: numbers, where a sensor would decide them.

    `option` is where they go.
    """
    meant = common_names([(name,) for name in wanted])
    found = {sensor: places_of(roles, meant) for sensor, roles in readings(source.all_names, source.hints).items()}
    sensors = defaultdict[str, list[str]](list)
    for sensor, places in found.items():
        if places:
            sensors[",".join(str(source.numbers[place]) for place in places)].append(sensor)
    if not sensors:
        return f"Say which they are, names or numbers in that order, with {option}"
    form = "{} {}" if option.startswith("-") else "{} = [{}]"
    ways = "; ".join(
        f"{form.format(option, numbers)} if it is of {' or '.join(those)}" for numbers, those in sensors.items()
    )
    return f"Such names mean other bands on other sensors: give {ways}"


def _open_all(scene: SceneLike, alpha: bool | None) -> AnyOpen:
    if isinstance(scene, xr.DataArray):
        return array_source(scene)
    if isinstance(scene, xr.Dataset):
        return dataset_source(scene)
    if (item := _stac(scene)) is not None:
        return open_item(item, alpha=alpha)
    paths = _paths(scene)
    if len(paths) == 1 and (source := _open_one(paths[0], alpha)):
        return source
    whole = [path for path in paths if is_item(path) or is_archive(path) or is_metadata(path)]
    if whole and len(paths) > 1:
        others = len(paths) - 1
        raise SeveralScenesError(
            f"a scene is one STAC Item, or files, or one product; received {whole[0]} and {others} more"
        )
    return open_files([path for pattern in paths for path in expand(pattern)], alpha=alpha)


def _open_one(path: str, alpha: bool | None) -> AnyOpen | None:
    """Open what is more than rasters by its path: None for rasters."""
    if is_zarr(path):
        return zarr_source(path)
    if is_netcdf(path):
        try:
            return netcdf_source(path)
        except SceneError:
            with suppress(SceneError):  # GDAL may read what has other dims
                return open_files([path], alpha=alpha)
            raise
    if index := index_of(path):
        return open_index(index, alpha=alpha)
    if listing := listing_of(path):
        product = product_of(listing)
        return open_folder(listing, alpha=alpha) if product is None else product.open()
    return open_item(path, alpha=alpha) if is_item(path) else None


def _product(path: str) -> Product | None:
    listing = None if is_zarr(path) else listing_of(path)
    return None if listing is None else product_of(listing)


def opens_by_name(scene: SceneLike, bands: BandNames) -> bool:
    """Whether a scene is a product or a STAC Item, and bands are named and not numbered: only their files are opened.

    Numbers are those of what is shown where no bands are asked for.
    """
    if any(name.isdecimal() for name in _names(bands)) or isinstance(scene, xr.DataArray | xr.Dataset):
        return False
    if _stac(scene) is not None:
        return True
    return len(paths := _paths(scene)) == 1 and _product(paths[0]) is not None


def _stac(scene: Any) -> Any:
    """Return what names STAC Items, or is some; None for other scenes."""
    if isinstance(scene, xr.DataArray | xr.Dataset):
        return None
    if isinstance(scene, list | tuple) and len(scene) == 1:
        scene = scene[0]
    if isinstance(scene, str | os.PathLike) and is_metadata(os.fspath(scene)):  # as Landsat's MTL.json
        return None
    return scene if is_stac(scene) else None


def _names(bands: BandNames) -> list[str]:
    return [str(band) for band in ([bands] if isinstance(bands, str | int) else bands)]


def _local_paths(scene: Any) -> list[str]:
    """Return what is opened apart: paths, which nobody here looks into."""
    if isinstance(scene, xr.DataArray | xr.Dataset) or not isinstance(scene, str | os.PathLike | list | tuple):
        raise ArgumentError("untrusted scenes are files: give paths; what is in memory was decoded already")
    return _paths(scene)


def _paths(scene: Any) -> list[str]:
    if isinstance(scene, str | os.PathLike):
        scene = [scene]
    if not isinstance(scene, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in scene):
        raise SceneError(
            "a scene is a path or URL, a list of them, a DataArray or Dataset of xarray, or an Item of pystac; "
            f"received {type(scene).__name__}"
        )
    paths = [os.path.expanduser(os.fspath(path).removeprefix("file://")) for path in scene]
    for path in paths:
        refuse_special(path, SceneError)
    return paths


@dataclass(frozen=True)
class _WindowReader:
    """What dask slices: reads a window of a source when asked, and not before; its masks, or its pixels."""

    source: LazySource
    masks: bool
    shape: tuple[int, ...]
    ndim: int
    dtype: np.dtype[Any]

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        (top, bottom, rows), (left, right, columns) = map(_span, key[-2:], self.shape[-2:])
        window = Window(top, bottom, left, right)
        part = self.source.read_masks(window) if self.masks else self.source.read(window).data
        for axis, taken in reversed([*enumerate(key[:-2]), (part.ndim - 2, rows), (part.ndim - 1, columns)]):
            part = part[(slice(None),) * axis + (taken,)]
        return part


def _span(index: Any, size: int) -> tuple[int, int, Any]:
    """Return the pixels of one axis that an index of numpy's needs, from and to, and what is to be taken of them."""
    wanted = np.arange(size)[index]
    start, stop = int(wanted.min()), int(wanted.max()) + 1
    return start, stop, slice(None, None, index.step) if isinstance(index, slice) else wanted - start


def _lazy(source: LazySource, chunks: tuple[Any, ...], *, masks: bool = False) -> da.Array:
    shape = source.geobox.shape if masks else (len(source.bands), *source.geobox.shape)
    reader = _WindowReader(source, masks, shape, len(shape), np.dtype(bool) if masks else source.dtype)
    token = tokenize(source, [file_stamp(path) for path in source.paths])
    name = f"swathe-{'masks' if masks else 'pixels'}-{token}"
    return da.from_array(reader, chunks=chunks, name=name, meta=np.empty((0,) * reader.ndim, reader.dtype))


def _dressed(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Return an array with the coordinates and attributes that every scene has."""
    geobox, nodata = source.geobox, source.nodata
    array = array.assign_coords({"band": list(source.bands), **coordinates(geobox)})
    if not geobox.rectilinear:  # so that a part of it still knows where it lies
        rows, columns = (np.arange(0.5, size) for size in geobox.shape)
        array = array.assign_coords(row=("y", rows), column=("x", columns))
    array = with_georeference(array, geobox)
    if "valid" not in array.coords:
        valid = array.data.map_blocks(observed, nodata=nodata, drop_axis=0, dtype=bool, meta=np.empty((0, 0), bool))
        array = array.assign_coords(valid=(("y", "x"), valid))
    array.attrs.pop("nodata", None)  # of rioxarray's names `_FillValue` comes first
    if len(set(map(repr, nodata))) > 1:
        array.attrs |= {NODATA_OF_BANDS: list(nodata), BANDS: list(source.bands)}
    elif nodata[0] is not None and "_FillValue" not in array.encoding:
        array.attrs["_FillValue"] = nodata[0]
    for name in ("scale_factor", "add_offset"):  # of all bands; below, of each
        array.attrs.pop(name, None)
    if any(source.radiometry):
        told = [band or Radiometry() for band in source.radiometry]
        array.attrs.update(scales=[band.scale for band in told], offsets=[band.offset for band in told])
        array.attrs[BANDS] = list(source.bands)
        if len(units := {band.unit for band in told}) == 1 and units != {""}:
            array.attrs["units"] = told[0].unit
    if source.notes:
        array.attrs["notes"] = list(source.notes)
    return array
