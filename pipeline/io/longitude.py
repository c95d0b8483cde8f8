"""Longitudes are the same a whole turn on: polygons of any way of counting them, on a scene of any other.

Scenes and polygons may count degrees from -180 to 180, from 0 to 360, or across the antimeridian as 179.9 to 180.1.
"""

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..grid.geobox import GeoBox

Shapes = NDArray[np.object_]
MOST_TURNS = 2  # between how two sources count longitudes


def full_circle(crs: Any) -> float:
    """Return how many units of a geographic CRS are a whole turn: 360 for degrees."""
    return float(2 * np.pi / crs.axis_info[0].unit_conversion_factor)


def unwrapped(shapes: Shapes, turn: float) -> Shapes:
    """Return polygons without leaps of a turn from vertex to vertex, as they come of a transformation.

    A ring around a pole, which ends a turn from where it began, stays as it is.
    """
    leaping = np.array([_leaps(shape, turn) for shape in shapes], bool)
    if not leaping.any():
        return shapes
    made = shapes.copy()
    for place in np.flatnonzero(leaping):
        parts = [_unwrapped_polygon(part, turn) for part in shapely.get_parts(shapes[place])]
        made[place] = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return made


def _leaps(shape: Any, turn: float) -> bool:
    if shape is None or shape.is_empty or shape.bounds[2] - shape.bounds[0] <= turn / 2:
        return False
    return any(np.abs(np.diff(ring.coords.xy[0])).max() > turn / 2 for ring in shapely.get_rings(shape))


def _unwrapped_polygon(polygon: Any, turn: float) -> Any:
    outside = _unwrapped_ring(np.array(polygon.exterior.coords), turn)
    middle = (outside[:, 0].min() + outside[:, 0].max()) / 2
    holes = []
    for hole in polygon.interiors:
        points = _unwrapped_ring(np.array(hole.coords), turn)
        points[:, 0] -= turn * np.round((points[:, 0].mean() - middle) / turn)
        holes.append(points)
    return shapely.Polygon(outside, holes)


def _unwrapped_ring(points: NDArray[np.float64], turn: float) -> NDArray[np.float64]:
    turns = np.append(0, np.cumsum(-np.round(np.diff(points[:, 0]) / turn)))
    if turns[-1] == 0:  # else it goes around a pole
        points[:, 0] += turns * turn
    return points


def all_turns(shapes: Shapes, geobox: GeoBox, turn: float) -> Shapes:
    """Return polygons wherever they lie on a scene, counted from any turn.

    Parameters
    ----------
    shapes
        In the scene's pixels: x is the column, y minus the row.
    geobox
        Of the scene, in a geographic CRS.
    turn
        See `full_circle`.

    Returns
    -------
    NDArray
        The polygons: those copies, a turn or two to the east or west, that meet the scene; as they were where none
        does. One that a scene around the Earth shows at both ends is there twice.
    """
    across, down = geobox.to_pixels(turn, 0)[0] - geobox.to_pixels(0, 0)[0], geobox.to_pixels(turn, 0)[1]
    step = np.array([across, geobox.to_pixels(0, 0)[1] - down])
    bounds = shapely.bounds(shapes)
    meets = {turns: _meets(bounds + np.tile(turns * step, 2), geobox) for turns in range(-MOST_TURNS, MOST_TURNS + 1)}
    elsewhere = np.any([there for turns, there in meets.items() if turns], axis=0)
    made = shapes.copy()
    for place in np.flatnonzero(elsewhere):
        copies = [_moved(shapes[place], turns * step) for turns, there in meets.items() if there[place]]
        made[place] = copies[0] if len(copies) == 1 else shapely.union_all(copies)
    return made


def cut_at_antimeridian(shapes: Shapes, turn: float) -> Shapes:
    """Return polygons counted from minus half a turn to half a turn, cut where they cross it."""
    half, bounds = turn / 2, shapely.bounds(shapes)
    made = shapes.copy()
    for place in np.flatnonzero((bounds[:, 0] < -half) | (bounds[:, 2] > half)):
        parts = []
        for turns in range(-MOST_TURNS, MOST_TURNS + 1):
            strip = shapely.box((turns - 0.5) * turn, bounds[place, 1] - 1, (turns + 0.5) * turn, bounds[place, 3] + 1)
            parts.append(_moved(shapely.intersection(shapes[place], strip), np.array([-turns * turn, 0])))
        made[place] = shapely.union_all(parts)
    return made


def _meets(bounds: NDArray[np.float64], geobox: GeoBox) -> NDArray[np.bool_]:
    """Whether boxes `(n, 4)` meet a scene; those of nothing are NaN and do not."""
    left, bottom, right, top = bounds.T
    return np.asarray((right > 0) & (left < geobox.width) & (top > -geobox.height) & (bottom < 0))


def _moved(shape: Any, by: NDArray[np.float64]) -> Any:
    return shapely.make_valid(shapely.transform(shape, lambda points: points + by))
