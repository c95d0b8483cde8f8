"""Where a grid of pixels lies: CRS, transform and shape; and pixel windows in it. Facts only, no files."""

from dataclasses import dataclass
from math import hypot
from typing import Any

from affine import Affine


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """For indexing an array `(..., y, x)`."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, slots=True)
class GeoBox:
    """CRS + transform + shape.

    Parameters
    ----------
    height, width
        Rows and columns.
    transform
        Pixel corner to map coordinates; any affine map, rotated too. None: the file gives no position.
    crs
        As WKT. None: unknown.
    """

    height: int
    width: int
    transform: Affine | None = None
    crs: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def rectilinear(self) -> bool:
        """Whether rows and columns run along the map's axes, so that one x per column and one y per row exist."""
        return self.transform is None or (self.transform.b == 0 and self.transform.d == 0)

    @property
    def affine(self) -> Affine:
        """The transform; pixel coordinates themselves where the file gives none."""
        return Affine.identity() if self.transform is None else self.transform

    def resolution(self) -> float | None:
        """Give the size of a pixel in metres (geometric mean of its sides), or None where it cannot be known.

        Degrees are taken at the middle of the scene, on a sphere; Web Mercator and other projected units as they are
        drawn. Good to a few per cent: enough to tell 0.1 m from 10 m, which is what it is for.
        """
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        if self.crs is None or self.transform is None:
            return None
        try:
            crs = CRS.from_user_input(self.crs)
        except CRSError:
            return None
        across, down = hypot(self.transform.a, self.transform.d), hypot(self.transform.b, self.transform.e)
        return float((across * down) ** 0.5 * self._unit_metres(crs))

    def _unit_metres(self, crs: Any) -> float:
        from math import cos, radians

        if crs.is_geographic:
            _, latitude = self.affine * (self.width / 2, self.height / 2)
            return 111_320.0 * float(abs(cos(radians(latitude)))) ** 0.5
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return float(unit) or 1.0

    def describe(self) -> str:
        """Give one line for people, as printed when grids differ."""
        crs = "no CRS"
        if self.crs is not None:
            from rasterio.crs import CRS

            code = CRS.from_wkt(self.crs).to_epsg()
            crs = f"EPSG:{code}" if code else self.crs.split('"')[1] if '"' in self.crs else "a CRS"
        where = "no transform" if self.transform is None else f"transform {tuple(self.transform)[:6]}"
        return f"{self.height} x {self.width} pixels, {crs}, {where}"
