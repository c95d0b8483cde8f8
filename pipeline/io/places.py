"""Where files that name others may lead: below their own folder, to their own host, and where the user says.

Users name whatever they like; files, and servers, do not.
"""

import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from models.errors import NotAllowedError, SceneError, require_s3

from .names import is_remote, printable, redact_url, remote_url

FILE = "file://"
HEAD = 512  # bytes by which a format is told
RANGE = 2**14  # bytes that GDAL asks for at once
NO_RANGES = "Range downloading not supported by this server! Download the file and give that"
TIMEOUT = 8  # seconds for the first bytes from a server
SUBDATASET = re.compile(r'(NETCDF|HDF5|BAG):"?(.+?)"?:(?://)?[^:"]+')  # GDAL's name of a part of a file
SCHEMES = ("http", "https", "s3", "gs", "az", "abfs", "memory")

_places: ContextVar[tuple[str, ...]] = ContextVar("places", default=())


@contextmanager
def allowing(places: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Within it, let what is opened lead to some places more: `with allowing("/data/tiles"): open_scene("a.vrt")`.

    Parameters
    ----------
    places
        One or several: folders or files, hosts, or URLs and what is below them, as `/data/tiles`, `tiles.example.org`,
        `127.0.0.1:8000`, `s3://bucket/folder`.
    """
    several = [places] if isinstance(places, str | os.PathLike) else places
    token = _places.set((*_places.get(), *(os.fspath(place) for place in several)))
    try:
        yield
    finally:
        _places.reset(token)


def allowed_places() -> tuple[str, ...]:
    """Return what `allowing` was given: tasks elsewhere are told."""
    return _places.get()


def joined(base: str, name: str) -> str:
    """Return a name that is relative to a file as GDAL takes it."""
    if os.path.isabs(name) or "://" in name or SUBDATASET.fullmatch(name):
        return name
    if base.startswith("http"):
        return urljoin(base, name)
    return f"{base.rpartition('/')[0]}/{name}" if "/" in base else name


def reach(name: str, origin: str) -> None:
    """Raise SceneError unless a name may be opened that stands in a file or URL of the user's.

    Parameters
    ----------
    name
        In full: a path, or a URL, also by GDAL's names for these.
    origin
        Where it stands; empty: nobody knows, then this folder.
    """
    if not name or name != name.strip() or not name.isprintable():
        raise SceneError(f"{_shown(origin)} names {printable(name)[:80]!r}, which is no file's name")
    if name.startswith(FILE):
        if file_of(name) == name:
            raise _refused_file(name, origin)
        return
    if url := _url(name):
        if not any(_is_on(url, place) for place in _places.get()) and _host(url) != _host(_url(origin) or ""):
            raise _refused(name, origin, _host(url))
        return
    path = _local(name, origin)
    own = () if is_remote(origin) else folders_of(origin)
    if not is_below(path, *own, *(place for place in _places.get() if "://" not in place)):
        raise _refused(name, origin, os.path.dirname(os.path.realpath(path)))


def file_of(url: str) -> str:
    """Return the path that a `file://` address is, where the user lets names lead there; else the address as it is.

    Relative names and paths lead to what lies beside an Item, wherever it was moved. An address of this machine's files
    in what comes from elsewhere is a mistake or an attempt, also where it happens to lead beside the Item.
    """
    path = url.removeprefix(FILE).removeprefix("localhost")
    path = path if os.path.exists(path) else unquote(path)
    return path if is_below(path, *(place for place in _places.get() if "://" not in place)) else url


def _refused_file(name: str, origin: str) -> NotAllowedError:
    folder = os.path.dirname(unquote(name.removeprefix(FILE).removeprefix("localhost")))
    return NotAllowedError(
        f"{_shown(origin)} leads to {printable(name)[:200]}, a file of this machine: write its path there, or if you "
        f"trust it, pass --allow {printable(folder)[:200]} (in Python: `with allowing(...)`)"
    )


def _refused(name: str, origin: str, hint: str) -> NotAllowedError:
    here = "host" if _url(origin) else "folder"
    shown = printable(redact_url(_url(name) or name))[:200]
    return NotAllowedError(
        f"{_shown(origin)} leads to {shown}, which is not below its own {here}: if you trust it, "
        f"pass --allow {printable(hint)} (in Python: `with allowing(...)`)"
    )


def _shown(origin: str) -> str:
    return printable(redact_url(origin)) or "the Item"


def _url(name: str) -> str | None:
    """Return the URL that a name is, in one of the ways that are known."""
    url = remote_url(name) or ""
    scheme, _, rest = url.partition("://")
    return url if scheme in SCHEMES and "://" not in rest.partition("?")[0] else None


def _host(url: str) -> str:
    """Return what names a server, or a bucket, in `--allow`."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2].lower()
    return host if scheme in ("http", "https") else f"{scheme}://{host}" if host else ""


def _is_on(url: str, place: str) -> bool:
    if "://" in place:
        allowed, asked = urlsplit(place), urlsplit(url)
        below = os.path.normpath(unquote(asked.path) or "/") + "/"
        return _host(url) == _host(place) and below.startswith(allowed.path.rstrip("/") + "/")
    return place.lower() in (_host(url), _host(url).rpartition(":")[0], _host(url).partition("://")[2])


def _local(name: str, origin: str) -> str:
    """Return the local file that a name is; of one in the archive that names it, the archive."""
    if name.startswith(("/vsizip/", "/vsitar/")) and origin.startswith(name[:8]):
        archive = re.match(r"/vsi(?:zip|tar)/(.+?\.(?:zip|tar))(?=/)", origin, re.I)
        if archive and os.path.normpath(name).startswith(os.path.normpath(archive[0]) + "/"):
            return archive[1]
    if found := SUBDATASET.fullmatch(name):
        name = found[2]
    odd = name.startswith(("/vsi", "<", "{")) or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name)
    if odd and not os.path.isfile(name):
        raise _refused_kind(name, origin)
    return name


def _refused_kind(name: str, origin: str) -> NotAllowedError:
    return NotAllowedError(f"{_shown(origin)} leads to {printable(name)[:200]}, no file or URL: not opened")


def folders_of(origin: str) -> tuple[str, ...]:
    """Return the folder of a file, and that of what it is a link to; empty: this folder."""
    origin = re.sub(r"^(?:GTI:|/vsizip/|/vsitar/)", "", origin)
    full = os.path.abspath(origin) if origin else os.getcwd()
    places = (full, os.path.realpath(full))
    return places if os.path.isdir(full) else tuple(os.path.dirname(place) for place in places)


def is_below(path: str, *folders: str) -> bool:
    """Whether a file lies in one of some folders, or below, whatever links lead to it."""
    full = os.path.realpath(path)
    tops = [os.path.realpath(os.path.expanduser(folder)) for folder in folders]
    return any(full == top or full.startswith(top.rstrip("/") + "/") for top in tops)


# --- servers ----------------------------------------------------------------------------------------------------------


class _Redirects(HTTPRedirectHandler):
    """Follows a server's redirects where they may lead."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        try:
            refuse_redirect(req.full_url, newurl)
        except SceneError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def refuse_redirect(url: str, to: str) -> None:
    """Raise SceneError where a server sends on to what is no server, or to one of a private network."""
    if (_host(to) == _host(url) and to.startswith(("http://", "https://"))) or any(
        _is_on(to, p) for p in _places.get()
    ):
        return
    if not to.startswith(("http://", "https://")) or is_private(urlsplit(to).hostname or ""):
        raise NotAllowedError(
            f"{printable(redact_url(url))} sends on to {printable(redact_url(to))[:200]}, an address of a private "
            f"network: if you trust it, pass --allow {printable(_host(to))[:100]}"
        )


def raise_refusal(error: BaseException) -> None:
    """Raise the refusal that an error of fsspec's comes from, if it does: it takes most for files that are gone."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
        if isinstance(error, NotAllowedError):
            raise error


@lru_cache(maxsize=1)
def trace_redirects() -> Any:
    """Return what lets aiohttp, by which fsspec asks web servers, look at redirects; one, since fsspec keeps by it."""
    from aiohttp import TraceConfig

    async def look(_: Any, __: Any, seen: Any) -> None:
        refuse_redirect(str(seen.url), urljoin(str(seen.url), seen.response.headers.get("Location", "")))

    traced = TraceConfig()
    traced.on_request_redirect.append(look)
    return traced


def is_private(host: str) -> bool:
    """Whether a host is this machine, or of a network that the world does not see, as 169.254.169.254."""
    try:
        found = {str(address[4][0]).partition("%")[0] for address in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return any(not ipaddress.ip_address(address).is_global for address in found)


@lru_cache(maxsize=4096)
def first_bytes_of_url(url: str, places: tuple[str, ...]) -> bytes:
    """Return the first bytes of a file on a web server, whose redirects are looked at; empty where it says nothing.

    Raises
    ------
    SceneError
        It sends on to where `allowing` does not let it.
    """
    if not url.startswith(("http://", "https://")):
        return b""
    headers = {"Range": f"bytes=0-{HEAD - 1}", "User-Agent": "GDAL/3"}
    with allowing(places):
        try:
            with build_opener(_Redirects()).open(Request(url, headers=headers), timeout=TIMEOUT) as answer:
                if answer.status == 200 and int(answer.headers.get("Content-Length", 0)) > RANGE:
                    raise SceneError(f"{redact_url(url)} cannot be read: {NO_RANGES}")
                return bytes(answer.read(HEAD))
        except (OSError, ValueError, HTTPException):  # GDAL will say what is wrong
            return b""


def fsspec_options(url: str) -> dict[str, Any]:
    """Return fsspec's options for a URL, with which it too gives up a server that does not answer within seconds."""
    if url.startswith("http"):
        from aiohttp import ClientTimeout

        limits = ClientTimeout(total=None, sock_connect=8, sock_read=10)
        return {"client_kwargs": {"timeout": limits, "trace_configs": [trace_redirects()]}}
    require_s3(url)
    if url.startswith("s3://"):
        return {"config_kwargs": {"connect_timeout": 8, "read_timeout": 10, "retries": {"max_attempts": 2}}}
    return {}
