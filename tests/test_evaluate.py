"""Whole-scene scores: the same as plain torch over the whole scene, however blocks lie, and by others' formulas."""

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from helpers import GRID, SHARED, metadata, one_threshold, pixels, save, write_raster
from sklearn import metrics

from models.bundle import load_bundle
from models.encoding import classify
from models.errors import BundleError, StoreError, SwatheError, TrainingError
from models.metadata import ReceptiveField
from pipeline import segment
from pipeline.grid.geobox import Window
from pipeline.inference.plan import open_matching
from pipeline.io.scene import open_source
from train.config.schema import IGNORE
from train.data.classes import value_table
from train.data.labels import open_labels
from train.data.samples import Sample
from train.evaluation.evaluation import choose_thresholds, evaluate

HEIGHT, WIDTH = 150, 210
SCENES = SHARED / "oam_buildings/scenes"


@dataclass(frozen=True)
class Given:
    """A `LabelSource` of labels at hand."""

    values: np.ndarray

    def read(self, window):
        return self.values[window.slices].copy()


def torch_whole(bundle, source) -> np.ndarray:
    """Run the network of a bundle in plain torch over a whole scene, reflected at its edges."""
    read, receptive_field = source.read(source.geobox.whole), bundle.metadata.receptive_field
    means = np.array([round(band.mean) for band in bundle.metadata.bands])
    data = np.where(read.valid, read.data, means[:, None, None]).astype(np.float32)
    halo, (height, width) = receptive_field.halo, read.valid.shape
    ends = [halo + -size % receptive_field.stride for size in (height, width)]
    padded = np.pad(data, ((0, 0), (halo, ends[0]), (halo, ends[1])), mode="reflect")
    with torch.inference_mode():
        answer = bundle.segmenter().eval()(torch.from_numpy(padded)[None]).numpy()[0]
    return answer[:, halo : halo + height, halo : halo + width]


def blobs(classes: int, seed: int = 0) -> np.ndarray:
    """Labels in blobs, with ignored pixels."""
    from scipy import ndimage

    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(classes, HEIGHT, WIDTH)), (0, 7, 7))
    labels = smooth.argmax(axis=0).astype(np.uint8)
    labels[random.random(labels.shape) < 0.1] = IGNORE
    return labels


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene with a corner that was not observed."""
    values = pixels((3, HEIGHT, WIDTH)).clip(1)  # 0 in one band would be a missing sample
    values[:, 100:, 150:] = 0
    return write_raster(tmp_path_factory.mktemp("scene") / "s.tif", values, nodata=0)


def sample_of(scene, labels, name="s") -> Sample:
    source = open_source(scene)
    return Sample(name, source, Given(labels), (source.geobox.whole,), (str(scene),))


def run(bundle, samples, *args, **more):
    return evaluate(bundle, samples, *args, show=False, engine="torch", threads=1, **more)


@pytest.mark.parametrize(
    ("architecture", "classes", "block", "threshold"),
    [("simple-unet", 2, 64, None), ("unet", 2, 96, 0.4), ("unet", 4, 64, None), ("simple-unet", 3, 512, 0.3)],
)
def test_scores_are_those_of_the_network_over_the_whole_scene(
    bundle_of, scene, threads, architecture, classes, block, threshold
):
    torch.set_num_threads(1)
    bundle, labels = bundle_of(architecture, classes=classes), blobs(classes)
    probabilities = torch_whole(bundle, open_source(scene))
    found = run(bundle, [sample_of(scene, labels)], threshold=threshold, block=block, tile=64, side=50)
    counted = labels != IGNORE
    counted[100:, 150:] = False
    truth, mapped = labels[counted], classify(probabilities, one_threshold(threshold, classes))[counted]
    expected = metrics.confusion_matrix(truth, mapped, labels=range(classes))
    assert (found.network.pooled.counts.confusion.counts == expected).all()
    assert len(np.unique(mapped)) == classes  # or nothing would be tested
    by_sklearn = metrics.jaccard_score(truth, mapped, labels=range(classes), average=None)
    assert found.network.pooled.counts.confusion.iou == pytest.approx(by_sklearn)
    assert repr(found).startswith(f"<Evaluation of tiny-{architecture}, ")
    assert "on 1 sample: iou 0." in repr(found)
    assert len(repr(found)) < 250
    if classes == 2:
        curve = found.network.pooled.counts.thresholds.of(1)
        for at in (0.2, 0.5, 0.71):
            positive = probabilities[1][counted] > np.float32(at)
            assert curve.at(at).iou == pytest.approx(metrics.jaccard_score(truth, positive), abs=1e-3)
        brier = metrics.brier_score_loss(truth, np.clip(probabilities[1][counted], 0, 1))
        assert found.network.pooled.counts.foreground.brier == pytest.approx(brier, abs=1e-6)


@pytest.mark.parametrize("how", [{}, {"overlap": 24, "blend": "feather"}])
def test_a_network_without_an_exact_halo_is_scored_by_the_map_that_it_is_segmented_to(bundle_of, scene, threads, how):
    """Its tiles lie on the scene's grid: blocks, which are chosen for the scores, change nothing."""
    bundle, labels = bundle_of(receptive_field=ReceptiveField(8, None)), blobs(2)
    mapped = segment(scene, bundle, tile=64, engine="torch", threads=1, threshold="likeliest", **how).class_map.values
    counted = labels != IGNORE
    counted[100:, 150:] = False
    expected = metrics.confusion_matrix(labels[counted], mapped[counted], labels=range(2))
    for block in (64, 512):
        found = run(bundle, [sample_of(scene, labels)], threshold="likeliest", tile=64, block=block, **how)
        assert (found.network.pooled.counts.confusion.counts == expected).all()


@pytest.mark.parametrize("nodata", [0, 1])
def test_a_class_that_its_file_calls_nodata_is_scored(bundle_of, scene, threads, nodata):
    torch.set_num_threads(1)
    labels = (blobs(2) == 1).astype(np.uint8)
    scores, notes = [], []
    for tag in (None, nodata):
        path = str(write_raster(scene.parent / f"l{tag}.tif", labels[None], nodata=tag))
        source = open_source(scene)
        opened = open_labels(path, source.geobox, value_table(metadata().classes))
        found = run(bundle_of("unet"), [Sample("s", source, opened, (source.geobox.whole,), (str(scene), path))])
        scores.append(found.network.pooled.counts.confusion.counts)
        notes.append([note for note in found.notes if "nodata" in note])
    assert (scores[0] == scores[1]).all()
    assert [len(said) for said in notes] == [0, 1]
    assert f"{(labels == nodata).sum():,} pixels" in notes[1][0]


def test_the_map_itself_is_the_same_on_every_pixel(bundle_of, scene, threads, monkeypatch):
    from train.evaluation import evaluation

    torch.set_num_threads(1)
    bundle, seen = bundle_of("unet", classes=3), {}

    def look(_, kept, __):
        (one,) = kept.values()
        window = Window(0, HEIGHT, 0, WIDTH)
        seen["map"] = one.decided.read_array("class_map", window)[0]
        seen["probability"] = one.maps.read_array("probability", window)

    monkeypatch.setattr(evaluation, "write_scorecard", look)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    run(bundle, [sample_of(scene, labels)], scene.parent / "out", block=64, tile=32, objects=False)
    expected = torch_whole(bundle, open_source(scene))
    observed = np.ones(labels.shape, bool)
    observed[100:, 150:] = False
    assert (seen["map"][observed] == expected.argmax(axis=0)[observed]).all()
    assert (seen["map"][~observed] == 255).all()
    assert np.abs(seen["probability"] - expected)[:, observed].max() < 1e-5


def test_blocks_change_no_score(bundle_of, scene, threads):
    """Contours, objects, squares and intervals cross blocks."""
    torch.set_num_threads(1)
    bundle, sample = bundle_of("simple-unet"), sample_of(scene, blobs(2))
    found = [run(bundle, [sample], block=block, tile=64, side=48, distance=3) for block in (96, 512)]
    told = [one.network.pooled.as_dict() for one in found]
    assert told[0] == told[1]
    assert told[0]["classes"]["class_1"]["objects"]["truth"] > 3
    assert found[0].squares == found[1].squares


def test_objects_and_boundaries_by_scikit_image(bundle_of, scene, threads):
    from scipy import ndimage
    from skimage.measure import label

    torch.set_num_threads(1)
    bundle, labels = bundle_of("simple-unet"), blobs(2)
    labels[torch_whole(bundle, open_source(scene))[1] > 0.7] = 1  # so that something matches
    found = run(bundle, [sample_of(scene, labels)], block=64, distance=2)
    labelled = labels != IGNORE
    labelled[100:, 150:] = False
    mapped = classify(torch_whole(bundle, open_source(scene)))
    masks = [(part == 1) & labelled for part in (mapped, labels)]
    numbered = [label(mask, connectivity=1) for mask in masks]
    pairs, counts = np.unique(np.stack([one[masks[0] & masks[1]] for one in numbered]), axis=1, return_counts=True)
    sizes = [np.bincount(one.ravel()) for one in numbered]
    ious = counts / (sizes[0][pairs[0]] + sizes[1][pairs[1]] - counts)
    matched = int((ious > 0.5).sum())
    expected = 2 * matched / (numbered[0].max() + numbered[1].max())
    assert matched
    assert found.network.pooled.objects.f1[1] == pytest.approx(expected)
    assert 0 < float(found.network.pooled.counts.boundary.iou[1]) < 1
    assert ndimage.label(masks[1])[1] == int(found.network.pooled.objects.truth[1])


def test_only_areas_count_and_the_rest_is_not_even_computed(bundle_of, scene, threads, monkeypatch):
    from pipeline.inference import run as job

    torch.set_num_threads(1)
    bundle, labels, done = bundle_of("simple-unet"), blobs(2), []
    predict = job.predict_block
    monkeypatch.setattr(
        job,
        "predict_block",
        lambda source, window, inference: done.append(window) or predict(source, window, inference),
    )
    areas = (Window(0, 40, 0, 30), Window(70, 90, 70, 100))
    found = run(bundle, [replace(sample_of(scene, labels), areas=areas)], block=64)
    inside = np.zeros(labels.shape, bool)
    for area in areas:
        inside[area.slices] = True
    assert found.network.pooled.counts.confusion.pixels == (inside & (labels != IGNORE)).sum()
    assert {(window.top, window.left) for window in done} == {(0, 0), (64, 64)}


def test_samples_are_pooled_by_pixels_and_given_one_by_one(bundle_of, scene, threads, tmp_path):
    torch.set_num_threads(1)
    bundle = bundle_of("simple-unet")
    small = write_raster(tmp_path / "small.tif", pixels((3, 70, 65), seed=3))
    samples = [sample_of(scene, blobs(2)), sample_of(small, blobs(2, 1)[:70, :65], "small")]
    both = run(bundle, samples, side=64)
    alone = [run(bundle, [sample], side=64).network.pooled for sample in samples]
    assert list(both.network.samples) == ["s", "small"]
    assert (both.network.pooled.counts.confusion.counts == sum(one.counts.confusion.counts for one in alone)).all()
    for one, scores in zip(alone, both.network.samples.values(), strict=True):
        assert (one.counts.confusion.counts == scores.counts.confusion.counts).all()
    assert both.network.pooled.intervals.blocks == sum(one.intervals.blocks for one in alone)


def test_thresholds(bundle_of, scene, threads, tmp_path):
    """Given, the bundle's own, chosen here."""
    torch.set_num_threads(1)
    bundle, labels = bundle_of("simple-unet"), blobs(2)
    own = save(tmp_path / "own", replace(metadata("simple-unet"), thresholds={"class_1": 0.62}))
    sample = sample_of(scene, labels)
    assert run(bundle, [sample], objects=False).thresholds == {}
    assert run(own, [sample], objects=False).thresholds == {"class_1": 0.62}
    likeliest, half = (run(own, [sample], objects=False, threshold=how) for how in ("likeliest", 0.5))
    assert likeliest.thresholds == {}
    counts = [found.network.pooled.counts.confusion.counts.tolist() for found in (likeliest, half)]
    assert counts[0] == counts[1] != run(own, [sample], objects=False).network.pooled.counts.confusion.counts.tolist()
    assert run(own, [sample], objects=False, threshold=0.3).thresholds == {"class_1": 0.3}
    chosen = run(own, [sample], objects=False, choose=True).network
    assert chosen.threshold_from == "chosen on these very samples"
    labelled = labels != IGNORE
    labelled[100:, 150:] = False
    found, truth = torch_whole(own, open_source(scene))[1][labelled], labels[labelled] == 1
    ious = {t / 100: metrics.jaccard_score(truth, found > np.float32(t / 100)) for t in range(5, 100, 5)}
    assert float(chosen.pooled.counts.confusion.iou[1]) == pytest.approx(max(ious.values()))
    assert ious[chosen.thresholds[1]] == max(ious.values())


def test_each_class_gets_the_threshold_that_is_best_for_it(bundle_of, scene, threads, tmp_path):
    """However the others are decided: compared with every pair of thresholds on the whole map."""
    torch.set_num_threads(1)
    bundle, labels, steps = bundle_of("simple-unet", classes=3), blobs(3), [0.2, 0.35, 0.5]
    chosen = run(bundle, [sample_of(scene, labels)], objects=False, choose=True)
    labelled = labels != IGNORE
    labelled[100:, 150:] = False
    probabilities, truth = torch_whole(bundle, open_source(scene))[:, labelled], labels[labelled]

    def ious(first, second):
        mapped = classify(probabilities, (None, first, second))
        return metrics.jaccard_score(truth, mapped, labels=range(3), average=None)[1:]

    best = ious(chosen.thresholds["class_1"], chosen.thresholds["class_2"])
    assert chosen.network.pooled.counts.confusion.iou[1:] == pytest.approx(best)
    for first in steps:
        for second in steps:
            assert (ious(first, second) <= best + 1e-9).all()
    none = save(tmp_path / "none", replace(metadata("simple-unet", classes=3), background=None))
    assert run(none, [sample_of(scene, labels)], objects=False, choose=True).thresholds == {}


def test_metrics_for_a_bundle(bundle_of, scene, tmp_path):
    sample = sample_of(scene, blobs(2))
    thresholds, told = choose_thresholds(bundle_of("simple-unet"), [sample], tmp_path / "v", show=False, engine="torch")
    assert set(told["validation"]) == {"iou", "f1", "precision", "recall", "accuracy"}
    assert 0 < thresholds["class_1"] < 1
    kept = json.loads((tmp_path / "v/scores.json").read_text())
    assert kept["thresholds"]["by class"] == thresholds
    assert kept["scores"]["classes"]["class_1"]["iou"] == told["validation"]["iou"]


def test_a_stopped_evaluation_continues(bundle_of, scene, threads, tmp_path, monkeypatch):
    from pipeline.inference import run as job

    torch.set_num_threads(1)
    bundle, sample, done = bundle_of("simple-unet"), sample_of(scene, blobs(2)), []
    whole_run = run(bundle, [sample], block=96, objects=False)
    predict = job.predict_block

    def stops(source, window, inference):
        if len(done) == 3:
            raise MemoryError
        done.append(window)
        return predict(source, window, inference)

    monkeypatch.setattr(job, "predict_block", stops)
    with pytest.raises(SwatheError, match="memory"):
        run(bundle, [sample], tmp_path / "out", block=96, objects=False)
    assert (tmp_path / "out.unfinished").exists()
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(job, "predict_block", lambda *args: done.append(args[1]) or predict(*args))
    found = run(bundle, [sample], tmp_path / "out", block=96, objects=False)
    assert found.network.pooled.as_dict() == whole_run.network.pooled.as_dict()
    assert len(done) < 3 + 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_other_labels_begin_anew(bundle_of, scene, tmp_path, monkeypatch):
    """What is left of a run with other labels is not taken for these."""
    from train.evaluation import evaluation

    bundle = bundle_of("simple-unet")

    def fails(*_):
        raise StoreError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_scorecard", fails)
        with pytest.raises(StoreError, match="no space"):
            run(bundle, [sample_of(scene, blobs(2))], tmp_path / "out", objects=False)
    other = blobs(2, 5)
    found = run(bundle, [sample_of(scene, other)], tmp_path / "out", objects=False)
    fresh = run(bundle, [sample_of(scene, other)], objects=False)
    assert found.network.pooled.as_dict() == fresh.network.pooled.as_dict()


@pytest.mark.parametrize("whom", list(product(("IGNORE", "nodata"), (1, 2))))
def test_nothing_labelled(bundle_of, scene, tmp_path, whom):
    why, count = whom
    labels = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
    blank = write_raster(tmp_path / "blank.tif", np.zeros((3, HEIGHT, WIDTH), np.uint16), nodata=0)
    sample = sample_of(scene, labels) if why == "IGNORE" else sample_of(blank, blobs(2))
    if count == 2:
        found = run(bundle_of("simple-unet"), [sample, sample_of(scene, blobs(2), "good")], tmp_path / "out")
        assert "s is left out" in found.notes[0]
        assert list(found.network.samples) == ["good"]
        return
    with pytest.raises(TrainingError, match="no labelled pixel"):
        run(bundle_of("simple-unet"), [sample], tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_refusals_come_before_any_writing(bundle_of, scene, tmp_path):
    bundle, sample = bundle_of("simple-unet"), sample_of(scene, blobs(2))
    with pytest.raises(BundleError, match="needs 6 bands"):
        run(bundle_of("simple-unet", bands=6), [sample], tmp_path / "out")
    with pytest.raises(BundleError, match="uint8"):
        run(bundle_of("simple-unet", dtype="uint8"), [sample], tmp_path / "out")
    with pytest.raises(TrainingError, match="no sample"):
        run(bundle, [], tmp_path / "out")
    with pytest.raises(TrainingError, match="hold 7"):
        run(bundle, [sample_of(scene, np.full((HEIGHT, WIDTH), 7, np.uint8))], tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("kept")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match=r"mine\.txt"):
            run(bundle, [sample], tmp_path / "out", overwrite=overwrite)
    (tmp_path / "new.unfinished").mkdir()
    (tmp_path / "new.unfinished/mine.txt").write_text("kept")
    with pytest.raises(TrainingError, match="not ours"):
        run(bundle, [sample], tmp_path / "new")
    assert (tmp_path / "new.unfinished/mine.txt").exists()


@pytest.mark.slow
@pytest.mark.skipif(not SCENES.exists(), reason="../shared/data is not here")
def test_the_shipped_bundle_on_its_test_scene():
    """Kampala b; the bundle's own metrics say how well it did when it was made."""
    bundle = load_bundle("buildings")
    source = open_source(SCENES / "kampala_ug_b_z21_image.tif", [1, 2, 3])
    import rasterio

    with rasterio.open(SCENES / "kampala_ug_b_z21_label.tif") as file:
        labels = file.read(1)
    found = evaluate(bundle, [Sample("kampala b", source, Given(labels), (source.geobox.whole,))], show=False)
    told = bundle.metadata.metrics["test"]
    assert float(found.network.pooled.counts.confusion.iou[1]) == pytest.approx(told["iou"], abs=2e-3)


def stored(folder: Path, indexes: np.ndarray, colors: np.ndarray) -> dict[str, Any]:
    """Write one scene in several ways: each gives the same red, green and blue."""
    values = np.ascontiguousarray(colors[indexes].transpose(2, 0, 1))
    nir = np.where(indexes % 3 == 0, 0, 40 + indexes * 12).astype(np.uint8)
    write_raster(folder / "plain.tif", values, photometric="RGB")
    write_raster(folder / "nir.tif", np.concatenate([values, nir[None]]), photometric="RGB", alpha="YES")
    palette = write_raster(folder / "palette.tif", indexes[None])
    with rasterio.open(palette, "r+") as file:
        file.write_colormap(1, {n: (*map(int, color), 255) for n, color in enumerate(colors)})
    for name in ("tiles", "bands"):
        (folder / name).mkdir()
    for number, left in enumerate((0, 60)):
        moved = GRID * Affine.translation(left, 0)
        part = values[:, :, left : left + 60]
        write_raster(folder / f"tiles/t{number}.tif", part, photometric="RGB", transform=moved)
    for name, band in zip(("red", "green", "blue"), values, strict=True):
        write_raster(folder / f"bands/{name}.tif", band[None])
    return {name: folder / f"{name}.tif" for name in ("plain", "nir", "palette")} | {
        name: folder / name for name in ("tiles", "bands")
    }


def test_scores_are_the_same_however_the_scene_is_stored(bundle_of, threads, tmp_path):
    torch.set_num_threads(1)
    random = np.random.default_rng(3)
    indexes = random.integers(0, 16, (70, 120)).astype(np.uint8)
    colors, labels = (
        random.integers(1, 256, (16, 3)).astype(np.uint8),
        random.integers(0, 2, (70, 120)).astype(np.uint8),
    )
    bundle, counts = bundle_of("simple-unet", dtype="uint8"), {}
    for name, path in stored(tmp_path, indexes, colors).items():
        source = open_matching(str(path), bundle.metadata, None)
        sample = Sample("s", source, Given(labels), (source.geobox.whole,), (str(path),))
        counts[name] = run(bundle, [sample], objects=False).network.pooled.counts.confusion.counts.tolist()
    assert sum(map(sum, counts["plain"])) == labels.size
    assert all(found == counts["plain"] for found in counts.values()), counts
