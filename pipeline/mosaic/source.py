"""Many scenes of an index on one grid, read by window as one scene: a `Source`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import SceneError

from ..catalog.index import IndexedScene, SceneIndex
from ..grid.geobox import GeoBox, Window
from ..io.raster import AlikeRasters, RasterSource
from ..io.resample import Resampling, as_type
from ..io.scene import lazy_array
from ..io.source import BandNames, Pixels, describe_source, missing_samples, missing_value
from .adjust import Adjustment, adjust
from .area import Area
from .composite import mean_of, median_of
from .footprints import footprints, touched_blocks
from .masking import SceneMask
from .order import Composite
from .warp import read_scene


@dataclass(frozen=True, slots=True)
class MosaicSource(AlikeRasters):
    """Scenes on a grid, in an order that is the same for every window.

    Parameters
    ----------
    index
        The scenes.
    geobox
        The grid.
    order
        Numbers of the scenes that count, the one that is taken first before others.
    band_choice
        Names or numbers of the bands taken, of each scene; empty: all.
    composite
        What a pixel is made of where several scenes observed it.
    resampling
        How scenes that do not lie on the grid are brought onto it.
    kinds
        Numbers of one scene of each kind: kinds may differ in nodata, the first is that of the first scene.
    area
        Polygons outside of which pixels are missing; None: none are for that.
    scene_masks
        Which pixels of scenes are not taken.
    adjustments
        By number of a scene, how its raw values become those of the mosaic; see `harmonise`. Others stay as they are.
    """

    index: SceneIndex
    geobox: GeoBox
    order: tuple[int, ...]
    band_choice: tuple[str | int, ...] = ()
    composite: Composite = "first"
    resampling: Resampling = "nearest"
    kinds: tuple[int, ...] = ()
    area: Area | None = None
    scene_masks: tuple[SceneMask, ...] = ()
    adjustments: Mapping[int, Adjustment] = field(default_factory=dict, hash=False)
    file_notes: tuple[str, ...] = ()

    expensive_reads, scatter_once = True, True
    masks = True  # where no scene lies

    @override
    def __repr__(self) -> str:
        return describe_source(self)

    def scene(self, number: int) -> IndexedScene:
        """Return a scene of the index with the bands that are taken."""
        return _with_bands(self.index, number, self.band_choice)

    @property
    @override
    def _first(self) -> RasterSource:
        return self.scene(self.order[0]).source

    @property
    @override
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel: that of the first kind of scene that has one."""
        each = [self.scene(number).source.nodata for number in self.kinds or self.order[:1]]
        return tuple(next((one for one in of if one is not None), None) for of in zip(*each, strict=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return self.file_notes

    @property
    def paths(self) -> tuple[str, ...]:
        """The index."""
        return (self.index.path,)

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the grid. Raises SceneError if it cannot."""
        out = self.no_pixels(window.shape)
        wanted = None if self.area is None else self.area.inside(window)
        if wanted is not None and not wanted.any():
            return out
        scenes = self.scenes_at(window)
        if self.composite == "mean":
            mean_of(self.read_one, scenes, out, window, self.nodata)
        elif self.composite == "median":
            median_of(self.read_one, scenes, out, window, self.nodata)
        else:
            self._take_first(scenes, out, window, wanted)
        if wanted is not None:
            for band, sentinel in zip(out.data, self.nodata, strict=True):
                band[~wanted] = missing_value(self.dtype, sentinel)
            np.logical_and(out.valid, wanted, out=out.valid)
        return out

    def _take_first(self, scenes: Sequence[int], out: Pixels, window: Window, wanted: NDArray[np.bool_] | None) -> None:
        """Fill in the pixels of the first scene that observed each, until all that are wanted are there."""
        for number in scenes:
            if (pixels := self.read_one(number, window)) is not None:
                new = pixels.valid & ~out.valid
                np.copyto(out.data, pixels.data, where=new)
                np.logical_or(out.valid, new, out=out.valid)
                if (out.valid if wanted is None else out.valid | ~wanted).all():
                    return

    def read_one(self, number: int, window: Window) -> Pixels | None:
        """Read what one scene of the index has of a window, masked and adjusted; None: nothing.

        Missing samples are the mosaic's nodata. Raises SceneError if it cannot be read.
        """
        pixels = read_scene(self.scene(number).source, self.geobox, window, self.resampling)
        if pixels is None:
            return None
        taken = self.taken(number, pixels, self.geobox, window)
        return taken if taken.valid.any() else None

    def taken(self, number: int, pixels: Pixels, geobox: GeoBox, window: Window) -> Pixels:
        """Return raw pixels of one scene, a window of whatever grid they were read on, masked and adjusted."""
        valid = pixels.valid
        for mask in self.scene_masks:
            valid = valid & ~mask.masked(self.index.scene(number), geobox, window)
        data = with_nodata(pixels.data, self.scene(number).source.nodata, self.nodata)
        return self.adjusted(number, Pixels(data, valid, pixels.fresh or data is not pixels.data))

    @property
    def chooses(self) -> bool:
        """Whether each pixel is that of one scene, which `chosen` says."""
        return self.composite not in ("median", "mean")

    def chosen(self, window: Window) -> NDArray[np.int32]:
        """Return the number of the scene that gave each pixel of a window, int32 `(y, x)`; -1: none did."""
        numbers = np.full(window.shape, -1, np.int32)
        for number in self.scenes_at(window):
            pixels = self.read_one(number, window)
            if pixels is not None:
                numbers[pixels.valid & (numbers < 0)] = number
            if (numbers >= 0).all():
                break
        return numbers

    def adjusted(self, number: int, pixels: Pixels) -> Pixels:
        """Return raw pixels of one scene, on whatever grid they were read, as the mosaic has them."""
        adjustment = self.adjustments.get(number)
        return adjust(pixels, adjustment, self.nodata) if adjustment else pixels

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Return where any scene observed anything: bool `(y, x)`."""
        return self.read(window).valid

    def to_xarray(self, chunk: int | None = None) -> xr.DataArray:
        """Return a lazy array of dims (band, y, x) as `open_scene` does, with chunks of so many pixels."""
        return lazy_array(self, chunk)

    def scenes_at(self, window: Window) -> Sequence[int]:
        """Return the numbers of the scenes that may touch a window, in their order."""
        return [self.order[place] for place in footprints(self.index, self.geobox, self.order).at(window)]

    def blocks_touched(self, side: int) -> NDArray[np.bool_]:
        """Return which blocks of `side` pixels any scene touches: bool, rows and columns of blocks."""
        found = footprints(self.index, self.geobox, self.order).touched(self.geobox, side)
        if self.area is None:
            return found
        return found & touched_blocks(np.array([self.area.shape], object), self.geobox, side)

    def select(self, bands: BandNames) -> "MosaicSource":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""
        asked = (bands,) if isinstance(bands, str | int) else tuple(bands)
        if self.band_choice:
            raise SceneError("bands of a mosaic are taken once")
        held, taken = self._first.raster_bands, self._first.select(asked).raster_bands
        places = [held.index(band) for band in taken]
        adjustments = {number: tuple(by[place] for place in places) for number, by in self.adjustments.items()}
        return replace(self, band_choice=asked, adjustments=adjustments)

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""
        return replace(self, file_notes=(*self.file_notes, note))

    def identity(self) -> dict[str, Any]:
        """Return what the scenes hold, in their order, the grid, and how they are put together, briefly."""
        order = np.array(self.order)
        ids = self.index.ids[order].tolist()
        return {
            "scenes": sha256("\n".join(self.index.digests[order]).encode()).hexdigest(),
            "bands": [*self.band_choice],
            "grid": self.geobox.describe(),
            "composite": self.composite,
            "resampling": self.resampling,
            **({"area": self.area.digest} if self.area else {}),
            **({"mask": [mask.identity(ids) for mask in self.scene_masks]} if self.scene_masks else {}),
            **({"adjustments": _digest(self.adjustments)} if self.adjustments else {}),
        }


@lru_cache(maxsize=4096)
def _with_bands(index: SceneIndex, number: int, bands: tuple[str | int, ...]) -> IndexedScene:
    scene = index.scene(number)
    return replace(scene, source=scene.source.select(bands)) if bands else scene


def with_nodata(data: NDArray[Any], own: tuple[float | None, ...], nodata: tuple[float | None, ...]) -> NDArray[Any]:
    """Return data with another value for missing samples; an observed sample of that value becomes the next one."""
    if all(one == other or (one != one and other != other) for one, other in zip(own, nodata, strict=True)):
        return data
    moved = data.copy()
    for band, mine, other in zip(moved, own, nodata, strict=True):
        missing = missing_samples(band, mine)
        if mine == other or other is None:
            continue
        band[:] = as_type(band.astype(np.float64), band.dtype, other)
        if missing is not None:
            band[missing] = missing_value(band.dtype, other)
    return moved


def _digest(adjustments: Mapping[int, Adjustment]) -> str:
    return sha256(repr(sorted(adjustments.items())).encode()).hexdigest()
