"""Scenes to maps: open, plan, segment, run, export. Names are imported on first use, so that help is quick.

Files are named by nouns and functions by verbs, so that `pipeline.plan` is the function and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cog import write_cog as write_cog
    from .job import Report as Report
    from .job import run as run
    from .lazy import segment as segment
    from .maps import open_maps as open_maps
    from .prepare import plan as plan
    from .scene import open_scene as open_scene

_HOMES = {
    "Report": "job",
    "open_maps": "maps",
    "open_scene": "scene",
    "plan": "prepare",
    "run": "job",
    "segment": "lazy",
    "write_cog": "cog",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
