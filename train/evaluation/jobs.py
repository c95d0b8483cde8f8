"""What an evaluation keeps of a sample while it runs: truth, answers, and the map that is judged. Counts nothing.

Each is `Work` for `pipeline.jobs.job`: blocks of a store, made durably on Dask, so that memory does not grow
with the scene, and a run that was stopped goes on. In all of these stores 255 is what does not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.errors import TrainingError
from models.metadata import ClassInfo
from pipeline.grid.encoding import NODATA, BlockResult, Encoding, classify
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import TilingPlan
from pipeline.jobs.job import BlockFunction, Work
from pipeline.jobs.progress import ProgressFactory
from pipeline.store.lifecycle import create_store
from pipeline.store.store import Store

from ..data.samples import IGNORE, Sample

THREADS = 2  # one reads while the other works
assert IGNORE == NODATA  # what nobody judged is kept as nodata


def kept_classes(count: int) -> tuple[int, ...]:
    """Give the classes whose probabilities are kept: of two only the second, since the first is what remains."""
    return (1,) if count == 2 else tuple(range(count))


def all_classes(kept: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give probabilities `(class, y, x)` of all classes from those that are kept; see `kept_classes`."""
    return np.concatenate([1 - kept, kept]) if len(kept) == 1 else kept


@dataclass(frozen=True, slots=True)
class StoreJob:
    """A `Work` without anything before or after its blocks: what the works of this file have in common.

    Parameters
    ----------
    title
        For the progress.
    geobox, plan, classes
        Of the store.
    encoding
        What is kept.
    facts
        What decides the pixels.
    reads
        Paths of what is read.
    paints
        Makes the blocks.
    """

    title: str
    geobox: GeoBox
    plan: TilingPlan
    classes: tuple[ClassInfo, ...]
    encoding: Encoding
    metadata: Mapping[str, Any]
    paints: BlockFunction
    reads: tuple[str, ...] = ()
    threads: int = THREADS

    def identity(self) -> Mapping[str, Any]:
        """See `Work`."""
        return {**self.metadata, "shape": list(self.geobox.shape)}

    def bind_to_cluster(self, client: Client) -> Self:
        """See `Work`: a cluster does it no other way."""
        return self

    def create(self, path: str) -> Store:
        """See `Work`."""
        about = {"identity": self.identity(), "command": "swathe evaluate"}
        return create_store(path, self.plan, self.geobox, self.encoding, self.classes, about, pyramid=False)

    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """See `Work`: nothing."""

    def block_function(self, store: Store) -> BlockFunction:
        """See `Work`."""
        return self.paints

    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """See `Work`: nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Labels:
    """A `BlockFunction`: the labels of a sample inside its areas."""

    sample: Sample
    classes: int
    scatter_once = False
    on_gpu = False

    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """See `BlockFunction`. Raises TrainingError where a label is of no class."""
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


def truth_work(sample: Sample, plan: TilingPlan, classes: tuple[ClassInfo, ...], metadata: Mapping[str, Any]) -> Work:
    """Give the work of keeping a sample's labels; `metadata` tell them from others."""
    paints, encoding = Labels(sample, len(classes)), Encoding()
    return StoreJob("reading labels", sample.geobox, plan, classes, encoding, metadata, paints, sample.paths)


@dataclass(frozen=True, slots=True)
class MaskedFunction:
    """A `BlockFunction`: as another one, but blocks of which nothing is judged stay empty."""

    inner: BlockFunction
    truth: Store

    @property
    def scatter_once(self) -> bool:
        """See `BlockFunction`."""
        return self.inner.scatter_once

    @property
    def on_gpu(self) -> bool:
        """See `BlockFunction`."""
        return self.inner.on_gpu

    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """See `BlockFunction`."""
        window = store.window(0, row, column)
        if (self.truth.read_layer("class_map", window) != NODATA).any():
            return self.inner.compute_block(store, row, column)
        empty = np.full((len(store.encoding.kept), *window.shape), np.nan, np.float32)
        return BlockResult(np.full(window.shape, NODATA, np.uint8), empty)


@dataclass(frozen=True, slots=True)
class Where:
    """A `Work`: as another one, but only where a block holds anything judged.

    What is judged is not in its identity: stores of other truths must have other names.
    """

    inner: Work
    truth: Store

    @property
    def title(self) -> str:
        """See `Work`."""
        return self.inner.title

    @property
    def geobox(self) -> GeoBox:
        """See `Work`."""
        return self.inner.geobox

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Work`."""
        return self.inner.reads

    @property
    def threads(self) -> int:
        """See `Work`."""
        return self.inner.threads

    def identity(self) -> Mapping[str, Any]:
        """See `Work`."""
        return self.inner.identity()

    def bind_to_cluster(self, client: Client) -> "Where":
        """See `Work`."""
        return Where(self.inner.bind_to_cluster(client), self.truth)

    def create(self, path: str) -> Store:
        """See `Work`."""
        return self.inner.create(path)

    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """See `Work`."""
        self.inner.prepare(client, store, show)

    def block_function(self, store: Store) -> BlockFunction:
        """See `Work`."""
        return MaskedFunction(self.inner.block_function(store), self.truth)

    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """See `Work`."""
        return self.inner.finalize(client, store, show)


@dataclass(frozen=True, slots=True)
class Deciding:
    """A `BlockFunction`: the class map at a threshold, where the truth counts."""

    maps: Store
    truth: Store
    threshold: float | None
    scatter_once = False
    on_gpu = False

    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        """See `BlockFunction`."""
        window = store.window(0, row, column)
        class_map: NDArray[np.uint8] = self.maps.read_layer("class_map", window)[0]
        if self.threshold is not None:
            probabilities = all_classes(self.maps.read_layer("probability", window))
            class_map = np.where(class_map == NODATA, class_map, classify(probabilities, self.threshold))
        class_map[self.truth.read_layer("class_map", window)[0] == IGNORE] = NODATA
        return BlockResult(class_map, None)


def decided_work(
    maps: Store, truth: Store, threshold: float | None, classes: tuple[ClassInfo, ...], metadata: Mapping[str, Any]
) -> Work:
    """Give the work of deciding on the map that is judged, without what does not count; `metadata` tell the maps."""
    metadata, paints = {**metadata, "threshold": threshold}, Deciding(maps, truth, threshold)
    return StoreJob("deciding", maps.geobox, maps.plan, classes, Encoding(), metadata, paints, (maps.path,))
