"""A class map that Swathe wrote as a GeoTIFF, read as later verbs read a store: its facts, and windows of it.

It holds the class map alone: no probabilities, and not how it was made.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA
from models.errors import StoreError
from models.limits import parse_json
from models.metadata import ClassInfo, usual_background

from ..grid.geobox import GeoBox, Window, is_position
from ..io.content_id import file_identity
from ..io.gdal import open_raster, read_pixels, run_with_env

CLASS_MAP = "class_map"
ENDINGS = (".tif", ".tiff")
MAPS = "give a class map that Swathe wrote, as `swathe segment` and `clean` do with -o OUT.tif, or a store"


def is_map_file(path: str) -> bool:
    """Whether a path is that of a GeoTIFF, by its ending."""
    return path.lower().endswith(ENDINGS)


def read_class_map(path: str, window: Window) -> NDArray[np.uint8]:
    """Read a window of the class map, uint8 `(1, y, x)`, 255 = nodata."""
    return np.asarray(read_pixels(path, [1], window), np.uint8)


@dataclass(frozen=True, slots=True)
class MapFacts:
    """What such a file says: grid, classes, value of the background, bundle, pixels per class; and its content."""

    geobox: GeoBox
    classes: tuple[ClassInfo, ...]
    background: int | None
    bundle: Mapping[str, str]
    pixels: Mapping[str, int]
    content: Mapping[str, Any]


def read_map_facts(path: str) -> MapFacts:
    """Read what the file says of itself; `path` is local, in full.

    Raises
    ------
    StoreError
        It is missing, or is no class map of Swathe's.
    """
    if not os.path.isfile(path):
        raise StoreError(f"no such file: {path}")
    tags, colors, geobox = run_with_env(path, partial(_read, path))
    layer = tags.get("SWATHE_LAYER")
    if layer != CLASS_MAP:
        raise StoreError(f"{path} {'holds probabilities' if layer else 'is not of Swathe'}; {MAPS}")
    names = [tags[f"CLASS_{value}"] for value in range(NODATA) if f"CLASS_{value}" in tags]
    classes = tuple(ClassInfo(name, bytes(colors[value][:3]).hex().upper()) for value, name in enumerate(names))
    said = int(tags.get("SWATHE_BACKGROUND", -1 if usual_background(names) is None else 0))  # older files do not say it
    name, _, digest = tags.get("SWATHE_BUNDLE", "").rpartition(" ")
    bundle = {"name": name, "digest": digest} if name else {}
    pixels, background = parse_json(tags["SWATHE_PIXELS"]), None if said < 0 else said
    return MapFacts(geobox, classes, background, bundle, pixels, file_identity(path))


def _read(path: str) -> tuple[Mapping[str, str], Mapping[int, tuple[int, ...]], GeoBox]:
    """Return tags, colours by value and grid; within `run_with_env`."""
    file = open_raster(path, anew=True)
    transform = file.transform if is_position(file.transform) else None
    geobox = GeoBox(file.height, file.width, transform, file.crs.to_wkt() if file.crs else None)
    return file.tags(), file.colormap(1) if file.tags().get("SWATHE_LAYER") == CLASS_MAP else {}, geobox
