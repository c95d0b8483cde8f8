"""Which blocks of a store are planned: those that may hold anything. The others are never written and read as nodata.

Masks are bool by rows and columns of blocks.
"""

from collections.abc import Iterator
from hashlib import sha256
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BlockMask: TypeAlias = NDArray[np.bool_]
PLANNED = "blocks/planned"  # the array of a store that not all blocks of are planned
AT_A_TIME = 64  # rows of which the places are listed at once


def digest_of(planned: BlockMask) -> str:
    """Return what tells one plan from others."""
    return sha256(f"{planned.shape}".encode() + np.packbits(planned).tobytes()).hexdigest()[:16]


def above(planned: BlockMask) -> BlockMask:
    """Return the blocks of the next overview that have any of these below them."""
    rows, columns = planned.shape
    whole = np.pad(planned, ((0, rows % 2), (0, columns % 2)))
    return np.asarray(whole.reshape(-(-rows // 2), 2, -(-columns // 2), 2).any(axis=(1, 3)))


def count_below(blocks: BlockMask) -> NDArray[np.uint8]:
    """Return how many of these are below each block of the next overview."""
    rows, columns = blocks.shape
    whole = np.pad(blocks, ((0, rows % 2), (0, columns % 2)))
    return np.asarray(whole.reshape(-(-rows // 2), 2, -(-columns // 2), 2).sum(axis=(1, 3)), np.uint8)


def by_level(planned: BlockMask, levels: int) -> tuple[BlockMask, ...]:
    """Return the planned blocks of the full resolution and of so many overviews above it."""
    found = [planned]
    for _ in range(levels):
        found.append(above(found[-1]))
    for mask in found:
        mask.flags.writeable = False
    return tuple(found)


def recut(planned: BlockMask, block: int, side: int, shape: tuple[int, int]) -> BlockMask:
    """Return which blocks of another side touch planned ones.

    Parameters
    ----------
    planned
        Of blocks of `block` pixels.
    block, side
        Their side, and the side of the blocks that are asked about.
    shape
        Of the scene, in pixels.
    """
    if block == side:
        return planned
    sums = np.pad(planned.cumsum(0, np.int64).cumsum(1), ((1, 0), (1, 0)))
    starts = [np.arange(0, size, side) for size in shape]
    first = [start // block for start in starts]
    end = [-(-np.minimum(start + side, size) // block) for start, size in zip(starts, shape, strict=True)]
    (top, left), (bottom, right) = first, end
    inside = (
        sums[np.ix_(bottom, right)] - sums[np.ix_(top, right)] - sums[np.ix_(bottom, left)] + sums[np.ix_(top, left)]
    )
    return np.asarray(inside > 0)


def places(blocks: BlockMask, across: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield rows and columns of these blocks: in strips of so many columns, row by row; None: one strip."""
    rows, columns = blocks.shape
    across = across or columns
    for left in range(0, columns, across):
        for top in range(0, rows, AT_A_TIME):
            part = blocks[top : top + AT_A_TIME, left : left + across]
            for row, column in np.argwhere(part).tolist():
                yield top + row, left + column
