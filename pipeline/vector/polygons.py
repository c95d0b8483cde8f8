"""Polygonization: objects into polygons, one block at a time, and the parts of one object into one polygon.

Tables have the columns `id` int64 and `geometry`, WKB in pixels of the whole scene: x counts columns and y rows, whole
numbers are corners of pixels. `trace` finds the outlines; GEOS joins and simplifies where coordinates are no longer on
the pixels' sides.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..grid.geobox import Window
from .trace import OUTSIDE, Ints, Rings, add_corners, find_corners, find_t_junctions, insert_t_junctions, trace_rings

if TYPE_CHECKING:
    import pyarrow as pa

Shapes = NDArray[np.object_]  # of shapely's polygons and multipolygons


def trace(objects: Ints, window: Window) -> "pa.Table":
    """Trace the outline of each object in a block, along the pixels' sides.

    Parameters
    ----------
    objects
        Ids int64 `(y, x)`, of the window's shape; what is below 1 is no object.
    window
        The block's place in the scene.

    Returns
    -------
    pyarrow.Table
        One row per id, sorted by id. What is joined by sides of pixels is one Polygon with its holes; an object whose
        parts meet only at corners of pixels, or outside this block, is a MultiPolygon. All are valid. Rings begin at
        their topmost, then leftmost corner and have a point only where they turn.
    """
    framed = np.pad(objects.astype(np.int64, copy=False), 1, constant_values=OUTSIDE)
    framed[framed < 1] = OUTSIDE
    ids, shapes = _shapes(trace_rings(find_corners(framed, window.top, window.left)))
    return _table(ids, shapely.to_wkb(shapes))


def merge(table: "pa.Table") -> "pa.Table":
    """Join the parts of each object that different blocks have traced.

    Parameters
    ----------
    table
        As from `trace` or `merge`, of blocks that do not overlap; ids may repeat.

    Returns
    -------
    pyarrow.Table
        One row per id, sorted by id: byte for byte what `trace` gives for the blocks as one.
    """

    def join(ids: Ints, shapes: Shapes) -> tuple[Ints, Shapes]:
        parts, shape = shapely.get_parts(shapes, return_index=True)
        loops, part = shapely.get_rings(parts, return_index=True)
        points, loop = shapely.get_coordinates(loops, return_index=True)
        column, row = points.astype(np.int64).T
        kept = np.append(np.diff(loop) == 0, False)  # all but a ring's last point, which is its first again
        sign = np.where(row == np.roll(row, -1), 1, -1).astype(np.int8)  # positive where an edge along a row begins
        owner = ids[shape[part[loop]]]
        corners = add_corners(owner[kept], row[kept], column[kept], sign[kept])  # those that parts share cancel
        return _shapes(trace_rings(corners))

    return _merge(table, join)


def trace_simplified(objects: Ints, window: Window, tolerance: float) -> "pa.Table":
    """Trace simplified outlines of a block's objects, with borders between neighbours still shared exactly.

    All pixels take part as one coverage (background and nodata too), simplified by the method of Visvalingam and Whyatt
    (1993) as `shapely.coverage_simplify` does it: points where three regions meet stay, and so do all on the block's
    own border, so that parts in neighbouring blocks still meet. No object vanishes.

    Parameters
    ----------
    objects
        Ids int64 `(y, x)`; numbers below 1 are regions too (0 background, another one nodata) but are not given out. Of
        the window's shape; or one pixel larger on each side, with the neighbours' ids and any one number below 0 beyond
        the scene: then neighbours have the same points along borders of blocks too, as `coverage_is_valid` asks.
    window
        The block's place in the scene.
    tolerance
        In pixels: the square root of the area of the triangle that a point may take with it when it goes.

    Returns
    -------
    pyarrow.Table
        One row per id, sorted by id; points lie on corners of pixels. To be joined by `merge_simplified`.
    """
    frame = int(objects.shape == window.shape)
    framed = np.pad(objects.astype(np.int64, copy=False), frame, constant_values=OUTSIDE)
    alone = framed.copy()
    alone[[0, -1]] = alone[:, [0, -1]] = OUTSIDE
    rings = trace_rings(find_corners(alone, window.top, window.left))
    ids, shapes = _shapes(insert_t_junctions(rings, find_t_junctions(framed, window.top, window.left)))
    simplified = shapely.coverage_simplify(shapes, tolerance, simplify_boundary=False)
    return _table(ids[ids > 0], shapely.to_wkb(simplified[ids > 0]))


def merge_simplified(table: "pa.Table") -> "pa.Table":
    """Join the parts of each object that `trace_simplified` gave for different blocks; points on their border stay.

    Returns
    -------
    pyarrow.Table
        One row per id, sorted by id.
    """

    def join(ids: Ints, shapes: Shapes) -> tuple[Ints, Any]:
        order = np.argsort(ids, kind="stable")
        whole, first = np.unique(ids[order], return_index=True)
        return whole, [shapely.union_all(parts) for parts in np.split(shapes[order], first[1:])]

    return _merge(table, join)


def _merge(table: "pa.Table", join: Callable[[Ints, Shapes], tuple[Ints, Any]]) -> "pa.Table":
    """Join the rows whose ids repeat; `join` is given their ids and shapes and returns those of the whole objects."""
    ids, column = table["id"].to_numpy(), table["geometry"].to_numpy()
    _, which, counts = np.unique(ids, return_inverse=True, return_counts=True)
    repeated = counts[which] > 1
    if not repeated.any():
        return _table(ids, column)
    whole, shapes = join(ids[repeated], shapely.from_wkb(column[repeated]))
    return _table(np.append(ids[~repeated], whole), [*column[~repeated], *shapely.to_wkb(shapes)])


def _shapes(rings: Rings) -> tuple[Ints, Shapes]:
    """Return ids and their polygons, sorted by id; parts and holes in the order of their first points."""
    if not len(rings.owner):
        return rings.owner, np.empty(0, object)
    part = _parts(rings)
    order = np.argsort(part, kind="stable")  # an exterior comes before its holes already
    points, starts = _closed(rings, order)
    bounds = np.append(0, np.cumsum(np.bincount(part)))
    polygons = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (starts, bounds))
    ids, first, counts = np.unique(rings.owner[rings.exterior], return_index=True, return_counts=True)
    shapes = polygons[first]
    if len(ids) < len(polygons):
        which = np.repeat(np.arange(len(ids)), counts)
        several = counts[which] > 1
        shapely.multipolygons(polygons[several], indices=which[several], out=shapes)
    return ids, shapes


def _parts(rings: Rings) -> NDArray[np.intp]:
    """Return the polygon that each ring belongs to, counted by exteriors.

    A hole belongs to the smallest exterior of its owner around the pixel that lies above it.
    """
    part = np.cumsum(rings.exterior) - 1  # right where an owner has one exterior: its first ring
    _, owner, counts = np.unique(rings.owner[rings.exterior], return_inverse=True, return_counts=True)
    several = counts[owner[part]] > 1
    holes, exteriors = np.flatnonzero(several & ~rings.exterior), np.flatnonzero(several & rings.exterior)
    if not len(holes):
        return part
    x, y = rings.column[rings.starts[holes]] + 0.5, rings.row[rings.starts[holes]] - 0.5
    points, starts = _closed(rings, exteriors)
    filled = shapely.from_ragged_array(shapely.GeometryType.POLYGON, points, (starts, np.arange(len(starts))))
    shapely.prepare(filled)
    hole, outer = shapely.STRtree(filled).query(shapely.points(x, y))
    near = rings.owner[holes[hole]] == rings.owner[exteriors[outer]]
    hole, outer = hole[near], outer[near]
    inside = shapely.contains_xy(filled[outer], x[hole], y[hole])
    hole, outer = hole[inside], outer[inside]
    order = np.lexsort((shapely.area(filled)[outer], hole))
    _, first = np.unique(hole[order], return_index=True)
    part[holes] = part[exteriors[outer[order][first]]]
    return part


def _closed(rings: Rings, order: NDArray[np.intp]) -> tuple[NDArray[np.float64], Ints]:
    """Return chosen rings as points (x, y), each ring's first point again at its end, and where each begins."""
    first, counts = rings.starts[order], np.diff(rings.starts)[order] + 1
    starts = np.append(0, np.cumsum(counts))
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    place[starts[1:] - 1] = 0
    place += np.repeat(first, counts)
    return np.column_stack([rings.column[place], rings.row[place]]).astype(np.float64), starts


def _table(ids: Ints, geometry: Any) -> "pa.Table":
    """Return a table of ids and WKB, in the order of the ids."""
    import pyarrow as pa

    table = pa.table({"id": pa.array(ids, pa.int64()), "geometry": pa.array(geometry, pa.binary())}, schema())
    return table if (np.diff(ids) > 0).all() else table.sort_by("id")


def schema() -> "pa.Schema":
    """Return the columns of all tables here."""
    import pyarrow as pa

    return pa.schema([("id", pa.int64()), ("geometry", pa.binary())])
