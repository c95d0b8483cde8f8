"""Zones: polygons that statistics are taken of, how much of each pixel lies in them (exactextract), and their sums.

A block is looked at in pieces: most of those lie wholly in a zone or wholly outside, and only at borders are fractions
of pixels asked for. Zones are in pixels, with x the column and y minus the row; see `io.polygons`.
"""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import StatisticsError

from ..grid.geobox import GeoBox, Window
from ..grid.pixel_area import PixelAreas
from ..io.polygons import PlacedPolygons, PolygonReader, Shapes
from .sums import NUDGE, Floats, Ints, Piece, Sums, add_up, pieces

SIMPLE = 256  # vertices; zones with more are cut to a block before they are sent there
READER = PolygonReader("zones", StatisticsError, "choose one with --layer")


def place_zones(zones: Any, geobox: GeoBox, layer: str | None = None) -> PlacedPolygons:
    """Read zones and bring them into a scene's pixels.

    Parameters
    ----------
    zones
        Path or URL of a vector file of any kind that GDAL reads, or (Geo)Parquet; or a GeoDataFrame.
    geobox
        Of the scene.
    layer
        Which of the file's layers; None: the only one.

    Raises
    ------
    StatisticsError
        The file cannot be read, has several layers or not the one asked for; there are no zones, or some are not
        polygons; the zones or the scene have no CRS, or the scene lies where the zones' CRS does not reach.
    """
    if not geobox.georeferenced:
        raise StatisticsError("this scene has no CRS, so no zone can be placed on it; use cells in pixels, as '256 px'")
    frame = READER.read(os.fspath(zones), layer) if isinstance(zones, str | os.PathLike) else zones
    return READER.place(frame, geobox)


class ZoneShapes:
    """Zones in a scene's pixels, by number; they may overlap, and each counts on its own."""

    def __init__(self, shapes: Shapes) -> None:
        import shapely

        self.shapes = shapes
        self.vertices = shapely.get_num_coordinates(shapes)
        self.tree = shapely.STRtree(shapes)  # of bounding boxes; empty zones are in none
        shapely.prepare(shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def part(self, window: Window) -> "BlockZones":
        """Return what a block must know of the zones: those that cover all of it, and shapes of those that do not."""
        import shapely

        box = box_of(window)
        near = np.sort(self.tree.query(box))
        covers = shapely.covers(self.shapes[near], box)
        whole, others = near[covers], near[~covers]
        others = others[shapely.intersects(self.shapes[others], box)]
        shapes, long = self.shapes[others], self.vertices[others] > SIMPLE
        shapes[long] = shapely.intersection(shapes[long], box_of(window, 1))  # so that the cuts lie outside the block
        return BlockZones(window, whole, others, shapely.to_wkb(shapes))

    def locate(self, rows: Floats, columns: Floats) -> tuple[Ints, Ints]:
        """Find the zones in which points lie; see `Groups`. One in no zone is left out, one in two is there twice."""
        import shapely

        x, y = columns + 0.5 + NUDGE, -(rows + 0.5 + NUDGE)
        points, zones = self.tree.query(shapely.points(x, y))
        inside = shapely.contains_xy(self.shapes[zones], x[points], y[points])
        return points[inside], zones[inside]


@dataclass(frozen=True, slots=True)
class BlockZones:
    """The zones that a window lies in.

    Parameters
    ----------
    window
        In the scene.
    whole
        Numbers of the zones that cover all of it.
    numbers, shapes
        Numbers of those that cover some of it, and their polygons as WKB.
    """

    window: Window
    whole: Ints
    numbers: Ints
    shapes: NDArray[np.object_]

    def sums(self, kinds: NDArray[np.uint8], areas: PixelAreas | None, count: int) -> Sums:
        """Add the window's pixels up by zone; see `BlockGroups`."""
        import shapely

        size = len(self.whole) + len(self.numbers)
        pixels, squares = np.zeros((size, count)), np.zeros((size, count))
        shapes = shapely.from_wkb(self.shapes)
        shapely.prepare(shapes)
        first = len(self.whole)
        for piece in pieces(self.window, kinds, areas, count) if size else ():
            box = box_of(piece.window)
            covers = shapely.covers(shapes, box)
            partly = np.flatnonzero(~covers & shapely.intersects(shapes, box))
            full = np.concatenate([np.arange(first), first + np.flatnonzero(covers)])
            if full.size:
                every, all_squares = _of_piece(piece, np.arange(piece.kinds.size), None)
                pixels[full] += every
                squares[full] += all_squares
            for place, found in zip(first + partly, coverage(piece.window, shapes[partly]), strict=True):
                some, some_squares = _of_piece(piece, *found)
                pixels[place] += some
                squares[place] += some_squares
        return Sums(np.concatenate([self.whole, self.numbers]), pixels, squares)


def _of_piece(piece: Piece, cells: Ints, parts: Floats | None) -> tuple[Floats, Floats]:
    """Return pixels and areas of each kind of some pixels, by their place in the flat piece; the given parts count."""
    areas = None if piece.areas is None else piece.areas.ravel()[cells]
    places = np.zeros(len(cells), np.int64)
    pixels, squares = add_up(places, piece.kinds.ravel()[cells], (1, piece.count), parts, areas)
    return pixels[0], squares[0]


def box_of(window: Window, margin: int = 0) -> Any:
    """Return a window as a polygon in the zones' coordinates."""
    import shapely

    left, right, top, bottom = window.left, window.right, window.top, window.bottom
    return shapely.box(left - margin, -bottom - margin, right + margin, -top + margin)


def coverage(window: Window, shapes: Shapes) -> list[tuple[Ints, Floats]]:
    """Return the pixels of a window that lie in each polygon, and which part of them does.

    By exactextract (Baston 2018), whose operations `cell_id` and `coverage` these are; parts are good to 1e-7.

    Parameters
    ----------
    window
        Of the scene.
    shapes
        Polygons and multipolygons in pixels, `(n,)`.

    Returns
    -------
    list
        Of each polygon: int64 places in the flat window, and float64 parts above 0 and up to 1.
    """
    import shapely
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    if not len(shapes):
        return []
    height, width = window.shape
    values = np.broadcast_to(np.uint8(0), (height, width))
    grid = NumPyRasterSource(values, window.left, -window.bottom, window.right, -window.top)
    found = exact_extract(grid, _sources()(shapely.to_wkb(shapes)), ["cell_id", "coverage"])
    return [(one["properties"]["cell_id"], one["properties"]["coverage"]) for one in found]


@cache
def _sources() -> Any:
    """Return a source of features that hands WKB to exactextract; its own take GeoJSON, five times slower."""
    from exactextract.feature import Feature, FeatureSource

    class Shape(Feature):  # type: ignore[misc]
        def __init__(self, wkb: bytes) -> None:
            super().__init__()
            self.wkb = wkb

        def geometry(self) -> bytes:
            return self.wkb

        def fields(self) -> list[str]:
            return []

    class ShapeSource(FeatureSource):  # type: ignore[misc]
        def __init__(self, shapes: NDArray[np.object_]) -> None:
            super().__init__()
            self.shapes = shapes

        def count(self) -> int:
            return len(self.shapes)

        def __iter__(self) -> Any:
            return map(Shape, self.shapes)

        def srs_wkt(self) -> None:
            return None

    return ShapeSource
