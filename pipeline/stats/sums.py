"""Pixels and areas per class, added up over windows and groups of pixels. Arrays only: no files, no dask.

A *kind* is what a pixel counts as: its class, or, after the last class, nodata.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window
from ..grid.pixel_area import PixelAreas

PIECE = 512  # side in pixels of what is added up at once: memory stays small in blocks of any size
NUDGE = 5e-7  # pixels down and right: what lies on a border belongs to what is below and to the right of it

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sums:
    """What some groups have of each kind.

    Parameters
    ----------
    groups
        Numbers of the groups, int64 `(n,)`, each once.
    pixels
        Float64 `(n, kinds)`: pixels, and fractions of pixels.
    areas
        Float64 `(n, kinds)`: m². NaN where areas are not known.
    """

    groups: Ints
    pixels: Floats
    areas: Floats


class BlockGroups(Protocol):
    """What a block must know of the groups it lies in."""

    @property
    def window(self) -> Window:
        """The block."""
        ...

    def sums(self, kinds: NDArray[np.uint8], areas: PixelAreas | None, count: int) -> Sums:
        """Add the block's pixels up by group.

        Parameters
        ----------
        kinds
            Uint8 `(y, x)`; see `kinds_of`.
        areas
            Of the scene's pixels; None: not known.
        count
            How many kinds there are.
        """
        ...


class Groups(Protocol):
    """What a scene is divided into: cells or zones, by number."""

    def __len__(self) -> int: ...

    def part(self, window: Window) -> BlockGroups:
        """Return what a block must know of them."""
        ...

    def locate(self, rows: Floats, columns: Floats) -> tuple[Ints, Ints]:
        """Find the groups in which points lie; what lies on a border belongs below and to the right of it.

        Parameters
        ----------
        rows, columns
            Float64 `(n,)`, as skimage counts them: the centre of the first pixel is 0, 0.

        Returns
        -------
        tuple
            Places among the points, and numbers of the groups, both int64 `(m,)`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a block.

    Parameters
    ----------
    window
        In the scene.
    kinds
        Of its pixels, uint8 `(y, x)`.
    areas
        Of its pixels in m², float64 `(y, x)`, repeated where they are alike; None: not known.
    count
        How many kinds there are.
    """

    window: Window
    kinds: NDArray[np.uint8]
    areas: Floats | None
    count: int


def kinds_of(class_map: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """Return the kind of each pixel: its class, or `classes` for nodata."""
    return np.minimum(np.arange(256), classes).astype(np.uint8)[class_map]


def pieces(window: Window, kinds: NDArray[np.uint8], areas: PixelAreas | None, count: int) -> Iterator[Piece]:
    """Cut a block into pieces, row by row."""
    for here in window.split(PIECE):
        squares = None if areas is None else np.broadcast_to(areas.of(here), here.shape)
        yield Piece(here, kinds[here.within(window).slices], squares, count)


def add_up(
    places: Ints,
    kinds: NDArray[np.uint8],
    shape: tuple[int, int],
    coverage: Floats | None = None,
    areas: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Add pixels up by place and kind.

    Parameters
    ----------
    places, kinds
        Int64 and uint8, one of each per pixel.
    shape
        How many places and kinds there are.
    coverage
        The part of each pixel that counts; None: all of it.
    areas
        Of the pixels, in m²; None: not known.

    Returns
    -------
    tuple
        Pixels, and areas in m² (NaN where not known), both float64 of `shape`.
    """
    size = shape[0] * shape[1]
    keys = places * shape[1] + kinds
    pixels = np.bincount(keys, coverage, size).astype(np.float64).reshape(shape)
    if areas is None:
        return pixels, np.full(shape, np.nan)
    weights = areas if coverage is None else areas * coverage
    return pixels, np.bincount(keys, weights, size).astype(np.float64).reshape(shape)


class Totals:
    """Sums of all groups, which grow as windows come in. The order in which they come decides the last bits."""

    def __init__(self, groups: int, kinds: int, *, areas: bool) -> None:
        self.pixels: Floats = np.zeros((groups, kinds))
        self.areas: Floats = np.zeros((groups, kinds)) if areas else np.full((groups, kinds), np.nan)

    def add(self, sums: Sums) -> None:
        """Add what a window has."""
        self.pixels[sums.groups] += sums.pixels
        self.areas[sums.groups] += sums.areas
