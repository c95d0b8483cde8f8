"""What the attributes and the encoding of a DataArray say of its values: band names, nodata, radiometry.

Attributes are of what lies in memory: by the CF conventions `_FillValue`, `missing_value`, `scale_factor`,
`add_offset`, `units`; by others `nodata`, `nodatavals`, `scales`, `offsets`. The encoding is of
the file: what it holds has been done to the values already.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import xarray as xr

from models.errors import BundleError, SceneError
from models.metadata import Radiometry

from .gdal import printable

NODATA_OF_BANDS = "nodata_of_bands"  # attribute, where bands differ; rioxarray reads `_FillValue`, the same for all
SENTINELS = ("_FillValue", "missing_value", "fill_value", "nodata", "nodatavals")
UNITS = {"reflectance": "reflectance", "db": "dB", "decibel": "dB", "kelvin": "K", "k": "K", "radiance": "radiance"}


def band_names(array: xr.DataArray) -> tuple[str, ...]:
    """Name bands by their coordinate, else by `long_name` as rioxarray gives it, else by number."""
    names = [printable(str(v)) for v in array.coords["band"].values] if "band" in array.coords else []
    if not names or all(name.isdecimal() for name in names):
        long_names = array.attrs.get("long_name")
        names = [str(name) for name in long_names] if isinstance(long_names, list | tuple) else []
    if len(names) != array.sizes["band"] or len(set(names)) != len(names) or not all(names):
        names = [f"band_{n + 1}" for n in range(array.sizes["band"])]
    return tuple(names)


def nodata_of(array: xr.DataArray) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
    """Return the nodata value of each band of `(band, y, x)`, and what is told of others that are not used."""
    count = array.sizes["band"]
    listed = array.attrs.get(NODATA_OF_BANDS)
    if isinstance(listed, list | tuple) and len(listed) == count:
        return tuple(None if v is None else float(v) for v in listed), ()
    said = {name: numbers for name in SENTINELS if (numbers := _numbers(array.attrs.get(name)))}
    if not said and (hidden := _encoded(array)) is not None:
        return (hidden,) * count, ()
    if not said:
        return (None,) * count, ()
    chosen: tuple[float, ...] = (next(iter(said.values()))[0],) * count
    listed = said.get("nodatavals", [])
    if len(listed) == count and repr(listed[0]) == repr(chosen[0]):
        chosen = tuple(listed)
    others = {f"{v:g}" for name, values in said.items() for v in values if name != "nodatavals" or not np.isnan(v)}
    unused = sorted(others - {f"{v:g}" for v in chosen})
    notes = (f"nodata is {chosen[0]:g}; the array's attributes also name {', '.join(unused)}",) if unused else ()
    return chosen, notes


def _encoded(array: xr.DataArray) -> float | None:
    """Return the nodata of an array that was decoded: NaN stands for it; in whole numbers, it itself."""
    for name in ("_FillValue", "missing_value", "nodata"):
        if numbers := _numbers(array.encoding.get(name)):
            return float("nan") if array.dtype.kind == "f" else numbers[0]
    return None


def _numbers(value: Any) -> list[float]:
    """Return the numbers of an attribute: a number, a text, a list or an array of them; none of what is none."""
    values = value if isinstance(value, list | tuple | np.ndarray) else [value]
    found = []
    with suppress(TypeError, ValueError):
        found = [float("nan") if v is None else float(v) for v in np.ravel(np.asarray(values, dtype=object)).tolist()]
    return [] if value is None else found


def radiometry_of(array: xr.DataArray) -> tuple[Radiometry | None, ...]:
    """Return what the values of each band mean, as far as attributes say. Raises SceneError for a scale of 0."""
    count, unit = array.sizes["band"], unit_of(array.attrs)
    scales = _per_band(array.attrs, ("scale_factor", "scales"), count, 1.0)
    offsets = _per_band(array.attrs, ("add_offset", "offsets"), count, 0.0)
    decoded = not _plain(array.encoding) and _plain(array.attrs)  # values are what scale and offset made of the file's
    try:
        return tuple(
            Radiometry(scale, offset, unit) if decoded or (scale, offset, unit) != (1.0, 0.0, "") else None
            for scale, offset in zip(scales, offsets, strict=True)
        )
    except BundleError as error:
        raise SceneError(f"the array's attributes say: {error}") from error


def _plain(fields: Mapping[Any, Any]) -> bool:
    return fields.get("scale_factor", 1.0) in (1.0, None) and fields.get("add_offset", 0.0) in (0.0, None)


def _per_band(attributes: Mapping[Any, Any], names: Sequence[str], count: int, usual: float) -> list[float]:
    for name in names:
        numbers = [usual if np.isnan(v) else v for v in _numbers(attributes.get(name))]
        if len(numbers) in (1, count):
            return numbers * (count // len(numbers))
    return [usual] * count


def unit_of(attributes: Mapping[Any, Any]) -> str:
    """Return the unit in Swathe's words, from the fields `units`, `unit` and CF's `standard_name`; empty: not said."""
    for name in ("units", "unit", "standard_name"):
        text = str(attributes.get(name) or "").strip().lower()
        for word in (text, text.rpartition("_")[2]):
            if word in UNITS:
                return UNITS[word]
        if "sr" in re.findall("[a-z]+", text):  # per steradian
            return "radiance"
    return ""
