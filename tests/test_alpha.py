"""Bands that are tagged as alpha: a mask where their values look like one, else a band; the same in every verb."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from click.testing import CliRunner
from helpers import BANDS, GRID, pixels, write_raster
from rasterio.enums import ColorInterp
from scipy.ndimage import gaussian_filter, rotate

from models.encoding import NODATA
from models.errors import SceneError
from pipeline import open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.grid.geobox import Window
from pipeline.inference.lazy import segment
from pipeline.io.alpha import looks_like_mask
from pipeline.io.scene import open_source
from train.cli.app import cli as whole

SIDE = 160
Y, X = np.mgrid[:SIDE, :SIDE]
EDGE = np.minimum.reduce([Y, X, SIDE - 1 - Y, SIDE - 1 - X])  # pixels to the nearest side
WATER = (slice(40, 80), slice(50, 120))


def hole(opaque: int | float = 255, dtype: str = "uint8") -> np.ndarray:
    """Alpha with a corner that was not observed."""
    return np.where((Y < 30) & (X < 70), 0, opaque).astype(dtype)


def near_infrared(dtype: str = "uint8") -> np.ndarray:
    """Vegetation with some saturated pixels, and water that is 0."""
    values = pixels((SIDE, SIDE), "uint8", seed=3).clip(1)
    values[WATER] = 0
    return (values.astype(np.float64) * np.iinfo(dtype).max / 255).astype(dtype)


def ramp(pixels_from_edge: np.ndarray, width: float, top: int = 255, dtype: str = "uint8") -> np.ndarray:
    return (pixels_from_edge / width * top).clip(0, top).astype(dtype)


def four_bands(path: Path, fourth: np.ndarray, **profile: Any) -> Path:
    """As GDAL writes four bands: red, green, blue, and what it calls alpha."""
    values = np.concatenate([pixels((3, *fourth.shape), "uint8").clip(1).astype(fourth.dtype), fourth[None]])
    return write_raster(path, values, photometric="RGB", alpha="YES", **profile)


MASKS = {
    "all observed": np.full((SIDE, SIDE), 255, np.uint8),
    "0 and 255": hole(),
    "0 and 65535": hole(65535, "uint16"),
    "0 and 255 in 16 bits": hole(255, "uint16"),
    "0 and 32767": hole(32767, "int16"),
    "0 and 1": hole(1),
    "0 and 1 in floats": hole(1, "float32"),
    "resampled": rotate(np.full((SIDE, SIDE), 255, np.uint8), 17, reshape=False, order=3),
    "blurred": gaussian_filter(hole().astype(np.float64), 3).round().clip(0, 255).astype(np.uint8),
    "faded from the sides": ramp(EDGE + 1, 30),
    "faded from inside": ramp(EDGE - 10, 24),
    "faded around a disk": ramp(70 - np.hypot(Y - 80, X - 80), 20),
    "faded in 16 bits": ramp(70 - np.hypot(Y - 80, X - 80), 20, 65535, "uint16"),
    "three pixels wide": ramp(EDGE - 10, 3),
}  # fmt: skip
OTHERS = {
    "near infrared": near_infrared(),
    "near infrared in 16 bits": near_infrared("uint16"),
    "stretched until most is saturated": (pixels((SIDE, SIDE), "uint8") * 2.5).clip(0, 255).astype(np.uint8),
    "one value": np.full((SIDE, SIDE), 90, np.uint8),
    "one value, and water": np.where(hole() == 0, 0, 90).astype(np.uint8),
    "a slope": np.broadcast_to(X, (SIDE, SIDE)).astype(np.uint8),
    "a slope of floats": np.broadcast_to(X / 200, (SIDE, SIDE)).astype(np.float32),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_looks_like_one(kind: str) -> None:
    assert looks_like_mask([MASKS[kind]])
    assert looks_like_mask([MASKS[kind][:80], MASKS[kind][80:]])


@pytest.mark.parametrize("kind", OTHERS)
def test_other_bands_do_not(kind: str) -> None:
    assert not looks_like_mask([OTHERS[kind]])


@pytest.mark.parametrize("kind", ["near infrared", "near infrared in 16 bits", "one value, and water"])
def test_near_infrared_tagged_as_alpha_is_a_band(tmp_path: Path, kind: str) -> None:
    path = four_bands(tmp_path / "naip.tif", OTHERS[kind])
    scene = open_scene(path)
    assert scene.band.values.tolist() == ["red", "green", "blue", "nir"]
    np.testing.assert_array_equal(scene.sel(band="nir"), OTHERS[kind])
    assert scene.valid.values.all()
    (note,) = scene.attrs["notes"]
    assert note.startswith("band 4 is tagged as alpha, but ")
    assert "it is the band nir; --alpha yes" in note
    for asked in (["nir"], [4], ["band_4"], ["4"]):
        np.testing.assert_array_equal(open_scene(path, asked).values[0], OTHERS[kind])
    assert open_scene(path, [1, 2, 3]).valid.values.all()


@pytest.mark.parametrize("kind", ["all observed", "0 and 65535", "faded around a disk"])
def test_alpha_that_looks_like_a_mask_is_one(tmp_path: Path, kind: str) -> None:
    """What is nearly transparent was observed: only 0 is not."""
    path = four_bands(tmp_path / "scene.tif", MASKS[kind])
    scene = open_scene(path)
    assert scene.band.values.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(scene.valid, MASKS[kind] != 0)
    assert scene.attrs["notes"] == ["band 4 is alpha, 0 where nothing was observed; --alpha no reads it as a band"]
    with pytest.raises(SceneError, match=r"no band 4; it has 3: red, green, blue; and alpha, which --alpha no"):
        open_source(path, [4])


def test_alpha_is_what_the_user_says(tmp_path: Path) -> None:
    naip, masked = four_bands(tmp_path / "n.tif", near_infrared()), four_bands(tmp_path / "m.tif", hole())
    np.testing.assert_array_equal(open_scene(naip, alpha=True).valid, near_infrared() != 0)
    assert open_source(naip, alpha=True).bands == ("red", "green", "blue")
    assert open_scene(masked, alpha=False).valid.values.all()
    assert open_source(masked, alpha=False).bands[3:] == ("nir",)
    plain = write_raster(tmp_path / "p.tif", pixels((3, 20, 20)))
    assert open_source(plain, alpha=True).notes == ("--alpha yes changes nothing: no band is tagged as alpha",)
    assert open_source(plain, alpha=False).notes == ()


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_alpha_anywhere(tmp_path: Path, place: int) -> None:
    """Bands keep the file's numbers where alpha comes before them."""
    values = np.insert(pixels((3, SIDE, SIDE), "uint8"), place, hole(), axis=0)
    colors = ["red", "green", "blue"]
    colors.insert(place, "alpha")
    path = write_raster(tmp_path / "scene.tif", values)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp[name] for name in colors]
    source = open_source(path)
    assert source.bands == ("red", "green", "blue")
    everything = source.read(source.geobox.whole)
    np.testing.assert_array_equal(everything.data, np.delete(values, place, axis=0))
    np.testing.assert_array_equal(everything.valid, hole() != 0)
    others = [number for number in (1, 2, 3, 4) if number != place + 1]
    for number in others:
        np.testing.assert_array_equal(source.select([number]).read(source.geobox.whole).data[0], values[number - 1])
    with pytest.raises(SceneError, match=f"no band {place + 1};"):
        source.select([place + 1])


def test_several_alphas_each_for_itself(tmp_path: Path) -> None:
    """Two masks both hide; a third band that is tagged so is none."""
    other = np.where(X > 140, 0, 255).astype(np.uint8)
    values = np.stack([pixels((SIDE, SIDE), "uint8"), hole(), near_infrared(), other])
    path = write_raster(tmp_path / "scene.tif", values, photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.alpha, ColorInterp.alpha, ColorInterp.alpha]
    scene = open_scene(path)
    assert scene.band.values.tolist() == ["band_1", "band_3"]
    np.testing.assert_array_equal(scene.values, values[[0, 2]])
    np.testing.assert_array_equal(scene.valid, (hole() != 0) & (other != 0))
    assert [note[:6] for note in scene.attrs["notes"]] == ["band 2", "band 4", "band 3"]


def test_alpha_and_nothing_else_are_bands(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", np.stack([hole(), hole()]), photometric="minisblack")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha, ColorInterp.alpha]
    assert open_source(path).bands == ("band_1", "band_2")
    with pytest.raises(SceneError, match="all bands are tagged as alpha; take them as bands, with --alpha no"):
        open_source(path, alpha=True)


@pytest.mark.parametrize("kind", ["near infrared", "mask"])
def test_tiles_are_decided_together(tmp_path: Path, kind: str) -> None:
    """One tile is 0 throughout: near infrared of a lake, or alpha of a tile that lies beside the scene."""
    fourth = near_infrared() if kind == "near infrared" else hole()
    tiles = {"a": fourth, "b": np.zeros_like(fourth), "c": hole()}
    for number, (name, values) in enumerate(tiles.items()):
        four_bands(tmp_path / f"{name}.tif", values, transform=GRID * Affine.translation(number * SIDE, 0))
    scene = open_scene(tmp_path)
    whole = np.concatenate(list(tiles.values()), axis=1)
    if kind == "mask":
        assert scene.band.values.tolist() == ["red", "green", "blue"]
        np.testing.assert_array_equal(scene.valid, whole != 0)
    else:
        np.testing.assert_array_equal(scene.sel(band="nir"), whole)
        assert scene.valid.values.all()
    other = "no" if kind == "mask" else "yes"
    assert any(f"--alpha {other} decides otherwise" in note for note in scene.attrs["notes"])
    np.testing.assert_array_equal(open_scene(tmp_path, alpha=True).valid, whole != 0)


def test_one_band_is_one_whatever_its_tag(tmp_path: Path) -> None:
    """As a scene and as labels."""
    from models import ClassInfo
    from train.data.classes import value_table
    from train.data.labels import open_labels

    values = hole(1)
    path = write_raster(tmp_path / "one.tif", values[None])
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.alpha]
    for alpha in (None, True, False):
        np.testing.assert_array_equal(open_scene(path, alpha=alpha).values[0], values)
        assert open_scene(path, alpha=alpha).valid.values.all()
    table = value_table((ClassInfo("other", "000000"), ClassInfo("thing", "FFFFFF")))
    geobox = open_source(path).geobox
    np.testing.assert_array_equal(open_labels(str(path), geobox, table).read(geobox.whole), values)


def test_alpha_that_is_no_number_was_not_observed(tmp_path: Path) -> None:
    alpha = hole(1, "float32")
    alpha[100:110] = np.nan
    path = four_bands(tmp_path / "scene.tif", alpha)
    np.testing.assert_array_equal(open_scene(path).valid, (alpha != 0) & np.isfinite(alpha))


def test_an_empty_alpha_hides_nothing_that_was_observed(tmp_path: Path) -> None:
    empty = np.zeros((SIDE, SIDE), np.uint8)
    path = four_bands(tmp_path / "scene.tif", empty)
    scene = open_scene(path)
    assert scene.valid.values.all()
    assert "0 wherever it was looked at, where other bands are not" in scene.attrs["notes"][0]
    nothing = write_raster(tmp_path / "nothing.tif", np.zeros((4, 40, 40), np.uint8), photometric="RGB", alpha="YES")
    assert not open_scene(nothing).valid.values.any()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("driver", ["PNG", "WEBP"])
def test_pictures_with_alpha(tmp_path: Path, driver: str) -> None:
    lossless = {"LOSSLESS": "YES", "EXACT": "1"} if driver == "WEBP" else {}
    for name, fourth, bands in (("masked", hole(), 3), ("naip", near_infrared(), 4)):
        values = np.concatenate([pixels((3, SIDE, SIDE), "uint8"), fourth[None]])
        path = tmp_path / f"{name}.{driver.lower()}"
        write_raster(path, values, driver=driver, crs=None, transform=Affine.identity(), **lossless)
        scene = open_scene(path)
        np.testing.assert_array_equal(scene.values, values[:bands])
        np.testing.assert_array_equal(scene.valid, fourth != 0 if bands == 3 else True)


def test_alpha_a_mask_of_its_own_and_nodata_all_narrow(tmp_path: Path) -> None:
    path = four_bands(tmp_path / "scene.tif", hole(), nodata=7)
    own = np.where(X > 150, 0, 255).astype(np.uint8)
    with rasterio.open(path, "r+") as file:
        values = file.read()
        values[:3, 100:110] = 7
        file.write(values)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(own)
    expected = (hole() != 0) & (own != 0) & (values[:3] != 7).any(axis=0)
    np.testing.assert_array_equal(open_scene(path).valid, expected)


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize("tiled", [False, True])
def test_the_look_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overviews: bool, tiled: bool) -> None:
    """Of a large file: an overview, or windows; the decision is the same."""
    seen: list[int] = []
    for name, fourth, wanted in (("m", np.where(np.arange(4500) < 900, 0, 255), 3), ("n", np.arange(4500) % 256, 4)):
        values = np.broadcast_to(np.array(fourth, np.uint8), (4, 1500, 4500)).copy()
        path = write_raster(tmp_path / f"{name}.tif", values, photometric="RGB", alpha="YES", tiled=tiled)
        if overviews:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2, 4, 8])
        before = rasterio.io.DatasetReader.read
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.io.alpha._look", counted(seen))
            assert len(open_source(path).bands) == wanted
        assert rasterio.io.DatasetReader.read is before
    assert max(seen) <= 1024 * 1024


def counted(seen: list[int]) -> Any:
    from pipeline.io import alpha

    look = alpha._look

    def counting(dataset: Any, indexes: Any) -> Any:
        looks = list(look(dataset, indexes))
        seen.append(sum(part.size for part in looks))
        return looks

    return counting


def test_the_decision_goes_to_workers_and_into_the_identity(tmp_path: Path) -> None:
    """It is part of it where it is another than before, when the last band tagged so was always the mask."""
    naip, masked = four_bands(tmp_path / "n.tif", near_infrared()), four_bands(tmp_path / "m.tif", hole())
    rgb = ["red", "green", "blue"]
    assert "alpha" not in open_source(masked, rgb).identity()
    assert "alpha" not in open_source(naip, rgb, alpha=True).identity()
    assert open_source(naip, rgb).identity()["alpha"] == [[0, ()]]
    assert open_source(masked, rgb, alpha=False).identity() != open_source(masked, rgb).identity()
    sent = pickle.loads(pickle.dumps(open_source(naip, rgb)))
    four_bands(naip, hole())  # a worker does not decide again
    assert sent.read(Window(0, 30, 0, 70)).valid.all()


@pytest.fixture(scope="module")
def naip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four_bands(tmp_path_factory.mktemp("naip") / "naip.tif", near_infrared())


def test_every_way_to_a_map_sees_the_water(tmp_path: Path, naip: Path, bundle_of: Any) -> None:
    """`plan`, lazy `segment` and `run` into a GeoTIFF: by default nothing is missing, by choice the water."""
    bundle = bundle_of("simple-unet", bands=3, dtype="uint8", resolution=None)
    water = near_infrared() == 0
    for alpha, missing in ((None, np.zeros_like(water)), (False, np.zeros_like(water)), (True, water)):
        how: dict[str, Any] = {"alpha": alpha, "engine": "torch"}
        prepared = plan(naip, bundle, **how)
        assert any("band 4" in note for note in prepared.notes) == (alpha is None)
        np.testing.assert_array_equal(segment(naip, bundle, **how).class_map.values == NODATA, missing)
        run(naip, bundle, tmp_path / f"{alpha}.tif", show=False, **how)
        with rasterio.open(tmp_path / f"{alpha}.tif") as made:
            np.testing.assert_array_equal(made.read(1) == NODATA, missing)


def test_a_network_of_four_bands_gets_near_infrared(naip: Path, bundle_of: Any) -> None:
    bundle = bundle_of("simple-unet", bands=4, dtype="uint8", resolution=None)
    assert plan(naip, bundle, engine="torch").source.bands == BANDS[:4]


def test_the_flags_of_the_command(naip: Path) -> None:
    shown = CliRunner().invoke(cli, ["info", str(naip)])
    assert "red, green, blue, nir" in shown.output
    assert "--alpha yes makes it the mask" in shown.output
    assert "mask        of its own" in CliRunner().invoke(cli, ["info", str(naip), "--alpha", "yes"]).output
    for verb in ("plan", "segment", "info", "evaluate"):
        assert "--alpha" in CliRunner().invoke(whole, [verb, "--help"]).output
    wrong = CliRunner().invoke(cli, ["info", str(naip), "--alpha", "maybe"])
    assert wrong.exit_code == 2


def test_training_and_scores_see_the_water(tmp_path: Path, naip: Path) -> None:
    """A set's `alpha` decides as the flag does."""
    from train.config import settings_of
    from train.data.datasets import gather

    labels = write_raster(tmp_path / "labels.tif", (Y > 50).astype(np.uint8)[None])
    raw = {
        "name": "t",
        "bands": ["red", "green", "blue"],
        "classes": [{"name": "other", "color": "000000"}, {"name": "thing", "color": "FFFFFF"}],
        "network": {"architecture": "unet"},
    }
    data = {"root": str(naip.parent), "image": "{name}.tif", "label": str(labels), "train": ["naip"]}
    for alpha, missing in ((None, 0), (False, 0), (True, (near_infrared() == 0).sum())):
        chosen = {} if alpha is None else {"alpha": alpha}
        settings = settings_of(json.loads(json.dumps({**raw, "data": [{**data, **chosen}]})))
        (sample,) = gather(settings)["train"]
        assert (~sample.read(sample.geobox.whole).valid).sum() == missing
