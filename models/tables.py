"""Tables of TOML files as frozen dataclasses: every key and value is checked, and named where it is wrong."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ArgumentError

LONGEST = 200  # characters of a value in a message
HIDDEN = "path"  # a field that no file sets: where the file lies


def from_table(kind: Any, raw: Any, where: str) -> Any:
    """Return a dataclass of a table.

    Parameters
    ----------
    kind
        A dataclass with type hints: text, numbers, booleans, `Literal`, tuples, mappings, dataclasses, or a choice.
    raw
        The table, as `tomllib` gives it.
    where
        What stands before its keys in messages, as `loop.`.

    Raises
    ------
    ArgumentError
        A key that is unknown or missing, or a value of another type.
    """
    if not isinstance(raw, Mapping):
        raise ArgumentError(f"{where.removesuffix('.')} is {_shown(raw)}; it must be a table")
    hints, known = get_type_hints(kind), {item.name: item for item in fields(kind)}
    for key in raw:
        if key not in known:
            names = [name for name in known if name != HIDDEN]
            close = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
            raise ArgumentError(f"unknown key {_shown(where + key)}; {hint}")
    needed = [n for n, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise ArgumentError(f"{where}{missing[0]} is missing; needed: {', '.join(where + name for name in needed)}")
    return kind(**{key: _value(hints[key], value, f"{where}{key}") for key, value in raw.items()})


def _shown(value: Any) -> str:
    """Return a value as it is written, of a long one the beginning."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _value(hint: Any, value: Any, where: str) -> Any:
    """Return a value from TOML as the type that a field has."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(parts, value, where)
    if kind is Literal:
        if value in parts:
            return value
        raise ArgumentError(f"{where} is {_shown(value)}; it must be one of {', '.join(map(repr, parts))}")
    if kind is tuple:
        return _several(parts, value, where)
    if is_dataclass(hint):
        return from_table(hint, value, f"{where}.")
    wanted = Mapping if kind is not None or hint is Mapping else hint
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and wanted in (int, float))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not fits:
        named = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(wanted, "a table")
        raise ArgumentError(f"{where} is {_shown(value)}; it must be {named}")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    wanted = []
    for kind in (kind for kind in kinds if kind is not type(None)):
        try:
            return _value(kind, value, where)
        except ArgumentError as error:
            if is_dataclass(kind):
                raise
            wanted.append(str(error).split("it must be ")[-1])
    raise ArgumentError(f"{where} is {_shown(value)}; it must be {', or '.join(wanted)}")


def _several(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ArgumentError(f"{where} is {_shown(value)}; it must be a list")
    if parts[-1] is not Ellipsis and len(value) != len(parts):
        raise ArgumentError(f"{where} is {_shown(value)}; it must be a list of {len(parts)}")
    kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
    return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
