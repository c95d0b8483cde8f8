"""The grid of a mosaic: CRS, resolution and bounds, aligned to the origin of the CRS."""

from collections import Counter
from dataclasses import dataclass
from math import ceil, floor, isfinite
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from models.errors import ArgumentError, SceneError

from ..grid.geobox import GeoBox, describe_crs, same_crs
from .outline import rings
from .positions import full_turn

MOST_PIXELS = 10**15
PHASE = 0.01  # of a pixel: by so much scenes of one grid may lie apart, since writers round transforms
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class SceneGrids:
    """The grids of many scenes.

    Parameters
    ----------
    crs
        By scene, as WKT.
    transforms, shapes
        `(scene, 6)` in the order of `Affine`; rows and columns, `(scene, 2)`.
    """

    crs: list[str | None]
    transforms: NDArray[np.float64]
    shapes: NDArray[np.int64]

    @property
    def sizes(self) -> NDArray[np.float64]:
        """Width and height of pixels, `(scene, 2)`."""
        a, b, _, d, e, _ = self.transforms.T
        return np.stack([np.hypot(a, d), np.hypot(b, e)], axis=1)

    def of(self, places: NDArray[Any]) -> "SceneGrids":
        """Return some of them."""
        return SceneGrids([self.crs[place] for place in np.arange(len(self.crs))[places]],
                          self.transforms[places], self.shapes[places])  # fmt: skip

    def in_crs(self, crs: str) -> NDArray[np.bool_]:
        """Return which scenes have a CRS."""
        same = {one: same_crs(one, crs) for one in set(self.crs)}
        return np.array([same[one] for one in self.crs], bool)

    def bounds(self, crs: str) -> Bounds:
        """Return west, south, east and north of all scenes in a CRS; east may lie beyond 180 degrees.

        Raises
        ------
        SceneError
            The CRS reaches none of them.
        """
        found = [self._bounds_of(one, crs) for one in dict.fromkeys(self.crs)]
        boxes = np.concatenate(found)
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        if not len(boxes):
            raise SceneError(f"{describe_crs(crs)} does not reach the scenes; give another --crs")
        west, south, east, north = boxes.T
        if turn := full_turn(crs):
            start, end = _arc(west, east, turn)
            return start, float(south.min()), end, float(north.max())
        return float(west.min()), float(south.min()), float(east.max()), float(north.max())

    def _bounds_of(self, own: str | None, crs: str) -> NDArray[np.float64]:
        some = self.of(np.array([one == own for one in self.crs]))
        x, y = rings(own, some.transforms, some.shapes, crs)
        if turn := full_turn(crs):
            finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(x), axis=1)
            x = np.where(finite[:, None], np.unwrap(np.where(finite[:, None], x, 0), period=turn, axis=1), np.nan)
            around = finite & (np.abs(x[:, -1] - x[:, 0]) > turn / 2)  # a pole lies in it
            quarter = turn / 4
            y = np.where(around[:, None] & (np.arange(y.shape[1]) == 0), np.sign(y.mean(axis=1))[:, None] * quarter, y)
            x = np.where(around[:, None], np.resize([-turn / 2, turn / 2], x.shape), x)
        return np.stack([x.min(axis=1), y.min(axis=1), x.max(axis=1), y.max(axis=1)], axis=1)


def _arc(west: NDArray[np.float64], east: NDArray[np.float64], turn: float) -> tuple[float, float]:
    """Return the shortest arc that holds all; it begins between -180 and 180 degrees."""
    shift = np.floor((west + turn / 2) / turn) * turn
    west, east = west - shift, east - shift
    order = np.argsort(west, kind="stable")
    west, reach = west[order], np.maximum.accumulate(east[order])
    gaps = np.append(west[1:], west[0] + turn) - reach
    last = int(gaps.argmax())
    if gaps[last] <= 0:
        return -turn / 2, turn / 2
    first = (last + 1) % len(west)
    end = float(reach[last])
    start = float(west[first])
    return (start, end) if start <= end else (start, max(end + turn, float(reach[-1])))


def common_crs(grids: SceneGrids) -> str:
    """Return the CRS that most scenes have, as WKT; of as many, the first. Raises SceneError where one has none."""
    if missing := grids.crs.count(None):
        raise SceneError(f"{missing} of {len(grids.crs)} scenes have no CRS: nobody knows where they lie")
    return str(Counter(grids.crs).most_common(1)[0][0])


def common_resolution(grids: SceneGrids, crs: str) -> tuple[float, float]:
    """Return width and height of a pixel that most scenes of a CRS have.

    Raises
    ------
    ArgumentError
        No scene has that CRS.
    """
    here = grids.in_crs(crs)
    if not here.any():
        sizes = Counter(tuple(pair) for pair in np.round(grids.sizes, 9).tolist()).most_common(1)[0][0]
        raise ArgumentError(
            f"no scene lies in {describe_crs(crs)}: give --resolution in its units; scenes have pixels of "
            f"{sizes[0]:g} x {sizes[1]:g} in {describe_crs(grids.crs[0])}"
        )
    rounded = [tuple(float(f"{side:.9g}") for side in pair) for pair in grids.sizes[here].tolist()]
    (across, down), _ = Counter(rounded).most_common(1)[0]
    return across, down


def common_corner(grids: SceneGrids, crs: str, resolution: tuple[float, float]) -> tuple[float, float]:
    """Return a corner of the grid that all scenes of a CRS and resolution share; (0, 0) where they share none."""
    alike = grids.in_crs(crs) & np.isclose(grids.sizes, resolution, rtol=1e-7, atol=0).all(axis=1)
    alike &= (grids.transforms[:, [1, 3]] == 0).all(axis=1)
    if not alike.any():
        return 0.0, 0.0
    corners = grids.transforms[alike][:, [2, 5]]
    apart = (corners - corners[0]) / resolution
    if (np.abs(apart - np.round(apart)) > PHASE).any():
        return 0.0, 0.0
    x, y = corners[0] / resolution
    phase = [0.0 if abs(part - round(part)) < PHASE else part % 1 for part in (x, y)]
    return phase[0] * resolution[0], phase[1] * resolution[1]


def window_grid(geobox: GeoBox, bounds: Bounds) -> GeoBox:
    """Return the part of a grid, or what continues it, that covers bounds in its CRS."""
    columns, rows = zip(*(geobox.to_pixels(x, y) for x in bounds[::2] for y in bounds[1::2]), strict=True)
    left, top = floor(min(columns) + 1e-6), floor(min(rows) + 1e-6)
    width, height = ceil(max(columns) - 1e-6) - left, ceil(max(rows) - 1e-6) - top
    return GeoBox(max(1, height), max(1, width), geobox.affine * Affine.translation(left, top), geobox.crs)


def aligned_geobox(
    crs: str,
    resolution: tuple[float, float],
    bounds: Bounds,
    at: tuple[float, float] = (0.0, 0.0),
) -> GeoBox:
    """Return the smallest grid over bounds whose pixel corners lie at whole multiples of the resolution from a point.

    Two mosaics of neighbouring areas with one resolution share one grid.

    Parameters
    ----------
    crs
        As WKT.
    resolution
        Width and height of a pixel in units of the CRS.
    bounds
        West, south, east, north in the CRS.
    at
        The point that pixel corners are counted from.

    Raises
    ------
    ArgumentError
        Sides of a pixel are not positive, or bounds are not in order.
    SceneError
        It has more than 10^15 pixels.
    """
    if not all(isfinite(side) and side > 0 for side in resolution):
        raise ArgumentError(f"--resolution is a positive number, or two; received {resolution}")
    if not (all(map(isfinite, bounds)) and bounds[0] < bounds[2] and bounds[1] < bounds[3]):
        raise ArgumentError(f"--bounds are west, south, east and north in {describe_crs(crs)}; received {bounds}")
    (across, down), (west, south, east, north), (x, y) = resolution, bounds, at
    left, right = floor((west - x) / across + PHASE), ceil((east - x) / across - PHASE)
    top, bottom = ceil((north - y) / down - PHASE), floor((south - y) / down + PHASE)
    height, width = max(1, top - bottom), max(1, right - left)
    if height * width > MOST_PIXELS:
        raise SceneError(
            f"the mosaic would have {height:,} x {width:,} pixels; give a coarser --resolution, or --bounds"
        )
    transform = Affine(across, 0, x + left * across, 0, -down, y + top * down)
    return GeoBox(height, width, transform, crs)
