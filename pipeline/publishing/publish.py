"""Publish a finished store as a fixed grid of COGs with a catalogue: one Dask task a file, resumably, memory flat."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely

from models.errors import ArgumentError, StoreError, SwatheError
from models.system import usable_cpus

from ..catalog.footprint import footprint_of
from ..cluster.connect import check_client, dask_client
from ..cluster.launch import local_part
from ..cluster.processes import ClusterLike, workers_of
from ..jobs.job import make_progress
from ..jobs.kept import mark_kept
from ..jobs.tasks import map_bounded
from ..store.cog import pixels_by_name, write_piece
from ..store.cog_tiles import ArrayFormat, Piece, array_format
from ..store.files import Files, full_path
from ..store.metadata import StoreMetadata, fingerprint
from ..store.placing import READ_ONLY, Target
from ..store.store import Store, open_store, sole_writer, store_errors
from . import state
from .catalogue import write_catalogue
from .cells import SIDE, Cell, CellGrid
from .items import Published, parse_dates
from .state import CellFile, Run

ARRAYS = ("class_map", "probability")
OUTLINE, DECIMALS = 1e-6, 7  # how exact outlines are, and how they are written, in degrees
FORMAT = 1  # of the files of a publication, which its identity holds


@dataclass(frozen=True, slots=True)
class Publication:
    """A store that was published.

    Parameters
    ----------
    output
        Path or URL of the folder.
    files
        How many COGs there are, one for each array of each cell that holds data.
    resumed
        How many of them were there before.
    size
        Bytes of all of them.
    seconds
        Since this call began.
    """

    output: str
    files: int
    resumed: int
    size: int
    seconds: float

    @property
    def already_complete(self) -> bool:
        """Whether there was nothing to do."""
        return self.resumed == self.files

    def __repr__(self) -> str:
        files = f"{self.files:,} file{'s' * (self.files != 1)}, {self.resumed:,} of before"
        return f"<Publication {self.output}: {files}, {self.size / 1e6:,.1f} MB, {self.seconds:.1f} s>"


@dataclass(frozen=True, slots=True)
class CellWriter:
    """What all tasks share."""

    store: Store
    metadata: StoreMetadata
    output: str
    run: Run
    opaque: bool


@dataclass(frozen=True, slots=True)
class CellTask:
    """A cell of one array."""

    array: ArrayFormat
    cell: Cell

    @property
    def file(self) -> str:
        """Name of its file."""
        return self.cell.file(self.array.name)


def publish(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    array: str | Sequence[str] = "class_map",
    side: int = SIDE,
    dates: str | None = None,
    opaque_background: bool = False,
    client: ClusterLike | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> Publication:
    """Publish a finished store as a grid of COGs that QGIS, GDAL, odc-stac and titiler open as one.

    Killed at any moment, the same call continues. The catalogue is written last: `collection.json` and `items/` (static
    STAC), `items.parquet` (stac-geoparquet), `mosaic.vrt`, `mosaic.gti.gpkg` (index of GDAL's driver GTI) and
    `mosaic.qml` (style for QGIS).

    Parameters
    ----------
    store
        Path or URL of a store that `run` has finished; north is up in it, and it has a CRS.
    output
        Folder to be made, or its URL, as `s3://BUCKET/maps`. Cells without any data have no file.
    array
        `class_map`, `probability`, or both. `mosaic.vrt` shows the first, `mosaic_probability.vrt` the other.
    side
        Of a cell in pixels, a multiple of 512. Cells are counted from the origin of the CRS: stores on one grid of
        pixels have the same cells of the same names, as `class_map_R0012_C0034.tif`.
    dates
        When the ground was as the map shows it: a date and time of RFC 3339, or two with `/` between. None: the time
        of publication, since a store does not know.
    opaque_background
        See `write_cog`.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`. None: a worker in this process.
    workers
        Processes of this machine to share the cores among. None: this one.
    overwrite
        Replace another publication, or this one if it is complete.
    show
        Show progress.

    Returns
    -------
    Publication
        What there is now.

    Raises
    ------
    StoreError
        The store is not finished, has no such array or no CRS, or holds nothing; the folder holds something else, or a
        file cannot be written whole.
    ArgumentError
        The side, the array or the dates make no sense.
    """
    started = time.monotonic()
    check_client(client)
    where = workers_of(client, workers)
    opened, metadata = open_store(os.fspath(store))
    arrays = [array_format(opened, name, metadata.classes) for name in _names(array)]
    grid, path = CellGrid.of(opened.geobox, side), _folder(output, opened)
    period = None if dates is None else parse_dates(dates)
    identity = {
        "format": FORMAT,
        "source": fingerprint(metadata.content),
        "grid": opened.geobox.describe(),
        "array": [what.name for what in arrays],
        "side": side,
        "opaque background": opaque_background,
        "dates": period,
    }
    files = Files(path)
    with sole_writer(path):
        finished = state.find_finished(files)
        if finished is not None and finished["run"] == identity and not overwrite:
            return _complete(files, finished, started)
        run = state.begin(files, identity, overwrite=overwrite)
        done, resumed = _write_cells(
            CellWriter(opened, metadata, path, run, opaque_background), arrays, grid, where, show
        )
        state.sweep(files, set(done))
        if not done:
            state.end(files)
            raise StoreError(f"{store} holds nothing but nodata: there is nothing to publish")
        write_catalogue(files, Published(opened, metadata, grid, tuple(arrays), done, run, opaque_background))
        state.end(files)
    return Publication(path, len(done), resumed, sum(one.size for one in done.values()), time.monotonic() - started)


def _names(array: str | Sequence[str]) -> list[str]:
    names = [array] if isinstance(array, str) else list(array)
    if not names or len(set(names)) < len(names) or not set(names) <= set(ARRAYS):
        raise ArgumentError(f"array is class_map, probability or both; received {array!r}")
    return names


def _folder(output: str | os.PathLike[str], store: Store) -> str:
    """Return the folder that is published into, in full."""
    path = full_path(os.fspath(output).rstrip("/") or "/")
    if path.lower().startswith(READ_ONLY):
        raise StoreError(f"nothing can be written to {path}; give a folder, or a URL as s3://BUCKET/NAME")
    if path.lower().endswith((".tif", ".tiff", ".zarr")):
        raise StoreError(f"a publication is a folder of files; received {path}. `swathe export` writes one .tif")
    if store.files.holds(path) or Files(path).holds(store.path):
        raise StoreError(f"{path} and {store.path} lie in each other; choose another output")
    return path


def _complete(files: Files, finished: Mapping[str, Any], started: float) -> Publication:
    """Return what is there, all of it, and was published before."""
    with store_errors(files.root):
        missing = sorted(set(finished["files"]) - set(files.names("")))
    if missing:
        raise StoreError(f"{files.root} is damaged: {missing[0]} is missing; run it again with --overwrite")
    state.end(files)  # the run that completed it may have been killed just before
    count, size = len(finished["files"]), sum(finished["files"].values())
    return Publication(files.root, count, count, size, time.monotonic() - started)


def _write_cells(
    shared: CellWriter, arrays: Sequence[ArrayFormat], grid: CellGrid, where: Any, show: bool
) -> tuple[dict[str, CellFile], int]:
    """Write the cells that are not there yet; return those that have files, and how many of them are of before."""
    cells = list(grid.cells(shared.store.planned(0), shared.store.plan.block))
    done = state.marked(Files(shared.output), shared.run)
    resumed, count = sum(cell.size > 0 for cell in done.values()), len(cells) * len(arrays)
    if done:
        mark_kept()
    todo = (task for task in _tasks(arrays, cells) if task.file not in done)
    processes = local_part(where)
    threads = processes.share(usable_cpus()) if processes else usable_cpus()
    if len(done) < count:
        with (
            dask_client(where, threads) as client,
            make_progress(show)("publishing", count, len(done)) as advance,
        ):
            for found in map_bounded(client, write_cell, shared, todo, key="swathe-cell", tell=advance.tell):
                mark_kept()
                done[grid.cell(found.row, found.column).file(found.array)] = found
                advance(1, grid.side**2)
    return {name: done[name] for name in sorted(done) if done[name].size}, resumed


def _tasks(arrays: Sequence[ArrayFormat], cells: Sequence[Cell]) -> Iterator[CellTask]:
    """Yield a task for each file, those of one cell after each other."""
    for cell in cells:
        for array in arrays:
            yield CellTask(array, cell)


def write_cell(shared: CellWriter, task: CellTask) -> CellFile:
    """Write the COG of one cell, wherever a worker runs it. Doing it twice writes the same bytes.

    Raises
    ------
    SwatheError
        Of the kind that was met, with the name of the file.
    """
    files, cell = Files(shared.output), task.cell
    place = f"{shared.output}/{task.file}"
    target: Target = Path(place) if files.local else place
    piece = Piece(shared.store, shared.metadata, task.array, cell.window)
    try:
        outline = _outline(shared.store, cell)
        made = write_piece(piece, target, 1, opaque=shared.opaque, skip_empty=True)
    except SwatheError as error:
        raise type(error)(f"{task.file}: {error}") from error
    pixels = pixels_by_name(shared.metadata, made.counts) if made.counts else {}
    outline = outline if made.size else ""
    found = CellFile(task.array.name, cell.row, cell.column, made.size, pixels, outline, made.sha256)
    state.mark(files, shared.run, found, task.file)
    return found


def _outline(store: Store, cell: Cell) -> str:
    """Return where the part of a cell in the store lies: WKB, in longitude and latitude, as hexadecimal digits."""
    there = cell.window.clip(store.geobox.shape)
    outline = shapely.simplify(footprint_of(store.geobox.cut(there)), OUTLINE)
    return str(shapely.to_wkb(shapely.transform(outline, lambda points: points.round(DECIMALS)), hex=True))
