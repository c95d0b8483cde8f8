"""Class tables: what label values, colours and names mean, a class or nothing that counts; and tables of colours.

A label's code is its value, or its colour as red * 65536 + green * 256 + blue. Codes are matched exactly: a colour that
is nearly a class's is unknown, and unknown codes are counted, never guessed.
"""

import csv
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError
from models.metadata import ClassInfo

from ..config.schema import IGNORE

COLOURS = 1 << 24
MOST_LISTED = 1000  # codes that are counted apart; a photograph taken for a mask has millions
OTHERS = "others"
SHOWN = 8  # in a message
GREY = 0x010101
NEAR, FEW = 24, 4  # levels by which a smeared colour differs; so few colours are no smear

Codes = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded labels.

    Parameters
    ----------
    labels
        Class values uint8 `(y, x)`, `IGNORE` where nothing counts or the code is unknown.
    unknown
        Codes that mean nothing, as text (`255`, or `3C1098` for colours), and how many pixels have them.
    remarks
        What is to be said of pixels for which the file has nodata or a mask, and which these are: bool `(y, x)`.
    """

    labels: NDArray[np.uint8]
    unknown: dict[str, int]
    remarks: Mapping["Remark", NDArray[np.bool_]] = field(default_factory=dict)


class Remark(NamedTuple):
    """What is to be said of some pixels of labels, after their number: `are NaN, and do not count`.

    `expected` tells whether the user has said it himself, or it takes nothing away.
    """

    text: str
    expected: bool = False


@dataclass(frozen=True, slots=True)
class ClassTable:
    """What every code and every name of a set's labels means.

    Parameters
    ----------
    names
        Of the classes, in the order of their values.
    coded
        Whether masks are coded with colours.
    codes
        Code and class value, `IGNORE` for codes that do not count.
    texts
        Text of a vector's attribute and class value, likewise.
    explicit
        Codes that the user has named as classes.
    colors
        Colour code of each class, by which palettes are read that hold these colours. Empty: never.
    """

    names: tuple[str, ...]
    coded: bool
    codes: tuple[tuple[int, int], ...]
    texts: tuple[tuple[str, int], ...]
    explicit: frozenset[int] = frozenset()
    colors: tuple[int, ...] = ()

    @property
    def ignored(self) -> frozenset[int]:
        """Codes that the user has named as not counting."""
        return frozenset(code for code, value in self.codes if value == IGNORE)

    def value_of(self, code: int) -> int:
        """Return the class value of one code, `IGNORE` if it is no class's."""
        return dict(self.codes).get(code, IGNORE)

    def hex(self, code: int) -> str:
        """Return a code as messages have it: a number, or a colour as six hex digits."""
        return f"{code:06X}" if self.coded else str(code)

    def decode(self, codes: Codes, valid: NDArray[np.bool_] | None = None) -> Decoded:
        """Turn codes into class values.

        Parameters
        ----------
        codes
            `(y, x)` of any integer or floating type. NaN does not count.
        valid
            Bool `(y, x)`, True = labelled. Elsewhere nothing is unknown, and the label is `IGNORE`.
        """
        labels = _look_up(codes, self.codes)
        if valid is not None:
            labels[~valid] = IGNORE
        return Decoded(labels, self._unknown(codes, labels, valid))

    def decode_colors(self, mask: NDArray[np.uint8]) -> Decoded:
        """Turn colours, uint8 `(3, y, x)`, into class values; with a fourth band for alpha, where 0 = not labelled."""
        return self.decode(pack(mask[:3]), mask[3] > 0 if len(mask) == 4 else None)

    def _unknown(self, codes: Codes, labels: NDArray[np.uint8], valid: NDArray[np.bool_] | None) -> dict[str, int]:
        left = codes[labels == IGNORE if valid is None else (labels == IGNORE) & valid]
        if left.size and left.dtype.kind == "f":
            left = left[~np.isnan(left)]
        ignored = sorted(self.ignored)
        left = left[~np.isin(left, ignored)] if ignored and left.size else left
        values, counts = np.unique(left, return_counts=True)
        first = np.argsort(-counts, kind="stable")[:MOST_LISTED]
        form = "{:06X}" if self.coded else "{:.15g}" if values.dtype.kind == "f" else "{:d}"
        listed = {form.format(values[place].item()): int(counts[place]) for place in first}
        rest = int(left.size) - sum(listed.values())
        return listed | ({OTHERS: rest} if rest else {})

    def class_of(self, text: str) -> int | None:
        """Return the class value of a vector's attribute, `IGNORE` if it does not count, None if it means nothing."""
        return dict(self.texts).get(text)

    def refusal(self, path: str, unknown: Mapping[str, int]) -> TrainingError:
        """Return the error that lists unknown codes, the commonest first, and says what to do."""
        common = sorted(unknown.items(), key=lambda item: (item[0] == OTHERS, -item[1]))
        shown = ", ".join(f"{code} ({count:,} pixel{'s' if count > 1 else ''})" for code, count in common[:SHOWN])
        more = f" and {len(common) - SHOWN} more" if len(common) > SHOWN else ""
        code, quote = common[0][0], '"' if self.coded else ""
        base = "" if self.coded or self.explicit else f'"0" = "{self.names[0]}", '
        return TrainingError(
            f"{path} holds {'colours' if self.coded else 'values'} that mean no class: {shown}{more}.\n"
            f'Say in [[data]] what they are, as values = {{ {base}"{code}" = "{self.names[-1]}" }}, '
            f"or ignore = [{quote}{code}{quote}]" + self._smeared(unknown)
        )

    def _smeared(self, unknown: Mapping[str, int]) -> str:
        """Say so where most of the unknown colours are nearly a class's, as of masks that were once a JPEG."""
        counts = {code: count for code, count in unknown.items() if code != OTHERS}
        known = np.array([_channels(code) for code, value in self.codes if value != IGNORE])
        if not self.coded or not counts or not known.size:
            return ""
        apart = np.abs(np.array([_channels(int(code, 16)) for code in counts])[:, None] - known[None]).max(axis=2)
        near = sum(count for count, least in zip(counts.values(), apart.min(axis=1), strict=True) if least <= NEAR)
        if 2 * near < sum(counts.values()) or len(counts) < FEW:
            return ""
        return "; most are nearly a class's colour, as of a mask that was once a JPEG: make it anew from the originals"


def _channels(code: int) -> tuple[int, int, int]:
    return code >> 16, code >> 8 & 255, code & 255


def pack(mask: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Turn colours, uint8 `(3, ...)`, into codes uint32 `(...)`."""
    packed: NDArray[np.uint32] = mask[0].astype(np.uint32)
    for band in mask[1:3]:
        packed <<= np.uint32(8)
        packed |= band
    return packed


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add up unknown codes of several windows."""
    added: Counter[str] = Counter()
    for of_one in counts:
        added.update(of_one)
        if len(added) > 2 * MOST_LISTED:
            kept = dict(added.most_common(MOST_LISTED))
            added = Counter(kept | {OTHERS: added.total() - sum(n for code, n in kept.items() if code != OTHERS)})
    return dict(added)


def _look_up(codes: Codes, known: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """Return the class values of codes, `IGNORE` for those that are not known."""
    if codes.dtype == np.uint32 and known and min(known)[0] >= 0 and max(known)[0] < COLOURS:
        within = codes < COLOURS
        return _colours(known)[codes] if within.all() else _searched(np.where(within, codes, COLOURS), known)
    if codes.dtype.kind in "iub" and codes.dtype.itemsize <= 2:
        unsigned = codes.view(np.dtype(f"u{codes.dtype.itemsize}"))
        return _small(str(codes.dtype), known)[unsigned]  # type: ignore[no-any-return]
    return _searched(codes, known)


@lru_cache(maxsize=4)
def _colours(known: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """Return the class value of every colour: 16 MiB, and one look-up a pixel however many classes there are."""
    table = np.full(COLOURS, IGNORE, np.uint8)
    for code, value in known:
        table[code] = value
    return table


@lru_cache(maxsize=16)
def _small(dtype: str, known: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """Return the class value of every value of a small type, by its bits: -1 is the last."""
    kind = np.dtype("uint8" if dtype == "bool" else dtype)
    info = np.iinfo(kind)
    table = np.full(1 << info.bits, IGNORE, np.uint8)
    for code, value in known:
        if info.min <= code <= info.max:
            table[code] = value
    return table


def _searched(codes: Codes, known: tuple[tuple[int, int], ...]) -> NDArray[np.uint8]:
    """Look codes of large types up in the sorted few that are known."""
    if not known:
        return np.full(codes.shape, IGNORE, np.uint8)
    order = sorted(known)
    values = np.array([code for code, _ in order], np.float64 if codes.dtype.kind == "f" else np.int64)
    classes = np.array([value for _, value in order], np.uint8)
    place = np.minimum(np.searchsorted(values, codes), len(values) - 1)
    return np.where(values[place] == codes, classes[place], np.uint8(IGNORE))


def value_table(
    classes: Sequence[ClassInfo],
    values: Mapping[str, str] | None = None,
    ignore: Sequence[int | str] = (),
    *,
    palettes: bool = True,
) -> ClassTable:
    """Return the table of labels that hold numbers, or for vectors with names.

    Parameters
    ----------
    classes
        In the order of their values.
    values
        Label value or attribute to class name. None or empty: a class's value is its place in `classes`.
    ignore
        Label values or attributes that do not count.
    palettes
        Whether palettes that hold the classes' own colours are read by colour.

    Raises
    ------
    TrainingError
        Two classes of one name, a class that is not there, a value that is both a class and ignored.
    """
    names = _names(classes)
    given = {str(key).strip(): _place(name, names, f"value {key}") for key, name in (values or {}).items()}
    meant = given or {str(place): place for place in range(len(names))}
    texts = {name: place for place, name in enumerate(names)} | meant
    explicit = frozenset(int(key) for key in given if _is_whole(key))
    codes = {int(key): place for key, place in meant.items() if _is_whole(key)}
    twice = sorted({str(item).strip() for item in ignore} & set(given))
    if twice:
        raise TrainingError(f"{', '.join(twice)} is both in values and in ignore; give it once")
    for item in ignore:
        texts[str(item).strip()] = IGNORE
        if _is_whole(str(item)):
            codes[int(item)] = IGNORE
    colors = tuple(code_of(info.color) for info in classes) if palettes else ()
    return ClassTable(names, False, tuple(sorted(codes.items())), tuple(texts.items()), explicit, colors)


def color_table(
    classes: Sequence[ClassInfo],
    colors: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    ignore: Sequence[int | str] = (),
) -> ClassTable:
    """Return the table of masks that are coded with colours.

    Parameters
    ----------
    classes
        In the order of their values.
    colors
        Colour as six hex digits to the name that a table of the set's own gives it; see `read_colors`. None: the
        classes' own colours.
    values
        Colour, or name in `colors`, to class name; added to `colors`.
    ignore
        Colours, or names in `colors`, that do not count.

    Raises
    ------
    TrainingError
        A colour or name twice, a name that is no class's, something that is no colour.
    """
    names, values = _names(classes), dict(values or {})
    if colors is None:
        colors = {info.color: info.name for info in classes}
    ignored_texts = {str(item).strip() for item in ignore}
    ignored_colors = {text.upper().removeprefix("#") for text in ignored_texts}
    meant: dict[int, int] = {}
    for color, name in colors.items():
        ignored = name in ignored_texts or color.upper() in ignored_colors
        _put(meant, color, IGNORE if ignored else _place(values.pop(name, name), names, f"colour {color}"), names)
    for color, name in values.items():
        _put(meant, color, _place(name, names, f"colour {color}"), names)
    for item in ignored_texts - set(colors.values()):
        code = code_of(item)
        if meant.get(code, IGNORE) != IGNORE:
            raise TrainingError(f"colour {item} is both {names[meant[code]]} and in ignore; give it once")
        meant[code] = IGNORE
    explicit = frozenset(code for code, value in meant.items() if value != IGNORE)
    return ClassTable(names, True, tuple(sorted(meant.items())), (), explicit)


def _put(meant: dict[int, int], color: str, value: int, names: Sequence[str]) -> None:
    code = code_of(color)
    if meant.get(code, value) != value:
        both = " and ".join("ignored" if v == IGNORE else names[v] for v in (meant[code], value))
        raise TrainingError(f"colour {color} is both {both}; give it once")
    meant[code] = value


def _names(classes: Sequence[ClassInfo]) -> tuple[str, ...]:
    names = tuple(info.name for info in classes)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TrainingError(f"classes of one name: {', '.join(twice)}; give each name once")
    return names


def _place(name: Any, names: Sequence[str], what: str) -> int:
    """Return a class's place by its name; case counts only where names differ by it."""
    for fold in (str, str.casefold):
        found = [place for place, known in enumerate(names) if fold(known) == fold(str(name))]
        if len(found) == 1:
            return found[0]
    close = difflib.get_close_matches(str(name), names, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"the classes are {', '.join(names)}"
    raise TrainingError(f"{what} stands for {name!r}, which is no class; {hint}")


def _is_whole(text: str) -> bool:
    return text.strip().removeprefix("-").isdecimal()


def read_colors(path: str | Path) -> dict[str, str]:
    """Read a table of colours, as published with the Massachusetts sets and CamVid: columns `name,r,g,b`, 0 to 255.

    Returns
    -------
    dict
        Colour as six hex digits to name, in the file's order.

    Raises
    ------
    TrainingError
        It cannot be read, lacks a column, or has a name or a colour twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path} cannot be read as a table of colours: {error}") from error
    colors: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        cells = {str(key).strip().lower(): value for key, value in row.items()}
        try:
            name, parts = str(cells["name"]).strip(), [int(cells[key]) for key in ("r", "g", "b")]
            color = bytes(parts).hex().upper()  # ValueError beyond 255
        except (KeyError, TypeError, ValueError):
            name = ""
        if not name:
            raise TrainingError(f"{path}, line {number}: give name,r,g,b with whole numbers from 0 to 255")
        if name in colors.values() or color in colors:
            twice = f"colour {color}" if color in colors else f"name {name!r}"
            raise TrainingError(f"{path}, line {number}: the {twice} is there twice; give each once")
        colors[color] = name
    if not colors:
        raise TrainingError(f"{path} has no rows; give one per class, as: building,255,255,255")
    return colors


def code_of(color: str) -> int:
    """Return the code of a colour of six hex digits, with or without `#`. Raises TrainingError if it is none."""
    digits = color.strip().removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise TrainingError(
            f'{color!r} is no colour, and no name in the table; give six hex digits in quotes, "FF8800"'
        )
    return int(digits, 16)
