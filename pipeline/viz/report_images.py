"""The images of a report as data URIs: the scene, the map, its outlines, probability, objects. Small, from previews."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metadata import ClassInfo

from ..grid.encoding import NODATA
from ..io.source import Pixels
from .colors import edge, object_index, object_palette, probability_colours, stretch
from .preview import SmallMaps

GROUND: tuple[int, int, int] = (222, 217, 206)  # the first class where there is no image below
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


def map_layers(maps: SmallMaps, classes: Sequence[ClassInfo], *, over_image: bool) -> list[Layer]:
    """Draw the map, filled and in outlines; without an image below, its first class is drawn too."""
    names = ", ".join(info.name for info in classes[1:])
    fill = maps.class_map.copy()
    fill[maps.class_map == (0 if over_image else NODATA)] = CLEAR
    palette = np.array([GROUND, *(info.rgb for info in classes[1:])], np.uint8)
    filled = Image(_png(fill, palette), f"Map of {names}, filled with the colours of the classes", fades=over_image)
    if not over_image:
        return [Layer("map", "Map", (filled,))]
    lines = Image(_png(_outlines(maps.class_map, len(classes)), palette), f"Outlines of {names}")
    return [Layer("map", "Map", (filled, lines)), Layer("outline", "Outline", (lines,))]


def _outlines(class_map: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    drawn = np.full(class_map.shape, CLEAR, np.uint8)
    for value in range(1, classes):
        drawn[edge(class_map == value)] = value
    return drawn


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
            entry = {"source": image.source, "words": image.words, "fades": image.fades, "layers": []}
            found.setdefault(image.source, entry)["layers"].append(layer.key)
    return list(found.values())


def css_ramp() -> str:
    """Return the colours of probabilities, for a gradient in CSS."""
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in probability_colours()[::51].tolist())


def _webp(pixels: NDArray[np.uint8], known: NDArray[np.bool_]) -> str:
    """Encode RGB `(y, x, 3)`, with an alpha band where something is not known."""
    if not known.all():
        pixels = np.dstack([pixels, known.astype(np.uint8) * 255])
    return _encoded(pixels, "webp", quality=80)


def _png(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode places in a palette `(n, 3)`; `CLEAR` is seen through."""
    from PIL import Image as Pillow

    picture = Pillow.fromarray(index)
    picture.putpalette(palette.tobytes().ljust(768, b"\0"))  # of all 256 places, or fewer bits would be kept
    return _encoded(picture, "png", transparency=CLEAR, optimize=True)


def _encoded(picture: Any, kind: str, **settings: Any) -> str:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    content = io.BytesIO()
    picture.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
