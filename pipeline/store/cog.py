"""Write a finished store as a Cloud-Optimized GeoTIFF: overviews, colours, class names; memory does not grow.

The file appears under its name only when it is whole and was read back.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET
from zlib import crc32

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from models.encoding import NODATA, SCALE
from models.errors import StoreError
from models.files import check_output
from models.metadata import ClassInfo
from models.system import usable_cpus

from ..grid.geobox import GeoBox, Window
from ..io.gdal import SETTINGS  # its import also settles, before any file is opened, which drivers GDAL has
from .files import Files
from .metadata import HARDWARE, StoreMetadata, background_flag, fingerprint, level_count
from .overviews import mean_of_four, mode_of_four
from .store import Store, open_store
from .tiff import Directory, encode_header, with_leader

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

    @property
    def square(self) -> int:
        """Side of the squares of pixels that are worked on at a time."""
        return BLOCK if len(self.bands) * np.dtype(self.dtype).itemsize > WIDE else 2 * BLOCK


def write_cog(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    array: str = "class_map",
    opaque_background: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write one array of a finished store as a COG.

    Parameters
    ----------
    store
        Path or URL of a store that `run` has finished.
    output
        Local path of the file. Class maps get their colour table; their class names go into its tags, and, where GDAL
        and QGIS look for category names, into a file beside it that ends in `.aux.xml`.
    array
        `class_map` (uint8, nodata 255), or `probability` (as kept: one band per class).
    opaque_background
        Whether the background is shown in its colour and hides what lies below; else it is transparent. Of a store
        without a background there is nothing to be asked.
    overwrite
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    StoreError
        The store is not finished or has no such array; the file exists, is being written by another run, or cannot be
        written whole.
    """
    opened, metadata = open_store(os.fspath(store))
    classes = metadata.classes
    what = _array_format(opened, array, classes)
    target = check_target(output, overwrite=overwrite)
    with _work_folder(target) as folder:
        try:
            whole = folder / "whole.tif"
            levels = _write_tiles(folder, opened, what)
            _put_together(whole, levels, opened, what, metadata)
            _read_back(whole, levels)
        except (OSError, RasterioError, CPLE_BaseError, ValueError) as error:
            raise StoreError(f"{target} could not be written: {' '.join(str(error).split())[:200]}") from error
        _put_in_place(whole, target, what, metadata, opaque_background)
    return target


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the file to work in. What a killed run left there is removed, at the next run."""
    folder = target.with_name(f".{target.name}.partial")
    try:
        release = Files(str(folder)).lock()
    except BlockingIOError as error:
        raise StoreError(f"{target} is being written by another run; wait for it, or end it") from error
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    try:
        _sweep(folder)
        yield folder
    finally:
        _sweep(folder)
        Files(str(folder)).remove_empty()
        release()


def _sweep(folder: Path) -> None:
    """Remove our own files, and those that GDAL makes beside them."""
    for path in folder.iterdir():
        if path.name.startswith(("work.", "whole.")):
            path.unlink(missing_ok=True)


def written_before(output: str | os.PathLike[str], identity: Mapping[str, Any]) -> dict[str, int] | None:
    """Return the pixels per class of a COG if it is the whole class map of a run of this identity; else None."""
    try:
        with _quiet(), rasterio.open(output, driver="GTiff") as file:  # what lies there may be anybody's
            tags = file.tags()
    except (OSError, RasterioError, CPLE_BaseError, ValueError):
        return None
    before = {key: value for key, value in identity.items() if key != HARDWARE}  # of files that do not say theirs
    if tags.get("SWATHE_FINGERPRINT") not in (fingerprint(identity), fingerprint(before)):
        return None
    if tags.get("SWATHE_LAYER") != "class_map":
        return None
    return json.loads(tags["SWATHE_PIXELS"])  # type: ignore[no-any-return]


def check_target(output: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse a file that exists, or a place where none can be, before any work is done for it."""
    text = os.fspath(output)
    if "://" in text:
        raise StoreError(f"a GeoTIFF is written to a local path; received {text}. Write .zarr there, or copy the file")
    return check_output(text, overwrite=overwrite)


def _array_format(store: Store, name: str, classes: tuple[ClassInfo, ...]) -> ArrayFormat:
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


@dataclass
class Level:
    """A level of the file while its tiles are written, one after another in reading order, into a file of its own."""

    path: Path
    shape: tuple[int, int]
    square: int
    sizes: list[int] = field(default_factory=list)
    checksums: dict[Window, int] = field(default_factory=dict)  # of the pixels of each square


@dataclass(frozen=True, slots=True)
class Square:
    """A square of a level: its place, the CRC-32 of its pixels, its compressed tiles by row, and its half."""

    window: Window
    checksum: int
    tiles: list[list[bytes]]
    half: NDArray[Any]


def _write_tiles(folder: Path, store: Store, array: ArrayFormat) -> list[Level]:
    """Compress all tiles of all levels, by as many threads as there are cores; a row of squares is held at a time."""
    shapes = [store.geobox.level(level).shape for level in range(level_count(store.geobox, BLOCK) + 1)]
    levels = [Level(folder / f"work.{number}", shape, array.square) for number, shape in enumerate(shapes)]
    with ThreadPoolExecutor(usable_cpus()) as pool:
        rows: Iterator[list[NDArray[Any]]] = _first_halves(pool, store, array, levels[0])
        for level in levels[1:]:
            rows = _next_halves(pool, rows, array, level)
        for _ in rows:
            pass
    return levels


def _first_halves(
    pool: ThreadPoolExecutor, store: Store, array: ArrayFormat, level: Level
) -> Iterator[list[NDArray[Any]]]:
    """Write the tiles of the full resolution; yield the halves of each row of squares."""

    def read(window: Window) -> Square:
        return _compress(array.halve, store.read_array(array.name, window).astype(array.dtype, copy=False), window)

    with open(level.path, "wb") as file:
        for windows in _rows(level):
            yield _append(file, level, list(pool.map(read, windows)))


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
            yield _append(file, level, list(pool.map(partial(_compress, array.halve), parts, windows)))
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


def _compress(halve: Callable[[NDArray[Any]], NDArray[Any]], pixels: NDArray[Any], window: Window) -> Square:
    """Let GDAL compress the tiles of a square `(band, y, x)`, in memory."""
    count, height, width = pixels.shape
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with MemoryFile() as memory:
        with memory.open(**FORM, **size, interleave="pixel", transform=Affine.scale(2)) as file:
            file.write(pixels)
        content = memory.getbuffer()
        tiles, across = Directory.read(content).tiles(content), -(-width // BLOCK)
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    return Square(window, crc32(np.ascontiguousarray(pixels).data), rows, np.stack([halve(band) for band in pixels]))


def _put_together(whole: Path, levels: list[Level], store: Store, array: ArrayFormat, metadata: StoreMetadata) -> None:
    """Write directories and tiles into one file. GDAL says what goes into the first directory, in an empty file."""
    empty = whole.with_name("whole.empty.tif")
    with _quiet(), rasterio.open(empty, "w", sparse_ok=True, **_profile(store.geobox, array)) as file:
        file.update_tags(**_tags(metadata, array))
        for index, name in enumerate(array.bands, start=1):
            file.set_band_description(index, name)
        if array.name == "class_map":
            colours = {value: (*info.rgb, 255) for value, info in enumerate(metadata.classes)}
            file.write_colormap(1, {**colours, NODATA: (0, 0, 0, 0)})
        elif array.dtype == "uint8":
            file.scales = (SCALE,) * len(array.bands)
    sizes = [np.array(level.sizes, np.int64) for level in levels]
    with open(whole, "wb") as target:
        target.write(encode_header(Directory.read(empty.read_bytes()), [level.shape for level in levels], sizes))
        for level in reversed(levels):
            with open(level.path, "rb") as source:
                shutil.copyfileobj(source, target, 2**20)
            level.path.unlink()
    empty.unlink()


def _profile(geobox: GeoBox, array: ArrayFormat) -> dict[str, Any]:
    return {
        **FORM,
        "interleave": "pixel",
        "height": geobox.height,
        "width": geobox.width,
        "count": len(array.bands),
        "dtype": array.dtype,
        "nodata": array.nodata,
        "bigtiff": "if_safer",
        "crs": CRS.from_wkt(geobox.crs) if geobox.crs else None,
        **({} if geobox.transform is None else {"transform": geobox.transform}),
    }


def _tags(metadata: StoreMetadata, array: ArrayFormat) -> dict[str, str]:
    bundle = metadata.bundle
    return {
        "TIFFTAG_SOFTWARE": "Swathe",
        "SWATHE_BUNDLE": f"{bundle.get('name', '')} {bundle.get('digest', '')}".strip(),
        "SWATHE_FINGERPRINT": fingerprint(metadata.identity),
        "SWATHE_LAYER": array.name,
        "SWATHE_PIXELS": json.dumps(metadata.pixels),
        "SWATHE_BACKGROUND": str(background_flag(metadata.background)),  # GDAL keeps no empty tags
        **{f"CLASS_{value}": info.name for value, info in enumerate(metadata.classes)},
    }


def _read_back(path: Path, levels: list[Level]) -> None:
    """Read every pixel of the new file: a full disk or a lost block must not pass for whole."""
    tasks = [(number, window) for number, level in enumerate(levels) for window in level.checksums]
    share = -(-len(tasks) // usable_cpus())
    # warnings are the whole process's business, and so not the threads'
    with _quiet(), ThreadPoolExecutor(usable_cpus()) as pool:  # each with handles of its own
        parts = [tasks[start : start + share] for start in range(0, len(tasks), share)]
        list(pool.map(partial(_check_squares, path, levels), parts))


def _check_squares(path: Path, levels: list[Level], tasks: list[tuple[int, Window]]) -> None:
    for number, group in groupby(tasks, key=lambda task: task[0]):
        overview = {"overview_level": number - 1} if number else {}
        with _environment(), rasterio.open(path, **overview) as file:
            for _, window in group:
                there = file.read(window=window.to_rasterio())
                if crc32(there.data) != levels[number].checksums[window]:
                    where = f"row {window.top}" + (f" of overview {number}" if number else "")
                    raise StoreError(f"{path.name} does not read back as it was written at {where}")


def _put_in_place(whole: Path, target: Path, array: ArrayFormat, metadata: StoreMetadata, opaque: bool) -> None:
    """Move the file and the one beside it; the file last, since it is what is looked for."""
    try:
        if array.name == "class_map":
            _write_beside(target, whole.with_name("whole.aux.xml"), metadata, opaque)
        else:
            _beside(target).unlink(missing_ok=True)
        with open(whole, "rb") as file:
            os.fsync(file.fileno())
        os.replace(whole, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from error


def _beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.aux.xml")


def _write_beside(target: Path, part: Path, metadata: StoreMetadata, opaque: bool) -> None:
    part.write_bytes(_auxiliary(metadata.classes, None if opaque else metadata.background))
    os.replace(part, _beside(target))


def show_background(output: str | os.PathLike[str], metadata: StoreMetadata, *, opaque: bool) -> None:
    """Say for a class map that was written before whether its background is shown; see `write_cog`."""
    target = Path(output)
    wanted, beside = _auxiliary(metadata.classes, None if opaque else metadata.background), _beside(target)
    if beside.is_file() and beside.read_bytes() == wanted:
        return
    with _work_folder(target) as folder:
        _write_beside(target, folder / "whole.aux.xml", metadata, opaque)


def _auxiliary(classes: tuple[ClassInfo, ...], transparent: int | None) -> bytes:
    """Return GDAL's auxiliary metadata (PAM): colours and names of the classes, twice.

    The palette in the TIFF itself has 256 entries and no transparency, by the specification. What lies beside it comes
    first for GDAL: the colour table, of which all QGIS before 3.30 make their legend; and for QGIS from there on, and
    ArcGIS, the attribute table. In both there are the classes alone, one of them `transparent`.
    """
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    ET.SubElement(band, "ColorInterp").text = "Palette"
    colours = [(*info.rgb, 0 if value == transparent else 255) for value, info in enumerate(classes)]
    palette = ET.SubElement(band, "ColorTable")
    for colour in colours:
        ET.SubElement(palette, "Entry", {f"c{n}": str(part) for n, part in enumerate(colour, 1)})
    names = ET.SubElement(band, "CategoryNames")
    for info in classes:
        ET.SubElement(names, "Category").text = info.name
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # usage as GDALRATFieldUsage: 5 value (minimum and maximum), 2 name, 6 to 9 colour and alpha; type 0 int, 2 text
    for index, (title, kind, usage) in enumerate(
        [("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9)]
    ):
        field = ET.SubElement(table, "FieldDefn", index=str(index))
        for tag, text in (("Name", title), ("Type", str(kind)), ("Usage", str(usage))):
            ET.SubElement(field, tag).text = text
    for value, info in enumerate(classes):
        row = ET.SubElement(table, "Row", index=str(value))
        for cell in (value, info.name, *colours[value]):
            ET.SubElement(row, "F").text = str(cell)
    ET.indent(root)
    # no XML declaration: GDAL 3.6 overlooks all that follows one
    return ET.tostring(root, encoding="utf-8", xml_declaration=False)  # type: ignore[no-any-return]


@contextmanager
def _quiet() -> Iterator[None]:
    """Set GDAL up: a bounded cache, no files beside the temporary ones; a map without a position is not news here."""
    with warnings.catch_warnings(), _environment():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _environment() -> Any:
    """Return GDAL's settings, which are each thread's own."""
    return rasterio.Env(GDAL_CACHEMAX=SETTINGS["GDAL_CACHEMAX"], GDAL_PAM_ENABLED="NO")
