"""How far the pixels of a scene lie from its edge and from what was not observed."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from ..grid.geobox import Window

BESIDE = 2  # a pixel beside the scene counts as so many missing ones: reflections, not means, stand there


def edge_distance(
    valid: NDArray[np.bool_], read: Window, window: Window, shape: tuple[int, int], reach: int
) -> NDArray[np.float32]:
    """Return the distance of each pixel of a window to the nearest one that is missing or beside the scene.

    It is the larger one of rows and columns between both (chessboard), as far as a network sees: its field is a square.
    What lies farther than `reach` is not looked at, so that the window does not matter.

    Parameters
    ----------
    valid
        Which pixels were observed, bool `(y, x)`.
    read
        The window of the scene that `valid` is of: at least what of the scene lies `reach` pixels around the window.
    window
        Inside the scene.
    shape
        Of the scene.
    reach
        Pixels, from 1; larger distances are this.

    Returns
    -------
    ndarray
        Whole numbers, float32 `(y, x)`; 0 where nothing was observed.
    """
    around = window.buffer(reach)
    inside = around.clip(shape)
    edges = [
        (int(around.top < inside.top), int(around.bottom > inside.bottom)),
        (int(around.left < inside.left), int(around.right > inside.right)),
    ]
    there = np.pad(valid[inside.within(read).slices], edges)
    if there.all():
        return np.full(window.shape, reach, np.float32)
    found = distance_transform_cdt(there, metric="chessboard")
    (top, _), (left, _) = edges
    core = window.within(inside).shift(top, left).slices
    return np.asarray(np.minimum(found[core], reach), np.float32)


def rank_inner(
    distance: NDArray[np.float32],
    valid: NDArray[np.bool_],
    read: Window,
    window: Window,
    shape: tuple[int, int],
    halo: int,
) -> NDArray[np.int64]:
    """Rank pixels by their distance, and equals by how little is missing of what the network sees.

    Of pieces of one scene, the first of the highest rank sees what the whole scene would show, if any does: others lack
    more. At an edge that all have, distances are alike, though one piece may end close by on another side.

    Parameters
    ----------
    distance
        Of the window, see `edge_distance`; larger than the halo where nothing is missing within it.
    valid, read, window, shape
        See `edge_distance`.
    halo
        How far the network sees.

    Returns
    -------
    ndarray
        int64 `(y, x)`; 0 where nothing was observed.
    """
    most = BESIDE * (2 * halo + 1) ** 2 + 1
    rank = distance.astype(np.int64) * most
    if (distance <= halo).any():
        rank -= _lacking(valid, read, window.buffer(halo), shape, 2 * halo + 1)
    rank[distance == 0] = 0
    return rank


def _lacking(
    valid: NDArray[np.bool_], read: Window, around: Window, shape: tuple[int, int], side: int
) -> NDArray[np.int64]:
    """Add up squares of `side` pixels: 1 for each that is missing, more for each beside the scene."""
    inside = around.clip(shape)
    lacking = np.full(around.shape, BESIDE, np.int64)
    lacking[inside.within(around).slices] = ~valid[inside.within(read).slices]
    for _ in range(2):  # down, then across
        sums = np.cumsum(np.pad(lacking, [(1, 0), (0, 0)]), axis=0)
        lacking = (sums[side:] - sums[:-side]).T
    return lacking
