"""Fill a store block by block over a Dask client: what every durable verb shares.

Killed at any moment, the same call continues.

One task is one block: make its answer, write whole shards, mark done. What an answer is made of is the verb's to know:
it brings a `Work`.

Two runs at the same time on one output: the second is refused, on a disk. In an object store nothing keeps runs apart;
both write the same bytes, and one of them may end with an error when the other has finished first.
"""

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.errors import StoreError, SwatheError

from ..grid.encoding import NODATA, BlockResult
from ..grid.geobox import GeoBox, Window
from ..store.files import Files, full_path
from ..store.lifecycle import check_whole, finish_store, resume_store, tidy
from ..store.metadata import level_geobox
from ..store.overviews import halve
from ..store.run_id import differences
from ..store.store import Place, Store, Summary, mark_name, read_own, reopen_store, sole_writer
from .dask import dask_client, gpu_resources, map_bounded
from .progress import ProgressCallback, ProgressFactory, no_progress, progress

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
        Blocks of the full resolution, and those of them that were there before.
    pixels
        Observed pixels per class, by name, and `nodata`.
    seconds
        Since the run began; not those of runs before.
    """

    output: str
    blocks: int
    resumed: int
    pixels: dict[str, int]
    seconds: float


class BlockFunction(Protocol):
    """Makes what a block holds. Sent to every worker: names and facts, no pixels."""

    @property
    def scatter_once(self) -> bool:
        """Whether it holds so much that it is sent to each worker once, not with each task."""
        ...

    @property
    def on_gpu(self) -> bool:
        """Whether a task takes a GPU."""
        ...

    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """Make a block of the full resolution; twice, it is the same."""
        ...


class Work(Protocol):
    """What a durable verb brings."""

    @property
    def title(self) -> str:
        """What is done, for the progress."""
        ...

    @property
    def geobox(self) -> GeoBox:
        """Where the result lies."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """Paths of what is read, which must not be written over."""
        ...

    @property
    def threads(self) -> int:
        """Tasks at a time in a worker of this process."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """Give what decides the pixels, and nothing else, as JSON values."""
        ...

    def bind_to_cluster(self, client: Client) -> Self:
        """Give this work as a cluster that the user gave would do it."""
        ...

    def create(self, path: str) -> Store:
        """Make the empty store."""
        ...

    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """Do what must be known before any block is made; durably too."""
        ...

    def block_function(self, store: Store) -> BlockFunction:
        """Give what makes the blocks of a store, which may have been begun with other tiles."""
        ...

    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """Do what follows the blocks; give results to keep in the store."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks of a run share."""

    block_function: BlockFunction
    store: Store
    classes: int


def fill(
    work: Work,
    output: str | os.PathLike[str],
    replacing: OverwritePolicy,
    *,
    client: Client | str | None = None,
    show: bool = True,
) -> RunResult:
    """Do a verb's work into a store, or what is left of it.

    Parameters
    ----------
    work
        See `Work`.
    output
        Path or URL of the store.
    replacing
        What may be replaced. What this very work has begun is continued all the same.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    show
        Show progress.

    Raises
    ------
    SwatheError
        The output belongs to another run, or is what is read; or a block failed after retries. Finished blocks stay.
    """
    started, path = time.monotonic(), _checked(work, os.fspath(output))
    if client is None and (finished := _finished(work, path, replacing)):
        return _report(*finished, len(finished[0].plan), started)  # no worker is needed to see that
    with dask_client(client, threads=work.threads) as connection, sole_writer(path):
        work = work if client is None else work.bind_to_cluster(connection)
        if finished := _finished(work, path, replacing):
            return _report(*finished, len(finished[0].plan), started)
        store, own = _begun(work, path, replacing)
        shown = make_progress(show)
        work.prepare(connection, store, shown)
        names = [info["name"] for info in own["classes"]]
        task = Task(work.block_function(store), store, len(names))
        summaries, resumed = _all_levels(connection, task, shown, work.title)
        results = {"pixels": _pixels(summaries, names), **work.finalize(connection, store, shown)}
        finish_store(store, results, _seconds(summaries, store))
    return _report(store, {"results": results}, resumed, started)


def _checked(work: Work, output: str) -> str:
    """Give the output's path in full, if it can be one."""
    if output.lower().rstrip("/").endswith((".tif", ".tiff")):
        raise StoreError(f"{output}: a run fills a Zarr store; end its name in .zarr, and use `write_cog` on it after")
    refuse_own(work, output)
    return full_path(output)


def refuse_own(work: Work, output: str) -> None:
    """Raise StoreError if the output is what is read."""
    if any(Files(output).same_as(Files(path)) for path in work.reads):
        raise StoreError(f"{output} is what is read; choose another output")


def make_progress(show: bool) -> ProgressFactory:
    """Give what shows progress, or nothing at all."""
    return progress if show else lambda *_: nullcontext(no_progress)


def _finished(work: Work, path: str, replacing: OverwritePolicy) -> tuple[Store, dict[str, Any]] | None:
    """Give this run's store and its facts if there is nothing left to do. Raises StoreError if it may not be begun."""
    own = _own(work, path, replacing)
    if own is None or own["state"] != "complete" or replacing == "all":
        return None
    if differences(work.identity(), own["identity"]):
        return None
    store = reopen_store(path, own, work.geobox)
    check_whole(store)
    tidy(store)
    return store, own


def _own(work: Work, path: str, replacing: OverwritePolicy) -> dict[str, Any] | None:
    """Give the facts of a store that is there; None if there is none, or one that was never ready."""
    own = read_own(path)
    if own is None or own["state"] == "creating":
        return None
    mine, theirs = work.identity(), own["identity"]
    others = differences(mine, theirs)
    if set(mine) != set(theirs):  # of another verb, with which it has no settings in common
        others = [f"of `{own.get('command', 'swathe segment')}`"]
    if others and replacing == "nothing":
        raise StoreError(
            f"{path} belongs to another run ({'; '.join(others)}); "
            "choose another output, or pass --overwrite to replace it"
        )
    return own


def _begun(work: Work, path: str, replacing: OverwritePolicy) -> tuple[Store, dict[str, Any]]:
    """Open the unfinished store of this very run, or make a new one. Only the one writer may."""
    own = _own(work, path, replacing)
    same = own is not None and not differences(work.identity(), own["identity"])
    if own is not None and same and (own["state"] == "running" or replacing != "all"):
        return resume_store(path, own, work.geobox), own
    store = work.create(path)
    made = read_own(path)
    assert made is not None  # it was just made
    return store, made


def _all_levels(client: Client, task: Task, show: ProgressFactory, title: str) -> tuple[list[Summary], int]:
    """Run the full resolution, then each overview from the one below; give the summaries of the full resolution."""
    shared = client.scatter(task, broadcast=True) if task.block_function.scatter_once else task
    found: list[Summary] = []
    resumed = 0
    for level in range(task.store.levels + 1):
        done = task.store.done(level)
        missing = [(level, *place) for place in task.store.places(level) if place not in done]
        if level == 0:
            resumed = len(done)
            found = task.store.summaries([mark_name(0, *place) for place in sorted(done)])
        if missing:
            shown = show(f"overview {level}" if level else title, len(missing) + len(done), len(done))
            made = _level(client, shared, missing, shown, task)
            found += [] if level else made
    return found, resumed


def _level(
    client: Client, shared: Any, missing: list[Place], shown: AbstractContextManager[ProgressCallback], task: Task
) -> list[Summary]:
    resources = gpu_resources(client) if task.block_function.on_gpu else None
    found, key = [], f"swathe-level-{missing[0][0]}"
    with shown as advance:
        for summary in map_bounded(client, run_place, shared, missing, key=key, resources=resources):
            found.append(summary)
            advance(1, sum(summary.pixels))
    return found


def run_place(task: Task, place: Place) -> Summary:
    """Do one block of one level, wherever a worker runs it. Doing it twice writes the same bytes.

    Raises
    ------
    SwatheError
        Of the kind that was met, with the block's place.
    """
    try:
        return _run_place(task, *place)
    except SwatheError as error:
        level, row, column = place
        window = task.store.window(*place)
        name = f"block {row}, {column}" + (f" of overview {level}" if level else "")
        where = f"rows {window.top} to {window.bottom}, columns {window.left} to {window.right}"
        raise type(error)(f"{name} ({where}): {error}") from error


def _run_place(task: Task, level: int, row: int, column: int) -> Summary:
    started = time.perf_counter()
    window = task.store.window(level, row, column)
    if level == 0:
        answer = task.block_function.compute_block(task.store, row, column)
    else:
        answer = halve(task.store.read(level - 1, _below(task.store, level, window)))
    task.store.write(level, window, answer)
    counts = np.bincount(answer.class_map.ravel(), minlength=NODATA + 1)
    pixels = (*counts[: task.classes].tolist(), int(counts[NODATA]))
    summary = Summary(level, row, column, pixels, round(time.perf_counter() - started, 3))
    task.store.mark(summary)
    return summary


def _below(store: Store, level: int, window: Window) -> Window:
    """Give the window of the finer level that an overview's window is made from."""
    height, width = level_geobox(store.geobox, level - 1).shape
    return Window(window.top * 2, min(window.bottom * 2, height), window.left * 2, min(window.right * 2, width))


def _pixels(summaries: list[Summary], names: list[str]) -> dict[str, int]:
    counts = np.array([summary.pixels for summary in summaries], dtype=np.int64).sum(axis=0).tolist()
    return dict(zip([*names, "nodata"], counts, strict=True))


def _seconds(summaries: list[Summary], store: Store) -> NDArray[np.float32]:
    """Give how long each block took, by its place."""
    seconds = np.zeros((store.plan.rows, store.plan.columns), np.float32)
    for summary in summaries:
        seconds[summary.row, summary.column] = summary.seconds
    return seconds


def _report(store: Store, own: Mapping[str, Any], resumed: int, started: float) -> RunResult:
    return RunResult(store.path, len(store.plan), resumed, own["results"]["pixels"], time.monotonic() - started)
