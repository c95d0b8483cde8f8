"""Reader of polygons from vector files: zones and labels, checked, mended, and brought into a scene's pixels."""

import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SwatheError
from models.limits import refuse_special

from ..grid.geobox import GeoBox
from .gdal import absolute_name
from .longitude import all_turns, full_circle, unwrapped
from .names import printable

ENDINGS = (".parquet", ".geoparquet", ".pq")  # of GeoParquet, which geopandas reads; GDAL reads all others
POLYGONS = (3, 6)  # shapely's type numbers of Polygon and MultiPolygon
COLLECTION = 7
MARGIN = 0.1  # of the scene's size: how far beyond it polygons are still looked at
SAGITTA = 0.0005  # pixels by which a chord may leave its curve where maps bend with the Earth; near the poles some more
EARTH = 6_371_000.0  # m
MOST_VERTICES = 4_000_000  # that densified polygons may have
SNAP = 1e-6  # pixels: borders that are so close to those of pixels are meant to follow them

Shapes = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class PlacedPolygons:
    """Polygons of a scene.

    Parameters
    ----------
    frame
        A GeoDataFrame: the polygons as they came, in their own CRS, with all their attributes, one row each; invalid
        geometries are mended.
    shapes
        The same in the scene's pixels: x is the column, y is minus the row, 0 the upper left corner. Polygons,
        multipolygons, and empty ones for those that lie elsewhere or have no geometry.
    notes
        What was mended or found odd, in plain words.
    """

    frame: Any
    shapes: Shapes
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolygonReader:
    """Reads vector files and places their polygons; errors are in the words of who asks.

    Parameters
    ----------
    noun
        What the polygons are, in the plural: `zones`, `labels`.
    error
        The kind of error.
    several
        What to do about a file of several layers.
    origin
        What messages begin with, as the file's path; empty: nothing.
    """

    noun: str
    error: type[SwatheError]
    several: str
    origin: str = ""

    def refuse(self, text: str) -> SwatheError:
        """Return an error that says where the polygons came from."""
        return self.error(f"{self.origin}: {text}" if self.origin and self.origin not in text else text)

    def read(self, path: str, layer: str | None = None) -> Any:
        """Read a vector file.

        Parameters
        ----------
        path
            Path or URL of a file of any kind that GDAL reads, or (Geo)Parquet.
        layer
            Which of the file's layers; None: the only one.

        Returns
        -------
        geopandas.GeoDataFrame
            Its rows; without geometry a DataFrame.

        Raises
        ------
        SwatheError
            The file cannot be read, has several layers or not the one asked for.
        """
        import geopandas
        import pyogrio

        path = absolute_name(path)
        if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
            raise self.refuse(f"no such file of {self.noun}: {path}")
        refuse_special(path, self.error)
        if os.path.exists(path) and path not in pyogrio.util.vsi_path(path):  # it would read another file, or none
            raise self.refuse(f"{path} has a '!' or ';' in its name, which means a place in an archive; rename it")
        try:
            if path.lower().endswith(ENDINGS):
                return geopandas.read_parquet(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GDAL's remarks on shapes, which are checked and mended later
                layers = [(str(name), kind) for name, kind in pyogrio.list_layers(path)]
                # tables without geometry, as QGIS's of styles, are not meant
                names = [name for name, kind in layers if kind is not None or name == layer] or [n for n, _ in layers]
                if layer is None and len(names) > 1:
                    raise self.refuse(f"{path} has the layers {', '.join(names)}; {self.several}")
                if layer is not None and layer not in names:
                    raise self.refuse(f"{path} has no layer {layer!r}; it has: {', '.join(names)}")
                return geopandas.read_file(path, engine="pyogrio", layer=layer or names[0])
        except SwatheError:
            raise
        except Exception as error:  # of GDAL, pyarrow and geopandas: many kinds, all of them about the file
            reason = printable(str(error))[:200]
            raise self.refuse(f"{path} cannot be read as {self.noun}: {reason}") from error

    def place(self, frame: Any, geobox: GeoBox) -> PlacedPolygons:
        """Check polygons, mend them and bring them into a scene's pixels.

        Polygons in another CRS are densified first, so that their straight lines stay what they are in their own.

        Parameters
        ----------
        frame
            A GeoDataFrame.
        geobox
            Of the scene; it has a CRS.

        Raises
        ------
        SwatheError
            There are no polygons, or something else than polygons; they have no CRS, or the scene lies where theirs
            does not reach.
        """
        import shapely
        from pyproj import CRS, Transformer

        frame, notes = self._mended(self._checked(frame))
        shapes, crs = frame.geometry.to_numpy(), CRS.from_wkt(str(geobox.crs))
        if not crs.equals(frame.crs, ignore_axis_order=True):
            around = self.surroundings(frame, geobox)  # far from it, coordinates may have no place in the scene's CRS
            near = shapely.intersects(shapes, around)
            cut = np.full(len(shapes), shapely.Polygon(), dtype=object)
            cut[near] = shapely.intersection(shapes[near], around)
            there = Transformer.from_crs(frame.crs, crs, always_xy=True)
            shapes = densified(polygonal(cut), geobox, frame.crs)
            shapes = shapely.transform(shapes, lambda p: np.stack(there.transform(p[:, 0], p[:, 1]), axis=1))
            if not np.isfinite(shapely.get_coordinates(shapes)).all():
                raise self._out_of_reach(frame)
            if crs.is_geographic:
                shapes = unwrapped(shapes, full_circle(crs))
        shapes = shapely.transform(shapes, lambda points: _to_pixels(points, geobox))
        if crs.is_geographic:
            shapes = all_turns(shapes, geobox, full_circle(crs))
        shapes = shapely.transform(shapes, _snapped)
        broken = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)  # by bending and rounding, as of thin corners
        shapes[broken] = shapely.make_valid(shapes[broken])
        shapes = polygonal(shapes)
        given = ~shapely.is_empty(polygonal(frame.geometry.to_numpy()))
        inside = shapely.intersects(shapes, shapely.box(0, -geobox.height, geobox.width, 0))
        if away := int((given & ~inside).sum()):
            notes.append(f"{self._counted(away)} of {len(frame)} outside the scene: 0 pixels")
        return PlacedPolygons(frame, shapes, tuple(notes))

    def surroundings(self, frame: Any, geobox: GeoBox) -> Any:
        """Return a box around a scene, some larger, in the polygons' CRS; of degrees one for each way to count them.

        Raises
        ------
        SwatheError
            The polygons' CRS does not reach the scene.
        """
        import shapely

        bounds = geobox.bounds(frame.crs)
        if bounds is None:
            raise self._out_of_reach(frame)
        west, south, east, north = bounds
        turn = full_circle(frame.crs) if frame.crs.is_geographic else 0.0
        if west > east:  # across the antimeridian
            east += turn or 360
        tall, wide = MARGIN * (north - south), MARGIN * (east - west)
        south, north, west, east = south - tall, north + tall, west - wide, east + wide
        turns = np.arange(-2, 3) * turn if turn else np.zeros(1)
        return shapely.union_all(shapely.box(west + turns, south, east + turns, north))

    def _checked(self, frame: Any) -> Any:
        """Refuse what are no polygons; count the rows from 0, call the geometry `geometry`, and drop any others."""
        import geopandas
        import shapely

        if not isinstance(frame, geopandas.GeoDataFrame) or frame.active_geometry_name is None:
            raise self.refuse(f"{self.noun} need polygons; received a table without geometry")
        if frame.empty:
            raise self.refuse(f"there are no {self.noun} in it; give at least one polygon")
        if frame.crs is None:
            raise self.refuse(
                f"the {self.noun} have no CRS; give them theirs, as: ogr2ogr -a_srs EPSG:4326 with_crs.gpkg {self.noun}"
            )
        shapes = frame.geometry.to_numpy()
        others = ~np.isin(shapely.get_type_id(shapes), (-1, *POLYGONS)) & ~shapely.is_empty(shapes)
        for place in np.flatnonzero(others & (shapely.get_type_id(shapes) == COLLECTION)):
            others[place] = not any(shapely.get_type_id(part) in POLYGONS for part in parts_of(shapes[place]))
        if others.any():
            first, count = int(np.flatnonzero(others)[0]), int(others.sum())
            raise self.refuse(
                f"{self.noun} are polygons; received a {frame.geometry.iloc[first].geom_type} at row {first}, and "
                f"{count} such row{'' if count == 1 else 's'}"
            )
        if not np.isfinite(shapely.get_coordinates(shapes)).all():
            raise self.refuse(f"some {self.noun} have coordinates that are not finite; mend or remove them")
        active = frame.active_geometry_name
        spare = [name for name in frame.columns if name != active and str(frame[name].dtype) == "geometry"]
        frame = frame.drop(columns=spare).reset_index(drop=True)
        return frame if active == "geometry" else frame.rename_geometry("geometry")

    def _mended(self, frame: Any) -> tuple[Any, list[str]]:
        """Mend invalid geometries by shapely.make_valid; return the frame, and what to say of it."""
        import shapely

        shapes = frame.geometry.to_numpy()
        invalid = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
        notes = []
        mixed = shapely.get_type_id(shapes) == COLLECTION
        if mixed.any():
            parts = [part for shape in shapes[mixed] for part in parts_of(shape)]
            left = sum(shapely.get_type_id(part) not in POLYGONS for part in parts)
            if left:
                what = self._counted(int(mixed.sum()))
                notes.append(f"of {what} in collections only the polygons are taken, not {left} lines or points")
            shapes = shapes.copy()
            shapes[mixed] = polygonal(shapes[mixed])
            frame = frame.set_geometry(frame.geometry.__class__(shapes, crs=frame.crs))
        if empty := int((shapely.is_missing(shapes) | shapely.is_empty(shapes)).sum()):
            notes.append(f"{self._counted(empty)} without geometry: 0 pixels")
        if invalid.any():
            shapes = shapes.copy()
            shapes[invalid] = polygonal(shapely.make_valid(shapes[invalid]))
            frame = frame.set_geometry(frame.geometry.__class__(shapes, crs=frame.crs))
            places = ", ".join(map(str, np.flatnonzero(invalid)[:5])) + ("..." if invalid.sum() > 5 else "")
            notes.append(f"{self._counted(int(invalid.sum()))} with an invalid geometry mended (row {places})")
        return frame, notes

    def _out_of_reach(self, frame: Any) -> SwatheError:
        return self.refuse(
            f"the {self.noun}' CRS, {frame.crs.name}, does not reach this scene; reproject the {self.noun} to the "
            f"scene's"
        )

    def _counted(self, count: int) -> str:
        return f"{count} {self.noun.removesuffix('s') if count == 1 else self.noun}"


def parts_of(shape: Any) -> list[Any]:
    """Return the single parts of a geometry, also of collections in collections; none of a missing one."""
    import shapely

    parts = list(shapely.get_parts(shape)) if shape is not None else []
    while any(shapely.get_type_id(part) == COLLECTION for part in parts):
        parts = list(shapely.get_parts(np.array(parts, object)))
    return [part for part in parts if not part.is_empty]


def polygonal(shapes: Shapes) -> Shapes:
    """Return of each geometry what is polygons: repairs and cuts also leave lines and points."""
    import shapely

    kept = np.array(shapes, dtype=object)
    kept[shapely.is_missing(kept)] = shapely.Polygon()
    for place in np.flatnonzero(~np.isin(shapely.get_type_id(kept), POLYGONS)):
        parts = [part for part in parts_of(kept[place]) if shapely.get_type_id(part) == POLYGONS[0]]
        kept[place] = shapely.union_all(parts) if parts else shapely.Polygon()
    return kept


def _to_pixels(points: NDArray[Any], geobox: GeoBox) -> NDArray[Any]:
    """Turn map coordinates `(n, 2)` into column and minus row."""
    columns, rows = geobox.to_pixels(points[:, 0], points[:, 1])
    return np.stack([columns, -rows], axis=1)


def _snapped(points: NDArray[Any]) -> NDArray[Any]:
    """Put what is next to a pixel's border on it."""
    whole = np.round(points)
    return np.where(np.abs(points - whole) < SNAP, whole, points)


def densified(shapes: Shapes, geobox: GeoBox, crs: Any) -> Shapes:
    """Put vertices on straight lines, so close that no chord leaves its curve by more than `SAGITTA` pixels.

    A line of length s on a map that bends with the Earth leaves its chord by about s² / 8 R.
    """
    import shapely
    from pyproj import CRS

    metres = (8 * EARTH * SAGITTA * (geobox.resolution() or 1.0)) ** 0.5
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    step = metres / (EARTH * unit if CRS(crs).is_geographic else unit)
    return np.asarray(shapely.segmentize(shapes, max(step, float(shapely.length(shapes).sum()) / MOST_VERTICES)))
