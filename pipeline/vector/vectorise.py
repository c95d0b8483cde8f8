"""Objects of a store as polygons with their measures, into a vector file. Killed at any moment, it is continued.

Outlines are traced block by block and joined on the tree of blocks, as the table of measures was: both come out part by
part in one order, and are put together row by row.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from distributed import Client

from models.encoding import NODATA
from models.errors import PlanError, StoreError, SwatheError

from ..grid.geobox import IN_PIXELS, GeoBox
from ..jobs.dask import check_client, dask_client
from ..jobs.job import THREADS, make_progress, run_job
from ..objects.label import Connectivity
from ..objects.objects import buffered, label_job
from ..objects.table import COLUMNS, schema_of, with_new_names
from ..objects.tree import TreeReduce, reduced, tree_reduce
from ..store.files import full_path
from ..store.lifecycle import TABLE
from ..store.metadata import fingerprint
from ..store.store import Store, open_store, sole_writer, store_errors
from ..store.work_folder import WorkFolder
from . import polygons
from .regularize import orthogonalize_table
from .write import check_target, count_features, place_on_map, remove_partial, write_features

if TYPE_CHECKING:
    import pyarrow as pa

OUTSIDE, UNKNOWN = -2, -1  # instead of ids: beyond the scene, and nodata


@dataclass(frozen=True, slots=True)
class Outlines:
    """How polygons are drawn.

    Parameters
    ----------
    simplify
        Pixels that an outline may change by: the square root of the area of a corner that may go. Borders that objects
        share stay shared, and points where an outline crosses from block to block stay. None: every corner of every
        pixel.
    right_angles
        Give outlines right angles only, as buildings have; where that would change one too much, it stays as traced.
    classes
        Names of the classes to write. Empty: all.
    """

    simplify: float | None = None
    right_angles: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Features:
    """What was written: the path, how many features, seconds, and what a reader of the file should know."""

    output: str
    features: int
    seconds: float
    notes: tuple[str, ...]


def write_vectors(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    connectivity: Connectivity = 4,
    outlines: Outlines = Outlines(),
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> Features:
    """Write the objects of a finished store as polygons.

    Parameters
    ----------
    store
        Path or URL: what `write_objects` has made; or any other finished store, whose objects are found first.
    output
        Path or URL that ends in `.parquet` (GeoParquet), `.gpkg`, `.fgb` or `.geojson`. Each feature is one whole
        object with its holes and the columns of `objects.table`, in the CRS of the store (GeoJSON: longitude and
        latitude). What is half done lies beside it, in `OUTPUT.unfinished`, and is removed at the end.
    connectivity
        Of objects that are still to be found. With 8, objects may be of several polygons that touch at corners.
    outlines
        How they are drawn.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    show
        Show progress.
    overwrite
        Replace a file that is there.

    Raises
    ------
    SwatheError
        The store is missing or unfinished; the file exists or cannot be written; an option makes no sense.
    """
    check_client(client)
    started, path = time.monotonic(), full_path(output)
    opened, metadata = open_store(os.fspath(store))
    if opened.files.holds(path):
        raise StoreError(f"{path} would lie in the store that is read; choose another output")
    _check(outlines, opened.geobox, [metadata.class_names[value] for value in metadata.foreground])
    made_from = fingerprint(metadata.identity)[:16]
    settings = {"vectors of": made_from, "connectivity": connectivity, "block": opened.plan.block, **asdict(outlines)}
    work = WorkFolder(path, fingerprint(settings))  # of blocks too: what is half done is kept block by block
    try:
        check_target(path, _schema(), overwrite=overwrite)
    except SwatheError:
        if not work.has_written():
            raise
        work.remove()
        return Features(path, count_features(path), time.monotonic() - started, ())
    with sole_writer(work.folder):
        work.begin()
        remove_partial(path)
        objects = opened.path
        if not opened.encoding.objects:
            objects = f"{work.folder}/objects.zarr"
            run_job(label_job(store, connectivity=connectivity), objects, "others", client=client, show=show)
        traced = open_store(objects)[0]
        half_done = replace(traced, path=work.folder, run=work.run)
        merge = polygons.merge if outlines.simplify is None else polygons.merge_simplified
        trace = partial(trace_block, traced, outlines.simplify)
        reduction = TreeReduce(half_done, "polygons", traced, trace, merge)
        with dask_client(client, threads=THREADS) as connection:
            tree_reduce(connection, reduction, make_progress(show), "drawing outlines")
        batches = _features(reduction, outlines)
        written = write_features(batches, path, schema=_schema(), crs=opened.geobox.crs, overwrite=overwrite)
        work.remove()
    said = () if metadata.background_note == "" else (metadata.background_note,)
    notes = (*said, *(() if opened.geobox.transform else (IN_PIXELS,)), *written.notes)
    return Features(path, written.features, time.monotonic() - started, notes)


def _check(outlines: Outlines, geobox: GeoBox, names: Sequence[str]) -> None:
    from pyproj import CRS

    if outlines.simplify is not None and not 0 < outlines.simplify <= 1000:
        raise PlanError(f"simplify is a number of pixels above 0, at most 1000; received {outlines.simplify:g}")
    for name in outlines.classes:
        if name not in names:
            raise PlanError(f"no objects are of class {name!r}; the store has: {', '.join(names)}")
    if outlines.right_angles and (geobox.crs is None or CRS.from_user_input(geobox.crs).is_geographic):
        raise PlanError("right angles need a CRS in metres or feet: degrees are not square on the ground")


def _schema() -> "pa.Schema":
    """Return the columns of the file: the measures, and the outline."""
    import pyarrow as pa

    return schema_of(COLUMNS).append(pa.field("geometry", pa.binary()))


def trace_block(objects: Store, simplify: float | None, store: Store, row: int, column: int) -> "pa.Table":
    """Trace the outlines of a block's objects, in pixels of the scene; `store` is that of the steps."""
    window = objects.window(0, row, column)
    if simplify is None:
        return polygons.trace(objects.read_array("objects", window)[0], window)
    ids = buffered(objects, "objects", window, 1, OUTSIDE)
    ids[(ids == 0) & (buffered(objects, "class_map", window, 1, 0) == NODATA)] = UNKNOWN
    return polygons.trace_simplified(ids, window, simplify)


def _features(reduction: TreeReduce, outlines: Outlines) -> Iterator["pa.Table"]:
    """Put outlines and measures together, part by part: both are in the order of the tree."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    objects = reduction.objects
    pixel = objects.geobox.affine.determinant
    with store_errors(objects.path), objects.files.open(TABLE) as file:
        table = pq.ParquetFile(file, page_checksum_verification=True)
        take = _rows_of(table.iter_batches(), table.schema_arrow)
        for part in reduced(reduction):
            rows = with_new_names(take(part.num_rows), objects.geobox)
            if not rows["id"].equals(part["id"]):
                raise StoreError(f"{objects.path} is damaged: its table and its objects do not fit; make it anew")
            made = place_on_map(rows.append_column("geometry", part["geometry"]), objects.geobox)
            if outlines.classes:
                made = made.filter(pc.is_in(made["class"], pa.array(outlines.classes)))
            yield orthogonalize_table(made, abs(pixel) ** 0.5) if outlines.right_angles else made


def _rows_of(batches: Iterator["pa.RecordBatch"], schema: "pa.Schema") -> Callable[[int], "pa.Table"]:
    """Return a function that takes the next rows of a stream."""
    import pyarrow as pa

    left = schema.empty_table()

    def take(count: int) -> "pa.Table":
        nonlocal left
        while left.num_rows < count and (batch := next(batches, None)) is not None:
            left = pa.concat_tables([left, pa.Table.from_batches([batch])])
        rows, left = left.slice(0, count), left.slice(count)
        return rows.combine_chunks()

    return take
