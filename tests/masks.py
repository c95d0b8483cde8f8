"""Masks and class maps that are hard on connected components, as plain functions and as Hypothesis strategies."""

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.encoding import NODATA
from pipeline.grid.geobox import Window
from pipeline.postprocess.options import ResolvedOptions
from pipeline.postprocess.sieve import finish_stage, stage_labels

Mask = NDArray[np.bool_]


def blobs(shape: int | tuple[int, int], seed: int = 0, *, width: float = 2.0, share: float = 0.4) -> Mask:
    """Smooth spots of about `width` pixels that cover a share of the shape: noise, smoothed, above a quantile."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(_pair(shape)), width)
    return noise > np.quantile(noise, 1 - share)


def chessboard(shape: int | tuple[int, int], side: int = 1) -> Mask:
    """Squares that touch at corners only: with 4 neighbours, as many components as there can be."""
    rows, columns = np.ogrid[tuple(slice(n) for n in _pair(shape))]
    return (rows // side + columns // side) % 2 == 0


def comb(shape: int | tuple[int, int], gap: int = 1) -> Mask:
    """Teeth that join in the last row alone: what is one component is known at the very end."""
    mask = np.zeros(_pair(shape), bool)
    mask[:, :: gap + 1] = True
    mask[-1] = True
    return mask


def spiral(shape: int | tuple[int, int], gap: int = 1) -> Mask:
    """One line, one pixel wide, that winds from the first corner inwards with `gap` pixels between its turns."""
    height, width = _pair(shape)
    mask = np.zeros((height, width), bool)
    top, bottom, left, right = 0, height, 0, width
    first, step = 0, gap + 1
    while top < bottom and left < right:
        mask[top, first:right] = True
        mask[top:bottom, right - 1] = True
        if bottom - top > step and right - left > step:
            mask[bottom - 1, left:right] = True
            mask[top + step : bottom, left] = True
        top, bottom, left, right = top + step, bottom - step, left + step, right - step
        first = left - step
    return mask


def lines(shape: int | tuple[int, int], every: int) -> Mask:
    """A grid of lines, one pixel wide, along the borders of blocks of a side of `every`."""
    mask = np.zeros(_pair(shape), bool)
    mask[every - 1 :: every] = True
    mask[:, every::every] = True
    return mask


def dashes(shape: int | tuple[int, int], seed: int = 0, *, length: int = 5) -> Mask:
    """Straight lines of one length in every other row, one pixel apart: what just reaches out of a window."""
    height, width = _pair(shape)
    start = np.random.default_rng(seed).integers(0, length + 1, (height, 1))
    mask = (np.arange(width) + start) % (length + 1) < length
    mask[1::2] = False
    return mask


def noise(shape: int | tuple[int, int], seed: int = 0, *, share: float = 0.5) -> Mask:
    """Pixels that know nothing of each other."""
    return np.random.default_rng(seed).random(_pair(shape)) < share


def _pair(shape: int | tuple[int, int]) -> tuple[int, int]:
    return (shape, shape) if isinstance(shape, int) else shape


@st.composite
def shapes(draw: st.DrawFn, most: int = 60) -> tuple[int, int]:
    """Rows and columns, from one pixel on."""
    return draw(st.integers(1, most)), draw(st.integers(1, most))


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int] | None = None, most: int = 60) -> Mask:
    """A mask of one of the kinds above, or empty, or full, or of one pixel; at times turned or inverted."""
    sides = shape or draw(shapes(most))
    seed, share = draw(st.integers(0, 2**16)), draw(st.floats(0.02, 0.98))
    few = draw(st.integers(1, 7))
    kinds: dict[str, Callable[[], Mask]] = {
        "blobs": lambda: blobs(sides, seed, width=few / 2, share=share),
        "noise": lambda: noise(sides, seed, share=share),
        "chessboard": lambda: chessboard(sides, few),
        "comb": lambda: comb(sides, few),
        "spiral": lambda: spiral(sides, few),
        "dashes": lambda: dashes(sides, seed, length=few + 1),
        "lines": lambda: lines(sides, few + 2),
        "none": lambda: np.zeros(sides, bool),
        "pixel": lambda: np.arange(sides[0] * sides[1]).reshape(sides) == seed % (sides[0] * sides[1]),
    }
    mask = kinds[draw(st.sampled_from(sorted(kinds)))]()
    if draw(st.booleans()):
        mask = mask[::-1, ::-1]
    if draw(st.booleans()) and sides[0] == sides[1]:
        mask = mask.T
    return mask ^ True if draw(st.booleans()) else mask.copy()


@st.composite
def class_maps(
    draw: st.DrawFn, classes: int = 2, *, nodata: bool = True, shape: tuple[int, int] | None = None, most: int = 60
) -> NDArray[np.uint8]:
    """A class map uint8 of masks laid over each other; at times with regions of nodata."""
    sides = shape or draw(shapes(most))
    made = np.zeros(sides, np.uint8)
    for value in range(1, classes):
        made[draw(masks(sides))] = value
    if nodata and draw(st.booleans()):
        made[draw(masks(sides))] = NODATA
    return made


def join_hysteresis(
    candidates: NDArray[np.uint8], above: NDArray[np.bool_], options: ResolvedOptions
) -> NDArray[np.uint8]:
    """Give the map of `apply_threshold`'s candidates and `above_high`'s pixels, of a whole scene at once.

    As `skimage.filters.apply_hysteresis_threshold` of each class where it is the likeliest, but with the connectivity
    of the options.
    """
    shape = candidates.shape
    found = stage_labels(candidates, Window.of(shape), shape, above, stage="hysteresis", options=options)
    return finish_stage(candidates, found, None, stage="hysteresis", options=options)
