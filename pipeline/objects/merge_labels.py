"""Labels merged across blocks: regions side by side become a larger one, whose components are one if they touch.

Numbers only: no store, no dask. Only components on open sides take part, so that what is held at once grows with a
rectangle's outline, never with its area or the number of components: divide and conquer as Harrison, Childs & Gaither
(2011), "Data-parallel mesh connected components labeling and analysis", on a tree instead of all blocks at once.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from io import BytesIO
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.limits import largest_chunk

from ..grid.geobox import Window
from .label import NONE, Region, Totals, open_region

TOP, BOTTOM, LEFT, RIGHT = range(4)  # of `Sides`
LENGTH = 8  # bytes before what is packed, which tell how long it was


@dataclass(frozen=True, slots=True)
class MergedRegion:
    """How the open components of rectangles side by side became those of the rectangle they make up together.

    Parameters
    ----------
    groups
        int64: for the open components of all parts, one part after the other, the group each belongs to.
    counts
        int64: how many of them each part has.
    open
        int64: the groups that are open in the larger rectangle, by their number there.
    totals
        Of the groups, as far as they are known here.
    """

    groups: NDArray[np.int64]
    counts: NDArray[np.int64]
    open: NDArray[np.int64]
    totals: Totals

    def part_totals(self, whole: Totals | None) -> list[Totals]:
        """Return whole totals of the open components of each part, from those of the larger rectangle's.

        None: it is the whole scene, and nothing is open.
        """
        totals = self.totals if whole is None else self.totals.put(self.open, whole)
        return [totals.take(part) for part in np.split(self.groups, np.cumsum(self.counts)[:-1])]

    def to_bytes(self) -> bytes:
        """Return it as bytes, for a file."""
        return pack({"groups": self.groups, "counts": self.counts, "open": self.open} | self.totals.arrays())

    @classmethod
    def from_bytes(cls, content: bytes) -> "MergedRegion":
        """Return what `to_bytes` made bytes of."""
        arrays = unpack(content)
        return cls(arrays.pop("groups"), arrays.pop("counts"), arrays.pop("open"), Totals(**arrays))


def merge_regions(parts: Sequence[Sequence[Region]], connectivity: int) -> tuple[Region, MergedRegion]:
    """Merge rectangles that lie side by side, given row by row, into the one they make up together.

    Returns
    -------
    tuple
        The larger rectangle, and how it came about.
    """
    counts = np.array([len(part.totals) for row in parts for part in row])
    starts = iter(np.cumsum([0, *counts]).tolist())
    rows = [[_renumbered(part, next(starts)) for part in row] for row in parts]
    columns = list(zip(*rows, strict=True))
    known = [part.totals.arrays() for row in rows for part in row]
    totals = Totals(**{name: np.concatenate([arrays[name] for arrays in known]) for name in known[0]})
    # each seam goes along the whole rectangle, so that corners where four parts meet are on it too
    seams = [(_line(one, BOTTOM), _line(other, TOP)) for one, other in pairwise(rows)]
    seams += [(_line(one, RIGHT), _line(other, LEFT)) for one, other in pairwise(columns)]
    pairs = [np.empty((2, 0), np.int64), *(_touching(*seam, totals.value, connectivity) for seam in seams)]
    totals = replace(totals, borders=totals.borders + sum(_borders(*seam, totals.borders.shape) for seam in seams))
    groups, count = _groups(np.concatenate(pairs, axis=1), len(totals))
    merged = totals.grouped(groups, count)
    sides = [_line(rows[0], TOP), _line(rows[-1], BOTTOM), _line(columns[0], LEFT), _line(columns[-1], RIGHT)]
    with_none = np.append(groups, NONE)  # an edge's NONE, -1, takes the last
    edges, values = tuple(with_none[line.numbers] for line in sides), tuple(line.values for line in sides)
    first, last = rows[0][0].window, rows[-1][-1].window
    window = Window(first.top, last.bottom, first.left, last.right)
    region, which = open_region(window, edges, values, merged)
    return region, MergedRegion(groups, counts, which, merged)


class Line(NamedTuple):
    """Pixels along a side: the number of each one's component, or NONE, and its class."""

    numbers: NDArray[np.int64]
    values: NDArray[np.uint8]


def _renumbered(part: Region, start: int) -> Region:
    """Count the components of a part from a number on, so that those of all parts follow each other."""
    return replace(part, edges=tuple(np.where(edge < 0, NONE, edge.astype(np.int64) + start) for edge in part.edges))


def _line(parts: Sequence[Region], side: int) -> Line:
    """Return one side of all parts of a row or column."""
    numbers = np.concatenate([part.edges[side] for part in parts])
    return Line(numbers, np.concatenate([part.values[side] for part in parts]))


def _touching(one: Line, other: Line, value: NDArray[np.uint8], connectivity: int) -> NDArray[np.int64]:
    """Return pairs (2, n) of components of one value that touch across a seam."""
    ways = [(one.numbers, other.numbers)]
    if connectivity == 8:
        ways += [(one.numbers[1:], other.numbers[:-1]), (one.numbers[:-1], other.numbers[1:])]
    pairs = np.concatenate([np.stack(way) for way in ways], axis=1)
    pairs = pairs[:, (pairs >= 0).all(axis=0)]
    pairs = pairs[:, value[pairs[0]] == value[pairs[1]]]
    return np.unique(pairs, axis=1)


def _borders(one: Line, other: Line, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Count the neighbours of each component across a seam, by class."""
    count, classes = shape
    borders = np.zeros(count * classes, np.int64)
    for mine, theirs in ((one, other), (other, one)):
        met = (mine.numbers >= 0) & (mine.values != theirs.values) & (theirs.values < classes)
        borders += np.bincount(mine.numbers[met] * classes + theirs.values[met], minlength=borders.size)
    return borders.reshape(shape)


def _groups(pairs: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], int]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not count:
        return np.zeros(0, np.int64), 0
    links = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(count, count))
    found, groups = connected_components(links, directed=False)
    return groups.astype(np.int64), int(found)


def region_bytes(region: Region) -> bytes:
    """Return a region as bytes, for a file."""
    sides = {"edges": region.edges, "values": region.values}
    arrays = {f"{kind}{n}": side for kind, four in sides.items() for n, side in enumerate(four)}
    return pack(arrays | {"window": np.array(astuple(region.window))} | region.totals.arrays())


def region_from(content: bytes) -> Region:
    """Return the region that `region_bytes` made bytes of."""
    arrays = unpack(content)
    edges, values = (tuple(arrays.pop(f"{kind}{n}") for n in range(4)) for kind in ("edges", "values"))
    return Region(Window(*arrays.pop("window").tolist()), edges, values, Totals(**arrays))


def pack(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return named arrays as bytes, compressed: their length, then zstd."""
    import pyarrow as pa

    made = BytesIO()
    np.savez(made, **arrays)  # type: ignore[arg-type]
    return made.tell().to_bytes(LENGTH, "little") + bytes(pa.compress(made.getbuffer(), codec="zstd", asbytes=True))


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Return the named arrays of `pack`; no object is ever unpickled."""
    import pyarrow as pa

    length = int.from_bytes(content[:LENGTH], "little")
    if length > largest_chunk():
        raise ValueError(f"{length:,} bytes unpacked of {len(content):,}: it is damaged")
    whole = pa.decompress(memoryview(content)[LENGTH:], length, codec="zstd")
    with np.load(BytesIO(whole), allow_pickle=False) as arrays:
        return dict(arrays)
