"""Polygons with attributes as GeoPackage, FlatGeobuf and GeoJSON, through GDAL and Arrow's streams.

Knows the formats and what each asks for; nothing of temporary names or of what the columns mean.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from models.errors import SwatheError

from .geoparquet import GEOMETRY

if TYPE_CHECKING:
    import pyarrow as pa

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}
ONE_KIND = (".gpkg", ".fgb")  # every geometry of a layer is of the same kind


def ending_of(path: str) -> str:
    """Give what names a file's format, as `.gpkg`."""
    return os.path.splitext(path)[1].lower()


def check_columns(path: str, schema: "pa.Schema", ending: str) -> None:
    """Refuse columns that a format of GDAL's, or CSV, cannot hold.

    Raises
    ------
    SwatheError
        A type is not held without loss, or GeoPackage has another use for a name.
    """
    from collections import Counter

    for field in schema:
        if field.name != GEOMETRY and not _holds(field.type):
            raise SwatheError(f"{path}: '{ending}' cannot hold the column {field.name} ({field.type}); choose .parquet")
    taken = Counter(name.lower() for name in schema.names) + Counter(("fid", "geom"))
    twice = [name for name in schema.names if taken[name.lower()] > 1]
    if ending == ".gpkg" and twice:
        raise SwatheError(f"{path}: GeoPackage cannot hold the column {twice[0]}: the name is taken; choose .parquet")


def _holds(kind: "pa.DataType") -> bool:
    """Whether GDAL's layers and CSV hold a type of column without loss."""
    from pyarrow import types

    tests = (types.is_signed_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string)
    small = (types.is_uint8, types.is_uint16, types.is_uint32, types.is_date32, types.is_timestamp)
    return any(test(kind) for test in tests + small)


def write_layer(batches: Iterable["pa.Table"], path: str, schema: "pa.Schema", crs: str | None) -> None:
    """Write tables of one schema as one layer, a batch in memory at a time.

    Parameters
    ----------
    batches
        Tables of `schema`.
    path
        A local file that is not there yet; the layer is called as the name's first part.
    schema
        With a binary column `geometry`: WKB of polygons.
    crs
        Anything that pyproj reads; None: unknown.
    """
    import pyarrow as pa
    import pyogrio.raw

    ending = ending_of(path)
    tables = (_as_multi(table) if ending in ONE_KIND else table for table in batches)
    stream = pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
    known = {} if crs is None else {"crs": _wkt(crs)}
    with warnings.catch_warnings(), _settled(ending):
        warnings.simplefilter("ignore")  # that there is no CRS, which the notes say
        pyogrio.raw.write_arrow(
            stream,
            path,
            layer=os.path.basename(path).lstrip(".").partition(".")[0] or "layer",
            driver=DRIVERS[ending],
            geometry_name=GEOMETRY,
            geometry_type="MultiPolygon" if ending in ONE_KIND else "Unknown",
            layer_options=_layer_options(ending, crs),
            **known,
        )


def _wkt(crs: str) -> str:
    from pyproj import CRS

    return CRS.from_user_input(crs).to_wkt()


def _layer_options(ending: str, crs: str | None) -> dict[str, str]:
    """Give GDAL's options: longitude and latitude to a tenth of a millimetre, where GeoJSON asks for them."""
    if ending == ".geojson":
        return {"RFC7946": "NO" if crs is None else "YES", "COORDINATE_PRECISION": "9"}
    return {}


@contextmanager
def _settled(ending: str) -> Iterator[None]:
    """Keep the time of writing out of GeoPackages, so that the same batches give the same bytes."""
    import pyogrio

    name = "OGR_CURRENT_DATE"
    before = pyogrio.get_gdal_config_option(name)
    pyogrio.set_gdal_config_options({name: "1970-01-01T00:00:00.000Z" if ending == ".gpkg" else before})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({name: before})


def _as_multi(table: "pa.Table") -> "pa.Table":
    """Make each Polygon a MultiPolygon of one."""
    import numpy as np
    import pyarrow as pa
    import shapely

    shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
    single = np.flatnonzero(shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON)
    shapely.multipolygons(shapes[single], indices=single, out=shapes)
    return replace_geometry(table, pa.array(shapely.to_wkb(shapes), pa.binary()))


def replace_geometry(table: "pa.Table", geometry: Any) -> "pa.Table":
    """Give a table with other geometry; its columns stay in their order."""
    place = table.schema.get_field_index(GEOMETRY)
    return table.set_column(place, table.schema.field(place), geometry)
