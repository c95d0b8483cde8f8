"""Saved searches, ItemCollections and pystac's objects as scenes; and what Items say of values that files do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from click.testing import CliRunner
from helpers import pixels, write_item, write_raster

from models import SwatheError
from models.metadata import Radiometry
from pipeline import allowing, open_scene, plan, segment
from pipeline.io import stac_items
from pipeline.io.scene import open_source
from pipeline.io.stac_items import find_item
from train.cli.app import cli
from train.config import settings_of
from train.data.datasets import gather

SHAPE = (40, 50)
NAMES = ("red", "green", "blue")


def item_in(folder: Path, name: str = "item.json", **fields: Any) -> Path:
    """An Item of three files of one band each, with a corner of zeros that no file calls nodata."""
    folder.mkdir(parents=True, exist_ok=True)
    assets = {}
    for seed, band in enumerate(NAMES):
        values = pixels((1, *SHAPE), seed=seed).clip(1)
        values[:, :9, :9] = 0
        write_raster(folder / f"{band}.tif", values)
        assets[band] = {"href": f"./{band}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"], **fields}
    return write_item(folder / name, assets)


def with_id(path: Path, name: str, **changes: Any) -> dict[str, Any]:
    return {**json.loads(path.read_text()), "id": name, "collection": "s2", **changes}


def collection(path: Path, *items: dict[str, Any], **more: Any) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items), **more}))
    return path


class Search:
    """What pystac-client gives: Items, page by page, when they are asked for."""

    def __init__(self, *items: pystac.Item) -> None:
        self.found = items

    def items(self) -> Any:
        yield from self.found

    def item_collection(self) -> pystac.ItemCollection:
        return pystac.ItemCollection(self.found)


def test_a_search_that_found_one_item_is_that_item(tmp_path: Path) -> None:
    path = item_in(tmp_path)
    expected = open_source(path)
    content, item = json.loads(path.read_text()), pystac.Item.from_file(str(path))
    scenes: list[Any] = [
        collection(tmp_path / "saved.json", content),
        collection(tmp_path / "saved.geojson", content, links=[{"rel": "self", "href": "x"}]),
        f"{collection(tmp_path / 'two.json', with_id(path, 'a'), with_id(path, 'b', assets={}))}#a",
        f"{tmp_path / 'two.json'}#s2/a",
        [tmp_path / "saved.json"],
        item,
        [item],
        pystac.ItemCollection([item]),
        Search(item),
    ]
    for scene in scenes:
        source = open_source(scene)
        assert source.bands == NAMES
        assert source.identity() == expected.identity()
        assert open_source(scene, ["blue"]).bands == ("blue",)
        np.testing.assert_array_equal(open_scene(scene).values, open_scene(path).values)
    item.make_asset_hrefs_absolute()
    assert open_source(item.to_dict()).identity() == expected.identity()
    assert open_source(pystac.ItemCollection([item]).to_dict()).identity() == expected.identity()


def test_several_items_are_refused_by_name(tmp_path: Path) -> None:
    path = item_in(tmp_path)
    two = collection(tmp_path / "two.json", with_id(path, "tile_a"), with_id(path, "tile_b"))
    items = [pystac.Item.from_dict(with_id(path, name)) for name in ("tile_a", "tile_b")]
    paged = collection(tmp_path / "paged.json", with_id(path, "tile_a"), links=[{"rel": "next", "href": "x"}])
    extent = pystac.Extent(pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None, None]]))
    scenes: list[tuple[Any, str]] = [
        (two, r"2 Items, tile_a, tile_b; a scene is one\.\nName one by its id, as collection\.json#ID"),
        (paged, "1 or more Items, tile_a"),
        (items, "the list has 2 Items"),
        (pystac.ItemCollection(items), "the ItemCollection has 2 Items"),
        (Search(*items * 9), "the search has 9 or more Items"),
        (collection(tmp_path / "none.json"), "the search found nothing"),
        (Search(), "the search found nothing"),
        (f"{two}#tile_c", "no Item tile_c; it has tile_a, tile_b"),
        (f"{path}#tile_c", "is the Item scene, not tile_c"),
        (collection(tmp_path / "plain.geojson", {"type": "Feature"}, {"type": "Feature"}), "features have no assets"),
        ([two, two], "one STAC Item, or files"),
        (pystac.Collection("c", "", extent), "as pystac has them; received Collection"),
    ]
    for scene, said in scenes:
        for bands in (None, ["red"]):
            with pytest.raises(SwatheError, match=said) as refusal:
                open_source(scene, bands)
            assert str(refusal.value).count("\n") <= 1


def test_every_verb_takes_a_search(tmp_path: Path, bundle_of: Any) -> None:
    path = item_in(tmp_path, nodata=0)
    saved = str(collection(tmp_path / "saved.json", json.loads(path.read_text())))
    bundle = bundle_of("simple-unet", bands=3, dtype="uint16")
    expected = segment(path, bundle, engine="torch").class_map
    assert (expected.values[:9, :9] == 255).all()
    assert (expected.values[9:] != 255).all()
    for scene in (saved, pystac.Item.from_file(str(path)), Search(pystac.Item.from_file(str(path)))):
        assert plan(scene, bundle).source.bands == NAMES
        np.testing.assert_array_equal(segment(scene, bundle, engine="torch").class_map, expected)
    runner, model, two = CliRunner(), str(bundle.path), tmp_path / "two.json"
    collection(two, with_id(path, "a"), with_id(path, "b"))
    for words in (["info", saved], ["plan", f"{two}#b", "-m", model]):
        told = runner.invoke(cli, words)
        assert told.exit_code == 0, told.output
        assert "red, green, blue" in told.output
    store = tmp_path / "o.zarr"
    for scene in (str(two), f"{two}#b"):
        told = runner.invoke(cli, ["segment", scene, "-m", model, "-o", str(store), "-q"])
        assert (told.exit_code == 0) is ("#" in scene), told.output
    told = runner.invoke(cli, ["report", str(store), "--scene", saved, "-o", str(tmp_path / "r.html")])
    assert told.exit_code == 0, told.output
    told = runner.invoke(cli, ["report", str(store), "--scene", str(two), "-o", str(tmp_path / "s.html")])
    assert "2 Items" in str(told.exception)


def test_addresses_of_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = item_in(tmp_path / "a b", "it em.json")
    content = json.loads(path.read_text())

    def where(href: str, place: Path | str = path, **changes: Any) -> str:
        folder = Path(place)
        if not str(place).startswith("http"):
            folder.parent.mkdir(exist_ok=True)
            folder.write_text(json.dumps({**content, **changes}))
        found = stac_items.FoundItem(find_item(place).item, "x", str(place))
        return found.address(href)

    red = str(tmp_path / "a b/red.tif")
    remote = [{"rel": "self", "href": "https://h/items/x.json"}]
    assert where("red.tif") == where("./red.tif") == where("../a%20b/red.tif") == red
    with allowing(tmp_path):
        assert where(f"file://{red}") == where(f"file://{red.replace(' ', '%20')}") == red
    assert where(f"file://{red}") == f"file://{red}"
    assert where(red) == red
    assert where("red.tif", links=remote) == red
    assert where("./far.tif", links=remote) == "https://h/items/far.tif"
    assert where("https://h/a b.tif?sig=1") == "https://h/a%20b.tif?sig=1"
    for same in ("s3://b/a b.tif", "/vsicurl/https://h/a.tif", "gs://b/x.tif"):
        assert where(same) == same
    monkeypatch.setattr(stac_items, "read_json", lambda *_: content)
    assert where("../red.tif", "https://h/a/b/item.json?sig=1") == "https://h/a/red.tif"
    item = pystac.Item.from_dict(content)
    assert stac_items.FoundItem(item, "x", "s3://b/a/b/item.json").address("../red.tif") == "s3://b/a/red.tif"
    monkeypatch.chdir(tmp_path / "a b")
    assert open_source(item).paths == tuple(str(tmp_path / f"a b/{name}.tif") for name in NAMES)


def test_alternate_addresses_are_tried_in_turn(tmp_path: Path) -> None:
    path = item_in(tmp_path)
    content = json.loads(path.read_text())
    for name, asset in content["assets"].items():
        asset |= {
            "href": f"gone/{name}.tif",
            "alternate": {"s3": {"href": f"no/{name}.tif"}, "d": {"href": f"{name}.tif"}},
        }
    path.write_text(json.dumps(content))
    assert open_source(path).paths == tuple(str(tmp_path / f"{name}.tif") for name in NAMES)
    content["assets"]["red"]["alternate"] = {"s3": {"href": "no/red.tif"}, "bad": 3}
    path.write_text(json.dumps(content))
    with pytest.raises(SwatheError, match=r"gone/red\.tif"):
        open_source(path, ["red"])


# --- what Items say of values -----------------------------------------------------------------------------------------

SAID: dict[str, dict[str, Any]] = {
    "raster 1": {"raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1, "unit": "reflectance"}]},
    "stac 1.1": {"bands": [{"nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1, "unit": "reflectance"}]},
    "of the asset": {"nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1, "unit": "reflectance"},
    "in parts": {"nodata": 0, "raster:scale": 1e-4, "bands": [{"raster:offset": -0.1, "unit": "Reflectance"}]},
    "as text": {"raster:bands": [{"nodata": "0", "scale": 1e-4, "offset": -0.1, "unit": "reflectance"}]},
}


@pytest.mark.parametrize("how", SAID)
def test_nodata_scale_and_offset_of_an_item_count(tmp_path: Path, how: str) -> None:
    source = open_source(item_in(tmp_path, **SAID[how]))
    assert source.nodata == (0, 0, 0)
    assert source.radiometry == (Radiometry(1e-4, -0.1, "reflectance"),) * 3
    valid = source.read(source.geobox.whole).valid
    assert not valid[:9, :9].any()
    assert valid.sum() == valid.size - 81
    scene = open_scene(item_in(tmp_path, **SAID[how]))
    np.testing.assert_array_equal(scene.valid, valid)
    assert (scene.attrs["scales"], scene.attrs["units"]) == ([1e-4] * 3, "reflectance")


def test_what_the_item_says_of_all_its_assets(tmp_path: Path) -> None:
    path = item_in(tmp_path, bands=[{"name": "B"}])
    content = json.loads(path.read_text())
    content["properties"] |= {"nodata": 0, "bands": [{"name": "B", "raster:scale": 0.5}, {"name": "C", "nodata": 9}]}
    path.write_text(json.dumps(content))
    assert open_source(path).nodata == (0, 0, 0)
    assert open_source(path).radiometry == (Radiometry(0.5),) * 3


def test_an_offset_that_is_applied_already_is_not_told(tmp_path: Path) -> None:
    """Earth Search adds the offset of Sentinel-2 to the pixels, and names it all the same."""
    path = item_in(tmp_path, **SAID["raster 1"])
    content = json.loads(path.read_text())
    content["properties"]["earthsearch:boa_offset_applied"] = True
    path.write_text(json.dumps(content))
    assert open_source(path).radiometry == (Radiometry(1e-4, 0.0, "reflectance"),) * 3


def test_a_file_s_own_words_count_and_the_item_s_are_told(tmp_path: Path) -> None:
    path = item_in(tmp_path, **SAID["raster 1"])
    for name in NAMES:
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as file:
            file.nodata, file.scales, file.offsets = 5, (0.5,), (2,)
    source = open_source(path, ["red"])
    assert (source.nodata, source.radiometry) == ((5,), (Radiometry(0.5, 2.0),))
    assert source.notes == (
        "nodata of red is 5 by its file, which counts, and 0 by its Item",
        "scale and offset of red are 0.5 and 2 by its file, which count, and 0.0001 and -0.1 by its Item",
    )


@pytest.mark.parametrize(
    "said",
    [{"raster:bands": 3}, {"raster:bands": [None, {"nodata": True, "scale": 0, "offset": "much"}]}, {"nodata": [0]},
     {"nodata": {}, "raster:scale": float("inf")}, {"bands": {"nodata": 0}}],
)  # fmt: skip
def test_what_makes_no_sense_is_passed_over(tmp_path: Path, said: dict[str, Any]) -> None:
    source = open_source(item_in(tmp_path, **said))
    assert source.nodata == (None,) * 3
    assert source.radiometry == (None,) * 3


def test_bands_of_one_file_have_their_own(tmp_path: Path) -> None:
    write_raster(tmp_path / "all.tif", pixels((3, *SHAPE)))
    told = [{"nodata": 7}, {"nodata": "nan", "unit": "K"}]
    path = write_item(tmp_path / "i.json", {"all": {"href": "all.tif", "raster:bands": told, "raster:scale": 2}})
    source = open_source(path)
    assert repr(source.nodata) == "(7.0, nan, None)"
    assert source.radiometry == (Radiometry(2.0), Radiometry(2.0, 0.0, "K"), Radiometry(2.0))
    assert source.read(source.geobox.whole).valid.all()


def test_scores_and_trainings_take_them(tmp_path: Path, bundle_of: Any) -> None:
    """An Item of a saved search and a Zarr group of one variable per band, with the nodata that they alone tell."""
    path = item_in(tmp_path, nodata=0)
    two = collection(tmp_path / "two.json", with_id(path, "a"), with_id(path, "b"))
    held = open_scene(path).drop_attrs().drop_vars("valid").to_dataset("band")
    for name in NAMES:
        held[name].attrs["_FillValue"] = 0
    held.to_zarr(tmp_path / "s.zarr", zarr_format=2)
    labels = np.random.default_rng(0).integers(0, 2, (1, *SHAPE), np.uint8)
    write_raster(tmp_path / "label.tif", labels)
    bundle = str(bundle_of("simple-unet", bands=3, dtype="uint16").path)
    rows = set()
    for number, scene in enumerate((path, f"{two}#b", tmp_path / "s.zarr")):
        words = ["evaluate", bundle, str(scene), str(tmp_path / "label.tif"), "-o", str(tmp_path / str(number)), "-q"]
        told = CliRunner().invoke(cli, words)
        assert told.exit_code == 0, told.output
        rows.add(next(line for line in told.output.splitlines() if line.startswith("| tiny")))
    assert len(rows) == 1
    for image in ("item.json", "two.json#b", "s.zarr"):
        classes = [{"name": "no", "color": "000000"}, {"name": "yes", "color": "FF0000"}]
        data = {"root": str(tmp_path), "image": image, "label": "label.tif"}
        settings = settings_of({"name": "x", "bands": list(NAMES), "classes": classes, "data": [data]})
        (sample,) = gather(settings)["train"]
        assert sample.source.nodata == (0, 0, 0)
        assert not sample.source.read(sample.geobox.whole).valid[:9, :9].any()
