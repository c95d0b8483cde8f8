"""Rasters on another grid, read on a scene's: nearest neighbours by GDAL's warper. Knows grids, not what values mean.

A warped raster is made of blocks whose places hang on the scene alone, so that a pixel is the same in any window.
"""

import os
import threading
from collections.abc import Sequence
from typing import Any

from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.gdal import file_stamp, open_raster, run_with_env
from pipeline.io.source import Pixels

TOLERANCE = 1e-6  # pixels; rasterio's own 0.125 moves borders, and of 0 it makes no warped raster (1.4.4)
OPEN_WARPS = 16  # kept per thread

_local = threading.local()


def read_warped(path: str, indexes: Sequence[int], geobox: GeoBox, window: Window) -> Pixels:
    """Read a window of a scene from a raster that lies on another grid, in another CRS too.

    Parameters
    ----------
    path
        A raster with a CRS.
    indexes
        Which of its bands, from 1.
    geobox
        The scene's, with a CRS.
    window
        Of the scene.

    Returns
    -------
    Pixels
        Values of the raster's own type, of the pixel in which each centre lies; valid where the raster reaches and has
        neither nodata nor a mask.

    Raises
    ------
    SceneError
        It cannot be read.
    """

    def read() -> Pixels:
        warped = _open_warped(path, geobox)
        values = warped.read([*indexes, warped.count], window=window.to_rasterio())
        return Pixels(values[:-1], values[-1] != 0)

    return run_with_env(path, read)


def _open_warped(path: str, geobox: GeoBox) -> WarpedVRT:
    """Give this thread's warped raster, whose last band is alpha: as with other handles, threads share none."""
    kept: dict[Any, WarpedVRT] = _local.__dict__.setdefault("warped", {})
    key = os.getpid(), path, repr(file_stamp(path)), geobox
    warped = kept.pop(key, None) or _warped(path, geobox)
    while len(kept) >= OPEN_WARPS:
        kept.pop(next(iter(kept)))
    kept[key] = warped
    return warped


def _warped(path: str, geobox: GeoBox) -> WarpedVRT:
    dataset = open_raster(path)
    return WarpedVRT(
        dataset,
        crs=CRS.from_wkt(str(geobox.crs)),
        transform=geobox.affine,
        height=geobox.height,
        width=geobox.width,
        resampling=Resampling.nearest,
        tolerance=TOLERANCE,
        add_alpha=dataset.colorinterp[-1] != ColorInterp.alpha,
    )


def overlaps(one: GeoBox, other: GeoBox) -> bool:
    """Whether the bounds of two scenes, with their CRS, meet: False only where it is sure that they do not."""
    there, here = one.bounds(other.crs), other.bounds()
    if there is None or here is None:  # the other's CRS does not reach there
        return False
    (west, south, east, north), (left, bottom, right, top) = there, here
    across = west > east or (west < right and left < east)  # across the antimeridian west is greater
    return bool(across and south < top and bottom < north)
