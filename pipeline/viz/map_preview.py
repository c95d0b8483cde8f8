"""Maps, small: what a picture shows of a store or of a Dataset. Memory does not grow with the scene.

Stores are read through their overviews; what is lazy is computed block by block. Knows nothing of colours.
"""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.errors import StoreError
from models.metadata import ClassInfo

from ..grid.geobox import GeoBox, Window
from ..io.array import array_source
from ..store.dataset import open_maps
from ..store.store import open_store
from .preview import View, pick

MapsLike = str | os.PathLike[str] | xr.Dataset


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
    """Say where maps lie."""
    if isinstance(maps, xr.Dataset):
        return array_source(maps["class_map"]).geobox
    return open_store(os.fspath(maps))[0].geobox


def maps_classes(maps: MapsLike) -> tuple[ClassInfo, ...]:
    """Give names and colours of the classes: from a store's own facts, or from the CF flags of a Dataset.

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
        As `open_maps`; or no probability of that class is kept.
    """
    level = 0 if isinstance(maps, xr.Dataset) else _level(os.fspath(maps), view)
    dataset = maps if isinstance(maps, xr.Dataset) else open_maps(maps, level=level)
    probability, name = _probability(dataset, probability_of)
    return SmallMaps(
        class_map=_small(dataset["class_map"], view, level).astype(np.uint8),
        probability=None if probability is None else _small(probability, view, level).astype(np.float32),
        probability_of=name,
        objects=_objects(maps, dataset, view, level),
    )


def _level(path: str, view: View) -> int:
    levels = open_store(path)[0].levels
    return max(level for level in range(levels + 1) if level == 0 or 2**level <= view.factor)


def _probability(dataset: xr.Dataset, wanted: str | None) -> tuple[xr.DataArray | None, str]:
    if "probability" not in dataset:
        if wanted is not None:
            raise StoreError("these maps hold no probability; `swathe segment --probability uint8` keeps it")
        return None, ""
    names = [str(name) for name in dataset["class"].values]
    if wanted is not None and wanted not in names:
        raise StoreError(f"no probability of {wanted!r} is kept; there is that of: {', '.join(names)}")
    place = len(names) - 1 if wanted is None else names.index(wanted)
    return dataset["probability"][place], names[place]


def _objects(maps: MapsLike, dataset: xr.Dataset, view: View, level: int) -> NDArray[np.int64] | None:
    """Read ids; from the full resolution where a store has no overviews of them."""
    if "objects" in dataset:
        return _small(dataset["objects"], view, level).astype(np.int64)
    if level and not isinstance(maps, xr.Dataset) and "objects" in (full := open_maps(maps)):
        return _small(full["objects"], view, 0).astype(np.int64)
    return None


def _small(array: xr.DataArray, view: View, level: int) -> NDArray[Any]:
    """Take a view's pixels of one level of an array `(y, x)`."""
    height, width = array.shape
    rows, columns = np.minimum(view.rows >> level, height - 1), np.minimum(view.columns >> level, width - 1)

    def read(window: Window) -> NDArray[Any]:
        down, across = window.slices
        return np.asarray(array[down, across].compute(scheduler="synchronous").values)

    return pick(read, rows, columns)
