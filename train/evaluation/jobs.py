"""Block jobs of an evaluation: a sample's labels, its class map at a threshold, and what a predictor must offer.

Each job fills a store, so that memory does not grow with the scene and a run that was stopped goes on. In all of these
stores 255 is what is ignored.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA, Decision, Encoding, classify
from models.errors import TrainingError
from models.metadata import ClassInfo
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import TilingPlan
from pipeline.io.source import Source
from pipeline.jobs.job import BlockFunction, BlockJob
from pipeline.store.metadata import StoreMetadata
from pipeline.store.store import Store

from ..config.schema import IGNORE
from ..data.samples import Sample
from .counts import all_classes

Classes = tuple[ClassInfo, ...]

assert IGNORE == NODATA  # an ignored label is kept as nodata


class Predictor(ABC):
    """Predicts a scene, block by block, into a store with its class map and probabilities."""

    __slots__ = ()
    graded = True  # whether probabilities are more than 0 and 1, so that their calibration says something

    @property
    @abstractmethod
    def name(self) -> str:
        """For reports."""

    @abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """Return what tells it from others beside its name, as JSON values."""

    @abstractmethod
    def job(self, source: Source, classes: Classes, block: int) -> BlockJob:
        """Return the job for one scene, in blocks of a side in pixels. Raises SwatheError where it does not fit."""


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
        What decides the pixels, as JSON values.
    function
        Computes the blocks.
    reads
        Paths of what is read.
    background
        Value of the class that is no object; None: there is none.
    """

    title: str = field()  # without `field`, the base's property would pass for a default
    geobox: GeoBox = field()
    plan: TilingPlan
    classes: Classes
    encoding: Encoding
    metadata: Mapping[str, Any]
    function: BlockFunction
    reads: tuple[str, ...] = ()
    background: int | None = 0

    @override
    def identity(self) -> Mapping[str, Any]:
        return {**self.metadata, "shape": list(self.geobox.shape)}

    @override
    def new_metadata(self) -> StoreMetadata:
        identity, command = self.identity(), "swathe evaluate"
        return StoreMetadata(self.plan, self.encoding, self.classes, identity, self.background, command=command)

    @override
    def block_function(self, store: Store) -> BlockFunction:
        return self.function


@dataclass(frozen=True, slots=True)
class LabelFunction(BlockFunction):
    """A block is the labels of a sample inside its areas."""

    sample: Sample
    classes: int

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window = store.window(0, row, column)
        labels = np.full(window.shape, IGNORE, np.uint8)
        for part in filter(None, (area.overlap(window) for area in self.sample.areas)):
            labels[part.within(window).slices] = self.sample.read(part).labels
        wrong = np.unique(labels[(labels >= self.classes) & (labels != IGNORE)])
        if wrong.size:
            raise TrainingError(
                f"the labels of {self.sample.name} hold {', '.join(map(str, wrong[:5]))}, but the bundle has "
                f"{self.classes} classes: say what they are with --values {wrong[0]}=NAME, or --ignore {wrong[0]}"
            )
        return BlockResult(labels, None)


@dataclass(frozen=True, slots=True)
class ThresholdFunction(BlockFunction):
    """A block is the class map at thresholds, nodata where the truth is ignored."""

    maps: Store
    truth: Store
    thresholds: Decision | None

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window = store.window(0, row, column)
        class_map: NDArray[np.uint8] = self.maps.read_array("class_map", window)[0]
        if self.thresholds is not None:
            probabilities = all_classes(self.maps.read_array("probability", window))
            class_map = np.where(class_map == NODATA, class_map, classify(probabilities, self.thresholds))
        class_map[self.truth.read_array("class_map", window)[0] == IGNORE] = NODATA
        return BlockResult(class_map, None)
