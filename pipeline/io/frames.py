"""The frames by which a decoding process answers: a kind, a length, and so many bytes. Nothing in them is unpickled."""

import struct

HEADER = struct.Struct("<4sBxxxQ")
MAGIC = b"SWDF"
ANSWER, PIXELS, REFUSED, FAILED = range(4)  # JSON; numbers; the text of a SwatheError; of any other error


def frame(kind: int, content: bytes = b"", length: int | None = None) -> bytes:
    """Return a frame; with a `length` its beginning, which so many bytes follow."""
    return HEADER.pack(MAGIC, kind, len(content) if length is None else length) + content
