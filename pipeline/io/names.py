"""Names of files and addresses: which lie on a network, how they are sorted, how they may be shown."""

import re
from urllib.parse import urlsplit, urlunsplit


def is_remote(path: str) -> bool:
    """Whether a path names something on a network."""
    url = "://" in path and not path.startswith(("file://", "vrt://", "zip://", "tar://"))
    return url or path.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz"))


def natural_order(path: object) -> list[tuple[int, str]]:
    """Return the key that sorts B2 before B10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def printable(text: str) -> str:
    """Return a text from a file in one line, without the control characters that would reach a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def remote_url(path: str) -> str | None:
    """Return the URL of a remote file, also by GDAL's name for it; None for what is local."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://")):
        if path.startswith(prefix):
            return scheme + path.removeprefix(prefix)
    return path if "://" in path and not path.startswith(("file:", "vrt:", "zip", "tar", "/vsi")) else None


def redact_url(path: str) -> str:
    """Return a path as it may be written down: of a URL, no user, password or query."""
    return without_secrets(url) if (url := remote_url(path)) else path


def without_secrets(url: str) -> str:
    """Leave out user, password and query: a signed URL must not end up in a store, and is another one each day."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
