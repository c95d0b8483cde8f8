"""Cells: a scene cut into squares of whole pixels from its origin on; the whole scene is one cell. No files."""

import re
from dataclasses import dataclass
from math import hypot, isfinite

import numpy as np
from numpy.typing import NDArray

from models.errors import StatisticsError

from ..grid.geobox import GeoBox, Window
from ..grid.pixel_area import PixelAreas
from .sums import NUDGE, Floats, Ints, Sums, add_up, pieces

MOST_VALUES = 3 << 20  # cells times kinds of pixels: some thirty numbers per row come of each, 1 GB in all
TRUE_ENOUGH = 0.01  # where a map's own metres differ less from those on the ground, cells follow the map's
METRES = {"m": 1.0, "km": 1000.0}
ALLOWED = "pixels as 256 or '256 px', or a length on the ground as '500 m' or '1 km'"


@dataclass(frozen=True, slots=True)
class Cells:
    """A grid of cells over a scene, numbered row by row; the last ones are cut to the scene.

    Parameters
    ----------
    height, width
        Of the scene, in pixels.
    down, across
        Rows and columns of pixels in a cell.
    """

    height: int
    width: int
    down: int
    across: int

    @property
    def rows(self) -> int:
        """Rows of cells."""
        return -(-self.height // self.down)

    @property
    def columns(self) -> int:
        """Columns of cells."""
        return -(-self.width // self.across)

    def __len__(self) -> int:
        return self.rows * self.columns

    def part(self, window: Window) -> "BlockCells":
        """Return what a block must know of the cells."""
        return BlockCells(self, window)

    def locate(self, rows: Floats, columns: Floats) -> tuple[Ints, Ints]:
        """Find the cells in which points lie, each in exactly one; see `Groups`."""
        down, across = (
            np.clip(np.floor((centres + 0.5 + NUDGE) / side).astype(np.int64), 0, count - 1)
            for centres, side, count in ((rows, self.down, self.rows), (columns, self.across, self.columns))
        )
        return np.arange(len(rows)), down * self.columns + across


@dataclass(frozen=True, slots=True)
class BlockCells:
    """The cells that a window lies in."""

    cells: Cells
    window: Window

    def sums(self, kinds: NDArray[np.uint8], areas: PixelAreas | None, count: int) -> Sums:
        """Add the window's pixels up by cell; see `BlockGroups`."""
        rows, columns = self._span(self.window)
        numbers = np.add.outer(np.array(rows) * self.cells.columns, np.array(columns))
        pixels, squares = np.zeros((*numbers.shape, count)), np.zeros((*numbers.shape, count))
        for piece in pieces(self.window, kinds, areas, count):
            here = self._span(piece.window)
            shape = len(here[0]), len(here[1])
            down = np.arange(piece.window.top, piece.window.bottom) // self.cells.down - here[0].start
            across = np.arange(piece.window.left, piece.window.right) // self.cells.across - here[1].start
            places = np.add.outer(down * shape[1], across).ravel()
            weights = None if piece.areas is None else piece.areas.ravel()
            found = add_up(places, piece.kinds.ravel(), (shape[0] * shape[1], count), None, weights)
            top, left = here[0].start - rows.start, here[1].start - columns.start
            for sums, added in zip((pixels, squares), found, strict=True):
                sums[top : top + shape[0], left : left + shape[1]] += added.reshape(*shape, count)
        return Sums(numbers.ravel(), pixels.reshape(-1, count), squares.reshape(-1, count))

    def _span(self, window: Window) -> tuple[range, range]:
        """Return the rows and columns of the cells that a window lies in."""
        rows = range(window.top // self.cells.down, (window.bottom - 1) // self.cells.down + 1)
        return rows, range(window.left // self.cells.across, (window.right - 1) // self.cells.across + 1)


def make_cells(geobox: GeoBox, cell: str | float, kinds: int, most: int = MOST_VALUES) -> Cells:
    """Cut a scene into cells.

    Parameters
    ----------
    geobox
        Of the scene.
    cell
        Side of a cell: a number of pixels, or a text as `256 px`, `500 m`, `1 km`. Metres are metres on the ground at
        the scene's centre, and become the nearest whole number of pixels, at least 1, for rows and columns apart. In
        maps that are true to a hundredth there, as UTM, the map's own metres count, so that neighbouring scenes get
        cells of one size.
    kinds
        How many values there are per cell, to refuse what memory cannot hold.
    most
        How many values there may be in all.

    Raises
    ------
    StatisticsError
        It cannot be read, is not positive, is in metres where the scene has no CRS, or gives too many cells.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*(\w*)", str(cell).strip())
    unit = found[2].lower() if found else ""
    if found is None or isinstance(cell, bool) or unit not in ("", "px", *METRES):
        raise StatisticsError(f"a cell has a side with a unit; received {cell!r}. Give {ALLOWED}")
    value = float(found[1]) * METRES.get(unit, 1.0)
    if value <= 0:
        raise StatisticsError(f"a cell is larger than nothing; received {cell!r}. Give {ALLOWED}")
    sides: tuple[float, float] | None = pixel_sides(geobox) if unit in METRES else (1, 1)
    if sides is None:
        raise StatisticsError(
            f"cells of {cell} need a scene with a CRS on the Earth; give cells in pixels, as '256 px'"
        )
    if unit not in METRES and (value < 1 or value != int(value)):
        raise StatisticsError(f"a cell has a whole number of pixels, at least 1; received {cell!r}")
    down, across = (
        max(1, round(min(value / side, longest))) for side, longest in zip(sides, geobox.shape, strict=True)
    )
    cells = Cells(*geobox.shape, down, across)
    if len(cells) * kinds > most:
        raise StatisticsError(
            f"cells of {cell} would make {len(cells):,} rows; {most // kinds:,} are allowed. Give larger cells"
        )
    return cells


def pixel_sides(geobox: GeoBox) -> tuple[float, float] | None:
    """Return how far a row and a column reach, in metres, at the scene's centre; see `make_cells`.

    Distances are those of the geodesic on the CRS's ellipsoid (pyproj.Geod). None: they cannot be known.
    """
    from pyproj import CRS, Transformer
    from pyproj.exceptions import CRSError, ProjError

    if not geobox.georeferenced:
        return None
    row, column = geobox.height / 2, geobox.width / 2
    ends = geobox.to_map(column + np.array([0, 0, -0.5, 0.5]), row + np.array([-0.5, 0.5, 0, 0]))
    try:
        crs = CRS.from_wkt(str(geobox.crs))
        geod, geographic = crs.get_geod(), crs.geodetic_crs
        if geod is None or geographic is None:
            return None
        degrees = np.degrees(geographic.axis_info[0].unit_conversion_factor)  # some count in grads
        there = Transformer.from_crs(crs, geographic, always_xy=True)
        longitudes, latitudes = degrees * np.array(there.transform(*ends))
    except (CRSError, ProjError):
        return None
    down, across = map(float, geod.inv(longitudes[::2], latitudes[::2], longitudes[1::2], latitudes[1::2])[2])
    if not all(isfinite(side) and side > 0 for side in (down, across)):
        return None
    if not crs.is_projected or not crs.axis_info:
        return down, across
    unit, transform = float(crs.axis_info[0].unit_conversion_factor), geobox.affine
    drawn = hypot(transform.b, transform.e) * unit, hypot(transform.a, transform.d) * unit
    true = abs(drawn[0] / down - 1) < TRUE_ENOUGH and abs(drawn[1] / across - 1) < TRUE_ENOUGH
    return drawn if true else (down, across)
