"""`Window`, a rectangle of pixels, and `GeoBox`, the CRS, transform and shape of a grid; what one does with both."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import cos, hypot, isfinite, radians
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

    @property
    def size(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    @classmethod
    def of(cls, shape: tuple[int, int]) -> "Window":
        """Return all pixels of a grid of that many rows and columns."""
        return cls(0, shape[0], 0, shape[1])

    @classmethod
    def square(cls, top: int, left: int, side: int) -> "Window":
        """Return the square of `side` pixels whose first pixel is at row `top`, column `left`."""
        return cls(top, top + side, left, left + side)

    def split(self, rows: int, columns: int | None = None) -> "Iterator[Window]":
        """Cut into windows of `rows` x `columns` (None: squares), row by row; those at the far ends are smaller."""
        columns = rows if columns is None else columns
        for top, left in product(range(self.top, self.bottom, rows), range(self.left, self.right, columns)):
            yield Window(top, min(top + rows, self.bottom), left, min(left + columns, self.right))

    def cells(self, side: int) -> Iterator[tuple[int, int]]:
        """Return row and column of each square of `side` pixels, counted from the grid's origin, that is touched."""
        rows = range(self.top // side, -(-self.bottom // side))
        return product(rows, range(self.left // side, -(-self.right // side)))

    def buffer(self, pixels: int) -> "Window":
        """Return the window with so many pixels more on every side; it may reach out of its grid."""
        return Window(self.top - pixels, self.bottom + pixels, self.left - pixels, self.right + pixels)

    def shift(self, rows: int, columns: int) -> "Window":
        """Return the window moved down and right."""
        return Window(self.top + rows, self.bottom + rows, self.left + columns, self.right + columns)

    def scale(self, factor: int) -> "Window":
        """Return the same rectangle on a grid whose pixels are `factor` times as small."""
        return Window(self.top * factor, self.bottom * factor, self.left * factor, self.right * factor)

    def within(self, other: "Window") -> "Window":
        """Return the same pixels counted from another window's first."""
        return self.shift(-other.top, -other.left)

    def clip(self, to: "Window | tuple[int, int]") -> "Window":
        """Return the part inside another window, or inside a grid of that shape; the two must meet."""
        other = to if isinstance(to, Window) else Window.of(to)
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Window(top, min(self.bottom, other.bottom), left, min(self.right, other.right))

    def overlap(self, other: "Window") -> "Window | None":
        """Return the pixels that both share, None where there are none."""
        shared = self.clip(other)
        return shared if shared.top < shared.bottom and shared.left < shared.right else None

    def contains(self, other: "Window") -> bool:
        """Whether all pixels of another window are in this one."""
        return self.clip(other) == other

    def to_rasterio(self) -> Any:
        """Return it as a `rasterio.windows.Window`."""
        from rasterio.windows import Window as RasterioWindow

        return RasterioWindow(self.left, self.top, self.right - self.left, self.bottom - self.top)

    def describe(self) -> str:
        """Return it in words, as messages name it."""
        return f"rows {self.top} to {self.bottom}, columns {self.left} to {self.right}"


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
        As WKT. None: unknown. Without a transform it says nothing of where pixels lie, and is not kept.
    """

    height: int
    width: int
    transform: Affine | None = None
    crs: str | None = None

    def __post_init__(self) -> None:
        if self.transform is None:  # (0, 0) in a CRS is a place, and not this one
            object.__setattr__(self, "crs", None)

    def __repr__(self) -> str:
        return f"<GeoBox {self.describe()}>"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def whole(self) -> Window:
        """All of its pixels."""
        return Window(0, self.height, 0, self.width)

    @property
    def rectilinear(self) -> bool:
        """Whether rows and columns run along the map's axes, so that one x per column and one y per row exist."""
        return self.transform is None or (self.transform.b == 0 and self.transform.d == 0)

    @property
    def georeferenced(self) -> bool:
        """Whether CRS and transform are known, so that the pixels have a place on the Earth."""
        return self.crs is not None and self.transform is not None

    @property
    def affine(self) -> Affine:
        """The transform; pixel coordinates themselves where the file gives none."""
        return Affine.identity() if self.transform is None else self.transform

    def to_map(self, columns: Any, rows: Any) -> tuple[Any, Any]:
        """Return x and y of places in pixels, numbers or arrays alike; corners of pixels are whole numbers."""
        return _mapped(self.affine, columns, rows)

    def to_pixels(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the columns and rows of map coordinates, numbers or arrays alike; corners are whole numbers."""
        return _mapped(~self.affine, x, y)

    def bounds(self, crs: Any = None) -> tuple[float, float, float, float] | None:
        """Return west, south, east and north in map coordinates.

        Parameters
        ----------
        crs
            Whatever pyproj takes for a CRS; this one must have a CRS then. None: its own.

        Returns
        -------
        tuple of float or None
            Of the four corners; in another CRS of 21 points on each side, too, and west is greater than east across
            the antimeridian. None: the other CRS does not reach there.
        """
        x, y = zip(*(self.to_map(x, y) for x in (0, self.width) for y in (0, self.height)), strict=True)
        bounds = min(x), min(y), max(x), max(y)
        if crs is None:
            return bounds
        from pyproj import CRS, Transformer
        from pyproj.exceptions import ProjError

        try:
            transformer = Transformer.from_crs(CRS.from_wkt(str(self.crs)), crs, always_xy=True)
            bounds = transformer.transform_bounds(*bounds, densify_pts=21)
        except ProjError:
            return None
        return bounds if all(map(isfinite, bounds)) else None

    def level(self, number: int) -> "GeoBox":
        """Return the grid of an overview: each level halves the one before, rounding up; 0 is this one."""
        if number == 0:
            return self
        factor = 2**number
        transform = None if self.transform is None else self.transform * Affine.scale(factor)
        return GeoBox(-(-self.height // factor), -(-self.width // factor), transform, self.crs)

    def cut(self, window: Window) -> "GeoBox":
        """Return the grid of a window of its pixels."""
        transform = None if self.transform is None else self.transform * Affine.translation(window.left, window.top)
        return GeoBox(*window.shape, transform, self.crs)

    def resolution(self) -> float | None:
        """Return the size of a pixel in metres (geometric mean of its sides), or None where it cannot be known.

        Degrees are taken at the middle of the scene, on a sphere; Web Mercator and other projected units as they are
        drawn. Good to a few per cent: enough to tell 0.1 m from 10 m, which is what it is for.
        """
        from pyproj import CRS
        from pyproj.exceptions import CRSError

        if not self.georeferenced:
            return None
        try:
            crs = CRS.from_user_input(self.crs)
        except CRSError:
            return None
        across, down = hypot(self.affine.a, self.affine.d), hypot(self.affine.b, self.affine.e)
        if crs.is_geographic:
            _, latitude = self.to_map(self.width / 2, self.height / 2)
            unit = 111_320.0 * float(abs(cos(radians(latitude))) ** 0.5)
        else:
            unit = (float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0) or 1.0
        metres = float((across * down) ** 0.5 * unit)
        return metres if isfinite(metres) and metres > 0 else None

    def same_grid(self, other: "GeoBox") -> bool:
        """Whether the pixels of both lie on each other, to a hundredth of a pixel: writers round transforms."""
        if self.shape != other.shape or not same_crs(self.crs, other.crs):
            return False
        if self.transform is None or other.transform is None:
            return self.transform is other.transform
        there = ~self.transform * other.transform  # pixels of one in pixels of the other
        corners = [(0, 0), (self.width, 0), (0, self.height), (self.width, self.height)]
        return all(hypot(*(a - b for a, b in zip(there * corner, corner, strict=True))) < 0.01 for corner in corners)

    def describe(self) -> str:
        """Return shape, CRS and transform in one line, as messages name a grid."""
        where = "no transform" if self.transform is None else f"transform {tuple(self.transform)[:6]}"
        return f"{self.height} x {self.width} pixels, {describe_crs(self.crs)}, {where}"


def _mapped(affine: Affine, x: Any, y: Any) -> tuple[Any, Any]:
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


NO_TRANSFORM = "there is a CRS but no transform, so nobody knows where pixels lie: the map has no position"
IN_PIXELS = "the map has no position: coordinates are in pixels from its upper left corner, x to the right, y downwards"


def is_position(transform: Affine) -> bool:
    """Whether a transform says anything: GDAL gives the identity for none, and files hold zeros and NaN."""
    values = tuple(transform)[:6]
    return not transform.is_identity and all(isfinite(v) for v in values) and float(transform.determinant) != 0


@lru_cache(maxsize=256)
def describe_crs(wkt: str | None) -> str:
    """Return the name of a CRS given as WKT: its EPSG code, or what it is called."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if wkt is None:
        return "no CRS"
    code = None
    with suppress(CRSError):
        code = CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{code}" if code else wkt.split('"')[1] if wkt.count('"') > 1 else "a CRS"


@lru_cache(maxsize=256)
def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two CRS, as WKT, are the same; an unknown one is like no other but another unknown one.

    Remembered, since reading them takes longer than a window.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if one == other or one is None or other is None:
        return one == other
    with suppress(CRSError):
        return bool(CRS.from_wkt(one) == CRS.from_wkt(other))
    return False
