"""Scenes in xarray: a DataArray, or a Dataset with one variable per band; in memory, dask-backed, or lazily read."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import xarray as xr
from dask.base import is_dask_collection, tokenize
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import SceneError
from models.limits import check_extent
from models.metadata import Radiometry

from ..grid.geobox import GeoBox, Window
from .array_grid import geobox_of, is_geographic, spatial_dims, with_dims
from .array_values import (
    BANDS,
    NODATA_OF_BANDS,
    SENTINELS,
    band_names,
    nodata_of,
    radiometry_of,
    values_of_bands,
)
from .content_id import file_identity, folder_identity, hash_pixels
from .gdal import printable
from .source import BandNames, Pixels, describe_source, find_bands, observed

NAMELESS = {"", "__xarray_dataarray_variable__", "array", "band", "band_data", "data", "image", "scene", "values"}
# attributes of a Dataset that are of all its variables
OF_VALUES = (*SENTINELS, NODATA_OF_BANDS, BANDS, "scales", "offsets", "scale_factor", "add_offset")
SHARED = (*OF_VALUES, "transform", "crs", "res", "resolution", "spec")


@dataclass(frozen=True)
class ArraySource:
    """A `Source` over one array of dims `(band, y, x)`, or over one such array of each band.

    A coordinate `valid` (y, x) may narrow what is observed. `paths` holds that of the Zarr group or file that the
    arrays are read from, if they are.
    """

    arrays: tuple[xr.DataArray, ...]
    geobox: GeoBox
    bands: tuple[str, ...]
    nodata: tuple[float | None, ...]
    radiometry: tuple[Radiometry | None, ...]
    paths: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    scatter_once = True

    @override
    def __repr__(self) -> str:
        return describe_source(self)

    @property
    def array(self) -> xr.DataArray:
        """One lazy array of all bands."""
        if len(self.arrays) == 1:
            return self.arrays[0]
        parts = [array.drop_attrs().astype(self.dtype) for array in (part.chunk() for part in self.arrays)]
        joined = xr.concat(parts, dim="band", coords="minimal", compat="override", join="override")
        return joined.drop_vars("band", errors="ignore").assign_coords(band=list(self.bands))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the raw values of all bands, in this machine's byte order."""
        return np.result_type(*(array.dtype.newbyteorder("=") for array in self.arrays))

    @property
    def expensive_reads(self) -> bool:
        """Whether pixels are computed, or read from files, each time."""
        return not all(array.variable._in_memory for array in self.arrays)

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene, in this thread. Raises SceneError if it cannot."""
        parts = [_computed(array.variable, window).astype(self.dtype, copy=False) for array in self.arrays]
        data = parts[0] if len(parts) == 1 else np.concatenate(parts)
        valid = observed(data, self.nodata)
        if "valid" in self.arrays[0].coords:
            valid = valid & _computed(self.arrays[0].coords["valid"].variable, window).astype(bool)
        return Pixels(data, valid)

    @property
    def all_names(self) -> tuple[tuple[str, ...], ...]:
        """All names of each band, its own first."""
        return tuple((name,) for name in self.bands)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number of each band, from 1."""
        return tuple(range(1, len(self.bands) + 1))

    @property
    def hints(self) -> tuple[str, ...]:
        """What may tell the sensor."""
        told = (self.array.attrs.get(key) for key in ("platform", "constellation", "spacecraft", "sensor", "mission"))
        return (*(text for text in told if isinstance(text, str)), *self.paths)

    def select(self, bands: BandNames) -> "ArraySource":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""
        places = find_bands(self.all_names, bands, self.numbers, self.hints)
        facts: Any = {name: tuple(getattr(self, name)[p] for p in places) for name in ("bands", "nodata", "radiometry")}
        one = len(self.arrays) == 1
        arrays = (self.arrays[0].isel(band=places),) if one else tuple(self.arrays[place] for place in places)
        return replace(self, arrays=arrays, **facts)

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""
        return replace(self, notes=(*self.notes, note))

    def identity(self) -> dict[str, Any]:
        """Return a token of content, or of how it is made, for arrays in memory and dask's; else of some pixels."""
        parts = [_token(array.variable) for array in self.arrays]
        if "valid" in self.arrays[0].coords:
            parts.append(_token(self.arrays[0].coords["valid"].variable))
        return {
            "array": parts,
            "bands": list(self.bands),
            "nodata": [repr(v) for v in self.nodata],
            "grid": self.geobox.describe(),
            **_files_identity(self.paths),
        }


def _files_identity(paths: tuple[str, ...]) -> dict[str, Any]:
    if not paths:
        return {}
    return file_identity(paths[0]) if os.path.isfile(paths[0]) else folder_identity(paths[0])


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
    geographic, array = is_geographic(array), with_dims(array)
    if array.dtype.kind not in "uif":
        raise SceneError(f"a scene holds real numbers; received {array.dtype}")
    if 0 in array.shape:
        raise SceneError(f"the scene is empty: {dict(zip(array.dims, array.shape, strict=True))}")
    check_extent("the scene", array.shape[0], array.shape[1:], SceneError)
    geobox, notes = geobox_of(array, geographic)
    nodata, more = nodata_of(array)
    return ArraySource((array,), geobox, band_names(array), nodata, radiometry_of(array), notes=(*notes, *more))


def dataset_source(dataset: xr.Dataset, name: str = "the Dataset") -> ArraySource:
    """Take a Dataset as a source: one variable of dims (band, y, x), or variables of dims (y, x), one per band.

    Each has its own nodata, scale and offset; what the Dataset's attributes say is for variables that say nothing.

    Parameters
    ----------
    dataset
        Variables without rows and columns are not looked at.
    name
        What messages call it.

    Raises
    ------
    SceneError
        As `array_source`; or there are no such variables, or several with bands of their own.
    """
    scalars = [key for key, array in dataset.data_vars.items() if not array.ndim]  # as spatial_ref
    dataset = dataset.set_coords(scalars)
    found = [array for array in dataset.data_vars.values() if _is_raster(array)]
    if not found:
        held = ", ".join(f"{key} {array.dims}" for key, array in list(dataset.data_vars.items())[:8]) or "none"
        raise SceneError(f"{name} must hold variables with the dims (y, x) or (band, y, x); it has {held}")
    taken = [array for array in found if array.dtype.kind in "uif"] or found
    if len(taken) == 1:
        source = array_source(_told_by_dataset(taken[0], dataset, several=False))
        return source if len(source.bands) > 1 or source.bands != ("band_1",) else _named(source, taken[0])
    sources = [array_source(_told_by_dataset(array, dataset, several=True)) for array in taken]
    if any(len(source.bands) > 1 for source in sources):
        held = ", ".join(f"{array.name} {array.dims}" for array in taken[:8])
        raise SceneError(f"{name} must hold one variable per band, or one with all bands; it has {held}")
    left = [str(array.name) for array in found if array.dtype.kind not in "uif"]
    notes = (f"left out, for they hold no numbers: {', '.join(left)}",) if left else ()
    named = zip(sources, taken, strict=True)
    return _joined([replace(source, bands=(printable(str(array.name)),)) for source, array in named], notes)


def _is_raster(array: xr.DataArray) -> bool:
    try:
        with_dims(array)
    except SceneError:
        return spatial_dims(array) is not None and array.dtype.kind in "uif"  # let it say why it cannot be taken
    return True


def _told_by_dataset(array: xr.DataArray, dataset: xr.Dataset, several: bool) -> xr.DataArray:
    """Give a variable what only the Dataset says of it."""
    told = {key: dataset.attrs[key] for key in SHARED if key in dataset.attrs}
    if several:  # whose order, in a Zarr group, is not that of the lists
        told.pop(BANDS, None)
        for key in (NODATA_OF_BANDS, "scales", "offsets"):
            if key in told:
                told[key] = values_of_bands(dataset.attrs, key, [str(array.name)])
    if "_FillValue" in array.encoding or any(key in array.attrs for key in SENTINELS):
        told = {key: value for key, value in told.items() if key not in (*SENTINELS, NODATA_OF_BANDS)}
    return array.assign_attrs({**told, **array.attrs})


def _named(source: ArraySource, array: xr.DataArray) -> ArraySource:
    """Name the one band of a variable by the variable, where that is a name."""
    name = printable(str(array.name or ""))
    return source if name.lower() in NAMELESS else replace(source, bands=(name,))


def _joined(sources: Sequence[ArraySource], notes: tuple[str, ...]) -> ArraySource:
    first = sources[0]
    for source in sources[1:]:
        if not source.geobox.same_grid(first.geobox):
            raise SceneError(
                f"the variable {source.bands[0]} lies on another grid than {first.bands[0]}: "
                f"{source.geobox.describe()};\nagainst {first.geobox.describe()}"
            )
    told = dict.fromkeys(note for source in sources for note in source.notes)
    return ArraySource(
        tuple(source.arrays[0] for source in sources),
        first.geobox,
        tuple(source.bands[0] for source in sources),
        tuple(source.nodata[0] for source in sources),
        tuple(source.radiometry[0] for source in sources),
        notes=(*told, *notes),
    )
