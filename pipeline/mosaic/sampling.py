"""What a scene's samples give at positions between them: the nearest, or a weighted mean of those around.

What a pixel gets is decided by its own position alone. Values are those of GDAL's warper: it too leaves out missing
samples, and takes a wider neighbourhood where pixels of the target are coarser than the scene's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from ..io.resample import STEPS, Resampling
from .positions import Positions

NEAR = 1e-10  # of a pixel: a position so close below a border lies on it, as in GDAL
ALIKE = 1.05  # the coarser grid's pixels may be larger by so much, and no more samples are taken
AVERAGED = 8  # where the target is coarser by more, samples are first averaged in squares
LEAST_WEIGHT = 1e-5  # of the samples that are there; with less, a pixel is missing, as in GDAL
RADIUS = {"bilinear": 1, "cubic": 2}


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one band in a window of its file, `(y, x)`, and which of them are missing."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    window: Window


@dataclass(frozen=True, slots=True)
class Kernel:
    """How many samples a value is made of.

    Parameters
    ----------
    method
        How.
    scale
        Samples per pixel of the target, by rows and by columns; 1 where there is less than one.
    averaged
        Rows and columns of the rectangles in which samples are averaged first, counted from the file's first sample.
    """

    method: Resampling
    scale: tuple[float, float] = (1.0, 1.0)
    averaged: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, method: Resampling, scale: tuple[float, float]) -> "Kernel":
        """Return the kernel for a target whose pixels are `scale` samples high and wide."""
        if method == "nearest":
            return cls(method)
        rows, columns = (max(1, floor(side / (AVERAGED / 2))) if side > AVERAGED else 1 for side in scale)
        left = scale[0] / rows, scale[1] / columns
        tall, wide = (side if side > ALIKE else 1.0 for side in left)
        return cls(method, (tall, wide), (rows, columns))

    def needs(self, at: Positions, shape: tuple[int, int]) -> Window | None:
        """Return the window of a file of that shape which positions draw on; None where they all lie beside it."""
        inside = is_inside(at, shape)
        if not inside.any():
            return None
        ends = []
        for place, side, step, size in zip((at.rows, at.columns), self.scale, self.averaged, shape, strict=True):
            reach = 0 if self.method == "nearest" else ceil(RADIUS[self.method] * side) + 1
            within = place[inside]
            low, high = floor((within.min() + NEAR) / step) - reach, floor((within.max() + NEAR) / step) + 1 + reach
            ends += [max(0, low * step), min(size, high * step)]
        return Window(*ends)


def is_inside(at: Positions, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which positions lie in a file of that shape."""
    inside = np.ones(np.broadcast_shapes(at.rows.shape, at.columns.shape), bool)
    with np.errstate(invalid="ignore"):
        for place, size in zip((at.rows, at.columns), shape, strict=True):
            inside &= (place >= 0) & (place + NEAR <= size)
    return inside


def nearest(samples: NDArray[Any], window: Window, at: Positions, shape: tuple[int, int]) -> NDArray[Any]:
    """Return the samples, `(..., y, x)` of a window of a file, that positions lie in; beside it any of them."""
    (top, left), numbers = (window.top, window.left), []
    for place, start, size, here in zip((at.rows, at.columns), (top, left), shape, window.shape, strict=True):
        with np.errstate(invalid="ignore"):
            number = np.floor(np.where(np.isfinite(place), place, 0) + NEAR).clip(0, size - 1)
        numbers.append((number - start).clip(0, here - 1).astype(np.intp))
    return np.asarray(samples[..., numbers[0], numbers[1]])


def interpolate(
    samples: Samples, at: Positions, shape: tuple[int, int], kernel: Kernel
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Interpolate one band.

    Parameters
    ----------
    samples
        At least those of `Kernel.needs`.
    at
        Positions in pixels of the file.
    shape
        Of the file.
    kernel
        How.

    Returns
    -------
    ndarray, ndarray
        Values; and where there are none: beside the file, in a missing sample, or with too little weight on others.
        Cubic is bilinear where a sample of its neighbourhood is missing or beyond the edge.
    """
    values, there, start = _averaged(samples, kernel.averaged)
    steps = kernel.averaged
    cells = (-(-shape[0] // steps[0]), -(-shape[1] // steps[1]))
    sides = zip((at.rows, at.columns), steps, strict=True)
    places = [np.round(_finite(place) / step * STEPS) / STEPS for place, step in sides]
    result, weight, _ = _weighed(values, there, places, start, cells, kernel.scale, "bilinear")
    lacking = ~is_inside(at, shape) | (weight < LEAST_WEIGHT) | nearest(samples.missing, samples.window, at, shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        result = result / weight
    if kernel.method == "cubic":
        sharp, total, whole = _weighed(values, there, places, start, cells, kernel.scale, "cubic")
        result = np.where(whole, sharp / np.where(whole, total, 1), result)
    return np.where(lacking, 0, result), lacking


def _finite(place: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(place), place, 0).clip(-1e9, 1e9)


def _averaged(
    samples: Samples, sides: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], tuple[int, int]]:
    """Return means of rectangles of so many samples, where any is there, and the first one's row and column."""
    there, window = ~samples.missing, samples.window
    values = np.where(there, samples.values, 0).astype(np.float64)
    if sides == (1, 1):
        return values, there, (window.top, window.left)
    (down, across), (height, width) = sides, window.shape
    rows, columns = -(-height // down), -(-width // across)
    margins = ((0, rows * down - height), (0, columns * across - width))
    cells = (np.pad(part, margins).reshape(rows, down, columns, across) for part in (values, there))
    total, count = (cell.sum(axis=(1, 3), dtype=np.float64) for cell in cells)
    return total / np.maximum(count, 1), count > 0, (window.top // down, window.left // across)


def _weighed(
    values: NDArray[np.float64],
    there: NDArray[np.bool_],
    places: list[NDArray[np.float64]],
    start: tuple[int, int],
    cells: tuple[int, int],
    scale: tuple[float, float],
    method: str,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Add up samples by their weights, one after the other; return the sum, the weights', and where none was missing.

    `start` is the first sample's row and column, `cells` the number of rows and columns of the file.
    """
    shape = np.broadcast_shapes(*(place.shape for place in places))
    total, weight, whole = np.zeros(shape), np.zeros(shape), np.ones(shape, bool)
    for rows, down, low in _taps(places[0], scale[0], cells[0], method):
        row = (rows - start[0]).clip(0, values.shape[0] - 1)
        for columns, across, left in _taps(places[1], scale[1], cells[1], method):
            column = (columns - start[1]).clip(0, values.shape[1] - 1)
            seen = there[row, column] & ~low & ~left
            share = np.where(seen, down * across, 0)
            total += share * values[row, column]
            weight += share
            whole &= seen
    return total, weight, whole


def _taps(
    place: NDArray[np.float64], scale: float, size: int, method: str
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield, one neighbour after the other, its number, its weight, and where it is beyond the edge."""
    base = np.floor(place - 0.5)
    apart = place - 0.5 - base
    reach = ceil(RADIUS[method] * scale)
    for step in range(1 - reach, 1 + reach):
        number = base.astype(np.intp) + step
        yield number.clip(0, size - 1), _weight(np.abs(step - apart) / scale, method), (number < 0) | (number >= size)


def _weight(distance: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """Return the weight of a sample at a distance: a triangle, or the cubic convolution, a = -1/2 (Keys 1981)."""
    if method == "bilinear":
        return np.maximum(0, 1 - distance)
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))
