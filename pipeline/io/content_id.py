"""Digests of files, folders and pixels, local or remote, so that a run is not continued with a scene that has changed.

Content counts, not names or times: a file that is copied or touched is the same one.
"""

import hashlib
import os
import re
import tarfile
import time
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from models.redact import redact_url

from ..grid.geobox import Window
from .names import remote_url as remote_url
from .places import fsspec_options as fsspec_options

WHOLE = 2**28  # a file of up to so many bytes is hashed whole
PIECES, PIECE = 64, 2**16  # of a larger one: so many pieces of so many bytes, spread over it
PAUSES = (0.1, 0.3, 0.6, 0.0)  # seconds after each time that a server is asked in vain
PATIENCE = 5.0  # seconds after which it is asked no more
LOOKS, LOOK = 64, 32  # of a scene that is no file: so many windows of so many pixels per side


def file_identity(path: str, whole: int = WHOLE) -> dict[str, Any]:
    """Identify a local file by its size and a digest: of all of it up to `whole` bytes, of pieces of a larger one."""
    facts = os.stat(path)
    stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return {"bytes": facts.st_size, "content": _file_digest(os.path.abspath(path), stamp, whole)}


@lru_cache(maxsize=1024)
def _file_digest(path: str, stamp: tuple[int, int, int], whole: int) -> str:
    """Return a file's digest; precision, plan and run ask for that of one scene."""
    size = stamp[1]
    with open(path, "rb") as file:
        if size <= whole:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for number in range(PIECES):
            file.seek((size - PIECE) * number // (PIECES - 1))
            digest.update(file.read(PIECE))
    return digest.hexdigest()


def member_identity(path: str) -> dict[str, Any] | None:
    """Identify a file in a zip by its size and checksum, in a tar by its content; None for what is not in either."""
    prefix, _, inside = path.partition("/")[2].partition("/")
    if prefix not in ("vsizip", "vsitar"):
        return None
    ends = [found.end() for found in re.finditer(r"\.(?:zip|tar)(?=/)", inside, re.I)]
    archive = next((inside[:end] for end in ends if os.path.isfile(inside[:end])), None)
    if archive is None:
        return None
    name = inside[len(archive) + 1 :]
    try:
        if prefix == "vsizip":
            with zipfile.ZipFile(archive) as members:
                info = members.getinfo(name)
                return {"bytes": info.file_size, "crc": info.CRC}
        with tarfile.open(archive, "r:") as tar, tar.extractfile(name) as file:  # type: ignore[union-attr]
            return {"content": hashlib.file_digest(file, "sha256").hexdigest()}  # type: ignore[arg-type]
    except (OSError, LookupError, zipfile.BadZipFile, tarfile.TarError, TypeError):
        return None


def url_identity(url: str) -> dict[str, Any]:
    """Identify a remote file by its address and by what its server says of it, if anything."""
    info = _told(lambda: fsspec.core.url_to_fs(url, **fsspec_options(url))[0].info(url)) or {}
    facts = {key: str(info[key]) for key in ("size", "ETag", "LastModified", "Last-Modified") if info.get(key)}
    return {"url": redact_url(url), **facts}


def _told(ask: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Return what a server says when it is asked, again after a failure that may pass; None: it says nothing.

    A failure that passes must not change an identity: the same scene would pass for another, and a changed one for it.
    """
    until = time.monotonic() + PATIENCE
    for pause in PAUSES:
        try:
            return ask()
        except Exception as error:  # each kind of server has its own errors
            if time.monotonic() > until or isinstance(error, PermissionError | NotImplementedError | ImportError):
                return None
        time.sleep(pause)
    return None


def hash_pixels(read: Callable[[Window], NDArray[Any]], shape: tuple[int, int]) -> str:
    """Return a digest of small windows spread over a scene, the same ones each time."""
    digest = hashlib.sha256(repr(shape).encode())
    for row, column in np.random.default_rng(0).random((LOOKS, 2)):
        top, left = int(row * max(1, shape[0] - LOOK + 1)), int(column * max(1, shape[1] - LOOK + 1))
        digest.update(read(Window.square(top, left, LOOK).clip(shape)).tobytes())
    return digest.hexdigest()


def folder_identity(path: str) -> dict[str, Any]:
    """Identify a Zarr group by the names and sizes of its files: compressed chunks hardly ever keep theirs."""
    sizes = _told(lambda: _sizes(path))
    if sizes is None:  # as of web servers, which list nothing
        return {"url": redact_url(path)}
    return {"files": len(sizes), "sizes": hashlib.sha256(repr(sorted(sizes.items())).encode()).hexdigest()}


def _sizes(path: str) -> dict[str, Any]:
    filesystem, root = fsspec.core.url_to_fs(path, **fsspec_options(path))
    found = filesystem.find(root, detail=True)
    return {Path(name).relative_to(root).as_posix(): info["size"] for name, info in found.items()}
