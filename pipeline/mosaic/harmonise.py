"""Scenes of a mosaic brought to one radiometry by what they hold where they overlap.

Moments: gains and offsets that make means and standard deviations of overlaps agree, of all pairs at once by least
squares, as in Cresson and Saint-Geours 2015 (Natural Color Satellite Image Mosaicking Using Quadratic Programming in
Decorrelated Color Space, IEEE JSTARS 8(8); OTB's Mosaic) and Brown and Lowe 2007 (Automatic Panoramic Image Stitching
Using Invariant Features, IJCV 74(1), eq. 29), here with logarithms of gains, so that no gain tends to zero. Histogram:
quantiles of one scene become those of the other (Gonzalez and Woods, Digital Image Processing, 3.3.2; scikit-image's
`match_histograms`), from a reference scene on along the pairs that share most.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.sparse.linalg import spsolve

from models.errors import ArgumentError

from ..grid.geobox import Window
from ..io.source import Pixels
from ..jobs.progress import no_progress, progress
from .adjust import UNCHANGED, Adjustment, Curve, Linear
from .footprints import outlines_of
from .overlaps import Overlap, compare, find_pairs
from .source import MosaicSource

Harmonise = Literal["moments", "histogram"]

LEAST_PIXELS = 64  # that two scenes share in a band; fewer say nothing
DIGITS = 9  # of what is kept: machines differ in the last ones

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def harmonise(mosaic: MosaicSource, method: Harmonise, *, show: bool = False) -> MosaicSource:
    """Return a mosaic whose scenes are adjusted to each other as they are read.

    What a scene gets is decided by the scenes and the grid alone: a bounded sample of each overlap is read here, once,
    and what comes of it is kept in the mosaic by value. Scenes that overlaps join are adjusted together, and each such
    group by itself: with `moments` its mean stays, with `histogram` the scene that shares most with others.

    Parameters
    ----------
    mosaic
        Whose scenes; of any bands and type. Integers are rounded and clipped, nodata stays.
    method
        `moments`: a gain and an offset for each scene and band. `histogram`: a curve that never descends.
    show
        Show progress.

    Raises
    ------
    ArgumentError, SceneError
        The method is another; a scene cannot be read.
    """
    if method not in get_args(Harmonise):
        raise ArgumentError(f"harmonise is {', '.join(get_args(Harmonise))}; received {method!r}")

    def read(place: int, window: Window) -> Pixels | None:
        return mosaic.read_one(mosaic.order[place], window)

    outlines = outlines_of(mosaic.index, np.array(mosaic.order, np.intp), mosaic.geobox)
    pairs = find_pairs(outlines, mosaic.geobox.shape)
    with progress("comparing scenes", len(pairs)) if show else nullcontext(no_progress) as advance:
        overlaps = compare(pairs, read, mosaic.nodata, lambda count: advance(count, 0))
    fit = fit_moments if method == "moments" else fit_histograms
    bands = [fit(overlaps, band, len(mosaic.order)) for band in range(len(mosaic.bands))]
    found = dict(zip(mosaic.order, zip(*bands, strict=True), strict=True))
    adjustments = {number: by for number, by in sorted(found.items()) if changes(by)}
    if not adjustments:
        return mosaic
    return replace(mosaic, adjustments=adjustments).with_note(f"scenes brought to one radiometry by {method}")


def changes(adjustment: Adjustment) -> bool:
    """Whether any band becomes another."""
    return any(by != UNCHANGED for by in adjustment)


def fit_moments(overlaps: Sequence[Overlap], band: int, scenes: int) -> list[Linear]:
    """Return a gain and an offset for each scene, of one band."""
    told = [one for one in overlaps if one.pixels[band] >= LEAST_PIXELS]
    if not told:
        return [UNCHANGED] * scenes
    ends, pixels = _ends(told), np.array([one.pixels[band] for one in told], np.float64)
    means, spread = (np.array([getattr(one, name)[:, band] for one in told]) for name in ("means", "deviations"))
    weights = _by_scene(ends, np.repeat(pixels, 2), scenes)
    sums = _by_scene(ends, np.repeat(pixels, 2) * means.ravel(), scenes)
    mean = sums / np.maximum(weights, 1)
    textured = (spread > 1e-9 * np.maximum(1, np.abs(means))).all(axis=1)
    ratios = np.log(spread[textured, 1] / spread[textured, 0])
    gains = np.exp(_balanced(ends[textured], pixels[textured], ratios, weights, np.zeros(scenes)))
    moved = gains[ends] * means
    offsets = _balanced(ends, pixels, moved[:, 1] - moved[:, 0], weights, (gains - 1) * mean)
    return [Linear(_round(gain), _round(offset)) for gain, offset in zip(gains, offsets, strict=True)]


def fit_histograms(overlaps: Sequence[Overlap], band: int, scenes: int) -> list[Linear | Curve]:
    """Return a curve for each scene, of one band; the reference scenes stay."""
    told = [one for one in overlaps if one.pixels[band] >= LEAST_PIXELS]
    found: list[Linear | Curve] = [UNCHANGED] * scenes
    if not told:
        return found
    ends, pixels = _ends(told), np.array([one.pixels[band] for one in told], np.float64)
    shared = _by_scene(ends, np.repeat(pixels, 2), scenes)
    tree = minimum_spanning_tree(_graph(ends, 1 / pixels, scenes))
    by_ends = {one.pair.first * scenes + one.pair.second: one for one in told}
    labels = connected_components(tree, directed=False)[1]
    reference = np.lexsort((np.arange(scenes), -shared, labels))
    for start in reference[np.unique(labels[reference], return_index=True)[1]]:
        order, before = breadth_first_order(tree, start, directed=False)
        for scene in order[1:]:
            parent = before[scene]
            overlap = by_ends[min(scene, parent) * scenes + max(scene, parent)]
            mine, theirs = overlap.quantiles[:: 1 if scene < parent else -1, band].astype(np.float64)
            found[scene] = _curve(mine, found[parent].of(theirs))
    return found


def _curve(values: Floats, become: Floats) -> Linear | Curve:
    """Return the curve through points; of equal values the mean is taken."""
    each, places = np.unique(values, return_inverse=True)
    mean = np.maximum.accumulate(np.bincount(places, become) / np.bincount(places))
    if np.array_equal(each, mean):
        return UNCHANGED
    return Curve(tuple(map(_round, each)), tuple(map(_round, mean)))


def _balanced(ends: Ints, weights: Floats, differences: Floats, masses: Floats, beside: Floats) -> Floats:
    """Return a value for each scene, so that the values of pairs differ as they should, by weighted least squares.

    Parameters
    ----------
    ends
        Of pairs, `(pair, 2)`.
    weights, differences
        Of pairs: the first scene's value minus the second's should be that.
    masses, beside
        Of scenes: in each group of scenes that pairs join, the mean of values and what is beside them is 0.
    """
    scenes = len(masses)
    links = _graph(ends, weights, scenes)
    labels = connected_components(links, directed=False)[1]
    free = np.ones(scenes, bool)
    free[np.unique(labels, return_index=True)[1]] = False  # one of each group is held, all are moved after
    values = np.zeros(scenes)
    if free.any():
        both = links + links.T
        laplacian = coo_array((both.sum(axis=1), (np.arange(scenes),) * 2), shape=both.shape).tocsr() - both
        wanted = np.bincount(ends[:, 0], weights * differences, scenes)
        wanted -= np.bincount(ends[:, 1], weights * differences, scenes)
        values[free] = spsolve(laplacian[free][:, free].tocsc(), wanted[free])
    total = np.bincount(labels, masses * (values + beside))
    held = np.bincount(labels, masses)
    return np.asarray(values - (total / np.where(held > 0, held, 1))[labels])


def _ends(overlaps: Sequence[Overlap]) -> Ints:
    return np.array([(one.pair.first, one.pair.second) for one in overlaps], np.int64).reshape(-1, 2)


def _by_scene(ends: Ints, values: Floats, scenes: int) -> Floats:
    return np.bincount(ends.ravel(), values, scenes).astype(np.float64)


def _graph(ends: Ints, weights: Floats, scenes: int) -> csr_array:
    return coo_array((weights, (ends[:, 0], ends[:, 1])), shape=(scenes, scenes)).tocsr()


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
