"""The area of a mosaic: polygons outside of which pixels are missing and blocks are not planned."""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from models.errors import SceneError

from ..grid.geobox import GeoBox, Window
from ..io.polygons import PolygonReader

LEAST = 64  # side of the squares in which pixels are asked for one by one
READER = PolygonReader("area polygons", SceneError, "give a file of one layer")


@dataclass(frozen=True, slots=True)
class Area:
    """Polygons in pixels of a grid, x to the right and y down; a pixel lies in them if its centre does.

    Parameters
    ----------
    polygons
        As WKB.
    """

    polygons: bytes = field(repr=False)

    @property
    def shape(self) -> Any:
        """The polygons, prepared once in a process."""
        return _prepared(self.polygons)

    @property
    def digest(self) -> str:
        """Tells them from others."""
        return sha256(self.polygons).hexdigest()

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window lie in the area: bool `(y, x)`."""
        found = np.zeros(window.shape, bool)
        self._fill(found, window, window)
        return found

    def _fill(self, found: NDArray[np.bool_], part: Window, window: Window) -> None:
        """Decide whole squares where their outline does, and cut others in four."""
        box, here = shapely.box(part.left, part.top, part.right, part.bottom), part.within(window).slices
        if not shapely.intersects(self.shape, box):
            return
        if shapely.contains(self.shape, box):
            found[here] = True
        elif max(part.shape) <= LEAST:
            across, down = np.meshgrid(np.arange(part.left, part.right) + 0.5, np.arange(part.top, part.bottom) + 0.5)
            found[here] = shapely.contains_xy(self.shape, across, down)
        else:
            for quarter in part.split(max(LEAST, -(-max(part.shape) // 2))):
                self._fill(found, quarter, window)


@lru_cache(maxsize=4)
def _prepared(polygons: bytes) -> Any:
    shape = shapely.from_wkb(polygons)
    shapely.prepare(shape)
    return shape


def read_area(path: str) -> Any:
    """Read polygons of an area: a GeoDataFrame. Raises SceneError where there are none."""
    frame = READER.read(path)
    if not hasattr(frame, "crs") or frame.empty or frame.crs is None:
        raise SceneError(f"{path}: an area is polygons with a CRS; received {'none' if not len(frame) else 'others'}")
    return frame


def place_area(frame: Any, geobox: GeoBox) -> Area:
    """Return an area's polygons on a grid. Raises SceneError where they lie beside it."""
    shapes = READER.place(frame, geobox).shapes
    shape = shapely.union_all(shapely.transform(shapes, lambda points: points * (1, -1)))
    if not shapely.intersects(shape, shapely.box(0, 0, geobox.width, geobox.height)):
        raise SceneError(f"the area lies outside the mosaic: {geobox.describe()}")
    return Area(shape.wkb)
