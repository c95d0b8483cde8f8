"""Which components are too small, and what becomes of them. Numbers only: no dask, no store.

Objects are components of the chosen classes, holes those of the background. One rule, `replacement_class`, serves
windows whose halo decides and the table of components of a whole scene alike.
"""

from math import ceil
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..objects.label import count_borders, label
from .rules import Rules
from .sizes import Size

Which = Literal["objects", "holes"]
Labels = NDArray[np.integer[Any]]

WHICH: tuple[Which, ...] = ("objects", "holes")  # in the order in which they are removed
WIDEST_HALO = 256  # pixels; beyond it a table of components is less work than reading so much around each block


def removal_halo(rules: Rules) -> int | None:
    """Give the pixels around a window with which `remove_by_halo` is right, beside `local_halo`.

    A component of fewer than n pixels that holds a pixel of the window lies, with its neighbours, within n - 1 pixels
    of it; one that reaches the edge of such a halo has n pixels before. Holes are looked for after objects are gone, so
    both halos add up.

    Returns
    -------
    int or None
        0: nothing is removed. None: only the components of the whole scene can tell, because a size is in square
        metres, or the halo would be wider than 256, or the map comes from hysteresis.
    """
    sizes = [size for size in (rules.min_object, rules.min_hole) if size is not None]
    if not sizes:
        return 0
    halo = sum(max(0, ceil(size.value) - 1) for size in sizes)
    return None if rules.hysteresis or halo > WIDEST_HALO or any(size.unit != "px" for size in sizes) else halo


def remove_by_halo(class_map: NDArray[np.uint8], rules: Rules) -> NDArray[np.uint8]:
    """Remove small objects, then fill small holes, in one window with its halo, or in a whole scene.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, 255 = nodata, which stays; cut at the scene's edges.
    rules
        With sizes in pixels.

    Returns
    -------
    NDArray
        uint8 of the same shape; its halo must be thrown away. Of two classes as `skimage.morphology`'s
        `remove_small_objects` and `remove_small_holes`, but where there is no object at all, nothing is a hole.
    """
    for which in WHICH:
        if size_of(rules, which):
            class_map = _removed(class_map, rules, which)
    return class_map


def _removed(class_map: NDArray[np.uint8], rules: Rules, which: Which) -> NDArray[np.uint8]:
    values = objects_input(class_map, rules) if which == "objects" else holes_input(class_map)
    labels, count = label(values, rules.connectivity)
    pixels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    borders = count_borders(labels, count, class_map, rules.num_classes) if needs_borders(rules, which) else None
    value = component_values(class_map, labels, count)[1:]
    return apply_removal(
        class_map, labels, np.append(np.uint8(0), replacement_class(value, pixels, rules, which, borders=borders))
    )


def size_of(rules: Rules, which: Which) -> Size | None:
    """Give the size below which a component is small. None: none is."""
    return rules.min_object if which == "objects" else rules.min_hole


def objects_input(class_map: NDArray[np.uint8], rules: Rules) -> NDArray[np.uint8]:
    """Give what to label as objects: uint8 `(y, x)`, the value where it is one of the chosen classes, else 0."""
    objects = np.zeros(class_map.shape, np.uint8)
    for value in rules.classes:
        np.copyto(objects, value, where=class_map == value)
    return objects


def holes_input(class_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give what to label as holes: uint8 `(y, x)`, 1 where the map is background, else 0."""
    holes: NDArray[np.uint8] = (class_map == 0).astype(np.uint8)
    return holes


def component_values(class_map: NDArray[np.uint8], labels: Labels, count: int) -> NDArray[np.uint8]:
    """Give the class of each component: uint8 `(count + 1,)` by label; that of 0 is 0."""
    value = np.zeros(count + 1, np.uint8)
    value[labels] = class_map
    value[0] = 0
    return value


def needs_borders(rules: Rules, which: Which) -> bool:
    """Whether `replacement_class` needs the borders of components: all holes, and objects that take a neighbour."""
    return which == "holes" or rules.surrounding


def replacement_class(
    value: NDArray[np.uint8],
    num_pixels: NDArray[np.integer[Any]],
    rules: Rules,
    which: Which,
    *,
    area_m2: NDArray[np.float64] | None = None,
    borders: NDArray[np.integer[Any]] | None = None,
) -> NDArray[np.uint8]:
    """Give the class that each component becomes; its own where it stays.

    Parameters
    ----------
    value, num_pixels
        `(n,)`: class and size of whole components. Holes are of class 0.
    rules
        See `Rules`.
    which
        Objects or holes.
    area_m2
        `(n,)`; only for sizes in square metres.
    borders
        `(n, num_classes)`, as `count_borders` gives it; only if `needs_borders`. The classes are those of the map
        before any component of this kind is removed. Of equally long borders, the lowest class counts; a component
        without any becomes background.

    Returns
    -------
    NDArray
        uint8 `(n,)`.
    """
    small = are_small(num_pixels, rules, which, area_m2=area_m2)
    return np.where(small, _replacements(borders, rules, which), value).astype(np.uint8)


def are_small(
    num_pixels: NDArray[np.integer[Any]], rules: Rules, which: Which, *, area_m2: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """Say which components are below the size: bool `(n,)`. A part may be where the whole is not, never otherwise."""
    size = size_of(rules, which)
    if size is None:
        return np.zeros(len(num_pixels), bool)
    extent = num_pixels if size.unit == "px" else area_m2
    assert extent is not None  # areas are known wherever `CleanOptions.rules` lets square metres pass
    small: NDArray[np.bool_] = extent < size.value
    return small


def _replacements(borders: NDArray[np.integer[Any]] | None, rules: Rules, which: Which) -> NDArray[np.uint8]:
    """Give what each component becomes if it is small; one number for all where borders do not matter."""
    if not needs_borders(rules, which):
        return np.zeros(1, np.uint8)
    assert borders is not None
    around = borders.argmax(axis=1).astype(np.uint8)  # the first of the longest; 0 where there is none
    return around if which == "objects" else np.where(np.isin(around, rules.classes), around, 0).astype(np.uint8)


def apply_removal(class_map: NDArray[np.uint8], labels: Labels, becomes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the map with each component's class replaced.

    Parameters
    ----------
    class_map, labels
        Of one shape `(y, x)`.
    becomes
        uint8 `(count + 1,)`, the new class by label, as `replacement_class` gives it; entry 0 is ignored.

    Returns
    -------
    NDArray
        uint8 `(y, x)`; unchanged where there is no component.
    """
    return np.where(labels > 0, becomes[labels], class_map)
