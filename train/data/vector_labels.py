"""Vector labels: polygons brought into a scene's pixels, and rasterized window by window.

A pixel belongs to the polygon in which its centre lies; where polygons overlap, to the later row. Polygons are
read, mended and placed by `pipeline.io.polygons`.
"""

import re
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import TrainingError
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.gdal import file_stamp
from pipeline.io.polygons import PolygonReader

from .classes import SHOWN, ClassTable
from .samples import LabelSource
from .widening import Width, widen, width_of

ENDINGS = (".geojson", ".json", ".gpkg", ".shp", ".parquet", ".geoparquet", ".pq", ".fgb", ".kml", ".gml")
THIN = ("Point", "MultiPoint", "LineString", "MultiLineString", "LinearRing")
FEW = 200  # vertices of a polygon that is drawn as it is
FILES, SCENES = 2, 4096  # kept in memory: frames of vector files, and polygons of scenes
_DRAWING = re.compile(r"rasterio\.features\Z")


def is_vector(path: str) -> bool:
    """Whether a path names a vector file, by its ending."""
    return path.lower().endswith(ENDINGS)


@dataclass(frozen=True, slots=True)
class VectorLabels(LabelSource):
    """Labels from polygons. Each process that reads it reads the file once.

    Parameters
    ----------
    path
        The file.
    stamp
        What tells the file from one that was changed since.
    geobox
        The scene's.
    attribute
        The column that names classes.
    burn
        Or the class value of all polygons.
    table
        What attributes mean.
    outside
        Label of pixels under no polygon.
    layer
        Of the file; None: its only one.
    width
        Of lines and points; None: there are none.
    """

    path: str
    stamp: str
    geobox: GeoBox
    table: ClassTable
    attribute: str
    burn: int | None
    outside: int
    layer: str | None = None
    width: Width | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended, widened or left out of what lies around the scene."""
        return _placed(self).notes

    @override
    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read class values `(y, x)` of a window. Raises TrainingError if the file has gone or was changed."""
        import shapely
        from rasterio.features import rasterize

        # rasterio warns of the raster that it draws in: it ignores that itself, but not with several threads
        if not any(entry[3] == _DRAWING for entry in warnings.filters):
            warnings.filterwarnings("ignore", module=_DRAWING.pattern)
        placed = _placed(self)
        labels = np.full(window.shape, self.outside, np.uint8)
        # the polygons whose bounds meet the window, in the order of their rows
        near = np.sort(placed.tree.query(shapely.box(window.left, -window.bottom, window.right, -window.top)))
        pairs = [(_near_part(placed.shapes[place], window), int(placed.values[place])) for place in near]
        drawn = [(part, value) for part, value in pairs if part is not None]
        if drawn:
            pixels = Affine(1, 0, window.left, 0, -1, -window.top)  # y is minus the row
            rasterize(drawn, out=labels, transform=pixels, all_touched=False)
        return labels


@dataclass(frozen=True, slots=True)
class _Placed:
    """Polygons in a scene's pixels, x the column and y minus the row, and their class values uint8."""

    shapes: NDArray[np.object_]
    values: NDArray[np.uint8]
    tree: Any
    notes: tuple[str, ...] = ()


def _near_part(shape: Any, window: Window) -> Any:
    """Return a polygon without the vertices that a window does not need, as GeoJSON; None if it needs none.

    What lies beyond one side of the window is drawn nowhere in it, and only its ends matter to what is inside or
    outside: the same pixels are drawn, and a polygon of a million vertices costs no more than one of a few.
    """
    import shapely

    if shapely.get_num_coordinates(shape) <= FEW:
        return shape
    rings = [
        _thinned(shapely.get_coordinates(ring)[:-1], window) for ring in shapely.get_rings(shapely.get_parts(shape))
    ]
    near = [[*ring.tolist(), ring[0].tolist()] for ring in rings if len(ring) >= 3]
    return {"type": "Polygon", "coordinates": near} if near else None


def _thinned(ring: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Drop of a ring's vertices `(n, 2)`, side by side, those that lie beyond it together with both neighbours."""
    sides = ((0, -1, 1 - window.left), (0, 1, window.right + 1), (1, 1, 1 - window.top), (1, -1, window.bottom + 1))
    for axis, sign, limit in sides:  # one side after the other: a line from beyond one to beyond the next may cross
        beyond = sign * ring[:, axis] > limit
        ring = ring[~(beyond & np.roll(beyond, 1) & np.roll(beyond, -1))]
    return ring


def open_shapes(
    path: str,
    geobox: GeoBox,
    table: ClassTable,
    *,
    outside: int = 0,
    attribute: str = "",
    burn: str = "",
    layer: str = "",
    width: float | str | None = None,
    background: int | None = 0,
) -> VectorLabels:
    """Open a vector file as labels of a scene.

    Parameters
    ----------
    path
        Polygons with a CRS: GeoJSON, GeoPackage, shapefile, FlatGeobuf or (Geo)Parquet. It may have none: then nothing
        is labelled.
    geobox
        The scene's; it needs a CRS.
    table
        What the attribute's values mean: names of classes, or what `values` makes of them.
    outside
        Label of pixels under no polygon.
    attribute, burn
        The column that names classes, or the class of all polygons. Neither: of two classes the one that is not the
        background.
    background
        Value of the background. None: there is none.
    layer
        Of a file of several.
    width
        Of lines, and of points, with round ends: metres, or pixels as `3 px`. None: these are refused.

    Raises
    ------
    TrainingError
        No CRS, no such column, values of it that mean no class (listed with counts), not polygons, polygons that lie
        elsewhere, a file that cannot be read.
    """
    if not geobox.georeferenced:
        raise TrainingError(f"the image has no CRS, so the polygons of {path} cannot be placed on it")
    if attribute and burn:
        raise TrainingError(f"{path}: attribute names a column, burn one class for all polygons; give one of them")
    stamp = repr(file_stamp(path))
    frame = _frame(path, layer or None, stamp)
    value = None if attribute else _burnt(path, frame, table, burn, background)
    labels = VectorLabels(path, stamp, geobox, table, attribute, value, outside, layer or None, width_of(width))
    if len(frame):
        _class_values(labels, frame)
        _near_scene(labels, frame)
    return labels


@lru_cache(maxsize=FILES)
def _frame(path: str, layer: str | None, stamp: str) -> Any:
    """Read a layer of a vector file; `stamp` tells its versions apart."""
    return _reader(path).read(path, layer)


def _reader(path: str) -> PolygonReader:
    return PolygonReader("labels", TrainingError, "choose one by layer (of [[data]]) or --layer", origin=path)


@lru_cache(maxsize=SCENES)
def _placed(labels: VectorLabels) -> _Placed:
    import shapely

    if repr(file_stamp(labels.path)) != labels.stamp:
        raise TrainingError(f"{labels.path} has changed or gone since it was opened; begin anew")
    frame = _frame(labels.path, labels.layer, labels.stamp)
    rows = _near_scene(labels, frame) if len(frame) else np.arange(0)
    values = _class_values(labels, frame)[rows] if rows.size else np.empty(0, np.uint8)
    near, notes = _widened(labels, frame.iloc[rows]) if rows.size else (None, [])
    if len(frame) and hasattr(frame, "geometry"):
        given = frame.geometry.to_numpy()
        bare = int((shapely.is_missing(given) | shapely.is_empty(given)).sum())
        notes += [f"{bare} of its {len(frame)} rows have no geometry, and label nothing"] * (bare > 0)
    placed = None if near is None else _reader(labels.path).place(near, labels.geobox)
    shapes = np.empty(0, object) if placed is None else placed.shapes
    notes += (
        [] if placed is None else [note for note in placed.notes if "outside" not in note and "without" not in note]
    )
    kept = ~shapely.is_empty(shapes)
    return _Placed(shapes[kept], values[kept], shapely.STRtree(shapes[kept]), tuple(notes))


def _widened(labels: VectorLabels, frame: Any) -> tuple[Any, list[str]]:
    """Make polygons of lines and points, where a width is given; else refuse them, and say what to do."""
    if getattr(frame, "crs", None) is None:  # placing refuses it, or a table without geometry
        return frame, []
    if labels.width is not None:
        around = _reader(labels.path).surroundings(frame, labels.geobox)
        made, count = widen(frame, labels.geobox, labels.width, around)
        shown = f"{labels.width.size:g} {'pixels' if labels.width.in_pixels else 'm'}"
        return made, [f"{count} lines or points are drawn {shown} wide"] * (count > 0)
    whole = [shape for shape in frame.geometry if shape is not None and shape.geom_type in THIN]
    if whole:
        raise TrainingError(
            f"{labels.path}: labels are polygons; received a {whole[0].geom_type}, and {len(whole)} such rows. Say how "
            "wide they are drawn, in metres as width = 6, or in pixels as width = '3 px' (--width)"
        )
    return frame, []


def _near_scene(labels: VectorLabels, frame: Any) -> NDArray[np.intp]:
    """Return the rows around the scene: a file may hold a whole country's. Refuse a file that lies elsewhere."""
    import shapely

    if getattr(frame, "crs", None) is None:  # or no geometry: placing refuses both
        return np.arange(len(frame))
    around, reach = _reader(labels.path).surroundings(frame, labels.geobox), frame.total_bounds
    if np.isfinite(reach).all() and not shapely.box(*reach).intersects(around):
        shown = ", ".join(f"{value:.6g}" for value in reach)
        raise TrainingError(
            f"{labels.path} lies elsewhere than its image: polygons from {shown} (west, south, east, north); image: "
            f"{labels.geobox.describe()}"
        )
    return np.sort(frame.sindex.query(around, predicate="intersects"))


def _burnt(path: str, frame: Any, table: ClassTable, burn: str, background: int | None) -> int:
    if burn:
        value = table.class_of(burn)
        if value is None:
            raise TrainingError(f"burn is {burn!r}, which is no class; the classes are {', '.join(table.names)}")
        return value
    if len(table.names) == 2 and background is not None:
        return 1 - background
    columns = ", ".join(str(name) for name in frame.columns if name != "geometry")
    raise TrainingError(f"{path} has polygons of which class? Give attribute (one of: {columns}), or burn")


def _class_values(labels: VectorLabels, frame: Any) -> NDArray[np.uint8]:
    """Return the class value of each row."""
    if labels.burn is not None:
        return np.full(len(frame), labels.burn, np.uint8)
    if labels.attribute not in frame.columns:
        columns = ", ".join(str(name) for name in frame.columns if name != "geometry")
        raise TrainingError(f"{labels.path} has no column {labels.attribute!r}; it has: {columns}")
    texts = [_text(value) for value in frame[labels.attribute]]
    meant = {text: labels.table.class_of(text) for text in set(texts)}
    unknown = Counter(text for text in texts if meant[text] is None)
    if unknown:
        common = unknown.most_common()
        shown = ", ".join(f"{text!r} ({count} polygon{'s' if count > 1 else ''})" for text, count in common[:SHOWN])
        more = f" and {len(common) - SHOWN} more" if len(common) > SHOWN else ""
        text, name = common[0][0], labels.table.names[-1]
        raise TrainingError(
            f"{labels.path}: column {labels.attribute!r} holds what means no class: {shown}{more}.\nSay in [[data]] "
            f'what they are, as values = {{ "{text}" = "{name}" }}, or ignore = ["{text}"]'
        )
    return np.array([meant[text] for text in texts], np.uint8)


def _text(value: Any) -> str:
    """Return an attribute as text: 6201.0, which stands for 6201 where rows are missing, as 6201; missing as empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()
