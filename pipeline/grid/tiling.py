"""How a scene is cut into blocks, one a task, and tiles, one a forward pass; integer geometry only."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from models.errors import PlanError
from models.metadata import ReceptiveField

from .geobox import Window
from .tile_grid import TileAxis, TileGrid

TILE, BLOCK, CHUNK = 1024, 2048, 512
LARGEST_INPUT = 2048  # width of a tile with both halos; larger ones need gigabytes in most networks
TALLEST_INPUT = 2304  # height of one that is twice as tall as wide


@dataclass(frozen=True, slots=True)
class Block:
    """What one task does: its place in the grid of blocks, and the pixels it writes."""

    row: int
    column: int
    window: Window


@dataclass(frozen=True, slots=True)
class Tile:
    """What the network sees at once.

    Parameters
    ----------
    seen
        All of it; it may reach out of the scene, where reflections stand.
    kept
        What of a window is taken from it.
    place
        Row and column in the grid of tiles, if they lie on one.
    """

    seen: Window
    kept: Window
    place: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class TilingPlan:
    """How a scene is cut.

    Parameters
    ----------
    height, width
        The scene, in pixels.
    stride
        The network's; tiles, blocks and halo are multiples of it, counted from the scene's origin.
    halo
        Context pixels per side, read and thrown away.
    tile
        Largest width of what goes through the network at once, without halo.
    block
        Side of what one task writes: one shard of the store.
    chunk
        Side of what the store compresses at once.
    exact
        Whether the halo covers the receptive radius, so that tiled equals whole.
    tile_aspect
        How many times taller than wide a tile may be.
    grid
        On which tiles lie that do not follow blocks; `tile` is their side then, and `halo` half of their overlap. None:
        each block is cut into tiles of its own.
    """

    height: int
    width: int
    stride: int
    halo: int
    tile: int
    block: int
    chunk: int
    exact: bool
    tile_aspect: int = 1
    grid: TileGrid | None = None

    @property
    def rows(self) -> int:
        """Rows of blocks."""
        return -(-self.height // self.block)

    @property
    def columns(self) -> int:
        """Columns of blocks."""
        return -(-self.width // self.block)

    def __len__(self) -> int:
        return self.rows * self.columns

    def block_at(self, row: int, column: int) -> Block:
        """Return one block by its place; those at the right and bottom edge are cut to the scene."""
        square = Window.square(row * self.block, column * self.block, self.block)
        return Block(row, column, square.clip((self.height, self.width)))

    def blocks(self) -> Iterator[Block]:
        """Return all blocks, row by row."""
        return (self.block_at(*place) for place in Window.of((self.height, self.width)).cells(self.block))

    def buffered(self, window: Window) -> Window:
        """Return what must be read for a window: rounded up to the stride, and the halo around it.

        It may reach outside the scene; `reflected` says which pixels stand there.
        """
        bottom = window.top + _up(window.bottom - window.top, self.stride)
        right = window.left + _up(window.right - window.left, self.stride)
        return Window(window.top, bottom, window.left, right).buffer(self.halo)

    def tiles(self, window: Window) -> Iterator[Window]:
        """Cut a block's window, rounded up to the stride, into tiles of nearly equal size, row by row.

        Coordinates are the scene's. The last tiles may reach outside the window.
        """
        rows = _cuts(window.top, window.bottom, self.tile * self.tile_aspect, self.stride)
        columns = _cuts(window.left, window.right, self.tile, self.stride)
        return (Window(*row, *column) for row, column in product(rows, columns))

    def tiles_of(self, window: Window) -> Iterator[Tile]:
        """Return what the network must see for a window inside the scene, row by row: one order for all windows."""
        if self.grid is None:
            for tile in self.tiles(window):
                yield Tile(self.buffered(tile), tile.clip(window))
            return
        rows, columns = self.axes
        for row in rows.tiles(window.top, window.bottom):
            for column in columns.tiles(window.left, window.right):
                seen, inner = (
                    Window(*rows.seen(row), *columns.seen(column)),
                    Window(*rows.inner(row), *columns.inner(column)),
                )
                yield Tile(seen, (inner if self.grid.blend == "crop" else seen).clip(window), (row, column))

    def context(self, window: Window) -> Window:
        """Return all that the tiles of a window see; it may reach outside the scene."""
        if self.grid is None:
            return self.buffered(window)
        (top, bottom), (left, right) = (
            (axis.start(found[0]), axis.seen(found[-1])[1])
            for axis, found in zip(self.axes, self._touched(window), strict=True)
        )
        return Window(top, bottom, left, right)

    def _touched(self, window: Window) -> tuple[list[int], list[int]]:
        rows, columns = self.axes
        return rows.tiles(window.top, window.bottom), columns.tiles(window.left, window.right)

    @property
    def axes(self) -> tuple[TileAxis, TileAxis]:
        """Rows and columns of the grid of tiles, of plans that have one."""
        assert self.grid is not None
        return TileAxis(self.height, self.stride, self.grid), TileAxis(self.width, self.stride, self.grid)

    @property
    def reach(self) -> int:
        """Pixels beyond a block that its tiles may see, per side."""
        return self.halo if self.grid is None else self.grid.side

    @property
    def tallest(self) -> int:
        """Largest height of a tile, without halo."""
        return min(self.tile * self.tile_aspect, self.block)

    @property
    def sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of rows and of columns: how many the scene has, and how many a tile may have, halo aside."""
        return (self.height, self.tile * self.tile_aspect), (self.width, self.tile)

    @property
    def largest_input(self) -> tuple[int, int]:
        """Rows and columns of the largest tile with its halo."""
        if self.grid is not None:
            return self.axes[0].side, self.axes[1].side
        rows, columns = (
            max(stop - start for start, stop in _cuts(0, min(self.block, size), side, self.stride)) + 2 * self.halo
            for size, side in self.sides
        )
        return rows, columns

    @property
    def seen(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Of rows and of columns: those that the network sees in a whole block, whole blocks, those seen in the rest.

        A row counts as often as tiles of a block hold it in their height; likewise columns. Where tiles lie on a grid,
        blocks see different numbers of them: that of whole blocks is their mean, rounded up.
        """
        if self.grid is not None:
            return self._seen_on_grid(self.axes[0]), self._seen_on_grid(self.axes[1])
        rows, columns = (
            (self._seen(self.block, side), size // self.block, self._seen(size % self.block, side))
            for size, side in self.sides
        )
        return rows, columns

    def _seen(self, size: int, side: int) -> int:
        return sum(stop - start + 2 * self.halo for start, stop in _cuts(0, size, side, self.stride)) if size else 0

    def _seen_on_grid(self, axis: TileAxis) -> tuple[int, int, int]:
        seen = self._of_blocks(axis)
        whole = axis.size // self.block
        rest = seen[whole] if axis.size % self.block else 0
        return -(-sum(seen[:whole]) // whole) if whole else 0, whole, rest

    def _of_blocks(self, axis: TileAxis) -> list[int]:
        """Return the rows that the network sees for each row of blocks, likewise columns."""
        starts = range(0, axis.size, self.block)
        return [len(axis.tiles(start, min(start + self.block, axis.size))) * axis.side for start in starts]

    @cached_property
    def grid_overhead(self) -> float:
        """As `halo_overhead`, if no two blocks computed the same tile; of plans whose tiles lie on a grid."""
        seen = [len(axis) * axis.side for axis in self.axes]
        return seen[0] * seen[1] / (self.height * self.width)

    @cached_property
    def halo_overhead(self) -> float:
        """Pixels that go through the network for each pixel of the scene: 1 would be no halo at all."""
        if self.grid is not None:
            down, across = (sum(self._of_blocks(axis)) for axis in self.axes)
            return down * across / (self.height * self.width)
        rows, columns = (whole * count + rest for whole, count, rest in self.seen)
        return rows * columns / (self.height * self.width)


def make_plan(
    shape: tuple[int, int],
    receptive_field: ReceptiveField,
    *,
    halo: int | None = None,
    tile: int | None = None,
    block: int | None = None,
    grid: TileGrid | None = None,
) -> TilingPlan:
    """Cut a scene.

    Parameters
    ----------
    shape
        Rows and columns of the scene.
    receptive_field
        Of the network.
    halo
        Pixels per side, rounded up to the stride. None: the exact halo.
    tile, block
        Sides in pixels, rounded up to the stride and to the chunk. None: 1024 (less for a wide halo; twice as tall for
        a narrow one) and 2048, or what the scene has.
    grid
        On which tiles lie, wherever blocks do; `halo` and `tile` do not count then. None: tiles follow blocks.

    Raises
    ------
    PlanError
        A setting is not positive, or the network has no exact halo and none is given.
    """
    stride = receptive_field.stride
    for name, value in (("tile", tile), ("block", block)):
        if value is not None and value < 1:
            raise PlanError(f"{name} must be at least 1 pixel; received {value}")
    if halo is not None and halo < 0:
        raise PlanError(f"halo must not be negative; received {halo}")
    if grid is not None:
        return _plan_on_grid(shape, receptive_field, grid, block)
    halo = receptive_field.halo if halo is None else _up(halo, stride)
    if halo is None:
        raise PlanError("this network has no exact halo: each output sees the whole input. Its tiles lie on a grid")
    tile_aspect = 2 if tile is None and 2 * TILE + 2 * halo <= TALLEST_INPUT else 1  # less halo for each pixel
    tile = _up(min(TILE, max(256, LARGEST_INPUT - 2 * halo)) if tile is None else tile, stride)
    block, chunk = _block_and_chunk(shape, stride, tile, block)
    exact = receptive_field.halo is not None and halo >= receptive_field.halo
    return TilingPlan(*shape, stride, halo, min(tile, block), block, chunk, exact, tile_aspect)


def _plan_on_grid(
    shape: tuple[int, int], receptive_field: ReceptiveField, grid: TileGrid, block: int | None
) -> TilingPlan:
    stride, halo = receptive_field.stride, receptive_field.halo
    block, chunk = _block_and_chunk(shape, stride, grid.side, block)
    exact = halo is not None and grid.before >= halo and grid.overlap >= 2 * halo and grid.blend == "crop"
    return TilingPlan(*shape, stride, grid.overlap // 2, grid.side, block, chunk, exact, grid=grid)


def _block_and_chunk(shape: tuple[int, int], stride: int, tile: int, block: int | None) -> tuple[int, int]:
    chunk = _up(CHUNK, stride)
    if block is None:
        block = min(max(BLOCK, tile), _up(max(shape), chunk))
    if block < chunk:
        block = chunk = _up(block, stride)
    return _up(block, chunk), chunk


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _cuts(start: int, stop: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Cut `start..stop` into the fewest parts of at most `tile`, of nearly equal size, all multiples of the stride."""
    steps = -(-(stop - start) // stride)
    parts = -(-steps // max(1, tile // stride))
    return list(pairwise(start + stride * (steps * n // parts) for n in range(parts + 1)))


def reflected(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the pixels that stand at `start..stop` of an axis padded by reflection without its edge repeated.

    As `numpy.pad(mode="reflect")`, of any width: reflections are reflected again, and a single pixel is repeated.
    """
    if size == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (size - 1)
    places = np.arange(start, stop) % period
    return np.where(places < size, places, period - places)
