"""Labels to bundles: chips from whole scenes, a loss, a loop, whole-scene scores. No other package imports it.

Names are imported on first use, so that help and refusals never wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .curves import read_logs as read_logs
    from .evaluation import Evaluation as Evaluation
    from .evaluation import evaluate as evaluate
    from .fit import train as train
    from .inspection import inspect as inspect
    from .settings import Settings as Settings
    from .settings import read_settings as read_settings
    from .settings import settings_of as settings_of

_HOMES = {
    "Evaluation": "evaluation",
    "Settings": "settings",
    "evaluate": "evaluation",
    "inspect": "inspection",
    "read_logs": "curves",
    "read_settings": "settings",
    "settings_of": "settings",
    "train": "fit",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
