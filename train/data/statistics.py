"""Dataset statistics in one streamed pass: of bands, of classes, and where in a scene each class lies.

One task is a window of a large sample, or several small samples; all that is added up are whole numbers, so that the
result depends neither on windows nor on workers. Memory is bounded by a window on each worker. Knows no chips.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np

from models.errors import TrainingError
from models.metadata import QUANTILES
from models.system import usable_cpus
from pipeline.cluster.connect import dask_client
from pipeline.cluster.processes import ClusterLike
from pipeline.grid.geobox import Window
from pipeline.jobs.progress import no_progress, progress
from pipeline.jobs.tasks import map_bounded

from .classes import Remark
from .remarks import LabelRemarks, notes_of
from .samples import Sample
from .window_stats import CELL, TAILS, Floats, HistogramSum, Ints, ReadError, WindowStats, batches, compute_window_stats

BLOCK = 1024  # side of what is read at once, in pixels; a multiple of a cell's
MOST_TASKS = 4  # at a time in this process


@dataclass(frozen=True, slots=True)
class BandStatistics:
    """Of the raw values of each band, float64 `(band,)`; NaN where nothing was observed.

    Parameters
    ----------
    mean, stddev
        Of values clipped to `low` and `high`, so that single bright or dark pixels do not decide them.
    low, high
        Quantiles 0.001 and 0.999, which are values that occur.
    quantiles
        `(band, 7)`, at `models.metadata.QUANTILES`.
    """

    mean: Floats
    stddev: Floats
    low: Floats
    high: Floats
    quantiles: Floats = field(default_factory=lambda: np.zeros((0, len(QUANTILES))))


@dataclass(frozen=True, slots=True)
class CellCounts:
    """Where in a scene its labelled pixels are.

    Parameters
    ----------
    shape
        Of the scene.
    counts
        Int64 `(rows, columns, classes)`: labelled and observed pixels of each class inside the sample's windows.
    side
        Of a cell, in pixels; those at the lower and right end are smaller.
    """

    shape: tuple[int, int]
    counts: Ints
    side: int = CELL

    def window(self, row: int, column: int) -> Window:
        """Return the pixels of a cell."""
        return Window.square(row * self.side, column * self.side, self.side).clip(self.shape)


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What one sample has inside its windows, each pixel once.

    Parameters
    ----------
    name
        The sample's.
    class_pixels
        Int64 `(class,)`, of labelled and observed pixels.
    ignored, invalid
        Pixels that were observed but not labelled; pixels that were not observed.
    unknown
        Codes of its labels that mean nothing, and how many pixels have them; among those ignored. Counted in all
        windows that were read, also outside the sample's own. Empty unless `keep_going`.
    remarks
        Of how many observed pixels something is to be said, as that its file calls them nodata.
    """

    name: str
    class_pixels: Ints
    ignored: int
    invalid: int
    unknown: dict[str, int]
    remarks: dict[Remark, int] = field(default_factory=dict)

    @property
    def pixels(self) -> int:
        """All of them."""
        return int(self.class_pixels.sum()) + self.ignored + self.invalid


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """What samples hold inside their windows.

    Parameters
    ----------
    bands
        Of all observed pixels, labelled or not.
    samples
        Counts of each sample, in their order.
    cells
        Of each sample, in their order.
    errors
        What could not be read and is not counted, with `keep_going`.
    """

    bands: BandStatistics
    samples: tuple[SampleCounts, ...]
    cells: tuple[CellCounts, ...]
    errors: tuple[ReadError, ...] = ()

    @property
    def class_pixels(self) -> Ints:
        """Labelled and observed pixels of each class, int64 `(class,)`."""
        total: Ints = np.sum([count.class_pixels for count in self.samples], axis=0, dtype=np.int64)
        return total

    @property
    def ignored(self) -> int:
        """Pixels that were observed but not labelled."""
        return sum(count.ignored for count in self.samples)

    @property
    def invalid(self) -> int:
        """Pixels that were not observed."""
        return sum(count.invalid for count in self.samples)


def compute_statistics(
    samples: Sequence[Sample],
    classes: int,
    client: ClusterLike | None = None,
    *,
    show: bool = False,
    keep_going: bool = False,
    block: int = BLOCK,
) -> DatasetStatistics:
    """Compute the statistics of samples, each pixel inside a sample's windows once, in one pass.

    Parameters
    ----------
    samples
        One or more, of the same number of bands.
    classes
        How many there are; label values from this on are unknown, but for `IGNORE`.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
    show
        Show progress.
    keep_going
        Note what cannot be read, and label values that are unknown, instead of stopping at the first.
    block
        Side in pixels of what is read at once; a multiple of 128. It does not change the result.

    Returns
    -------
    DatasetStatistics
        Integers of 8 and 16 bits are counted exactly; for the error of other types see `window_stats`. In all bands a
        sample counts unless its pixel is invalid, or it is itself NaN or its band's nodata.

    Raises
    ------
    TrainingError
        No samples; their numbers of bands differ; a label value is no class.
    SceneError, ClusterError
        Pixels cannot be read; workers are lost.
    """
    if not samples:
        raise TrainingError("there are no samples to measure; look at data.root and the names in data.train")
    if block < CELL or block % CELL:
        raise ValueError(f"a block's side is a multiple of {CELL}; received {block}")
    bands = len(samples[0].source.bands)
    for sample in samples:
        if len(sample.source.bands) != bands:
            raise TrainingError(
                f"{sample.name} has {len(sample.source.bands)} bands and {samples[0].name} {bands}; "
                "choose the same ones by data.bands"
            )
    total, tasks = _Total(samples, classes), list(batches(samples, block))
    shown = progress("statistics", len(tasks)) if show else nullcontext(no_progress)
    with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection, shown as advance:
        options = (classes, keep_going)
        for stats in map_bounded(connection, compute_window_stats, options, tasks, key="swathe-statistics"):
            total.add(stats)
            advance(1, stats.pixels)
    return total.statistics()


class _Total:
    """The statistics of all windows, added up in whatever order they come."""

    def __init__(self, samples: Sequence[Sample], classes: int) -> None:
        self.samples = samples
        self.bands = [HistogramSum() for _ in samples[0].source.bands]
        shapes = [tuple(-(-size // CELL) for size in sample.geobox.shape) for sample in samples]
        self.cells = [np.zeros((*shape, classes), np.int64) for shape in shapes]
        self.others = np.zeros((len(samples), 2), np.int64)  # ignored, invalid
        self.unknown: list[dict[str, int]] = [{} for _ in samples]
        self.remarks: list[Counter[Remark]] = [Counter() for _ in samples]
        self.errors: list[ReadError] = []

    def add(self, stats: WindowStats) -> None:
        for band, histogram in zip(self.bands, stats.bands, strict=False):  # none, where nothing could be read
            band.add(histogram)
        self.errors += stats.errors
        for one in stats.labels:
            row, column = one.window.top // CELL, one.window.left // CELL
            rows, columns = one.cells.shape[:2]
            self.cells[one.number][row : row + rows, column : column + columns] += one.cells
            self.others[one.number] += (one.ignored, one.invalid)
            self.remarks[one.number].update(one.remarks)
            for value, pixels in one.unknown.items():
                self.unknown[one.number][value] = self.unknown[one.number].get(value, 0) + pixels

    def statistics(self) -> DatasetStatistics:
        counts = [
            SampleCounts(
                sample.name,
                cells.sum(axis=(0, 1)),
                int(ignored),
                int(invalid),
                dict(sorted(unknown.items())),
                dict(remarks),
            )
            for sample, cells, (ignored, invalid), unknown, remarks in zip(
                self.samples, self.cells, self.others, self.unknown, self.remarks, strict=True
            )
        ]
        rows, quantiles = [], []
        for histogram in (band.histogram() for band in self.bands):
            quantiles.append([histogram.quantile(share) for share in QUANTILES])
            low, high = (histogram.quantile(share) for share in TAILS)
            rows.append((*histogram.clipped(low, high), low, high))
        mean, stddev, low, high = np.array(rows, np.float64).T
        bands = BandStatistics(mean, stddev, low, high, np.array(quantiles, np.float64))
        cells = tuple(CellCounts(s.geobox.shape, c) for s, c in zip(self.samples, self.cells, strict=True))
        errors = sorted(self.errors, key=lambda error: (error.sample, error.window.top, error.window.left))
        return DatasetStatistics(bands, tuple(counts), cells, tuple(errors))


def label_remarks(samples: Sequence[Sample], statistics: DatasetStatistics) -> list[LabelRemarks]:
    """Return what is to be said of the labels of samples that were counted."""
    return [
        LabelRemarks(count.name, count.pixels - count.invalid, count.remarks, notes_of(sample.labels))
        for sample, count in zip(samples, statistics.samples, strict=True)
    ]


def balanced_weights(class_pixels: Ints) -> tuple[float, ...]:
    """Weigh classes so that each counts alike: pixels / (classes that occur * pixels of the class).

    As scikit-learn's `class_weight="balanced"`; King and Zeng (2001), "Logistic regression in rare events data". A
    class that does not occur weighs 1.

    Raises
    ------
    TrainingError
        No class occurs.
    """
    total, seen = int(class_pixels.sum()), int((class_pixels > 0).sum())
    if not total:
        raise TrainingError("no pixel is labelled, so classes have no weights; look at the labels with --check")
    return tuple(total / (seen * int(pixels)) if pixels else 1.0 for pixels in class_pixels)


def means_of(means: Sequence[float]) -> tuple[float, ...]:
    """Return band means as a bundle keeps them: to four digits."""
    return tuple(round(float(mean), 4) for mean in means)
