"""Writer of vector files and tables: the ending of the name chooses the format; written whole or not at all.

Arrow tables come in; `place_on_map` brings their geometries from pixels into map coordinates.
"""

import glob
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import SwatheError
from models.files import refuse_existing, replace_file

from ..grid.geobox import GeoBox
from ..io.gdal import file_stamp
from ..store.files import Files
from ..store.placing import with_digest
from .formats import (
    BOX,
    DRIVERS,
    GEOMETRY,
    MADE,
    check_columns,
    ending_of,
    replace_geometry,
    write_layer,
    write_parquet,
)
from .geopackage import ENDING, check_layer, holds_more, is_kept, layer_name, other_layers

if TYPE_CHECKING:
    import pyarrow as pa

LAYERS = (".parquet", *DRIVERS)  # endings that hold polygons
PLAIN = (".parquet", ".csv")  # endings that hold tables without
MADE_BY = "Made by Swathe with settings"  # what a layer's description begins with; their digest follows
BESIDE = ".swathe"  # ending of the file beside a CSV file that says the same


@dataclass(frozen=True, slots=True)
class Written:
    """What a file holds now, and what its reader should know."""

    features: int
    notes: tuple[str, ...] = ()


def place_on_map(table: "pa.Table", geobox: GeoBox) -> "pa.Table":
    """Return geometries in map coordinates.

    Parameters
    ----------
    table
        With a column `geometry`: WKB in pixels, x = column and y = row, whole numbers at corners of pixels.
    geobox
        Of the scene.

    Returns
    -------
    pyarrow.Table
        The same rows and columns. Exterior rings run counterclockwise on the map, holes clockwise, as OGC and
        RFC 7946 have it.
    """
    import numpy as np
    import shapely

    shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
    moved = shapely.transform(shapes, lambda points: np.column_stack(geobox.to_map(points[:, 0], points[:, 1])))
    return replace_geometry(table, shapely.orient_polygons(moved))


def write_features(
    batches: Iterable["pa.Table"],
    path: str,
    *,
    schema: "pa.Schema",
    crs: str | None = None,
    made: str = "",
    overwrite: bool = False,
) -> Written:
    """Write a stream of tables as one file.

    Parameters
    ----------
    batches
        Tables with the columns of `schema`; one is in memory at a time (with Parquet as many as fill a row group).
    path
        A path, or a URL, to which the finished file is copied. Its ending chooses the format: `.parquet` (GeoParquet
        1.1 if there is geometry), `.gpkg`, `.fgb` and `.geojson` (need geometry), `.csv` (holds none).
    schema
        Columns; a binary column `geometry` holds WKB in map coordinates.
    crs
        Of the geometry, as anything that pyproj reads; None: unknown.
    made
        Digest of all that decides the rows, which the file then says; see `written_before`.
    overwrite
        Whether a file that is there may be replaced. It is, at once, when the new one is whole. Of a GeoPackage one
        layer is, named as the file; without `overwrite` it is added, and its other contents always stay.

    Returns
    -------
    Written
        Rows written. Notes say what the format has changed: GeoJSON is in longitude and latitude; FlatGeobuf has rows
        in the order of its spatial index; both it and GeoPackage have a MultiPolygon where there was a Polygon.

    Raises
    ------
    SwatheError
        As `check_target`, or the file cannot be written. Nothing is left behind then, and an older file is as it was.
    """
    check_target(path, schema, overwrite=overwrite)
    rows = _Rows(batches, schema)
    ending = ending_of(path)
    notes = []
    with _whole(path) as part:
        layer = check_layer(part, overwrite=True, wanted=layer_name(path)) if is_kept(part) else layer_name(path)
        try:
            with _errors(path):
                if ending == ".parquet":
                    write_parquet(rows, part, schema, crs, made)
                elif ending == ".csv":
                    _write_csv(rows, part, schema)
                else:
                    write_layer(rows, part, schema, crs, layer, made and f"{MADE_BY} {made}")
                if (found := _count(part, layer)) != rows.count:
                    raise OSError(f"{found} of {rows.count} rows can be read back; is the disk full?")
        except BaseException as error:
            if rows.failure is not None and rows.failure is not error:
                raise rows.failure from None  # GDAL tells only that its source failed, not why
            raise
        if made and ending == ".csv":
            _say_beside(path, part, made)
        if ending == ENDING and (others := other_layers(part, layer)):
            notes.append(f"{path} holds more, which stays as it was: {', '.join(others[:5])}")
    if crs is None and ending in DRIVERS:
        notes.append("the scene's CRS is unknown: coordinates are written as they are")
    if ending == ".geojson" and crs is not None:
        notes.append("GeoJSON is in longitude and latitude (WGS 84), as RFC 7946 has it")
    if ending == ".fgb":
        notes.append("FlatGeobuf has its rows in the order of its spatial index")
    return Written(rows.count, tuple(notes))


def check_target(path: str, schema: "pa.Schema", *, overwrite: bool = False) -> None:
    """Refuse what `write_features` cannot do, before any work is done.

    Raises
    ------
    SwatheError
        The ending is unknown or does not fit, the format cannot hold a column, there is no such folder, the path is a
        folder, or a file is there already and may not be replaced; of a GeoPackage, its layer of that name.
    """
    ending, layer = ending_of(path), GEOMETRY in schema.names
    if ending not in (LAYERS if layer else PLAIN):
        kind, choices = ("polygons", LAYERS) if layer else ("tables", PLAIN)
        raise SwatheError(f"{path}: {kind} are not written as '{ending}'; choose one of {', '.join(choices)}")
    if layer and BOX in schema.names and ending == ".parquet":
        raise SwatheError(f"{path}: a column may not be called {BOX}, which GeoParquet's boxes take; rename it")
    if ending != ".parquet":
        check_columns(path, schema, ending)
    if "://" in path:
        with _errors(path):
            filesystem, inside = _remote(path)
            exists = filesystem.exists(inside)
    else:
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise SwatheError(f"there is no folder {folder}; make it first, or choose another output than {path}")
        if os.path.isdir(path):
            raise SwatheError(f"{path} is a folder; choose another output")
        exists = os.path.lexists(path)
    if exists and ending == ENDING:
        with _local(path) as file:
            if is_kept(file):
                check_layer(file, overwrite=overwrite, wanted=layer_name(path))
                return
    if exists and not overwrite:
        refuse_existing(path, error=SwatheError)


def remove_partial(path: str) -> None:
    """Remove what killed writers of this file have left beside it. Nobody may be writing it now."""
    if "://" not in path:
        folder, name = os.path.split(os.path.abspath(path))
        for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.*.partial*")):
            with suppress(OSError):
                os.remove(left)


class _Rows:
    """Tables in the schema's columns, counted; keeps what their source raises, which GDAL's stream does not pass on."""

    def __init__(self, batches: Iterable["pa.Table"], schema: "pa.Schema") -> None:
        self.source, self.schema = iter(batches), schema
        self.count, self.failure = 0, None  # type: int, BaseException | None

    def __iter__(self) -> Iterator["pa.Table"]:
        while (table := self._next()) is not None:
            self.count += len(table)
            yield table

    def _next(self) -> "pa.Table | None":
        try:
            table = next(self.source, None)
            return None if table is None else table.select(self.schema.names).cast(self.schema)
        except BaseException as error:
            self.failure = error
            raise


@contextmanager
def _whole(path: str) -> Iterator[str]:
    """Yield a name to write to, which becomes the file when all went well; else nothing is left."""
    if "://" in path:
        with tempfile.TemporaryDirectory() as folder:
            part = os.path.join(folder, os.path.basename(path))
            with _errors(path):
                filesystem, inside = _remote(path)
                if ending_of(path) == ENDING and filesystem.exists(inside):
                    filesystem.get_file(inside, part)
            if not is_kept(part):
                with suppress(FileNotFoundError):
                    os.remove(part)
            yield part
            with _errors(path), with_digest(path, {os.path.basename(path): Path(part)}):
                filesystem.put_file(part, inside)
        return
    folder, name = os.path.split(os.path.abspath(path))
    part = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.partial{ending_of(path)}")
    try:
        before = file_stamp(path)
        if is_kept(path) and holds_more(path, check_layer(path, overwrite=True)):
            with _errors(path):
                shutil.copy(path, part)
        yield part
        if is_kept(path):
            if file_stamp(path) != before:
                raise SwatheError(f"{path} was changed by another program meanwhile; run the same command again")
            check_layer(path, overwrite=True)
        with _errors(path), with_digest(Path(path), {name: Path(part)}):
            replace_file(part, path)
    finally:
        for left in glob.glob(f"{glob.escape(part)}*"):  # SQLite has files beside the file
            with suppress(OSError):
                os.remove(left)


def _remote(path: str) -> tuple[Any, str]:
    import fsspec

    from ..io.content_id import fsspec_options

    return fsspec.core.url_to_fs(path, **fsspec_options(path))  # type: ignore[no-any-return]


@contextmanager
def _errors(path: str, action: str = "written") -> Iterator[None]:
    """Turn what disks, Arrow and GDAL raise into one line that names the file."""
    import pyarrow as pa
    from pyproj.exceptions import CRSError

    try:
        yield
    except Exception as error:
        known = isinstance(error, (OSError, pa.ArrowException, CRSError, ValueError, ImportError))
        known |= type(error).__module__.startswith(("pyogrio", "botocore", "aiobotocore", "aiohttp"))
        if isinstance(error, SwatheError) or not known:
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise SwatheError(f"{path} cannot be {action}: {reason}") from error


def _write_csv(rows: _Rows, part: str, schema: "pa.Schema") -> None:
    """Write rows as text; what is not a number is left empty, as what is unknown."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv

    with csv.CSVWriter(part, schema) as writer:
        for table in rows:
            columns = [
                pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column
                for column in table.columns
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _say_beside(path: str, part: str, made: str) -> None:
    """Say in a file beside a CSV file, which has no room for it, what made it, and which content that is."""
    with _errors(path), open(part, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        Files(f"{path}{BESIDE}").write("", f"{made} {digest}\n".encode())


def written_before(path: str, made: str) -> bool:
    """Whether a file is there that `write_features` has written for this very `made`, and not another one since."""
    try:
        with _errors(path, "read"), _local(path) as file:
            return os.path.isfile(file) and _made(file, path) == made
    except SwatheError:  # whatever lies there is not ours
        return False


def _made(file: str, path: str) -> str | None:
    """Return what a local file says made it; `path` is its own, of which `file` may be a copy."""
    import pyarrow.parquet as pq

    ending = ending_of(file)
    if ending == ".parquet":
        return ((pq.read_metadata(file).metadata or {}).get(MADE.encode()) or b"").decode()
    if ending == ".csv":
        made, _, digest = Files(f"{path}{BESIDE}").read("").decode().strip().partition(" ")
        with open(file, "rb") as content:
            return made if hashlib.file_digest(content, "sha256").hexdigest() == digest else None
    import pyogrio

    layer = check_layer(file, overwrite=True, wanted=layer_name(path)) if is_kept(file) else None
    said = (pyogrio.read_info(file, layer=layer)["layer_metadata"] or {}).get("DESCRIPTION", "")
    return str(said).removeprefix(f"{MADE_BY} ")


def count_features(path: str) -> int:
    """Count the rows of a file that `write_features` has made.

    Raises
    ------
    SwatheError
        It is missing, damaged or cannot be read.
    """
    with _errors(path, "read"), _local(path) as file:
        layer = check_layer(file, overwrite=True, wanted=layer_name(path)) if is_kept(file) else None
        return _count(file, layer)


@contextmanager
def _local(path: str) -> Iterator[str]:
    """Yield a file's path; of a URL that of a copy."""
    if "://" not in path:
        yield path
        return
    filesystem, inside = _remote(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        filesystem.get_file(inside, copy)
        yield copy


def _count(part: str, layer: str | None = None) -> int:
    import pyarrow.parquet as pq
    from pyarrow import csv

    ending = ending_of(part)
    if ending == ".parquet":
        return int(pq.read_metadata(part).num_rows)
    if ending == ".csv":
        with csv.open_csv(part, parse_options=csv.ParseOptions(newlines_in_values=True)) as reader:
            return sum(len(batch) for batch in reader)
    import pyogrio

    return int(pyogrio.read_info(part, layer=layer if ending == ENDING else None, force_feature_count=True)["features"])
