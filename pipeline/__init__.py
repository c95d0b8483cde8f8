"""Scenes to maps and objects: open, plan, segment, run, clean, measure, export.

Public names are imported on first use (see `__init__.pyi`), so that help is quick.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
