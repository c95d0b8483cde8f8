"""Previews: what a picture of any size needs of a scene or of its maps, and no more. Memory does not grow with either.

Rasters and stores are read through their overviews; all else tile by tile, of which single pixels are kept. No colours.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.errors import ArgumentError, StoreError
from models.metadata import ClassInfo

from ..grid.geobox import GeoBox, Window
from ..io.array import array_source
from ..io.band_names import RGB_NAMES, rgb_places
from ..io.gdal import open_raster, run_with_env
from ..io.raster import RasterSource
from ..io.scene import SceneLike, open_source
from ..io.source import BandNames, Pixels, Source, missing_samples, observed
from ..io.tiled import TiledSource
from ..store.dataset import maps_background, open_maps
from ..store.store import open_store

MapsLike = str | os.PathLike[str] | xr.Dataset
LONGEST = 2048  # side of a preview, in pixels
TILE = 2048  # side of what is read at once where there are no overviews


@dataclass(frozen=True, slots=True)
class View:
    """What a picture shows: a window of the scene, and the rows and columns that it is drawn with."""

    window: Window
    shape: tuple[int, int]

    @property
    def factor(self) -> float:
        """Scene pixels per pixel of the picture, along its longer side."""
        return max(self.window.shape) / max(self.shape)

    @property
    def rows(self) -> NDArray[np.intp]:
        """The scene's row at the middle of each row of the picture."""
        return _middles(self.window.top, self.window.bottom, self.shape[0])

    @property
    def columns(self) -> NDArray[np.intp]:
        """The scene's column at the middle of each column of the picture."""
        return _middles(self.window.left, self.window.right, self.shape[1])


def _middles(start: int, stop: int, count: int) -> NDArray[np.intp]:
    return start + ((np.arange(count) + 0.5) * (stop - start) / count).astype(np.intp)


def make_view(geobox: GeoBox, window: Window | None = None, longest: int = LONGEST) -> View:
    """Return the view of a window whose longer side is at most `longest`; pixel for pixel where it is that small.

    Raises
    ------
    ArgumentError
        The window is empty or reaches out of the scene.
    """
    window = window or geobox.whole
    if min(window.shape) < 1 or not geobox.whole.contains(window) or longest < 1:
        raise ArgumentError(
            f"{window} of a scene of {geobox.height} x {geobox.width} pixels, {longest} long: not a picture"
        )
    scale = min(1.0, longest / max(window.shape))
    height, width = (max(1, round(side * scale)) for side in window.shape)
    return View(window, (height, width))


def pick(read: Callable[[Window], NDArray[Any]], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[Any]:
    """Take rows and columns, in rising order, of what `read` gives `(..., y, x)`, a tile at a time."""

    def part(down: NDArray[np.intp], across: NDArray[np.intp]) -> NDArray[Any]:
        pixels = read(Window(int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1))
        return pixels[..., down - down[0], :][..., across - across[0]]

    # cut where the places pass from one tile into the next
    rows_of, columns_of = (np.split(at, np.flatnonzero(np.diff(at // TILE)) + 1) for at in (rows, columns))
    return np.block([[part(down, across) for across in columns_of] for down in rows_of])


def shown_bands(source: Source, bands: BandNames | None = None) -> Source:
    """Take the bands that are shown: those asked for (three, or one for grey), else red, green, blue by name or place.

    Raises
    ------
    SceneError
        No such band.
    ArgumentError
        Neither one nor three are asked for.
    """
    if bands is not None:
        bands = [bands] if isinstance(bands, str | int) else list(bands)
        if len(bands) not in (1, 3):
            raise ArgumentError(
                f"a picture shows three bands, or one; received {len(bands)}: {', '.join(map(str, bands))}"
            )
        return source.select(bands)
    if isinstance(source, RasterSource | TiledSource):
        if len(source.all_names) > len(source.bands):  # a palette
            return source.select(RGB_NAMES[0])
        return source.select([source.numbers[place] for place in rgb_places(source.bands)])
    return source.select([place + 1 for place in rgb_places(source.bands)])


def read_image(scene: SceneLike | Source, view: View, bands: BandNames | None = None) -> Pixels:
    """Read what a view shows of a scene.

    Parameters
    ----------
    scene
        See `open_scene`; or a source that is open.
    view
        Rasters are averaged over each pixel of the picture, from the overview that fits; other scenes are sampled.
    bands
        See `shown_bands`.

    Returns
    -------
    Pixels
        float32 `(band, y, x)`, 1 or 3 bands, NaN where a sample is missing; and the valid mask.
    """
    source = shown_bands(scene if hasattr(scene, "geobox") else open_source(scene), bands)  # type: ignore[arg-type]
    if isinstance(source, RasterSource) and view.factor > 1 and not source.resampled:
        raw = _read_rasters(source, view)
    elif isinstance(source, TiledSource) and view.factor > 1:
        raw = _read_scene_tiles(source, view)
    else:
        raw = _read_tiles(source, view)
    data = raw.data.astype(np.float32)
    for place, sentinel in enumerate(source.nodata):
        missing = missing_samples(raw.data[place], sentinel)
        if missing is not None:
            data[place][missing] = np.nan
    return Pixels(data, raw.valid)


def _read_tiles(source: Source, view: View) -> Pixels:
    """Read a source tile by tile, and keep the pixels that are wanted; the last band is the valid mask."""

    def read(window: Window) -> NDArray[Any]:
        pixels = source.read(window)
        return np.concatenate([pixels.data.astype(np.float64), pixels.valid[None]])

    both = pick(read, view.rows, view.columns)
    return Pixels(both[:-1].astype(source.dtype), both[-1] > 0)


def _read_rasters(source: RasterSource, view: View) -> Pixels:
    """Read each file once: bands of one file often lie pixel by pixel."""
    from rasterio.enums import Resampling

    data = np.empty((len(source.raster_bands), *view.shape), source.dtype)
    together: dict[tuple[str, Resampling], list[int]] = {}
    for place, band in enumerate(source.raster_bands):
        # averages would spread NaN that GDAL does not know for nodata over its neighbours
        hides_nan = band.nodata is None and np.issubdtype(np.dtype(band.dtype), np.floating)
        single = hides_nan or band.table  # means of indexes say nothing
        resampling = Resampling.nearest if single else Resampling.average
        together.setdefault((band.path, resampling), []).append(place)
    for (path, resampling), places in together.items():
        indexes = [source.raster_bands[place].index for place in places]
        read = _read_small(path, "read", indexes, view, resampling=resampling)
        data[places] = [source.raster_bands[place].decode(samples) for place, samples in zip(places, read, strict=True)]
    valid = observed(data, source.nodata)
    for mask in source.masks:
        method = "read" if mask.of_values else "read_masks"
        valid &= mask.observed(_read_small(mask.path, method, list(mask.indexes), view))
    return Pixels(data, valid)


def _read_scene_tiles(source: TiledSource, view: View) -> Pixels:
    """Read each tile as a raster of its own, for the pixels of the picture whose middles lie in it."""
    data = np.zeros((len(source.bands), *view.shape), source.dtype)
    valid = np.zeros(view.shape, bool)
    for place, tile in source.tiles:
        down = np.flatnonzero((view.rows >= place.top) & (view.rows < place.bottom))
        across = np.flatnonzero((view.columns >= place.left) & (view.columns < place.right))
        shared = place.overlap(view.window)
        if shared is None or not down.size or not across.size:
            continue
        part = _read_rasters(tile, View(shared.within(place), (down.size, across.size)))
        here = np.s_[..., down[0] : down[-1] + 1, across[0] : across[-1] + 1]
        new = part.valid & ~valid[here]
        data[here] = np.where(new, part.data, data[here])
        valid[here] |= new
    return Pixels(data, valid)


def _read_small(path: str, method: str, indexes: list[int], view: View, **options: Any) -> NDArray[Any]:
    """Read bands, or their masks, from the overview of a raster that fits."""

    def read() -> NDArray[Any]:
        reader = getattr(open_raster(path), method)
        shape = (len(indexes), *view.shape)
        return reader(indexes, window=view.window.to_rasterio(), out_shape=shape, **options)  # type: ignore[no-any-return]

    return run_with_env(path, read)


@dataclass(frozen=True, slots=True)
class SmallMaps:
    """What a view shows of maps.

    `class_map` uint8 `(y, x)`, 255 = nodata; `probability` float32 `(y, x)` of the class `probability_of`, NaN =
    nodata, or None; `objects` int64 `(y, x)`, 0 = none, or None.
    """

    class_map: NDArray[np.uint8]
    probability: NDArray[np.float32] | None
    probability_of: str
    objects: NDArray[np.int64] | None


def maps_geobox(maps: MapsLike) -> GeoBox:
    """Return the grid of maps."""
    if isinstance(maps, xr.Dataset):
        return array_source(maps["class_map"]).geobox
    return open_store(os.fspath(maps))[0].geobox


def maps_classes(maps: MapsLike) -> tuple[ClassInfo, ...]:
    """Return names and colours of the classes: from a store's metadata, or from the CF flags of a Dataset.

    Raises
    ------
    StoreError
        The Dataset has no flags: it did not come from Swathe, or lost them on the way.
    """
    if not isinstance(maps, xr.Dataset):
        return open_store(os.fspath(maps))[1].classes
    flags = maps["class_map"].attrs
    if "flag_meanings" not in flags or "flag_colors" not in flags:
        raise StoreError(
            "class_map has lost its attributes flag_meanings and flag_colors; use xr.set_options(keep_attrs=True)"
        )
    names, colours = flags["flag_meanings"].split(), flags["flag_colors"].split()
    return tuple(ClassInfo(name, colour.lstrip("#")) for name, colour in zip(names, colours, strict=True))


def maps_foreground(maps: MapsLike) -> tuple[int, ...]:
    """Return the values of the classes that have objects: all but the background's, if there is one."""
    if not isinstance(maps, xr.Dataset):
        return open_store(os.fspath(maps))[1].foreground
    background = maps_background(maps)
    return tuple(value for value in range(len(maps_classes(maps))) if value != background)


def read_maps(maps: MapsLike, view: View, probability_of: str | None = None) -> SmallMaps:
    """Read what a view shows of maps, from the overview of a store that fits, else from its full resolution.

    Parameters
    ----------
    maps
        A store's path or URL, or a Dataset as `open_maps` gives it. What is lazy in it is computed block by block, all
        of it: for a whole scene, write it to a store first.
    view
        Of the maps' full resolution.
    probability_of
        The class; None: the last that is kept.

    Raises
    ------
    StoreError
        As `open_maps`; or no probability is kept.
    ArgumentError
        None of that class is kept.
    """
    level, dataset = 0, maps
    if not isinstance(dataset, xr.Dataset):
        levels = open_store(os.fspath(dataset))[0].levels
        level = max(number for number in range(levels + 1) if number == 0 or 2**number <= view.factor)
        dataset = open_maps(dataset, level=level)
    bands, name = _probability(dataset, probability_of)
    probability = None if bands is None else _small(bands, view, level).astype(np.float32)
    class_map = _small(dataset["class_map"], view, level).astype(np.uint8)
    if level and "objects" not in dataset:  # of which a store has no overviews
        dataset, level = open_maps(maps), 0
    objects = _small(dataset["objects"], view, level).astype(np.int64) if "objects" in dataset else None
    return SmallMaps(class_map, probability, name, objects)


def _probability(dataset: xr.Dataset, wanted: str | None) -> tuple[xr.DataArray | None, str]:
    if "probability" not in dataset:
        if wanted is not None:
            raise StoreError("these maps hold no probability; `swathe segment --probability uint8` keeps it")
        return None, ""
    names = [str(name) for name in dataset["class"].values]
    if wanted is not None and wanted not in names:
        raise ArgumentError(f"no probability of {wanted!r} is kept; there is that of: {', '.join(names)}")
    place = len(names) - 1 if wanted is None else names.index(wanted)
    return dataset["probability"][place], names[place]


def _small(array: xr.DataArray, view: View, level: int) -> NDArray[Any]:
    """Take a view's pixels of one level of an array `(y, x)`."""
    height, width = array.shape
    rows, columns = np.minimum(view.rows >> level, height - 1), np.minimum(view.columns >> level, width - 1)

    def read(window: Window) -> NDArray[Any]:
        down, across = window.slices
        return np.asarray(array[down, across].compute(scheduler="synchronous").values)

    return pick(read, rows, columns)
