"""A network's receptive field and stride, measured on the network itself by where a NaN goes.

Convolution, ReLU, pooling and batch norm in evaluation all carry a NaN to exactly the outputs that depend on the pixel
that holds it. A row of NaN at every phase of the stride therefore shows how far any row reaches.
"""

from collections.abc import Callable
from functools import partial
from math import lcm

import torch
from torch import nn

from .errors import NetworkError
from .metadata import ReceptiveField

SMALLEST, LARGEST = 512, 8192  # rows tried; a network that fills the largest has no bound. ResNet-101 needs 4,096
STRIDES = (1, 2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56)

Extent = tuple[int, int]  # first and last output row that one input row changes


@torch.inference_mode()
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
    network.eval()
    accepted = _accepted_stride(network, bands)
    period = lcm(64, accepted)
    size = period * -(-SMALLEST // period)
    while size <= max(LARGEST, 2 * period):
        axes = [_extents(partial(_extent, network, bands, accepted, size, axis), size, period) for axis in (2, 3)]
        if all(axes):
            found = _stride_and_radius(period, *axes)
            if found is None or _moves_with_size(network, bands, accepted, found):
                break
            return found
        size *= 2
    return ReceptiveField(lcm(32, accepted), None)  # no extent to read the stride from: that of the usual encoders


def _accepted_stride(network: nn.Module, bands: int) -> int:
    """Find the smallest step of input sizes at which outputs have the size of the input."""
    for stride in STRIDES:
        sizes = [stride * n for n in (4, 5)] if stride > 1 else [61, 64]
        if all(_keeps_size(network, bands, size) for size in sizes):
            return stride
    raise NetworkError("the network gives back another size than it is given, whatever multiple is tried")


def _keeps_size(network: nn.Module, bands: int, size: int) -> bool:
    try:
        return bool(network(_zeros(network, bands, size, size)).shape[2:] == (size, size))
    except (RuntimeError, ValueError):
        return False


def _zeros(network: nn.Module, bands: int, rows: int, columns: int) -> torch.Tensor:
    parameter = next(network.parameters(), None)
    return torch.zeros((1, bands, rows, columns), device=None if parameter is None else parameter.device)


def _extent(network: nn.Module, bands: int, accepted: int, size: int, axis: int, row: int) -> Extent | None:
    """Find the first and last output row that input row `row` changes; None where an edge hides it."""
    across = lcm(32, accepted)
    try:
        changed = _changed(network, bands, size, across, axis, row)
    except (RuntimeError, ValueError):  # pyramid pooling needs more than a strip
        changed = _changed(network, bands, size, lcm(128, accepted), axis, row)
    if changed[0] or changed[-1]:
        return None
    rows = torch.nonzero(changed)
    if len(rows) == 0:
        raise NetworkError("a whole row of input changes no output: the network ignores part of its input")
    return int(rows[0]), int(rows[-1])


def _moves_with_size(network: nn.Module, bands: int, accepted: int, found: ReceptiveField) -> bool:
    """Whether a longer input changes outputs beyond the radius, as where grids of positions stretch with it."""
    step, radius, across = lcm(accepted, found.stride), found.radius or 0, lcm(64, accepted)
    rows = step * -(-(radius + 2 * step) // step)
    parameter = next(network.parameters(), None)
    pixels = torch.randn((1, bands, rows + 4 * step, across), generator=torch.Generator().manual_seed(0))
    pixels = pixels.to("cpu" if parameter is None else parameter.device)
    short, long = network(pixels[:, :, :rows]), network(pixels)
    kept = rows - radius
    error = (short[:, :, :kept] - long[:, :, :kept]).abs().max()
    return bool(error > 1e-3 * short.abs().max())


def _changed(network: nn.Module, bands: int, size: int, across: int, axis: int, row: int) -> torch.Tensor:
    """Mark the output rows `(size,)` that a row of NaN changes, in an input of `size` rows and `across` columns."""
    pixels = _zeros(network, bands, *((size, across) if axis == 2 else (across, size)))
    pixels.select(axis, row).fill_(torch.nan)
    return network(pixels).isnan().any(dim=1)[0].any(dim=3 - axis)  # type: ignore[no-any-return]


def _extents(extent: Callable[[int], Extent | None], size: int, period: int) -> list[Extent]:
    """Find the extent of each of `period + 1` middle rows, relative to the row; none where one is hidden.

    First and last rows are step functions that never fall, so that equal ends need no look between them.
    """
    top = size // 2
    found: dict[int, Extent] = {}
    spans = [(top, top + period)]
    while spans:
        low, high = spans.pop()
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
