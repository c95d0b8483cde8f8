"""Block jobs of an evaluation: the labels of a sample, and its class map at a threshold, each into a store.

Memory does not grow with the scene, and a run that was stopped goes on. In all of these stores 255 is what is ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import TrainingError
from models.metadata import ClassInfo
from pipeline.grid.encoding import NODATA, BlockResult, Encoding, classify
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import TilingPlan
from pipeline.jobs.job import BlockFunction, BlockJob
from pipeline.store.metadata import StoreMetadata
from pipeline.store.store import Store

from ..data.samples import IGNORE, Sample

assert IGNORE == NODATA  # what nobody judged is kept as nodata


def kept_classes(count: int) -> tuple[int, ...]:
    """Give the classes whose probabilities are kept: of two only the second, since the first is what remains."""
    return (1,) if count == 2 else tuple(range(count))


def all_classes(kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give probabilities `(class, y, x)` of all classes from those that are kept; see `kept_classes`."""
    return np.concatenate([1 - kept, kept]) if len(kept) == 1 else kept


@dataclass(frozen=True, slots=True)
class StoreJob(BlockJob):
    """A block job whose blocks need nothing before or after them.

    Parameters
    ----------
    title
        For the progress.
    geobox, plan, classes
        Of the store.
    encoding
        What is kept.
    metadata
        What decides the pixels.
    function
        Computes the blocks.
    reads
        Paths of what is read.
    """

    title: str = field()  # without `field`, the base's property would pass for a default
    geobox: GeoBox = field()
    plan: TilingPlan
    classes: tuple[ClassInfo, ...]
    encoding: Encoding
    metadata: Mapping[str, Any]
    function: BlockFunction
    reads: tuple[str, ...] = ()

    @override
    def identity(self) -> Mapping[str, Any]:
        return {**self.metadata, "shape": list(self.geobox.shape)}

    @override
    def new_metadata(self) -> StoreMetadata:
        return StoreMetadata(self.plan, self.encoding, self.classes, self.identity(), command="swathe evaluate")

    @override
    def block_function(self, store: Store) -> BlockFunction:
        return self.function


@dataclass(frozen=True, slots=True)
class Labels(BlockFunction):
    """The labels of a sample inside its areas."""

    sample: Sample
    classes: int

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """Read the labels of a block. Raises TrainingError where one is of no class."""
        window = store.window(0, row, column)
        labels = np.full(window.shape, IGNORE, np.uint8)
        for area in self.sample.areas:
            part = area.overlap(window)
            if part is not None:
                labels[part.within(window).slices] = self.sample.read(part).labels
        self._check(labels)
        return BlockResult(labels, None)

    def _check(self, labels: NDArray[np.uint8]) -> None:
        wrong = np.unique(labels[(labels >= self.classes) & (labels != IGNORE)])
        if wrong.size:
            raise TrainingError(
                f"the labels of {self.sample.name} hold {', '.join(map(str, wrong[:5]))}, but the bundle has "
                f"{self.classes} classes: say what they are with --values {wrong[0]}=NAME, or --ignore {wrong[0]}"
            )


def truth_job(
    sample: Sample, plan: TilingPlan, classes: tuple[ClassInfo, ...], metadata: Mapping[str, Any]
) -> BlockJob:
    """Return the job that keeps a sample's labels; `metadata` tell them from others."""
    function = Labels(sample, len(classes))
    return StoreJob("reading labels", sample.geobox, plan, classes, Encoding(), metadata, function, sample.paths)


@dataclass(frozen=True, slots=True)
class Deciding(BlockFunction):
    """The class map at a threshold, where the truth counts."""

    maps: Store
    truth: Store
    threshold: float | None

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window = store.window(0, row, column)
        class_map: NDArray[np.uint8] = self.maps.read_array("class_map", window)[0]
        if self.threshold is not None:
            probabilities = all_classes(self.maps.read_array("probability", window))
            class_map = np.where(class_map == NODATA, class_map, classify(probabilities, self.threshold))
        class_map[self.truth.read_array("class_map", window)[0] == IGNORE] = NODATA
        return BlockResult(class_map, None)


def decided_job(
    maps: Store, truth: Store, threshold: float | None, classes: tuple[ClassInfo, ...], metadata: Mapping[str, Any]
) -> BlockJob:
    """Return the job that writes the labelled part of the map at a threshold; `metadata` tell the maps from others."""
    metadata, function = {**metadata, "threshold": threshold}, Deciding(maps, truth, threshold)
    return StoreJob("deciding", maps.geobox, maps.plan, classes, Encoding(), metadata, function, (maps.path,))
