"""The index of scenes: a GeoParquet file of STAC Items, in which each row also holds all that reading its scene takes.

A process reads an index once. What travels to workers is its path and its digest.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from math import hypot
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError

from ..io.allowed import check
from ..io.gdal import printable, run_with_env
from ..io.names import remote_url
from ..io.places import reach
from ..io.raster import RasterSource
from .columns import Columns, digest_of_file, load_columns, load_stamps, not_an_index
from .footprint import bbox_of
from .records import decode_source, encode_source
from .stac_table import Row, names_by_file, write_rows
from .stamps import Stamps, content_digest, stamps_of

if TYPE_CHECKING:
    import geopandas as gpd

SHOWN = 3
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)  # of JSON that is another's


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
        Of its content, see `content_digest`.
    priority
        Of scenes that observed a pixel, one of higher priority is taken first.
    stamps
        Sizes and times of its files when it was indexed, as JSON; see `Stamps`. Written down, and not read again.
    key
        What it was found as: the same in a later `swathe index` is the same scene. Not read again either.
    platform, collection
        As its metadata have them; "": not known.
    """

    id: str
    source: RasterSource
    footprint: Any
    datetime: str = ""
    cloud_cover: float = float("nan")
    digest: str = ""
    priority: int = 0
    stamps: str = "{}"
    key: str = ""
    platform: str = ""
    collection: str = ""


@dataclass(frozen=True, slots=True)
class SceneIndex:
    """The scenes of an index file, by number; columns are arrays, and sources are decoded when they are asked for.

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
        return len(self.columns.ids)

    @property
    def columns(self) -> Columns:
        """All columns, read once in a process. Raises SceneError where the file has changed."""
        return load_columns(self.path, self.digest)

    @property
    def table(self) -> "gpd.GeoDataFrame":
        """All rows with all STAC properties, read from the file each time."""
        import geopandas as gpd

        return gpd.read_parquet(self.path)

    @property
    def ids(self) -> NDArray[np.object_]:
        """Names of all scenes."""
        return self.columns.ids

    @property
    def footprints(self) -> NDArray[np.object_]:
        """Outlines of all scenes, shapely polygons in longitude and latitude."""
        return self.columns.footprints

    @property
    def datetimes(self) -> NDArray[np.datetime64]:
        """When scenes were acquired, datetime64[us] in UTC; NaT: not known."""
        return self.columns.datetimes

    @property
    def cloud_covers(self) -> NDArray[np.float64]:
        """Per cent; NaN: not known."""
        return self.columns.cloud_covers

    @property
    def priorities(self) -> NDArray[np.int64]:
        """Of scenes that observed a pixel, one of higher priority is taken first; 0: as others."""
        return self.columns.priorities

    @property
    def resolutions(self) -> NDArray[np.float64]:
        """Width and height of a pixel in units of the scene's CRS, (scene, 2)."""
        return self.columns.resolutions

    @property
    def digests(self) -> NDArray[np.object_]:
        """Digests of the content of all scenes."""
        return self.columns.digests

    def scene(self, number: int) -> IndexedScene:
        """Return one scene."""
        return _scene(self.path, self.digest, int(number))

    def check_unchanged(self, numbers: Sequence[int] | NDArray[Any] | None = None) -> None:
        """Refuse scenes whose local files are missing, or hold something else than when they were indexed.

        So are files that were not there then: an index may come from anybody, and names only what it vouches for.

        Sizes and times of files are compared; content only where these differ. Files on servers are not asked for.

        Parameters
        ----------
        numbers
            Of the scenes; None: all.

        Raises
        ------
        SceneError
            Names the first few, and what to do.
        """
        columns, stamps = self.columns, load_stamps(self.path, self.digest)
        missing, changed = list[str](), list[str]()
        for number in range(len(self)) if numbers is None else numbers:
            stamp = Stamps.read(stamps[int(number)].as_py())
            self._refuse_unstamped(int(number), stamp)
            files = stamp.changed()
            if any(not os.path.exists(name) for name in files):
                missing.append(next(name for name in files if not os.path.exists(name)))
            elif files and content_digest(self.scene(int(number)).source) != columns.digests[number]:
                changed.append(files[0])
        for what, found in (("missing", missing), ("changed", changed)):
            if found:
                raise SceneError(_since_indexed(self.path, what, found))

    def _refuse_unstamped(self, number: int, stamp: Stamps) -> None:
        try:
            paths = _paths(self.columns.sources[number].as_py())
        except UNREADABLE as error:
            raise not_an_index(self.path, "what reads a scene is not as it was written") from error
        for path in paths:
            if remote_url(path):
                reach(path, self.path)
            elif not stamp.vouch_for(path):
                raise SceneError(
                    f"{self.path} names {printable(path)[:200]}, of which it has no size and time: it was not written "
                    "by `swathe index`, or was changed since; begin it anew with --overwrite"
                )
            elif path.lower().endswith(".vrt"):
                run_with_env(path, partial(check, path))


def _paths(source: str) -> list[str]:
    """Return the files that the JSON of a source names."""
    held = json.loads(source)
    return list(dict.fromkeys(part["path"] for name in ("raster_bands", "masks") for part in held.get(name, ())))


def _since_indexed(path: str, what: str, found: Sequence[str]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    if what == "missing":
        how = f"put them back, or take them out with `swathe index -o {quote(path)} --drop-missing`"
    else:
        how = f"index them again with `swathe index -o {quote(path)}`, or put the files back that were there"
    return f"{what} since indexed in {path}: {', '.join(found[:SHOWN])}{more};\n{how}"


def read_index(path: str | os.PathLike[str]) -> SceneIndex:
    """Open an index of scenes.

    Parameters
    ----------
    path
        Of the file that `build_index` has written, `.parquet`.

    Returns
    -------
    SceneIndex
        Its columns as arrays, and its scenes by number.

    Raises
    ------
    SceneError
        It is missing, or not an index that `swathe index` has written.
    """
    full = os.path.abspath(os.path.expanduser(os.fspath(path)))
    index = SceneIndex(full, digest_of_file(full))
    index.columns  # noqa: B018  (refuses what is no index)
    return index


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether a path may be that of an index: by its ending; with `GTI:` before it, it is a tile index's."""
    name = os.fspath(path)
    return name.lower().endswith(".parquet") and not name.startswith("GTI:")


def write_index(scenes: Iterable[IndexedScene], path: str | os.PathLike[str]) -> SceneIndex:
    """Write an index file, whole or not at all."""
    write_rows([as_row(scene) for scene in scenes], path)
    return read_index(path)


def as_row(scene: IndexedScene) -> Row:
    """Return a scene as it is written down."""
    grid = scene.source.geobox
    across, down = hypot(grid.affine.a, grid.affine.d), hypot(grid.affine.b, grid.affine.e)
    return Row(
        id=scene.id,
        wkb=scene.footprint.wkb,
        bbox=bbox_of(scene.footprint),
        datetime=scene.datetime,
        end=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        cloud_cover=scene.cloud_cover,
        source=encode_source(scene.source, shared_crs=True),
        crs=grid.crs or "",
        resolution=(across, down),
        bands=names_by_file(scene.source),
        digest=scene.digest,
        stamps=scene.stamps if scene.stamps != "{}" else Stamps(stamps_of(scene.source.paths)).text(),
        key=scene.key,
        priority=scene.priority,
        platform=scene.platform,
        collection=scene.collection,
    )


@lru_cache(maxsize=4096)
def _scene(path: str, digest: str, number: int) -> IndexedScene:
    columns = load_columns(path, digest)
    moment = columns.datetimes[number]
    try:
        source = decode_source(columns.sources[number].as_py(), columns.crs[columns.crs_numbers[number]])
    except UNREADABLE as error:
        raise not_an_index(
            path, f"what reads {printable(str(columns.ids[number]))[:60]} is not as it was written"
        ) from error
    return IndexedScene(
        id=columns.ids[number],
        source=source,
        footprint=columns.footprints[number],
        datetime="" if np.isnat(moment) else f"{np.datetime_as_string(moment)}Z",
        cloud_cover=float(columns.cloud_covers[number]),
        digest=columns.digests[number],
        priority=int(columns.priorities[number]),
    )
