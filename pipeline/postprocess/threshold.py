"""Probabilities into a class map: by threshold, by a minimum, by hysteresis. Numbers only: no dask, no store.

Each pixel is decided alone, but for hysteresis: there components of the whole scene say which candidates stay.
"""

from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.encoding import NODATA, STEPS
from .rules import Rules


def apply_threshold(class_map: NDArray[np.uint8], probability: NDArray[Any] | None, rules: Rules) -> NDArray[np.uint8]:
    """Give the map that cleaning starts from.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, 255 = nodata.
    probability
        `(layer, y, x)`, the classes of `rules.kept`: uint8 in steps of 1/250, or float. None: not asked for.
    rules
        See `Rules`.

    Returns
    -------
    NDArray
        uint8 `(y, x)`; nodata where `class_map` is. Ties go to the lower value. With hysteresis these are candidates:
        what is above the lower threshold. Without anything to decide, `class_map` itself.
    """
    if rules.minimum is not None:
        return _decided(class_map, probability, rules, 0, _least(rules.minimum, probability))
    thresholds = rules.low or rules.thresholds
    if thresholds is None:
        return class_map
    return _decided(class_map, probability, rules, 1, _above(thresholds, probability))


def above_high(class_map: NDArray[np.uint8], probability: NDArray[Any] | None, rules: Rules) -> NDArray[np.bool_]:
    """Say which candidates of hysteresis are above the higher threshold: bool `(y, x)`. See `apply_threshold`."""
    assert rules.thresholds is not None  # `CleanOptions` refuses hysteresis without
    certain = _decided(class_map, probability, rules, 1, _above(rules.thresholds, probability))
    strong_ones: NDArray[np.bool_] = (certain != 0) & (certain != NODATA)
    return strong_ones


def hysteresis_replacement(value: NDArray[np.uint8], holds_strong: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give the class that each component of candidates becomes: its own where it holds a strong pixel, else 0."""
    return np.where(holds_strong, value, 0).astype(np.uint8)


def _decided(
    class_map: NDArray[np.uint8], probability: NDArray[Any] | None, rules: Rules, first: int, least: NDArray[Any]
) -> NDArray[np.uint8]:
    """Take the likeliest class from `first` on, where its probability is at least its least; else 0."""
    assert probability is not None  # `CleanOptions.rules` refuses stores without
    best = _layer(probability, rules, first)
    classes = np.full(best.shape, first, np.uint8)
    for value in range(first + 1, rules.num_classes):
        layer = _layer(probability, rules, value)
        np.putmask(classes, layer > best, value)
        best = np.maximum(best, layer)
    np.putmask(classes, ~(best >= least[classes]), 0)  # so written, NaN is not above anything
    np.putmask(classes, class_map == NODATA, NODATA)
    return classes


def _layer(probability: NDArray[Any], rules: Rules, value: int) -> NDArray[Any]:
    """Give a class's probability. Of two classes the first may not be kept: it is what remains."""
    if value in rules.kept:
        layer: NDArray[Any] = probability[rules.kept.index(value)]
        return layer if layer.dtype == np.uint8 else layer.astype(np.float32, copy=False)
    remains = STEPS if probability.dtype == np.uint8 else 1
    other = _layer(probability, rules, 1)
    rest: NDArray[Any] = remains - np.minimum(other, remains)  # kept nodata is more than all
    return rest


def _above(thresholds: tuple[float, ...], probability: NDArray[Any] | None) -> NDArray[Any]:
    """Give the least probability above each threshold, as the probabilities are kept."""
    if probability is not None and probability.dtype == np.uint8:
        return np.array([floor(_steps(value)) + 1 for value in thresholds], np.uint8)
    return np.nextafter(np.array(thresholds, np.float32), np.float32(2))


def _least(minimum: float, probability: NDArray[Any] | None) -> NDArray[Any]:
    """Give the minimum as the probabilities are kept. It is one for all, but looked up by class as thresholds are."""
    if probability is not None and probability.dtype == np.uint8:
        return np.full(NODATA, ceil(_steps(minimum)), np.uint8)
    return np.full(NODATA, minimum, np.float32)


def _steps(value: float) -> float:
    """Give a probability in steps of 1/250, so that 0.7 is 175 and nothing beside it."""
    return round(value * STEPS, 9)
