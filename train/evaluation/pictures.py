"""Pictures of areas: image, truth, map, and where map and truth differ. Pixels into data URIs; no HTML."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metadata import ClassInfo
from pipeline.grid.encoding import NODATA
from pipeline.io.source import missing_samples
from pipeline.viz.colors import stretch
from pipeline.viz.preview import RGB_NAMES

from ..data.samples import Sample
from .counts import Kept
from .worst_areas import Area

GROUND = (222, 217, 206)  # the first class, which has no colour of its own on a map
UNKNOWN = (255, 255, 255)
RIGHT, ALARM, MISSED, CONFUSED = (74, 124, 89), (240, 178, 20), (46, 94, 170), (122, 59, 145)
QUIET = (236, 233, 226)  # the first class, rightly
PANELS = ("image", "truth", "map", "errors")


@dataclass(frozen=True, slots=True)
class Strip:
    """An area in pictures: where it is, how well it is mapped, and `(what, data URI)` of each panel."""

    area: Area
    panels: tuple[tuple[str, str], ...]


def draw(
    areas: Sequence[Area], samples: Sequence[Sample], kept: Mapping[str, Kept], classes: Sequence[ClassInfo]
) -> list[Strip]:
    """Draw areas; those of one sample are stretched alike, so that they can be compared.

    Parameters
    ----------
    areas
        Few enough for their pixels to be held together.
    samples, kept
        The areas' samples, and their stores by name.
    classes
        By value.
    """
    drawn = {}
    for sample in samples:
        own = [area for area in areas if area.sample == sample.name]
        for area, image in zip(own, _images(sample, own), strict=True):
            drawn[area] = Strip(area, _panels(area, image, kept[sample.name], classes))
    return [drawn[area] for area in areas]


def _images(sample: Sample, areas: Sequence[Area]) -> list[NDArray[np.float32]]:
    """Read areas and stretch them together, each `(y, x, 3)` of 0..1."""
    if not areas:
        return []
    shown = shown_bands(sample.source.bands)
    read = [sample.source.read(area.window) for area in areas]
    pixels = np.concatenate([part.data[shown].reshape(len(shown), 1, -1) for part in read], axis=-1).astype(np.float32)
    for band, place in zip(pixels, shown, strict=True):
        missing = missing_samples(band, sample.source.nodata[place])
        band[missing if missing is not None else ()] = np.nan
    together = stretch(pixels, np.concatenate([part.valid.reshape(1, -1) for part in read], axis=-1))[0]
    ends = np.cumsum([part.valid.size for part in read])[:-1]
    return [part.reshape(*area.window.shape, 3) for part, area in zip(np.split(together, ends), areas, strict=True)]


def shown_bands(names: Sequence[str]) -> list[int]:
    """Give the places of red, green and blue by name, else of the first three bands, else of the first."""
    lower = [name.lower() for name in names]
    for wanted in RGB_NAMES:
        if all(lower.count(name) == 1 for name in wanted):
            return [lower.index(name) for name in wanted]
    return [0, 1, 2] if len(names) > 2 else [0]


def _panels(
    area: Area, image: NDArray[np.float32], kept: Kept, classes: Sequence[ClassInfo]
) -> tuple[tuple[str, str], ...]:
    truth, found = (store.read_array("class_map", area.window)[0] for store in (kept.truth, kept.decided))
    drawn = (image_uri((image * 255).round().astype(np.uint8)), *(
        map_uri(index, palette)
        for index, palette in ((truth, _palette(classes)), (found, _palette(classes)), (errors(truth, found), ERRORS))
    ))  # fmt: skip
    return tuple(zip(PANELS, drawn, strict=True))


def _palette(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """Give the classes' colours by value, with white for what does not count."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [GROUND, *(info.rgb for info in classes[1:])]
    palette[NODATA] = UNKNOWN
    return palette


ERRORS = np.zeros((256, 3), np.uint8)
ERRORS[:5] = QUIET, RIGHT, ALARM, MISSED, CONFUSED
ERRORS[NODATA] = UNKNOWN


def errors(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Say of each pixel: 0 rightly the first class, 1 rightly another one, 2 false alarm, 3 missed, 4 confused."""
    index = np.full(truth.shape, 4, np.uint8)
    index[truth == found] = 1
    index[(truth == found) & (truth == 0)] = 0
    index[(truth == 0) & (found != 0)] = 2
    index[(truth != 0) & (found == 0)] = 3
    index[(truth == NODATA) | (found == NODATA)] = NODATA
    return index


def image_uri(pixels: NDArray[np.uint8]) -> str:
    """Encode an image `(y, x, 3)`."""
    from PIL import Image

    return _encoded(Image.fromarray(pixels), "webp", quality=82)


def map_uri(index: NDArray[np.uint8], palette: NDArray[np.uint8]) -> str:
    """Encode places `(y, x)` in a palette `(256, 3)`, without loss."""
    from PIL import Image

    picture = Image.fromarray(index)
    picture.putpalette(palette.tobytes())
    return _encoded(picture, "png", optimize=True)


def _encoded(picture: Any, kind: str, **settings: Any) -> str:
    content = io.BytesIO()
    picture.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
