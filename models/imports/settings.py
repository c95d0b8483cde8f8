"""The settings of an import: keys and values from a TOML, or from what a file tells, and the metadata made of them."""

import colorsys
import os
from collections.abc import Mapping
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
    """Return settings of which every key is known. Raises BundleError."""
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise BundleError(f"{where} has the unknown key {unknown[0][:100]!r}; known: {', '.join(KEYS)}")
    return dict(content)


def metadata_of(settings: Mapping[str, Any]) -> BundleMetadata:
    """Make metadata of settings; its receptive field is to be measured once the weights are in.

    Raises
    ------
    BundleError
        A key is missing, or a value makes no sense.
    """
    try:
        settings = {**settings, "classes": _colored(settings["classes"])}
        names = [str(name) for name in settings["bands"]]
        scaling, means = _scaling(settings["scaling"], len(names))
        resolution = settings.get("resolution")
        finest, coarsest = resolution if isinstance(resolution, list) else (resolution or 0, resolution or 0)
        return BundleMetadata(
            name=settings["name"],
            architecture=settings["architecture"],
            options=dict(settings.get("options", {})),
            bands=tuple(map(Band, names, means, _radiometry(settings, len(names)), _quantiles(settings, len(names)))),
            dtype=str(settings["dtype"]),
            scaling=scaling,
            classes=tuple(ClassInfo(str(c["name"]), str(c["color"])) for c in settings["classes"]),
            receptive_field=ReceptiveField(1, None),  # measured once the weights are in
            activation=settings.get("activation", "softmax"),
            resolution=None if resolution is None else (float(finest), float(coarsest)),
            patch=int(settings.get("patch", 512)),
            background=named_background(settings.get("background"), [str(c["name"]) for c in settings["classes"]]),
            thresholds=_thresholds(settings),
            description=str(settings.get("description", "")),
            provenance=dict(settings.get("provenance", {})),
            metrics=dict(settings.get("metrics", {})),
        )
    except KeyError as error:
        raise BundleError(f"the config lacks {error}; it needs {', '.join(NEEDED)}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"the config has a value that cannot be used: {error}") from error


def _colored(classes: Any) -> list[Mapping[str, Any]]:
    """Return classes as tables of name and colour; those that are named alone get colours that are told apart."""
    given = [one if isinstance(one, Mapping) else {"name": str(one)} for one in classes]
    return [{"color": _color(value), **one} for value, one in enumerate(given)]


def _color(value: int) -> str:
    """Return the colour of a class that has none; beyond those of the list, neighbours lie far apart."""
    if value < len(COLORS):
        return COLORS[value]
    parts = colorsys.hsv_to_rgb(value * 0.618034 % 1, 0.6 + value % 3 * 0.2, 0.85)
    return "".join(f"{round(255 * part):02X}" for part in parts)


def _thresholds(settings: Mapping[str, Any]) -> dict[str, float]:
    """Read the decision: a number for all classes but the background, or a table of one for each."""
    given = settings.get("thresholds", {})
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


def _scaling(table: Mapping[str, Any], bands: int) -> tuple[Scaling, tuple[float, ...]]:
    """Read scaling, and the band means that stand in for missing pixels: as given, else the middle of the range."""

    def per_band(key: str) -> tuple[float, ...]:
        value = table[key]
        return tuple(float(v) for v in value) if isinstance(value, list) else (float(value),) * bands

    if "stddev" in table:
        scaling = z_score(per_band("mean"), per_band("stddev"))
        middle = scaling.first
    elif "maximum" in table:
        scaling = min_max(per_band("minimum"), per_band("maximum"))
        middle = tuple((low + high) / 2 for low, high in zip(scaling.first, scaling.second, strict=True))
    elif "divisor" in table:
        scaling = divide(per_band("divisor"))
        middle = tuple(value / 2 for value in scaling.second)
    else:
        raise BundleError("scaling is mean and stddev, minimum and maximum, or divisor")
    return scaling, per_band("means") if "means" in table else middle
