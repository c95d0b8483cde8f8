"""Names of a package that are imported on first use, so that help and refusals wait for nothing heavy."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, homes: Mapping[str, str], namespace: dict[str, Any]) -> Callable[[str], Any]:
    """Give a package's `__getattr__` (PEP 562).

    Parameters
    ----------
    package
        Its `__name__`.
    homes
        Public name to the module in the package that defines it.
    namespace
        Its `globals()`, where a name is kept once it was asked for.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        namespace[name] = value = getattr(import_module(f".{homes[name]}", package), name)
        return value

    return load
