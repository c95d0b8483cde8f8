from .bundle import Bundle as Bundle
from .bundle import load_bundle as load_bundle
from .bundle import save_bundle as save_bundle
from .bundle import shipped_bundles as shipped_bundles
from .errors import SwatheError as SwatheError
from .importing import describe_model as describe_model
from .importing import import_model as import_model
from .metadata import Band as Band
from .metadata import BundleMetadata as BundleMetadata
from .metadata import ClassInfo as ClassInfo
from .metadata import Radiometry as Radiometry
from .metadata import divide as divide
from .metadata import min_max as min_max
from .metadata import z_score as z_score
from .receptive_field import measure_receptive_field as measure_receptive_field

__all__ = [
    "Band",
    "Bundle",
    "BundleMetadata",
    "ClassInfo",
    "Radiometry",
    "SwatheError",
    "describe_model",
    "divide",
    "import_model",
    "load_bundle",
    "measure_receptive_field",
    "min_max",
    "save_bundle",
    "shipped_bundles",
    "z_score",
]
