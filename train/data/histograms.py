"""How often each value of a band occurs, added up over any number of windows in any order. Numbers only: no files.

Integers of 8 and 16 bits are counted exactly. Other numbers are kept to 12 binary digits after the first one, each bin
standing for its middle: a value is off by at most 2^-13 (0.012 %) of itself, and so is every quantile, while a mean is
off by at most 2^-13 of the mean magnitude. Counts are integers, so that order and blocks do not matter. It is the
sketch of Masson, Rim and Lee (2019), "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", with bins between powers of two that are evenly spaced, as floats are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 12
TAILS = (0.001, 0.999)  # what lies beyond these quantiles counts as if it lay there

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values.

    Parameters
    ----------
    values
        Float64, rising, each once.
    counts
        Int64, above 0.
    """

    values: Floats
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """Give the smallest value that at least this share of all do not exceed; NaN if there are none.

        numpy's `inverted_cdf` (Hyndman and Fan 1996, definition 1): always a value that occurs.
        """
        if not len(self.values):
            return nan
        upto = np.cumsum(self.counts)
        return float(self.values[np.searchsorted(upto, share * upto[-1], side="left")])

    def clipped(self, low: float, high: float) -> tuple[float, float]:
        """Give mean and standard deviation of the values, those beyond `low` and `high` moved there; NaN if none."""
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
    unique, counts = np.unique(_coarse(values.astype(np.float64).ravel()), return_counts=True)
    return Histogram(unique, counts.astype(np.int64))


def _coarse(values: Floats) -> Floats:
    """Round to the middle of all numbers that share their first binary digits; zero stays zero, and exact."""
    rest = 52 - DIGITS
    bits = values.view(np.int64)
    middles = (((bits >> rest) << rest) | (1 << (rest - 1))).view(np.float64)
    exact = (bits & ((1 << rest) - 1)) == 0  # whole numbers up to 2^13 among them
    rounded: Floats = np.where(exact, values + 0.0, middles)
    return rounded


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """Add histograms up."""
    parts = list(histograms)
    if not parts:
        return EMPTY
    values, places = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places.ravel(), np.concatenate([part.counts for part in parts]))
    return Histogram(values, counts)


class Growing:
    """A histogram that grows; new ones are added whenever as much waits as there is already."""

    def __init__(self) -> None:
        self.whole, self.waiting, self.size = EMPTY, list[Histogram](), 0

    def add(self, histogram: Histogram) -> None:
        """Take one in."""
        self.waiting.append(histogram)
        self.size += len(histogram.values)
        if self.size > max(1 << 18, len(self.whole.values)):
            self.histogram()

    def histogram(self) -> Histogram:
        """Give what was counted so far."""
        self.whole, self.waiting, self.size = merged([self.whole, *self.waiting]), [], 0
        return self.whole
