"""Networks, and how to run one on numbers. Knows torch and OpenVINO; knows no dask, no rasters, no maps.

Names are imported on first use, so that a plan or a help text never waits for torch. `build` is both a
file and a function: import it from `models.build`.
"""

from typing import TYPE_CHECKING

from .lazy import on_first_use

if TYPE_CHECKING:
    from .bundle import Bundle as Bundle
    from .bundle import load_bundle as load_bundle
    from .bundle import save_bundle as save_bundle
    from .bundle import shipped_bundles as shipped_bundles
    from .errors import SwatheError as SwatheError
    from .facts import Band as Band
    from .facts import ClassInfo as ClassInfo
    from .facts import Facts as Facts
    from .footprint import measure_footprint as measure_footprint
    from .scaling import divide as divide
    from .scaling import min_max as min_max
    from .scaling import z_score as z_score

_HOMES = {
    "Bundle": "bundle",
    "load_bundle": "bundle",
    "save_bundle": "bundle",
    "shipped_bundles": "bundle",
    "SwatheError": "errors",
    "Band": "facts",
    "ClassInfo": "facts",
    "Facts": "facts",
    "measure_footprint": "footprint",
    "divide": "scaling",
    "min_max": "scaling",
    "z_score": "scaling",
}
__all__ = sorted(_HOMES)
__getattr__ = on_first_use(__name__, _HOMES, globals())
