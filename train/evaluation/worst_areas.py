"""Squares of the samples by how well they are mapped, to show the best and the worst. Numbers only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.grid.geobox import Window

from ..data.samples import Sample
from ..metrics.confusion import iou
from .counts import Cell, Counts, cell_window

LEAST = 0.25  # of a square must be judged
FOUND = 0.01  # of what is judged there must be of another class than the first, in truth or map


@dataclass(frozen=True, slots=True)
class Area:
    """A square of a sample.

    Parameters
    ----------
    sample
        Its name.
    window
        Its pixels.
    iou
        Mean of the classes but the first that are there, in truth or map.
    """

    sample: str
    window: Window
    iou: float


def rank_areas(counted: Sequence[tuple[Sample, Mapping[Cell, Counts]]], side: int) -> tuple[Area, ...]:
    """Give the squares that show something, best first.

    Parameters
    ----------
    counted
        Each sample with the counts `(truth, predicted)` of its squares.
    side
        Of a square, in pixels.
    """
    found = [_area(sample, cell, counts, side) for sample, cells in counted for cell, counts in sorted(cells.items())]
    return tuple(sorted((area for area in found if area), key=lambda area: -area.iou))


def _area(sample: Sample, cell: Cell, counts: Counts, side: int) -> Area | None:
    judged = int(counts.sum())
    somewhere = judged - int(counts[0, 0])
    window = cell_window(cell, side).overlap(sample.geobox.whole)
    if window is None or judged < LEAST * window.size or somewhere < FOUND * judged:
        return None
    return Area(sample.name, window, float(np.nanmean(iou(counts)[1:])))
