"""How a mosaic is opened: its grid, area, masks and composites; what is refused; the command's options."""

import warnings
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point, box

import swathe
from models.errors import ArgumentError, SceneError
from pipeline.catalog.index import IndexedScene, write_index
from pipeline.catalog.stamps import Stamps, content_digest, stamps_of
from pipeline.cli.app import cli
from pipeline.grid.geobox import Window
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.area import Area
from pipeline.mosaic.open import open_mosaic

UTM = "EPSG:32633"
ORIGIN = 500000, 5000000


def scene(path, values, left=0, top=0, crs=UTM, pixel=10, name=None, nodata=0, **facts):
    """Write a raster at so many metres to the right of and below a point, and return it as an indexed scene."""
    values = np.asarray(values)
    values = values[None] if values.ndim == 2 else values
    profile = {"driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2]}
    transform = Affine(pixel, 0, ORIGIN[0] + left, 0, -pixel, ORIGIN[1] - top)
    with rasterio.open(path, "w", dtype=values.dtype, crs=crs, transform=transform, nodata=nodata, **profile) as file:
        file.write(values)
    source = open_rasters([str(path)])
    return IndexedScene(name or path.stem, source, box(14, 45, 15, 46), digest=content_digest(source), **facts)


def index_of(folder, *scenes):
    return write_index(scenes, folder / "scenes.parquet")


def full(value, shape=(40, 50), dtype="uint16"):
    return np.full(shape, value, dtype)


@pytest.fixture
def three(tmp_path):
    """Three scenes of one place, each of one value, that differ in date, cloud and priority."""
    dates = {
        "old": ("2020-01-01T00:00:00Z", 5.0),
        "new": ("2024-01-01T00:00:00Z", 80.0),
        "clear": ("2022-01-01T00:00:00Z", 0.0),
    }
    scenes = [scene(tmp_path / f"{name}.tif", full(value), datetime=when, cloud_cover=cloud)
              for value, (name, (when, cloud)) in enumerate(dates.items(), 10)]  # fmt: skip
    return index_of(tmp_path, *scenes)


@pytest.mark.parametrize(
    ("composite", "value"), [("first", 10), ("latest", 11), ("least-cloudy", 12), ("median", 11), ("mean", 11)]
)
def test_a_composite_takes_the_scene_that_it_is_named_for(three, composite, value):
    mosaic = open_mosaic(three.path, composite=composite)
    assert (mosaic.read(mosaic.geobox.whole).data == value).all()


def test_priority_comes_before_all_else(tmp_path, three):
    raised = scene(tmp_path / "raised.tif", full(99), priority=1, datetime="2021-01-01T00:00:00Z", cloud_cover=50.0)
    index = index_of(tmp_path, *(three.scene(number) for number in range(3)), raised)
    for composite in ("first", "latest", "least-cloudy"):
        assert (open_mosaic(index, composite=composite).read(Window(0, 5, 0, 5)).data == 99).all()


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 5), rows=st.integers(1, 30))
@pytest.mark.parametrize("composite", ["mean", "median"])
def test_mean_and_median_are_those_of_numpy_whatever_the_strip(tmp_path, monkeypatch, composite, seed, count, rows):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (count, 2, 30, 20)).astype("uint16")
    index = index_of(tmp_path, *(scene(tmp_path / f"{n}.tif", one) for n, one in enumerate(values)))
    monkeypatch.setattr("pipeline.mosaic.composite.STACK_BYTES", rows * count * 2 * 20 * 8)
    pixels = open_mosaic(index, composite=composite).read(Window(0, 30, 0, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels that no scene observed
        wanted = getattr(np, f"nan{composite}")(np.where(values == 0, np.nan, values), axis=0)
    np.testing.assert_array_equal(pixels.data, np.floor(np.nan_to_num(wanted) + 0.5))
    np.testing.assert_array_equal(pixels.valid, (values != 0).any(axis=(0, 1)))


def test_runs_over_neighbouring_areas_share_one_grid(tmp_path):
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(1), 3, 4), scene(tmp_path / "b.tif", full(1), 1501, 7))
    west, east = (open_mosaic(index, bounds=(ORIGIN[0] + start, ORIGIN[1] - 300, ORIGIN[0] + start + 123, ORIGIN[1]))
                  for start in (6, 1555))  # fmt: skip
    apart = ~west.geobox.affine * east.geobox.affine
    assert apart.c == round(apart.c)
    assert west.geobox.affine.c % 10 == 0  # of scenes of two grids: the origin of the CRS


def test_scenes_that_share_a_grid_are_read_as_they_are(tmp_path):
    values = np.arange(1, 2001, dtype="uint16").reshape(40, 50)
    index = index_of(tmp_path, scene(tmp_path / "a.tif", values, 15, 5), scene(tmp_path / "b.tif", values, 1015, 405))
    mosaic = open_mosaic(index, bounds=(ORIGIN[0], ORIGIN[1] - 1000, ORIGIN[0] + 2000, ORIGIN[1]))
    assert mosaic.geobox.affine.c % 10 == 5
    np.testing.assert_array_equal(mosaic.read(mosaic.geobox.whole).data[0, 1:41, 2:52], values)


def test_a_grid_is_taken_from_a_scene(tmp_path):
    like = scene(tmp_path / "like.tif", full(1, (9, 7)), 33, 44, pixel=25)
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(1)))
    assert open_mosaic(index, like=like.source.paths[0]).geobox == like.source.geobox
    with pytest.raises(ArgumentError, match="leave out --crs"):
        open_mosaic(index, like=like.source.paths[0], crs=UTM)


def test_bounds_across_the_antimeridian_are_the_shortest(tmp_path):
    index = index_of(tmp_path, *(scene(tmp_path / f"{zone}.tif", full(7), left, 0, f"EPSG:{zone}", 100)
                                 for zone, left in ((32660, 200000), (32601, -205000))))  # fmt: skip
    mosaic = open_mosaic(index, crs="EPSG:4326", resolution=0.001)
    assert mosaic.geobox.width < 2000
    touched = mosaic.read(mosaic.geobox.whole).valid
    assert touched[:, :60].any()
    assert touched[:, -60:].any()


def test_only_the_area_is_planned_and_read(tmp_path):
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(5, (100, 120))))
    inside = Point(ORIGIN[0] + 300, ORIGIN[1] - 300).buffer(195)
    gpd.GeoDataFrame(geometry=[inside], crs=UTM).to_crs(4326).to_file(tmp_path / "area.gpkg")
    bounds = ORIGIN[0], ORIGIN[1] - 1000, ORIGIN[0] + 1200, ORIGIN[1]
    mosaic = open_mosaic(index, area=tmp_path / "area.gpkg", bounds=bounds)
    pixels = mosaic.read(mosaic.geobox.whole)
    rows, columns = np.mgrid[:100, :120] + 0.5
    distance = np.hypot(rows - 30, columns - 30)
    assert pixels.valid[distance < 19].all()
    assert not pixels.valid[distance > 20].any()
    assert (pixels.data[0][~pixels.valid] == 0).all()
    np.testing.assert_array_equal(mosaic.blocks_touched(50), [[True, False, False], [False, False, False]])
    assert (
        mosaic.identity()
        != open_mosaic(index, bounds=(ORIGIN[0], ORIGIN[1] - 1000, ORIGIN[0] + 1200, ORIGIN[1])).identity()
    )


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(-20, 220), st.integers(-20, 220)), min_size=3, max_size=6),
       st.tuples(*[st.integers(0, 199)] * 4))  # fmt: skip
def test_no_window_changes_which_pixels_lie_in_an_area(points, corners):
    from shapely.geometry import MultiPoint

    area = Area(MultiPoint(points).convex_hull.buffer(3.3).wkb)
    (top, bottom), (left, right) = sorted(corners[:2]), sorted(corners[2:])
    window = Window(top, bottom + 1, left, right + 1)
    np.testing.assert_array_equal(area.inside(window), area.inside(Window(0, 200, 0, 200))[window.slices])


def test_values_of_a_band_are_not_taken(tmp_path):
    """A band of codes at twice the pixel's side, as Sentinel-2's SCL."""
    codes = np.zeros((40, 50), "uint16") + 4
    codes[:10] = 9
    first = scene(tmp_path / "a.tif", [full(1), codes], name="a", datetime="2020-01-01T00:00:00Z")
    second = scene(tmp_path / "b.tif", [full(2), codes[::-1]], name="b", datetime="2021-01-01T00:00:00Z")
    mosaic = open_mosaic(index_of(tmp_path, first, second), mask="band_2=3,9").select(["band_1"])
    data = mosaic.read(mosaic.geobox.whole).data[0]
    assert (data[:10] == 2).all()
    assert (data[10:] == 1).all()


def test_a_mask_may_be_coarser_than_the_bands(tmp_path):
    codes = np.zeros((20, 25), "uint8") + 4
    codes[3, 4] = 8
    for name, values, pixel in (("B04", full(1), 10), ("SCL", codes, 20)):
        scene(tmp_path / f"{name}.tif", values, pixel=pixel)
    source = open_rasters([str(tmp_path / "B04.tif"), str(tmp_path / "SCL.tif")])
    index = index_of(tmp_path, IndexedScene("s", source, box(14, 45, 15, 46), digest="1"))
    mosaic = open_mosaic(index, mask={source.bands[1]: 8}).select([source.bands[0]])
    missing = ~mosaic.read(mosaic.geobox.whole).valid
    assert missing[6:8, 8:10].all()
    assert missing.sum() == 4


def test_scenes_of_other_kinds_are_refused_by_name(tmp_path):
    first = scene(tmp_path / "a.tif", full(1))
    for name, other, told in [
        ("bands", [full(1), full(2)], "band_1, band_2"),
        ("type", full(1, dtype="uint8"), "uint8"),
    ]:
        index = index_of(tmp_path, first, scene(tmp_path / "b.tif", other, 100))
        with pytest.raises(SceneError, match=f"the same {name}.*a has .*; b has {told}"):
            open_mosaic(index)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"resolution": 1e-6}, SceneError, "coarser --resolution"),
        ({"resolution": -1}, ArgumentError, "positive"),
        ({"crs": "EPSG:1"}, ArgumentError, "not a CRS"),
        ({"crs": "EPSG:4326"}, ArgumentError, "give --resolution in its units"),
        ({"bounds": (0, 0, 10, 10)}, SceneError, "none of the 1 scenes"),
        ({"bounds": (3, 0, 1, 10)}, ArgumentError, "west, south, east"),
        ({"composite": "newest"}, ArgumentError, "least-cloudy"),
        ({"mask": "SCL"}, SceneError, "SCL=3,8"),
        ({"mask": "SCL=3"}, SceneError, "no band 'SCL'"),
        ({"mask": "band_1=cloud"}, SceneError, "numbers"),
        ({"mask": "clouds.zarr=cloud"}, SceneError, "no such store"),
        ({"area": "none.gpkg"}, SceneError, "no such file"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, options, kind, words):
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(1)))
    with pytest.raises(kind, match=words):
        open_mosaic(index, **options)


def test_an_area_elsewhere_is_refused(tmp_path):
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(1)))
    gpd.GeoDataFrame(geometry=[box(3, 3, 4, 4)], crs=4326).to_file(tmp_path / "area.gpkg")
    with pytest.raises(SceneError, match="no scene lies in the area"):
        open_mosaic(index, area=tmp_path / "area.gpkg")


def test_an_index_without_scenes_is_refused(tmp_path):
    with pytest.raises(SceneError, match="no scenes"):
        open_mosaic(index_of(tmp_path))


def test_the_command_takes_an_index(tmp_path, bundle_of):
    index = index_of(tmp_path, scene(tmp_path / "a.tif", full(9), 5), scene(tmp_path / "b.tif", full(8), 500))
    bundle = str(bundle_of(bands=1).path)
    options = ["--allow-mismatch", "--resolution", "20", "--composite", "mean"]
    shown = CliRunner().invoke(cli, ["plan", index.path, "-m", bundle, *options])
    assert shown.exit_code == 0, shown.output
    assert "2 of 2 scenes of scenes.parquet, composite mean" in shown.output
    assert "(20.0, 0.0" in shown.output
    refused = CliRunner().invoke(cli, ["plan", str(tmp_path / "a.tif"), "-m", bundle, "--composite", "mean"])
    assert "--composite is of a mosaic" in refused.output
    assert swathe.open_mosaic is open_mosaic


def test_scenes_may_have_other_nodata_values(tmp_path):
    """What one scene misses is there in the next; an observed value that means missing elsewhere stays observed."""
    first, second = full(7), full(0)
    first[:, 25:] = 5
    index = index_of(
        tmp_path, scene(tmp_path / "a.tif", first, nodata=5), scene(tmp_path / "b.tif", second, nodata=None)
    )
    mosaic = open_mosaic(index)
    pixels = mosaic.read(mosaic.geobox.whole)
    assert mosaic.nodata == (5,)
    assert pixels.valid.all()
    assert (pixels.data[0, :, :25] == 7).all()
    assert (pixels.data[0, :, 25:] == 0).all()


def test_files_that_are_gone_are_named_before_anything_is_written(tmp_path):
    made = scene(tmp_path / "a.tif", full(7))
    index = index_of(tmp_path, replace(made, stamps=Stamps(stamps_of(made.source.paths)).text()))
    (tmp_path / "a.tif").unlink()
    with pytest.raises(SceneError, match="missing since indexed"):
        open_mosaic(index)


def test_a_mosaic_is_a_lazy_array_and_a_picture(three):
    from pipeline.viz.preview import make_view, read_image

    mosaic = open_mosaic(three, composite="latest")
    array = mosaic.to_xarray()
    assert array.dims == ("band", "y", "x")
    assert array.rio.crs == UTM
    np.testing.assert_array_equal(array.compute(), mosaic.read(mosaic.geobox.whole).data)
    assert bool(array.coords["valid"].all())
    assert (read_image(mosaic, make_view(mosaic.geobox, longest=20)).data == 11).all()
