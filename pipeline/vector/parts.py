"""Objects as polygons in parts: tasks over the tree of blocks put outlines and measures together and write GeoParquet.

A part has the objects that end in one node of the tree: see `objects.tree.Tree.parts`. A single file is made of the
same parts, one row group after the other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from distributed import Client
from typing_extensions import override

from models.errors import StoreError

from ..jobs.progress import ProgressFactory
from ..objects.parts import Parts, part_name, read_tables
from ..objects.table import COLUMNS, schema_of, with_new_names
from ..objects.tree import PartsJob, Step, TreeReduce, reduced, step_file, table_bytes, tables_from
from ..store.manifest import TABLE
from ..store.store import BlockIndex, Store, store_errors
from .formats import GEOMETRY, describe_parts, with_boxes, write_parquet
from .regularize import orthogonalize_table
from .write import place_on_map

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class FeatureParts(PartsJob):
    """What all tasks share that write polygons; `store` keeps the steps.

    Parameters
    ----------
    outlines
        The traced outlines, merged over the tree.
    parts
        Where the parts go.
    right_angles, classes
        As in `vectorise.Outlines`.
    """

    outlines: TreeReduce
    parts: Parts
    right_angles: bool
    classes: tuple[str, ...]

    @property
    @override
    def blocks(self) -> Store:
        return self.objects

    @property
    def objects(self) -> Store:
        """The store with the table of objects."""
        return self.outlines.objects

    @property
    def table(self) -> str:
        """How measures are kept: in `parts`; as one `file`; or that of an earlier version, cut into `nodes`."""
        if Parts(f"{self.objects.path.rstrip('/')}/{TABLE}").whole:
            return "parts"
        return "file" if self.tree.top <= 1 else "nodes"


def feature_columns() -> "pa.Schema":
    """Return the columns: the measures, and the outline."""
    import pyarrow as pa

    return schema_of(COLUMNS).append(pa.field(GEOMETRY, pa.binary()))


def write_parts(client: Client, job: FeatureParts, show: ProgressFactory) -> int:
    """Write what parts are not there yet; return how many rows there are in all."""
    if job.table == "nodes":
        _cut_old_table(job)
    levels = range(job.tree.part_level, job.tree.top + 1)
    job.run(
        client,
        [Step(write_part, level, lambda place: [step_file("rows", place)]) for level in levels],
        show,
        "writing polygons",
    )
    return sum(map(int, job.read_all("rows", job.tasks())))


def dataset_columns(parts: Parts, crs: str | None) -> "pa.Schema":
    """Return the columns of written parts, with what GeoParquet says of all of them."""
    texts = (found.metadata[b"geo"] for _, found in parts.footers())
    return with_boxes(feature_columns()).with_metadata({b"geo": describe_parts(texts, crs)})


def write_part(job: FeatureParts, place: BlockIndex) -> None:
    """Write a part, and then the number of its rows, with which the step is done."""
    job.store.check_run()
    count = 0

    def features() -> "Iterator[pa.Table]":
        nonlocal count
        for table in _features(job, place):
            count += table.num_rows
            yield table

    write = partial(write_parquet, schema=feature_columns(), crs=job.objects.geobox.crs)
    with store_errors(job.parts.folder):
        job.parts.write(place, features(), write, always=job.is_first(place))
    job.write("rows", place, str(count).encode())


def read_parts(job: FeatureParts) -> "Iterator[pa.Table]":
    """Yield the rows of all parts, some at a time, in the order of the parts."""
    schema = feature_columns()
    for name, _ in job.parts.footers():
        for table in read_tables(job.parts.files, name, schema.names):
            yield table.cast(schema)


def _features(job: FeatureParts, place: BlockIndex) -> "Iterator[pa.Table]":
    """Put outlines and measures of a part together, some at a time: both are in the same order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    geobox = job.objects.geobox
    take = _rows_of(_measures(job, place))
    for outlines in reduced(job.outlines, place):
        rows = take(outlines.num_rows)
        if rows is None or not rows["id"].equals(outlines["id"]):
            raise StoreError(f"{job.objects.path} is damaged: its table and its objects do not fit; make it anew")
        made = place_on_map(with_new_names(rows, geobox).append_column(GEOMETRY, outlines[GEOMETRY]), geobox)
        if job.classes:
            made = made.filter(pc.is_in(made["class"], pa.array(job.classes)))
        yield orthogonalize_table(made, abs(geobox.affine.determinant) ** 0.5) if job.right_angles else made


def _measures(job: FeatureParts, place: BlockIndex) -> "Iterator[pa.Table]":
    """Yield the measures of a part's objects."""
    if job.table == "nodes":
        for node in filter(job.is_planned, job.tree.nodes_of(place)):
            yield from tables_from(job.read("measures", node))
        return
    name = TABLE if job.table == "file" else f"{TABLE}/{part_name(place)}"
    with store_errors(job.objects.path):
        if job.objects.files.exists(name):  # an empty part has no file; of a lost one, the outlines are too many
            yield from read_tables(job.objects.files, name)


def _cut_old_table(job: FeatureParts) -> None:
    """Cut a table that an earlier version has written as one file, level by level, into one for each node."""
    tree = job.tree
    last = (tree.top, 0, 0)
    with store_errors(job.store.path):
        if job.store.files.exists(f"{job.folder}/{step_file('measures', last)}"):
            return
    take = _rows_of(read_tables(job.objects.files, TABLE))
    for level in range(tree.top + 1):
        for place in filter(job.is_planned, tree.places(level)):
            count = sum(len(table) for table in tables_from(job.outlines.read("part", place)))
            with store_errors(job.objects.path):
                rows = take(count) if count else schema_of(COLUMNS).empty_table()
            if rows is None:
                raise StoreError(f"{job.objects.path} is damaged: its table ends too early; make it anew")
            job.write("measures", place, table_bytes(rows))


def _rows_of(tables: "Iterator[pa.Table]") -> "Callable[[int], pa.Table | None]":
    """Return a function that takes the next rows of a stream; None where there are not as many."""
    import pyarrow as pa

    left: list[pa.Table] = []

    def take(count: int) -> "pa.Table | None":
        while sum(map(len, left)) < count or not left:
            if (table := next(tables, None)) is None:
                return None
            left.append(table)
        rows = pa.concat_tables(left)
        left[:] = [rows.slice(count)]
        return rows.slice(0, count).combine_chunks()

    return take
