"""The tiles of a Cloud-Optimized GeoTIFF and of its overviews, compressed by GDAL square by square; memory is flat."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any
from zlib import crc32

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from models.encoding import NODATA
from models.errors import StoreError
from models.metadata import ClassInfo

from ..grid.geobox import GeoBox, Window
from .metadata import StoreMetadata, level_count
from .overviews import mean_of_four, mode_of_four
from .store import Store
from .tiff import Directory, with_leader

BLOCK = 512  # side of the file's own tiles, in pixels
# one thread: with several, GDAL can lose the news that the disk is full. Level 6 takes twice as long for 4 % less
FORM = {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "zlevel": 5}
WIDE = 2  # bytes of a pixel from which on squares are no larger than a tile, for what is held of a row of them


@dataclass(frozen=True, slots=True)
class ArrayFormat:
    """What goes into the file: one array of a store."""

    name: str
    dtype: str
    bands: tuple[str, ...]
    nodata: float

    def halve(self, band: NDArray[Any]) -> NDArray[Any]:
        """Halve a band, as the overviews of a store are halved."""
        return mode_of_four(band) if self.name == "class_map" else mean_of_four(band)

    def is_nodata(self, value: float) -> bool:
        """Whether a value means that nothing was observed."""
        return value == self.nodata or value != value

    @property
    def square(self) -> int:
        """Side of the squares of pixels that are worked on at a time."""
        return BLOCK if len(self.bands) * np.dtype(self.dtype).itemsize > WIDE else 2 * BLOCK


def array_format(store: Store, name: str, classes: tuple[ClassInfo, ...]) -> ArrayFormat:
    """Return how an array of a store is written. Raises StoreError where it has none of that name."""
    if name == "class_map":
        return ArrayFormat(name, "uint8", ("class",), NODATA)
    kept = store.encoding
    if name != "probability" or not kept.probability:
        there = "class_map" + (
            ", probability" if kept.probability else "; `swathe segment` keeps probabilities in .zarr"
        )
        raise StoreError(f"{store.path} has no array {name!r}; it has: {there}")
    bands = tuple(classes[value].name for value in kept.kept)
    dtype = "float32" if kept.probability == "float16" else kept.probability  # GeoTIFF readers lack float16
    return ArrayFormat(name, dtype, bands, NODATA if dtype == "uint8" else float("nan"))


@dataclass(frozen=True, slots=True)
class Piece:
    """What a file is made of: a window of an array of a store. Where it reaches out of the store, it is nodata."""

    store: Store
    metadata: StoreMetadata
    array: ArrayFormat
    window: Window

    @property
    def geobox(self) -> GeoBox:
        """Its grid."""
        return self.store.geobox.cut(self.window)

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the store."""
        return self.window == self.store.geobox.whole

    def read(self, window: Window) -> NDArray[Any]:
        """Read a window that is counted from the piece's own first pixel, as `(band, y, x)`."""
        wanted = window.shift(self.window.top, self.window.left)
        there = wanted.overlap(self.store.geobox.whole)
        if there == wanted:
            return self._read_inside(wanted)
        pixels = np.full((len(self.array.bands), *wanted.shape), self.array.nodata, self.array.dtype)
        if there is not None:
            pixels[(..., *there.within(wanted).slices)] = self._read_inside(there)
        return pixels

    def _read_inside(self, window: Window) -> NDArray[Any]:
        return self.store.read_array(self.array.name, window).astype(self.array.dtype, copy=False)


@dataclass
class Level:
    """A level of the file while its tiles are written, one after another in reading order, into a file of its own."""

    path: Path
    shape: tuple[int, int]
    square: int
    sizes: list[int] = field(default_factory=list)
    checksums: dict[Window, int] = field(default_factory=dict)  # of the pixels of each square
    is_empty: bool = True  # whether all pixels are nodata
    counts: Counter[int] = field(default_factory=Counter)  # pixels by value, of a class map in full resolution


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a level: its place, the CRC-32 of its pixels, its compressed tiles by row, and its half."""

    window: Window
    checksum: int
    tiles: list[list[bytes]]
    half: NDArray[Any]
    only: float | None = None  # the value of all its pixels, if it is one
    counts: Mapping[int, int] = field(default_factory=dict)


def write_tiles(folder: Path, piece: Piece, threads: int) -> list[Level]:
    """Compress all tiles of all levels, by so many threads; a row of squares is held at a time."""
    geobox, array = piece.geobox, piece.array
    shapes = [geobox.level(level).shape for level in range(level_count(geobox, BLOCK) + 1)]
    levels = [Level(folder / f"work.{number}", shape, array.square) for number, shape in enumerate(shapes)]
    with ThreadPoolExecutor(threads) as pool:
        rows: Iterator[list[NDArray[Any]]] = _first_halves(pool, piece, levels[0])
        for level in levels[1:]:
            rows = _next_halves(pool, rows, array, level)
        for _ in rows:
            pass
    return levels


def _first_halves(pool: ThreadPoolExecutor, piece: Piece, level: Level) -> Iterator[list[NDArray[Any]]]:
    """Write the tiles of the full resolution; yield the halves of each row of squares."""
    array = piece.array
    values = (*range(len(piece.metadata.classes)), NODATA) if array.name == "class_map" else ()

    def read(window: Window) -> Square:
        pixels = piece.read(window)
        counts = {value: int(np.count_nonzero(pixels == value)) for value in values}
        return replace(_encode(array, pixels, window), counts=counts)

    with open(level.path, "wb") as file:
        for windows in _rows(level):
            squares = list(pool.map(read, windows))
            level.is_empty &= all(square.only is not None and array.is_nodata(square.only) for square in squares)
            for square in squares:
                level.counts.update(square.counts)
            yield _append(file, level, squares)


def _next_halves(
    pool: ThreadPoolExecutor, below: Iterator[list[NDArray[Any]]], array: ArrayFormat, level: Level
) -> Iterator[list[NDArray[Any]]]:
    """Write the tiles of an overview, whose squares are made of up to four halves; yield halves in turn."""
    with open(level.path, "wb") as file:
        for windows in _rows(level):
            pair = [row for row in (next(below, None), next(below, None)) if row is not None]
            parts = [
                np.concatenate([np.concatenate(row[start : start + 2], axis=-1) for row in pair], axis=-2)
                for start in range(0, len(pair[0]), 2)
            ]
            yield _append(file, level, list(pool.map(partial(_encode, array), parts, windows)))
        next(below, None)  # so that it comes to its end, and closes its file


def _rows(level: Level) -> Iterator[list[Window]]:
    """Yield the squares of a level, row by row."""
    for _, row in groupby(Window.of(level.shape).split(level.square), key=lambda window: window.top):
        yield list(row)


def _append(file: IO[bytes], level: Level, squares: list[Square]) -> list[NDArray[Any]]:
    """Write the tiles of a row of squares; return the halves of these."""
    for lines in zip(*(square.tiles for square in squares), strict=True):
        for tile in chain.from_iterable(lines):
            file.write(with_leader(tile))
            level.sizes.append(len(tile))
    level.checksums.update((square.window, square.checksum) for square in squares)
    return [square.half for square in squares]


def _encode(array: ArrayFormat, pixels: NDArray[Any], window: Window) -> Square:
    """Encode a square; squares of one value, as where nothing was observed, are compressed once."""
    pixels = np.ascontiguousarray(pixels)
    bits = pixels.view(f"u{pixels.itemsize}")  # NaN is like itself then
    if bits.flat[-1] != bits.flat[0] or (bits != bits.flat[0]).any():
        return _compress(array, pixels, window)
    return replace(_constant(array, pixels.shape, pixels.flat[0].tobytes()), window=window)


@lru_cache(maxsize=32)
def _constant(array: ArrayFormat, shape: tuple[int, ...], value: bytes) -> Square:
    """Encode a square all of whose samples have one value."""
    (only,) = np.frombuffer(value, array.dtype)
    return replace(_compress(array, np.full(shape, only), Window.of((0, 0))), only=float(only))


def _compress(array: ArrayFormat, pixels: NDArray[Any], window: Window) -> Square:
    """Let GDAL compress the tiles of a square `(band, y, x)`, in memory."""
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with MemoryFile() as memory:
        with memory.open(**FORM, **size, interleave="pixel", transform=Affine.scale(2)) as file:
            file.write(pixels)
        content = memory.getbuffer()
        tiles, across = Directory.read(content).tiles(content), -(-width // BLOCK)
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    return Square(window, crc32(pixels.data), rows, np.stack([array.halve(band) for band in pixels]))
