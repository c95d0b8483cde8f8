"""A store as a grid of COGs with a catalogue: what GDAL, rioxarray, odc-stac and pystac make of it; what stops it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import rioxarray
from affine import Affine
from helpers import UTM
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.windows import Window as RasterioWindow
from rio_cogeo import cog_validate
from stores import TOWN, town, write_store
from test_durable import disk  # noqa: F401

from models.bundle import shipped_bundles
from models.encoding import NODATA
from models.errors import ArgumentError, StoreError
from pipeline import compute_statistics, publish
from pipeline.grid.geobox import GeoBox
from pipeline.publishing import publish as publishing
from pipeline.publishing import state
from pipeline.publishing.cells import CellGrid
from pipeline.store.store import sole_writer

pytestmark = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")  # in odc-geo
SCHEMAS = Path(__file__).parent / "mlm_schema"
SWATHE = Path(sys.executable).with_name("swathe")
OFF = Affine(10, 0, 500_070, 0, -10, 9_000_020)  # no multiple of a cell
SIDE, SHAPE = 1024, (1900, 2300)


def a_map() -> np.ndarray:
    """A class map of which five cells of twelve are all nodata, and one nearly is."""
    class_map = np.full(SHAPE, NODATA, np.uint8)
    class_map[300:1900, :1200] = np.tile(town(400, 400), (4, 3))
    class_map[-1, -1] = 1
    return class_map


def a_probability(class_map: np.ndarray) -> np.ndarray:
    there = np.arange(class_map.size, dtype=np.int64).reshape(class_map.shape) % 251
    return np.where(class_map == NODATA, NODATA, there).astype(np.uint8)


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class_map = a_map()
    more: dict[str, Any] = {"probability": a_probability(class_map), "transform": OFF, "overviews": False}
    return write_store(tmp_path_factory.mktemp("publish") / "maps.zarr", class_map, block=512, **more)


@pytest.fixture(scope="module")
def made(maps: Path) -> Path:
    folder = maps.with_name("made")
    done = publish(
        maps, folder, array=["class_map", "probability"], side=SIDE, dates="2024-01-01T00:00:00Z", show=False
    )
    assert (done.output, done.resumed, done.already_complete) == (str(folder), 0, False)
    assert done.files == len(list(folder.glob("*.tif")))
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """What is in a folder, but for what holds the moment at which it was made."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: there for name, there in files.items() if name.endswith((".tif", ".xml", ".vrt", ".qml"))}


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tif")}


# the grid


@settings(max_examples=50)
@example(top=0, left=0, shape=(512, 512), side=512)
@example(top=-1, left=1, shape=(513, 1), side=512)
@given(
    top=st.integers(-5000, 5000),
    left=st.integers(-5000, 5000),
    shape=st.tuples(st.integers(1, 2100), st.integers(1, 2100)),
    side=st.sampled_from([512, 1024]),
)
def test_cells_cover_a_map_once_and_have_the_names_of_their_places(top, left, shape, side):
    geobox = GeoBox(*shape, Affine(0.3, 0, 0.3 * left, 0, -0.3, 0.3 * top), rasterio.crs.CRS.from_string(UTM).to_wkt())
    grid, covered, names = CellGrid.of(geobox, side), np.zeros(shape, int), set()
    for cell in grid.cells(np.ones((1, 1), bool), 10_000):
        covered[cell.window.clip(shape).slices] += 1
        west, south, east, north = geobox.cut(cell.window).bounds()
        assert np.allclose([west, south], [cell.column * side * 0.3, cell.row * side * 0.3], atol=1e-6)
        assert np.allclose([east - west, north - south], side * 0.3)
        names.add(cell.name)
    assert (covered == 1).all()
    assert len(names) == len(grid.rows) * len(grid.columns)


def test_names_sort_and_say_what_is_south_and_west():
    geobox = GeoBox(1024, 1024, Affine(10, 0, -5120, 0, -10, 5120), rasterio.crs.CRS.from_string(UTM).to_wkt())
    names = [cell.name for cell in CellGrid.of(geobox, 512).cells(np.ones((1, 1), bool), 1024)]
    assert names == ["R0000_C-0001", "R0000_C0000", "R-0001_C-0001", "R-0001_C0000"]


def test_cells_of_blocks_that_are_not_planned_are_not_even_looked_at():
    geobox = GeoBox(2048, 2048, Affine(10, 0, 0, 0, -10, 20480), rasterio.crs.CRS.from_string(UTM).to_wkt())
    planned = np.zeros((8, 8), bool)
    planned[0, 7] = planned[5, 1] = True
    assert [cell.name for cell in CellGrid.of(geobox, 512).cells(planned, 256)] == ["R0003_C0003", "R0001_C0000"]


# the files


def test_every_file_is_a_strict_cog_with_overviews_and_cells_of_nothing_have_none(made: Path) -> None:
    files = sorted(made.glob("*.tif"))
    assert len({path.name[-15:] for path in files}) == 7
    assert len(files) == 14
    for path in files:
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as file:
            assert file.shape == (SIDE, SIDE)
            assert file.overviews(1) == [2]
            assert file.transform.c % (SIDE * 10) == 0
            assert file.transform.f % (SIDE * 10) == 0
            assert Path(f"{path}.aux.xml").exists() == path.name.startswith("class_map")


def test_gdal_and_rioxarray_open_it_as_one(made: Path) -> None:
    expected = a_map()
    with rasterio.open(made / "mosaic.vrt") as file:
        assert (file.crs, file.transform, file.nodata) == (rasterio.crs.CRS.from_string(UTM), OFF, NODATA)
        assert file.overviews(1) == [2]
        np.testing.assert_array_equal(file.read(1), expected)
        assert {value: file.colormap(1)[value][:3] for value in range(3)} == {
            value: info.rgb for value, info in enumerate(TOWN)
        }
        assert file.colormap(1)[0][3] == 0
    with rasterio.open(made / "mosaic_probability.vrt") as file:
        np.testing.assert_array_equal(file.read(1), a_probability(expected))
        assert file.scales[0] == pytest.approx(0.004)
        assert file.descriptions == ("building",)
    with rasterio.open(made / "mosaic.gti.gpkg") as file:
        assert (file.driver, file.crs, file.transform, file.nodata) == ("GTI", UTM, OFF, NODATA)
        np.testing.assert_array_equal(file.read(1), expected)
    with rioxarray.open_rasterio(made / "mosaic.vrt") as opened:
        np.testing.assert_array_equal(opened[0], expected)


@settings(max_examples=20)
@example(0, 169, 1, 1)  # cells end at column 169 and row 930: GDAL 3.10 takes the neighbour's file there, in a GTI
@example(930, 1193, 970, 1024)
@given(st.integers(0, 1899), st.integers(0, 2299), st.integers(1, 1500), st.integers(1, 1500))
@pytest.mark.parametrize("name", ["mosaic.vrt", "mosaic.gti.gpkg"])
def test_any_window_of_it_is_that_of_the_store(
    made: Path, name: str, top: int, left: int, height: int, width: int
) -> None:
    height, width = min(height, SHAPE[0] - top), min(width, SHAPE[1] - left)
    with rasterio.open(made / name) as file:
        there = file.read(1, window=RasterioWindow(left, top, width, height))
    np.testing.assert_array_equal(there, a_map()[top : top + height, left : left + width])


def test_odc_stac_loads_the_maps_from_its_items(made: Path) -> None:
    class_map = a_map()
    items = list(pystac.Collection.from_file(made / "collection.json").get_items(recursive=True))
    assert len(items) == 7
    like = odc.geo.geobox.GeoBox(SHAPE, OFF, UTM)
    loaded = odc.stac.load(items, bands=["class_map", "probability"], geobox=like)
    np.testing.assert_array_equal(loaded.class_map[0], class_map)
    np.testing.assert_array_equal(loaded.probability[0], a_probability(class_map))
    assert loaded.class_map.nodata == NODATA
    free = odc.stac.load(items, bands=["class_map"])  # of the Items' own grid
    assert free.odc.geobox.crs == UTM
    assert int((free.class_map[0] == 1).sum()) == int((class_map == 1).sum())


def test_titilers_reader_opens_it(made: Path) -> None:
    reader = pytest.importorskip("rio_tiler.io", reason="rio-tiler is not installed")
    with reader.Reader(str(made / "mosaic.vrt")) as opened:
        np.testing.assert_array_equal(opened.read().data[0], a_map())
    with reader.STACReader(str(next((made / "items").iterdir()))) as opened:
        assert set(opened.assets) == {"class_map", "probability"}


def test_a_cell_is_a_map_for_other_verbs(made: Path) -> None:
    total = sum(compute_statistics(path, show=False)["building_pixels"][0] for path in made.glob("class_map*.tif"))
    assert total == (a_map() == 1).sum()


# the catalogue


@pytest.fixture(scope="module")
def validator() -> JsonSchemaSTACValidator:
    """PySTAC's own, with schemas that are here: nothing is asked of a network."""
    made = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        kind, _, number = path.stem.rpartition("-")
        address = f"https://stac-extensions.github.io/{kind}/v{number}/schema.json"
        made.schema_cache.setdefault(address, {**json.loads(path.read_text()), "$id": address})
    return made


def test_it_is_valid_stac(made: Path, validator: JsonSchemaSTACValidator) -> None:
    collection = pystac.Collection.from_file(made / "collection.json")
    assert collection.extent.temporal.to_dict() == {"interval": [["2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"]]}
    assert len(collection.validate(validator=validator)) == 4
    items = list(collection.get_items(recursive=True))
    for item in items:
        assert len(item.validate(validator=validator)) == 6
        assert item.get_parent() is collection
        for asset in item.assets.values():
            path = Path(asset.get_absolute_href())
            assert path.stat().st_size == asset.extra_fields["file:size"]
            with rasterio.open(path) as file:
                assert item.properties["proj:bbox"] == list(file.bounds)
                assert item.properties["proj:shape"] == list(file.shape)
                assert item.properties["proj:transform"] == list(file.transform)[:6]
    pixels = [item.properties["swathe:pixels"] for item in items]
    assert sum(one["building"] for one in pixels) == (a_map() == 1).sum()
    for asset in collection.assets.values():
        assert Path(asset.get_absolute_href()).is_file()
    spoilt = items[0].clone()
    spoilt.properties["proj:shape"] = "round"
    with pytest.raises(pystac.STACValidationError):
        spoilt.validate(validator=validator)


def test_items_as_a_table_are_the_items(made: Path) -> None:
    import stac_geoparquet.arrow

    items = list(stac_geoparquet.arrow.stac_table_to_items(pq.read_table(made / "items.parquet")))
    for item in items:
        there = json.loads((made / "items" / f"{item['id']}.json").read_text())
        assert (made / item["assets"]["class_map"]["href"]).is_file()
        assert item["geometry"] == there["geometry"]
        assert item["properties"]["proj:transform"] == there["properties"]["proj:transform"]
        assert item["assets"]["class_map"]["classification:classes"][1]["color_hint"] == TOWN[1].color


def test_the_style_has_the_classes(made: Path) -> None:
    entries = ET.parse(made / "mosaic.qml").findall(".//paletteEntry")
    assert [(entry.get("value"), entry.get("label"), entry.get("alpha")) for entry in entries] == [
        ("0", "background", "0"), ("1", "building", "255"), ("2", "road", "255")]  # fmt: skip
    assert entries[1].get("color") == f"#{TOWN[1].color.lower()}"


def test_a_shipped_bundle_lies_beside_its_maps(tmp_path: Path, validator: JsonSchemaSTACValidator) -> None:
    bundle = shipped_bundles()[0]
    name = bundle.metadata.name
    about = {"name": name, "digest": bundle.digest, "architecture": "simple-unet"}
    store = write_store(tmp_path / "s.zarr", town(), bundle=about)
    publish(store, tmp_path / "out", side=512, dates="2024-01-01T00:00:00Z/2024-12-31T00:00:00Z", show=False)
    item, *_ = pystac.Collection.from_file(tmp_path / "out/collection.json").get_items(recursive=True)
    item.validate(validator=validator)
    assert item.datetime is None
    assert item.properties["end_datetime"] == "2024-12-31T00:00:00Z"
    (link,) = item.get_links("derived_from")
    model = pystac.Item.from_file(link.get_absolute_href())
    assert model.properties["mlm:name"] == name
    assert Path(model.assets["weights"].get_absolute_href()).is_file()


def test_other_crs_and_the_antimeridian(tmp_path: Path, validator: JsonSchemaSTACValidator) -> None:
    own = "+proj=laea +lat_0=-17 +lon_0=180 +datum=WGS84 +units=m"  # no EPSG code; Fiji in its middle
    store = write_store(
        tmp_path / "s.zarr", town(700, 700), crs=own, transform=Affine(100, 0, -35_000, 0, -100, 35_000)
    )
    publish(store, tmp_path / "out", side=1024, show=False)
    collection = pystac.Collection.from_file(tmp_path / "out/collection.json")
    collection.validate(validator=validator)
    items = list(collection.get_items(recursive=True))
    assert [item.id for item in items] == ["R0000_C-0001", "R0000_C0000", "R-0001_C-0001", "R-0001_C0000"]
    for item in items:
        item.validate(validator=validator)
        assert item.properties["proj:code"] is None
        assert abs(item.bbox[0]) > 179
    west, _, east, _ = collection.extent.spatial.bboxes[0]
    assert west > 179 > -179 > east
    like = odc.geo.geobox.GeoBox((700, 700), Affine(100, 0, -35_000, 0, -100, 35_000), own)
    np.testing.assert_array_equal(odc.stac.load(items, geobox=like, bands=["class_map"]).class_map[0], town(700, 700))


# stopped, continued, done again


def stopped_after(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    count, real = iter(range(1000)), publishing.write_piece

    def failing(*args: Any, **more: Any) -> Any:
        if next(count) >= cells:
            raise StoreError("the power is cut")
        return real(*args, **more)

    monkeypatch.setattr(publishing, "write_piece", failing)


def test_a_publication_that_was_stopped_is_continued(maps, made, tmp_path, monkeypatch, client) -> None:
    keywords = {"array": ["class_map", "probability"], "side": SIDE, "show": False, "dates": "2024-01-01T00:00:00Z"}
    with monkeypatch.context() as patch:
        stopped_after(patch, 5)
        with pytest.raises(StoreError, match=r"_R\d+_C\d+\.tif: the power is cut"):
            publish(maps, tmp_path / "out", client=client, **keywords)
    before = stamps(tmp_path / "out")
    assert 1 <= len(before) <= 5
    assert not (tmp_path / "out/collection.json").exists()
    with pytest.raises(StoreError, match=r"another publication \(side 512, there 1024"):
        publish(maps, tmp_path / "out", **{**keywords, "side": 512})
    done = publish(maps, tmp_path / "out", **keywords)
    assert (done.files, done.resumed) == (14, len(before))
    assert before.items() <= stamps(tmp_path / "out").items()
    assert content(tmp_path / "out") == content(made)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in made.iterdir())


@pytest.mark.parametrize("step", ["write_gti", "make_item", "_write_table", "make_collection"])
def test_a_catalogue_is_whole_or_absent(tmp_path, monkeypatch, step) -> None:
    store = write_store(tmp_path / "s.zarr", town())
    with monkeypatch.context() as patch:
        patch.setattr(f"pipeline.publishing.catalogue.{step}", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(store, tmp_path / "out", side=512, show=False)
    assert not (tmp_path / "out/collection.json").exists()
    assert publish(store, tmp_path / "out", side=512, show=False).resumed == 2
    assert pystac.Collection.from_file(tmp_path / "out/collection.json").assets


def test_done_again_it_does_nothing_and_overwritten_it_is_another(tmp_path) -> None:
    store, out = write_store(tmp_path / "s.zarr", town(600, 600), block=256), tmp_path / "out"
    first = publish(store, out, side=512, show=False)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = publish(store, out, side=512, show=False)
    assert again.already_complete
    assert (again.files, again.size) == (first.files, first.size)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "of before" in repr(again)
    with pytest.raises(StoreError, match=r"side 1024, there 512.*pass --overwrite"):
        publish(store, out, side=1024, show=False)
    (out / "notes.txt").write_text("mine")
    (out / ".class_map_R1757_C0097.tif.partial").mkdir()  # a killed task's
    (out / f"mosaic.vrt.{'0' * 32}.partial").write_text("left")
    (other := publish(store, out, side=1024, overwrite=True, show=False))
    assert other.resumed == 0
    assert len(list(out.glob("*.tif"))) == other.files != first.files
    assert (out / "notes.txt").read_text() == "mine"
    assert not [*out.glob(".*"), *out.glob("*.partial")]
    next(out.glob("*.tif")).unlink()
    with pytest.raises(StoreError, match=r"is damaged: class_map_R.*tif is missing; run it again with --overwrite"):
        publish(store, out, side=1024, show=False)
    assert publish(store, out, side=1024, overwrite=True, show=False).files == other.files


@pytest.mark.parametrize("after", ["take_down", "end"])
def test_killed_between_two_publications(tmp_path, monkeypatch, after) -> None:
    """One is being replaced by another, or by itself: at each moment the same command ends with what it was to make."""
    store, out = write_store(tmp_path / "s.zarr", town(600, 600), block=256), tmp_path / "out"
    publish(store, out, side=1024, show=False)
    publish(store, tmp_path / "fresh", side=512, show=False)
    for side in (512, 512):
        with monkeypatch.context() as patch:
            patch.setattr(state, after, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                publish(store, out, side=side, overwrite=True, show=False)
        publish(store, out, side=side, show=False)
        assert content(out) == content(tmp_path / "fresh")
        assert not (out / ".swathe").exists()


def test_two_at_once_are_kept_apart(tmp_path) -> None:
    store = write_store(tmp_path / "s.zarr", town())
    with sole_writer(str(tmp_path / "out")), pytest.raises(StoreError, match="another run is writing to it now"):
        publish(store, tmp_path / "out", side=512, show=False)


# what is refused


def test_what_cannot_be_published_is_said_before_anything_is_written(maps, tmp_path) -> None:
    store = write_store(tmp_path / "s.zarr", town())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for kind, said, target, more in [
        (StoreError, "has no array 'probability'; it has: class_map", "out", {"array": "probability"}),
        (ArgumentError, "array is class_map, probability or both; received 'heights'", "out", {"array": "heights"}),
        (ArgumentError, "array is", "out", {"array": []}),
        (ArgumentError, "side is a multiple of 512 pixels, at most 131,072; received 1000", "out", {"side": 1000}),
        (ArgumentError, "side is a multiple", "out", {"side": 0}),
        (ArgumentError, "dates are one as 2024-06-01T00:00:00Z", "out", {"dates": "summer"}),
        (ArgumentError, "the earlier first", "out", {"dates": "2024-06-01T00:00:00Z/2023-06-01T00:00:00Z"}),
        (StoreError, "holds notes.txt, which `swathe publish` did not write", "mine", {}),
        (StoreError, "mine holds notes.txt", "mine", {"overwrite": True}),
        (StoreError, "lie in each other", "s.zarr/out", {}),
        (StoreError, "lie in each other", ".", {}),
        (StoreError, "a publication is a folder of files", "out.tif", {}),
        (StoreError, "nothing can be written to https", "https://example.com/maps", {}),
        (StoreError, "file", "file", {}),
    ]:
        place = target if "://" in target else tmp_path / target
        with pytest.raises(kind, match=said):
            publish(store, place, show=False, **more)
    with pytest.raises(StoreError, match="no such store"):
        publish(tmp_path / "none.zarr", tmp_path / "out", show=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_stores_that_no_grid_fits_are_refused(tmp_path) -> None:
    for name, more, said in [
        ("no crs", {"crs": None}, "the maps have no CRS"),
        ("rotated", {"transform": Affine(7, 3, 5e5, 3, -7, 9e6)}, "north is not up"),
        ("south up", {"transform": Affine(10, 0, 5e5, 0, 10, 9e6)}, "north is not up"),
    ]:
        store = write_store(tmp_path / f"{name}.zarr", town(), **more)
        with pytest.raises(StoreError, match=said):
            publish(store, tmp_path / "out", show=False)
    nothing = write_store(tmp_path / "nothing.zarr", np.full((600, 600), NODATA, np.uint8), block=256)
    with pytest.raises(StoreError, match="nothing but nodata"):
        publish(nothing, tmp_path / "out", side=512, show=False)
    assert not list(tmp_path.glob("out/*"))


def test_a_damaged_store_is_named(tmp_path) -> None:
    store = write_store(tmp_path / "s.zarr", town(600, 600), block=256)
    (store / "class_map/c/1/1").unlink()
    with pytest.raises(StoreError, match=r"class_map_R\d+_C\d+\.tif: .*c/1/1 is missing"):
        publish(store, tmp_path / "out", side=512, show=False)


# the real command


def swathe(store: Path, folder: Path) -> list[object]:
    dates = "2024-01-01T00:00:00Z"
    return [SWATHE, "publish", store, "-o", folder, "--side", 512, "--dates", dates]


@pytest.mark.slow
def test_workers_write_the_same_bytes(maps, tmp_path) -> None:
    for workers in (None, 2):
        publish(maps, tmp_path / str(workers), side=512, workers=workers, show=False)
    assert content(tmp_path / "None") == content(tmp_path / "2")


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(maps, tmp_path) -> None:
    subprocess.run([*map(str, swathe(maps, tmp_path / "whole"))], check=True)
    chance, killed = random.Random(0), 0
    for number in range(3):
        out = tmp_path / str(number)
        for _ in range(2):
            process = subprocess.Popen(
                [*map(str, swathe(maps, out))], start_new_session=True, stderr=subprocess.DEVNULL
            )
            while process.poll() is None and not out.exists():
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 1.5))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
            process.wait()
        before = stamps(out)
        subprocess.run([*map(str, swathe(maps, out))], check=True, capture_output=True)
        rewritten = [name for name, stamp in stamps(out).items() if before.get(name, stamp) != stamp]
        assert len(rewritten) <= os.cpu_count()  # those whose mark the kill came before
        assert content(out) == content(tmp_path / "whole")
        assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert killed >= 3


@pytest.mark.slow
def test_a_full_disk_is_said_and_more_room_lets_it_go_on(maps, made, disk) -> None:  # noqa: F811
    place = disk("size=100k")
    done = subprocess.run([*map(str, swathe(maps, place / "out"))], capture_output=True, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "out/collection.json").exists()
    for path in (place / "out").glob("*.tif"):
        assert cog_validate(path, strict=True)[0]
    disk("size=64m")
    subprocess.run([*map(str, swathe(maps, place / "out"))], check=True, capture_output=True)
    with rasterio.open(place / "out/mosaic.vrt") as file:
        np.testing.assert_array_equal(file.read(1), a_map())
