"""Rectangles of pixels out of the squares that a scene is cut into. Geometry of integers; knows no samples."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from pipeline.grid.geobox import Window

Place = tuple[int, int]  # row and column of a block


@dataclass(frozen=True, slots=True)
class Grid:
    """A scene cut into blocks.

    Parameters
    ----------
    rows, columns
        Where blocks begin along each axis, and where the last one ends.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, int], side: int) -> "Grid":
        """Cut a scene of so many rows and columns into squares; what is left over belongs to the last ones."""
        rows, columns = ((*(side * n for n in range(max(1, size // side))), size) for size in shape)
        return cls(rows, columns)

    @property
    def places(self) -> list[Place]:
        """All blocks, row by row."""
        return list(product(range(len(self.rows) - 1), range(len(self.columns) - 1)))

    def pixels(self, row: int, column: int) -> int:
        """Give the size of a block."""
        return (self.rows[row + 1] - self.rows[row]) * (self.columns[column + 1] - self.columns[column])

    def mask(self, blocks: Set[Place]) -> NDArray[np.bool_]:
        """Give some blocks as bool `(row, column)`."""
        made = np.zeros((len(self.rows) - 1, len(self.columns) - 1), bool)
        made[tuple(np.array(sorted(blocks), int).reshape(-1, 2).T)] = True
        return made


def maximal(grid: Grid, blocks: Set[Place], gap: int) -> list[Window]:
    """Give all largest rectangles of pixels of some blocks, at least `gap` pixels from every other block.

    A rectangle of any size that lies in those pixels lies in one of them. They overlap each other. None is smaller
    than a block less `gap` at either end.
    """
    rows, columns = _lines(grid.rows, gap), _lines(grid.columns, gap)
    inner = _far(grid.mask(blocks), gap)
    return [
        Window(rows[top], rows[bottom], columns[left], columns[right]) for top, bottom, left, right in _largest(inner)
    ]


def disjoint(grid: Grid, blocks: Set[Place], gap: int) -> list[Window]:
    """Give rectangles that do not overlap: each block less `gap` pixels along its sides next to other blocks, merged.

    A block next to another one at a corner alone loses a whole side there too, so that what is left is a rectangle.
    """
    own = np.pad(grid.mask(blocks), 1, constant_values=True)
    trimmed = [
        (
            grid.rows[row] + gap * _foreign(own[row, column : column + 3]),
            grid.rows[row + 1] - gap * _foreign(own[row + 2, column : column + 3]),
            grid.columns[column] + gap * _foreign(own[row : row + 3, column]),
            grid.columns[column + 1] - gap * _foreign(own[row : row + 3, column + 2]),
        )
        for row, column in sorted(blocks)
    ]
    across = _merged([Window(*ends) for ends in trimmed])
    return [_turned(window) for window in _merged(sorted(map(_turned, across), key=_ends))]


def _foreign(neighbours: NDArray[np.bool_]) -> int:
    return int(not neighbours.all())


def _merged(windows: list[Window]) -> list[Window]:
    """Join each window with the next one where they have the same rows and touch."""
    made: list[Window] = []
    for new in windows:
        last = made[-1] if made else None
        if last and (last.top, last.bottom, last.right) == (new.top, new.bottom, new.left):
            made[-1] = Window(last.top, last.bottom, last.left, new.right)
        else:
            made.append(new)
    return made


def _turned(window: Window) -> Window:
    return Window(window.left, window.right, window.top, window.bottom)


def _ends(window: Window) -> tuple[int, int, int, int]:
    return window.top, window.bottom, window.left, window.right


def _lines(ends: tuple[int, ...], gap: int) -> list[int]:
    """Give where a block's margins begin and end, along one axis; without a gap, where blocks do."""
    if gap == 0:
        return list(ends)
    return [line for start, stop in pairwise(ends) for line in (start, start + gap, stop - gap)] + [ends[-1]]


def _far(mask: NDArray[np.bool_], gap: int) -> NDArray[np.bool_]:
    """Give which parts of blocks (their margins and their middles, 3 x 3) are far enough from other blocks."""
    from scipy.ndimage import minimum_filter

    if gap == 0:
        return mask
    fine = mask.repeat(3, axis=0).repeat(3, axis=1)
    return minimum_filter(fine, 3, mode="nearest")  # type: ignore[no-any-return]


def _largest(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Give all rectangles of True that fit into no other one: first and last rows and columns, ends excluded.

    Row by row, with the height of True above each column; as in the stack algorithm for the largest rectangle of a
    histogram, where a bar that is closed gives the rectangle it carries. It is whole unless all of it goes on below.
    """
    rows, columns = mask.shape
    heights = np.zeros(columns, int)
    for row in range(rows):
        heights = np.where(mask[row], heights + 1, 0)
        below = mask[row + 1] if row + 1 < rows else np.zeros(columns, bool)
        stops = np.concatenate([[0], np.cumsum(~below)])  # of columns that do not go on
        open_bars: list[tuple[int, int]] = []  # where it begins, and its height
        for column, height in enumerate([*heights.tolist(), 0]):
            begin = column
            while open_bars and open_bars[-1][1] > height:
                begin, tall = open_bars.pop()
                if stops[column] > stops[begin]:
                    yield row + 1 - tall, row + 1, begin, column
            if height and (not open_bars or open_bars[-1][1] < height):
                open_bars.append((begin, height))
