"""Folders of images with labels: each layout's files are found, shared out, and checked against each other."""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from helpers import GRID, SHARED, UTM, write_item, write_raster
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from products import write_landsat, write_safe
from rasterio.errors import NotGeoreferencedWarning

from models.errors import SwatheError, TrainingError
from models.metadata import ClassInfo
from pipeline import open_scene
from pipeline.io.radiometry import Rescaled
from train.config import DataSet, Layout, Settings
from train.config.schema import IGNORE, PARTS
from train.data.datasets import find_samples, merge
from train.data.layouts import find_pairs
from train.data.samples import Parts, Sample

TWO = (ClassInfo("ground", "000000"), ClassInfo("roof", "FFFFFF"))
RGB = ("red", "green", "blue")
TALL, WIDE = 12, 16
PLAIN = {"crs": None, "transform": None}


def settings_for(data: DataSet, bands: tuple[str, ...] = RGB, classes=TWO, **more) -> Settings:
    return Settings("x", bands, classes, (data,), **more)


def found(data: DataSet, **more) -> Parts:
    return find_samples(data, settings_for(data, **more))


def names(splits: Parts) -> dict[str, list[str]]:
    return {part: [sample.name for sample in splits[part]] for part in PARTS if splits[part]}


def image(path: Path, seed: int = 0, bands: int = 3, dtype: str = "uint8", size=(TALL, WIDE), **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(1, 250, (bands, *size)).astype(dtype)
    return saved(path, values, **profile)


def label(path: Path, seed: int = 0, high: int = 1, size=(TALL, WIDE), **profile) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 2, (1, *size)).astype(np.uint8) * np.uint8(high)
    return saved(path, values, **profile)


def saved(path: Path, values: np.ndarray, **profile) -> Path:
    png = {"driver": "PNG", **PLAIN} if path.suffix == ".png" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return write_raster(path, values, **{**profile, **png})


def scenes(folder: Path, *called: str, **profile) -> Path:
    for seed, name in enumerate(called):
        image(folder / f"{name}_image.tif", seed, **profile)
        label(folder / f"{name}_label.tif", seed)
    return folder


def refused(data: DataSet, says: str, **more) -> None:
    with pytest.raises(SwatheError, match=says) as refusal:
        found(data, **more)
    assert str(refusal.value).count("\n") <= 1


# scenes


def test_scenes_are_found_by_pattern(tmp_path):
    scenes(tmp_path, "b", "a", "c")
    (tmp_path / "notes.txt").write_text("x")
    data = DataSet(str(tmp_path))
    assert names(found(data)) == {"train": ["a", "b", "c"]}
    named = replace(data, train=("a", "[bc]"), validate=())
    assert names(found(named)) == {"train": ["a", "b", "c"]}
    shared = replace(data, train=("a",), validate=("b*",), test=("c",))
    assert names(found(shared)) == {"train": ["a"], "validate": ["b"], "test": ["c"]}
    assert names(found(replace(data, test=("b",)))) == {"test": ["b"]}  # a set may be for the test alone
    sample = found(shared)["validate"][0]
    assert sample.paths == (str(tmp_path / "b_image.tif"), str(tmp_path / "b_label.tif"))
    assert sample.areas == (sample.geobox.whole,)
    read = sample.read(sample.geobox.whole)
    with rasterio.open(tmp_path / "b_image.tif") as pixels, rasterio.open(tmp_path / "b_label.tif") as labels:
        assert (read.pixels == pixels.read()).all()
        assert (read.labels == labels.read(1)).all()
    assert read.valid.all()


def test_paths_are_relative_to_the_settings(tmp_path):
    scenes(tmp_path / "data", "a")
    settings = settings_for(DataSet("../data"), path=str(tmp_path / "configs/x.toml"))
    (tmp_path / "configs").mkdir()
    assert names(find_samples(settings.data[0], settings)) == {"train": ["a"]}


@pytest.mark.parametrize(
    ("pictures", "drawn", "files", "expected"),
    [
        ("{name}.tif", "{name}_label.tif", ["a.tif", "a_label.tif", "b.tif", "b_label.tif"], ["a", "b"]),
        ("{name}_image.tif", "{name}.tif", ["a_image.tif", "a.tif"], ["a"]),
        ("{name}/image.tif", "{name}/label.tif", ["a/image.tif", "a/label.tif"], ["a"]),
        ("pre_{name}_2*.tif", "{name}_label.tif", ["pre_a_2019.tif", "a_label.tif"], ["a"]),
        ("{name}/{name}.tif", "{name}/l.tif", ["a/a.tif", "a/l.tif", "b/x.tif"], ["a"]),
        ("only.tif", "label.tif", ["only.tif", "label.tif", "other.tif"], ["only"]),
        ("[x]{name}.tif", "l{name}.tif", ["[x]a.tif", "la.tif"], ["a"]),
    ],
)
def test_patterns(tmp_path, pictures, drawn, files, expected):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = find_pairs(DataSet("", image=pictures, label=drawn), tmp_path)
    assert [pair.name for pair in pairs] == expected
    assert not any(pair.lacks for pair in pairs)


@given(st.sets(st.text("ab_.", min_size=1, max_size=4).filter(lambda name: name.strip(".")), min_size=1, max_size=6))
def test_any_names_pair_up(tmp_path_factory, called):
    folder = tmp_path_factory.mktemp("names")
    for name in called:
        for ending in ("_image.tif", "_label.tif"):
            (folder / f"x{name}{ending}").touch()
    pairs = find_pairs(DataSet(""), folder)
    assert [pair.name for pair in pairs] == sorted(f"x{name}" for name in called)
    for pair in pairs:
        assert (Path(pair.images[0]).name, Path(pair.label).name) == (
            f"{pair.name}_image.tif",
            f"{pair.name}_label.tif",
        )
        assert not pair.lacks


def test_one_file_per_band(tmp_path):
    for name in "ab":
        for number, band in enumerate(("B2", "B3", "B4")):
            image(tmp_path / f"{name}_{band}.tif", number, 1, "uint16")
        label(tmp_path / f"{name}_label.tif")
    data = DataSet(str(tmp_path), image=("{name}_B4.tif", "{name}_B3.tif", "{name}_B2.tif"))
    sample = found(data)["train"][0]
    assert sample.source.bands == ("B4", "B3", "B2")
    with rasterio.open(tmp_path / "a_B4.tif") as first:
        assert (sample.read(sample.geobox.whole).pixels[0] == first.read(1)).all()
    assert found(replace(data, bands=(3, 1)), bands=("blue", "red"))["train"][0].source.bands == ("B2", "B4")
    (tmp_path / "b_B3.tif").unlink()
    refused(data, "b has no image: .*b_B3.tif")


def test_bands_by_name_number_or_order(tmp_path):
    scenes(tmp_path, "a", bands=4, descriptions=("blue", "green", "red", "nir"), photometric="MINISBLACK")
    data = DataSet(str(tmp_path))
    assert found(data)["train"][0].source.bands == RGB  # by the network's own names
    assert found(data, bands=("x", "y"))["train"][0].source.bands == ("blue", "green")  # else the first
    assert found(replace(data, bands=(4, "RED")), bands=("x", "y"))["train"][0].source.bands == ("nir", "red")
    refused(replace(data, bands=(1, 2)), "name 2, but the network has 3")
    refused(replace(data, bands=(1, 2, 5)), "a_image.tif: the scene has no band 5")
    refused(data, "has 4 bands, blue, green, red, nir; the network has 5", bands=tuple("vwxyz"))


def test_vector_labels_for_several_scenes(tmp_path):
    scenes(tmp_path, "a", "b")
    x, y = GRID * (2, 3)
    roof = shapely.box(x, y - 40, x + 50, y)
    geopandas.GeoDataFrame({"geometry": [roof]}, crs=UTM).to_crs(4326).to_file(tmp_path / "r.geojson", engine="pyogrio")
    splits = found(DataSet(str(tmp_path), label="r.geojson", burn="roof", train=("a",), validate=("b",)))
    expected = np.zeros((TALL, WIDE), np.uint8)
    expected[3:7, 2:7] = 1
    for part in ("train", "validate"):
        sample = splits[part][0]
        assert (sample.read(sample.geobox.whole).labels == expected).all()


# what is not there, or does not fit


def test_names_that_match_nothing_are_refused(tmp_path):
    scenes(tmp_path, "zanzibar_a", "zanzibar_b", "kampala_a")
    data = DataSet(str(tmp_path))
    refused(replace(data, train=("zanzibar_c",)), "train names 'zanzibar_c', .*near: zanzibar_[ab], zanzibar_[ab]")
    refused(replace(data, test=("q*",)), "test names 'q.', .*there are kampala_a, zanzibar_a, zanzibar_b")
    refused(replace(data, train=("z*",), validate=("*_a",)), "zanzibar_a in both train and validate")
    refused(replace(data, train=("k*",), test=("k*",)), "kampala_a in both train and test")


def test_empty_and_absent_folders_are_refused(tmp_path):
    refused(DataSet(str(tmp_path / "none")), "no such folder: .*none")
    refused(DataSet(str(tmp_path)), "nothing in .* matches '{name}_image.tif'; there are no files")
    for number in range(7):
        (tmp_path / f"{number}.txt").touch()
    refused(DataSet(str(tmp_path)), "there are 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ...")
    layouts: tuple[tuple[Layout, str], ...] = (
        ("38-cloud", "no folders train_red"),
        ("massachusetts", "no folders train and train_labels"),
        ("folders", "no folder 'images'"),
    )
    for layout, says in layouts:
        refused(DataSet(str(tmp_path), layout=layout), says)


def test_halves_are_refused(tmp_path):
    scenes(tmp_path, "a", "b", "c")
    (tmp_path / "b_label.tif").unlink()
    (tmp_path / "c_image.tif").unlink()
    data = DataSet(str(tmp_path))
    refused(data, r"b has no label: .*b_label.tif; so it is with 1 more")
    refused(replace(data, train=("c",)), r"c has no image: .*c_image.tif\.")
    assert names(found(replace(data, train=("a",)))) == {"train": ["a"]}
    refused(replace(data, label="all.geojson", train=("a",)), "a has no label: .*all.geojson")


def test_two_files_for_one_are_refused(tmp_path):
    for name in ("a_1.tif", "a_2.tif"):
        (tmp_path / name).touch()
    refused(DataSet(str(tmp_path), image="{name}_*.tif"), "'{name}_.*.tif' matches both a_1.tif and a_2.tif")
    for name in ("images/a.png", "images/a.tif", "masks/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    refused(DataSet(str(tmp_path), layout="folders"), "images has both a.png and a.tif")


def test_bands_that_differ_are_refused(tmp_path):
    scenes(tmp_path, "a", bands=3)
    scenes(tmp_path, "b", bands=5, photometric="MINISBLACK")
    refused(
        DataSet(str(tmp_path)), r"b_image.tif has the bands band_1, .*, band_5;\n.*a_image.tif has red, green, blue"
    )
    scenes(tmp_path, "b", photometric="MINISBLACK")  # bands without names may be the same
    assert names(found(DataSet(str(tmp_path)))) == {"train": ["a", "b"]}
    by_names = DataSet(str(tmp_path), bands=("red", "green", "blue"))
    for name, extra in (("a", ()), ("b", ("nir",))):
        scenes(tmp_path, name, bands=3 + len(extra), descriptions=(*RGB, *extra), photometric="MINISBLACK")
    assert names(found(by_names)) == {"train": ["a", "b"]}


def test_types_that_differ_are_refused(tmp_path):
    scenes(tmp_path, "a")
    scenes(tmp_path, "b", dtype="uint16")
    data = DataSet(str(tmp_path))
    refused(data, "b_image.tif is uint16, but this training is for uint8")
    refused(replace(data, train=("a",)), "a_image.tif is uint8, but this training is for int8", dtype="int8")
    widened = found(replace(data, train=("a",)), dtype="uint16")["train"][0]
    assert widened.source.dtype == np.uint16
    raw = widened.read(widened.geobox.whole).pixels
    scaled = found(replace(data, train=("a",), gain=18.7, offset=756), dtype="uint16")["train"][0]
    assert (scaled.read(scaled.geobox.whole).pixels == np.rint(raw * 18.7 + 756)).all()
    refused(replace(data, train=("a",), gain=18.7), "say their type then, as dtype = 'uint16'")


def test_sizes_that_differ_are_refused(tmp_path):
    scenes(tmp_path, "a", **PLAIN)
    label(tmp_path / "a_label.tif", size=(TALL, WIDE - 1), **PLAIN)
    refused(DataSet(str(tmp_path)), "not aligned with its image: labels 12 x 15 pixels, image 12 x 16")


def test_sets_are_merged(tmp_path):
    for folder in ("one", "two"):
        scenes(tmp_path / folder, "a", f"only_{folder}")
    scenes(tmp_path / "wide", "w", dtype="uint16")
    one, two, wide = (found(DataSet(str(tmp_path / folder))) for folder in ("one", "two", "wide"))
    assert names(merge([one, two])) == {"train": ["a (1)", "only_one", "a (2)", "only_two"]}
    with pytest.raises(TrainingError, match=r"a_image.tif gives uint8 values, .*w_image.tif uint16"):
        merge([one, wide])
    assert merge([]) == {part: [] for part in PARTS}


# blank pixels


@pytest.mark.parametrize(("nodata", "value"), [("white", 255), ("zero", 0), (7.0, 7)])
def test_blank_pixels_are_ignored(tmp_path, nodata, value):
    path = image(tmp_path / "a_image.tif")
    label(tmp_path / "a_label.tif")
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, :4] = value
        pixels[1:, 5] = value  # in one band it is another value: observed
        file.write(pixels)
    sample = found(DataSet(str(tmp_path), nodata=nodata))["train"][0]
    read = sample.read(sample.geobox.whole)
    blank = np.zeros((TALL, WIDE), bool)
    blank[:4] = True
    assert (read.valid == ~blank).all()
    with rasterio.open(tmp_path / "a_label.tif") as file:
        assert (read.labels == np.where(blank, IGNORE, file.read(1))).all()
    assert found(DataSet(str(tmp_path)))["train"][0].read(sample.geobox.whole).valid.all()


def test_white_of_fractions_is_refused(tmp_path):
    scenes(tmp_path, "a", dtype="float32")
    refused(DataSet(str(tmp_path), nodata="white"), "float32, which has no white")


# published layouts


def cloud_set(folder: Path, patches: list[str], ending: str = "") -> Path:
    for seed, name in enumerate(patches):
        for number, band in enumerate(("red", "green", "blue", "nir")):
            image(folder / f"train_{band}{ending}/{band}_{name}.TIF", 4 * seed + number, 1, "uint16", **PLAIN)
        label(folder / f"train_gt{ending}/gt_{name}.TIF", seed, 255, **PLAIN)
    return folder


CLOUDS = (ClassInfo("clear", "000000"), ClassInfo("cloud", "FFFFFF"))
RGBN = ("red", "green", "blue", "nir")


def test_38_and_95_cloud(tmp_path):
    own = cloud_set(tmp_path / "38-Cloud_training", ["patch_1", "patch_2", "patch_3"])
    more = cloud_set(
        tmp_path / "95-cloud_training_only_additional_to38-cloud", ["patch_8", "patch_9"], "_additional_to38cloud"
    )
    data = DataSet(str(tmp_path), layout="38-cloud")
    everything = found(data, bands=RGBN, classes=CLOUDS)
    assert names(everything) == {"train": ["patch_1", "patch_2", "patch_3", "patch_8", "patch_9"]}
    sample = everything["train"][3]
    with rasterio.open(more / "train_nir_additional_to38cloud/nir_patch_8.TIF") as file:
        assert (sample.read(sample.geobox.whole).pixels[3] == file.read(1)).all()
    with rasterio.open(more / "train_gt_additional_to38cloud/gt_patch_8.TIF") as file:
        assert (sample.read(sample.geobox.whole).labels == file.read(1) // 255).all()

    (own / "training_patches_38-Cloud.csv").write_text("name\npatch_1\npatch_2\npatch_3\n")
    (tmp_path / "training_patches_38-cloud_nonempty.csv").write_text("name\npatch_1\npatch_3\npatch_77\n")
    (more / "training_patches_95-cloud_nonempty.csv").write_text("name\npatch_1\npatch_9\n")
    assert names(found(data, bands=RGBN, classes=CLOUDS)) == {"train": ["patch_1", "patch_3", "patch_9"]}
    alone = replace(data, root=str(own))
    assert names(found(alone, bands=RGBN, classes=CLOUDS)) == {"train": ["patch_1", "patch_2", "patch_3"]}
    assert found(alone, bands=("nir", "red"), classes=CLOUDS)["train"][0].source.bands == ("nir", "red")
    assert found(replace(alone, bands=(4,)), bands=("x",), classes=CLOUDS)["train"][0].source.bands == ("nir",)


def test_38_cloud_that_is_not_whole(tmp_path):
    folder = cloud_set(tmp_path / "38-Cloud_training", ["patch_1", "patch_2"])
    shutil.rmtree(folder / "train_nir")
    data = DataSet(str(tmp_path), layout="38-cloud")
    assert found(data, classes=CLOUDS)["train"][0].source.bands == RGB
    refused(data, "has 3 bands, red, green, blue; the network has 4", bands=RGBN, classes=CLOUDS)
    (folder / "train_green/green_patch_2.TIF").unlink()
    refused(data, "patch_2 has no image: green_patch_2 in .*38-Cloud_training", classes=CLOUDS)
    (folder / "train_gt/gt_patch_1.TIF").unlink()
    refused(replace(data, train=("patch_1",)), "patch_1 has no label: gt_patch_1", classes=CLOUDS)


@pytest.mark.parametrize("kind", ["tiff", "png", "toronto", "masks"])
@pytest.mark.parametrize("table", [True, False])
def test_massachusetts(tmp_path, kind, table):
    ending = "png" if kind == "png" else "tif"
    place = {"tiff": "tiff/{}", "png": "png/{}", "toronto": "{}/sat", "masks": "images"}[kind]
    drawn = {"tiff": "tiff/{}_labels", "png": "png/{}_labels", "toronto": "{}/map", "masks": "masks"}[kind]
    parts = ("train", "valid" if kind == "toronto" else "val", "test")
    for number, part in enumerate(parts):
        path = image(tmp_path / place.format(part) / f"{number}_15.{'png' if kind == 'png' else 'tiff'}", **PLAIN)
        with rasterio.open(path) as file:
            pixels = file.read()
        pixels[:, :3] = 255
        saved(path, pixels, **({} if kind == "png" else PLAIN))
        mask = np.random.default_rng(number).integers(0, 2, (TALL, WIDE)).astype(np.uint8)
        red = kind == "toronto"  # as Mnih drew them
        colors = np.stack([mask * 255, mask * (0 if red else 255), mask * (0 if red else 255)]).astype(np.uint8)
        target = tmp_path / drawn.format(part) / f"{number}_15.{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        saved(target, colors, photometric="RGB", **({} if kind == "png" else PLAIN))
    if table:
        (tmp_path / "label_class_dict.csv").write_text("name,r,g,b\nground,0,0,0\nroof,255,255,255\n")
    data = DataSet(str(tmp_path), layout="massachusetts")
    splits = found(data)
    alike = {"train": ["0_15", "1_15", "2_15"]}
    assert names(splits) == (alike if kind == "masks" else {"train": ["0_15"], "validate": ["1_15"], "test": ["2_15"]})
    sample = splits["train"][0]
    read = sample.read(sample.geobox.whole)
    expected = np.random.default_rng(0).integers(0, 2, (TALL, WIDE))
    expected[:3] = IGNORE  # white
    assert (read.labels == expected).all()
    if kind != "masks":
        assert names(found(replace(data, train=("train/*", "validate/*"), test=("2_15",)))) == {
            "train": ["0_15", "1_15"],
            "test": ["2_15"],
        }


def test_massachusetts_with_odd_tables(tmp_path):
    image(tmp_path / "images/a.png")
    label(tmp_path / "masks/a.png", high=255)
    data = DataSet(str(tmp_path), layout="massachusetts")
    three = (*TWO, ClassInfo("water", "0000FF"))
    refused(data, "no label_class_dict.csv, and there are 3 classes", classes=three)
    by_value = replace(data, values={"0": "ground", "255": "water"})
    assert set(np.unique(_labels(found(by_value, classes=three)["train"][0]))) == {0, 2}
    (tmp_path / "label_class_dict.csv").write_text("name,r,g,b\nbackground,0,0,0\nroof,255,255,255\n")
    refused(data, "colour 000000 stands for 'background', which is no class")
    named = replace(data, colors="label_class_dict.csv", values={"background": "ground"})
    assert set(np.unique(_labels(found(named)["train"][0]))) == {0, 1}
    refused(replace(data, colors="none.csv"), "none.csv cannot be read as a table of colours")


def _labels(sample: Sample) -> np.ndarray:
    return sample.read(sample.geobox.whole).labels


def test_generic_folders(tmp_path):
    for place in ("x", "y"):
        for seed, (name, ending) in enumerate((("a", "png"), ("b", "tif"))):
            image(tmp_path / place / "pics" / f"{name}.{ending}", seed, **({} if ending == "png" else PLAIN))
            label(tmp_path / place / "drawn" / f"{name}.png", seed)
    data = DataSet(str(tmp_path), layout="folders", image="*/pics", label="*/drawn")
    assert names(found(data)) == {"train": ["x/a", "x/b", "y/a", "y/b"]}
    assert names(found(replace(data, train=("x/*",), validate=("y/b",)))) == {
        "train": ["x/a", "x/b"],
        "validate": ["y/b"],
    }
    one = replace(data, root=str(tmp_path / "x"), image="pics", label="drawn/")
    assert names(found(one)) == {"train": ["a", "b"]}
    (tmp_path / "x/drawn/c.png").write_bytes((tmp_path / "x/drawn/a.png").read_bytes())
    refused(one, "c has no image: .*pics/c")
    (tmp_path / "z/pics").mkdir(parents=True)
    refused(data, "z/pics has images, but there is no folder of labels .*z/drawn")
    (tmp_path / "x").rename(tmp_path / "images")
    refused(replace(data, image="images", label="masks"), "no folder of labels .*masks")


def test_one_bands_images_become_no_adjusted_ones(tmp_path):
    scenes(tmp_path, "a")
    assert not isinstance(found(DataSet(str(tmp_path)))["train"][0].source, Rescaled)


# real files

real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which a clone lacks")


@real
def test_real_38_cloud():
    data = DataSet(str(SHARED / "cloud38"), layout="38-cloud")
    splits = found(data, bands=RGBN, classes=CLOUDS)
    assert len(splits["train"]) == 7
    for sample in splits["train"]:
        read = sample.read(sample.geobox.whole)
        assert read.pixels.shape == (4, 384, 384)
        assert read.pixels.dtype == np.uint16
        with rasterio.open(sample.paths[-1]) as file:
            drawn = file.read(1)
        assert (read.valid == (read.pixels > 0).any(axis=0)).all()
        assert (read.labels == np.where(read.valid, drawn // 255, IGNORE)).all()
    one = next(sample for sample in splits["train"] if "064014" in sample.name)
    with rasterio.open(one.paths[3]) as file:
        assert (one.read(one.geobox.whole).pixels[3] == file.read(1)).all()


# GDAL says that PNG and TIFF without position have none, when the tests themselves open them
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@real
def test_real_massachusetts_white_is_not_observed():
    road = (TWO[0], ClassInfo("road", "FFFFFF"))
    splits = found(DataSet(str(SHARED / "mass_roads"), layout="massachusetts"), classes=road)
    assert names(splits) == {"train": ["17428735_15", "17428750_15"]}
    for sample in splits["train"]:
        read = sample.read(sample.geobox.whole)
        with rasterio.open(sample.paths[0]) as pixels, rasterio.open(sample.paths[1]) as drawn:
            white, roads = (pixels.read() == 255).all(axis=0), drawn.read(1)
        assert white.mean() > 0.3
        assert (roads[white] == 255).any()  # the labels go on under the white
        assert (read.labels == np.where(white, IGNORE, roads // 255)).all()


DUBAI = {"Building": "3C1098", "Land": "8429F6", "Road": "6EC1E4", "Vegetation": "FEDD3A", "Water": "E2A929"}


@real
def test_real_dubai():
    classes = tuple(ClassInfo(name, color) for name, color in DUBAI.items())
    data = DataSet(str(SHARED / "dubai_semseg"), layout="folders", image="*/images", label="*/masks", colors=True)
    splits = found(replace(data, ignore=("9B9B9B", "000000")), classes=classes, background="none")
    assert len(splits["train"]) == 36
    colors = np.array([info.rgb for info in classes], np.uint8)
    for sample in splits["train"][::7]:
        with Image.open(sample.paths[1]) as file:  # some have a palette
            mask = np.asarray(file.convert("RGB"))
        expected = np.full(mask.shape[:2], IGNORE)
        for place, color in enumerate(colors):
            expected[(mask == color).all(axis=-1)] = place
        assert (_labels(sample) == expected).all()
    unsaid = [sample.labels.unknown() for sample in found(data, classes=classes, background="none")["train"]]
    assert {color for unknown in unsaid for color in unknown} == {"9B9B9B", "000000"}
    published = tuple(ClassInfo(name, color) for name, color in (("Land", "F5A623"), ("Road", "DE597F")))
    with pytest.raises(TrainingError, match=r"colours that mean no class: 8429F6 \([\d,]+ pixels\)"):
        _labels(found(data, classes=published)["train"][0])


@real
def test_real_scenes():
    clouds = DataSet(
        str(SHARED / "landsat8_redcross/tiles/A"),
        image="{name}_image.png",
        label="{name}_label.png",
        values={"0": "clear", "255": "cloud"},
        ignore=(128,),
        train=("r0[0-6]_*",),
        validate=("r07_*",),
    )
    splits = found(clouds, classes=CLOUDS)
    assert {part: len(samples) for part, samples in splits.items()} == {"train": 63, "validate": 9, "test": 0}
    assert set(np.unique(_labels(splits["train"][5]))) <= {0, 1, IGNORE}

    buildings = DataSet(
        str(SHARED / "oam_buildings/scenes"), train=("*_a_*",), validate=("zan*_b_*",), test=("kam*_b_*",)
    )
    assert [len(found(buildings)[part]) for part in PARTS] == [2, 1, 1]

    flood = DataSet(
        str(SHARED / "sen1floods11"),
        image="{name}_S2Hand.tif",
        label="{name}_LabelHand.tif",
        bands=("B4", "B3", "B2"),
        ignore=(-1,),
    )
    sample = found(flood)["train"][0]
    assert sample.source.bands == ("B4", "B3", "B2")
    assert (_labels(sample) == IGNORE).sum() == 99


@real
def test_real_bands_in_files_and_polygons_in_another_crs():
    cover = tuple(
        ClassInfo(name, f"{place:06X}")
        for place, name in enumerate(("Sand", "Forested Wetland", "Herbaceous", "Emergent Wetland", "Subtidal Haline"))
    )
    data = DataSet(
        str(SHARED / "s2_opengeo/data"),
        image=tuple(f"sentinel-2/{{name}}, B0{number}.tiff" for number in (4, 3, 2)),
        label="rcr/rcr_landcover.shp",
        attribute="Classname",
        unlabelled="ignore",
    )
    refused(data, r"'WetSand' \(2 polygons\)", classes=cover, background="none")
    sample = found(replace(data, values={"WetSand": "Sand"}), classes=cover, background="none")["train"][0]
    assert sample.source.bands == ("B04", "B03", "B02")
    labels = _labels(sample)
    polygons = geopandas.read_file(SHARED / "s2_opengeo/data/rcr/rcr_landcover.shp", engine="pyogrio")
    area = polygons.area.sum()  # in the zone's own metres
    metres = 111_320.0**2 * np.cos(np.deg2rad(34.65)) * 8.984632940281312e-05 * 7.391322126306281e-05
    assert (labels != IGNORE).sum() * metres == pytest.approx(area, rel=0.05)
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, IGNORE}


def test_stac_items_as_images_with_bands_off_their_finest_grid(tmp_path):
    folder = tmp_path
    for name, size in (("B04", (TALL, WIDE)), ("B03", (TALL, WIDE)), ("PAN", (2 * TALL, 2 * WIDE))):
        finer = rasterio.Affine(10 if size[0] == TALL else 5, 0, 5e5, 0, -10 if size[0] == TALL else -5, 9e6)
        image(folder / f"{name}.tif", bands=1, size=size, transform=finer)
    assets = {n: {"href": f"{n}.tif", "roles": ["data"], "bands": [{"name": n}]} for n in ("PAN", "B04", "B03")}
    write_item(folder / "s.json", assets, "1.1.0")
    label(folder / "s_label.tif", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 9e6))
    data = DataSet(str(folder), image="{name}.json", label="{name}_label.tif", train=("s",), bands=("B03", "B04"))
    (sample,) = found(data, bands=("green", "red"))["train"]
    assert sample.geobox.shape == (TALL, WIDE)
    assert [Path(layer.path).stem for layer in sample.source.raster_bands] == ["B03", "B04"]
    with pytest.raises(TrainingError, match="name 2, but the network has 3"):
        found(data)


def test_a_safe_folder_is_an_image_whose_bands_decide_its_grid(tmp_path):
    bands = write_safe(tmp_path, ending="tif")
    label(tmp_path / "labels.tif", size=(30, 30), crs="EPSG:32633", transform=Affine(20, 0, 3e5, 0, -20, 5.8e6))
    data = DataSet(str(tmp_path), image="{name}.SAFE", label="labels.tif", resampling="bilinear")
    (sample,) = found(data, bands=("swir22", "swir16"))["train"]
    assert sample.name == bands["path"].stem
    np.testing.assert_array_equal(sample.source.read(sample.geobox.whole).data, [bands["B12"], bands["B11"]])
    label(tmp_path / "labels.tif", size=(60, 60), crs="EPSG:32633", transform=Affine(10, 0, 3e5, 0, -10, 5.8e6))
    (mixed,) = found(data, bands=("red", "swir16"))["train"]
    expected = open_scene(bands["path"], ["red", "swir16"], resampling="bilinear")
    np.testing.assert_array_equal(mixed.source.read(mixed.geobox.whole).data, expected)


def test_a_folder_of_landsats_files_is_an_image(tmp_path):
    bands = write_landsat(tmp_path / "scene")
    label(tmp_path / "labels.tif", size=(60, 60), crs="EPSG:32633", transform=Affine(30, 0, 3e5, 0, -30, 5.8e6))
    (sample,) = found(DataSet(str(tmp_path), image="{name}/", label="labels.tif"), bands=("nir", "red"))["train"]
    assert sample.name == "scene"
    np.testing.assert_array_equal(sample.source.read(sample.geobox.whole).data, [bands["SR_B5"], bands["SR_B4"]])
