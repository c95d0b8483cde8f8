"""Where a grid of pixels lies: CRS, transform and shape; and pixel windows in it. Facts only, no files."""

from dataclasses import dataclass
from math import hypot, isfinite
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

    def overlap(self, other: "Window") -> "Window | None":
        """Give the pixels that both share, None where there are none."""
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return Window(top, bottom, left, right) if top < bottom and left < right else None

    def within(self, other: "Window") -> "Window":
        """Give the same pixels counted from another window's first."""
        return Window(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)


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
        metres = float((across * down) ** 0.5 * self._unit_metres(crs))
        return metres if isfinite(metres) and metres > 0 else None

    def same_grid(self, other: "GeoBox") -> bool:
        """Whether the pixels of both lie on each other, to a hundredth of a pixel: writers round transforms."""
        if self.shape != other.shape or not _same_crs(self.crs, other.crs):
            return False
        if self.transform is None or other.transform is None:
            return self.transform is other.transform
        there = ~self.transform * other.transform  # pixels of one in pixels of the other
        corners = [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]
        return all(hypot(*(a - b for a, b in zip(there * corner, corner, strict=True))) < 0.01 for corner in corners)

    def _unit_metres(self, crs: Any) -> float:
        from math import cos, radians

        if crs.is_geographic:
            _, latitude = self.affine * (self.width / 2, self.height / 2)
            return 111_320.0 * float(abs(cos(radians(latitude))) ** 0.5)
        unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
        return float(unit) or 1.0

    def describe(self) -> str:
        """Give one line for people, as printed when grids differ."""
        where = "no transform" if self.transform is None else f"transform {tuple(self.transform)[:6]}"
        return f"{self.height} x {self.width} pixels, {_crs_name(self.crs)}, {where}"


def is_position(transform: Affine) -> bool:
    """Whether a transform says anything: GDAL gives the identity for none, and files hold zeros and NaN."""
    values = tuple(transform)[:6]
    return not transform.is_identity and all(isfinite(v) for v in values) and float(transform.determinant) != 0


def _crs_name(wkt: str | None) -> str:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if wkt is None:
        return "no CRS"
    try:
        code = CRS.from_wkt(wkt).to_epsg()
    except CRSError:
        code = None
    return f"EPSG:{code}" if code else wkt.split('"')[1] if wkt.count('"') > 1 else "a CRS"


def _same_crs(one: str | None, other: str | None) -> bool:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if one == other or one is None or other is None:
        return one == other
    try:
        return bool(CRS.from_wkt(one) == CRS.from_wkt(other))
    except CRSError:
        return False
