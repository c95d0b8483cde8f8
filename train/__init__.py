"""Labels to bundles: chips from whole scenes, losses, a training loop, whole-scene scores.

Public names are imported on first use (see `__init__.pyi`), so that help and refusals never wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
