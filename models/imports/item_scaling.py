"""The scaling in an MLM Item's input, of 1.4 on (`value_scaling`) or before (`norm_type`), as an import's settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..redact import printable
from .parts import number, numbers, shortened, z_score_of

PAIRS = {"z-score": ("mean", "stddev"), "min-max": ("minimum", "maximum")}


def scaling_of(taken: Mapping[str, Any], bands: int, notes: list[str]) -> dict[str, Any] | None:
    """Return the scaling of a model's input; None where it is not told, with a note that says why.

    Parameters
    ----------
    taken
        An entry of `mlm:input`.
    bands
        That it has.
    notes
        To which what a user should know is added.

    Raises
    ------
    ValueError
        A number is missing, or none.
    """
    if function := taken.get("pre_processing_function"):
        first = function[0] if isinstance(function, list) else function
        said = first.get("expression") if isinstance(first, Mapping) else first
        notes.append(
            f"its pixels go through {printable(str(said))[:100]} first, which is not run: give `scaling` like it"
        )
        return None
    if "norm_type" in taken or "statistics" in taken or "norm_clip" in taken:
        return _before_1_4(taken, bands, notes)
    if "value_scaling" not in taken:
        return None
    entries = taken["value_scaling"]
    if not entries:
        return {"divisor": 1.0}
    return _of_entries(entries * bands if len(entries) == 1 else entries, bands, notes)


def _before_1_4(taken: Mapping[str, Any], bands: int, notes: list[str]) -> dict[str, Any] | None:
    kind, statistics = taken.get("norm_type"), taken.get("statistics") or []
    if kind == "clip" and taken.get("norm_clip"):
        notes.append("its values are clipped to 0 and 1 after the division, which is left out here")
        return {"divisor": shortened(numbers(taken["norm_clip"], bands))}
    if kind is None:
        return None
    if kind not in PAIRS:
        notes.append(f"its scaling {printable(str(kind))[:40]} is no affine one: give `scaling` that comes near it")
        return None
    entries = statistics * bands if len(statistics) == 1 else statistics
    return _of_entries([{**entry, "type": kind} for entry in entries], bands, notes)


def _of_entries(entries: Sequence[Mapping[str, Any]], bands: int, notes: list[str]) -> dict[str, Any] | None:
    if len(entries) != bands:
        raise ValueError(f"scaling of {len(entries)} bands, and {bands} bands")
    kinds = {entry.get("type") for entry in entries}
    other = kinds - {*PAIRS, "scale", "offset", None}
    if other:
        notes.append(
            f"its scaling {printable(str(other.pop()))[:40]} is no affine one: give `scaling` that comes near it"
        )
        return None
    if kinds == {"scale"}:
        return {"divisor": shortened([number(entry["value"]) for entry in entries])}
    if kinds == {"min-max"}:
        return {key: shortened([number(entry[key]) for entry in entries]) for key in PAIRS["min-max"]}
    pairs = [_step(entry) for entry in entries]
    return z_score_of([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def _step(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Return what is subtracted from a band's values, and by what they are divided then."""
    match entry.get("type"):
        case "z-score":
            return number(entry["mean"]), number(entry["stddev"])
        case "min-max":
            return number(entry["minimum"]), number(entry["maximum"]) - number(entry["minimum"])
        case "scale":
            return 0.0, number(entry["value"])
        case "offset":
            return number(entry["value"]), 1.0
        case _:
            return 0.0, 1.0
