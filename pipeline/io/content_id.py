"""What tells a scene's pixels from another's, so that a run is not continued with a scene that has changed.

Content counts, not names or times: a file that is copied or touched is the same one. Knows files and windows, no bands.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from .gdal import fsspec_options, open_raster, read_pixels, run_with_env

WHOLE = 2**28  # a file of up to so many bytes is hashed whole
PIECES, PIECE = 64, 2**16  # of a larger one: so many pieces of so many bytes, spread over it
LOOKS, LOOK = 64, 32  # of a scene that is no file: so many windows of so many pixels per side
SIDECARS = (".aux.xml", ".ovr", ".tfw", ".wld", ".pgw", ".jgw", ".prj", ".imd", ".rpb", ".txt", ".met")

Read = Callable[[Window], NDArray[Any]]


def raster_identity(path: str) -> dict[str, Any]:
    """Identify what a path, URL or GDAL name leads to, with the files that it draws on; open nothing that is remote."""
    if url := _url(path):
        return {"url": _without_secrets(url), **_told_by_server(url)}
    if os.path.isfile(path) and not path.lower().endswith((".gpkg", ".fgb", ".geojson")):
        return {**_file(path, WHOLE), **_parts(path)}
    return _looks(path)


def _file(path: str, whole: int) -> dict[str, Any]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= whole:
            return {"bytes": size, "content": hashlib.file_digest(file, "sha256").hexdigest()}
        digest = hashlib.sha256()
        for number in range(PIECES):
            file.seek((size - PIECE) * number // (PIECES - 1))
            digest.update(file.read(PIECE))
    return {"bytes": size, "content": digest.hexdigest()}


def _parts(path: str) -> dict[str, Any]:
    """Identify the other files that decide a raster's pixels: the parts of a virtual one, and masks beside files."""
    own = os.path.abspath(path)
    names = {name for name in run_with_env(path, lambda: open_raster(path).files) if os.path.abspath(name) != own}
    pieces = [_part(name) for name in sorted(names) if not name.lower().endswith(SIDECARS)]
    return {"parts": pieces} if pieces else {}


def _part(name: str) -> dict[str, Any]:
    if url := _url(name):
        return {"url": _without_secrets(url), **_told_by_server(url)}
    return _file(name, PIECES * PIECE) if os.path.isfile(name) else {"name": name}


def _looks(path: str) -> dict[str, Any]:
    """Identify what has no bytes of its own, as a tile index or a part of a file, by some of its pixels."""
    indexes, shape = run_with_env(path, lambda: (open_raster(path).indexes, open_raster(path).shape))
    return {"pixels": pixels_seen(lambda window: read_pixels(path, indexes, window, None), shape)}


def pixels_seen(read: Read, shape: tuple[int, int]) -> str:
    """Give a digest of small windows spread over a scene, the same ones each time."""
    digest = hashlib.sha256(repr(shape).encode())
    random = np.random.default_rng(0)
    for row, column in random.random((LOOKS, 2)):
        top, left = int(row * max(1, shape[0] - LOOK + 1)), int(column * max(1, shape[1] - LOOK + 1))
        part = read(Window.square(top, left, LOOK).clip(shape))
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _url(path: str) -> str | None:
    """Give the URL of a remote file, also by GDAL's name for it; None for what is local."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://")):
        if path.startswith(prefix):
            return scheme + path.removeprefix(prefix)
    return path if "://" in path and not path.startswith(("file:", "vrt:", "zip", "tar", "/vsi")) else None


def redact_url(path: str) -> str:
    """Give a path as it may be written down: of a URL, no user, password or query."""
    return _without_secrets(url) if (url := _url(path)) else path


def _without_secrets(url: str) -> str:
    """Leave out user, password and query: a signed URL must not end up in a store, and is another one each day."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _told_by_server(url: str) -> dict[str, Any]:
    try:
        info = fsspec.core.url_to_fs(url, **fsspec_options(url))[0].info(url)
    except Exception:  # a server that tells nothing of the file: its name must do
        return {}
    return {key: str(info[key]) for key in ("size", "ETag", "LastModified", "Last-Modified") if info.get(key)}


def folder_identity(path: str) -> dict[str, Any]:
    """Identify a Zarr group by the names and sizes of its files: compressed chunks hardly ever keep theirs."""
    try:
        filesystem, root = fsspec.core.url_to_fs(path, **fsspec_options(path))
        found = filesystem.find(root, detail=True)
    except Exception:  # as web servers, which list nothing
        return {"url": _without_secrets(path)}
    sizes = sorted((Path(name).relative_to(root).as_posix(), info["size"]) for name, info in found.items())
    return {"files": len(sizes), "sizes": hashlib.sha256(repr(sizes).encode()).hexdigest()}
