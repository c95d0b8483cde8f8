"""Options that several functions take as keywords: declared, typed and explained once, by a dataclass.

A function writes the keywords into its signature, where editors and type checkers see them, and `{TheOptions}` into the
parameters of its docstring; `documents` puts the dataclass's own words there. tests/test_options.py compares them.
"""

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

F = TypeVar("F", bound=Callable[..., Any])
Options = TypeVar("Options")
MODULES = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])")  # before the name of a type


def chosen(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Make options of a function's arguments, as `locals()` has them when it begins; others are as by default."""
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]
    return options(**{name: given[name] for name in names if name in given})


def documents(options: Any, *, but: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Put the options that a function takes into its docstring, each with type, default and meaning.

    Parameters
    ----------
    options
        The dataclass; `{ItsName}` in the docstring is replaced.
    but
        Those that the function explains itself.
    """

    def decorate(function: F) -> F:
        if function.__doc__:  # there is none under `python -OO`
            taken = inspect.signature(function).parameters.keys() - set(but)
            marker = re.compile(rf"^( *)\{{{options.__name__}\}}$", re.MULTILINE)
            found = marker.search(function.__doc__)
            assert found, f"{function.__qualname__} does not say where {options.__name__} are explained"
            text = textwrap.indent(described(options, taken), found[1])
            function.__doc__ = function.__doc__.replace(found[0], text)
        return function

    return decorate


def described(options: Any, names: Set[str]) -> str:
    """Explain options by these names as the parameters of a numpy docstring."""
    told, lines = meanings(options), []
    for field in fields(options):
        if field.name in names:
            lines.append(f"{field.name} : {typed(field.type)}, default {field.default!r}")
            lines.append(textwrap.indent(told[field.name], "    "))
    return "\n".join(lines)


def typed(annotation: Any) -> str:
    """Return a type in words, as `float | None`."""
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(typed, get_args(annotation)))
    return "None" if annotation is NoneType else MODULES.sub("", inspect.formatannotation(annotation))


def meanings(options: Any) -> dict[str, str]:
    """Read what the dataclass's docstring says of each field; of several in one line the same."""
    text = inspect.cleandoc(options.__doc__ or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^(\S.*)\n((?: +.*\n?)+)", text, flags=re.MULTILINE)
    return {name.strip(): textwrap.dedent(meaning).rstrip() for names, meaning in entries for name in names.split(",")}
