"""Where the pixels of one grid lie in another: the exact map of each pixel's centre, the same in whatever window.

Formulas are those of GDAL's image transformer without approximation (`gdalwarp -et 0`), in its order of operations, so
that a pixel whose centre lies on a border of another grid falls to the same side.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import radians
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from ..grid.geobox import GeoBox, Window, same_crs
from ..grid.projections import transformer


@dataclass(frozen=True, slots=True)
class Positions:
    """Centres of a window's pixels in pixels of another grid, float64 `(y, x)`; infinite where there is no such place.

    Corners of pixels are whole numbers.
    """

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]


def positions(geobox: GeoBox, window: Window, own: GeoBox) -> Positions:
    """Return where the pixels of a window of `geobox` lie in the grid `own`; both have a CRS."""
    across = np.arange(window.left, window.right) + 0.5
    down = (np.arange(window.top, window.bottom) + 0.5)[:, None]
    to_map = geobox.affine
    x = to_map.c + across * to_map.a + down * to_map.b
    y = to_map.f + across * to_map.d + down * to_map.e
    return Positions(*_to_pixels(own, *to_crs(x, y, str(geobox.crs), own)))


def to_crs(x: Any, y: Any, crs: str, own: GeoBox) -> tuple[Any, Any]:
    """Bring map coordinates into the CRS of a grid; degrees are counted as the grid has them, also beyond 180."""
    if not same_crs(crs, own.crs):
        x, y = transformer(crs, str(own.crs)).transform(x, y)
    if turn := full_turn(str(own.crs)):
        middle = own.to_map(own.width / 2, own.height / 2)[0]
        with np.errstate(invalid="ignore"):
            turns = np.round((middle - x) / turn)
        x = np.where(np.isfinite(turns) & (turns != 0), x + turns * turn, x)
    return x, y


def _to_pixels(own: GeoBox, x: Any, y: Any) -> tuple[Any, Any]:
    inverse = inverted(own.affine)
    with np.errstate(invalid="ignore"):  # infinity times 0
        columns = inverse.c + x * inverse.a + y * inverse.b
        rows = inverse.f + x * inverse.d + y * inverse.e
    return columns, rows


def inverted(transform: Affine) -> Affine:
    """Return the inverse, of grids along the map's axes without the determinant, as GDAL has it."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(1 / a, 0, -c / a, 0, 1 / e, -f / e) if b == d == 0 else ~transform


@lru_cache(maxsize=256)
def full_turn(crs: str) -> float:
    """Return the full circle in units of a geographic CRS, as WKT; 0 for others."""
    parsed = CRS.from_wkt(crs)
    return radians(360) / float(parsed.axis_info[0].unit_conversion_factor) if parsed.is_geographic else 0.0
