"""Probabilities into a class map: by threshold, by a minimum, by hysteresis. Numbers only: no dask, no store.

Each pixel is decided alone, but for hysteresis: there components of the whole scene say which candidates stay.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.encoding import NODATA, STEPS, ClassMap
from .options import ResolvedOptions


def apply_threshold(class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions) -> ClassMap:
    """Return the map that cleaning starts from.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, 255 = nodata.
    probability
        `(class, y, x)`, the classes of `options.kept`: uint8 in steps of 1/250, or float. None: not asked for.
    options
        Of which threshold, minimum and hysteresis count.

    Returns
    -------
    NDArray
        uint8 `(y, x)`; nodata where `class_map` is. Ties go to the lower value. With hysteresis these are candidates:
        what is above the lower threshold. Without any of the three, `class_map` itself.
    """
    if options.minimum is not None:
        return _likeliest(class_map, probability, options, [options.minimum] * options.num_classes, first=0)
    thresholds = options.low or options.thresholds
    return class_map if thresholds is None else _likeliest(class_map, probability, options, thresholds, first=1)


def above_high(class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions) -> NDArray[np.bool_]:
    """Return which candidates of hysteresis are above the higher threshold: bool `(y, x)`. See `apply_threshold`."""
    assert options.thresholds is not None  # `CleanOptions` refuses hysteresis without
    made = _likeliest(class_map, probability, options, options.thresholds, first=1)
    return np.asarray((made != 0) & (made != NODATA))


def _likeliest(
    class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions,
    bounds: Sequence[float], *, first: int,
) -> ClassMap:  # fmt: skip
    """Take the likeliest class from `first` on where its probability is above its bound, or as much if first is 0."""
    assert probability is not None  # `CleanOptions.resolve` refuses stores without
    best = _class_probability(probability, options, first)
    classes = np.full(best.shape, first, np.uint8)
    for value in range(first + 1, options.num_classes):
        other = _class_probability(probability, options, value)
        np.putmask(classes, other > best, value)
        best = np.maximum(best, other)
    if probability.dtype == np.uint8:  # the least probability above each bound, or as much as it
        steps = np.round(np.array(bounds) * STEPS, 9)  # so that 0.7 is 175 and nothing beside it
        least: NDArray[Any] = (np.floor(steps) + 1 if first else np.ceil(steps)).astype(np.uint8)
    else:
        exact = np.array(bounds, np.float32)
        # "as much" to a rounding error: steps of 1/250 are decoded to what is not above them
        least = np.nextafter(exact, np.float32(2 if first else 0))
    np.putmask(classes, ~(best >= least[classes]), 0)  # so written, NaN is not above anything
    np.putmask(classes, class_map == NODATA, NODATA)
    return classes


def _class_probability(probability: NDArray[Any], options: ResolvedOptions, value: int) -> NDArray[Any]:
    """Return a class's probability. Of two classes the first may not be kept: it is what remains."""
    if value in options.kept:
        band = np.asarray(probability[options.kept.index(value)])
        return band if band.dtype == np.uint8 else band.astype(np.float32, copy=False)
    remains = STEPS if probability.dtype == np.uint8 else 1
    return np.asarray(remains - np.minimum(_class_probability(probability, options, 1), remains))  # nodata is more
