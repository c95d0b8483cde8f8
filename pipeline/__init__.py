"""Scenes to maps: open, plan, segment, run, export. Names are imported on first use, so that help is quick.

Files are named by nouns and functions by verbs, so that `pipeline.plan` is the function and nothing else.
"""

from typing import TYPE_CHECKING

from models.lazy import on_first_use

if TYPE_CHECKING:
    from .cleanup import write_clean as write_clean
    from .cog import write_cog as write_cog
    from .filling import Report as Report
    from .job import run as run
    from .lazy import segment as segment
    from .lazy_clean import clean as clean
    from .lazy_clean import label_objects as label_objects
    from .maps import open_maps as open_maps
    from .objects import open_objects as open_objects
    from .objects import write_objects as write_objects
    from .overlays import overlay as overlay
    from .overlays import write_picture as write_picture
    from .pictures import five_panels as five_panels
    from .prepare import plan as plan
    from .report import write_report as write_report
    from .scene import open_scene as open_scene
    from .statistics import compute_statistics as compute_statistics
    from .statistics import write_statistics as write_statistics
    from .vectors import Outlines as Outlines
    from .vectors import write_vectors as write_vectors

_HOMES = {
    "Outlines": "vectors",
    "Report": "filling",
    "clean": "lazy_clean",
    "compute_statistics": "statistics",
    "five_panels": "pictures",
    "label_objects": "lazy_clean",
    "open_maps": "maps",
    "open_objects": "objects",
    "open_scene": "scene",
    "overlay": "overlays",
    "plan": "prepare",
    "run": "job",
    "segment": "lazy",
    "write_clean": "cleanup",
    "write_cog": "cog",
    "write_objects": "objects",
    "write_picture": "overlays",
    "write_report": "report",
    "write_statistics": "statistics",
    "write_vectors": "vectors",
}
__all__ = sorted(_HOMES)
__getattr__ = on_first_use(__name__, _HOMES, globals())
