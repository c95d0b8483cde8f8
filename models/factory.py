"""Networks of a user's own class, made by a function that the user has named; it never comes with a bundle.

A bundle holds the function's name alone, and bundles come from anyone. It is imported only where the user has said so:
by `swathe import --factory`, which remembers this one function for this user, or in the environment variable
SWATHE_FACTORIES. What a named module has merely imported itself, as `os.system`, is never called.
"""

import os
import re
from collections.abc import Mapping, Set
from contextlib import suppress
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import platformdirs
from torch import nn

from .errors import NetworkError
from .files import whole_file
from .libraries import take_main_output
from .limits import read_small

FACTORY = "factory"  # the architecture, and the option that holds the function's name
MODULES = "SWATHE_FACTORIES"  # names functions as package.module:function, or modules, with commas between
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
LARGEST_LIST = 2**16  # bytes
BANDS = ("bands", "in_channels", "in_chans", "n_channels", "input_channels")  # what functions call channels in
CLASSES = ("classes", "num_classes", "out_channels", "n_classes", "output_channels")  # and out

_named = set[str]()  # functions that the user has named to this process


def module_of(factory: str) -> str:
    """Return the module in `package.module:function`. Raises NetworkError where it is no such name."""
    if not NAME.fullmatch(factory):
        raise NetworkError(f"a factory is given as package.module:function; received {factory[:100]!r}")
    return factory.partition(":")[0]


def allow_factory(factory: str) -> None:
    """Let this process call a function that the user has named."""
    module_of(factory)
    _named.add(factory)


def remember_factory(factory: str) -> Path | None:
    """Keep the name of a function in this user's config folder; None: it was there, or cannot be kept."""
    kept, known = _list_of_factories(), _remembered()
    if factory in known:
        return None
    with suppress(OSError, NetworkError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept, error=NetworkError) as part:
            part.write_text("".join(f"{name}\n" for name in sorted({*known, factory})), encoding="utf-8")
        return kept
    return None


def make_network(bands: int, classes: int, **options: Any) -> nn.Module:
    """Call a function that the user has named, and return the network that it makes.

    Parameters
    ----------
    bands, classes
        Channels in and out; passed where the function has a parameter that is usually called so.
    **options
        `factory`: the function, as `package.module:function`. The others are passed to it.

    Raises
    ------
    NetworkError
        Nobody has named its module here; it cannot be imported or called; it makes no network of torch.
    """
    name = str(options.pop(FACTORY, ""))
    module = module_of(name)
    by_name = name in {*_named, *_of_environment(), *_remembered()}
    if not by_name and not _is_in(module, _of_environment()):
        raise NetworkError(
            f"the network is made by {name}, which is code of the user's own: it is called only where it is named, as "
            f"by {MODULES}={name}"
        )
    try:
        made: Any = import_module(module)
        for part in name.partition(":")[2].split("."):
            made = getattr(made, part)
    except Exception as error:  # whatever the module's own code raises
        raise NetworkError(
            f"{name} cannot be imported: {error}; install its package, or name its folder in PYTHONPATH"
        ) from error
    if not by_name and not _is_in(str(getattr(made, "__module__", "")), _of_environment()):
        raise NetworkError(f"{name} is not of the module {module}, which only imports it; it is not called")
    network = made(**_arguments(made, bands, classes, options))
    if not isinstance(network, nn.Module):
        raise NetworkError(f"{name} makes a {type(network).__name__}, not a torch.nn.Module")
    return take_main_output(network)


def _arguments(made: Any, bands: int, classes: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options, and channels by the names by which the function asks for them."""
    asked = signature(made).parameters
    given = dict(options)
    for names, count in ((BANDS, bands), (CLASSES, classes)):
        name = next((name for name in names if name in asked), None)
        if name is not None:
            given.setdefault(name, count)
    return given


def _of_environment() -> set[str]:
    return {name.strip() for name in os.environ.get(MODULES, "").split(",")} - {""}


def _is_in(module: str, names: Set[str]) -> bool:
    """Whether a module, or a package that it is in, is named."""
    parts = module.split(".")
    return any(".".join(parts[: count + 1]) in names for count in range(len(parts)))


def _remembered() -> set[str]:
    with suppress(OSError, UnicodeDecodeError, NetworkError):
        return set(read_small(_list_of_factories(), LARGEST_LIST, NetworkError).decode().split())
    return set()


def _list_of_factories() -> Path:
    return platformdirs.user_config_path("swathe", appauthor=False) / "factories.txt"
