"""The images of a report as data URIs: the scene, the map, its outlines, probability, objects. Small, from previews."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA
from models.metadata import ClassInfo

from ..io.source import Pixels
from .colors import GROUND, edge, object_index, object_palette, probability_colours, stretch
from .page import data_uri
from .preview import SmallMaps

CLEAR = 255  # the palette's place that is seen through


@dataclass(frozen=True, slots=True)
class Image:
    """One image of the viewer: its data URI, what it shows in words, and whether its strength can be changed."""

    source: str
    words: str
    fades: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """What may lie over the image: one choice of the reader's, drawn by one or two images."""

    key: str
    title: str
    images: tuple[Image, ...]


def scene_image(pixels: Pixels, words: str) -> Image:
    """Draw the scene, clear where it was not observed."""
    shown = (stretch(pixels.data, pixels.valid) * 255).round().astype(np.uint8)
    return Image(_webp(shown, pixels.valid), words)


def map_layers(
    maps: SmallMaps, classes: Sequence[ClassInfo], foreground: Sequence[int], *, over_image: bool
) -> list[Layer]:
    """Draw the map, filled and in outlines; without an image below, its background is drawn too, if it has one."""
    names = ", ".join(classes[value].name for value in foreground)
    fill = maps.class_map.copy()
    fill[~np.isin(maps.class_map, foreground) if over_image else maps.class_map == NODATA] = CLEAR
    palette = np.array([info.rgb if v in foreground else GROUND for v, info in enumerate(classes)], np.uint8)
    filled = Image(_png(fill, palette), f"Map of {names}, filled with the colours of the classes", fades=over_image)
    if not over_image:
        return [Layer("map", "Map", (filled,))]
    drawn = np.full_like(fill, CLEAR)
    for value in foreground:
        drawn[edge(maps.class_map == value)] = value
    lines = Image(_png(drawn, palette), f"Outlines of {names}")
    return [Layer("map", "Map", (filled, lines)), Layer("outline", "Outline", (lines,))]


def probability_image(maps: SmallMaps) -> Image | None:
    """Draw the probability, clear where there is none; None where none was kept."""
    if maps.probability is None:
        return None
    known = np.isfinite(maps.probability)
    steps = (np.where(known, maps.probability, 0) * 255).round().astype(np.uint8)
    words = f"Probability of {maps.probability_of}, from dark for 0 to light for 1"
    return Image(_webp(probability_colours()[steps], known), words)


def objects_image(maps: SmallMaps) -> Image | None:
    """Draw the objects in colours that tell neighbours apart; None where the maps have none."""
    if maps.objects is None:
        return None
    index = object_index(maps.objects)
    drawn = np.where(index == 0, CLEAR, index).astype(np.uint8)
    return Image(_png(drawn, object_palette()), "Objects, each in a colour of its own", fades=True)


def placed(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return each image once, with the keys of the layers that show it."""
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for image in layer.images:
            found.setdefault(image.source, asdict(image) | {"layers": []})["layers"].append(layer.key)
    return list(found.values())


def _webp(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> str:
    """Encode RGB `(y, x, 3)`, with an alpha band where something is not known."""
    return data_uri(pixels if known.all() else np.dstack([pixels, known.astype(np.uint8) * 255]), "webp", quality=80)


def _png(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode places in a palette `(n, 3)`; `CLEAR` is seen through."""
    return data_uri(index, "png", palette, transparency=CLEAR, optimize=True)
