"""What scenes of a mosaic hold where they overlap: pairs of scenes, and a bounded sample of each pair's pixels."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from models.system import usable_cpus

from ..grid.geobox import Window
from ..io.source import Pixels, missing_samples

NEIGHBOURS = 8  # with so many scenes each is compared, those that it shares most with
WINDOWS, SIDE = 16, 64  # of a pair's sample: how many, and their side in pixels
LEVELS = 65  # quantiles that are kept of it
TAILS = 0.05  # of a scene's values at either end, which are left out of its moments: clouds, glint, shadows
LEAST_AREA = 64.0  # of an overlap, in pixels

ReadScene = Callable[[int, Window], Pixels | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two scenes that overlap.

    Parameters
    ----------
    first, second
        Places of the scenes among those of the mosaic; the first is smaller.
    windows
        In which they are compared, on the mosaic's grid.
    """

    first: int
    second: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two scenes hold where both observed something; of each the first scene, then the second.

    Parameters
    ----------
    pair
        The scenes.
    pixels
        Compared, int64 `(band,)`.
    means, deviations
        Of the raw values, float64 `(2, band)`, of pixels at which neither scene is among its darkest or brightest
        twentieth; NaN without pixels.
    quantiles
        Of the raw values, evenly from the least to the largest, float32 `(2, band, level)`; NaN without pixels.
    """

    pair: Pair
    pixels: NDArray[np.int64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]
    quantiles: NDArray[np.float32]


def find_pairs(outlines: Sequence[Any] | NDArray[np.object_], shape: tuple[int, int]) -> list[Pair]:
    """Return which scenes are compared, and where; the same each time.

    A scene that overlaps with many is compared with those that it shares the largest areas with, and with as many more
    as it takes that scenes hang together which do so by their overlaps.

    Parameters
    ----------
    outlines
        Of the scenes, shapely geometries in pixels of the grid.
    shape
        Of the grid.
    """
    if not len(outlines):
        return []
    inside = shapely.intersection(np.asarray(outlines, object), shapely.box(0, 0, shape[1], shape[0]))
    first, second = shapely.STRtree(inside).query(inside, predicate="intersects")
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    first, second = first[first < second], second[first < second]
    shared = shapely.intersection(inside[first], inside[second])
    areas = shapely.area(shared)
    kept = _kept(first, second, areas, len(outlines))
    kept &= areas >= LEAST_AREA
    found = ((int(first[n]), int(second[n]), tuple(_windows(shared[n], shape))) for n in np.flatnonzero(kept))
    return [Pair(one, other, windows) for one, other, windows in found if windows]


def _kept(
    first: NDArray[np.intp], second: NDArray[np.intp], areas: NDArray[np.float64], count: int
) -> NDArray[np.bool_]:
    """Say which pairs to keep: the largest of each scene, and the tree of the largest that joins all."""
    ranked = np.argsort(-areas, kind="stable")
    seen, kept = np.zeros(count, np.int64), np.zeros(len(areas), bool)
    for n in ranked:
        one, other = first[n], second[n]
        kept[n] = seen[one] < NEIGHBOURS or seen[other] < NEIGHBOURS
        seen[one] += 1
        seen[other] += 1
    costs = coo_array((np.arange(1, len(areas) + 1), (first[ranked], second[ranked])), shape=(count, count))
    tree = minimum_spanning_tree(costs.tocsr())
    kept[ranked[tree.data.astype(np.intp) - 1]] = True
    return kept


def _windows(shared: Any, shape: tuple[int, int]) -> Iterator[Window]:
    """Spread windows over the box around an overlap; those that touch it count."""
    west, north, east, south = shared.bounds
    box = Window(floor(north), ceil(south), floor(west), ceil(east)).clip(shape)
    height, width = box.shape
    rows = round((WINDOWS * height / max(1, width)) ** 0.5)
    rows = min(max(1, rows), WINDOWS, -(-height // SIDE))
    columns = min(WINDOWS // rows, -(-width // SIDE))
    places = [(row, column) for row in range(rows) for column in range(columns)]
    for row, column in places:
        middle = (box.top + (2 * row + 1) * height // (2 * rows), box.left + (2 * column + 1) * width // (2 * columns))
        window = Window.square(middle[0] - SIDE // 2, middle[1] - SIDE // 2, SIDE).overlap(box)
        if window and shapely.intersects(shared, shapely.box(window.left, window.top, window.right, window.bottom)):
            yield window


def compare(
    pairs: Sequence[Pair], read: ReadScene, nodata: tuple[float | None, ...], advance: Callable[[int], object]
) -> list[Overlap]:
    """Read the samples of pairs, several at a time, and sum them up.

    Parameters
    ----------
    pairs
        Which.
    read
        Reads what the scene at a place has of a window; None: nothing.
    nodata
        By band.
    advance
        Told of each pair.

    Returns
    -------
    list of Overlap
        In the order of `pairs`.
    """

    def one(pair: Pair) -> Overlap:
        samples = [_common(read(pair.first, window), read(pair.second, window), nodata) for window in pair.windows]
        bands = [np.concatenate([sample[band] for sample in samples], axis=1) for band in range(len(nodata))]
        return _summed(pair, bands)

    found = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for overlap in pool.map(one, pairs):
            found.append(overlap)
            advance(1)
    return found


def _common(one: Pixels | None, other: Pixels | None, nodata: tuple[float | None, ...]) -> list[NDArray[np.float64]]:
    """Return of each band the values that both scenes observed, `(2, n)`."""
    if one is None or other is None:
        return [np.empty((2, 0))] * len(nodata)
    found = []
    for here, there, sentinel in zip(one.data, other.data, nodata, strict=True):
        both = one.valid & other.valid
        for missing in (missing_samples(here, sentinel), missing_samples(there, sentinel)):
            both = both if missing is None else both & ~missing
        found.append(np.stack([here[both], there[both]]).astype(np.float64))
    return found


def _summed(pair: Pair, bands: list[NDArray[np.float64]]) -> Overlap:
    pixels = np.array([band.shape[1] for band in bands])
    means, deviations = np.full((2, 2, len(bands)), np.nan)
    quantiles = np.full((2, len(bands), LEVELS), np.nan, np.float32)
    for place, band in enumerate(bands):
        if pixels[place]:
            low, high = np.quantile(band, [TAILS, 1 - TAILS], axis=1)[:, :, None]
            usual = band[:, ((band >= low) & (band <= high)).all(axis=0)]
            some = usual if usual.size else band
            means[:, place], deviations[:, place] = some.mean(axis=1), some.std(axis=1)
            quantiles[:, place] = np.quantile(band, np.linspace(0, 1, LEVELS), axis=1).T
    return Overlap(pair, pixels, means, deviations, quantiles)
