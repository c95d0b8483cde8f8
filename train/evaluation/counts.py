"""Counts of a sample whose labels and maps are in stores: one pass, block by block, added up. Memory stays flat.

Also the squares of a sample ranked by how well they are mapped, to show the best and the worst.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.encoding import NODATA
from pipeline.grid.geobox import Window
from pipeline.jobs.progress import ProgressFactory
from pipeline.jobs.tasks import map_bounded
from pipeline.store.store import Store

from ..data.samples import Sample
from ..metrics.confusion import confusion, iou
from ..metrics.object_matching import ObjectCounts, Overlaps, match, merged, overlaps
from ..metrics.scores import BlockCounts, count_pixels
from ..metrics.thresholds import ClassCurves, class_curves

TOGETHER = 64  # tables of overlapping objects that are merged at once
LEAST_LABELLED = 0.25  # share of a square's pixels that must be labelled for it to be shown
LEAST_FOREGROUND = 0.01  # share of those that must be of another class than the background, in truth or map

Counts = NDArray[np.int64]  # (truth, predicted)
Cell = tuple[int, int]  # row and column of a square of the sample


@dataclass(frozen=True, slots=True)
class SampleStores:
    """The stores of one sample and one predictor.

    Parameters
    ----------
    truth, maps, decided
        Labels; class map and probabilities as they were predicted; the class map at the threshold.
    truth_objects, objects
        Of truth and of the class map at the threshold; None: objects are not matched.
    """

    truth: Store
    maps: Store
    decided: Store
    truth_objects: Store | None = None
    objects: Store | None = None


@dataclass(frozen=True, slots=True)
class CountTask:
    """What all blocks of a pass share: stores, classes, and sides of boundary and squares in pixels."""

    stores: SampleStores
    classes: int
    background: int | None
    distance: int
    side: int


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What was counted in a sample.

    Parameters
    ----------
    pixels
        Of the whole sample.
    cells
        Counts `(truth, predicted)` of each square that has any.
    objects
        None: objects are not matched.
    stores
        Where it was counted.
    """

    pixels: BlockCounts
    cells: Mapping[Cell, Counts]
    objects: ObjectCounts | None
    stores: SampleStores


Counted = tuple[BlockCounts, dict[Cell, Counts], Overlaps | None, int]  # the last: pixels, for the progress


def count_sample(client: Client, task: CountTask, show: ProgressFactory, title: str) -> SampleCounts:
    """Count a whole sample, block by block; each block is read once.

    Parameters
    ----------
    client
        Where blocks are counted.
    task
        With finished stores.
    show, title
        For progress.
    """
    total, cells, tables = None, dict[Cell, Counts](), list[Overlaps]()
    places = list(task.stores.decided.places(0))
    with show(title, len(places), 0) as advance:
        for counts, squares, table, pixels in map_bounded(client, count_block, task, places, key="swathe-count"):
            total = counts if total is None else total + counts
            for cell, more in squares.items():
                cells[cell] = cells[cell] + more if cell in cells else more
            tables += [] if table is None else [table]
            if len(tables) >= TOGETHER:
                tables = [merged(tables)]
            advance(1, pixels)
    assert total is not None  # a scene has a block
    objects = match(merged(tables), task.classes).counts if tables else None
    return SampleCounts(total, cells, objects, task.stores)


def all_classes(kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return probabilities `(class, y, x)` of all classes; of two only the second's are kept in a store."""
    return np.concatenate([1 - kept, kept]) if len(kept) == 1 else kept


def count_block(task: CountTask, place: tuple[int, int]) -> Counted:
    """Count one block, wherever a worker does it."""
    stores = task.stores
    window = stores.decided.window(0, *place)
    wide = window.buffer(task.distance).clip(stores.decided.geobox.shape)
    class_map, labels = (store.read_array("class_map", wide)[0] for store in (stores.decided, stores.truth))
    core = window.within(wide).slices
    kept = all_classes(stores.maps.read_array("probability", window))
    counts = count_pixels(class_map, labels, core, classes=task.classes, background=task.background,
                          probabilities=kept, distance=task.distance)  # fmt: skip
    class_map, labels, squares, table = class_map[core], labels[core], {}, None
    for cell in window.cells(task.side):
        inside = cell_window(cell, task.side).clip(window).within(window).slices
        pairs = confusion(class_map[inside], labels[inside], task.classes).counts
        if pairs.any():
            squares[cell] = pairs
    if stores.objects is not None and stores.truth_objects is not None:
        predicted, truth = (store.read_array("objects", window)[0] for store in (stores.objects, stores.truth_objects))
        table = overlaps(predicted, truth, class_map, labels)
    return counts, squares, table, labels.size


def cell_window(cell: Cell, side: int) -> Window:
    """Return the pixels of a square; those at the edges may reach out of the sample."""
    return Window.square(cell[0] * side, cell[1] * side, side)


def count_thresholds(client: Client, maps: Store, truth: Store, classes: int, background: int) -> ClassCurves:
    """Count a sample at every threshold, before one is chosen for each class."""
    task, places = (maps, truth, background), list(maps.places(0))
    blocks = map_bounded(client, _block_thresholds, task, places, key="swathe-thresholds")
    return sum(blocks, ClassCurves.none(classes))


def _block_thresholds(task: tuple[Store, Store, int], place: tuple[int, int]) -> ClassCurves:
    maps, truth, background = task
    window = maps.window(0, *place)
    labels: NDArray[np.uint8] = truth.read_array("class_map", window)[0].copy()
    labels[maps.read_array("class_map", window)[0] == NODATA] = NODATA
    return class_curves(all_classes(maps.read_array("probability", window)), labels, background)


@dataclass(frozen=True, slots=True)
class ScoredSquare:
    """A square of a sample, with the mean IoU of the classes but the background that are there, in truth or map."""

    sample: str
    window: Window
    iou: float


def rank_squares(
    counted: Sequence[tuple[Sample, Mapping[Cell, Counts]]], side: int, background: int | None = 0
) -> tuple[ScoredSquare, ...]:
    """Return the squares that show something, best first.

    Parameters
    ----------
    counted
        Each sample with the counts `(truth, predicted)` of its squares.
    side
        Of a square, in pixels.
    background
        Its value; None: there is none.
    """
    ranked = []
    for sample, cells in counted:
        for cell, counts in sorted(cells.items()):
            labelled, window = int(counts.sum()), cell_window(cell, side).clip(sample.geobox.shape)
            foreground = labelled - (0 if background is None else int(counts[background, background]))
            if labelled >= LEAST_LABELLED * window.size and foreground >= LEAST_FOREGROUND * labelled:
                ranked.append(ScoredSquare(sample.name, window, _mean_iou(counts, background)))
    return tuple(sorted(ranked, key=lambda square: -square.iou))


def _mean_iou(counts: Counts, background: int | None) -> float:
    scores = iou(counts)
    return float(np.nanmean(scores if background is None else np.delete(scores, background)))
