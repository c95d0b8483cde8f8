"""GDAL's open files: with which settings they are opened, one handle per thread; its errors into ours.

The only file that opens rasters for reading; `allowed` says which, and by which drivers.
"""

import os
import re
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # GDAL's own errors, some of which rasterio lets through
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader  # `rasterio.open` takes one driver's name only

from models.errors import SceneError
from models.limits import refuse_special

from ..grid.geobox import Window
from .allowed import check, check_opened, drivers_of
from .handles import HandlePool
from .names import is_remote as is_remote
from .names import natural_order as natural_order
from .names import printable as printable

CACHE = 2**28  # bytes of decoded blocks that are kept in a process; GDAL's own default grows with the machine
SETTINGS = {
    "GDAL_CACHEMAX": CACHE,
    "GDAL_HTTP_CONNECTTIMEOUT": "8",  # seconds; a server that is not there is asked twice
    "GDAL_HTTP_LOW_SPEED_TIME": "10",  # a server that sends nothing for so long is given up
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",  # of responses as 429 and 503
    "GDAL_HTTP_RETRY_DELAY": "1",
}
ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}  # on servers, in archives: no sidecars
# drivers that ask services, or write, whatever the ending of what tells them to
SKIPPED = "MRF WMS WCS WMTS STACTA STACIT DAAS EEDA EEDAI HTTP PLMOSAIC"
# errors of GDAL's own threads get lost, and zeros are read; what lies beside a file has the names that `allowed` checks
ALWAYS = {"GDAL_NUM_THREADS": "1", "GDAL_VRT_ENABLE_PYTHON": "NO", "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}
ARCHIVES = ("/vsizip/", "/vsitar/", "zip://", "tar://")
OPEN_FILES = 48  # handles kept per thread
_OURS = re.compile(re.escape(__package__ or "") + r"\.(?:gdal|allowed)\Z")
_PREFIX = re.compile(
    r"(?:vrt|zip|tar|gzip)://|(?:/vsi(?:zip|tar|gzip|7z|rar|sparse|subfile|cached)/)+"
)  # what a GDAL name of a file may begin with
_PIECES = re.compile(r'([:"{},?!])')  # what the pieces of such names lie between


# Drivers are registered without these, since a VRT opens its parts with every driver there is: GDAL reads GDAL_SKIP
# once, at the first `Env` of the process. It is not put into the environment, where other builds of GDAL, as that of
# pyogrio, would warn of drivers that they never had.
with rasterio.Env(GDAL_SKIP=",".join([*filter(None, [os.environ.get("GDAL_SKIP")]), *SKIPPED.split()])):
    pass

T = TypeVar("T")
_local = threading.local()


def open_raster(path: str, *, anew: bool = False) -> DatasetReader:
    """Open a raster for this thread, or give the handle that the thread already has: GDAL handles are not shared.

    A file that has changed meanwhile is opened anew, or any if `anew`: what a virtual raster draws on may have changed.
    Call it within `run_with_env`. Where it leads is checked first.
    """
    return _thread_handle(path, anew=anew, checked=False)


def _thread_handle(path: str, *, anew: bool = False, checked: bool = True) -> DatasetReader:
    handles: dict[tuple[int, str], tuple[Any, DatasetReader]] = _local.__dict__.setdefault("handles", {})
    key, stamp = (os.getpid(), path), file_stamp(path)  # a forked process shares its parent's file positions
    kept = handles.pop(key, None)
    if kept is None or kept[0] != stamp or anew:
        while len(handles) >= OPEN_FILES:
            handles.pop(next(iter(handles)))
        if not checked:
            check(path)
        kept = stamp, _open_file(path)
    handles[key] = kept  # last, as the most recently used
    return kept[1]


def _open_file(path: str) -> DatasetReader:
    refuse_special(path, SceneError)
    # where there is something to say, `notes` say it; a lasting filter for this module alone, since
    # `warnings.catch_warnings` in one thread undoes that of another
    if not any(entry[3] == _OURS for entry in warnings.filters):
        warnings.filterwarnings("ignore", module=_OURS.pattern)
    dataset = DatasetReader(path, driver=drivers_of(path))
    check_opened(path, dataset)
    return dataset


_pool = HandlePool(_open_file)


def close_files() -> None:
    """Close the files that threads share, and give back what GDAL keeps of them; those in use are closed after it."""
    _pool.forget()


def file_stamp(path: str) -> list[tuple[int, int] | None]:
    """Return what changes when a local file, or its mask or metadata beside it, is written: sizes and times."""
    return [_size_and_time(path + ending) for ending in ("", ".msk", ".aux.xml")]


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def run_with_env(path: str, action: Callable[[], T]) -> T:
    """Do something with a raster: with the settings that GDAL needs, in this thread, and its errors turned into ours.

    Workers do not inherit a `rasterio.Env`. An error is raised apart from its cause, since GDAL's cannot be pickled and
    so would not come back from a worker.
    """
    try:
        with rasterio.Env(**_settings(path)):
            return action()
    except (RasterioError, CPLE_BaseError, ValueError, OSError, MemoryError, LookupError, TypeError) as error:
        reason = _reason(error)
    raise SceneError(f"{path} cannot be read: {reason}")


def _settings(path: str) -> dict[str, Any]:
    wanted = dict(SETTINGS)
    if is_remote(path):
        wanted["VSI_CACHE"] = "TRUE"
        # the S3 server that `AWS_ENDPOINT_URL` names, as boto3 and fsspec have it
        url = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
        if url.netloc:
            https = "YES" if url.scheme == "https" else "NO"
            wanted |= {"AWS_S3_ENDPOINT": url.netloc, "AWS_HTTPS": https, "AWS_VIRTUAL_HOSTING": "FALSE"}
    alone = ALONE if is_remote(path) or path.startswith(ARCHIVES) else {}
    return {key: value for key, value in wanted.items() if key not in os.environ} | ALWAYS | alone


def absolute_name(path: str) -> str:
    """Return a raster's name with the local file in it in full: workers may run in other folders.

    Of GDAL's own names, as `NETCDF:file.nc:variable`, `/vsizip/file.zip/a.tif` or `vrt://file.tif?bands=1`, the piece
    that is a file is written in full. URLs stay, and so does what is no file.
    """
    if is_remote(path):
        return path
    name = os.path.expanduser(path.removeprefix("file://"))
    if os.path.exists(name):
        return os.path.abspath(name)
    prefix = found[0] if (found := _PREFIX.match(path)) else ""
    pieces = _PIECES.split(path.removeprefix(prefix))
    for place in range(0, len(pieces), 2):
        if _is_local(piece := os.path.expanduser(pieces[place])):
            pieces[place] = os.path.abspath(piece)
            return prefix + "".join(pieces)
    return path


def _is_local(piece: str) -> bool:
    """Whether a piece of a name is a file, or leads into one, as `file.zip/a.tif`."""
    while piece and not os.path.exists(piece):
        piece = os.path.dirname(piece) if os.path.dirname(piece) != piece else ""
    return os.path.isfile(piece)


def _reason(error: BaseException) -> str:
    """Return GDAL's words, which rasterio keeps in the cause of its error; a file may have put anything into them."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = printable(str(error))[:200] or type(error).__name__
    return f"{text} Download the file and give that" if "Range downloading" in text else text


def read_pixels(
    path: str, indexes: Sequence[int], window: Window, dtype: np.dtype[Any] | None = None, *, masks: bool = False
) -> NDArray[Any]:
    """Read a window of bands, or of their masks, by the bands' numbers from 1, as `(band, y, x)`."""

    def read() -> NDArray[Any]:
        if (stamp := file_stamp(path))[0] is not None:
            found = _pool.read(path, stamp, indexes, window, dtype, masks=masks)
            if found is not None:
                return found
        dataset, which = _thread_handle(path), {"indexes": list(indexes), "window": window.to_rasterio()}
        pixels: NDArray[Any] = dataset.read_masks(**which) if masks else dataset.read(**which, out_dtype=dtype)
        return pixels

    return run_with_env(f"{path} ({window.describe()})", read)


def any_band(samples: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where a sample `(band, y, x)` of any band is not 0, bool `(y, x)`."""
    return (samples != 0).any(axis=0)  # type: ignore[no-any-return]
