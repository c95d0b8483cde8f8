"""Statistics of very many cells, in parts: a task for a rectangle of cells, so that memory does not grow with cells.

A part reads the pixels of its cells block by block, and of the table of objects the row groups that lie there; it is
then finished, and written as GeoParquet. A file is streamed from the parts, in the order of the cells.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from typing_extensions import override

from models.errors import StatisticsError, StoreError, SwatheError
from models.system import usable_cpus

from ..cluster.connect import check_client, dask_client
from ..cluster.processes import ClusterLike
from ..grid.geobox import IN_PIXELS, Window
from ..grid.pixel_area import pixel_areas
from ..jobs.job import make_progress
from ..jobs.kept import again_if_damaged
from ..objects.parts import Dataset, Parts, is_dataset, part_name, read_tables
from ..objects.tree import Step, Tree, TreeJob, step_file
from ..store.files import full_path
from ..store.manifest import TABLE
from ..store.metadata import fingerprint
from ..store.store import BlockIndex, Store, open_store, sole_writer, store_errors
from ..store.work_folder import WorkFolder
from ..vector.formats import GEOMETRY, describe_parts, ending_of, with_boxes, write_parquet
from ..vector.write import LAYERS, check_target, remove_partial, write_features, written_before
from .cells import Cells, make_cells
from .object_stats import read_objects
from .stats import MOST_TASKS, StatsRequest, writable
from .sums import Floats, Ints, Sums, kinds_of
from .table import BOUNDS, cells_frame

if TYPE_CHECKING:
    import pyarrow as pa

SIDE = 8192  # pixels down and across that a part's cells reach, about
MOST, MOST_PARTS = (64, 1024), 4096  # cells down and across in a part; a file takes them by bands of parts
MOST_VALUES = 10**11  # cells times kinds: a table of terabytes
ADDED = ("area_m2", "nodata_m2", "nodata_pixels")  # columns that are added up, beside those of each class


@dataclass(frozen=True, slots=True)
class CellStatistics:
    """What was written: the path, how many rows, their sums as one row for `describe_statistics`, and odd things."""

    output: str
    rows: int
    summary: Any


@dataclass(frozen=True, slots=True)
class PartCells:
    """Some of a scene's cells: a rectangle of them, numbered row by row; see `sums.Groups`."""

    cells: Cells
    rows: range
    columns: range

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    @property
    def window(self) -> Window:
        """Their pixels."""
        down, across = self.cells.down, self.cells.across
        shape = self.cells.height, self.cells.width
        sides = self.rows.start * down, self.rows.stop * down, self.columns.start * across, self.columns.stop * across
        return Window(*sides).clip(shape)

    def part(self, window: Window) -> "PartOfCells":
        """Return what a window of them must know of the cells."""
        return PartOfCells(self, window)

    def number(self, numbers: Ints) -> Ints:
        """Return numbers here by those in the scene, all of cells that are here."""
        row, column = np.divmod(numbers, self.cells.columns)
        return np.asarray((row - self.rows.start) * len(self.columns) + column - self.columns.start)

    def locate(self, rows: Floats, columns: Floats) -> tuple[Ints, Ints]:
        """Find the cells in which points lie; those in other cells are left out."""
        which, numbers = self.cells.locate(rows, columns)
        row, column = np.divmod(numbers, self.cells.columns)
        here = (row >= self.rows.start) & (row < self.rows.stop)
        here &= (column >= self.columns.start) & (column < self.columns.stop)
        return which[here], self.number(numbers[here])


@dataclass(frozen=True, slots=True)
class PartOfCells:
    """The cells of a part that a window lies in."""

    part: PartCells
    window: Window

    def sums(self, kinds: Any, areas: Any, count: int) -> Sums:
        """Add the window's pixels up by cell; see `BlockGroups`."""
        found = self.part.cells.part(self.window).sums(kinds, areas, count)
        return replace(found, groups=self.part.number(found.groups))


@dataclass(frozen=True, slots=True)
class CellParts(TreeJob):
    """What all tasks share that write cells; `store` keeps the steps.

    Parameters
    ----------
    request
        What is asked for; its groups and frame are those of no cells.
    cells
        All cells.
    down, across
        Rows and columns of cells in a part.
    parts
        Where the parts go.
    """

    request: StatsRequest
    cells: Cells
    down: int
    across: int
    parts: Parts

    @property
    @override
    def tree(self) -> Tree:
        """The parts, as the lowest level of a tree."""
        return Tree(-(-self.cells.rows // self.down), -(-self.cells.columns // self.across))

    def of(self, place: BlockIndex) -> StatsRequest:
        """Return what is asked of a part."""
        _, row, column = place
        rows, columns = (
            range(n * side, min((n + 1) * side, end))
            for n, side, end in ((row, self.down, self.cells.rows), (column, self.across, self.cells.columns))
        )
        groups = PartCells(self.cells, rows, columns)
        frame = cells_frame(self.cells, self.request.store.geobox, rows, columns)
        return replace(self.request, groups=groups, frame=frame)

    @property
    def columns(self) -> "pa.Schema":
        """The columns of the parts."""
        request = self.of((0, 0, 0))
        objects = request.no_objects().stats() if request.has_objects else None
        made: pa.Schema = writable(request.table(request.no_totals(), objects), "x.parquet").schema
        return made


def write_cells(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    cell: str | float,
    *,
    client: ClusterLike | None = None,
    show: bool = True,
    overwrite: bool = False,
) -> CellStatistics:
    """As `write_statistics` by cells, of which there may be any number. Killed, the same call continues.

    Parameters
    ----------
    output
        As in `write_statistics`; or a name that ends in `/`: a folder of GeoParquet files with `_metadata`. What is
        half done lies beside it, in `OUTPUT.unfinished`, and is removed at the end.
    store, cell, client, show, overwrite
        See `write_statistics`.

    Raises
    ------
    SwatheError
        As `write_statistics`; or a folder of another run lies there, and `overwrite` is False.
    """
    check_client(client)
    opened, metadata = open_store(os.fspath(store))
    target, dataset_wanted = full_path(output).rstrip("/"), is_dataset(output)
    if not dataset_wanted and ending_of(target) not in (".csv", *LAYERS):
        raise StatisticsError(
            f"{target}: choose an ending that says what is written: .csv, {', '.join(LAYERS)}, or / for a folder"
        )
    if opened.files.holds(target):
        raise StatisticsError(f"{target} would lie in the store that is read; choose another output")
    cells = make_cells(opened.geobox, cell, len(metadata.classes) + 1, MOST_VALUES)
    notes = () if opened.geobox.transform else (IN_PIXELS,)
    request = StatsRequest(opened, metadata, pixel_areas(opened.geobox), cells, None, True, notes)
    settings = {"cells of": fingerprint(metadata.content)[:16], "cell": [cells.down, cells.across],
                "objects": request.has_objects, "block": opened.plan.block}  # fmt: skip
    work = WorkFolder(target, fingerprint(settings))
    dataset = Dataset(target, work.run) if dataset_wanted else None
    parts = dataset or Parts(f"{work.folder}/parts.{work.run[:16]}")
    half_done = replace(opened, path=work.folder, run=work.run, plan_digest="")
    job = CellParts(half_done, "cells", request, cells, *_shape(cells), parts)
    schema = job.columns
    sums = _found(work, job, dataset, schema, overwrite=overwrite)
    if sums is not None:
        return CellStatistics(target, len(cells), _summary(job, sums))
    with sole_writer(work.folder):
        work.begin()
        with store_errors(target):
            if dataset is None:
                remove_partial(target)
                parts.begin(schema)
            elif dataset.claim(schema):
                half_done.files.remove(job.folder)
        with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection:
            step = Step(write_part, 0, lambda place: [step_file("sums", place)])

            def write() -> dict[str, float]:
                job.run(connection, [step], make_progress(show), "adding up")
                return _read_sums(job)

            sums = again_if_damaged(write)
        said = _complete(job, dataset, target, schema, overwrite=overwrite, sums=sums)
        work.remove()
    return CellStatistics(target, len(cells), _summary(job, sums, said))


def _found(
    work: WorkFolder, job: CellParts, dataset: Dataset | None, schema: "pa.Schema", *, overwrite: bool
) -> dict[str, float] | None:
    """Return the sums of what this very run has written before, if it has; refuse what lies there else."""
    path = work.output
    if dataset is not None:
        if dataset.check(overwrite=overwrite) is None:
            return None
        if work.is_ours():
            work.remove()
        return dict(dataset.manifest().get("sums", {}))
    try:
        check_target(path, _plain(schema) if _is_csv(path) else schema, overwrite=overwrite)
    except SwatheError:
        if not work.has_written() and not written_before(path, work.run):
            raise
        sums: dict[str, float] = {}
        if work.is_ours():
            with suppress(StoreError):  # steps may be gone: it was killed while it removed them
                sums = _read_sums(job)
            work.remove()
        return sums
    return None


def _is_csv(path: str) -> bool:
    return path.lower().endswith(".csv")


def _complete(
    job: CellParts,
    dataset: Dataset | None,
    target: str,
    schema: "pa.Schema",
    *,
    overwrite: bool,
    sums: dict[str, float],
) -> tuple[str, ...]:
    """Make of the parts what was asked for; return what its reader should know."""
    crs = job.request.store.geobox.crs
    if dataset is not None:
        with store_errors(target):
            texts = (found.metadata[b"geo"] for _, found in dataset.footers())
            described = with_boxes(schema).with_metadata({b"geo": describe_parts(texts, crs)})
            dataset.complete(described, len(job.cells), sums=sums)
        return ()
    plain = _is_csv(target)
    rows = map(_with_bounds, _in_order(job, schema)) if plain else _in_order(job, schema)
    written = write_features(rows, target, schema=_plain(schema) if plain else schema, crs=crs, made=job.store.run,
                             overwrite=overwrite)  # fmt: skip
    return written.notes


def _shape(cells: Cells) -> tuple[int, int]:
    """Return how many rows and columns of cells a part has."""
    side = SIDE
    while True:
        down, across = (
            max(1, min(side // one, most)) for one, most in zip((cells.down, cells.across), MOST, strict=True)
        )
        full = (down, across) == MOST or side > max(cells.height, cells.width)
        if full or -(-cells.rows // down) * -(-cells.columns // across) <= MOST_PARTS:
            return down, across
        side *= 2


def write_part(job: CellParts, place: BlockIndex) -> None:
    """Write a part, and then its sums, with which the step is done."""
    job.store.check_run()
    request = job.of(place)
    store, groups, classes = request.store, request.groups, len(request.classes)
    assert isinstance(groups, PartCells)
    totals = request.no_totals()
    for window, planned in _windows(store, groups.window):
        kinds = np.full(window.shape, classes, np.uint8)
        if planned:
            kinds = kinds_of(store.read_array("class_map", window)[0], classes)
        totals.add(groups.part(window).sums(kinds, request.areas, classes + 1))
    stats = None
    if request.has_objects:
        counter = request.no_objects()
        for objects in read_objects(f"{store.path.rstrip('/')}/{TABLE}", window=groups.window):
            counter.add(objects)
        stats = counter.stats()
    frame = request.table(totals, stats)
    table = writable(frame, "x.parquet")
    write = partial(write_parquet, schema=table.schema, crs=store.geobox.crs)
    with store_errors(job.parts.folder):
        job.parts.write(place, [table], write, always=True)
    job.write("sums", place, json.dumps(_sums(frame)).encode())


def _windows(store: Store, window: Window) -> Iterator[tuple[Window, bool]]:
    """Cut a window along the store's blocks, row by row; tell which of them are planned."""
    planned = store.planned(0)
    for row, column in window.cells(store.plan.block):
        yield store.window(0, row, column).clip(window), bool(planned[row, column])


def _sums(frame: Any) -> dict[str, float]:
    """Add up what can be, of the columns that `describe_statistics` shows; what is not known is left out."""
    names = [one["column"] for one in frame.attrs["classes"]]
    sums = {name: frame[name].sum(min_count=1) for name in ADDED}
    for name in names:
        sums |= {f"{name}_{what}": frame[f"{name}_{what}"].sum(min_count=1) for what in ("m2", "pixels")}
        if f"{name}_count" in frame:
            count = frame[f"{name}_count"]
            sums[f"{name}_count"] = count.sum()
            sums[f"{name}_size_m2"] = (frame[f"{name}_size_mean_m2"] * count).sum(min_count=1)
    return {name: float(value) for name, value in sums.items() if np.isfinite(value)}


def _read_sums(job: CellParts) -> dict[str, float]:
    """Add up the sums of all parts."""
    sums: Counter[str] = Counter()
    for content in job.read_all("sums", job.tree.places(0)):
        sums.update(json.loads(content))
    return dict(sums)


def _summary(job: CellParts, sums: dict[str, float], notes: tuple[str, ...] = ()) -> Any:
    """Return the sums of all parts as one row, with what `describe_statistics` needs beside it."""
    import pandas

    request = job.of((0, 0, 0))
    empty = request.table(request.no_totals(), request.no_objects().stats() if request.has_objects else None)
    row: dict[str, Any] = {name: sums.get(name, np.nan) for name in ADDED}
    for one in empty.attrs["classes"]:
        name = one["column"]
        row |= {f"{name}_{what}": sums.get(f"{name}_{what}", np.nan) for what in ("m2", "pixels")}
        if f"{name}_count" in empty:
            count = int(sums.get(f"{name}_count", 0))
            row[f"{name}_count"] = count
            row[f"{name}_size_mean_m2"] = sums.get(f"{name}_size_m2", np.nan) / count if count else np.nan
    summary = pandas.DataFrame([row])
    summary.attrs = empty.attrs | {"rows": len(job.cells), "notes": [*empty.attrs["notes"], *notes]}
    return summary


def _in_order(job: CellParts, schema: "pa.Schema") -> "Iterator[pa.Table]":
    """Yield the rows of all parts in the order of the cells: those of parts side by side are in memory at a time."""
    import pyarrow as pa

    for _, places in groupby(job.tree.places(0), lambda place: place[1]):
        with store_errors(job.parts.folder):
            tables = [
                table for place in places for table in read_tables(job.parts.files, part_name(place), schema.names)
            ]
        yield pa.concat_tables(tables).cast(schema).sort_by([("row", "ascending"), ("column", "ascending")])


def _plain(schema: "pa.Schema") -> "pa.Schema":
    """Return the columns of a CSV file: bounds instead of outlines."""
    import pyarrow as pa

    kept = [field for field in schema if field.name != GEOMETRY]
    return pa.schema([*kept, *(pa.field(name, pa.float64()) for name in BOUNDS)])


def _with_bounds(table: "pa.Table") -> "pa.Table":
    """Return rows with bounds instead of outlines."""
    import pyarrow as pa
    import shapely

    bounds = shapely.bounds(shapely.from_wkb(table[GEOMETRY].to_numpy()))
    columns = [table[name] for name in table.column_names if name != GEOMETRY]
    return pa.table([*columns, *bounds.T], schema=_plain(table.schema))
