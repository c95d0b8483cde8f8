"""One block cleaned, stage by stage: what is read along, what the tree of blocks settles first, what is left in files.

What the operations are is not known here, only their order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..grid.encoding import NODATA
from ..grid.geobox import Window
from ..objects.components import Region, Totals
from ..objects.label import Labels, label, region, total
from ..objects.tree import LabelMerge, merged_totals
from ..store.store import Store, store_errors
from .morphology import local, local_halo, smooth
from .pending import PendingBlock, leave_open, undecided_bytes, undecided_from
from .rules import Rules
from .sieve import (
    apply_removal,
    are_small,
    holes_input,
    needs_borders,
    objects_input,
    removal_halo,
    remove_by_halo,
    replacement_class,
)
from .threshold import above_high, apply_threshold, hysteresis_replacement

if TYPE_CHECKING:
    from ..grid.pixel_area import PixelAreas

LEFT = "left"  # the kind of file that keeps a block between its leaf and what follows
Stage = Literal["hysteresis", "objects", "holes"]
ClassMap = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Block:
    """What makes a cleaned block, stage by stage. Sent to every worker."""

    maps: Store
    rules: Rules
    areas: "PixelAreas | None" = field(compare=False)  # follows from `maps`, and has no hash

    @property
    def by_halo(self) -> bool:
        """Whether context around a block decides all of it."""
        return not self.rules.hysteresis and removal_halo(self.rules) is not None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What the tree must settle, in this order."""
        if self.by_halo:
            return ()
        wished: dict[Stage, bool] = {
            "hysteresis": self.rules.hysteresis,
            "objects": self.rules.min_object is not None,
            "holes": self.rules.min_hole is not None,
        }
        return tuple(stage for stage, there in wished.items() if there)

    def settling(self, store: Store, stage: Stage) -> LabelMerge:
        """Give how a stage is settled."""
        return LabelMerge(store, stage, StageLabels(self, stage), self.rules.connectivity)

    def made(self, store: Store, row: int, column: int) -> ClassMap:
        """Make a block, once all its stages are settled."""
        if self.by_halo:
            halo = local_halo(self.rules) + (removal_halo(self.rules) or 0)
            return self._around(row, column, halo, lambda window: remove_by_halo(self._local(window), self.rules))
        return self.after(store, self.stages[-1], row, column)

    def before(self, store: Store, stage: Stage, row: int, column: int) -> ClassMap:
        """Make a block as far as it goes before a stage."""
        if stage == "hysteresis":
            return apply_threshold(*self._read(self.maps.window(0, row, column)), self.rules)
        place = self.stages.index(stage)
        if place:
            return self.after(store, self.stages[place - 1], row, column)
        return self._around(row, column, local_halo(self.rules), self._local)

    def after(self, store: Store, stage: Stage, row: int, column: int) -> ClassMap:
        """Make a block up to and with a stage that is settled. What hysteresis has settled is smoothed too."""
        if stage == "hysteresis":
            return self._smoothed(store, row, column)
        return self.settled(store, stage, row, column)

    def settled(self, store: Store, stage: Stage, row: int, column: int) -> ClassMap:
        """Apply what the tree has found out to what was left of a block."""
        settling = self.settling(store, stage)
        with store_errors(store.path):
            left = undecided_from(store.files.read(settling.file(LEFT, (0, row, column))))
        whole = merged_totals(settling, row, column)
        return left.class_map if whole is None else left.decided(self._verdicts(stage, whole))

    def left(
        self, class_map: ClassMap, stage: Stage, found: tuple[Labels, Totals, Region, NDArray[np.int64]]
    ) -> PendingBlock:
        """Apply to a block what is known of it without others."""
        labels, totals, told, which = found
        made = apply_removal(class_map, labels, np.append(np.uint8(0), self._verdicts(stage, totals)))
        return leave_open(made, labels, which, self._may_grow(stage, told.totals))

    def found(
        self, class_map: ClassMap, stage: Stage, window: Window
    ) -> tuple[Labels, Totals, Region, NDArray[np.int64]]:
        """Label what a stage decides on, and add up what it needs of it."""
        values = _labelled(class_map, stage, self.rules)
        labels, count = label(values, self.rules.connectivity)
        marked = above_high(class_map, self._read(window)[1], self.rules) if stage == "hysteresis" else None
        areas = None if self.areas is None else self.areas.of(window)
        borders = stage != "hysteresis" and needs_borders(self.rules, stage)
        totals = total(labels, count, class_map, window, self.maps.geobox.width, classes=self.rules.num_classes,
                       areas=areas, above_high=marked, borders=borders)  # fmt: skip
        return labels, totals, *region(labels, class_map, totals, window, self.maps.geobox.shape)

    def _verdicts(self, stage: Stage, totals: Totals) -> NDArray[np.uint8]:
        if stage == "hysteresis":
            return hysteresis_replacement(totals.value, totals.above_high)
        return replacement_class(
            totals.value, totals.pixels, self.rules, stage, area_m2=totals.area, borders=totals.borders
        )

    def _may_grow(self, stage: Stage, totals: Totals) -> NDArray[np.bool_]:
        """Say which components may be kept for what they have in other blocks."""
        if stage == "hysteresis":
            return ~totals.above_high
        return are_small(totals.pixels, self.rules, stage, area_m2=totals.area)

    def _read(self, window: Window) -> tuple[ClassMap, NDArray[Any] | None]:
        kept = self.maps.read_layer("probability", window) if self.rules.kept else None
        return self.maps.read_layer("class_map", window)[0], kept

    def _local(self, window: Window) -> ClassMap:
        return local(*self._read(window), self.rules)

    def _smoothed(self, store: Store, row: int, column: int) -> ClassMap:
        """Smooth what hysteresis has settled; the context around a block comes from the blocks beside it."""

        def settled(window: Window) -> ClassMap:
            return smooth(self._settled_around(store, window), self.rules)

        return self._around(row, column, local_halo(self.rules), settled)

    def _settled_around(self, store: Store, window: Window) -> ClassMap:
        made = np.empty(window.shape, np.uint8)
        for row, column in window.cells(self.maps.plan.block):
            block = self.maps.window(0, row, column)
            common = block.clip(window)
            made[common.within(window).slices] = _settled(self, store, row, column)[common.within(block).slices]
        return made

    def _around(self, row: int, column: int, halo: int, make: Callable[[Window], ClassMap]) -> ClassMap:
        """Make a block from a window with context, cut at the scene's edges."""
        window = self.maps.window(0, row, column)
        wide = window.buffer(halo).clip(self.maps.geobox.shape)
        return make(wide)[window.within(wide).slices]


@lru_cache(maxsize=16)
def _settled(block: Block, store: Store, row: int, column: int) -> ClassMap:
    """Keep what hysteresis made of the last few blocks: each is context for those around it."""
    return block.settled(store, "hysteresis", row, column)


def _labelled(class_map: ClassMap, stage: Stage, rules: Rules) -> ClassMap:
    """Give what a stage labels."""
    if stage == "hysteresis":
        return np.where(class_map == NODATA, 0, class_map).astype(np.uint8)
    return holes_input(class_map) if stage == "holes" else objects_input(class_map, rules)


@dataclass(frozen=True, slots=True)
class StageLabels:
    """A `BlockLabels`: what a block tells of the components that a stage decides on.

    The block is left in a file as far as it is decided; the tree's own file comes after: where that is, both are.
    """

    block: Block
    stage: Stage

    def region(self, store: Store, row: int, column: int) -> Region:
        """See `BlockLabels`."""
        class_map = self.block.before(store, self.stage, row, column)
        found = self.block.found(class_map, self.stage, self.block.maps.window(0, row, column))
        left = undecided_bytes(self.block.left(class_map, self.stage, found))
        with store_errors(store.path):
            store.owned_files().write(self.block.settling(store, self.stage).file(LEFT, (0, row, column)), left)
        return found[2]
