"""Names of files and addresses: which lie on a network, how they are sorted, how they may be shown."""

import re


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
