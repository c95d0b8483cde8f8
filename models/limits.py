"""Caps on what files may hold, checked before anything is allocated or read without end; imports nothing heavy.

They are on what one read takes at once, not on the size of a scene. What reads text raises ValueError, as `json` and
`tomllib` do, so that whoever reads says which file it is.
"""

import json
import math
import os
import re
import stat
import threading
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from .errors import SwatheError

DEEPEST = 64  # levels of tables and lists in a text; people's have ten
LARGEST_JSON, LARGEST_TOML = 2**26, 2**20  # bytes
# a key of many parts, for which `tomllib` takes ever longer
DOTTED = re.compile(rf"""(?<![\w"'-])(?:[\w"'-]+\s*\.\s*){{{DEEPEST}}}""")
LARGEST_NUMBER = 2**64  # of whole numbers, which no type of an array holds beyond
LARGEST_CHUNK = 2**32  # bytes that a file may ask to decode at once, of whatever machine
SMALLEST_CHUNK = 2**27  # bytes that it may on the smallest
CHUNKS = 16  # of the largest size that fit into memory: a window touches a few
MOST_BANDS = 4096
MOST_PIXELS = 10**13  # the Earth at 10 m has 8e12
MOST_SIDE = 10**8  # pixels; coordinates of a side are an array
MOST_MEMBERS, MOST_SHRUNK = 10_000, 100  # of a bundle: files; times that one may be larger than it is in its zip
LEAST_BOUND = 2**32  # bytes: threads alone reserve some of them
NO_MEMORY = re.compile(r"bad_alloc|[Ff]ailed to allocate|can't allocate memory")  # OpenVINO, and torch
LIMITS_OF_MEMORY = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def refuse_special(path: str | os.PathLike[str], error: type[SwatheError]) -> None:
    """Refuse what is neither a file nor a folder before it is opened, as a pipe or a device, which may never end.

    What is not there, or cannot be looked at, is left to whoever opens it.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        what = kinds.get(stat.S_IFMT(mode), "a device")
        raise error(f"{os.fspath(path)} is {what}, and no file: save what it gives to a file, and give that")


def read_small(path: str | os.PathLike[str], most: int, error: type[SwatheError]) -> bytes:
    """Read a file that should be small. Raises `error` where it is larger, or no file, and OSError if unreadable."""
    refuse_special(path, error)
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise error(f"{os.fspath(path)} has more than {most:,} bytes, the most that is read of such a file")
    return content


def parse_json(content: bytes | str, most: int = LARGEST_JSON) -> Any:
    """Read JSON. Raises ValueError, also where it is larger, deeper or has larger numbers than any that is meant."""
    _check_size(content, most)
    try:
        return _checked(json.loads(content))
    except RecursionError:
        raise _too_deep() from None


def parse_toml(content: bytes | str, most: int = LARGEST_TOML) -> dict[str, Any]:
    """Read TOML. Raises ValueError as `parse_json`."""
    _check_size(content, most)
    text = content if isinstance(content, str) else content.decode()
    if DOTTED.search(text):
        raise _too_deep()
    try:
        found: dict[str, Any] = _checked(tomllib.loads(text))
    except RecursionError:
        raise _too_deep() from None
    return found


def _check_size(content: bytes | str, most: int) -> None:
    if len(content) > most:
        raise ValueError(f"it has {len(content):,} bytes; at most {most:,} are read")


def _too_deep() -> ValueError:
    return ValueError(f"it is nested too deeply; at most {DEEPEST} levels are read")


def _checked(value: Any) -> Any:
    """Return a value from a text, of which every level and whole number was looked at."""
    level = [value]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                below.extend(one.values())
            elif isinstance(one, list):
                below.extend(one)
            elif isinstance(one, int) and abs(one) > LARGEST_NUMBER:
                raise ValueError(f"it has a whole number of {one.bit_length():,} bits; at most 64 are read")
        if not below:
            return value
        level = below
    raise _too_deep()


@cache
def total_memory() -> int:
    """Return the bytes of memory of this machine, or of the container; 8 GiB where nobody tells."""
    total = 2**33
    with suppress(OSError, ValueError, AttributeError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in LIMITS_OF_MEMORY:
        with suppress(OSError, ValueError):  # "max" where there is no limit
            total = min(total, int(Path(name).read_text()))
    return total


_bounding = threading.RLock()  # the bound is the process's: one at a time sets it, and takes it back


@contextmanager
def bounded_memory(most: int | None = None) -> Iterator[None]:
    """Bound what the process may take beyond what it has, while something runs of which a small file decides the size.

    Nothing computed before can tell that size: it may depend on the pixels. The operating system refuses what is more,
    at once; where it has no such bound, as outside of Linux, there is none.

    Parameters
    ----------
    most
        Bytes. None: half of the machine's memory.

    Raises
    ------
    MemoryError
        More was asked for, whatever a library has raised of that.
    """
    most = max(LEAST_BOUND, total_memory() // 2) if most is None else most
    with _bounding:
        before = _bound_address_space(most)
        try:
            yield
        except Exception as error:
            if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
                raise MemoryError(f"more than {most:,} bytes") from error
            raise
        finally:
            if before is not None:
                _set_address_space(*before)


def _bound_address_space(more: int) -> tuple[int, int] | None:
    """Bound the address space to what it is and so many bytes more; return what bounded it. None: it cannot be."""
    with suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        before = resource.getrlimit(resource.RLIMIT_AS)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        _set_address_space(min([now + more, *(one for one in before if one >= 0)]), before[1])  # -1: none
        return before
    return None


def _set_address_space(soft: int, hard: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def largest_chunk() -> int:
    """Return how many bytes may be decoded at once on this machine."""
    return min(LARGEST_CHUNK, max(SMALLEST_CHUNK, total_memory() // CHUNKS))


def check_chunk(name: str, shape: Sequence[int], itemsize: int, error: type[SwatheError], how: str) -> None:
    """Refuse a file whose pieces, of which each is decoded as a whole, would not fit into memory beside each other.

    Parameters
    ----------
    name
        Of the file, or of its array.
    shape
        Of a piece.
    itemsize
        Bytes of a number.
    error
        What is raised.
    how
        What to do about it.
    """
    size, most = math.prod(int(side) for side in shape) * itemsize, largest_chunk()
    if size > most:
        sides = " x ".join(f"{side:,}" for side in shape)
        raise error(
            f"{name} is decoded in pieces of {sides} numbers, {size:,} bytes each; at most {most:,} fit beside each "
            f"other on this machine. {how}"
        )


def check_extent(name: str, bands: int, shape: Sequence[int], error: type[SwatheError]) -> None:
    """Refuse a scene of more bands, or of more pixels or a longer side, than any has."""
    if bands > MOST_BANDS:
        raise error(f"{name} declares {bands:,} bands; at most {MOST_BANDS:,} are read")
    if math.prod(shape) > MOST_PIXELS or max(shape) > MOST_SIDE:
        sides = " x ".join(f"{side:,}" for side in shape)
        raise error(f"{name} declares {sides} pixels; at most 1e13 are read, and {MOST_SIDE:.0e} along a side")
