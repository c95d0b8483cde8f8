"""GeoPackages that hold more than what is written: one layer is added or replaced, all else stays as it is."""

import os
import sqlite3
from contextlib import closing

from models.errors import SwatheError
from models.files import refuse_existing

ENDING = ".gpkg"
BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file that is open, or was not closed


def layer_name(path: str) -> str:
    """Return what the layer of a new file is called: the name's first part."""
    return os.path.basename(path).lstrip(".").partition(".")[0] or "layer"


def is_kept(path: str) -> bool:
    """Whether a local file is a GeoPackage into which a layer is written, and not a file to be replaced."""
    if not path.lower().endswith(ENDING) or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def check_layer(path: str, *, overwrite: bool, wanted: str = "") -> str:
    """Return the layer to write into a GeoPackage that is there, under the name that it has in it.

    Parameters
    ----------
    path
        Of a local file; see `is_kept`.
    overwrite
        Whether a layer of that name may be replaced.
    wanted
        The layer's name. Empty: as in a new file.

    Raises
    ------
    SwatheError
        It is open elsewhere, or cannot be written; it is damaged, or a database of another kind; it has a layer of that
        name and `overwrite` is False, or something else of that name.
    """
    for ending in BESIDE:
        if os.path.exists(path + ending):
            raise SwatheError(
                f"{path} is open in another program, or was not closed: {os.path.basename(path)}{ending} lies beside "
                "it. Close it there, as in QGIS, or choose another output"
            )
    if not os.access(path, os.W_OK):
        raise SwatheError(f"{path} may not be written to; make it writable, or choose another output")
    try:
        names, contents = _read_names(path)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise SwatheError(f"{path} is being written by another program; close it there first") from error
        raise SwatheError(f"{path} is damaged ({error}); move it away, or choose another output") from error
    if contents is None:
        raise SwatheError(f"{path} is a database, but no GeoPackage; choose another output")
    wanted = wanted or layer_name(path)
    there = next((name for name in names if name.casefold() == wanted.casefold()), None)
    if there is None:
        return wanted
    if contents.get(there) != "features":
        raise SwatheError(f"{path} has a table {there!r} that is no layer of shapes; choose another output")
    if not overwrite:
        others = f"; its other layers stay ({', '.join(sorted(set(contents) - {there})[:5])})" if contents else ""
        if set(contents) == {there}:
            refuse_existing(path, error=SwatheError)
        raise SwatheError(
            f"{path} has a layer {there!r}; choose another output, or pass --overwrite to replace that layer{others}"
        )
    return there


def holds_more(path: str, layer: str) -> bool:
    """Whether a GeoPackage holds anything but a layer, as layers, tables or styles; else it may be made anew."""
    names, contents = _read_names(path)
    foreign = [name for name in names if not name.startswith(("gpkg_", "rtree_", "sqlite_"))]
    return {*foreign, *(contents or {})} > {layer} or layer not in foreign


def other_layers(path: str, layer: str) -> list[str]:
    """Return the names of what else a GeoPackage holds."""
    contents = _read_names(path)[1] or {}
    return sorted(set(contents) - {layer})


def _read_names(path: str) -> tuple[list[str], dict[str, str] | None]:
    """Return all tables and views of a database that nobody holds, and the kind of each content of a GeoPackage."""
    with closing(sqlite3.connect(path, timeout=1, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        contents = None
        if "gpkg_contents" in names:
            contents = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        database.execute("ROLLBACK")
    return names, contents
