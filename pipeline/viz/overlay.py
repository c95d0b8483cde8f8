"""A class map laid over its image, as one picture of any part of a scene of any size; and the file of it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ArgumentError, BundleError, StoreError
from models.files import check_output, whole_file
from models.metadata import ClassInfo

from ..grid.geobox import GeoBox, Window
from ..io.raster import RasterSource
from ..io.scene import SceneLike, open_source
from ..io.source import BandNames, Source
from .colors import RGB, Style, paint, stretch
from .preview import LONGEST, MapsLike, make_view, maps_classes, maps_foreground, maps_geobox, read_image, read_maps


def overlay(
    scene: SceneLike,
    maps: MapsLike,
    *,
    window: Window | None = None,
    longest: int = LONGEST,
    bands: BandNames | None = None,
    percentiles: tuple[float, float] = (2, 98),
    style: Style = "both",
    opacity: float = 0.6,
    classes: Sequence[str] | None = None,
    colours: Mapping[str, str] | None = None,
) -> NDArray[np.uint8]:
    """Lay a class map over its image. Memory does not grow with the scene.

    Parameters
    ----------
    scene
        See `open_scene`.
    maps
        A finished store's path or URL, or a Dataset as `open_maps` gives it; on the scene's grid.
    window
        The part to show; None: all. One that is not larger than `longest` is shown pixel for pixel.
    longest
        Longer side of the picture, in pixels. Larger windows are read smaller, from overviews where there are any.
    bands
        Three bands by name or number (from 1), or one for grey. None: red, green, blue by name, else the first three.
    percentiles
        Of each band's observed values: what is drawn black, and what is drawn full.
    style
        `mask`, `outline`, or `both`.
    opacity
        Of the mask, 0..1.
    classes
        Names of those to draw; None: all but the background, if there is one.
    colours
        By class name, as `"ff8800"`; the others keep their own.

    Returns
    -------
    numpy.ndarray
        uint8 `(y, x, 3)`; pixels that were not observed are white. `write_picture` keeps it.

    Raises
    ------
    SceneError
        The scene cannot be read, or has no such bands.
    StoreError
        The store is not finished; the maps lie on another grid.
    ArgumentError
        No such window, class, style or colour.
    """
    if style not in ("mask", "outline", "both"):
        raise ArgumentError(f"a style is 'mask', 'outline' or 'both'; received {style!r}")
    if not 0 <= opacity <= 1:
        raise ArgumentError(f"opacity lies between 0 and 1; received {opacity}")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ArgumentError(f"percentiles are two rising numbers of 0 to 100; received {percentiles}")
    geobox = maps_geobox(maps)
    source = open_on_grid(scene, geobox)
    chosen = class_colours(maps_classes(maps), maps_foreground(maps), classes, colours)
    view = make_view(geobox, window, longest)
    pixels = read_image(source, view, bands)
    small = read_maps(maps, view)
    shown = paint(stretch(pixels.data, pixels.valid, percentiles), small.class_map, chosen, style, opacity)
    return (shown * 255).round().astype(np.uint8)


def write_picture(pixels: NDArray[np.uint8], output: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a picture uint8 `(y, x, 3)` whole, as the name's ending says: .png, .jpg or .webp.

    Parameters
    ----------
    pixels
        Red, green and blue.
    output
        The file to write.
    overwrite
        Replace a file that is there.

    Raises
    ------
    ArgumentError
        Another ending.
    StoreError
        The file exists, or cannot be written.
    """
    from PIL import Image

    target = check_output(output, overwrite=overwrite)
    if target.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ArgumentError(f"a picture's name ends in .png, .jpg or .webp; received {target.name}")
    with whole_file(target) as part:
        Image.fromarray(pixels).save(part, quality=88)
    return target


def open_on_grid(scene: SceneLike, grid: GeoBox, *, alpha: bool | None = None, untrusted: bool = False) -> Source:
    """Open the scene of maps that lie on a grid; see `open_scene`. Raises StoreError if it lies on another one."""
    source = open_source(scene, alpha=alpha, untrusted=untrusted)
    if isinstance(source, RasterSource) and any(b.geobox and b.geobox.same_grid(grid) for b in source.raster_bands):
        source = source.on_grid(grid)  # the bands that the maps were made of may lie on a coarser grid than all of them
    refuse_other_grid(source.geobox, grid)
    return source


def refuse_other_grid(scene: GeoBox, maps: GeoBox) -> None:
    """Refuse an image whose pixels are not those of the maps. Raises StoreError with both grids."""
    if not scene.same_grid(maps):
        raise StoreError(
            f"the scene lies on another grid than the maps: {scene.describe()};\n"
            f"against {maps.describe()}. Give the scene that the maps were made from"
        )


def class_colours(
    classes: Sequence[ClassInfo],
    foreground: Sequence[int],
    wanted: Sequence[str] | None = None,
    changed: Mapping[str, str] | None = None,
) -> dict[int, RGB]:
    """Return the colour of each class that is drawn, by value.

    Parameters
    ----------
    classes
        All of the maps.
    foreground
        Values of those that are drawn where nothing is wanted.
    wanted, changed
        Names of those to draw, and colours by name in place of their own; see `overlay`.

    Raises
    ------
    ArgumentError
        No such class, or not a colour.
    """
    names = [info.name for info in classes]
    for name in [*(wanted or []), *(changed or {})]:
        if name not in names:
            raise ArgumentError(f"no class {name!r}; the maps have: {', '.join(names)}")
    try:
        infos = [ClassInfo(i.name, (changed or {}).get(i.name, i.color).lstrip("#")) for i in classes]
    except BundleError as error:
        raise ArgumentError(str(error)) from error
    drawn = foreground if wanted is None else [names.index(name) for name in wanted]
    return {value: info.rgb for value, info in enumerate(infos) if value in drawn}
