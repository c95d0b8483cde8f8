"""Threshold curves, one a class: precision, recall, F1 and IoU at every threshold, the best one, average precision.

A class map takes the likeliest class but the background where its probability is above that class's threshold: so a
class's pixels, and its scores, depend on its own threshold alone. One histogram of probabilities in thousandths serves
all thresholds. Numbers only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.encoding import classify

from .confusion import Counts, Floats, Ints, Values, count, plain, ratio, strips, truths

STEPS = 1000
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
_EDGES = np.array([step / STEPS for step in range(STEPS + 1)], np.float32)  # thresholds are compared in float32


@dataclass(frozen=True, slots=True)
class ThresholdPoint:
    """Pixels right and wrong at one threshold: foreground found, foreground not there, missed; background."""

    threshold: float
    hits: int
    false_alarms: int
    misses: int
    rejections: int

    @property
    def iou(self) -> float:
        """Intersection over union."""
        return float(ratio(self.hits, self.hits + self.false_alarms + self.misses))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return float(ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses))

    @property
    def precision(self) -> float:
        """Share of what was found that is foreground."""
        return float(ratio(self.hits, self.hits + self.false_alarms))

    @property
    def recall(self) -> float:
        """Share of the foreground that was found."""
        return float(ratio(self.hits, self.hits + self.misses))

    def as_dict(self) -> dict[str, Any]:
        """Return threshold and scores, for JSON."""
        return {name: plain(getattr(self, name)) for name in ("threshold", "iou", "f1", "precision", "recall")}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and between which ones the exact one lies."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """How far off the value can be."""
        return max(self.value - self.low, self.high - self.value)


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurve(Counts):
    """Pixels by truth and probability.

    Parameters
    ----------
    counts
        int64 `(2, 1001)`: background and foreground, by a thousand times the probability, rounded up. So column k
        holds what is above (k - 1) / 1000 and not above k / 1000, in float32.
    """

    counts: Ints

    @classmethod
    def none(cls) -> Self:
        """Return that of no pixels."""
        return cls(np.zeros((2, STEPS + 1), np.int64))

    def at(self, threshold: float) -> ThresholdPoint:
        """Return pixels right and wrong where foreground is what has a probability above a threshold.

        Raises
        ------
        ValueError
            It is no multiple of 0.001 from 0 to 1.
        """
        step = _step(threshold)
        rejections, misses = self.counts[:, : step + 1].sum(1).tolist()
        false_alarms, hits = self.counts[:, step + 1 :].sum(1).tolist()
        return ThresholdPoint(threshold, hits, false_alarms, misses, rejections)

    def curve(self, thresholds: Sequence[float] = THRESHOLDS) -> tuple[ThresholdPoint, ...]:
        """Return the points of some thresholds."""
        return tuple(self.at(threshold) for threshold in thresholds)

    def best(self, thresholds: Sequence[float] = THRESHOLDS) -> ThresholdPoint | None:
        """Return the point of the highest IoU. For validation: a test must choose nothing.

        Returns
        -------
        ThresholdPoint or None
            Of equally good thresholds the nearest to 0.5, and the lower of two. None where the labels hold no
            foreground, since nothing can then be chosen.
        """
        if not self.counts[1].any():
            return None
        return min(self.curve(thresholds), key=lambda point: (-point.iou, abs(_step(point.threshold) - STEPS // 2)))

    @property
    def average_precision(self) -> Estimate:
        """Area under the precision-recall curve, as scikit-learn's `average_precision_score` has it.

        Precision is averaged over the foreground's pixels, each taken at its own probability. The histogram knows
        probabilities to a thousandth: the value takes all pixels of a column as equally probable, and is exact where
        they are. The bounds hold however they are ordered within columns.
        """
        negatives, positives = self.counts[:, ::-1]
        false, hits = negatives.cumsum(), positives.cumsum()
        before = hits - positives, false - negatives
        value = positives * np.nan_to_num(ratio(hits, hits + false))
        high = positives * np.nan_to_num(ratio(hits, hits + before[1]))
        sums = (part.sum() for part in (value, _least(before[0], false, positives), high))
        return Estimate(*(float(ratio(part, positives.sum())) for part in sums))

    def as_dict(self, thresholds: Sequence[float] = THRESHOLDS) -> dict[str, Any]:
        """Return curve, best threshold and average precision, for JSON."""
        best, area = self.best(thresholds), self.average_precision
        return {
            "curve": [point.as_dict() for point in self.curve(thresholds)],
            "best": best and best.as_dict(),
            "average_precision": plain(area.value),
            "average_precision_error": plain(area.error, 6),
        }


def _least(before: Ints, false: Ints, positives: Ints) -> Floats:
    """Add up precisions in each column as if its background came first.

    That is the sum of (b + i) / (b + i + f) for i = 1 to n, or n - f (1 / (x + 1) + ... + 1 / (x + n)) with x = b + f.
    As 1 / t is convex, the integral of it from x + 1/2 to x + n + 1/2 is no less: the bound holds, and nearly touches.
    """
    return np.asarray(np.maximum(0, positives - false * np.log1p(positives / (before + false + 0.5))))


def _step(threshold: float) -> int:
    step = round(threshold * STEPS)
    if not 0 <= step <= STEPS or _EDGES[step] != np.float32(threshold):
        raise ValueError(f"thresholds are multiples of {1 / STEPS} from 0 to 1; received {threshold}")
    return step


@dataclass(frozen=True, slots=True, eq=False)
class ClassCurves(Counts):
    """The threshold curves of all classes but the background.

    Parameters
    ----------
    counts
        int64 `(class, 2, 1001)`: see `ThresholdCurve`. That of the background is 0.
    """

    counts: Ints

    @classmethod
    def none(cls, classes: int) -> Self:
        """Return those of no pixels."""
        return cls(np.zeros((classes, 2, STEPS + 1), np.int64))

    def of(self, value: int) -> ThresholdCurve:
        """Return that of one class."""
        return ThresholdCurve(self.counts[value])

    def best(self, background: int) -> tuple[float | None, ...] | None:
        """Return the best threshold of each class, None for the background; a class that is nowhere has 0.5.

        None where the labels hold no class but the background, since nothing can then be chosen.
        """
        found = [self.of(value).best() for value in range(len(self.counts))]
        if not any(found):
            return None
        chosen = [0.5 if point is None else point.threshold for point in found]
        return tuple(None if value == background else threshold for value, threshold in enumerate(chosen))


def class_curves(probabilities: NDArray[np.float32], labels: Values, background: int | None = 0) -> ClassCurves:
    """Count the pixels of a block by truth and probability, for each class but the background.

    Parameters
    ----------
    probabilities
        float32 `(class, y, x)`, two classes or more; NaN does not count.
    labels
        `(y, x)`; 255 does not count.
    background
        Its value; None: there is none.
    """
    found = ClassCurves.none(len(probabilities))
    # thresholds below which nothing is: each pixel takes the likeliest class but the background
    low = tuple(None if value == background else -1.0 for value in range(len(probabilities)))
    best = classify(probabilities, None if background is None else low)
    for value, probability in enumerate(probabilities):
        if value != background:  # where another class is likelier, no threshold makes it this one
            own = np.where((best == value) | np.isnan(probability), probability, np.float32(0))
            found.counts[value] = threshold_curve(own, labels, value).counts
    return found


def threshold_curve(probability: NDArray[np.float32], labels: Values, foreground: int | None = None) -> ThresholdCurve:
    """Count the pixels of a block by truth and probability.

    Parameters
    ----------
    probability
        float32 `(y, x)` of the foreground; NaN does not count.
    labels
        `(y, x)`; 255 does not count.
    foreground
        The class that is foreground; None: all but the first.
    """
    size, of = STEPS + 2, truths(foreground) * (STEPS + 2)
    counts = np.zeros(3 * size, np.int64)
    for likely, truth in strips(probability, labels):
        column = np.searchsorted(_EDGES, np.minimum(likely, np.float32(1)))  # NaN: beyond the last
        counts += count(of[truth] + column, 3 * size)
    return ThresholdCurve(counts.reshape(3, size)[:2, :-1].copy())
