"""What `swathe train --check` prints and draws: findings about the data, and contact sheets of chips.

Nothing is fitted. The findings themselves are made in `checks` and `leaks`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from models.errors import SwatheError
from models.files import check_output
from models.system import usable_cpus
from pipeline.cluster.connect import dask_client
from pipeline.cluster.processes import ClusterLike

from ..config import Settings
from ..data.datasets import PairError, gather
from ..data.remarks import listed
from ..data.samples import Parts
from ..data.statistics import MOST_TASKS, DatasetStatistics, compute_statistics
from ..fitting.networks import check_network
from ..fitting.training import training_of
from .checks import Finding, check_files, check_statistics, describe, each_scene, key_of
from .contact_sheet import augmentation_sheet, write_sheet
from .leaks import find_leaks, find_odd_radiometry, read_thumbnails

SHOWN = 16  # chips on a sheet


@dataclass(frozen=True, slots=True)
class Inspection:
    """The findings about the data, in words for people; and how many of them are errors."""

    text: str
    errors: int

    def __repr__(self) -> str:
        return f"<Inspection: {self.errors} errors; print it to read the findings>"

    def __str__(self) -> str:
        return self.text


def inspect(settings: Settings, picture: str, *, overwrite: bool = False, show: bool = True) -> Inspection:
    """Check the data of a training, and draw some of it.

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
    path = Path(picture)
    for output in (path, _beside(path)):
        check_output(output, overwrite=overwrite)
    findings = []
    try:
        check_network(settings)
    except SwatheError as error:
        findings.append(Finding("error", "network", str(error)))
    errors: list[SwatheError] = []
    parts = gather(settings, errors=errors)
    train = parts["train"]
    statistics = (
        {"train": compute_statistics(train, len(settings.classes), show=show, keep_going=True)} if train else {}
    )
    findings += [Finding("error", "reading", text) for text in grouped(errors)]
    findings += check(parts, settings, statistics, show=show)
    background = settings.background_name or "none, all are of equal standing"
    lines = [describe(findings), f"classes: {', '.join(settings.class_names)}; background: {background}"]
    lines += [f"samples: {', '.join(f'{len(some)} to {part}' for part, some in parts.items())}"]
    if statistics:
        try:
            lines.append(_draw(parts, statistics["train"], settings, path, overwrite=overwrite))
        except SwatheError as error:  # the findings must not be lost for it
            lines.append(f"no chips can be drawn: {error}")
    return Inspection("\n".join(lines), sum(finding.level == "error" for finding in findings))


def grouped(errors: Iterable[SwatheError]) -> list[str]:
    """Return the texts of errors; what is wrong with several samples alike is said once, with the first names."""
    alike: dict[str, list[SwatheError]] = defaultdict(list)
    for error in errors:
        alike[error.general if isinstance(error, PairError) else str(error)].append(error)
    texts = []
    for general, those in alike.items():
        called = [error.name for error in those if isinstance(error, PairError)]
        texts.append(str(those[0]) if len(called) < 2 else f"{listed(called)}: {general}")
    return texts


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}-augment.png")


def _draw(parts: Parts, statistics: DatasetStatistics, settings: Settings, path: Path, *, overwrite: bool) -> str:
    chips = training_of(settings, parts, statistics).chips
    shown = [chips[number][:2] for number in range(min(SHOWN, len(chips)))]
    drawn = write_sheet(
        shown,
        settings.classes,
        path,
        bands=settings.bands,
        title=settings.name,
        background=settings.background_value,
        overwrite=overwrite,
    )
    varied = augmentation_sheet(
        *chips.plain(0),
        settings.augment,
        statistics.bands,
        _beside(path),
        zoom=settings.chips.zoom,
        classes=settings.classes,
        background=settings.background_value,
        overwrite=overwrite,
    )
    return f"wrote {drawn}, {varied}"


def check(
    parts: Parts,
    settings: Settings,
    statistics: Mapping[str, DatasetStatistics] | None = None,
    client: ClusterLike | None = None,
    *,
    show: bool = False,
) -> list[Finding]:
    """Find what is wrong with the samples of a training. Reads all pixels once.

    Parameters
    ----------
    parts
        Samples by part: `train`, `validate`, `test`.
    settings
        Of the training.
    statistics
        Of parts, where they are known, so that they are not computed again.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
    show
        Show progress.

    Returns
    -------
    list of Finding
        In no order of weight; see `describe`. What cannot be read is a finding too.

    Raises
    ------
    ClusterError
        Workers are lost.
    """
    scenes = each_scene(parts)
    known: dict[str, DatasetStatistics] = {}
    with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection:
        if len({len(sample.source.bands) for sample in scenes}) == 1:
            for part, samples in parts.items():
                given = (statistics or {}).get(part)
                if samples:
                    known[part] = given or compute_statistics(
                        samples, len(settings.classes), connection, show=show, keep_going=True
                    )
        thumbnails = read_thumbnails(scenes, connection) if scenes else []
    by_key = {key_of(sample): thumbnail for sample, thumbnail in zip(scenes, thumbnails, strict=True)}
    found = chain(check_files(parts, settings), check_statistics(parts, known, settings))
    once = dict.fromkeys(found)  # what a sample of several parts would say in each
    return [*once, *find_leaks(parts, by_key), *find_odd_radiometry(list(zip(scenes, thumbnails, strict=True)))]
