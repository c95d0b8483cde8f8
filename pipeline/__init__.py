"""Scenes to maps: open, plan, segment, run, export. Names are imported on first use, so that help is quick.

Files are named by nouns and functions by verbs, so that `pipeline.plan` is the function and nothing else.
"""

from typing import TYPE_CHECKING

from models.lazy import on_first_use

if TYPE_CHECKING:
    from .blocks.prepare import plan as plan
    from .cleaning.cleanup import write_clean as write_clean
    from .cleaning.lazy import clean as clean
    from .cleaning.lazy import label_objects as label_objects
    from .figures.statistics import compute_statistics as compute_statistics
    from .figures.statistics import write_statistics as write_statistics
    from .objects.objects import open_objects as open_objects
    from .objects.objects import write_objects as write_objects
    from .outlines.vectors import Outlines as Outlines
    from .outlines.vectors import write_vectors as write_vectors
    from .pictures.overlays import overlay as overlay
    from .pictures.overlays import write_picture as write_picture
    from .pictures.pictures import five_panels as five_panels
    from .reading.scene import open_scene as open_scene
    from .report.report import write_report as write_report
    from .running.filling import Report as Report
    from .running.job import run as run
    from .running.lazy import segment as segment
    from .storage.cog import write_cog as write_cog
    from .storage.maps import open_maps as open_maps

_HOMES = {
    "Outlines": "outlines.vectors",
    "Report": "running.filling",
    "clean": "cleaning.lazy",
    "compute_statistics": "figures.statistics",
    "five_panels": "pictures.pictures",
    "label_objects": "cleaning.lazy",
    "open_maps": "storage.maps",
    "open_objects": "objects.objects",
    "open_scene": "reading.scene",
    "overlay": "pictures.overlays",
    "plan": "blocks.prepare",
    "run": "running.job",
    "segment": "running.lazy",
    "write_clean": "cleaning.cleanup",
    "write_cog": "storage.cog",
    "write_objects": "objects.objects",
    "write_picture": "pictures.overlays",
    "write_report": "report.report",
    "write_statistics": "figures.statistics",
    "write_vectors": "outlines.vectors",
}
__all__ = sorted(_HOMES)
__getattr__ = on_first_use(__name__, _HOMES, globals())
