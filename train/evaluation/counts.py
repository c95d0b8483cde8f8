"""One pass over a sample whose truth and answers are kept: tallies of each block, added up. Memory stays flat.

What is counted is `scores`'s to know; what is kept, `works`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from pipeline.grid.encoding import NODATA
from pipeline.grid.geobox import Window
from pipeline.jobs.dask import map_bounded
from pipeline.jobs.progress import ProgressFactory
from pipeline.store.store import Store

from ..metrics.confusion import confusion
from ..metrics.object_matching import ObjectCounts, Overlaps, match, merged, overlaps
from ..metrics.scores import BlockCounts, count_pixels
from ..metrics.thresholds import ThresholdCurve, foreground_of, threshold_curve
from .jobs import all_classes

TOGETHER = 64  # tables of overlapping objects that are merged at once

Counts = NDArray[np.int64]
Cell = tuple[int, int]  # row and column of a square of the sample


@dataclass(frozen=True, slots=True)
class Kept:
    """The stores of one sample and one predictor.

    Parameters
    ----------
    truth, maps, decided
        Labels; class map and probabilities as they were predicted; the class map that is judged.
    truth_objects, objects
        Of truth and of the map that is judged; None: not counted.
    """

    truth: Store
    maps: Store
    decided: Store
    truth_objects: Store | None = None
    objects: Store | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """What all blocks of a pass share: stores, classes, and sides of boundary and squares in pixels."""

    kept: Kept
    classes: int
    distance: int
    side: int


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted in a sample, or in a block of it.

    Parameters
    ----------
    tally
        See `scores`.
    cells
        Counts `(truth, predicted)` of each square that has any.
    objects
        None: not counted.
    """

    tally: BlockCounts
    cells: Mapping[Cell, Counts]
    objects: ObjectCounts | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    tally: BlockCounts
    cells: Mapping[Cell, Counts]
    overlaps: Overlaps | None
    pixels: int


def count_sample(client: Client, what: Pass, show: ProgressFactory, title: str) -> Counted:
    """Count a whole sample, block by block; each block is read once.

    Parameters
    ----------
    client
        Where blocks are counted.
    what
        Finished stores.
    show, title
        For progress.
    """
    tally, cells, tables = None, dict[Cell, Counts](), list[Overlaps]()
    places = list(what.kept.decided.places(0))
    with show(title, len(places), 0) as advance:
        for block in map_bounded(client, count_block, what, places, key="swathe-count"):
            tally = block.tally if tally is None else tally + block.tally
            _add(cells, block.cells)
            tables += [] if block.overlaps is None else [block.overlaps]
            if len(tables) >= TOGETHER:
                tables = [merged(tables)]
            advance(1, block.pixels)
    assert tally is not None  # a scene has a block
    return Counted(tally, cells, match(merged(tables), what.classes).counts if tables else None)


def _add(cells: dict[Cell, Counts], more: Mapping[Cell, Counts]) -> None:
    for cell, counts in more.items():
        cells[cell] = cells[cell] + counts if cell in cells else counts


def count_block(what: Pass, place: tuple[int, int]) -> _Block:
    """Count one block, wherever a worker does it."""
    kept = what.kept
    window = kept.decided.window(0, *place)
    wide = window.buffer(what.distance).clip(kept.decided.geobox.shape)
    class_map, labels = (store.read_array("class_map", wide)[0] for store in (kept.decided, kept.truth))
    core = window.within(wide).slices
    probabilities = all_classes(kept.maps.read_array("probability", window))
    tally = count_pixels(
        class_map, labels, core, classes=what.classes, probabilities=probabilities, distance=what.distance
    )
    cells = _cells(class_map[core], labels[core], window, what)
    return _Block(tally, cells, _overlaps(what, window, class_map[core], labels[core]), labels[core].size)


def _cells(class_map: NDArray[np.uint8], labels: NDArray[np.uint8], window: Window, what: Pass) -> dict[Cell, Counts]:
    """Count each square of the sample that a block has a part of."""
    found = {}
    for cell in window.cells(what.side):
        inside = cell_window(cell, what.side).clip(window).within(window).slices
        counts = confusion(class_map[inside], labels[inside], what.classes).counts
        if counts.any():
            found[cell] = counts
    return found


def cell_window(cell: Cell, side: int) -> Window:
    """Give the pixels of a square; those at the edges may reach out of the sample."""
    row, column = cell
    return Window.square(row * side, column * side, side)


def _overlaps(what: Pass, window: Window, class_map: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Overlaps | None:
    stores = what.kept.objects, what.kept.truth_objects
    if stores[0] is None or stores[1] is None:
        return None
    predicted, truth = (store.read_array("objects", window)[0] for store in stores if store is not None)
    return overlaps(predicted, truth, class_map, labels)


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What the blocks of a sweep share."""

    maps: Store
    truth: Store


def sweep_sample(client: Client, maps: Store, truth: Store) -> ThresholdCurve:
    """Count how each threshold would do, before one is chosen."""
    blocks: Iterable[ThresholdCurve] = map_bounded(
        client, sweep_block, Sweeping(maps, truth), list(maps.places(0)), key="swathe-sweep"
    )
    return add_up(list(blocks))


def add_up(sweeps: Sequence[ThresholdCurve]) -> ThresholdCurve:
    """Add up sweeps, of blocks or of samples; there is at least one."""
    total = sweeps[0]
    for more in sweeps[1:]:
        total = total + more
    return total


def sweep_block(what: Sweeping, place: tuple[int, int]) -> ThresholdCurve:
    """Count one block, wherever a worker does it."""
    window = what.maps.window(0, *place)
    labels: NDArray[np.uint8] = what.truth.read_array("class_map", window)[0].copy()
    labels[what.maps.read_array("class_map", window)[0] == NODATA] = NODATA
    return threshold_curve(foreground_of(all_classes(what.maps.read_array("probability", window))), labels)
