"""Resampling a band onto the finer grid of its scene: nearest, bilinear or cubic, the same bits for any window.

Both grids have one CRS and run along the same axes, so each axis is done by itself, by the pixels' own numbers: what a
pixel gets depends on where it lies, and not on the window that it is read in. GDAL's warper gives the same values (see
`tests/test_mixed_resolution.py`) but for two things: it spreads values into missing samples, and cuts its work into
pieces.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError

from ..grid.geobox import GeoBox, Window, describe_crs, same_crs

Resampling = Literal["nearest", "bilinear", "cubic"]
RESAMPLINGS: tuple[Resampling, ...] = get_args(Resampling)
TAPS = {"nearest": 1, "bilinear": 2, "cubic": 4}  # samples per axis that a value is made of
ALIKE = 0.01  # of a pixel: writers round transforms
STEPS = 2.0**20  # positions are kept to such parts of a pixel, so that weights add up to 1 without rounding


@dataclass(frozen=True, slots=True)
class Axis:
    """Where a scene's pixels lie along one side of a band's own grid.

    The centre of pixel `i` lies at `start + step * (i + 1/2)` in pixels of the band, whose grid has `size` of them.
    """

    start: float
    step: float
    size: int

    def taps(self, first: int, last: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return which `count` samples the pixels `first` to `last` (excluded) draw on, `(count, pixel)`, and weights.

        Numbers may lie beyond the grid. Weights are those of the cubic convolution with a = -1/2 (Keys 1981), or
        linear.
        """
        at = np.round((self.start + self.step * (np.arange(first, last) + 0.5)) * STEPS) / STEPS
        if count == 1:
            return np.floor(at).astype(np.intp)[None], np.ones((1, at.size))
        base = np.floor(at - 0.5)
        t = at - 0.5 - base
        if count == 2:
            weights = np.stack([1 - t, t])
        else:
            weights = np.stack([((2 - t) * t - 1) * t, (3 * t - 5) * t * t + 2, ((4 - 3 * t) * t + 1) * t,
                                (t - 1) * t * t]) / 2  # fmt: skip
        return base.astype(np.intp) + np.arange(1 - count // 2, 1 + count // 2)[:, None], weights


@dataclass(frozen=True, slots=True)
class Regrid:
    """How a band's own grid lies under its scene's: what to read for a window of the scene, and what becomes of it."""

    rows: Axis
    columns: Axis

    def needs(self, window: Window, method: Resampling) -> Window:
        """Return the window of the band's grid that a window of the scene is made of."""
        ends = []
        for axis, first, last in self._spans(window):
            numbers = axis.taps(first, last, TAPS[method])[0].clip(0, axis.size - 1)
            ends += [int(numbers.min()), int(numbers.max()) + 1]
        return Window(*ends)

    def nearest(self, samples: NDArray[Any], window: Window) -> NDArray[Any]:
        """Return, for each pixel of a window, the sample of `needs(window, "nearest")` that it lies in."""
        for place, (axis, first, last) in enumerate(self._spans(window), -2):
            numbers = axis.taps(first, last, 1)[0][0].clip(0, axis.size - 1)
            samples = np.take(samples, numbers - numbers.min(), axis=place)
        return samples

    def interpolate(
        self,
        samples: NDArray[Any],
        window: Window,
        method: Resampling,
        missing: NDArray[np.bool_] | None,
        sentinel: float | None,
    ) -> NDArray[Any]:
        """Resample one band for a window of the scene.

        A pixel that lies in a missing sample is missing, and every other is made of the samples around it that are
        not. Cubic is bilinear where one of its 16 samples is missing or beyond the edge, as GDAL has it.

        Parameters
        ----------
        samples
            What the file holds at `needs(window, method)`, `(y, x)`, in the band's own type.
        window
            Of the scene.
        method
            As `samples` were read for.
        missing
            Which samples are missing; None: none can be.
        sentinel
            The value that stands for a missing sample; None: none does but NaN.

        Returns
        -------
        ndarray
            `(y, x)` of the window, in the band's own type; integers are rounded, half up, and kept within their range.
        """
        read = self.needs(window, method)
        missing = None if missing is None or not missing.any() else missing
        values = samples.astype(np.float64)
        if missing is not None:
            values[missing] = 0
        there = None if missing is None else (~missing).astype(np.float64)
        result = self._weighed(values, window, read, 2)
        if there is not None:
            with np.errstate(invalid="ignore"):
                result /= self._weighed(there, window, read, 2)
        if method == "cubic":
            result = np.where(self._surrounded(missing, window, read), self._weighed(values, window, read, 4), result)
        made = as_type(result, samples.dtype, sentinel)
        if missing is not None:
            core = self.needs(window, "nearest").within(read).slices
            made[self.nearest(missing[core], window)] = np.nan if sentinel is None else sentinel
        return made

    def _weighed(self, values: NDArray[np.float64], window: Window, read: Window, count: int) -> NDArray[np.float64]:
        """Add up `count` x `count` samples by their weights; beyond the grid stand those of its edge."""
        starts = (read.top, read.left)
        for place, ((axis, first, last), start) in enumerate(zip(self._spans(window), starts, strict=True)):
            numbers, weights = axis.taps(first, last, count)
            numbers = numbers.clip(0, axis.size - 1) - start
            shape = (-1, 1) if place == 0 else (1, -1)
            parts = [np.take(values, n, axis=place) * w.reshape(shape) for n, w in zip(numbers, weights, strict=True)]
            values = reduce(np.add, parts)  # one after the other, whatever the shape
        return values

    def _surrounded(self, missing: NDArray[np.bool_] | None, window: Window, read: Window) -> NDArray[np.bool_]:
        """Return where all samples of the cubic convolution are there."""
        lacking = np.zeros(read.shape, bool) if missing is None else missing
        for place, ((axis, first, last), start) in enumerate(
            zip(self._spans(window), (read.top, read.left), strict=True)
        ):
            numbers = axis.taps(first, last, 4)[0]
            outside = ((numbers < 0) | (numbers >= axis.size)).any(axis=0)
            taken = [np.take(lacking, n, axis=place) for n in numbers.clip(0, axis.size - 1) - start]
            lacking = np.logical_or.reduce(taken) | np.expand_dims(outside, 1 - place)
        return ~lacking

    def _spans(self, window: Window) -> tuple[tuple[Axis, int, int], tuple[Axis, int, int]]:
        return (self.rows, window.top, window.bottom), (self.columns, window.left, window.right)


def as_type(values: NDArray[np.float64], dtype: np.dtype[Any], sentinel: float | None) -> NDArray[Any]:
    """Round into the band's type; a value that would be taken for a missing one moves to the next, as in GDAL."""
    if np.issubdtype(dtype, np.floating):
        made = values.astype(dtype)
        if sentinel is not None and np.isfinite(sentinel):
            mark = dtype.type(sentinel)
            made[made == mark] = np.nextafter(mark, dtype.type(np.inf))
        return made
    info = np.iinfo(dtype)
    made = np.floor(np.nan_to_num(values) + 0.5).clip(info.min, info.max).astype(dtype)
    if sentinel is not None and float(sentinel).is_integer() and info.min <= sentinel <= info.max:
        mark = int(sentinel)
        made[made == mark] = mark + 1 if mark < info.max else mark - 1
    return made


@lru_cache(maxsize=256)
def regrid(own: GeoBox, scene: GeoBox) -> Regrid | None:
    """Return how a band's own grid lies under its scene's; None where they are the same.

    Raises
    ------
    SceneError
        Other CRS, rotated against each other, no position, or another extent: by a pixel of the coarser or more.
    """
    if own.same_grid(scene):
        return None
    if own.transform is None or scene.transform is None or not same_crs(own.crs, scene.crs):
        what = f"{describe_crs(own.crs)} against {describe_crs(scene.crs)}"
        if same_crs(own.crs, scene.crs):
            what = f"{own.describe()} against {scene.describe()}"
        raise SceneError(f"lies on another grid ({what}); warp it onto the other first, as with gdalwarp")
    there = ~own.transform * scene.transform
    if abs(there.b) * scene.height > ALIKE or abs(there.d) * scene.width > ALIKE:
        raise SceneError("is rotated against the others; warp it onto their grid first, as with gdalwarp")
    sides = ((there.f, there.e, own.height, scene.height), (there.c, there.a, own.width, scene.width))
    for start, step, size, pixels in sides:
        ends, coarser = sorted((start, start + step * pixels)), max(1.0, abs(step))
        if max(abs(ends[0]), abs(ends[1] - size)) > (1 - ALIKE) * coarser:
            raise SceneError(
                f"covers another extent: {own.describe()};\nagainst {scene.describe()}. Cut both to the same, as with "
                "gdalwarp -te"
            )
    return Regrid(*(_axis(*side) for side in sides))


def _axis(start: float, step: float, size: int, pixels: int) -> Axis:
    """Return an axis whose step and start are the simple fractions that the files' rounded transforms stand for."""
    simple = Fraction(step).limit_denominator(64)
    if abs(step - simple) * pixels > ALIKE:
        return Axis(start, step, size)
    parts = 2 * simple.denominator
    near = round(start * parts) / parts
    return Axis(near if abs(start - near) < ALIKE else start, float(simple), size)
