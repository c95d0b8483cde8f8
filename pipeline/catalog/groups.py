"""Which of many raster files are one scene: files of a product, files of one band each, or each by itself."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..io.gdal import is_remote
from ..io.products import LANDSAT_FILE, SENTINEL_FILE, SENTINEL_MASK, SENTINEL_PICTURE, is_metadata
from .found import FoundScene, found_file, stem

MOST_BANDS = 64  # files that may be bands of one scene by nothing but lying in one folder
BAND = re.compile(
    r"(?P<scene>.*?)(?:^|[_.\- ])(?P<band>B\d{1,2}A?|band[_\-]?\d{1,3}|(?:deep)?blue|green\d?|yellow"
    r"|red(?:[_\-]?edge\d?)?|nir\d{0,2}|swir[_\-]?\d{0,2}|pan|coastal|cirrus|lwir\d{0,2}|thermal\d?|vv|vh|hh|hv|scl"
    r"|qa[_\-]?pixel)(?:[_\-]\d\dm)?",
    re.IGNORECASE,
)


def group_files(paths: Iterable[str], folders: Iterable[str] = ()) -> list[FoundScene]:
    """Put files together to scenes, folder by folder.

    Parameters
    ----------
    paths
        Of rasters, in full.
    folders
        Given as such: all files of one band that lie in one, or in one below, may be a scene whatever their names are.
    """
    by_folder = defaultdict[str, list[str]](list)
    for path in dict.fromkeys(paths):
        by_folder[os.path.dirname(path)].append(path)
    roots = tuple(folders)
    scenes = list[FoundScene]()
    for folder, files in by_folder.items():
        products, rest = _products(folder, files)
        banded, singles = _bands(folder, rest)
        below = any(folder == root or folder.startswith(f"{root.rstrip('/')}/") for root in roots)
        if below and not products and not banded and 1 < len(singles) <= MOST_BANDS:
            scenes.append(FoundScene(folder, stem(f"{folder}.d"), "bands", tuple(singles)))
        else:
            scenes += [*products, *banded, *map(found_file, singles)]
    return scenes


def _products(folder: str, files: Sequence[str]) -> tuple[list[FoundScene], list[str]]:
    """Take the files of Sentinel-2 and Landsat; of each scene those that were delivered, and its metadata."""
    if is_remote(folder):
        return [], list(files)
    groups, rest = defaultdict[str, list[str]](list), list[str]()
    for path in files:
        name = os.path.basename(path)
        match = SENTINEL_FILE.fullmatch(name) or LANDSAT_FILE.fullmatch(name)
        if match:
            groups[match["scene"]].append(name)
        elif not (SENTINEL_PICTURE.fullmatch(name) or SENTINEL_MASK.fullmatch(name)):
            rest.append(path)
    metadata = [name for name in os.listdir(folder) if is_metadata(name)] if groups else []
    products = []
    for scene, names in groups.items():
        own = [name for name in metadata if name.upper().startswith(scene.upper())]
        beside = own or [name for name in metadata if name.upper().startswith("MTD_") and len(groups) == 1]
        found = FoundScene(f"{folder}/{scene}", scene, "product", tuple(sorted([*names, *beside])), folder)
        products.append(found)
    return products, rest


def _bands(folder: str, files: Sequence[str]) -> tuple[list[FoundScene], list[str]]:
    """Take files whose names differ in that of a band alone."""
    groups, rest = defaultdict[str, dict[str, str]](dict), list[str]()
    for path in files:
        match = BAND.fullmatch(stem(path))
        band = match["band"].lower() if match else ""
        if match is None or band in groups[match["scene"]]:
            rest.append(path)
        else:
            groups[match["scene"]][band] = path
    scenes = []
    for scene, bands in groups.items():
        if len(bands) < 2:
            rest += bands.values()
        else:
            name = scene or stem(f"{folder}.d")
            scenes.append(FoundScene(f"{folder}/{scene}*", name, "bands", tuple(bands.values())))
    return scenes, rest
