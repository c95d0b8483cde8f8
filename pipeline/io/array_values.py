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
BANDS = "band_names"  # attribute: the bands of such lists, whatever is taken of the array later
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
    count, names = array.sizes["band"], band_names(array)
    if listed := values_of_bands(array.attrs, NODATA_OF_BANDS, names):
        return tuple(None if v is None else float(v) for v in listed), ()
    said = {name: numbers for name in SENTINELS if (numbers := _numbers(array.attrs.get(name)))}
    if not said and (hidden := _encoded(array)) is not None:
        return (hidden,) * count, ()
    if not said:
        return (None,) * count, ()
    chosen: tuple[float, ...] = (next(iter(said.values()))[0],) * count
    if next(iter(said)) == "nodatavals" or repr(said.get("nodatavals", [None])[0]) == repr(chosen[0]):
        chosen = tuple(values_of_bands({**array.attrs, "nodatavals": said["nodatavals"]}, "nodatavals", names))
    others = {f"{v:g}" for name, values in said.items() for v in values if name != "nodatavals" or not np.isnan(v)}
    unused = sorted(others - {f"{v:g}" for v in chosen})
    notes = (f"nodata is {chosen[0]:g}; the array's attributes also name {', '.join(unused)}",) if unused else ()
    return chosen, notes


def values_of_bands(attributes: Mapping[Any, Any], key: str, names: Sequence[str]) -> list[Any]:
    """Return the values of an attribute that lists one per band, for bands of these names; none without it.

    Raises
    ------
    SceneError
        It lists different values, and does not say which are these bands'.
    """
    listed, order = ([*map(_plain_value, np.ravel(v))] if isinstance(v, list | tuple | np.ndarray) else []
                     for v in (attributes.get(key), attributes.get(BANDS)))  # fmt: skip
    if len(set(map(repr, listed))) <= 1:
        return listed[:1] * len(names)
    if len(order) == len(listed) and set(names) <= set(map(str, order)):
        return [listed[order.index(name)] for name in names]
    if not order and len(listed) == len(names) > 1:
        return listed
    raise SceneError(
        f"the attribute {key} lists {len(listed)} values, and does not say which are those of {', '.join(names[:8])}: "
        "give each band its own, as by one variable per band with _FillValue, scale_factor and add_offset"
    )


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


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
    names, unit = band_names(array), unit_of(array.attrs)
    scales = _per_band(array.attrs, "scale_factor", "scales", names, 1.0)
    offsets = _per_band(array.attrs, "add_offset", "offsets", names, 0.0)
    decoded = not _plain(array.encoding) and _plain(array.attrs)  # values are what scale and offset made of the file's
    try:
        return tuple(
            Radiometry(scale, offset, unit) if decoded or (scale, offset, unit) != (1.0, 0.0, "") else None
            for scale, offset in zip(scales, offsets, strict=True)
        )
    except BundleError as error:
        raise SceneError(f"the array's attributes say: {error}") from error


def _plain(fields: Mapping[Any, Any]) -> bool:
    return _numbers(fields.get("scale_factor")) in ([], [1.0]) and _numbers(fields.get("add_offset")) in ([], [0.0])


def _per_band(attributes: Mapping[Any, Any], one: str, several: str, names: Sequence[str], usual: float) -> list[float]:
    """Return the numbers of an attribute for all bands, else of one that lists them, else the usual one."""
    numbers = _numbers(attributes.get(one))[:1] * len(names) or _numbers(values_of_bands(attributes, several, names))
    return [usual if np.isnan(v) else v for v in numbers] or [usual] * len(names)


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
