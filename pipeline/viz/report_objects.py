"""Figures of many objects from their table, read once, batch by batch: memory does not grow with the table."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..store.lifecycle import TABLE
from ..store.store import store_errors

COLUMNS = ("class_value", "num_pixels", "area_m2", "mean_width", "mean_width_m")
BATCH = 2**16  # rows
LOWEST, HIGHEST, BINS = -4.0, 14.0, 18_000  # decades of sizes, and bins of 0.23 % each


@dataclass(slots=True)
class Sizes:
    """How sizes are spread: count, sum and extremes exactly, and in bins 0.23 % wide their counts and sums."""

    count: int = 0
    total: float = 0.0
    smallest: float = float("inf")
    largest: float = 0.0
    bins: NDArray[np.int64] | None = None
    sums: NDArray[np.float64] | None = None

    def add(self, sizes: NDArray[np.float64]) -> None:
        """Count sizes above 0."""
        if not sizes.size:
            return
        self.count += sizes.size
        self.total += float(sizes.sum())
        self.smallest, self.largest = min(self.smallest, float(sizes.min())), max(self.largest, float(sizes.max()))
        place = ((np.log10(sizes) - LOWEST) * (BINS / (HIGHEST - LOWEST))).astype(np.intp).clip(0, BINS - 1)
        counted = np.bincount(place, minlength=BINS)
        summed = np.bincount(place, sizes, minlength=BINS).astype(np.float64)
        self.bins = counted if self.bins is None else self.bins + counted
        self.sums = summed if self.sums is None else self.sums + summed

    @property
    def mean(self) -> float:
        """The mean size; NaN of none."""
        return self.total / self.count if self.count else float("nan")

    @property
    def median(self) -> float:
        """The median size: exact where the objects around it differ by more than a bin, else to 0.23 %; NaN of none."""
        if self.bins is None or self.sums is None:
            return float("nan")
        middle = [(self.count - 1) // 2 + 1, self.count // 2 + 1]  # of an even number, the mean of two
        places = np.searchsorted(np.cumsum(self.bins), middle)
        return float((self.sums[places] / self.bins[places]).mean())

    def between(self, edges: NDArray[np.float64]) -> NDArray[np.int64]:
        """Count sizes between rising edges, which are rounded to the bins'."""
        if self.bins is None:
            return np.zeros(len(edges) - 1, np.int64)
        places = ((np.log10(edges) - LOWEST) * (BINS / (HIGHEST - LOWEST))).round().astype(np.intp).clip(0, BINS)
        below = np.concatenate([[0], np.cumsum(self.bins)])
        counts: NDArray[np.int64] = np.diff(below[places])
        return counts


@dataclass(slots=True)
class ObjectFigures:
    """Figures of the objects of one class.

    `sizes` are in m², or in pixels where `metric` is False: the scene has no CRS. The width is the mean over all
    pixels of the class's objects, in metres or pixels, None where it is not known of any.
    """

    value: int
    metric: bool
    sizes: Sizes
    width_sum: float = 0.0
    width_pixels: int = 0

    @property
    def width(self) -> float | None:
        """The mean width."""
        return self.width_sum / self.width_pixels if self.width_pixels else None


def read_figures(store: str, metric: bool) -> list[ObjectFigures]:
    """Read the figures of an objects store's table, by class value.

    Parameters
    ----------
    store
        Path or URL of an objects store.
    metric
        Whether areas are known, in m².

    Raises
    ------
    StoreError
        The table is missing or damaged.
    """
    found: dict[int, ObjectFigures] = {}
    with store_errors(store), _opened(f"{store.rstrip('/')}/{TABLE}") as table:
        for batch in _batches(table):
            _add(found, batch, metric)
    return [found[value] for value in sorted(found)]


def _opened(path: str) -> IO[bytes]:
    import fsspec

    opened: IO[bytes] = fsspec.open(path, "rb").open()
    return opened


def _batches(table: IO[bytes]) -> Iterator[dict[str, NDArray[Any]]]:
    from pyarrow import parquet

    file = parquet.ParquetFile(table)
    names = [name for name in COLUMNS if name in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=BATCH, columns=names):
        yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}


def _add(found: dict[int, ObjectFigures], batch: dict[str, NDArray[Any]], metric: bool) -> None:
    sizes = batch["area_m2" if metric else "num_pixels"].astype(np.float64)
    pixels = batch["num_pixels"]
    widths = batch.get("mean_width_m" if metric else "mean_width", np.full(len(sizes), np.nan)).astype(np.float64)
    for value in np.unique(batch["class_value"]):
        here = batch["class_value"] == value
        figures = found.setdefault(int(value), ObjectFigures(int(value), metric, Sizes()))
        figures.sizes.add(sizes[here])
        known = here & np.isfinite(widths)
        figures.width_sum += float((widths[known] * pixels[known]).sum())
        figures.width_pixels += int(pixels[known].sum())
