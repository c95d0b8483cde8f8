"""Scores of pixels: against scikit-learn and torchmetrics, on random masks with pixels that do not count."""

import json
import pickle
from collections.abc import Callable
from functools import reduce
from itertools import product
from operator import add
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics

from models.encoding import classify
from models.errors import TrainingError
from train.metrics import confusion as formulas
from train.metrics.calibration import Reliability, foreground_reliability, top_reliability
from train.metrics.confusion import Confusion, confusion
from train.metrics.object_matching import ObjectCounts
from train.metrics.scores import BlockCounts, Scores, count_pixels, intervals
from train.metrics.thresholds import THRESHOLDS, ThresholdCurve, class_curves, threshold_curve

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
SEEDS = st.integers(0, 2**32 - 1)
Maps = tuple[NDArray[np.uint8], NDArray[np.uint8], int]


@st.composite
def class_maps(draw: st.DrawFn) -> Maps:
    """A class map and labels, both with some 255, and how many classes there are; some classes may not occur."""
    classes, shape = draw(st.integers(2, 5)), draw(SHAPES)
    values = st.sampled_from([*range(draw(st.integers(1, classes))), 255])
    one, other = (draw(hnp.arrays(np.uint8, shape, elements=values)) for _ in range(2))
    return one, other, classes


@st.composite
def probability_maps(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities `(class, y, x)` with some NaN, half of them on thresholds and edges; and labels with some 255."""
    rng, classes, shape = np.random.default_rng(draw(SEEDS)), draw(st.integers(2, 4)), draw(SHAPES)
    likely = rng.dirichlet(np.full(classes, 0.5), shape).transpose(2, 0, 1).astype(np.float32)
    if draw(st.booleans()):
        likely = np.float32(rng.integers(0, 21, (1, *shape)) / 20)
        likely = np.concatenate([1 - likely, likely])
    likely[:, rng.random(shape) < 0.1] = np.nan
    labels = rng.choice([*range(len(likely)), 255], shape).astype(np.uint8)
    return likely, labels


def seen(class_map: NDArray[np.uint8], labels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
    counted = (class_map != 255) & (labels != 255)
    return labels[counted], class_map[counted]


def counted(likely: NDArray[np.float32], labels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities `(pixel, class)` and labels of the pixels that count."""
    kept = (labels != 255) & ~np.isnan(likely[0])
    return likely[:, kept].T, labels[kept].astype(np.int64)


def same(one: Any, other: Any) -> None:
    """Compare counts exactly, of whatever dataclass."""
    assert type(one) is type(other)
    for name in one.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if hasattr(a, "__slots__") and not isinstance(a, np.ndarray):
            same(a, b)
        else:
            np.testing.assert_array_equal(a, b)
            assert not isinstance(a, np.ndarray) or a.dtype == b.dtype == np.int64


@given(class_maps())
def test_confusion_is_sklearns(maps: Maps) -> None:
    class_map, labels, classes = maps
    with patch("train.metrics.confusion.STRIP", 7):
        found = confusion(class_map, labels, classes)
    truth, predicted = seen(class_map, labels)
    expected = np.zeros((classes, classes), int)
    if truth.size:
        expected = metrics.confusion_matrix(truth, predicted, labels=range(classes))
    np.testing.assert_array_equal(found.counts, expected)
    assert found.counts.dtype == np.int64
    assert found.ignored == (labels == 255).sum()
    lost = labels[(labels != 255) & (class_map == 255)]
    np.testing.assert_array_equal(found.unpredicted, np.bincount(lost, minlength=classes))
    assert found.pixels + found.ignored + found.unpredicted.sum() == labels.size


@given(class_maps())
def test_scores_are_sklearns(maps: Maps) -> None:
    class_map, labels, classes = maps
    found, (truth, predicted) = confusion(class_map, labels, classes), seen(class_map, labels)
    if not truth.size:
        assert np.isnan([found.accuracy, found.mean_iou, found.mean_f1, *found.iou, *found.class_accuracy]).all()
        return
    every = list(range(classes))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truth, predicted, labels=every, zero_division=np.nan
    )
    occurring = np.union1d(truth, predicted)
    iou = metrics.jaccard_score(truth, predicted, labels=every, average=None, zero_division=0)
    np.testing.assert_allclose(found.iou, np.where(np.isin(every, occurring), iou, np.nan))
    for ours, theirs in ((found.precision, precision), (found.recall, recall), (found.f1, f1)):
        np.testing.assert_allclose(ours, theirs)
    np.testing.assert_array_equal(found.support, support)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, predicted))
    by_class = [metrics.accuracy_score(truth == value, predicted == value) for value in every]
    np.testing.assert_allclose(found.class_accuracy, by_class)
    macro = metrics.jaccard_score(truth, predicted, labels=occurring, average="macro")
    assert found.mean_iou == pytest.approx(macro)
    assert found.mean_f1 == pytest.approx(metrics.f1_score(truth, predicted, labels=occurring, average="macro"))


@given(class_maps())
def test_mean_iou_is_torchmetrics(maps: Maps) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_jaccard_index

    class_map, labels, classes = maps
    labels = np.where(class_map == 255, np.uint8(255), labels)
    if (labels == 255).all():
        return
    predicted = torch.from_numpy(np.where(class_map == 255, 0, class_map).astype(np.int64))
    truth = torch.from_numpy(labels.astype(np.int64))
    theirs = multiclass_jaccard_index(predicted, truth, classes, ignore_index=255)
    assert confusion(class_map, labels, classes).mean_iou == pytest.approx(float(theirs), abs=1e-6)


def test_shares_of_nothing_are_undefined() -> None:
    found = confusion(np.uint8([[0, 0]]), np.uint8([[0, 1]]), 4)
    np.testing.assert_array_equal(found.iou, [0.5, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found.precision, [0.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(found.f1, [2 / 3, 0, np.nan, np.nan])
    assert found.mean_iou == 0.25


def test_counts_beyond_32_bits_are_exact() -> None:
    most = Confusion(np.full((2, 2), 10**11 + 1, np.int64), np.zeros(2, np.int64), 10**11)
    total = most + most
    assert total.pixels == 8 * (10**11 + 1)
    assert total.ignored == 2 * 10**11


@pytest.mark.parametrize(("what", "value"), [("labels", 3), ("predictions", 254)])
def test_unknown_values_are_named(what: str, value: int) -> None:
    bad, good = np.uint8([[0, value, 255]]), np.uint8([[0, 2, 255]])
    given = (good, bad) if what == "labels" else (bad, good)
    with pytest.raises(TrainingError, match=f"{what} hold values that are no class: {value}. Classes are 0 to 2"):
        confusion(*given, 3)


def test_as_many_classes_as_there_can_be() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = confusion(values, values, 255)
    np.testing.assert_array_equal(found.counts, np.eye(255, dtype=np.int64))
    assert found.ignored == 1


def test_blocks_that_differ_in_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        confusion(np.zeros((1, 4), np.uint8), np.zeros((4, 4), np.uint8), 2)


@given(probability_maps(), st.sampled_from([0, 1, None]))
def test_curves_are_what_classify_would_give(maps: tuple[Any, Any], background: int | None) -> None:
    """The scores of each class at each threshold, whatever the thresholds of the others."""
    likely, labels = maps
    with patch("train.metrics.confusion.STRIP", 5):
        curves = class_curves(likely, labels, background)
    kept = (labels != 255) & ~np.isnan(likely[0])
    for value in range(len(likely)):
        found, truth = curves.of(value), (labels == value)[kept]
        if value == background:
            assert not found.counts.any()
            continue
        for threshold in THRESHOLDS:
            bounds = [None if n == background else 0.3 + 0.1 * n for n in range(len(likely))]
            bounds[value] = threshold
            if background is None:
                says = ((likely.argmax(0) == value) & (likely[value] > np.float32(threshold)))[kept]
            else:
                says = classify(likely, tuple(bounds))[kept] == value
            at = found.at(threshold)
            expected = ((says & truth), (says & ~truth), (~says & truth), (~says & ~truth))
            assert (at.hits, at.false_alarms, at.misses, at.rejections) == tuple(int(each.sum()) for each in expected)
        if truth.any():
            theirs = metrics.precision_recall_fscore_support(truth, says, average="binary", zero_division=np.nan)[:3]
            assert (at.precision, at.recall, at.f1) == pytest.approx(theirs, nan_ok=True)
            assert at.iou == pytest.approx(metrics.jaccard_score(truth, says))


def test_probabilities_next_to_every_threshold_fall_on_the_right_side() -> None:
    for step in range(1001):
        threshold = np.float32(step / 1000)
        around = [np.nextafter(threshold, np.float32(-1)), threshold, np.nextafter(threshold, np.float32(2))]
        likely = np.clip([around], 0, 1)
        found = threshold_curve(likely, np.ones(likely.shape, np.uint8)).at(step / 1000)
        assert found.hits == (likely > threshold).sum()


def test_a_probability_rounded_above_one_is_one() -> None:
    likely = np.array([[np.nextafter(np.float32(1), np.float32(2)), 1]], np.float32)
    labels = np.ones((1, 2), np.uint8)
    assert threshold_curve(likely, labels).counts[1, -1] == 2
    assert foreground_reliability(likely, labels).count[-1] == 2


@given(SEEDS, st.floats(0.05, 5))
def test_best_threshold(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (8, 8), np.uint8)
    likely = rng.beta(spread, spread, (8, 8)).astype(np.float32)
    says = {t: likely > np.float32(t) for t in THRESHOLDS}
    scores = {t: (each & (labels == 1)).sum() / max(1, (each | (labels == 1)).sum()) for t, each in says.items()}
    found = threshold_curve(likely, labels).best()
    assert found is not None or not labels.any()
    if found:
        ties = [t for t in THRESHOLDS if scores[t] == pytest.approx(max(scores.values()))]
        assert found.threshold == min(ties, key=lambda t: (round(abs(t - 0.5), 6), t))


def test_best_threshold_of_nothing_and_of_ties() -> None:
    assert threshold_curve(np.float32([[0.2, 0.9]]), np.zeros((1, 2), np.uint8)).best() is None
    assert ThresholdCurve.none().best() is None
    best = threshold_curve(np.float32([[0.1, 0.9]]), np.uint8([[0, 1]])).best()
    assert best
    assert best.threshold == 0.5
    best = threshold_curve(np.float32([[0.5, 0.62]]), np.uint8([[1, 0]])).best(
        (0.3, 0.4, 0.6, 0.65)
    )  # 0.3, 0.4 are equal
    assert best
    assert best.threshold == 0.4


@pytest.mark.parametrize("threshold", [0.0005, -0.1, 1.1])
def test_thresholds_between_the_steps_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="are multiples of"):
        ThresholdCurve.none().at(threshold)


@given(SEEDS, st.sampled_from([3, 50, 1000, None]), st.floats(0, 3))
def test_average_precision_is_sklearns(seed: int, levels: int | None, skill: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 255], (30, 30)).astype(np.uint8)
    likely = 1 / (1 + np.exp(-rng.normal(skill * (labels == 1), 1) * rng.choice([0.01, 1, 10])))
    likely = (np.rint(likely * levels) / levels if levels else likely).astype(np.float32)
    kept = labels != 255
    found = threshold_curve(likely, labels).average_precision
    expected = metrics.average_precision_score(labels[kept], likely[kept])
    assert found.low - 1e-9 <= expected <= found.high + 1e-9
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    if levels in (50, 1000):  # thousandths all of them
        assert found.value == pytest.approx(expected)
    rounded = np.searchsorted(np.float32(np.arange(1001) / 1000), likely[kept])
    assert found.value == pytest.approx(metrics.average_precision_score(labels[kept], rounded))


def test_average_precision_is_well_known_where_probabilities_spread() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (500, 500), np.uint8)
    likely = rng.beta(1 + labels, 2 - labels).astype(np.float32)
    found = threshold_curve(likely, labels).average_precision
    assert found.error < 0.001
    exact = metrics.average_precision_score(labels.ravel(), likely.ravel())
    assert found.low < exact < found.high
    assert found.value == pytest.approx(exact, abs=0.0005)


def off_edges(values: NDArray[np.float32], bins: int) -> bool:
    known = values[~np.isnan(values)]
    return not np.isin(known, np.linspace(0, 1, bins + 1).astype(np.float32)).any()


@given(probability_maps(), st.integers(2, 20))
def test_ece_is_torchmetrics_of_the_foreground(maps: tuple[Any, Any], bins: int) -> None:
    import torch
    from torchmetrics.functional.classification import binary_calibration_error

    likely, labels = maps
    found = foreground_reliability(likely[1], labels, 1, bins)
    rows, truth = counted(likely, labels)
    assert found.count.sum() == len(truth)
    if not len(truth):
        assert np.isnan([found.ece, found.brier]).all()
        return
    positive = truth == 1
    assert found.brier == pytest.approx(metrics.brier_score_loss(positive, rows[:, 1], pos_label=True), abs=1e-6)
    if off_edges(likely[1], bins):
        target = torch.from_numpy(positive.astype(np.int64))
        theirs = binary_calibration_error(torch.from_numpy(rows[:, 1].copy()), target, bins)
        assert found.ece == pytest.approx(float(theirs), abs=2e-6)


@given(probability_maps(), st.integers(2, 20))
def test_ece_is_torchmetrics_of_all_classes(maps: tuple[Any, Any], bins: int) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    likely, labels = maps
    found = top_reliability(likely, labels, bins)
    rows, truth = counted(likely, labels)
    assert found.count.sum() == len(truth)
    if not len(truth):
        return
    classes = len(likely)
    wrong = rows.astype(np.float64) - np.eye(classes)[truth]
    assert found.brier == pytest.approx((wrong**2).sum(1).mean(), abs=1e-6)
    if off_edges(likely.max(0), bins):
        theirs = multiclass_calibration_error(torch.from_numpy(rows.copy()), torch.from_numpy(truth), classes, bins)
        assert found.ece == pytest.approx(float(theirs), abs=2e-6)


@given(probability_maps(), st.integers(1, 20))
def test_reliability_is_guos_formula(maps: tuple[Any, Any], bins: int) -> None:
    """On edges too: a bin holds ((m - 1) / M, m / M], and 0 belongs to the first."""
    likely, labels = maps
    with patch("train.metrics.confusion.STRIP", 5):
        found = top_reliability(likely, labels, bins)
    rows, truth = counted(likely, labels)
    sure, hit = rows.max(1, initial=0), rows.argmax(1) == truth
    edges, gaps = np.linspace(0, 1, bins + 1).astype(np.float32), 0.0
    for place in range(bins):
        inside = ((sure > edges[place]) | (place == 0)) & (sure <= edges[place + 1])
        assert (found.count[place], found.hits[place]) == (inside.sum(), hit[inside].sum())
        if inside.any():
            means = float(sure[inside].mean(dtype=np.float64)), hit[inside].mean()
            assert (found.confidence[place], found.frequency[place]) == pytest.approx(means, abs=1e-6)
            gaps += inside.sum() * abs(means[0] - means[1])
    if len(truth):
        assert found.ece == pytest.approx(gaps / len(truth), abs=1e-6)


def test_sums_of_probabilities_are_of_whole_parts() -> None:
    likely = np.random.default_rng(0).random((20, 20), np.float32) / 64  # finer than the parts: rounded to the nearest
    found = top_reliability(np.stack([1 - likely, likely]), np.zeros((20, 20), np.uint8), bins=1)
    assert found.confidences.tolist() == [sum(round(float(each) * 2**24) for each in (1 - likely).ravel())]
    found = foreground_reliability(likely, np.zeros((20, 20), np.uint8), bins=1)
    assert found.confidences.tolist() == [sum(round(float(each) * 2**24) for each in likely.ravel())]


def test_a_known_reliability() -> None:
    likely = np.float32([[0.0, 0.25, 0.5, 0.75, 1.0, 1.0]])
    found = foreground_reliability(likely, np.uint8([[0, 0, 1, 1, 1, 255]]), bins=2)
    np.testing.assert_array_equal(found.count, [3, 2])
    np.testing.assert_array_equal(found.hits, [1, 2])
    np.testing.assert_allclose(found.confidence, [0.25, 0.875])
    assert found.ece == pytest.approx((3 * abs(0.25 - 1 / 3) + 2 * 0.125) / 5, abs=1e-7)
    assert found.brier == pytest.approx((0.25**2 + 0.5**2 + 0.25**2) / 5, abs=1e-7)
    assert [row["pixels"] for row in found.curve()] == [3, 2]


def whole_and_parts(seed: int, classes: int) -> tuple[BlockCounts, list[BlockCounts]]:
    """A scene counted at once, and in uneven blocks."""
    rng = np.random.default_rng(seed)
    likely = rng.dirichlet(np.full(classes, 0.7), (17, 23)).transpose(2, 0, 1).astype(np.float32)
    class_map = likely.argmax(0).astype(np.uint8)
    labels = rng.choice([*range(classes), 255], (17, 23)).astype(np.uint8)
    class_map[rng.random((17, 23)) < 0.05] = 255
    whole = count_pixels(class_map, labels, np.s_[:, :], classes=classes, probabilities=likely)
    parts = []
    for (top, bottom), (left, right) in product([(0, 5), (5, 6), (6, 17)], [(0, 11), (11, 20), (20, 23)]):
        rows, columns = slice(max(0, top - 2), bottom + 2), slice(max(0, left - 2), right + 2)
        core = (slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start))
        inside = likely[:, top:bottom, left:right]
        buffered = class_map[rows, columns], labels[rows, columns]
        parts.append(count_pixels(*buffered, core, classes=classes, probabilities=inside))
    return whole, parts


@given(SEEDS, st.integers(2, 4), st.randoms())
@settings(max_examples=30)
def test_tallies_add_up_in_any_order_to_exactly_the_whole(seed: int, classes: int, order: Any) -> None:
    whole, parts = whole_and_parts(seed, classes)
    order.shuffle(parts)
    same(reduce(add, parts), whole)
    same(reduce(add, parts[:4]) + reduce(add, parts[4:]), whole)


def test_tallies_survive_the_way_to_a_worker() -> None:
    whole, _ = whole_and_parts(0, 2)
    sent = pickle.dumps(whole)
    same(pickle.loads(sent), whole)
    assert len(sent) < 40_000


@pytest.mark.parametrize(
    "mixed",
    [
        lambda one, three: one.confusion + three.confusion,
        lambda one, three: one.boundary + three.boundary,
        lambda one, three: one.top + Reliability.none(7),
        lambda one, three: one + BlockCounts(one.confusion, one.boundary),
    ],
)
def test_what_differs_does_not_add_up(mixed: Callable[[BlockCounts, BlockCounts], Any]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        mixed(whole_and_parts(0, 2)[0], whole_and_parts(0, 3)[0])


def blocks_of(seed: int, number: int, classes: int = 2) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    skill = rng.beta(8, 2, (number, 1, 1))
    return rng.poisson(1000 * (skill * np.eye(classes) + (1 - skill) / classes)).astype(np.int64)


@pytest.mark.parametrize("name", ["iou", "f1", "precision", "recall", "accuracy"])
def test_intervals_are_scipys(name: str) -> None:
    from scipy import stats

    blocks = blocks_of(1, 25, 3)
    found = intervals(blocks, resamples=8000)
    for value in range(3):

        def statistic(which: NDArray[Any], axis: int, value: int = value) -> NDArray[Any]:
            return formulas.OF_CLASSES[name](blocks[which].sum(axis - 2))[..., value]

        theirs = stats.bootstrap(
            (np.arange(25),), statistic, n_resamples=8000, method="percentile", vectorized=True, axis=-1, batch=500
        ).confidence_interval
        width = theirs.high - theirs.low
        assert found.low[name][value] == pytest.approx(theirs.low, abs=0.06 * width)
        assert found.high[name][value] == pytest.approx(theirs.high, abs=0.06 * width)


def test_intervals_of_few_blocks_are_those_of_every_possible_draw() -> None:
    blocks = blocks_of(2, 4)
    every = np.stack([blocks[list(which)].sum(0) for which in product(range(4), repeat=4)])
    found = intervals(blocks, resamples=40_000, level=0.8)
    exact = np.quantile(formulas.mean_iou(every), [0.1, 0.9])
    bounds = float(found.overall_low["mean_iou"]), float(found.overall_high["mean_iou"])
    assert bounds == pytest.approx(tuple(exact), abs=0.004)


@pytest.mark.parametrize("most", [1, 37, 1000, 10**6])
def test_intervals_hold_little_at_once(most: int) -> None:
    """However many draws are held, the same are drawn."""
    blocks = blocks_of(3, 13)
    with patch("train.metrics.scores.MOST", most):
        found = intervals(blocks, resamples=500)
    again = intervals(blocks, resamples=500)
    np.testing.assert_array_equal(found.low["iou"], again.low["iou"])
    np.testing.assert_array_equal(found.overall_high["mean_f1"], again.overall_high["mean_f1"])
    assert (found.low["iou"] < formulas.iou(blocks.sum(0))).all()
    assert (found.high["iou"] > formulas.iou(blocks.sum(0))).all()


def test_intervals_are_repeatable_and_leave_empty_blocks_out() -> None:
    blocks = blocks_of(4, 12)
    one, again, other = (intervals(blocks, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.low["iou"], again.low["iou"])
    assert (one.low["iou"] != other.low["iou"]).any()
    padded = intervals(np.concatenate([blocks[:5], np.zeros((40, 2, 2), np.int64), blocks[5:]]), seed=3)
    np.testing.assert_array_equal(one.high["f1"], padded.high["f1"])
    assert (padded.blocks, padded.note) == (12, "")


@pytest.mark.parametrize("number", [0, 1])
def test_one_block_has_no_interval(number: int) -> None:
    found = intervals(blocks_of(5, number))
    assert np.isnan([found.low["iou"], found.high["iou"]]).all()
    assert np.isnan(found.overall_low["accuracy"])
    assert f"from {number} block" in found.note


def test_scores_of_absent_classes_have_no_interval() -> None:
    blocks = np.zeros((12, 3, 3), np.int64)
    blocks[:, :2, :2] = blocks_of(6, 12)
    blocks[0, 2, 2] = 5  # in one block alone: the resamples without it say nothing of class 2
    found = intervals(blocks)
    assert (found.low["iou"][2], found.high["iou"][2]) == (1, 1)
    blocks[0, 2, 2] = 0
    found = intervals(blocks)
    assert np.isnan(found.low["iou"][2])
    assert found.of_class(2)["iou"] == [None, None]


@pytest.mark.parametrize("classes", [2, 3])
def test_summary_is_json(classes: int) -> None:
    whole, parts = whole_and_parts(7, classes)
    names = ("ground", "house", "road")[:classes]
    objects = ObjectCounts(*(np.arange(classes, dtype=np.int64) for _ in range(3)), np.zeros(classes, np.int64))
    bounds = intervals(np.stack([part.confusion.counts for part in parts]))
    made = Scores(names, whole, objects, bounds).as_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert list(made["classes"]) == list(names)
    assert made["classes"]["house"]["iou"] == round(whole.confusion.iou[1], 4)
    assert made["classes"]["house"]["objects"]["recall"] == 1
    assert "objects" not in made["classes"]["ground"]
    assert made["confusion"] == whole.confusion.counts.tolist()
    assert set(made["calibration"]) == ({"foreground", "top"} if classes == 2 else {"top"})
    assert made["intervals"]["blocks"] == 9
    assert "rough" in made["intervals"]["note"]


def test_summary_of_nothing_is_json_too() -> None:
    nothing = np.full((3, 3), 255, np.uint8)
    likely = np.full((2, 3, 3), np.nan, np.float32)
    counted = count_pixels(nothing, nothing, np.s_[:, :], classes=2, probabilities=likely)
    made = Scores(("a", "b"), counted, ObjectCounts.none(2), intervals(counted.confusion.counts[None])).as_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["mean_iou"] is None
    assert made["thresholds"]["best"] is None
    assert made["thresholds"]["average_precision"] is None


def test_pixels_without_prediction_are_in_no_score() -> None:
    likely = np.full((2, 3, 3), 0.5, np.float32)
    class_map = np.uint8([[0, 1, 255]] * 3)
    counted = count_pixels(class_map, np.uint8([[0, 255, 1]] * 3), np.s_[:, :], classes=2, probabilities=likely)
    assert counted.thresholds
    assert counted.foreground
    assert counted.top
    for counts in (counted.confusion.counts, counted.thresholds.counts, counted.foreground.count, counted.top.count):
        assert counts.sum() == 3
    assert counted.confusion.unpredicted.tolist() == [0, 3]


def test_maps_alone_have_no_probabilities() -> None:
    zeros = np.zeros((4, 4), np.uint8)
    counted = count_pixels(zeros, zeros, np.s_[:, :], classes=2)
    same(counted + counted, counted + count_pixels(zeros, zeros, np.s_[:, :], classes=2))
    assert not {"thresholds", "calibration", "intervals"} & set(Scores(("a", "b"), counted).as_dict())
