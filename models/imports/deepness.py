"""Metadata that QGIS's plugin Deepness reads from an ONNX: classes, resolution, scaling, tile, threshold.

The plugin divides values by 255 first. Source: github.com/PUTvision/qgis-plugin-deepness, documentation "Adding
metadata to ONNX model", and the keys that its `processing/models/model_base.py` reads: `tile_size`, where the
documentation has `tiles_size`, and `names` for `class_names`. Values are JSON, tables also Python's literals.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..limits import parse_json
from ..metadata import MOST_CLASSES, usual_background
from ..redact import printable
from .found import Found
from .parts import UNUSABLE, bundle_name, class_tables, number, numbers, whole, z_score_of

SEGMENTS = "segmentor"
KEYS = {"model_type", "class_names", "names", "resolution", "tile_size", "tiles_size", "tiles_overlap", "seg_thresh",
        "seg_small_segment", "standardization_mean", "standardization_std"}  # fmt: skip
SURE = {"model_type", "tiles_overlap", "seg_thresh", "standardization_mean"}  # keys that no other program writes
LONGEST_VALUE, LARGEST_SIDE, COARSEST = 100_000, 65_536, 1e7


def deepness_facts(
    properties: Mapping[str, str], path: Path, bands: int | None = None, channels: int | None = None
) -> Found | None:
    """Read what an ONNX's `metadata_props` tell in Deepness' words; None: they are not its.

    Parameters
    ----------
    properties
        Of the file.
    path
        Of the file.
    bands, channels
        Of its input and output, where they are known.

    Raises
    ------
    BundleError
        It is a model of another kind than a Segmentor, or a value makes no sense.
    """
    given = {key: value for key, value in properties.items() if key in KEYS}
    if not given.keys() & SURE:
        return None
    try:
        values = {key: _value(key, text) for key, text in given.items()}
        kind = str(values.get("model_type", SEGMENTS)).lower()
        if kind != SEGMENTS:
            raise BundleError(f"{path} is a {printable(kind)[:40]} of Deepness; Swathe runs its Segmentors")
        return _found(values, path, bands, channels)
    except UNUSABLE as error:
        raise BundleError(f"{path} has metadata of Deepness with a value that cannot be used: {error}") from error


def _value(key: str, text: str) -> Any:
    if len(text) > LONGEST_VALUE:
        raise ValueError(f"{key} of {len(text):,} characters")
    try:
        return parse_json(text)
    except ValueError:
        if key == "model_type":
            return text.strip("'\"")
        try:
            return ast.literal_eval(text)  # as the plugin does; it makes plain values alone
        except (SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"{key} is neither JSON nor a literal of Python") from error


def _found(values: Mapping[str, Any], path: Path, bands: int | None, channels: int | None) -> Found:
    facts: dict[str, Any] = {"name": bundle_name(path.stem), "dtype": "uint8"}
    notes: list[str] = []
    if (names := values.get("class_names", values.get("names"))) is not None:
        facts |= _classes(names, channels, notes)
    facts["scaling"] = _scaling(values, bands)
    if "resolution" in values:
        facts["resolution"] = _metres(values["resolution"])
    if side := values.get("tile_size", values.get("tiles_size")):
        facts["patch"] = whole(side, LARGEST_SIDE)
    if "seg_thresh" in values:
        facts |= _thresholds(number(values["seg_thresh"]), facts.get("classes", []))
    if (overlap := values.get("tiles_overlap")) is not None:
        facts["provenance"] = {"tiles overlap of Deepness, percent": number(overlap)}
    return Found("an ONNX with Deepness' metadata", "onnx", path, facts, dict.fromkeys(facts, "Deepness' metadata"),
                 tuple(notes), bands, channels)  # fmt: skip


def _thresholds(threshold: float, classes: Sequence[str]) -> dict[str, float]:
    """Return the decision, where there is a background, which pixels below it become."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"seg_thresh {threshold:g}")
    return {"thresholds": threshold} if usual_background(classes) else {}


def _metres(centimetres: object) -> float:
    found = number(centimetres) / 100
    if not 0 < found <= COARSEST:
        raise ValueError(f"a resolution of {found:g} m")
    return float(f"{found:.9g}")


def _classes(given: Any, channels: int | None, notes: list[str]) -> dict[str, Any]:
    """Return classes in the order of their numbers; to a sole one the plugin adds the background."""
    tables = given if isinstance(given, list) else [given]
    if len(tables) > 1:
        notes.append("it has several outputs: name the one that is meant by `options = { output_name = ... }`")
    table = tables[0]
    if not isinstance(table, Mapping) or len(table) > MOST_CLASSES:
        raise ValueError(f"class_names are a table of at most {MOST_CLASSES} names")
    ordered = sorted((int(number(key)), name) for key, name in table.items())
    if [key for key, _ in ordered] != list(range(len(ordered))):
        raise ValueError("class_names do not count up from 0")
    names = [name for _, name in ordered]
    names = ["background", *names] if len(names) == 1 else names
    return {"classes": class_tables(names), **({"activation": "sigmoid"} if channels == 1 else {})}


def _scaling(values: Mapping[str, Any], bands: int | None) -> dict[str, Any]:
    mean, deviation = values.get("standardization_mean"), values.get("standardization_std")
    if mean is None or deviation is None:
        return {"divisor": 255.0}
    means = numbers(mean, bands)
    deviations = numbers(deviation, len(means))
    if not any(means) and all(value == 1 for value in deviations):
        return {"divisor": 255.0}
    return z_score_of([255 * value for value in means], [255 * value for value in deviations])
