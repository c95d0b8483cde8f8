"""Where raw pixels come from: one small protocol, and its implementation for rasters.

A source is sent to workers by value, so it holds names and facts, never open files. It gives raw values and the valid
mask of any window; it knows nothing of networks, tiles or dask.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import GeoBox, Window
from .content_id import raster_identity
from .gdal import any_band, file_stamp, read_mask, read_pixels


@dataclass(frozen=True, slots=True)
class Pixels:
    """Raw values `(band, y, x)` of a window, and its valid mask: bool `(y, x)`, True = observed."""

    data: NDArray[Any]
    valid: NDArray[np.bool_]


class Source(Protocol):
    """A scene's raw pixels, by window."""

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of `read`."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values."""
        ...

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the scene, one line each."""
        ...

    @property
    def expensive_reads(self) -> bool:
        """Whether reading pixels a second time costs as much again: they are computed, and nothing keeps them."""
        ...

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        ...

    def identity(self) -> dict[str, Any]:
        """Give what tells this scene's pixels from another's, for the fingerprint of a run."""
        ...


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One band of one file; `aliases` are further names that it answers to."""

    path: str
    index: int
    name: str
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RasterMask:
    """A mask that a file brings beside nodata: an alpha band by its number, or the masks of bands; not 0 = observed."""

    path: str
    indexes: tuple[int, ...]
    alpha: bool = False

    def read(self, window: Window) -> NDArray[np.bool_]:
        """Read a window, bool `(y, x)`: True where any band is observed."""
        if self.alpha:
            return any_band(read_pixels(self.path, self.indexes, window, None))
        return read_mask(self.path, self.indexes, window)


@dataclass(frozen=True, slots=True)
class RasterSource:
    """Bands of one or several rasters on one grid, read by rasterio. Each mask narrows what is observed."""

    geobox: GeoBox
    layers: tuple[RasterBand, ...]
    masks: tuple[RasterMask, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """See `Source`."""
        return tuple(layer.name for layer in self.layers)

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Source`."""
        return np.result_type(*(np.dtype(layer.dtype) for layer in self.layers))

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """See `Source`."""
        return tuple(layer.nodata for layer in self.layers)

    @property
    def expensive_reads(self) -> bool:
        """See `Source`: GDAL keeps decoded blocks."""
        return False

    def read(self, window: Window) -> Pixels:
        """See `Source`."""
        reads = self._reads()
        if len(reads) == 1:  # the usual case: no copy
            data = read_pixels(self.layers[0].path, [layer.index for layer in self.layers], window, self.dtype)
        else:
            data = np.empty((len(self.layers), *window.shape), self.dtype)
            for (path, _), places in reads.items():
                data[places] = read_pixels(path, [self.layers[place].index for place in places], window, self.dtype)
        return Pixels(data, observed(data, self.nodata) & self.read_masks(window))

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Read where the files' own masks, apart from nodata, let pixels be observed."""
        valid = np.ones(window.shape, bool)
        for mask in self.masks:
            valid &= mask.read(window)
        return valid

    def _reads(self) -> dict[tuple[str, str], list[int]]:
        """Give which bands are read at once: rasterio reads those of one file and one dtype."""
        places: dict[tuple[str, str], list[int]] = {}
        for place, layer in enumerate(self.layers):
            places.setdefault((layer.path, layer.dtype), []).append(place)
        return places

    def _paths(self) -> list[str]:
        return list(dict.fromkeys(layer.path for layer in self.layers))

    def identity(self) -> dict[str, Any]:
        """See `Source`: content and position of the files, and which bands are taken; not where the files lie."""
        paths = self._paths()
        return {
            "files": [raster_identity(path) for path in paths],
            "bands": [[paths.index(layer.path), layer.index] for layer in self.layers],
            "nodata": [None if v is None else repr(v) for v in self.nodata],
            "grid": self.geobox.describe(),
        }

    def stamp(self) -> list[Any]:
        """Give a cheap `identity`, for names in a graph of dask's: sizes and times of the files."""
        return [[path, file_stamp(path)] for path in self._paths()]


def observed(data: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Give the valid mask of raw values `(band, y, x)`: True where any band is neither nodata, NaN nor infinite.

    That any one band makes a pixel valid is GDAL's rule for the mask of a dataset: a dark pixel whose blue is 0 is not
    missing.
    """
    valid = np.zeros(data.shape[1:], bool)
    for band, sentinel in zip(data, nodata, strict=True):
        missing = missing_samples(band, sentinel)
        if missing is None:
            return np.ones(data.shape[1:], bool)
        valid |= ~missing
    return valid


def missing_samples(band: NDArray[Any], sentinel: float | None) -> NDArray[np.bool_] | None:
    """Give which samples of one band are missing, bool of its shape; None if none can be."""
    missing = None
    if np.issubdtype(band.dtype, np.floating):
        missing = ~np.isfinite(band)
    if sentinel is not None and np.isfinite(sentinel):
        value = _representable(sentinel, band.dtype)
        if value is not None:
            equal = band == value
            missing = equal if missing is None else missing | equal
    return missing


def _representable(value: float, dtype: np.dtype[Any]) -> Any:
    """Give the value in the band's own type, or None if the type cannot hold it and so no pixel can equal it."""
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):
            return dtype.type(value)
    info = np.iinfo(dtype)
    return dtype.type(int(value)) if float(value).is_integer() and info.min <= value <= info.max else None
