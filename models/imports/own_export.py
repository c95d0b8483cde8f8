"""What `swathe export-model` wrote into a file of its own, as settings by which it is imported again."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..limits import LARGEST_TOML, parse_json

OWN = "swathe"  # the key of `metadata_props` where the file is meant for another program
NEEDED = {"digest", "bands", "classes", "dtype", "stride"}


def read_texts(texts: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Return the settings in the `metadata_props` of an ONNX file; none where it is not an export of Swathe."""
    told: dict[str, Any] = {}
    if OWN in texts:
        told = _parsed(texts[OWN], path)
    elif texts.keys() >= NEEDED:
        for key, text in texts.items():
            told[key] = text
            with suppress(ValueError):  # a text without quotes
                told[key] = parse_json(text, LARGEST_TOML)
    return settings_of_export(told, path)


def settings_of_export(told: Any, path: Path) -> dict[str, Any]:
    """Return the settings for what `models.exporting.describe` has told; none where it is something else.

    The graph takes raw pixels and gives probabilities, whatever the bundle's scaling was.

    Raises
    ------
    BundleError
        A value makes no sense.
    """
    if not isinstance(told, Mapping) or not told.keys() >= NEEDED:
        return {}
    try:
        found: dict[str, Any] = {
            "name": str(told["name"]),
            "bands": [str(band["name"]) for band in told["bands"]],
            "dtype": str(told["dtype"]),
            "scaling": {"divisor": 1, "means": [float(band["fill"]) for band in told["bands"]]},
            "classes": [{"name": str(one["name"]), "color": str(one["color"])} for one in told["classes"]],
            "description": str(told.get("description", "")),
            "provenance": {"bundle": str(told["digest"])},
            "options": {"output": "probabilities"},
        }
        if "background" in told:
            found["background"] = told["background"] or False
        if told.get("thresholds"):
            found["thresholds"] = {str(name): float(value) for name, value in told["thresholds"].items()}
        if told.get("resolution"):
            found["resolution"] = [float(metres) for metres in told["resolution"]]
        if told.get("activation") == "sigmoid" and len(told["classes"]) > 2:  # of two it gives both
            found["activation"] = "sigmoid"
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BundleError(
            f"{path} holds what Swathe writes of a bundle, and a value that cannot be used: {error}"
        ) from error
    return {key: value for key, value in found.items() if value != ""}


def _parsed(text: str, path: Path) -> Any:
    try:
        return parse_json(text, LARGEST_TOML)
    except ValueError as error:
        raise BundleError(f"{path}: what Swathe wrote of a bundle is not JSON: {error}") from error
