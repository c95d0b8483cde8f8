"""The files that a list of files names: a virtual raster (VRT), an index of tiles (GTI). Neither's pixels are read."""

import os
from collections.abc import Iterator

from models.errors import SceneError

from ..io.content_id import remote_url
from ..io.folder import INDEXES, index_of, locations_of
from ..io.gdal import absolute_name, is_remote
from ..io.places import reach
from ..io.virtual import parse_xml

DEPTH = 4  # lists in lists
LARGEST = 2**28  # bytes of a list of a million files


def listed_files(path: str) -> list[str] | None:
    """Return the files that a list names, also those that are not there; None for what is a raster of its own.

    A virtual raster is a list where each of its files has all of its bands. One that puts bands together, warps or
    computes is a scene.

    Raises
    ------
    SceneError
        It cannot be read, names no files, or is of lists in lists without end.
    """
    found = _listed(path, DEPTH)
    if found is not None and not (files := list(dict.fromkeys(found))):
        raise SceneError(f"{path} names no files")
    return None if found is None else files


def _listed(path: str, depth: int) -> list[str] | None:
    if depth == 0:
        raise SceneError(f"{path} is a list in lists in lists, too deep to follow")
    if is_remote(path):
        return None
    parts = _of_vrt(path) if path.lower().endswith(".vrt") else _of_index(path)
    if parts is None:
        return None
    files = list[str]()
    for part in parts:
        reach(part, index_of(path) or path)
        files += [part] if (inner := _listed(part, depth - 1)) is None else inner
    return files


def _of_index(path: str) -> list[str] | None:
    """Return the files that a vector file names in its field `location`; as GDAL's tile indexes."""
    vector = index_of(path) or path
    if not vector.lower().endswith(INDEXES) or vector.lower().endswith(".parquet") or not os.path.isfile(vector):
        return None
    locations = locations_of(vector)
    if locations is None:
        return None
    folder = os.path.dirname(os.path.abspath(vector))
    return [_full(location, folder) for location in locations]


def _full(name: str, folder: str) -> str:
    near = os.path.normpath(os.path.join(folder, name))
    if remote_url(name) or name.startswith("/vsi"):
        return name
    return near if os.path.exists(near) or not os.path.exists(name) else absolute_name(name)


def _of_vrt(path: str) -> list[str] | None:
    """Return the files of a virtual raster in which each has all of its bands; None for others."""
    if os.path.getsize(path) > LARGEST:
        raise SceneError(f"{path} is larger than virtual rasters are")
    with open(path, "rb") as file:
        root = parse_xml(path, file.read())
    if root.get("subClass") or root.find("./VRTRasterBand[@subClass]") is not None:
        return None
    folder = os.path.dirname(os.path.abspath(path))
    bands = [dict(_sources(band, folder)) for band in root.findall("VRTRasterBand")]
    count = len(bands)
    if not bands or len(bands[0]) < 2 or any(list(of_band) != list(bands[0]) for of_band in bands):
        return None
    if count > 1 and any(len({of_band[name] for of_band in bands}) < count for name in bands[0]):
        return None  # bands of files that are of one band each, or taken twice
    return list(bands[0])


def _sources(band: object, folder: str) -> Iterator[tuple[str, str]]:
    """Return name and band of each file that a band of a virtual raster is made of."""
    for kind in ("SimpleSource", "ComplexSource", "NoDataFromMaskSource", "AveragedSource", "KernelFilteredSource"):
        for source in band.findall(kind):  # type: ignore[attr-defined]
            name = source.find("SourceFilename")
            if name is None or not name.text:
                continue
            relative = name.get("relativeToVRT") == "1"
            place = os.path.normpath(os.path.join(folder, name.text)) if relative else absolute_name(name.text)
            yield place, source.findtext("SourceBand") or "1"
