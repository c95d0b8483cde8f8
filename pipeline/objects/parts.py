"""Tables as Parquet: one file, or a dataset, which is a folder of parts that readers take for one table.

Tasks write the parts, each whole or not at all. `_metadata` comes last: it names them and holds the statistics of all
their row groups, by which readers leave out what they need not read (the convention of Parquet datasets).
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from models.errors import StoreError, SwatheError
from models.limits import parse_json

from ..store.files import Files
from ..store.manifest import TABLE
from ..store.store import BlockIndex, store_errors
from .tree import ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

METADATA, COMMON = "_metadata", "_common_metadata"  # of all parts; their columns
MANIFEST = "_swathe.json"  # whose dataset it is; its name begins as those that readers of Parquet leave out
PART = "part-"

Writer = Callable[[Iterable["pa.Table"], IO[bytes]], None]


def part_name(place: BlockIndex) -> str:
    """Return the name of a part by its node; names sort as `Tree.parts` has them."""
    level, row, column = place
    return f"{PART}{level:02}-{row:06}-{column:06}.parquet"


@dataclass(frozen=True, slots=True)
class Parts:
    """The folder of a dataset, by path or URL."""

    folder: str

    @property
    def files(self) -> Files:
        """What lies in it."""
        return Files(self.folder)

    @property
    def whole(self) -> bool:
        """Whether all parts were written."""
        return self.files.exists(METADATA)

    def begin(self, schema: "pa.Schema") -> None:
        """Make the folder, with the columns of what will be in it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        made = pa.BufferOutputStream()
        pq.write_metadata(schema, made)
        self.files.write(COMMON, made.getvalue().to_pybytes())

    def write(self, place: BlockIndex, tables: Iterable["pa.Table"], writer: Writer, *, always: bool) -> None:
        """Write a part; one without rows only if `always`, as one part must be: it says which columns there are."""
        found = (table for table in tables if table.num_rows)
        first = next(found, None)
        if first is None and not always:
            return
        with self.files.stream(part_name(place)) as file:
            writer(found if first is None else chain([first], found), file)

    def footers(self) -> "Iterator[tuple[str, pq.FileMetaData]]":
        """Yield name and metadata of each part that is there, in their order."""
        import pyarrow.parquet as pq

        for name in sorted(name for name in self.files.names("") if name.startswith(PART)):
            with self.files.open(name) as file:
                yield name, pq.read_metadata(file)

    def finish(self, schema: "pa.Schema") -> None:
        """Write `_metadata`, with what the schema says of the whole. All parts are there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        empty, made = pa.BufferOutputStream(), pa.BufferOutputStream()
        pq.write_metadata(schema, empty)
        whole = pq.read_metadata(pa.BufferReader(empty.getvalue()))
        for name, found in self.footers():
            found.set_file_path(name)
            whole.append_row_groups(found)
        whole.write_metadata_file(made)
        self.files.write(METADATA, made.getvalue().to_pybytes())

    def metadata(self) -> "pq.FileMetaData":
        """Read `_metadata`."""
        import pyarrow.parquet as pq

        with self.files.open(METADATA) as file:
            return pq.read_metadata(file)

    def one_file(self) -> "pq.FileMetaData":
        """Read the metadata of a table that is one file under the folder's name."""
        import pyarrow.parquet as pq

        with self.files.open("") as file:
            return pq.read_metadata(file)

    def names(self) -> list[str]:
        """Return the names of the parts, in their order."""
        found = self.metadata()
        groups = (found.row_group(number).column(0).file_path for number in range(found.num_row_groups))
        return list(dict.fromkeys(groups))


@dataclass(frozen=True, slots=True)
class Dataset(Parts):
    """A dataset that is a verb's output. Its manifest says which run it is of, and, last of all, that it is whole.

    Parameters
    ----------
    folder
        Path or URL.
    run
        Digest of all that decides the rows.
    """

    run: str

    def check(self, *, overwrite: bool) -> int | None:
        """Return how many rows this very run has written, if it is whole and not to be done again.

        Raises
        ------
        SwatheError
            Something else lies there; or the dataset of another run, and `overwrite` is False.
        """
        ending = os.path.splitext(self.folder)[1].lower()
        if ending in (".csv", ".gpkg", ".fgb", ".geojson", ".zarr", ".tif"):
            raise SwatheError(
                f"{self.folder}/: a folder of parts is Parquet; end its name in .parquet/, or leave out /"
            )
        if self.files.local:
            above = os.path.dirname(self.folder)
            if not os.path.isdir(above):
                raise SwatheError(f"there is no folder {above}; make it first, or choose another output")
            if os.path.lexists(self.folder) and not os.path.isdir(self.folder):
                raise SwatheError(f"{self.folder} is a file, and a name that ends in / is a folder; choose another")
        with store_errors(self.folder):
            names, manifest = self.files.names(""), self._manifest()
        foreign = sorted(name for name in names if name not in OURS and not name.startswith(PART))
        if foreign or (names and manifest is None):
            named = ", ".join((foreign or names)[:5])
            raise SwatheError(f"{self.folder} holds {named}, which Swathe did not write there; choose another output")
        if manifest is None or overwrite:
            return None
        if manifest["run"] != self.run:
            raise SwatheError(
                f"{self.folder} belongs to another run; choose another output, or pass --overwrite to replace it"
            )
        return int(manifest["rows"]) if manifest["state"] == "complete" else None

    def claim(self, schema: "pa.Schema") -> bool:
        """Take the folder for this run, and remove what another has left there; whether nothing of this one was there.

        Killed meanwhile, it can be called again.
        """
        manifest = self._manifest()
        if manifest is not None and manifest["run"] == self.run and manifest["state"] == "running":
            return False
        self._state("clearing")
        for name in (METADATA, *(name for name in self.files.names("") if name.startswith(PART))):
            self.files.remove(name)
        self.begin(schema)
        self._state("running")
        return True

    def complete(self, schema: "pa.Schema", rows: int, **more: Any) -> None:
        """Write `_metadata` and say that all is there, with more to keep in the manifest.

        Raises
        ------
        StoreError
            Parts have been lost meanwhile.
        """
        self.files.remove_partial()  # readers of a folder would take what a kill left for a part
        self.finish(schema)
        if (found := self.metadata().num_rows) != rows:
            raise StoreError(f"{self.folder} has {found:,} of {rows:,} rows: parts were removed; pass --overwrite")
        self._state("complete", rows=rows, **more)

    def manifest(self) -> dict[str, Any]:
        """Return what the manifest says; nothing where there is none."""
        return self._manifest() or {}

    def _manifest(self) -> dict[str, Any] | None:
        if not self.files.exists(MANIFEST):
            return None
        try:
            found: dict[str, Any] = parse_json(self.files.read(MANIFEST))
            return found if found.keys() >= {"run", "state"} else None
        except (ValueError, AttributeError):
            return None

    def _state(self, state: str, **more: Any) -> None:
        content = {"format": "swathe dataset 1", "run": self.run, "state": state, **more}
        self.files.write(MANIFEST, json.dumps(content).encode())


OURS = (METADATA, COMMON, MANIFEST)


def is_dataset(output: str | os.PathLike[str]) -> bool:
    """Whether an output is a folder of parts: its name ends in `/`, or such a folder is there."""
    text = os.fspath(output)
    return text.endswith("/") or ("://" not in text and os.path.isfile(os.path.join(text, MANIFEST)))


def table_files(store: str) -> list[str]:
    """Return the files of a store's table of objects, in their order, by their names in the store."""
    parts = Parts(f"{store.rstrip('/')}/{TABLE}")
    return [f"{TABLE}/{name}" for name in parts.names()] if parts.whole else [TABLE]


def write_parquet(tables: Iterable["pa.Table"], file: IO[bytes], schema: "pa.Schema") -> None:
    """Write tables of a schema as Parquet, each as a row group; its pages have checksums."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for table in tables:
            writer.write_table(table)


def read_tables(files: Files, name: str, columns: Sequence[str] | None = None) -> "Iterator[pa.Table]":
    """Yield the rows of a Parquet file, at most `ROWS` at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with files.open(name) as file:
        source = pq.ParquetFile(file, page_checksum_verification=True)
        for batch in source.iter_batches(ROWS, columns=columns):
            yield pa.Table.from_batches([batch])
