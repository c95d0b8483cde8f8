"""Rasters of indexes into a colour table: their colours where red, green and blue are asked for."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from helpers import GRID, write_raster
from PIL import Image

from models.encoding import NODATA
from models.errors import BundleError, SceneError
from pipeline import open_scene, plan, run
from pipeline.grid.geobox import GeoBox, Window
from pipeline.inference.lazy import segment
from pipeline.io.palette import TOLD
from pipeline.io.scene import open_source
from pipeline.viz.preview import make_view, read_image

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHAPE = (90, 120)
RGB = ["red", "green", "blue"]
RNG = np.random.default_rng(4)
TABLE = RNG.integers(0, 256, (256, 3), np.uint8)
INDEXES = RNG.integers(0, 256, SHAPE, np.uint8)


def colors(table: np.ndarray = TABLE, indexes: np.ndarray = INDEXES) -> np.ndarray:
    return np.moveaxis(table[indexes], -1, 0)


def indexed(path: Path, indexes: np.ndarray = INDEXES, table: np.ndarray = TABLE, **profile: Any) -> Path:
    write_raster(path, indexes[None], photometric="palette", **profile)
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, {index: (*map(int, color), 255) for index, color in enumerate(table)})
    return path


@pytest.mark.parametrize("kind", ["tif", "gif", "png"])
def test_colours_by_name_and_indexes_by_number(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"photo.{kind}"
    if kind == "tif":
        indexed(path)
    else:
        picture = Image.fromarray(INDEXES, "P")
        picture.putpalette(TABLE.tobytes())
        picture.save(path)
    scene = open_scene(path, RGB)
    assert scene.dtype == np.uint8
    with Image.open(path) as truth:
        np.testing.assert_array_equal(scene.values, np.moveaxis(np.asarray(truth.convert("RGB")), -1, 0))
    assert scene.valid.values.all()
    assert scene.attrs["notes"] == [TOLD]
    np.testing.assert_array_equal(open_scene(path, ["Blue", "red"]).values, colors()[[2, 0]])
    plain = open_scene(path)
    assert plain.band.values.tolist() == ["band_1"]
    assert plain.attrs["notes"] == [TOLD]
    with rasterio.open(path) as file:  # GIF and PNG may order their tables anew
        np.testing.assert_array_equal(plain.values, file.read())
        np.testing.assert_array_equal(open_scene(path, [1]).values, file.read())


@pytest.mark.parametrize("window", [Window(0, 1, 0, 1), Window(13, 71, 40, 120), Window(89, 90, 0, 120)])
def test_every_window_is_exact(tmp_path: Path, window: Window) -> None:
    source = open_source(indexed(tmp_path / "photo.tif"), RGB)
    rows, columns = window.slices
    np.testing.assert_array_equal(source.read(window).data, colors()[:, rows, columns])


@pytest.mark.parametrize("kind", ["gif", "png", "several in png", "nodata in tif"])
def test_transparent_entries_are_missing(tmp_path: Path, kind: str) -> None:
    """GIF and PNG with one transparent colour, PNG with an alpha for each, GeoTIFF with nodata."""
    path, indexes = tmp_path / f"photo.{kind[-3:]}", INDEXES % 100
    hidden = [7]
    if kind.endswith("tif"):
        indexed(path, indexes, nodata=7)
    else:
        picture = Image.fromarray(indexes, "P")
        picture.putpalette(TABLE[:100].tobytes())
        alphas = bytes([255, 0, 90, 0] + [255] * 96)
        hidden = [1, 3] if kind.startswith("several") else hidden
        picture.save(path, transparency=alphas if kind.startswith("several") else 7, optimize=False)
    scene = open_scene(path, RGB)
    valid = ~np.isin(indexes, hidden)
    np.testing.assert_array_equal(scene.valid.values, valid)
    np.testing.assert_array_equal(scene.values[:, valid], colors(indexes=indexes)[:, valid])
    pixels = open_source(path, RGB).read(Window.of(SHAPE))
    np.testing.assert_array_equal(pixels.valid, valid)
    assert pixels.data.dtype == np.uint8


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits(tmp_path: Path, bits: int) -> None:
    indexes = INDEXES % 2**bits
    path = indexed(tmp_path / "photo.tif", indexes, TABLE[: 2**bits], nbits=bits)
    np.testing.assert_array_equal(open_scene(path, RGB).values, colors(indexes=indexes))


def test_a_table_written_without_alpha_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "photo.vrt"
    write_raster(tmp_path / "values.tif", INDEXES[None] % 3)
    entries = "".join(f'<Entry c1="{n * 50}" c2="9" c3="8" c4="0"/>' for n in range(3))
    path.write_text(
        f'<VRTDataset rasterXSize="120" rasterYSize="90"><VRTRasterBand dataType="Byte" band="1">'
        f"<ColorInterp>Palette</ColorInterp><ColorTable>{entries}</ColorTable><SimpleSource><SourceFilename>"
        f"{tmp_path}/values.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    scene = open_scene(path, RGB)
    assert scene.valid.values.all()
    np.testing.assert_array_equal(scene.values[0], INDEXES % 3 * 50)


def test_the_table_is_part_of_the_identity(tmp_path: Path) -> None:
    """Of a table that lies beside the file too."""
    values = write_raster(tmp_path / "values.tif", INDEXES[None])
    one = open_source(indexed(tmp_path / "a.tif"), RGB).identity()
    other = open_source(indexed(tmp_path / "b.tif", table=TABLE[::-1]), RGB).identity()
    assert one["colours"] != other["colours"]
    assert "colours" not in open_source(tmp_path / "a.tif").identity()
    assert "colours" not in open_source(values).identity()
    with pytest.raises(SceneError, match="no band 'red'; it has 1: band_1"):
        open_source(values, RGB)


def test_every_way_to_a_map_takes_the_colours(tmp_path: Path, bundle_of: Any) -> None:
    """As of the same photograph in three bands: `plan`, lazy `segment`, `run`."""
    bundle = bundle_of("simple-unet", bands=3, dtype="uint8", resolution=None)
    path = indexed(tmp_path / "photo.tif", nodata=7)
    full = colors()
    full[:, INDEXES == 7] = 0
    masked = np.concatenate([full, np.where(INDEXES == 7, 0, 255).astype(np.uint8)[None]])
    plain = write_raster(tmp_path / "plain.tif", masked, photometric="RGB", alpha="YES")
    prepared = plan(path, bundle, engine="torch")
    assert prepared.source.bands == ("red", "green", "blue")
    assert TOLD in prepared.notes
    expected = segment(plain, bundle, engine="torch").class_map.values
    assert set(np.unique(expected)) == {0, 1, NODATA}
    np.testing.assert_array_equal(segment(path, bundle, engine="torch").class_map.values, expected)
    for tile in (32, None):
        run(path, bundle, tmp_path / "m.tif", show=False, overwrite=True, engine="torch", tile=tile)
        with rasterio.open(tmp_path / "m.tif") as made:
            np.testing.assert_array_equal(made.read(1), expected)
    with pytest.raises(BundleError, match=r"--bands names 1"):
        plan(path, bundle, engine="torch", bands=[1])


def test_a_network_of_one_band_gets_the_indexes_and_a_note(tmp_path: Path, bundle_of: Any) -> None:
    prepared = plan(indexed(tmp_path / "photo.tif"), bundle_of("simple-unet", bands=1, dtype="uint8"), bands=[1])
    assert prepared.source.bands == ("band_1",)
    assert TOLD in prepared.notes


@pytest.mark.parametrize("longest", [40, 400])
def test_pictures_show_colours(tmp_path: Path, longest: int) -> None:
    indexes = np.repeat(np.repeat(INDEXES[:10, :10], 12, 0), 12, 1)
    path = indexed(tmp_path / "photo.tif", indexes, nodata=3)
    shown = read_image(path, make_view(GeoBox(*indexes.shape), longest=longest))
    factor = 120 // shown.data.shape[-1]
    truth = indexes[factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_array_equal(shown.valid, truth != 3)
    np.testing.assert_array_equal(shown.data[:, truth != 3], colors(indexes=truth)[:, truth != 3])


def test_training_takes_the_colours_beside_images_of_three_bands(tmp_path: Path) -> None:
    from train.config import settings_of
    from train.data.datasets import gather

    indexed(tmp_path / "a_image.tif")
    write_raster(tmp_path / "b_image.tif", colors(), photometric="RGB")
    for name in "ab":
        write_raster(tmp_path / f"{name}_label.tif", (INDEXES > 99).astype(np.uint8)[None])
    raw: dict[str, Any] = {
        "name": "t",
        "bands": RGB,
        "classes": [{"name": "other", "color": "000000"}, {"name": "thing", "color": "FFFFFF"}],
        "network": {"architecture": "unet"},
        "data": [{"root": str(tmp_path), "train": ["a", "b"]}],
    }
    one, other = gather(settings_of(raw))["train"]
    for sample in (one, other):
        np.testing.assert_array_equal(sample.read(Window.of(SHAPE)).pixels, colors())


def test_tiles_each_with_its_own_table(tmp_path: Path) -> None:
    left, right = INDEXES[:, :60], INDEXES[:, 60:]
    indexed(tmp_path / "left.tif", left)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        indexed(tmp_path / "right.tif", right, TABLE[::-1])
        with rasterio.open(tmp_path / "right.tif", "r+") as file:
            file.transform = GRID * Affine.translation(60, 0)
    scene = open_scene([tmp_path / "left.tif", tmp_path / "right.tif"], RGB)
    expected = np.concatenate([colors(indexes=left), colors(TABLE[::-1], right)], axis=2)
    np.testing.assert_array_equal(scene.values, expected)
