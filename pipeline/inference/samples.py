"""Windows spread over a scene on which something is measured before a run, the same ones each time."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from ..grid.tiling import TilingPlan
from ..io.source import Source
from .predict import InferenceSpec, network_input, read_reflected

TRIES = 8  # windows looked at in each part of the scene until one holds observed pixels


@dataclass(frozen=True, slots=True)
class Sample:
    """What the network sees of one window.

    Parameters
    ----------
    pixels
        Raw pixels `(band, y, x)` of the window with its halo, missing samples filled.
    valid
        Which pixels of the window, halo aside, were observed, bool `(y, x)`.
    halo
        In pixels.
    """

    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    halo: int

    def core(self, answer: NDArray[Any]) -> NDArray[Any]:
        """Return what of an answer `(..., y, x)` lies in the window."""
        height, width = self.valid.shape
        return answer[..., self.halo : self.halo + height, self.halo : self.halo + width]


def observed_windows(source: Source, plan: TilingPlan, count: int, side: int, seed: int = 0) -> list[Window]:
    """Return windows with observed pixels, at most one in each of `count` equal parts of the scene.

    Parameters
    ----------
    source
        Is read a little.
    plan
        Of the scene.
    count
        A square number.
    side
        Of a window, in pixels; rounded up to the network's stride. Where tiles lie on a grid it is theirs.
    seed
        Other windows are found with another.
    """
    side, parts = -(-side // plan.stride) * plan.stride, math.isqrt(count)
    height, width = (side, side) if plan.grid is None else plan.largest_input
    random, found = np.random.default_rng(seed), []
    for row in range(parts):
        for column in range(parts):
            for _ in range(TRIES):
                top, left = (
                    _start(random, place, parts, size, side, plan.stride)
                    for place, size, side in ((row, plan.height, height), (column, plan.width, width))
                )
                window = Window(top, top + height, left, left + width).clip((plan.height, plan.width))
                if source.read(window).valid.any():
                    found.append(window)
                    break
    return list(dict.fromkeys(found))


def _start(random: np.random.Generator, place: int, parts: int, size: int, side: int, stride: int) -> int:
    """Draw where a window begins in one of several equal parts of a side of the scene."""
    room = max(0, size - side) // stride
    low, high = room * place // parts, room * (place + 1) // parts
    return int(random.integers(low, high + 1)) * stride


def read_samples(source: Source, inference: InferenceSpec, windows: list[Window]) -> list[Sample]:
    """Read windows as the network sees them: with their halo; those that are tiles of a grid, as they are."""
    plan, found = inference.plan, []
    halo = plan.halo if plan.grid is None else 0
    for window in windows:
        seen = plan.buffered(window)
        if plan.grid is not None:  # what a small scene lacks is filled up
            height, width = plan.largest_input
            seen = Window(window.top, window.top + height, window.left, window.left + width)
        read, (height, width) = read_reflected(source, plan, seen), window.shape
        valid = read.valid[halo : halo + height, halo : halo + width]
        found.append(Sample(network_input(read, source.nodata, inference.metadata)[0], valid, halo))
    return found
