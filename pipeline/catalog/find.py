"""From what a user gives to the scenes that it is: files, patterns, folders, lists of files, STAC Items."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from models.errors import SceneError
from models.redact import redact_url

from ..io.array_files import is_netcdf, is_zarr
from ..io.folder import RASTERS, index_of
from ..io.gdal import is_remote, natural_order, printable
from ..io.listing import expand, is_archive, list_files
from ..io.places import reach
from ..io.products import is_folder, is_metadata
from ..io.stac_items import is_item, is_stac
from .columns import SOURCE
from .documents import items_of_object, items_of_parquet, items_of_path, without_contradictions
from .found import FoundScene, found_file
from .groups import group_files
from .lists import listed_files
from .stac_table import Row, read_rows

ARCHIVE = re.compile(r"(?:S2|L[COTEM]\d).*\.(?:zip|tar)", re.IGNORECASE)  # of products: others are left in folders
SAFE = ".safe"


@dataclass(slots=True)
class Found:
    """What was found.

    Parameters
    ----------
    scenes
        Not opened yet.
    rows
        Scenes of other indexes, as they are there.
    files
        Rasters, of which it is not known yet which together are a scene.
    folders
        That were given as such.
    redacted
        URLs that were given with a user or a query, without these.
    """

    scenes: list[FoundScene] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)


def find_scenes(given: Sequence[Any]) -> Found:
    """Find the scenes that paths, patterns, folders, lists of files, STAC Items and indexes are. Nothing is opened.

    Raises
    ------
    SceneError
        Something is not there, or is none of these.
    """
    found = Found()
    for one in given:
        if isinstance(one, str | os.PathLike):
            path = os.path.expanduser(os.fspath(one).removeprefix("file://"))
            _of_path(path, found)
        elif is_stac(one):
            found.scenes += items_of_object(one)
        else:
            raise SceneError(
                f"an index is of files, folders, and STAC Items; received {type(one).__name__}: write it as a GeoTIFF, "
                "as with rioxarray's `rio.to_raster`"
            )
    files = [redact_url(path) for path in found.files]
    found.redacted = [clean for path, clean in zip(found.files, files, strict=True) if clean != path]
    found.scenes = list(without_contradictions([*found.scenes, *group_files(files, found.folders)]))
    return found


def _of_path(path: str, found: Found) -> None:
    if is_zarr(path) or is_netcdf(path):
        raise SceneError(f"{path} is an array file, which an index does not hold; export it as a GeoTIFF first")
    if glob.has_magic(path) and not is_remote(path) and not os.path.exists(path) and not path.startswith("/vsi"):
        for name in _matches(path):
            _of_path(name, found)
    elif is_folder(path):
        _of_folder(path, found)
    elif is_metadata(path) or is_archive(path):
        _refuse_absent(path)
        found.scenes.append(found_file(_full(path)))
    elif path.lower().partition("?")[0].endswith(".parquet"):
        _of_parquet(path, found)
    elif (index_of(path) or _is_local(path)) and (files := listed_files(path)) is not None:
        found.files += files
    elif is_item(path):
        found.scenes += items_of_path(path)
    else:
        found.files += [_full(name) for name in expand(path)]


def _is_local(path: str) -> bool:
    return not is_remote(path) and os.path.isfile(path)


def _full(path: str) -> str:
    return path if is_remote(path) or not os.path.exists(path) else os.path.abspath(path)


def _refuse_absent(path: str) -> None:
    if not is_remote(path) and not os.path.exists(path):
        raise SceneError(f"no such file: {printable(path)}")


def _matches(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True), key=natural_order)
    if "**" in pattern:  # which matches folders on the way too
        found = [name for name in found if not os.path.isdir(name) or name.lower().endswith(SAFE)]
    if not found:
        raise SceneError(f"no file matches the pattern: {printable(pattern)}")
    return found


def _of_parquet(path: str, found: Found) -> None:
    """Take the rows of another index, the files of a tile index, or the Items of stac-geoparquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if is_remote(path):
        raise SceneError(f"{path} is on a server: download it and give that")
    _refuse_absent(path)
    try:
        names = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise SceneError(f"{path} cannot be read: {printable(str(error))[:100]}") from error
    if SOURCE in names:
        found.rows += read_rows(path)
    elif "assets" in names:
        found.scenes += items_of_parquet(path)
    elif "location" in names:
        folder = os.path.dirname(os.path.abspath(path))
        for name in pq.read_table(path, columns=["location"])["location"].to_pylist():
            near = os.path.join(folder, str(name))
            found.files.append(near if os.path.exists(near) else str(name))
            reach(found.files[-1], path)
    else:
        raise SceneError(f"{path} is neither an index of scenes, nor stac-geoparquet, nor a tile index")


def _of_folder(path: str, found: Found) -> None:
    """Take all rasters and products in a folder and in those below it."""
    before = len(found.scenes) + len(found.files)
    if path.rstrip("/").lower().endswith(SAFE):
        found.scenes.append(found_file(_full(path.rstrip("/")) if not is_remote(path) else path))
        return
    if is_remote(path):
        listing = list_files(path)
        found.files += [listing.place(name) for name in listing.names if name.lower().endswith(RASTERS)]
    else:
        found.folders.append(os.path.abspath(path))
        _walk(os.path.abspath(path), found)
    if len(found.scenes) + len(found.files) == before:
        raise SceneError(f"{path} holds no rasters, in no folder below it")


def _walk(root: str, found: Found) -> None:
    drawn_on, rasters = set[str](), list[str]()
    for folder, folders, files in os.walk(root, followlinks=False):
        kept = sorted((name for name in folders if not name.startswith(".")), key=natural_order)
        safes = [name for name in kept if name.lower().endswith(SAFE)]
        found.scenes += [found_file(os.path.join(folder, name)) for name in safes]
        folders[:] = [name for name in kept if name not in safes and not is_zarr(os.path.join(folder, name))]
        for name in _visible(files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and name.lower().endswith(RASTERS):
                reach(path, root)
            if ARCHIVE.fullmatch(name):
                found.scenes.append(found_file(path))
            elif name.lower().endswith(".vrt"):
                listed = listed_files(path)
                rasters += [path] if listed is None else listed
                drawn_on |= set(_drawn_on(path)) if listed is None else set()
            elif name.lower().endswith(RASTERS):
                rasters.append(path)
    found.files += [path for path in rasters if path not in drawn_on]


def _visible(files: Sequence[str]) -> Iterator[str]:
    yield from sorted((name for name in files if not name.startswith(".")), key=natural_order)


def _drawn_on(path: str) -> list[str]:
    """Return the files of a virtual raster that is a scene: in a folder they are no scenes of their own."""
    from ..io.gdal import open_raster, run_with_env

    return run_with_env(path, lambda: [os.path.abspath(name) for name in open_raster(path).files if name != path])
