from .catalog.build import IndexResult as IndexResult
from .catalog.build import build_index as build_index
from .catalog.index import SceneIndex as SceneIndex
from .catalog.index import read_index as read_index
from .catalog.search import StacSearch as StacSearch
from .cluster.options import Cluster as Cluster
from .inference.cost import Cost as Cost
from .inference.cost import estimate_cost as estimate_cost
from .inference.lazy import segment as segment
from .inference.plan import plan as plan
from .inference.quantise import quantise as quantise
from .inference.run import run as run
from .io.places import allowing as allowing
from .io.scene import open_scene as open_scene
from .jobs.job import RunResult as RunResult
from .jobs.run_log import RunLog as RunLog
from .mosaic.open import open_mosaic as open_mosaic
from .objects.objects import open_objects as open_objects
from .objects.objects import write_objects as write_objects
from .postprocess.clean import write_clean as write_clean
from .postprocess.lazy import clean as clean
from .postprocess.lazy import label_objects as label_objects
from .postprocess.verify import Verification as Verification
from .postprocess.verify import verify as verify
from .publishing.publish import Publication as Publication
from .publishing.publish import publish as publish
from .stats.cell_parts import write_cells as write_cells
from .stats.stats import compute_statistics as compute_statistics
from .stats.stats import write_statistics as write_statistics
from .store.cog import write_cog as write_cog
from .store.dataset import open_maps as open_maps
from .vector.vectorise import Outlines as Outlines
from .vector.vectorise import write_vectors as write_vectors
from .viz.overlay import overlay as overlay
from .viz.overlay import write_picture as write_picture
from .viz.panels import five_panels as five_panels
from .viz.report import write_report as write_report
from .viz.run_report import write_run_report as write_run_report

__all__ = [
    "Cluster",
    "Cost",
    "IndexResult",
    "Outlines",
    "Publication",
    "RunLog",
    "RunResult",
    "SceneIndex",
    "StacSearch",
    "Verification",
    "allowing",
    "build_index",
    "clean",
    "compute_statistics",
    "estimate_cost",
    "five_panels",
    "label_objects",
    "open_maps",
    "open_mosaic",
    "open_objects",
    "open_scene",
    "overlay",
    "plan",
    "publish",
    "quantise",
    "read_index",
    "run",
    "segment",
    "verify",
    "write_cells",
    "write_clean",
    "write_cog",
    "write_objects",
    "write_picture",
    "write_report",
    "write_run_report",
    "write_statistics",
    "write_vectors",
]
