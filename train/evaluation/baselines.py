"""Baselines that a network must beat: the base class of them, and the simplest, a threshold on brightness.

A baseline is fitted to labelled samples window by window, and predicts by block as a network does.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA, Encoding, classify
from models.errors import TrainingError
from models.metadata import ReceptiveField
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import Window
from pipeline.grid.tiling import TilingPlan, make_plan
from pipeline.inference.nonfinite import LARGEST, Nonfinite, TooLarge
from pipeline.inference.predict import fill_missing, read_buffered
from pipeline.io.source import Source, missing_samples
from pipeline.jobs.job import BlockFunction, BlockJob
from pipeline.jobs.tasks import map_bounded
from pipeline.store.store import Store

from ..config.schema import IGNORE
from ..data.samples import Sample
from .jobs import Classes, Predictor, StoreJob

SIDE = 512  # of the windows that are read at once, in pixels
EXACT = 1 << 20  # whole numbers up to this span have a bin each
BINS = 1 << 16  # of what is no whole number

Place = tuple[int, Window]  # a sample by its number, and a window of it


class BaselinePredictor(Predictor):
    """Maps pixels to probabilities, and each pixel by those within `halo` of it.

    Attributes
    ----------
    means
        Per band, what stands in for missing samples.
    halo
        Pixels of context on every side that a probability depends on.
    scatter_once
        Whether it is so large that each worker is sent it once.
    """

    __slots__ = ()
    means: tuple[float, ...]
    graded = False
    halo = 0
    scatter_once = False

    @abstractmethod
    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities `(class, y, x)` of raw pixels `(band, y, x)` without missing samples, less the halo."""

    @override
    def job(self, source: Source, classes: Classes, block: int) -> BlockJob:
        plan = make_plan(source.geobox.shape, ReceptiveField(1, self.halo), tile=SIDE, block=block)
        kept = (1,) if len(classes) == 2 else tuple(range(len(classes)))  # of two the first is what remains
        encoding = Encoding(None, "float32", kept)
        metadata = {"reference": self.metadata(), "source": source.identity()}
        function = BaselineFunction(self, source, plan)
        return StoreJob(self.name, source.geobox, plan, classes, encoding, metadata, function)


@dataclass(frozen=True, slots=True)
class BaselineFunction(BlockFunction):
    """A block is what a baseline predicts for it."""

    baseline: BaselinePredictor
    source: Source
    plan: TilingPlan

    @property
    @override
    def scatter_once(self) -> bool:
        return self.baseline.scatter_once

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window, kept, halo = store.window(0, row, column), store.encoding.kept, self.plan.halo
        class_map, nonfinite = np.full(window.shape, NODATA, np.uint8), Nonfinite()
        kept_maps = np.full((len(kept), *window.shape), np.nan, np.float32)
        for core in filter(None, (tile.overlap(window) for tile in self.plan.tiles(window))):
            pixels = read_buffered(self.source, self.plan, core)
            if not pixels.valid.any():
                continue
            height, width = core.shape
            valid = pixels.valid[halo : halo + height, halo : halo + width]
            filled = fill_missing(pixels, self.source.nodata, self.baseline.means)
            if (lacking := _too_large(filled, halo) & valid).any():
                nonfinite.note(lacking, core, self.source.geobox, "")
                filled = np.where(np.abs(filled) < LARGEST, filled, 0)
            probabilities = self.baseline.probabilities(filled)
            rows, columns = core.within(window).slices
            class_map[rows, columns] = np.where(valid, classify(probabilities), np.uint8(NODATA))
            kept_maps[:, rows, columns] = np.where(valid, probabilities[list(kept)], np.float32(np.nan))
        nonfinite.settle("fail")
        return BlockResult(class_map, kept_maps)


def _too_large(pixels: NDArray[Any], halo: int) -> NDArray[np.bool_]:
    """Return which pixels have, within the halo, a sample from which no baseline makes numbers, bool `(y, x)`."""
    height, width = (size - 2 * halo for size in pixels.shape[1:])
    if pixels.dtype.kind != "f" or max(-float(pixels.min()), float(pixels.max())) < LARGEST:
        return np.zeros((height, width), bool)
    mask = np.asarray((np.abs(pixels.astype(np.float64)) >= LARGEST).any(axis=0))
    seen = TooLarge(mask, "", 0.0).reach(halo)
    return seen[halo : halo + height, halo : halo + width]


def windows(samples: Sequence[Sample]) -> list[Place]:
    """Cut the areas of all samples into windows that are read at once."""
    areas = ((number, area) for number, sample in enumerate(samples) for area in sample.areas)
    return [(number, window) for number, area in areas for window in area.split(SIDE)]


def complete(pixels: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Return a mask `(y, x)` of where no band `(band, y, x)` lacks its sample."""
    whole = np.ones(pixels.shape[1:], bool)
    for band, sentinel in zip(pixels, nodata, strict=True):
        if (missing := missing_samples(band, sentinel)) is not None:
            whole &= ~missing
    return whole


@dataclass(frozen=True, slots=True)
class Brightness(BaselinePredictor):
    """One of two classes where the bands' sum is above a limit, else the other.

    Parameters
    ----------
    chosen
        On what the limit was, in words.
    limit
        Of the sum over the bands.
    means
        Per band, what stands in for missing samples.
    bright
        Value of the class above the limit.
    """

    chosen: str
    limit: float
    means: tuple[float, ...]
    bright: int = 1

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
        bright = {} if self.bright == 1 else {"bright": self.bright}
        return {"brightness above": self.threshold, "chosen": self.chosen, **bright}

    @override
    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        bright = brightness(pixels) > self.limit
        return np.stack([~bright, bright] if self.bright else [bright, ~bright]).astype(np.float32)


def brightness(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sum of the bands `(band, y, x)`: whole numbers stay whole."""
    return pixels.sum(axis=0, dtype=np.float64)  # type: ignore[no-any-return]


def fit_brightness(samples: Sequence[Sample], client: Client, chosen: str, bright: int = 1) -> Brightness:
    """Find the brightness threshold with the highest IoU of one of two classes, in two streamed passes.

    Parameters
    ----------
    samples
        Of two classes; their labelled pixels count, inside their areas.
    client
        Where windows are read.
    chosen
        On what it is chosen, in words.
    bright
        Value of the class that is to be above it.

    Returns
    -------
    Brightness
        Exact where the bands hold whole numbers of a span below 2**20; else to 1/65536 of the span.

    Raises
    ------
    TrainingError
        No pixel is labelled with that class.
    """
    names = ", ".join(sample.name for sample in samples[:3]) + (", ..." if len(samples) > 3 else "")
    places, key = windows(samples), "swathe-brightness-span"
    parts = [part for part in map_bounded(client, _window_sums, samples, places, key=key) if part]
    if not parts:
        raise TrainingError(f"{names}: no labelled pixel to learn from")
    lows, highs, sums, sizes = zip(*parts, strict=True)
    low, high = min(lows), max(highs)
    whole = all(np.issubdtype(sample.source.dtype, np.integer) for sample in samples) and high - low < EXACT
    edges = np.arange(low, high + 1) if whole else np.linspace(low, high, BINS)
    empty = np.zeros((2, len(edges)), np.int64)
    counts = sum(map_bounded(client, _count, (samples, edges, bright), places, key="swathe-brightness"), empty)
    if not counts[1].any():
        raise TrainingError(f"{names}: no pixel of the bright class to learn from")
    means = tuple(sum(band) / sum(sizes) for band in zip(*sums, strict=True))
    return Brightness(chosen, float(edges[best_limit(counts)]), means, bright)


def best_limit(counts: NDArray[np.int64]) -> int:
    """Return the bin above which the second class has the highest IoU; the first of equals.

    Parameters
    ----------
    counts
        `(2, bin)`: pixels of the first and second class by brightness, in rising order.
    """
    above = counts.sum(axis=1, keepdims=True) - counts.cumsum(axis=1)  # strictly brighter than each bin
    union = counts[1].sum() + above[0]
    return int(np.argmax(above[1] / np.maximum(union, 1)))


def _labelled(sample: Sample, window: Window) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Read the pixels `(band, n)` and labels `(n,)` of a window that count."""
    read = sample.read(window)
    counts = (read.labels != IGNORE) & complete(read.pixels, sample.source.nodata)
    return read.pixels[:, counts], read.labels[counts]


def _window_sums(samples: Sequence[Sample], place: Place) -> tuple[float, float, list[float], int] | None:
    """Return the labelled pixels' least and greatest brightness, sum of each band, and count; None: there are none."""
    pixels, labels = _labelled(samples[place[0]], place[1])
    bright = brightness(pixels)
    sums = pixels.sum(axis=1, dtype=np.float64).tolist()
    return (float(bright.min()), float(bright.max()), sums, labels.size) if labels.size else None


def _count(task: tuple[Sequence[Sample], NDArray[np.float64], int], place: Place) -> NDArray[np.int64]:
    """Count a window's pixels by class and bin; the limits that are tried are the upper edges of the bins."""
    samples, edges, bright = task
    pixels, labels = _labelled(samples[place[0]], place[1])
    bins = np.searchsorted(edges, brightness(pixels))  # the first edge that is not below
    second, size = labels == bright, len(edges)
    return np.stack([np.bincount(bins[~second], minlength=size), np.bincount(bins[second], minlength=size)])
