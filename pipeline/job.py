"""The durable way: blocks over a Dask client into a store. Killed at any moment, the same call continues.

One task is one block: read, predict, write whole shards, mark done. Nothing here knows how any of these is done.

Two runs at the same time on one output: the second is refused, on a disk. In an object store nothing keeps runs apart;
both write the same bytes, and one of them may end with an error when the other has finished first.
"""

import os
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import numpy as np
from distributed import Client

from models.errors import StoreError, SwatheError
from models.machine import usable_cpus

from .arrays import ArraySource
from .cluster import connected, gpu_resources, rolling, run_once, worker_nthreads
from .files import Files
from .fingerprint import Identity, differences
from .geobox import Window
from .layout import level_geobox
from .lifecycle import check_whole, create_store, finish_store, resume_store, tidy
from .options import Wishes
from .plans import Plan
from .predict import NODATA, Recipe, predict, settle_engine
from .prepare import BundleLike, Prepared, plan
from .progress import Advance, progress, silent
from .pyramid import halve
from .scene import SceneLike
from .source import Source
from .store import Store, Summary, mark_name, read_own, reopen_store, sole_writer

Replacing = Literal["nothing", "others", "all"]
"""What a run may replace: nothing, stores of other runs, or also its own finished one."""
Shower = Callable[[str, int, int], AbstractContextManager[Advance]]


@dataclass(frozen=True, slots=True)
class Report:
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


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks of a run share."""

    source: Source
    recipe: Recipe
    store: Store


Place = tuple[int, int, int]  # level, row, column


def run(
    scene: SceneLike,
    bundle: BundleLike,
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
    **wishes: Unpack[Wishes],
) -> Report:
    """Segment a scene of any size into a Zarr store. Run again after any interruption, it continues.

    Parameters
    ----------
    scene
        See `open_scene`.
    bundle
        A bundle, or the name or path of one. On a cluster, its path must be reachable from the workers.
    output
        Path or URL of the store, ending in `.zarr` by custom. One run at a time may write to it.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    overwrite
        Replace a store of another run, and do a finished one again. What this very run has begun is continued all the
        same. Nothing is removed before scene, bundle and cluster have been found fit.
    show
        Show progress.
    **wishes
        See `pipeline.options.Options`.

    Returns
    -------
    Report

    Raises
    ------
    SwatheError
        As `plan`; or the output belongs to another run; or a block failed after retries. Finished blocks stay.
    """
    return run_prepared(plan(scene, bundle, **wishes), output, client=client, overwrite=overwrite, show=show)


def run_prepared(
    prepared: Prepared,
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> Report:
    """As `run`, for a plan that has been looked at."""
    return run_replacing(prepared, output, "all" if overwrite else "nothing", client=client, show=show)


def run_replacing(
    prepared: Prepared,
    output: str | os.PathLike[str],
    replacing: Replacing,
    *,
    client: Client | str | None = None,
    show: bool = True,
) -> Report:
    """As `run_prepared`, with a finer choice of what may be replaced."""
    started, path = time.monotonic(), _absolute(os.fspath(output))
    if client is None and (finished := _finished(prepared, path, replacing)):
        return _report(*finished, len(finished[0].plan), started)  # no worker is needed to see that
    with connected(client, threads=_tasks_at_a_time(prepared.recipe)) as connection, sole_writer(path):
        prepared = prepared if client is None else _settled(prepared, connection)
        if finished := _finished(prepared, path, replacing):
            return _report(*finished, len(finished[0].plan), started)
        store = _begun(prepared, path, replacing)
        recipe = replace(prepared.recipe, plan=_merged(prepared.plan, store.plan))
        summaries, resumed = _all_levels(connection, Task(prepared.source, recipe, store), _showing(show))
        results = _totals(summaries, prepared)
        finish_store(store, results)
    return _report(store, results, resumed, started)


def _absolute(output: str) -> str:
    """Give a local path in full: workers may run in other folders."""
    if output.lower().rstrip("/").endswith((".tif", ".tiff")):
        raise StoreError(f"{output}: a run fills a Zarr store; end its name in .zarr, and use `write_cog` on it after")
    return os.path.abspath(output) if Files(output).local and "://" not in output else output


def _tasks_at_a_time(recipe: Recipe) -> int:
    """Give two on a CPU: one runs the engine while the other reads or writes. A GPU must be fed by more."""
    return 2 if recipe.spec.device == "cpu" else max(3, min(8, usable_cpus()))


def _settled(prepared: Prepared, client: Client) -> Prepared:
    """Let a worker say which engine serves best: this machine may have no GPU where the workers have."""
    spec = run_once(client, settle_engine, prepared.options.spec())
    return replace(prepared, recipe=replace(prepared.recipe, spec=spec))


def _showing(show: bool) -> Shower:
    return progress if show else lambda *_: nullcontext(silent)


def _merged(mine: Plan, theirs: Plan) -> Plan:
    """Take blocks from the store that is continued; tiles do not change pixels and may differ."""
    return replace(theirs, tile=min(mine.tile, theirs.block), tall=mine.tall)


def _finished(prepared: Prepared, path: str, replacing: Replacing) -> tuple[Store, dict[str, Any]] | None:
    """Give this run's store and its facts if there is nothing left to do. Raises StoreError if it may not be begun."""
    own = _own(prepared, path, replacing)
    if own is None or own["state"] != "complete" or replacing == "all":
        return None
    if differences(run_identity(prepared), own["identity"]):
        return None
    store = reopen_store(path, own, prepared.geobox)
    check_whole(store)
    tidy(store)
    return store, own


def _own(prepared: Prepared, path: str, replacing: Replacing) -> dict[str, Any] | None:
    """Give the facts of a store that is there; None if there is none, or one that was never ready."""
    own = read_own(path)
    if own is None or own["state"] == "creating":
        return None
    others = differences(run_identity(prepared), own["identity"])
    if others and replacing == "nothing":
        raise StoreError(
            f"{path} belongs to another run ({'; '.join(others)}); "
            "choose another output, or pass --overwrite to replace it"
        )
    return own


def _begun(prepared: Prepared, path: str, replacing: Replacing) -> Store:
    """Open the unfinished store of this very run, or make a new one. Only the one writer may."""
    own = _own(prepared, path, replacing)
    identity = run_identity(prepared)
    same = own is not None and not differences(identity, own["identity"])
    if own is not None and same and (own["state"] == "running" or replacing != "all"):
        return resume_store(path, own, prepared.geobox)
    about = {"identity": identity, "bundle": _bundle_facts(prepared.recipe), "source": _source_facts(prepared)}
    recipe, pyramid = prepared.recipe, prepared.options.pyramid
    return create_store(path, recipe.plan, prepared.geobox, recipe.encoding, recipe.facts, about, pyramid=pyramid)


def run_identity(prepared: Prepared) -> dict[str, Any]:
    """Give what decides the pixels of a run, as JSON values."""
    recipe, cut = prepared.recipe, prepared.plan
    identity = Identity(
        source=prepared.scene_identity,
        bundle=recipe.digest,
        engine=f"{recipe.spec.name} on {recipe.spec.device}",
        precision=recipe.spec.precision,
        compile=recipe.spec.compile,
        halo=cut.halo,
        cut={} if cut.exact else {"tile": cut.tile, "tall": cut.tall, "block": cut.block},
        encoding=recipe.encoding,
        shape=prepared.geobox.shape,
        overviews=prepared.options.pyramid,
    )
    return identity.facts()


def _bundle_facts(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.facts.name, "digest": recipe.digest, "architecture": recipe.facts.architecture}


def _source_facts(prepared: Prepared) -> dict[str, Any]:
    return {"bands": list(prepared.source.bands), "dtype": str(prepared.source.dtype)}


def _all_levels(client: Client, task: Task, show: Shower) -> tuple[list[Summary], int]:
    """Run the full resolution, then each overview from the one below; give the summaries of the full resolution."""
    light = not isinstance(task.source, ArraySource)
    shared = task if light else client.scatter(task, broadcast=True)
    found: list[Summary] = []
    resumed = 0
    for level in range(task.store.levels + 1):
        done = task.store.done(level)
        missing = [(level, *place) for place in task.store.places(level) if place not in done]
        if level == 0:
            resumed = len(done)
            found = task.store.summaries([mark_name(0, *place) for place in sorted(done)])
        if missing:
            title = f"overview {level}" if level else "segmenting"
            made = _level(client, shared, missing, show(title, len(missing) + len(done), len(done)), task)
            found += [] if level else made
    return found, resumed


def _level(
    client: Client, shared: Any, missing: list[Place], shown: AbstractContextManager[Advance], task: Task
) -> list[Summary]:
    resources = gpu_resources(client) if task.recipe.spec.device == "cuda" else None
    key = f"swathe-{uuid.uuid4().hex[:8]}-{missing[0][0]}"
    found = []
    with shown as advance:
        for summary in rolling(client, run_place, shared, missing, key=key, resources=resources):
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
        answer = predict(task.source, window, _with_threads(task.recipe))
    else:
        answer = halve(task.store.read(level - 1, _below(task.store, level, window)))
    task.store.write(level, window, answer)
    counts = np.bincount(answer.class_map.ravel(), minlength=NODATA + 1)
    pixels = (*counts[: len(task.recipe.facts.classes)].tolist(), int(counts[NODATA]))
    summary = Summary(level, row, column, pixels, round(time.perf_counter() - started, 3))
    task.store.mark(summary)
    return summary


def _with_threads(recipe: Recipe) -> Recipe:
    """Let the engine use as many threads as its worker may: workers on one machine must not fight for its cores."""
    threads = worker_nthreads()
    if threads is None or recipe.spec.threads is not None:
        return recipe
    return replace(recipe, spec=replace(recipe.spec, threads=threads))


def _below(store: Store, level: int, window: Window) -> Window:
    """Give the window of the finer level that an overview's window is made from."""
    height, width = level_geobox(store.geobox, level - 1).shape
    return Window(window.top * 2, min(window.bottom * 2, height), window.left * 2, min(window.right * 2, width))


def _totals(summaries: list[Summary], prepared: Prepared) -> dict[str, Any]:
    counts = np.array([summary.pixels for summary in summaries], dtype=np.int64).sum(axis=0).tolist()
    names = [*prepared.recipe.facts.class_names, "nodata"]
    blocks = sorted((s.row, s.column, s.seconds) for s in summaries)
    return {
        "results": {"pixels": dict(zip(names, counts, strict=True)), "block_seconds": [b[2] for b in blocks]},
    }


def _report(store: Store, own: dict[str, Any], resumed: int, started: float) -> Report:
    return Report(store.path, len(store.plan), resumed, own["results"]["pixels"], time.monotonic() - started)
