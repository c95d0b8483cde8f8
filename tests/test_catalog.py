"""The index of scenes: what is found, what is kept of it, and what is refused."""

import json
import os
import pickle

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS
from shapely.geometry import Point, box

from models.errors import SceneError
from pipeline.catalog.footprint import bbox_of, footprint_of
from pipeline.catalog.index import IndexedScene, read_index, write_index
from pipeline.catalog.stamps import content_digest, stamps_of
from pipeline.grid.geobox import GeoBox
from pipeline.io.raster_files import open_rasters

UTM = "EPSG:32633"


def write_raster(path, *, left=0, top=0, bands=2, size=(40, 60), crs=UTM, resolution=10.0, dtype="uint16", seed=1):
    """Write a raster of random values, `left` and `top` pixels from (500 km, 5000 km)."""
    values = np.random.default_rng(seed).integers(1, 200, (bands, *size)).astype(dtype)
    transform = Affine(resolution, 0, 5e5 + resolution * left, 0, -resolution, 5e6 - resolution * top)
    profile = {"driver": "GTiff", "count": bands, "height": size[0], "width": size[1], "dtype": dtype, "nodata": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(values)
    return path


def scene_of(path, **more):
    source = open_rasters([str(path)])
    return IndexedScene(
        path.stem, source, footprint_of(source.geobox), digest=content_digest(source),
        stamps=json.dumps(stamps_of(source.paths)), **more,
    )  # fmt: skip


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path):
    """Three scenes, of which the last is in another zone."""
    scenes = [
        scene_of(write_raster(tmp_path / "a.tif"), datetime="2024-05-01T10:00:00Z", cloud_cover=12.5),
        scene_of(write_raster(tmp_path / "b.tif", left=50), priority=2),
        scene_of(write_raster(tmp_path / "c.tif", crs="EPSG:32634", resolution=20)),
    ]
    return write_index(scenes, tmp_path / "scenes.parquet")


def test_columns_say_what_planning_takes_without_a_source_being_decoded(index, monkeypatch):
    monkeypatch.setattr("pipeline.catalog.index.decode_source", None)
    assert [*index.ids] == ["a", "b", "c"]
    assert index.datetimes[0] == np.datetime64("2024-05-01T10:00:00")
    assert np.isnat(index.datetimes[1:]).all()
    assert index.cloud_covers[0] == 12.5
    assert np.isnan(index.cloud_covers[1:]).all()
    assert [*index.priorities] == [0, 2, 0]
    assert [*index.epsgs] == [32633, 32633, 32634]
    assert CRS.from_wkt(index.crs_of(2)) == CRS.from_epsg(32634)
    np.testing.assert_array_equal(index.resolutions, [[10, 10], [10, 10], [20, 20]])
    assert all(shapely.is_valid(index.footprints))


def test_rows_give_back_the_scenes(index, tmp_path):
    for number, name in enumerate("abc"):
        scene = index.scene(number)
        assert scene.source == open_rasters([str(tmp_path / f"{name}.tif")])
        assert scene.digest == content_digest(scene.source)
    assert index.scene(0).datetime.startswith("2024-05-01T10:00:00")


def test_an_index_travels_as_path_and_digest(index):
    assert len(pickle.dumps(index)) < 500
    assert pickle.loads(pickle.dumps(index)).scene(1) == index.scene(1)


def test_files_that_are_gone_or_changed_since_are_named(index, tmp_path):
    index.check_unchanged()
    os.utime(tmp_path / "a.tif", (1, 1))  # touched: the content is the same
    index.check_unchanged()
    write_raster(tmp_path / "b.tif", left=50, seed=9)
    with pytest.raises(SceneError, match=r"changed since indexed in .*b\.tif;\nindex them again"):
        index.check_unchanged()
    index.check_unchanged([0, 2])
    (tmp_path / "c.tif").unlink()
    with pytest.raises(SceneError, match=r"missing since indexed in .*c\.tif;"):
        index.check_unchanged(np.array([2]))


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" * 9, b"SQLite format 3\0"])
def test_what_is_no_index_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "scenes.parquet"
    path.write_bytes(content)
    with pytest.raises(SceneError, match="is not an index of scenes") as caught:
        read_index(path)
    assert "\n" not in str(caught.value)


def test_other_vector_files_and_absent_ones_are_no_index(tmp_path, index):
    frame = gpd.GeoDataFrame({"a": [1]}, geometry=[box(0, 0, 1, 1)], crs=4326)
    frame.to_parquet(tmp_path / "other.parquet")
    frame.to_file(tmp_path / "other.gpkg")
    for name in ("other.parquet", "other.gpkg"):
        with pytest.raises(SceneError, match="is not an index of scenes"):
            read_index(tmp_path / name)
    with pytest.raises(SceneError, match="No such file"):
        read_index(tmp_path / "absent.parquet")


def test_an_index_of_no_scenes_is_refused(tmp_path):
    with pytest.raises(SceneError, match="an index of no scenes"):
        write_index([], tmp_path / "scenes.parquet")
    assert not [*tmp_path.iterdir()]


# --- stac-geoparquet --------------------------------------------------------------------------------------------------


def test_stac_geoparquet_reads_rows_as_items(index):
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    items = [pystac.Item.from_dict(item) for item in stac_table_to_items(pq.read_table(index.path))]
    assert [item.id for item in items] == ["a", "b", "c"]
    assert items[0].datetime.year == 2024
    assert items[0].properties["eo:cloud_cover"] == 12.5
    assert items[0].properties["proj:code"] == "EPSG:32633"
    assert items[1].datetime is None
    assert items[1].common_metadata.end_datetime is not None
    asset = items[0].assets["data"]
    assert asset.href == str(index.scene(0).source.paths[0])
    assert [band["name"] for band in asset.extra_fields["bands"]] == ["band_1", "band_2"]
    assert asset.extra_fields["bands"][0]["data_type"] == "uint16"
    assert np.allclose(items[0].bbox, bbox_of(index.footprints[0]))


def test_geopandas_and_duckdb_read_the_file(index):
    import duckdb

    frame = gpd.read_parquet(index.path)
    assert frame.crs.equals("OGC:CRS84") or frame.crs.to_epsg() == 4326
    assert [*frame["id"]] == ["a", "b", "c"]
    query = f"select id, \"eo:cloud_cover\", assets.data.href from '{index.path}' where \"proj:code\" = 'EPSG:32634'"
    assert duckdb.sql(query).fetchall() == [("c", None, index.scene(2).source.paths[0])]


# --- footprints -------------------------------------------------------------------------------------------------------


def grid_around(crs, x, y, side, pixels=100):
    step = side / pixels
    return GeoBox(
        pixels, pixels, Affine(step, 0, x - side / 2, 0, -step, y + side / 2), CRS.from_user_input(crs).to_wkt()
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([("EPSG:32601", 166_000, 833_000), ("EPSG:32660", 166_000, 833_000), ("EPSG:3031", -3e6, 3e6),
                     ("EPSG:3413", -3e6, 3e6), ("EPSG:3832", -5e6, 5e6), ("EPSG:4326", -180, 180)]),
    st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.3), st.integers(0, 2**32),
)  # fmt: skip
def test_a_footprint_holds_the_points_of_its_grid_and_no_others(projection, across, down, size, seed):
    name, low, high = projection
    side = size * (high - low)
    if name == "EPSG:4326":
        x, y, side = -180 + 360 * across, -85 + 170 * down, min(side, 9.0)
    else:
        x, y = low + across * (high - low), (low + down * (high - low)) if low < 0 else 1e5 + down * 8e6
    geobox = grid_around(name, x, y, side)
    footprint = footprint_of(geobox)
    assert footprint.is_valid
    west, south, east, north = footprint.bounds
    assert west >= -180
    assert east <= 180
    assert south >= -90
    assert north <= 90
    from pipeline.catalog.projections import to_degrees

    random = np.random.default_rng(seed)
    inside = random.uniform(2, 98, (2, 20))
    beside = np.array([[-3, 50], [103, 50], [50, -3], [50, 103]]).T
    for places, expected in ((inside, True), (beside, False)):
        longitudes, latitudes = to_degrees(geobox.crs, *geobox.to_map(*places))
        for longitude, latitude in zip((longitudes + 180) % 360 - 180, latitudes, strict=True):
            if abs(latitude) < 90:
                assert footprint.covers(Point(longitude, latitude)) == expected


@pytest.mark.parametrize(("crs", "latitude"), [("EPSG:3031", -90), ("EPSG:3413", 90)])
def test_a_scene_around_a_pole_is_a_cap(crs, latitude):
    footprint = footprint_of(grid_around(crs, 1000, 2000, 4e5))
    assert footprint.covers(Point(12, latitude * 0.999))
    assert footprint.bounds[0] == -180
    assert footprint.bounds[2] == 180
    assert not footprint.covers(Point(12, latitude * 0.96))


def test_across_the_antimeridian_are_two_polygons_and_west_is_greater_than_east():
    footprint = footprint_of(grid_around("EPSG:4326", 180, -17, 2))
    assert footprint.geom_type == "MultiPolygon"
    np.testing.assert_allclose(bbox_of(footprint), (179, -18, -179, -16))
    assert shapely.area(footprint) == pytest.approx(4)
