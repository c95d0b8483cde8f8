"""Stride and receptive radius, measured on the network itself by where a NaN goes.

Convolution, ReLU, pooling and batch norm in evaluation all carry a NaN to exactly the outputs that depend on the pixel
that holds it. A row of NaN at every phase of the stride therefore shows how far any row reaches. Knows networks only.
"""

from collections.abc import Callable
from functools import partial
from math import lcm

import torch
from torch import nn

from .errors import NetworkError
from .reach import Footprint

SMALLEST, LARGEST = (
    512,
    8192,
)  # rows tried; a network that fills the largest has no bound. ResNet-101 needs 4,096
STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56)

Reach = tuple[int, int]  # first and last output row that one input row changes


@torch.inference_mode()
def measure_footprint(network: nn.Module, bands: int) -> Footprint:
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
        The network does not give back the size it was given, for any usual stride.
    """
    network.eval()
    accepted = _accepted_stride(network, bands)
    period = lcm(64, accepted)
    size = period * -(-SMALLEST // period)
    while size <= max(LARGEST, 2 * period):
        axes = [_reaches(partial(_reach, network, bands, accepted, size, axis), size, period) for axis in (2, 3)]
        if all(axes):
            return _footprint(period, *axes)
        size *= 2
    return Footprint(lcm(32, accepted), None)  # no reach to read the stride from: that of the usual encoders


def _accepted_stride(network: nn.Module, bands: int) -> int:
    """Find the smallest step of input sizes that the network gives back unchanged."""
    for stride in STRIDES:
        sizes = [stride * n for n in (4, 5)] if stride > 1 else [61, 64]
        if all(_gives_back(network, bands, size) for size in sizes):
            return stride
    raise NetworkError("the network gives back another size than it is given, whatever multiple is tried")


def _gives_back(network: nn.Module, bands: int, size: int) -> bool:
    try:
        return bool(network(_zeros(network, bands, size, size)).shape[2:] == (size, size))
    except (RuntimeError, ValueError):
        return False


def _zeros(network: nn.Module, bands: int, rows: int, columns: int) -> torch.Tensor:
    parameter = next(network.parameters(), None)
    return torch.zeros((1, bands, rows, columns), device=None if parameter is None else parameter.device)


def _reach(network: nn.Module, bands: int, accepted: int, size: int, axis: int, row: int) -> Reach | None:
    """Give the first and last output row that input row `row` changes; None where an edge hides it."""
    across = lcm(32, accepted)
    pixels = _zeros(network, bands, *((size, across) if axis == 2 else (across, size)))
    pixels.select(axis, row).fill_(torch.nan)
    changed = network(pixels).isnan().any(dim=1)[0].any(dim=3 - axis)  # (size,)
    if changed[0] or changed[-1]:
        return None
    rows = torch.nonzero(changed)
    if len(rows) == 0:
        raise NetworkError("a whole row of input changes no output: the network ignores part of its input")
    return int(rows[0]), int(rows[-1])


def _reaches(reach: Callable[[int], Reach | None], size: int, period: int) -> list[Reach]:
    """Give the reach of each of `period + 1` middle rows; nothing where one is hidden.

    First and last rows are step functions that never fall, so that equal ends need no look between them.
    """
    top = size // 2
    found: dict[int, Reach] = {}
    spans = [(top, top + period)]
    while spans:
        low, high = spans.pop()
        for row in (low, high):
            seen = found.get(row) or reach(row)
            if seen is None:
                return []
            found[row] = seen
        if high - low > 1 and found[low] != found[high]:
            middle = (low + high) // 2
            spans += [(low, middle), (middle, high)]
        else:
            found.update(dict.fromkeys(range(low + 1, high), found[low]))
    return [(found[row][0] - row, found[row][1] - row) for row in range(top, top + period + 1)]


def _footprint(period: int, *axes: list[Reach]) -> Footprint:
    """Give the smallest stride with which all reaches repeat, and the furthest of them."""
    stride = next(
        s
        for s in range(1, period + 1)
        if period % s == 0 and all(r[i] == r[i + s] for r in axes for i in range(period + 1 - s))
    )
    return Footprint(stride, max(max(-first, last) for reaches in axes for first, last in reaches))
