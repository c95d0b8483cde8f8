"""Scenes in raster files: one file of several bands, or files of one band each, resampled onto the finest grid of them.

`open_rasters` reads the facts of the files (grid, band names, nodata, masks, alpha) into a `RasterSource`, which reads
windows.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader
from typing_extensions import override

from models.errors import SceneError
from models.metadata import Radiometry

from ..grid.geobox import NO_TRANSFORM, GeoBox, Window, is_position
from .alpha import alpha_bands
from .content_id import PIECE, PIECES, file_identity, hash_pixels, member_identity, remote_url, url_identity
from .gdal import absolute_name, any_band, open_raster, printable, read_pixels, run_with_env
from .palette import COLORS as PALETTE_COLORS
from .palette import TOLD as PALETTE_TOLD
from .palette import Palette, read_palette
from .resample import Regrid, Resampling, regrid
from .source import BandNames, Pixels, describe_source, find_bands, missing_samples, observed

HUGE, SPARSE = 2**30, 50_000  # a declared size of over 1 GiB that is 50,000 times the file's: a mistake or an attack
MOST_PIXELS = 10**13  # the Earth at 10 m has 8e12
MOST_BANDS = 4096
PIXELS_UP = Affine(1, 0, 0, 0, -1, 0)  # what some programs write where they know no position
LONG, LARGEST_EXACT = ("int64", "uint64"), 2**53  # whole numbers beyond are rounded in a float
COLORS = ("red", "green", "blue", "nir", "rededge", "coastal", "pan")  # some in GDAL 3.10 and newer alone
LONGEST_NAME = 60
PLATFORM_TAGS = ("PLATFORM", "SPACECRAFT_ID", "SPACECRAFT_NAME", "DATATAKE_1_SPACECRAFT_NAME", "SATELLITE", "MISSION")
SIDECARS = (".aux.xml", ".ovr", ".tfw", ".wld", ".pgw", ".jgw", ".prj", ".imd", ".rpb", ".txt", ".met")


@dataclass(frozen=True, slots=True)
class RasterBand:
    """One band of one file; the first of its names is its own, by the others it is found too.

    `geobox` is its file's, None: the scene's. A band of `codes`, as of classes or flags, is never interpolated. `table`
    holds its value for each index that the file has, where it is a colour of a palette.
    """

    path: str
    index: int
    names: tuple[str, ...]
    dtype: str
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    geobox: GeoBox | None = None
    codes: bool = False
    table: bytes = b""

    def decode(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Return the band's values where it is made of a file's indexes; else the samples themselves."""
        return np.frombuffer(self.table, np.uint8)[samples] if self.table else samples

    @property
    def radiometry(self) -> Radiometry | None:
        """What the raw values mean, if the file says more than that they are values."""
        said = (self.scale, self.offset, self.unit) != (1.0, 0.0, "")
        return Radiometry(self.scale, self.offset, self.unit) if said else None


@dataclass(frozen=True, slots=True)
class RasterMask:
    """A mask that a file brings beside nodata; not 0 = observed.

    An alpha band by its number; or, of the indexes of a palette, what a `table` says; or the masks of bands.
    """

    path: str
    indexes: tuple[int, ...]
    alpha: bool = False
    geobox: GeoBox | None = None
    table: bytes = b""

    @property
    def of_values(self) -> bool:
        """Whether it is made of the band's values, and not of its mask."""
        return self.alpha or bool(self.table)

    def observed(self, samples: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where samples `(band, y, x)` of its bands say that a pixel was observed, bool `(y, x)`."""
        return any_band(np.frombuffer(self.table, np.uint8)[samples] if self.table else np.nan_to_num(samples))


@dataclass(frozen=True, slots=True)
class RasterSource:
    """Bands of one or several rasters, read by rasterio, on the grid `geobox`. Each mask narrows what is observed.

    `resampling` is how bands of coarser grids are brought onto the scene's; `file_notes` is what the files tell;
    `unusual_alpha` holds the path and the alpha bands of each file in which these are not the last band, tagged so;
    `platform` is what made the scene, in the words of its metadata; `palette` has the colours of a file of indexes,
    which are bands only where they are asked for by name; `refuted_alpha` is why bands tagged as alpha are no masks.
    """

    geobox: GeoBox
    raster_bands: tuple[RasterBand, ...]
    masks: tuple[RasterMask, ...] = ()
    file_notes: tuple[str, ...] = ()
    resampling: Resampling = "nearest"
    unusual_alpha: tuple[tuple[str, tuple[int, ...]], ...] = ()
    platform: str = ""
    palette: Palette | None = None
    refuted_alpha: tuple[str, ...] = ()

    @override
    def __repr__(self) -> str:
        return describe_source(self)

    @property
    def all_names(self) -> tuple[tuple[str, ...], ...]:
        """All names of each band, its own first."""
        return tuple(band.names for band in (*self.raster_bands, *self._colors))

    @property
    def hints(self) -> tuple[str, ...]:
        """What may tell the sensor."""
        return (self.platform, *self.paths) if self.platform else self.paths

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number of each band, from 1: of a file with alpha bands between others, the file's own."""
        own = tuple(band.index for band in self.raster_bands)
        counted = own if self._skips_numbers else tuple(range(1, len(own) + 1))
        return counted + (0,) * len(self._colors)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(band.names[0] for band in self.raster_bands)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of all bands."""
        return np.result_type(*(np.dtype(band.dtype) for band in self.raster_bands))

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel."""
        return tuple(band.nodata for band in self.raster_bands)

    @property
    def radiometry(self) -> tuple[Radiometry | None, ...]:
        """Per band, what its raw values mean."""
        return tuple(band.radiometry for band in self.raster_bands)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(band.path for band in self.raster_bands))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the files tell, and which bands are resampled."""
        methods: dict[str, list[str]] = {}
        for band in self.raster_bands:
            if self._regrid(band):
                size = f" ({describe_pixel(band.geobox)})" if band.geobox else ""
                methods.setdefault(self._method(band), []).append(f"{band.names[0]}{size}")
        grid = describe_pixel(self.geobox)
        return (
            *self.file_notes,
            *(f"resampled to the grid of {grid}, {how}: {', '.join(names)}" for how, names in methods.items()),
        )

    @property
    def resampled(self) -> bool:
        """Whether any band lies on another grid than the scene's."""
        return any(self._regrid(band) for band in self.raster_bands)

    expensive_reads = scatter_once = False  # GDAL keeps decoded blocks

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        together: dict[tuple[Any, ...], list[int]] = {}  # rasterio reads bands of one file and one dtype at once
        for place, band in enumerate(self.raster_bands):
            together.setdefault((band.path, band.dtype, bool(band.table)), []).append(place)
        if len(together) == 1:  # the usual case: no copy
            data = self._read_file(list(range(len(self.raster_bands))), window)
        else:
            data = np.empty((len(self.raster_bands), *window.shape), self.dtype)
            for places in together.values():
                data[places] = self._read_file(places, window)
        return Pixels(data, observed(data, self.nodata) & self.read_masks(window))

    def _read_file(self, places: Sequence[int], window: Window) -> NDArray[Any]:
        """Read bands of one file and type, `(band, y, x)`."""
        bands = [self.raster_bands[place] for place in places]
        path, indexes = bands[0].path, [band.index for band in bands]
        grid = self._regrid(bands[0])
        if bands[0].table:  # a file of one band, whose grid is the scene's
            (samples,) = read_pixels(path, indexes[:1], window)
            return np.stack([band.decode(samples) for band in bands])
        if grid is None:
            return read_pixels(path, indexes, window, self.dtype)
        made = []
        for band in bands:
            method = self._method(band)
            samples = read_pixels(path, [band.index], grid.needs(window, method), np.dtype(band.dtype))
            made.append(
                grid.nearest(samples[0], window)
                if method == "nearest"
                else grid.interpolate(samples[0], window, method, missing_samples(samples[0], band.nodata), band.nodata)
            )
        return np.stack(made)

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Return where the files' own masks, apart from nodata, let pixels be observed: bool `(y, x)`."""
        valid = np.ones(window.shape, bool)
        for mask in self.masks:
            grid = self._regrid(mask)
            needed = window if grid is None else grid.needs(window, "nearest")
            there = mask.observed(read_pixels(mask.path, mask.indexes, needed, masks=not mask.of_values))
            valid &= there if grid is None else grid.nearest(there, window)
        return valid

    def _regrid(self, part: RasterBand | RasterMask) -> Regrid | None:
        return None if part.geobox is None else regrid(part.geobox, self.geobox)

    def _method(self, band: RasterBand) -> Resampling:
        return "nearest" if band.codes else self.resampling

    def select(self, bands: BandNames) -> "RasterSource":
        """Take bands by name or number (from 1), in the order given, on the scene's grid.

        Raises
        ------
        SceneError
            There is none such.
        """
        try:
            places = find_bands(self.all_names, bands, self.numbers, self.hints)
        except SceneError as error:
            if not any(mask.alpha for mask in self.masks):
                raise
            raise SceneError(f"{error}; and alpha, which --alpha no reads as a band") from error
        known = (*self.raster_bands, *self._colors)
        selected = replace(self, raster_bands=tuple(known[place] for place in places), palette=None)
        # a mask beside a band that is not taken says nothing of the others
        masks = tuple(mask for mask in self.masks if mask.path in selected.paths)
        if self.palette and any(band.table for band in selected.raster_bands):
            masks += (RasterMask(self.paths[0], (1,), table=self.palette.seen),)
        return replace(selected, masks=masks)

    @property
    def _colors(self) -> tuple[RasterBand, ...]:
        """Return the bands that a palette's colours are."""
        if self.palette is None:
            return ()
        colors = zip(PALETTE_COLORS, self.palette.colors, strict=True)
        return tuple(RasterBand(self.paths[0], 1, (name,), "uint8", table=table) for name, table in colors)

    @property
    def _skips_numbers(self) -> bool:
        """Whether bands are those of one file without an alpha band before the last: their numbers are the file's."""
        alpha = [index for _, indexes in self.unusual_alpha for index in indexes]
        return len(self.paths) == 1 and any(index < band.index for band in self.raster_bands for index in alpha)

    def on_finest_grid(self) -> "RasterSource":
        """Return the bands on the finest of their own grids. Raises SceneError where one cannot be brought onto it."""
        grids = [band.geobox or self.geobox for band in self.raster_bands]
        sizes = [abs(grid.affine.determinant) for grid in grids]
        finest = next(grid for grid, size in zip(grids, sizes, strict=True) if size < 1.0001 * min(sizes))
        placed = self.on_grid(finest)
        for band in placed.raster_bands:
            if (grid := placed._regrid(band)) and max(abs(grid.rows.step), abs(grid.columns.step)) > 1.0001:
                raise SceneError(
                    f"{band.path} has pixels that are finer along one side and coarser along the other than those of "
                    f"{finest.describe()}; warp it onto that grid first, as with gdalwarp"
                )
        return placed

    def on_grid(self, geobox: GeoBox) -> "RasterSource":
        """Return the bands on a grid. Raises SceneError where one cannot be brought onto it."""
        bands = tuple(replace(band, geobox=self._moved(band, geobox)) for band in self.raster_bands)
        masks = tuple(replace(mask, geobox=self._moved(mask, geobox)) for mask in self.masks)
        return replace(self, geobox=geobox, raster_bands=bands, masks=masks)

    def _moved(self, part: RasterBand | RasterMask, scene: GeoBox) -> GeoBox | None:
        """Return a part's own grid in a scene of another; equal CRS as one text, which travels once."""
        own = part.geobox or self.geobox
        try:
            same = own == scene or regrid(own, scene) is None
        except SceneError as error:
            raise SceneError(f"{part.path} {error}") from error
        return None if same else replace(own, crs=scene.crs)

    def identity(self) -> dict[str, Any]:
        """Return content and position of the files, and which bands are taken; not where the files lie."""
        own = {
            f"{place}": [band.geobox.describe(), self._method(band)]
            for place, band in enumerate(self.raster_bands)
            if band.geobox and self._regrid(band)
        }
        return {
            "files": [raster_identity(path) for path in self.paths],
            "bands": [[self.paths.index(band.path), band.index] for band in self.raster_bands],
            "nodata": [None if v is None else repr(v) for v in self.nodata],
            "grid": self.geobox.describe(),
            **({"resampled": own} if own else {}),
            **self.choices(),
        }

    def choices(self) -> dict[str, Any]:
        """Return what decides pixels beside the files and their bands: alpha, if it is unusual, and colour tables."""
        alpha = [[self.paths.index(path), indexes] for path, indexes in self.unusual_alpha if path in self.paths]
        tables = [hashlib.sha256(band.table).hexdigest() for band in self.raster_bands if band.table]
        return {**({"alpha": alpha} if alpha else {}), **({"colours": tables} if tables else {})}


def describe_pixel(geobox: GeoBox) -> str:
    """Return the size of a grid's pixels in words: metres where they are known, else map units."""
    metres = geobox.resolution()
    return f"{metres:.3g} m" if metres else f"{abs(geobox.affine.determinant) ** 0.5:.3g} units"


def raster_identity(path: str) -> dict[str, Any]:
    """Identify what a path, URL or GDAL name leads to, with the files that it draws on; open nothing that is remote."""
    if url := remote_url(path):
        return url_identity(url)
    if member := member_identity(path):
        return member
    if not os.path.isfile(path) or path.lower().endswith((".gpkg", ".fgb", ".geojson")):
        # a tile index or a part of a file has no bytes of its own: some of its pixels
        indexes, shape = run_with_env(path, lambda: (open_raster(path).indexes, open_raster(path).shape))
        return {"pixels": hash_pixels(lambda window: read_pixels(path, indexes, window), shape)}
    # other files decide its pixels too: the parts of a virtual raster, and masks beside files
    files = run_with_env(path, lambda: set(open_raster(path).files))
    names = sorted(name for name in files if os.path.abspath(name) != os.path.abspath(path))
    parts = [part_identity(name) for name in names if not name.lower().endswith(SIDECARS)]
    return file_identity(path) | ({"parts": parts} if parts else {})


def part_identity(name: str) -> dict[str, Any]:
    """Identify one file of many: of a large one by pieces of it."""
    if url := remote_url(name):
        return url_identity(url)
    if member := member_identity(name):
        return member
    return file_identity(name, PIECES * PIECE) if os.path.isfile(name) else {"name": name}


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
    if dataset.count > MOST_BANDS:
        raise SceneError(f"{path} declares {dataset.count:,} bands; at most {MOST_BANDS:,} are read")
    if dataset.width * dataset.height > MOST_PIXELS:
        raise SceneError(f"{path} declares {dataset.height:,} x {dataset.width:,} pixels; at most 1e13 are read")
    for dtype in dict.fromkeys(dataset.dtypes):
        if dtype.startswith(("complex", "cint")):
            raise SceneError(f"{path} holds complex numbers ({dtype}); take the amplitude or the parts first")
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
