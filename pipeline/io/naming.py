"""Which files a path or pattern names, and what the bands in them are called. Reads no pixels."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import fsspec
from rasterio.enums import ColorInterp

from models.errors import SceneError

from .gdal import fsspec_options, is_remote, printable

if TYPE_CHECKING:
    from rasterio import DatasetReader

COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"} | {
    kind: kind.name
    for kind in ColorInterp
    if kind.name in ("nir", "rededge", "coastal", "pan")  # GDAL 3.10 and newer
}
GDAL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+:.+")  # as GTI:index.gpkg or NETCDF:file.nc:variable
LONGEST_NAME = 60


def expand(pattern: str) -> list[str]:
    """Give the files that a path or pattern names, in the order of their names, numbers by value.

    Raises
    ------
    SceneError
        Nothing there, or a folder.
    """
    pattern = os.path.expanduser(pattern.removeprefix("file://"))
    if is_remote(pattern):
        return _expand_remote(pattern) if "*" in pattern and not pattern.startswith("http") else [pattern]
    if os.path.isfile(pattern) or pattern.startswith("/vsi"):
        return [pattern]
    if os.path.isdir(pattern):
        raise SceneError(_folder(pattern))
    found = [path for path in glob.glob(pattern) if os.path.isfile(path)]
    if found:
        return sorted(found, key=_natural)
    if GDAL_NAME.fullmatch(pattern):
        return [pattern]
    folder = Path(pattern).parent
    why = "no file matches the pattern" if glob.has_magic(pattern) else "no such file"
    raise SceneError(f"{why}: {printable(pattern)}" + ("" if folder.exists() else f" (and no folder {folder})"))


def _folder(path: str) -> str:
    rasters = sorted(p.name for p in Path(path).iterdir() if p.suffix.lower() in (".tif", ".tiff", ".jp2"))
    example = f", as '{os.path.join(path, '*' + Path(rasters[0]).suffix)}'" if rasters else ""
    return f"{path} is a folder; give a file, a list of files or a pattern{example}"


def _expand_remote(pattern: str) -> list[str]:
    try:
        filesystem, inside = fsspec.core.url_to_fs(pattern, **fsspec_options(pattern))
        found = [filesystem.unstrip_protocol(path) for path in filesystem.glob(inside)]
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{pattern} cannot be listed: {printable(str(error))[:200]}") from error
    if not found:
        raise SceneError(f"no file matches the pattern: {pattern}")
    return sorted(found, key=_natural)


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort B2 before B10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def band_names(dataset: "DatasetReader", indexes: Sequence[int]) -> list[str]:
    """Name each band by its description, else by its colour, else by its number; all by number where two are alike."""
    numbered = [f"band_{index}" for index in indexes]
    described = [printable(dataset.descriptions[index - 1] or "")[:LONGEST_NAME] for index in indexes]
    coloured = [COLOURS.get(dataset.colorinterp[index - 1], "") for index in indexes]
    for choice in (described, coloured):
        names = [name or number for name, number in zip(choice, numbered, strict=True)]
        if any(choice) and len(set(names)) == len(names):
            return names
    return numbered


def names_from_files(paths: Sequence[str]) -> list[str]:
    """Name each file's band by what tells its name from the others': `scene_B02.tif`, `scene_B03.tif` give B02, B03.

    Where the files' own names are alike, their folders' are taken; where these are too, numbers.
    """
    places = [PurePosixPath(path.partition("?")[0]) for path in paths]
    for parts in ([place.stem for place in places], [place.parent.name for place in places]):
        names = _differing(parts)
        if all(names) and max(Counter(name.lower() for name in names).values()) == 1:
            return names
    return [f"band_{n + 1}" for n in range(len(paths))]


def _differing(texts: Sequence[str]) -> list[str]:
    words = [re.findall(r"[^\W_]+", text) for text in texts]
    if len({len(w) for w in words}) != 1:
        return list(texts)
    places = [place for place in range(len(words[0])) if len({w[place] for w in words}) > 1]
    return ["_".join(w[place] for place in places) for w in words]
