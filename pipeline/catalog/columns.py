"""What a process keeps of an index file: columns as arrays, read once; sources stay JSON until they are asked for."""

import hashlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError
from models.limits import refuse_special

from ..io.names import printable

SOURCE, DIGEST, PRIORITY, CRS = "swathe:source", "swathe:digest", "swathe:priority", "swathe:crs"
RESOLUTION, STAMPS, KEY, BANDS = "swathe:resolution", "swathe:stamps", "swathe:key", "swathe:bands"
LOADED = ("id", "datetime", "geometry", "eo:cloud_cover", SOURCE, DIGEST, PRIORITY, CRS, RESOLUTION, BANDS)
REPEATED = [CRS, BANDS]  # texts of which many rows have the same
_LOCK = threading.Lock()  # of many tasks that ask at once, one reads


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of an index, by the number of the scene.

    Parameters
    ----------
    ids
        Names.
    datetimes
        datetime64[us] in UTC; NaT: not known.
    cloud_covers
        Per cent, float64; NaN: not known.
    priorities
        int64; the highest is taken first.
    footprints
        shapely polygons in longitude and latitude.
    crs_numbers, crs
        int32, of each scene; and the CRS that they count, as WKT.
    resolutions
        Width and height of a pixel in units of the CRS, float64 (scene, 2).
    digests
        Of the content.
    sources, bands
        Arrow arrays of text: how a scene is read; names of its bands.
    """

    ids: NDArray[np.object_]
    datetimes: NDArray[np.datetime64]
    cloud_covers: NDArray[np.float64]
    priorities: NDArray[np.int64]
    footprints: NDArray[np.object_]
    crs_numbers: NDArray[np.int32]
    crs: tuple[str, ...]
    resolutions: NDArray[np.float64]
    digests: NDArray[np.object_]
    sources: Any
    bands: Any


def load_columns(path: str, digest: str) -> Columns:
    """Return the columns of an index file, read once in a process.

    Raises
    ------
    SceneError
        It is missing, has changed, or is no index.
    """
    with _LOCK:
        return _load(path, digest)


def not_an_index(path: str, why: str = "") -> SceneError:
    """Return the error for a file that is no index of scenes."""
    reason = f" ({why})" if why else ""
    return SceneError(
        f"{path} is not an index of scenes{reason}; make one with `swathe index SCENES... -o scenes.parquet`"
    )


def digest_of_file(path: str) -> str:
    """Return the digest of the bytes of an index. Raises SceneError where it cannot be read."""
    refuse_special(path, SceneError)
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SceneError(f"{path}: {error.strerror}") from error


@lru_cache(maxsize=4)
def _load(path: str, digest: str) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyproj import CRS

    if digest_of_file(path) != digest:
        raise SceneError(f"the index {path} has changed since the run was planned; run the command again")
    try:
        names = pq.read_schema(path).names
        if not set(LOADED) <= set(names):
            raise not_an_index(path)
        columns = _arrays(pq.read_table(path, columns=list(LOADED), read_dictionary=REPEATED))
        pa.default_memory_pool().release_unused()
        for crs in filter(None, columns.crs):
            CRS.from_wkt(crs)
        return columns
    except SceneError:
        raise
    except Exception as error:  # of pyarrow, pyproj and shapely: many kinds, all of them about the file
        raise not_an_index(path, printable(str(error))[:100]) from error


def _arrays(table: Any) -> Columns:
    import shapely

    crs = table[CRS].unify_dictionaries().combine_chunks()
    pixels = table[RESOLUTION].combine_chunks().flatten()
    moments = table["datetime"].combine_chunks().cast("timestamp[us]")
    return Columns(
        ids=table["id"].to_numpy(),
        datetimes=moments.to_numpy(zero_copy_only=False).astype("datetime64[us]"),
        cloud_covers=table["eo:cloud_cover"].to_numpy().astype(float),
        priorities=table[PRIORITY].to_numpy().astype("int64"),
        footprints=shapely.from_wkb(table["geometry"].to_numpy()),
        crs_numbers=crs.indices.to_numpy().astype("int32"),
        crs=tuple(crs.dictionary.to_pylist()),
        resolutions=np.asarray(pixels).reshape(-1, 2),
        digests=table[DIGEST].to_numpy(),
        sources=table[SOURCE].combine_chunks(),
        bands=table[BANDS].unify_dictionaries().combine_chunks(),
    )


def load_stamps(path: str, digest: str) -> Any:
    """Return the stamps of all scenes, an Arrow array of text, which are read when they are asked for."""
    import pyarrow.parquet as pq

    load_columns(path, digest)
    return pq.read_table(path, columns=[STAMPS])[STAMPS].combine_chunks()
