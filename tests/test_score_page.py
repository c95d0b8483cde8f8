"""Scores written down: the JSON, the Markdown, and the page in a real headless Chromium; and the verb."""

import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import CLASSES, metadata, pixels, save, write_raster
from pages import CONTRAST

from models.errors import BundleError, StoreError, TrainingError
from pipeline.io.band_names import rgb_places
from pipeline.io.scene import open_source
from train.cli.evaluate import evaluate as verb
from train.config.schema import IGNORE
from train.data.samples import Sample
from train.evaluation import random_forest as forest
from train.evaluation import scorecard
from train.evaluation.baselines import Brightness
from train.evaluation.counts import ScoredSquare, rank_squares
from train.evaluation.evaluation import evaluate
from train.evaluation.pictures import errors
from train.evaluation.results import markdown, tables
from train.evaluation.scorecard import best_and_worst, check_folder

SHAPE = (260, 330)


@dataclass(frozen=True)
class Given:
    values: np.ndarray

    def read(self, window):
        return self.values[window.slices].copy()


def blocks(classes: int) -> np.ndarray:
    labels = ((np.indices(SHAPE) // 23).sum(axis=0) % classes).astype(np.uint8)
    labels[:30, :40] = IGNORE
    return labels


def sample_of(path, classes=2, name="town") -> Sample:
    labels = blocks(classes)
    values = pixels((3, *SHAPE)) + (labels * np.uint16(300))
    source = open_source(write_raster(path, values, descriptions=("red", "green", "blue")))
    return Sample(name, source, Given(labels), (source.geobox.whole,), (str(path), "labels.tif"))


@pytest.fixture(scope="module")
def found(tmp_path_factory, bundle_of):
    """Two classes on two samples, with baselines; named so that escaping shows."""
    folder = tmp_path_factory.mktemp("scores")
    samples = [sample_of(folder / "a.tif"), sample_of(folder / "b.tif", name="<b>hill</b> | x")]
    bundle = bundle_of("simple-unet")
    baselines = [Brightness("chosen & <kept>", 6600.0, (2000.0, 2000.0, 2000.0))]
    how = {"baselines": baselines, "side": 64, "show": False, "engine": "torch", "threshold": 0.4}
    return evaluate(bundle, samples, folder / "out", **how), folder / "out"


@pytest.fixture(scope="module")
def many(tmp_path_factory, bundle_of):
    """Five classes, one of which is never there, on one sample."""
    folder = tmp_path_factory.mktemp("many")
    sample = sample_of(folder / "a.tif", 4)
    made = evaluate(bundle_of("simple-unet", classes=5), [sample], folder / "out", side=64, show=False, engine="torch")
    return made, folder / "out"


def test_the_three_files(found):
    made, folder = found
    assert sorted(path.name for path in folder.iterdir()) == ["index.html", "scores.json", "scores.md"]
    told = json.loads((folder / "scores.json").read_text())
    assert told["scores"] == made.network.pooled.as_dict()
    assert told["thresholds"] == {"by class": {"class_1": 0.4}, "from": "given"}
    assert told["bundle"]["digest"] == made.bundle.digest
    assert set(told["by sample"]) == {"town", "<b>hill</b> | x"}
    assert told["references"][0]["facts"] == {"brightness above": 2200.0, "chosen": "chosen & <kept>"}
    assert told["areas"]["best"][0]["iou"] >= told["areas"]["worst"][0]["iou"]
    assert "NaN" not in (folder / "scores.json").read_text()


def test_markdown(found, many):
    made, folder = found
    text = (folder / "scores.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1
    iou = float(made.network.pooled.counts.confusion.iou[1])
    assert re.search(rf"\| tiny-simple-unet, threshold 0\.4 \| {iou:.3f} \(0\.\d+–0\.\d+\) \|", text)
    assert "| brightness above 2200, chosen & <kept> |" in text
    assert "| <b>hill</b> / x |" in text
    assert [table.title for table in tables(made)] == ["Scores", "By sample"]
    assert [table.title for table in tables(many[0])] == ["Scores", "By class"]
    never = next(line for line in markdown(tables(many[0])[1]).splitlines() if "class_4" in line)
    assert never.endswith("| 0 |")


def test_an_output_that_is_there(found, tmp_path, monkeypatch):
    made, _ = found
    target = tmp_path / "out"
    assert check_folder(target, overwrite=False) == target
    scorecard.write_scorecard(replace(made, squares=()), {}, target)
    with pytest.raises(StoreError, match="exists"):
        check_folder(target, overwrite=False)
    before = (target / "scores.md").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(scorecard.os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            scorecard.write_scorecard(replace(made, squares=(), notes=("new",)), {}, target)
    assert (target / "scores.md").read_text() == before
    scorecard.write_scorecard(replace(made, squares=(), notes=("new",)), {}, check_folder(target, overwrite=True))
    assert "New." in (target / "scores.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for bad in (target / "scores.md", "s3://bucket/out", target / "scores.md/below"):
        with pytest.raises(StoreError):
            check_folder(bad, overwrite=True)


def test_errors_of_a_map():
    truth = np.array([[0, 0, 1, 1, 2, 255, 1]], np.uint8)
    mapped = np.array([[0, 1, 0, 1, 1, 1, 255]], np.uint8)
    assert errors(truth, mapped).tolist() == [[0, 2, 3, 1, 4, 255, 255]]


def test_bands_that_are_shown():
    assert rgb_places(["nir", "Blue", "green", "red"]) == [3, 2, 1]
    assert rgb_places(["a", "b", "c", "d"]) == [0, 1, 2]
    assert rgb_places(["a", "b"]) == [0]


def test_areas_are_ranked(tmp_path):
    sample = sample_of(tmp_path / "a.tif")
    counts = {
        (0, 0): [[50, 0], [0, 4000]],
        (0, 1): [[4000, 50], [10, 36]],
        (1, 0): [[4096, 0], [0, 0]],  # nothing to see
        (1, 1): [[2, 0], [9, 0]],  # hardly labelled
        (4, 5): [[0, 0], [30, 0]],  # at the edge: 4 by 10 pixels
    }
    ranked = rank_squares([(sample, {cell: np.array(c) for cell, c in counts.items()})], 64)
    assert [(area.window.top, area.window.left, round(area.iou, 3)) for area in ranked] == [
        (0, 0, 1.0), (0, 64, 0.375), (256, 320, 0.0)
    ]  # fmt: skip
    assert ranked[-1].window.shape == (4, 10)


@pytest.mark.parametrize("count", range(12))
def test_no_area_is_both_best_and_worst(count):
    areas = [ScoredSquare("s", None, 1 - n / 20) for n in range(count)]
    best, worst = best_and_worst(areas, 4)
    assert not {id(area) for area in best} & {id(area) for area in worst}
    assert len(best) + len(worst) == min(count, 8)
    assert [area.iou for area in worst] == sorted(area.iou for area in worst)
    assert not count or best[0] is areas[0]


def test_what_the_page_says(visit, found, many):
    made, folder = found
    page = visit(folder / "index.html")
    first = page.locator("table.scores").first
    iou = f"{float(made.network.pooled.counts.confusion.iou[1]):.3f}"
    assert iou in first.locator("tbody tr").first.text_content()
    assert "chosen & <kept>" in first.text_content()
    assert "<b>hill</b> | x" in page.locator("table.scores").nth(1).text_content()
    counts = made.network.pooled.counts.confusion.counts
    cells = page.locator("table.matrix td small").all_text_contents()
    assert cells == [f"{count:,}" for count in counts.ravel().tolist()]
    assert page.locator("figure.strip").count() == 8
    assert page.locator("figure.strip img").count() == 32
    shown = page.locator("figure.strip figcaption").all_text_contents()
    ious = [float(re.search(r"[\d.]+", text)[0]) for text in shown]
    assert ious[:4] == sorted(ious[:4])
    assert ious[4:] == sorted(ious[4:], reverse=True)
    page = visit(many[1] / "index.html")
    assert page.locator("table.matrix td").count() == 25
    assert "Mean IoU" in page.locator(".summary").text_content()


def test_curves_lie_where_the_numbers_say(visit, found):
    made, folder = found
    page = visit(folder / "index.html")
    line = page.locator("polyline.line.first").get_attribute("points").split()
    curve = made.network.pooled.counts.thresholds.of(1)
    for point in line[5:95:10]:
        x, y = map(float, point.split(","))
        assert 1 - y / 100 == pytest.approx(curve.at(round(x / 100, 2)).iou, abs=1e-3)
    used = page.locator("path.used").get_attribute("d")
    assert used.startswith("M40.00 ")
    reliability = made.network.pooled.counts.foreground
    filled = int((reliability.count > 0).sum())
    assert page.locator("circle").count() == filled


@pytest.mark.parametrize("which", ["found", "many"])
def test_on_a_phone(visit, request, which):
    page = visit(request.getfixturevalue(which)[1] / "index.html", 360, 740, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.evaluate(
        "[...document.body.querySelectorAll('*')]"
        ".filter((e) => e.checkVisibility() && !e.closest('.scroll, .hidden')"
        " && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("which", ["found", "many"])
def test_text_can_be_read(visit, request, which, scheme):
    page = visit(request.getfixturevalue(which)[1] / "index.html", color_scheme=scheme)
    for details in page.locator("summary").all():
        details.click()
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")


def test_names_for_those_who_do_not_see(visit, found):
    page = visit(found[1] / "index.html")
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("h1").count() == 1
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((e) => Number(e.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("script").count() == 0


def call(*arguments) -> str:
    ended = CliRunner().invoke(verb, [str(argument) for argument in arguments], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A scene with labels 0, 255 and 128, a bundle for it, and a config that says the same."""
    folder = tmp_path_factory.mktemp("verb")
    labels = blocks(2)
    values = pixels((3, *SHAPE)) + (labels == 1) * np.uint16(900)
    write_raster(folder / "a_image.tif", values)
    coded = np.where(labels == IGNORE, 128, np.where(labels == 1, 255, 0)).astype(np.uint8)
    write_raster(folder / "a_label.tif", coded[None])
    shutil.copy(folder / "a_image.tif", folder / "b_image.tif")
    shutil.copy(folder / "a_label.tif", folder / "b_label.tif")
    save(folder / "bundle", metadata("simple-unet"))
    one, two = (info.color for info in CLASSES[:2])
    (folder / "c.toml").write_text(
        f'name = "t"\nbands = ["red", "green", "blue"]\n'
        f'classes = [{{name = "class_0", color = "{one}"}}, {{name = "class_1", color = "{two}"}}]\n'
        f'[[data]]\nroot = "."\nvalues = {{0 = "class_0", 255 = "class_1"}}\nignore = [128]\n'
        f'train = ["a"]\ntest = ["b"]\n'
    )
    return folder


def test_the_verb_with_scene_and_labels(town, tmp_path):
    flags = ("--values", "0=class_0", "--values", "255=class_1", "--ignore", "128", "-q", "--engine", "torch")
    said = call(town / "bundle", town / "a_image.tif", town / "a_label.tif", "-o", tmp_path / "out", *flags,
                "--baseline", "brightness", "--threshold", 0.3)  # fmt: skip
    told = json.loads((tmp_path / "out/scores.json").read_text())
    assert told["scores"]["pixels"] == (blocks(2) != IGNORE).sum()
    assert (tmp_path / "out/scores.md").read_text() in said
    assert "the best for these very samples" in said
    assert told["references"][0]["scores"]["classes"]["class_1"]["iou"] > 0.7
    with pytest.raises(StoreError, match="exists"):
        call(town / "bundle", town / "a_image.tif", town / "a_label.tif", "-o", tmp_path / "out", *flags)


def test_the_verb_given_again_is_complete_already(town, tmp_path):
    for name in ("image", "label"):
        shutil.copy(town / f"a_{name}.tif", tmp_path / f"{name}.tif")
    words = (town / "bundle", tmp_path / "image.tif", tmp_path / "label.tif", "-o", tmp_path / "out", "--ignore", "128",
             "--values", "0=class_0", "--values", "255=class_1", "-q", "--engine", "torch")  # fmt: skip
    call(*words)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out.unfinished/.swathe").mkdir(parents=True)  # of a run killed when its scores were whole
    said = call(*words)
    assert (tmp_path / "out/scores.md").read_text() in said
    assert f"{tmp_path / 'out'} is already complete" in said
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == kept
    assert not (tmp_path / "out.unfinished").exists()
    assert "wrote" in call(*words, "--overwrite")
    with pytest.raises(StoreError, match="exists"):
        call(*words, "--threshold", 0.4)
    os.utime(tmp_path / "label.tif", (1, 1))  # perhaps other labels
    with pytest.raises(StoreError, match="exists"):
        call(*words)


def test_the_verb_with_a_config(town, tmp_path, monkeypatch):
    monkeypatch.setattr(forest, "PIXELS", 3000)
    said = call(town / "bundle", town / "c.toml", "-o", tmp_path / "out", "-q", "--engine", "torch",
                "--baseline", "brightness", "--reference", "forest")  # fmt: skip  # the former name
    told = json.loads((tmp_path / "out/scores.json").read_text())
    assert list(told["samples"].values()) == [["b_image.tif", "b_label.tif"]]
    assert [one["name"].split(",")[-1] for one in told["references"]] == [
        " chosen on the training samples", " the best for these very samples", "random forest"
    ]  # fmt: skip
    ious = [one["scores"]["classes"]["class_1"]["iou"] for one in told["references"]]
    assert ious[0] == ious[1]  # a and b are the same
    assert ious[2] > ious[0]
    assert "random forest" in said


def test_what_the_verb_refuses(town, tmp_path):
    image, labels, out = town / "a_image.tif", town / "a_label.tif", ("-o", tmp_path / "out", "-q")
    small = write_raster(tmp_path / "small.tif", np.zeros((1, 20, 20), np.uint8), crs=None)
    others = town / "others.toml"
    others.write_text((town / "c.toml").read_text().replace("class_1", "roof"))
    values = ("--values", "0=class_0", "--values", "255=class_1")
    ignored = [part for value in ("0", "255", "128") for part in ("--ignore", value)]
    for error, text, arguments in (
        (TrainingError, r"--values VALUE=CLASS", (image, labels)),
        (TrainingError, "did you mean 'class_1'", (image, labels, "--values", "255=clas_1")),
        (TrainingError, "not aligned", (image, small, *values)),
        (TrainingError, "no labelled pixel", (image, labels, "--values", "1=class_1", *ignored)),
        (TrainingError, "class_0, roof", (others,)),
        (TrainingError, "validate", (town / "c.toml", "--part", "validate")),
        (BundleError, "needs 3 bands", (image, labels, "--bands", "1,2")),
    ):  # fmt: skip
        with pytest.raises(error, match=text) as caught:
            call(town / "bundle", *arguments, *out)
        assert len(str(caught.value).splitlines()) <= 2
    for text, arguments in (
        ("SCENE and LABELS", (image,)),
        ("--part is of a CONFIG", (image, labels, "--part", "test")),
        ("VALUE=CLASS", (image, labels, "--values", "255")),
        ("give --train", (image, labels, "--baseline", "forest")),
        ("give --baseline", (image, labels, "--train", town / "c.toml")),
        ("CONFIG says them", (town / "c.toml", "--bands", "1,2,3")),
    ):
        ended = CliRunner().invoke(verb, [str(part) for part in (town / "bundle", *arguments, *out)])
        assert ended.exit_code == 2
        assert text in ended.output
    assert [path.name for path in Path(tmp_path).iterdir()] == ["small.tif"]
