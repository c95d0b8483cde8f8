"""Settings of a training: `settings` reads a TOML file, whose tables are the classes of `schema`."""

from .schema import Augment, Chips, DataSet, Layout, Loop, Loss, Network, Split
from .settings import DTYPES, Settings, read_settings, settings_of

__all__ = [
    "DTYPES",
    "Augment",
    "Chips",
    "DataSet",
    "Layout",
    "Loop",
    "Loss",
    "Network",
    "Settings",
    "Split",
    "read_settings",
    "settings_of",
]
