"""The index of scenes: a GeoParquet file of STAC Items, in which each row also holds all that reading its scene takes.

A process reads an index once. What travels to workers is its path and its digest.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError

from ..io.raster import RasterSource
from .records import decode_source, encode_source

if TYPE_CHECKING:
    import geopandas as gpd

SOURCE, DIGEST = "swathe:source", "swathe:digest"  # own columns: the source as JSON; digest of the scene's content


@dataclass(frozen=True, slots=True)
class IndexedScene:
    """A scene of an index.

    Parameters
    ----------
    id
        Its name, once in an index.
    source
        What reads its pixels; nothing is open.
    footprint
        Outline in longitude and latitude (EPSG:4326); across the antimeridian two polygons.
    datetime
        When it was acquired, ISO 8601 in UTC; "": not known.
    cloud_cover
        Per cent; NaN: not known.
    digest
        Of its content, see `RasterSource.identity`.
    """

    id: str
    source: RasterSource
    footprint: Any
    datetime: str = ""
    cloud_cover: float = float("nan")
    digest: str = ""


@dataclass(frozen=True, slots=True)
class SceneIndex:
    """The scenes of an index file, by number; rows are decoded when they are asked for.

    Parameters
    ----------
    path
        Of the file, which workers must reach.
    digest
        Of its bytes: a file that was replaced is refused.
    """

    path: str
    digest: str

    def __len__(self) -> int:
        return len(self.table)

    @property
    def table(self) -> "gpd.GeoDataFrame":
        """All rows, read once in a process. Raises SceneError where the file has changed."""
        return _table(self.path, self.digest)

    @property
    def footprints(self) -> NDArray[np.object_]:
        """Of all scenes."""
        return np.asarray(self.table.geometry.array)

    def scene(self, number: int) -> IndexedScene:
        """Return one scene."""
        return _scene(self.path, self.digest, number)


def read_index(path: str | os.PathLike[str]) -> SceneIndex:
    """Open an index of scenes.

    Raises
    ------
    SceneError
        It is missing, or not an index that `swathe index` has written.
    """
    full = os.path.abspath(os.path.expanduser(os.fspath(path)))
    try:
        with open(full, "rb") as file:
            index = SceneIndex(full, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}") from error
    if not {SOURCE, DIGEST} <= set(index.table.columns):
        raise SceneError(f"{path} is not an index of scenes; make one with `swathe index SCENES... -o scenes.parquet`")
    return index


def write_index(scenes: Iterable[IndexedScene], path: str | os.PathLike[str]) -> SceneIndex:
    """Write an index file, whole or not at all."""
    import geopandas as gpd

    listed = list(scenes)
    rows = {
        "id": [scene.id for scene in listed],
        "datetime": [scene.datetime for scene in listed],
        "eo:cloud_cover": [scene.cloud_cover for scene in listed],
        SOURCE: [encode_source(scene.source) for scene in listed],
        DIGEST: [scene.digest for scene in listed],
    }
    frame = gpd.GeoDataFrame(rows, geometry=[scene.footprint for scene in listed], crs="EPSG:4326")
    part = f"{os.fspath(path)}.part"
    frame.to_parquet(part)
    os.replace(part, path)
    return read_index(path)


def content_digest(source: RasterSource) -> str:
    """Return a digest of what a source's pixels are; files are looked at."""
    return hashlib.sha256(json.dumps(source.identity(), sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=4)
def _table(path: str, digest: str) -> "gpd.GeoDataFrame":
    import geopandas as gpd

    try:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise SceneError(f"the index {path} has changed since the run was planned; run the command again")
        return gpd.read_parquet(path)
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # of pyarrow and geopandas
        raise SceneError(f"{path} is not an index of scenes: {str(error).splitlines()[0]}") from error


@lru_cache(maxsize=4096)
def _scene(path: str, digest: str, number: int) -> IndexedScene:
    row = _table(path, digest).iloc[number]
    source = decode_source(row[SOURCE])
    return IndexedScene(row["id"], source, row.geometry, row["datetime"], float(row["eo:cloud_cover"]), row[DIGEST])
