"""Raster files opened as a source: their facts read, bands named, what cannot be used refused. No pixels are kept.

One file of several bands, or files of one band each; see `raster` for what reads them.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import PurePosixPath

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.io import DatasetReader

from models.errors import SceneError
from models.limits import check_chunk, check_extent

from ..grid.geobox import NO_TRANSFORM, GeoBox, is_position
from .alpha import alpha_bands
from .gdal import absolute_name, open_raster, printable, run_with_env
from .palette import TOLD as PALETTE_TOLD
from .palette import read_palette
from .raster import RasterBand, RasterMask, RasterSource

TILED = "Write it anew in tiles, as with `gdal_translate -of COG`"
HUGE, SPARSE = 2**30, 50_000  # a declared size of over 1 GiB that is 50,000 times the file's: a mistake or an attack
PIXELS_UP = Affine(1, 0, 0, 0, -1, 0)  # what some programs write where they know no position
LONG, LARGEST_EXACT = ("int64", "uint64"), 2**53  # whole numbers beyond are rounded in a float
COLORS = ("red", "green", "blue", "nir", "rededge", "coastal", "pan")  # some in GDAL 3.10 and newer alone
LONGEST_NAME = 60
PLATFORM_TAGS = ("PLATFORM", "SPACECRAFT_ID", "SPACECRAFT_NAME", "DATATAKE_1_SPACECRAFT_NAME", "SATELLITE", "MISSION")


def open_rasters(paths: Sequence[str], *, alpha: bool | None = None) -> RasterSource:
    """Open one raster of any number of bands, or several that hold one band each.

    Parameters
    ----------
    paths
        Paths, URLs or GDAL's names.
    alpha
        See `alpha_bands`: whether bands tagged as alpha are masks. None: those whose values look like a mask.

    Raises
    ------
    SceneError
        A file is missing, damaged or complex; several cannot be brought onto one grid; nothing to read.
    """
    if not paths:
        raise SceneError("no files given")
    paths = [absolute_name(path) for path in paths]
    sources = [run_with_env(path, partial(_read_facts, path, alpha)) for path in paths]
    return sources[0] if len(sources) == 1 else join_files(paths, sources)


def join_files(paths: Sequence[str], sources: Sequence[RasterSource]) -> RasterSource:
    """Put files of one band each together, named by what tells the files' names apart. Raises SceneError as `join`."""
    for path, source in zip(paths, sources, strict=True):
        if len(source.raster_bands) != 1:
            raise SceneError(f"{path} holds {len(source.raster_bands)} bands; several files must hold one band each")
    joined = join(sources)
    named = zip(joined.raster_bands, _names_from_files(paths), strict=True)
    return replace(joined, raster_bands=tuple(replace(band, names=(name,)) for band, name in named))


def join(sources: Sequence[RasterSource]) -> RasterSource:
    """Put the bands of sources into one, in their order, on the finest grid among them.

    Raises
    ------
    SceneError
        One cannot be brought onto that grid: another CRS, another extent, rotated.
    """
    parts = [_with_own_grids(source) for source in sources]
    bands = tuple(band for source in parts for band in source.raster_bands)
    masks = tuple(dict.fromkeys(mask for source in parts for mask in source.masks))
    notes = tuple(dict.fromkeys(note for source in parts for note in source.file_notes))
    alpha = tuple(dict.fromkeys(entry for source in parts for entry in source.unusual_alpha))
    platform = " ".join(dict.fromkeys(source.platform for source in parts if source.platform))
    joined = RasterSource(parts[0].geobox, bands, masks, notes, parts[0].resampling, alpha, platform)
    return joined.on_finest_grid()


def _with_own_grids(source: RasterSource) -> RasterSource:
    """Let each band and mask say itself on which grid it lies, and that indexes of a colour table are codes."""
    codes = source.palette is not None
    bands = (
        replace(band, geobox=band.geobox or source.geobox, codes=band.codes or codes) for band in source.raster_bands
    )
    masks = (replace(mask, geobox=mask.geobox or source.geobox) for mask in source.masks)
    return replace(source, raster_bands=tuple(bands), masks=tuple(masks))


def _read_facts(path: str, wish: bool | None) -> RasterSource:
    """Open a raster as a source, within `run_with_env`."""
    dataset = open_raster(path, anew=True)
    _refuse_unusable(dataset, path)
    alpha = alpha_bands(dataset, wish)
    indexes = [index for index in dataset.indexes if index not in alpha.masks]
    bands = tuple(map(partial(_read_band, dataset, path), indexes, _band_names(dataset, indexes)))
    masks = _masks(dataset, path, indexes, alpha.masks)
    # asked after the masks: for them GDAL looks through all directories of a TIFF, and what is wrong there is raised by
    # the next call
    last = dataset.count > 1 and dataset.colorinterp[-1] == ColorInterp.alpha
    unusual = () if alpha.masks == (dataset.count,) * last else ((path, alpha.masks),)
    told = alpha.notes({band.index: band.names[0] for band in bands}) if wish is None else []
    if wish and not alpha.masks:
        told.append("--alpha yes changes nothing: no band is tagged as alpha")
    transform = dataset.transform if is_position(dataset.transform) else None
    geobox = GeoBox(dataset.height, dataset.width, transform, (dataset.crs and dataset.crs.to_wkt()) or None)
    colors = read_palette(dataset)
    notes = (*_notes(dataset, geobox), *told, *([PALETTE_TOLD] if colors else []))
    return RasterSource(
        geobox,
        bands,
        tuple(masks),
        notes,
        unusual_alpha=unusual,
        platform=_platform(dataset),
        palette=colors,
        refuted_alpha=tuple(alpha.refuted.values()),
    )


def _read_band(dataset: DatasetReader, path: str, index: int, names: tuple[str, ...]) -> RasterBand:
    dtype, nodata = str(np.dtype(dataset.dtypes[index - 1])), _nodata_of(dataset, index)
    scale, offset = _usable(dataset.scales[index - 1], dataset.offsets[index - 1])
    unit = printable(dataset.units[index - 1] or "")[:LONGEST_NAME]
    return RasterBand(path, index, names, dtype, nodata, scale, offset, unit)


def _nodata_of(dataset: DatasetReader, index: int) -> float | None:
    """Return what stands for a missing pixel in a band; None also where it is a number of more bits than a float's."""
    nodata = dataset.nodatavals[index - 1]
    if dataset.driver == "netCDF" and not {"_FillValue", "missing_value", "nodata"} & set(dataset.tags(index)):
        return None  # GDAL takes what the library fills with where nothing is written, as 65535
    long = dataset.dtypes[index - 1] in LONG
    return None if nodata is None or (long and abs(nodata) >= LARGEST_EXACT) else float(nodata)


def _platform(dataset: DatasetReader) -> str:
    """Return what the tags of a file say of the sensor."""
    tags = {key.upper(): value for key, value in dataset.tags().items()}
    told = (tags.get(key, "") for key in PLATFORM_TAGS)
    return " ".join(dict.fromkeys(printable(text)[:LONGEST_NAME] for text in told if text))


def _usable(scale: float, offset: float) -> tuple[float, float]:
    """Return scale and offset of a file's tags, or those of plain values where they make no numbers."""
    return (scale, offset) if scale and isfinite(scale) and isfinite(offset) else (1.0, 0.0)


def _refuse_unusable(dataset: DatasetReader, path: str) -> None:
    if not dataset.count or not dataset.width or not dataset.height:
        parts = dataset.subdatasets
        hint = f"; it holds {len(parts)} subdatasets, give one of them: {parts[0]}" if parts else ""
        if parts and dataset.driver == "netCDF":
            hint += ". With netCDF4 or h5netcdf installed, its variables are the scene's bands"
        raise SceneError(f"{path} holds no pixels of its own{hint}")
    check_extent(path, dataset.count, dataset.shape, SceneError)
    if dataset.driver == "PNG" and os.path.isfile(path):
        _refuse_damaged_png(path)
    for dtype in dict.fromkeys(dataset.dtypes):
        if dtype.startswith(("complex", "cint")):
            raise SceneError(f"{path} holds complex numbers ({dtype}); take the amplitude or the parts first")
    _refuse_large_pieces(dataset, path)
    if not os.path.isfile(path) or dataset.driver == "VRT":
        return
    # a tiny file that declares a huge scene, before anything is planned for it
    declared = dataset.count * dataset.width * dataset.height * np.dtype(dataset.dtypes[0]).itemsize
    actual = os.path.getsize(path)
    if declared > HUGE and declared > SPARSE * actual:
        raise SceneError(
            f"{path} declares {dataset.height} x {dataset.width} pixels, {declared / 1e9:.1f} GB, but has only "
            f"{actual:,} bytes: it is damaged or almost empty. If it is meant so, make a VRT of it and give that"
        )


def _refuse_damaged_png(path: str) -> None:
    """Refuse a PNG whose parts are not whole: GDAL fills what it cannot decode with whatever lies in memory."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length, checksum = int.from_bytes(head[:4]), zlib.crc32(head[4:])
            while length > 0 and (part := file.read(min(length, 2**20))):
                length, checksum = length - len(part), zlib.crc32(part, checksum)
            if length or file.read(4) != checksum.to_bytes(4):
                break
    if head[4:] != b"IEND":
        raise SceneError(f"{path} is a damaged PNG: its checksums do not fit, or its end is missing")


def _refuse_large_pieces(dataset: DatasetReader, path: str) -> None:
    """Refuse a file that is decoded in pieces too large to hold a few: all of a TIFF in one strip."""
    together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    largest = max(set(zip(dataset.block_shapes, dataset.dtypes, strict=True)), key=_piece_bytes)
    check_chunk(path, (together, *largest[0]), np.dtype(largest[1]).itemsize, SceneError, TILED)


def _piece_bytes(piece: tuple[tuple[int, int], str]) -> int:
    (rows, columns), dtype = piece
    return rows * columns * np.dtype(dtype).itemsize


def _masks(dataset: DatasetReader, path: str, indexes: Sequence[int], alpha: Sequence[int]) -> list[RasterMask]:
    """Return what the file says of observed pixels apart from nodata: alpha bands, and masks of the file or of bands.

    GDAL takes alpha for a mask in files of two or four bands only, and not beside nodata; people mean it in any.
    """
    of_bands, dtypes = dataset.mask_flag_enums, dataset.dtypes  # each time asked of all bands
    flags = [set(of_bands[index - 1]) for index in indexes]
    masks = [RasterMask(path, (index,), alpha=True) for index in alpha]
    # GDAL's mask of one colour that is transparent is nodata said again
    if any(MaskFlags.per_dataset in of_band and not of_band & {MaskFlags.alpha, MaskFlags.nodata} for of_band in flags):
        masks.append(RasterMask(path, (indexes[0],)))
    elif any(not of_band for of_band in flags):
        masks.append(RasterMask(path, tuple(indexes)))
    long = [index for index in indexes if dtypes[index - 1] in LONG and _nodata_of(dataset, index) is None]
    if dataset.driver != "netCDF" and any(MaskFlags.nodata in flags[indexes.index(index)] for index in long):
        masks.append(RasterMask(path, tuple(indexes)))  # GDAL knows 64 bits, of which a float holds 53
    return masks


def _notes(dataset: DatasetReader, geobox: GeoBox) -> list[str]:
    """Say what of the file's position is not used, or may be none."""
    if geobox.transform is not None:
        doubtful = geobox.crs is not None and geobox.transform == PIXELS_UP
        return ["the transform only counts pixels, from (0, 0) of the CRS: is that where the scene lies?"] * doubtful
    if not dataset.transform.is_identity:
        return ["the file's transform has no area or is not finite: it is not used, and the map has no position"]
    if dataset.gcps[0]:
        what = f"{len(dataset.gcps[0])} ground control points"
    elif dataset.rpcs is not None:
        what = "rational polynomial coefficients (RPC)"
    else:
        return [NO_TRANSFORM] if dataset.crs else []
    return [f"the scene's position is given by {what} only, and is lost in the map: warp it first, as with gdalwarp"]


def _band_names(dataset: DatasetReader, indexes: Sequence[int]) -> list[tuple[str, ...]]:
    """Name each band by its description, else by its color, else by its number; all by number where two are alike.

    A band that is tagged as alpha and is none is called `nir` after red, green and blue, as such files have it.
    """
    numbered = [f"band_{index}" for index in indexes]
    descriptions, interpretations = dataset.descriptions, dataset.colorinterp  # each time asked of all bands
    described = [printable(descriptions[index - 1] or "")[:LONGEST_NAME] for index in indexes]
    colors = [interpretations[index - 1] for index in indexes]
    colored = [color.name if color.name in COLORS else "" for color in colors]
    unknown = list(numbered)
    if {"red", "green", "blue"} <= set(colored) and colors.count(ColorInterp.alpha) == 1:
        unknown[colors.index(ColorInterp.alpha)] = "nir"
    for choice in (described, colored):
        names = [name or other for name, other in zip(choice, unknown, strict=True)]
        if any(choice) and len(set(names)) == len(names):
            return [tuple(dict.fromkeys((name, number))) for name, number in zip(names, numbered, strict=True)]
    return [(number,) for number in numbered]


def _names_from_files(paths: Sequence[str]) -> list[str]:
    """Name each file's band by what tells its name from the others': `scene_B02.tif`, `scene_B03.tif` give B02, B03.

    Where the files' own names are alike, their folders' are taken; where these are too, numbers.
    """
    places = [PurePosixPath(path.partition("?")[0]) for path in paths]
    for parts in ([place.stem for place in places], [place.parent.name for place in places]):
        words, names = [re.findall(r"[^\W_]+", part) for part in parts], parts
        if len({len(w) for w in words}) == 1:
            differing = [place for place, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1]
            names = ["_".join(w[place] for place in differing) for w in words]
        if all(names) and max(Counter(name.lower() for name in names).values()) == 1:
            return names
    return [f"band_{n + 1}" for n in range(len(paths))]
