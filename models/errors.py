"""The errors that Swathe's users see: one or two lines that say what was received and what to do.

Everything else that is raised is a defect of Swathe. This file knows nothing of the rest of the project.
"""


class SwatheError(Exception):
    """A problem that the user can mend. Its message is one or two lines, without jargon of the code."""


class BundleError(SwatheError):
    """A bundle that is missing, damaged, hostile, or that does not fit the scene."""


class NetworkError(SwatheError):
    """A network that cannot be built, measured or loaded as described."""


class EngineError(SwatheError):
    """An engine that is not available here, or that could not run the network."""


class SceneError(SwatheError):
    """A scene that cannot be opened or read."""


class PlanError(SwatheError):
    """Settings from which no sound plan can be made."""


class StoreError(SwatheError):
    """A store that cannot be written, that is damaged, or that belongs to another run."""


class ClusterError(SwatheError):
    """A Dask cluster that does not answer, or that lost its workers."""


class StatisticsError(SwatheError):
    """Cells, zones or an object table from which no figures can be made."""


class TrainingError(SwatheError):
    """Settings, labels or data from which nothing can be learnt or scored; or a training that went wrong."""
