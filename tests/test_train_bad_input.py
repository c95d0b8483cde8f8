"""What an enemy gives to a training: each is refused in one or two lines, and nothing that was there is lost."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from training_data import small_settings, write_raster, write_scene, write_scenes

from models.bundle import load_bundle
from models.errors import BundleError, SceneError, SwatheError, TrainingError
from models.exporting import export_onnx, write_item
from pipeline.store.files import Files
from train.cli.app import cli
from train.config import Network, Settings
from train.data.chips import begin_reader, reader_errors
from train.data_qa.inspection import inspect
from train.evaluation.evaluation import work_folder
from train.fitting.fit import train
from train.fitting.learning_rate import find_rate
from train.fitting.training import WholeCheckpoints, make_trainer, prepare

TINY = {"network": {"options": {"widths": [4, 8]}}, "loop": {"steps": 2, "check_every": 1, "ema": 0.0}}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def begun(scenes, tmp_path_factory) -> Path:
    """A finished training; tests work on copies of its folder."""
    output = tmp_path_factory.mktemp("begun") / "roofs"
    train(tiny(scenes), output, show=False)
    return output


@pytest.fixture
def again(begun, tmp_path) -> Path:
    """The same training with its bundle still to be written."""
    shutil.copytree(f"{begun}.training", tmp_path / "roofs.training")
    return tmp_path / "roofs"


def tiny(scenes: Path, **more) -> Settings:
    data = [{"root": str(scenes), "train": ["a", "b"]}]
    return small_settings(scenes, **{"data": data, **TINY, **more})


def refused(settings: Settings, output: str | Path, **how: bool) -> str:
    """Train, and give the message, which is short."""
    with pytest.raises(SwatheError) as caught:
        train(settings, output, show=False, **how)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2
    return text


# what was there before


def test_an_output_is_local_and_has_a_name(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "s3://bucket/o is not a local path" in refused(tiny(scenes), "s3://bucket/o")
    assert "the output is empty" in refused(tiny(scenes), "")
    assert not [*tmp_path.glob("s3*"), *tmp_path.glob("*.training")]


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_that_no_training_has_made_is_not_touched(scenes, tmp_path, restart):
    (tmp_path / "o.training").mkdir()
    (tmp_path / "o.training/precious").write_text("mine")
    assert "no training's folder" in refused(tiny(scenes), tmp_path / "o", restart=restart)
    assert (tmp_path / "o.training/precious").read_text() == "mine"
    assert not (tmp_path / "o").exists()


def test_only_a_bundle_is_overwritten(scenes, begun, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("mine")
    image = Path(shutil.copy(scenes / "a_image.tif", tmp_path))
    before = image.read_bytes()
    assert "also holds precious" in refused(tiny(scenes), tmp_path / "data", overwrite=True)
    assert "no bundle" in refused(tiny(scenes), image, overwrite=True)
    assert image.read_bytes() == before
    (begun.parent / "roofs.sha256").unlink()  # as a kill at its very end leaves it
    assert train(tiny(scenes), begun, show=False).path == begun
    assert (begun.parent / "roofs.sha256").exists()
    assert "exists" in refused(tiny(scenes, seed=9), begun)
    shutil.copytree(begun, tmp_path / "bundle")
    (tmp_path / "bundle/notes.txt").write_text("mine")
    assert "also holds notes.txt" in refused(tiny(scenes), tmp_path / "bundle", overwrite=True)
    (tmp_path / "bundle/notes.txt").unlink()
    assert train(tiny(scenes), tmp_path / "bundle", overwrite=True, show=False).path == tmp_path / "bundle"


def test_no_picture_takes_the_place_of_a_mask(scenes, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('name = "n"\nbands = ["a"]\nclasses = [{name="a", color="000000"}, {name="b", color="FF0000"}]\n'
                      f"[[data]]\nroot = {json.dumps(str(scenes))}\n", encoding="utf-8")  # fmt: skip
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"drawn by hand")
    for flag in ("--find-rate", "--check"):
        said = CliRunner().invoke(cli, ["train", str(config), flag, "-q", "-o", str(mask)])
        assert isinstance(said.exception, SwatheError)
        assert "exists" in str(said.exception)
        said = CliRunner().invoke(cli, ["train", str(config), flag, "-o", str(scenes / "a_image.tif"), "--overwrite"])
        assert said.exit_code == 2
        assert "must end in .png" in said.output
    assert mask.read_bytes() == b"drawn by hand"


# what is wrong with the network is told before any data are read


@pytest.mark.parametrize(
    ("network", "size", "said"),
    [
        ({"architecture": "unett"}, 32, "unknown network 'unett'"),
        ({"architecture": "unet", "options": {"width": [4]}}, 32, "it takes no option width"),
        ({"architecture": "unet", "options": {"widths": []}}, 32, "widths are whole numbers above 0"),
        (
            {"architecture": "unet", "options": {"widths": [4, 4, 4, 4]}},
            36,
            "chips of 36 pixels do not fit unet, which halves",
        ),
        ({"architecture": "smp:Unet", "options": {"encoder_name": "resnet19"}}, 32, "there is no encoder 'resnet19'"),
        ({"architecture": "smp:Unet", "options": {"encoder": "resnet18"}}, 32, "did you mean 'encoder_name'"),
        ({"architecture": "smp:Unett", "options": {}}, 32, "has no 'Unett'"),
        ({"architecture": "unet", "options": {"widths": [4]}, "weights": "gone.pth"}, 32, "gone.pth"),
    ],
)
def test_wrong_networks_fail_before_data_are_measured(scenes, tmp_path, monkeypatch, network, size, said):
    settings = replace(tiny(scenes), network=Network(**network))
    settings = replace(settings, chips=replace(settings.chips, size=size))
    checked = inspect(settings, str(tmp_path / "c.png"), show=False)
    assert said in checked.text
    assert checked.text.startswith("error    ")
    assert checked.errors == 1

    def read(*_: object, **__: object) -> None:
        raise AssertionError("data were read")

    for name in ("gather", "compute_statistics"):
        monkeypatch.setattr(f"train.fitting.training.{name}", read)
    assert said in refused(settings, tmp_path / "o")


def test_a_fault_of_many_samples_is_told_once(tmp_path):
    for number in range(6):
        write_scene(tmp_path, f"s{number}", number, size=64)
        labels = np.zeros((2 if number < 5 else 1, 64, 64), np.uint8)
        labels[-1, :20] = 1
        write_raster(tmp_path / f"s{number}_label.tif", labels, number)
    (tmp_path / "s4_label.tif").unlink()
    settings = tiny(tmp_path, data=[{"root": str(tmp_path)}], chips={"size": 16})
    lines = inspect(settings, str(tmp_path / "c.png"), show=False).text.splitlines()
    told = [line for line in lines if "has 2 bands" in line]
    assert told == ["error    4 samples (s0, s1, s2, ...): *.tif has 2 bands; labels have one, or three for colours"]
    assert len([line for line in lines if "s4 has no label" in line]) == 1
    assert sum(line.startswith("error ") for line in lines) == 2


@pytest.mark.slow
@pytest.mark.parametrize("finished", [False, True])
def test_what_is_said_when_a_training_is_stopped_is_true(scenes, tmp_path, finished):
    config = tmp_path / "c.toml"
    config.write_text(f"""
name = "n"
bands = ["red", "green", "blue"]
classes = [{{name="a", color="000000"}}, {{name="b", color="FF0000"}}]
network = {{architecture = "unet", options = {{widths = [4, 8]}}}}
chips = {{size = 32, batch = 4}}
loop = {{steps = 100000, check_every = {5 if finished else 50000}, threads = 1}}
[[data]]
root = {json.dumps(str(scenes))}
train = ["a"]
""")
    words = [sys.executable, "-c", "from train.cli.app import main; main()", "train", config, "-o", tmp_path / "o"]
    process = subprocess.Popen(list(map(str, words)), stderr=-1, text=True)
    checkpoint = tmp_path / "o.training/checkpoints/last.ckpt"
    while not (checkpoint.exists() if finished else (tmp_path / "o.training/logs").exists()) and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].splitlines()[-1]
    assert said == (
        "stopped; what is finished is kept, run the same command again to continue"
        if finished
        else "stopped; what was finished before, if anything, is kept: run the same command again"
    )
    assert checkpoint.exists() == finished


# going on


def test_a_training_goes_on_with_the_images_that_it_began_with(scenes, tmp_path):
    other = tmp_path / "scenes"
    shutil.copytree(scenes, other)
    settings = tiny(other)
    train(settings, tmp_path / "o", show=False)
    shutil.rmtree(tmp_path / "o")
    with rasterio.open(other / "a_image.tif", "r+") as image:
        image.write(image.read() // 2)
    said = refused(settings, tmp_path / "o")
    assert "images.mean" in said
    assert "--restart" in said
    train(settings, tmp_path / "o", restart=True, show=False)


def test_a_checkpoint_of_another_network(scenes, again, tmp_path):
    wider = {**TINY, "network": {"options": {"widths": [4, 12]}}}
    train(tiny(scenes, **wider), tmp_path / "other", show=False)
    last = Path(f"{again}.training/checkpoints/last.ckpt")
    shutil.copy(tmp_path / "other.training/checkpoints/last.ckpt", last)
    said = refused(tiny(scenes), again)
    assert "another network" in said
    assert "12" in said
    torch.save({"weights": torch.zeros(3)}, last)
    assert "another network" in refused(tiny(scenes), again)


@pytest.mark.parametrize(
    ("name", "content"), [("settings.json", "{"), ("checkpoints/last.ckpt", "PK\3\4"), ("checkpoints/last.ckpt", "")]
)
def test_damaged_files_of_a_training(scenes, again, name, content):
    Path(f"{again}.training/{name}").write_text(content)
    said = refused(tiny(scenes), again)
    assert "damaged" in said
    assert "--restart" in said


def test_two_trainings_into_one_output(scenes, again):
    release = Files(f"{again}.training").lock()
    try:
        assert "another training" in refused(tiny(scenes), again)
    finally:
        release()
    train(tiny(scenes), again, show=False)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(scenes, again, monkeypatch):
    """Also where the system's temporary files are on another disk, from which a move is a copy."""
    last = Path(f"{again}.training/checkpoints/last.ckpt")
    before = last.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.move", killed)
    monkeypatch.setattr("pipeline.store.files.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        WholeCheckpoints().save_checkpoint({"weights": torch.zeros(99)}, last)
    assert last.read_bytes() == before
    monkeypatch.undo()
    junk = next(last.parent.glob("*.partial"))
    train(tiny(scenes), again, show=False)
    assert not junk.exists()
    plugins = make_trainer(tiny(scenes).loop, 1, again.parent / "x", validated=False, show=False).strategy.checkpoint_io
    assert isinstance(plugins, WholeCheckpoints)


def test_slurm_on_the_path_changes_nothing(scenes, tmp_path, monkeypatch):
    """Lightning warns where it finds `srun`, and inside of a job would wait for the other tasks of it."""
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in {
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    trainer = make_trainer(tiny(scenes).loop, 1, tmp_path / "run", validated=False, show=False)
    assert (trainer.world_size, trainer.global_rank) == (1, 0)


class Broken(torch.utils.data.Dataset[int]):
    """Chips of which none can be read."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> int:
        raise SceneError("a.tif cannot be read: it is cut short.\nCopy it again")


def test_errors_of_processes_that_read_chips_are_as_short_as_ours():
    loader = torch.utils.data.DataLoader(Broken(), num_workers=1, worker_init_fn=begin_reader)
    with pytest.raises(SceneError) as caught, reader_errors():
        list(loader)
    assert str(caught.value) == "a.tif cannot be read: it is cut short.\nCopy it again"
    with pytest.raises(TrainingError, match="chips ahead has died"), reader_errors():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")  # torch's words
    with pytest.raises(RuntimeError, match="a defect"), reader_errors():
        raise RuntimeError("a defect")


# bundles for others


def test_an_item_or_a_graph_takes_no_input_s_place(begun, tmp_path):
    bundle = load_bundle(shutil.copytree(begun, tmp_path / "bundle"))
    with pytest.raises(BundleError, match="the bundle's own"):
        write_item(bundle, tmp_path / "bundle/bundle.json", overwrite=True)
    assert load_bundle(tmp_path / "bundle").digest == bundle.digest
    for write in (write_item, export_onnx):
        with pytest.raises(BundleError, match="local path"):
            write(bundle, f"s3://x/y{'.json' if write is write_item else '.onnx'}")


def test_an_evaluation_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="cannot be written"), work_folder(tmp_path / "file/scores"):
        raise AssertionError("it was given")


def test_a_threshold_that_is_no_number():
    said = CliRunner().invoke(cli, ["evaluate", "buildings", "a.tif", "b.tif", "-o", "x", "--threshold", "nan"])
    assert said.exit_code == 2
    assert "from 0 to 1; received nan" in said.output


# settings that would fail at the very end


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "two words"}, "name is 'two words'"),
        ({"name": ""}, "name is ''"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 10**23}, "seed is"),
        ({"dtype": "foo"}, "dtype is 'foo'"),
        ({"resolution": [0.0, 0.0]}, "resolution is"),
        ({"resolution": [30, 10]}, "resolution is"),
        ({"bands": ["red", "green", ""]}, "bands is"),
        ({"loss": {"class_weights": [float("inf"), 1]}}, "class_weights is"),
        ({"loop": {"threads": 100_000}}, "threads is"),
        ({"loop": {"learning_rate": float("nan")}}, "learning_rate is nan"),
        ({"loop": {"learning_rate": 3.0}}, "learning_rate is 3.0"),
    ],
)
def test_settings_out_of_range(scenes, more, said):
    with pytest.raises(TrainingError) as caught:
        tiny(scenes, **more)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_provenance_that_no_bundle_can_keep(scenes, tmp_path):
    from datetime import date

    for value in (date(2020, 2, 2), float("nan")):
        assert "provenance" in refused(tiny(scenes, provenance={"when": value}), tmp_path / "o")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there(scenes, tmp_path):
    many = torch.cuda.device_count() + 1
    said = refused(tiny(scenes, loop={**TINY["loop"], "device": "cuda", "devices": many}), tmp_path / "o")
    assert "set loop.device to auto or cpu" in said


def test_a_search_for_a_rate_does_not_end_with_a_short_training(scenes, capsys):
    rates = find_rate(prepare(tiny(scenes), show=False), steps=40, show=False)
    assert len(rates.tried) > 20
    assert capsys.readouterr().err == ""


def test_devices_that_cannot_share_a_batch(scenes, tmp_path):
    said = refused(tiny(scenes, loop={**TINY["loop"], "device": "cpu", "devices": 3}), tmp_path / "o")
    assert "chips.batch is 4" in said


def test_a_validation_without_the_class_still_gives_a_bundle(scenes, tmp_path):
    """Its scores are no numbers, which a bundle cannot keep: what was learnt must not be lost for them."""
    copied = Path(shutil.copytree(scenes, tmp_path / "scenes"))
    write_raster(copied / "v_label.tif", np.zeros((1, 160, 160), np.uint8), 2)
    data = [{"root": str(copied), "train": ["a", "b"], "validate": ["v"]}]
    made = train(tiny(copied, data=data), tmp_path / "o", show=False)
    assert set(made.metadata.metrics["validation"]) <= {"iou", "f1", "precision", "recall", "accuracy"}
    assert "accuracy" in made.metadata.metrics["validation"]


@pytest.mark.parametrize("nodata", [float("nan"), 999, -1, 1.5])
def test_nodata_that_no_pixel_can_be(scenes, nodata):
    data = [{"root": str(scenes), "train": ["a", "b"], "nodata": nodata}]
    with pytest.raises(TrainingError, match="which no pixel of"):
        prepare(tiny(scenes, data=data), show=False)
