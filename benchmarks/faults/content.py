"""Whether two outputs hold the same: by bytes, but for times and measured speeds, which no run repeats."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio

from ..chaos_scene import difference as difference_of_stores

TIMES = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:\d\d)?|\d+ [A-Z][a-z]+ \d{4}, \d\d:\d\d")
MEASURED = re.compile(
    rb'"(speed|command)":\s*("(?:[^"\\]|\\.)*"|[\d.]+)'
)  # of bundles: of int8; with the output's path
DRAWN = {"archive/.data/serialization_id"}  # members of zips
DATED = (".json", ".html", ".vrt", ".md")  # texts that say when they were made


def difference(reference: Path, output: Path) -> str:
    """Return where an output is not the reference: a store, a folder or a file; nothing where it is."""
    if not output.exists():
        return "no output"
    if (reference / "zarr.json").exists():
        return difference_of_stores(reference, output)
    mine, theirs = (dict(_contents(path)) for path in (output, reference))
    names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return f"other bytes: {names[:3]}" if names else ""


def _contents(path: Path) -> Iterator[tuple[str, object]]:
    """Return what each file of an output holds, by its name in it; that of a single file is empty."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        yield ("" if file == path else str(file.relative_to(path))), _read(file)


def _read(file: Path) -> object:
    if file.name == "_SHA256SUMS":
        return _sums(file)
    return READERS.get(file.suffix or file.name, _bytes)(file)


def _sums(file: Path) -> object:
    """Return names of files and whether their digests are theirs; digests themselves tell of times in the files."""
    lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()]
    return {name: hashlib.sha256((file.parent / name).read_bytes()).hexdigest() == told for told, name in lines}


def _bytes(file: Path) -> object:
    return _timeless(file.name, file.read_bytes())


def _timeless(name: str, content: bytes) -> bytes:
    return MEASURED.sub(b'"":0', TIMES.sub(b"", content)) if name.endswith(DATED) else content


def _layers(file: Path) -> object:
    """Return features and CRS of each layer; the file also says when each was changed."""
    layers = [str(name) for name, _ in pyogrio.list_layers(file)]
    frames = {name: gpd.read_file(file, layer=name) for name in layers}
    return {name: (frame.to_wkb().to_csv(), str(frame.crs)) for name, frame in frames.items()}


def _members(file: Path) -> object:
    """Return the members of a zip, JSON as values: torch writes its keys in any order, and draws a number each time."""
    with zipfile.ZipFile(file) as archive:
        held = {name: _timeless(name, archive.read(name)) for name in archive.namelist() if name not in DRAWN}
    return {name: json.loads(content) if name.endswith(".json") else content for name, content in held.items()}


def _table(file: Path) -> object:
    """Return schema and rows of a Parquet file; a time in its texts or its own metadata is no difference."""
    table = pq.read_table(io.BytesIO(file.read_bytes()))
    columns = {name: list(map(str, values)) for name, values in table.to_pydict().items()}
    return _fields(table.schema), TIMES.sub(b"", repr(columns).encode())


def _fields(schema: pa.Schema) -> object:
    told = {name: TIMES.sub(b"", value) for name, value in (schema.metadata or {}).items()}
    return [(field.name, str(field.type)) for field in schema], told


def _parts(file: Path) -> object:
    """Return what the `_metadata` of a folder of Parquet files says: schema, and the file and rows of each group."""
    about = pq.read_metadata(file)
    groups: list[Any] = [about.row_group(number) for number in range(about.num_row_groups)]
    return _fields(about.schema.to_arrow_schema()), [(one.column(0).file_path, one.num_rows) for one in groups]


READERS: dict[str, Callable[[Path], object]] = {
    ".gpkg": _layers,
    ".zip": _members,
    ".pt2": _members,
    ".parquet": _table,
    "_metadata": _parts,
    "_common_metadata": _parts,
}
