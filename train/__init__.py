"""Labels to bundles: chips from whole scenes, a loss, a loop, whole-scene scores. No other package imports it.

Names are imported on first use, so that help and refusals never wait for torch.
"""

from typing import TYPE_CHECKING

from models.lazy import on_first_use

if TYPE_CHECKING:
    from .checking.inspection import inspect as inspect
    from .data.datasets import gather as gather
    from .evaluation.evaluation import evaluate as evaluate
    from .evaluation.result import Evaluation as Evaluation
    from .learning.curves import read_logs as read_logs
    from .learning.fit import train as train
    from .settings import Settings as Settings
    from .settings import read_settings as read_settings
    from .settings import settings_of as settings_of

_HOMES = {
    "Evaluation": "evaluation.result",
    "Settings": "settings",
    "evaluate": "evaluation.evaluation",
    "gather": "data.datasets",
    "inspect": "checking.inspection",
    "read_logs": "learning.curves",
    "read_settings": "settings",
    "settings_of": "settings",
    "train": "learning.fit",
}
__all__ = sorted(_HOMES)
__getattr__ = on_first_use(__name__, _HOMES, globals())
