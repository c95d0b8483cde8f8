"""Training: the loss is its formula, chips stay with their labels, a tiny scene is learnt, seeds decide."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from models import load_bundle
from models.errors import SwatheError
from models.facts import ClassInfo
from train.__main__ import main, read_settings
from train.datasets import IGNORE, ChipSampler, LabelledScene, measure, read_scene
from train.evaluate import best_threshold, foreground, score
from train.fit import Fitted, fit, one_cycle, save
from train.losses import dice_and_cross_entropy
from train.settings import Chips, Loop, Settings

SHARED = Path(__file__).parents[1].parent / "shared/data/oam_buildings/scenes"
CONFIG = Path(__file__).parents[1] / "train/configs/buildings.toml"
TINY = Settings(
    name="tiny",
    data=".",
    train=("a",),
    validate=("b",),
    test=("b",),
    bands=("red", "green", "blue"),
    classes=(ClassInfo("background", "000000"), ClassInfo("building", "E4572E")),
    architecture="unet",
    options={"widths": [8, 8, 8]},
    chips=Chips(size=64, batch=4, zoom=(0.8, 1.2), gain=0.1, bias=0.1, gamma=0.1),
    loop=Loop(steps=60, learning_rate=1e-2, ema=0.8, check_every=20, threads=1),
)


def made_scene(seed: int, size: int = 160) -> LabelledScene:
    """Bright rectangles, which are the buildings, on dark ground; noise on both."""
    random = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint8)
    for y, x in random.integers(0, size - 30, (12, 2)):
        labels[y : y + random.integers(12, 30), x : x + random.integers(12, 30)] = 1
    pixels = random.normal(60, 15, (3, size, size)) + 90 * labels
    return LabelledScene(f"made {seed}", pixels.clip(0, 255).astype(np.uint8), labels, np.ones((size, size), bool))


def write(path: Path, values: np.ndarray, shift: float = 0.0) -> None:
    count, height, width = values.shape
    grid = {"crs": "EPSG:32736", "transform": Affine(0.1, 0, 5e5 + shift, 0, -0.1, 9e6)}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **grid
    ) as target:
        target.write(values)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    before = torch.get_num_threads()
    *_, result = fit(TINY, [made_scene(1)], [made_scene(2)], lambda line: None)
    torch.set_num_threads(before)
    return result


@pytest.mark.parametrize("ignored", [0.0, 0.4])
@pytest.mark.parametrize("classes", [2, 4])
def test_loss_is_its_formula(classes, ignored):
    random = np.random.default_rng(0)
    logits = random.normal(size=(2, classes, 9, 11))
    labels = random.integers(0, classes, (2, 9, 11))
    labels[random.random(labels.shape) < ignored] = IGNORE

    counted = labels != IGNORE
    chosen, truth = np.moveaxis(logits, 1, -1)[counted], labels[counted]
    probability = np.exp(chosen) / np.exp(chosen).sum(1, keepdims=True)
    exact = np.eye(classes)[truth]
    entropy = -np.log(probability[np.arange(len(truth)), truth]).mean()
    dice = ((2 * (probability * exact).sum(0) + 1) / (probability.sum(0) + exact.sum(0) + 1)).mean()

    loss = dice_and_cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(loss) == pytest.approx(entropy + 1 - dice, rel=1e-5)


def test_ignored_pixels_have_no_gradient():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[:, :2] = IGNORE
    dice_and_cross_entropy(logits, labels).backward()
    assert (logits.grad[:, :, :2] == 0).all()
    assert (logits.grad[:, :, 2:] != 0).all()


def test_all_ignored_is_zero_loss():
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = dice_and_cross_entropy(logits, torch.full((1, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_chips_stay_with_their_labels(bands):
    scene = made_scene(3)
    told = replace(scene, pixels=np.repeat(scene.labels[None] * np.uint8(100), bands, axis=0))
    sampler = ChipSampler([told], measure([told]), Chips(size=64, batch=3, zoom=(1.0, 1.0)), seed=0)
    batches = iter(sampler)
    for pixels, labels in (next(batches) for _ in range(10)):
        assert pixels.shape == (3, bands, 64, 64)
        assert (pixels.round() == 100 * labels[:, None]).all()


def test_zoomed_chips_stay_with_their_labels():
    scene = made_scene(3)
    told = replace(scene, pixels=np.repeat(scene.labels[None] * np.uint8(100), 2, axis=0))
    sampler = ChipSampler([told], measure([told]), Chips(size=64, batch=8, zoom=(0.5, 2.0)), seed=0)
    pixels, labels = next(iter(sampler))
    differs = (pixels[:, 0] > 50) != (labels == 1)  # only where a smoothed edge crosses a pixel
    assert differs.float().mean() < 0.01


def test_recoloured_chips_keep_their_labels_and_range():
    scene = made_scene(4)
    chips = Chips(size=64, batch=8, gain=0.5, bias=0.5, gamma=0.5)
    plain, varied = (ChipSampler([scene], measure([scene]), c, seed=5) for c in (replace(chips, gain=0), chips))
    (_, labels), (pixels, same) = next(iter(plain)), next(iter(varied))
    assert (labels == same).all()
    assert float(pixels.min()) >= scene.pixels.min()
    assert float(pixels.max()) <= scene.pixels.max() + 1e-3


def test_unobserved_pixels_are_filled_and_ignored(tmp_path):
    scene = made_scene(5)
    with_nodata = scene.pixels.clip(1)
    with_nodata[:, :40] = 0
    write(tmp_path / "image.tif", with_nodata)
    with rasterio.open(tmp_path / "image.tif", "r+") as image:
        image.nodata = 0
    write(tmp_path / "label.tif", scene.labels[None])
    read = read_scene(tmp_path / "image.tif", tmp_path / "label.tif", bands=3, classes=2)
    assert (read.labels[:40] == IGNORE).all()
    assert (read.labels[40:] == scene.labels[40:]).all()
    assert measure([read]).low.min() >= 1


def test_learns_a_tiny_scene(fitted, tmp_path, threads):
    assert fitted.metrics["validation at 0.5"]["iou"] > 0.9
    bundle = save(tmp_path / "tiny", TINY, fitted, {"from": "test"})
    loaded = load_bundle(tmp_path / "tiny")
    assert loaded.digest == bundle.digest
    assert loaded.facts.provenance["from"] == "test"
    assert loaded.facts.provenance["seed"] == TINY.seed
    scene = made_scene(2)
    found = [foreground(loaded.segmenter(), scene, fitted.statistics.mean, loaded.facts.footprint)]
    assert score(found, [scene]).rounded() == fitted.metrics["validation at 0.5"]


def test_same_seed_same_weights(fitted, threads):
    scenes = [made_scene(1)], [made_scene(2)]
    *_, again = fit(TINY, *scenes, lambda line: None)
    pairs = zip(fitted.network.state_dict().values(), again.network.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    short = replace(TINY, loop=replace(TINY.loop, steps=2))
    one, other = (next(fit(replace(short, seed=s), *scenes, lambda line: None)).network for s in (1, 2))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_learning_rate_rises_then_falls():
    rates = [one_cycle(step / 100) for step in range(101)]
    top = rates.index(max(rates))
    assert rates[top] == 1
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == one_cycle(1.5) == 0


def test_the_clock_ends_training(threads):
    hurried = replace(TINY, loop=replace(TINY.loop, steps=10**6, minutes=1e-9))
    *_, last = fit(hurried, [made_scene(1)], [made_scene(2)], lambda line: None)
    assert last.step == 1


def test_scores_by_hand():
    labels = np.array([[1, 1, 1, 0, 0, IGNORE]], np.uint8)
    scene = LabelledScene("by hand", np.zeros((1, 1, 6), np.uint8), labels, np.ones((1, 6), bool))
    found = [np.array([[0.9, 0.9, 0.3, 0.6, 0.1, 0.9]], np.float32)]
    scores = score(found, [scene])
    assert (scores.hits, scores.false_alarms, scores.misses) == (2, 1, 1)
    assert scores.rounded() == {"iou": 0.5, "precision": 0.6667, "recall": 0.6667, "f1": 0.6667}
    assert 0.6 <= best_threshold(found, [scene]) < 0.9 or best_threshold(found, [scene]) < 0.3


@pytest.mark.parametrize(
    ("shift", "labels", "says"),
    [
        (0.05, np.zeros((1, 32, 32), np.uint8), "does not lie on the grid"),
        (0.0, np.zeros((1, 32, 31), np.uint8), "does not lie on the grid"),
        (0.0, np.full((1, 32, 32), 7, np.uint8), r"holds \[7\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, shift, labels, says):
    write(tmp_path / "image.tif", np.zeros((3, 32, 32), np.uint8))
    write(tmp_path / "label.tif", labels, shift)
    with pytest.raises(SwatheError, match=says) as refusal:
        read_scene(tmp_path / "image.tif", tmp_path / "label.tif", bands=3, classes=2)
    assert "\n" not in str(refusal.value)


def test_missing_scene_and_wrong_bands_are_refused(tmp_path):
    write(tmp_path / "image.tif", np.zeros((3, 32, 32), np.uint8))
    write(tmp_path / "label.tif", np.zeros((1, 32, 32), np.uint8))
    with pytest.raises(SwatheError, match="3 bands; the settings name 4"):
        read_scene(tmp_path / "image.tif", tmp_path / "label.tif", bands=4, classes=2)
    with pytest.raises(SwatheError, match="cannot be read"):
        read_scene(tmp_path / "none.tif", tmp_path / "label.tif", bands=3, classes=2)


def test_command_trains_and_tests(tmp_path, capsys, threads):
    for name, seed in (("a", 1), ("b", 2)):
        scene = made_scene(seed)
        write(tmp_path / f"{name}_image.tif", scene.pixels)
        write(tmp_path / f"{name}_label.tif", scene.labels[None])
    settings = tmp_path / "tiny.toml"
    settings.write_text(f"""
        name = "tiny"
        data = "{tmp_path}"
        train = ["a"]
        validate = ["b"]
        test = ["b"]
        bands = ["red", "green", "blue"]
        classes = [{{name = "ground", color = "000000"}}, {{name = "building", color = "E4572E"}}]
        options = {{widths = [4, 4, 4]}}
        chips = {{size = 32, batch = 2}}
        loop = {{steps = 3, check_every = 2, threads = 1}}
    """)
    assert main([str(settings), "-o", str(tmp_path / "out")]) == 0
    assert "test" not in load_bundle(tmp_path / "out").facts.metrics
    assert main([str(settings), "-o", str(tmp_path / "out"), "--test"]) == 0
    metrics = load_bundle(tmp_path / "out").facts.metrics
    assert metrics["test at 0.5"] == metrics["validation at 0.5"]
    settings.write_text("name = 3\nbatches = 1\n")
    assert main([str(settings), "-o", str(tmp_path / "out")]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real scenes in ../shared, which a clone lacks")
def test_real_scenes_are_read_whole():
    settings = read_settings(CONFIG)
    for name in settings.train:
        scene = read_scene(SHARED / f"{name}_image.tif", SHARED / f"{name}_label.tif", 3, 2)
        assert scene.pixels.dtype == np.uint8
        assert set(np.unique(scene.labels)) == {0, 1}
    assert not {*settings.train} & {*settings.validate, *settings.test}
