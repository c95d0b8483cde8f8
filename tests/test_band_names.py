"""Band names: what sensors call their bands is known, by name the right pixels are taken, and no hint is wrong."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from helpers import metadata, write_item, write_raster

from models.errors import BundleError, TrainingError
from models.metadata import ClassInfo
from pipeline.inference.plan import fit_bands, open_matching
from pipeline.io.band_names import common_names
from pipeline.io.scene import open_source
from pipeline.viz.preview import rgb_places
from train.config import DataSet, Settings
from train.data.bands import band_orders
from train.data.datasets import find_samples

RGB = ("red", "green", "blue")
S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
S2_NAMES = ("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
            "cirrus", "swir16", "swir22")  # fmt: skip
L8 = ("coastal", "blue", "green", "red", "nir", "swir16", "swir22")
L7 = ("blue", "green", "red", "nir", "swir16")


def called(*bands: str, hints: tuple[str, ...] = ()) -> list[str]:
    """One common name of each band, `nir` of Landsat's two; empty where none is known."""
    found = common_names([(band,) for band in bands], hints)
    return [next(iter(sorted(roles)), "") for roles in found]


@pytest.mark.parametrize(
    ("bands", "hints", "names"),
    [
        (S2, (), S2_NAMES),
        ([band.replace("B0", "B") for band in S2], (), S2_NAMES),  # as Earth Engine writes them: only it has B8A
        (("B02", "B03", "B04"), (), ("blue", "green", "red")),  # HLS, which counts as Landsat does, agrees
        (("B04_10m", "B11_20m", "B8A_20m"), (), ("red", "swir16", "nir08")),
        (("B4, central wavelength 665 nm", "B8A, central wavelength 865 nm"), (), ("red", "nir08")),  # of GDAL's driver
        (("B05", "B06"), (), ("", "")),  # on which it does not
        (("B05", "B06"), ("HLS.L30.T10SEG.B05.tif",), ("nir", "swir16")),
        (("B05", "B06"), ("sentinel-2a",), ("rededge071", "rededge075")),
        (("B2", "B3", "B4"), (), ("", "", "")),
        (("B2", "B3", "B4"), ("/x/LC08_L1TP_1_B2.TIF",), ("blue", "green", "red")),
        (("B2", "B3", "B4"), ("/x/LC80010022014001LGN00_B2.TIF",), ("blue", "green", "red")),
        (("B2", "B3", "B4"), ("/x/LT05_L1TP_1_B2.TIF",), ("green", "red", "nir")),
        (("B2", "B3", "B4"), ("/x/LE07_L1TP_1/stack.tif",), ("green", "red", "nir")),
        (("B2", "B3", "B4"), ("landsat-7",), ("green", "red", "nir")),
        (("B2", "B3", "B4"), ("landsat-8", "sentinel-2a"), ("", "", "")),
        (("B2", "B3", "B4"), ("LM05_L1TP_1_B2.TIF",), ("", "", "")),
        (("B2", "B3", "B4"), ("/x/S2A_MSIL1C_20200101.tif",), ("blue", "green", "red")),
        (("B2", "B3", "B4"), ("/x/T33UUP_20200101T101021.tif",), ("blue", "green", "red")),
        ([f"SR_B{n}" for n in range(1, 8)], (), L8),  # Landsat 7 has no SR_B6
        ([f"SR_B{n}" for n in (2, 3, 4)], (), ("", "", "")),
        ([f"SR_B{n}" for n in (1, 2, 3, 4, 5)], ("LE07_L2SP_1_SR_B1.TIF",), L7),
        (("SR_B4", "ST_B10"), (), ("red", "lwir11")),
        (("SR_B4", "ST_B6"), (), ("nir", "lwir")),
        (("LC09_L2SP_1_20220101_02_T1_SR_B5", "LC09_L2SP_1_20220101_02_T1_SR_B4"), (), ("nir", "red")),
        (("R", "G", "B", "N"), (), ("red", "green", "blue", "nir")),
        (("B",), (), ("",)),
        (("Band 4 - Red", "Near Infrared", "swir_1"), (), ("red", "nir", "swir16")),
        (("coastal_blue", "blue", "green_i", "green", "yellow", "red", "rededge", "nir"), (),
         ("coastal", "blue", "green05", "green", "yellow", "red", "rededge", "nir")),
        (("B1", "B2", "B3", "B4"), ("20200101_3B_AnalyticMS_SR.tif",), ("blue", "green", "red", "nir")),
        (("B2", "B4", "B6"), ("20200101_3B_AnalyticMS_SR_8b_clip.tif",), ("blue", "green", "red")),
        ([f"B{n}" for n in range(1, 13)], (), [""] * 12),  # twelve bands, counted by somebody
        (("band10", "band11", "band12"), (), ("", "", "")),
        (("sr_band2", "sr_band3", "sr_band6"), (), ("blue", "green", "swir16")),
        (("B01", "B02", "B3N"), (), ("", "", "")),  # of ASTER, whose B01 is green
        (("sur_refl_b01", "band_1", "VV"), (), ("", "", "")),
        (("nir08", "red"), (), ("nir08", "red")),
        (("nir08", "red"), ("landsat-9",), ("nir", "red")),
        (("rededge", "rededge", "nir"), (), ("", "", "nir")),
    ],
)  # fmt: skip
def test_common_names(bands, hints, names):
    assert called(*bands, hints=hints) == list(names)


def stack(path: Path, bands: tuple[str, ...], **profile) -> Path:
    """A scene whose n-th band holds n + 1 everywhere."""
    values = np.repeat(np.arange(1, len(bands) + 1, dtype=np.uint16), 40 * 50).reshape(-1, 40, 50)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, values, descriptions=bands, photometric="MINISBLACK", **profile)


def taken(source) -> list[int]:
    return source.read(source.geobox.whole).data[:, 3, 7].tolist()


@pytest.mark.parametrize(
    ("name", "bands", "numbers"),
    [
        ("a", ("B02", "B03", "B04"), [3, 2, 1]),
        ("a", S2, [4, 3, 2]),
        ("a", tuple(f"SR_B{n}" for n in range(1, 8)), [4, 3, 2]),
        ("LE07_L2SP_022033_20200101_SR", tuple(f"SR_B{n}" for n in (1, 2, 3, 4, 5, 7)), [3, 2, 1]),
        ("LT05_L1TP_022033_20000101", ("B1", "B2", "B3", "B4"), [3, 2, 1]),
        ("LC08_L1TP_022033_20200101", ("B1", "B2", "B3", "B4"), [4, 3, 2]),
        ("a", ("Blue", "Green", "Red", "Near Infrared"), [3, 2, 1]),
        ("a", ("N", "R", "G", "B"), [2, 3, 4]),
    ],
)
def test_a_bundle_takes_its_bands_by_what_they_are_called(tmp_path, name, bands, numbers):
    source = open_matching(stack(tmp_path / f"{name}.tif", bands), metadata(), None)
    assert taken(source) == numbers
    (note,) = [note for note in source.notes if "common names" in note] or [""]
    assert note.startswith("bands by their common names: red is " if "Red" not in bands else "")
    array = xr.DataArray(np.stack([np.full((4, 5), n + 1) for n in range(len(bands))]), dims=("band", "y", "x"),
                         coords={"band": list(bands)}, attrs={"platform": name})  # fmt: skip
    array = array.assign_coords(y=np.arange(4.0), x=np.arange(5.0))
    assert (
        open_matching(array, metadata(), None).read(source.geobox.whole.clip((4, 5))).data[:, 0, 0].tolist() == numbers
    )


def test_one_file_per_band_and_items_too(tmp_path):
    for number in (2, 3, 4, 5):
        stack(tmp_path / f"LC08_L2SP_022033_20200101_02_T1_SR_B{number}.TIF", (f"x{number}",))
    files = [str(tmp_path / f"LC08_L2SP_022033_20200101_02_T1_SR_B{number}.TIF") for number in (2, 3, 4, 5)]
    source = open_matching(files, metadata(), None)
    assert [band.path for band in source.raster_bands] == [files[2], files[1], files[0]]
    assets = {
        f"B{n}": {"href": f, "type": "image/tiff", "roles": ["data"]} for n, f in zip((2, 3, 4, 5), files, strict=True)
    }
    for platform, expected in (("landsat-8", [2, 1, 0]), ("landsat-5", [1, 0, None])):
        path = write_item(tmp_path / f"{platform}.json", assets)
        path.write_text(path.read_text().replace('"properties": {', f'"properties": {{"platform": "{platform}", '))
        if None in expected:
            with pytest.raises(BundleError):
                open_matching(path, metadata(), None)
            wanted = ("red", "green")
        else:
            wanted = RGB
        for found in (open_source(path, wanted), open_source(path).select(wanted)):
            assert [band.path for band in found.raster_bands] == [files[n] for n in expected if n is not None]


@pytest.mark.parametrize(
    ("bands", "says"),
    [
        (("B2", "B3", "B4"), "give --bands 3,2,1 if it is of Sentinel-2 or Landsat 8 or 9."),
        (
            ("SR_B1", "SR_B2", "SR_B3", "SR_B4"),
            "give --bands 4,3,2 if it is of Landsat 8 or 9; --bands 3,2,1 if it is of Landsat 4 to 7",
        ),
        (("a", "b", "c", "d"), "Say which they are, names or numbers in that order, with --bands"),
        (("blue", "green", "x"), "Say which they are"),
    ],
)  # fmt: skip
def test_hints_hold_for_this_scene_or_are_not_given(tmp_path, bands, says):
    with pytest.raises(BundleError) as refusal:
        open_matching(stack(tmp_path / "a.tif", bands), metadata(), None)
    assert says.rstrip(".") in str(refusal.value)
    assert "1,2,3" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_bands_without_names_are_taken_in_their_order_as_before(tmp_path):
    source = open_source(stack(tmp_path / "a.tif", ("", "", "")))
    assert taken(fit_bands(source, metadata(), None)) == [1, 2, 3]
    assert source.notes == ()


def test_pictures_find_red_green_and_blue():
    assert rgb_places(["SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B6"]) == [3, 2, 1]


# training


def scene(folder: Path, name: str, bands: tuple[str, ...]) -> None:
    stack(folder / f"{name}_image.tif", bands)
    write_raster(folder / f"{name}_label.tif", np.ones((1, 40, 50), np.uint8))


def settings(folder: Path, wanted: tuple[str, ...] = RGB, **data) -> Settings:
    classes = (ClassInfo("ground", "000000"), ClassInfo("roof", "FF0000"))
    return Settings("x", wanted, classes, (DataSet(str(folder), **data),))


def found(made: Settings):
    return find_samples(made.data[0], made)["train"]


def test_training_takes_bands_by_name_whatever_their_order(tmp_path):
    scene(tmp_path, "a", ("B02", "B03", "B04"))
    scene(tmp_path, "b", ("blue", "green", "red"))
    scene(tmp_path, "c", ("Red", "Green", "Blue"))
    made = settings(tmp_path)
    samples = found(made)
    assert [taken(sample.source) for sample in samples] == [[3, 2, 1], [3, 2, 1], [1, 2, 3]]
    assert band_orders(samples, made) == {"red from B04, green from B03, blue from B02": ["a"]}


@pytest.mark.parametrize("order", list(permutations(("B02", "B03", "B04"))))
def test_any_order_gives_the_same_pixels(tmp_path, order):
    scene(tmp_path, "a", order)
    (sample,) = found(settings(tmp_path))
    assert [order[n - 1] for n in taken(sample.source)] == ["B04", "B03", "B02"]


@pytest.mark.parametrize(
    ("bands", "says"),
    [
        (("B2", "B3", "B4"), "give data.bands = [3,2,1] if it is of Sentinel-2"),
        (("green", "red", "nir"), "Say which they are, names or numbers in that order, with data.bands"),
        (("x", "red", "y"), "which by their names these are not"),
    ],
)
def test_names_that_contradict_the_settings_are_refused(tmp_path, bands, says):
    scene(tmp_path, "a", bands)
    with pytest.raises(TrainingError) as refusal:
        found(settings(tmp_path))
    assert says in str(refusal.value)
    assert str(refusal.value).count("\n") == 1
    explicit = settings(tmp_path, bands=(1, 2, 3))
    samples = found(explicit)
    assert taken(samples[0].source) == [1, 2, 3]  # the user has said it
    ((text, names),) = band_orders(samples, explicit).items()
    assert text.endswith("although their names say otherwise")
    assert names == ["a"]


def test_images_without_names_do_not_follow_one_whose_bands_were_put_in_order(tmp_path):
    scene(tmp_path, "a", ("blue", "green", "red"))
    scene(tmp_path, "b", ("", "", ""))
    with pytest.raises(TrainingError, match="has the bands band_1, band_2, band_3"):
        found(settings(tmp_path))
    scene(tmp_path, "a", RGB)
    assert [taken(sample.source) for sample in found(settings(tmp_path))] == [[1, 2, 3]] * 2


def test_names_that_nobody_knows_are_taken_in_their_order(tmp_path):
    scene(tmp_path, "a", ("VV", "VH", "x"))
    assert taken(found(settings(tmp_path, ("vv1", "vh1")))[0].source) == [1, 2]
    scene(tmp_path, "a", ("B2", "B3", "B4"))
    assert taken(found(settings(tmp_path, ("blue", "green", "red")))[0].source) == [1, 2, 3]  # right for some sensors


def test_tags_tell_the_sensor(tmp_path):
    for spacecraft, numbers in (("LANDSAT_8", [3, 2, 1]), ("LANDSAT_7", None)):
        path = stack(tmp_path / f"{spacecraft[-1]}.tif", ("B2", "B3", "B4"))
        with rasterio.open(path, "r+") as file:
            file.update_tags(SPACECRAFT_ID=spacecraft)
        if numbers:
            assert taken(open_matching(path, metadata(), None)) == numbers
        else:
            with pytest.raises(BundleError, match="needs the bands"):
                open_matching(path, metadata(), None)
