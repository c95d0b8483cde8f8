"""The settings of an import: keys and values from a TOML, or from what a file tells, and the metadata made of them."""

import colorsys
import os
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

from ..errors import BundleError
from ..limits import LARGEST_TOML, parse_json, parse_toml, read_small
from ..metadata import (
    Band,
    BundleMetadata,
    ClassInfo,
    Radiometry,
    ReceptiveField,
    Scaling,
    divide,
    min_max,
    named_background,
    z_score,
)

MISSING = "?"  # stands for what is to be filled in
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
SCALINGS = ({"mean", "stddev"}, {"minimum", "maximum"}, {"divisor"})
TEXTS, TABLES = ("name", "architecture", "dtype", "activation", "description"), ("options", "provenance", "metrics")
RADIOMETRY = ("scale", "offset", "unit")
KEYS = ("name", "architecture", "options", "bands", "dtype", "scaling", "classes", "activation", "resolution", "patch",
        "background", "thresholds", "description", "provenance", "metrics", "drop", "rename", "swap", "radiometry",
        "quantiles")  # fmt: skip
NEEDED = ("name", "architecture", "bands", "dtype", "scaling", "classes")
# by value, of classes that are named alone; after Okabe and Ito (2008), told apart by people who do not see all colours
COLORS = ("000000", "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7", "999999")


def read_settings(config: str | os.PathLike[str]) -> dict[str, Any]:
    """Read settings from TOML, or from JSON where the name ends so. Raises BundleError."""
    path = os.fspath(config)
    try:
        text = read_small(path, LARGEST_TOML, BundleError)
        content = parse_json(text) if path.endswith(".json") else parse_toml(text)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} is not {'JSON' if path.endswith('.json') else 'TOML'}: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not a table of keys and values; known keys: {', '.join(KEYS)}")
    return check_keys(content, path)


def check_keys(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return settings of which every key is known, and texts and tables are such. Raises BundleError."""
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise BundleError(f"{where} has the unknown key {unknown[0][:100]!r}; known: {', '.join(KEYS)}")
    _check_kinds(content)
    return dict(content)


def refuse_value(key: str, expected: str, received: Any) -> BundleError:
    """Return the line for a value that is none of what a key takes."""
    return BundleError(f"{key} is {expected}; received {str(received)[:80]!r}")


def _check_kinds(settings: Mapping[str, Any]) -> None:
    """Refuse what is no text or no table where one is meant."""
    for key, value in settings.items():
        if key in TEXTS and not isinstance(value, str):
            raise refuse_value(key, "a text", value)
        if key in TABLES and not (isinstance(value, Mapping) and _are_texts(value)):
            raise refuse_value(key, "a table of keys and values", value)
        if key in ("bands", "classes") and not _is_list(value) and value != MISSING:
            raise refuse_value(key, 'a list, as ["a", "b"]', value)
        if key in ("drop", "swap") and not (_is_list(value) and _are_texts(value)):
            raise refuse_value(key, 'a list of texts, as ["loss.*"]', value)
        if key == "rename" and not (isinstance(value, Mapping) and _are_texts(value) and _are_texts(value.values())):
            raise refuse_value(key, 'a table of texts, as { "encoder" = "down" }', value)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(one, str) for one in values)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)


def metadata_of(settings: Mapping[str, Any]) -> BundleMetadata:
    """Make metadata of settings; its receptive field is to be measured once the weights are in.

    Raises
    ------
    BundleError
        A key is missing, or a value makes no sense.
    """
    _check_kinds(settings)
    try:
        settings = {**settings, "classes": _colored(settings["classes"])}
        names = [str(name) for name in settings["bands"]]
        scaling, means = _scaling(settings["scaling"], len(names))
        return BundleMetadata(
            name=settings["name"],
            architecture=settings["architecture"],
            options=dict(settings.get("options", {})),
            bands=tuple(map(Band, names, means, _radiometry(settings, len(names)), _quantiles(settings, len(names)))),
            dtype=_dtype(settings["dtype"]),
            scaling=scaling,
            classes=tuple(ClassInfo(str(c["name"]), str(c["color"])) for c in settings["classes"]),
            receptive_field=ReceptiveField(1, None),  # measured once the weights are in
            activation=settings.get("activation", "softmax"),
            resolution=_resolution(settings.get("resolution")),
            patch=_patch(settings.get("patch", 512)),
            background=named_background(settings.get("background"), [str(c["name"]) for c in settings["classes"]]),
            thresholds=_thresholds(settings),
            description=str(settings.get("description", "")),
            provenance=dict(settings.get("provenance", {})),
            metrics=dict(settings.get("metrics", {})),
        )
    except KeyError as error:
        raise BundleError(f"the config lacks {error}; it needs {', '.join(NEEDED)}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"the config has a value that cannot be used: {error}") from error


def _colored(classes: Any) -> list[Mapping[str, Any]]:
    """Return classes as tables of name and colour; those that are named alone get colours that are told apart."""
    given = [one if isinstance(one, Mapping) else {"name": str(one)} for one in classes]
    for one in given:
        if "name" not in one or set(one) - {"name", "color"}:  # as `value`, which would be taken for the place
            raise refuse_value(
                "a class", "a name, or a table of name and color, in the order of their values", dict(one)
            )
    return [{"color": _color(value), **one} for value, one in enumerate(given)]


def _color(value: int) -> str:
    """Return the colour of a class that has none; beyond those of the list, neighbours lie far apart."""
    if value < len(COLORS):
        return COLORS[value]
    parts = colorsys.hsv_to_rgb(value * 0.618034 % 1, 0.6 + value % 3 * 0.2, 0.85)
    return "".join(f"{round(255 * part):02X}" for part in parts)


def _dtype(given: str) -> str:
    if given not in DTYPES:
        raise refuse_value("dtype", f"one of {', '.join(DTYPES)}", given)
    return given


def _patch(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, Integral) or given < 1:
        raise refuse_value("patch", "a whole number of pixels, 1 or more", given)
    return int(given)


def _resolution(given: Any) -> tuple[float, float] | None:
    """Read metres per pixel: one number, or the finest and the coarsest."""
    if given is None:
        return None
    pair = given if _is_list(given) else (given, given)
    if len(pair) != 2 or not all(map(_is_number, pair)) or not 0 < pair[0] <= pair[1]:
        raise refuse_value("resolution", "metres per pixel above 0, or the finest and the coarsest of them", given)
    return float(pair[0]), float(pair[1])


def _thresholds(settings: Mapping[str, Any]) -> dict[str, float]:
    """Read the decision: a number for all classes but the background, or a table of one for each."""
    given = settings.get("thresholds", {})
    if not all(map(_is_number, given.values() if isinstance(given, Mapping) else (given,))):
        raise refuse_value("thresholds", "a probability, or a table of one for each class", given)
    if isinstance(given, Mapping):
        return {str(name): float(value) for name, value in given.items()}
    names = [str(one["name"]) for one in _colored(settings["classes"])]
    background = named_background(settings.get("background"), names)
    return {name: float(given) for name in names if name != background}


def _radiometry(settings: Mapping[str, Any], bands: int) -> list[Radiometry | None]:
    """Read what values mean: a table for all bands, or one for each."""
    given = settings.get("radiometry")
    if given is None:
        return [None] * bands
    tables = given if isinstance(given, list) else [given] * bands
    if len(tables) != bands or not all(isinstance(one, Mapping) and set(one) <= {*RADIOMETRY} for one in tables):
        raise BundleError(
            f"radiometry is a table of {', '.join(RADIOMETRY)}, or a list of one for each of {bands} bands"
        )
    return [
        Radiometry(float(one.get("scale", 1)), float(one.get("offset", 0)), str(one.get("unit", ""))) for one in tables
    ]


def _quantiles(settings: Mapping[str, Any], bands: int) -> list[tuple[float, ...]]:
    given = settings.get("quantiles", [[]] * bands)
    if not isinstance(given, list) or len(given) != bands:
        raise BundleError(f"quantiles are a list for each of the {bands} bands")
    return [tuple(float(value) for value in values) for values in given]


def _scaling(table: Any, bands: int) -> tuple[Scaling, tuple[float, ...]]:
    """Read scaling, and the band means that stand in for missing pixels: as given, else the middle of the range."""
    _check_scaling(table)

    def per_band(key: str) -> tuple[float, ...]:
        return _per_band(f"{key} in scaling", table[key], bands)

    if "stddev" in table:
        scaling = z_score(per_band("mean"), per_band("stddev"))
        if min(scaling.second, default=1) <= 0:
            raise refuse_value("stddev in scaling", "above 0", table["stddev"])
        middle = scaling.first
    elif "maximum" in table:
        scaling = min_max(per_band("minimum"), per_band("maximum"))
        middle = tuple((low + high) / 2 for low, high in zip(scaling.first, scaling.second, strict=True))
    else:
        scaling = divide(per_band("divisor"))
        middle = tuple(value / 2 for value in scaling.second)
    return scaling, per_band("means") if "means" in table else middle


def _check_scaling(table: Any) -> None:
    """Refuse other keys than those of one way to scale: one that is left aside would change what the network sees."""
    if not isinstance(table, Mapping) or set(table) - {"means"} not in SCALINGS:
        received = "the keys " + ", ".join(map(str, table)) if isinstance(table, Mapping) else table
        raise refuse_value("scaling", "mean and stddev, minimum and maximum, or divisor alone, with means or without",
                           received)  # fmt: skip


def _per_band(what: str, given: Any, bands: int) -> tuple[float, ...]:
    """Read a number for all bands, or one for each."""
    values: Sequence[Any] = given if _is_list(given) else [given] * bands
    if len(values) != bands or not all(map(_is_number, values)):
        raise refuse_value(what, f"a number, or one for each of {bands} bands", given)
    return tuple(map(float, values))
