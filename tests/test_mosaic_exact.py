"""Random scenes as one: the pixels of odc-stac and GDAL's warper, and one map whatever blocks, workers and order."""

from datetime import UTC, datetime
from pathlib import Path

import geopandas as gpd
import numpy as np
import odc.geo.geobox
import odc.stac
import pystac
import pytest
import rasterio
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from shapely.geometry import Point, box, mapping

from models.errors import SceneError
from pipeline.catalog.index import IndexedScene, write_index
from pipeline.catalog.stamps import content_digest
from pipeline.grid.geobox import Window
from pipeline.inference.run import run
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.open import open_mosaic
from pipeline.store.store import open_store

LANDSAT = Path(__file__).parents[2] / "shared/data/landsat8_redcross/scenes/C_rgb_u16.tif"
NORTH, EAST = "EPSG:32632", "EPSG:32633"  # about 12 degrees east, on the border of both
PLACE = {NORTH: (733000, 5000000), EAST: (265500, 5000300)}
STEPS = (0, 0.25, 0.5, 0.7)  # of a pixel: phases of scenes

scenes_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "crs": st.sampled_from([NORTH, NORTH, EAST]),
            "pixel": st.sampled_from([10, 10, 12]),
            "left": st.integers(-20, 60),
            "top": st.integers(-20, 60),
            "phase": st.tuples(st.sampled_from(STEPS), st.sampled_from(STEPS)),
            "shape": st.tuples(st.integers(2, 70), st.integers(2, 70)),
            "holes": st.booleans(),
            "priority": st.integers(0, 2),
        }
    ),
    min_size=1,
    max_size=5,
)


def write_scene(path, number, facts):
    """Write a scene whose values change slowly, with nodata 0, and return it."""
    (height, width), (x, y) = facts["shape"], PLACE[facts["crs"]]
    down, across = np.mgrid[:height, :width]
    waves = np.sin(down / 5 + number) * np.cos(across / 7)
    values = np.stack([20000 + 3000 * number + 4000 * waves, 9000 + 2000 * waves]).astype("uint16")
    if facts["holes"]:
        values[:, height // 3 : height // 2, : width // 2] = 0
    left, top = ((facts[side] + phase) * 10 for side, phase in zip(("left", "top"), facts["phase"], strict=True))
    transform = Affine(facts["pixel"], 0, x + left, 0, -facts["pixel"], y - top)
    profile = {"driver": "GTiff", "count": 2, "height": height, "width": width, "dtype": "uint16", "nodata": 0}
    with rasterio.open(path, "w", crs=facts["crs"], transform=transform, **profile) as file:
        file.write(values)
    source = open_rasters([str(path)])
    digest = content_digest(source)
    return IndexedScene(f"s{number}", source, box(11, 45, 13, 46), priority=facts["priority"], digest=digest)


def index_of(folder, drawn):
    return write_index([write_scene(folder / f"{n}.tif", n, one) for n, one in enumerate(drawn)],
                       folder / "scenes.parquet")  # fmt: skip


def first_valid_of_gdal(mosaic, method):
    """Warp each scene by GDAL and take the first that is valid, in the mosaic's order."""
    geobox, data = mosaic.geobox, np.zeros((2, *mosaic.geobox.shape), "uint16")
    where = {"crs": geobox.crs, "transform": geobox.affine, "height": geobox.height, "width": geobox.width}
    steady = {"XSCALE": 1, "YSCALE": 1, "SOURCE_EXTRA": 20, "tolerance": 1e-9, "resampling": Resampling[method]}
    for number in mosaic.order:
        with rasterio.open(mosaic.scene(number).source.paths[0]) as file, WarpedVRT(file, **where, **steady) as warped:
            data = np.where((data != 0).any(axis=0), data, warped.read())
    return data


ON_BORDERS = {"crs": NORTH, "pixel": 12, "left": -1, "top": 0, "phase": (0.7, 0), "shape": (2, 35)}


@settings(max_examples=8)
@example(drawn=[ON_BORDERS | {"holes": False, "priority": 0}], method="nearest", side=7)  # a hair before a border
@given(drawn=scenes_strategy, method=st.sampled_from(["nearest", "bilinear"]), side=st.integers(7, 64))
def test_first_valid_is_that_of_gdal_whatever_the_cut(tmp_path, drawn, method, side):
    drawn = [one | {"pixel": 10} for one in drawn] if method == "bilinear" else drawn
    mosaic = open_mosaic(index_of(tmp_path, drawn), crs=NORTH, resolution=10, resampling=method)
    found = np.zeros((2, *mosaic.geobox.shape), "uint16")
    for window in mosaic.geobox.whole.split(side):
        found[:, *window.slices] = mosaic.read(window).data
    apart = np.abs(found.astype(int) - first_valid_of_gdal(mosaic, method))
    assert apart.max() <= (0 if method == "nearest" else 1)


@pytest.mark.filterwarnings("ignore:The 'shapely:DeprecationWarning")
@settings(max_examples=4)
@given(drawn=scenes_strategy)
def test_first_valid_is_that_of_odc_stac(tmp_path, drawn):
    """Scenes in one CRS: odc-stac warps with GDAL's approximation, which moves pixels between two."""
    drawn = [one | {"crs": NORTH, "priority": 0} for one in drawn]
    mosaic = open_mosaic(index_of(tmp_path, drawn), crs=NORTH, resolution=10)
    moment, grid = datetime(2024, 1, 1, tzinfo=UTC), mosaic.geobox
    items = []
    for number in mosaic.order:
        scene = mosaic.scene(number)
        own = scene.source.geobox
        west, south, east, north = own.bounds(4326)
        item = pystac.Item(scene.id, mapping(box(west, south, east, north)), [west, south, east, north], moment, {})
        item.properties |= {"proj:code": NORTH}
        facts = {"proj:shape": list(own.shape), "proj:transform": list(own.affine)[:6]}
        item.add_asset("image", pystac.Asset(scene.source.paths[0], media_type=pystac.MediaType.GEOTIFF, roles=["data"],
                                             extra_fields=facts))  # fmt: skip
        items.append(item)
    target = odc.geo.geobox.GeoBox(grid.shape, grid.affine, NORTH)
    config = {"*": {"assets": {"*": {"data_type": "uint16", "nodata": 0}}}}
    loaded = odc.stac.load(items, bands=["image"], geobox=target, stac_cfg=config, groupby="time")
    np.testing.assert_array_equal(mosaic.read(grid.whole).data[0], np.nan_to_num(loaded["image"].values[0]))


def arrays_of(path):
    store = open_store(str(path))[0]
    return {name: store.read_array(name, Window.of(store.geobox.shape)) for name in ("class_map", "probability")}


@settings(max_examples=2)
@given(drawn=scenes_strategy, seed=st.integers(0, 99))
def test_the_map_is_the_same_for_every_block_and_order(tmp_path_factory, bundle_of, drawn, seed):
    folder = tmp_path_factory.mktemp("maps")
    facts = [one | {"shape": tuple(30 + side for side in one["shape"])} for one in drawn]
    whole = index_of(folder, facts)
    shuffled = np.random.default_rng(seed).permutation(len(facts))
    other = write_index([whole.scene(number) for number in shuffled], folder / "shuffled.parquet")
    options = {"show": False, "allow_mismatch": True, "overviews": False, "threads": 1, "engine": "torch"}
    bundle, maps = bundle_of(bands=2), []
    for name, index, block in (("one", whole, 1024), ("many", other, 32)):
        mosaic = open_mosaic(index, crs=NORTH, resolution=10)
        run(mosaic, bundle, folder / f"{name}.zarr", tile=32, block=block, bands=["band_1", "band_2"], **options)
        maps.append(arrays_of(folder / f"{name}.zarr"))
    for name, array in maps[0].items():
        np.testing.assert_array_equal(array, maps[1][name])


@pytest.mark.slow
def test_the_map_is_the_same_for_every_number_of_workers(tmp_path, bundle_of):
    facts = {"crs": NORTH, "pixel": 10, "phase": (0, 0.25), "shape": (60, 70), "holes": True, "priority": 0}
    drawn = [
        facts | {"left": left, "top": left // 2, "crs": crs} for left, crs in ((0, NORTH), (40, EAST), (70, NORTH))
    ]
    mosaic = open_mosaic(index_of(tmp_path, drawn), crs=NORTH, resolution=10, resampling="bilinear")
    options = {"show": False, "allow_mismatch": True, "threads": 1, "tile": 32, "block": 32, "engine": "torch"}
    maps = []
    for workers in (None, 2):
        run(mosaic, bundle_of(bands=2), tmp_path / f"{workers}.zarr", workers=workers, bands=["band_1", "band_2"],
            **options)  # fmt: skip
        maps.append(arrays_of(tmp_path / f"{workers}.zarr"))
    for name, array in maps[0].items():
        np.testing.assert_array_equal(array, maps[1][name])


def test_classes_of_a_map_are_not_taken(tmp_path, bundle_of):
    facts = {"crs": NORTH, "pixel": 10, "left": 0, "top": 0, "phase": (0, 0), "holes": True, "priority": 0}
    index = index_of(tmp_path, [facts | {"shape": (40, 50)}])
    bundle, path = bundle_of(bands=2), str(tmp_path / "s0.zarr")
    options = {"show": False, "allow_mismatch": True, "overviews": False, "threads": 1, "engine": "torch"}
    run(open_mosaic(index), bundle, path, bands=["band_1", "band_2"], **options)
    store, metadata = open_store(path)
    classes = store.read_array("class_map", store.geobox.whole)[0]
    value = int(np.bincount(classes[classes < 255]).argmax())
    for name in (path, str(tmp_path / "{id}.zarr")):
        mosaic = open_mosaic(index, mask={name: [metadata.class_names[value]]})
        valid = open_mosaic(index).read(mosaic.geobox.whole).valid
        np.testing.assert_array_equal(mosaic.read(mosaic.geobox.whole).valid, valid & (classes != value))
    with pytest.raises(SceneError, match="no class 'cloud'"):
        open_mosaic(index, mask=f"{path}=cloud")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.skipif(not LANDSAT.exists(), reason="needs ../shared/data")
def test_a_landsat_scene_in_twelve_pieces_is_that_scene(tmp_path, bundle_of):
    with rasterio.open(LANDSAT) as file:
        values = file.read((1, 2), window=((2000, 2300), (2000, 2400)))
    assert (values != 0).mean() > 0.5
    transform, profile = Affine(30, 0, 600000, 0, -30, 2000000), {"driver": "GTiff", "count": 2, "crs": "EPSG:32618"}
    scenes = []
    for number, (top, left) in enumerate(np.ndindex(3, 4)):
        part = values[:, top * 90 : top * 90 + 120, left * 95 : left * 95 + 115]
        path, there = tmp_path / f"{number}.tif", transform * Affine.translation(left * 95, top * 90)
        with rasterio.open(path, "w", height=part.shape[1], width=part.shape[2], dtype=part.dtype, nodata=0,
                           transform=there, **profile) as file:  # fmt: skip
            file.write(part)
        source = open_rasters([str(path)])
        scenes.append(IndexedScene(f"s{number}", source, box(-75, 17, -73, 19), digest=content_digest(source)))
    with rasterio.open(tmp_path / "whole.tif", "w", height=300, width=400, dtype=values.dtype, nodata=0,
                       transform=transform, **profile) as file:  # fmt: skip
        file.write(values)
    options = {"show": False, "allow_mismatch": True, "overviews": False, "threads": 1, "engine": "torch",
               "bands": ["band_1", "band_2"], "block": 128, "tile": 64}  # fmt: skip
    mosaic = open_mosaic(write_index(scenes, tmp_path / "scenes.parquet"))
    for scene, name in ((str(tmp_path / "whole.tif"), "whole"), (mosaic, "pieces")):
        run(scene, bundle_of(bands=2), tmp_path / f"{name}.zarr", **options)
    whole, pieces = (arrays_of(tmp_path / f"{name}.zarr") for name in ("whole", "pieces"))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, pieces[name])


def test_within_an_area_the_map_is_that_without_one(tmp_path, bundle_of):
    """What lies around it is seen by the network, and is nodata."""
    values = np.random.default_rng(0).integers(1, 5000, (2, 90, 110)).astype("uint16")
    path, transform = tmp_path / "a.tif", Affine(10, 0, 500000, 0, -10, 5000000)
    with rasterio.open(path, "w", "GTiff", 110, 90, 2, NORTH, transform, "uint16", nodata=0) as file:
        file.write(values)
    opened = open_rasters([str(path)])
    index = write_index([IndexedScene("a", opened, box(11, 45, 13, 46), digest=content_digest(opened))],
                        tmp_path / "scenes.parquet")  # fmt: skip
    round_area = Point(500400, 4999500).buffer(250)
    gpd.GeoDataFrame(geometry=[round_area], crs=NORTH).to_file(tmp_path / "area.gpkg")
    bounds, bundle = open_mosaic(index).geobox.bounds(), bundle_of(bands=2)
    options = {"show": False, "allow_mismatch": True, "overviews": False, "bands": ["band_1", "band_2"], "block": 32}
    maps = []
    for name, area in (("whole", None), ("part", tmp_path / "area.gpkg")):
        mosaic = open_mosaic(index, area=area, bounds=bounds)
        run(mosaic, bundle, tmp_path / f"{name}.zarr", **options)
        maps.append(arrays_of(tmp_path / f"{name}.zarr"))
    inside = mosaic.area.inside(mosaic.geobox.whole)
    for name, whole in maps[0].items():
        np.testing.assert_array_equal(maps[1][name][:, inside], whole[:, inside])
        assert (maps[1][name][:, ~inside] == 255).all()
