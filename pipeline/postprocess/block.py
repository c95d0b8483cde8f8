"""One block cleaned durably: what is read along, what the tree of blocks decides first, what waits in files meanwhile.

Components that end in a block are decided there, and so are those of which the part in the block is enough. The others
wait for their totals; meanwhile their pixels are kept by the component's number, so that nothing is labelled twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA, ClassMap

from ..grid.block_result import BlockResult
from ..grid.geobox import Window
from ..jobs.job import BlockFunction
from ..objects.label import BlockLabels, Region
from ..objects.merge_labels import pack, unpack
from ..objects.tree import LabelMerge, merged_totals
from ..store.store import Store
from .morphology import local, local_halo, smooth
from .options import ResolvedOptions
from .sieve import (
    Stage,
    finish_stage,
    removal_halo,
    remove_by_halo,
    replacement_class,
    scene_stages,
    stage_labels,
    to_replace,
)
from .threshold import above_high, apply_threshold

if TYPE_CHECKING:
    from ..grid.pixel_area import PixelAreas

PENDING = "pending"  # the kind of file that keeps a block between its labels and the totals of the scene


@dataclass(frozen=True, slots=True)
class PendingBlock:
    """A block of a class map as far as it can be decided alone.

    Parameters
    ----------
    class_map
        uint8 (y, x): decided, but for some pixels.
    places
        int64 (n,): those pixels, counted row by row, ascending.
    owners
        int32 (n,): the number of the open component that each belongs to, as in the block's region.
    """

    class_map: ClassMap
    places: NDArray[np.int64]
    owners: NDArray[np.int32]

    def decided(self, becomes: NDArray[np.uint8]) -> ClassMap:
        """Return the block once it is known what each open component becomes: uint8 (open components,)."""
        made = self.class_map.copy()
        made.ravel()[self.places] = becomes[self.owners]
        return made

    def to_bytes(self) -> bytes:
        """Return the block as bytes, for a file."""
        steps = np.diff(self.places, prepend=0)  # nearly all alike: they take little room
        return pack({"class_map": self.class_map, "steps": steps, "owners": self.owners})

    @classmethod
    def from_bytes(cls, content: bytes) -> "PendingBlock":
        """Return the block that `to_bytes` made bytes of."""
        arrays = unpack(content)
        return cls(arrays["class_map"], np.cumsum(arrays["steps"]), arrays["owners"])


def pending_block(class_map: ClassMap, found: BlockLabels, waits: NDArray[np.bool_]) -> PendingBlock:
    """Note the pixels that wait.

    Parameters
    ----------
    class_map
        uint8 (y, x): decided as if all components ended in the block.
    found
        Its components.
    waits
        bool, by open component: whether it is undecided.
    """
    if not waits.any():
        return PendingBlock(class_map, np.zeros(0, np.int64), np.zeros(0, np.int32))
    numbers = np.full(len(found.totals) + 1, -1, np.int32)
    numbers[found.open[waits] + 1] = np.flatnonzero(waits)
    places = np.flatnonzero((numbers >= 0)[found.labels])
    return PendingBlock(class_map, places, numbers[found.labels.ravel()[places]])


@dataclass(frozen=True, slots=True)
class CleanBlock(BlockFunction):
    """The cleaned class map of a block, and its probabilities as they were, unless it is `map_only`.

    Parameters
    ----------
    maps
        The store that is cleaned, in the blocks of the one that is written.
    options
        What is done.
    areas
        Of its pixels; only for sizes in square metres.
    map_only
        Without probabilities.
    """

    maps: Store
    options: ResolvedOptions = field(hash=False)  # may hold a dict
    areas: "PixelAreas | None" = field(compare=False)  # follows from `maps`, and has no hash
    map_only: bool = False

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        there = self.maps.encoding.probability and not self.map_only
        probability = self.maps.read_array("probability", self.maps.window(0, row, column)) if there else None
        if stages := scene_stages(self.options):
            return BlockResult(self._after(store, stages[-1], row, column), probability)
        halo = local_halo(self.options) + (removal_halo(self.options) or 0)
        cleaned = self._around(row, column, halo, lambda wide: remove_by_halo(self._local(wide), self.options))
        return BlockResult(cleaned, probability)

    def merge(self, store: Store, stage: Stage) -> LabelMerge:
        """Return the merge of a stage's labels across blocks, whose files `store` keeps."""
        return LabelMerge(store, stage, partial(self.region, stage), self.options.connectivity)

    def region(self, stage: Stage, store: Store, row: int, column: int) -> Region:
        """Label what a stage decides on in a block; leave the block in a file as far as it is decided.

        The tree's own file comes after: where that is, both are.
        """
        window = self.maps.window(0, row, column)
        stages, above = scene_stages(self.options), None
        if stage == "hysteresis":
            kept, probability = self._read(window)
            class_map = apply_threshold(kept, probability, self.options)
            above = above_high(class_map, probability, self.options)
        elif place := stages.index(stage):
            class_map = self._after(store, stages[place - 1], row, column)
        else:
            class_map = self._around(row, column, local_halo(self.options), self._local)
        found = stage_labels(class_map, window, self.maps.geobox.shape, above,
                             stage=stage, options=self.options, areas=self.areas)  # fmt: skip
        decided = finish_stage(class_map, found, None, stage=stage, options=self.options)
        pending = pending_block(decided, found, to_replace(found.region.totals, self.options, stage))
        store.check_run()  # again, for labelling takes a while
        self.merge(store, stage).write(PENDING, (0, row, column), pending.to_bytes())
        return found.region

    def _after(self, store: Store, stage: Stage, row: int, column: int) -> ClassMap:
        """Return a block after a stage that the tree has decided; after hysteresis it is smoothed too."""
        if stage != "hysteresis":
            return self.decided(store, stage, row, column)
        halo = local_halo(self.options)
        return self._around(row, column, halo, lambda wide: smooth(self._hysteresis(store, wide), self.options))

    def decided(self, store: Store, stage: Stage, row: int, column: int) -> ClassMap:
        """Return what waited of a block, with the totals that the tree has found; of one not planned, nodata."""
        job = self.merge(store, stage)
        if not job.is_planned((0, row, column)):
            return np.full(self.maps.window(0, row, column).shape, NODATA, np.uint8)
        pending, totals = PendingBlock.from_bytes(job.read(PENDING, (0, row, column))), merged_totals(job, row, column)
        return pending.class_map if totals is None else pending.decided(replacement_class(totals, self.options, stage))

    def _hysteresis(self, store: Store, window: Window) -> ClassMap:
        """Return a window after hysteresis, put together from the blocks that it touches."""
        made = np.empty(window.shape, np.uint8)
        for row, column in window.cells(self.maps.plan.block):
            block = self.maps.window(0, row, column)
            common, pixels = block.clip(window), _after_hysteresis(self, store, row, column)
            made[common.within(window).slices] = pixels[common.within(block).slices]
        return made

    def _read(self, window: Window) -> tuple[ClassMap, NDArray[Any] | None]:
        probability = self.maps.read_array("probability", window) if self.options.kept else None
        return self.maps.read_array("class_map", window)[0], probability

    def _local(self, window: Window) -> ClassMap:
        return local(*self._read(window), self.options)

    def _around(self, row: int, column: int, halo: int, make: Callable[[Window], ClassMap]) -> ClassMap:
        """Return a block made from a window with context, cut at the scene's edges."""
        window = self.maps.window(0, row, column)
        wide = window.buffer(halo).clip(self.maps.geobox.shape)
        return make(wide)[window.within(wide).slices]


@lru_cache(maxsize=16)
def _after_hysteresis(block: CleanBlock, store: Store, row: int, column: int) -> ClassMap:
    """Keep what hysteresis made of the last few blocks: each is context for those around it."""
    return block.decided(store, "hysteresis", row, column)
