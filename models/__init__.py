"""Networks, and how to run one on arrays. Uses torch and OpenVINO; no dask, no rasters.

Public names are imported on first use (see `__init__.pyi`), so that a plan or a help text never waits for torch.
`build` is both a file and a function: import it from `models.build`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
