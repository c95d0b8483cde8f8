"""Tables as Parquet, and with geometry as GeoParquet 1.1: streamed, with a box per row that readers filter by.

Knows Arrow tables and the GeoParquet text; nothing of temporary names, of other formats, or of what the columns mean.
"""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

GEOMETRY, BOX = "geometry", "bbox"
SIDES = ("xmin", "ymin", "xmax", "ymax")
ROWS, BYTES = 2**16, 2**26  # a row group is written when it has as many, and cut up where it has twice as many rows
POLYGONS = ("Polygon", "MultiPolygon")  # what an empty layer says it would hold


def write_parquet(batches: Iterable["pa.Table"], path: str, schema: "pa.Schema", crs: str | None) -> None:
    """Write tables of one schema as one Parquet file, a few row groups in memory at a time.

    Parameters
    ----------
    batches
        Tables of `schema`.
    path
        A local file, written in place.
    schema
        With a binary column `geometry` (WKB) the file is GeoParquet and gets one column more: `bbox`, the rows' boxes.
    crs
        Anything that pyproj reads; None: unknown.
    """
    import pyarrow.parquet as pq

    if GEOMETRY not in schema.names:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in _grouped(batches):
                writer.write_table(table, 2 * ROWS)
        return
    seen = _Seen()
    with pq.ParquetWriter(path, _boxed_schema(schema), compression="zstd") as writer:
        for table in _grouped(batches):
            writer.write_table(seen.box(table), 2 * ROWS)
        writer.add_key_value_metadata({"geo": json.dumps(seen.describe(crs))})


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


def _boxed_schema(schema: "pa.Schema") -> "pa.Schema":
    import pyarrow as pa

    return schema.append(pa.field(BOX, pa.struct([(side, pa.float64()) for side in SIDES])))


class _Seen:
    """The kinds of geometries written so far, and the box around them."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.box_of_all: NDArray[np.float64] | None = None

    def box(self, table: "pa.Table") -> "pa.Table":
        """Give a table with a box for each row (null where there is no geometry), and keep what it holds in mind."""
        import pyarrow as pa
        import shapely

        shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
        sides = shapely.bounds(shapes)
        self._take(shapes, sides)
        values = [pa.array(column, pa.float64()) for column in sides.T]
        return table.append_column(
            _boxed_schema(table.schema).field(BOX),
            pa.StructArray.from_arrays(values, SIDES, mask=pa.array(np.isnan(sides[:, 0]))),
        )

    def _take(self, shapes: NDArray[np.object_], sides: NDArray[np.float64]) -> None:
        import shapely

        some = shapes[~np.isnan(sides[:, 0])]
        for flag, ending in ((False, ""), (True, " Z")):
            types = np.unique(shapely.get_type_id(some[shapely.has_z(some) == flag]))
            self.kinds |= {_kind(int(number)) + ending for number in types}
        if len(some):
            known = sides[~np.isnan(sides[:, 0])]
            known = known if self.box_of_all is None else np.vstack([known, self.box_of_all])
            self.box_of_all = np.append(known[:, :2].min(0), known[:, 2:].max(0))

    def describe(self, crs: str | None) -> dict[str, Any]:
        """Give the file's `geo` text, as the GeoParquet specification 1.1.0 has it."""
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": sorted(self.kinds or POLYGONS),
            "crs": _projjson(crs),
            "covering": {BOX: {side: [BOX, side] for side in SIDES}},
        }
        if self.box_of_all is not None:
            column["bbox"] = [float(side) for side in self.box_of_all]
        return {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}


def _kind(number: int) -> str:
    names = ("Point", "LineString", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon")
    return names[number] if number < len(names) else "GeometryCollection"


def _projjson(crs: str | None) -> Any:
    """Give a CRS as PROJJSON; None where it is unknown, since leaving it out would say longitude and latitude."""
    from pyproj import CRS

    return None if crs is None else CRS.from_user_input(crs).to_json_dict()
