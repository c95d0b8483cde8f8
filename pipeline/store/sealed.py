"""Small files that say when they are damaged: a digest of all that comes before it stands at their end."""

import io
import zlib
from collections.abc import Mapping
from typing import Any
from zipfile import BadZipFile

import google_crc32c
import numpy as np
from numpy.typing import NDArray

MARK = b"crc32c:"
LENGTH = len(MARK) + 8


def seal(content: bytes) -> bytes:
    """Return a file's content with its CRC-32C behind it."""
    return content + MARK + b"%08x" % google_crc32c.value(content)


def unseal(content: bytes) -> bytes | None:
    """Return what `seal` was given; None where it is not as it was."""
    inner, end = content[:-LENGTH], content[-LENGTH:]
    return inner if end == MARK + b"%08x" % google_crc32c.value(inner) else None


def pack_files(contents: Mapping[str, bytes]) -> bytes:
    """Return files by path as one that is sealed."""
    return pack({name: np.frombuffer(content, np.uint8) for name, content in contents.items()})


def unpack_files(content: bytes) -> dict[str, bytes] | None:
    """Return what `pack_files` was given; None where it is not as it was."""
    found = unpack(content)
    return None if found is None else {name: values.tobytes() for name, values in found.items()}


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return arrays by name as a sealed, compressed `.npz`."""
    made = io.BytesIO()
    np.savez_compressed(made, **dict(arrays))  # type: ignore[arg-type]
    return seal(made.getvalue())


def unpack(content: bytes) -> dict[str, NDArray[Any]] | None:
    """Return what `pack` was given; None where it is not as it was."""
    inner = unseal(content)
    return None if inner is None else unpack_unsealed(inner)


def unpack_unsealed(content: bytes) -> dict[str, NDArray[Any]] | None:
    """Return the arrays of an `.npz`; None where it cannot be read."""
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, KeyError, EOFError, OSError, BadZipFile, zlib.error):
        return None
