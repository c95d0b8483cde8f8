"""The verb `swathe train`: a config or flags, a look at the data, a search for a rate, and what is refused."""

import errno
import json

import numpy as np
import pytest
from click.testing import CliRunner
from training_data import small_settings, write_raster, write_scene, write_scenes

from models import SwatheError, load_bundle
from train.cli.app import cli
from train.config.schema import IGNORE
from train.data.datasets import gather
from train.data_qa.inspection import inspect
from train.fitting.training import prepare

QUICK = ("--set", "network.options.widths=[6, 8]", "--set", "chips.size=32", "--set", "loop.steps=4", "--set",
         "loop.check_every=2", "--set", "loop.threads=1")  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def swathe(*words) -> str:
    result = CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_images_and_labels_by_flags(scenes, tmp_path):
    learn = (
        "--train",
        scenes / "a_image.tif",
        scenes / "a_label.tif",
        "--train",
        scenes / "b_image.tif",
        scenes / "b_label.tif",
    )
    choose = ("--val", scenes / "v_image.tif", scenes / "v_label.tif", "--classes", "ground,roof")
    said = swathe("train", *learn, *choose, "-o", tmp_path / "mine", *QUICK)
    assert "wrote" in said
    assert "validation: iou" in said
    metadata = load_bundle(tmp_path / "mine").metadata
    assert metadata.class_names == ("ground", "roof")
    assert metadata.provenance["trained on"] == ["a_image", "b_image"]
    assert metadata.provenance["chosen on"] == ["v_image"]
    with pytest.raises(SwatheError, match="exists"):
        swathe("train", *learn, "--classes", "a,b", "-o", tmp_path / "mine")


def test_vectors_by_flags_and_blocks_kept_for_validation(scenes, tmp_path):
    import geopandas
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

    with rasterio.open(scenes / "a_label.tif") as source:
        found = [shape(outline) for outline, value in shapes(source.read(1), transform=source.transform) if value]
        frame = geopandas.GeoDataFrame(geometry=found, crs=source.crs)
    frame.to_crs(4326).to_file(tmp_path / "roofs.geojson")
    said = swathe("train", "--train", scenes / "a_image.tif", tmp_path / "roofs.geojson", "--classes", "ground,roof",
                  "-o", tmp_path / "mine.zip", *QUICK, "--set", "data.0.split.side=64")  # fmt: skip
    assert "wrote" in said
    assert load_bundle(tmp_path / "mine.zip").metadata.provenance["chosen on"] == ["a_image"]


def test_a_look_at_the_data(scenes, tmp_path):
    settings = small_settings(
        scenes, data=[{"root": str(scenes), "train": ["a", "b"], "validate": ["v"], "test": ["b"]}]
    )
    twice = inspect(settings, str(tmp_path / "x.png"), show=False)
    assert "b in both train and test" in twice.text
    assert twice.errors
    sound = inspect(small_settings(scenes), str(tmp_path / "sheet.png"), show=False)
    told = str(sound)
    assert sound.errors == 0
    assert "samples: 2 to train, 1 to validate, 0 to test" in told
    assert (tmp_path / "sheet.png").stat().st_size > 20_000
    assert (tmp_path / "sheet-augment.png").stat().st_size > 20_000
    with pytest.raises(SwatheError, match="exists"):
        inspect(small_settings(scenes), str(tmp_path / "sheet.png"), show=False)


def test_a_look_at_what_is_wrong(scenes, tmp_path):
    write_scene(tmp_path, "good")
    write_raster(tmp_path / "odd_image.tif", np.full((3, 96, 96), 90, np.uint8), 7)
    labels = np.zeros((1, 96, 96), np.uint8)
    labels[0, :4] = 9
    write_raster(tmp_path / "odd_label.tif", labels, 7)
    settings = small_settings(tmp_path, data=[{"root": str(tmp_path), "train": ["good", "odd"]}])
    told = inspect(settings, str(tmp_path / "sheet.png"), show=False).text
    assert "error" in told
    assert "9" in told
    assert "384" in told  # how many pixels have the unknown value


def test_a_check_tells_of_every_pair_that_does_not_fit(tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    write_raster(scenes / "a_label.tif", np.zeros((1, 30, 30), np.uint8), crs=None)
    write_raster(scenes / "c_image.tif", np.zeros((1, 90, 90), np.uint8))
    write_raster(scenes / "c_label.tif", np.zeros((1, 90, 90), np.uint8))
    write_raster(scenes / "d_image.tif", np.zeros((3, 90, 90), np.uint8))
    names = {"root": str(scenes), "train": ["a", "b", "c", "d"], "validate": ["v"]}
    told = inspect(small_settings(scenes, data=[names]), str(tmp_path / "sheet.png"), show=False).text
    wrong = [line for line in told.splitlines() if line.startswith("error")]
    assert [any(name in line for line in wrong) for name in ("a_label.tif", "c_image.tif", "d has no label")] == [
        True
    ] * 3
    assert "samples: 1 to train, 1 to validate, 0 to test" in told
    assert (tmp_path / "sheet.png").is_file()


def test_a_check_goes_on_past_a_bad_first_image_a_bad_set_and_a_split_of_nothing(tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    write_raster(scenes / "0_image.tif", np.zeros((1, 90, 90), np.uint16))
    write_raster(scenes / "0_label.tif", np.zeros((1, 90, 90), np.uint8))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/x_image.tif").write_bytes(b"no raster")
    write_raster(tmp_path / "bad/x_label.tif", np.zeros((1, 90, 90), np.uint8))
    sets = [
        {"root": str(tmp_path / "bad"), "split": {"side": 64}},
        {"root": str(tmp_path / "nowhere")},
        {"root": str(scenes), "train": ["0", "a", "b"], "validate": ["v"]},
    ]
    found = inspect(small_settings(scenes, data=sets), str(tmp_path / "sheet.png"), show=False)
    wrong = [line for line in found.text.splitlines() if line.startswith("error")]
    for name in ("x_image.tif", "nowhere", "0_image.tif"):
        assert any(name in line for line in wrong)
    assert found.errors == len(wrong) == 3
    assert "samples: 2 to train, 1 to validate, 0 to test" in found.text


def test_a_check_that_finds_errors_says_so_to_scripts(scenes, tmp_path):
    flags = ("--train", scenes / "none.tif", scenes / "a_label.tif", "--classes", "a,b", "--bands", "1,2,3")
    words = [str(word) for word in ("train", *flags, "--check", "-o", tmp_path / "s.png")]
    result = CliRunner().invoke(cli, words)
    assert (result.exit_code, "none" in result.output) == (1, True)


def test_what_a_check_found_is_told_though_no_picture_can_be_written(scenes, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    told = inspect(small_settings(scenes), str(tmp_path / "sheet.png"), show=False).text
    assert "samples: 2 to train" in told
    assert "No space left on device" in told
    assert list(tmp_path.iterdir()) == []


def test_a_config_with_changes_and_a_rate(scenes, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
        name = "roofs"
        bands = ["red", "green", "blue"]
        classes = [{{name = "ground", color = "000000"}}, {{name = "roof", color = "FF0000"}}]
        network = {{architecture = "unet", options = {{widths = [6, 8]}}}}
        [[data]]
        root = {json.dumps(str(scenes))}
        train = ["a"]
        """,
        encoding="utf-8",
    )
    said = swathe("train", path, "--find-rate", "-o", tmp_path / "rates.png", *QUICK)
    assert "--set loop.learning_rate=" in said or "no learning rate" in said
    assert (tmp_path / "rates.png").exists()
    with pytest.raises(SwatheError, match="did you mean 'steps'"):
        swathe("train", path, "-o", tmp_path / "o", "--set", "loop.stesp=3")
    with pytest.raises(SwatheError, match="cannot be read"):
        swathe("train", tmp_path / "no.toml", "-o", tmp_path / "o")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x.toml",), "cannot be read"),
        ((), "give CONFIG"),
        (("x.toml", "--classes", "a,b"), "not both"),
        (("--train", "a.tif", "b.tif"), "--classes"),
        (("--learn", "a.tif", "b.tif"), "No such option"),
    ],
)
def test_wrong_usage(words, said):
    try:
        told = swathe("train", *words)
    except SwatheError as error:
        told = str(error)
    assert said in told


def test_blocks_that_are_kept_for_validation_count_nowhere_else(scenes):
    data = [{"root": str(scenes), "train": ["a", "b"], "split": {"side": 40, "validate": 0.3}}]
    settings = small_settings(scenes, data=data)
    parts = gather(settings)
    assert not parts["test"]
    for name in ("a", "b"):
        seen = np.zeros((160, 160), int)
        for samples in (parts["train"], parts["validate"]):
            for sample in (one for one in samples if one.name == name):
                seen += sample.read(sample.geobox.whole).labels != IGNORE
        assert (seen == 1).all()
    training = prepare(settings, show=False)
    share = training.statistics.class_pixels.sum() / (2 * 160 * 160)
    assert 0.6 < share < 0.8
    for number in range(20):
        assert (training.chips[number][1] != IGNORE).all()
