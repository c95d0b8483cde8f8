"""Bundles by URL: fetched whole into the cache, kept by what their server says of them, fetched anew when that changes.

A file in the cache is named by its content, so that one that a run uses is never replaced under it.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from zipfile import is_zipfile

from .errors import BundleError, SwatheError, require_s3
from .files import replace_file
from .system import cache_folder

logger = logging.getLogger("swathe")

PIECE = 2**20  # bytes that are copied at a time
TOLD = ("size", "ETag", "Content-MD5", "Last-Modified", "LastModified", "mtime")  # what a server says of a file


def fetch_bundle(url: str, digest_of: Callable[[Path], str] | None, pinned: str = "") -> Path:
    """Return the cached copy of a bundle, fetched if there is none, or if the server's file is another one now.

    Where the server does not answer, what was fetched before serves, with a word in the log.

    Parameters
    ----------
    url
        Of a zip.
    digest_of
        Reads all of a fetched bundle; its digest. Raises SwatheError where it is damaged or cut. None: only the end of
        the zip is looked at.
    pinned
        The digest that is asked for: a cached copy that has it needs no server.

    Raises
    ------
    BundleError
        It cannot be fetched whole. Nothing of it is kept then.
    """
    require_s3(url)
    shown = _shown(url)
    known = cache_folder("bundles") / f"url-{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    kept, facts, digest = _kept(known)
    if kept is not None and pinned and digest == pinned:
        return kept
    try:
        filesystem, path = _locate(url)
        now = {name: str(told[name]) for told in [filesystem.info(path)] for name in TOLD if told.get(name)}
    except Exception as error:  # each kind of server has its own
        if kept is None:
            raise BundleError(f"the bundle {shown} could not be fetched: {_reason(error)}") from error
        logger.warning("%s does not answer: the copy of before is used (digest %s)", shown, digest[:12])
        return kept
    if kept is not None and now == facts and now:
        return kept
    whole, found = _fetch(filesystem, path, shown, now.get("size"), known, digest_of)
    if kept is not None and whole != kept:
        before, after = digest[:12] or kept.stem[-16:], found[:12] or whole.stem[-16:]
        logger.warning("the bundle %s has changed: its digest was %s, now %s", shown, before, after)
    content = {"file": whole.name, "facts": now, "digest": found, "sha256": _sha256(whole)}
    with suppress(OSError):  # it is fetched again then
        part = known.with_suffix(f".{os.getpid()}.partial")
        part.write_text(json.dumps(content), encoding="utf-8")
        replace_file(part, known)
    return whole


def _fetch(
    filesystem: Any, path: str, shown: str, size: str | None, known: Path, digest_of: Callable[[Path], str] | None
) -> tuple[Path, str]:
    """Copy a file to a temporary name, and give it its own when it is whole and a bundle; return it with its digest."""
    handle, name = tempfile.mkstemp(prefix=".fetched-", suffix=".zip", dir=known.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as target:
            _copy(filesystem, path, target)
        if size is not None and part.stat().st_size != int(size):
            raise OSError(f"{part.stat().st_size:,} of {int(size):,} bytes came")
        if not is_zipfile(part):
            raise BundleError("it is no zip, or was cut")
        found = "" if digest_of is None else digest_of(part)
        whole = known.with_name(f"{known.stem}-{_sha256(part)[:16]}.zip")
        replace_file(part, whole)
    except SwatheError as error:
        raise BundleError(f"the bundle {shown} came damaged: {str(error).replace(name, 'it')}") from error
    except Exception as error:
        raise BundleError(f"the bundle {shown} could not be fetched: {_reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return whole, found


def _copy(filesystem: Any, path: str, target: Any) -> None:
    """Copy in one stream where the server is one of HTTP, which may know no ranges; else piece by piece."""
    if path.startswith(("http://", "https://")):
        filesystem.get_file(path, target)
        return
    with filesystem.open(path, "rb") as source:
        while piece := source.read(PIECE):
            target.write(piece)


def _kept(known: Path) -> tuple[Path | None, dict[str, str], str]:
    """Return the copy of before, if it is whole, what its server said of it, and its digest."""
    try:
        content = json.loads(known.read_text(encoding="utf-8"))
        path = known.with_name(os.path.basename(content["file"]))
        if _sha256(path) == content["sha256"]:
            return path, dict(content["facts"]), str(content["digest"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return None, {}, ""


def _locate(url: str) -> tuple[Any, str]:
    import fsspec

    options: dict[str, Any] = {}
    if url.startswith("http"):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=8, sock_read=30)}
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    filesystem.invalidate_cache()  # what it knows of the file must be of now
    return filesystem, path


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _shown(url: str) -> str:
    """Return a URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split())[:200] or type(error).__name__
