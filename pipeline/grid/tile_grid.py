"""Tiles on one fixed grid, for networks without an exact halo: where they lie, and what each pixel takes from which.

The grid is counted from the scene's first pixel, never from a block's: so what a tile sees depends on the scene and the
grid alone, and blocks, workers and their order change no pixel. Integer geometry and weights; no pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["crop", "feather"]
Taper = Literal["linear", "cosine", "gaussian"]
SIGMA = 1 / 8  # of a tile's side: the spread of the Gaussian, as nnU-Net has it (Isensee et al. 2021, methods)


@dataclass(frozen=True, slots=True)
class TileGrid:
    """How tiles lie over a scene, and how they make one map.

    Parameters
    ----------
    side
        Of a tile, in pixels: all that the network sees. A scene of fewer is one tile, rounded up to the stride.
    overlap
        Pixels that a tile shares with the next; more with the last one of a row or column, which is moved back so that
        it ends with the scene. `side - overlap` is a multiple of the network's stride.
    blend
        `crop`: each pixel is of the tile in whose inner part it lies, which ends in the middle of overlaps. `feather`:
        the probabilities of all tiles that hold it, weighted.
    taper
        Of `feather`: how weights fall towards a tile's edges. `linear` and `cosine` fall over the overlap, `gaussian`
        over the whole tile. None: no weights.
    before
        Pixels before the scene's first at which the grid begins, and after its last at which it ends; a multiple of
        the stride. Reflections stand there.
    fixed
        Whether the network takes tiles of this side alone: a smaller scene is filled up to it.
    """

    side: int
    overlap: int
    blend: Blend = "crop"
    taper: Taper | None = None
    before: int = 0
    fixed: bool = False

    @property
    def step(self) -> int:
        """Pixels from one tile to the next."""
        return self.side - self.overlap


@dataclass(frozen=True, slots=True)
class TileAxis:
    """The rows of tiles over a scene's rows of pixels, or the columns."""

    size: int
    stride: int
    grid: TileGrid

    @property
    def side(self) -> int:
        """Pixels of each tile."""
        whole = -(-self._length // self.stride) * self.stride
        return self.grid.side if self.grid.fixed else min(self.grid.side, whole)

    @property
    def _length(self) -> int:
        return self.size + 2 * self.grid.before

    def __len__(self) -> int:
        return 1 + -(-max(0, self._length - self.side) // self.grid.step)

    def start(self, number: int) -> int:
        """Return the first pixel of a tile; it may lie before the scene's."""
        last = -(-max(0, self._length - self.side) // self.stride) * self.stride
        return min(number * self.grid.step, last) - self.grid.before

    def seen(self, number: int) -> tuple[int, int]:
        """Return first and last pixel, the last excluded, that the network sees of a tile."""
        first = self.start(number)
        return first, first + self.side

    def inner(self, number: int) -> tuple[int, int]:
        """Return the pixels that are of this tile by `crop`; those of all tiles are the scene."""
        first = self._middle(number - 1) if number else 0
        return first, self._middle(number) if number + 1 < len(self) else self.size

    def _middle(self, number: int) -> int:
        """Return where a tile's inner part ends and the next one's begins."""
        return (self.start(number) + self.side + self.start(number + 1)) // 2

    def tiles(self, first: int, stop: int) -> list[int]:
        """Return the tiles, by number, that have to do with some pixels of the scene, in their order."""
        low = max(0, (first + self.grid.before - self.side) // self.grid.step)
        high = min(len(self) - 1, (stop + self.grid.before) // self.grid.step + 1)
        near = [*range(low, high + 1), *range(max(low, high + 1, len(self) - 1), len(self))]  # the last is moved back
        part = self.inner if self.grid.blend == "crop" else self.seen
        return [one for one in near if part(one)[0] < stop and part(one)[1] > first]

    def weights(self, number: int) -> NDArray[np.float32]:
        """Return what each pixel of a tile counts, float32 `(side,)`: those of all tiles add up to 1 at each pixel.

        Where one tile alone holds a pixel its weight is 1, at the scene's rim too.
        """
        first, stop = self.seen(number)
        mine, total = self._taper(), np.zeros(self.side)
        for other in self._overlapping(number):
            start = self.start(other)
            low, high = max(first, start), min(stop, start + self.side)
            total[low - first : high - first] += mine[low - start : high - start]
        return (mine / total).astype(np.float32)

    def _overlapping(self, number: int) -> list[int]:
        first, stop = self.seen(number)
        near = -(-self.side // self.grid.step) + 1  # the last one is moved back, and may reach further
        low, high = max(0, number - near), min(len(self) - 1, number + near)
        others = {*range(low, high + 1), len(self) - 1}
        return sorted(one for one in others if self.start(one) < stop and self.start(one) + self.side > first)

    def _taper(self) -> NDArray[np.float64]:
        """Return the weights of a tile before they are made to add up, above 0 everywhere."""
        place = np.arange(self.side) + 0.5
        if self.grid.taper == "gaussian":
            return np.asarray(np.exp(-0.5 * ((place / self.side - 0.5) / SIGMA) ** 2))
        share = np.minimum(1.0, np.minimum(place, self.side - place) / max(0.5, self.grid.overlap))
        return np.asarray(np.sin(share * (np.pi / 2)) ** 2 if self.grid.taper == "cosine" else share)
