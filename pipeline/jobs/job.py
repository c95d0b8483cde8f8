"""Run a block job into a Zarr store or a GeoTIFF over a Dask client, resumably: what every durable verb shares.

Killed at any moment, the same call continues. One task is one block: compute it, write whole shards, mark it done. What
is computed is a `BlockJob`.

Two runs at the same time on one output: the second is refused, on a disk. In an object store nothing keeps runs apart;
both write the same bytes, and one of them may end with an error when the other has finished first.
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, Self

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA
from models.errors import DamagedStepError, DeviceLostError, OutputError, StoreError, SwatheError
from models.metadata import some_of
from models.timing import timing

from ..cluster.check import checked_workers
from ..cluster.connect import check_client, dask_client
from ..cluster.current import current_check
from ..cluster.launch import local_part
from ..cluster.on_worker import Requirements
from ..cluster.processes import LocalProcesses, Workers
from ..cluster.workers import gpu_resources, own_address, own_task
from ..grid.block_result import BlockResult, empty_result
from ..grid.geobox import GeoBox
from ..store.cog import show_background, write_cog, written_before
from ..store.files import Files, full_path
from ..store.halves import keep_half, make_overview
from ..store.ledger import Ledger
from ..store.lifecycle import check_whole, create_store, finish_store, remove_markers, remove_store, resume_store
from ..store.metadata import StoreMetadata, describe_nonfinite, differences, fingerprint
from ..store.placing import check_target, finish_placing
from ..store.planned import recut
from ..store.store import BlockIndex, Store, Summary, find_store, reopen_store, sole_writer
from .block_order import BlockOrder
from .events import Event, tell_all
from .first_worker import wait_for_first_worker
from .json_log import json_log
from .kept import again_if_damaged, mark_kept
from .metrics import count_block, counting_tries
from .progress import Progress, ProgressFactory, no_progress, progress
from .run_log import RunLog
from .skipped import Item, OnError, Provisional, SkippedBlock, Skips, index_of
from .tasks import map_bounded, share_once

TIFF = (".tif", ".tiff")
THREADS = 2  # one reads or writes while the other computes
KEPT = "finished blocks are kept, run the same command again to continue"
OverwritePolicy = Literal["nothing", "others", "all"]
"""What a run may replace: nothing, stores of other runs, or also its own finished one."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run has done.

    Parameters
    ----------
    output
        Path or URL of the store.
    blocks, resumed
        Planned blocks of the full resolution, and those of them that were there before.
    pixels
        Observed pixels per class, by name, and `nodata`, with all pixels of blocks that are not planned.
    seconds
        Since the run began; not those of runs before.
    found
        What else the store says of itself, by name: `objects`, `seams`, `nonfinite`.
    skipped
        Blocks that failed and were set aside (`on_error="skip"`): nodata, until the same call has done them.
    """

    output: str
    blocks: int
    resumed: int
    pixels: dict[str, int]
    seconds: float
    found: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[SkippedBlock, ...] = ()

    def __repr__(self) -> str:
        pixels = some_of([f"{name} {count:,}" for name, count in self.pixels.items()])
        blocks = f"{self.blocks:,} block{'s' * (self.blocks != 1)}, {self.resumed:,} of before"
        return f"<RunResult {self.output}: {blocks}, {self.seconds:.1f} s; pixels: {pixels}>"


class BlockFunction(ABC):
    """Computes what a block holds. Sent to every worker: names and metadata, no pixels."""

    __slots__ = ()

    @property
    def scatter_once(self) -> bool:
        """Whether it is so large that each worker is sent it once, not with each task."""
        return False

    @property
    def on_gpu(self) -> bool:
        """Whether a task takes a GPU."""
        return False

    def across(self, store: Store) -> int:
        """Return how many blocks side by side are done before those below them."""
        return store.plan.columns

    @abstractmethod
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """Compute a block of the full resolution; the same each time."""


class BlockJob(ABC):
    """What a durable verb computes block by block, and what it does before and after."""

    __slots__ = ()

    @property
    @abstractmethod
    def title(self) -> str:
        """What is done, for the progress."""

    @property
    @abstractmethod
    def geobox(self) -> GeoBox:
        """CRS, transform and shape of the result."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Paths of what is read, which must not be written over."""
        return ()

    @property
    def threads(self) -> int:
        """Tasks at a time in a worker of this process."""
        return THREADS

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Return what decides the pixels, and nothing else, as JSON values."""

    @abstractmethod
    def new_metadata(self) -> StoreMetadata:
        """Return what a store of this job says of itself when it is begun."""

    def planned_blocks(self, side: int) -> NDArray[np.bool_] | None:
        """Return which blocks of `side` pixels may hold anything, bool by rows and columns of blocks; None: all may.

        Asked when a store is created, which keeps the answer. The others are neither computed nor written, and are
        nodata.
        """
        return None

    def kept(self) -> Mapping[str, bytes]:
        """Return the files that a run needs to continue, by name; see `create_store`."""
        return {}

    @abstractmethod
    def block_function(self, store: Store) -> BlockFunction:
        """Return what computes the blocks of a store, which may have been begun with other tiles."""

    def requirements(self) -> Requirements:
        """Return what a worker of a cluster must have, beside the versions of this process and the output's disk."""
        return Requirements(self.reads)

    def bind_to_cluster(self, client: Client) -> Self:
        """Return the job as the workers of a cluster that the user gave would do it."""
        return self

    def share_among(self, processes: LocalProcesses) -> Self:
        """Return the job as each of several processes of this machine would do it."""
        return self

    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:  # noqa: B027 (no job need do anything)
        """Find out, durably too, what must be known before any block is computed."""

    def map_only(self) -> Self | None:
        """Return the job of the class map alone, without probabilities and overviews; None: it has no such map."""
        return None

    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """Do what follows the blocks; returns results to keep in the store's metadata."""
        return {}


@dataclass(frozen=True, slots=True)
class DerivedJob(BlockJob):
    """A block job on the blocks of a finished store, which is only read."""

    maps: Store
    metadata: StoreMetadata

    @property
    @override
    def geobox(self) -> GeoBox:
        return self.maps.geobox

    @property
    @override
    def reads(self) -> tuple[str, ...]:
        return (self.maps.path,)

    @override
    def planned_blocks(self, side: int) -> NDArray[np.bool_] | None:
        """Return the blocks that touch those which are planned in the store that is read."""
        if not self.maps.plan_digest and not self.maps.skipped:
            return None
        return recut(self.maps.planned(0), self.maps.plan.block, side, self.geobox.shape)


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks of a run share."""

    block_function: BlockFunction
    store: Store
    classes: int
    mask: Store | None = None


def run_job(
    job: BlockJob,
    output: str | os.PathLike[str],
    replacing: OverwritePolicy = "nothing",
    *,
    client: Workers = None,
    show: bool = True,
    note: Callable[[str], object] | None = None,
    mask: Store | None = None,
    opaque_background: bool = False,
    sync: bool = True,
    log: RunLog | None = None,
    on_error: OnError = "fail",
) -> RunResult:
    """Run a block job into a Zarr store or a GeoTIFF, or what is left of it. Killed, the same call continues.

    Parameters
    ----------
    job
        What is computed.
    output
        Path or URL of the store; or one that ends in `.tif`: a COG of the class map. The store that is filled
        first, without probabilities and overviews, lies beside the file and is removed when that is whole.
    replacing
        What may be replaced. What this very job has begun is continued all the same.
    client
        A Dask client or a scheduler's address; processes of this machine; None: a worker in this process.
    show
        Show progress.
    note
        Called with a line about what follows the blocks.
    mask
        A finished store of the same shape: blocks in which its class map holds nothing but nodata are written empty,
        without computing them. It is not part of the job's identity: outputs under other masks need other names.
    opaque_background
        Of a GeoTIFF, see `write_cog`.
    sync
        Of a store: whether what is written has reached the disk before it counts as done; see `Store`.
    on_error
        What becomes of a block that fails after its retries: `fail`, the run ends; `skip`, it is set aside. A store
        with such blocks is partial: they are listed in it and read as nodata. A GeoTIFF is not written then.
    log
        Filled with what is known of the run, also if it fails.

    Raises
    ------
    SwatheError
        The output belongs to another run, or is what is read; or a block failed after retries. Finished blocks stay.
    """
    check_client(client)
    path = os.path.expanduser(os.fspath(output))
    filled = filled_store(output)
    if any(Files(path).same_as(Files(read)) for read in job.reads):
        raise StoreError(f"{path} is what is read; choose another output")
    log = RunLog() if log is None else log
    with log.run(job.title, path, json_log() if show else None):
        if not is_tiff(path):
            return _run_to_store(job, filled, replacing, client, show, mask, log, sync, on_error)
        return _run_to_tiff(job, path, replacing, client, show, mask, log, note, opaque_background, sync, on_error)


def _run_to_tiff(
    job: BlockJob,
    path: str,
    replacing: OverwritePolicy,
    client: Workers,
    show: bool,
    mask: Store | None,
    log: RunLog,
    note: Callable[[str], object] | None,
    opaque_background: bool,
    sync: bool,
    on_error: OnError,
) -> RunResult:
    filled = filled_store(path)
    started, bare = time.monotonic(), job.map_only()
    if bare is None:
        raise StoreError(
            f"{path}: {job.title} fills a Zarr store; end its name in .zarr, and use `write_cog` on it after"
        )
    pixels = None if replacing == "all" else written_before(path, bare.identity())
    if pixels is not None:
        remove_store(filled)  # the run that wrote the file may have been killed just before
        metadata = bare.new_metadata()
        planned = bare.planned_blocks(metadata.plan.block)
        blocks = len(metadata.plan) if planned is None else int(planned.sum())
        show_background(path, metadata, opaque=opaque_background)
        finish_placing(path)
        return RunResult(path, blocks, blocks, pixels, time.monotonic() - started)
    overwrite = replacing != "nothing"
    target = check_target(path, overwrite=overwrite)
    result = _run_to_store(bare, filled, "others" if overwrite else "nothing", client, show, mask, log, sync, on_error)
    if result.skipped:
        return result
    if note is not None:
        note("writing the GeoTIFF and reading it back")
    write_cog(filled, target, opaque_background=opaque_background, overwrite=overwrite)
    remove_store(filled)
    return replace(result, output=path, seconds=time.monotonic() - started)


def is_tiff(path: str) -> bool:
    """Whether an output is a GeoTIFF by its name."""
    return path.lower().rstrip("/").endswith(TIFF)


def filled_store(output: str | os.PathLike[str]) -> str:
    """Return where the store lies that a run fills: the output itself, or beside it if that is a GeoTIFF."""
    path = os.path.expanduser(os.fspath(output))
    return full_path(f"{path}.unfinished.zarr" if is_tiff(path) else path)


def _run_to_store(
    job: BlockJob,
    path: str,
    replacing: OverwritePolicy,
    client: Workers,
    show: bool,
    mask: Store | None,
    log: RunLog,
    sync: bool,
    on_error: OnError,
) -> RunResult:
    started = time.monotonic()
    with sole_writer(path), ExitStack() as stack:
        connection = None
        if (processes := local_part(client)) is not None:
            job = job.share_among(processes)
        elif client is not None:
            connection = stack.enter_context(dask_client(client, threads=job.threads))
            wait_for_first_worker(connection, show, log)
            needed = job.requirements()
            if mask is not None:
                needed = replace(needed, reads=(*needed.reads, mask.path))
            stack.enter_context(checked_workers(connection, needed, path))
            job = job.bind_to_cluster(connection)
            if (check := current_check(connection)) is not None:
                check.require(job.requirements())
        identity = job.identity()
        log.identity = fingerprint(identity)
        state, metadata = find_store(path, identity)
        if metadata and state == "other" and replacing == "nothing":
            raise _refused(path, job, metadata)
        if metadata and state == "mine" and metadata.state == "complete" and replacing != "all":
            # no worker is needed to see that
            store = reopen_store(path, metadata, job.geobox)
            check_whole(store)
            remove_markers(store)
            blocks = int(store.planned(0).sum())
            found: dict[str, Any] = {name: value for name, value in metadata.results.items() if name != "pixels"}
            return RunResult(path, blocks, blocks, dict(metadata.pixels), time.monotonic() - started, found)
        if metadata and state == "mine" and metadata.state in ("running", "partial"):
            store = resume_store(path, metadata, job.geobox, sync=sync)
        else:
            metadata = job.new_metadata()
            planned = job.planned_blocks(metadata.plan.block)  # all that may fail comes before anything is removed
            store = create_store(path, job.geobox, metadata, job.kept(), planned, sync=sync)
        connection = connection or stack.enter_context(dask_client(client, threads=job.threads))
        shown = make_progress(show)
        link = None if client is None or processes is not None else connection.dashboard_link

        def do_blocks() -> tuple[Task, Ledger, int, Skips]:
            job.prepare(connection, store, shown)
            task = Task(job.block_function(store), store, len(metadata.classes), mask)
            return task, *_all_levels(connection, task, shown, job.title, log, link, on_error)

        task, ledger, resumed, skips = again_if_damaged(do_blocks)
        skipped = tuple(sorted(skips.blocks.values(), key=lambda one: one.index))
        store = replace(store, skipped=tuple(one.index for one in skipped))
        task = replace(task, store=store)
        pixels = dict(zip(metadata.class_names, ledger.pixels[:-1].tolist(), strict=True))
        pixels["nodata"] = prod(store.geobox.shape) - sum(pixels.values())  # also of blocks that are not planned
        found = {"nonfinite": ledger.nonfinite} if ledger.nonfinite else {}
        found |= again_if_damaged(lambda: _finalize(connection, job, task, shown))
        listed = {"skipped": [one.to_json() for one in skipped]} if skipped else {}
        finish_store(store, {"pixels": pixels, **found, **listed}, ledger.seconds, ledger.shards)
    seconds = time.monotonic() - started
    return RunResult(path, int(ledger.done[0].sum()), resumed, pixels, seconds, found, skipped)


def _finalize(client: Client, job: BlockJob, task: Task, show: ProgressFactory) -> dict[str, Any]:
    """Do what follows the blocks; where it cannot, because blocks are damaged, those are done again first."""
    try:
        return dict(job.finalize(client, task.store, show))
    except DamagedStepError:
        raise
    except StoreError:
        again = map_bounded(client, _mend_block, task, task.store.places(0), key="swathe-mend")
        if not sum(again):
            raise
        return dict(job.finalize(client, task.store, show))


def _mend_block(task: Task, place: tuple[int, int]) -> bool:
    """Do a block again if it is damaged; whether it was."""
    if damaged := not task.store.is_readable(0, place):
        _run_block(task, 0, *place)
    return damaged


def make_progress(show: bool) -> ProgressFactory:
    """Return what shows progress, or nothing at all."""
    return progress if show else lambda *_: nullcontext(no_progress)


def _refused(path: str, job: BlockJob, metadata: StoreMetadata) -> StoreError:
    """Return the error that says whose the store is."""
    mine, theirs = job.identity(), metadata.identity
    others = differences(mine, theirs)
    if job.new_metadata().command != metadata.command:  # with which it has no settings in common
        others = [f"of `{metadata.command}`"]
    return StoreError(
        f"{path} belongs to another run ({'; '.join(others)}); choose another output, or pass --overwrite to replace it"
    )


def _all_levels(
    client: Client, task: Task, show: ProgressFactory, title: str, log: RunLog, dashboard: str | None, on_error: OnError
) -> tuple[Ledger, int, Skips]:
    """Run all blocks of all levels; return what is done, how many of the full resolution are of before, what failed."""
    store, function = task.store, task.block_function
    shared = share_once(client, task) if function.scatter_once else task
    resources = gpu_resources(client) if function.on_gpu else None
    ledger = Ledger.read(store, task.classes)
    planned = [store.planned(level) for level in range(store.levels + 1)]
    blocks, before = ([int(level.sum()) for level in levels] for levels in (planned, ledger.done))
    if any(before):
        mark_kept()
    still_open = [level & ~done for level, done in zip(planned, ledger.done, strict=True)]
    order = BlockOrder(still_open, function.across(store))
    log.begin_blocks(store, blocks[0], before[0])
    skips = Skips(before[0])
    with _shown(show, title, blocks, before) as advance:
        check, tell = current_check(client), tell_all(log.tell, advance.tell)
        if dashboard:
            tell(Event("dashboard", f"Dask's dashboard is at {dashboard}", {"url": dashboard}))

        def skip(item: Item, error: Exception) -> None:
            one = skips.add(index_of(item), error)
            order.finish(one.index)
            name = _name(store, one.index)
            tell(Event("skipped", f"{name} is set aside: {one.reason}", {"block": name, "reason": one.reason}))

        for summary in map_bounded(
            client,
            run_block,
            shared,
            map(skips.item, order),
            key="swathe-block",
            resources=resources,
            check=check,
            tell=tell,
            name=lambda item: _name(store, index_of(item)),
            skip=skip if on_error == "skip" else None,
        ):
            index = (summary.level, summary.row, summary.column)
            order.finish(index)
            if skips.item(index) == index:
                ledger.add(summary)
            skips.done += summary.level == 0
            log.add(summary)
            if summary.nonfinite:
                tell(_nonfinite(store, summary))
            mark_kept()
            if summary.level == 0 or before[0] == blocks[0]:
                advance(1, sum(summary.pixels))
    skips.check()
    return ledger, before[0], skips


def _shown(show: ProgressFactory, title: str, blocks: list[int], done: list[int]) -> AbstractContextManager[Progress]:
    """Show the blocks of the full resolution, with which the overviews come; or the overviews, if they alone are left.

    `blocks` and `done` are by level.
    """
    if done == blocks:
        return nullcontext(no_progress)
    if done[0] == blocks[0]:
        return show("overviews", sum(blocks[1:]), sum(done[1:]))
    return show(title, blocks[0], done[0])


def run_block(task: Task, item: Item) -> Summary:
    """Do one block of one level, wherever a worker runs it. Doing it twice writes the same bytes.

    Raises
    ------
    SwatheError
        Of the kind that was met, with the block's place.
    """
    index = index_of(item)
    try:
        with counting_tries(own_address(), own_task()):
            return _run_provisional(task, item) if isinstance(item, Provisional) else _run_block(task, *index)
    except SwatheError as error:
        kept = f"; {KEPT}" if isinstance(error, DeviceLostError) else ""
        raise type(error)(f"{_name(task.store, index)}: {error}{kept}") from error


def _name(store: Store, index: BlockIndex) -> str:
    """Return what a block is called, and where it lies."""
    level, row, column = index
    overview = f" of overview {level}" if level else ""
    return f"block {row}, {column}{overview} ({store.window(*index).describe()})"


def _nonfinite(store: Store, summary: Summary) -> Event:
    name = _name(store, (summary.level, summary.row, summary.column))
    text = f"{name}: {describe_nonfinite(summary.nonfinite)}"
    return Event("nonfinite", text, {"block": name, "pixels": summary.nonfinite})


def _run_block(task: Task, level: int, row: int, column: int) -> Summary:
    started = time.perf_counter()
    with timing() as found:
        result, pixels, shards = _compute_and_write(task, level, row, column)
    seconds = round(time.perf_counter() - started, 3)
    summary = Summary(level, row, column, pixels, seconds, found.spent, own_address(), shards, result.nonfinite)
    task.store.mark_done(summary)
    count_block(summary)
    keep_half(task.store, (level, row, column), result)
    return summary


def _run_provisional(task: Task, item: Provisional) -> Summary:
    """Make a block of an overview above some that were set aside, and leave no mark that it is done."""
    started, store = time.perf_counter(), replace(task.store, skipped=item.lacking)
    _, pixels, shards = _compute_and_write(replace(task, store=store), *item.index)
    seconds = round(time.perf_counter() - started, 3)
    return Summary(*item.index, pixels, seconds, worker=own_address(), shards=shards)


def _make_overview(task: Task, level: int, row: int, column: int) -> BlockResult:
    """Make a block of an overview; of those below it, what is damaged is done again first."""
    try:
        return make_overview(task.store, (level, row, column))
    except StoreError:
        planned = task.store.planned(level - 1)
        below = task.store.window(level, row, column).scale(2).clip(task.store.geobox.level(level - 1).shape)
        for place in below.cells(task.store.plan.block):
            if planned[place] and not task.store.is_readable(level - 1, place):
                _run_block(task, level - 1, *place)
        return make_overview(task.store, (level, row, column))


def _compute_and_write(
    task: Task, level: int, row: int, column: int
) -> tuple[BlockResult, tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return what a block holds, its pixels per class, and what was written of it."""
    window = task.store.window(level, row, column)
    if level == 0:
        if task.mask is not None and (task.mask.read_array("class_map", window) == NODATA).all():
            result = empty_result(window.shape, task.store.encoding)
        else:
            result = task.block_function.compute_block(task.store, row, column)
    else:
        result = _make_overview(task, level, row, column)
    try:
        shards = task.store.write(level, window, result)
    except StoreError as error:
        raise OutputError(str(error)) from error
    values = (*range(task.classes), NODATA)
    # bincount makes int64 of all
    return result, tuple(int(np.count_nonzero(result.class_map == value)) for value in values), shards
