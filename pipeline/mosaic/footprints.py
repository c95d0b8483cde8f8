"""Which scenes lie where on a grid: a spatial index of their outlines, built once in a process."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..catalog.index import SceneIndex
from ..grid.geobox import GeoBox, Window
from .outline import Outlines, outlines

# how the JSON of a source begins, see `catalog.records`
GRID = r'^\{"geobox":\{"height":(?P<height>\d+),"width":(?P<width>\d+),"transform":\[(?P<transform>[^\]]+)\]'


@dataclass(frozen=True, slots=True)
class Footprints:
    """Outlines of scenes in pixels of a grid.

    Parameters
    ----------
    shapes
        By place in the order of the scenes; empty ones lie elsewhere.
    tree
        Of all of them.
    """

    shapes: Outlines
    tree: Any

    def at(self, window: Window) -> NDArray[np.intp]:
        """Return the places of the scenes that may touch a window, in their order."""
        box = shapely.box(window.left, window.top, window.right, window.bottom)
        return np.sort(self.tree.query(box, predicate="intersects"))

    def touched(self, geobox: GeoBox, side: int) -> NDArray[np.bool_]:
        """Return which blocks of `side` pixels any outline touches: bool, rows and columns of blocks."""
        return touched_blocks(self.shapes, geobox, side)


@lru_cache(maxsize=4)
def footprints(index: SceneIndex, geobox: GeoBox, order: Sequence[int]) -> Footprints:
    """Return the outlines of scenes of an index on a grid."""
    shapes = outlines_of(index, np.asarray(order, np.intp), geobox)
    return Footprints(shapes, shapely.STRtree(shapes))


def outlines_of(index: SceneIndex, order: NDArray[np.intp], geobox: GeoBox) -> Outlines:
    """Return the outlines of scenes of an index in pixels of a grid, see `outlines`."""
    crs, transforms, sizes = grids_of(index, order)
    found = np.empty(len(order), object)
    for one in dict.fromkeys(crs):
        here = np.array([other == one for other in crs])
        found[here] = outlines(one, transforms[here], sizes[here], geobox)
    return found


def grids_of(index: SceneIndex, order: NDArray[np.intp]) -> tuple[list[str | None], NDArray[np.float64], NDArray[Any]]:
    """Return CRS, transforms `(scene, 6)` and shapes `(scene, 2)` of scenes of an index; few are decoded for it."""
    import pyarrow.compute as pc

    columns = index.columns
    found = pc.extract_regex(columns.sources.take(order), pattern=GRID)
    if found.null_count:
        grids = [index.scene(int(number)).source.geobox for number in order]
        texts = [",".join(map(repr, tuple(grid.affine)[:6])) for grid in grids]
        shapes = np.array([grid.shape for grid in grids], np.int64)
    else:
        texts = found.field("transform").to_pylist()
        shapes = np.stack([found.field(side).cast("int64").to_numpy() for side in ("height", "width")], axis=1)
    transforms = np.array(",".join(texts).split(","), np.float64).reshape(-1, 6)
    return [columns.crs[number] or None for number in columns.crs_numbers[order]], transforms, shapes


def touched_blocks(shapes: Outlines, geobox: GeoBox, side: int) -> NDArray[np.bool_]:
    """Return which blocks of `side` pixels any shape touches: bool, rows and columns of blocks."""
    rows, columns = (-(-size // side) for size in geobox.shape)
    touched = np.zeros((rows, columns), bool)
    for shape in shapes:
        shapely.prepare(shape)
        for west, north, east, south in shapely.bounds(shapely.get_parts(shape)):
            top, bottom = max(0, int(north // side)), min(rows, int(south // side) + 1)
            left, right = max(0, int(west // side)), min(columns, int(east // side) + 1)
            if top >= bottom or left >= right or touched[top:bottom, left:right].all():
                continue
            down, across = np.mgrid[top:bottom, left:right] * side
            cells = shapely.box(across, down, across + side, down + side)
            touched[top:bottom, left:right] |= shapely.intersects(shape, cells)
    return touched
