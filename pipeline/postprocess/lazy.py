"""Cleaning and labelling, the lazy way: Datasets in and out that compute only what is looked at.

The same functions on blocks as the durable way. What context around a block decides is computed for the blocks looked
at; what needs the components of the whole scene is computed for all of it, once something is looked at.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Unpack

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from models.errors import PlanError, StoreError

from ..grid.encoding import NODATA
from ..grid.geobox import Window
from ..grid.pixel_area import pixel_areas
from ..io.array import array_source
from ..objects.components import Region, Totals
from ..objects.label import label, region, total
from ..objects.tree import merge_labels_in_memory
from ..store.metadata import objects_attributes
from .morphology import local_halo, smooth
from .options import CleanKeywords, CleanOptions
from .rules import Rules
from .sieve import (
    apply_removal,
    holes_input,
    needs_borders,
    objects_input,
    removal_halo,
    remove_by_halo,
    replacement_class,
)
from .threshold import above_high, apply_threshold, hysteresis_replacement

if TYPE_CHECKING:
    from ..grid.pixel_area import PixelAreas

ClassMap = NDArray[np.uint8]
Found = tuple[NDArray[np.int32], Totals, Region, NDArray[np.int64]]
BLOCK = 2048  # of maps that are in memory and not cut yet


def clean(maps: xr.Dataset, **keywords: Unpack[CleanKeywords]) -> xr.Dataset:
    """Clean maps lazily.

    Parameters
    ----------
    maps
        As `segment` or `open_maps` gives them: `class_map` uint8 (y, x), 255 = not observed, and for thresholds
        `probability` (class, y, x).
    **wishes
        See `pipeline.postprocess.options.CleanOptions`.

    Returns
    -------
    xarray.Dataset
        The same with another `class_map`, backed by dask; nothing is computed. Sizes up to 256 pixels need context
        around what is looked at; larger ones, m² and hysteresis need the whole scene.

    Raises
    ------
    SwatheError
        The wishes make no sense or do not fit the maps.
    """
    settings, maps = CleanOptions(**keywords), _checked(maps)
    names = class_names(maps)
    areas = pixel_areas(array_source(maps["class_map"]).geobox) if settings.needs_areas else None
    rules = settings.rules(names, _kept(maps, names), has_areas=areas is not None or not settings.needs_areas)
    class_map, probability = _arrays(maps, rules)
    made = _decided(class_map, probability, rules)
    if rules.hysteresis:
        marked = da.map_blocks(_strong, class_map, probability, rules=rules, dtype=bool, drop_axis=0)
        made = settled_blocks(made, _hysteresis_of(rules), np.uint8, rules.connectivity, marked)
    smoothed = _with_context(made, local_halo(rules), smooth, rules)
    return maps.assign(class_map=maps["class_map"].copy(data=_removed(smoothed, rules, areas)))


def label_objects(maps: xr.Dataset, *, connectivity: Literal[4, 8] = 4) -> xr.DataArray:
    """Find and number the objects of maps lazily.

    Parameters
    ----------
    maps
        See `clean`. Objects are connected regions of any class but the first.
    connectivity
        4: pixels touch at sides; 8: at corners too.

    Returns
    -------
    xarray.DataArray
        int64 (y, x), backed by dask: 1 + row * width + column of the object's first pixel; 0 where there is none. Any
        part needs the whole scene. For tables and for scenes of any size see `write_objects`.

    Raises
    ------
    SwatheError
        Another connectivity; the maps hold no class map.
    """
    if connectivity not in (4, 8):
        raise PlanError(f"connectivity is 4 (sides) or 8 (sides and corners); received {connectivity!r}")
    maps = _checked(maps)
    class_map = _cut(maps["class_map"].data)

    def found(block: ClassMap, window: Window, shape: tuple[int, int], _: Any) -> Found:
        labels, count = label(np.where(block == NODATA, 0, block).astype(np.uint8), connectivity)
        totals = total(labels, count, block, window, shape[1], classes=1, borders=False)
        return labels, totals, *region(labels, block, totals, window, shape)

    def ids(_: ClassMap, labels: NDArray[np.int32], totals: Totals) -> NDArray[np.int64]:
        return np.append(np.int64(0), totals.first + 1)[labels]

    numbered = settled_blocks(class_map, (found, ids), np.int64, connectivity)
    objects: xr.DataArray = maps["class_map"].copy(data=numbered).rename("objects")
    objects.attrs = {k: v for k, v in objects_attributes().items() if k == "long_name"}
    return objects


def class_names(maps: xr.Dataset) -> list[str]:
    """Give the classes of maps by value, from a store's own facts or from the CF flags."""
    own = maps.attrs.get("swathe")
    if own:
        return [info["name"] for info in own["classes"]]
    try:
        return list(str(maps["class_map"].attrs["flag_meanings"]).split())
    except KeyError:
        raise StoreError(
            "these maps have no class_map with flag_meanings; give what segment or open_maps gives"
        ) from None


def _checked(maps: xr.Dataset) -> xr.Dataset:
    """Give maps with their rows first. Raises StoreError where they have no class map as it is kept."""
    array = maps.get("class_map")
    if array is None or set(array.dims) != {"y", "x"} or array.dtype != np.uint8:
        received = "none" if array is None else f"{array.dtype} {array.dims}"
        raise StoreError(f"maps hold a class_map uint8 (y, x), as segment and open_maps give it; received {received}")
    return maps.transpose(..., "y", "x")


def _kept(maps: xr.Dataset, names: list[str]) -> list[int] | None:
    if "probability" not in maps:
        return None
    plain = [name.replace(" ", "_") for name in names]
    return [plain.index(str(name).replace(" ", "_")) for name in maps["class"].values]


def _arrays(maps: xr.Dataset, rules: Rules) -> tuple[da.Array, da.Array | None]:
    class_map = _cut(maps["class_map"].data)
    if not rules.kept:
        return class_map, None
    probability = da.asarray(maps["probability"].transpose("class", "y", "x").data)
    return class_map, probability.rechunk((-1, *class_map.chunks))


def _cut(pixels: Any) -> da.Array:
    return pixels if isinstance(pixels, da.Array) else da.from_array(pixels, chunks=BLOCK)


def _decided(class_map: da.Array, probability: da.Array | None, rules: Rules) -> da.Array:
    if probability is None:
        return class_map
    return da.map_blocks(_decide, class_map, probability, rules=rules, dtype=np.uint8, drop_axis=0)


def _decide(class_map: ClassMap, probability: NDArray[Any], rules: Rules) -> ClassMap:
    return apply_threshold(class_map.reshape(class_map.shape[-2:]), probability, rules)


def _strong(class_map: ClassMap, probability: NDArray[Any], rules: Rules) -> NDArray[np.bool_]:
    return above_high(class_map.reshape(class_map.shape[-2:]), probability, rules)


def _with_context(pixels: da.Array, halo: int, make: Callable[[ClassMap, Rules], ClassMap], rules: Rules) -> da.Array:
    """Make blocks from windows with context, cut at the scene's edges."""
    if not halo:
        return da.map_blocks(make, pixels, rules, dtype=np.uint8)
    depth = {axis: min(halo, size) for axis, size in enumerate(pixels.shape)}
    meta = np.empty((0, 0), np.uint8)
    return da.map_overlap(make, pixels, rules=rules, depth=depth, boundary="none", dtype=np.uint8, meta=meta)


def _removed(class_map: da.Array, rules: Rules, areas: "PixelAreas | None") -> da.Array:
    halo = removal_halo(rules)
    if halo == 0:
        return class_map
    if halo is not None:
        return _with_context(class_map, halo, remove_by_halo, rules)
    if rules.min_object:
        class_map = settled_blocks(class_map, _removal_of("objects", rules, areas), np.uint8, rules.connectivity)
    if rules.min_hole:
        class_map = settled_blocks(class_map, _removal_of("holes", rules, areas), np.uint8, rules.connectivity)
    return class_map


Finder = Callable[[ClassMap, Window, tuple[int, int], Any], Found]
Finisher = Callable[[ClassMap, NDArray[np.int32], Totals], NDArray[Any]]


def _removal_of(
    which: Literal["objects", "holes"], rules: Rules, areas: "PixelAreas | None"
) -> tuple[Finder, Finisher]:
    def found(block: ClassMap, window: Window, shape: tuple[int, int], _: Any) -> Found:
        values = objects_input(block, rules) if which == "objects" else holes_input(block)
        labels, count = label(values, rules.connectivity)
        known, borders = None if areas is None else areas.of(window), needs_borders(rules, which)
        totals = total(labels, count, block, window, shape[1], classes=rules.num_classes, areas=known, borders=borders)
        return labels, totals, *region(labels, block, totals, window, shape)

    def removed(block: ClassMap, labels: NDArray[np.int32], totals: Totals) -> ClassMap:
        becomes = replacement_class(
            totals.value, totals.pixels, rules, which, area_m2=totals.area, borders=totals.borders
        )
        return apply_removal(block, labels, np.append(np.uint8(0), becomes))

    return found, removed


def _hysteresis_of(rules: Rules) -> tuple[Finder, Finisher]:
    def found(block: ClassMap, window: Window, shape: tuple[int, int], marked: NDArray[np.bool_]) -> Found:
        labels, count = label(np.where(block == NODATA, 0, block).astype(np.uint8), rules.connectivity)
        totals = total(labels, count, block, window, shape[1], classes=1, above_high=marked, borders=False)
        return labels, totals, *region(labels, block, totals, window, shape)

    def kept(block: ClassMap, labels: NDArray[np.int32], totals: Totals) -> ClassMap:
        return apply_removal(
            block, labels, np.append(np.uint8(0), hysteresis_replacement(totals.value, totals.above_high))
        )

    return found, kept


def settled_blocks(
    class_map: da.Array, ways: tuple[Finder, Finisher], dtype: Any, connectivity: int, beside: da.Array | None = None
) -> da.Array:
    """Find the components of each block, join those of all blocks, and finish each block with whole totals."""
    find, finish = ways
    shape, windows = class_map.shape, _windows(class_map)
    blocks = class_map.to_delayed()
    others = None if beside is None else beside.to_delayed()
    token = tokenize(class_map.name, ways, connectivity, beside)  # what is found may hang on more than the pixels
    found = [
        [
            dask.delayed(find, nout=4, pure=True)(
                blocks[r, c], window, shape, None if others is None else others[r, c],
                dask_key_name=f"find-{token}-{r}-{c}",
            )
            for c, window in enumerate(line)
        ]
        for r, line in enumerate(windows)
    ]  # fmt: skip
    whole = dask.delayed(merge_labels_in_memory, pure=True)([[one[2] for one in line] for line in found], connectivity)
    made = [
        [
            da.from_delayed(dask.delayed(_finished)(finish, blocks[r, c], found[r][c], whole[r][c]), w.shape, dtype)
            for c, w in enumerate(line)
        ]
        for r, line in enumerate(windows)
    ]
    return da.block(made)


def _finished(finish: Finisher, block: ClassMap, found: Found, whole: Totals) -> NDArray[Any]:
    labels, totals, _, which = found
    return finish(block, labels, totals.put(which, whole))


def _windows(pixels: da.Array) -> list[list[Window]]:
    rows, columns = ([0, *np.cumsum(sizes).tolist()] for sizes in pixels.chunks)
    return [[Window(t, b, x, y) for x, y in pairwise(columns)] for t, b in pairwise(rows)]
