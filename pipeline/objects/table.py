"""The table of objects: its columns, partial rows of one object merged, and finished. Knows no pixels and no store.

Partial rows hold what adds up over the parts of an object; finished rows hold what people read: in pixels the values of
`skimage.measure.regionprops_table`, and beside them metres and map coordinates. Means and moments are joined by the
update of Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance", and counted from the object's
first pixel, so that no digits are lost however large an object is, or how far from the origin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import GeoBox

if TYPE_CHECKING:
    import pyarrow as pa

Values = NDArray[Any]
Columns = dict[str, Values]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, its Arrow type, its unit (empty: none) and what it says."""

    name: str
    type: str
    unit: str
    meaning: str


PARTIAL = (
    Column("id", "int64", "", "1 + row * width + column of the object's first pixel in the scene"),
    Column("class_value", "uint8", "", "its class in the class map"),
    Column("num_pixels", "int64", "pixels", ""),
    Column("area_m2", "float64", "m2", "NaN: not known"),
    Column("bbox-0", "int64", "pixels", "first row, in the scene"),
    Column("bbox-1", "int64", "pixels", "first column"),
    Column("bbox-2", "int64", "pixels", "row after the last"),
    Column("bbox-3", "int64", "pixels", "column after the last"),
    Column("row_mean", "float64", "pixels", "mean row, from that of the object's first pixel"),
    Column("column_mean", "float64", "pixels", "mean column, from that of the object's first pixel"),
    Column("rows_m2", "float64", "pixels^4", "sum of squared distances from the mean row"),
    Column("columns_m2", "float64", "pixels^4", "sum of squared distances from the mean column"),
    Column("both_m2", "float64", "pixels^4", "sum of the products of both distances"),
    Column("perimeter_straight", "int64", "pixels", "border pixels of length 1"),
    Column("perimeter_diagonal", "int64", "pixels", "border pixels of length sqrt(2)"),
    Column("perimeter_corner", "int64", "pixels", "border pixels of length (1 + sqrt(2)) / 2"),
    Column("intensity_sum", "float64", "", "of the probability of its class; NaN: not known in every pixel"),
    Column("intensity_max", "float64", "", "as above"),
    Column("depth_sum", "float64", "pixels^3", "of distance to the nearest pixel not of its class, - 1/2; NaN: deep"),
)

COLUMNS = (
    Column("id", "int64", "", "1 + row * width + column of the object's first pixel in the scene"),
    Column("class", "string", "", "name of its class"),
    Column("class_value", "uint8", "", "its class in the class map"),
    Column("area_px", "int64", "pixels", "how many pixels it has"),
    Column("area_m2", "float64", "m2", "area on the ellipsoid; null: the scene has no CRS"),
    Column("perimeter_px", "float64", "pixels", "length of its border, holes too (Benkrid and Crookes)"),
    Column("perimeter_m", "float64", "m", "the same times the mean side of its pixels on the ellipsoid"),
    Column("centroid_x", "float64", "map", "centroid in map coordinates; pixel coordinates where the scene has none"),
    Column("centroid_y", "float64", "map", "as above"),
    Column("centroid_x_px", "float64", "pixels", "mean column of its pixels; whole numbers are centres of pixels"),
    Column("centroid_y_px", "float64", "pixels", "mean row"),
    Column("bbox_minx", "float64", "map", "box around its pixels in map coordinates"),
    Column("bbox_miny", "float64", "map", "as above"),
    Column("bbox_maxx", "float64", "map", "as above"),
    Column("bbox_maxy", "float64", "map", "as above"),
    Column("bbox_minx_px", "int64", "pixels", "first column"),
    Column("bbox_miny_px", "int64", "pixels", "first row"),
    Column("bbox_maxx_px", "int64", "pixels", "column after the last"),
    Column("bbox_maxy_px", "int64", "pixels", "row after the last"),
    Column("axis_major_length_px", "float64", "pixels", "longer axis of the ellipse with the same second moments"),
    Column("axis_major_length_m", "float64", "m", "as perimeter_m"),
    Column("axis_minor_length_px", "float64", "pixels", "its shorter axis"),
    Column("axis_minor_length_m", "float64", "m", "as perimeter_m"),
    Column("eccentricity", "float64", "", "of that ellipse: 0 round, 1 a line"),
    Column("elongation", "float64", "", "longer by shorter axis; null: the object is one straight line of pixels"),
    Column("intensity_mean", "float64", "", "mean probability of its class, 0 to 1; null: not kept"),
    Column("intensity_max", "float64", "", "highest probability of its class; null: not kept"),
    Column(
        "mean_width_px",
        "float64",
        "pixels",
        "mean width as of a ribbon; null: more than 64 pixels deep, or not asked for",
    ),
    Column("mean_width_m", "float64", "m", "as perimeter_m"),
)
RENAMED = {  # columns of tables that were written before, by the names that they had
    "num_pixels": "area_px",
    "perimeter": "perimeter_px",
    "centroid-0": "centroid_y_px",
    "centroid-1": "centroid_x_px",
    "bbox-0": "bbox_miny_px",
    "bbox-1": "bbox_minx_px",
    "bbox-2": "bbox_maxy_px",
    "bbox-3": "bbox_maxx_px",
    "axis_major_length": "axis_major_length_px",
    "axis_minor_length": "axis_minor_length_px",
    "mean_width": "mean_width_px",
    "x": "centroid_x",
    "y": "centroid_y",
}
LENGTHS_M = ("perimeter", "axis_major_length", "axis_minor_length", "mean_width")  # in pixels, and in m too

# of border pixels
LENGTHS = {"perimeter_straight": 1.0, "perimeter_diagonal": np.sqrt(2), "perimeter_corner": (1 + np.sqrt(2)) / 2}
MOMENTS = ("row_mean", "column_mean", "rows_m2", "columns_m2", "both_m2")
JOINED: Mapping[str, np.ufunc] = {  # all else, but for the moments, adds up
    **dict.fromkeys(("class_value", "bbox-0", "bbox-1"), np.minimum),
    **dict.fromkeys(("bbox-2", "bbox-3", "intensity_max"), np.maximum),
}


def schema_of(columns: Sequence[Column]) -> "pa.Schema":
    """Return the schema of rows: of `PARTIAL` ones, which have no nulls, or of finished ones, `COLUMNS`."""
    import pyarrow as pa

    return pa.schema([(column.name, pa.type_for_alias(column.type)) for column in columns])


def table_of(columns: Mapping[str, Values]) -> "pa.Table":
    """Make partial rows of columns by name; of none: an empty table."""
    import pyarrow as pa

    schema = schema_of(PARTIAL)
    if not columns:
        return schema.empty_table()
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def merge(rows: "pa.Table") -> "pa.Table":
    """Join the rows of each object.

    Parameters
    ----------
    rows
        Partial rows, in any order; those of one id are of different pixels of one object.

    Returns
    -------
    pyarrow.Table
        Partial rows, one per id, sorted by id. Joining in other groups gives the same, floats up to rounding.
    """
    ids = rows["id"].to_numpy()
    if np.all(np.diff(ids) > 0):
        return rows
    order = np.argsort(ids, kind="stable")
    columns = {name: rows[name].to_numpy()[order] for name in rows.column_names}
    first = np.flatnonzero(np.diff(columns["id"], prepend=0))  # ids begin at 1
    joined = {
        name: JOINED.get(name, np.add).reduceat(values, first)
        for name, values in columns.items()
        if name not in ("id", *MOMENTS)
    }
    return table_of({"id": columns["id"][first], **joined, **_joined_moments(columns, first)})


def _joined_moments(columns: Columns, first: NDArray[np.intp]) -> Columns:
    """Return the moments of wholes from those of their parts, about the mean of the whole."""
    count = columns["num_pixels"]
    lengths = np.diff(first, append=len(count))
    total = np.add.reduceat(count, first)

    def mean(name: str) -> tuple[Values, Values]:
        near = columns[name] - np.repeat(columns[name][first], lengths)  # so that equal means stay what they are
        shift = np.add.reduceat(count * near, first) / total
        return columns[name][first] + shift, near - np.repeat(shift, lengths)

    def spread(name: str, one: Values, other: Values) -> Values:
        return np.asarray(np.add.reduceat(columns[name] + count * one * other, first))

    row_mean, row = mean("row_mean")
    column_mean, column = mean("column_mean")
    return {
        "row_mean": row_mean,
        "column_mean": column_mean,
        "rows_m2": spread("rows_m2", row, row),
        "columns_m2": spread("columns_m2", column, column),
        "both_m2": spread("both_m2", row, column),
    }


def finish(rows: "pa.Table", geobox: GeoBox, classes: Sequence[str]) -> "pa.Table":
    """Return the finished rows of whole objects.

    Parameters
    ----------
    rows
        Partial rows, one for each object.
    geobox
        Of the scene.
    classes
        The names of the classes, by value.

    Returns
    -------
    pyarrow.Table
        `COLUMNS`, in the order of `rows`. Floats that are not known are null, which pandas reads as NaN and databases
        leave out of means.
    """
    import pyarrow as pa

    given = {name: rows[name].to_numpy() for name in rows.column_names}
    values = {**given, **_shapes(given), **_places(given, geobox), **_means(given)}
    names = pa.array([*classes, *map(str, range(len(classes), 256))])
    return _completed({RENAMED.get(name, name): column for name, column in values.items()}, geobox,
                      names.take(pa.array(given["class_value"])))  # fmt: skip


def with_new_names(rows: "pa.Table", geobox: GeoBox) -> "pa.Table":
    """Return finished rows as `finish` gives them, also those that were written under other names and without metres.

    Parameters
    ----------
    rows
        Of a table of objects; `COLUMNS` are returned as they are.
    geobox
        Of the scene.
    """
    if RENAMED.keys().isdisjoint(rows.column_names):
        return rows
    values = {RENAMED.get(name, name): rows[name].to_numpy() for name in rows.column_names if name != "class"}
    return _completed(values, geobox, rows["class"])


def _completed(values: Columns, geobox: GeoBox, classes: Any) -> "pa.Table":
    """Make the finished table of columns in pixels: with those in metres and on the map, in the order of `COLUMNS`."""
    import pyarrow as pa

    side = np.sqrt(values["area_m2"] / values["area_px"])
    values = values | {f"{name}_m": values[f"{name}_px"] * side for name in LENGTHS_M} | _boxes(values, geobox)
    schema = schema_of(COLUMNS)
    arrays = [
        classes if field.name == "class" else pa.array(values[field.name], field.type, from_pandas=True)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _boxes(values: Columns, geobox: GeoBox) -> Columns:
    """Return the boxes on the map around boxes in pixels."""
    left, top, right, bottom = (values[f"bbox_{side}_px"] for side in ("minx", "miny", "maxx", "maxy"))
    x, y = geobox.to_map(np.stack([left, right, right, left]), np.stack([top, top, bottom, bottom]))
    return {"bbox_minx": x.min(0), "bbox_miny": y.min(0), "bbox_maxx": x.max(0), "bbox_maxy": y.max(0)}


def _places(given: Columns, geobox: GeoBox) -> Columns:
    first_row, first_column = np.divmod(given["id"] - 1, geobox.width)
    row, column = first_row + given["row_mean"], first_column + given["column_mean"]
    x, y = geobox.to_map(column + 0.5, row + 0.5)  # counted from the corner of the first pixel
    return {"centroid-0": row, "centroid-1": column, "x": x, "y": y}


def _shapes(given: Columns) -> Columns:
    """Axes and eccentricity of the ellipse with the same second moments, as skimage has them."""
    count = given["num_pixels"]
    rows, columns, both = (given[name] / count for name in ("rows_m2", "columns_m2", "both_m2"))
    high = (rows + columns) / 2 + np.hypot((rows - columns) / 2, both)
    # the product of both eigenvalues: keeps more digits than a difference
    low = np.maximum(rows * columns - both * both, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        low = np.where((high == 0) | _straight(given), 0, low / high)
        low = np.minimum(low, high)
        return {
            "axis_major_length": 4 * np.sqrt(high),
            "axis_minor_length": 4 * np.sqrt(low),
            "eccentricity": np.where(high == 0, 0, np.sqrt(1 - low / high)),
            "elongation": np.where(low == 0, np.nan, np.sqrt(high / low)),
        }


def _straight(given: Columns) -> NDArray[np.bool_]:
    """Whether an object is one straight line of pixels, whose shorter axis is 0 but for rounding.

    Along an axis it fills a box one pixel wide. Connected, in a square box and with as many pixels as the square has
    rows, it has one pixel in each row and in each column: it is a diagonal.
    """
    height, width = given["bbox-2"] - given["bbox-0"], given["bbox-3"] - given["bbox-1"]
    longest = np.maximum(height, width)
    return np.asarray((given["num_pixels"] == longest) & ((height == width) | (height == 1) | (width == 1)))


def _means(given: Columns) -> Columns:
    count = given["num_pixels"]
    width = 4 * given["depth_sum"] / count  # a ribbon's mean depth less 1/2 is a quarter of its width
    return {
        "perimeter": sum(length * given[name] for name, length in LENGTHS.items()),
        "intensity_mean": given["intensity_sum"] / count,
        "mean_width": width,
    }
