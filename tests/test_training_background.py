"""Which class is the background, in training: said in settings, checked, in the bundle, and what labels leave out."""

import json

import geopandas
import numpy as np
import pytest
import shapely
import torch
from click.testing import CliRunner
from helpers import network
from PIL import Image
from training_data import small_settings, write_raster, write_scenes

from models import ClassInfo, load_bundle
from models.errors import BundleError, TrainingError
from models.importing import import_model
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.scene import open_source
from train.cli.app import cli
from train.config import settings_of
from train.config.schema import IGNORE
from train.data.classes import value_table
from train.data.datasets import gather
from train.data.labels import open_labels
from train.data_qa.contact_sheet import write_sheet
from train.evaluation.baselines import fit_brightness
from train.fitting.fit import train
from train.fitting.module import scores_of
from train.fitting.run_folder import deciding

LAND = [
    {"name": "Building", "color": "E4572E"},
    {"name": "Road", "color": "17BEBB"},
    {"name": "Land", "color": "76B041"},
]
CLASSES = tuple(ClassInfo(**one) for one in LAND)
SWAPPED = [{"name": "roof", "color": "FF0000"}, {"name": "ground", "color": "000000"}]
VALUES = {"0": "ground", "1": "roof"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# settings


@pytest.mark.parametrize(
    ("classes", "given", "name", "value"),
    [
        (LAND, {"background": "Land"}, "Land", 2),
        (LAND, {"background": "Building"}, "Building", 0),
        (LAND, {"background": "none"}, None, None),
        (LAND, {"background": False}, None, None),
        (LAND[:2], {}, "Building", 0),  # as before it could be said
        (LAND[:2], {"background": "Road"}, "Road", 1),
        (LAND[:2], {"background": "none"}, None, None),
        ([{"name": "Other", "color": "000000"}, *LAND], {}, "Other", 0),
        ([*LAND, {"name": "none", "color": "000000"}], {"background": "none"}, "none", 3),
        ([*LAND, {"name": "none", "color": "000000"}], {"background": False}, None, None),
    ],
)
def test_settings_say_the_background(tmp_path, classes, given, name, value):
    settings = small_settings(tmp_path, classes=classes, **given)
    assert (settings.background_name, settings.background_value) == (name, value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r'not said: give background = .*of Building, Road, Land, or "none" where all.*\(--background NAME\)'),
        ({"background": "land"}, "background is 'land'; it must be a class's name, of Building, Road, Land, or"),
        ({"background": True}, "background is True; it must be a class's name"),
        ({"background": 2}, "background is 2; it must be text, or true or false"),
        (
            {"background": "none", "data": [{"root": ".", "unlabelled": "background"}]},
            "unlabelled is 'background', but",
        ),
    ],
)
def test_settings_without_a_sound_background_are_refused(tmp_path, given, said):
    with pytest.raises(TrainingError, match=said):
        small_settings(tmp_path, classes=LAND, **given)


def test_a_training_that_was_begun_before_goes_on(tmp_path):
    """Its folder says nothing of a background, which was the first class; another one is another training."""
    plain = deciding(small_settings(tmp_path))
    assert "background" not in plain
    assert deciding(small_settings(tmp_path, background="ground")) == plain
    assert deciding(small_settings(tmp_path, background="roof"))["background"] == "roof"
    assert deciding(small_settings(tmp_path, background="none"))["background"] == "none"
    first = deciding(small_settings(tmp_path, classes=LAND, background="Building"))
    assert "background" not in first


# labels


@pytest.mark.parametrize("background", [0, 2, None])
@pytest.mark.parametrize("unlabelled", [None, "background", "ignore"])
@pytest.mark.parametrize("kind", ["vector", "raster"])
def test_what_lies_outside_labels(tmp_path, kind, background, unlabelled):
    """Polygons are burnt over the background, whichever class it is, and without one nothing counts outside of them."""
    write_raster(tmp_path / "s.tif", np.zeros((1, 20, 30), np.uint8))
    geobox, table = open_source(tmp_path / "s.tif").geobox, value_table(CLASSES)
    expected = np.full((20, 30), IGNORE, np.uint8)
    usual = "background" if kind == "vector" and background is not None else "ignore"
    if (unlabelled or usual) == "background":
        expected[:] = IGNORE if background is None else background
    expected[2:7, 3:9], expected[8:12, 10:20] = 0, 1
    if kind == "vector":
        boxes = [shapely.box(3, 2, 9, 7), shapely.box(10, 8, 20, 12)]
        placed = [shapely.transform(one, lambda xy: np.stack(geobox.affine * (xy[:, 0], xy[:, 1]), 1)) for one in boxes]
        path = tmp_path / "l.gpkg"
        geopandas.GeoDataFrame({"kind": ["Building", "Road"]}, geometry=placed, crs="EPSG:32736").to_file(path)
        how = {"attribute": "kind"}
    else:
        values = np.full((1, 20, 30), 99, np.uint8)
        values[0, 2:7, 3:9], values[0, 8:12, 10:20] = 0, 1
        path, how = tmp_path / "l.tif", {}
        write_raster(path, values, nodata=99)
    if background is None and unlabelled == "background":
        with pytest.raises(TrainingError, match="unlabelled pixels cannot be background, since no class is"):
            open_labels(str(path), geobox, table, unlabelled=unlabelled, background=background, **how)
        return
    labels = open_labels(str(path), geobox, table, unlabelled=unlabelled, background=background, **how)
    np.testing.assert_array_equal(labels.read(geobox.whole), expected)


@pytest.mark.parametrize("background", [0, 1, None])
def test_polygons_of_two_classes_are_of_the_one_that_is_not_background(tmp_path, background):
    geobox = GeoBox(10, 10, open_source(_blank(tmp_path)).geobox.transform, open_source(_blank(tmp_path)).geobox.crs)
    left, bottom, _, top = geobox.bounds()
    path = tmp_path / "l.gpkg"
    geopandas.GeoDataFrame(geometry=[shapely.box(left, bottom, left + 4, top)], crs="EPSG:32736").to_file(path)
    if background is None:
        with pytest.raises(TrainingError, match="polygons of which class"):
            open_labels(str(path), geobox, value_table(CLASSES[:2]), background=None)
        return
    read = open_labels(str(path), geobox, value_table(CLASSES[:2]), background=background).read(Window(0, 10, 0, 10))
    assert (read[:, :4] == 1 - background).all()
    assert (read[:, 4:] == background).all()


def _blank(folder):
    write_raster(folder / "s.tif", np.zeros((1, 10, 10), np.uint8))
    return folder / "s.tif"


@pytest.mark.parametrize(("classes", "background", "cloud"), [("ab", "a", "b"), ("ab", "b", "a"), ("ab", None, "b")])
def test_published_sets_have_the_background_first(tmp_path, classes, background, cloud):
    from train.data.datasets import table_of

    described = [{"name": name, "color": f"00000{n}"} for n, name in enumerate(classes)]
    given = {} if background is None else {"background": background}
    for layout, code in (("38-cloud", 255), ("massachusetts", 0xFFFFFF)):
        settings = small_settings(tmp_path, classes=described, data=[{"root": ".", "layout": layout}], **given)
        table = table_of(settings.data[0], settings, tmp_path)
        assert table.decode(np.array([[0, code]])).labels.tolist()[0] == [
            1 - classes.index(cloud),
            classes.index(cloud),
        ]


# what is made of it


def test_the_bundle_has_the_background_of_the_settings(scenes, tmp_path):
    """With the second class for background, a training learns and decides as with the first."""
    data = [{"root": str(scenes), "train": ["a", "b"], "validate": ["v"], "values": VALUES}]
    settings = small_settings(
        scenes, classes=SWAPPED, background="ground", data=data, loop={"steps": 24, "check_every": 12}
    )
    metadata = train(settings, tmp_path / "roofs", show=False).metadata
    assert (metadata.background, metadata.background_value) == ("ground", 1)
    assert set(metadata.thresholds) == {"roof"}
    assert metadata.metrics["validation"]["iou"] > 0.8  # of the roofs
    assert load_bundle(tmp_path / "roofs").metadata.background == "ground"


def test_scores_leave_out_the_background():
    counts = torch.tensor([[6, 2, 0], [1, 5, 1], [0, 3, 7]])
    iou = [6 / 9, 5 / 12, 7 / 11]
    for background, counted in ((0, iou[1:]), (2, iou[:2]), (None, iou)):
        assert scores_of(counts, background)["iou"].item() == pytest.approx(np.mean(counted))


def test_brightness_finds_the_class_that_is_not_the_background(scenes, client):
    data = [{"root": str(scenes), "train": ["a"]}]
    plain = gather(small_settings(scenes, data=data))["train"]
    swapped = gather(small_settings(scenes, classes=SWAPPED, background="ground", data=[{**data[0], "values": VALUES}]))
    one = fit_brightness(plain, client, "best")
    other = fit_brightness(swapped["train"], client, "best", bright=0)
    assert (one.limit, one.means) == (other.limit, other.means)
    pixels = plain[0].source.read(Window(0, 40, 0, 40)).data
    np.testing.assert_array_equal(one.probabilities(pixels), other.probabilities(pixels)[::-1])
    assert one.metadata() != other.metadata()


@pytest.mark.parametrize("background", [0, 2, None])
def test_chips_show_all_classes_but_the_background(tmp_path, background):
    labels = np.repeat(np.arange(3), 40)[None].repeat(120, 0)
    chip = (torch.full((3, 120, 120), 50.0), torch.from_numpy(labels))
    drawn = np.asarray(
        Image.open(write_sheet([chip], CLASSES, tmp_path / "s.png", background=background)).convert("RGB")
    )
    # outlines are solid; the patches of the legend are small
    found = [(drawn == info.rgb).all(axis=-1).sum() > 100 for info in CLASSES]
    assert found == [value != background for value in range(3)]


def swathe(*words) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_command_asks_for_it_and_check_shows_it(scenes, tmp_path):
    given = ("train", "--train", scenes / "a_image.tif", scenes / "a_label.tif", "--classes", "Building,Road,Land")
    check = ("--check", "-o", tmp_path / "c.png", "--set", "chips.size=32")
    with pytest.raises(TrainingError, match="--background NAME"):
        swathe(*given, *check)
    assert "classes: Building, Road, Land; background: Land" in swathe(*given, *check, "--background", "Land")
    said = swathe(*given, *check, "--background", "none", "--overwrite")
    assert "background: none, all are of equal standing" in said
    with pytest.raises(TrainingError, match="background is 'Sea'"):
        swathe(*given, *check, "--background", "Sea")
    listed = ", ".join("{" + ", ".join(f'{key} = "{text}"' for key, text in one.items()) + "}" for one in LAND)
    config = tmp_path / "c.toml"
    config.write_text(
        'name = "x"\nbands = ["red", "green", "blue"]\nbackground = "Land"\n'
        f"classes = [{listed}]\n"
        f'[[data]]\nroot = "{scenes}"\ntrain = ["a"]\n'
    )
    assert "background: Land" in swathe("train", config, *check, "--overwrite")
    assert "background: Road" in swathe("train", config, *check, "--overwrite", "--background", "Road")


@pytest.mark.parametrize(("given", "background"), [("Land", "Land"), ("none", None), (False, None), (None, None)])
def test_foreign_weights_say_it_too(tmp_path, given, background):
    config = {"name": "x", "architecture": "unet", "options": {"widths": [4, 8, 8]}, "bands": ["red"],
              "dtype": "uint8", "scaling": {"divisor": 255}, "classes": LAND,
              **({} if given is None else {"background": given})}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(config))
    torch.save(network("unet", 1, 3, widths=[4, 8, 8]).state_dict(), tmp_path / "w.pth")
    made = import_model(tmp_path / "w.pth", tmp_path / "b", config=tmp_path / "c.json")
    assert made.metadata.background == background
    assert load_bundle(tmp_path / "b").metadata.background == background
    (tmp_path / "c.json").write_text(json.dumps({**config, "background": "Sea"}))
    with pytest.raises(BundleError, match="received 'Sea'"):
        import_model(tmp_path / "w.pth", tmp_path / "d", config=tmp_path / "c.json")


def test_settings_files_may_say_false():
    raw = {"name": "x", "bands": ["a"], "classes": LAND, "data": [{"root": "."}], "background": False}
    assert settings_of(raw).background_name is None
