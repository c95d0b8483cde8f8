"""Where raw pixels come from: one small protocol, one implementation for rasters and one for xarray arrays.

A source is sent to workers by value, so it holds names and facts, never open files. It gives raw values and the valid
mask of any window; it knows nothing of networks, tiles or dask.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import rasterio
import rasterio.windows
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # GDAL's own errors, some of which rasterio lets through
from rasterio.errors import RasterioError

from models.errors import SceneError

from .geobox import GeoBox, Window

# formats whose readers are meant for images; a name with another driver's prefix is still opened as GDAL sees fit
DRIVERS = [
    "GTiff", "VRT", "GTI", "JP2OpenJPEG", "PNG", "JPEG", "WEBP", "netCDF", "HDF5", "HDF5Image", "HFA", "ENVI", "NITF",
    "EHdr", "AAIGrid", "BMP", "GIF", "SENTINEL2", "DIMAP", "SAFE", "MRF", "ERS", "PCIDSK", "GRIB",
]  # fmt: skip
REMOTE = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "VSI_CACHE": "TRUE",
}
CACHE = {"GDAL_CACHEMAX": 2**28}  # bytes of decoded blocks per process; GDAL's own default grows with the machine
OPEN_FILES = 16  # handles kept per thread


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

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        ...

    def identity(self) -> dict[str, Any]:
        """Give what tells this scene's pixels from another's, for the fingerprint of a run."""
        ...


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One band of one file."""

    path: str
    index: int
    name: str
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class RasterSource:
    """Bands of one or several rasters on one grid, read by rasterio.

    `masks` names the files that bring a mask or alpha band of their own.
    """

    geobox: GeoBox
    layers: tuple[RasterBand, ...]
    masks: tuple[str, ...] = ()

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

    def read(self, window: Window) -> Pixels:
        """See `Source`."""
        files = self._by_path()
        data: NDArray[Any] = np.empty((len(self.layers), *window.shape), self.dtype)
        for path, places in files.items():
            read = _read(path, [self.layers[place].index for place in places], window)
            if len(files) == 1:
                data = read  # the usual case: no copy
            else:
                data[places] = read
        valid = observed(data, self.nodata)
        for path in self.masks:
            valid &= _read_mask(path, window)
        return Pixels(data, valid)

    def _by_path(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, layer in enumerate(self.layers):
            places.setdefault(layer.path, []).append(place)
        return places

    def identity(self) -> dict[str, Any]:
        """See `Source`: sizes and sampled content of the files, and which bands are taken; not where the files lie."""
        paths = list(self._by_path())
        return {
            "files": [_file_identity(path) for path in paths],
            "bands": [[paths.index(layer.path), layer.index] for layer in self.layers],
            "nodata": [None if v is None else repr(v) for v in self.nodata],
        }


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


_local = threading.local()


def open_raster(path: str) -> "rasterio.DatasetReader":
    """Open a raster for this thread, or give the handle that the thread already has: GDAL handles are not shared.

    Raises
    ------
    SceneError
        It is missing, is no raster, or is damaged.
    """
    handles: dict[str, Any] = _local.__dict__.setdefault("handles", {})
    key = f"{path}|{_stamp(path)}"
    if key not in handles:
        while len(handles) >= OPEN_FILES:
            handles.pop(next(iter(handles))).close()
        handles[key] = _open(path)
    return handles[key]


def _open(path: str) -> "rasterio.DatasetReader":
    with gdal_settings(path):
        return rasterio.open(path)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def gdal_settings(path: str) -> Iterator[None]:
    """Set what GDAL needs for one file, in this thread; workers do not inherit a `rasterio.Env`. Turn errors into ours."""
    try:
        with rasterio.Env(**(CACHE | REMOTE if is_remote(path) else CACHE)):
            yield
    except (RasterioError, CPLE_BaseError, ValueError, OSError) as error:
        raise SceneError(f"{path} cannot be read: {_reason(error)}") from error


def is_remote(path: str) -> bool:
    """Whether a path names something on a network."""
    return "://" in path or path.startswith("/vsi")


def _reason(error: BaseException) -> str:
    """Give GDAL's own words, which rasterio keeps in the cause of its error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(path: str, indexes: list[int], window: Window) -> NDArray[Any]:
    with gdal_settings(path):
        data: NDArray[Any] = open_raster(path).read(indexes, window=_rasterio_window(window))
        return data


def _read_mask(path: str, window: Window) -> NDArray[np.bool_]:
    with gdal_settings(path):
        mask: NDArray[np.uint8] = open_raster(path).dataset_mask(window=_rasterio_window(window))
        return mask > 0


def _rasterio_window(window: Window) -> "rasterio.windows.Window":
    height, width = window.shape
    return rasterio.windows.Window(window.left, window.top, width, height)


SAMPLES, SAMPLE = 64, 65536


def _file_identity(path: str) -> dict[str, Any]:
    """Identify a file by its size and by 64 pieces of its content; remote files by what their server says of them."""
    if os.path.isfile(path):
        size = os.path.getsize(path)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for place in sorted({max(0, size - SAMPLE) * n // (SAMPLES - 1) for n in range(SAMPLES)}):
                file.seek(place)
                digest.update(file.read(SAMPLE))
        return {"bytes": size, "content": digest.hexdigest(), **_parts(path)}
    return {"name": path, **(_remote_identity(path) if "://" in path else {})}


def _parts(path: str) -> dict[str, Any]:
    """Identify the files that a virtual raster draws on."""
    if not path.lower().endswith((".vrt", ".gti", ".fgb", ".gpkg", ".geojson")):
        return {}
    with gdal_settings(path):
        others = [name for name in open_raster(path).files if os.path.abspath(name) != os.path.abspath(path)]
    return {"parts": [_file_identity(name) for name in sorted(others)]}


def _remote_identity(path: str) -> dict[str, Any]:
    import fsspec

    try:
        info = fsspec.core.url_to_fs(path)[0].info(path)
    except Exception:  # a server that tells nothing of the file: its name must do
        return {}
    return {key: str(info[key]) for key in ("size", "ETag", "LastModified") if info.get(key)}
