"""Files of polygons and tables: what was put in comes out in every reader, and a failure leaves nothing behind."""

import json
import os
import resource
from pathlib import Path

import duckdb
import fsspec
import geopandas
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from affine import Affine
from helpers import GRID, UTM

from models.errors import SwatheError
from pipeline.grid.geobox import GeoBox
from pipeline.vector.write import check_target, count_features, place_on_map, remove_partial, write_features

LAYERS = ("parquet", "gpkg", "fgb", "geojson")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("class", pa.string()),
        ("class_value", pa.uint8()),
        ("bbox-0", pa.int64()),
        ("centroid-0", pa.float64()),
        ("geometry", pa.binary()),
    ]
)
PLAIN = pa.schema([field for field in SCHEMA if field.name != "geometry"])


def shapes() -> list[shapely.Geometry]:
    """In pixels, as `trace` orders rings: with a hole, of two parts, and plain."""
    return [
        shapely.Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (1, 2), (2, 2), (2, 1)]]),
        shapely.MultiPolygon([shapely.box(5, 5, 6, 6), shapely.box(6, 6, 7, 7)]),
        shapely.box(8, 0, 9, 3),
    ]


def rows(*, place: Affine = GRID) -> pa.Table:
    columns = {
        "id": [2**40 + 1, 2**53 + 1, 3],
        "class": ["house", 'mud, "é"\nhut', None],
        "class_value": [1, 2, 254],
        "bbox-0": [0, 5, -1],
        "centroid-0": [1.5, float("nan"), 0.1],
        "geometry": [shapely.to_wkb(shape) for shape in shapes()],
    }
    return place_on_map(pa.table(columns, SCHEMA), GeoBox(1, 1, place, None))


def read(path: Path) -> geopandas.GeoDataFrame:
    found = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
    return found.sort_values("id", ignore_index=True) if "id" in found else found


def multi(shape: shapely.Geometry) -> shapely.Geometry:
    return shape if shape.geom_type == "MultiPolygon" else shapely.MultiPolygon([shape])


@pytest.mark.parametrize("ending", LAYERS)
def test_every_format_gives_back_what_was_written(tmp_path, ending):
    path = tmp_path / f"o.{ending}"
    table = rows()
    written = write_features([table[:1], table[:0], table[1:]], str(path), schema=SCHEMA, crs=UTM)
    assert written.features == count_features(str(path)) == 3
    assert sorted(os.listdir(tmp_path)) == [path.name, f"{path.name}.sha256"]
    found, wanted = read(path), table.to_pandas().sort_values("id", ignore_index=True)
    assert found["id"].tolist() == wanted["id"].tolist()
    assert found["class_value"].tolist() == wanted["class_value"].tolist()
    assert found["bbox-0"].tolist() == wanted["bbox-0"].tolist()
    np.testing.assert_array_equal(found["centroid-0"], wanted["centroid-0"])
    assert found["class"].where(found["class"].notna(), None).tolist() == wanted["class"].tolist()
    theirs = geopandas.GeoSeries.from_wkb(wanted["geometry"], crs=UTM)
    if ending == "geojson":
        theirs = theirs.to_crs("EPSG:4326")
        assert written.notes == ("GeoJSON is in longitude and latitude (WGS 84), as RFC 7946 has it",)
    assert found.crs == theirs.crs
    limit = 1e-8 if ending == "geojson" else 0
    assert (shapely.hausdorff_distance(found.geometry.to_numpy(), theirs.to_numpy()) <= limit).all()
    np.testing.assert_array_equal(shapely.get_num_coordinates(found.geometry), shapely.get_num_coordinates(theirs))
    kinds = set(found.geometry.geom_type)
    assert kinds == ({"MultiPolygon"} if ending in ("gpkg", "fgb") else {"Polygon", "MultiPolygon"})


@pytest.mark.parametrize("ending", LAYERS)
@pytest.mark.parametrize("crs", [UTM, None])
def test_nothing_gives_a_valid_empty_file(tmp_path, ending, crs):
    path = tmp_path / f"o.{ending}"
    assert write_features([], str(path), schema=SCHEMA, crs=crs).features == 0
    found = read(path)
    assert len(found) == 0
    if ending != "geojson":  # which has no place for columns without rows
        assert {*SCHEMA.names} <= {*found.columns}
        assert found.crs == crs
    if ending in ("gpkg", "fgb"):
        assert pyogrio.read_info(path)["geometry_type"] == "MultiPolygon"


@pytest.mark.parametrize("ending", LAYERS)
def test_the_same_rows_give_the_same_bytes(tmp_path, ending):
    files = [tmp_path / name / f"o.{ending}" for name in "ab"]
    for file in files:
        file.parent.mkdir()
        write_features([rows()], str(file), schema=SCHEMA, crs=UTM)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_geoparquet_says_what_the_specification_asks(tmp_path):
    path = tmp_path / "o.parquet"
    write_features([rows()[:2], rows()[2:]], str(path), schema=SCHEMA, crs=UTM)
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    column = geo["columns"]["geometry"]
    assert (geo["version"], geo["primary_column"], column["encoding"]) == ("1.1.0", "geometry", "WKB")
    assert column["geometry_types"] == ["MultiPolygon", "Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32736}
    assert column["bbox"] == read(path).total_bounds.tolist()
    assert column["covering"]["bbox"]["ymax"] == ["bbox", "ymax"]
    near = geopandas.read_parquet(path, bbox=(500_080, 8_999_900, 500_090, 9_000_000))
    assert near["id"].tolist() == [3]


def test_an_unknown_crs_is_said(tmp_path):
    for ending in LAYERS[1:]:
        written = write_features([rows()], str(tmp_path / f"o.{ending}"), schema=SCHEMA, crs=None)
        assert written.notes[0] == "the scene's CRS is unknown: coordinates are written as they are"
    write_features([rows()], str(tmp_path / "o.parquet"), schema=SCHEMA, crs=None)
    assert read(tmp_path / "o.parquet").crs is None
    assert shapely.get_coordinates(read(tmp_path / "o.geojson").geometry).max() > 1e6


def test_duckdb_reads_both_kinds_of_parquet(tmp_path):
    write_features([rows()], str(tmp_path / "layer.parquet"), schema=SCHEMA, crs=UTM)
    write_features([rows().select(PLAIN.names)], str(tmp_path / "plain.parquet"), schema=PLAIN)
    with duckdb.connect() as database:
        for name in ("layer", "plain"):
            query = f"""select id, class_value, "bbox-0" from read_parquet('{tmp_path}/{name}.parquet') order by id"""
            assert database.execute(query).fetchall() == [(3, 254, -1), (2**40 + 1, 1, 0), (2**53 + 1, 2, 5)]
        boxes = database.execute(f"select bbox.xmin from read_parquet('{tmp_path}/layer.parquet')").fetchall()
        assert boxes[0] == (500_000.0,)
    assert b"geo" not in (pq.read_metadata(tmp_path / "plain.parquet").metadata or {})


def test_csv_holds_tables(tmp_path):
    path = tmp_path / "o.csv"
    assert write_features([rows().select(PLAIN.names)], str(path), schema=PLAIN).features == 3
    found = pandas.read_csv(path)
    assert found["id"].tolist() == rows()["id"].to_pylist()
    assert found["class"][1] == rows()["class"][1].as_py()
    assert np.isnan(found["centroid-0"][1])
    assert "nan" not in path.read_text()


def test_small_batches_share_row_groups(tmp_path):
    path = tmp_path / "o.parquet"
    batch = pa.table({"id": np.arange(100)}, pa.schema([("id", pa.int64())]))
    write_features((batch for _ in range(700)), str(path), schema=batch.schema)
    assert pq.read_metadata(path).num_row_groups == 2
    assert pq.read_metadata(path).num_rows == 70_000


@pytest.mark.parametrize("transform", [GRID, Affine(0.3, 0.4, 5, 0.4, -0.3, 7), Affine(2, 0, 0, 0, 2, 0)])
def test_finish_places_pixels_and_turns_rings(transform):
    found = shapely.from_wkb(rows(place=transform)["geometry"].to_numpy())
    for shape, before in zip(found, shapes(), strict=True):
        for part in multi(shape).geoms:
            assert part.exterior.is_ccw
            assert not any(ring.is_ccw for ring in part.interiors)
        assert np.isclose(shape.area, before.area * abs(transform.determinant))
    assert shapely.Point(transform * (3.5, 3.5)).within(found[0])
    assert not shapely.Point(transform * (1.5, 1.5)).within(found[0])


BAD = [
    ("o.shp", SCHEMA, "polygons are not written as '.shp'; choose one of .parquet, .gpkg, .fgb, .geojson"),
    ("o", SCHEMA, "polygons are not written as ''"),
    ("o.csv", SCHEMA, "polygons are not written as '.csv'"),
    ("o.gpkg", PLAIN, "tables are not written as '.gpkg'; choose one of .parquet, .csv"),
    ("none/o.gpkg", SCHEMA, "there is no folder .*none; make it first"),
    ("folder.gpkg", SCHEMA, "folder.gpkg is a folder"),
    ("there.gpkg", SCHEMA, "exists; choose another output, or pass --overwrite"),
    ("o.gpkg", SCHEMA.append(pa.field("a", pa.list_(pa.int64()))), r"cannot hold the column a \(list"),
    ("o.fgb", SCHEMA.append(pa.field("big", pa.uint64())), "cannot hold the column big"),
    ("o.csv", PLAIN.append(pa.field("s", pa.struct([("x", pa.int8())]))), "cannot hold the column s"),
    ("o.gpkg", SCHEMA.append(pa.field("ID", pa.int64())), "cannot hold the column id: the name is taken"),
    ("o.gpkg", SCHEMA.append(pa.field("fid", pa.int64())), "cannot hold the column fid"),
    ("o.parquet", SCHEMA.append(pa.field("bbox", pa.int64())), "may not be called bbox"),
    ("nosuch://bucket/o.parquet", SCHEMA, "cannot be written: Protocol not known"),
]


@pytest.mark.parametrize(("name", "schema", "message"), BAD)
def test_what_cannot_be_written_is_refused_first(tmp_path, name, schema, message):
    (tmp_path / "folder.gpkg").mkdir()
    (tmp_path / "there.gpkg").write_text("old")
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(SwatheError, match=message):
        check_target(path, schema)
    with pytest.raises(SwatheError, match=message):
        write_features([], path, schema=schema)
    assert sorted(os.listdir(tmp_path)) == ["folder.gpkg", "there.gpkg"]


def test_overwriting_replaces_at_the_end_only(tmp_path):
    path = tmp_path / "o.gpkg"
    path.write_text("old")

    def source():
        yield rows()
        assert path.read_text() == "old"

    write_features(source(), str(path), schema=SCHEMA, crs=UTM, overwrite=True)
    assert len(read(path)) == 3


@pytest.mark.parametrize("name", [*(f"o.{ending}" for ending in LAYERS), "o.csv"])
@pytest.mark.parametrize("error", [SwatheError("a block is lost"), KeyboardInterrupt(), ZeroDivisionError("x")])
def test_a_source_that_fails_leaves_the_old_file(tmp_path, name, error):
    schema = PLAIN if name.endswith("csv") else SCHEMA
    (tmp_path / name).write_text("old")

    def source():
        yield rows().select(schema.names)
        raise error

    with pytest.raises(type(error)) as caught:
        write_features(source(), str(tmp_path / name), schema=schema, crs=UTM, overwrite=True)
    assert caught.value is error
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "old"


def test_a_crs_that_nobody_knows_is_refused(tmp_path):
    for ending in LAYERS:
        with pytest.raises(SwatheError, match="cannot be written: Invalid projection"):
            write_features([rows()], str(tmp_path / f"o.{ending}"), schema=SCHEMA, crs="EPSG:1")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", [*(f"o.{ending}" for ending in LAYERS), "o.csv"])
def test_a_disk_that_fills_leaves_nothing(tmp_path, name):
    """A limit on the size of files acts as a full disk does: writes are cut short, then fail."""
    schema, rng = PLAIN if name.endswith("csv") else SCHEMA, np.random.default_rng(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def source():
        for _ in range(10):
            table = pa.concat_tables([rows()] * 700)
            yield table.set_column(0, SCHEMA.field(0), pa.array(rng.integers(0, 2**62, len(table)))).select(
                schema.names
            )
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    try:
        with pytest.raises(SwatheError, match=f"{name} cannot be written: "):
            write_features(source(), str(tmp_path / name), schema=schema, crs=UTM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not os.listdir(tmp_path)


def test_urls_get_whole_files():
    files = fsspec.filesystem("memory")
    for ending in ("parquet", "gpkg"):
        write_features([rows()], f"memory://tables/o.{ending}", schema=SCHEMA, crs=UTM)
        with pytest.raises(SwatheError, match="exists"):
            write_features([rows()], f"memory://tables/o.{ending}", schema=SCHEMA, crs=UTM)
        assert count_features(f"memory://tables/o.{ending}") == 3
    with files.open("/tables/o.parquet") as file:
        assert len(geopandas.read_parquet(file)) == 3
    files.rm("/tables", recursive=True)


@pytest.mark.parametrize("ending", [*LAYERS, "csv"])
def test_counting_what_is_damaged_or_lost_says_so(tmp_path, ending):
    path = tmp_path / f"o.{ending}"
    for content in (None, b"", b"\x00 nothing"):
        if content is not None:
            path.write_bytes(content)
        if ending != "csv" or not content:
            with pytest.raises(SwatheError, match=f"o.{ending} cannot be read: "):
                count_features(str(path))


def test_what_killed_writers_left_is_removed(tmp_path):
    (tmp_path / ".o.gpkg.0123.partial.gpkg-journal").touch()
    (tmp_path / ".other.gpkg.0123.partial.gpkg").touch()
    remove_partial(str(tmp_path / "o.gpkg"))
    assert os.listdir(tmp_path) == [".other.gpkg.0123.partial.gpkg"]
