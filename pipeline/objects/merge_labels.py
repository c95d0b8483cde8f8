"""Rectangles side by side joined into a larger one: their components become one where they touch across a seam.

Numbers only: no store, no dask. Only components on open sides take part, so that what is held at once grows with a
rectangle's outline, never with its area or the number of components: divide and conquer as Harrison, Childs & Gaither
(2011), "Data-parallel mesh connected components labeling and analysis", on a tree instead of all blocks at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from .components import NONE, MergedRegion, Region, Totals, joined_totals


def join(parts: Sequence[Sequence[Region]], connectivity: int) -> MergedRegion:
    """Join rectangles that lie side by side, given row by row, into the one they make up together."""
    flat = [part for row in parts for part in row]
    counts = tuple(len(part.totals) for part in flat)
    moved = _renumbered(parts, counts)
    totals = joined_totals([part.totals for part in flat])
    seams = _seams(moved)
    pairs = [np.empty((2, 0), np.int64), *(_touching(seam, totals.value, connectivity) for seam in seams)]
    totals = replace(totals, borders=totals.borders + reduce(np.add, map(_beside(totals), seams), 0))
    groups, count = _groups(np.concatenate(pairs, axis=1), len(totals))
    whole = totals.grouped(groups, count)
    made, which = _outline(moved, groups, whole)
    return MergedRegion(made, groups, counts, whole, which)


@dataclass(frozen=True, slots=True)
class Seam:
    """Two lines of pixels on either side of a seam: numbers of components, and what each pixel is."""

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    one_values: NDArray[np.uint8]
    other_values: NDArray[np.uint8]


def _renumbered(parts: Sequence[Sequence[Region]], counts: Sequence[int]) -> list[list[Region]]:
    """Give the components of all parts numbers that follow each other."""
    starts = iter(np.cumsum([0, *counts]))
    return [[_shifted(part, int(next(starts))) for part in row] for row in parts]


def _shifted(part: Region, start: int) -> Region:
    top, bottom, left, right = (np.where(face < 0, NONE, face.astype(np.int64) + start) for face in part.faces)
    return replace(part, faces=(top, bottom, left, right))


def _seams(parts: list[list[Region]]) -> list[Seam]:
    """Give the seams, each along the whole rectangle, so that corners where four parts meet are on them too."""
    columns = list(zip(*parts, strict=True))
    across = [_seam(one, 1, other, 0) for one, other in pairwise(parts)]
    down = [_seam(one, 3, other, 2) for one, other in pairwise(columns)]
    return across + down


def _seam(one: Sequence[Region], side: int, other: Sequence[Region], opposite: int) -> Seam:
    return Seam(
        np.concatenate([part.faces[side] for part in one]),
        np.concatenate([part.faces[opposite] for part in other]),
        np.concatenate([part.values[side] for part in one]),
        np.concatenate([part.values[opposite] for part in other]),
    )


def _touching(seam: Seam, value: NDArray[np.uint8], connectivity: int) -> NDArray[np.int64]:
    """Give pairs (2, n) of components of one value that touch across a seam."""
    ways = [(seam.one, seam.other)]
    if connectivity == 8:
        ways += [(seam.one[1:], seam.other[:-1]), (seam.one[:-1], seam.other[1:])]
    pairs = np.concatenate([np.stack(way) for way in ways], axis=1)
    pairs = pairs[:, (pairs >= 0).all(axis=0)]
    pairs = pairs[:, value[pairs[0]] == value[pairs[1]]]
    return np.unique(pairs, axis=1)


def _beside(totals: Totals) -> Any:
    """Give what counts the neighbours of each component across a seam."""
    count, classes = totals.borders.shape

    def counted(seam: Seam) -> NDArray[np.int64]:
        found = np.zeros(count * classes, np.int64)
        for owner, mine, theirs in (
            (seam.one, seam.one_values, seam.other_values),
            (seam.other, seam.other_values, seam.one_values),
        ):
            met = (owner >= 0) & (mine != theirs) & (theirs < classes)
            found += np.bincount(owner[met] * classes + theirs[met], minlength=found.size)
        return found.reshape(count, classes)

    return counted


def _groups(pairs: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], int]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.zeros(0, np.int64), 0
    links = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(count, count))
    found, groups = connected_components(links, directed=False)
    return groups.astype(np.int64), int(found)


def _outline(parts: list[list[Region]], groups: NDArray[np.int64], whole: Totals) -> tuple[Region, NDArray[np.int64]]:
    """Give the larger rectangle's own sides, and which groups are open there."""
    sides = ((parts[0], 0), (parts[-1], 1), ([row[0] for row in parts], 2), ([row[-1] for row in parts], 3))
    faces = [np.concatenate([part.faces[side] for part in line]) for line, side in sides]
    values = [np.concatenate([part.values[side] for part in line]) for line, side in sides]
    with_none = np.append(groups, NONE)  # a face's NONE, -1, takes the last
    faces = [with_none[face] for face in faces]
    found = np.unique(np.concatenate(faces))
    which = found[found >= 0]
    numbers = np.full(len(whole) + 1, NONE, np.int32)
    numbers[which] = np.arange(which.size)
    first, last = parts[0][0].window, parts[-1][-1].window
    window = Window(first.top, last.bottom, first.left, last.right)
    top, bottom, left, right = (numbers[face] for face in faces)
    return Region(window, (top, bottom, left, right), tuple(values), whole.take(which)), which  # type: ignore[arg-type]
