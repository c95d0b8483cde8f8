"""Several observations of a pixel put together: the median or the mean of each band, strip by strip."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from ..io.resample import as_type
from ..io.source import Pixels, missing_samples

STACK_BYTES = 2**27  # of the samples of all scenes in a strip
ReadOne = Callable[[int, Window], Pixels | None]


def mean_of(read: ReadOne, scenes: Sequence[int], out: Pixels, window: Window, nodata: Sequence[float | None]) -> None:
    """Fill in the mean of what scenes observed, in float64, added up one after the other in their order.

    Parameters
    ----------
    read
        Reads a window of a scene; None: it has nothing there.
    scenes
        Their numbers.
    out
        Pixels of the window, `(band, y, x)` and `(y, x)`, none of which is valid yet. Integers are rounded, half up.
    window
        Of the grid.
    nodata
        By band. A missing sample counts for nothing.
    """
    total, count = np.zeros(out.data.shape), np.zeros(out.data.shape, np.int32)
    for number in scenes:
        if (pixels := read(number, window)) is not None:
            seen = _seen(pixels, nodata)
            total += np.where(seen, pixels.data, 0)
            count += seen
    _write(out, total / np.maximum(count, 1), count > 0, nodata)


def median_of(
    read: ReadOne, scenes: Sequence[int], out: Pixels, window: Window, nodata: Sequence[float | None]
) -> None:
    """Fill in the median of what scenes observed, of an even number the mean of the middle two; see `mean_of`.

    Rows are done in strips, so that memory does not grow with the number of scenes.
    """
    row_bytes = max(1, len(scenes)) * out.data.shape[0] * window.shape[1] * 8
    for strip in window.split(max(1, STACK_BYTES // row_bytes), window.shape[1]):
        rows = strip.within(window).slices[0]
        part = Pixels(out.data[:, rows], out.valid[rows])
        stack = [np.where(_seen(pixels, nodata), pixels.data, np.nan) for pixels in _read(read, scenes, strip)]
        if stack:
            ordered = np.sort(np.stack(stack), axis=0)  # what is missing comes last
            count = np.isfinite(ordered).sum(axis=0)[None]
            middle = [np.take_along_axis(ordered, np.maximum(count - less, 0) // 2, 0)[0] for less in (1, 0)]
            middle[1] = np.where(count[0] % 2, middle[0], middle[1])
            there = count[0] > 0
            _write(part, np.where(there, middle[0] / 2 + middle[1] / 2, 0), there, nodata)


def _read(read: ReadOne, scenes: Sequence[int], window: Window) -> list[Pixels]:
    found = (read(number, window) for number in scenes)
    return [pixels for pixels in found if pixels is not None]


def _seen(pixels: Pixels, nodata: Sequence[float | None]) -> NDArray[np.bool_]:
    """Return which samples were observed, bool `(band, y, x)`."""
    missing = [missing_samples(band, sentinel) for band, sentinel in zip(pixels.data, nodata, strict=True)]
    return np.stack([pixels.valid if lacking is None else pixels.valid & ~lacking for lacking in missing])


def _write(out: Pixels, values: NDArray[np.float64], there: NDArray[np.bool_], nodata: Sequence[float | None]) -> None:
    for band, value, seen, sentinel in zip(out.data, values, there, nodata, strict=True):
        np.copyto(band, as_type(value, band.dtype, sentinel), where=seen)
    np.copyto(out.valid, there.any(axis=0))
