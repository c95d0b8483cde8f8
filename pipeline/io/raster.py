"""A source that reads windows of raster files: bands of one or several, resampled onto the finest grid of them.

`raster_files` opens the files and reads their facts.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import SceneError
from models.metadata import Radiometry

from ..grid.geobox import GeoBox, Window
from .content_id import PIECE, PIECES, file_identity, hash_pixels, member_identity, remote_url, url_identity
from .gdal import any_band, open_raster, read_pixels, run_with_env
from .palette import COLORS as PALETTE_COLORS
from .palette import Palette
from .resample import Regrid, Resampling, regrid
from .source import BandNames, Pixels, describe_source, find_bands, missing_samples, missing_value, observed

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
        valid = observed(data, self.nodata)
        return Pixels(data, valid & self.read_masks(window) if self.masks else valid, fresh=True)

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

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""
        return replace(self, file_notes=(*self.file_notes, note))

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


class AlikeRasters(ABC):
    """Several rasters of the same bands as one source: facts of the bands are those of the first."""

    __slots__ = ()

    @property
    @abstractmethod
    def _first(self) -> RasterSource:
        """One of them, of which all facts of the bands hold."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self._first.bands

    @property
    def all_names(self) -> tuple[tuple[str, ...], ...]:
        """All names of each band, its own first."""
        return self._first.all_names

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of the bands in the files."""
        return self._first.numbers

    @property
    def hints(self) -> tuple[str, ...]:
        """What may tell the sensor."""
        return self._first.hints

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values."""
        return self._first.dtype

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel."""
        return self._first.nodata

    @property
    def radiometry(self) -> tuple[Radiometry | None, ...]:
        """Per band, what the raw values mean."""
        return self._first.radiometry

    def no_pixels(self, shape: tuple[int, int]) -> Pixels:
        """Return pixels of which none was observed, to be filled in."""
        data = np.empty((len(self.bands), *shape), self.dtype)
        for band, sentinel in zip(data, self.nodata, strict=True):
            band[:] = missing_value(self.dtype, sentinel)
        return Pixels(data, np.zeros(shape, bool), fresh=True)


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
