"""A network's receptive field and stride, measured on the network itself by where a NaN goes.

Convolution, ReLU, pooling and batch norm in evaluation all carry a NaN to exactly the outputs that depend on the pixel
that holds it. A row of NaN at every phase of the stride therefore shows how far any row reaches.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from math import gcd, lcm
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .errors import NetworkError
from .metadata import ReceptiveField
from .telling import tell

SMALLEST, LARGEST = 512, 8192  # rows tried; a network that fills the largest has no bound. ResNet-101 needs 4,096
STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56)
USUAL = 32  # stride of the usual encoders

Extent = tuple[int, int]  # first and last output row that one input row changes
Answer: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Pixels `(n, band, y, x)` in, `(n, channel, y, x)` out; RuntimeError or ValueError where it takes no such size."""
Moved: TypeAlias = Callable[[NDArray[np.float32], int, int, int], NDArray[np.float32]]
"""Pixels, a shift, a step and an axis in; pixels that begin `shift` later out, at least all but the last `step`."""


def measure_receptive_field(network: nn.Module, bands: int) -> ReceptiveField:
    """Measure a network's stride and receptive radius. It is put in evaluation mode.

    Parameters
    ----------
    network
        Pixels `(n, band, y, x)` in, `(n, channel, y, x)` out.
    bands
        Channels in.

    Raises
    ------
    NetworkError
        The output has another size than the input, for any usual stride.
    """
    parameter = next(network.eval().parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    @torch.inference_mode()
    def answer(pixels: NDArray[np.float32]) -> Any:
        return network(torch.from_numpy(pixels).to(device)).cpu().numpy()

    return measure_on(answer, bands)


def measure_on(answer: Answer, bands: int, carrier: Answer | None = None) -> ReceptiveField:
    """Measure stride and receptive radius of anything that answers for pixels.

    Parameters
    ----------
    answer
        What is measured.
    bands
        Channels in.
    carrier
        What looks at the same pixels, and hands each NaN on, where `answer` itself drops some.

    Raises
    ------
    NetworkError
        The output has another size than the input, for any usual stride.
    """
    accepted = _accepted_stride(answer, bands)
    period = lcm(64, accepted)
    size = period * -(-SMALLEST // period)
    while size <= max(LARGEST, 2 * period):
        extent = partial(_extent, carrier or answer, bands, accepted, size)
        tell(f"measuring how far outputs see, in {size} rows of {LARGEST} at most")
        axes = [_extents(partial(extent, axis), size // 2, period) for axis in (2, 3)]
        if all(axes):
            found = _stride_and_radius(period, *axes)
            if found is None or _moves_with_size(answer, bands, accepted, found):
                break
            return found
        size *= 2
    return unbounded(answer, bands)


def measure_fixed(answer: Answer, bands: int, side: int, carrier: Answer | None = None) -> ReceptiveField:
    """Measure a network that takes tiles of one size alone; the stride divides their side.

    No radius is given where tiles are too small to show that nothing beyond it matters.

    Parameters
    ----------
    answer, carrier
        See `measure_on`.
    bands, side
        Of a tile.
    """
    period = gcd(64, side)
    if side < 2 * period:
        period = max(1, period // 2)
    extent = partial(_row_extent, carrier or answer, bands, (side, side))
    axes = [_extents(partial(extent, axis), (side - period) // 2, period) for axis in (2, 3)]
    found = _stride_and_radius(period, *axes) if all(axes) else None
    shape = (1, bands, side, side)
    if found is None or any(_depends_on_more(answer, shape, found, axis, _rolled) for axis in (2, 3)):
        return unbounded(answer, bands, side)
    return found


def unbounded(answer: Answer, bands: int, side: int | None = None) -> ReceptiveField:
    """Return the receptive field of a network of which no radius is known: the stride is that of the usual encoders.

    Parameters
    ----------
    answer, bands
        See `measure_on`.
    side
        Of a tile, where it is fixed.

    Raises
    ------
    NetworkError
        As `measure_on`.
    """
    return ReceptiveField(gcd(USUAL, side) if side else lcm(USUAL, _accepted_stride(answer, bands)), None)


def _accepted_stride(answer: Answer, bands: int) -> int:
    """Find the smallest step of input sizes at which outputs have the size of the input."""
    for stride in STRIDES:
        sizes = [stride * n for n in (4, 5)] if stride > 1 else [61, 64]
        if all(_keeps_size(answer, bands, size) for size in sizes):
            return stride
    raise NetworkError("the network gives back another size than it is given, whatever multiple is tried")


def _keeps_size(answer: Answer, bands: int, size: int) -> bool:
    try:
        return answer(np.zeros((1, bands, size, size), np.float32)).shape[2:] == (size, size)
    except (RuntimeError, ValueError):
        return False


def _extent(answer: Answer, bands: int, accepted: int, size: int, axis: int, row: int) -> Extent | None:
    """Find the first and last output row that input row `row` changes; None where an edge hides it."""
    shapes = [(size, lcm(least, accepted))[:: 1 if axis == 2 else -1] for least in (32, 128)]
    try:
        return _row_extent(answer, bands, shapes[0], axis, row)
    except (RuntimeError, ValueError):  # pyramid pooling needs more than a strip
        return _row_extent(answer, bands, shapes[1], axis, row)


def _row_extent(answer: Answer, bands: int, shape: tuple[int, ...], axis: int, row: int) -> Extent | None:
    """As `_extent`, in an input of `shape`, of a row along `axis` that holds NaN."""
    pixels = np.zeros((1, bands, *shape), np.float32)
    pixels[(slice(None),) * axis + (row,)] = np.nan
    changed: NDArray[np.bool_] = np.isnan(answer(pixels))[0].any(axis=(0, 4 - axis))
    if changed[0] or changed[-1]:
        return None
    rows = np.flatnonzero(changed)
    if len(rows) == 0:
        raise NetworkError("a whole row of input changes no output: the network ignores part of its input")
    return int(rows[0]), int(rows[-1])


def _moves_with_size(answer: Answer, bands: int, accepted: int, found: ReceptiveField) -> bool:
    """Whether outputs depend on what lies beyond the radius, or on where the input begins and ends."""
    step, radius = lcm(accepted, found.stride), found.radius or 0
    length = step * -(-(2 * radius + max(64, 6 * step)) // step)
    for least in (64, 128):  # pyramid pooling needs more than a strip
        sides = (length, lcm(least, accepted))
        shapes = {2: (1, bands, *sides), 3: (1, bands, *sides[::-1])}
        with suppress(RuntimeError, ValueError):
            return any(
                _depends_on_more(answer, shape, ReceptiveField(step, radius), axis, _cut)
                for axis, shape in shapes.items()
            )
    return True


def _rows(axis: int, first: int, stop: int) -> tuple[slice, ...]:
    return (slice(None),) * axis + (slice(first, stop),)


def _rolled(pixels: NDArray[np.float32], shift: int, step: int, axis: int) -> NDArray[np.float32]:
    return np.roll(pixels, -shift, axis)


def _cut(pixels: NDArray[np.float32], shift: int, step: int, axis: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(pixels[_rows(axis, shift, pixels.shape[axis] - step)])


def _depends_on_more(answer: Answer, shape: tuple[int, ...], found: ReceptiveField, axis: int, moved: Moved) -> bool:
    """Whether numbers show, along an axis, what no NaN does; True, too, where the input has no room to look.

    Steps such as a constant map of positions, or a bound that is the largest of all pixels, hand no NaN on.
    """
    radius, step, length = found.radius or 0, found.stride, shape[axis]
    first, shifts = step * ((length - step) // 2 // step), (length - 2 * (radius + step)) // step * step
    if shifts < step or first <= radius or first + step + radius >= length:
        return True
    pixels = np.random.default_rng(0).standard_normal(shape, np.float32)
    if not np.isfinite(whole := answer(pixels)).all():  # it may take a root or a logarithm of its pixels
        whole = answer(pixels := 1 + np.abs(pixels))
    here, near = _rows(axis, first, first + step), _rows(axis, first - radius, first + step + radius)
    if any(_differ(answer(other)[here], whole[here], whole) for other in _others(pixels, near)):
        return True
    for shift in (step, max(step, shifts // 2 // step * step)):
        kept = length - shift - step - radius
        later = answer(moved(pixels, shift, step, axis))[_rows(axis, radius, kept)]
        if _differ(later, whole[_rows(axis, shift + radius, shift + kept)], whole):
            return True
    return False


def _others(pixels: NDArray[np.float32], near: tuple[slice, ...]) -> Iterator[NDArray[np.float32]]:
    """Yield pixels that differ but for some rows: a bound of the whole input falls, then rises."""
    for loudness in (0, 10):
        other = np.float32(loudness) * np.flip(pixels)
        other[near] = pixels[near]
        yield other


def _differ(one: NDArray[np.float32], other: NDArray[np.float32], whole: NDArray[np.float32]) -> bool:
    """Whether answers differ by more than rounding, or are no numbers."""
    return not (np.abs(one - other) <= 1e-3 * np.abs(whole).max()).all()


def _extents(extent: Callable[[int], Extent | None], top: int, period: int) -> list[Extent]:
    """Find the extent of each of `period + 1` rows from `top` on, relative to the row; none where one is hidden.

    First and last rows are step functions that never fall, so that equal ends need no look between them.
    """
    found: dict[int, Extent] = {}
    spans = [(top, top + period)]
    while spans:
        low, high = spans.pop()
        tell(f"measuring how far outputs see, {len(found)} rows of up to {period + 1}")
        for row in (low, high):
            seen = found.get(row) or extent(row)
            if seen is None:
                return []
            found[row] = seen
        if high - low > 1 and found[low] != found[high]:
            middle = (low + high) // 2
            spans += [(low, middle), (middle, high)]
        else:
            found.update(dict.fromkeys(range(low + 1, high), found[low]))
    return [(found[row][0] - row, found[row][1] - row) for row in range(top, top + period + 1)]


def _stride_and_radius(period: int, *axes: list[Extent]) -> ReceptiveField | None:
    """Find the smallest stride with which all extents repeat, and the furthest of them.

    None where they do not: resizing with aligned corners, as SegFormer's, moves with the size of the whole input.
    """
    radius = max(max(-first, last) for extents in axes for first, last in extents)
    for stride in range(1, period + 1):
        if period % stride == 0 and all(e[i] == e[i + stride] for e in axes for i in range(period + 1 - stride)):
            return ReceptiveField(stride, radius)
    return None
