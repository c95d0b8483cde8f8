"""Names of files and addresses: which lie on a network, how they are sorted, how they may be shown."""

import re

from models.redact import printable as printable
from models.redact import redact_url as redact_url


def is_remote(path: str) -> bool:
    """Whether a path names something on a network."""
    url = "://" in path and not path.startswith(("file://", "vrt://", "zip://", "tar://"))
    return url or path.startswith(("/vsicurl", "/vsis3", "/vsigs", "/vsiaz"))


def natural_order(path: object) -> list[tuple[int, str]]:
    """Return the key that sorts B2 before B10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def remote_url(path: str) -> str | None:
    """Return the URL of a remote file, also by GDAL's name for it; None for what is local."""
    for prefix, scheme in (("/vsicurl/", ""), ("/vsis3/", "s3://"), ("/vsigs/", "gs://")):
        if path.startswith(prefix):
            return scheme + path.removeprefix(prefix)
    return path if "://" in path and not path.startswith(("file:", "vrt:", "zip", "tar", "/vsi")) else None
