"""Tracing of outlines: pixels of equal numbers into signed corners, corners into closed rings. Integers only.

A region is written as the places where its outline turns, each with a sign: the mixed difference of the region's mask,
`f[y, x] - f[y-1, x] - f[y, x-1] + f[y-1, x-1]`, which is 0 everywhere else. Masks of parts that do not overlap add up,
and so do their corners: where two blocks meet, those on the seam cancel, and no collinear point is left.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = int(np.iinfo(np.int64).min)  # the owner of pixels that nobody traces
Ints = NDArray[np.int64]


class Corners(NamedTuple):
    """Signed corners: `owner`, `row`, `column` int64, `sign` int8 (-2 to 2); sorted in this order, each place once."""

    owner: Ints
    row: Ints
    column: Ints
    sign: NDArray[np.int8]


class TJunctions(NamedTuple):
    """Places on straight parts of an owner's outline where three or more owners meet; `level`: along a row."""

    owner: Ints
    row: Ints
    column: Ints
    level: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rings:
    """Closed rings without their last point, sorted by owner and first point, which is the topmost and then leftmost.

    Parameters
    ----------
    owner
        int64 (ring,).
    exterior
        bool (ring,); False: a hole. Seen with rows upwards, exteriors run counterclockwise and holes clockwise.
    starts
        int64 (ring + 1,): where each ring begins among the points.
    row, column
        int64 (point,), of pixel corners.
    """

    owner: Ints
    exterior: NDArray[np.bool_]
    starts: Ints
    row: Ints
    column: Ints


def find_corners(framed: Ints, top: int, left: int) -> Corners:
    """Find the corners of all owners in a block.

    Parameters
    ----------
    framed
        Owners, (y + 2, x + 2): the block within a frame of OUTSIDE, one pixel wide.
    top, left
        Of the block in its scene; corners are given in pixels of the scene.
    """
    a, b, c, d = _quads(framed)
    row, column = np.nonzero(~((a == b) & (c == d) | (a == c) & (b == d)))
    owner = np.concatenate([quad[row, column] for quad in (a, b, c, d)])
    sign = np.repeat(np.array([1, -1, -1, 1], np.int8), len(row))
    kept = owner != OUTSIDE
    return add_corners(owner[kept], np.tile(row + top, 4)[kept], np.tile(column + left, 4)[kept], sign[kept])


def find_t_junctions(framed: Ints, top: int, left: int) -> TJunctions:
    """Find the T-junctions on what `find_corners` traces; here the frame may hold the neighbours' pixels."""
    quads, inside = _quads(framed), _quads(np.pad(np.ones(np.subtract(framed.shape, 2), bool), 1))
    found = []
    for one, twin, *others in ((0, 1, 2, 3), (2, 3, 0, 1), (0, 2, 1, 3), (1, 3, 0, 2)):
        owner, (third, fourth) = quads[one], (quads[n] for n in others)
        straight = (owner == quads[twin]) & inside[one] & inside[twin]
        row, column = np.nonzero(straight & (third != fourth) & (third != owner) & (fourth != owner))
        found.append((owner[row, column], row + top, column + left, np.full(len(row), one + twin in (1, 5))))
    return TJunctions(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _quads(framed: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the four pixels around each corner of pixels: above left, above right, below left, below right."""
    return framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]


def add_corners(owner: Ints, row: Ints, column: Ints, sign: NDArray[np.int8]) -> Corners:
    """Add up the signs of corners at the same place of the same owner; those that cancel are gone."""
    if not len(owner):
        return Corners(owner, row, column, sign)
    order = np.lexsort((column, row, owner))
    owner, row, column, sign = owner[order], row[order], column[order], sign[order]
    first = np.flatnonzero(np.append(True, (np.diff(owner) != 0) | (np.diff(row) != 0) | (np.diff(column) != 0)))
    total = np.add.reduceat(sign, first, dtype=np.int8)
    kept = first[total != 0]
    return Corners(owner[kept], row[kept], column[kept], total[total != 0])


def trace_rings(corners: Corners) -> Rings:
    """Join corners to the rings around each owner's pixels.

    Rings touch each other and themselves only where two pixels of an owner meet at a corner. There a ring turns so that
    two parts of the owner that are joined nowhere by a side of a pixel get a ring each; and where they are one part,
    what lies between them gets a hole of its own: no ring meets a point twice, so that polygons come out valid.
    """
    nodes = Corners._make(np.repeat(part, np.abs(corners.sign)) for part in corners)
    if not len(nodes.owner):
        return Rings(nodes.owner, np.zeros(0, bool), np.zeros(1, np.int64), nodes.row, nodes.column)
    follows = _follow(nodes)
    _, first = _cycles(follows)
    point = _in_turn(follows, first)
    starts = np.flatnonzero(np.isin(point, first, assume_unique=True))
    start = point[starts]
    return Rings(
        nodes.owner[start], nodes.sign[start] > 0, np.append(starts, len(point)), nodes.row[point], nodes.column[point]
    )


def _follow(nodes: Corners) -> Ints:
    """Return for each corner the next one on its ring. Where four edges meet, two nodes stand for the place.

    Along a row, corners pair up to edges: first with second, third with fourth. Along a column too. An edge along a row
    runs from a positive corner to a negative one, and one along a column back.
    """
    count = len(nodes.owner)
    twin = np.flatnonzero(np.abs(nodes.sign) == 2)[::2]  # the first of two nodes, which has the edge to the left
    rank = np.zeros(count, np.int8)  # which of the two nodes has the edge upwards
    rank[twin], rank[twin + 1] = nodes.sign[twin] < 0, nodes.sign[twin] > 0
    upright = np.lexsort((rank, nodes.row, nodes.column, nodes.owner))

    def pair() -> Ints:
        down = np.empty(count, np.int64)
        down[upright[::2]], down[upright[1::2]] = upright[1::2], upright[::2]
        return np.where(nodes.sign > 0, np.arange(count) ^ 1, down)

    follows = pair()
    if len(twin):  # each part of an owner has its own rings by now; where one meets itself, its ring is cut in two
        label, _ = _cycles(follows)
        same = twin[label[twin] == label[twin + 1]]
        place = np.empty(count, np.int64)
        place[upright] = np.arange(count)
        upright[place[same]], upright[place[same + 1]] = same + 1, same
        follows = pair()
    return follows


def _cycles(follows: Ints) -> tuple[Ints, Ints]:
    """Return each node's ring, and each ring's first node."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    count = len(follows)
    graph = csr_array((np.ones(count, np.int8), follows, np.arange(count + 1)), shape=(count, count))
    rings, label = connected_components(graph, directed=True, connection="weak")
    first = np.empty(rings, np.int64)
    first[label[::-1]] = np.arange(count)[::-1]  # the last that is written stays: the smallest
    return label, first


def _in_turn(follows: Ints, first: Ints) -> Ints:
    """Return the nodes ring by ring, each from its first node on.

    Each ring is cut open before its first node and tied to the next: one chain, which a depth-first walk gives in
    order, in compiled code. (Under a root with many children SciPy's walk takes quadratic time.)
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import depth_first_order

    count, first = len(follows), np.sort(first)
    last = np.empty(count, np.int64)
    last[follows] = np.arange(count)  # what stands before each node
    chain = follows.copy()
    chain[last[first]] = np.append(first[1:], first[0])
    graph = csr_array((np.ones(count, np.int8), chain, np.arange(count + 1)), shape=(count, count))
    walk: Ints = depth_first_order(graph, first[0], directed=True, return_predecessors=False).astype(np.int64)
    return walk


def insert_t_junctions(rings: Rings, t_junctions: TJunctions) -> Rings:
    """Put T-junctions into the edges that they lie on; each must lie on one."""
    ring = np.repeat(np.arange(len(rings.owner)), np.diff(rings.starts))
    onward = np.arange(1, len(ring) + 1)
    onward[rings.starts[1:] - 1] = rings.starts[:-1]
    owner, row, column = rings.owner[ring], rings.row, rings.column
    level = row == row[onward]
    edge = np.empty(len(t_junctions.owner), np.int64)
    for flag in (True, False):
        at, chosen = np.flatnonzero(level == flag), t_junctions.level == flag
        line, along = (row, column) if flag else (column, row)
        places = (t_junctions.row, t_junctions.column) if flag else (t_junctions.column, t_junctions.row)
        edges = (owner[at], line[at], np.minimum(along, along[onward])[at])
        edge[chosen] = at[_last_before(edges, tuple(part[chosen] for part in (t_junctions.owner, *places)))]
    far = np.abs(t_junctions.row - row[edge]) + np.abs(t_junctions.column - column[edge])
    order = np.lexsort((np.append(np.zeros(len(row), np.int64), far), np.append(np.arange(len(row)), edge)))
    counts = np.diff(rings.starts) + np.bincount(ring[edge], minlength=len(rings.owner))
    starts = np.append(0, np.cumsum(counts))
    row, column = np.append(row, t_junctions.row)[order], np.append(column, t_junctions.column)[order]
    return Rings(rings.owner, rings.exterior, starts, row, column)


def _last_before(edges: tuple[Ints, ...], sought: tuple[Ints, ...]) -> Ints:
    """Return for each place the last edge that begins at or before it, by owner, line and position on the line."""
    count, wanted = len(edges[0]), len(sought[0])
    both = [np.append(edge, place) for edge, place in zip(edges, sought, strict=True)]
    order = np.lexsort((np.repeat([0, 1], [count, wanted]), *reversed(both)))
    latest = np.maximum.accumulate(np.where(order < count, np.arange(len(order)), 0))
    answer = np.empty(wanted, np.int64)
    asked = order >= count
    answer[order[asked] - count] = order[latest[asked]]
    return answer
