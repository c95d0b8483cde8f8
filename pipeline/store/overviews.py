"""Halve class maps and probabilities for overviews.

A class is the most frequent of its four pixels, a probability their mean; nodata counts for nothing.
"""

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA

from ..grid.block_result import BlockResult


def halve(result: BlockResult) -> BlockResult:
    """Halve a window, rounding its sides up."""
    probability = result.probability
    return BlockResult(
        mode_of_four(result.class_map),
        None if probability is None else np.stack([mean_of_four(kept) for kept in probability]),
    )


def _corners(values: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
    """Return the four pixels of each square, `(4, y/2, x/2)`; beyond an odd edge stands `fill`."""
    height, width = values.shape
    even = np.pad(values, ((0, height % 2), (0, width % 2)), constant_values=fill)
    return np.stack([even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]])


def mode_of_four(class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the most frequent class of each square, uint8 `(y/2, x/2)`; of equals, the first in reading order."""
    corners = _corners(class_map, NODATA)
    if not (corners == NODATA).any():
        # as nearly all squares are: only a pair can outvote the first
        a, b, c, d = corners
        rest = np.where((b == c) | (b == d), b, np.where(c == d, c, a))
        return np.where((a == b) | (a == c) | (a == d), a, rest)  # type: ignore[no-any-return]
    best, most = np.full(corners.shape[1:], NODATA, np.uint8), np.zeros(corners.shape[1:], np.uint8)
    for corner in corners:
        votes = (corners == corner).sum(axis=0, dtype=np.uint8) * (corner != NODATA)
        np.copyto(best, corner, where=votes > most, casting="same_kind")
        np.maximum(most, votes, out=most)
    return best


def mean_of_four(probability: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the mean probability of each square `(y/2, x/2)` as it is kept; uint8 is rounded half up."""
    whole = probability.dtype == np.uint8
    corners = _corners(probability, NODATA if whole else np.nan)
    if whole and not (corners == NODATA).any():
        total_of_four: NDArray[np.uint16] = corners.sum(axis=0, dtype=np.uint16)
        return ((total_of_four + 2) >> 2).astype(np.uint8)
    seen = corners != NODATA if whole else ~np.isnan(corners)
    count = seen.sum(axis=0)
    total = np.where(seen, corners, 0).sum(axis=0, dtype=np.float64)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    if whole:
        return np.where(count > 0, np.floor(mean + 0.5), NODATA).astype(np.uint8)
    return np.where(count > 0, mean, np.nan).astype(probability.dtype)
