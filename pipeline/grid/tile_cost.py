"""Which tiles and blocks cost least: what the network sees more than once, against the memory that they take.

Integer geometry only; what a pixel takes is measured elsewhere.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from models.metadata import ReceptiveField

from .tile_grid import TileGrid
from .tiling import TilingPlan, make_plan

LARGEST_BLOCK = 4096  # a block that is lost is done again, and small scenes must give work to all slots
SMALLEST_TILE = 256
WORTH = 0.04  # of the time: what doubling the memory must save, unless a budget is given
TASK_PIXELS = 1 << 14  # what a block costs beside its pixels: a few milliseconds of Python, files and markers
TAIL = 0.25  # of a block, for which slots wait for the last one: no two blocks take the same time
FEW_BLOCKS = 32  # for each slot; with more of them, all slots end at nearly the same time


@dataclass(frozen=True, slots=True)
class TileCost:
    """What a run holds in memory, and what it may.

    Parameters
    ----------
    network
        Bytes that the engine holds for each pixel of a tile in work, halo included.
    raw
        Bytes of a pixel as it is read: its bands and its mask.
    kept
        Bytes of a pixel's result.
    fixed
        Bytes of the process before any block: interpreter, libraries, weights.
    budget
        Bytes that the process may take.
    slots
        Blocks in work at a time.
    sparing
        Whether more memory is taken only where it saves time in proportion; else all that the budget allows.
    batch
        Bytes that the other tiles of a batch hold outside the engine, for each pixel of one tile.
    """

    network: int
    raw: int
    kept: int
    fixed: int
    budget: int
    slots: int
    sparing: bool = True
    batch: int = 0

    def block_bytes(self, plan: TilingPlan) -> int:
        """Bytes that one block in work takes: its pixels with halo, its results twice, and tiles in the engine."""
        height, width = (min(plan.block, -(-size // plan.stride) * plan.stride) for size in (plan.height, plan.width))
        read = (height + 2 * plan.reach) * (width + 2 * plan.reach) * self.raw
        rows, columns = plan.largest_input
        tile = rows * columns * (self.network + 2 * self.raw + self.kept + self.batch)
        return read + 2 * height * width * self.kept + tile

    def peak_bytes(self, plan: TilingPlan) -> int:
        """Bytes that the process takes at most: all slots at work, on the largest tiles."""
        return self.fixed + min(self.slots, len(plan)) * self.block_bytes(plan)

    def fitting(self, plan: TilingPlan) -> int:
        """Return how many blocks the budget holds at a time; one at least, and no more than there are slots."""
        return max(1, min(self.slots, (self.budget - self.fixed) // self.block_bytes(plan)))

    def time(self, plan: TilingPlan) -> float:
        """How long a run takes, in pixels that one slot's network sees; slots without work count."""
        (row, rows, last_row), (column, columns, last_column) = plan.seen
        tail = TAIL * row * column if self.slots > 1 else 0.0
        if len(plan) > FEW_BLOCKS * self.slots:
            total = (row * rows + last_row) * (column * columns + last_column)
            return (total + TASK_PIXELS * len(plan)) / self.slots + tail
        ends = [0] * self.slots  # blocks go in their order to the slot that is free first
        for height in [row] * rows + [last_row] * (last_row > 0):
            for width in [column] * columns + [last_column] * (last_column > 0):
                heapq.heapreplace(ends, ends[0] + height * width + TASK_PIXELS)
        return max(ends) + tail

    def score(self, plan: TilingPlan) -> tuple[float, int]:
        """Rank a plan: the best has the least; of equals the one that takes least memory."""
        memory = self.peak_bytes(plan) - self.fixed
        return self.time(plan) * (memory ** math.log2(1 + WORTH) if self.sparing else 1.0), memory


def cheapest_plan(
    shape: tuple[int, int],
    receptive_field: ReceptiveField,
    cost: TileCost,
    *,
    halo: int | None = None,
    block: int | None = None,
    most: int | None = None,
    grid: TileGrid | None = None,
) -> TilingPlan:
    """Cut a scene into the tiles and blocks that cost least within the budget.

    Parameters
    ----------
    shape, receptive_field, halo, block, grid
        See `make_plan`. Of tiles on a grid blocks alone are chosen.
    cost
        Of a pixel, and the budget.
    most
        Pixels that a tile may have, halo included. None: any number.

    Returns
    -------
    TilingPlan
        Where nothing fits into the budget, the one that takes least memory.

    Raises
    ------
    PlanError
        As `make_plan`.
    """
    plans = list(
        _candidates(shape, receptive_field, halo, block)
        if grid is None
        else _on_grid(shape, receptive_field, grid, block)
    )
    if most is not None:
        plans = [plan for plan in plans if math.prod(plan.largest_input) <= most] or plans[:1]
    fitting = [plan for plan in plans if cost.peak_bytes(plan) <= cost.budget]
    return min(fitting, key=cost.score) if fitting else min(plans, key=cost.peak_bytes)


def _on_grid(
    shape: tuple[int, int], receptive_field: ReceptiveField, grid: TileGrid, block: int | None
) -> Iterator[TilingPlan]:
    """Yield the plain plan; then those of every block size: the larger, the fewer tiles are computed twice."""
    plain = make_plan(shape, receptive_field, block=block, grid=grid)
    yield plain
    if block is None:
        largest = max(plain.chunk, min(LARGEST_BLOCK, -(-max(shape) // plain.chunk) * plain.chunk))
        for side in range(plain.chunk, largest + 1, plain.chunk):
            yield make_plan(shape, receptive_field, block=side, grid=grid)


def _candidates(
    shape: tuple[int, int], receptive_field: ReceptiveField, halo: int | None, block: int | None
) -> Iterator[TilingPlan]:
    """Yield the plain plan; then those of every block size, cut into equal tiles, square or twice as tall as wide."""
    yield make_plan(shape, receptive_field, halo=halo, block=block)
    first = make_plan(shape, receptive_field, halo=halo, tile=SMALLEST_TILE, block=block)
    step = first.chunk
    largest = max(step, min(LARGEST_BLOCK, -(-max(shape) // step) * step))
    for side in [first.block] if block is not None else range(step, largest + 1, step):
        for parts in range(1, max(1, side // SMALLEST_TILE) + 1):
            square = make_plan(shape, receptive_field, halo=halo, tile=-(-side // parts), block=side)
            yield square
            if parts % 2 == 0:
                yield replace(square, tile_aspect=2)
