"""Swathe in one import: the public names of `models`, `pipeline` and `train`, each imported on first use.

These three lie beside this package and are found there, whatever else has their names on Python's path: a user's own
models.py, a folder `pipeline` in the working directory. Where another one has been imported already, this is an error.
"""

from .early_signals import guard_imports

guard_imports()

from types import ModuleType
from typing import Any

from .own_packages import find_own_packages

find_own_packages()

import models as _models
import pipeline as _pipeline
import train as _train

_HOME: dict[str, ModuleType] = {name: package for package in (_models, _pipeline, _train) for name in package.__all__}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("swathe")
    if name not in _HOME:
        raise AttributeError(f"module 'swathe' has no attribute {name!r}")
    return getattr(_HOME[name], name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
