"""Settings: what a file may say, and what is said of what it may not."""

from dataclasses import replace

import pytest

from models.errors import TrainingError
from train.config import read_settings, settings_of

GOOD = {
    "name": "clouds",
    "bands": ["red", "green"],
    "classes": [{"name": "clear", "color": "000000"}, {"name": "cloud", "color": "FFFFFF"}],
    "data": [{"root": "here", "train": ["a*"]}],
}


def changed(**more):
    return {**GOOD, **more}


def test_the_least_that_a_file_must_say():
    settings = settings_of(changed())
    assert settings.class_names == ("clear", "cloud")
    assert settings.data[0].train == ("a*",)
    assert settings.network.architecture == "smp:Unet"


def test_every_table_is_read(tmp_path):
    path = tmp_path / "all.toml"
    path.write_text(
        """
        name = "all"
        bands = ["red"]
        classes = [{name = "no", color = "000000"}, {name = "yes", color = "FF0000"}]
        resolution = [1, 2.5]
        seed = 3
        [[data]]
        root = "there"
        image = ["{name}_B4.tif", "{name}_B3.tif"]
        bands = [1]
        values = { 255 = "yes" }
        nodata = 0
        ignore = [128, "9B9B9B"]
        train = ["x"]
        [data.split]
        by = "scenes"
        [network]
        architecture = "unet"
        options = { widths = [4, 8] }
        freeze = 3
        [loop]
        learning_rate = 1
        [provenance]
        who = "me"
        """,
        encoding="utf-8",
    )
    settings = read_settings(path, ["loop.steps=7", "data.0.root=elsewhere", 'loss.name="focal"'])
    data = settings.data[0]
    assert data.image == ("{name}_B4.tif", "{name}_B3.tif")
    assert (data.bands, data.values, data.nodata, data.ignore) == ((1,), {"255": "yes"}, 0.0, (128, "9B9B9B"))
    assert data.split is not None
    assert data.split.by == "scenes"
    assert data.root == "elsewhere"
    assert settings.resolution == (1.0, 2.5)
    assert (settings.network.freeze, settings.loop.learning_rate, settings.loop.steps) == (3, 1.0, 7)
    assert settings.loss.name == "focal"
    assert settings.folder == tmp_path


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (changed(nmae="x"), "unknown key 'nmae'; did you mean 'name'"),
        (changed(loop={"learning_rat": 0.1}), "unknown key 'loop.learning_rat'; did you mean 'learning_rate'"),
        (changed(data=[{"root": "x", "trian": []}]), "did you mean 'train'"),
        (changed(loop={"learning_rate": 3.0}), "loop.learning_rate is 3.0; it must be above 0, at most 1"),
        (changed(loop={"learning_rate": -1e-3}), "above 0, at most 1"),
        (changed(loop={"steps": 0}), "loop.steps is 0; it must be at least 1"),
        (changed(loop={"steps": 1.5}), "it must be a whole number"),
        (changed(loop={"steps": True}), "it must be a whole number"),
        (changed(loop={"optimizer": "sgd"}), "one of 'adam', 'adamw'"),
        (changed(chips={"zoom": [2, 1]}), "smaller first"),
        (changed(chips={"zoom": [1]}), "a list of 2"),
        (changed(chips={"size": 4}), "from 8 to 8192"),
        (changed(classes=[GOOD["classes"][0]]), "two or more"),
        (changed(classes=[GOOD["classes"][0]] * 2), "classes is clear; it must be each name once"),
        (changed(classes=[GOOD["classes"][0], {"name": "b", "color": "000000"}]), "each colour once"),
        (changed(classes=[GOOD["classes"][0], {"name": "b", "color": "red"}]), "six hex digits"),
        (changed(classes=[GOOD["classes"][0], {"name": "NoData", "color": "112233"}]), "cannot be called 'NoData'"),
        (changed(bands=["red", "red"]), "bands is red; it must be each name once"),
        (changed(loss={"class_weights": [1.0]}), "one per class, 2"),
        (changed(loss={"class_weights": [1.0, 0.0]}), "above 0"),
        (changed(loss={"class_weights": "balancd"}), "it must be a list, or one of 'balanced'"),
        (changed(loss={"name": "mse"}), "one of 'dice'"),
        (changed(data=[]), "one [[data]] table or more"),
        (changed(data={"root": "x"}), "it must be a list"),
        (changed(data=[{"root": "x", "layout": "kitti"}]), "one of 'scenes'"),
        (changed(data=[{"root": "x", "validate": ["a"], "split": {}}]), "give one of them"),
        (changed(data=[{"root": "x", "split": {"validate": 0.7, "test": 0.4}}]), "data.split.test is 0.4"),
        (changed(data=[{"root": "x", "nodata": "black"}]), "'white', 'zero'"),
        (changed(data=[{"root": "x", "gain": 0}]), "a number other than 0"),
        (changed(data=[{"root": 3}]), "data.root is 3; it must be text"),
        ({"name": "x"}, "bands is missing; needed: name, bands, classes, data"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(raw, said):
    with pytest.raises(TrainingError) as caught:
        settings_of(raw, "config.toml")
    assert said in str(caught.value)
    assert str(caught.value).startswith("config.toml: ")
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("change", ["loop.steps", "=3", "data.7.root=x", "name.x=3", "loop.stesp=4", "data.x.root=1"])
def test_changes_that_make_no_sense(change):
    with pytest.raises(TrainingError):
        settings_of(changed(), changes=[change])


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(TrainingError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ", encoding="utf-8")
    with pytest.raises(TrainingError, match="is not TOML"):
        read_settings(tmp_path / "bad.toml")


def test_settings_are_facts():
    one = settings_of(changed())
    assert one == settings_of(changed())
    assert replace(one, seed=1) != one
