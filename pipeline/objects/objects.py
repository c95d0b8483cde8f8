"""Objects: connected regions of one class, numbered over the whole scene and measured, into a store of their own.

From a finished store to another one with the arrays `class_map` and `objects`, and the table of objects in it.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA, Encoding
from models.errors import PlanError, StoreError

from ..cluster.processes import ClusterLike
from ..grid.block_result import BlockResult
from ..grid.geobox import Window
from ..jobs.job import BlockFunction, DerivedJob, RunResult, run_job
from ..jobs.progress import ProgressFactory
from ..jobs.run_log import RunLog
from ..jobs.skipped import MEND, REFUSED, OnError
from ..store.dataset import open_maps
from ..store.manifest import TABLE
from ..store.metadata import StoreMetadata, fingerprint
from ..store.store import BlockIndex, Store, open_store, store_errors
from .label import BlockLabels, Connectivity, Region, Totals, check_connectivity, find_objects
from .parts import Parts, read_tables, table_files, write_parquet
from .regionprops import DEPTH, EDGE, Patch, measure, own_probability
from .table import COLUMNS, finish, merge, schema_of, with_new_names
from .tree import (
    LabelMerge,
    PartsJob,
    Step,
    TreeReduce,
    merge_labels,
    merged_totals,
    reduced,
    step_file,
    tree_reduce,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ..grid.pixel_area import PixelAreas

COMMAND = "swathe objects"


def write_objects(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    connectivity: Connectivity = 4,
    widths: bool = True,
    client: ClusterLike | None = None,
    overwrite: bool = False,
    sync: bool = True,
    show: bool = True,
    on_error: OnError = "fail",
    log: RunLog | None = None,
) -> RunResult:
    """Find, number and measure the objects of a finished store. Run again after any interruption, it continues.

    Parameters
    ----------
    store
        Path or URL of a finished store, cleaned or not. Objects are connected regions of any class but the background;
        where the store has none, of every class.
    output
        Path or URL of the store to write. Its array `objects` is int64 (y, x): 1 + row * width + column of the object's
        first pixel, the same however the scene is cut; 0 where there is none. Its table is `table.parquet`, with the
        columns of `pipeline.objects.table`: one file, or, where there are more than 4 x 4 blocks, a folder of parts,
        which pandas, pyarrow and geopandas read by the same name.
    connectivity
        4: pixels touch at sides; 8: at corners too.
    widths
        Measure the mean width of objects too, which takes about as long as all else.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
    overwrite
        Replace the output of another run, and do a finished one again.
    sync
        Whether what is written has reached the disk before it counts as done, so that a power cut loses nothing.
    show
        Show progress.
    on_error
        `fail`: the run ends where a block fails. Ids and measures go over blocks, so that none can be set aside.
    log
        Filled with what is known of the run, also if it fails; `write_run_report` makes a page of it.

    Raises
    ------
    SwatheError
        The store is missing, unfinished or not Swathe's; the output belongs to another run.
    """
    if on_error == "skip":
        raise PlanError(f"{REFUSED} of objects: those that reach into a lacking block would be cut, under other ids "
                        f"and sizes; {MEND}")  # fmt: skip
    job = label_job(store, connectivity=connectivity, widths=widths)
    return run_job(job, output, "all" if overwrite else "nothing", client=client, show=show, sync=sync, log=log)


def label_job(store: str | os.PathLike[str], *, connectivity: Connectivity = 4, widths: bool = True) -> "LabelJob":
    """Check what `write_objects` is asked for, before anything is written."""
    check_connectivity(connectivity)
    maps, metadata = open_store(os.fspath(store))
    return LabelJob(maps, metadata, connectivity, widths)


def open_objects(store: str | os.PathLike[str]) -> "tuple[xr.Dataset, pd.DataFrame]":
    """Open what `write_objects` has written.

    Parameters
    ----------
    store
        Path or URL.

    Returns
    -------
    xarray.Dataset, pandas.DataFrame
        See `open_maps`; and the table, one row per object, with the columns of `pipeline.objects.table`.

    Raises
    ------
    StoreError
        It is missing or not finished, or holds no objects.
    """
    return open_maps(store), read_table(os.fspath(store)).to_pandas()


def objects_count(store: str | os.PathLike[str]) -> dict[str, int]:
    """Return how many objects of each class a finished store of objects has, by name."""
    return dict(open_store(os.fspath(store))[1].results["objects"])


def read_table(store: str) -> "pa.Table":
    """Read the table of a store of objects, all of it."""
    import pyarrow as pa

    opened, _ = open_store(store)
    if not opened.encoding.objects:
        raise StoreError(f"{store} holds no objects; `{COMMAND} {store} -o objects.zarr` finds them")
    with store_errors(store):
        found = [table for name in table_files(opened.path) for table in read_tables(opened.files, name)]
    tables = [with_new_names(table, opened.geobox) for table in found]
    return pa.concat_tables(tables) if tables else schema_of(COLUMNS).empty_table()


@dataclass(frozen=True, slots=True)
class LabelJob(DerivedJob):
    """The objects of a store."""

    connectivity: Connectivity
    widths: bool
    title = "numbering objects"

    @override
    def identity(self) -> Mapping[str, Any]:
        return {
            "objects of": fingerprint(self.metadata.content)[:16],
            "connectivity": self.connectivity,
            "widths": self.widths,
            "shape": list(self.geobox.shape),
            **self.metadata.background_identity,
        }

    @override
    def new_metadata(self) -> StoreMetadata:
        made = {"identity": self.identity(), "command": COMMAND, "encoding": Encoding(objects=True), "levels": 0}
        return self.metadata.derived(self.maps.path, **made)

    @override
    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """Find out which objects cross blocks."""
        merge_labels(client, self.block_function(store).merge(store), show, "finding objects")

    @override
    def block_function(self, store: Store) -> "NumberBlock":
        return NumberBlock(self.maps.cut_as(store), self.connectivity, self.metadata.background)

    @override
    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """Measure, and write the table."""
        from ..grid.pixel_area import pixel_areas

        rows = partial(measure_block, self.maps, self.widths, pixel_areas(self.geobox))
        job = TreeReduce(store, "measures", store, rows, merge)
        tree_reduce(client, job, show, "measuring objects")
        table = TableJob(store, "table", job, self.metadata.class_names)
        return {"objects": write_table(client, table, self.metadata.foreground, show)}


@dataclass(frozen=True, slots=True)
class NumberBlock(BlockFunction):
    """The ids of a block's objects."""

    maps: Store
    connectivity: Connectivity
    background: int | None

    def merge(self, store: Store) -> LabelMerge:
        """Return the merge of labels across blocks, which `store` keeps."""
        return LabelMerge(store, "labels", self.region, self.connectivity)

    def region(self, store: Store, row: int, column: int) -> Region:
        """Label a block."""
        return self._labels(row, column)[1].region

    def _labels(self, row: int, column: int) -> tuple[NDArray[np.uint8], BlockLabels]:
        window = self.maps.window(0, row, column)
        class_map = self.maps.read_array("class_map", window)[0]
        how: dict[str, Any] = {"connectivity": self.connectivity, "background": self.background}
        return class_map, find_objects(class_map, window, self.maps.geobox.shape, **how)

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        class_map, found = self._labels(row, column)
        return BlockResult(class_map, None, object_ids(found, merged_totals(self.merge(store), row, column)))


def object_ids(found: BlockLabels, merged: Totals | None) -> NDArray[np.int64]:
    """Return the id of the object at each pixel of a block, int64 (y, x): 1 + `first`; 0 for none.

    Parameters
    ----------
    found
        The block's components.
    merged
        Totals of the open ones in the whole scene; None: none is open.
    """
    return np.asarray(np.append(np.int64(0), found.whole(merged).first + 1)[found.labels])


def measure_block(
    maps: Store, widths: bool, areas: "PixelAreas | None", store: Store, row: int, column: int
) -> "pa.Table":
    """Return the partial rows of the table of a block of `store`, a store of the objects of `maps`."""
    window = store.window(0, row, column)
    core = store.read_array("class_map", window)[0]
    kept = maps.read_array("probability", window) if maps.encoding.probability else None
    patch = Patch(
        core=window,
        width=store.geobox.width,
        objects=buffered(store, "objects", window, EDGE, 0),
        class_map=buffered(store, "class_map", window, DEPTH if widths else 0, NODATA),
        probability=own_probability(core, kept, maps.encoding.kept),
        areas=None if areas is None else areas.of(window),
    )
    return measure(patch, widths=widths)


def buffered(store: Store, name: str, window: Window, halo: int, beyond: int) -> NDArray[Any]:
    """Read an array's window with context on every side; beyond the scene stands a value."""
    wide = window.buffer(halo)
    inside = wide.clip(store.geobox.shape)
    pixels = store.read_array(name, inside)[0]
    rows = inside.top - wide.top, wide.bottom - inside.bottom
    columns = inside.left - wide.left, wide.right - inside.right
    return np.pad(pixels, (rows, columns), constant_values=beyond) if any((*rows, *columns)) else pixels


@dataclass(frozen=True, slots=True)
class TableJob(PartsJob):
    """What all tasks share that write the table; `measures` has the rows, and `classes` the names of classes."""

    measures: TreeReduce
    classes: tuple[str, ...]

    @property
    @override
    def blocks(self) -> Store:
        return self.measures.objects

    @property
    def parts(self) -> Parts | None:
        """The dataset that is written; None: the table is of one part, and a file."""
        return None if self.tree.top <= 1 else Parts(f"{self.store.path.rstrip('/')}/{TABLE}")


def write_table(client: Client, job: TableJob, foreground: Sequence[int], show: ProgressFactory) -> dict[str, int]:
    """Write the table of measured objects in parts; return how many objects each class of `foreground` has."""
    files, schema, parts = job.store.files, schema_of(COLUMNS), job.parts
    if parts is not None:
        with store_errors(job.store.path):
            if TABLE in files.names(TABLE):  # one file, by a version before, whose run was killed then
                files.remove(TABLE)
            parts.begin(schema)
    levels = range(job.tree.part_level, job.tree.top + 1)
    steps = [Step(write_table_part, level, lambda place: [step_file("count", place)]) for level in levels]
    job.run(client, steps, show, "writing the table")
    if parts is not None:
        with store_errors(job.store.path):
            parts.finish(schema)
    counts = dict.fromkeys((job.classes[value] for value in foreground), 0)
    for content in job.read_all("count", job.tasks()):
        for name, count in json.loads(content).items():
            counts[name] += count
    return counts


def write_table_part(job: TableJob, place: BlockIndex) -> None:
    """Write a part of the table, and then how many objects of each class are in it, with which the step is done."""
    job.store.check_run()
    counts: Counter[str] = Counter()

    def rows() -> "Iterator[pa.Table]":
        for part in reduced(job.measures, place):
            made = finish(part, job.store.geobox, job.classes)
            counts.update({found["values"]: found["counts"] for found in made["class"].value_counts().to_pylist()})
            yield made

    write = partial(write_parquet, schema=schema_of(COLUMNS))
    with store_errors(job.store.path):
        if job.parts is None:
            with job.store.files.stream(TABLE) as file:
                write((table for table in rows() if table.num_rows), file)
        else:
            job.parts.write(place, rows(), write, always=job.is_first(place))
    job.write("count", place, json.dumps(counts).encode())
