"""The connected components of one block: found, counted, and what of them the block tells others. Numbers only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import NONE, Region, Sides, Totals
from .geobox import Window

Labels = NDArray[np.int32]


def label(values: NDArray[np.uint8], connectivity: int) -> tuple[Labels, int]:
    """Find the components of equal value other than 0, by `skimage.measure.label`, and number them from 1.

    Parameters
    ----------
    values
        (y, x).
    connectivity
        4 or 8.

    Returns
    -------
    tuple
        int32 (y, x), 0 where `values` is; and how many there are.
    """
    from skimage import measure

    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256)[1:]) + 1
    if not present.size:
        return np.zeros(values.shape, np.int32), 0
    kinds = values if present.size > 1 else values.astype(bool)  # a quicker way for a single value
    labels, count = measure.label(kinds, background=0, connectivity=1 if connectivity == 4 else 2, return_num=True)
    return labels.astype(np.int32, copy=False), int(count)


def total(
    labels: Labels,
    count: int,
    class_map: NDArray[np.uint8],
    window: Window,
    width: int,
    *,
    classes: int,
    areas: NDArray[np.float64] | None = None,
    strong: NDArray[np.bool_] | None = None,
    borders: bool = True,
) -> Totals:
    """Add up what a window knows of its components.

    Parameters
    ----------
    labels, count
        See `label`.
    class_map
        uint8 (y, x): what every pixel is; values of `classes` and above do not count as neighbours.
    window, width
        Where it lies in the scene, and the scene's columns.
    classes
        How many classes there are.
    areas
        Of the pixels in m², of a shape that broadcasts to (y, x).
    strong
        bool (y, x).
    borders
        Whether neighbours are counted.

    Returns
    -------
    Totals
        Of the components 1 to `count`, from place 0.
    """
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    owners = flat[inside]
    first = np.zeros(count + 1, np.int64)
    first[owners[::-1]] = inside[::-1]  # of several values for one place, the last one stays
    rows, columns = np.divmod(first[1:], max(1, labels.shape[1]))
    value = class_map.ravel()[first[1:]]
    marked = np.zeros(count + 1, bool)
    if strong is not None:
        marked[flat[strong.ravel()]] = True
    return Totals(
        value=value,
        pixels=np.bincount(owners, minlength=count + 1)[1:].astype(np.int64),
        area=_sums(owners, areas, labels.shape, inside, count),
        first=(rows + window.top) * width + columns + window.left,
        strong=marked[1:],
        borders=count_borders(labels, count, class_map, classes) if borders else np.zeros((count, classes), np.int64),
    )


def _sums(
    owners: Labels,
    areas: NDArray[np.float64] | None,
    shape: tuple[int, ...],
    inside: NDArray[np.intp],
    count: int,
) -> NDArray[np.float64]:
    if areas is None:
        return np.zeros(count)
    weights = np.broadcast_to(areas, shape).ravel()[inside]
    return np.bincount(owners, weights, count + 1)[1:].astype(np.float64)


def count_borders(labels: Labels, count: int, class_map: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count how long each component's border with each other class is.

    Parameters
    ----------
    labels, count
        See `label`.
    class_map
        uint8 (y, x); values of `classes` and above, as nodata, count for nothing.
    classes
        How many classes there are.

    Returns
    -------
    NDArray
        int64 (count, classes): pairs of pixels side by side, one in the component, the other of that class.
    """
    counts = np.zeros((count + 1) * classes, np.int64)
    for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        for mine, theirs in ((one, other), (other, one)):
            owner, beside = labels[mine], class_map[theirs]
            met = (owner > 0) & (beside != class_map[mine]) & (beside < classes)
            counts += np.bincount(owner[met].astype(np.int64) * classes + beside[met], minlength=counts.size)
    return counts.reshape(count + 1, classes)[1:]


def region(
    labels: Labels, class_map: NDArray[np.uint8], totals: Totals, window: Window, shape: tuple[int, int]
) -> tuple[Region, NDArray[np.int64]]:
    """Give what a block tells others, and which of its components (from 0) are open, by their number there."""
    faces = _edges(labels.astype(np.int64) - 1, window, shape)
    found = np.unique(np.concatenate(faces))
    which = found[found >= 0]
    numbers = np.full(len(totals) + 1, NONE, np.int32)  # the last for NONE
    numbers[which] = np.arange(which.size)
    top, bottom, left, right = (numbers[face] for face in faces)
    values = _edges(class_map, window, shape)
    return Region(window, (top, bottom, left, right), values, totals.take(which)), which


def _edges(pixels: NDArray[Any], window: Window, shape: tuple[int, int]) -> Sides:
    """Give the pixels along the open sides; nothing along those that are the scene's edge."""
    nothing = pixels[:0, 0]
    return (
        pixels[0] if window.top > 0 else nothing,
        pixels[-1] if window.bottom < shape[0] else nothing,
        pixels[:, 0] if window.left > 0 else nothing,
        pixels[:, -1] if window.right < shape[1] else nothing,
    )
