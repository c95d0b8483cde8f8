"""Networks of a user's own class, made by a function that the user has named; it never comes with a bundle.

A bundle holds the function's name alone. It is imported only where the user has said so: by `swathe import --factory`,
which remembers the module for this user, or in the environment variable SWATHE_FACTORIES.
"""

import os
import re
from collections.abc import Mapping
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
MODULES = "SWATHE_FACTORIES"  # names modules whose functions may be called, with commas between
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
LARGEST_LIST = 2**16  # bytes
BANDS = ("bands", "in_channels", "in_chans", "n_channels", "input_channels")  # what functions call channels in
CLASSES = ("classes", "num_classes", "out_channels", "n_classes", "output_channels")  # and out

_named = set[str]()  # modules that the user has named to this process


def module_of(factory: str) -> str:
    """Return the module in `package.module:function`. Raises NetworkError where it is no such name."""
    if not NAME.fullmatch(factory):
        raise NetworkError(f"a factory is given as package.module:function; received {factory[:100]!r}")
    return factory.partition(":")[0]


def allow_factory(factory: str) -> None:
    """Let this process import the module of a function that the user has named."""
    _named.add(module_of(factory))


def remember_factory(factory: str) -> Path | None:
    """Keep the name of a function's module in this user's config folder; None: it was there, or cannot be kept."""
    module, kept = module_of(factory), _list_of_modules()
    known = _remembered()
    if module in known:
        return None
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(kept, error=NetworkError) as part:
            part.write_text("".join(f"{name}\n" for name in sorted({*known, module})), encoding="utf-8")
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
    if not _is_allowed(module):
        raise NetworkError(
            f"the network is made by {name}, which is code of the user's own: it is imported only where its module is "
            f"named, as by {MODULES}={module}"
        )
    try:
        made: Any = import_module(module)
        for part in name.partition(":")[2].split("."):
            made = getattr(made, part)
    except Exception as error:  # whatever the module's own code raises
        raise NetworkError(
            f"{name} cannot be imported: {error}; install its package, or name its folder in PYTHONPATH"
        ) from error
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


def _is_allowed(module: str) -> bool:
    """Whether the user has named a module, or a package that it is in."""
    allowed = {*_named, *(name.strip() for name in os.environ.get(MODULES, "").split(",")), *_remembered()}
    parts = module.split(".")
    return any(".".join(parts[: count + 1]) in allowed for count in range(len(parts)))


def _remembered() -> set[str]:
    with suppress(OSError, UnicodeDecodeError, NetworkError):
        return set(read_small(_list_of_modules(), LARGEST_LIST, NetworkError).decode().split())
    return set()


def _list_of_modules() -> Path:
    return platformdirs.user_config_path("swathe", appauthor=False) / "factories.txt"
