"""Probabilities into a class map: by threshold, by a minimum, by hysteresis. Numbers only: no dask, no store.

Each pixel is decided alone, but for hysteresis: there components of the whole scene say which candidates stay.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import STEPS, ClassMap, Decision

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
        uint8 `(y, x)`; as `class_map` where that is nodata or of a class that takes no part. Ties go to the lower
        value. With hysteresis these are candidates: what is above the lower threshold. Without any of the three,
        `class_map` itself.
    """
    if options.minimum is not None:
        return _likeliest(class_map, probability, options, (options.minimum,) * options.num_classes, at_least=True)
    thresholds = options.low or options.thresholds
    return class_map if thresholds is None else _likeliest(class_map, probability, options, thresholds)


def above_high(class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions) -> NDArray[np.bool_]:
    """Return which candidates of hysteresis are above the higher threshold: bool `(y, x)`. See `apply_threshold`."""
    assert options.thresholds is not None  # `CleanOptions` refuses hysteresis without
    return np.isin(_likeliest(class_map, probability, options, options.thresholds), options.values)


def _likeliest(
    class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions,
    bounds: Decision, *, at_least: bool = False,
) -> ClassMap:  # fmt: skip
    """Take the likeliest class where its probability is above its bound, else the background.

    If `at_least`, as much is enough, and the background is one of the classes.
    """
    assert probability is not None  # `CleanOptions.resolve` refuses stores without
    assert options.background_value is not None  # likewise
    first, *others = options.taking_part if at_least else options.values
    best = _class_probability(probability, options, first)
    classes = np.full(best.shape, first, np.uint8)
    for value in others:
        other = _class_probability(probability, options, value)
        np.putmask(classes, other > best, value)
        best = np.maximum(best, other)
    known = np.array([1.0 if bound is None else bound for bound in bounds])  # classes without one are not taken
    if probability.dtype == np.uint8:  # the least probability above each bound, or as much as it
        steps = np.round(known * STEPS, 9)  # so that 0.7 is 175 and nothing beside it
        least: NDArray[Any] = (np.ceil(steps) if at_least else np.floor(steps) + 1).astype(np.uint8)
    else:
        exact = known.astype(np.float32)
        # "as much" to a rounding error: steps of 1/250 are decoded to what is not above them
        least = np.nextafter(exact, np.float32(0 if at_least else 2))
    np.putmask(classes, ~(best >= least[classes]), options.background_value)  # so written, NaN is not above anything
    np.copyto(classes, class_map, where=~np.isin(class_map, options.taking_part))
    return classes


def _class_probability(probability: NDArray[Any], options: ResolvedOptions, value: int) -> NDArray[Any]:
    """Return a class's probability. Of two classes one may not be kept: it is what remains."""
    if value in options.kept:
        band = np.asarray(probability[options.kept.index(value)])
        return band if band.dtype == np.uint8 else band.astype(np.float32, copy=False)
    remains = STEPS if probability.dtype == np.uint8 else 1
    other = _class_probability(probability, options, options.kept[0])
    return np.asarray(remains - np.minimum(other, remains))  # nodata is more
