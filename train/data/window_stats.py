"""Statistics of one window of a sample: histograms of its bands, and its labelled pixels by cell and class.

It is what a worker computes; no dask here, and nothing of how windows are added up. Integers of 8 and 16 bits are
counted exactly. Other numbers are kept to 12 binary digits after the first one, each bin standing for its middle: a
value is off by at most 2^-13 (0.012 %) of itself, and so is every quantile, while a mean is off by at most 2^-13 of the
mean magnitude. Counts are integers, so that order and blocks do not matter. It is the sketch of Masson, Rim and Lee
(2019), "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees", with bins between powers
of two that are evenly spaced, as floats are.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SwatheError, TrainingError
from pipeline.grid.geobox import Window
from pipeline.io.source import missing_samples

from ..config.schema import IGNORE
from .classes import Decoded, Remark
from .samples import Labelled, Sample, inside, unrestricted

CELL = 128  # side of a cell, in pixels
DIGITS = 12  # of floats, kept after the first one
TAILS = (0.001, 0.999)  # what lies beyond these quantiles counts as if it lay there

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often each value of a band occurs.

    Parameters
    ----------
    values
        Float64, rising, each once.
    counts
        Int64, above 0.
    """

    values: Floats
    counts: Ints

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Return the smallest value that at least this share of all do not exceed; NaN if there are none.

        numpy's `inverted_cdf` (Hyndman and Fan 1996, definition 1): always a value that occurs.
        """
        if not len(self.values):
            return nan
        upto = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(upto, share * upto[-1], side="left")])

    def clipped(self, low: float, high: float) -> tuple[float, float]:
        """Return mean and standard deviation of the values, those beyond `low` and `high` moved there; NaN if none."""
        if not len(self.values):
            return nan, nan
        values, total = np.clip(self.values, low, high), self.total
        mean = fsum(values * self.counts) / total
        return mean, sqrt(fsum((values - mean) ** 2 * self.counts) / total)


EMPTY = Histogram(np.zeros(0), np.zeros(0, np.int64))


def count_values(values: NDArray[Any]) -> Histogram:
    """Count finite numbers of any real type; the sign of zero does not count."""
    if values.dtype.kind in "iub" and values.dtype.itemsize <= 2:
        lowest = 0 if values.dtype.kind in "ub" else int(np.iinfo(values.dtype).min)
        counts = np.bincount(values.astype(np.int64).ravel() - lowest)
        found = np.flatnonzero(counts)
        return Histogram((found + lowest).astype(np.float64), counts[found].astype(np.int64))
    floats, rest = values.astype(np.float64).ravel(), 52 - DIGITS
    bits = floats.view(np.int64)
    # the middle of all numbers that share their first binary digits; zero stays zero, and exact
    middles = (((bits >> rest) << rest) | (1 << (rest - 1))).view(np.float64)
    exact = (bits & ((1 << rest) - 1)) == 0  # whole numbers up to 2^13 among them
    unique, counts = np.unique(np.where(exact, floats + 0.0, middles), return_counts=True)
    return Histogram(unique, counts.astype(np.int64))


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Add histograms up."""
    parts = list(histograms)
    if not parts:
        return EMPTY
    values, places = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places.ravel(), np.concatenate([part.counts for part in parts]))
    return Histogram(values, counts)


class HistogramSum:
    """A running sum of histograms; new ones are merged whenever as much waits as there is already."""

    def __init__(self) -> None:
        self.whole, self.waiting, self.size = EMPTY, list[Histogram](), 0

    def add(self, histogram: Histogram) -> None:
        """Add one."""
        self.waiting.append(histogram)
        self.size += len(histogram.values)
        if self.size > max(1 << 18, len(self.whole.values)):
            self.histogram()

    def histogram(self) -> Histogram:
        """Return the sum so far."""
        self.whole, self.waiting, self.size = merged([self.whole, *self.waiting]), [], 0
        return self.whole


@dataclass(frozen=True, slots=True)
class ReadError:
    """A window of a sample that could not be read, and why."""

    sample: str
    window: Window
    error: SwatheError


@dataclass(frozen=True, slots=True)
class SampleWindow:
    """A window of the sample of this number; the sample has only those of its areas that reach into the window."""

    number: int
    sample: Sample
    window: Window


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """A window's labels.

    Parameters
    ----------
    number, window
        Which sample, and where.
    cells
        Int64 `(rows, columns, classes)`.
    ignored, invalid
        As of `statistics.SampleCounts`.
    unknown
        Codes in the window that mean nothing, and how many pixels have them.
    remarks
        As of `statistics.SampleCounts`.
    """

    number: int
    window: Window
    cells: Ints
    ignored: int
    invalid: int
    unknown: dict[str, int]
    remarks: dict[Remark, int] = field(default_factory=dict)


@dataclass(slots=True)
class WindowStats:
    """Statistics of some windows, as a worker returns them."""

    bands: list[Histogram] = field(default_factory=list)
    labels: list[LabelCounts] = field(default_factory=list)
    errors: list[ReadError] = field(default_factory=list)
    pixels: int = 0


def batches(samples: Sequence[Sample], block: int) -> Iterator[list[SampleWindow]]:
    """Cut samples into windows of `block` pixels a side, and put these together until they are worth a task."""
    batch: list[SampleWindow] = []
    for one in _windows(samples, block):
        batch.append(one)
        if sum(some.window.size for some in batch) >= block * block // 2:
            yield batch
            batch = []
    if batch:
        yield batch


def _windows(samples: Sequence[Sample], block: int) -> Iterator[SampleWindow]:
    for number, sample in enumerate(samples):
        areas = np.array([(a.top, a.bottom, a.left, a.right) for a in sample.areas], int).reshape(-1, 4)
        for window in sample.geobox.whole.split(block):
            near = (areas[:, 0] < window.bottom) & (areas[:, 1] > window.top)
            near &= (areas[:, 2] < window.right) & (areas[:, 3] > window.left)
            if near.any():
                reached = tuple(sample.areas[place] for place in np.flatnonzero(near))
                yield SampleWindow(number, replace(sample, areas=reached), window)


def compute_window_stats(options: tuple[int, bool], batch: Sequence[SampleWindow]) -> WindowStats:
    """Return the statistics of some windows; `options` are the number of classes, and whether to go on at errors."""
    classes, keep_going = options
    stats, bands = WindowStats(), list[list[Histogram]]()
    for one in batch:
        stats.pixels += one.window.size
        try:
            read, decoded = _read(one, classes, keep_going)
        except SwatheError as error:
            if not keep_going:
                raise
            stats.errors.append(ReadError(one.sample.name, one.window, error))
            continue
        within = inside(one.sample.areas, one.window)
        stats.labels.append(_count(one, read, within, decoded, classes))
        histograms, observed = [], within & read.valid
        for band, nodata in zip(read.pixels, one.sample.source.nodata, strict=True):
            missing = missing_samples(band, nodata)
            histograms.append(count_values(band[observed if missing is None else observed & ~missing]))
        bands.append(histograms)
    stats.bands = [merged(parts) for parts in zip(*bands, strict=True)]
    return stats


def _read(one: SampleWindow, classes: int, keep_going: bool) -> tuple[Labelled, Decoded]:
    """Read a window, and what is to be said of its labels; TrainingError for unknown codes, unless they are noted."""
    decode = getattr(unrestricted(one.sample.labels), "decode", None)
    if decode is not None:
        pixels, decoded = one.sample.source.read(one.window), decode(one.window)
        if decoded.unknown and not keep_going:
            one.sample.labels.read(one.window)  # it refuses them, and counts those of the whole file
        labels = np.where(pixels.valid, decoded.labels, np.uint8(IGNORE))
        return Labelled(pixels.data, labels, pixels.valid), decoded
    read = one.sample.read(one.window)
    counts = np.bincount(read.labels.ravel(), minlength=256)
    counts[[*range(classes), IGNORE]] = 0
    unknown = {str(value): int(counts[value]) for value in np.flatnonzero(counts)}
    if unknown and not keep_going:
        listed = ", ".join(f"{value} ({pixels:,} pixels)" for value, pixels in unknown.items())
        raise TrainingError(
            f"{one.sample.name}: label values that mean no class: {listed}; name them in data.values or data.ignore"
        )
    return read, Decoded(read.labels, unknown)


def _count(one: SampleWindow, read: Labelled, within: NDArray[np.bool_], decoded: Decoded, classes: int) -> LabelCounts:
    """Count the labels of a window by cell and class."""
    counting = within & read.valid & (read.labels < classes)
    rows, columns = (-(-size // CELL) for size in read.labels.shape)
    down, across = (np.arange(size) // CELL for size in read.labels.shape)
    cell = (down[:, None] * columns + across).astype(np.int64)
    keys = cell[counting] * classes + read.labels[counting]
    cells = np.bincount(keys, minlength=rows * columns * classes).astype(np.int64).reshape(rows, columns, classes)
    invalid = int((within & ~read.valid).sum())
    ignored = int(within.sum()) - invalid - int(counting.sum())
    observed = within & read.valid
    remarks = {remark: int((where & observed).sum()) for remark, where in decoded.remarks.items()}
    return LabelCounts(one.number, one.window, cells, ignored, invalid, decoded.unknown, remarks)
