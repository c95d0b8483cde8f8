"""The index of scenes: what is found, what is kept of it, and what is refused."""

import json
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing import UTM, collection_of, item_of, write_json, write_raster
from products import write_landsat, write_safe
from pyproj import CRS
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from shapely.geometry import Point, box

from models.errors import SceneError
from pipeline.catalog import facts
from pipeline.catalog.build import build_index
from pipeline.catalog.footprint import bbox_of, footprint_of
from pipeline.catalog.index import IndexedScene, read_index, write_index
from pipeline.catalog.stamps import Stamps, content_digest, stamps_of
from pipeline.cli.app import cli
from pipeline.grid.geobox import GeoBox
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.open import open_mosaic


def scene_of(path, **more):
    source = open_rasters([str(path)])
    return IndexedScene(
        path.stem, source, footprint_of(source.geobox), digest=content_digest(source),
        stamps=Stamps(stamps_of(source.paths)).text(), **more,
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
    assert [CRS.from_wkt(index.columns.crs[one]).to_epsg() for one in index.columns.crs_numbers] == [
        32633,
        32633,
        32634,
    ]
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
    with pytest.raises(SceneError, match=r"changed since indexed in .*b\.tif;\nindex them again") as caught:
        index.check_unchanged()
    assert_advice_exists(caught.value)
    index.check_unchanged([0, 2])
    (tmp_path / "c.tif").unlink()
    with pytest.raises(SceneError, match=r"missing since indexed in .*c\.tif;") as caught:
        index.check_unchanged(np.array([2]))
    assert_advice_exists(caught.value)


def assert_advice_exists(error):
    """The command that an error advises has the options that it names."""
    command = shlex.split(re.search("`swathe (.*)`", str(error))[1])
    assert CliRunner().invoke(cli, [*command, "--help"]).exit_code == 0
    known = CliRunner().invoke(cli, ["index", "--help"]).stdout
    assert all(word in known for word in command if word.startswith("-"))


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


def without_nulls(content):
    """Leave out what is null, which in a table is what a row does not have; but for the date, which STAC wants."""
    if isinstance(content, list):
        return [without_nulls(one) for one in content]
    if not isinstance(content, dict):
        return content
    return {key: without_nulls(one) for key, one in content.items() if one is not None or key == "datetime"}


def test_items_are_valid_stac(index, tmp_path):
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    validator = JsonSchemaSTACValidator()
    for kind, number in (("projection", "2.0.0"), ("raster", "2.0.0")):
        address = f"https://stac-extensions.github.io/{kind}/v{number}/schema.json"
        content = (Path(__file__).parent / "mlm_schema" / f"{kind}-{number}.json").read_text()
        validator.schema_cache[address] = {**json.loads(content), "$id": address}
    unknown = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"  # not at hand
    validator.schema_cache[unknown] = {"$schema": "http://json-schema.org/draft-07/schema#", "$id": unknown}
    source = index.scene(1).source
    scaled = tuple(replace(band, scale=1e-4, unit="reflectance") for band in source.raster_bands)
    scenes = [index.scene(0), replace(index.scene(1), source=replace(source, raster_bands=scaled)), index.scene(2)]
    for content in stac_table_to_items(pq.read_table(write_index(scenes, tmp_path / "valid.parquet").path)):
        content = without_nulls(json.loads(json.dumps(content, allow_nan=False)))
        used = pystac.Item.from_dict(content).validate(validator=validator)
        assert any("projection" in name for name in used)
        assert any("raster" in name for name in used) == (content["id"] == "b")


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
    from pipeline.grid.projections import to_degrees

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


# --- what is found ----------------------------------------------------------------------------------------------------


def indexed(scenes, output, **more):
    return build_index(scenes, output, show=False, **more)


def ids_of(result):
    return sorted(result.index.ids)


def test_files_patterns_folders_and_lists_are_the_same_scenes(tmp_path):
    folder = tmp_path / "scenes"
    paths = [write_raster(folder / "deep" / f"{name}.tif", left=70 * n) for n, name in enumerate("abc")]
    vrt, gti = tmp_path / "all.vrt", tmp_path / "all.gti.gpkg"
    write_vrt(vrt, paths)
    frame = gpd.GeoDataFrame({"location": ["scenes/deep/a.tif", *map(str, paths[1:])]}, geometry=[box(0, 0, 1, 1)] * 3)
    frame.set_crs(UTM).to_file(gti)
    frame.to_parquet(tmp_path / "tiles.parquet")
    ways = [list(map(str, paths)), [*paths], str(folder), f"{folder}/*/*.tif", f"{folder}/**/*.tif", vrt, gti,
            [f"GTI:{gti}"], tmp_path / "tiles.parquet", [vrt, folder, *paths]]  # fmt: skip
    expected = None
    for number, way in enumerate(ways):
        result = indexed(way, tmp_path / f"{number}.parquet")
        assert ids_of(result) == ["a", "b", "c"]
        found = {scene.id: (scene.source, scene.digest) for scene in map(result.index.scene, range(3))}
        expected = expected or found
        assert found == expected


def write_vrt(path, paths, *, separate=False):
    """Write the virtual raster that gdalbuildvrt makes of rasters of 40 x 60 pixels beside each other, or as bands."""

    def source(number, band):
        name, left = os.path.relpath(paths[number], path.parent), 0 if separate else 70 * number
        return (
            f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
            f'<SrcRect xOff="0" yOff="0" xSize="60" ySize="40"/><DstRect xOff="{left}" yOff="0" xSize="60" ySize="40"/>'
            "</SimpleSource>"
        )

    places = range(len(paths))
    if separate:
        bands = [source(number, 1) for number in places]
    else:
        bands = ["".join(source(number, band) for number in places) for band in (1, 2)]
    written = (
        f'<VRTRasterBand dataType="UInt16" band="{n + 1}">{text}</VRTRasterBand>' for n, text in enumerate(bands)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{60 if separate else 70 * len(paths)}" rasterYSize="40"><SRS>{UTM}</SRS>'
        f"<GeoTransform>500000,10,0,5000000,0,-10</GeoTransform>{''.join(written)}</VRTDataset>"
    )


def test_a_virtual_raster_of_bands_is_one_scene_and_its_files_none(tmp_path):
    paths = [write_raster(tmp_path / "in" / f"{name}.tif", bands=1) for name in "abc"]
    write_vrt(tmp_path / "in" / "stack.vrt", paths, separate=True)
    result = indexed(tmp_path / "in", tmp_path / "scenes.parquet")
    assert ids_of(result) == ["stack"]
    assert len(result.index.scene(0).source.bands) == 3
    result.index.check_unchanged()
    write_raster(paths[1], bands=1, seed=5)
    with pytest.raises(SceneError, match="changed since indexed"):
        result.index.check_unchanged()


def test_a_file_that_a_list_names_and_is_not_there_is_named(tmp_path):
    paths = [write_raster(tmp_path / f"{name}.tif", left=70 * n) for n, name in enumerate("ab")]
    write_vrt(tmp_path / "all.vrt", paths)
    paths[1].unlink()
    with pytest.raises(SceneError, match=r"b\.tif.*\nNothing was written"):
        indexed(tmp_path / "all.vrt", tmp_path / "scenes.parquet")
    assert not (tmp_path / "scenes.parquet").exists()


def test_files_of_one_band_each_are_one_scene_and_others_a_scene_each(tmp_path):
    for scene in ("S1", "S2"):
        for band, resolution in (("B02", 10), ("B03", 10), ("B11", 20)):
            size = (40, 60) if resolution == 10 else (20, 30)
            write_raster(tmp_path / "bands" / f"{scene}_{band}.tif", bands=1, size=size, resolution=resolution)
    for name in ("vh", "vv"):
        write_raster(tmp_path / "radar" / f"{name}.tif", bands=1)
    for name in ("first", "second"):
        write_raster(tmp_path / "odd" / f"{name}.tif", bands=1)
        write_raster(tmp_path / "each" / f"{name}.tif", bands=3)
    for day in ("20240501", "20240601"):
        write_raster(tmp_path / "days" / f"ndvi_{day}.tif", bands=1)
    result = indexed(tmp_path, tmp_path / "scenes.parquet")
    assert ids_of(result) == ["S1", "S2", "first", "ndvi_20240501", "ndvi_20240601", "odd", "radar", "second"]
    scenes = {scene.id: scene for scene in map(result.index.scene, range(len(result.index)))}
    assert scenes["S1"].source.bands == ("B02", "B03", "B11")
    assert scenes["S1"].source.geobox.shape == (40, 60)
    assert scenes["radar"].source.bands == ("vh", "vv")
    assert scenes["odd"].source.bands == ("first", "second")
    assert scenes["ndvi_20240601"].datetime.startswith("2024-06-01T00:00:00")
    told = "\n".join(result.notes)
    assert "3 files of one band each are the scene S1: B02, B03, B11" in told
    assert f"the 2 files of {tmp_path / 'each'} are a scene each" in told
    assert "scenes differ: " in told


def test_explicit_files_of_one_band_are_a_scene_each_unless_their_names_say_bands(tmp_path):
    paths = [write_raster(tmp_path / f"{name}.tif", bands=1) for name in ("height_2020", "height_2021")]
    assert ids_of(indexed(paths, tmp_path / "scenes.parquet")) == ["height_2020", "height_2021"]


def test_classes_of_pixels_that_an_item_has_are_the_last_band(tmp_path):
    red, scl = (write_raster(tmp_path / f"{name}.tif", bands=1) for name in ("red", "scl"))
    content = item_of("one", {"red": red, "scl": scl})
    content["assets"]["scl"]["roles"] = ["cloud"]
    index = indexed(write_json(tmp_path / "item.json", content), tmp_path / "scenes.parquet").index
    assert [name.lower() for name in index.scene(0).source.bands] == ["red", "scl"]


def test_scenes_of_other_types_are_told(tmp_path):
    write_raster(tmp_path / "a.tif")
    write_raster(tmp_path / "b.tif", left=9, dtype="uint8")
    (said,) = indexed(sorted(tmp_path.glob("*.tif")), tmp_path / "scenes.parquet").notes
    assert "1 of band_1,band_2 as uint16, scale 1.0, offset 0.0 (as a); 1 of band_1,band_2 as uint8" in said


@pytest.mark.parametrize("way", ["item", "collection", "geojson", "pystac", "items", "dict", "search"])
def test_items_are_scenes_with_bands_at_mixed_resolutions(tmp_path, monkeypatch, way):
    fine = write_raster(tmp_path / "red.tif", bands=1)
    coarse = write_raster(tmp_path / "swir.tif", bands=1, size=(20, 30), resolution=20)
    said = {"eo:cloud_cover": 7, "platform": "sentinel-2a"}
    content = item_of("one", {"red": "./red.tif", "swir16": coarse.name}, **said)
    both = collection_of(content)
    item = pystac.Item.from_dict(json.loads(json.dumps(content)))
    item.set_self_href(str(tmp_path / "item.json"))
    given = {
        "item": lambda: write_json(tmp_path / "item.json", content),
        "collection": lambda: write_json(tmp_path / "found.json", both),
        "geojson": lambda: write_json(tmp_path / "found.geojson", both),
        "pystac": lambda: item,
        "items": lambda: [item],
        "dict": lambda: collection_of(item_of("one", {"red": fine, "swir16": coarse}, **said)),
        "search": lambda: pystac.ItemCollection([item], clone_items=False),
    }[way]()
    monkeypatch.chdir(tmp_path)  # of what lies nowhere, names lead to this folder
    result = indexed(given, tmp_path / "scenes.parquet")
    scene = result.index.scene(0)
    assert (scene.id, result.index.table["swathe:key"][0], scene.cloud_cover) == ("one", "s2/one", 7)
    assert scene.datetime.startswith("2024-05-01T10:00:00")
    assert scene.source.bands == ("red", "swir16")
    assert scene.source.geobox.shape == (40, 60)
    assert indexed(given, tmp_path / "scenes.parquet").unchanged == 1


def test_stac_geoparquet_of_others_and_indexes_are_taken(tmp_path):
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    items = [item_of(name, {"data": write_raster(tmp_path / f"{name}.tif", left=n)}) for n, name in enumerate("ab")]
    to_parquet(parse_stac_items_to_arrow(items), tmp_path / "theirs.parquet")
    first = indexed(tmp_path / "theirs.parquet", tmp_path / "one.parquet")
    assert ids_of(first) == ["a", "b"]
    write_raster(tmp_path / "c.tif", left=9)
    indexed(tmp_path / "c.tif", tmp_path / "two.parquet", priority=4)
    both = indexed([tmp_path / "one.parquet", tmp_path / "two.parquet"], tmp_path / "both.parquet")
    assert ids_of(both) == ["a", "b", "c"]
    assert sorted(both.index.priorities) == [0, 0, 4]
    assert set(both.index.digests) >= set(first.index.digests)


def test_tags_and_names_say_when(tmp_path):
    write_raster(tmp_path / "a.tif", TIFFTAG_DATETIME="2024:01:02 03:04:05", ACQUISITION_DATE="2023-05-06T07:08:09Z")
    write_raster(tmp_path / "S2A_T33UUP_20240501T101021_20240503_mosaic.tif", CLOUD_COVER="12.5")
    write_raster(tmp_path / "20240501_20240601.tif")
    write_raster(tmp_path / "m_20240231.tif")
    index = indexed(tmp_path, tmp_path / "scenes.parquet").index
    told = {
        name: (str(moment), cover)
        for name, moment, cover in zip(index.ids, index.datetimes, index.cloud_covers, strict=True)
    }
    assert told["a"][0].startswith("2023-05-06T07:08:09")
    assert told["S2A_T33UUP_20240501T101021_20240503_mosaic"] == ("2024-05-01T10:10:21.000000", 12.5)
    assert told["20240501_20240601"][0] == told["m_20240231"][0] == "NaT"


def test_products_are_a_scene_each_with_what_their_metadata_say(tmp_path):
    write_safe(tmp_path / "in" / "S2A_MSIL2A_20240501T101021_N0510_R022_T33UUP_20240501T162033.SAFE")
    write_landsat(tmp_path / "in" / "landsat")
    write_landsat(tmp_path / "in" / "landsat", "LC09_L2SP_190025_20240704_20240705_02_T1")
    result = indexed(tmp_path / "in", tmp_path / "scenes.parquet")
    scenes = {scene.id: scene for scene in map(result.index.scene, range(len(result.index)))}
    assert len(scenes) == 3
    (safe,) = [scene for name, scene in scenes.items() if name.startswith("S2A")]
    assert safe.datetime.startswith("2024-05-01")
    assert {"B02", "B11", "SCL"} <= set(safe.source.bands)
    assert safe.source.radiometry[0].unit == "reflectance"
    nine = scenes["LC09_L2SP_190025_20240704_20240705_02_T1"]
    assert nine.datetime.startswith("2024-07-04")
    assert "SR_B4" in nine.source.bands
    assert nine.source.bands[-1] == "QA_PIXEL"
    assert indexed(tmp_path / "in", tmp_path / "scenes.parquet").unchanged == 3


# --- added to, and looked at again ------------------------------------------------------------------------------------


def test_scenes_are_added_and_what_is_unchanged_is_not_opened_again(tmp_path, monkeypatch):
    output = tmp_path / "scenes.parquet"
    paths = [write_raster(tmp_path / f"{name}.tif", left=n) for n, name in enumerate("abcd")]
    assert indexed(paths[:2], output).added == 2
    opened = []
    real = facts.open_rasters
    monkeypatch.setattr(facts, "open_rasters", lambda paths, **more: opened.extend(paths) or real(paths, **more))
    result = indexed(paths[1:3], output, priority=3)
    assert (result.added, result.changed, result.unchanged) == (1, 0, 2)
    assert opened == [str(paths[2])]
    assert ids_of(result) == ["a", "b", "c"]
    assert dict(zip(result.index.ids, result.index.priorities, strict=True)) == {"a": 0, "b": 0, "c": 3}
    old = result.index.digests[0]
    write_raster(paths[0], left=0, seed=77)
    result = indexed(paths[3], output)  # the others are looked at too
    assert (result.added, result.changed, result.unchanged) == (1, 1, 2)
    assert old not in result.index.digests
    before = output.read_bytes()
    assert indexed([], output).unchanged == 4
    assert output.read_bytes() == before


def test_what_is_gone_is_named_and_dropped_only_when_asked(tmp_path):
    output = tmp_path / "scenes.parquet"
    paths = [write_raster(tmp_path / f"{name}.tif", left=n) for n, name in enumerate("abc")]
    indexed(paths, output)
    paths[1].unlink()
    before = output.read_bytes()
    with pytest.raises(SceneError, match=r"b\.tif in the index, but gone; .*--drop-missing"):
        indexed([], output)
    assert output.read_bytes() == before
    result = indexed([], output, drop_missing=True)
    assert (result.dropped, ids_of(result)) == (1, ["a", "c"])


def test_a_band_that_is_added_to_a_scene_replaces_it(tmp_path):
    output = tmp_path / "scenes.parquet"
    for band in ("red", "green"):
        write_raster(tmp_path / "in" / f"s_{band}.tif", bands=1)
    indexed(tmp_path / "in", output)
    write_raster(tmp_path / "in" / "s_nir.tif", bands=1)
    result = indexed(tmp_path / "in", output)
    assert (result.added, result.changed, len(result.index)) == (0, 1, 1)
    assert set(result.index.scene(0).source.bands) == {"red", "green", "nir"}


def test_a_change_of_any_file_of_a_folder_is_seen(tmp_path):
    output = tmp_path / "scenes.parquet"
    paths = [write_raster(tmp_path / "in" / f"{name}.tif", left=n) for n, name in enumerate("abc")]
    before = indexed(tmp_path / "in", output).index.digests
    write_raster(paths[2], left=2, seed=9)
    result = indexed(tmp_path / "in", output)
    assert result.changed == 3
    assert [old == new for old, new in zip(before, result.index.digests, strict=True)] == [True, True, False]


def test_two_scenes_of_one_name_have_an_id_each_that_stays(tmp_path):
    output = tmp_path / "scenes.parquet"
    for n, folder in enumerate("xy"):
        write_raster(tmp_path / folder / "scene.tif", left=n)
    first = ids_of(indexed(tmp_path, output))
    assert first[0] == "scene"
    assert first[1].startswith("scene-")
    write_raster(tmp_path / "y" / "scene.tif", left=1, seed=9)
    assert ids_of(indexed(tmp_path, output)) == first


def test_items_of_one_id_that_contradict_each_other_are_refused(tmp_path):
    one, two = (write_raster(tmp_path / f"{name}.tif", left=n) for n, name in enumerate("ab"))
    path = write_json(tmp_path / "found.json", collection_of(item_of("x", {"data": one}), item_of("x", {"data": two})))
    with pytest.raises(SceneError, match="two Items are s2/x, and differ"):
        indexed(path, tmp_path / "scenes.parquet")
    other = collection_of(item_of("x", {"data": one}), item_of("x", {"data": two}, collection="other"))
    assert len(set(ids_of(indexed(write_json(tmp_path / "found.json", other), tmp_path / "scenes.parquet")))) == 2


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_broken_file_among_many_is_named_before_anything_is_written(tmp_path):
    for n in range(20):
        write_raster(tmp_path / "in" / f"{n}.tif", left=n)
    (tmp_path / "in" / "7.tif").write_bytes(b"II*\0no tiff")
    output = tmp_path / "scenes.parquet"
    with pytest.raises(SceneError, match=r"7\.tif cannot be read.*\nNothing was written.*--skip-broken") as caught:
        indexed(tmp_path / "in", output)
    assert str(caught.value).count("\n") == 1
    assert not output.exists()
    result = indexed(tmp_path / "in", output, skip_broken=True)
    assert len(result.index) == 19
    assert len(result.skipped) == 1


def test_scenes_without_a_place_are_refused_and_rotated_ones_taken(tmp_path):
    write_raster(tmp_path / "none.tif", crs=None)
    with pytest.raises(SceneError, match=r"none\.tif has no CRS"):
        indexed(tmp_path / "none.tif", tmp_path / "scenes.parquet")
    path = write_raster(tmp_path / "rotated.tif")
    with rasterio.open(path, "r+") as file:
        file.transform = file.transform * Affine.rotation(30)
    index = indexed(path, tmp_path / "scenes.parquet").index
    assert index.resolutions[0] == pytest.approx([10, 10])
    assert shapely.area(index.footprints[0]) < 0.8 * shapely.area(shapely.envelope(index.footprints[0]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("absent.tif", "no such file"), ("absent/*.tif", "no file matches the pattern"), ("empty", "holds no rasters"),
        ("array.zarr", "is an array file"), ("no.json", "is not JSON"), ("other.json", "neither a STAC Item nor"),
        ("none.json", "has no STAC Item"), ("no.parquet", "cannot be read"), ("other.parquet", "is neither an index"),
        ("points.geojson", "features have no assets"), ("loop.vrt", "too deep"),
        ("https://127.0.0.1:9/a.tif", "cannot be read"), ("https://127.0.0.1:9/item.json", "no such file: https"),
    ],
)  # fmt: skip
def test_what_cannot_be_indexed_is_refused_in_a_line_or_two(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.json").write_text("{")
    write_json(tmp_path / "other.json", {"a": 1})
    write_json(tmp_path / "none.json", collection_of())
    write_json(tmp_path / "points.geojson", collection_of({"type": "Feature", "properties": {}, "geometry": None}))
    (tmp_path / "no.parquet").write_bytes(b"no")
    gpd.GeoDataFrame({"a": [1]}, geometry=[box(0, 0, 1, 1)]).to_parquet(tmp_path / "other.parquet")
    write_vrt(tmp_path / "loop.vrt", [tmp_path / "loop.vrt", tmp_path / "loop2.vrt"])
    write_vrt(tmp_path / "loop2.vrt", [tmp_path / "loop.vrt", tmp_path / "loop2.vrt"])
    with pytest.raises(SceneError, match=said) as caught:
        indexed(given, tmp_path / "scenes.parquet")
    assert str(caught.value).count("\n") <= 1
    assert not (tmp_path / "scenes.parquet").exists()


def test_arrays_and_nothing_are_refused(tmp_path):
    with pytest.raises(SceneError, match="received DataArray"):
        indexed([xr.DataArray(np.zeros((1, 2, 2)))], tmp_path / "scenes.parquet")
    with pytest.raises(SceneError, match="no scenes given"):
        indexed([], tmp_path / "scenes.parquet")
    with pytest.raises(SceneError, match=r"must end in \.parquet"):
        indexed([], tmp_path / "scenes.gpkg")
    (tmp_path / "scenes.parquet").write_bytes(b"something else")
    path = write_raster(tmp_path / "a.tif")
    with pytest.raises(SceneError, match="exists and is not an index of scenes"):
        indexed(path, tmp_path / "scenes.parquet")
    assert (tmp_path / "scenes.parquet").read_bytes() == b"something else"
    assert len(indexed(path, tmp_path / "scenes.parquet", overwrite=True).index) == 1


def test_a_disk_that_is_full_leaves_the_index_as_it_was(tmp_path, monkeypatch):
    output = tmp_path / "scenes.parquet"
    indexed(write_raster(tmp_path / "a.tif"), output)
    before = output.read_bytes()

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stac_geoparquet.arrow.to_parquet", full)
    with pytest.raises(SceneError, match="could not be written: No space left"):
        indexed(write_raster(tmp_path / "b.tif", left=9), output)
    assert output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.tif",
        "b.tif",
        "scenes.parquet",
        "scenes.parquet.sha256",
    ]


# --- the command ------------------------------------------------------------------------------------------------------


def swathe(*words):
    """Run the command in this process."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_the_command_writes_an_index_and_info_says_what_it_holds(tmp_path):
    write_raster(tmp_path / "in" / "a_20240501.tif", CLOUD_COVER="3")
    write_raster(tmp_path / "in" / "b_20240601.tif", left=70, resolution=20)
    output = tmp_path / "scenes.parquet"
    done = swathe("index", tmp_path / "in", "-o", output, "--priority", "2")
    assert done.exit_code == 0, done.output
    assert f"wrote {output}: 2 added" in done.stdout
    assert "index: 0 of 1 scenes done" in done.stderr
    shown = swathe("info", output).stdout
    for line in ("scenes      2", "dates       2024-05-01 to 2024-06-01", "CRS         EPSG:32633",
                 "resolution  10 (1); 20 (1) (units of the CRS)", "bands       band_1,band_2", "clouds      3 to 3 %",
                 "priority    2"):  # fmt: skip
        assert line in shown
    again = swathe("index", "-o", output, "-q")
    assert f"nothing is new in {output}: 2 as they were" in again.stdout
    assert again.stderr == ""


def test_several_scenes_given_as_one_are_refused_with_a_command_that_indexes_them(tmp_path):
    one = write_raster(tmp_path / "one file.tif")
    two = write_raster(tmp_path / "b.tif", crs="EPSG:32634")
    refused = swathe("info", one, two)
    said = str(refused.exception)
    assert said.count("\n") == 1
    command = re.search("`swathe (index .*) -o scenes.parquet`", said)[1]
    output = tmp_path / "scenes.parquet"
    assert swathe(*shlex.split(command), "-o", output).exit_code == 0
    assert "scenes      2" in swathe("info", output).stdout


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_the_index_as_it_was_and_begins_again(tmp_path):
    for n in range(400):
        write_raster(tmp_path / "in" / f"{n}.tif", left=n)
    output = tmp_path / "scenes.parquet"
    indexed(tmp_path / "in" / "0.tif", output)
    before = output.read_bytes()
    words = [sys.executable, "-m", "swathe", "index", str(tmp_path / "in"), "-o", str(output)]
    for after in (0.0, 0.2, 0.5):
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
            for line in running.stderr:
                if line.startswith("index:"):
                    break
            time.sleep(after)
            running.send_signal(signal.SIGKILL)
        if running.returncode == -signal.SIGKILL:
            assert output.read_bytes() == before or len(read_index(output)) == 400
    assert len(indexed(tmp_path / "in", output).index) == 400


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("swathe:source", "{not json"),
        ("swathe:source", '{"geobox":{"height":1,"width":1,"transform":[1,0,0,0,-1,0]},"raster_bands":[],"more":1}'),
        ("swathe:source", "[" * 100_000),
        ("swathe:crs", "no WKT"),
        ("swathe:stamps", "{"),
    ],
)
def test_an_index_that_somebody_changed_is_refused_in_a_line(tmp_path, column, value):
    write_raster(tmp_path / "a.tif")
    indexed(tmp_path / "a.tif", tmp_path / "scenes.parquet")
    table = pq.read_table(tmp_path / "scenes.parquet")
    place = table.schema.get_field_index(column)
    changed = table.set_column(place, table.schema.field(place), pa.array([value], table.schema.field(place).type))
    pq.write_table(changed, tmp_path / "scenes.parquet")
    with pytest.raises(SceneError, match="index"):
        open_mosaic(tmp_path / "scenes.parquet")
