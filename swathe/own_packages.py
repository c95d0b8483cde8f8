"""Finds `models`, `pipeline` and `train` beside this package, whatever else has their names on Python's path."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parents[1]
OWN = ("models", "pipeline", "train")


class OwnPackages(MetaPathFinder):
    """Finds our packages beside this one, before Python's path is asked."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where a package of ours lies; None for all others."""
        return PathFinder.find_spec(name, [str(HERE)]) if name in OWN else None


def find_own_packages() -> None:
    """Let this process find them, from now on.

    Raises
    ------
    ImportError
        A module of another's is imported already under one of their names.
    """
    for name in OWN:
        if (module := sys.modules.get(name)) is None:
            continue
        folders = [str(folder) for folder in getattr(module, "__path__", ())]
        if not any(Path(folder).resolve() == HERE / name for folder in folders):
            where = getattr(module, "__file__", None) or ", ".join(folders)
            raise ImportError(
                f"Swathe has a package {name!r}, and another one is imported in this process already: {where}. "
                "Give that another name, or use Swathe in a process of its own"
            )
    if not any(isinstance(finder, OwnPackages) for finder in sys.meta_path):
        sys.meta_path.insert(0, OwnPackages())
