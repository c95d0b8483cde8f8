"""The pixels on the border of each object, sorted by the length of border that they stand for. Numbers only.

After Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator", as `skimage.measure.perimeter` has
it, for all objects of a block at once: only neighbours of the same object count, so that objects may touch.
"""

import numpy as np
from numpy.typing import NDArray

EDGE = 2  # pixels around a block that must be known: a border pixel's neighbours, and theirs

KINDS = np.zeros(25, np.uint8)  # of border pixels, by 5 x their diagonal + their straight neighbours on the border
KINDS[[2, 3, 7, 8, 12, 13]] = 1
KINDS[[10, 16]] = 2
KINDS[[6, 11]] = 3


def border_kinds(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Give the kind of each pixel of a block.

    Parameters
    ----------
    ids
        int64 `(y, x)`: of the block and `EDGE` pixels around it; 0 for no object, and beyond the scene.

    Returns
    -------
    ndarray
        uint8 `(y, x)` of the block alone: 1 for border pixels of length 1, 2 of sqrt(2), 3 of (1 + sqrt(2)) / 2, and 0
        for all others. A border pixel has a 4-neighbour that is not of its object.
    """
    border = _on_border(ids)
    core = np.zeros(ids.shape, bool)
    core[EDGE:-EDGE, EDGE:-EDGE] = border[EDGE:-EDGE, EDGE:-EDGE]
    pixels = np.flatnonzero(core)  # few, of most objects: what follows goes by them alone
    kinds = np.zeros(ids.shape, np.uint8)
    kinds.ravel()[pixels] = KINDS[_neighbours(pixels, border, ids)]
    return kinds[EDGE:-EDGE, EDGE:-EDGE]


def _on_border(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    border = np.zeros(ids.shape, bool)
    middle = ids[1:-1, 1:-1]
    inside = middle == ids[:-2, 1:-1]
    for other in (ids[2:, 1:-1], ids[1:-1, :-2], ids[1:-1, 2:]):
        inside &= middle == other
    border[1:-1, 1:-1] = ~inside & (middle != 0)
    return border


def _neighbours(pixels: NDArray[np.intp], border: NDArray[np.bool_], ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Count the neighbours of some pixels that are on the border of the same object: as `KINDS` takes them."""
    width = ids.shape[1]
    on_border, flat = border.ravel(), ids.ravel()
    own, counted = flat[pixels], np.zeros(len(pixels), np.uint8)
    straight, diagonal = (-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1)
    for step in straight + diagonal:
        near = pixels + step
        same = on_border[near] & (flat[near] == own)
        counted += same * np.uint8(1 if step in straight else 5)
    return counted
