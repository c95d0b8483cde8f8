"""Pictures, by their pixels: colours where classes are, paper where nothing was observed, previews of large scenes."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from helpers import GRID, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from stores import TOWN, label_ids, write_store

from models.errors import ArgumentError, SceneError, StoreError
from pipeline import open_maps, open_scene
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.scene import open_source
from pipeline.viz.colors import edge, object_index, object_palette, paint, paint_objects, stretch
from pipeline.viz.overlay import overlay, write_picture
from pipeline.viz.panels import five_panels, panels
from pipeline.viz.preview import make_view, read_image, read_maps

ORANGE, TEAL = (0xE4, 0x57, 0x2E), (0x17, 0xBE, 0xBB)
CLEAR = {"style": "mask", "opacity": 1.0}


def village(side: int = 160) -> np.ndarray:
    class_map = np.zeros((side, side), np.uint8)
    class_map[20:60, 20:60] = 1
    class_map[100:140, 100:140] = 2
    class_map[-10:, :] = 255
    return class_map


def ramp(shape: tuple[int, int]) -> np.ndarray:
    """Three bands that rise to the right, to the bottom, and not at all."""
    rows, columns = np.indices(shape)
    return np.stack([columns, rows, np.full(shape, 7)]).astype(np.uint16) + 1000


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    class_map = village()
    bands = ramp(class_map.shape)
    bands[:, class_map == 255] = 0
    write_raster(folder / "s.tif", bands, nodata=0, descriptions=("swir", "nir", "red"))
    probability = np.where(class_map == 255, 255, np.where(class_map == 1, 225, 25)).astype(np.uint8)
    write_store(folder / "s.zarr", class_map, probability=probability)
    write_store(folder / "o.zarr", class_map, probability=probability, objects=True)
    return folder


# colours


def test_stretch_by_percentiles_of_what_is_observed():
    band = np.arange(100.0).reshape(10, 10)
    valid = np.ones((10, 10), bool)
    valid[9] = False
    shown = stretch(np.stack([band, band * 1e6, np.full_like(band, 3)]), valid, (0, 50))
    assert shown.dtype == np.float32
    assert shown[0, 0, 0] == 0
    assert shown[5, 0, 0] == 1  # above the median
    np.testing.assert_allclose(shown[..., 0], shown[..., 1], atol=1e-6)
    assert (shown[~valid] == 1).all()  # paper
    assert (shown[valid][:, 2] == 0).all()  # a constant band is not noise


def test_stretch_leaves_out_what_is_not_a_number():
    band = np.array([[np.nan, 1, 2], [np.inf, 3, 1]], np.float32)
    shown = stretch(band[None], np.ones((2, 3), bool))
    assert np.isfinite(shown).all()
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])  # one band is grey
    assert shown[1, 1, 0] == 1


def test_paint_in_each_style():
    grey = np.full((30, 30, 3), 0.5, np.float32)
    class_map = np.zeros((30, 30), np.uint8)
    class_map[5:25, 5:25] = 1
    mask, outline, both = (
        paint(grey, class_map, {1: (255, 0, 0)}, style, 0.5) for style in ("mask", "outline", "both")
    )
    np.testing.assert_allclose(mask[15, 15], [0.75, 0.25, 0.25])
    np.testing.assert_allclose(mask[5, 5], [0.75, 0.25, 0.25])
    np.testing.assert_allclose(outline[15, 15], 0.5)
    np.testing.assert_allclose(outline[5, 15], [1, 0, 0])
    np.testing.assert_allclose(both[15, 15], mask[15, 15])
    np.testing.assert_allclose(both[6, 15], [1, 0, 0])
    for painted in (mask, outline, both):
        assert (painted[class_map == 0] == 0.5).all()
    assert (grey == 0.5).all()  # not changed in place


def test_an_edge_is_not_the_margin_of_the_picture():
    assert not edge(np.ones((9, 9), bool)).any()
    inside = np.zeros((9, 9), bool)
    inside[:, :5] = True
    np.testing.assert_array_equal(edge(inside), np.tile([0, 0, 0, 1, 1, 0, 0, 0, 0], (9, 1)).astype(bool))


@given(st.lists(st.integers(1, 2**62), min_size=1, max_size=50))
@settings(max_examples=30)
def test_an_object_has_its_colour_wherever_it_is_seen(ids):
    values = np.array(ids, np.int64)
    together = object_index(values)
    assert (together > 0).all()
    assert together.max() < len(object_palette())
    assert [object_index(values[n : n + 1])[0] for n in range(len(ids))] == together.tolist()


def test_neighbours_differ_and_nothing_is_paper():
    ids = 1 + np.arange(2000)
    different = object_index(ids)[1:] != object_index(ids)[:-1]
    assert different.mean() > 0.98
    assert len(set(map(tuple, object_palette().tolist()))) > 230
    assert (paint_objects(np.zeros((2, 2), np.int64)) == 1).all()


# overlays


def test_overlay_pixel_for_pixel(place):
    shown = overlay(place / "s.tif", place / "s.zarr", **CLEAR)
    class_map = village()
    assert shown.dtype == np.uint8
    assert shown.shape == (160, 160, 3)
    assert (shown[class_map == 1] == ORANGE).all()
    assert (shown[class_map == 2] == TEAL).all()
    assert (shown[class_map == 255] == 255).all()
    land = shown[class_map == 0].astype(int)
    assert land[:, 0].min() == 0  # swir rises to the right, and is not named as a colour: bands by place
    assert land[:, 0].max() == 255


def test_overlay_of_a_window(place):
    whole = overlay(place / "s.tif", place / "s.zarr", bands=["red"], percentiles=(0, 100), **CLEAR)
    part = overlay(
        place / "s.tif", place / "s.zarr", window=Window(40, 120, 30, 110), bands=["red"], percentiles=(0, 100), **CLEAR
    )
    np.testing.assert_array_equal(part, whole[40:120, 30:110])


def test_bands_by_name_and_number(place):
    by_name = overlay(place / "s.tif", place / "s.zarr", bands=["red", "nir", "swir"])
    by_number = overlay(place / "s.tif", place / "s.zarr", bands=[3, 2, 1])
    grey = overlay(place / "s.tif", place / "s.zarr", bands="nir", classes=[])
    np.testing.assert_array_equal(by_name, by_number)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    assert (np.diff(grey[:140, 0, 0].astype(int)) >= 0).all()  # nir rises to the bottom


def test_red_green_blue_are_found_by_name(tmp_path):
    bands = np.stack([np.full((9, 9), v, np.uint16) for v in (1, 2, 3, 4)])  # four of uint8 were RGB and alpha
    write_raster(tmp_path / "s.tif", bands, descriptions=("Blue", "Green", "NIR", "Red"))
    image = read_image(tmp_path / "s.tif", make_view(GeoBox(9, 9)))
    assert image.data[:, 0, 0].tolist() == [4, 2, 1]


def test_classes_and_colours(place):
    shown = overlay(place / "s.tif", place / "s.zarr", classes=["road"], colours={"road": "#ffff00"}, **CLEAR)
    plain = overlay(place / "s.tif", place / "s.zarr", classes=[], **CLEAR)
    assert (shown[120, 120] == (255, 255, 0)).all()
    np.testing.assert_array_equal(shown[:90], plain[:90])


def test_overlay_takes_arrays(place):
    maps, scene = open_maps(place / "s.zarr"), open_scene(place / "s.tif")
    np.testing.assert_array_equal(overlay(scene, maps), overlay(place / "s.tif", place / "s.zarr"))
    part = {"y": slice(0, 80), "x": slice(0, 100)}
    shown = overlay(scene.isel(part).load(), maps.isel(part).load(), **CLEAR)
    assert shown.shape == (80, 100, 3)
    assert (shown[30, 30] == ORANGE).all()


# previews


@pytest.mark.parametrize("overviews", [True, False])
def test_previews_show_what_lies_there(tmp_path, overviews):
    """Without overviews too, and of sides that no factor divides."""
    class_map = np.zeros((1501, 2203), np.uint8)
    class_map[300:700, 500:1100] = 1
    class_map[1400:, 2000:] = 255
    bands = np.stack([np.where(class_map == 1, 200, 50)] * 3).astype(np.uint8)
    write_raster(tmp_path / "s.tif", bands)
    write_store(tmp_path / "s.zarr", class_map, objects=True, block=512, overviews=overviews)
    shown = overlay(tmp_path / "s.tif", tmp_path / "s.zarr", longest=220, **CLEAR)
    assert shown.shape == (150, 220, 3)
    orange = (shown == ORANGE).all(axis=2)
    rows, columns = np.flatnonzero(orange.any(axis=1)), np.flatnonzero(orange.any(axis=0))
    assert abs(rows[0] - 30) <= 1
    assert abs(rows[-1] - 69) <= 1
    assert abs(columns[0] - 50) <= 1
    assert abs(columns[-1] - 109) <= 1
    small = read_maps(tmp_path / "s.zarr", make_view(GeoBox(1501, 2203), longest=220))
    assert small.objects[50, 80] == label_ids(class_map)[400, 600]
    assert small.class_map[-1, -1] == 255


def test_a_raster_is_averaged_not_sampled(tmp_path):
    chess = (np.indices((400, 400)).sum(axis=0) % 2 * 200).astype(np.uint8)
    write_raster(tmp_path / "s.tif", chess[None])
    image = read_image(tmp_path / "s.tif", make_view(GeoBox(400, 400), longest=40))
    assert np.abs(image.data - 100).max() <= 1


def test_overviews_of_a_raster_are_used(tmp_path):
    write_raster(tmp_path / "s.tif", np.full((1, 512, 512), 10, np.uint8))
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.build_overviews([2, 4, 8], Resampling.nearest)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:  # now the full resolution says something else
        file.write(np.full((1, 512, 512), 99, np.uint8))
    assert read_image(tmp_path / "s.tif", make_view(GeoBox(512, 512), longest=64)).data.max() < 99


@pytest.mark.parametrize("kind", ["nodata", "nan", "alpha", "mask"])
def test_what_was_not_observed_is_paper_in_previews_too(tmp_path, kind):
    """Also where averages are taken over it: a missing value must not shine through."""
    values = np.full((3, 400, 400), 100.0, np.float32)
    hole = np.zeros((400, 400), bool)
    hole[100:300, 100:300] = True
    values[:, hole] = np.nan if kind == "nan" else -9999 if kind == "nodata" else 0
    path = tmp_path / "s.tif"
    if kind == "alpha":
        alpha = np.where(hole, 0, 255).astype(np.uint8)
        write_raster(path, np.concatenate([values.astype(np.uint8), alpha[None]]))
        with rasterio.open(path, "r+") as file:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    else:
        write_raster(path, values, **({"nodata": -9999} if kind == "nodata" else {}))
        if kind == "mask":
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
                file.write_mask(~hole)
    image = read_image(path, make_view(GeoBox(400, 400), longest=40))
    np.testing.assert_array_equal(image.valid, ~hole[5::10, 5::10])
    seen = image.data[:, image.valid]
    assert seen.min() >= 99
    assert seen.max() <= 101


def test_files_of_one_band_each(tmp_path):
    for n, name in enumerate(("B02", "B03", "B04", "B08")):
        write_raster(tmp_path / f"s_{name}.tif", np.full((1, 90, 90), n + 1, np.uint16))
    paths = [tmp_path / f"s_{name}.tif" for name in ("B02", "B03", "B04", "B08")]
    for longest in (90, 30):
        image = read_image(paths, make_view(GeoBox(90, 90), longest=longest))
        assert image.data[:, 0, 0].tolist() == [3, 2, 1]


def test_memory_does_not_grow_with_the_scene(tmp_path):
    """A lazy scene and map of 20,000 x 20,000 pixels, 400 MB a band, of which no more than a tile is ever there."""
    import dask.array as da

    side, chunk = 20_000, 2000
    band = da.zeros((3, side, side), chunks=(3, chunk, chunk), dtype=np.uint8)
    flags = {"flag_meanings": "none house", "flag_colors": "#000000 #E4572E"}
    maps = xr.Dataset({"class_map": (("y", "x"), da.ones((side, side), chunks=chunk, dtype=np.uint8), flags)})
    tracemalloc.start()
    shown = overlay(xr.DataArray(band, dims=("band", "y", "x")), maps, longest=500, **CLEAR)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (shown == ORANGE).all()
    assert peak < 350e6


# files


def test_pictures_are_written_whole(place, tmp_path):
    pixels = overlay(place / "s.tif", place / "s.zarr", **CLEAR)
    for ending in ("png", "webp", "jpg"):
        path = write_picture(pixels, tmp_path / f"p.{ending}")
        read = np.asarray(Image.open(path)).astype(int)
        assert np.abs(read - pixels).mean() < (0.001 if ending == "png" else 8)
    with pytest.raises(StoreError, match=r"p\.png exists"):
        write_picture(pixels, tmp_path / "p.png")
    write_picture(pixels[:5], tmp_path / "p.png", overwrite=True)
    with pytest.raises(ArgumentError, match=r"ends in \.png, \.jpg or \.webp"):
        write_picture(pixels, tmp_path / "p.tif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.jpg", "p.png", "p.webp"]


def drawn(picture: Path) -> np.ndarray:
    with Image.open(picture) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def count(picture: Path, colour: tuple[int, int, int]) -> int:
    return int((np.abs(drawn(picture) - colour).max(axis=2) <= 2).sum())


def test_five_panels(place, tmp_path):
    path = five_panels(place / "s.tif", place / "o.zarr", tmp_path / "five.png", title="Dorf")
    plain = five_panels(place / "s.tif", place / "s.zarr", tmp_path / "plain.png")
    with Image.open(path) as opened:
        assert opened.info["Software"] == "Swathe"
    picture = drawn(path)
    house = 40**2 / 160**2 * (picture.shape[1] / 3 * 0.97) ** 2
    for colour in (ORANGE, TEAL):  # full in the map's panel, as outlines over the image, and in the key
        assert house < count(path, colour) < 1.5 * house
    ids = label_ids(village())
    for value in np.unique(ids[ids > 0]):
        colour = object_palette()[object_index(np.array([value]))[0]]
        blended = 0.85 * colour + 0.15 * 255 * 0.775  # over a grey that is not known exactly
        assert (np.abs(picture - blended).max(axis=2) < 25).sum() > 0.5 * house
    assert count(plain, ORANGE) > 0
    with pytest.raises(StoreError, match="exists"):
        five_panels(place / "s.tif", place / "s.zarr", path)


def test_five_panels_of_what_there_is(place, tmp_path):
    """Objects from a store of their own; no probability; a wide window; a scene without anything."""
    five_panels(place / "s.tif", place / "s.zarr", tmp_path / "a.png", objects=place / "o.zarr")
    five_panels(place / "s.tif", place / "s.zarr", tmp_path / "b.png", window=Window(0, 40, 0, 160))
    empty = np.zeros((70, 70), np.uint8)
    write_store(tmp_path / "e.zarr", empty)
    write_raster(tmp_path / "e.tif", ramp(empty.shape))
    five_panels(tmp_path / "e.tif", tmp_path / "e.zarr", tmp_path / "c.png")
    assert len(drawn(tmp_path / "b.png")) < len(drawn(tmp_path / "a.png"))
    assert len(drawn(tmp_path / "c.png")) > 500
    with pytest.raises(StoreError, match="no array `objects`"):
        five_panels(place / "s.tif", place / "s.zarr", tmp_path / "d.png", objects=place / "s.zarr")
    with pytest.raises(ArgumentError, match=r"written as \.png"):
        five_panels(place / "s.tif", place / "s.zarr", tmp_path / "d.jpg")


def test_panels_of_the_demo(place, tmp_path):
    path = panels(open_scene(place / "s.tif"), open_maps(place / "s.zarr"), TOWN, tmp_path / "p.png", "Dorf")
    assert count(path, ORANGE) > 1000  # outlines and the legend
    assert count(path, (255, 255, 255)) > 10_000


# what is wrong


@pytest.mark.parametrize(
    ("keywords", "error", "said"),
    [
        ({"bands": ["red", "nir"]}, ArgumentError, "three bands, or one; received 2: red, nir"),
        ({"bands": ["red", "nir", "purple"]}, SceneError, "no band 'purple'"),
        ({"classes": ["tree"]}, ArgumentError, "no class 'tree'; the maps have: background, building, road"),
        ({"colours": {"tree": "ff0000"}}, ArgumentError, "no class 'tree'"),
        ({"colours": {"road": "red"}}, ArgumentError, "six hex digits"),
        ({"style": "dots"}, ArgumentError, "'mask', 'outline' or 'both'; received 'dots'"),
        ({"opacity": 1.5}, ArgumentError, "between 0 and 1; received 1.5"),
        ({"percentiles": (98, 2)}, ArgumentError, "two rising numbers"),
        ({"window": Window(0, 200, 0, 10)}, ArgumentError, "not a picture"),
        ({"window": Window(5, 5, 0, 10)}, ArgumentError, "not a picture"),
    ],
)
def test_wishes_that_cannot_be_met(place, keywords, error, said):
    with pytest.raises(error, match=re.escape(said)):
        overlay(place / "s.tif", place / "s.zarr", **keywords)


def test_another_grid_is_refused_with_both(place, tmp_path):
    write_raster(tmp_path / "s.tif", ramp((160, 160)), transform=GRID * GRID.translation(1, 0))
    with pytest.raises(StoreError, match=r"(?s)160 x 160.*against 160 x 160.*Give the scene"):
        overlay(tmp_path / "s.tif", place / "s.zarr")


def test_probability_that_is_not_there(place, tmp_path):
    with pytest.raises(ArgumentError, match="no probability of 'road' is kept; there is that of: building"):
        five_panels(place / "s.tif", place / "s.zarr", tmp_path / "p.png", probability_of="road")
    write_store(tmp_path / "n.zarr", village())
    with pytest.raises(StoreError, match="--probability"):
        five_panels(place / "s.tif", tmp_path / "n.zarr", tmp_path / "p.png", probability_of="building")
    assert open_source(place / "s.tif").bands == ("swir", "nir", "red")
