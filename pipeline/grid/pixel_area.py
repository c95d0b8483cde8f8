"""The area in m² of every pixel of a scene, for any CRS and any affine transform. No blocks, no files.

Grids whose rows are parallels get the exact area of the zone between two of them. In all others areas are taken at the
nodes of a grid over the scene, which is made finer until it is good, and interpolated between them. Both hang on the
scene alone, so that a pixel has one area however the scene is cut.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .ellipsoid import Floats, Sphere, Surface, surface_of
from .geobox import GeoBox, Window

TOLERANCE = 1e-6  # largest relative error of interpolated areas, where MOST_NODES allows
MOST_NODES = 257 * 257  # half a megabyte, sent to every worker
NOISE = 1e-9  # relative; areas that differ by less are the same


@dataclass(frozen=True, slots=True)
class RowAreas:
    """Areas of a grid whose rows are parallels: geographic, and not rotated.

    Parameters
    ----------
    height, width
        Of the scene, in pixels.
    first, step
        Latitude of the first row's upper edge, and from a row to the next, in radians.
    across
        Width of a pixel in longitude, in radians.
    sphere
        See `Sphere`.
    """

    height: int
    width: int
    first: float
    step: float
    across: float
    sphere: Sphere

    def of(self, window: Window) -> Floats:
        """Give the areas of a window's pixels in m², float64 `(y, 1)`."""
        return self._between(np.arange(window.top, window.bottom + 1))[:, None]

    def total(self) -> float:
        """Give the area of the scene in m²; where it goes around the Earth more than once, of all rounds."""
        return float(self._between(np.array([0, self.height]))[0]) * self.width

    def mean(self) -> float:
        """Give the mean area of a pixel in m²."""
        return self.total() / (self.height * self.width)

    def _between(self, edges: NDArray[np.int64]) -> Floats:
        sines = self.sphere.sines(self.first + self.step * edges.astype(np.float64))
        areas: Floats = np.abs(np.diff(sines)) * self.across * self.sphere.radius**2
        return areas


@dataclass(frozen=True, slots=True)
class GridAreas:
    """Areas at the nodes of an even grid from corner to corner of the scene; between them by bilinear interpolation.

    Parameters
    ----------
    height, width
        Of the scene, in pixels.
    nodes
        Area of a pixel around each node in m², float64 `(rows, columns)`. One row or one column: all are alike.
    """

    height: int
    width: int
    nodes: Floats

    def of(self, window: Window) -> Floats:
        """Give the areas of a window's pixels in m², float64 `(y, x)`; a side whose pixels are all alike is 1."""
        row, down = _weights(window.top, window.bottom, self.height, self.nodes.shape[0])
        column, right = _weights(window.left, window.right, self.width, self.nodes.shape[1])
        return _mixed(_mixed(self.nodes, 0, row, down[:, None]), 1, column, right)

    def total(self) -> float:
        """Give the area of the scene in m²."""
        return self.mean() * (self.height * self.width)

    def mean(self) -> float:
        """Give the mean area of a pixel in m²."""
        return float(_shares(self.height, self.nodes.shape[0]) @ self.nodes @ _shares(self.width, self.nodes.shape[1]))


PixelAreas = RowAreas | GridAreas


def pixel_areas(geobox: GeoBox) -> PixelAreas | None:
    """Give the areas of a scene's pixels on the ellipsoid of its CRS, whatever that CRS does to areas and units.

    Parameters
    ----------
    geobox
        Where the pixels lie.

    Returns
    -------
    RowAreas or GridAreas
        `of(window)`, `mean()` and `total()` in m². Frozen and small: to be sent to workers, and shared by threads.
        Exact up to rounding where rows are parallels; else to about 1e-6, and to 1e-3 for continents on maps that bend
        areas along rows and columns at once. Pixels that lie off the map's domain get the area of the nearest node on
        it, and cells of nodes that its edge runs through are only roughly right. None: without CRS or transform, or
        where the CRS is not tied to the Earth.
    """
    surface = surface_of(geobox)
    if surface is None:
        return None
    where, unit = geobox.affine, surface.unit
    if surface.transformer is None and where.d == 0:
        parts = (where.f * unit, where.e * unit, abs(where.a) * unit)
        return RowAreas(geobox.height, geobox.width, *parts, surface.sphere)
    return _sampled(surface)


def _sampled(surface: Surface) -> GridAreas | None:
    """Double the rows or the columns of nodes, whichever lie further from the truth between them, until all is good."""
    side, counts = surface.side(), (5, 5)
    nodes = surface.nodes(counts, side)
    while np.isfinite(nodes).any():
        better = _finer(nodes, surface.geobox.shape)
        if better is None:
            return GridAreas(*surface.geobox.shape, _collapsed(_filled(nodes)))
        nodes = surface.nodes(better, side)
    return None


def _finer(nodes: Floats, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Give the next counts of rows and columns of nodes, or None where these are good enough, or enough."""
    rows, columns = nodes.shape
    height, width = shape
    wanted = [(-_miss(nodes), rows, 2 * rows - 1, columns), (-_miss(nodes.T), columns, rows, 2 * columns - 1)]
    for miss, _, *better in sorted(wanted):  # of equals the side with fewer nodes
        enough = better[0] * better[1] > MOST_NODES or better[0] > 4 * height + 5 or better[1] > 4 * width + 5
        if -miss > TOLERANCE and not enough:
            return better[0], better[1]
    return None


def _miss(nodes: Floats) -> float:
    """Give the largest relative error between rows of nodes: a quarter of what leaving out every other row makes."""
    truth = nodes[1:-1:2]
    errors = np.abs((nodes[:-2:2] + nodes[2::2]) / 2 / truth - 1) / 4
    errors = np.where(np.isfinite(truth), errors, 0)  # off the map's domain nothing is to be met; at its edge all is
    return float(np.max(np.nan_to_num(errors, nan=1, posinf=1), initial=0.0))


def _filled(nodes: Floats) -> Floats:
    """Give nodes off the map's domain the value of the nearest on it."""
    from scipy.ndimage import distance_transform_edt

    missing = ~np.isfinite(nodes)
    if not missing.any():
        return nodes
    row, column = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled: Floats = nodes[row, column]
    return filled


def _collapsed(nodes: Floats) -> Floats:
    """Keep one of rows, or of columns, that are all alike."""
    for axis in (0, 1):
        first = np.take(nodes, [0], axis)
        if np.all(np.abs(nodes - first) <= NOISE * first):
            nodes = first
    return nodes


def _weights(start: int, stop: int, size: int, nodes: int) -> tuple[NDArray[np.int64], Floats]:
    """Give the node before each pixel's centre, and how far it lies towards the next."""
    place = (np.arange(start, stop) + 0.5) * (nodes - 1) / size
    before = np.minimum(place.astype(np.int64), max(nodes - 2, 0))
    return before, place - before


def _mixed(nodes: Floats, axis: int, before: NDArray[np.int64], towards: Floats) -> Floats:
    """Interpolate along an axis between nodes."""
    if nodes.shape[axis] == 1:
        return nodes
    mixed = np.take(nodes, before, axis)
    mixed += (np.take(nodes, before + 1, axis) - mixed) * towards
    return mixed


def _shares(size: int, nodes: int) -> Floats:
    """Give the part that each node has in the mean over all pixels of a side."""
    before, towards = _weights(0, size, size, nodes)
    if nodes == 1:
        return np.ones(1)
    counted = np.bincount(before, 1 - towards, nodes) + np.bincount(before + 1, towards, nodes)
    return counted / size
