"""Writers of polygon files: GeoParquet 1.1 through Arrow; GeoPackage, FlatGeobuf and GeoJSON through GDAL. Streamed."""

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SwatheError

if TYPE_CHECKING:
    import pyarrow as pa

DRIVERS = {".gpkg": "GPKG", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON"}
ONE_KIND = (".gpkg", ".fgb")  # every geometry of a layer is of the same kind
GEOMETRY, BOX = "geometry", "bbox"
MADE = "swathe"  # of a Parquet file's metadata: what made it
SIDES = ("xmin", "ymin", "xmax", "ymax")
ROWS, BYTES = 2**16, 2**26  # a row group is written when it has as many, and cut up where it has twice as many rows
POLYGONS = ("Polygon", "MultiPolygon")  # what an empty layer says it would hold
KINDS = ("Point", "LineString", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon")


def ending_of(path: str) -> str:
    """Return what names a file's format, as `.gpkg`."""
    return os.path.splitext(path)[1].lower()


def check_columns(path: str, schema: "pa.Schema", ending: str) -> None:
    """Refuse columns that a format of GDAL's, or CSV, cannot hold.

    Raises
    ------
    SwatheError
        A type is not held without loss, or GeoPackage has another use for a name.
    """
    from collections import Counter

    from pyarrow import types

    held = (
        types.is_signed_integer, types.is_floating, types.is_boolean, types.is_string, types.is_large_string,
        types.is_uint8, types.is_uint16, types.is_uint32, types.is_date32, types.is_timestamp,
    )  # fmt: skip
    for field in schema:
        if field.name != GEOMETRY and not any(test(field.type) for test in held):
            raise SwatheError(f"{path}: '{ending}' cannot hold the column {field.name} ({field.type}); choose .parquet")
    taken = Counter(name.lower() for name in schema.names) + Counter(("fid", "geom"))
    twice = [name for name in schema.names if taken[name.lower()] > 1]
    if ending == ".gpkg" and twice:
        raise SwatheError(f"{path}: GeoPackage cannot hold the column {twice[0]}: the name is taken; choose .parquet")


def replace_geometry(table: "pa.Table", shapes: Any) -> "pa.Table":
    """Return a table with other shapely geometries; its columns stay in their order."""
    import pyarrow as pa
    import shapely

    place = table.schema.get_field_index(GEOMETRY)
    return table.set_column(place, table.schema.field(place), pa.array(shapely.to_wkb(shapes), pa.binary()))


def write_layer(
    batches: Iterable["pa.Table"], path: str, schema: "pa.Schema", crs: str | None, layer: str, made: str = ""
) -> None:
    """Write tables of one schema as one layer by GDAL, a batch in memory at a time.

    Parameters
    ----------
    batches
        Tables of `schema`.
    path
        A local file that is not there yet; or a GeoPackage, in which the layer is added or replaced.
    schema
        With a binary column `geometry`: WKB of polygons.
    crs
        Anything that pyproj reads; None: unknown.
    layer
        Its name.
    made
        What the layer's description is to say.
    """
    import pyarrow as pa
    import pyogrio.raw
    from pyproj import CRS

    ending, options = ending_of(path), {"DESCRIPTION": made} if made else {}
    tables = (_as_multi(table) if ending in ONE_KIND else table for table in batches)
    stream = pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
    known = {} if crs is None else {"crs": CRS.from_user_input(crs).to_wkt()}
    if ending == ".geojson":  # longitude and latitude to a tenth of a millimetre
        options |= {"RFC7946": "NO" if crs is None else "YES", "COORDINATE_PRECISION": "9"}
    date = "OGR_CURRENT_DATE"  # kept out of GeoPackages, so that the same batches give the same bytes
    before = pyogrio.get_gdal_config_option(date)
    pyogrio.set_gdal_config_options({date: "1970-01-01T00:00:00.000Z" if ending == ".gpkg" else before})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no CRS, which the notes say
            pyogrio.raw.write_arrow(
                stream,
                path,
                layer=layer,
                driver=DRIVERS[ending],
                geometry_name=GEOMETRY,
                geometry_type="MultiPolygon" if ending in ONE_KIND else "Unknown",
                layer_options=options,
                **known,
            )
    finally:
        pyogrio.set_gdal_config_options({date: before})


def _as_multi(table: "pa.Table") -> "pa.Table":
    """Make each Polygon a MultiPolygon of one."""
    import shapely

    shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
    single = np.flatnonzero(shapely.get_type_id(shapes) == shapely.GeometryType.POLYGON)
    shapely.multipolygons(shapes[single], indices=single, out=shapes)
    return replace_geometry(table, shapes)


def write_parquet(
    batches: Iterable["pa.Table"], path: str | IO[bytes], schema: "pa.Schema", crs: str | None, made: str = ""
) -> None:
    """Write tables of one schema as one Parquet file, a few row groups in memory at a time.

    Parameters
    ----------
    batches
        Tables of `schema`.
    path
        A local file, written in place; or one that is open.
    schema
        With a binary column `geometry` (WKB) the file is GeoParquet and gets one column more: `bbox`, the rows' boxes,
        by which readers filter.
    crs
        Anything that pyproj reads; None: unknown.
    made
        What the file's metadata is to say under `swathe`.
    """
    import pyarrow.parquet as pq

    boxes = _Boxes() if GEOMETRY in schema.names else None
    written = with_boxes(schema) if boxes else schema
    if boxes:  # known before the rows are, for readers of a folder, who look at the schema alone
        written = written.with_metadata({"geo": json.dumps(boxes.describe(crs, kinds=()))})
    with pq.ParquetWriter(path, written, compression="zstd", write_page_checksum=True) as writer:
        for table in _grouped(batches):
            boxed = table.append_column(written.field(BOX), boxes.of(table)) if boxes else table
            writer.write_table(boxed, 2 * ROWS)
        if boxes:
            writer.add_key_value_metadata({"geo": json.dumps(boxes.describe(crs))})
        if made:
            writer.add_key_value_metadata({MADE: made})


def with_boxes(schema: "pa.Schema") -> "pa.Schema":
    """Return the columns of a GeoParquet file: with the rows' boxes."""
    import pyarrow as pa

    return schema.append(pa.field(BOX, pa.struct([(side, pa.float64()) for side in SIDES])))


def describe_parts(texts: Iterable[bytes], crs: str | None) -> bytes:
    """Return the `geo` text of a dataset, from those of its parts."""
    boxes = _Boxes()
    for text in texts:
        column = json.loads(text)["columns"][GEOMETRY]
        if "bbox" in column:  # of an empty part there is none
            boxes.kinds |= set(column["geometry_types"])
            boxes.reach(np.array([column["bbox"]]))
    return json.dumps(boxes.describe(crs)).encode()


def _grouped(batches: Iterable["pa.Table"]) -> Iterator["pa.Table"]:
    """Put small tables together: a row group for every few rows makes large and slow files."""
    import pyarrow as pa

    kept: list[pa.Table] = []
    rows = size = 0
    for table in batches:
        kept.append(table)
        rows, size = rows + len(table), size + table.nbytes
        if rows >= ROWS or size >= BYTES:
            yield pa.concat_tables(kept).combine_chunks()
            kept, rows, size = [], 0, 0
    if kept:
        yield pa.concat_tables(kept).combine_chunks()


class _Boxes:
    """The boxes of rows; keeps in mind which kinds of geometries there were, and the box around all."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.around: NDArray[np.float64] | None = None

    def of(self, table: "pa.Table") -> "pa.Array":
        """Return the box of each row, null where there is no geometry."""
        import pyarrow as pa
        import shapely

        shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
        sides = shapely.bounds(shapes)
        missing = np.isnan(sides[:, 0])
        for flag, ending in ((False, ""), (True, " Z")):
            types = np.unique(shapely.get_type_id(shapes[~missing & (shapely.has_z(shapes) == flag)]))
            self.kinds |= {(KINDS[n] if n < len(KINDS) else "GeometryCollection") + ending for n in types}
        if not missing.all():
            self.reach(sides[~missing])
        values = [pa.array(column, pa.float64()) for column in sides.T]
        return pa.StructArray.from_arrays(values, SIDES, mask=pa.array(missing))

    def reach(self, sides: NDArray[np.float64]) -> None:
        """Let the box around all reach around these `(n, 4)` too."""
        known = sides if self.around is None else np.vstack([sides, self.around])
        self.around = np.append(known[:, :2].min(0), known[:, 2:].max(0))

    def describe(self, crs: str | None, kinds: tuple[str, ...] = POLYGONS) -> dict[str, Any]:
        """Return the file's `geo` text, as the GeoParquet specification 1.1.0 has it; `kinds` if none are known."""
        from pyproj import CRS

        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self.kinds or kinds),
            # null where it is unknown: leaving it out would say longitude and latitude
            "crs": None if crs is None else CRS.from_user_input(crs).to_json_dict(),
            "covering": {BOX: {side: [BOX, side] for side in SIDES}},
        }
        if self.around is not None:
            column["bbox"] = [float(side) for side in self.around]
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
