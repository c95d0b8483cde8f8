"""Lines and points as labels: given a width on the ground, they become polygons."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import TrainingError
from pipeline.grid.geobox import GeoBox
from pipeline.io.polygons import POLYGONS, densified, parts_of, polygonal

FORM = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(m|metres?|meters?|px|pixels?)?\s*")


@dataclass(frozen=True, slots=True)
class Width:
    """How wide a line is drawn, and how large a point: a number of metres, or of the scene's pixels."""

    size: float
    in_pixels: bool = False

    def metres(self, geobox: GeoBox) -> float:
        """Return it in metres. Raises TrainingError if the scene's pixels have no size on the ground."""
        if not self.in_pixels:
            return self.size
        resolution = geobox.resolution()
        if resolution is None:
            raise TrainingError("the image's pixels have no size in metres; give a width in metres, as width = 6")
        return self.size * resolution


def width_of(given: float | str | None) -> Width | None:
    """Read a width, as 6, `6 m` or `3 px`. Raises TrainingError if it is none."""
    if given is None or given == "":
        return None
    match = FORM.fullmatch(str(given))
    if match is None or not float(match[1]) > 0:
        raise TrainingError(f"width is {given!r}; it must be a number of metres or pixels above 0, as 6 or '3 px'")
    return Width(float(match[1]), (match[2] or "m").startswith("p"))


def widen(frame: Any, geobox: GeoBox, width: Width, around: Any) -> tuple[Any, int]:
    """Make polygons of lines and points, as wide as is asked for, with round ends; polygons stay as they are.

    Distances are measured on an azimuthal equidistant map around the scene's centre, and so on the ground.

    Parameters
    ----------
    frame
        A GeoDataFrame with a CRS.
    geobox
        The scene's.
    width
        Of the lines.
    around
        A polygon around the scene, in the frame's CRS: what lies beyond it is left out.

    Returns
    -------
    geopandas.GeoDataFrame, int
        And how many of its rows had lines or points.
    """
    import shapely
    from pyproj import CRS, Transformer

    shapes = frame.geometry.to_numpy().copy()
    rows = np.flatnonzero(~np.isin(shapely.get_type_id(shapes), (-1, *POLYGONS)) & ~shapely.is_empty(shapes))
    if not rows.size:
        return frame, 0
    x, y = geobox.to_map(geobox.width / 2, geobox.height / 2)
    longitude, latitude = Transformer.from_crs(str(geobox.crs), 4326, always_xy=True).transform(x, y)
    local = CRS.from_proj4(f"+proj=aeqd +lat_0={latitude} +lon_0={longitude} +datum=WGS84 +units=m")
    there = Transformer.from_crs(frame.crs, local, always_xy=True)
    thin = [[part for part in parts_of(shapes[row]) if shapely.get_type_id(part) not in POLYGONS] for row in rows]
    lines = np.array([shapely.geometrycollections(parts) for parts in thin], object)
    lines = densified(shapely.intersection(lines, around), geobox, frame.crs)
    placed = shapely.transform(lines, lambda p: np.stack(there.transform(p[:, 0], p[:, 1]), axis=1))
    wide = shapely.buffer(placed, width.metres(geobox) / 2)
    back = shapely.transform(wide, lambda p: np.stack(there.transform(p[:, 0], p[:, 1], direction="INVERSE"), axis=1))
    shapes[rows] = shapely.union(shapely.make_valid(polygonal(shapes[rows])), shapely.make_valid(back))
    return frame.set_geometry(frame.geometry.__class__(shapes, crs=frame.crs)), int(rows.size)
