"""A fixed grid of square cells over a map, named by row and column: what one file of a publication covers.

Cells are counted from the origin of the CRS, rows to the north and columns to the east, in units of `side` pixels; two
stores whose pixels lie on one grid have the same cells of the same names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.errors import ArgumentError, StoreError

from ..grid.geobox import GeoBox, Window
from ..store.cog_tiles import BLOCK

SIDE = 8192  # pixels, by default
LARGEST_SIDE = 131_072


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its row, counted to the north, its column, and its pixels, counted from the store's first.

    The window may reach out of the store: cells are whole squares.
    """

    row: int
    column: int
    window: Window

    @property
    def name(self) -> str:
        """What its files are named by, as `R0012_C0034`; R-0001 is the first row south of the origin."""
        return f"R{_number(self.row)}_C{_number(self.column)}"

    def file(self, array: str) -> str:
        """Return the name of its file of an array, as `class_map_R0012_C0034.tif`."""
        return f"{array}_{self.name}.tif"


def _number(value: int) -> str:
    return f"{'-' if value < 0 else ''}{abs(value):04d}"


@dataclass(frozen=True, slots=True)
class CellGrid:
    """The cells of a map.

    Parameters
    ----------
    geobox
        Of the map; north is up.
    side
        Of a cell, in pixels.
    top, left
        Pixels from the origin of the CRS to the map's upper left corner, to the north and to the east.
    """

    geobox: GeoBox
    side: int
    top: int
    left: int

    @classmethod
    def of(cls, geobox: GeoBox, side: int) -> Self:
        """Lay a grid over a map.

        Raises
        ------
        ArgumentError
            The side is no multiple of 512 pixels.
        StoreError
            The map has no position, or north is not up.
        """
        if isinstance(side, bool) or not isinstance(side, int) or side % BLOCK or not 0 < side <= LARGEST_SIDE:
            raise ArgumentError(f"side is a multiple of {BLOCK} pixels, at most {LARGEST_SIDE:,}; received {side!r}")
        if geobox.transform is None or geobox.crs is None:
            raise StoreError(
                "the maps have no CRS, and a grid of files needs one; `swathe export` writes them as one file"
            )
        across, down = geobox.transform.a, -geobox.transform.e
        if not geobox.rectilinear or across <= 0 or down <= 0:
            raise StoreError(
                "north is not up in these maps, as a grid of files needs it; `swathe export` writes them as one file"
            )
        left, top = geobox.transform.c / across, geobox.transform.f / down
        return cls(geobox, side, floor(top + 0.5), floor(left + 0.5))

    def cell(self, row: int, column: int) -> Cell:
        """Return a cell by its numbers."""
        return Cell(
            row, column, Window.square(self.top - (row + 1) * self.side, column * self.side - self.left, self.side)
        )

    @property
    def rows(self) -> range:
        """The rows that meet the map, from north to south."""
        return range(-(-self.top // self.side) - 1, (self.top - self.geobox.height) // self.side - 1, -1)

    @property
    def columns(self) -> range:
        """The columns that meet the map, from west to east."""
        return range(self.left // self.side, -(-(self.left + self.geobox.width) // self.side))

    def cells(self, planned: NDArray[np.bool_], block: int) -> Iterator[Cell]:
        """Yield the cells that hold any planned block of the map, row by row.

        Parameters
        ----------
        planned
            By rows and columns of blocks.
        block
            Side of a block in pixels.
        """
        for row in self.rows:
            for column in self.columns:
                cell = self.cell(row, column)
                there = cell.window.clip(self.geobox.shape)
                rows, columns = (slice(part.start // block, -(-part.stop // block)) for part in there.slices)
                if planned[rows, columns].any():
                    yield cell
