"""Objects matched: against a comparison of every object with every other, on random maps."""

from functools import reduce
from operator import add
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

from train.metrics.object_matching import Matches, ObjectCounts, Overlaps, match, merged, overlaps

CLASSES = 4
COLUMNS = ("predicted", "truth", "predicted_class", "truth_class", "pixels")


@st.composite
def maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class map and labels of blobs of up to three classes, alike in part, with 255 in both."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, smooth = (draw(st.integers(1, 25)), draw(st.integers(1, 25))), draw(st.floats(0, 2.5))
    noise = ndimage.gaussian_filter(rng.normal(size=(2, CLASSES, *shape)), (0, 0, smooth, smooth))
    labels, class_map = (np.argmax(each, 0).astype(np.uint8) for each in (noise[0], noise[0] + 0.3 * noise[1]))
    for values, share in (
        (labels, draw(st.sampled_from([0, 0.02, 0.3]))),
        (class_map, draw(st.sampled_from([0, 0.1]))),
    ):
        values[rng.random(shape) < share] = 255
        values[:, : draw(st.integers(0, 6))] = draw(st.sampled_from([0, 1, 255]))
    return class_map, labels


def ids(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """As `pipeline.objects` numbers them: 1 + place of the first pixel, so that ids are neither small nor dense."""
    found = label(np.where(values == 255, 0, values), background=0, connectivity=1)
    _, first, which = np.unique(found, return_index=True, return_inverse=True)
    return np.where(found > 0, 10**10 + first[which].reshape(found.shape), 0).astype(np.int64)


def compared(class_map: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, Any]:
    """Every predicted object against every true one, in Python."""
    judged = (class_map != 255) & (labels != 255)
    found, there = ids(class_map), ids(labels)
    objects = [{one: within == one for one in np.unique(within[within > 0])} for within in (found, there)]
    pairs = {}
    for one, mask in objects[0].items():
        for other, true in objects[1].items():
            shared, union = (mask & true & judged).sum(), ((mask | true) & judged).sum()
            if class_map[mask][0] == labels[true][0] and union and shared / union > 0.5:
                pairs[int(one), int(other)] = shared / union
    alarms = {int(one) for one, mask in objects[0].items()
              if not any(one == pair[0] for pair in pairs) and 2 * (mask & judged).sum() >= mask.sum()}  # fmt: skip
    missed = {int(one) for one, true in objects[1].items()
              if not any(one == pair[1] for pair in pairs) and (true & judged).any()}  # fmt: skip
    return {"pairs": pairs, "alarms": alarms, "missed": missed}


def matched(class_map: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Matches:
    return match(overlaps(ids(class_map), ids(labels), class_map, labels), CLASSES)


@given(maps())
@settings(max_examples=60)
def test_matches_are_those_of_every_pair(given: tuple[Any, Any]) -> None:
    class_map, labels = given
    found, expected = matched(class_map, labels), compared(class_map, labels)
    ours = dict(zip(zip(found.predicted.tolist(), found.truth.tolist(), strict=True), found.iou, strict=True))
    assert ours == pytest.approx(expected["pairs"])
    assert len(set(found.predicted)) == len(set(found.truth)) == len(found.iou)
    assert set(found.false_alarms.tolist()) == expected["alarms"]
    assert set(found.missed.tolist()) == expected["missed"]


@given(maps())
@settings(max_examples=40)
def test_scores_follow_from_the_pairs(given: tuple[Any, Any]) -> None:
    class_map, labels = given
    counts, expected = matched(class_map, labels).counts, compared(class_map, labels)
    predicted, truth = ({int(one): int(values[within == one][0]) for one in np.unique(within[within > 0])}
                        for values, within in ((class_map, ids(class_map)), (labels, ids(labels))))  # fmt: skip
    for value in range(CLASSES):
        ious = [iou for (one, _), iou in expected["pairs"].items() if predicted[one] == value]
        alarms = sum(predicted[one] == value for one in expected["alarms"])
        missed = sum(truth[one] == value for one in expected["missed"])
        figures = counts.of_class(value)
        assert (figures["matched"], figures["predicted"], figures["truth"]) == (
            len(ious), len(ious) + alarms, len(ious) + missed)  # fmt: skip
        if not ious and not alarms and not missed:
            assert np.isnan([counts.f1[value], counts.quality[value]]).all()
            continue
        recognition = len(ious) / (len(ious) + alarms / 2 + missed / 2)
        assert counts.f1[value] == pytest.approx(recognition)
        assert counts.quality[value] == pytest.approx(sum(ious) / (len(ious) + alarms / 2 + missed / 2), abs=1e-8)
        if ious:
            assert counts.iou[value] == pytest.approx(np.mean(ious), abs=1e-8)
            assert counts.precision[value] == pytest.approx(len(ious) / (len(ious) + alarms))
            assert counts.recall[value] == pytest.approx(len(ious) / (len(ious) + missed))


@given(maps(), st.integers(1, 15), st.integers(1, 15), st.randoms())
def test_blocks_add_up_to_the_whole(given: tuple[Any, Any], rows: int, columns: int, order: Any) -> None:
    class_map, labels = given
    every = ids(class_map), ids(labels), class_map, labels
    height, width = labels.shape
    parts = [overlaps(*(values[top : top + rows, left : left + columns] for values in every))
             for top in range(0, height, rows) for left in range(0, width, columns)]  # fmt: skip
    order.shuffle(parts)
    with patch("train.metrics.confusion.STRIP", 9):
        whole = overlaps(*every)
    for found in (merged(parts), reduce(add, parts)):
        for name in COLUMNS:
            ours, theirs = getattr(found, name), getattr(whole, name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype == (np.uint8 if "class" in name else np.int64)


def shapes(*spans: tuple[int, int, int], width: int = 40) -> NDArray[np.uint8]:
    """One row of stretches (first, end, class)."""
    row = np.zeros((1, width), np.uint8)
    for first, end, value in spans:
        row[0, first:end] = value
    return row


def test_an_iou_of_exactly_a_half_is_no_match() -> None:
    half = matched(shapes((0, 5, 1)), shapes((0, 10, 1)))
    assert (half.counts.matched[1], half.counts.predicted[1], half.counts.truth[1]) == (0, 1, 1)
    assert half.counts.quality[1] == 0
    assert np.isnan(half.counts.iou[1])
    assert matched(shapes((0, 6, 1)), shapes((0, 10, 1))).counts.matched[1] == 1


def test_another_class_is_no_match() -> None:
    found = matched(shapes((0, 10, 2)), shapes((0, 10, 1))).counts
    np.testing.assert_array_equal(found.matched, [0, 0, 0, 0])
    np.testing.assert_array_equal(found.predicted, [0, 0, 1, 0])
    np.testing.assert_array_equal(found.truth, [0, 1, 0, 0])


def test_pixels_that_do_not_count_are_taken_away_first() -> None:
    found = matched(shapes((0, 20, 1)), shapes((0, 10, 1), (10, 20, 255)))
    assert found.iou.tolist() == [1]


@pytest.mark.parametrize(("judged", "alarms"), [(9, 0), (10, 1)])
def test_a_predicted_object_mostly_unjudged_is_no_false_alarm(judged: int, alarms: int) -> None:
    found = matched(shapes((0, 20, 1)), shapes((judged, 40, 255)))
    assert found.counts.predicted[1] == alarms


def test_a_true_object_that_was_not_observed_is_not_missed() -> None:
    assert matched(shapes((0, 20, 255)), shapes((5, 15, 1))).counts.truth.sum() == 0


def test_ids_of_a_large_scene() -> None:
    truth = np.array([[2**62, 2**62, 2**62, 0]])
    predicted = np.array([[0, 2**62 + 1, 2**62 + 1, 0]])
    found = match(overlaps(predicted, truth, (predicted > 0).astype(np.uint8), (truth > 0).astype(np.uint8)), 2)
    assert (found.predicted.tolist(), found.truth.tolist()) == ([2**62 + 1], [2**62])
    assert found.iou[0] == pytest.approx(2 / 3)


def test_areas_beyond_32_bits() -> None:
    """What many blocks add up to: two objects of 10^11 pixels that differ by one pixel in what they share."""
    large = 10**11
    rows = Overlaps(*(np.array(column, np.int64) for column in ([0, 1, 1], [1, 0, 1])),
                    *(np.array(column, np.uint8) for column in ([0, 1, 1], [1, 0, 1])),
                    np.array([large, large, 2 * large + 1]))  # fmt: skip
    assert match(rows, 2).counts.matched[1] == 1
    rows.pixels[-1] -= 1
    assert match(rows, 2).counts.matched[1] == 0


def test_no_objects_at_all() -> None:
    nothing = matched(shapes(), shapes())
    assert len(nothing.predicted) == len(nothing.missed) == len(nothing.false_alarms) == 0
    np.testing.assert_array_equal(nothing.counts.matched, np.zeros(CLASSES))
    assert len(merged([])) == 0


@given(maps(), maps())
def test_counts_of_scenes_add_up(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    a, b = matched(*one).counts, matched(*other).counts
    for name in ("matched", "predicted", "truth", "overlap"):
        np.testing.assert_array_equal(getattr(a + b, name), getattr(b + a, name))
        np.testing.assert_array_equal(getattr(a + b, name), getattr(a, name) + getattr(b, name))
    with pytest.raises(ValueError, match="do not add up"):
        a + ObjectCounts.none(CLASSES + 1)
