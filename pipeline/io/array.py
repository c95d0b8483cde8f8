"""Scenes in xarray DataArrays: in memory, dask-backed, or lazily read from Zarr."""

import os
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
from affine import Affine
from dask.base import is_dask_collection, tokenize
from numpy.typing import NDArray

from models.errors import SceneError
from models.metadata import Radiometry

from ..grid.geobox import GeoBox, Window, is_position
from .content_id import folder_identity, fsspec_options, hash_pixels
from .gdal import absolute_name, printable
from .source import BandNames, Pixels, find_bands, observed

DIMS = ("band", "y", "x")
ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
NODATA_OF_BANDS = "nodata_of_bands"  # attribute, where bands differ; rioxarray reads `_FillValue`, the same for all


@dataclass(frozen=True)
class ArraySource:
    """A `Source` over an array of dims `(band, y, x)`; a coordinate `valid` (y, x) may narrow what is observed.

    `paths` holds that of the Zarr group that the array is read from, if it is.
    """

    array: xr.DataArray
    geobox: GeoBox
    bands: tuple[str, ...]
    nodata: tuple[float | None, ...]
    radiometry: tuple[Radiometry | None, ...]
    paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    scatter_once = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values, in this machine's byte order."""
        return self.array.dtype.newbyteorder("=")

    @property
    def expensive_reads(self) -> bool:
        """Whether pixels are computed, or read from files, each time."""
        return not self.array.variable._in_memory

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene, in this thread. Raises SceneError if it cannot."""
        data = _computed(self.array.variable, window).astype(self.dtype, copy=False)
        valid = observed(data, self.nodata)
        if "valid" in self.array.coords:
            valid = valid & _computed(self.array.coords["valid"].variable, window).astype(bool)
        return Pixels(data, valid)

    def select(self, bands: BandNames) -> "ArraySource":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""
        places = find_bands([(name,) for name in self.bands], bands)
        facts: Any = {name: tuple(getattr(self, name)[p] for p in places) for name in ("bands", "nodata", "radiometry")}
        return replace(self, array=self.array.isel(band=places), **facts)

    def identity(self) -> dict[str, Any]:
        """Return a token of content, or of how it is made, for arrays in memory and dask's; else of some pixels."""
        parts = [_token(self.array.variable)]
        if "valid" in self.array.coords:
            parts.append(_token(self.array.coords["valid"].variable))
        return {
            "array": parts,
            "bands": list(self.bands),
            "nodata": [repr(v) for v in self.nodata],
            "grid": self.geobox.describe(),
            **(folder_identity(self.paths[0]) if self.paths else {}),
        }


def _computed(variable: xr.Variable, window: Window) -> NDArray[Any]:
    rows, columns = window.slices
    try:
        return np.asarray(variable.isel(y=rows, x=columns).compute(scheduler="synchronous").data)
    except SceneError:
        raise
    except Exception as error:  # whatever the array is made by
        raise SceneError(f"the scene's pixels could not be computed: {printable(str(error))[:200]}") from error


def _token(variable: xr.Variable) -> str:
    """Return dask's token, but read only some pixels of what lies in a file: a token would load all of it."""
    if is_dask_collection(variable) or variable._in_memory:
        return str(tokenize(variable.data))
    return hash_pixels(partial(_computed, variable), (variable.sizes["y"], variable.sizes["x"]))


def array_source(array: xr.DataArray) -> ArraySource:
    """Take a DataArray of dims (band, y, x) or (y, x) as a source; its own CRS, transform, nodata and `valid` count.

    Raises
    ------
    SceneError
        It has other dims, no pixels, complex numbers, or pixels that are not evenly spaced.
    """
    if set(array.dims) == {"y", "x"}:
        array = array.expand_dims("band")
    if set(array.dims) != set(DIMS):
        raise SceneError(f"a scene has the dims (band, y, x); received {array.dims}: use .rename() or .isel()")
    array = array.transpose(*DIMS)
    if array.dtype.kind not in "uif":
        raise SceneError(f"a scene holds real numbers; received {array.dtype}")
    if 0 in array.shape:
        raise SceneError(f"the scene is empty: {dict(zip(array.dims, array.shape, strict=True))}")
    crs = array.rio.crs
    geobox = GeoBox(array.sizes["y"], array.sizes["x"], _transform(array), crs.to_wkt() if crs else None)
    names = _names(array)
    return ArraySource(array, geobox, names, _nodata(array), tuple(None for _ in names))


def _names(array: xr.DataArray) -> tuple[str, ...]:
    """Name bands by their coordinate, else by `long_name` as rioxarray gives it, else by number."""
    names = [printable(str(v)) for v in array.coords["band"].values] if "band" in array.coords else []
    if not names or all(name.isdecimal() for name in names):
        long_names = array.attrs.get("long_name")
        names = [str(name) for name in long_names] if isinstance(long_names, list | tuple) else []
    if len(names) != array.sizes["band"] or len(set(names)) != len(names) or not all(names):
        names = [f"band_{n + 1}" for n in range(array.sizes["band"])]
    return tuple(names)


def _transform(array: xr.DataArray) -> Affine | None:
    """Return the transform of the array's file, moved to the part of the scene that it is; else that of x and y."""
    kept = array.coords.get(array.rio.grid_mapping)  # where rioxarray keeps it, beside the CRS
    try:
        whole = Affine.from_gdal(*map(float, str("" if kept is None else kept.attrs.get("GeoTransform", "")).split()))
    except (TypeError, ValueError):
        whole = None
    whole = whole if whole is not None and is_position(whole) else None
    rotated = whole is not None and bool(whole.b or whole.d)
    one = Affine.identity() if rotated or whole is None else whole
    x, y = _axis(array, "column" if rotated else "x", "x"), _axis(array, "row" if rotated else "y", "y")
    if x is None or y is None:
        return whole
    (left, across), (top, down) = x, y
    if whole is None:
        if across is None or down is None:
            return None  # a single row or column says not how wide it is
        return Affine(across, 0, left - across / 2, 0, down, top - down / 2)
    # the part's place in pixels of the whole: whole pixels, since a part is cut out by slices
    steps = [1.0 if across is None else across / one.a, 1.0 if down is None else down / one.e]
    starts = [(left - one.c) / one.a - steps[0] / 2, (top - one.f) / one.e - steps[1] / 2]
    starts = [round(v * 2) / 2 if abs(v * 2 - round(v * 2)) < 1e-3 else v for v in starts]
    steps = [round(v) if abs(v - round(v)) < 1e-6 else v for v in steps]
    return whole * (Affine.translation(*starts) * Affine.scale(*steps))


def _axis(array: xr.DataArray, name: str, dim: str) -> tuple[float, float | None] | None:
    """Return the first centre and the step of evenly spaced coordinates; no step of a single one; None without any."""
    if name not in array.coords or array.coords[name].dims != (dim,):
        return None
    values: NDArray[np.float64] = np.asarray(array.coords[name].values, dtype=np.float64)
    if values.size == 1:
        return float(values[0]), None
    step = (values[-1] - values[0]) / (values.size - 1)
    if not step or not np.allclose(np.diff(values), step, rtol=0, atol=abs(step) * 0.02):
        raise SceneError(f"the coordinate {name} is not evenly spaced: a scene lies on a regular grid")
    return float(values[0]), float(step)


def _nodata(array: xr.DataArray) -> tuple[float | None, ...]:
    listed = array.attrs.get(NODATA_OF_BANDS)
    if not isinstance(listed, list | tuple) or len(listed) != array.sizes["band"]:
        listed = [array.rio.nodata] * array.sizes["band"]
    return tuple(None if v is None else float(v) for v in listed)


def is_zarr(path: str) -> bool:
    """Whether a path or URL is a Zarr group's, by its ending or by what lies in the folder."""
    return path.rstrip("/").endswith(".zarr") or any(os.path.isfile(os.path.join(path, name)) for name in ZARR_FILES)


def zarr_source(path: str) -> ArraySource:
    """Open a Zarr group that holds one array of dims (band, y, x) or (y, x).

    Raises
    ------
    SceneError
        There is none, or it holds no such array or several.
    """
    path = absolute_name(path)
    dataset = _open_zarr(path)
    dataset = dataset.set_coords(
        [name for name, array in dataset.data_vars.items() if not array.ndim]
    )  # as spatial_ref
    found = [array for array in dataset.data_vars.values() if {"y", "x"} <= set(array.dims) and array.ndim in (2, 3)]
    if len(found) != 1:
        held = ", ".join(sorted(str(array.name) for array in found)) or "none"
        raise SceneError(f"{path} must hold one array with the dims (band, y, x) or (y, x); it has {held}")
    array = found[0].rename({dim: "band" for dim in found[0].dims if dim not in ("y", "x", "band")})
    return replace(array_source(array), paths=(path,))


def _open_zarr(path: str) -> xr.Dataset:
    """Open it by its consolidated metadata, which web servers need, else without."""
    for consolidated in (True, False):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of types of names that Zarr has not agreed on
                return xr.open_dataset(
                    path,
                    engine="zarr",
                    mask_and_scale=False,
                    decode_coords="all",
                    consolidated=consolidated,
                    storage_options=fsspec_options(path) or None,
                )
        except Exception as error:  # of zarr, fsspec and each kind of server
            reason = printable(str(error))[:200] or type(error).__name__
    raise SceneError(f"{path} cannot be opened as Zarr: {reason}")
