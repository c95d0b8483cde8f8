"""Makes finished stores of masks to measure with, block by block: any size, the same pixels every time, flat memory.

Two are one object each, one pixel wide, that crosses every block; of these all is known, see `Known`. Three are of many
objects. A pixel is a function of its place (and of the mask's size), so that windows can be made in any order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from models import ClassInfo
from models.encoding import Encoding
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox, Window
from pipeline.grid.tiling import TilingPlan
from pipeline.store.lifecycle import create_store, finish_store
from pipeline.store.metadata import StoreMetadata

from .scenes import smooth_noise, uniform

Mask = NDArray[np.bool_]
CLASSES = (ClassInfo("background", "000000"), ClassInfo("thing", "E4572E"))
PIXEL = 10.0  # metres
BLOCK, CHUNK = 2048, 512  # as `swathe segment` cuts a scene


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a mask of one object, whose id is 1: its pixels, and those of each region around it."""

    pixels: int
    hole: int


def spiral(window: Window, size: int) -> Mask:
    """One line that winds from the first corner inwards, with one pixel between its turns: squares, cut and tied."""
    rows, columns = _places(window)
    ring = np.minimum(np.minimum(rows, columns), np.minimum(size - 1 - rows, size - 1 - columns))
    tied = (rows == columns + 1) & (columns < size // 2 - 1)
    return np.asarray(np.where(tied, columns % 2 == 1, ring % 2 == 0))


def comb(window: Window, size: int) -> Mask:
    """Teeth that join in the last row alone: what is one object is known at the very end."""
    rows, columns = _places(window)
    return np.asarray((columns % 2 == 0) | (rows == size - 1))


def blobs(window: Window, size: int) -> Mask:
    """Spots of some hundred pixels that cover a third, in clusters."""
    return np.asarray(0.5 * smooth_noise(window, 96, 1) + 0.5 * smooth_noise(window, 12, 2) > 0.55)


def noise(window: Window, size: int) -> Mask:
    """Pixels that know nothing of each other, half of them set: an object for every fifteen pixels."""
    return np.asarray(uniform(np.arange(window.top, window.bottom), np.arange(window.left, window.right), 3) < 0.5)


def chess(window: Window, size: int) -> Mask:
    """Every second pixel, as the black squares of a chessboard: by sides, an object for every two pixels, the most."""
    rows, columns = _places(window)
    return np.asarray((rows + columns) % 2 == 0)


LINES: dict[str, Callable[[int], Known]] = {
    "spiral": lambda size: Known(size * size // 2 + size - 1, size * size // 2 - size + 1),
    "comb": lambda size: Known(size * size // 2 + size // 2, size - 1),
}
MASKS: dict[str, Callable[[Window, int], Mask]] = {
    "spiral": spiral, "comb": comb, "blobs": blobs, "noise": noise, "chess": chess
}  # fmt: skip


def _places(window: Window) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    rows, columns = np.ogrid[window.slices]
    return rows.astype(np.int32), columns.astype(np.int32)


def make_block(kind: str, window: Window, size: int) -> NDArray[np.uint8]:
    """Make the class map of a window of a mask of that size, a multiple of 4."""
    return MASKS[kind](window, size).astype(np.uint8)


def write_mask(path: str, kind: str, size: int, block: int = BLOCK) -> None:
    """Write a mask as a finished store, as `segment` leaves one behind: no probability, no overviews."""
    block = min(block, size)
    plan = TilingPlan(size, size, stride=4, halo=0, tile=block, block=block, chunk=min(CHUNK, block), exact=True)
    geobox = GeoBox(size, size, Affine(PIXEL, 0, 500_000, 0, -PIXEL, 9_300_000), CRS.from_epsg(32737).to_wkt())
    metadata = StoreMetadata(
        plan, Encoding(), CLASSES, {"mask": kind, "size": size}, bundle={"name": kind}, source={"bands": []}
    )
    store = create_store(path, geobox, metadata)
    found = 0
    for place in store.places(0):
        window = store.window(0, *place)
        pixels = make_block(kind, window, size)
        found += int(pixels.sum())
        store.write(0, window, BlockResult(pixels, None))
    seconds = np.ones((plan.rows, plan.columns), np.float32)
    finish_store(store, {"pixels": {"background": size * size - found, "thing": found, "nodata": 0}}, seconds)
