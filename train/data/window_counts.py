"""What is measured of one window of a sample: values of its bands, classes of its pixels by cell. As a worker runs it.

Holds what is sent to workers and what comes back. Knows no dask, and nothing of how windows are added up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from models.errors import SwatheError, TrainingError
from pipeline.grid.geobox import Window
from pipeline.io.source import missing_samples

from .histograms import Histogram, count_values, merged
from .samples import IGNORE, Labelled, LabelSource, Sample

CELL = 128  # side of a cell, in pixels

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a sample that could not be read, and why."""

    sample: str
    window: Window
    error: SwatheError


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks share; see `measuring.measure`."""

    classes: int
    keep_going: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A window of a sample; the sample has only those of its areas that reach into the window."""

    number: int
    sample: Sample
    window: Window


@dataclass(frozen=True, slots=True)
class Counted:
    """A window's labels.

    Parameters
    ----------
    number, window
        Which sample, and where.
    cells
        Int64 `(rows, columns, classes)`.
    ignored, invalid
        As of `measuring.Count`.
    unknown
        Codes in the window that mean nothing, and how many pixels have them.
    """

    number: int
    window: Window
    cells: Ints
    ignored: int
    invalid: int
    unknown: dict[str, int]


@dataclass(slots=True)
class WindowStats:
    """What a task gives back."""

    bands: list[Histogram] = field(default_factory=list)
    counted: list[Counted] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    pixels: int = 0


def works_of(samples: Sequence[Sample], block: int) -> Iterator[list[Piece]]:
    """Put windows together until they are worth a task."""
    work: list[Piece] = []
    for piece in _pieces(samples, block):
        work.append(piece)
        if sum(p.window.size for p in work) >= block * block // 2:
            yield work
            work = []
    if work:
        yield work


def _pieces(samples: Sequence[Sample], block: int) -> Iterator[Piece]:
    for number, sample in enumerate(samples):
        areas = np.array([(a.top, a.bottom, a.left, a.right) for a in sample.areas], int).reshape(-1, 4)
        for window in sample.geobox.whole.split(block):
            near = (areas[:, 0] < window.bottom) & (areas[:, 1] > window.top)
            near &= (areas[:, 2] < window.right) & (areas[:, 3] > window.left)
            if near.any():
                inside = tuple(sample.areas[place] for place in np.flatnonzero(near))
                yield Piece(number, replace(sample, areas=inside), window)


def measure_work(task: Task, work: Sequence[Piece]) -> WindowStats:
    """Measure some windows, wherever a worker runs it."""
    found, bands = WindowStats(), list[list[Histogram]]()
    for piece in work:
        found.pixels += piece.window.size
        try:
            read, unknown = _read(piece, task)
            counted = _count(piece, read, unknown, task)
        except SwatheError as error:
            if not task.keep_going:
                raise
            found.faults.append(Fault(piece.sample.name, piece.window, error))
            continue
        found.counted.append(counted)
        bands.append(_histograms(piece, read))
    found.bands = [merged(parts) for parts in zip(*bands, strict=True)]
    return found


def _read(piece: Piece, task: Task) -> tuple[Labelled, dict[str, int]]:
    """Read a window, and the codes in it that mean nothing, if these are to be noted rather than refused."""
    decode = getattr(inner(piece.sample.labels), "decode", None)
    if decode is None or not task.keep_going:
        read = piece.sample.read(piece.window)
        return read, _unknown(read.labels, task.classes)
    pixels, decoded = piece.sample.source.read(piece.window), decode(piece.window)
    return Labelled(
        pixels.data, np.where(pixels.valid, decoded.labels, np.uint8(IGNORE)), pixels.valid
    ), decoded.unknown


def inner(labels: LabelSource) -> LabelSource:
    """Give the labels of the whole scene under those that a part of it has."""
    while hasattr(labels, "labels"):
        labels = labels.labels
    return labels


def _unknown(labels: NDArray[np.uint8], classes: int) -> dict[str, int]:
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[[*range(classes), IGNORE]] = 0
    return {str(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _inside(piece: Piece) -> NDArray[np.bool_]:
    """Give which pixels of a window lie in the sample's areas, bool `(y, x)`."""
    made = np.zeros(piece.window.shape, bool)
    for area in piece.sample.areas:
        if part := area.overlap(piece.window):
            made[part.within(piece.window).slices] = True
    return made


def _histograms(piece: Piece, read: Labelled) -> list[Histogram]:
    counting, made = _inside(piece) & read.valid, []
    for band, nodata in zip(read.pixels, piece.sample.source.nodata, strict=True):
        missing = missing_samples(band, nodata)
        made.append(count_values(band[counting if missing is None else counting & ~missing]))
    return made


def _count(piece: Piece, read: Labelled, unknown: dict[str, int], task: Task) -> Counted:
    """Count labels by cell. Raises TrainingError where one is unknown, unless these are to be noted."""
    if unknown and not task.keep_going:
        listed = ", ".join(f"{value} ({pixels:,} pixels)" for value, pixels in unknown.items())
        raise TrainingError(
            f"{piece.sample.name}: label values that mean no class: {listed}; name them in data.values or data.ignore"
        )
    inside = _inside(piece)
    counting = inside & read.valid & (read.labels < task.classes)
    cells = _by_cell(read.labels, counting, task.classes)
    invalid = int((inside & ~read.valid).sum())
    ignored = int(inside.sum()) - invalid - int(counting.sum())
    return Counted(piece.number, piece.window, cells, ignored, invalid, unknown)


def _by_cell(labels: NDArray[np.uint8], counting: NDArray[np.bool_], classes: int) -> Ints:
    """Count the classes of each cell of a block, int64 `(rows, columns, classes)`."""
    rows, columns = (-(-size // CELL) for size in labels.shape)
    down, across = (np.arange(size) // CELL for size in labels.shape)
    cell = (down[:, None] * columns + across).astype(np.int64)
    keys = cell[counting] * classes + labels[counting]
    return np.bincount(keys, minlength=rows * columns * classes).astype(np.int64).reshape(rows, columns, classes)
