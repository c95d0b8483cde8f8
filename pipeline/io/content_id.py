"""Digests of a scene's files and pixels, so that a run is not continued with a scene that has changed.

Content counts, not names or times: a file that is copied or touched is the same one.
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


def raster_identity(path: str) -> dict[str, Any]:
    """Identify what a path, URL or GDAL name leads to, with the files that it draws on; open nothing that is remote."""
    if url := _url(path):
        return _url_identity(url)
    if not os.path.isfile(path) or path.lower().endswith((".gpkg", ".fgb", ".geojson")):
        # a tile index or a part of a file has no bytes of its own: some of its pixels
        indexes, shape = run_with_env(path, lambda: (open_raster(path).indexes, open_raster(path).shape))
        return {"pixels": hash_pixels(lambda window: read_pixels(path, indexes, window), shape)}
    # other files decide its pixels too: the parts of a virtual raster, and masks beside files
    files = run_with_env(path, lambda: set(open_raster(path).files))
    names = sorted(name for name in files if os.path.abspath(name) != os.path.abspath(path))
    parts = [_part_identity(name) for name in names if not name.lower().endswith(SIDECARS)]
    return {**_file_identity(path, WHOLE), **({"parts": parts} if parts else {})}


def _file_identity(path: str, whole: int) -> dict[str, Any]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= whole:
            return {"bytes": size, "content": hashlib.file_digest(file, "sha256").hexdigest()}
        digest = hashlib.sha256()
        for number in range(PIECES):
            file.seek((size - PIECE) * number // (PIECES - 1))
            digest.update(file.read(PIECE))
    return {"bytes": size, "content": digest.hexdigest()}


def _part_identity(name: str) -> dict[str, Any]:
    if url := _url(name):
        return _url_identity(url)
    return _file_identity(name, PIECES * PIECE) if os.path.isfile(name) else {"name": name}


def _url_identity(url: str) -> dict[str, Any]:
    """Identify a remote file by its address and by what its server says of it, if anything."""
    try:
        info = fsspec.core.url_to_fs(url, **fsspec_options(url))[0].info(url)
    except Exception:  # each kind of server has its own errors
        info = {}
    facts = {key: str(info[key]) for key in ("size", "ETag", "LastModified", "Last-Modified") if info.get(key)}
    return {"url": _without_secrets(url), **facts}


def hash_pixels(read: Callable[[Window], NDArray[Any]], shape: tuple[int, int]) -> str:
    """Return a digest of small windows spread over a scene, the same ones each time."""
    digest = hashlib.sha256(repr(shape).encode())
    random = np.random.default_rng(0)
    for row, column in random.random((LOOKS, 2)):
        top, left = int(row * max(1, shape[0] - LOOK + 1)), int(column * max(1, shape[1] - LOOK + 1))
        part = read(Window.square(top, left, LOOK).clip(shape))
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _url(path: str) -> str | None:
    """Return the URL of a remote file, also by GDAL's name for it; None for what is local."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://")):
        if path.startswith(prefix):
            return scheme + path.removeprefix(prefix)
    return path if "://" in path and not path.startswith(("file:", "vrt:", "zip", "tar", "/vsi")) else None


def redact_url(path: str) -> str:
    """Return a path as it may be written down: of a URL, no user, password or query."""
    return _without_secrets(url) if (url := _url(path)) else path


def _without_secrets(url: str) -> str:
    """Leave out user, password and query: a signed URL must not end up in a store, and is another one each day."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def folder_identity(path: str) -> dict[str, Any]:
    """Identify a Zarr group by the names and sizes of its files: compressed chunks hardly ever keep theirs."""
    try:
        filesystem, root = fsspec.core.url_to_fs(path, **fsspec_options(path))
        found = filesystem.find(root, detail=True)
    except Exception:  # as web servers, which list nothing
        return {"url": _without_secrets(path)}
    sizes = sorted((Path(name).relative_to(root).as_posix(), info["size"]) for name, info in found.items())
    return {"files": len(sizes), "sizes": hashlib.sha256(repr(sizes).encode()).hexdigest()}
