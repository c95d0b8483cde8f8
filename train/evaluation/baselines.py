"""What a network must beat: what a reference is, and the simplest one, a threshold on brightness. Knows no scores.

References are fitted to labelled samples window by window, and answer by block as a network does.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import TrainingError
from models.metadata import ClassInfo, ReceptiveField
from pipeline.grid.encoding import NODATA, BlockResult, Encoding, classify
from pipeline.grid.geobox import Window
from pipeline.grid.tiling import TilingPlan, make_plan
from pipeline.inference.predict import fill_missing, read_buffered
from pipeline.io.source import Pixels, Source, missing_samples
from pipeline.jobs.dask import map_bounded
from pipeline.jobs.job import BlockFunction, BlockJob
from pipeline.store.store import Store

from ..data.samples import IGNORE, Sample
from .jobs import StoreJob, kept_classes

SIDE = 512  # of the windows that are read at once, in pixels
EXACT = 1 << 20  # whole numbers up to this span have a bin each
BINS = 1 << 16  # of what is no whole number


class Reference(ABC):
    """Maps pixels to probabilities, and each pixel by those within `halo` of it."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """For reports."""

    @property
    @abstractmethod
    def means(self) -> tuple[float, ...]:
        """Per band, what stands in for missing samples."""

    @property
    def halo(self) -> int:
        """Pixels of context on every side that a probability depends on."""
        return 0

    @property
    def scatter_once(self) -> bool:
        """Whether it is so large that each worker is sent it once."""
        return False

    @property
    def graded(self) -> bool:
        """Whether its probabilities are more than 0 and 1."""
        return False

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return what tells it from others, as JSON values."""

    @abstractmethod
    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities `(class, y, x)` of raw pixels `(band, y, x)` without missing samples, less the halo."""


@dataclass(frozen=True, slots=True)
class BaselineFunction(BlockFunction):
    """A block is what a baseline predicts for it."""

    reference: Reference
    source: Source
    plan: TilingPlan

    @property
    @override
    def scatter_once(self) -> bool:
        return self.reference.scatter_once

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window, kept = store.window(0, row, column), store.encoding.kept
        class_map = np.full(window.shape, NODATA, np.uint8)
        kept_maps = np.full((len(kept), *window.shape), np.nan, np.float32)
        for tile in self.plan.tiles(window):
            cut = tile.overlap(window)
            pixels = None if cut is None else read_buffered(self.source, self.plan, cut)
            if cut is None or pixels is None or not pixels.valid.any():
                continue
            probabilities, valid = self._core(pixels, cut.shape)
            rows, columns = cut.within(window).slices
            class_map[rows, columns] = np.where(valid, classify(probabilities), np.uint8(NODATA))
            kept_maps[:, rows, columns] = np.where(valid, probabilities[list(kept)], np.float32(np.nan))
        return BlockResult(class_map, kept_maps)

    def _core(self, pixels: Pixels, shape: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Give probabilities and valid mask of a window that was read with its halo."""
        filled = fill_missing(pixels, self.source.nodata, self.reference.means)
        halo, (height, width) = self.plan.halo, shape
        valid = pixels.valid[halo : halo + height, halo : halo + width]
        return self.reference.probabilities(filled), valid


def baseline_job(reference: Reference, source: Source, classes: tuple[ClassInfo, ...], block: int) -> BlockJob:
    """Return the job that predicts a whole scene, in blocks of a side in pixels."""
    plan = make_plan(source.geobox.shape, ReceptiveField(1, reference.halo), tile=SIDE, block=block)
    function = BaselineFunction(reference, source, plan)
    encoding = Encoding(None, "float32", kept_classes(len(classes)))
    metadata = {"reference": reference.metadata(), "source": source.identity()}
    return StoreJob(reference.name, source.geobox, plan, classes, encoding, metadata, function)


Spot = tuple[int, Window]  # a sample by its number, and a part of it


def spots(samples: Sequence[Sample]) -> list[Spot]:
    """Cut the areas of all samples into windows that are read at once."""
    return [
        (number, window)
        for number, sample in enumerate(samples)
        for area in sample.areas
        for window in area.split(SIDE)
    ]


def complete(pixels: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Say where no band `(band, y, x)` lacks its sample."""
    whole = np.ones(pixels.shape[1:], bool)
    for band, sentinel in zip(pixels, nodata, strict=True):
        missing = missing_samples(band, sentinel)
        if missing is not None:
            whole &= ~missing
    return whole


@dataclass(frozen=True, slots=True)
class Brightness(Reference):
    """The second class where the bands' sum is above a limit, else the first.

    Parameters
    ----------
    chosen
        On what the limit was, in words.
    limit
        Of the sum over the bands.
    means
        See `Reference`.
    """

    chosen: str
    limit: float
    means: tuple[float, ...] = field()  # without `field`, the base's property would pass for a default

    @property
    @override
    def name(self) -> str:
        return f"brightness above {self.threshold:.4g}, {self.chosen}"

    @property
    def threshold(self) -> float:
        """The limit of the bands' mean."""
        return self.limit / len(self.means)

    @override
    def metadata(self) -> dict[str, Any]:
        return {"brightness above": self.threshold, "chosen": self.chosen}

    @override
    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        bright = brightness(pixels) > self.limit
        return np.stack([~bright, bright]).astype(np.float32)


def brightness(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Give the sum of the bands `(band, y, x)`: whole numbers stay whole."""
    total: NDArray[np.float64] = pixels.sum(axis=0, dtype=np.float64)
    return total


def fit_brightness(samples: Sequence[Sample], client: Client, chosen: str) -> Brightness:
    """Find the brightness threshold with the highest IoU of the second class, in two streamed passes.

    Parameters
    ----------
    samples
        Of two classes; their labelled pixels count, inside their areas.
    client
        Where windows are read.
    chosen
        On what it is chosen, in words.

    Returns
    -------
    Brightness
        Exact where the bands hold whole numbers of a span below 2**20; else to 1/65536 of the span.

    Raises
    ------
    TrainingError
        No pixel is labelled with the second class.
    """
    where = spots(samples)
    seen = [part for part in map_bounded(client, _see, samples, where, key="swathe-brightness-span") if part.count]
    if not seen:
        raise TrainingError(f"{_named(samples)}: no labelled pixel to learn from")
    counting = Counting(tuple(samples), _edges(samples, seen))
    empty = np.zeros((2, len(counting.edges)), np.int64)
    counts = sum(map_bounded(client, _count, counting, where, key="swathe-brightness"), empty)
    if not counts[1].any():
        raise TrainingError(f"{_named(samples)}: no pixel of the second class to learn from")
    return Brightness(chosen, float(counting.edges[best_limit(counts)]), mean_of(seen))


def _edges(samples: Sequence[Sample], seen: Sequence["Seen"]) -> NDArray[np.float64]:
    """Give the limits that are tried, the least and greatest brightness among them."""
    low, high = min(part.low for part in seen), max(part.high for part in seen)
    if all(np.issubdtype(sample.source.dtype, np.integer) for sample in samples) and high - low < EXACT:
        return np.arange(low, high + 1)
    return np.linspace(low, high, BINS)


def mean_of(seen: Sequence["Seen"]) -> tuple[float, ...]:
    """Give each band's mean over several windows."""
    count = sum(part.count for part in seen)
    return tuple(sum(sums) / count for sums in zip(*(part.sums for part in seen), strict=True))


def _named(samples: Sequence[Sample]) -> str:
    return ", ".join(sample.name for sample in samples[:3]) + (", ..." if len(samples) > 3 else "")


def best_limit(counts: NDArray[np.int64]) -> int:
    """Give the bin above which the second class has the highest IoU; the first of equals.

    Parameters
    ----------
    counts
        `(2, bin)`: pixels of the first and second class by brightness, in rising order.
    """
    above = counts.sum(axis=1, keepdims=True) - counts.cumsum(axis=1)  # strictly brighter than each bin
    union = counts[1].sum() + above[0]
    return int(np.argmax(above[1] / np.maximum(union, 1)))


@dataclass(frozen=True, slots=True)
class Counting:
    """What the tasks that count by brightness share."""

    samples: tuple[Sample, ...]
    edges: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a window tells of its labelled pixels: least and greatest brightness, the sum of each band, their count."""

    low: float
    high: float
    sums: tuple[float, ...]
    count: int


def _labelled(sample: Sample, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Read the pixels `(band, n)` and labels `(n,)` of a window that count."""
    read = sample.read(window)
    counts = (read.labels != IGNORE) & complete(read.pixels, sample.source.nodata)
    return read.pixels[:, counts], read.labels[counts]


def _see(samples: Sequence[Sample], spot: Spot) -> Seen:
    pixels, labels = _labelled(samples[spot[0]], spot[1])
    if not labels.size:
        return Seen(np.inf, -np.inf, (0.0,) * len(pixels), 0)
    bright, sums = brightness(pixels), pixels.sum(axis=1, dtype=np.float64)
    return Seen(float(bright.min()), float(bright.max()), tuple(sums.tolist()), labels.size)


def _count(what: Counting, spot: Spot) -> NDArray[np.int64]:
    pixels, labels = _labelled(what.samples[spot[0]], spot[1])
    bins = np.searchsorted(what.edges, brightness(pixels))  # the first edge that is not below
    second, size = labels > 0, len(what.edges)
    return np.stack([np.bincount(bins[~second], minlength=size), np.bincount(bins[second], minlength=size)])
