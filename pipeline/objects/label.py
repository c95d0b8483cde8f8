"""Connected components of one block: labels, their totals, and the open ones that may continue in other blocks.

Numbers only: no store, no dask. `merge_labels` joins the regions of blocks side by side.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA
from models.errors import PlanError

from ..grid.geobox import Window

NONE = -1  # no component
Connectivity = Literal[4, 8]  # pixels touch at sides; or at corners too
Labels = NDArray[np.int32]
Sides = tuple[NDArray[Any], ...]
"""What lies along a rectangle's top, bottom, left and right side."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What is added up over the pixels of each of `n` components.

    Parameters
    ----------
    value
        uint8 (n): the class that its pixels have.
    pixels
        int64 (n).
    area
        float64 (n), in m²; 0 where pixel areas are not known.
    first
        int64 (n): row * width + column of its first pixel in the scene, row by row.
    above_high
        bool (n): whether any of its pixels is above the higher threshold of a hysteresis.
    borders
        int64 (n, classes): pairs of its pixels and 4-neighbours of another class.
    """

    value: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    area: NDArray[np.float64]
    first: NDArray[np.int64]
    above_high: NDArray[np.bool_]
    borders: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def take(self, which: NDArray[Any]) -> "Totals":
        """Return those of some components, by number or by mask."""
        return Totals(**{name: values[which] for name, values in self.arrays().items()})

    def put(self, which: NDArray[np.int64], others: "Totals") -> "Totals":
        """Return these with those of some components replaced."""
        arrays = {name: values.copy() for name, values in self.arrays().items()}
        for name, values in others.arrays().items():
            arrays[name][which] = values
        return Totals(**arrays)

    def grouped(self, groups: NDArray[np.int64], count: int) -> "Totals":
        """Add up the components of each group; every group has one."""
        value, pixels = np.zeros(count, np.uint8), np.zeros(count, np.int64)
        first = np.full(count, np.iinfo(np.int64).max)
        borders = np.zeros((count, self.borders.shape[1]), np.int64)
        value[groups] = self.value
        np.add.at(pixels, groups, self.pixels)
        np.minimum.at(first, groups, self.first)
        np.add.at(borders, groups, self.borders)
        area = np.bincount(groups, self.area, count).astype(np.float64)
        above_high = np.bincount(groups[self.above_high], minlength=count) > 0
        return Totals(value, pixels, area, first, above_high, borders)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the scene, and its open components: those with a pixel on a side that is not the scene's edge.

    Parameters
    ----------
    window
        The rectangle.
    edges
        int32: the number of the open component at each pixel of a side, or NONE; empty where the side is closed.
    values
        uint8: the class of each pixel of a side, whether or not it belongs to a component.
    totals
        Of the open components, by number.
    """

    window: Window
    edges: Sides
    values: Sides
    totals: Totals


def open_region(window: Window, edges: Sides, values: Sides, totals: Totals) -> tuple[Region, NDArray[np.int64]]:
    """Return the region of a rectangle, and which of all its components, from 0, are open; by their number there.

    Parameters
    ----------
    window, values
        See `Region`.
    edges
        The component at each pixel of a side, from 0, or NONE.
    totals
        Of all components.
    """
    found = np.unique(np.concatenate(edges))
    which = found[found >= 0]
    numbers = np.full(len(totals) + 1, NONE, np.int32)  # the last for NONE
    numbers[which] = np.arange(which.size)
    return Region(window, tuple(numbers[edge] for edge in edges), values, totals.take(which)), which


def check_connectivity(connectivity: int) -> None:
    """Raise PlanError for another one than 4 or 8."""
    if connectivity not in (4, 8):
        raise PlanError(f"connectivity is 4 (sides) or 8 (sides and corners); received {connectivity!r}")


def foreground(class_map: NDArray[np.uint8], background: int | None) -> NDArray[np.bool_]:
    """Return where classes have objects, bool (y, x): what was observed and is not background, if there is one."""
    there = class_map != NODATA
    return np.asarray(there if background is None else there & (class_map != background))


def label(class_map: NDArray[np.uint8], which: NDArray[np.bool_], connectivity: int) -> tuple[Labels, int]:
    """Find the components of equal class, by `skimage.measure.label`, and number them from 1.

    Parameters
    ----------
    class_map, which
        uint8 and bool (y, x): the classes, and the pixels that belong to components; none of nodata.
    connectivity
        4 or 8.

    Returns
    -------
    tuple
        int32 (y, x), 0 where there is none; and how many there are.
    """
    values = (class_map + np.uint8(1)) * which  # 0 is no component; a class's value may be 0
    highest = values.max(initial=0)
    if ((values == 0) | (values == highest)).all():  # one value: what skimage calls for masks, which is twice as quick
        from scipy import ndimage

        labels = np.empty(values.shape, np.int32)
        count = ndimage.label(values, ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2), labels)
    else:
        from skimage import measure

        labels, count = measure.label(values, background=0, connectivity=1 if connectivity == 4 else 2, return_num=True)
    return labels.astype(np.int32, copy=False), int(count)


@dataclass(frozen=True, slots=True)
class BlockLabels:
    """The components of a block.

    Parameters
    ----------
    labels
        int32 (y, x), from 1; 0 for none.
    totals
        Of components 1 and on, from place 0, as far as the block knows them.
    region
        What the block tells others.
    open
        int64: the components, from 0, that are open in the region, by their number there.
    """

    labels: Labels
    totals: Totals
    region: Region
    open: NDArray[np.int64]

    def whole(self, merged: Totals | None) -> Totals:
        """Return the totals of whole components, from those of the open ones after merging; None: nothing is open."""
        return self.totals if merged is None else self.totals.put(self.open, merged)


def summarize_block(
    class_map: NDArray[np.uint8],
    window: Window,
    shape: tuple[int, int],
    connectivity: int,
    which: NDArray[np.bool_],
    *,
    classes: int = 0,
    areas: NDArray[np.float64] | None = None,
    above_high: NDArray[np.bool_] | None = None,
) -> BlockLabels:
    """Label a block, and add up what it knows of its components.

    Parameters
    ----------
    class_map
        uint8 (y, x).
    window, shape
        Where it lies in the scene, and the scene's rows and columns.
    connectivity
        4: pixels touch at sides; 8: at corners too.
    which
        bool (y, x): the pixels that belong to components; none of nodata.
    classes
        How many classes count as neighbours; values of this and above do not. 0: borders are not counted.
    areas
        Of the pixels in m², of a shape that broadcasts to (y, x). None: not asked for.
    above_high
        bool (y, x). None: not asked for.
    """
    labels, count = label(class_map, which, connectivity)
    runs = run_lengths(labels)
    first = np.zeros(count + 1, np.int64)
    first[runs.owners[::-1]] = runs.starts[::-1]  # of several values for one place, the last one stays
    rows, columns = np.divmod(first[1:], max(1, labels.shape[1]))
    above = np.zeros(count + 1, bool)
    if above_high is not None:
        above[labels[above_high]] = True
    totals = Totals(
        value=class_map.ravel()[first[1:]],
        pixels=np.bincount(runs.owners, runs.lengths, count + 1)[1:].astype(np.int64),
        area=np.zeros(count) if areas is None else _areas(runs, areas, labels.shape, count),
        first=(rows + window.top) * shape[1] + columns + window.left,
        above_high=above[1:],
        borders=_borders(runs, count, class_map, classes),
    )
    numbers = tuple(edge.astype(np.int64) - 1 for edge in edges(labels, window, shape))
    return BlockLabels(labels, totals, *open_region(window, numbers, edges(class_map, window, shape), totals))


def find_objects(
    class_map: NDArray[np.uint8], window: Window, shape: tuple[int, int], *, connectivity: int, background: int | None
) -> BlockLabels:
    """Label the objects of a block: components of every class but the background; see `summarize_block`."""
    return summarize_block(class_map, window, shape, connectivity, foreground(class_map, background))


@dataclass(frozen=True, slots=True)
class RunLengths:
    """Labels by runs of pixels of one row: the first pixel, label and length of each, those of label 0 too."""

    starts: NDArray[np.intp]
    owners: NDArray[Any]
    lengths: NDArray[np.intp]


def run_lengths(labels: NDArray[Any]) -> RunLengths:
    """Cut labels (y, x) into runs."""
    changed = np.ones(labels.shape, bool)  # rows begin runs
    np.not_equal(labels[:, 1:], labels[:, :-1], out=changed[:, 1:])
    starts = np.flatnonzero(changed)
    return RunLengths(starts, labels.ravel()[starts], np.diff(starts, append=labels.size))


def _areas(runs: RunLengths, areas: NDArray[np.float64], shape: tuple[int, ...], count: int) -> NDArray[np.float64]:
    if areas.shape[1] == 1:  # all pixels of a row are alike
        weights = np.broadcast_to(areas, (shape[0], 1))[runs.starts // shape[1], 0] * runs.lengths
    else:
        weights = np.add.reduceat(np.broadcast_to(areas, shape).ravel(), runs.starts)
    return np.bincount(runs.owners, weights, count + 1)[1:].astype(np.float64)


def _borders(runs: RunLengths, count: int, class_map: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count, by component and class, pairs of pixels side by side: one in the component, the other of that class."""
    counts = np.zeros((count, classes), np.int64)
    owned = class_map.ravel()[runs.starts[runs.owners > 0]]
    for value in range(classes):
        same = class_map == value
        if not same.any() or (owned == value).all():  # there is none, or nothing but it has borders
            continue
        beside = np.zeros(class_map.shape, np.uint8)
        for one, other in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
            beside[one] += same[other]
            beside[other] += same[one]
        beside *= ~same
        met = np.add.reduceat(beside.ravel(), runs.starts, dtype=np.int32)
        counts[:, value] = np.bincount(runs.owners, met, count + 1)[1:]
    return counts


def edges(pixels: NDArray[Any], window: Window, shape: tuple[int, int]) -> Sides:
    """Return the pixels along the open sides; nothing along those that are the scene's edge."""
    nothing = pixels[:0, 0]
    return (
        pixels[0] if window.top > 0 else nothing,
        pixels[-1] if window.bottom < shape[0] else nothing,
        pixels[:, 0] if window.left > 0 else nothing,
        pixels[:, -1] if window.right < shape[1] else nothing,
    )
