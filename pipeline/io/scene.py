"""Open a scene: any raster, files of one band each, a STAC Item, Zarr, or an array. Nothing is read yet.

`open_scene` gives the lazy DataArray that notebooks use; `open_source` the same scene as what workers read from. Knows
no networks.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from models.errors import SceneError

from ..grid.geobox import GeoBox, Window
from ..grid.xr import coordinates, with_georeference
from .array import NODATA_OF_BANDS, ArraySource, array_source, is_zarr, zarr_source
from .naming import expand
from .raster import open_rasters
from .source import RasterSource, Source, observed
from .stac import is_item, open_item

SceneLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray
BandNames = Sequence[str | int]
Index = Any  # of one axis, as numpy takes it
CHUNK, CHUNK_BYTES = 2048, 2**28


def open_scene(scene: SceneLike, bands: BandNames | None = None, *, chunk: int | None = None) -> xr.DataArray:
    """Open a scene lazily.

    Parameters
    ----------
    scene
        Path or URL (`https://`, `s3://`) of a GeoTIFF, COG, VRT, GTI, JP2, PNG, JPEG or another raster that GDAL reads;
        a list or pattern of files with one band each; a STAC Item (`.json`), see `stac`; a Zarr group (`.zarr`) with
        one array of dims (band, y, x); or a DataArray of those dims.
    bands
        Names or numbers (from 1) of the bands to take, in this order. Default: all but alpha.
    chunk
        Side of the lazy chunks, in pixels. Default: 2048, less where there are many bands.

    Returns
    -------
    xarray.DataArray
        Dims (band, y, x), raw values in the file's own dtype, backed by dask: nothing is read yet. Coordinates: band
        names; x and y of pixel centres (row and column for a rotated transform); `spatial_ref`; `valid` (y, x), bool,
        lazy, True = observed. Attributes: `_FillValue`, or `nodata_of_bands` where they differ; `scales` and `offsets`
        if any; `notes`, if there is something to know.

    Raises
    ------
    SceneError
        It cannot be opened, or has no such bands.
    """
    source = open_source(scene, bands)
    chunk = chunk or _chunk(source)
    if isinstance(source, ArraySource):
        return _dressed(source.array.chunk({"band": -1, "y": chunk, "x": chunk}), source)
    data = _lazy(_Lazy(source), (-1, chunk, chunk))
    return _dressed(xr.DataArray(data, dims=("band", "y", "x"), name=_title(scene)), source)


def _chunk(source: Source) -> int:
    """Give the side of chunks: a power of two, so that neither a chunk of many bands nor one of few is too large."""
    side = CHUNK
    while side > 64 and side * side * len(source.bands) * source.dtype.itemsize > CHUNK_BYTES:
        side //= 2
    return side


def open_source(scene: SceneLike, bands: BandNames | None = None) -> Source:
    """Open a scene as a source: the same facts as `open_scene`, for reading windows rather than for xarray."""
    if bands is not None and opens_by_name(scene, bands):
        return open_item(_paths(scene)[0], _names(bands))
    source = array_source(scene) if isinstance(scene, xr.DataArray) else _open_paths(_paths(scene))
    return source if bands is None else select(source, bands)


def opens_by_name(scene: SceneLike, bands: BandNames) -> bool:
    """Whether a scene is a STAC Item, whose bands need not lie on one grid, and bands are named and not numbered.

    Numbers are those of what is shown where no bands are asked for.
    """
    if isinstance(scene, xr.DataArray) or any(name.isdecimal() for name in _names(bands)):
        return False
    return len(paths := _paths(scene)) == 1 and is_item(paths[0])


def _names(bands: BandNames) -> list[str]:
    return [str(band) for band in ([bands] if isinstance(bands, str | int) else bands)]


def _paths(scene: Any) -> list[str]:
    if isinstance(scene, str | os.PathLike):
        scene = [scene]
    if not isinstance(scene, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in scene):
        raise SceneError(
            f"a scene is a path or URL, a list of them, or an xarray DataArray; received {type(scene).__name__}"
            + (": use .to_dataarray('band')" if isinstance(scene, xr.Dataset) else "")
        )
    return [os.fspath(path) for path in scene]


def _open_paths(paths: list[str]) -> Source:
    if len(paths) == 1 and is_zarr(paths[0]):
        return zarr_source(paths[0])
    if any(is_item(path) for path in paths):
        if len(paths) > 1:
            raise SceneError(f"a scene is one STAC Item, or files; received {len(paths)} paths, {paths[0]} first")
        return open_item(paths[0])
    return open_rasters([path for pattern in paths for path in expand(pattern)])


def select(source: Source, bands: BandNames) -> Source:
    """Take bands by name or number, in the order given.

    Raises
    ------
    SceneError
        No such band; the message lists those there are.
    """
    wanted = [bands] if isinstance(bands, str | int) else bands
    places = [_place(source, band) for band in wanted]
    if not places:
        raise SceneError("no bands asked for")
    if isinstance(source, RasterSource):
        layers = tuple(source.layers[place] for place in places)
        paths = {layer.path for layer in layers}  # a mask beside a band that is not taken says nothing of the others
        return replace(source, layers=layers, masks=tuple(mask for mask in source.masks if mask.path in paths))
    if isinstance(source, ArraySource):
        return replace(
            source,
            array=source.array.isel(band=places),
            bands=tuple(source.bands[place] for place in places),
            nodata=tuple(source.nodata[place] for place in places),
        )
    raise TypeError(f"bands of a {type(source).__name__} cannot be selected")


def _place(source: Source, band: str | int) -> int:
    names = source.bands
    aliases = [layer.aliases for layer in source.layers] if isinstance(source, RasterSource) else [()] * len(names)
    if isinstance(band, str):
        for fold in (str, str.lower):  # exact first: B8a and B8A may be two bands
            answers = ({fold(name) for name in (own, *others)} for own, others in zip(names, aliases, strict=True))
            found = [place for place, answered in enumerate(answers) if fold(band) in answered]
            if len(found) == 1:
                return found[0]
    if str(band).isdecimal() and 1 <= int(band) <= len(names):
        return int(band) - 1
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise SceneError(f"the scene has no band {band!r}; it has {len(names)}: {shown[:400]}")


def _title(scene: SceneLike) -> str:
    first = scene if isinstance(scene, str | os.PathLike) else next(iter(scene), "scene")
    return Path(str(first)).stem or "scene"


class _Lazy:
    """What dask slices: reads a window of a source when asked, and not before."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape: tuple[int, ...] = (len(source.bands), *source.geobox.shape)
        self.dtype: np.dtype[Any] = source.dtype
        self.ndim = 3

    def __getitem__(self, key: tuple[Index, ...]) -> NDArray[Any]:
        (top, bottom, rows), (left, right, columns) = map(_span, key[-2:], self.shape[-2:])
        part = self._read(Window(top, bottom, left, right))
        for axis, taken in reversed([*enumerate(key[:-2]), (part.ndim - 2, rows), (part.ndim - 1, columns)]):
            part = part[(slice(None),) * axis + (taken,)]
        return part

    def _read(self, window: Window) -> NDArray[Any]:
        return self.source.read(window).data


class _LazyMask(_Lazy):
    """As `_Lazy`, for the masks and alpha bands of rasters, apart from nodata."""

    def __init__(self, source: RasterSource) -> None:
        super().__init__(source)
        self.masks = source.read_masks
        self.shape, self.ndim, self.dtype = source.geobox.shape, 2, np.dtype(bool)

    def _read(self, window: Window) -> NDArray[Any]:
        return self.masks(window)


def _span(index: Index, size: int) -> tuple[int, int, Index]:
    """Give the pixels of one axis that an index needs, from and to, and what is to be taken of them."""
    wanted = np.arange(size)[index]
    start, stop = int(wanted.min()), int(wanted.max()) + 1
    return start, stop, slice(None, None, index.step) if isinstance(index, slice) else wanted - start


def _lazy(reader: _Lazy, chunks: tuple[Any, ...]) -> da.Array:
    stamp = reader.source.stamp() if isinstance(reader.source, RasterSource) else None
    name = f"swathe-{type(reader).__name__.strip('_').lower()}-{tokenize(repr(reader.source), stamp)}"
    meta = np.empty((0,) * reader.ndim, reader.dtype)
    return da.from_array(reader, chunks=chunks, name=name, meta=meta)


def _dressed(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Give an array the coordinates and attributes that every scene has."""
    geobox, nodata = source.geobox, source.nodata
    array = array.assign_coords({"band": list(source.bands), **coordinates(geobox), **_places(geobox)})
    array = with_georeference(array, geobox)
    if "valid" not in array.coords:
        array = array.assign_coords(valid=(("y", "x"), _lazy_valid(array, source)))
    array.attrs.pop("nodata", None)  # of rioxarray's names `_FillValue` comes first
    if len(set(map(repr, nodata))) > 1:
        array.attrs[NODATA_OF_BANDS] = list(nodata)
    elif nodata[0] is not None and "_FillValue" not in array.encoding:
        array.attrs["_FillValue"] = nodata[0]
    if source.notes:
        array.attrs["notes"] = list(source.notes)
    if isinstance(source, RasterSource) and any((b.scale, b.offset) != (1.0, 0.0) for b in source.layers):
        array.attrs["scales"] = [layer.scale for layer in source.layers]
        array.attrs["offsets"] = [layer.offset for layer in source.layers]
    return array


def _lazy_valid(array: xr.DataArray, source: Source) -> da.Array:
    valid = array.data.map_blocks(observed, nodata=source.nodata, drop_axis=0, dtype=bool, meta=np.empty((0, 0), bool))
    if isinstance(source, RasterSource) and source.masks:
        valid &= _lazy(_LazyMask(source), valid.chunks)
    return valid


def _places(geobox: GeoBox) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """Give rows and columns of pixel centres of a rotated scene, so that a part of it still knows where it lies."""
    if geobox.rectilinear:
        return {}
    return {
        "row": ("y", np.arange(0.5, geobox.height)),
        "column": ("x", np.arange(0.5, geobox.width)),
    }


__all__ = ["open_scene", "open_source", "select"]
