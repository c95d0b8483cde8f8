"""Open a scene: any raster, files of one band each, Zarr, or an array that is there already. Nothing is read yet.

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
from affine import Affine
from numpy.typing import NDArray

from models.errors import SceneError

from .arrays import ArraySource
from .geobox import GeoBox, Window
from .rasters import expand, open_rasters
from .source import Pixels, RasterSource, Source, observed

SceneLike = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.DataArray
BandNames = Sequence[str | int]
CHUNK = 2048


def open_scene(scene: SceneLike, bands: BandNames | None = None, *, chunk: int = CHUNK) -> xr.DataArray:
    """Open a scene lazily.

    Parameters
    ----------
    scene
        Path or URL (`https://`, `s3://`) of a GeoTIFF, COG, VRT, GTI, JP2, PNG, JPEG or another raster that GDAL reads;
        a list or pattern of files with one band each; a Zarr group (`.zarr`) with one array of dims (band, y, x); or a
        DataArray of those dims.
    bands
        Names or numbers (from 1) of the bands to take, in this order. Default: all but alpha.
    chunk
        Side of the lazy chunks, in pixels.

    Returns
    -------
    xarray.DataArray
        Dims (band, y, x), raw values in the file's own dtype, backed by dask: nothing is read yet. Coordinates: band
        names; x and y of pixel centres (none for a rotated transform); `spatial_ref`; `valid` (y, x), bool, lazy, True =
        observed. Attributes: `nodata` per band, `_FillValue` where all bands share one, `scales` and `offsets`.

    Raises
    ------
    SceneError
        It cannot be opened, or has no such bands.
    """
    source = open_source(scene, bands)
    if isinstance(source, ArraySource):
        return _dressed(source.array.chunk({"y": chunk, "x": chunk}), source)
    data = _lazy(source, chunk)
    return _dressed(xr.DataArray(data, dims=("band", "y", "x"), name=_title(scene)), source)


def open_source(scene: SceneLike, bands: BandNames | None = None) -> Source:
    """Open a scene as a source: the same facts as `open_scene`, for reading windows rather than for xarray."""
    if isinstance(scene, xr.DataArray):
        source: Source = array_source(scene)
    else:
        source = _open_paths(
            [os.fspath(scene)] if isinstance(scene, str | os.PathLike) else [os.fspath(s) for s in scene]
        )
    return source if bands is None else select(source, bands)


def _open_paths(paths: list[str]) -> Source:
    if len(paths) == 1 and paths[0].rstrip("/").endswith(".zarr"):
        return array_source(_open_zarr(paths[0]))
    return open_rasters([path for pattern in paths for path in expand(pattern)])


def select(source: Source, bands: BandNames) -> Source:
    """Take bands by name or number, in the order given.

    Raises
    ------
    SceneError
        No such band; the message lists those there are.
    """
    places = [_place(source.bands, band) for band in bands]
    if not places:
        raise SceneError("no bands asked for")
    if isinstance(source, RasterSource):
        return replace(source, layers=tuple(source.layers[place] for place in places))
    if isinstance(source, ArraySource):
        return ArraySource(
            source.array.isel(band=places),
            source.geobox,
            tuple(source.bands[place] for place in places),
            tuple(source.nodata[place] for place in places),
        )
    raise TypeError(f"bands of a {type(source).__name__} cannot be selected")


def _place(names: Sequence[str], band: str | int) -> int:
    if isinstance(band, str):
        for fold in (str, str.lower):  # exact first: B8a and B8A may be two bands
            found = [place for place, name in enumerate(names) if fold(name) == fold(band)]
            if len(found) == 1:
                return found[0]
    if str(band).isdecimal() and 1 <= int(band) <= len(names):
        return int(band) - 1
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise SceneError(f"the scene has no band {band!r}; it has {len(names)}: {shown}")


def array_source(array: xr.DataArray) -> ArraySource:
    """Take a DataArray of dims (band, y, x) or (y, x) as a source; its own CRS, transform, nodata and `valid` count."""
    if array.ndim == 2:
        array = array.expand_dims("band")
    if set(array.dims) != {"band", "y", "x"}:
        raise SceneError(f"a scene has the dims (band, y, x); received {tuple(array.dims)}")
    array = array.transpose("band", "y", "x")
    if array.dtype.kind not in "uif":
        raise SceneError(f"a scene holds real numbers; received {array.dtype}")
    if 0 in array.shape:
        raise SceneError(f"the scene is empty: {dict(zip(array.dims, array.shape, strict=True))}")
    names = tuple(str(v) for v in array.coords["band"].values) if "band" in array.coords else ()
    if not names or all(name.isdecimal() for name in names):
        names = tuple(f"band_{n + 1}" for n in range(array.sizes["band"]))
    return ArraySource(array, _geobox_of(array), names, _nodata_of(array))


def _geobox_of(array: xr.DataArray) -> GeoBox:
    height, width = array.sizes["y"], array.sizes["x"]
    crs = array.rio.crs
    has_position = "x" in array.coords or "GeoTransform" in array.coords.get("spatial_ref", xr.DataArray()).attrs
    transform: Affine | None = array.rio.transform() if has_position else None
    if transform is not None and transform.is_identity:
        transform = None
    return GeoBox(height, width, transform, crs.to_wkt() if crs else None)


def _nodata_of(array: xr.DataArray) -> tuple[float | None, ...]:
    bands = array.sizes["band"]
    listed = array.attrs.get("nodata")
    if isinstance(listed, list | tuple) and len(listed) == bands:
        return tuple(None if v is None else float(v) for v in listed)
    value = array.rio.nodata if array.rio.nodata is not None else array.rio.encoded_nodata
    if value is None and isinstance(listed, int | float | np.number):
        value = listed
    return (None if value is None else float(value),) * bands


def _open_zarr(path: str) -> xr.DataArray:
    try:
        dataset = xr.open_zarr(path, chunks=None, mask_and_scale=False, decode_coords="all")
    except Exception as error:
        raise SceneError(f"{path} cannot be opened as Zarr: {' '.join(str(error).split())[:200]}") from error
    arrays = [
        name for name, array in dataset.data_vars.items() if {"y", "x"} <= set(array.dims) and array.ndim in (2, 3)
    ]
    if len(arrays) != 1:
        raise SceneError(f"{path} must hold one array with dims (band, y, x) or (y, x); it has {arrays or 'none'}")
    array = dataset[arrays[0]]
    return array.rename({d: "band" for d in array.dims if d not in ("y", "x")})


def _title(scene: SceneLike) -> str:
    first = scene if isinstance(scene, str | os.PathLike) else next(iter(scene), "scene")
    return Path(str(first)).stem or "scene"


class _Lazy:
    """What dask slices: reads a window of a source when asked, and not before."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = (len(source.bands), *source.geobox.shape)
        self.dtype = source.dtype
        self.ndim = 3

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        band, rows, columns = (range(*part.indices(n)) for part, n in zip(key, self.shape, strict=True))
        window = Window(rows.start, rows.stop, columns.start, columns.stop)
        return self.source.read(window).data[band.start : band.stop]

    def __dask_tokenize__(self) -> Any:
        return ("swathe-scene", repr(self.source), self.source.identity())


class _LazyMask(_Lazy):
    """As `_Lazy`, for the mask or alpha bands of rasters, apart from nodata."""

    def __init__(self, source: RasterSource) -> None:
        super().__init__(replace(source, layers=source.layers[:1]))
        self.shape, self.ndim, self.dtype = source.geobox.shape, 2, np.dtype(bool)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        rows, columns = (range(*part.indices(n)) for part, n in zip(key, self.shape, strict=True))
        return self.source.read(Window(rows.start, rows.stop, columns.start, columns.stop)).valid


def _lazy(source: Source, chunk: int) -> da.Array:
    reader = _Lazy(source)
    return da.from_array(reader, chunks=(-1, chunk, chunk), asarray=False, meta=np.empty((0, 0, 0), reader.dtype))


def _dressed(array: xr.DataArray, source: Source) -> xr.DataArray:
    """Give an array the coordinates and attributes that every scene has."""
    geobox, nodata = source.geobox, source.nodata
    array = array.assign_coords(band=list(source.bands), **coordinates(geobox))
    array = with_georeference(array, geobox)
    if "valid" not in array.coords:
        array = array.assign_coords(valid=(("y", "x"), _lazy_valid(array, source)))
    array.attrs["nodata"] = list(nodata)
    if len(set(map(repr, nodata))) == 1 and nodata[0] is not None:
        array.attrs["_FillValue"] = nodata[0]
    if isinstance(source, RasterSource):
        array.attrs["scales"] = [layer.scale for layer in source.layers]
        array.attrs["offsets"] = [layer.offset for layer in source.layers]
    return array


def _lazy_valid(array: xr.DataArray, source: Source) -> da.Array:
    valid = array.data.map_blocks(observed, nodata=source.nodata, drop_axis=0, dtype=bool, meta=np.empty((0, 0), bool))
    if isinstance(source, RasterSource) and source.masks:
        mask = _LazyMask(source)
        valid &= da.from_array(mask, chunks=valid.chunks, asarray=False, meta=np.empty((0, 0), bool))
    return valid


def coordinates(geobox: GeoBox) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """Give x and y of pixel centres, for xarray; none where the grid is rotated or has no position."""
    if geobox.transform is None or not geobox.rectilinear:
        return {}
    t = geobox.transform
    x = t.c + t.a * (np.arange(geobox.width) + 0.5)
    y = t.f + t.e * (np.arange(geobox.height) + 0.5)
    return {"x": ("x", x), "y": ("y", y)}


def with_georeference(array: Any, geobox: GeoBox) -> Any:
    """Write CRS and transform into a DataArray's or Dataset's `spatial_ref`, as rioxarray reads them."""
    if geobox.crs is not None:
        array = array.rio.write_crs(geobox.crs)
    if geobox.transform is not None:
        array = array.rio.write_transform(geobox.transform)
    return array


__all__ = ["Pixels", "open_scene", "open_source", "select"]
