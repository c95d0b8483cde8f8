"""STAC Items as scenes: which bands they give under which names, against the files themselves opened by rasterio."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from helpers import pixels, write_raster

from models import SwatheError
from pipeline import open_maps, open_scene, run
from pipeline.cli import cli
from pipeline.grid.geobox import Window
from pipeline.reading.scene import open_source, select

TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
SHAPE = (70, 90)


def asset(href: str, *bands: dict[str, str], key: str = "eo:bands", **more: Any) -> dict[str, Any]:
    told = {key: list(bands)} if bands else {}
    return {"href": href, "type": TIFF, "roles": ["data"], **told, **more}


def write_item(path: Path, assets: dict[str, Any], version: str = "1.0.0") -> Path:
    content = {"type": "Feature", "stac_version": version, "id": "scene", "geometry": None, "links": [],
               "properties": {"datetime": "2026-11-21T00:00:00Z"}, "assets": assets}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


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


def test_all_bands_of_the_finest_grid_by_their_common_names(sentinel):
    scene = open_scene(sentinel)
    assert scene.band.values.tolist() == ["red", "green", "blue", "nir08"]
    files = [sentinel.parent / f"b/{name}.tif" for name in ("B04", "B03", "B02", "B8A")]
    assert (scene.values == np.concatenate([read(file) for file in files])).all()
    assert scene.attrs["notes"] == ["left out, for they lie on other grids: swir16"]
    assert (scene.rio.transform().a, scene.rio.crs.to_epsg()) == (10, 32736)


@pytest.mark.parametrize(
    ("bands", "files"),
    [
        (["blue", "red"], ["B02", "B04"]),
        (["B02", "b04"], ["B02", "B04"]),  # the bands' own names, in either case
        (["swir16"], ["B11"]),  # another grid, but alone
        ([4, "green"], ["B8A", "B03"]),
    ],
)
def test_bands_by_name_open_their_files_alone(sentinel, bands, files):
    for name in {"B04", "B03", "B02", "B8A", "B11"} - set(files):
        (sentinel.parent / f"b/{name}.tif").write_bytes(b"no raster")
    source = open_source(sentinel, bands)
    found = source.read(Window(0, source.geobox.height, 0, source.geobox.width)).data
    assert (found == np.concatenate([read(sentinel.parent / f"b/{name}.tif") for name in files])).all()


def test_a_source_answers_to_all_names_of_its_bands(sentinel):
    source = open_source(sentinel)
    for names in (["blue", "red"], ["B02", "B04"], ["b02", "RED"]):
        assert [layer.path[-7:] for layer in select(source, names).layers] == ["B02.tif", "B04.tif"]
    assert open_source(sentinel, ["B02"]).identity() == select(source, ["blue"]).identity()


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
    names = bundle.facts.band_names
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
    with pytest.raises(SwatheError, match="lies on another grid"):
        open_scene(sentinel, bands=["red", "swir16"])
    with pytest.raises(SwatheError, match="no bands asked for"):
        open_scene(sentinel, bands=[])
    bare = write_item(tmp_path / "bare.json", {"m": {"href": "m.xml", "type": "application/xml"}})
    with pytest.raises(SwatheError, match="no asset that is a raster of measured values; it has: m"):
        open_scene(bare)
    short = write_item(tmp_path / "short.json", {"a": asset("b/B04.tif", {"name": "x"}, {"name": "y"})})
    with pytest.raises(SwatheError, match="has 1 bands; its Item speaks of band 2"):
        open_scene(short)
    gone = write_item(tmp_path / "gone.json", {"a": asset("gone.tif")})
    with pytest.raises(SwatheError, match=r"gone\.tif"):
        open_scene(gone)
