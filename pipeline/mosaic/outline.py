"""Outlines of scenes in the pixels of a grid: where a scene may lie, some more, never less."""

from functools import lru_cache
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..catalog.footprint import ring
from ..grid.geobox import GeoBox, Window, same_crs
from ..grid.projections import transformer
from .positions import full_turn

STEPS = 8  # points on each side of an outline, which bends with the Earth
MARGIN, MARGIN_SHARE = 2, 0.002  # pixels of a scene, and of its size: more than its chords leave their curves

Outlines = NDArray[np.object_]


def outlines(crs: str | None, transforms: NDArray[np.float64], shapes: NDArray[np.int64], geobox: GeoBox) -> Outlines:
    """Return the outlines of scenes of one CRS in pixels of a grid, x to the right and y down, each some pixels larger.

    Parameters
    ----------
    crs
        Of the scenes, as WKT.
    transforms
        Of the scenes, `(scene, 6)` in the order of `Affine`.
    shapes
        Their rows and columns, `(scene, 2)`.
    geobox
        The grid.

    Returns
    -------
    ndarray
        A polygon each; several where degrees are counted in several ways. A scene that the grid's CRS does not reach in
        whole may lie anywhere: all of the grid.
    """
    x, y = rings(crs, transforms, shapes, geobox.crs, MARGIN_SHARE)
    turn, to_pixels = full_turn(str(geobox.crs)), ~geobox.affine
    reached: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(x + y), axis=1)
    x, y = np.where(reached[:, None], x, 0), np.where(reached[:, None], y, 0)
    if turn:
        x = np.unwrap(x, period=turn, axis=1)
        reached &= abs(x[:, -1] - x[:, 0]) < turn / 2  # else around a pole
    made = shapely.polygons(np.stack([to_pixels.a * x + to_pixels.b * y + to_pixels.c,
                                      to_pixels.d * x + to_pixels.e * y + to_pixels.f], axis=-1))  # fmt: skip
    made = np.where(shapely.is_valid(made), made, shapely.convex_hull(made))
    if turn:
        made = _all_turns(made, turn * np.array([to_pixels.a, to_pixels.d]), geobox)
    made[~reached] = shapely.box(0, 0, geobox.width, geobox.height)
    return np.asarray(made, object)


def rings(
    crs: str | None,
    transforms: NDArray[np.float64],
    shapes: NDArray[np.int64],
    to: str | None,
    margin: float = 0.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points around scenes of one CRS in map coordinates of another, closed: x and y, `(scene, point)`.

    With a margin, they lie that share of the scene's size, and `MARGIN` pixels, beyond its edge.
    """
    height, width = shapes[:, :1].astype(np.float64), shapes[:, 1:].astype(np.float64)
    beyond = MARGIN if margin else 0
    sides = zip((width, height), ring(STEPS).T, strict=True)
    columns, rows = (size * at + (beyond + margin * size) * (2 * at - 1) for size, at in sides)
    a, b, c, d, e, f = (transforms[:, place, None] for place in range(6))
    x, y = a * columns + b * rows + c, d * columns + e * rows + f
    return (x, y) if same_crs(crs, to) else transformer(str(crs), str(to)).transform(x, y)


def _all_turns(shapes: Outlines, turn: NDArray[np.float64], geobox: GeoBox) -> Outlines:
    """Return outlines with their copies a turn further on and back, as far as these meet the grid."""
    grid, found = shapely.box(0, 0, geobox.width, geobox.height), []
    for turns in (-2, -1, 0, 1, 2):
        moved = shapely.transform(shapes, lambda points, by=turns * turn: points + by)
        found.append(np.where(shapely.intersects(moved, grid), moved, None))
    each = [[part for part in parts if part is not None] for parts in zip(*found, strict=True)]
    return np.array([shapely.MultiPolygon(parts) for parts in each], object)


@lru_cache(maxsize=4096)
def outline_on(own: GeoBox, geobox: GeoBox) -> Any:
    """Return the outline of one scene, see `outlines`."""
    transforms, shapes = np.array([tuple(own.affine)[:6]]), np.array([own.shape])
    return outlines(own.crs, transforms, shapes, geobox)[0]


def window_on(own: GeoBox, geobox: GeoBox) -> Window:
    """Return the window of a grid outside of which a scene has no pixels; it may reach out of the grid."""
    outline = outline_on(own, geobox)
    if outline.is_empty:
        return Window(0, 0, 0, 0)
    west, north, east, south = outline.bounds
    return Window(floor(north), ceil(south), floor(west), ceil(east))
