from .config import Settings as Settings
from .config import read_settings as read_settings
from .config import settings_of as settings_of
from .data.datasets import gather as gather
from .data_qa.inspection import inspect as inspect
from .evaluation.evaluation import evaluate as evaluate
from .evaluation.results import Evaluation as Evaluation
from .fitting.fit import train as train
from .fitting.run_folder import read_logs as read_logs

__all__ = [
    "Evaluation",
    "Settings",
    "evaluate",
    "gather",
    "inspect",
    "read_logs",
    "read_settings",
    "settings_of",
    "train",
]
