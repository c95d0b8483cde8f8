"""The errors that Swathe's users see: one or two lines that say what was received and what to do.

Everything else that is raised is a defect of Swathe.
"""

from importlib.util import find_spec
from typing import Any

from .redact import shown

LONGEST = 1_500  # characters of a message


class SwatheError(Exception):
    """A problem that the user can mend. Its message is one or two lines, without jargon of the code.

    No secret and no control character is in it, whatever it is made from: it is redacted as it is made. What files
    hold may be long: of a message that is, beginning and end are kept.
    """

    def __init__(self, *message: Any) -> None:
        super().__init__(*(_shortened(shown(part)) if isinstance(part, str) else part for part in message))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} ... {text[-250:]}"


class ArgumentError(SwatheError):
    """A wrong argument of a public function: of no known name, out of range, or at odds with another one."""


class BundleError(SwatheError):
    """A bundle that is missing, damaged, hostile, or that does not fit the scene."""


class NetworkError(SwatheError):
    """A network that cannot be built, measured or loaded as described."""


class EngineError(SwatheError):
    """An engine that is not available here, or that could not run the network."""


class DeviceLostError(EngineError):
    """A GPU that failed: this process cannot use it any more, another one may."""

    worker: str | None = None
    """Address of the Dask worker whose process it is."""


class SceneError(SwatheError):
    """A scene that cannot be opened or read."""


class NotAllowedError(SceneError):
    """A scene that leads to where the user did not say that it may."""


class SeveralScenesError(SceneError):
    """What was given as one scene is several."""


class PlanError(SwatheError):
    """Settings from which no sound plan can be made."""


class StoreError(SwatheError):
    """A store that cannot be written, that is damaged, or that belongs to another run."""


class DamagedStepError(StoreError):
    """A file of a run that is under way was damaged or lost, and is removed: it is made again when the run goes on."""


class OutputError(StoreError):
    """A store that a run fills and cannot write to: no block is to blame."""


class ClusterError(SwatheError):
    """A Dask cluster that does not answer, or that lost its workers."""


class UnfitWorkerError(ClusterError):
    """A worker that lacks what a run needs: the same task may do on another one."""


class StatisticsError(SwatheError):
    """Cells, zones or an object table from which no statistics can be made."""


class TrainingError(SwatheError):
    """Settings, labels or data from which nothing can be trained or evaluated; or a training that went wrong."""


def require_extra(extra: str, purpose: str, *packages: str, error: type[SwatheError] = SwatheError) -> None:
    """Raise one line that says what to install, where a package of an optional extra is missing. Imports nothing.

    Parameters
    ----------
    extra
        `train`, `s3` or `export`, as in `pip install 'swathe[train]'`.
    purpose
        What needs the packages, as the message's first words: "training".
    *packages
        Names as they are imported, without dots.
    error
        Type of what is raised.
    """
    missing = [name.replace("_", "-") for name in packages if find_spec(name) is None]
    if missing:
        raise error(f"{purpose} needs {', '.join(missing)}: pip install 'swathe[{extra}]'")


def require_package(package: str, purpose: str, *, error: type[SwatheError] = SwatheError) -> None:
    """Raise one line that says what to install, where a package that is in no extra is missing. Imports nothing."""
    if find_spec(package) is None:
        raise error(f"{purpose} needs {package}: pip install {package}")


def require_s3(url: str) -> None:
    """Raise the line of `require_extra` for a URL that only s3fs can open."""
    if url.startswith(("s3://", "s3a://")):
        require_extra("s3", "an s3:// path", "s3fs")
