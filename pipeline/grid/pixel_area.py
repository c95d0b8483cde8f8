"""The area in m² of every pixel of a scene on the ellipsoid, for any CRS and any affine transform.

Grids whose rows are parallels get the exact area of the zone between two of them. In all others areas are taken at the
nodes of a grid over the scene, which is made finer until it is good, and interpolated between them. Both depend on the
scene alone, so that a pixel has one area however the scene is cut.

The ellipsoid is mapped onto its authalic sphere (Snyder 1987, "Map projections: a working manual", equations 3-11 to
3-13), which keeps every area and knows no poles, no antimeridian and no edges. PROJ's areal scale would not do: for
Web Mercator, Mollweide, Robinson and other projections that PROJ knows only on a sphere it is up to 0.7 % off.
"""

from dataclasses import dataclass
from math import atanh, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geobox import GeoBox, Window

TOLERANCE = 1e-6  # largest relative error of interpolated areas, where MOST_NODES allows
MOST_NODES = 257 * 257  # half a megabyte, sent to every worker
NOISE = 1e-9  # relative; areas that differ by less are the same
STENCIL = 1e-4  # side of the square that is measured for a pixel, in radians: 600 m. Rounding shows below, bends above

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sphere:
    """The sphere with the area of an ellipsoid: its radius in m, and the ellipsoid's eccentricity."""

    radius: float
    eccentricity: float

    @classmethod
    def of(cls, ellipsoid: Any) -> "Sphere":
        """Return that of pyproj's ellipsoid."""
        flattening = 1 / ellipsoid.inverse_flattening if ellipsoid.inverse_flattening else 0.0
        e = sqrt(flattening * (2 - flattening))
        zone = 2.0 if e == 0 else 1 + (1 - e**2) * atanh(e) / e  # Snyder's q at the pole
        return cls(float(ellipsoid.semi_major_metre) * sqrt(zone / 2), e)

    def sines(self, latitudes: Floats) -> Floats:
        """Return the sines of the authalic latitudes of geodetic ones in radians; beyond a pole: the pole's."""
        sine = np.sin(np.clip(latitudes, -np.pi / 2, np.pi / 2))
        return self._zone(sine) / self._zone(1.0)  # type: ignore[no-any-return]

    def _zone(self, sine: Any) -> Any:
        """Snyder's q: the area from the equator to a latitude, up to a factor."""
        e = self.eccentricity
        if e == 0:
            return 2 * sine
        return (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)


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
        Of the CRS's ellipsoid.
    """

    height: int
    width: int
    first: float
    step: float
    across: float
    sphere: Sphere

    def of(self, window: Window) -> Floats:
        """Return the areas of a window's pixels in m², float64 `(y, 1)`."""
        return self._between(np.arange(window.top, window.bottom + 1))[:, None]

    def total(self) -> float:
        """Return the area of the scene in m²; where it goes around the Earth more than once, of all rounds."""
        return float(self._between(np.array([0, self.height]))[0]) * self.width

    def mean(self) -> float:
        """Return the mean area of a pixel in m²."""
        return self.total() / (self.height * self.width)

    def _between(self, edges: NDArray[np.int64]) -> Floats:
        sines = self.sphere.sines(self.first + self.step * edges.astype(np.float64))
        return np.abs(np.diff(sines)) * self.across * self.sphere.radius**2


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
        """Return the areas of a window's pixels in m², float64 `(y, x)`; a side whose pixels are all alike is 1."""
        areas = self.nodes
        for axis, (part, size) in enumerate(zip(window.slices, (self.height, self.width), strict=True)):
            if areas.shape[axis] > 1:
                before, towards = _weights(part.start, part.stop, size, areas.shape[axis])
                first = np.take(areas, before, axis)
                first += (np.take(areas, before + 1, axis) - first) * (towards[:, None] if axis == 0 else towards)
                areas = first
        return areas

    def total(self) -> float:
        """Return the area of the scene in m²."""
        return self.mean() * (self.height * self.width)

    def mean(self) -> float:
        """Return the mean area of a pixel in m²."""
        return float(_shares(self.height, self.nodes.shape[0]) @ self.nodes @ _shares(self.width, self.nodes.shape[1]))


PixelAreas = RowAreas | GridAreas


def pixel_areas(geobox: GeoBox) -> PixelAreas | None:
    """Return the areas of a scene's pixels on the ellipsoid of its CRS, whatever that CRS does to areas and units.

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
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError

    if not geobox.georeferenced:
        return None
    try:
        crs: Any = CRS.from_user_input(geobox.crs)
        while crs.is_compound or crs.is_bound:  # without heights
            crs = crs.sub_crs_list[0] if crs.is_compound else crs.source_crs
        derived = crs.is_geographic and crs.is_derived  # as of rotated poles, whose latitudes are not the Earth's
        geographic = crs.source_crs if derived else crs.geodetic_crs
        if geographic is None or not geographic.is_geographic:
            return None
        crs, geographic = crs.to_2d(), geographic.to_2d()
    except CRSError:
        return None
    unit, sphere = float(geographic.axis_info[0].unit_conversion_factor), Sphere.of(geographic.ellipsoid)
    transformer, transform = None, geobox.affine
    if crs != geographic:
        transformer = Transformer.from_crs(crs, geographic, always_xy=True)
    elif transform.d == 0:
        return RowAreas(*geobox.shape, transform.f * unit, transform.e * unit, abs(transform.a) * unit, sphere)
    return _sampled(_Surface(geobox, transformer, unit, sphere))


@dataclass(frozen=True, slots=True)
class _Surface:
    """Areas of pixels anywhere on a scene, measured one by one.

    `transformer` is pyproj's, from the scene's CRS to geographic coordinates, longitude first (None: it has such
    coordinates itself); `unit` is that of these, in radians.
    """

    geobox: GeoBox
    transformer: Any
    unit: float
    sphere: Sphere

    def points(self, columns: Floats, rows: Floats) -> Floats:
        """Return the unit vectors `(..., 3)` of places in pixels on the authalic sphere; NaN off the map's domain."""
        x, y = self.geobox.to_map(columns, rows)
        longitudes, latitudes = self.transformer.transform(x, y) if self.transformer else (x, y)
        with np.errstate(invalid="ignore"):  # off the map's domain they are infinite
            angles, up = longitudes * self.unit, self.sphere.sines(latitudes * self.unit)
            out = np.sqrt(np.maximum(1 - up * up, 0))
            return np.stack([out * np.cos(angles), out * np.sin(angles), up], axis=-1)

    def areas(self, counts: tuple[int, int], side: float) -> Floats:
        """Return the area of a pixel in m² at rows x columns of nodes from corner to corner of the scene.

        Each comes from the diagonals of a square of `side` pixels around the node, so small that chord and arc are one.
        """
        nodes = (np.linspace(0, size, count) for size, count in zip(self.geobox.shape, counts, strict=True))
        row, column = np.meshgrid(*nodes, indexing="ij")
        half = side / 2
        first = self.points(column + half, row + half) - self.points(column - half, row - half)
        second = self.points(column - half, row + half) - self.points(column + half, row - half)
        crossed: Floats = np.linalg.norm(np.cross(first, second), axis=-1)
        return crossed / 2 / side**2 * self.sphere.radius**2


def _sampled(surface: _Surface) -> GridAreas | None:
    """Double the rows or the columns of nodes, whichever lie further from the truth between them, until all is good."""
    some = surface.areas((3, 3), 1.0)
    some = some[np.isfinite(some) & (some > 0)]
    side = max(1.0, STENCIL * surface.sphere.radius / sqrt(float(np.median(some)))) if some.size else 1.0
    nodes = surface.areas((5, 5), side)
    while np.isfinite(nodes).any():
        if (better := _finer(nodes, surface.geobox.shape)) is None:
            return GridAreas(*surface.geobox.shape, _simplified(nodes))
        nodes = surface.areas(better, side)
    return None


def _finer(nodes: Floats, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Return the next counts of rows and columns of nodes, or None where these are good enough, or enough."""
    (rows, columns), (height, width) = nodes.shape, shape
    wanted = [(-_miss(nodes), rows, 2 * rows - 1, columns), (-_miss(nodes.T), columns, rows, 2 * columns - 1)]
    for miss, _, *better in sorted(wanted):  # of equals the side with fewer nodes
        enough = better[0] * better[1] > MOST_NODES or better[0] > 4 * height + 5 or better[1] > 4 * width + 5
        if -miss > TOLERANCE and not enough:
            return better[0], better[1]
    return None


def _miss(nodes: Floats) -> float:
    """Return the largest relative error between rows of nodes: a quarter of what leaving out every other row makes."""
    truth = nodes[1:-1:2]
    errors = np.abs((nodes[:-2:2] + nodes[2::2]) / 2 / truth - 1) / 4
    errors = np.where(np.isfinite(truth), errors, 0)  # off the map's domain nothing is to be met; at its edge all is
    return float(np.max(np.nan_to_num(errors, nan=1, posinf=1), initial=0.0))


def _simplified(nodes: Floats) -> Floats:
    """Fill nodes off the map's domain from the nearest on it; keep one of rows, or of columns, that are all alike."""
    missing = ~np.isfinite(nodes)
    if missing.any():
        from scipy.ndimage import distance_transform_edt

        row, column = distance_transform_edt(missing, return_distances=False, return_indices=True)
        nodes = nodes[row, column]
    for axis in (0, 1):
        first = np.take(nodes, [0], axis)
        if np.all(np.abs(nodes - first) <= NOISE * first):
            nodes = first
    return nodes


def _weights(start: int, stop: int, size: int, nodes: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the node before each pixel's centre, and how far the centre lies towards the next."""
    place = (np.arange(start, stop) + 0.5) * (nodes - 1) / size
    before = np.minimum(place.astype(np.int64), max(nodes - 2, 0))
    return before, place - before


def _shares(size: int, nodes: int) -> Floats:
    """Return the part that each node has in the mean over all pixels of a side."""
    before, towards = _weights(0, size, size, nodes)
    if nodes == 1:
        return np.ones(1)
    return (np.bincount(before, 1 - towards, nodes) + np.bincount(before + 1, towards, nodes)) / size
