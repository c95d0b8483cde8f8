"""One scene on the grid of a mosaic: read as it is where it lies on it, else warped by GDAL."""

from typing import Any

import numpy as np
import shapely
from affine import Affine

from models.errors import SceneError

from ..grid.geobox import GeoBox, Window, same_crs
from ..io.raster import RasterSource
from ..io.resample import Resampling
from ..io.source import Pixels

ON_GRID = 0.01  # of a pixel: writers round transforms


def place_on(source: RasterSource, geobox: GeoBox) -> Window | None:
    """Return the window of a grid that a scene covers pixel by pixel; None where it lies on another grid."""
    if not same_crs(source.geobox.crs, geobox.crs):
        return None
    there: Affine = ~geobox.affine * source.geobox.affine
    left, top = round(there.c), round(there.f)
    height, width = source.geobox.shape
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    off = (np.hypot(*np.subtract(there * (x, y), (x + left, y + top))) for x, y in corners)
    return Window(top, top + height, left, left + width) if max(off) < ON_GRID else None


def footprint_on(source: RasterSource, geobox: GeoBox) -> Any:
    """Return the outline of a scene in pixels of a grid, x to the right and y down."""
    place = place_on(source, geobox)
    if place is None:
        raise SceneError(f"{source.paths[0]} does not lie on the grid of the mosaic")
    return shapely.box(place.left, place.top, place.right, place.bottom)


def read_scene(source: RasterSource, geobox: GeoBox, window: Window, resampling: Resampling) -> Pixels | None:
    """Read what a scene has of a window of a grid.

    Parameters
    ----------
    source
        The scene.
    geobox
        The grid; a pixel's value does not depend on the window that it is read in.
    window
        Inside the grid.
    resampling
        For a scene that does not lie on the grid.

    Returns
    -------
    Pixels or None
        Of the window's shape; pixels beside the scene are invalid. None: the scene does not touch the window.

    Raises
    ------
    SceneError
        It cannot be read.
    """
    place = place_on(source, geobox)
    if place is None:
        raise SceneError(f"{source.paths[0]} does not lie on the grid of the mosaic")
    shared = place.overlap(window)
    if shared is None:
        return None
    found = source.read(shared.within(place))
    if shared == window:
        return found
    data = np.zeros((len(source.bands), *window.shape), source.dtype)
    valid = np.zeros(window.shape, bool)
    here = shared.within(window).slices
    data[:, *here], valid[here] = found.data, found.valid
    return Pixels(data, valid, fresh=True)
