"""The report: what the page says and shows, against what the store holds."""

import base64
import io
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from affine import Affine
from helpers import SHARED, metadata, pixels, save, write_raster
from PIL import Image
from stores import TOWN, label_ids, town, town_image, write_store

from models import ClassInfo, load_bundle
from models.errors import SceneError, StatisticsError, StoreError
from pipeline import compute_statistics, run, write_clean
from pipeline.stats.object_stats import ObjectCounter, Objects, read_objects
from pipeline.stats.table import format_area, format_number, format_share
from pipeline.store.metadata import fingerprint
from pipeline.store.store import open_store
from pipeline.viz.report import read_data, write_report
from pipeline.viz.report_sections import block_section, format_seconds

NARROW = "\N{NARROW NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a scene, and stores of it: plain, without probability, of objects."""
    folder = tmp_path_factory.mktemp("report")
    class_map = town()
    probability = np.where(class_map == 255, 255, np.where(class_map == 1, 230, 20)).astype(np.uint8)
    scene = write_raster(folder / "town.tif", town_image(class_map), descriptions=("red", "green", "blue"))
    write_store(folder / "plain.zarr", class_map, probability=probability)
    write_store(folder / "bare.zarr", class_map, crs=None, transform=None)
    settings = {"threshold": 0.7, "min_object": "20 m²", "connectivity": 4}
    source = {"bands": ["red", "green", "blue"], "dtype": "uint8", "path": [str(scene)]}
    write_store(
        folder / "objects.zarr", class_map, probability=probability, objects=True, cleaned=settings, source=source
    )
    return folder


def text_of(page: Path) -> str:
    """Give the words of a page without tags, images, style and script."""
    text = re.sub(r"(?s)<(style|script|head)>.*?</\1>", " ", page.read_text())
    text = re.sub(r"<[^>]+>", " ", text).replace(NARROW, " ")
    return re.sub(r"\s+", " ", text)


def inlined(page: Path) -> list[Image.Image]:
    """Give the images of a page, decoded."""
    found = re.findall(r'<img src="data:image/\w+;base64,([^"]+)"', page.read_text())
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


# what it says


def test_the_page_says_what_the_store_holds(made, tmp_path):
    page = write_report(made / "objects.zarr", tmp_path / "r.html")
    text, class_map = text_of(page), town()
    houses = int((class_map == 1).sum())
    seen = int((class_map != 255).sum())
    assert f"Building: {100 * houses / seen:.2f} %, 5 objects." in text
    assert re.search(rf"building .{{0,20}}km² {100 * houses / seen:.2f} % {houses:,}", text)
    assert "nodata" in text
    sizes = np.unique(label_ids(class_map)[class_map == 1], return_counts=True)[1] * 100.0
    assert f"{format_area(sizes.mean())} mean size".replace(NARROW, " ") in swapped(text)
    assert f"{format_area(np.median(sizes))} median size".replace(NARROW, " ") in swapped(text)
    for words in ("town unet", "0123456789abcdef" * 4, "openvino on cpu", "fp32", "32 pixels", "town.tif"):
        assert words in text
    assert "min object 20 m²" in text
    assert "20 blocks, 4 down and 5 across. In swathe segment they took 3 min 30 s together" in text
    assert str(made) not in page.read_text()  # where files lay is nobody's business


def test_the_page_says_how_well_the_network_does_and_whose_data_it_is_of(tmp_path):
    about = {
        "description": "Roofs on drone images.",
        "metrics": {"test": {"iou": 0.5084, "recall": 0.5}, "tested on": ["kampala"], "threshold": 0.25},
        "provenance": {"imagery": "OpenAerialMap contributors, CC-BY-4.0", "trained on": [f"s{n}" for n in range(40)]},
    }
    bundle = {"name": "roofs", "digest": "0" * 64, "architecture": "unet"}
    write_store(tmp_path / "s.zarr", town(), bundle=bundle | about)
    write_clean(tmp_path / "s.zarr", tmp_path / "c.zarr", min_object=2, show=False)
    for store in ("s.zarr", "c.zarr"):
        text = text_of(write_report(tmp_path / store, tmp_path / "r.html", overwrite=True))
        for words in ("what it is Roofs on drone images.", "scores, test iou 0.5084, recall 0.5", "tested on kampala",
                      "imagery OpenAerialMap contributors, CC-BY-4.0", "s11 and 28 more"):  # fmt: skip
            assert words in text, words
    shipped = load_bundle("buildings")  # stores of before do not say it, and its own bundle is here
    write_store(tmp_path / "old.zarr", town(), bundle={**bundle, "digest": shipped.digest})
    text = text_of(write_report(tmp_path / "old.zarr", tmp_path / "r.html", overwrite=True))
    assert "labels OpenStreetMap contributors, ODbL" in text
    assert "scores, test iou 0.5084" in text
    write_store(tmp_path / "other.zarr", town(), bundle=bundle)
    assert "Network" not in text_of(write_report(tmp_path / "other.zarr", tmp_path / "r.html", overwrite=True))


def test_a_run_keeps_what_its_bundle_says(tmp_path):
    bundle = save(tmp_path / "b", metadata(provenance={"labels": "ours, CC0", "command": "x"}, metrics={"iou": 0.5}))
    scene = write_raster(tmp_path / "s.tif", pixels((3, 64, 64)))
    run(scene, bundle, tmp_path / "o.zarr", show=False)
    kept = open_store(str(tmp_path / "o.zarr"))[1].bundle
    assert kept["provenance"] == {"labels": "ours, CC0"}
    assert kept["metrics"] == {"iou": 0.5}
    assert "labels ours, CC0" in text_of(write_report(tmp_path / "o.zarr", tmp_path / "r.html"))


def swapped(text: str) -> str:
    """Put figures before their names, as they are read: in the page the name comes first."""
    return re.sub(r"((?:mean|median) size) ([\d.,]+ k?m²)", r"\2 \1", text)


def test_areas_are_those_of_the_ground(made, tmp_path):
    """100 m² a pixel on the map is 99.9 on the ellipsoid here: UTM's scale within the zone's middle is 0.9996."""
    text = text_of(write_report(made / "plain.zarr", tmp_path / "r.html"))
    area = float(re.search(r"([\d.]+) km² observed", text)[1]) * 1e6
    assert area == pytest.approx((town() != 255).sum() * 100 / 0.9996**2, rel=5e-3)


def test_images_show_scene_and_classes(made, tmp_path):
    page = write_report(made / "objects.zarr", tmp_path / "r.html")
    scene, filled, lines, objects, probability = (np.asarray(i.convert("RGBA")) for i in inlined(page))
    class_map = town()
    assert scene.shape == (200, 300, 4)
    assert scene[15, 15, :3].mean() > 200  # a house is bright
    assert scene[100, 100, 1] > scene[100, 100, 0]  # land is green
    assert tuple(filled[15, 15]) == (0xE4, 0x57, 0x2E, 255)
    assert tuple(filled[91, 5]) == (0x17, 0xBE, 0xBB, 255)
    np.testing.assert_array_equal(filled[..., 3] > 0, (class_map == 1) | (class_map == 2))
    assert lines[10, 10, 3] == 255
    assert lines[14, 15, 3] == 0
    shown = {tuple(objects[row, column]) for row, column in [(15, 15), (15, 65), (45, 115), (125, 45), (91, 5)]}
    assert len(shown) == 5
    assert objects[0, 0, 3] == 0
    assert probability[15, 15, :3].sum() > 3 * probability[60, 60, :3].sum()
    assert probability[-1, -1, 3] == 0  # not observed


@pytest.mark.parametrize(
    ("name", "below", "said"), [("plain", "Probability of", "does not say"), ("bare", None, "does not")]
)
def test_without_the_image(made, tmp_path, name, below, said):
    page = write_report(made / f"{name}.zarr", tmp_path / "r.html")
    text = page.read_text()
    assert said in text
    assert "--scene" in text
    assert ('id="split"' in text) == bool(below)
    first = re.search(r'<img src="[^"]+" alt="([^"]+)"', text)[1]
    assert first.startswith(below or "Map of")
    drawn = np.asarray(inlined(page)[-1].convert("RGBA"))
    assert drawn[60, 60, 3] == 255  # the first class too
    assert drawn[-1, -1, 3] == 0  # nodata is paper
    assert ("areas are not known" in text) == (name == "bare")


def test_a_scene_that_is_gone_is_not_an_error(made, tmp_path):
    source = {"bands": ["red"], "dtype": "uint8", "path": [str(tmp_path / "gone.tif")]}
    write_store(tmp_path / "s.zarr", town(), source=source)
    assert "no longer where" in text_of(write_report(tmp_path / "s.zarr", tmp_path / "r.html"))
    write_raster(tmp_path / "gone.tif", town_image(town())[:, :100])
    page = write_report(tmp_path / "s.zarr", tmp_path / "r.html", overwrite=True)
    assert "another one lies now" in text_of(page)


def test_objects_of_another_store(made, tmp_path):
    page = write_report(made / "plain.zarr", tmp_path / "r.html", objects=made / "objects.zarr", title="Stadt <b>Ä</b>")
    assert "<h1>Stadt &lt;b&gt;Ä&lt;/b&gt;</h1>" in page.read_text()
    assert "5 objects" in text_of(page)


def test_objects_are_shown_over_the_store_they_were_made_from(made, tmp_path):
    """It has probabilities and overviews; but only while it is the very same."""
    own = json.loads((made / "plain.zarr/zarr.json").read_text())["attributes"]["swathe"]
    for name, identity in (("same", fingerprint(own["identity"])[:16]), ("other", "0" * 16)):
        metadata = {"made_from": str(made / "plain.zarr"), "identity": {"objects of": identity}}
        write_store(tmp_path / f"{name}.zarr", town(), objects=True, **metadata)
        page = write_report(tmp_path / f"{name}.zarr", tmp_path / f"{name}.html").read_text()
        assert ("Probability of building" in page) == (name == "same")


def test_hostile_names_stay_text(tmp_path):
    classes = (ClassInfo("none", "000000"), ClassInfo('<img src=x onerror="alert(1)">', "ff0000"))
    write_store(tmp_path / "s.zarr", np.eye(70, dtype=np.uint8), classes=classes, objects=True)
    page = write_report(tmp_path / "s.zarr", tmp_path / "r.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (70, 70)])
def test_odd_maps(tmp_path, shape, value):
    """One pixel, nothing found, nothing observed, one object that fills all."""
    write_store(tmp_path / "s.zarr", np.full(shape, value, np.uint8), objects=value == 1)
    text = text_of(write_report(tmp_path / "s.zarr", tmp_path / "r.html"))
    assert ("Nothing of this scene was observed" in text) == (value == 255)
    assert ("100.0 %, 1 object." in text) == (value == 1)


# what is wrong


def test_what_is_refused(made, tmp_path):
    there = tmp_path / "there.html"
    there.write_text("mine")
    write_raster(tmp_path / "other.tif", town_image(town(100, 300)))
    with pytest.raises(StoreError, match=r"there\.html exists"):
        write_report(made / "plain.zarr", there)
    with pytest.raises(StoreError, match="no such store"):
        write_report(tmp_path / "none.zarr", tmp_path / "r.html")
    with pytest.raises(SceneError, match="no such file"):
        write_report(made / "plain.zarr", tmp_path / "r.html", scene=tmp_path / "none.tif")
    with pytest.raises(StoreError, match=r"(?s)another grid than the maps: 100 x 300.*against 200 x 300"):
        write_report(made / "plain.zarr", there, scene=tmp_path / "other.tif", overwrite=True)
    with pytest.raises(StoreError, match="another grid"):
        write_report(made / "plain.zarr", tmp_path / "r.html", objects=made / "bare.zarr")
    with pytest.raises(StoreError, match="holds no objects; `swathe objects"):
        write_report(made / "plain.zarr", tmp_path / "r.html", objects=made / "plain.zarr")
    with pytest.raises(StoreError, match="folder"):
        write_report(made / "plain.zarr", tmp_path)
    assert there.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.tif", "there.html"]


# figures of many objects


class Everywhere:
    """One group, in which all objects lie."""

    def __len__(self):
        return 1

    def locate(self, rows, columns):
        return np.arange(len(rows)), np.zeros(len(rows), np.int64)


def counted(sizes, parts=1):
    """Count objects of given sizes, of class 0 and with no width."""
    counter = ObjectCounter(Everywhere(), 1)
    for part in np.array_split(np.asarray(sizes, np.float64), parts):
        nothing = np.full(len(part), np.nan)
        counter.add(Objects(np.zeros(len(part), np.int64), nothing, nothing, part, nothing))
    return counter


def test_sizes_are_those_of_numpy():
    sizes = np.random.default_rng(1).lognormal(4, 1.5, 10_001)
    counter = counted(sizes, 7)
    found = counter.stats()
    assert (found.count, found.smallest, found.largest) == (10_001, sizes.min(), sizes.max())
    assert found.mean == pytest.approx(sizes.mean())
    assert found.quantiles[1] == pytest.approx(np.median(sizes), rel=1e-12)
    edges = np.array([1e-3, 10, 100, 1000, 1e9])
    np.testing.assert_array_equal(found.sizes.histogram(0, edges), np.histogram(sizes, edges)[0])
    assert found.sizes.histogram(0, edges).sum() == 10_001


@pytest.mark.parametrize("sizes", [[7.0], [3.0, 5.0], [1.0, 100.0, 2.0], [4.0] * 6])
def test_the_median_of_a_few_is_exact(sizes):
    assert counted(sizes).stats().quantiles[1] == pytest.approx(np.median(sizes), rel=1e-12)


def test_objects_are_counted_in_passing(tmp_path):
    """Reading a long table takes the memory of a batch."""
    count = 2_000_000
    columns = {
        "class_value": np.where(np.arange(count) % 4, 1, 2).astype(np.uint8),
        "centroid_y_px": np.zeros(count),
        "centroid_x_px": np.zeros(count),
        "area_px": np.full(count, 9),
        "area_m2": np.full(count, 100.0),
        "mean_width_m": pa.array(np.where(np.arange(count) % 2, 3.0, np.nan), from_pandas=True),
    }
    pq.write_table(pa.table(columns), tmp_path / "table.parquet", row_group_size=2**16)
    tracemalloc.start()
    counter = ObjectCounter(Everywhere(), 3)
    for objects in read_objects(f"{tmp_path}/table.parquet"):
        counter.add(objects)
    found = counter.stats()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.count.tolist() == [[0, count // 4 * 3, count // 4]]
    np.testing.assert_array_equal(found.quantiles[1], [[np.nan, 100.0, 100.0]])
    np.testing.assert_array_equal(found.width, [[np.nan, 3.0, np.nan]])
    assert peak < 20e6
    with pytest.raises(StatisticsError, match="No such file"):
        next(read_objects(str(tmp_path / "none")))


@pytest.mark.parametrize("where", ["utm", "degrees", "nowhere"])
def test_the_page_says_what_stats_says(tmp_path, where):
    """Areas, counts, means and medians are the very numbers of `compute_statistics`, and are shown as they are."""
    grids = {
        "utm": {},
        "degrees": {"crs": "EPSG:4326", "transform": Affine(0.002, 0, 24.0, 0, -0.001, 60.5)},
        "nowhere": {"crs": None, "transform": None},
    }
    path = write_store(tmp_path / "o.zarr", town(), objects=True, **grids[where])
    frame = compute_statistics(path, show=False)
    data = read_data(str(path))
    assert set(data.stats.columns) == set(frame.columns) - {"geometry"}
    if where == "nowhere":  # the page has sizes in pixels then
        assert data.object_stats.objects.mean[0, 1] == np.mean([80, 144, 224, 320, 432])
        columns = [name for name in data.stats.columns if "_size_" not in name and "_width_" not in name]
    else:
        columns = list(data.stats.columns)
    for name in columns:
        np.testing.assert_array_equal(data.stats.columns[name], frame[name][0], err_msg=name)
    text = text_of(write_report(path, tmp_path / "r.html"))
    if where != "nowhere":
        for name in ("building_m2", "road_m2", "nodata_m2", "building_size_mean_m2", "building_size_median_m2"):
            assert format_area(frame[name][0]).replace(NARROW, " ") in text, name
        assert f"per km² {format_number(frame['building_per_km2'][0])} " in text
        assert f"mean width {format_number(frame['building_width_mean_m'][0])} m" in text
    assert f"objects {frame['building_count'][0]} " in text


def test_many_blocks_are_put_together():
    seconds = np.arange(100 * 130, dtype=np.float32).reshape(100, 130)
    part = block_section(seconds, 64, (100 * 64 - 10, 130 * 64 - 20), "swathe clean")
    cells = part["cells"]
    assert len(cells) == 25 * 33
    assert {cell["width"] for cell in cells} == {256, 108}
    assert cells[0]["words"].endswith(format_seconds(float(seconds[:4, :4].mean())))
    assert (cells[0]["strength"], cells[-1]["strength"]) == (0.08, 1.0)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (format_area(0.123456), "0.123 m²"), (format_area(12345.6), "12,346 m²"), (format_area(123456), "0.123 km²"),
        (format_share(0), "0.00 %"), (format_share(1e-9), "< 0.01 %"), (format_share(0.123), "12.3 %"),
        (format_seconds(0.0123), "0.012 s"), (format_seconds(59), "59.0 s"), (format_seconds(3723), "1 h 2 min"),
        (format_number(1234567), "1,230,000"), (format_number(float("nan")), "unknown"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(said, text):
    assert said.replace(NARROW, " ") == text


@pytest.mark.skipif(not (SHARED / "oam_buildings").exists(), reason="../shared/data is not there")
def test_a_real_scene_makes_a_small_page(tmp_path):
    import rasterio

    scene = SHARED / "oam_buildings/scenes/zanzibar_tz_b_z20_image.tif"
    with rasterio.open(scene) as file, rasterio.open(str(scene).replace("image", "label")) as labels:
        where = {"crs": file.crs.to_wkt(), "transform": file.transform}
        buildings = (labels.read(1) > 0).astype(np.uint8)
    write_store(tmp_path / "s.zarr", buildings, classes=TOWN[:2], block=1024, **where)
    page = write_report(tmp_path / "s.zarr", tmp_path / "r.html", scene=scene)
    assert 200_000 < page.stat().st_size < 4_000_000
    assert max(inlined(page)[0].size) == 2048
