"""The sieve: which components are too small, and the class that each becomes. Numbers only: no dask, no store.

Objects are components of the chosen classes, holes those of the background, and hysteresis looks at components of
candidates. The same functions serve windows whose halo decides and the totals of components of a whole scene.
"""

from math import ceil
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from models.encoding import ClassMap

from ..grid.geobox import Window
from ..objects.label import BlockLabels, Labels, Totals, summarize_block
from .options import ResolvedOptions, Size

if TYPE_CHECKING:
    from ..grid.pixel_area import PixelAreas

Stage = Literal["hysteresis", "objects", "holes"]

WIDEST_HALO = 256  # pixels; beyond it a table of components is less work than reading so much around each block


def removal_halo(options: ResolvedOptions) -> int | None:
    """Return the pixels around a window with which `remove_by_halo` is right, beside `local_halo`.

    A component of fewer than n pixels that holds a pixel of the window lies, with its neighbours, within n - 1 pixels
    of it; one that reaches the edge of such a halo has n pixels before. Holes are looked for after objects are gone, so
    both halos add up.

    Returns
    -------
    int or None
        0: nothing is removed. None: only the components of the whole scene can tell, because a size is in square
        metres, or the halo would be wider than 256, or the map comes from hysteresis.
    """
    sizes = [size for size in _sizes(options).values() if size is not None]
    if not sizes:
        return 0
    halo = sum(max(0, ceil(size.value) - 1) for size in sizes)
    whole_scene = options.low is not None or halo > WIDEST_HALO or any(size.unit != "px" for size in sizes)
    return None if whole_scene else halo


def scene_stages(options: ResolvedOptions) -> tuple[Stage, ...]:
    """Return what needs components of the whole scene, in its order; nothing if context around a block decides all."""
    if options.low is None and removal_halo(options) is not None:
        return ()
    asked: dict[Stage, object] = {"hysteresis": options.low, **_sizes(options)}
    return tuple(stage for stage, option in asked.items() if option is not None)


def remove_by_halo(class_map: ClassMap, options: ResolvedOptions) -> ClassMap:
    """Remove small objects, then fill small holes, in one window with its halo, or in a whole scene.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, 255 = nodata, which stays; cut at the scene's edges.
    options
        With sizes in pixels.

    Returns
    -------
    NDArray
        uint8 of the same shape; its halo must be thrown away. Of two classes as `skimage.morphology`'s
        `remove_small_objects` and `remove_small_holes`, but where there is no object at all, nothing is a hole.
    """
    window = Window.of((class_map.shape[0], class_map.shape[1]))
    for stage, size in _sizes(options).items():
        if size:
            found = stage_labels(class_map, window, window.shape, stage=stage, options=options)
            class_map = finish_stage(class_map, found, None, stage=stage, options=options)
    return class_map


def stage_labels(
    class_map: ClassMap,
    window: Window,
    shape: tuple[int, int],
    above_high: NDArray[np.bool_] | None = None,
    *,
    stage: Stage,
    options: ResolvedOptions,
    areas: "PixelAreas | None" = None,
) -> BlockLabels:
    """Label what a stage decides on in a block, and add up what it needs of it.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`, as it is before the stage.
    window, shape
        Where it lies in the scene, and the scene's rows and columns.
    above_high
        bool `(y, x)`: which candidates of hysteresis are above the higher threshold; for that stage only.
    stage, options
        What is decided.
    areas
        Of the scene's pixels; only for sizes in square metres.
    """
    which = class_map == options.background_value if stage == "holes" else np.isin(class_map, options.values)
    return summarize_block(
        class_map, window, shape, options.connectivity, which, above_high=above_high,
        classes=options.num_classes if _needs_borders(options, stage) else 0,
        areas=None if areas is None else areas.of(window),
    )  # fmt: skip


def finish_stage(
    class_map: ClassMap, found: BlockLabels, merged: Totals | None, *, stage: Stage, options: ResolvedOptions
) -> ClassMap:
    """Return a block after a stage, uint8 `(y, x)`.

    Parameters
    ----------
    class_map
        As it is before the stage.
    found
        From `stage_labels`.
    merged
        Totals of the open components in the whole scene. None: as if all components ended in the block.
    stage, options
        What is decided.
    """
    return replace_components(class_map, found.labels, replacement_class(found.whole(merged), options, stage))


def replacement_class(totals: Totals, options: ResolvedOptions, stage: Stage) -> NDArray[np.uint8]:
    """Return the class that each component becomes, uint8 `(n,)`; its own where it stays.

    Parameters
    ----------
    totals
        Of whole components, with what the stage needs. Borders are with the classes of the map before any component of
        this kind is removed; of equally long ones, the lowest class counts; a component without any becomes
        background, or stays where there is no background.
    options, stage
        What is decided.
    """
    background = options.background_value
    becomes = totals.value if background is None else np.full(len(totals), background, np.uint8)
    if _needs_borders(options, stage):
        longest = totals.borders.argmax(axis=1).astype(np.uint8)  # the first of them
        fills = np.isin(longest, options.values) if stage == "holes" else True
        becomes = np.where(totals.borders.any(axis=1) & fills, longest, becomes)
    return np.where(to_replace(totals, options, stage), becomes, totals.value)


def to_replace(totals: Totals, options: ResolvedOptions, stage: Stage) -> NDArray[np.bool_]:
    """Return which components are too small, or have no pixel above the higher threshold: bool `(n,)`.

    A part of a component may be where the whole is not, never otherwise.
    """
    if stage == "hysteresis":
        return ~totals.above_high
    size = _sizes(options)[stage]
    if size is None:
        return np.zeros(len(totals), bool)
    return np.asarray((totals.pixels if size.unit == "px" else totals.area) < size.value)


def replace_components(class_map: ClassMap, labels: Labels, becomes: NDArray[np.uint8]) -> ClassMap:
    """Return the map with each component's class replaced, uint8 `(y, x)`; `becomes` is of label 1 and on."""
    return np.where(labels > 0, np.append(np.uint8(0), becomes)[labels], class_map)


def _sizes(options: ResolvedOptions) -> dict[Stage, Size | None]:
    return {"objects": options.object_size, "holes": options.hole_size}


def _needs_borders(options: ResolvedOptions, stage: Stage) -> bool:
    """Whether a stage looks at the borders of components: holes do, and objects that take the class around them."""
    return stage == "holes" or (stage == "objects" and options.removed == "surrounding")
