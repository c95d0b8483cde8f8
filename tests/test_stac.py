"""STAC Items as scenes: which bands they give under which names, against the files themselves opened by rasterio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from helpers import pixels, write_item, write_raster
from rasterio.enums import ColorInterp

from models import SwatheError
from pipeline import open_maps, open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.io import stac, stac_items
from pipeline.io.scene import open_source

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
SHAPE = (70, 90)


def asset(href: str, *bands: dict[str, str], key: str = "eo:bands", **more: Any) -> dict[str, Any]:
    told = {key: list(bands)} if bands else {}
    return {"href": href, "type": TIFF, "roles": ["data"], **told, **more}


def write_bands(folder: Path, *names: str, shape: tuple[int, int] = SHAPE, resolution: float = 10.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        values = pixels((1, *shape), seed=seed + len(name))
        write_raster(folder / f"{name}.tif", values, transform=rasterio.Affine(resolution, 0, 5e5, 0, -resolution, 9e6))


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """As Earth Search has Sentinel-2: keys by colour, names by number, copies as JPEG 2000, two grids, pictures."""
    write_bands(tmp_path / "b", "B04", "B03", "B02", "B8A")
    write_bands(tmp_path / "b", "B11", shape=(35, 45), resolution=20)
    write_bands(tmp_path / "b", "TCI", "SCL")
    named = {"red": "B04", "green": "B03", "blue": "B02", "nir08": "B8A", "swir16": "B11"}
    assets = {key: asset(f"./b/{name}.tif", {"name": name, "common_name": key}) for key, name in named.items()}
    copies = {f"{key}-jp2": asset(f"./missing/{name}.jp2", {"name": name, "common_name": key}, type="image/jp2")
              for key, name in named.items()}  # fmt: skip
    others = {
        "visual": asset("./b/TCI.tif", {"name": "B04", "common_name": "red"}, roles=["visual"]),
        "scl": asset("./b/SCL.tif", roles=["cloud"]),
        "thumbnail": {"href": "./t.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "granule_metadata": {"href": "./m.xml", "type": "application/xml", "roles": ["metadata"]},
    }
    return write_item(tmp_path / "item.json", {**others, **assets, **copies})


def read(path: Path, *indexes: int) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(list(indexes) or None)


def test_all_bands_on_the_finest_grid_by_their_common_names(sentinel):
    scene = open_scene(sentinel)
    assert scene.band.values.tolist() == ["red", "green", "blue", "nir08", "swir16"]
    files = [sentinel.parent / f"b/{name}.tif" for name in ("B04", "B03", "B02", "B8A")]
    assert (scene.values[:4] == np.concatenate([read(file) for file in files])).all()
    assert (scene.values[4] == np.kron(read(sentinel.parent / "b/B11.tif")[0], np.ones((2, 2)))).all()
    assert scene.attrs["notes"] == ["resampled to the grid of 10 m, nearest: swir16 (20 m)"]
    assert (scene.rio.transform().a, scene.rio.crs.to_epsg()) == (10, 32736)


@pytest.mark.parametrize(
    ("bands", "files"),
    [
        (["blue", "red"], ["B02", "B04"]),
        (["B02", "b04"], ["B02", "B04"]),  # the bands' own names, in either case
        (["swir16"], ["B11"]),  # another grid, but alone
    ],
)
def test_bands_by_name_open_their_files_alone(sentinel, bands, files):
    for name in {"B04", "B03", "B02", "B8A", "B11"} - set(files):
        (sentinel.parent / f"b/{name}.tif").write_bytes(b"no raster")
    source = open_source(sentinel, bands)
    found = source.read(source.geobox.whole).data
    assert (found == np.concatenate([read(sentinel.parent / f"b/{name}.tif") for name in files])).all()


def test_a_sources_bands_are_found_by_all_their_names(sentinel):
    source = open_source(sentinel)
    for names in (["blue", "red"], ["B02", "B04"], ["b02", "RED"]):
        assert [band.path[-7:] for band in source.select(names).raster_bands] == ["B02.tif", "B04.tif"]
    assert open_source(sentinel, ["B02"]).identity() == source.select(["blue"]).identity()


def test_numbers_are_those_of_what_is_shown(sentinel):
    wide = open_scene(sentinel, bands=[4, "green"])
    assert wide.band.values.tolist() == ["nir08", "green"]
    with pytest.raises(SwatheError, match="no band 6; it has 5"):
        open_scene(sentinel, bands=[6])


def test_what_cannot_be_opened_is_left_out_of_all_but_not_of_what_is_named(tmp_path):
    """As the masks of Earth Search, whose copies lie where only those who pay may read."""
    write_bands(tmp_path, "B04", "SCL")
    assets = {"red": asset("B04.tif", {"common_name": "red"}), "scl": asset("SCL.tif"),
              "scl-jp2": asset("far/SCL.jp2", type="image/jp2"), "aot": asset("gone.tif")}  # fmt: skip
    item = write_item(tmp_path / "item.json", assets)
    source = open_source(item)
    assert source.bands == ("red", "scl")
    assert source.notes == ("left out, for they cannot be read: aot",)
    with pytest.raises(SwatheError, match=r"gone\.tif"):
        open_source(item, ["aot"])


def test_bands_of_one_common_name_keep_their_own(tmp_path):
    names = ("B05", "B06", "B07", "B8A")
    write_bands(tmp_path, *names)
    common = {"B8A": "nir08"}
    assets = {key: asset(f"{key}.tif", {"name": key, "common_name": common.get(key, "rededge")}) for key in names}
    item = write_item(tmp_path / "item.json", assets)
    assert open_source(item).bands == ("B05", "B06", "B07", "nir08")
    assert open_source(item, ["b06", "nir08"]).bands == ("b06", "nir08")
    assert open_source(item).select(["B07"]).raster_bands[0].path.endswith("B07.tif")
    with pytest.raises(SwatheError, match="several bands 'rededge'; name one of B05, B06, B07"):
        open_source(item, ["rededge"])
    key = "s1a-iw-grd-vv-20240101t000000-20240101t000025-052000-0648d0-001-cog"
    long = write_item(tmp_path / "long.json", {key: asset("B05.tif"), key.replace("vv", "vh"): asset("B06.tif")})
    assert open_source(long).bands == (key, key.replace("vv", "vh"))
    assert open_source(long, [key.replace("vv", "vh")]).raster_bands[0].path.endswith("B06.tif")


UNTOLD = ({}, {"raster:bands": [{}, {}, {}]}, {"bands": [{"data_type": "uint16"}] * 3}, {"bands": 5}, {"bands": "red"},
          {"bands": {"a": 1}}, {"eo:bands": [1, None, []]})  # fmt: skip


@pytest.mark.parametrize("told", UNTOLD)
def test_bands_that_an_item_does_not_name_are_the_file_s(tmp_path, told):
    values = pixels((3, *SHAPE), seed=4)
    write_raster(tmp_path / "rgb.tif", values, descriptions=("red", "green", "blue"))
    item = write_item(tmp_path / "item.json", {"image": asset("rgb.tif", **told)})
    assert open_source(item).bands == ("red", "green", "blue")
    assert (open_scene(item, bands=["blue", "image_1"]).values == values[[2, 0]]).all()


def test_both_lists_of_bands_and_an_alpha_that_is_told(tmp_path):
    values = pixels((4, *SHAPE), "uint8", seed=5)
    values[3] = np.where(values[3] > 100, 255, 0)
    write_raster(tmp_path / "rgba.tif", values, photometric="RGB", alpha="yes")
    told = [{"common_name": name} for name in ("red", "green", "blue", "alpha")]
    plain = [{"data_type": "uint8"}] * 4
    item = write_item(tmp_path / "item.json", {"image": asset("rgba.tif", bands=plain, **{"eo:bands": told})})
    assert open_source(item).bands == ("red", "green", "blue")


@pytest.mark.parametrize("place", [0, 1, 3])
def test_names_stay_with_their_bands_where_alpha_lies_between(tmp_path, place):
    values = pixels((4, *SHAPE), "uint8", seed=5)
    values[place] = np.where(values[place] > 100, 255, 0)
    names = ["red", "green", "blue"]
    names.insert(place, "alpha")
    path = write_raster(tmp_path / "rgba.tif", values, photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha if name == "alpha" else ColorInterp.undefined for name in names]
    item = write_item(tmp_path / "item.json", {"image": asset("rgba.tif", *({"common_name": name} for name in names))})
    assert open_source(item).bands == ("red", "green", "blue")
    assert (open_scene(item, ["blue", "red"]).values == values[[names.index("blue"), names.index("red")]]).all()


@pytest.mark.parametrize("roles", [["visual"], "visual", None, 3, [["data"]]])
def test_a_picture_will_do_where_nothing_is_measured(tmp_path, roles):
    write_raster(tmp_path / "v.tif", pixels((3, *SHAPE), "uint8"), descriptions=("red", "green", "blue"))
    item = write_item(tmp_path / "item.json", {"visual": asset("v.tif", roles=roles)})
    assert open_source(item).bands == ("red", "green", "blue")


def test_a_network_gets_its_bands_from_whatever_grid_they_lie_on(tmp_path, bundle_of):
    """As Landsat and Maxar, whose panchromatic band is finer than all others."""
    write_bands(tmp_path, "R", "G", "B")
    write_bands(tmp_path, "P", shape=(140, 180), resolution=5)
    common = {"R": "red", "G": "green", "B": "blue", "P": "pan"}
    item = write_item(tmp_path / "l.json", {k: asset(f"{k}.tif", {"common_name": name}) for k, name in common.items()})
    assert (open_source(item).bands, open_source(item).geobox.shape) == (("red", "green", "blue", "pan"), (140, 180))
    for keywords in ({}, {"bands": ["red", "green", "blue"]}, {"bands": ["R", "G", "B"]}):
        planned = plan(item, bundle_of("simple-unet", bands=3, dtype="uint16"), **keywords)
        assert planned.source.geobox.shape == SHAPE


def test_a_network_whose_bands_cannot_be_had_says_why(tmp_path, bundle_of):
    write_bands(tmp_path, "R", "G")
    assets = {"R": asset("R.tif", {"common_name": "red"}), "G": asset("G.tif", {"common_name": "green"}),
              "B": asset("gone.tif", {"common_name": "blue"})}  # fmt: skip
    item = write_item(tmp_path / "item.json", assets)
    with pytest.raises(SwatheError, match=r"the scene has 2: red, green(.|\n)*gone\.tif"):
        plan(item, bundle_of("simple-unet", bands=3, dtype="uint16"))
    with pytest.raises(SwatheError, match="needs 3 bands"):
        plan(item, bundle_of("simple-unet", bands=3, dtype="uint16"), bands=["red"])


def test_many_bands_of_one_file_open_it_once(tmp_path, monkeypatch):
    opened, before = [], stac.open_rasters
    monkeypatch.setattr(stac, "open_rasters", lambda paths, **how: opened.append(paths) or before(paths, **how))
    write_raster(tmp_path / "enmap.tif", pixels((40, 8, 8)))
    item = write_item(tmp_path / "e.json", {"s": asset("enmap.tif", *({"name": f"B{n}"} for n in range(40)))})
    assert len(open_source(item).bands) == 40
    assert len(open_source(item, [f"B{n}" for n in range(40)]).bands) == 40
    assert len(opened) == 2


def test_an_asset_of_many_bands_as_stac_1_1_has_them(tmp_path):
    values = pixels((4, *SHAPE), seed=3)
    write_raster(tmp_path / "naip.tif", values)
    names = ("red", "green", "blue", "nir")
    bands = [{"name": f"b{n}", "eo:common_name": name} for n, name in enumerate(names, 1)]
    item = write_item(tmp_path / "naip.json", {"image": asset("naip.tif", *bands, key="bands")}, "1.1.0")
    scene = open_scene(item, bands=["nir", "b1"])
    assert scene.band.values.tolist() == ["nir", "b1"]
    assert (scene.values == values[[3, 0]]).all()
    assert open_scene(item).band.values.tolist() == list(names)
    assert (open_scene(item).values == values).all()


def test_assets_without_any_word_on_bands_go_by_their_keys(tmp_path):
    write_bands(tmp_path, "vv", "vh")
    plain = {key: {"href": f"{key}.tif"} for key in ("vv", "vh")}
    item = write_item(tmp_path / "item.geojson", plain)
    assert open_scene(item, bands=["vh"]).band.values.tolist() == ["vh"]
    assert open_source(f"file://{item}").bands == ("vv", "vh")


def test_a_map_of_an_item_is_that_of_its_files(sentinel, bundle_of, tmp_path):
    bundle = bundle_of("simple-unet", bands=3, dtype="uint16")
    names = bundle.metadata.band_names
    report = run(sentinel, bundle, tmp_path / "item.zarr", bands=["red", "green", "blue"], show=False, engine="torch")
    files = [str(sentinel.parent / f"b/{name}.tif") for name in ("B04", "B03", "B02")]
    run(files, bundle, tmp_path / "files.zarr", bands=[1, 2, 3], show=False, engine="torch")
    assert len(names) == 3
    assert open_maps(tmp_path / "item.zarr").equals(open_maps(tmp_path / "files.zarr"))
    assert report.blocks == 1
    told = CliRunner().invoke(cli, ["info", str(sentinel)]).output
    assert "red" in told
    assert "swir16" in told  # that it is left out


@pytest.mark.parametrize(
    ("path", "may_be"),
    [
        ("a/item.json", True),
        ("https://h/x.GEOJSON?sig=1", True),
        ("https://h/collections/c/items/S2A_1.0?sig=a/b", True),
        ("https://h/items/scene.tif", False),
        ("https://h/collections/c/items/id/B04.tif", False),
        ("https://h/items/x.zarr", False),
        ("data/items/scene", False),
        ("item.json.tif", False),
    ],
)
def test_which_paths_may_be_items(path, may_be):
    assert stac_items.is_item(path) is may_be


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[]", "no STAC Item"),
        (b'{"type": "FeatureCollection", "features": []}', "no STAC Item"),
        (b'{"type": "Feature", "stac_version": "1.0.0"}', "no STAC Item"),
        (json.dumps({"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "d", "links": []}).encode(),
         "no STAC Item"),
    ],
)  # fmt: skip
def test_what_is_no_item(tmp_path, content, said):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SwatheError, match=said) as refusal:
        open_scene(tmp_path / "x.json")
    assert str(refusal.value).count("\n") <= 1


def test_items_that_cannot_be_used(sentinel, tmp_path):
    with pytest.raises(SwatheError, match=r"no such file: .*none\.json"):
        open_scene(tmp_path / "none.json")
    with pytest.raises(SwatheError, match="no band 'purple'; it has: red, green, blue, nir08, swir16"):
        open_scene(sentinel, bands=["purple"])
    write_bands(sentinel.parent / "b", "B11", shape=(36, 45), resolution=20)
    with pytest.raises(SwatheError, match="covers another extent"):
        open_scene(sentinel, bands=["red", "swir16"])
    assert "left out, for " in str(open_scene(sentinel).notes)
    with pytest.raises(SwatheError, match="no bands asked for"):
        open_scene(sentinel, bands=[])
    bare = write_item(tmp_path / "bare.json", {"m": {"href": "m.xml", "type": "application/xml"}})
    with pytest.raises(SwatheError, match="no asset that is a raster; it has: m"):
        open_scene(bare)
    gone = write_item(tmp_path / "gone.json", {"a": asset("gone.tif")})
    with pytest.raises(SwatheError, match=r"gone\.tif"):
        open_scene(gone)
