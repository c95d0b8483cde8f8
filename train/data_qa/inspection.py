"""What `swathe train --check` tells: findings about the data, and sheets of chips as the network will see them.

Nothing is learnt. Knows which file does what; finds nothing itself.
"""

from dataclasses import dataclass
from pathlib import Path

from models.errors import SwatheError
from pipeline.store.local_files import check_output

from ..config import Settings
from ..data.datasets import Parts, gather
from ..data.statistics import Measured, measure
from ..fitting.training import Training, training_of
from .augment_sheet import augmentation_sheet
from .checks import check
from .contact_sheet import write_sheet
from .findings import Finding, describe

SHOWN = 16  # chips on a sheet


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at the data has found, in words for people; and how many errors are among it."""

    text: str
    errors: int

    def __str__(self) -> str:
        return self.text


def inspect(settings: Settings, picture: str, *, overwrite: bool = False, show: bool = True) -> Inspection:
    """Look at the data of a training, and draw some of it.

    Parameters
    ----------
    settings
        See `read_settings`.
    picture
        The PNG of chips with their classes; beside it `NAME-augment.png`, what augmentation does to one of them.
    overwrite
        Replace pictures that are there.
    show
        Show progress.

    Returns
    -------
    Inspection
        Findings, errors first; then which pictures were written, or why not.

    Raises
    ------
    SwatheError
        A picture is there already, or its place cannot be written to.
    """
    for path in (picture, _beside(Path(picture))):
        check_output(path, overwrite=overwrite)
    faults: list[SwatheError] = []
    parts = gather(settings, faults=faults)
    measured = measure(parts.train, len(settings.classes), show=show, keep_going=True) if parts.train else None
    findings = [Finding("error", "reading", str(fault)) for fault in faults]
    findings += check(parts.named(), settings, {"train": measured} if measured else None, show=show)
    lines = [describe(findings), _counted(parts)]
    if measured:
        lines += _pictures(parts, measured, settings, Path(picture), overwrite=overwrite)
    return Inspection("\n".join(lines), sum(finding.level == "error" for finding in findings))


def _counted(parts: Parts) -> str:
    told = ", ".join(f"{len(samples)} to {part}" for part, samples in parts.named().items())
    return f"samples: {told}"


def _pictures(parts: Parts, measured: Measured, settings: Settings, path: Path, *, overwrite: bool) -> list[str]:
    try:
        training = training_of(settings, parts, measured)
        chips = [training.chips[number][:2] for number in range(min(SHOWN, len(training.chips)))]
        drawn = write_sheet(
            chips, settings.classes, path, bands=settings.bands, title=settings.name, overwrite=overwrite
        )
        return [f"wrote {drawn}, {_variations(training, path, overwrite=overwrite)}"]
    except SwatheError as error:  # the findings must not be lost for it
        return [f"no chips can be drawn: {error}"]


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-augment.png")


def _variations(training: Training, path: Path, *, overwrite: bool) -> Path:
    settings = training.settings
    return augmentation_sheet(
        *training.chips.plain(0),
        settings.augment,
        training.measured.statistics,
        _beside(path),
        zoom=settings.chips.zoom,
        classes=settings.classes,
        overwrite=overwrite,
    )
