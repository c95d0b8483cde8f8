"""Morphology of class maps, class by class: erosion, dilation, opening, closing; and the majority filter.

Numbers only: no dask, no store. Nodata and what lies outside the scene count for nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA, ClassMap

from .options import Element, Operation, ResolvedOptions
from .threshold import apply_threshold

Mask = NDArray[np.bool_]

PASSES: dict[Operation, tuple[bool, ...]] = {  # of each operation; whether it shrinks or grows
    "erosion": (True,),
    "dilation": (False,),
    "opening": (True, False),
    "closing": (False, True),
}
SMALL_DISK = 4  # up to this radius going through the structuring element is faster than a distance transform


def local_halo(options: ResolvedOptions) -> int:
    """Return the pixels around a window that `smooth` needs, all operations added up."""
    return (options.majority or 0) // 2 + sum(len(PASSES[name]) * radius for name, radius in options.radii)


def local(class_map: ClassMap, probability: NDArray[Any] | None, options: ResolvedOptions) -> ClassMap:
    """Threshold and smooth a window; all that comes before removal. Not for hysteresis, which is not local.

    Parameters
    ----------
    class_map, probability
        See `apply_threshold`; with `local_halo` pixels around what is wanted, cut at the scene's edges.
    options
        What is done.

    Returns
    -------
    NDArray
        uint8 of the same shape. Its halo is not right and must be thrown away.
    """
    assert options.low is None
    return smooth(apply_threshold(class_map, probability, options), options)


def smooth(class_map: ClassMap, options: ResolvedOptions) -> ClassMap:
    """Do the majority filter and the morphological operations, in their order.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, 255 = nodata, which stays. As for `local`.
    options
        Of which majority, the radii, `element` and the classes count.

    Returns
    -------
    NDArray
        uint8 of the same shape. Per class as `skimage.morphology.erosion` and so on with `mode="ignore"` (in binary
        maps, `binary_erosion`), and `skimage.filters.rank.majority` with a mask.
    """
    if options.majority and options.majority > 1:
        class_map = majority(class_map, options.majority, options.taking_part)
    for operation, radius in options.radii:
        class_map = _transform(class_map, operation, radius, options)
    return class_map


def majority(class_map: ClassMap, side: int, values: Sequence[int]) -> ClassMap:
    """Return each pixel's most frequent class in the square around it; of equals, the lowest.

    Pixels of other classes than `values`, and nodata, have no vote and stay. As `skimage.filters.rank.majority` with a
    mask, which takes many times as long: it is made for 256 grey values.
    """
    winner, most = np.zeros(class_map.shape, np.uint8), np.zeros(class_map.shape, np.int32)
    there = np.bincount(class_map.ravel(), minlength=NODATA)
    for value in (value for value in values if there[value]):
        votes = _sums(_sums(class_map == value, side // 2, 0), side // 2, 1)
        np.copyto(winner, np.uint8(value), where=votes > most)
        np.maximum(most, votes, out=most)
    np.copyto(winner, class_map, where=~np.isin(class_map, values))
    return winner


def _sums(values: NDArray[Any], reach: int, axis: int) -> NDArray[np.int32]:
    """Add up the values within a reach along an axis, in the time of one pass for any reach."""
    size = values.shape[axis]
    padding = [(int(place == axis), 0) for place in range(values.ndim)]
    before = np.pad(np.cumsum(values, axis=axis, dtype=np.int32), padding)  # the sum of all that comes before
    ends, starts = (np.clip(np.arange(size) + shift, 0, size) for shift in (reach + 1, -reach))
    return np.asarray(np.take(before, ends, axis) - np.take(before, starts, axis))


def _transform(class_map: ClassMap, operation: Operation, radius: int, options: ResolvedOptions) -> ClassMap:
    """Do one operation for one class after the other: a class that is done first gains first."""
    nodata, background = class_map == NODATA, options.background_value
    assert background is not None  # `CleanOptions.resolve` refuses others
    changed = class_map.copy()
    for value in options.values:
        before = after = changed == value
        if before.any():
            for shrinks in PASSES[operation]:  # nodata counts for nothing: erosion sees it as inside, dilation as not
                inside = _eroded(after | nodata if shrinks else ~after, radius, options.element)
                after = (inside if shrinks else ~inside) & ~nodata
            changed[before & ~after] = background
            changed[after & (changed == background)] = value
    return changed


def _eroded(mask: Mask, radius: int, element: Element) -> Mask:
    """Erode a mask, with nothing outside its edges; three ways with the same result, each where it is fastest.

    A disk of radius r is all pixels at a distance of at most r, so a distance transform gives the same exactly: squares
    of distances are whole numbers.
    """
    from scipy import ndimage
    from skimage.morphology import disk, erosion, isotropic_erosion

    if mask.all():  # a distance to nothing is not defined
        return mask
    if element == "square":
        side = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        return np.asarray(erosion(mask, side, mode="ignore"))
    if radius <= SMALL_DISK:
        return np.asarray(ndimage.binary_erosion(mask, disk(radius), border_value=1))
    return np.asarray(isotropic_erosion(mask, radius))
