"""The outline of a scene in longitude and latitude: across the antimeridian two polygons, around a pole a cap.

As GeoJSON (RFC 7946, section 3.1.9) and STAC want it. Sides are densified, since straight lines of a map are none in
degrees.
"""

from math import isfinite
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from models.errors import SceneError

from ..grid.geobox import GeoBox
from ..grid.projections import to_degrees

POINTS, MANY_POINTS = 16, 256  # on each side, the second of large scenes and such near a pole
LARGE, POLAR = 5.0, 75.0  # degrees of latitude
NEGLIGIBLE = 1e-6  # degrees that a point may be off, 0.1 m: sides of small scenes are straight
FAR = 180.0  # degrees between neighbouring points of an outline: it went around the antimeridian
ALMOST_POLE = 1e-9


def footprint_of(geobox: GeoBox) -> Any:
    """Return the outline of a grid in EPSG:4326, a shapely Polygon, or a MultiPolygon across the antimeridian.

    Raises
    ------
    SceneError
        The grid has no CRS or no transform, or lies where its CRS says nothing.
    """
    if not geobox.georeferenced:
        raise SceneError("it has no CRS, so that nobody knows where it lies; give it one, as with gdal_edit.py -a_srs")
    longitudes, latitudes = to_degrees(str(geobox.crs), *geobox.to_map(*_outline(geobox, POINTS)))
    if np.ptp(latitudes) > LARGE or np.abs(latitudes).max() > POLAR:
        longitudes, latitudes = to_degrees(str(geobox.crs), *geobox.to_map(*_outline(geobox, MANY_POINTS)))
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        raise SceneError("it lies where its CRS cannot tell longitude and latitude")
    steps = np.diff(longitudes)
    if (np.abs(steps) <= FAR).all() and np.abs(longitudes).max() <= FAR:
        return shapely.simplify(shapely.Polygon(np.column_stack([longitudes, latitudes])), NEGLIGIBLE)
    unwrapped = np.concatenate([[longitudes[0]], longitudes[0] + np.cumsum((steps + 180) % 360 - 180)])
    ring = np.column_stack([unwrapped, latitudes])
    if abs(unwrapped[-1] - unwrapped[0]) > FAR:  # once around a pole: up to it and back
        pole = _pole_inside(geobox)
        ring = np.vstack([ring, [[unwrapped[-1], pole * 90.0], [unwrapped[0], pole * 90.0], ring[0]]])
    return _within_degrees(shapely.Polygon(ring))


def _outline(geobox: GeoBox, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return columns and rows of points along the sides, the first again at the end."""
    columns, rows = (ring(points) * (geobox.width, geobox.height)).T
    return columns, rows


def ring(points: int) -> NDArray[np.float64]:
    """Return points around a square of side 1, so many on each side, the first again at the end: x and y, `(n, 2)`."""
    along = np.arange(points) / points
    zeros, ones = np.zeros(points), np.ones(points)
    x = np.concatenate([along, ones, 1 - along, zeros, [0.0]])
    y = np.concatenate([zeros, along, ones, 1 - along, [0.0]])
    return np.column_stack([x, y])


def _pole_inside(geobox: GeoBox) -> int:
    """Return 1 or -1 where the north or south pole lies inside a grid, 0 where none does."""
    for sign in (1, -1):
        try:
            x, y = to_degrees(str(geobox.crs), 0.0, sign * (90.0 - ALMOST_POLE), inverse=True)
        except SceneError:
            continue
        if not (isfinite(x) and isfinite(y)):
            continue
        column, row = geobox.to_pixels(x, y)
        if 0 < column < geobox.width and 0 < row < geobox.height:
            return sign
    return 0


def _within_degrees(polygon: Any) -> Any:
    """Cut a polygon of longitudes that go on beyond 180 at the antimeridian, and turn the parts back."""
    polygon = shapely.make_valid(polygon)
    west, _, east, _ = polygon.bounds
    parts = []
    for turn in range(int((west + 180) // 360), int((east + 180) // 360) + 1):
        part = shapely.intersection(polygon, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        if shapely.area(part) > 0:
            parts.append(shapely.transform(part, lambda xy, turn=turn: xy - [360 * turn, 0]))
    return shapely.union_all(parts) if len(parts) > 1 else parts[0]


def bbox_of(footprint: Any) -> tuple[float, float, float, float]:
    """Return west, south, east and north; west is greater than east of a footprint across the antimeridian."""
    west, south, east, north = footprint.bounds
    parts = shapely.get_parts(footprint)
    if len(parts) > 1 and west <= -180 and east >= 180 and east - west > FAR:
        bounds = shapely.bounds(parts)
        left, right = bounds[:, 0] < 0, bounds[:, 0] >= 0
        if left.any() and right.any() and not (bounds[left, 2] > bounds[right, 0].min()).any():
            return float(bounds[right, 0].min()), south, float(bounds[left, 2].max()), north
    return west, south, east, north
