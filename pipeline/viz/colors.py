"""Colours: raw values, class maps, probabilities and object ids into pixels of a picture. Arrays only, no files."""

import colorsys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Style = Literal["mask", "outline", "both"]
RGB = tuple[int, int, int]
GROUND: RGB = (222, 217, 206)  # the background, which has no colour of its own where there is no image below
OBJECT_COLOURS = 240  # so that a picture of objects fits into a palette of 256


def stretch(
    image: NDArray[Any], valid: NDArray[np.bool_], percentiles: tuple[float, float] = (2, 98)
) -> NDArray[np.float32]:
    """Stretch raw values `(band, y, x)` to 0..1, `(y, x, 3)`, between two percentiles of what is observed.

    Parameters
    ----------
    image
        Three bands, or one for grey. Samples that are not finite do not count, and are drawn dark.
    valid
        Where pixels are observed; elsewhere stands paper: 1.
    percentiles
        What is drawn black, and what is drawn full, for each band on its own.
    """
    shown = scale(image, limits(image, valid, percentiles))
    shown[~valid] = 1
    return shown


def limits(
    image: NDArray[Any], valid: NDArray[np.bool_], percentiles: tuple[float, float] = (2, 98)
) -> NDArray[np.float64]:
    """Return what is drawn black and what is drawn full, `(band, 2)`: percentiles of a band's finite valid values."""
    seen = (band[valid & np.isfinite(band)].astype(np.float32) for band in image)
    return np.array([np.percentile(part, percentiles) if part.size else (0, 1) for part in seen], np.float64)


def scale(image: NDArray[Any], limits: NDArray[np.float64]) -> NDArray[np.float32]:
    """Draw three bands, or one as grey, `(y, x, 3)` of 0..1, between the limits of each; missing values are dark."""
    shown = np.empty((*image.shape[1:], 3), np.float32)
    for place in range(3):
        band = 0 if len(image) == 1 else place
        low, high = limits[band]
        values = np.nan_to_num(image[band].astype(np.float32), nan=low)
        shown[..., place] = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
    return shown


def paint(
    shown: NDArray[np.float32],
    class_map: NDArray[np.uint8],
    colours: Mapping[int, RGB],
    style: Style = "both",
    opacity: float = 0.6,
) -> NDArray[np.float32]:
    """Lay class colours over an image `(y, x, 3)` of 0..1.

    Parameters
    ----------
    shown, class_map
        Of one size.
    colours
        By class value; classes that are not among them stay clear.
    style
        `mask`: filled at the opacity; `outline`: a line of two pixels within the class; `both`.
    opacity
        Of the filling, 0..1. Outlines are solid.
    """
    painted = shown.copy()
    for value, rgb in colours.items():
        inside, colour = class_map == value, np.array(rgb, np.float32) / 255
        if style != "outline":
            painted[inside] = (1 - opacity) * painted[inside] + opacity * colour
        if style != "mask":
            painted[edge(inside)] = colour
    return painted


def edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the outermost two pixels of a mask, along its own inner side; not along the picture's margin."""
    from skimage.morphology import disk, erosion

    core: NDArray[np.bool_] = erosion(inside, disk(2))
    return inside & ~core


def object_index(ids: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return each object's place in `object_palette`, by its id alone, so that every window draws it alike; 0 = none.

    The bits of the id are mixed as in SplitMix64 (Steele, Lea, Flood 2014): neighbours have neighbouring ids.
    """
    mixed = ids.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    index = (mixed ^ (mixed >> np.uint64(31))) % np.uint64(OBJECT_COLOURS) + np.uint64(1)
    return np.where(ids > 0, index, 0).astype(np.uint8)


@lru_cache(maxsize=1)
def object_palette() -> NDArray[np.uint8]:
    """Return colours that are told apart, `(241, 3)`: hues a golden angle apart, three tones; the first is unused."""
    tones = (0.62, 0.5, 0.72)
    colours = [colorsys.hls_to_rgb(place * 0.6180339887 % 1, tones[place % 3], 0.65) for place in range(OBJECT_COLOURS)]
    return (np.array([(0, 0, 0), *colours]) * 255).round().astype(np.uint8)


def paint_objects(ids: NDArray[np.int64], paper: float = 1.0) -> NDArray[np.float32]:
    """Draw object ids `(y, x)` in colours that differ, `(y, x, 3)` of 0..1, on paper."""
    index = object_index(ids)
    drawn: NDArray[np.float32] = object_palette()[index].astype(np.float32) / np.float32(255)
    drawn[index == 0] = paper
    return drawn


def probability_colours() -> NDArray[np.uint8]:
    """Return matplotlib's `magma` as a palette `(256, 3)`: dark for 0, light for 1."""
    from matplotlib import colormaps

    return colormaps["magma"](np.arange(256), bytes=True)[:, :3]
