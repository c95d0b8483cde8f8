"""One scene on the grid of a mosaic, whose pixels are the same in whatever window they are read.

It is read as it is where it lies on the grid, else resampled from the exact position of each pixel. The values are
those of GDAL's warper without approximation (`gdalwarp -et 0`; see `tests/test_mosaic_warp.py`). That is not called,
since it decides by the piece that it works on how many samples it takes, and finds positions anew for each band.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from math import hypot, isfinite
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from ..grid.geobox import GeoBox, Window, same_crs
from ..io.gdal import read_pixels
from ..io.raster import RasterBand, RasterMask, RasterSource
from ..io.resample import Resampling, as_type
from ..io.source import Pixels, missing_samples, missing_value
from .outline import window_on
from .positions import Positions, full_turn, positions
from .sampling import Kernel, Samples, interpolate, is_inside, nearest

ON_GRID = 0.01  # of a pixel: writers round transforms
PIECE, SAMPLES = 512, 2**22  # side of what is resampled at once; samples that one band of it may take


def place_on(source: RasterSource, geobox: GeoBox) -> Window | None:
    """Return the window of a grid that a scene covers pixel by pixel; None where it lies on another grid."""
    return _place(source.geobox, geobox)


@lru_cache(maxsize=4096)
def _place(own: GeoBox, geobox: GeoBox) -> Window | None:
    if not own.georeferenced or not same_crs(own.crs, geobox.crs):
        return None
    turn = full_turn(str(geobox.crs))
    there = ~geobox.affine * Affine.translation(_turns(own, geobox, turn) * turn, 0) * own.affine
    left, top = round(there.c), round(there.f)
    height, width = own.shape
    corners = [(0, 0), (width, 0), (0, height), (width, height)]
    off = (hypot(*np.subtract(there * (x, y), (x + left, y + top))) for x, y in corners)
    if max(off) >= ON_GRID:
        return None
    place = Window(top, top + height, left, left + width)
    circle = round(turn / abs(geobox.affine.a)) if turn else 0
    again = (place.shift(0, way * circle).overlap(geobox.whole) for way in (-1, 1) if turn)
    return None if any(again) else place  # of a scene on both ends of the grid, one place would be half of it


def _turns(own: GeoBox, geobox: GeoBox, turn: float) -> int:
    """Return the whole turns from a scene to a grid in degrees: one may count to 180, and the other beyond."""
    here, there = (grid.to_map(grid.width / 2, grid.height / 2)[0] for grid in (geobox, own))
    return round((here - there) / turn) if turn else 0


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
        For a scene that does not lie on the grid: each band from its own file's grid, those of codes by `nearest`.

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
    shared = (window_on(source.geobox, geobox) if place is None else place).overlap(window)
    if shared is None:
        return None
    found = _resampled(source, geobox, shared, resampling) if place is None else source.read(shared.within(place))
    if found is None or shared == window:
        return found
    data = np.zeros((len(source.bands), *window.shape), source.dtype)
    for band, sentinel in zip(data, source.nodata, strict=True):
        band[:] = missing_value(source.dtype, sentinel)
    valid = np.zeros(window.shape, bool)
    here = shared.within(window).slices
    data[:, *here], valid[here] = found.data, found.valid
    return Pixels(data, valid, fresh=True)


def _resampled(source: RasterSource, geobox: GeoBox, window: Window, resampling: Resampling) -> Pixels | None:
    """Resample a window of the grid piece by piece; a fine scene under coarse pixels takes small pieces."""
    data = np.zeros((len(source.bands), *window.shape), source.dtype)
    valid = np.zeros(window.shape, bool)
    scale = samples_under(source.geobox, geobox)
    side = max(1, min(PIECE, int((SAMPLES / max(1.0, scale[0] * scale[1])) ** 0.5)))
    for piece in window.split(side):
        here = piece.within(window).slices
        _Piece(source, geobox, piece, resampling).read(data[:, *here], valid[here])
    return Pixels(data, valid, fresh=True) if valid.any() else None


@lru_cache(maxsize=4096)
def samples_under(own: GeoBox, geobox: GeoBox) -> tuple[float, float]:
    """Return how many rows and columns of a scene lie under a pixel of the grid, in the middle of the scene."""
    there = window_on(own, geobox)
    row, column = (there.top + there.bottom) // 2, (there.left + there.right) // 2
    at = positions(geobox, Window(row, row + 2, column, column + 2), own)
    columns, rows = (np.broadcast_to(part, (2, 2)) for part in (at.columns, at.rows))
    scale = tuple(hypot(part[1, 0] - part[0, 0], part[0, 1] - part[0, 0]) for part in (rows, columns))
    return (scale[0], scale[1]) if all(map(isfinite, scale)) else (1.0, 1.0)


class _Piece:
    """A few pixels of the grid that are made of a scene's samples, band by band."""

    def __init__(self, source: RasterSource, geobox: GeoBox, window: Window, resampling: Resampling) -> None:
        self.source, self.geobox, self.window, self.resampling = source, geobox, window, resampling
        self.positions: dict[GeoBox, Positions] = {}

    def read(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Fill in `(band, y, x)` and `(y, x)`."""
        for _, places in groupby(range(len(data)), lambda place: self._together(self.source.raster_bands[place])):
            listed = list(places)
            for place, (values, missing) in zip(listed, self._bands(listed), strict=True):
                data[place] = values
                valid |= ~missing
        if not valid.any():
            return
        for mask in self.source.masks:
            valid &= self._seen(mask)

    def _together(self, band: RasterBand) -> tuple[Any, ...]:
        return band.path, band.dtype, self._grid(band), self._method(band), bool(band.table)

    def _method(self, band: RasterBand) -> Resampling:
        return "nearest" if band.codes or band.table else self.resampling

    def _grid(self, part: RasterBand | RasterMask) -> GeoBox:
        return part.geobox or self.source.geobox

    def _at(self, grid: GeoBox) -> Positions:
        if grid not in self.positions:
            self.positions[grid] = positions(self.geobox, self.window, grid)
        return self.positions[grid]

    def _bands(self, places: Sequence[int]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """Yield values of bands of one file and type, and where they are missing."""
        bands = [self.source.raster_bands[place] for place in places]
        grid, method = self._grid(bands[0]), self._method(bands[0])
        at, kernel = self._at(grid), Kernel.of(method, samples_under(grid, self.geobox))
        needed, kind = kernel.needs(at, grid.shape), np.dtype(bands[0].dtype)
        if needed is None:
            for band in bands:
                nothing = np.full(self.window.shape, missing_value(kind, band.nodata), kind)
                yield nothing, np.ones(self.window.shape, bool)
            return
        indexes = [band.index for band in bands]
        samples = read_pixels(bands[0].path, indexes, needed, None if bands[0].table else kind)
        for number, band in enumerate(bands):
            yield self._band(band, band.decode(samples[number]), needed, kernel)

    def _band(
        self, band: RasterBand, samples: NDArray[Any], needed: Window, kernel: Kernel
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        grid = self._grid(band)
        at, absent = self._at(grid), missing_samples(samples, band.nodata)
        missing = np.zeros(samples.shape, bool) if absent is None else absent
        if kernel.method == "nearest":
            values = nearest(samples, needed, at, grid.shape)
            lacking = ~is_inside(at, grid.shape) | nearest(missing, needed, at, grid.shape)
        else:
            for mask in self.source.masks:  # what lies below a mask is mixed into nothing
                if self._grid(mask) == grid:
                    missing = missing | ~_observed(mask, needed)
            mixed, lacking = interpolate(Samples(samples, missing, needed), at, grid.shape, kernel)
            values = as_type(mixed, samples.dtype, band.nodata)
        values[lacking] = missing_value(samples.dtype, band.nodata)
        return values, lacking

    def _seen(self, mask: RasterMask) -> NDArray[np.bool_]:
        """Return where a mask lets pixels be observed, bool `(y, x)`."""
        grid = self._grid(mask)
        if self.resampling != "nearest" and any(self._grid(band) == grid for band in self.source.raster_bands):
            return np.ones(self.window.shape, bool)  # its samples are left out already
        at = self._at(grid)
        needed = Kernel("nearest").needs(at, grid.shape)
        if needed is None:
            return np.zeros(self.window.shape, bool)
        return nearest(_observed(mask, needed), needed, at, grid.shape) & is_inside(at, grid.shape)


def _observed(mask: RasterMask, window: Window) -> NDArray[np.bool_]:
    return mask.observed(read_pixels(mask.path, mask.indexes, window, masks=not mask.of_values))
