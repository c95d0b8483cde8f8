"""How class maps and probabilities are encoded: nodata, steps of 1/250, classes by threshold."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NODATA = 255  # in class maps, and in probabilities kept as uint8
STEPS = 250  # a uint8 probability counts 1/250, so that 0.5, 0.7 and every multiple of 0.004 are exact
ProbabilityType = Literal["uint8", "float16", "float32"]
ClassMap = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoding:
    """What is kept of a network's output.

    Parameters
    ----------
    threshold
        The class map takes the likeliest class but the first, where its probability is above this; else the first
        class. None: the likeliest class.
    probability
        Type in which probabilities are kept; None: they are not.
    kept
        The classes, by value, whose probabilities are kept.
    objects
        Whether the ids of objects are kept, as `label_objects` gives them.
    """

    threshold: float | None = None
    probability: ProbabilityType | None = None
    kept: tuple[int, ...] = ()
    objects: bool = False


@dataclass(frozen=True, slots=True)
class BlockResult:
    """Of a window: class map uint8 `(y, x)`, probabilities `(class, y, x)`, ids of objects int64 `(y, x)`."""

    class_map: NDArray[np.uint8]
    probability: NDArray[Any] | None
    objects: NDArray[np.int64] | None = None


def empty_result(shape: tuple[int, int], encoding: Encoding) -> BlockResult:
    """Return a window in which nothing was observed: nodata in all that is kept."""
    probability = None
    if encoding.probability:
        fill = NODATA if encoding.probability == "uint8" else np.nan
        probability = np.full((len(encoding.kept), *shape), fill, encoding.probability)
    objects = np.zeros(shape, np.int64) if encoding.objects else None
    return BlockResult(np.full(shape, NODATA, np.uint8), probability, objects)


def classify(probabilities: NDArray[np.float32], threshold: float | None = None) -> NDArray[np.uint8]:
    """Return the class map uint8 `(y, x)` of probabilities `(class, y, x)`, as `Encoding` says. Ties: the lower."""
    first = 0 if threshold is None else 1
    best = probabilities[first]
    classes = np.full(best.shape, first, np.uint8)
    for value in range(first + 1, len(probabilities)):
        np.putmask(classes, probabilities[value] > best, value)
        best = np.maximum(best, probabilities[value])
    if threshold is not None:
        np.putmask(classes, ~(best > threshold), 0)
    return classes


def encode(probability: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a probability as it is kept: in steps of 1/250 for uint8, rounded half up; else as a shorter float."""
    if dtype == np.uint8:
        return (probability * np.float32(STEPS) + np.float32(0.5)).astype(np.uint8)
    return probability.astype(dtype, copy=False)
