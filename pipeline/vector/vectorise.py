"""Objects of a store as polygons with their measures, into a vector file or a dataset of parts. Killed, it continues.

Outlines are traced block by block and joined on the tree of blocks, as the table of measures was; tasks put both
together, part by part, see `parts`. A file is then streamed from the parts.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from models.encoding import NODATA
from models.errors import PlanError, StoreError, SwatheError

from ..cluster.connect import check_client, dask_client
from ..cluster.processes import ClusterLike
from ..grid.geobox import IN_PIXELS, GeoBox
from ..jobs.job import THREADS, make_progress, run_job
from ..jobs.kept import again_if_damaged
from ..objects.label import Connectivity
from ..objects.objects import buffered, label_job
from ..objects.parts import Dataset, Parts, is_dataset
from ..objects.tree import TreeReduce, tree_reduce
from ..store.files import full_path
from ..store.metadata import fingerprint
from ..store.placing import finish_placing
from ..store.store import Store, open_store, sole_writer, store_errors
from ..store.work_folder import WorkFolder
from . import polygons
from .parts import FeatureParts, dataset_columns, feature_columns, read_parts, write_parts
from .write import Written, check_target, count_features, remove_partial, write_features, written_before

if TYPE_CHECKING:
    import pyarrow as pa

ALREADY = "all of it was there already; --overwrite writes it again"
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
    client: ClusterLike | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> Features:
    """Write the objects of a finished store as polygons.

    Parameters
    ----------
    store
        Path or URL: what `write_objects` has made; or any other finished store, whose objects are found first.
    output
        Path or URL that ends in `.parquet` (GeoParquet), `.gpkg`, `.fgb` or `.geojson`; or in `/`, as `buildings/` or
        `buildings.parquet/`: a folder of GeoParquet files with `_metadata`, written by many tasks at a time, for any
        number of objects. Each feature is one whole object with its holes and the columns of `objects.table`, in the
        CRS of the store (GeoJSON: longitude and latitude). What is half done lies beside it, in `OUTPUT.unfinished`,
        and is removed at the end.
    connectivity
        Of objects that are still to be found. With 8, objects may be of several polygons that touch at corners.
    outlines
        How they are drawn.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
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
    started, path = time.monotonic(), full_path(output).rstrip("/")
    opened, metadata = open_store(os.fspath(store))
    if opened.files.holds(path):
        raise StoreError(f"{path} would lie in the store that is read; choose another output")
    _check(outlines, opened.geobox, [metadata.class_names[value] for value in metadata.foreground])
    made_from = fingerprint(metadata.content)[:16]
    settings = {"vectors of": made_from, "connectivity": connectivity, "block": opened.plan.block, **asdict(outlines)}
    work = WorkFolder(path, fingerprint(settings))  # of blocks too: what is half done is kept block by block
    dataset = Dataset(path, work.run) if is_dataset(output) else None
    found = _found(work, dataset, overwrite)
    if found is not None:
        return Features(path, found, time.monotonic() - started, (ALREADY,))
    with sole_writer(work.folder):
        work.begin()
        objects = opened.path
        if not opened.encoding.objects:
            objects = f"{work.folder}/objects.zarr"
            run_job(label_job(store, connectivity=connectivity), objects, "others", client=client, show=show)
        traced = open_store(objects)[0]
        half_done = replace(traced, path=work.folder, run=work.run)
        merge = polygons.merge if outlines.simplify is None else polygons.merge_simplified
        trace = partial(trace_block, traced, outlines.simplify)
        reduction = TreeReduce(half_done, "polygons", traced, trace, merge)
        parts = dataset or Parts(f"{work.folder}/parts.{work.run[:16]}")
        job = FeatureParts(half_done, "features", reduction, parts, outlines.right_angles, outlines.classes)
        with store_errors(path):
            if dataset is None:
                remove_partial(path)
                parts.begin(feature_columns())
            elif dataset.claim(feature_columns()):
                half_done.files.remove(job.folder)  # of a dataset that was removed since
        with dask_client(client, threads=THREADS) as connection:

            def write() -> int:
                tree_reduce(connection, reduction, make_progress(show), "drawing outlines")
                return write_parts(connection, job, make_progress(show))

            features = again_if_damaged(write)
        written = Written(features)
        if dataset is None:
            crs = opened.geobox.crs
            written = write_features(read_parts(job), path, schema=feature_columns(), crs=crs, made=work.run,
                                     overwrite=overwrite)  # fmt: skip
        else:
            with store_errors(path):
                dataset.complete(dataset_columns(dataset, opened.geobox.crs), features)
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


def _found(work: WorkFolder, dataset: Dataset | None, overwrite: bool) -> int | None:
    """Return how many features this very run has written before, if it has; refuse what lies there else.

    A file of before says it itself; where a kill came before the folder was removed, that tells it too.
    """
    path = work.output
    if dataset is not None:
        rows = dataset.check(overwrite=overwrite)
        if rows is not None and work.is_ours():
            work.remove()
        return rows
    try:
        check_target(path, feature_columns(), overwrite=overwrite)
    except SwatheError:
        if not work.has_written() and not written_before(path, work.run):
            raise
        if work.is_ours():
            work.remove()
        finish_placing(path)
        return count_features(path)
    return None


def trace_block(objects: Store, simplify: float | None, store: Store, row: int, column: int) -> "pa.Table":
    """Trace the outlines of a block's objects, in pixels of the scene; `store` is that of the steps."""
    window = objects.window(0, row, column)
    if simplify is None:
        return polygons.trace(objects.read_array("objects", window)[0], window)
    ids = buffered(objects, "objects", window, 1, OUTSIDE)
    ids[(ids == 0) & (buffered(objects, "class_map", window, 1, 0) == NODATA)] = UNKNOWN
    return polygons.trace_simplified(ids, window, simplify)
