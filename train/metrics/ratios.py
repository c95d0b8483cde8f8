"""Shares of counts, and how they are written down. What a share of nothing is, is settled here for every score.

A share of nothing is NaN, as scikit-learn's `zero_division=nan` has it: where there is nothing to find and nothing was
found, a network is neither right nor wrong. Such a class is left out of means, and is null in JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGITS = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def ratio(part: Any, whole: Any) -> Any:
    """Divide counts, arrays or not; 0/0 is NaN."""
    with np.errstate(invalid="ignore"):
        return np.true_divide(part, whole)


def mean(values: Floats) -> Any:
    """Average over the last axis what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


def plain(value: Any, digits: int = DIGITS) -> Any:
    """Give a number, or an array as lists of numbers, for JSON: floats rounded, None for NaN."""
    if isinstance(value, np.ndarray):
        return [plain(one, digits) for one in value]
    if isinstance(value, int | np.integer):
        return int(value)
    return None if np.isnan(value) else round(float(value), digits)
