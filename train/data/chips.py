"""Chips cut from samples: random ones to train on, a fixed grid to validate on, and the processes that read them.

A chip is decided by the training's seed and the chip's number alone: not by the process that reads it, nor by those
read before it. So a resumed training sees the chips that an uninterrupted one would have seen.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from models.errors import SwatheError, TrainingError
from pipeline.grid.geobox import Window
from pipeline.inference.predict import fill_missing
from pipeline.io.source import Pixels

from ..config import Chips
from ..config.schema import IGNORE
from .augment import AugmentLike, resize_chip
from .samples import Labelled, Sample

if TYPE_CHECKING:
    from .statistics import CellCounts

CAUGHT = "Original Traceback"  # what torch puts into the message of an error that a process of a loader raised
DIED = "DataLoader worker"

Chip = tuple[Tensor, Tensor, int]
"""Raw pixels `(band, y, x)` float32, labels `(y, x)` int64, and the chip's number."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chip lies: which sample, and which of its pixels."""

    sample: int
    window: Window


class RandomChips(Dataset[Chip]):
    """Chips drawn at random, varied, and brought to one size.

    Parameters
    ----------
    samples, cells
        Where chips come from; what each sample's cells hold, as `statistics` counts it.
    means
        Per band, what stands where nothing was observed.
    chips
        Size and manner.
    augment
        Varies one chip; draws from torch's global random numbers.
    seed
        With a chip's number, decides all about it.
    count
        Chips in all.

    Raises
    ------
    TrainingError
        A chip does not fit into any area of a sample, or no pixel is labelled.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        cells: "Sequence[CellCounts]",
        means: tuple[float, ...],
        chips: Chips,
        augment: AugmentLike,
        seed: int,
        count: int,
    ) -> None:
        check_size(samples, smallest_side(chips))
        self.samples, self.cells, self.means = tuple(samples), tuple(cells), means
        self.chips, self.augment, self.seed, self.count = chips, augment, seed, count
        self.odds = _odds(cells, chips)
        self.sums: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Return how many chips there are."""
        return self.count

    def __getitem__(self, number: int) -> Chip:
        """Draw the chip of a number."""
        pixels, labels = self.plain(number)
        with torch.random.fork_rng(devices=[]):
            seed = np.random.SeedSequence([self.seed, number, 1]).generate_state(1)
            torch.default_generator.manual_seed(int(seed[0]))
            pixels, labels = self.augment(*resize_chip(pixels, labels, self.chips.size))
        return pixels, labels, number

    def plain(self, number: int) -> tuple[Tensor, Tensor]:
        """Read the chip of a number as the scene shows it: pixels and labels, neither varied nor resampled."""
        place = self.place(number)
        sample = self.samples[place.sample]
        return tensors(sample, sample.read(place.window), self.means)

    def place(self, number: int) -> Place:
        """Say where the chip of a number lies."""
        random = np.random.default_rng([self.seed, number])
        sample, value = divmod(int(random.choice(self.odds.size, p=self.odds.ravel())), self.odds.shape[1])
        row, column = self._anchor(random, sample, value)
        return Place(sample, self._around(random, self.samples[sample], row, column))

    def _anchor(self, random: np.random.Generator, sample: int, value: int) -> tuple[int, int]:
        """Draw a pixel of a class; a row and column of the scene."""
        cells = self.cells[sample]
        running = self._running(sample, value)
        drawn = int(np.searchsorted(running, random.integers(running[-1]), side="right"))
        window = cells.window(*divmod(drawn, cells.counts.shape[1]))
        labels = self.samples[sample].labels.read(window)
        wanted = labels == value if self.chips.draw == "class" else labels != IGNORE
        rows, columns = np.nonzero(wanted)
        if not len(rows):  # its pixels were counted
            raise TrainingError(f"labels of {self.samples[sample].name} have changed since they were read; begin anew")
        some = int(random.integers(len(rows)))
        return window.top + int(rows[some]), window.left + int(columns[some])

    def _running(self, sample: int, value: int) -> NDArray[np.int64]:
        """Return the running sum of a class's pixels over a sample's cells, row by row."""
        key = (sample, value if self.chips.draw == "class" else -1)
        if key not in self.sums:
            counts = self.cells[sample].counts
            self.sums[key] = np.cumsum(counts.sum(axis=-1) if key[1] < 0 else counts[..., value], dtype=np.int64)
        return self.sums[key]

    def _around(self, random: np.random.Generator, sample: Sample, row: int, column: int) -> Window:
        """Lay a chip around a pixel, which may be anywhere in it: or objects would always be in its middle."""
        fits = [area for area in sample.areas if min(area.shape) >= smallest_side(self.chips)]
        pixel = Window.square(row, column, 1)
        choice = [area for area in fits if area.contains(pixel)] or fits  # a pixel in too narrow a window: elsewhere
        area = choice[int(random.integers(len(choice)))]
        zoom = float(np.exp(random.uniform(*np.log(self.chips.zoom))))
        side = min(round(self.chips.size * zoom), *area.shape)
        top, left = (
            int(np.clip(at - random.integers(side), start, end - side))
            for at, start, end in ((row, area.top, area.bottom), (column, area.left, area.right))
        )
        return Window.square(top, left, side)


def smallest_side(chips: Chips) -> int:
    """Return the smallest side that a chip may have in its scene's pixels."""
    return round(chips.size * chips.zoom[0])


def check_size(samples: Sequence[Sample], side: int) -> None:
    """Raise TrainingError if a chip fits into no area of a sample."""
    for sample in samples:
        largest = max((min(area.shape) for area in sample.areas), default=0)
        if largest < side:
            raise TrainingError(
                f"a chip of {side} pixels is larger than {sample.name}, where {largest} fit; make chips.size smaller"
            )


def _odds(cells: "Sequence[CellCounts]", chips: Chips) -> NDArray[np.float64]:
    """Return how likely a chip is laid around a pixel of each class in each sample: `(sample, class)`, sum 1."""
    counts = np.array([cell.counts.sum(axis=(0, 1)) for cell in cells], np.float64)  # (sample, class)
    if not counts.any():
        raise TrainingError("no pixel of the training images is labelled; look at them with --check")
    if chips.draw == "area":
        counts = counts.sum(axis=1, keepdims=True)
    if chips.scenes == "equal":
        counts = (counts > 0).astype(np.float64)
    totals = counts.sum(axis=0)
    odds: NDArray[np.float64] = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    odds /= odds.sum()
    return odds


def tensors(sample: Sample, read: Labelled, means: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Return pixels `(band, y, x)` float32, with the band's mean where none was observed, and labels `(y, x)` int64."""
    pixels = fill_missing(Pixels(read.pixels, read.valid), sample.source.nodata, means)
    return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(read.labels.astype(np.int64))


class GridChips(Dataset[Chip]):
    """Windows cut into chips of one size, every pixel counted once: those at the ends overlap, and are ignored there.

    Parameters
    ----------
    samples
        What is cut. A window smaller than a chip is reflected beyond its sides, and ignored there.
    means
        As of `RandomChips`.
    size
        Side of a chip.
    """

    def __init__(self, samples: Sequence[Sample], means: tuple[float, ...], size: int) -> None:
        self.samples, self.means, self.size = tuple(samples), means, size
        self.places = [Place(n, w) for n, sample in enumerate(samples) for a in sample.areas for w in a.split(size)]

    def __len__(self) -> int:
        """Return how many chips there are."""
        return len(self.places)

    def __getitem__(self, number: int) -> Chip:
        """Return the chip of a number."""
        place, size = self.places[number], self.size
        sample, new = self.samples[place.sample], place.window
        area = next(area for area in sample.areas if area.contains(new))
        top, left = max(area.top, min(new.top, area.bottom - size)), max(area.left, min(new.left, area.right - size))
        window = Window.square(top, left, size).clip(area)
        read = sample.read(window)
        labels = np.full_like(read.labels, IGNORE)
        inside = new.within(window).slices
        labels[inside] = read.labels[inside]
        pixels, truth = tensors(sample, Labelled(read.pixels, labels, read.valid), self.means)
        below, right = size - labels.shape[0], size - labels.shape[1]
        if below or right:
            pixels = torch.from_numpy(np.pad(pixels.numpy(), ((0, 0), (0, below), (0, right)), mode="symmetric"))
            truth = torch.nn.functional.pad(truth, (0, right, 0, below), value=IGNORE)
        return pixels, truth, number


class EpochNumbers(Sampler[int]):
    """The numbers of an epoch's chips, for one of several processes that learn together.

    Lightning calls `set_epoch` before every epoch; numbers go on from one epoch to the next.
    """

    def __init__(self, per_epoch: int, rank: int = 0, world: int = 1) -> None:
        self.per_epoch, self.rank, self.world, self.epoch = per_epoch, rank, world, 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the chips of an epoch for this process."""
        return self.per_epoch // self.world

    def __iter__(self) -> Iterator[int]:
        """Return their numbers."""
        first = self.epoch * self.per_epoch
        return iter(range(first + self.rank, first + self.per_epoch, self.world))


def stack(chips: Sequence[Chip]) -> dict[str, Any]:
    """Make a batch: `pixels` `(n, band, y, x)` float32, `labels` `(n, y, x)` int64, `numbers` `(n,)`."""
    pixels, labels, numbers = zip(*chips, strict=True)
    return {"pixels": torch.stack(pixels), "labels": torch.stack(labels), "numbers": torch.tensor(numbers)}


def begin_reader(number: int) -> None:
    """Leave Ctrl-C to the training's own process, which ends this one: it alone has something to say."""
    signal.set_wakeup_fd(-1)  # inherited; the training would take our signals for its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def reader_errors() -> Iterator[None]:
    """Raise errors of readers as they were raised there, without the traceback that torch writes into them.

    Raises
    ------
    SwatheError
        That of a reader.
    TrainingError
        A reader was killed.
    """
    try:
        yield
    except SwatheError as error:
        kind, text = type(error), str(error)
        if CAUGHT not in text:
            raise
    except RuntimeError as error:
        if DIED not in str(error):
            raise
        kind, text = TrainingError, "a process that reads chips ahead has died, perhaps for lack of memory; set " \
            "chips.workers to fewer, or to 0, and run the same again"  # fmt: skip
    else:
        return
    raise kind(text.rpartition(f"{kind.__name__}: ")[2].strip())
