"""Pixels by true and predicted class, and every score that follows from them. Numbers only.

The formulas take counts int64 `(..., truth, predicted)`, so that they serve one scene and thousands of resamples
alike. What a share of nothing is, `ratios` says.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .counting import count, places, refuse_unknown, strips
from .ratios import Floats, Ints, mean, plain, ratio


def _right(counts: Ints) -> Ints:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _true(counts: Ints) -> Ints:
    """Pixels of each class `(..., class)`."""
    total: Ints = counts.sum(-1)
    return total


def _predicted(counts: Ints) -> Ints:
    total: Ints = counts.sum(-2)
    return total


def iou(counts: Ints) -> Floats:
    """Give intersection over union (Jaccard index) of each class, `(..., class)`."""
    return np.asarray(ratio(_right(counts), _true(counts) + _predicted(counts) - _right(counts)))


def f1(counts: Ints) -> Floats:
    """Give the harmonic mean of precision and recall (Dice coefficient) of each class, `(..., class)`."""
    return np.asarray(ratio(2 * _right(counts), _true(counts) + _predicted(counts)))


def precision(counts: Ints) -> Floats:
    """Give the share of what was predicted as a class that is of it, `(..., class)`."""
    return np.asarray(ratio(_right(counts), _predicted(counts)))


def recall(counts: Ints) -> Floats:
    """Give the share of a class that was predicted as such (its producer's accuracy), `(..., class)`."""
    return np.asarray(ratio(_right(counts), _true(counts)))


def class_accuracy(counts: Ints) -> Floats:
    """Give the share of pixels rightly said to be of a class or not, `(..., class)`: it flatters rare classes."""
    total = counts.sum((-2, -1))[..., None]
    return np.asarray(ratio(total - _true(counts) - _predicted(counts) + 2 * _right(counts), total))


def accuracy(counts: Ints) -> Any:
    """Give the share of pixels of the right class, `(...)`."""
    return ratio(_right(counts).sum(-1), counts.sum((-2, -1)))


def mean_iou(counts: Ints) -> Any:
    """Give the mean of `iou` over the classes that occur, in truth or in prediction, `(...)`."""
    return mean(iou(counts))


def mean_f1(counts: Ints) -> Any:
    """Give the mean of `f1` over the classes that occur, in truth or in prediction, `(...)`."""
    return mean(f1(counts))


OF_CLASSES = {"iou": iou, "f1": f1, "precision": precision, "recall": recall, "accuracy": class_accuracy}
OVERALL = {"accuracy": accuracy, "mean_iou": mean_iou, "mean_f1": mean_f1}


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Pixels by true and predicted class. Two of them add up, in any order, to that of both areas.

    Parameters
    ----------
    counts
        int64 `(truth, predicted)`.
    unpredicted
        int64 `(truth,)`: judged pixels that have no prediction, as the scene was not observed there. They are in no
        score.
    ignored
        Pixels that nobody judged. They are in no score either.
    """

    counts: Ints
    unpredicted: Ints
    ignored: int

    @classmethod
    def none(cls, classes: int) -> Self:
        """Give that of no pixels."""
        return cls(np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64), 0)

    def __add__(self, other: Self) -> Self:
        if self.classes != other.classes:
            raise ValueError(f"confusions of {self.classes} and of {other.classes} classes do not add up")
        counts, unpredicted = self.counts + other.counts, self.unpredicted + other.unpredicted
        return type(self)(counts, unpredicted, self.ignored + other.ignored)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.counts)

    @property
    def pixels(self) -> int:
        """Pixels that count."""
        return int(self.counts.sum())

    @property
    def support(self) -> Ints:
        """Pixels that count of each class `(class,)`, by the labels."""
        return _true(self.counts)

    @property
    def iou(self) -> Floats:
        """See the function."""
        return iou(self.counts)

    @property
    def f1(self) -> Floats:
        """See the function."""
        return f1(self.counts)

    @property
    def precision(self) -> Floats:
        """See the function."""
        return precision(self.counts)

    @property
    def recall(self) -> Floats:
        """See the function."""
        return recall(self.counts)

    @property
    def class_accuracy(self) -> Floats:
        """See the function."""
        return class_accuracy(self.counts)

    @property
    def accuracy(self) -> float:
        """See the function."""
        return float(accuracy(self.counts))

    @property
    def mean_iou(self) -> float:
        """See the function."""
        return float(mean_iou(self.counts))

    @property
    def mean_f1(self) -> float:
        """See the function."""
        return float(mean_f1(self.counts))

    def of_class(self, value: int) -> dict[str, Any]:
        """Give a class's scores and its pixels, for JSON."""
        scores = {name: plain(formula(self.counts)[value]) for name, formula in OF_CLASSES.items()}
        return {**scores, "pixels": int(self.support[value])}

    def overall(self) -> dict[str, Any]:
        """Give what is said of all classes together, for JSON."""
        scores = {name: plain(formula(self.counts)) for name, formula in OVERALL.items()}
        return {"pixels": self.pixels, "ignored": self.ignored, "unpredicted": int(self.unpredicted.sum()), **scores}


def confusion(class_map: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Confusion:
    """Count the pixels of a block by true and predicted class.

    Parameters
    ----------
    class_map
        `(y, x)`; 255 = no prediction.
    labels
        `(y, x)`; 255 = not judged.
    classes
        How many there are: values from 0 to `classes` - 1.

    Raises
    ------
    TrainingError
        Either holds another value.
    """
    size, of = classes + 2, places(classes)
    counts = np.zeros(size * size, np.int64)
    for predicted, truth in strips(class_map, labels):
        counts += count((of * size)[truth] + of[predicted], size * size)
    square = counts.reshape(size, size)
    if square[-1].any():
        refuse_unknown(labels, classes, "labels")
    if square[:, -1].any():
        refuse_unknown(class_map, classes, "predictions")
    known = square[:classes]
    return Confusion(known[:, :classes].copy(), known[:, classes].copy(), int(square[classes].sum()))
