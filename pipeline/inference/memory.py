"""The memory budget of a run, and the tiles and blocks that are chosen within it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from models.engine_memory import FRUGAL, UNKNOWN, EngineMemory
from models.errors import PlanError
from models.metadata import ReceptiveField

from ..grid.tile_cost import TileCost, cheapest_plan
from ..grid.tile_grid import TileGrid
from ..grid.tiling import LARGEST_INPUT, TALLEST_INPUT, TilingPlan, make_plan
from .options import SegmentOptions, parse_memory

SHARE = 0.6  # of the memory: above it a Dask worker begins to spill, at 0.8 it pauses, and others need some too
LIBRARIES = 3 << 28  # bytes of Dask, Zarr, GDAL and its cache of 256 MB, which the engine's own process has not
FEW_SLOTS = 8  # up to so many are in work even where they do not fit, as many as calls that share threads
GPU_INPUT = LARGEST_INPUT * TALLEST_INPUT  # pixels of a tile on a GPU, whose memory is found out by the engine


class PixelBytes(NamedTuple):
    """Bytes of a pixel: as it is read, with its mask; of its result; and of all other tiles of a fixed batch."""

    raw: int
    kept: int
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Resources:
    """What one process of a run has.

    Parameters
    ----------
    memory
        Bytes of the machine, of the container, or of the Dask worker.
    slots
        Blocks in work at a time.
    """

    memory: int
    slots: int


@dataclass(frozen=True, slots=True)
class Cut:
    """How a scene is cut, what that costs, and what the user should know of it."""

    plan: TilingPlan
    cost: TileCost
    measured: bool
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Bytes that a process of the run takes at most."""
        return self.cost.peak_bytes(self.plan)

    def describe(self) -> str:
        """Say what the run takes, of what it may, and what for."""
        taken, may = gigabytes(self.peak_bytes), gigabytes(self.cost.budget)
        blocks = min(self.cost.slots, len(self.plan))
        fixed = f"{gigabytes(self.cost.fixed)} for engine and libraries"
        guess = "" if self.measured else "; a cautious guess, not measured for this network"
        return f"up to {taken} of {may}: {blocks} block{'s' * (blocks != 1)} in work, and {fixed}{guess}"


def machine_memory() -> int:
    """Return the bytes of memory that this process may have: of the machine, or of its container."""
    from distributed.system import memory_limit

    return int(memory_limit())


def cut_scene(
    shape: tuple[int, int],
    receptive_field: ReceptiveField,
    options: SegmentOptions,
    halo: int | None,
    pixel: PixelBytes,
    resources: Resources,
    known: EngineMemory | None,
    measure: Callable[[], EngineMemory],
    grid: TileGrid | None = None,
) -> Cut:
    """Choose tiles and blocks for a scene within the budget.

    Where the halo is not exact, the cut decides pixels and belongs to the run's identity: then it depends on nothing
    that is measured, nor on the machine. Of tiles on a grid the grid alone does, and blocks are free.

    Parameters
    ----------
    shape, receptive_field, halo, grid
        See `make_plan`.
    options
        What is asked for of tiles, blocks and memory.
    pixel
        Bytes of a pixel.
    resources
        Of a process of the run.
    known, measure
        What the engine takes, if it was measured; else how to measure it, which is done only where it matters.

    Raises
    ------
    PlanError
        As `make_plan`; or no tile fits into the memory that is asked for.
    """
    plain = make_plan(shape, receptive_field, halo=halo, tile=options.tile, block=options.block, grid=grid)
    on_gpu = known is not None and not known.per_pixel
    free = (options.tile is None and plain.exact) if grid is None else (options.block is None and not on_gpu)

    def cut(engine: EngineMemory) -> Cut:
        cost = _cost(engine, options, pixel, resources)
        if not free:
            return Cut(plain, cost, engine.measured)
        if on_gpu:  # all slots feed one device, and others' memory is not asked for here
            one = replace(cost, slots=1, sparing=False)
            plan = cheapest_plan(shape, receptive_field, one, halo=halo, block=plain.block, most=GPU_INPUT)
        else:
            plan = cheapest_plan(shape, receptive_field, cost, halo=halo, block=options.block, grid=grid)
        return Cut(plan, cost, engine.measured)

    if known is not None:
        return _checked(cut(known), options, resources)
    frugal, greedy = cut(FRUGAL), cut(UNKNOWN)
    if frugal.plan == greedy.plan and greedy.peak_bytes <= greedy.cost.budget:
        return _checked(greedy, options, resources)
    return _checked(cut(measure()), options, resources)


def _cost(engine: EngineMemory, options: SegmentOptions, pixel: PixelBytes, resources: Resources) -> TileCost:
    given = None if options.memory is None else parse_memory(options.memory)
    budget = given or int(SHARE * resources.memory)
    fixed = engine.fixed + LIBRARIES
    return TileCost(engine.per_pixel, pixel.raw, pixel.kept, fixed, budget, resources.slots,
                    sparing=given is None, batch=pixel.batch)  # fmt: skip


def _checked(cut: Cut, options: SegmentOptions, resources: Resources) -> Cut:
    """Refuse what does not fit into a given budget; note what does not fit into the memory.

    Above `FEW_SLOTS` there are no more blocks in work than fit.
    """
    cost = cut.cost
    cut = replace(cut, cost=replace(cost, slots=max(min(cost.slots, FEW_SLOTS), cost.fitting(cut.plan))))
    budget, needed = cut.cost.budget, gigabytes(cut.peak_bytes)
    fewer = ", or fewer --threads" if cut.cost.slots > 1 else ""
    notes = list(cut.notes)
    if cut.peak_bytes > budget and options.memory is not None:
        grid = cut.plan.grid
        chosen = options.tile is None and (cut.plan.exact if grid is None else grid.fixed)
        what, smaller = ("the smallest tiles of this network", "") if chosen else ("its tiles", ", a smaller --tile")
        raise PlanError(
            f"{gigabytes(budget)} of memory is too little: {what} need {needed}; "
            f"give --memory '{needed}'{smaller}{fewer}"
        )
    if cut.peak_bytes > budget:
        notes.append(f"the run may need {needed} of memory, more than the share of {gigabytes(budget)} that is its own "
                     f"by default; use a smaller --tile{fewer}, if memory runs out")  # fmt: skip
    if options.memory is not None and budget > resources.memory:
        notes.append(f"--memory is {gigabytes(budget)}; here are {gigabytes(resources.memory)}")
    return Cut(cut.plan, cut.cost, cut.measured, tuple(notes))


def gigabytes(size: int) -> str:
    """Say a number of bytes in gigabytes, rounded up to a tenth."""
    return f"{-(-size // 10**8) / 10:.1f} GB"
