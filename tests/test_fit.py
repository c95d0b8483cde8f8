"""A training as a whole: bundles, logs, resuming to the same bits, and what is refused before anything is written."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from training_data import small_settings, write_raster, write_scene, write_scenes

from models import load_bundle
from models.errors import TrainingError
from pipeline import run
from train.config import Loop
from train.fitting import module as fitting
from train.fitting.fit import fit, train
from train.fitting.learning_rate import draw_rates, find_rate
from train.fitting.module import SegmentationModule, round_up, schedule_of, scores_of
from train.fitting.run_folder import best_checkpoint, read_logs, write_curves
from train.fitting.training import make_module, prepare

SWATHE = Path(sys.executable).with_name("swathe")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "roofs"
    train(small_settings(scenes, loop={"steps": 60, "check_every": 15}), output, show=False)
    return output


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "weights.safetensors")


def same_bits(one: Path, other: Path) -> bool:
    """The bundle's weights and digest, and all that the last checkpoint holds of network and optimiser."""
    first, second = (torch.load(f"{o}.training/checkpoints/last.ckpt", weights_only=True) for o in (one, other))
    states = [(f["state_dict"], *f["optimizer_states"][0]["state"].values()) for f in (first, second)]
    pairs = [(a[key], b[key]) for a, b in zip(*states, strict=True) for key in a]
    pairs += [(value, weights(other)[key]) for key, value in weights(one).items()]
    same = load_bundle(one).digest == load_bundle(other).digest
    assert same == all(torch.equal(value, weights(other)[key]) for key, value in weights(one).items())
    return same and first["global_step"] == second["global_step"] and all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 20])
def test_a_rise_of_any_length_has_rates(steps):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = schedule_of(optimizer, Loop(warmup=0.1), steps)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if len(rates) < steps else None
    assert all(0 < rate <= 1e-3 for rate in rates)
    assert max(rates) > 0.95e-3 or steps < 10


def test_balanced_weights_are_those_of_the_training_pixels(scenes):
    told = {"name": "cross-entropy", "class_weights": "balanced"}
    training = prepare(small_settings(scenes, loss=told), show=False)
    pixels = training.statistics.class_pixels
    loss = make_module(training).loss
    assert isinstance(loss.weights, torch.Tensor)
    assert loss.weights.tolist() == pytest.approx((pixels.sum() / 2 / pixels).tolist())
    assert loss.weights[1] > 2 * loss.weights[0]  # roofs are rare there


def test_a_training_gives_a_bundle_that_segments(trained, scenes, tmp_path):
    bundle = load_bundle(trained)
    metadata = bundle.metadata
    assert (metadata.name, metadata.band_names, metadata.class_names) == (
        "roofs",
        ("red", "green", "blue"),
        ("ground", "roof"),
    )
    assert metadata.receptive_field.stride == 4
    assert metadata.dtype == "uint8"
    assert metadata.provenance["trained on"] == ["a", "b"]
    assert metadata.provenance["chosen on"] == ["v"]
    assert metadata.metrics["validation"]["iou"] > 0.7
    report = run(scenes / "v_image.tif", bundle, tmp_path / "v.zarr", show=False, threshold=metadata.thresholds)
    assert report.pixels["roof"] > 1000


def test_logs_and_the_curve(trained):
    folder = Path(f"{trained}.training")
    table = read_logs(folder)
    assert table["epoch"].tolist() == [0, 1, 2, 3]
    assert (table["step"] + 1).tolist() == [15, 30, 45, 60]
    assert table["loss"].iloc[-1] < table["loss"].iloc[0]
    assert {"iou", "f1", "accuracy", "validation_loss"} <= set(table)
    assert list((folder / "tensorboard").glob("events.out.*"))
    from PIL import Image

    curve = np.asarray(Image.open(folder / "curves.png").convert("RGB"))
    assert len(np.unique(curve.reshape(-1, 3), axis=0)) > 50


def test_the_checkpoint_that_validated_best_is_the_bundle(trained):
    folder = Path(f"{trained}.training")
    table = read_logs(folder)
    best = int(table.loc[table["iou"].idxmax(), "step"]) + 1
    assert best_checkpoint(folder).name == f"best-step={best}.ckpt"
    assert load_bundle(trained).metadata.provenance["best step"] == best
    state = torch.load(best_checkpoint(folder), weights_only=True)["state_dict"]
    for key, value in weights(trained).items():
        assert torch.equal(value, state[f"segmenter.network.{key}"])


def crash_at(monkeypatch, step: int) -> None:
    """Make the process fail at a step, as a kill would: nothing is tidied up."""
    real, seen = SegmentationModule.training_step, 0

    def failing(self, batch, number):
        nonlocal seen
        seen += 1
        if seen == step:
            raise RuntimeError("crash")
        return real(self, batch, number)

    monkeypatch.setattr(SegmentationModule, "training_step", failing)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loop": {"ema": 0.0, "accumulate": 2, "clip": 1.0, "schedule": "cosine", "keep": 2, "patience": 9}},
        {"network": {"freeze": 1, "encoder_rate": 0.3}, "loop": {"optimizer": "adam", "precision": "bf16"}},
    ],
)
def test_a_resumed_training_has_the_bits_of_an_uninterrupted_one(scenes, tmp_path, monkeypatch, changes):
    settings = small_settings(scenes, **changes)
    train(settings, tmp_path / "whole", show=False)
    with monkeypatch.context() as patch:
        crash_at(patch, random.Random(str(changes)).randrange(5, 12))
        with pytest.raises(RuntimeError, match="crash"):
            train(settings, tmp_path / "parts", show=False)
    assert not (tmp_path / "parts").exists()
    train(settings, tmp_path / "parts", show=False)
    assert same_bits(tmp_path / "whole", tmp_path / "parts")
    assert read_logs(tmp_path / "parts.training")["epoch"].tolist() == [0, 1, 2]


def test_a_finished_training_is_not_done_again_but_for_its_bundle(trained, scenes, tmp_path):
    settings = small_settings(scenes, loop={"steps": 60, "check_every": 15})
    shutil.copytree(f"{trained}.training", tmp_path / "again.training")
    started = time.monotonic()
    train(settings, tmp_path / "again", show=False)
    assert time.monotonic() - started < 20
    assert all(torch.equal(value, weights(trained)[key]) for key, value in weights(tmp_path / "again").items())


def test_the_seed_decides_and_nothing_else(scenes, tmp_path):
    for name, seed in (("one", 5), ("same", 5), ("other", 6)):
        torch.manual_seed(hash(name) % 1000)
        train(small_settings(scenes, seed=seed), tmp_path / name, show=False)
    assert same_bits(tmp_path / "one", tmp_path / "same")
    assert not same_bits(tmp_path / "one", tmp_path / "other")


def test_the_best_checkpoints_are_kept_and_the_last(scenes, tmp_path):
    train(small_settings(scenes, loop={"steps": 20, "keep": 3}), tmp_path / "o", show=False)
    found = sorted(path.name for path in (tmp_path / "o.training/checkpoints").iterdir())
    assert len(found) == 4
    assert "last.ckpt" in found


def test_training_stops_early_when_nothing_gets_better(scenes, tmp_path):
    settings = small_settings(scenes, loop={"steps": 200, "patience": 2, "learning_rate": 1e-9, "ema": 0.0})
    train(settings, tmp_path / "o", show=False)
    assert len(read_logs(tmp_path / "o.training")) <= 5


def test_without_validation_the_last_weights_are_kept(scenes, tmp_path):
    data = [{"root": str(scenes), "train": ["a", "b"]}]
    bundle = train(small_settings(scenes, data=data), tmp_path / "o", show=False)
    assert bundle.metadata.thresholds == {}
    assert best_checkpoint(tmp_path / "o.training").name == "last.ckpt"


def test_a_frozen_encoder_stays_and_thaws(scenes, tmp_path):
    def moved(freeze: bool | int) -> list[bool]:
        settings = small_settings(scenes, network={"freeze": freeze}, loop={"ema": 0.0})
        training = prepare(settings, show=False)
        module = make_module(training)
        before = {k: v.clone() for k, v in module.state_dict().items()}
        (run_folder := tmp_path / f"run{freeze}").mkdir()
        fit(training, module, run_folder, show=False)
        after = module.state_dict()
        encoder = [key for key in before if ".down." in key and key.endswith("weight")]
        assert len(encoder) >= 6
        rest = [key for key in before if ".up." in key and key.endswith("weight")]
        assert all(not torch.equal(before[key], after[key]) for key in rest)
        return [not torch.equal(before[key], after[key]) for key in encoder]

    assert not any(moved(True))
    assert all(moved(1))
    assert all(moved(False))


def test_a_loss_that_is_not_a_number_stops_and_names_the_batch(scenes, tmp_path, monkeypatch):
    real = fitting.Segmenter.logits
    monkeypatch.setattr(
        fitting.Segmenter, "logits", lambda self, x: real(self, x) * (float("nan") if self.training else 1)
    )
    with pytest.raises(TrainingError) as caught:
        train(small_settings(scenes), tmp_path / "o", show=False)
    said = str(caught.value)
    assert "the loss became nan at step 1" in said
    assert "rows " in said
    assert "a_image.tif" in said or "b_image.tif" in said
    assert not (tmp_path / "o").exists()


def refused(settings, output: Path, **how) -> str:
    with pytest.raises(TrainingError) as caught:
        train(settings, output, show=False, **how)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def test_other_settings_are_not_mixed_with_what_was_begun(trained, scenes, tmp_path):
    shutil.copytree(f"{trained}.training", tmp_path / "o.training")
    said = refused(small_settings(scenes, loop={"steps": 80, "check_every": 15}), tmp_path / "o")
    assert "loop.steps 60, now 80" in said
    assert "--restart" in said
    network = {"architecture": "simple-unet", "options": {"widths": [4, 4, 4]}}
    assert "network.architecture" in refused(small_settings(scenes, network=network), tmp_path / "o")
    train(small_settings(scenes), tmp_path / "o", show=False, restart=True)
    assert len(read_logs(tmp_path / "o.training")) == 3


def test_a_bundle_that_is_there_is_not_replaced_unasked(trained, scenes):
    before = (trained / "weights.safetensors").stat()
    assert "exists" in refused(small_settings(scenes, seed=5), trained)
    same = small_settings(scenes, loop={"steps": 60, "check_every": 15})
    assert train(same, trained, show=False).digest == load_bundle(trained).digest
    assert (trained / "weights.safetensors").stat() == before
    assert "exists" in refused(same, trained, restart=True)
    assert (trained / "weights.safetensors").stat() == before


def test_a_damaged_checkpoint_is_named(trained, scenes, tmp_path):
    shutil.copytree(f"{trained}.training", tmp_path / "o.training")
    last = tmp_path / "o.training/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    said = refused(small_settings(scenes, loop={"steps": 60, "check_every": 15}), tmp_path / "o")
    assert "last.ckpt" in said
    assert "--restart" in said


def test_what_cannot_be_learnt_from_is_refused_before_anything_is_written(scenes, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    write_raster(folder / "none_image.tif", np.full((3, 64, 64), 9, np.uint8))
    write_raster(folder / "none_label.tif", np.zeros((1, 64, 64), np.uint8))
    write_scene(folder, "four", bands=4)
    write_scene(folder, "small", size=24)
    cases = {
        ("none",): "only the class 'ground'",
        ("a", "small"): "a chip of 26 pixels is larger than small, where 24 fit",
        ("a", "nowhere"): "nowhere",
        (): "no sample to learn from",
    }
    for names, said in cases.items():
        data = [{"root": str(folder), "train": list(names), "validate": ["v"]}]
        if not names:
            data = [{"root": str(folder), "test": ["v"]}]
        assert said in refused(small_settings(folder, data=data), tmp_path / "o")
    assert "32" in refused(small_settings(folder, chips={"size": 30}), tmp_path / "o")  # no multiple of the stride
    assert not (tmp_path / "o.training").exists()


def test_the_search_for_a_learning_rate(scenes, tmp_path):
    rates = find_rate(prepare(small_settings(scenes), show=False), steps=40)
    assert rates.suggested is not None
    assert 1e-6 < rates.suggested < 1
    assert len(rates.tried) == len(rates.losses) > 10
    assert list(rates.tried) == sorted(rates.tried)
    assert draw_rates(rates, tmp_path / "rates.png").stat().st_size > 5000


def test_scores_are_scikit_learns():
    random_ = np.random.default_rng(0)
    truth, said = random_.integers(0, 3, (2, 500))
    counts = np.zeros((3, 3), np.int64)
    np.add.at(counts, (truth, said), 1)
    found = scores_of(torch.from_numpy(counts))
    assert found["iou"].item() == pytest.approx(jaccard_score(truth, said, average=None)[1:].mean(), abs=1e-6)
    assert found["f1"].item() == pytest.approx(f1_score(truth, said, average=None)[1:].mean(), abs=1e-6)
    assert found["accuracy"].item() == pytest.approx(accuracy_score(truth, said), abs=1e-6)


def test_schedules():
    def rates(steps: int, **loop) -> list[float]:
        told = Loop(learning_rate=0.1, **loop)
        optimizer = torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.1}])
        schedule, seen = schedule_of(optimizer, told, steps), []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step() if len(seen) < steps else None
        return seen

    cycle = rates(100, warmup=0.2)
    assert max(cycle) == pytest.approx(0.1, rel=1e-3)
    assert 17 <= int(np.argmax(cycle)) <= 21
    assert cycle[0] < 0.01
    assert cycle[-1] < 1e-4
    cosine = rates(100, schedule="cosine")
    assert cosine == sorted(cosine, reverse=True)
    assert (cosine[0], cosine[50]) == (pytest.approx(0.1), pytest.approx(0.05))
    assert set(rates(10, schedule="constant")) == {0.1}
    assert (round_up(10, 4), round_up(12, 4)) == (12, 12)


OVERFIT = {
    "simple-unet": {"widths": [16, 32, 32]},
    "unet": {"widths": [8, 16, 16]},
    "unet-resnet": {"depth": 18},
    "smp:Unet": {"encoder_name": "resnet18"},
    "smp:FPN": {"encoder_name": "resnet18"},
    "smp:DeepLabV3Plus": {"encoder_name": "mobilenet_v2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", OVERFIT)
def test_every_network_learns_one_chip_by_heart(scenes, architecture):
    network = {"architecture": architecture, "options": OVERFIT[architecture]}
    settings = small_settings(
        scenes, network=network, chips={"size": 64, "zoom": [1, 1], "batch": 2}, loop={"ema": 0, "learning_rate": 4e-3}
    )
    training = prepare(settings, show=False)
    module = make_module(training)
    batch = {
        "pixels": training.chips[0][0][None].repeat(2, 1, 1, 1),
        "labels": training.chips[0][1][None].repeat(2, 1, 1),
    }
    assert {0, 1} <= set(batch["labels"].unique().tolist())
    rate = 1e-2 if architecture == "simple-unet" else 4e-3  # its last block ends in two channels behind a ReLU
    optimizer = torch.optim.Adam(module.parameters(), lr=rate)
    for step in range(600):
        module.train()
        loss = module.loss(module.segmenter.logits(batch["pixels"]), batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 19:
            said = module.segmenter.logits(batch["pixels"]).argmax(dim=1)
            if jaccard_score(batch["labels"].ravel(), said.ravel()) > 0.99:
                return
    pytest.fail(f"IoU {jaccard_score(batch['labels'].ravel(), said.ravel()):.3f} after 600 steps")


# the real command, killed


def write_config(folder: Path, scenes: Path, steps: int = 60) -> Path:
    path = folder / "roofs.toml"
    path.write_text(
        f"""
        name = "roofs"
        bands = ["red", "green", "blue"]
        classes = [{{name = "ground", color = "000000"}}, {{name = "roof", color = "FF0000"}}]
        [[data]]
        root = {json.dumps(str(scenes))}
        train = ["a", "b"]
        validate = ["v"]
        [network]
        architecture = "unet"
        options = {{ widths = [6, 8, 12] }}
        [chips]
        size = 32
        batch = 4
        zoom = [0.8, 1.25]
        [augment]
        gain = 0.1
        [loop]
        steps = {steps}
        check_every = 5
        threads = 1
        ema = 0.9
        """,
        encoding="utf-8",
    )
    return path


def swathe_train(config: Path, output: Path, *more: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run([SWATHE, "train", config, "-o", output, *more], capture_output=True, text=True, **how)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_kills_at_random_steps_and_the_bits_are_the_same(scenes, tmp_path):
    config, seed = write_config(tmp_path, scenes, 200), random.randrange(10**6)
    print(f"seed {seed}")
    done = swathe_train(config, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    delays, kills = random.Random(seed), 0
    for attempt in range(12):
        if kills == 5:
            break
        log = tmp_path / f"log{attempt}"
        with log.open("w") as stream:
            process = subprocess.Popen([SWATHE, "train", config, "-o", tmp_path / "killed"], stderr=stream,
                                       start_new_session=True)  # fmt: skip
            while "training: epoch" not in log.read_text() and process.poll() is None:
                time.sleep(0.05)
            time.sleep(delays.uniform(0.0, 2.0))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait()
        if (tmp_path / "killed").exists():
            shutil.rmtree(tmp_path / "killed")
            shutil.rmtree(tmp_path / "killed.training")
    assert kills == 5
    done = swathe_train(config, tmp_path / "killed")
    assert done.returncode == 0, done.stderr
    assert same_bits(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_a_full_disk_keeps_the_last_checkpoint(scenes, tmp_path):
    config, output = write_config(tmp_path, scenes, 100), tmp_path / "o"
    with subprocess.Popen([SWATHE, "train", config, "-o", output], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        while "epoch 2 of" not in (line := process.stderr.readline()):
            assert line, "it ended before"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "run the same command again to continue" in rest
    assert "Traceback" not in rest
    last = tmp_path / "o.training/checkpoints/last.ckpt"
    before = last.read_bytes()

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = swathe_train(config, output, preexec_fn=small_files)
    assert full.returncode == 1
    assert "cannot be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert last.read_bytes() == before
    assert swathe_train(config, output).returncode == 0


def test_curves_of_several_sittings(tmp_path):
    for number, epochs in enumerate(([0, 1], [1, 2])):
        folder = tmp_path / f"logs/{number:03}"
        folder.mkdir(parents=True)
        rows = [{"epoch": e, "step": 4 * e + 3, "loss": 1.0 / (e + 1 + number)} for e in epochs]
        pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    table = read_logs(tmp_path)
    assert table["epoch"].tolist() == [0, 1, 2]
    assert table["loss"].tolist() == [1.0, 1 / 3, 1 / 4]
    assert write_curves(tmp_path, "x").exists()


def test_logs_that_a_power_cut_has_torn_are_read_as_far_as_they_go(tmp_path):
    """Cut anywhere, or zeros from anywhere on: what follows the end of a training must not fail for its logs."""
    rows = pd.DataFrame({"epoch": [0, 1], "step": [3, 7], "loss": [0.5, 0.25]})
    for number in range(2):
        (tmp_path / f"logs/{number:03}").mkdir(parents=True)
        rows.assign(epoch=rows["epoch"] + number).to_csv(tmp_path / f"logs/{number:03}/metrics.csv", index=False)
    torn = tmp_path / "logs/000/metrics.csv"
    whole = torn.read_bytes()
    for length in range(len(whole)):
        for rest in (b"", bytes(len(whole) - length)):
            torn.write_bytes(whole[:length] + rest)
            table = read_logs(tmp_path)
            assert table["epoch"].tolist()[-2:] == [1, 2]
            assert table["loss"].tolist()[-2:] == [0.5, 0.25]
            assert table.dtypes.map(lambda kind: kind.kind in "fi").all()
    torn.write_bytes(bytes(8))
    assert write_curves(tmp_path, "x").exists()
