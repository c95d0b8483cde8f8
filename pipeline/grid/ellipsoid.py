"""The ellipsoid under a scene, and the area of one of its pixels there. Knows no grid of areas and no blocks.

The ellipsoid is mapped onto its authalic sphere (Snyder 1987, "Map projections: a working manual", equations 3-11 to
3-13), which keeps every area and knows no poles, no antimeridian and no edges.
"""

from dataclasses import dataclass
from math import atanh, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geobox import GeoBox

STENCIL = 1e-4  # side of the square that is measured for a pixel, in radians: 600 m. Rounding shows below, bends above

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sphere:
    """The sphere with the area of an ellipsoid.

    Parameters
    ----------
    radius
        In m.
    eccentricity
        Of the ellipsoid; 0 for a sphere.
    """

    radius: float
    eccentricity: float

    def sines(self, latitudes: Floats) -> Floats:
        """Give the sines of the authalic latitudes of geodetic ones in radians; beyond a pole: the pole's."""
        sine = np.sin(np.clip(latitudes, -np.pi / 2, np.pi / 2))
        share: Floats = self._zone(sine) / self._zone(1.0)
        return share

    def _zone(self, sine: Any) -> Any:
        """Snyder's q: the area from the equator to a latitude, up to a factor."""
        e = self.eccentricity
        if e == 0:
            return 2 * sine
        return (1 - e**2) * (sine / (1 - (e * sine) ** 2) + np.arctanh(e * sine) / e)

    def points(self, longitudes: Floats, latitudes: Floats) -> Floats:
        """Give the unit vectors `(..., 3)` of geodetic coordinates in radians; NaN where those are not finite."""
        up = self.sines(latitudes)
        out = np.sqrt(np.maximum(1 - up * up, 0))
        return np.stack([out * np.cos(longitudes), out * np.sin(longitudes), up], axis=-1)


@dataclass(frozen=True, slots=True)
class Surface:
    """Areas of pixels anywhere on a scene, measured one by one.

    Parameters
    ----------
    geobox
        Of the scene.
    transformer
        pyproj's, from its CRS to geographic coordinates, longitude first. None: it has such coordinates itself.
    unit
        Of these, in radians.
    sphere
        See `Sphere`.
    """

    geobox: GeoBox
    transformer: Any
    unit: float
    sphere: Sphere

    def points(self, columns: Floats, rows: Floats) -> Floats:
        """Give the unit vectors `(..., 3)` of places in pixels on the authalic sphere."""
        x, y = self.geobox.to_map(columns, rows)
        longitudes, latitudes = self.transformer.transform(x, y) if self.transformer else (x, y)
        with np.errstate(invalid="ignore"):  # off the map's domain they are infinite
            return self.sphere.points(longitudes * self.unit, latitudes * self.unit)

    def areas(self, rows: Floats, columns: Floats, side: float) -> Floats:
        """Give the area of a pixel in m² at rows x columns, from the diagonals of a square of `side` pixels around.

        The square is so small that chord and arc are one.
        """
        column, row = np.meshgrid(columns, rows)
        half = side / 2
        first = self.points(column + half, row + half) - self.points(column - half, row - half)
        second = self.points(column - half, row + half) - self.points(column + half, row - half)
        crossed: Floats = np.linalg.norm(np.cross(first, second), axis=-1)
        return crossed / 2 / side**2 * self.sphere.radius**2

    def nodes(self, counts: tuple[int, int], side: float) -> Floats:
        """Give the areas at rows x columns of nodes from corner to corner."""
        (height, width), (rows, columns) = self.geobox.shape, counts
        return self.areas(np.linspace(0, height, rows), np.linspace(0, width, columns), side)

    def side(self) -> float:
        """Give the side in pixels of squares that are about `STENCIL` wide, and at least a pixel."""
        height, width = self.geobox.shape
        areas = self.areas(np.linspace(0, height, 3), np.linspace(0, width, 3), 1.0)
        areas = areas[np.isfinite(areas) & (areas > 0)]
        return max(1.0, STENCIL * self.sphere.radius / sqrt(float(np.median(areas)))) if areas.size else 1.0


def surface_of(geobox: GeoBox) -> Surface | None:
    """Give the surface of a scene, or None without CRS or transform, or where the CRS is not tied to the Earth."""
    from pyproj import Transformer
    from pyproj.exceptions import CRSError

    if geobox.crs is None or geobox.transform is None:
        return None
    try:
        crs, geographic = _horizontal(geobox.crs)
    except CRSError:
        return None
    if geographic is None or not geographic.is_geographic:
        return None
    transformer = None if crs == geographic else Transformer.from_crs(crs, geographic, always_xy=True)
    unit = float(geographic.axis_info[0].unit_conversion_factor)
    return Surface(geobox, transformer, unit, _sphere(geographic.ellipsoid))


def _horizontal(wkt: str) -> tuple[Any, Any]:
    """Give a CRS without heights, and the geographic one under it, or None where there is none."""
    from pyproj import CRS

    crs: Any = CRS.from_user_input(wkt)
    while crs.is_compound or crs.is_bound:
        crs = crs.sub_crs_list[0] if crs.is_compound else crs.source_crs
    derived = crs.is_geographic and crs.is_derived  # as those of rotated poles, whose latitudes are not the Earth's
    geographic = crs.source_crs if derived else crs.geodetic_crs
    return crs.to_2d(), geographic and geographic.to_2d()


def _sphere(ellipsoid: Any) -> Sphere:
    flattening = 1 / ellipsoid.inverse_flattening if ellipsoid.inverse_flattening else 0.0
    e = sqrt(flattening * (2 - flattening))
    zone = 2.0 if e == 0 else 1 + (1 - e**2) * atanh(e) / e  # Snyder's q at the pole
    return Sphere(float(ellipsoid.semi_major_metre) * sqrt(zone / 2), e)
