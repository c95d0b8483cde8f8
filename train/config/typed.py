"""Tables of a TOML file into frozen dataclasses: every key and value checked, and named where it is wrong.

An unknown key is refused, with the one that was probably meant. Knows types, nothing of what they mean.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from models.errors import TrainingError

HIDDEN = "path"  # a field that no file sets


def change(raw: dict[str, Any], text: str) -> None:
    """Put one value, `key.key=value`, into what a file holds. Raises TrainingError where it names nothing."""
    name, equals, value = text.partition("=")
    *path, key = name.strip().split(".")
    if not equals or not key:
        raise TrainingError(f"{text!r} changes nothing; give KEY=VALUE, as loop.steps=500")
    table: Any = raw
    try:
        for part in path:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        table[key] = _toml_value(value)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise TrainingError(f"{name!r} names no setting; sets of data go by number, as data.0.root") from error


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def require(good: bool, name: str, received: object, wanted: str) -> None:
    """Refuse a value. Raises TrainingError, with what was received and what is wanted."""
    if not good:
        raise TrainingError(f"{name} is {received}; it must be {wanted}")


def made(kind: Any, raw: Any, where: str) -> Any:
    """Make a dataclass of a table.

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
    TrainingError
        A key that is unknown or missing, or a value of another type.
    """
    if not isinstance(raw, Mapping):
        raise TrainingError(f"{where.removesuffix('.')} is {raw!r}; it must be a table")
    hints, known = get_type_hints(kind), {item.name: item for item in fields(kind)}
    for key in raw:
        if key not in known:
            raise TrainingError(_unknown(f"{where}{key}", key, [name for name in known if name != HIDDEN]))
    needed = [n for n, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    missing = [name for name in needed if name not in raw]
    if missing:
        raise TrainingError(f"{where}{missing[0]} is missing; needed: {', '.join(where + name for name in needed)}")
    return kind(**{key: _value(hints[key], value, f"{where}{key}") for key, value in raw.items()})


def _unknown(shown: str, key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown key {shown!r}; {hint}"


def _value(hint: Any, value: Any, where: str) -> Any:
    """Make a value of what TOML gave, of the type that a field has."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return _one_of(parts, value, where)
    if kind is Literal:
        if value in parts:
            return value
        raise TrainingError(f"{where} is {value!r}; it must be one of {', '.join(map(repr, parts))}")
    if kind is tuple:
        return _several(parts, value, where)
    if is_dataclass(hint):
        return made(hint, value, f"{where}.")
    wanted = Mapping if kind is not None or hint is Mapping else hint
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and wanted in (int, float))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not fits:
        raise TrainingError(f"{where} is {value!r}; it must be {_named(wanted)}")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    said = []
    for kind in (kind for kind in kinds if kind is not type(None)):
        try:
            return _value(kind, value, where)
        except TrainingError as error:
            if is_dataclass(kind):
                raise
            said.append(str(error).split("it must be ")[-1])
    raise TrainingError(f"{where} is {value!r}; it must be {', or '.join(said)}")


def _several(parts: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TrainingError(f"{where} is {value!r}; it must be a list")
    if parts[-1] is not Ellipsis and len(value) != len(parts):
        raise TrainingError(f"{where} is {value!r}; it must be a list of {len(parts)}")
    kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
    return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))


def _named(kind: Any) -> str:
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a table")
