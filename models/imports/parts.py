"""What the readers of foreign files share: classes with colours, texts, numbers, files that stay in their folder.

Nothing here trusts what it is given: names are shown without control characters, counts are capped, numbers are finite.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path, PureWindowsPath
from typing import Any

from ..errors import BundleError
from ..limits import MOST_BANDS, parse_json, read_small
from ..metadata import MOST_CLASSES
from ..redact import printable
from .found import Kept

LONGEST_NAME = 100  # characters of a band's or class's name
LARGEST_TEXT = 4 * 2**20  # bytes of a description in JSON
WEB_MERCATOR = (3857, 102100, 102113, 900913)
# what values that make no sense raise, where they are used
UNUSABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
KINDS: Mapping[str, Kept] = {
    ".onnx": "onnx",
    ".pt2": "program",
}  # how a network is kept, by the end of its file's name; others: state


def class_tables(names: Sequence[object], colors: Sequence[str | None] = ()) -> list[str | dict[str, str]]:
    """Return classes as an import's settings have them: tables of name and colour, or names of those without one.

    Parameters
    ----------
    names
        In the order of the network's channels.
    colors
        `RRGGBB` of each, or None; empty: of none.

    Raises
    ------
    ValueError
        More classes than a map holds, or a name that is none.
    """
    if not 1 <= len(names) <= MOST_CLASSES:
        raise ValueError(f"{len(names):,} classes; a map holds 1 to {MOST_CLASSES}")
    texts: list[str] = []
    for value, name in enumerate(names):
        text = name_of(name)
        texts.append(f"{text}_{value}" if text in texts else text)
    given = [*colors, *[None] * (len(texts) - len(colors))]
    return [{"name": text, "color": color} if color else text for text, color in zip(texts, given, strict=True)]


def name_of(value: object) -> str:
    """Return a name from a file as one short line. Raises ValueError where it is none."""
    text = printable(str(value)) if isinstance(value, str | int | float) else ""
    if not text or len(text) > LONGEST_NAME:
        raise ValueError(f"a name of {len(str(value)):,} characters; names have 1 to {LONGEST_NAME}")
    return text


def bundle_name(text: object) -> str:
    """Return a name that a bundle may have, made of a title or a file's name."""
    plain = re.sub(r"[^\w.-]+", "-", str(text)[:LONGEST_NAME], flags=re.ASCII).strip("-.")
    return plain.lower() or "imported"


def description_of(value: object) -> str:
    """Return a text from a file in one line, of at most a thousand characters."""
    return printable(value[:1_000]) if isinstance(value, str) else ""


def names_of(values: object) -> list[str]:
    """Return names of bands. Raises ValueError where one is none, or more are given than a scene has bands."""
    if not isinstance(values, list | tuple) or len(values) > MOST_BANDS:
        raise ValueError("bands that are no list of names")
    return [name_of(value) for value in values]


def numbers(values: object, count: int | None = None) -> list[float]:
    """Return finite numbers from a file. Raises ValueError where they are none, or not as many as `count`."""
    if not isinstance(values, list | tuple) or len(values) > MOST_BANDS:
        raise ValueError("what should be a list of numbers is none")
    found = [number(value) for value in values]
    if count is not None and len(found) != count:
        raise ValueError(f"{len(found)} numbers for {count} bands")
    return found


def number(value: object) -> float:
    """Return a finite number from a file. Raises ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > LONGEST_NAME:
        raise ValueError("what should be a number is none")
    found = float(value)
    if not isfinite(found):
        raise ValueError(f"{found} where a finite number should be")
    return found


def whole(value: object, most: int) -> int:
    """Return a whole number above 0 from a file. Raises ValueError where it is none, or larger than `most`."""
    found = number(value)
    if not 1 <= found <= most or found != int(found):
        raise ValueError(f"{found:g} where a whole number from 1 to {most:,} should be")
    return int(found)


def shortened(values: Sequence[float]) -> list[float]:
    """Return numbers without the digits that float32 does not hold, as people write them."""
    return [float(f"{value:.7g}") for value in values]


def read_table(path: Path) -> dict[str, Any] | None:
    """Read a JSON object from a file; None where it is no JSON, or none of an object. Raises BundleError if hostile."""
    with open(path, "rb") as file:
        head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"{"):
        return None
    return parse_table(read_small(path, LARGEST_TEXT, BundleError), str(path))


def parse_table(content: bytes, whose: str) -> dict[str, Any]:
    """Parse a JSON object. Raises BundleError where it is none, larger or deeper than any that is meant."""
    try:
        found = parse_json(content.decode("utf-8-sig"), LARGEST_TEXT)
    except ValueError as error:
        raise BundleError(f"{whose} is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise BundleError(f"{whose} is JSON, but no object of keys and values")
    return found


def file_in(folder: Path, name: object, whose: str) -> Path:
    """Return the file in a folder that another file names; backslashes are those of Windows.

    Raises
    ------
    BundleError
        It lies elsewhere, or is not there.
    """
    plain = relative(name, whose)
    root = cache_of(folder).resolve()
    target = Path(os.path.realpath(folder / plain))  # which a link to itself does not stop
    if not target.is_relative_to(root):
        raise BundleError(f"{whose} leads out of its folder, to {plain!r}: put that file beside it, and name it so")
    if not target.is_file():
        raise BundleError(f"{whose} names {plain}, which is not in {folder}: put it there")
    return folder / plain


def relative(name: object, whose: str) -> str:
    """Return a path that stays in its folder, with slashes. Raises BundleError where it leads elsewhere."""
    text = printable(name) if isinstance(name, str) else ""
    plain = text.replace("\\", "/")
    parts = plain.split("/")
    elsewhere = "://" in plain or plain.startswith("/") or ":" in PureWindowsPath(text).drive or ".." in parts
    if not plain or len(plain) > 1_000 or elsewhere:
        shown = plain[:LONGEST_NAME] or "nothing"
        raise BundleError(f"{whose} leads out of its folder, to {shown!r}: put that file beside it, and name it so")
    return "/".join(part for part in parts if part not in ("", "."))


def cache_of(folder: Path) -> Path:
    """Return the folder in which links may lead: of a snapshot in the Hub's cache, all of its repository."""
    whole = folder.absolute()
    in_cache = whole.parent.name == "snapshots" and whole.parent.parent.name.startswith("models--")
    return whole.parent.parent if in_cache else whole


def z_score_of(means: Sequence[float], deviations: Sequence[float]) -> dict[str, list[float]]:
    """Return scaling by mean and standard deviation, as settings have it."""
    return {"mean": shortened(means), "stddev": shortened(deviations)}


def present(table: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return those entries of a table that it has, and that are not None."""
    return {key: table[key] for key in keys if table.get(key) is not None}


def metres(size: float, wkid: object) -> float | None:
    """Return a pixel's side in metres where its coordinate system is of metres: UTM on WGS84, or Web Mercator."""
    try:
        code = int(number(wkid))
    except ValueError:
        return None
    is_metric = code in WEB_MERCATOR or 32601 <= code <= 32660 or 32701 <= code <= 32760
    return size if is_metric and size > 0 else None
