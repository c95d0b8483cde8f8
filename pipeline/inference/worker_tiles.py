"""A worker's own tiles, and its number of blocks at a time: by its own memory and threads, which change no pixel."""

import threading
from dataclasses import dataclass, replace

from models.engine_memory import kept_memory
from models.errors import PlanError

from ..cluster.workers import WorkerFacts
from ..grid.tiling import TilingPlan
from .memory import Cut, PixelBytes, cut_scene, machine_memory
from .options import SegmentOptions
from .predict import InferenceSpec, measured_memory
from .worker_classes import worker_resources


@dataclass(frozen=True, slots=True)
class OwnTiles:
    """What a worker must know beside its `InferenceSpec` to choose tiles for itself.

    Parameters
    ----------
    tile, memory
        As `SegmentOptions` has them. A tile that is asked for is every worker's.
    pixel
        See `cut_scene`.
    sharing
        Workers on one machine, at most.
    """

    tile: int | None
    memory: str | int | None
    pixel: PixelBytes
    sharing: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a process does its blocks: tiles, and how many blocks at a time; more of them wait before they read."""

    plan: TilingPlan
    room: threading.BoundedSemaphore


_recipes: dict[tuple[str, TilingPlan, OwnTiles], Recipe] = {}
_choosing = threading.Lock()


def own_recipe(worker: WorkerFacts, inference: InferenceSpec, own: OwnTiles) -> Recipe:
    """Return how this worker does the blocks of a run; it is found out at the first of them."""
    with _choosing:
        key = (inference.digest, inference.plan, own)
        if key not in _recipes:
            _recipes[key] = choose_recipe(worker, inference, own)
        return _recipes[key]


def choose_recipe(worker: WorkerFacts, inference: InferenceSpec, own: OwnTiles) -> Recipe:
    """Choose tiles within a worker's budget for blocks that are cut already, and how many blocks it holds at a time.

    At least one: what does not fit with the smallest tiles is tried.
    """
    plan = inference.plan
    try:
        cut = _cut(worker, inference, own)
    except PlanError:  # it has more threads than the budget that was given allows for
        return Recipe(plan, threading.BoundedSemaphore(1))
    if own.tile is None and plan.exact and plan.grid is None:
        plan = replace(plan, tile=cut.plan.tile, tile_aspect=cut.plan.tile_aspect)
    return Recipe(plan, threading.BoundedSemaphore(cut.cost.fitting(plan)))


def _cut(worker: WorkerFacts, inference: InferenceSpec, own: OwnTiles) -> Cut:
    plan, spec = inference.plan, inference.spec
    return cut_scene(
        (plan.height, plan.width),
        inference.metadata.receptive_field,
        SegmentOptions(tile=own.tile, block=plan.block, memory=own.memory),
        plan.halo,
        own.pixel,
        worker_resources(worker, spec, machine_memory() // own.sharing),
        kept_memory(inference.digest, spec),
        lambda: measured_memory(inference),
        plan.grid,
    )
