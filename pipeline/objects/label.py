"""The connected components of one block: found, counted, and what of them the block tells others. Numbers only."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from .components import NONE, Region, Sides, Totals

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
    highest = values.max(initial=0)
    if ((values == 0) | (values == highest)).all():
        return _label_one(values, connectivity)
    from skimage import measure

    labels, count = measure.label(values, background=0, connectivity=1 if connectivity == 4 else 2, return_num=True)
    return labels.astype(np.int32, copy=False), int(count)


def _label_one(values: NDArray[np.uint8], connectivity: int) -> tuple[Labels, int]:
    """Label a single value, by what `skimage.measure.label` calls for masks: twice as quick, and beside others."""
    from scipy import ndimage

    labels = np.empty(values.shape, np.int32)
    count = ndimage.label(values, ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2), labels)
    return labels, int(count)


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Labels by stretches of pixels in one row: the first pixel, label and length of each, those of label 0 too."""

    starts: NDArray[np.intp]
    owners: Labels
    lengths: NDArray[np.intp]


def _stretches(labels: Labels) -> RunLengths:
    changed = np.ones(labels.shape, bool)  # rows begin stretches
    np.not_equal(labels[:, 1:], labels[:, :-1], out=changed[:, 1:])
    starts = np.flatnonzero(changed)
    return RunLengths(starts, labels.ravel()[starts], np.diff(starts, append=labels.size))


def total(
    labels: Labels,
    count: int,
    class_map: NDArray[np.uint8],
    window: Window,
    width: int,
    *,
    classes: int,
    areas: NDArray[np.float64] | None = None,
    above_high: NDArray[np.bool_] | None = None,
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
    cut = _stretches(labels)
    first = np.zeros(count + 1, np.int64)
    first[cut.owners[::-1]] = cut.starts[::-1]  # of several values for one place, the last one stays
    rows, columns = np.divmod(first[1:], max(1, labels.shape[1]))
    marked = np.zeros(count + 1, bool)
    if above_high is not None:
        marked[labels[above_high]] = True
    return Totals(
        value=class_map.ravel()[first[1:]],
        pixels=np.bincount(cut.owners, cut.lengths, count + 1)[1:].astype(np.int64),
        area=np.zeros(count) if areas is None else _areas(cut, areas, labels.shape, count),
        first=(rows + window.top) * width + columns + window.left,
        above_high=marked[1:],
        borders=_borders(cut, count, class_map, classes) if borders else np.zeros((count, classes), np.int64),
    )


def _areas(cut: RunLengths, areas: NDArray[np.float64], shape: tuple[int, ...], count: int) -> NDArray[np.float64]:
    if areas.shape[1] == 1:  # all pixels of a row are alike
        weights = np.broadcast_to(areas, (shape[0], 1))[cut.starts // shape[1], 0] * cut.lengths
    else:
        weights = np.add.reduceat(np.broadcast_to(areas, shape).ravel(), cut.starts)
    return np.bincount(cut.owners, weights, count + 1)[1:].astype(np.float64)


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
    return _borders(_stretches(labels), count, class_map, classes)


def _borders(cut: RunLengths, count: int, class_map: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    counts = np.zeros((count, classes), np.int64)
    owned = class_map.ravel()[cut.starts[cut.owners > 0]]
    for value in range(classes):
        same = class_map == value
        if not same.any() or (owned == value).all():  # there is none, or nothing but it has borders
            continue
        beside = np.zeros(class_map.shape, np.uint8)
        for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            beside[one] += same[other]
            beside[other] += same[one]
        beside *= ~same
        met = np.add.reduceat(beside.ravel(), cut.starts, dtype=np.int32)
        counts[:, value] = np.bincount(cut.owners, met, count + 1)[1:]
    return counts


def region(
    labels: Labels, class_map: NDArray[np.uint8], totals: Totals, window: Window, shape: tuple[int, int]
) -> tuple[Region, NDArray[np.int64]]:
    """Give what a block tells others, and which of its components (from 0) are open, by their number there."""
    faces = [face.astype(np.int64) - 1 for face in edges(labels, window, shape)]
    found = np.unique(np.concatenate(faces))
    which = found[found >= 0]
    numbers = np.full(len(totals) + 1, NONE, np.int32)  # the last for NONE
    numbers[which] = np.arange(which.size)
    top, bottom, left, right = (numbers[face] for face in faces)
    values = edges(class_map, window, shape)
    return Region(window, (top, bottom, left, right), values, totals.take(which)), which


def edges(pixels: NDArray[Any], window: Window, shape: tuple[int, int]) -> Sides:
    """Give the pixels along the open sides; nothing along those that are the scene's edge."""
    nothing = pixels[:0, 0]
    return (
        pixels[0] if window.top > 0 else nothing,
        pixels[-1] if window.bottom < shape[0] else nothing,
        pixels[:, 0] if window.left > 0 else nothing,
        pixels[:, -1] if window.right < shape[1] else nothing,
    )
