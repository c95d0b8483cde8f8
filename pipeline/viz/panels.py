"""Panels of a result side by side in one PNG: image, probability, map, objects."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.encoding import NODATA
from models.errors import ArgumentError, StoreError
from models.files import check_output, whole_file
from models.metadata import ClassInfo

from ..grid.geobox import GeoBox, Window
from ..io.scene import SceneLike
from ..io.source import BandNames
from .colors import paint, paint_objects, stretch
from .overlay import class_colours, open_on_grid, refuse_other_grid
from .preview import (
    MapsLike,
    SmallMaps,
    View,
    make_view,
    maps_classes,
    maps_foreground,
    maps_geobox,
    read_image,
    read_maps,
)

INK, PAPER = "#1c2733", "#ffffff"


def panels(scene: xr.DataArray, maps: xr.Dataset, classes: Sequence[ClassInfo], path: Path, title: str) -> Path:
    """Write one picture of three panels: image, probability of the last class kept, map over the image.

    Parameters
    ----------
    scene
        As `open_scene` gives it.
    maps
        As `open_maps` gives it, on the same grid.
    classes
        Names and colours.
    path, title
        The PNG to write, and what stands over it.
    """
    shown, small = _seen(scene, maps, make_view(maps_geobox(maps)))
    foreground = maps_foreground(maps)
    aspect = shown.shape[0] / shown.shape[1]
    wide = aspect < 0.5  # then one above the other
    figure = _blank(12, min(30, 3 * (12 * aspect + 0.4) + 1.3)) if wide else _blank(16, min(20, 5.2 * aspect + 1.6))
    left, middle, right = figure.subplots(3, 1) if wide else figure.subplots(1, 3)
    probability = f"probability of {small.probability_of}"
    _panel(left, "image", shown)
    drawn = _panel(middle, probability, small.probability)
    _panel(right, "map", paint(shown, small.class_map, class_colours(classes, foreground)))
    bar = figure.colorbar(drawn, ax=[left, middle, right], orientation="horizontal", fraction=0.04, aspect=60, pad=0.02)
    bar.set_label(probability, color=INK)
    right.legend(handles=_legend(small.class_map, classes, foreground), loc="lower left", framealpha=0.9, fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=14)
    figure.savefig(path, dpi=110, metadata={"Software": "Swathe"})
    return path


def five_panels(
    scene: SceneLike,
    maps: MapsLike,
    output: str | os.PathLike[str],
    *,
    objects: MapsLike | None = None,
    window: Window | None = None,
    longest: int = 1200,
    bands: BandNames | None = None,
    probability_of: str | None = None,
    title: str = "",
    overwrite: bool = False,
) -> Path:
    """Write the five stages in one PNG: image, probability, cleaned mask, mask over the image, objects.

    The order is that of deepsense.ai's article on semantic segmentation of satellite images.

    Parameters
    ----------
    scene, maps, window, longest, bands
        See `overlay`. `maps` is the cleaned store where there is one.
    output
        The PNG to write.
    objects
        A store with the array `objects`, or such a Dataset. None: that of `maps`, if it has one; else regions of one
        class are told apart as this picture shows them.
    probability_of
        The class whose probability is shown; None: the last that is kept. Without any, that panel says so.
    title
        What stands over it.
    overwrite
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    SceneError, StoreError, ArgumentError
        As `overlay`; or the file exists, cannot be written, or is no PNG.
    """
    target = check_output(output, overwrite=overwrite)
    if target.suffix.lower() != ".png":
        raise ArgumentError(f"five panels are written as .png; received {target.name}")
    geobox = maps_geobox(maps)
    source = open_on_grid(scene, geobox)
    view = make_view(geobox, window, longest)
    classes, foreground = maps_classes(maps), maps_foreground(maps)
    shown, small = _seen(source, maps, view, bands, probability_of)
    aspect = shown.shape[0] / shown.shape[1]
    rows, columns = (3, 2) if aspect < 0.6 else (2, 3)
    across = 16 if aspect < 1.6 else 11
    figure = _blank(across, min(34.0, rows * (across / columns * aspect + 0.45) + 0.6))
    *places, key = figure.subplots(rows, columns).ravel()
    colours, flat = class_colours(classes, foreground), np.ones_like(shown)
    flat[small.class_map != NODATA] = 0.93  # what shows of it is the background
    pictures = [
        ("image", shown),
        (f"probability of {small.probability_of}", small.probability),
        ("map", paint(flat, small.class_map, colours, "mask", 1.0)),
        ("map over the image", paint(shown, small.class_map, colours)),
        _objects_over(shown, small, foreground, objects, geobox, view),
    ]
    for axes, (text, picture) in zip(places, pictures, strict=True):
        _panel(axes, text, picture, interpolation="nearest")
    _key(key, small, _legend(small.class_map, classes, foreground))
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=15)
    with whole_file(target) as part:
        figure.savefig(part, dpi=110, metadata={"Software": "Swathe"})
    return target


def _seen(
    scene: Any, maps: MapsLike, view: View, bands: BandNames | None = None, probability_of: str | None = None
) -> tuple[NDArray[np.float32], SmallMaps]:
    pixels = read_image(scene, view, bands)
    return stretch(pixels.data, pixels.valid), read_maps(maps, view, probability_of)


def _objects_over(
    shown: NDArray[np.float32],
    small: SmallMaps,
    foreground: Sequence[int],
    objects: MapsLike | None,
    geobox: GeoBox,
    view: View,
) -> tuple[str, NDArray[np.float32]]:
    """Draw objects as they are kept, or regions of this picture, over the image in grey and pale; with the caption."""
    if objects is not None:
        refuse_other_grid(maps_geobox(objects), geobox)
        small = read_maps(objects, view)
        if small.objects is None:
            raise StoreError("these maps have no array `objects`; `swathe objects` makes it")
    ids, caption = small.objects, "objects"
    if ids is None:
        from skimage.measure import label

        classes = np.where(np.isin(small.class_map, foreground), small.class_map.astype(np.int64), -1)
        regions = label(classes, background=-1, connectivity=1)
        ids, caption = regions.astype(np.int64), "objects, as this picture shows them"
    ground: NDArray[np.float32] = 0.45 * shown.mean(axis=2, keepdims=True).repeat(3, axis=2) + 0.55
    ground[ids > 0] = 0.15 * ground[ids > 0] + 0.85 * paint_objects(ids)[ids > 0]
    return caption, ground


def _panel(axes: Any, text: str, picture: NDArray[np.float32] | None, **how: Any) -> Any:
    """Draw an image `(y, x, 3)` or a probability `(y, x)` under its title; say so where none was kept."""
    axes.set_axis_off()
    axes.set_title("probability" if picture is None else text, loc="left", color=INK, fontsize=12)
    if picture is not None:
        return axes.imshow(picture, vmin=0, vmax=1, cmap="magma", **how)
    return axes.text(0.5, 0.5, "no probability was kept", ha="center", va="center", color=INK, transform=axes.transAxes)


def _key(axes: Any, small: SmallMaps, legend: list[Any]) -> None:
    """Say what the colours mean: classes with their shares, and the scale of the probability."""
    axes.set_axis_off()
    axes.legend(handles=legend, loc="upper left", frameon=False, fontsize=13)
    if small.probability is None:
        return
    scale = axes.inset_axes((0.03, 0.18, 0.7, 0.07))
    scale.imshow(np.linspace(0, 1, 256)[None], aspect="auto", cmap="magma", extent=(0, 1, 0, 1))
    scale.set(yticks=[], xticks=[0, 0.5, 1])
    scale.set_title(f"probability of {small.probability_of}", loc="left", color=INK, fontsize=12)


def _blank(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")


def _legend(class_map: NDArray[np.uint8], classes: Sequence[ClassInfo], foreground: Sequence[int]) -> list[Any]:
    from matplotlib.patches import Patch

    observed = max(1, int((class_map != NODATA).sum()))
    return [
        Patch(
            color=f"#{classes[v].color}",
            label=f"{classes[v].name}  {100 * int((class_map == v).sum()) / observed:.1f} %",
        )
        for v in foreground
    ]
