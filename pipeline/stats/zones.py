"""Zones: polygons of any vector file, checked, mended, and brought into a scene's pixels. No pixels are read here."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import StatisticsError

from ..grid.geobox import GeoBox

POLYGONS = (3, 6)  # shapely's type numbers of Polygon and MultiPolygon
COLLECTION = 7
MARGIN = 0.1  # of the scene's size: how far beyond it zones are still looked at when they are reprojected
SAGITTA = 0.0005  # pixels by which a chord may leave its curve where maps bend with the Earth; near the poles some more
EARTH = 6_371_000.0  # m
LONGEST_PARTS = 4_000_000  # vertices that densified zones may have
SNAP = 1e-6  # pixels: borders that are so close to those of pixels are meant to follow them

Shapes = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Zones:
    """Zones of a scene.

    Parameters
    ----------
    frame
        A GeoDataFrame: the zones as they came, in their own CRS, with all their attributes, one row each; invalid
        geometries are mended.
    shapes
        The same in the scene's pixels: x is the column, y is minus the row, 0 the upper left corner. Polygons,
        multipolygons, and empty ones for zones that lie elsewhere or have no geometry.
    notes
        What was mended or found odd, in plain words.
    """

    frame: Any
    shapes: Shapes
    notes: tuple[str, ...]


def place_zones(zones: Any, geobox: GeoBox, layer: str | None = None) -> Zones:
    """Read zones and bring them into a scene's pixels.

    Zones in another CRS are densified first, so that their straight lines stay what they are in their own.

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
    if geobox.crs is None or geobox.transform is None:
        raise StatisticsError("this scene has no CRS, so no zone can be placed on it; use cells in pixels, as '256 px'")
    frame = read_zones(os.fspath(zones), layer) if isinstance(zones, str | os.PathLike) else zones
    frame = _checked(frame)
    frame, notes = _mended(frame)
    shapes = _polygonal(_in_pixels(frame, geobox))
    away = _lying_outside(frame, shapes, geobox)
    if away:
        notes.append(f"{_counted(away, 'zone')} of {len(frame)} outside the scene: 0 pixels")
    return Zones(frame, shapes, tuple(notes))


def read_zones(path: str, layer: str | None = None) -> Any:
    """Read a vector file as a GeoDataFrame; see `place_zones`."""
    import geopandas

    local = "://" not in path and not path.startswith("/vsi")
    if local and not os.path.exists(path):
        raise StatisticsError(f"no such file of zones: {path}")
    try:
        if path.lower().endswith((".parquet", ".geoparquet", ".pq")):
            return geopandas.read_parquet(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GDAL's remarks on shapes, which are checked and mended later
            return geopandas.read_file(path, engine="pyogrio", layer=_layer(path, layer))
    except StatisticsError:
        raise
    except Exception as error:  # of GDAL, pyarrow and geopandas: many kinds, all of them about the file
        raise StatisticsError(f"{path} cannot be read as zones: {' '.join(str(error).split())[:200]}") from error


def _layer(path: str, wish: str | None) -> str:
    import pyogrio

    names = [str(name) for name, _ in pyogrio.list_layers(path)]
    if wish is None and len(names) > 1:
        raise StatisticsError(f"{path} has the layers {', '.join(names)}; choose one with --layer")
    if wish is not None and wish not in names:
        raise StatisticsError(f"{path} has no layer {wish!r}; it has: {', '.join(names)}")
    return wish or names[0]


def _checked(frame: Any) -> Any:
    import geopandas
    import shapely

    if not isinstance(frame, geopandas.GeoDataFrame) or frame.active_geometry_name is None:
        raise StatisticsError("zones need polygons; received a table without geometry")
    if frame.empty:
        raise StatisticsError("there are no zones in it; give at least one polygon")
    if frame.crs is None:
        raise StatisticsError(
            "the zones have no CRS; give them theirs, as: ogr2ogr -a_srs EPSG:4326 with_crs.gpkg zones"
        )
    types = shapely.get_type_id(frame.geometry.to_numpy())
    others = ~np.isin(types, (-1, *POLYGONS)) & ~shapely.is_empty(frame.geometry.to_numpy())
    if others.any():
        first = int(np.flatnonzero(others)[0])
        name = frame.geometry.iloc[first].geom_type
        raise StatisticsError(
            f"zones are polygons; received a {name} at row {first}, and {_counted(others.sum(), 'such row')}"
        )
    if not np.isfinite(shapely.get_coordinates(frame.geometry.to_numpy())).all():
        raise StatisticsError("some zones have coordinates that are not finite; mend or remove them")
    return _one_geometry(frame)


def _one_geometry(frame: Any) -> Any:
    """Count the rows from 0, call the geometry `geometry`, and drop any others."""
    active = frame.active_geometry_name
    others = [name for name in frame.columns if name != active and str(frame[name].dtype) == "geometry"]
    frame = frame.drop(columns=others).reset_index(drop=True)
    return frame if active == "geometry" else frame.rename_geometry("geometry")


def _mended(frame: Any) -> tuple[Any, list[str]]:
    """Mend invalid geometries by shapely.make_valid; give the frame, and what to say of it."""
    import shapely

    shapes = frame.geometry.to_numpy()
    invalid = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    notes = []
    if empty := int((shapely.is_missing(shapes) | shapely.is_empty(shapes)).sum()):
        notes.append(f"{_counted(empty, 'zone')} without geometry: 0 pixels")
    if invalid.any():
        shapes = shapes.copy()
        shapes[invalid] = _polygonal(shapely.make_valid(shapes[invalid]))
        frame = frame.set_geometry(frame.geometry.__class__(shapes, crs=frame.crs))
        places = ", ".join(map(str, np.flatnonzero(invalid)[:5])) + ("..." if invalid.sum() > 5 else "")
        notes.append(f"{_counted(invalid.sum(), 'zone')} with an invalid geometry mended (row {places})")
    return frame, notes


def _polygonal(shapes: Shapes) -> Shapes:
    """Keep of each geometry what is polygons: repairs and cuts also leave lines and points."""
    import shapely

    kept = np.array(shapes, dtype=object)
    kept[shapely.is_missing(kept)] = shapely.Polygon()
    for place in np.flatnonzero(~np.isin(shapely.get_type_id(kept), POLYGONS)):
        parts = shapely.get_parts(kept[[place]])
        parts = shapely.get_parts(parts[shapely.get_type_id(parts) != COLLECTION])
        kept[place] = shapely.union_all(parts[shapely.get_type_id(parts) == POLYGONS[0]])
    return kept


def _in_pixels(frame: Any, geobox: GeoBox) -> Shapes:
    import shapely
    from pyproj import CRS

    shapes, crs = frame.geometry.to_numpy(), CRS.from_wkt(str(geobox.crs))
    to_pixels = _inverse(geobox)
    if crs.equals(frame.crs, ignore_axis_order=True):
        return _valid(shapely.transform(shapes, to_pixels))
    nearby = _near(shapes, geobox, frame.crs)
    return _valid(shapely.transform(_densified(nearby, geobox, frame.crs), _reprojection(frame.crs, crs, to_pixels)))


def _inverse(geobox: GeoBox) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Give what turns map coordinates `(n, 2)` into column and minus row."""

    def to_pixels(points: NDArray[Any]) -> NDArray[Any]:
        columns, rows = geobox.to_pixels(points[:, 0], points[:, 1])
        made = np.stack([columns, -rows], axis=1)
        whole = np.round(made)
        return np.where(np.abs(made - whole) < SNAP, whole, made)

    return to_pixels


def _reprojection(
    zones: Any, scene: Any, to_pixels: Callable[[NDArray[Any]], NDArray[Any]]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    from pyproj import Transformer

    there = Transformer.from_crs(zones, scene, always_xy=True)

    def convert(points: NDArray[Any]) -> NDArray[Any]:
        moved = np.stack(there.transform(points[:, 0], points[:, 1]), axis=1)
        if not np.isfinite(moved).all():
            raise _unreachable(zones)
        return to_pixels(moved)

    return convert


def _unreachable(crs: Any) -> StatisticsError:
    return StatisticsError(f"the zones' CRS, {crs.name}, does not reach this scene; reproject the zones to the scene's")


def _valid(shapes: Shapes) -> Shapes:
    """Mend what bending and rounding have broken, as where corners were a millionth of a pixel apart."""
    import shapely

    broken = ~shapely.is_valid(shapes) & ~shapely.is_missing(shapes)
    shapes[broken] = shapely.make_valid(shapes[broken])
    return shapes


def _near(shapes: Shapes, geobox: GeoBox, crs: Any) -> Shapes:
    """Cut zones to the scene's surroundings: far from it, their coordinates may have no place in its CRS."""
    import shapely

    around = _surroundings(geobox, crs)
    found = shapely.intersects(shapes, around)
    cut = np.full(len(shapes), shapely.Polygon(), dtype=object)
    cut[found] = shapely.intersection(shapes[found], around)
    return _polygonal(cut)


def _surroundings(geobox: GeoBox, crs: Any) -> Any:
    """Give a box around the scene in another CRS, and two where the scene lies across the antimeridian."""
    import shapely

    bounds = geobox.bounds(crs)
    if bounds is None:
        raise _unreachable(crs)
    west, south, east, north = bounds
    tall = MARGIN * (north - south)
    south, north = south - tall, north + tall
    if west <= east:
        wide = MARGIN * (east - west)
        return shapely.box(west - wide, south, east + wide, north)
    wide = MARGIN * (east + 360 - west)
    return shapely.union_all(
        [shapely.box(west - wide, south, 180, north), shapely.box(-180, south, east + wide, north)]
    )


def _densified(shapes: Shapes, geobox: GeoBox, crs: Any) -> Shapes:
    """Put vertices on straight lines, so close that no chord leaves its curve by more than `SAGITTA` pixels.

    A line of length s on a map that bends with the Earth leaves its chord by about s² / 8 R.
    """
    import shapely
    from pyproj import CRS

    pixel = geobox.resolution() or 1.0
    metres = (8 * EARTH * SAGITTA * pixel) ** 0.5
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    step = metres / (EARTH * unit if CRS(crs).is_geographic else unit)
    length = float(shapely.length(shapes).sum())
    return np.asarray(shapely.segmentize(shapes, max(step, length / LONGEST_PARTS)))


def _lying_outside(frame: Any, shapes: Shapes, geobox: GeoBox) -> int:
    import shapely

    scene = shapely.box(0, -geobox.height, geobox.width, 0)
    given = ~shapely.is_empty(_polygonal(frame.geometry.to_numpy()))
    return int((given & ~shapely.intersects(shapes, scene)).sum())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
