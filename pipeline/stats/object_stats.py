"""Object statistics by group: how many, how large, how wide. Streams columns of the object table; never holds it whole.

A *bin* is one class in one group, numbered group by group. Sizes are kept exactly, each different one once, until there
are more than `MOST` of them; from then on to 12 binary digits, 0.02 %, which is what quantiles are then good to.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import StatisticsError

from ..grid.geobox import Window
from ..objects.parts import Parts
from ..objects.table import RENAMED
from ..store.files import Files
from .sums import Floats, Groups, Ints

if TYPE_CHECKING:
    import pyarrow.parquet as pq

BATCH = 1 << 16  # rows read at once
MOST = 1 << 22  # sizes kept exactly: 100 MB
DIGITS = 12  # binary digits of a size that are kept beyond that
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Objects:
    """Some rows of the object table: int64 class values; float64 centroids, sizes and widths, NaN where not known."""

    value: Ints
    row: Floats
    column: Floats
    size: Floats
    width: Floats


@dataclass(frozen=True, slots=True)
class ObjectStats:
    """Statistics of objects, float64 `(groups, classes)`.

    Parameters
    ----------
    count
        Objects whose centroid lies in the group.
    mean, smallest, largest
        Of their sizes in m² (or pixels, as they were read); NaN where there is none, or no CRS.
    quantiles
        Of `QUANTILES`, `(3, groups, classes)`; between two objects as numpy's default interpolates.
    width
        Their mean width in m (or pixels), each counted by its size; those without a width are left out.
    sizes
        How their sizes are spread.
    """

    count: Floats
    mean: Floats
    smallest: Floats
    largest: Floats
    quantiles: Floats
    width: Floats
    sizes: "Sizes"


def read_objects(path: str, *, metric: bool = True, window: Window | None = None) -> Iterator[Objects]:
    """Stream an object table in its own order.

    Parameters
    ----------
    path
        Path or URL of the table: of a file, or of a folder of parts.
    metric
        Sizes in m² and widths in m; else both in pixels.
    window
        Read only row groups with centroids in or near it, as their statistics tell. None: all.

    Raises
    ------
    StatisticsError
        It cannot be read, or lacks a column.
    """
    import pyarrow as pa

    sizes = ("area_m2", "mean_width_m") if metric else ("area_px", "mean_width_px")
    names = ["class_value", "centroid_y_px", "centroid_x_px", *sizes]
    try:
        for file, groups in _row_groups(path, window).items():
            yield from _read_file(path, file, groups, names)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StatisticsError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _row_groups(path: str, window: Window | None) -> dict[str, list[int] | None]:
    """Return the files of a table by their names in it, each with the row groups to read; None: all of them.

    A table of one file has the name "".
    """
    parts = Parts(path)
    if not parts.whole:
        return {"": None} if window is None else {"": _near(parts.one_file(), window)[""]}
    return dict(_near(parts.metadata(), window))


def _near(metadata: "pq.FileMetaData", window: Window | None) -> dict[str, list[int] | None]:
    """Return the row groups of each file that may have centroids within a pixel of a window, by their number in it."""
    names = metadata.schema.to_arrow_schema().names
    before = {name: old for old, name in RENAMED.items()}
    places = [names.index(name if name in names else before[name]) for name in ("centroid_y_px", "centroid_x_px")]
    found: dict[str, list[int] | None] = {"": []}
    numbers: Counter[str] = Counter()
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        file = group.column(0).file_path
        kept = found.setdefault(file, [])
        if kept is not None and (window is None or _meets([group.column(n).statistics for n in places], window)):
            kept.append(numbers[file])
        numbers[file] += 1
    return {file: groups for file, groups in found.items() if groups or file == ""}


def _meets(statistics: Sequence[Any], window: Window) -> bool:
    sides = (window.top, window.bottom), (window.left, window.right)
    return all(
        known is None or not known.has_min_max or (known.max >= low - 1 and known.min <= high)
        for known, (low, high) in zip(statistics, sides, strict=True)
    )


def _read_file(path: str, file: str, groups: list[int] | None, names: list[str]) -> Iterator[Objects]:
    import pyarrow.parquet as pq

    if groups == []:
        return
    with Files(f"{path}/{file}" if file else path).open("") as opened:
        table = pq.ParquetFile(opened, page_checksum_verification=True)
        if not set(names) <= set(table.schema_arrow.names):  # written before
            before = {name: old for old, name in RENAMED.items()}
            names = [before.get(name, name) for name in names]
        for batch in table.iter_batches(BATCH, row_groups=groups, columns=names):
            value, *rest = (batch.column(name).to_numpy(zero_copy_only=False) for name in names)
            yield Objects(value.astype(np.int64), *(values.astype(np.float64) for values in rest))


class ObjectCounter:
    """Counts objects of all groups as they come in."""

    def __init__(self, groups: Groups, classes: int) -> None:
        self.groups, self.shape = groups, (len(groups), classes)
        bins = len(groups) * classes
        self.count = np.zeros(bins, np.int64)
        self.smallest, self.largest = np.full(bins, np.inf), np.full(bins, -np.inf)
        self.size, self.wide, self.across = np.zeros(bins), np.zeros(bins), np.zeros(bins)
        self.sizes = Sizes()

    def add(self, objects: Objects) -> None:
        """Count some objects. Which group an object belongs to is where its centroid lies."""
        which, groups = self.groups.locate(objects.row, objects.column)
        value = objects.value[which]
        known = value < self.shape[1]
        which, bins = which[known], groups[known] * self.shape[1] + value[known]
        size, width, count = objects.size[which], objects.width[which], len(self.count)
        self.count += np.bincount(bins, minlength=count)
        measured = np.isfinite(size) & np.isfinite(width)
        self.wide += np.bincount(bins[measured], size[measured], count)
        self.across += np.bincount(bins[measured], (size * width)[measured], count)
        bins, size = bins[np.isfinite(size)], size[np.isfinite(size)]
        self.size += np.bincount(bins, size, count)
        np.minimum.at(self.smallest, bins, size)
        np.maximum.at(self.largest, bins, size)
        self.sizes.add(bins, size)

    def stats(self) -> ObjectStats:
        """Return the statistics of what was counted."""
        measured = np.isfinite(self.smallest)
        mean = ratio(np.where(measured, self.size, np.nan), self.count)
        smallest, largest = (np.where(measured, values, np.nan) for values in (self.smallest, self.largest))
        quantiles = self.sizes.quantiles(QUANTILES, len(self.count)).reshape(len(QUANTILES), *self.shape)
        count, mean, smallest, largest, width = (
            values.reshape(self.shape)
            for values in (self.count.astype(np.float64), mean, smallest, largest, ratio(self.across, self.wide))
        )
        return ObjectStats(count, mean, smallest, largest, quantiles, width, self.sizes)


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    made: Floats = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=made, where=below > 0)
    return made


class Sizes:
    """Different sizes with their counts, by bin: enough for any quantile, and smaller than all sizes."""

    def __init__(self, most: int = MOST) -> None:
        self.most, self.coarse = most, False
        self.bins, self.values = np.zeros(0, np.int64), np.zeros(0)
        self.counts = np.zeros(0, np.int64)
        self.waiting: list[tuple[Ints, Floats]] = []
        self.rows = 0

    def add(self, bins: Ints, values: Floats) -> None:
        """Take sizes in; they are sorted in whenever as many wait as there are already."""
        self.waiting.append((bins, _coarse(values) if self.coarse else values))
        self.rows += len(bins)
        if self.rows > max(BATCH, len(self.bins)):
            self._merge()

    def quantiles(self, wanted: tuple[float, ...], count: int) -> Floats:
        """Return quantiles of each of `count` bins, float64 `(wanted, count)`; NaN for an empty one."""
        self._merge()
        upto = np.cumsum(self.counts)
        sizes = np.bincount(self.bins, self.counts, count).astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        found = np.full((len(wanted), count), np.nan)
        full = np.flatnonzero(sizes)
        for row, share in zip(found, wanted, strict=True):
            place = share * (sizes[full] - 1)
            below = np.floor(place).astype(np.int64)
            above = np.minimum(below + 1, sizes[full] - 1)
            low, high = (self.values[np.searchsorted(upto, starts[full] + rank, "right")] for rank in (below, above))
            row[full] = low + (high - low) * (place - below)
        return found

    def histogram(self, number: int, edges: Floats) -> Ints:
        """Count the sizes of a bin between rising edges `(n + 1,)`, int64 `(n,)`."""
        self._merge()
        here = self.bins == number
        return np.histogram(self.values[here], edges, weights=self.counts[here])[0].astype(np.int64)

    def _merge(self) -> None:
        counts = [self.counts, *(np.ones(len(bins), np.int64) for bins, _ in self.waiting)]
        bins = np.concatenate([self.bins, *(bins for bins, _ in self.waiting)])
        values = np.concatenate([self.values, *(values for _, values in self.waiting)])
        self.waiting, self.rows = [], 0
        self._keep(bins, values, np.concatenate(counts))
        if len(self.bins) > self.most and not self.coarse:
            self.coarse = True
            self._keep(self.bins, _coarse(self.values), self.counts)

    def _keep(self, bins: Ints, values: Floats, counts: Ints) -> None:
        """Sort, and keep each different size of a bin once."""
        order = np.lexsort((values, bins))
        bins, values, counts = bins[order], values[order], counts[order]
        new = np.ones(len(bins), bool)
        new[1:] = (bins[1:] != bins[:-1]) | (values[1:] != values[:-1])
        first = np.flatnonzero(new)
        self.bins, self.values = bins[first], values[first]
        self.counts = np.add.reduceat(counts, first) if len(first) else counts


def _coarse(values: Floats) -> Floats:
    """Round to the middle of all numbers that share the first binary digits. Once or again, the answer is the same."""
    rest = 52 - DIGITS
    bits = values.view(np.int64)
    return (((bits >> rest) << rest) | (1 << (rest - 1))).view(np.float64)
