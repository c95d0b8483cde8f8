"""Confusion matrix: pixels by true and predicted class, and the scores that follow from it. Numbers only.

The formulas take counts int64 `(..., truth, predicted)`, so that they serve one scene and thousands of resamples
alike. A share of nothing is NaN, as scikit-learn's `zero_division=nan` has it: where there is nothing to find and
nothing was found, a network is neither right nor wrong. Such a class is left out of means, and is null in JSON.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError

from ..config.schema import IGNORE

DIGITS = 4
STRIP = 1 << 18  # pixels counted at once: few enough for their arrays to stay in a processor's cache

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Indices = NDArray[np.intp]
Values = NDArray[np.uint8]  # of class maps and labels


def ratio(part: Any, whole: Any) -> Any:
    """Divide counts, arrays or not; 0/0 is NaN."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def mean(values: Floats) -> Any:
    """Average over the last axis what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def plain(value: Any, digits: int = DIGITS) -> Any:
    """Return a number, or an array as lists of numbers, for JSON: floats rounded, None for NaN."""
    if isinstance(value, np.ndarray):
        return [plain(one, digits) for one in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return None if np.isnan(value) else round(float(value), digits)


def _right(counts: Ints) -> Ints:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def _true(counts: Ints) -> Ints:
    """Pixels of each class `(..., class)`."""
    return np.asarray(counts.sum(-1))


def _predicted(counts: Ints) -> Ints:
    return np.asarray(counts.sum(-2))


def iou(counts: Ints) -> Floats:
    """Return intersection over union (Jaccard index) of each class, `(..., class)`."""
    return np.asarray(ratio(_right(counts), _true(counts) + _predicted(counts) - _right(counts)))


def f1(counts: Ints) -> Floats:
    """Return the harmonic mean of precision and recall (Dice coefficient) of each class, `(..., class)`."""
    return np.asarray(ratio(2 * _right(counts), _true(counts) + _predicted(counts)))


def precision(counts: Ints) -> Floats:
    """Return the share of what was predicted as a class that is of it, `(..., class)`."""
    return np.asarray(ratio(_right(counts), _predicted(counts)))


def recall(counts: Ints) -> Floats:
    """Return the share of a class that was predicted as such (its producer's accuracy), `(..., class)`."""
    return np.asarray(ratio(_right(counts), _true(counts)))


def class_accuracy(counts: Ints) -> Floats:
    """Return the share of pixels rightly said to be of a class or not, `(..., class)`: it flatters rare classes."""
    total = counts.sum((-2, -1))[..., None]
    return np.asarray(ratio(total - _true(counts) - _predicted(counts) + 2 * _right(counts), total))


def accuracy(counts: Ints) -> Any:
    """Return the share of pixels of the right class, `(...)`."""
    return ratio(_right(counts).sum(-1), counts.sum((-2, -1)))


def mean_iou(counts: Ints) -> Any:
    """Return the mean of `iou` over the classes that occur, in truth or in prediction, `(...)`."""
    return mean(iou(counts))


def mean_f1(counts: Ints) -> Any:
    """Return the mean of `f1` over the classes that occur, in truth or in prediction, `(...)`."""
    return mean(f1(counts))


OF_CLASSES = {"iou": iou, "f1": f1, "precision": precision, "recall": recall, "accuracy": class_accuracy}
OVERALL = {"accuracy": accuracy, "mean_iou": mean_iou, "mean_f1": mean_f1}


def strips(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays `(..., y, x)` of equal last two axes into the same rows.

    Raises
    ------
    ValueError
        They differ in shape.
    """
    shapes = {array.shape[-2:] for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"arrays of one block differ in shape: {sorted(shapes)}")
    height, width = shapes.pop()
    rows = max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        yield tuple(array[..., top : top + rows, :] for array in arrays)


def count(indices: Indices, size: int) -> Ints:
    """Count how often each index from 0 to `size` - 1 occurs."""
    return np.bincount(indices.ravel(), minlength=size).astype(np.int64, copy=False)


def places(classes: int) -> Indices:
    """Return a table from values uint8 to places: a class has its own, IGNORE the next, any other value the last."""
    table = np.full(256, classes + 1, np.intp)
    table[:classes] = np.arange(classes)
    table[IGNORE] = classes
    return table


def truths(foreground: int | None) -> Indices:
    """Return a table from labels uint8 to 0 = background, 1 = foreground, 2 = ignored.

    Parameters
    ----------
    foreground
        The class that is foreground; None: all but the first.
    """
    table = np.zeros(256, np.intp)
    table[slice(1, None) if foreground is None else foreground] = 1
    table[IGNORE] = 2
    return table


class Counts:
    """Base of dataclasses that count pixels or objects: two add up, in any order, to the counts of both areas."""

    __slots__ = ()

    def __add__(self, other: Self) -> Self:
        pairs = [(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__]  # type: ignore[attr-defined]
        if any(np.shape(mine) != np.shape(theirs) for mine, theirs in pairs):
            raise ValueError(f"{type(self).__name__} of different numbers of classes or bins do not add up")
        return type(self)(*(mine + theirs for mine, theirs in pairs))


def _score(formula: Callable[[Ints], Any]) -> Any:
    """Return a property that is a formula's value of the counts."""
    return property(lambda self: formula(self.counts), doc=formula.__doc__)


@dataclass(frozen=True, slots=True, eq=False)
class Confusion(Counts):
    """Pixels by true and predicted class.

    Parameters
    ----------
    counts
        int64 `(truth, predicted)`.
    unpredicted
        int64 `(truth,)`: labelled pixels that have no prediction, as the scene was not observed there. They are in no
        score.
    ignored
        Pixels without a label. They are in no score either.
    """

    counts: Ints
    unpredicted: Ints
    ignored: int

    @classmethod
    def none(cls, classes: int) -> Self:
        """Return that of no pixels."""
        return cls(np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64), 0)

    @property
    def pixels(self) -> int:
        """Pixels that count."""
        return int(self.counts.sum())

    support = _score(_true)
    iou = _score(iou)
    f1 = _score(f1)
    precision = _score(precision)
    recall = _score(recall)
    class_accuracy = _score(class_accuracy)
    accuracy = _score(accuracy)
    mean_iou = _score(mean_iou)
    mean_f1 = _score(mean_f1)

    def of_class(self, value: int) -> dict[str, Any]:
        """Return a class's scores and its pixels, for JSON."""
        scores = {name: plain(formula(self.counts)[value]) for name, formula in OF_CLASSES.items()}
        return {**scores, "pixels": int(self.support[value])}

    def overall(self) -> dict[str, Any]:
        """Return the scores of all classes together, for JSON."""
        scores = {name: plain(formula(self.counts)) for name, formula in OVERALL.items()}
        return {"pixels": self.pixels, "ignored": self.ignored, "unpredicted": int(self.unpredicted.sum()), **scores}


def confusion(class_map: Values, labels: Values, classes: int) -> Confusion:
    """Count the pixels of a block by true and predicted class.

    Parameters
    ----------
    class_map
        `(y, x)`; 255 = no prediction.
    labels
        `(y, x)`; 255 = ignored.
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
    for values, others, what in ((labels, square[-1], "labels"), (class_map, square[:, -1], "predictions")):
        if others.any():
            seen = np.unique(values)
            unknown = ", ".join(str(value) for value in seen[(seen >= classes) & (seen != IGNORE)][:8])
            raise TrainingError(
                f"the {what} hold values that are no class: {unknown}. Classes are 0 to {classes - 1}; {IGNORE} is "
                "ignored"
            )
    known = square[:classes]
    return Confusion(known[:, :classes].copy(), known[:, classes].copy(), int(square[classes].sum()))
