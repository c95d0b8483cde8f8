"""Calibration of probabilities: reliability curves, expected calibration error, Brier score. Numbers only.

From Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599): bins of equal width, each with what
it holds above its lower edge and up to its upper one. torchmetrics' `CalibrationError` takes the lower edge in and
leaves the upper one out, and has one more bin for exactly 1, which sure networks often say: those fall elsewhere there.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .confusion import Counts, Floats, Indices, Ints, Values, count, places, plain, ratio, strips, truths

BINS = 15
UNIT = 1 << 24  # sums are of whole numbers of 1/UNIT, so that no order of adding changes them; 5e11 pixels fit


@dataclass(frozen=True, slots=True, eq=False)
class Reliability(Counts):
    """Pixels by how sure the network was.

    Parameters
    ----------
    count
        int64 `(bin,)`: pixels.
    hits
        int64 `(bin,)`: those of them that are of the class that was probable.
    confidences
        int64 `(bin,)`: sum of their probabilities, in 2^-24.
    squares
        Sum of their squared errors, in 2^-24.
    """

    count: Ints
    hits: Ints
    confidences: Ints
    squares: int

    @classmethod
    def none(cls, bins: int = BINS) -> Self:
        """Return that of no pixels."""
        nothing = np.zeros(bins, np.int64)
        return cls(nothing, nothing, nothing, 0)

    @property
    def edges(self) -> Floats:
        """Bounds of the bins, `(bin + 1,)`."""
        return np.linspace(0, 1, len(self.count) + 1)

    @property
    def confidence(self) -> Floats:
        """Mean probability in each bin; NaN where there is none."""
        return np.asarray(ratio(self.confidences / UNIT, self.count))

    @property
    def frequency(self) -> Floats:
        """Share of hits in each bin; NaN where there is none."""
        return np.asarray(ratio(self.hits, self.count))

    @property
    def ece(self) -> float:
        """Expected calibration error: how far `confidence` and `frequency` differ, on the average over pixels."""
        return float(ratio(np.abs(self.confidences / UNIT - self.hits).sum(), self.count.sum()))

    @property
    def brier(self) -> float:
        """Mean squared error of the probabilities: of foreground, or of all classes, as it was counted."""
        return float(ratio(self.squares / UNIT, self.count.sum()))

    def curve(self) -> list[dict[str, Any]]:
        """Return the bins that hold anything, for JSON."""
        columns = (self.edges[:-1], self.edges[1:], self.confidence, self.frequency, self.count)
        names = ("above", "to", "confidence", "frequency", "pixels")
        rows = zip(*columns, strict=True)
        return [dict(zip(names, map(plain, row), strict=True)) for row in rows if row[-1]]

    def as_dict(self) -> dict[str, Any]:
        """Return both scores and the curve, for JSON."""
        return {"ece": plain(self.ece), "brier": plain(self.brier), "curve": self.curve()}


def foreground_reliability(
    probability: NDArray[np.float32], labels: Values, foreground: int | None = None, bins: int = BINS
) -> Reliability:
    """Count the pixels of a block by the probability of foreground.

    Parameters
    ----------
    probability
        float32 `(y, x)`; NaN does not count.
    labels
        `(y, x)`; 255 does not count.
    foreground
        The class that is foreground; None: all but the first.
    bins
        How many.

    Returns
    -------
    Reliability
        Its Brier score is the mean of (p - 1)² over foreground and p² over background, from 0 to 1.
    """
    total, of = Reliability.none(bins), truths(foreground)
    for likely, labelled in strips(probability, labels):
        truth = of[labelled]
        total += _reliability(likely, truth == 1, (likely - truth) ** 2, truth != 2, bins)
    return total


def top_reliability(probabilities: NDArray[np.float32], labels: Values, bins: int = BINS) -> Reliability:
    """Count the pixels of a block by the probability of their likeliest class; a hit is one of that class.

    Parameters
    ----------
    probabilities
        float32 `(class, y, x)`; NaN does not count.
    labels
        `(y, x)`; 255 does not count.
    bins
        How many.

    Returns
    -------
    Reliability
        Its Brier score adds up the errors of all classes, as Brier did in 1950: from 0 to 2.
    """
    classes = len(probabilities)
    total, of = Reliability.none(bins), places(classes)
    for likely, labelled in strips(probabilities, labels):
        truth = of[labelled]
        errors = sum((likely[value] - (truth == value)) ** 2 for value in range(classes))
        total += _reliability(likely.max(0), likely.argmax(0) == truth, np.asarray(errors), truth < classes, bins)
    return total


def _reliability(
    confidence: NDArray[np.float32],
    hit: NDArray[np.bool_],
    errors: NDArray[Any],
    labelled: NDArray[np.bool_],
    bins: int,
) -> Reliability:
    uppers = np.linspace(0, 1, bins + 1).astype(np.float32)[1:]
    confidence = np.minimum(confidence, np.float32(1))
    counted = labelled & ~np.isnan(confidence)
    place: Indices = np.where(counted, np.searchsorted(uppers, confidence), bins)
    both = count(2 * place + hit, 2 * bins + 2).reshape(-1, 2)[:-1]
    # exact: a strip's sums stay far below 2^53, above which floats skip some whole numbers
    sums = np.bincount(place.ravel(), _whole(confidence, counted).ravel(), bins + 1).astype(np.int64)[:-1]
    return Reliability(both.sum(1), both[:, 1].copy(), sums, int(_whole(errors, counted).sum()))


def _whole(values: NDArray[Any], counted: NDArray[np.bool_]) -> Floats:
    """Return values in whole numbers of 2^-24, 0 where they do not count."""
    return np.rint(np.where(counted, values, 0).astype(np.float64) * UNIT)
