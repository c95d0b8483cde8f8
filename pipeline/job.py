"""The durable way: blocks over a Dask client into a store. Killed at any moment, the same call continues.

One task is one block: read, predict, write whole shards, mark done. Nothing here knows how any of these is done.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np
from distributed import Client

from models.errors import StoreError

from .arrays import ArraySource
from .cluster import connected, gpu_resources, rolling
from .geobox import Window
from .layout import level_geobox
from .options import Wishes
from .plans import Plan
from .predict import NODATA, Recipe, predict
from .prepare import BundleLike, Prepared, plan
from .progress import Advance, progress, silent
from .pyramid import halve
from .scene import SceneLike
from .source import Source
from .store import (
    Identity,
    Store,
    Summary,
    create_store,
    differences,
    finish_store,
    mark_name,
    read_own,
    reopen_store,
)

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
        Path or URL of the store, ending in `.zarr` by custom.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    overwrite
        Replace a store of another run.
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
    started = time.monotonic()
    store, own = _store(prepared, os.fspath(output), overwrite=overwrite)
    if own.get("state") == "complete":
        return _report(store, own["results"], len(store.plan), started)
    prepared = replace(prepared, recipe=replace(prepared.recipe, plan=_merged(prepared.plan, store.plan)))
    with connected(client, threads=_tasks_at_a_time()) as connection:
        task = Task(prepared.source, prepared.recipe, store)
        summaries, resumed = _all_levels(connection, task, _showing(show))
    results = _totals(summaries, prepared)
    finish_store(store, results)
    return _report(store, results["results"], resumed, started)


def _tasks_at_a_time() -> int:
    """Three: one runs the engine, one has read ahead, one writes."""
    return 3


def _showing(show: bool) -> Shower:
    return progress if show else lambda *_: nullcontext(silent)


def _merged(mine: Plan, theirs: Plan) -> Plan:
    """Take blocks from the store that is continued; tiles do not change pixels and may differ."""
    return replace(theirs, tile=min(mine.tile, theirs.block))


def _store(prepared: Prepared, output: str, *, overwrite: bool) -> tuple[Store, dict[str, Any]]:
    """Open the store of this very run, or make a new one."""
    identity = _identity(prepared)
    own = read_own(output)
    fresh = own is None or own["state"] == "creating"
    if own is not None and not fresh:
        others = differences(identity.facts(), own["identity"])
        if not others and not overwrite:
            return reopen_store(output, own, prepared.geobox), own
        if not overwrite:
            raise StoreError(
                f"{output} belongs to another run ({'; '.join(others)}); "
                "choose another output, or pass --overwrite to replace it"
            )
    about = {
        "identity": identity.facts(),
        "bundle": _bundle_facts(prepared.recipe),
        "source": _source_facts(prepared),
    }
    recipe = prepared.recipe
    store = create_store(
        output,
        recipe.plan,
        prepared.geobox,
        recipe.encoding,
        recipe.facts,
        about,
        pyramid=prepared.options.pyramid,
    )
    return store, {"state": "running"}


def _identity(prepared: Prepared) -> Identity:
    recipe = prepared.recipe
    return Identity(
        source=prepared.source.identity(),
        bundle=recipe.digest,
        engine=f"{recipe.spec.name} on {recipe.spec.device}",
        precision=recipe.spec.precision,
        halo=recipe.plan.halo,
        encoding=recipe.encoding,
        shape=prepared.geobox.shape,
    )


def _bundle_facts(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.facts.name, "digest": recipe.digest, "architecture": recipe.facts.architecture}


def _source_facts(prepared: Prepared) -> dict[str, Any]:
    return {"bands": list(prepared.source.bands), "dtype": str(prepared.source.dtype)}


def _all_levels(client: Client, task: Task, show: Shower) -> tuple[list[Summary], int]:
    """Run the full resolution, then each overview from the one below; give the summaries of the full resolution."""
    marks = task.store.done()
    light = not isinstance(task.source, ArraySource)
    shared = task if light else client.scatter(task, broadcast=True)
    summaries: list[Summary] = []
    resumed = 0
    for level in range(task.store.levels + 1):
        places = list(_places(task.store, level))
        missing = [place for place in places if mark_name(*place) not in marks]
        if level == 0:
            resumed = len(places) - len(missing)
            summaries = [task.store.summary(mark_name(*place)) for place in places if mark_name(*place) in marks]
        if not missing:
            continue
        found = _level(client, shared, missing, show("segmenting" if level == 0 else f"overview {level}", len(places),
                       len(places) - len(missing)), task)  # fmt: skip
        summaries += found if level == 0 else []
    return summaries, resumed


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


def _places(store: Store, level: int) -> Iterator[Place]:
    height, width = level_geobox(store.geobox, level).shape
    for row in range(-(-height // store.plan.block)):
        for column in range(-(-width // store.plan.block)):
            yield level, row, column


def run_place(task: Task, place: Place) -> Summary:
    """Do one block of one level, wherever a worker runs it. Doing it twice writes the same bytes."""
    started = time.perf_counter()
    level, row, column = place
    window = _window(task.store, place)
    if level == 0:
        answer = predict(task.source, window, task.recipe)
    else:
        answer = halve(task.store.read(level - 1, _below(task.store, level, window)))
    task.store.write(level, window, answer)
    counts = np.bincount(answer.class_map.ravel(), minlength=NODATA + 1)
    pixels = (*counts[: len(task.recipe.facts.classes)].tolist(), int(counts[NODATA]))
    summary = Summary(level, row, column, pixels, round(time.perf_counter() - started, 3))
    task.store.mark(summary)
    return summary


def _window(store: Store, place: Place) -> Window:
    level, row, column = place
    height, width = level_geobox(store.geobox, level).shape
    top, left, side = row * store.plan.block, column * store.plan.block, store.plan.block
    return Window(top, min(top + side, height), left, min(left + side, width))


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


def _report(store: Store, results: dict[str, Any], resumed: int, started: float) -> Report:
    return Report(store.path, len(store.plan), resumed, results["pixels"], time.monotonic() - started)
