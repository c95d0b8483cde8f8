"""What a network must beat: fitted by others' formulas, and the same however blocks lie."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import pixels, write_raster
from sklearn import metrics

from models.errors import TrainingError
from pipeline.grid.geobox import Window
from pipeline.io.scene import open_source
from train.config.schema import IGNORE
from train.data.samples import Sample
from train.evaluation.baselines import SIDE, best_limit, brightness, fit_brightness, windows
from train.evaluation.evaluation import evaluate
from train.evaluation.random_forest import HALO, features, fit_forest

SHAPE = (90, 130)


@dataclass(frozen=True)
class Given:
    values: np.ndarray

    def read(self, window):
        return self.values[window.slices].copy()


def stripes(shape=SHAPE) -> np.ndarray:
    """Two classes; some pixels are not judged."""
    labels = (np.indices(shape).sum(axis=0) // 20 % 2).astype(np.uint8)
    labels[::7, ::5] = IGNORE
    return labels


def scene_of(path, dtype="uint16", lift=700, nodata=None, seed=0, shape=SHAPE) -> tuple[Sample, np.ndarray]:
    """A scene that is brighter where its labels say 1, on the whole."""
    labels, values = stripes(shape), pixels((3, *shape), dtype, seed).astype(np.float64)
    values += lift * (labels == 1)
    limits = (None, None) if dtype == "float32" else (1, np.iinfo(dtype).max)
    kept = values.clip(*limits).astype(dtype)
    if nodata is not None:
        kept[0, 10:20, 10:20] = nodata
    source = open_source(write_raster(path, kept, nodata=nodata))
    return Sample(path.stem, source, Given(labels), (source.geobox.whole,)), kept


@pytest.mark.parametrize(("dtype", "lift"), [("uint16", 700), ("uint8", 40), ("float32", 0.2)])
def test_the_brightness_threshold_is_the_best_of_all(tmp_path, client, dtype, lift):
    sample, values = scene_of(tmp_path / "s.tif", dtype, lift)
    found = fit_brightness([sample], client, "best")
    labels = sample.labels.values
    labelled = labels != IGNORE
    means, truth = values.astype(np.float64).mean(axis=0)[labelled], labels[labelled] == 1
    tried = np.quantile(means, np.linspace(0, 1, 80))
    best = max(metrics.jaccard_score(truth, means > t) for t in tried)
    mine = metrics.jaccard_score(truth, found.probabilities(values)[1][labelled] > 0.5)
    assert mine >= best - 1e-9
    assert mine == pytest.approx(metrics.jaccard_score(truth, means > found.threshold), abs=1e-3)
    assert 0.4 < mine < 1


def test_samples_are_put_together(tmp_path, client):
    parts = [scene_of(tmp_path / f"s{n}.tif", seed=n, lift=300 + 600 * n) for n in range(2)]
    found = fit_brightness([sample for sample, _ in parts], client, "best")
    sums = np.concatenate([brightness(v)[s.labels.values != IGNORE] for s, v in parts])
    truth = np.concatenate([s.labels.values[s.labels.values != IGNORE] == 1 for s, _ in parts])
    ious = [metrics.jaccard_score(truth, sums > limit) for limit in np.quantile(sums, np.linspace(0, 1, 60))]
    assert metrics.jaccard_score(truth, sums > found.limit) >= max(ious) - 1e-12


def test_best_limit_is_that_of_a_slow_search():
    random = np.random.default_rng(0)
    for _ in range(50):
        counts = random.integers(0, 9, (2, 12))
        counts[1, 3] += 1
        ious = []
        for limit in range(12):
            hits, alarms = counts[1, limit + 1 :].sum(), counts[0, limit + 1 :].sum()
            ious.append(hits / (counts[1].sum() + alarms))
        assert best_limit(counts) == int(np.argmax(ious))


def test_missing_samples_do_not_count(tmp_path, client):
    """A nodata of 60000 in one band would be the brightest of all."""
    plain, _ = scene_of(tmp_path / "a.tif")
    holed, values = scene_of(tmp_path / "b.tif", nodata=60000)
    values[:, 10:20, 10:20] = 0
    limits = [fit_brightness([sample], client, "best").limit for sample in (plain, holed)]
    assert abs(limits[1] - limits[0]) < 500


def test_windows_cover_the_areas_once(tmp_path):
    sample, _ = scene_of(tmp_path / "s.tif", shape=(60, 1100))
    seen = np.zeros((60, 1100), int)
    for number, window in windows([sample]):
        assert number == 0
        assert max(window.shape) <= SIDE
        seen[window.slices] += 1
    assert (seen == 1).all()


def test_features_need_no_more_than_the_halo():
    """Pixels further away change nothing; those just within do."""
    values = pixels((2, 2 * HALO + 12, 2 * HALO + 12), "uint8")
    inner = features(values)
    assert inner.shape == (12, 12, 2 + 2 * 4 * 4)
    assert np.isfinite(inner).all()
    wide = np.pad(values, ((0, 0), (9, 9), (9, 9)), mode="wrap")
    assert np.abs(features(wide)[9:-9, 9:-9] - inner).max() == 0
    assert (inner[..., :2] == np.moveaxis(values, 0, -1)[HALO:-HALO, HALO:-HALO]).all()


def test_a_forest_learns_and_its_blocks_are_seamless(tmp_path, client, bundle_of):
    sample, _ = scene_of(tmp_path / "s.tif")
    forest = fit_forest([sample], client, 2, pixels=1500)
    again = fit_forest([sample], client, 2, pixels=1500)
    assert forest.metadata() == again.metadata()
    assert fit_forest([sample], client, 2, pixels=1500, seed=1).metadata() != forest.metadata()
    bundle = bundle_of("simple-unet")
    found = [evaluate(bundle, [sample], baselines=[forest], block=block, show=False, client=client, objects=False)
             for block in (48, 512)]  # fmt: skip
    counts = [one.baselines[0].pooled.counts.confusion for one in found]
    assert (counts[0].counts == counts[1].counts).all()
    assert counts[0].iou[1] > 0.8  # smoothing tells the stripes apart
    assert counts[0].iou[1] > found[0].network.pooled.counts.confusion.iou[1] + 0.2
    whole_scene = np.pad(sample.source.read(sample.geobox.whole).data, ((0, 0), (HALO, HALO), (HALO, HALO)), "reflect")
    mapped = forest.model.predict(features(whole_scene).reshape(-1, 51)).reshape(SHAPE)
    labelled = sample.labels.values != IGNORE
    by_sklearn = metrics.confusion_matrix(sample.labels.values[labelled], mapped[labelled])
    assert (counts[0].counts == by_sklearn).all()


def test_baselines_stand_beside_the_network(tmp_path, client, bundle_of):
    sample, values = scene_of(tmp_path / "s.tif")
    bright = fit_brightness([sample], client, "the best for these very samples")
    found = evaluate(
        bundle_of("simple-unet"), [sample], tmp_path / "out", baselines=[bright], show=False, client=client
    )
    labelled = sample.labels.values != IGNORE
    expected = metrics.confusion_matrix(sample.labels.values[labelled], brightness(values)[labelled] > bright.limit)
    assert (found.baselines[0].pooled.counts.confusion.counts == expected).all()
    text = (tmp_path / "out/scores.md").read_text()
    assert f"brightness above {bright.threshold:.4g}, the best for these very samples" in text


def test_a_forest_ignores_pixels_outside_of_areas(tmp_path, client):
    sample, _ = scene_of(tmp_path / "s.tif")
    half = Sample("h", sample.source, sample.labels, (Window(0, 45, 0, 65),))
    labels = sample.labels.values.copy()
    labels[45:], labels[:, 65:] = IGNORE, IGNORE
    whole_area = Sample("h", sample.source, Given(labels), (Window(0, 45, 0, 65),))
    assert (
        fit_forest([half], client, 2, pixels=400).metadata()
        == fit_forest([whole_area], client, 2, pixels=400).metadata()
    )


def test_nothing_to_learn_from(tmp_path, client):
    sample, _ = scene_of(tmp_path / "s.tif")
    blank = Sample("b", sample.source, Given(np.full(SHAPE, IGNORE, np.uint8)), sample.areas)
    zeros = Sample("z", sample.source, Given(np.zeros(SHAPE, np.uint8)), sample.areas)
    for bad, message in ((blank, "no labelled pixel"), (zeros, "bright class")):
        with pytest.raises(TrainingError, match=message):
            fit_brightness([bad], client, "best")
    for bad, message in ((blank, "no labelled pixel"), (zeros, "two classes")):
        with pytest.raises(TrainingError, match=message):
            fit_forest([bad], client, 2)
