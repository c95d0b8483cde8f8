"""Write a finished store as a Cloud-Optimized GeoTIFF: overviews, colours, class names; memory does not grow.

The file appears under its name only when it is whole and was read back.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from models.encoding import NODATA, SCALE
from models.errors import StoreError
from models.files import DIGEST, digest_text, read_digests, sha256_of
from models.system import usable_cpus

from ..grid.geobox import GeoBox, Window
from ..io.gdal import SETTINGS  # its import also settles, before any file is opened, which drivers GDAL has
from .cog_tiles import FORM, ArrayFormat, Level, Piece, array_format, write_tiles
from .files import Files, full_path
from .metadata import HARDWARE, StoreMetadata, background_flag, fingerprint
from .pam import auxiliary
from .placing import READ_ONLY, Target, check_target, finish_placing, place, with_digest, work_folder
from .store import Store, open_store, store_errors
from .tiff import Directory, encode_header


def write_cog(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    array: str = "class_map",
    opaque_background: bool = False,
    overwrite: bool = False,
) -> Target:
    """Write one array of a finished store as a COG.

    Parameters
    ----------
    store
        Path or URL of a store that `run` has finished.
    output
        Local path or URL of the file, as `s3://BUCKET/map.tif`. Class maps get their colour table; their class names go
        into its tags, and, where GDAL and QGIS look for category names, into a file beside it that ends in `.aux.xml`.
    array
        `class_map` (uint8, nodata 255), or `probability` (as kept: one band per class).
    opaque_background
        Whether the background is shown in its colour and hides what lies below; else it is transparent. Of a store
        without a background there is nothing to be asked.
    overwrite
        Replace an existing file. One that was written of the same store with the same settings stays without it.

    Returns
    -------
    pathlib.Path or str
        The file; a URL as it was given.

    Raises
    ------
    StoreError
        The store is not finished or has no such array; the file exists, is being written by another run, or cannot be
        written whole.
    """
    opened, metadata = open_store(os.fspath(store))
    what = array_format(opened, array, metadata.classes)
    already = not overwrite and _is_written(output, opened, metadata, array, opaque=opaque_background)
    target = check_target(output, overwrite=overwrite or already)
    if already:
        finish_placing(target)
        return target
    piece = Piece(opened, metadata, what, opened.geobox.whole)
    write_piece(piece, target, usable_cpus(), opaque=opaque_background, digest=True)
    return target


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written.

    Parameters
    ----------
    size
        In bytes; 0 where there is none.
    counts
        Pixels of a class map by value.
    sha256
        Of the file.
    """

    size: int
    counts: Mapping[int, int]
    sha256: str = ""


def write_piece(
    piece: Piece,
    target: Target,
    threads: int,
    *,
    opaque: bool = False,
    skip_empty: bool = False,
    digest: bool = False,
) -> Written:
    """Write a piece of a store as a COG.

    Parameters
    ----------
    piece
        Window and array.
    target
        Of `check_target`; what is there is replaced.
    threads
        How many compress and read back at a time.
    opaque
        See `write_cog`.
    skip_empty
        Write nothing where all pixels are nodata.
    digest
        Write its digest beside it; see `models.files.write_digest`.

    Raises
    ------
    StoreError
        It cannot be written whole.
    """
    with work_folder(target) as folder:
        try:
            whole = folder / "whole.tif"
            levels = write_tiles(folder, piece, threads)
            if skip_empty and levels[0].is_empty:
                return Written(0, levels[0].counts)
            _put_together(whole, levels, piece)
            _read_back(whole, levels, piece, threads)
            size, sha256 = whole.stat().st_size, sha256_of(whole)
        except (OSError, RasterioError, CPLE_BaseError, ValueError) as error:
            raise StoreError(f"{target} could not be written: {' '.join(str(error).split())[:200]}") from error
        _put_in_place(whole, target, piece, opaque, digest=digest)
    return Written(size, levels[0].counts, sha256)


def _is_written(
    output: str | os.PathLike[str], store: Store, metadata: StoreMetadata, array: str, *, opaque: bool
) -> bool:
    """Whether a file is the whole array of this store, with the background shown as it is asked."""
    pixels = written_before(full_path(output), metadata.identity, array)
    if pixels is None or pixels != dict(metadata.pixels):  # those of a cell of a publication are others
        return False
    if array != "class_map":
        return True
    beside = Files(f"{full_path(output)}.aux.xml")
    with store_errors(beside.root):
        shown = auxiliary(metadata.classes, None if opaque else metadata.background)
        return beside.exists() and beside.read("") == shown


def written_before(
    output: str | os.PathLike[str], identity: Mapping[str, Any], array: str = "class_map"
) -> dict[str, int] | None:
    """Return the pixels per class of a COG if it is an array of a run of this identity; else None."""
    path = os.fspath(output)
    if path.startswith(READ_ONLY):
        return None
    try:
        # an object is read by fsspec, since GDAL keeps what was there before
        with ExitStack() as stack, store_errors(path):
            there = path if Files(path).local else stack.enter_context(Files(path).open(""))
            stack.enter_context(_quiet())
            tags = stack.enter_context(rasterio.open(there, driver="GTiff")).tags()  # what lies there may be anybody's
    except (StoreError, RasterioError, CPLE_BaseError):
        return None
    before = {key: value for key, value in identity.items() if key != HARDWARE}  # of files that do not say theirs
    if tags.get("SWATHE_FINGERPRINT") not in (fingerprint(identity), fingerprint(before)):
        return None
    if tags.get("SWATHE_LAYER") != array:
        return None
    return json.loads(tags["SWATHE_PIXELS"])  # type: ignore[no-any-return]


def _put_together(whole: Path, levels: list[Level], piece: Piece) -> None:
    """Write directories and tiles into one file. GDAL says what goes into the first directory, in an empty file."""
    empty, array, metadata = whole.with_name("whole.empty.tif"), piece.array, piece.metadata
    pixels = metadata.pixels if piece.is_whole else pixels_by_name(metadata, levels[0].counts)
    with _settings(piece), rasterio.open(empty, "w", sparse_ok=True, **_profile(piece.geobox, array)) as file:
        file.update_tags(**_tags(metadata, array, pixels))
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


def pixels_by_name(metadata: StoreMetadata, counts: Mapping[int, int]) -> dict[str, int]:
    """Return pixels per class by name, and `nodata`, of pixels by value."""
    return {name: counts.get(value, 0) for value, name in [*enumerate(metadata.class_names), (NODATA, "nodata")]}


def _tags(metadata: StoreMetadata, array: ArrayFormat, pixels: Mapping[str, int]) -> dict[str, str]:
    bundle = metadata.bundle
    return {
        "TIFFTAG_SOFTWARE": "Swathe",
        "SWATHE_BUNDLE": f"{bundle.get('name', '')} {bundle.get('digest', '')}".strip(),
        "SWATHE_FINGERPRINT": fingerprint(metadata.content),
        "SWATHE_LAYER": array.name,
        "SWATHE_PIXELS": json.dumps(dict(pixels)),
        "SWATHE_BACKGROUND": str(background_flag(metadata.background)),  # GDAL keeps no empty tags
        **{f"CLASS_{value}": info.name for value, info in enumerate(metadata.classes)},
    }


def _read_back(path: Path, levels: list[Level], piece: Piece, threads: int) -> None:
    """Read every pixel of the new file: a full disk or a lost block must not pass for whole."""
    tasks = [(number, window) for number, level in enumerate(levels) for window in level.checksums]
    share = -(-len(tasks) // threads)
    # warnings are the whole process's business, and so not the threads'
    with _settings(piece), ThreadPoolExecutor(threads) as pool:  # each with handles of its own
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


def _put_in_place(whole: Path, target: Target, piece: Piece, opaque: bool, *, digest: bool) -> None:
    """Give the file its name, and what lies beside it; the file last, since it is what is looked for."""
    metadata, name = piece.metadata, os.path.basename(target)
    part, files = whole.with_name("whole.aux.xml"), {name: whole}
    if piece.array.name == "class_map":
        try:
            part.write_bytes(auxiliary(metadata.classes, None if opaque else metadata.background))
        except OSError as error:
            raise StoreError(f"{target} could not be written: {error.strerror or error}") from error
        files[f"{name}.aux.xml"] = part
    with with_digest(target, files) if digest else nullcontext():
        if len(files) > 1:
            place(part, _beside(target))
        else:
            with store_errors(os.fspath(target)):
                Files(os.fspath(_beside(target))).remove("")
        place(whole, target)


def _beside(target: Target) -> Target:
    beside = f"{target}.aux.xml"
    return Path(beside) if isinstance(target, Path) else beside


def show_background(output: str | os.PathLike[str], metadata: StoreMetadata, *, opaque: bool) -> None:
    """Say for a class map that was written before whether its background is shown; see `write_cog`."""
    beside, wanted = (
        f"{os.fspath(output)}.aux.xml",
        auxiliary(metadata.classes, None if opaque else metadata.background),
    )
    files, side, name = Files(beside), Files(f"{os.fspath(output)}{DIGEST}"), os.path.basename(beside)
    with store_errors(beside):
        if files.exists() and files.read("") == wanted:
            return
        known = read_digests(side.read("")) if side.exists() else {}
        side.remove("")
        files.write("", wanted)
        if known:
            side.write("", digest_text(known | {name: hashlib.sha256(wanted).hexdigest()}))


def _settings(piece: Piece) -> Any:
    """Set GDAL up. Of a map with a position there is nothing to complain: tasks beside each other share warnings."""
    return _environment() if piece.geobox.transform is not None else _quiet()


@contextmanager
def _quiet() -> Iterator[None]:
    """Set GDAL up: a bounded cache, no files beside the temporary ones; a map without a position is not news here."""
    with warnings.catch_warnings(), _environment():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def _environment() -> Any:
    """Return GDAL's settings, which are each thread's own."""
    return rasterio.Env(GDAL_CACHEMAX=SETTINGS["GDAL_CACHEMAX"], GDAL_PAM_ENABLED="NO")
