"""The settings of an import as a TOML to fill in: what was found, with where; and what is missing, marked by "?"."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..redact import printable
from .found import Found
from .settings import MISSING, NEEDED

BARE = re.compile(r"[A-Za-z0-9_-]+")  # keys of TOML that need no quotes
LONGEST = 100  # characters of a table in one line


@dataclass(frozen=True)
class Asked:
    """A setting: its key, what it means, and what stands for it where it was not found; empty: it may be left out."""

    key: str
    meaning: str
    empty: str = ""


ASKED = (
    Asked("name", "letters, digits, - and _"),
    Asked("architecture", "unet, smp:Unet, torchvision:fcn_resnet50, monai:UNet, ..., or --factory", '"?"'),
    Asked("options", "of the architecture, as { encoder_name = \"resnet34\" }", "{}"),
    Asked("bands", "names in the network's order", '["?"]'),
    Asked("dtype", "of the raw pixels: uint8, uint16, float32", '"?"'),
    Asked("scaling", "{ mean = [..], stddev = [..] }, { minimum = 0, maximum = 10000 } or { divisor = 255 }", '"?"'),
    Asked("classes", "in order of their values; as names, or { name = \"roof\", color = \"FF0000\" }", '["?", "?"]'),
    Asked("activation", "softmax, or sigmoid: one channel for two classes, or classes that exclude nothing"),
    Asked("background", "the class that is no object; false: there is none"),
    Asked("resolution", "metres per pixel of the training images, as 0.5 or [0.3, 0.6]"),
    Asked("radiometry", "value * scale + offset is in the unit"),
    Asked("description", "what it finds, and in which images"),
    Asked("provenance", "licence of the weights, where they are from, data they were trained on"),
)  # fmt: skip
FORM = Asked("options", "where it is not told rightly: the answer is logits, probabilities or classes")
EXAMPLES = {"options": '{ output = "probabilities" }', "activation": '"softmax"', "background": '"..."',
            "resolution": "10", "description": '"..."',
            "provenance": '{ licence = "MIT", source = "https://..." }',
            "radiometry": '{ scale = 0.0001, unit = "reflectance" }'}  # fmt: skip


def skeleton(found: Found, settings: Mapping[str, Any] | None = None) -> str:
    """Write a TOML of what was found in a file, with what is missing marked by "?" and a comment.

    Parameters
    ----------
    found
        Of `recognise`.
    settings
        What the user gives already; it goes before what was found.
    """
    return "\n".join(_lines(found, settings or {})) + "\n"


def missing_settings(settings: Mapping[str, Any], kept: str) -> list[str]:
    """Return the keys that an import needs and that are not there, or still hold the mark of what is missing.

    `kept`: how the network is kept; an ONNX graph has no architecture to be named.
    """
    needed = [key for key in NEEDED if key != "architecture" or kept == "state"]
    marked = [key for key, value in settings.items() if _holds_mark(value)]
    return list(dict.fromkeys([*(key for key in needed if key not in settings), *marked]))


def refuse_missing(path: Path, settings: Mapping[str, Any], kept: str) -> None:
    """Refuse settings in which something is missing, in a line that says what and how to get a skeleton."""
    if missing := missing_settings(settings, kept):
        raise BundleError(
            f"{path} does not tell {', '.join(missing)}: `swathe import {path} --describe > network.toml` writes what "
            "is known; fill in what is marked by \"?\", and give it with --config"
        )  # fmt: skip


def _lines(found: Found, settings: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {printable(str(found.path))} is {printable(found.kind)}"
    yield from (f"# {printable(note)}" for note in found.notes)
    if found.inputs or found.outputs:
        yield f"# channels: {found.inputs or '?'} in, {found.outputs or '?'} out"
    yield '# "?" marks what the file does not tell and an import needs'
    known = {"name": default_name(found.path), **found.facts, **settings}
    asked = [one for one in ASKED if one.key not in ("architecture", "options") or found.network == "state"]
    asked += [] if found.network == "state" else [FORM]
    for one in asked:
        if one.key in known:
            where = "given" if one.key in settings else found.sources.get(one.key, "")
            yield from _entry(one.key, known[one.key], f"found in {where}" if where and where != "given" else "")
        elif one.key == "activation" and found.outputs == 1:
            yield from _entry(one.key, "sigmoid", "its answer has one channel")
        elif empty := _empty(one, found):
            yield from _entry(one.key, None, one.meaning, empty)
        else:
            yield f"# {one.key} = {EXAMPLES[one.key]}  # {one.meaning}"
    for key, value in known.items():
        if key not in {one.key for one in asked} and key != "architecture":
            yield from _entry(key, value, f"found in {found.sources[key]}" if key in found.sources else "")


def _empty(asked: Asked, found: Found) -> str:
    """Return what stands for a setting that is not known: of bands and classes as many marks as there are channels."""
    count = {"bands": found.inputs, "classes": found.outputs}.get(asked.key)
    return _toml([MISSING] * (2 if asked.key == "classes" and count == 1 else count)) if count else asked.empty


def _entry(key: str, value: Any, comment: str, text: str = "") -> Iterator[str]:
    """Yield the line of a key, a long list in several."""
    end = f"  # {printable(comment)}" if comment else ""
    written = text or _toml(value)
    if len(written) <= LONGEST or not isinstance(value, list):
        yield f"{_key(key)} = {written}{end}"
        return
    yield f"{_key(key)} = [{end}"
    yield from (f"  {_toml(one)}," for one in value)
    yield "]"


def default_name(path: Path) -> str:
    """Return a bundle's name after a file's."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().stem).strip("-.")
    return name or "network"


def _holds_mark(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_mark, value.values()))
    return any(map(_holds_mark, value)) if isinstance(value, list | tuple) else value == MISSING


def _key(key: str) -> str:
    return key if BARE.fullmatch(key) else _toml(key)


def _toml(value: Any) -> str:
    """Write a value in TOML, in one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(key))} = {_toml(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower()  # booleans and numbers, NaN too
