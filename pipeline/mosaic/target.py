"""The grid of a mosaic: CRS, resolution and bounds, aligned to the origin of the CRS."""

from math import ceil, floor

from affine import Affine

from models.errors import SceneError

from ..grid.geobox import GeoBox

MOST_PIXELS = 10**15


def aligned_geobox(
    crs: str,
    resolution: tuple[float, float],
    bounds: tuple[float, float, float, float],
    at: tuple[float, float] = (0.0, 0.0),
) -> GeoBox:
    """Return the smallest grid over bounds whose pixel corners lie at whole multiples of the resolution from a point.

    Two mosaics of neighbouring areas with one resolution share one grid.

    Parameters
    ----------
    crs
        As WKT.
    resolution
        Width and height of a pixel, both positive, in units of the CRS.
    bounds
        West, south, east, north in the CRS.
    at
        The point that pixel corners are counted from.

    Raises
    ------
    SceneError
        It has more than 10^15 pixels.
    """
    (across, down), (west, south, east, north), (x, y) = resolution, bounds, at
    left, right = floor((west - x) / across + 1e-6), ceil((east - x) / across - 1e-6)
    top, bottom = ceil((north - y) / down - 1e-6), floor((south - y) / down + 1e-6)
    height, width = max(1, top - bottom), max(1, right - left)
    if height * width > MOST_PIXELS:
        raise SceneError(
            f"the mosaic would have {height:,} x {width:,} pixels; give a coarser --resolution or --bounds"
        )
    transform = Affine(across, 0, x + left * across, 0, -down, y + top * down)
    return GeoBox(height, width, transform, crs)
