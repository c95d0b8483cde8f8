"""Halve class maps and probabilities for overviews.

A class is the most frequent of its four pixels, a probability their mean; nodata counts for nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA

from ..grid.block_result import BlockResult

Corners = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def halve(result: BlockResult) -> BlockResult:
    """Halve a window, rounding its sides up."""
    probability = result.probability
    return BlockResult(
        mode_of_four(result.class_map),
        None if probability is None else np.stack([mean_of_four(kept) for kept in probability]),
    )


def _corners(values: NDArray[Any], fill: float) -> Corners:
    """Return the four pixels of each square, in reading order, each `(y/2, x/2)`; beyond an odd edge stands `fill`."""
    height, width = values.shape
    if height % 2 or width % 2:
        values = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=fill)
    upper, lower = values[0::2], values[1::2]
    if values.dtype != np.uint8:
        return upper[:, 0::2], upper[:, 1::2], lower[:, 0::2], lower[:, 1::2]
    # two pixels at a time: NumPy takes every second byte one by one, and is ten times slower at it
    pairs = np.ascontiguousarray(values).view("<u2")
    first, second = pairs.astype(np.uint8), (pairs >> 8).astype(np.uint8)
    return first[0::2], second[0::2], first[1::2], second[1::2]


def mode_of_four(class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the most frequent class of each square, uint8 `(y/2, x/2)`; of equals, the first in reading order."""
    a, b, c, d = _corners(class_map, NODATA)
    mode = a.copy()
    alone = np.flatnonzero((a != b) & (a != c) & (a != d))  # only there can a pair outvote the first
    first, second, third, fourth = _taken((a, b, c, d), alone)
    rest = np.where(third == fourth, third, first)
    mode.ravel()[alone] = np.where((second == third) | (second == fourth), second, rest)
    if (partly := _partly_observed((a, b, c, d))).size:
        mode.ravel()[partly] = _observed_mode(_taken((a, b, c, d), partly))
    return mode


def _taken(corners: Corners, squares: NDArray[np.intp]) -> Corners:
    """Return the corners of some squares, by their place in reading order."""
    a, b, c, d = (corner.take(squares) for corner in corners)
    return a, b, c, d


def _partly_observed(corners: Corners) -> NDArray[np.intp]:
    """Return the squares that hold nodata and something else; of uint8."""
    highest = np.maximum.reduce(corners)
    if highest.size == 0 or highest.max() < NODATA:
        return np.empty(0, np.intp)
    return np.flatnonzero((highest == NODATA) & (np.minimum.reduce(corners) < NODATA))


def _observed_mode(corners: Corners) -> NDArray[np.uint8]:
    """Return the most frequent class of squares `(n,)`, nodata aside."""
    best, most = np.full(corners[0].shape, NODATA, np.uint8), np.zeros(corners[0].shape, np.uint8)
    for corner in corners:
        votes = np.add.reduce([corner == other for other in corners], dtype=np.uint8) * (corner != NODATA)
        np.copyto(best, corner, where=votes > most, casting="same_kind")
        np.maximum(most, votes, out=most)
    return best


def mean_of_four(probability: NDArray[Any]) -> NDArray[Any]:
    """Return the mean probability of each square `(y/2, x/2)` as it is kept; uint8 is rounded half up."""
    if probability.dtype != np.uint8:
        return _observed_mean(_corners(probability, np.nan)).astype(probability.dtype)
    corners = _corners(probability, NODATA)
    total = corners[0].astype(np.uint16)
    for corner in corners[1:]:
        total += corner
    total += 2
    total >>= 2
    whole: NDArray[np.uint8] = total.astype(np.uint8)  # of four that are nodata, that too
    if (partly := _partly_observed(corners)).size:
        taken = [np.where(corner == NODATA, np.nan, corner) for corner in _taken(corners, partly)]
        whole.ravel()[partly] = np.floor(_observed_mean(taken) + 0.5)
    return whole


def _observed_mean(corners: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Return the mean of those of four that are not NaN; NaN where all are."""
    total, count = np.zeros(corners[0].shape, np.float64), np.zeros(corners[0].shape, np.uint8)
    for corner in corners:
        seen = ~np.isnan(corner)
        count += seen
        np.add(total, corner, out=total, where=seen, dtype=np.float64)
    mean: NDArray[np.float64] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean
