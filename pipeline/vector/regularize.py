"""Orthogonalization: building footprints with right angles only, each edge along one of two perpendicular directions.

The way is that of Sampath and Shan (2007), "Building boundary tracing and regularization from airborne lidar point
clouds", Photogrammetric Engineering & Remote Sensing 73(7): split the traced outline into straight edges (here
Douglas-Peucker), find the dominant direction from edges weighted by length, put every edge parallel or perpendicular to
it at the least-squares place, and intersect neighbours. Polygons are in map units.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from .formats import GEOMETRY, replace_geometry

if TYPE_CHECKING:
    import pyarrow as pa

TOLERANCE = 1.25  # pixels that a traced outline may be off a straight edge
SHORTEST = 2.5  # pixels; shorter edges are joined with their neighbours
LEAST_IOU = 0.7

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Shapes = NDArray[np.object_]


class Edges(NamedTuple):
    """Straight edges, in a frame turned along the polygon's dominant direction; in order around each ring.

    `ring` int64; `level`: along the first axis of the frame; `offset`: its place on the other axis; `weight`: length.
    """

    ring: Ints
    level: NDArray[np.bool_]
    offset: Floats
    weight: Floats


def orthogonalize_table(table: "pa.Table", pixel: float) -> "pa.Table":
    """Return a table with the right-angled outlines of its column `geometry`, WKB; see `orthogonalize`."""
    return replace_geometry(table, orthogonalize(shapely.from_wkb(table[GEOMETRY].to_numpy()), pixel))


def orthogonalize(shapes: Shapes, pixel: float, *, least_iou: float = LEAST_IOU) -> Shapes:
    """Return right-angled polygons for polygons.

    Parameters
    ----------
    shapes
        shapely's polygons and multipolygons, in map units of a projected CRS.
    pixel
        Size of a pixel in map units.
    least_iou
        Polygons whose intersection over union with what they were would be less stay as they were.

    Returns
    -------
    numpy.ndarray
        One for each. Each has edges in two perpendicular directions only and is valid, or is as it was: where it is
        round, too small, or its holes would touch its outline. Neighbours may overlap by a pixel.
    """
    if not len(shapes):
        return shapes
    parts, shape = shapely.get_parts(shapes, return_index=True)
    centres = shapely.get_coordinates(shapely.centroid(parts))  # large coordinates would take digits from small angles
    loops, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(loops, return_index=True)
    points -= centres[part[ring]]
    breaks = _breaks(points, ring, TOLERANCE * pixel)
    angle = _directions(points[breaks], ring[breaks], part)
    turned = _turned(points, -angle[part[ring]])
    edges = _join(_alternating(turned, ring, breaks), SHORTEST * pixel)
    following = edges.offset[_around(edges.ring)[1]] if len(edges.ring) else edges.offset
    meetings = (np.where(edges.level, following, edges.offset), np.where(edges.level, edges.offset, following))
    corners = _turned(np.column_stack(meetings), angle[part[edges.ring]]) + centres[part[edges.ring]]
    made = _assembled(corners, edges.ring, part, shape, len(shapes))
    good = np.flatnonzero(shapely.is_valid(made) & shapely.is_valid(shapes))
    shared = shapely.area(shapely.intersection(shapes[good], made[good]))
    total = shapely.area(shapes[good]) + shapely.area(made[good]) - shared
    good = good[shared >= least_iou * total]
    answer = shapes.copy()
    answer[good] = shapely.orient_polygons(made[good])
    return answer


def _breaks(points: Floats, ring: Ints, tolerance: float) -> NDArray[np.bool_]:
    """Find which points end straight edges: those that Douglas-Peucker's method keeps of each ring."""
    loops = shapely.linearrings(points, indices=ring)
    kept, owner = shapely.get_coordinates(shapely.simplify(loops, tolerance), return_index=True)
    both, rings = np.vstack([points, kept]), np.append(ring, owner)
    order = np.lexsort((np.arange(len(both)), both[:, 1], both[:, 0], rings))
    alike = (np.diff(rings[order]) == 0) & (np.diff(both[order], axis=0) == 0).all(1)
    group = np.append(0, np.cumsum(~alike))
    chosen = np.zeros(group[-1] + 1, bool)
    chosen[group[order >= len(points)]] = True
    answer = np.zeros(len(points), bool)
    inner = order < len(points)
    answer[order[inner]] = chosen[group[inner]]
    ends = np.append(True, np.diff(ring) != 0)
    answer |= ends | np.roll(ends, -1)  # GEOS may drop where a ring begins; `_join` does away with it
    return answer


def _directions(points: Floats, ring: Ints, part: Ints) -> Floats:
    """Return each polygon's dominant direction in radians, modulo a right angle, from its edges.

    Directions are averaged as angles times four, so that those a right angle apart agree, with squared lengths as
    weights; and once more without the edges that are far off.
    """
    step = np.diff(points, axis=0)[ring[1:] == ring[:-1]]
    owner = part[ring[1:]][ring[1:] == ring[:-1]]
    length, angle = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    weight, mean = length**2, np.zeros(part.max() + 1)
    for _ in range(3):
        total = [np.bincount(owner, weight * f(4 * angle), len(mean)) for f in (np.sin, np.cos)]
        mean = np.arctan2(*total) / 4
        weight = length**2 * np.clip(np.cos(4 * (angle - mean[owner])), 0.0, None) ** 2
    return mean


def _turned(points: Floats, angle: Floats) -> Floats:
    x, y = points.T
    return np.column_stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)])


def _alternating(points: Floats, ring: Ints, breaks: NDArray[np.bool_]) -> Edges:
    """Put each straight edge at its least-squares place, with one of no length between two of the same direction."""
    inner = ring[1:] == ring[:-1]
    edge = (np.cumsum(breaks) - 1)[:-1][inner]  # every piece of the outline between two breaks is one edge's
    middle, length = ((points[1:] + points[:-1]) / 2)[inner], np.hypot(*np.diff(points, axis=0)[inner].T)
    chosen, edge = np.unique(edge, return_inverse=True)
    moments = np.column_stack([np.bincount(edge, length * axis) for axis in middle.T])
    place = moments / np.bincount(edge, length)[:, None]
    at = np.flatnonzero(breaks)
    span = points[at[chosen + 1]] - points[at[chosen]]
    level = np.abs(span[:, 0]) >= np.abs(span[:, 1])
    edges = Edges(ring[at[chosen]], level, np.where(level, place[:, 1], place[:, 0]), np.hypot(*span.T))
    following = _around(edges.ring)[1]
    same = np.flatnonzero(level == level[following])
    end = points[at[chosen + 1]][same]
    between = Edges(
        edges.ring[same], ~level[same], np.where(level[same], end[:, 0], end[:, 1]), np.full(len(same), 1e-9)
    )
    order = np.argsort(np.append(np.arange(len(level)), same + 0.5), kind="stable")
    return Edges(*(np.append(one, other)[order] for one, other in zip(edges, between, strict=True)))


def _around(ring: Ints) -> tuple[Ints, Ints]:
    """Return the edge before and after each, around its ring."""
    new = np.flatnonzero(np.append(True, np.diff(ring) != 0))
    last = np.append(new[1:], len(ring)) - 1
    before, after = np.arange(len(ring)) - 1, np.arange(len(ring)) + 1
    before[new], after[last] = last, new
    return before, after


def _join(edges: Edges, shortest: float) -> Edges:
    """Take out short edges, each with its two neighbours made one; the shortest around first, rectangles stay."""
    while len(edges.ring):
        before, after = _around(edges.ring)
        length = np.abs(edges.offset[after] - edges.offset[before])
        many = np.bincount(edges.ring)[edges.ring] > 4
        length = np.where(many & (length < shortest), length, np.inf)
        near = np.column_stack([before, before[before], after, after[after]])
        first = (length[near] > length[:, None]) | (
            (length[near] == length[:, None]) & (near > np.arange(len(near))[:, None])
        )
        gone = np.flatnonzero(np.isfinite(length) & first.all(1))
        if not len(gone):
            break
        one, other = before[gone], after[gone]
        offset, weight = edges.offset.copy(), edges.weight.copy()
        weight[one] += weight[other]
        offset[one] += (edges.offset[other] - offset[one]) * (edges.weight[other] / weight[one])
        kept = np.ones(len(weight), bool)
        kept[gone] = kept[other] = False
        edges = Edges(edges.ring[kept], edges.level[kept], offset[kept], weight[kept])
    return edges


def _assembled(corners: Floats, ring: Ints, part: Ints, shape: Ints, count: int) -> Shapes:
    """Return polygons of rings; None where a ring was lost, or a polygon of a multipolygon."""
    answer = np.full(count, None, object)
    sizes = np.bincount(ring, minlength=len(part))
    lost = np.isin(np.arange(count), shape[part[sizes < 4]])
    good = ~lost[shape[part]]
    chosen = good[ring]
    loops = shapely.linearrings(corners[chosen], indices=np.cumsum(good)[ring[chosen]] - 1)
    parts, which = np.unique(part[good], return_inverse=True)
    polygons = shapely.polygons(loops, indices=which)
    owner, first, several = np.unique(shape[parts], return_index=True, return_counts=True)
    answer[owner] = polygons[first]
    many = np.isin(shape[parts], owner[several > 1])
    shapely.multipolygons(polygons[many], indices=shape[parts][many], out=answer)
    return answer
