"""The parts of a TIFF that a Cloud-Optimized GeoTIFF is put together from: directories of tags, and compressed tiles.

TIFF 6.0 and BigTIFF, little-endian; layout and block leaders as in https://gdal.org/en/stable/drivers/raster/cog.html
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

REDUCED, WIDTH, LENGTH, OFFSETS, SIZES = 254, 256, 257, 324, 325  # tags
FULL_ONLY = {305, 33550, 33922, 34264, 34735, 34736, 34737, 42112}  # software, georeference, GDAL's metadata
BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}  # by type
LONG, LONG8 = 4, 16
GHOST = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)


@dataclass(frozen=True, slots=True)
class Tag:
    """What a directory says under one number: TIFF's type, how many of it, and their bytes."""

    kind: int
    count: int
    content: bytes

    @classmethod
    def of(cls, values: Sequence[int] | NDArray[np.integer], kind: int = LONG) -> Self:
        """Make one of numbers, LONG or LONG8."""
        return cls(kind, len(values), np.asarray(values, "<u8" if kind == LONG8 else "<u4").tobytes())

    @property
    def numbers(self) -> NDArray[np.unsignedinteger]:
        """The numbers that it holds."""
        return np.frombuffer(self.content, f"<u{BYTES[self.kind]}")


@dataclass(frozen=True, slots=True)
class Directory:
    """An image of a TIFF: its tags by number, and whether the file is a BigTIFF."""

    tags: Mapping[int, Tag]
    big: bool

    @classmethod
    def read(cls, content: bytes | memoryview) -> Self:
        """Read the first directory of a whole file."""
        big = struct.unpack_from("<H", content, 2)[0] == 43
        (start,) = struct.unpack_from("<Q" if big else "<I", content, 8 if big else 4)
        (count,) = struct.unpack_from("<Q" if big else "<H", content, start)
        start, step, room = start + (8 if big else 2), 20 if big else 12, 8 if big else 4
        tags = {}
        for place in range(start, start + count * step, step):
            number, kind, items = struct.unpack_from("<HHQ" if big else "<HHI", content, place)
            size, where = items * BYTES[kind], place + step - room
            if size > room:
                (where,) = struct.unpack_from("<Q" if big else "<I", content, where)
            tags[number] = Tag(kind, items, bytes(content[where : where + size]))
        return cls(tags, big)

    def tiles(self, content: bytes | memoryview) -> list[bytes]:
        """Return the compressed tiles, in reading order, of the file that it was read from."""
        places = zip(self.tags[OFFSETS].numbers.tolist(), self.tags[SIZES].numbers.tolist(), strict=True)
        return [bytes(content[start : start + size]) for start, size in places]

    def with_tiles(self, offsets: NDArray[np.int64], sizes: NDArray[np.int64]) -> Self:
        """Return it with tiles that lie elsewhere in the file."""
        tiles = {OFFSETS: Tag.of(offsets, LONG8 if self.big else LONG), SIZES: Tag.of(sizes)}
        return replace(self, tags={**self.tags, **tiles})

    def overview(self, height: int, width: int) -> Self:
        """Return that of an overview: it has neither position nor GDAL's metadata of its own."""
        own = {number: tag for number, tag in self.tags.items() if number not in FULL_ONLY}
        return replace(self, tags={**own, REDUCED: Tag.of([1]), WIDTH: Tag.of([width]), LENGTH: Tag.of([height])})

    def encode(self, start: int, *, last: bool) -> bytes:
        """Return its bytes at a place in the file, with what does not fit in its entries behind them."""
        step, room, order = (20, 8, "<HHQ") if self.big else (12, 4, "<HHI")
        head = struct.pack("<Q" if self.big else "<H", len(self.tags))
        behind, entries = start + len(head) + len(self.tags) * step + room, []
        parts: list[bytes] = []
        for number, tag in sorted(self.tags.items()):
            value = tag.content.ljust(room, b"\0")
            if len(tag.content) > room:
                value = behind.to_bytes(room, "little")
                parts.append(tag.content + b"\0" * (-len(tag.content) % 8))
                behind += len(parts[-1])
            entries.append(struct.pack(order, number, tag.kind, tag.count) + value)
        behind += -behind % 8
        body = b"".join([head, *entries, (0 if last else behind).to_bytes(room, "little"), *parts])
        return body.ljust(behind - start, b"\0")


def with_leader(tile: bytes) -> bytes:
    """Return a tile as the layout wants it: its size before it, its last bytes again behind it."""
    return len(tile).to_bytes(4, "little") + tile + tile[-4:]


def encode_header(full: Directory, shapes: Sequence[tuple[int, int]], sizes: Sequence[NDArray[np.int64]]) -> bytes:
    """Return all that comes before the tiles.

    Parameters
    ----------
    full
        Of the full resolution.
    shapes
        Rows and columns by level.
    sizes
        By level, bytes of the tiles in reading order. They follow the header, those of the last level first, each
        `with_leader`.
    """
    levels = [full, *(full.overview(*shape) for shape in shapes[1:])]
    first = _first(full.big)
    where = len(first)
    for _ in range(2):  # how long it is does not depend on where the tiles are
        start, placed = where, {}
        for level in reversed(range(len(levels))):
            ends = start + np.cumsum(sizes[level] + 8)
            placed[level] = levels[level].with_tiles(ends - sizes[level] - 4, sizes[level])
            start = int(ends[-1])
        parts, where = [first], len(first)
        for level in range(len(levels)):
            parts.append(placed[level].encode(where, last=level == len(levels) - 1))
            where += len(parts[-1])
    return b"".join(parts)


def _first(big: bool) -> bytes:
    """Return header and GDAL's note on the layout; the first directory follows."""
    note = f"GDAL_STRUCTURAL_METADATA_SIZE={len(GHOST):06d} bytes\n".encode() + GHOST
    size = (16 if big else 8) + len(note)
    note += b"\0" * (-size % 8)
    start = (16 if big else 8) + len(note)
    return (struct.pack("<2sHHHQ", b"II", 43, 8, 0, start) if big else struct.pack("<2sHI", b"II", 42, start)) + note
