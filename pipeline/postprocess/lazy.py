"""Cleaning and labelling lazily: Datasets in and out that compute only what is looked at.

The same functions on blocks as for stores. What context around a block decides is computed for the blocks looked at;
what needs the components of the whole scene is computed for all of it, once something is looked at.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from models.encoding import ClassMap, Thresholds
from models.errors import StoreError
from models.options import chosen, documents

from ..grid.geobox import Window
from ..grid.pixel_area import pixel_areas
from ..io.array import array_source
from ..objects.label import BlockLabels, Connectivity, Totals, check_connectivity, find_objects
from ..objects.objects import object_ids
from ..objects.tree import merge_labels_in_memory
from ..store.dataset import maps_background
from ..store.metadata import BACKGROUND, background_flag, objects_attributes
from .morphology import local_halo, smooth
from .options import CleanOptions, Element, Removed, ResolvedOptions, SizeLike
from .sieve import Stage, finish_stage, removal_halo, remove_by_halo, scene_stages, stage_labels
from .threshold import above_high, apply_threshold

BLOCK = 2048  # of maps that are in memory and not cut yet


@documents(CleanOptions)
def clean(
    maps: xr.Dataset,
    *,
    threshold: Thresholds | None = None,
    minimum: float | None = None,
    hysteresis: Thresholds | None = None,
    majority: int | None = None,
    erosion: int | None = None,
    dilation: int | None = None,
    opening: int | None = None,
    closing: int | None = None,
    element: Element = "disk",
    min_object: SizeLike | None = None,
    min_hole: SizeLike | None = None,
    connectivity: Connectivity = 4,
    classes: Sequence[str] | None = None,
    removed: Removed | None = None,
    background: str | Literal[False] | None = None,
) -> xr.Dataset:
    """Clean maps lazily.

    Parameters
    ----------
    maps
        As `segment` or `open_maps` gives them: `class_map` uint8 (y, x), 255 = not observed, and for thresholds
        `probability` (class, y, x).
    {CleanOptions}

    Returns
    -------
    xarray.Dataset
        The same with another `class_map`, backed by dask; nothing is computed. Sizes up to 256 pixels need context
        around what is looked at; larger ones, m² and hysteresis need the whole scene.

    Raises
    ------
    SwatheError
        An option makes no sense or does not fit the maps.
    """
    asked, maps = chosen(CleanOptions, locals()), _checked(maps)
    names, kept = _class_names(maps), None
    if "probability" in maps:
        plain = [name.replace(" ", "_") for name in names]
        kept = [plain.index(str(name).replace(" ", "_")) for name in maps["class"].values]
    areas = pixel_areas(array_source(maps["class_map"]).geobox) if asked.needs_areas else None
    options = asked.resolve(names, kept, background=maps_background(maps), has_areas=areas is not None)

    def decide(class_map: da.Array, stage: Stage, above: da.Array | None = None) -> da.Array:
        find = partial(stage_labels, stage=stage, options=options, areas=areas)
        finish = partial(finish_stage, stage=stage, options=options)
        return map_components(class_map, find, finish, np.uint8, options.connectivity, above)

    cleaned = _cut(maps["class_map"].data)
    if options.kept:
        probability = da.asarray(maps["probability"].transpose("class", "y", "x").data)
        both, more = (cleaned, probability.rechunk((-1, *cleaned.chunks))), {"options": options, "drop_axis": 0}
        cleaned = da.map_blocks(apply_threshold, *both, dtype=np.uint8, **more)
        if options.low is not None:
            above = da.map_blocks(above_high, *both, dtype=bool, **more)
            cleaned = decide(cleaned, "hysteresis", above)
    cleaned = _with_context(smooth, cleaned, local_halo(options), options)
    stages = scene_stages(options)
    if not stages:
        cleaned = _with_context(remove_by_halo, cleaned, removal_halo(options) or 0, options)
    for stage in stages:
        if stage != "hysteresis":
            cleaned = decide(cleaned, stage)
    made = maps["class_map"].copy(data=cleaned)
    return maps.assign(class_map=made.assign_attrs({BACKGROUND: background_flag(options.background_value)}))


def label_objects(maps: xr.Dataset, *, connectivity: Connectivity = 4) -> xr.DataArray:
    """Find and number the objects of maps lazily.

    Parameters
    ----------
    maps
        See `clean`. Objects are connected regions of any class but the background, if there is one.
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
    check_connectivity(connectivity)
    class_map = _checked(maps)["class_map"]
    find = partial(find_objects, connectivity=connectivity, background=maps_background(maps))
    numbered = map_components(_cut(class_map.data), find, lambda _, *found: object_ids(*found), np.int64, connectivity)
    objects: xr.DataArray = class_map.copy(data=numbered).rename("objects")
    objects.attrs = {"long_name": objects_attributes()["long_name"]}
    return objects


def _class_names(maps: xr.Dataset) -> list[str]:
    """Return the classes of maps by value, from a store's own metadata or from the CF flags."""
    if names := maps.attrs.get("classes"):
        return [names] if isinstance(names, str) else list(names)  # NetCDF makes one text of a list of one
    if own := maps.attrs.get("swathe"):
        return [info["name"] for info in own["classes"]]
    try:
        return list(str(maps["class_map"].attrs["flag_meanings"]).split())
    except KeyError:
        raise StoreError(
            "these maps have no class_map with flag_meanings; give what segment or open_maps gives"
        ) from None


def _checked(maps: xr.Dataset) -> xr.Dataset:
    """Return maps with their rows first. Raises StoreError where they have no class map as it is kept."""
    array = maps.get("class_map")
    if array is None or set(array.dims) != {"y", "x"} or array.dtype != np.uint8:
        received = "none" if array is None else f"{array.dtype} {array.dims}"
        raise StoreError(f"maps hold a class_map uint8 (y, x), as segment and open_maps give it; received {received}")
    return maps.transpose(..., "y", "x")


def _cut(pixels: Any) -> da.Array:
    return pixels if isinstance(pixels, da.Array) else da.from_array(pixels, chunks=BLOCK)


def _with_context(
    make: Callable[[ClassMap, ResolvedOptions], ClassMap], pixels: da.Array, halo: int, options: ResolvedOptions
) -> da.Array:
    """Make blocks from windows with context, cut at the scene's edges. Without a halo there is nothing to do."""
    if not halo:
        return pixels
    depth = {axis: min(halo, size) for axis, size in enumerate(pixels.shape)}
    meta = np.empty((0, 0), np.uint8)
    return da.map_overlap(make, pixels, options=options, depth=depth, boundary="none", dtype=np.uint8, meta=meta)


def map_components(
    class_map: da.Array,
    find: Callable[..., BlockLabels],
    finish: Callable[[ClassMap, BlockLabels, Totals], NDArray[Any]],
    dtype: Any,
    connectivity: int,
    beside: da.Array | None = None,
) -> da.Array:
    """Find the components of each block, merge those of all blocks, and finish each block with whole totals.

    Parameters
    ----------
    class_map
        uint8 (y, x).
    find
        Labels a block, given its pixels, window, the scene's shape, and its pixels of `beside`.
    finish
        Makes the result, given the block's pixels, what was found, and the totals of its open components.
    dtype
        Of the result.
    connectivity
        4 or 8.
    beside
        (y, x), cut alike; None: nothing else is looked at.
    """
    rows, columns = ([0, *np.cumsum(sizes).tolist()] for sizes in class_map.chunks)
    windows = [[Window(t, b, x, y) for x, y in pairwise(columns)] for t, b in pairwise(rows)]
    blocks, extras = class_map.to_delayed(), [] if beside is None else [beside.to_delayed()]
    token = tokenize(class_map.name, find, connectivity, beside)  # what is found may hang on more than the pixels

    def labelled(r: int, c: int) -> Any:
        beside_it = [extra[r, c] for extra in extras]
        key = f"find-{token}-{r}-{c}"
        return dask.delayed(find)(blocks[r, c], windows[r][c], class_map.shape, *beside_it, dask_key_name=key)

    def finished(r: int, c: int) -> da.Array:
        pixels = dask.delayed(finish)(blocks[r, c], found[r][c], merged[r][c])
        return da.from_delayed(pixels, windows[r][c].shape, dtype)

    found = [[labelled(r, c) for c in range(len(line))] for r, line in enumerate(windows)]
    merged = dask.delayed(merge_labels_in_memory)([[one.region for one in line] for line in found], connectivity)
    return da.block([[finished(r, c) for c in range(len(line))] for r, line in enumerate(windows)])
