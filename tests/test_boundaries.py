"""Boundary IoU: against erosion class by class, and blocks against the whole."""

from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from train.metrics.boundaries import Boundary, count_boundary

WHOLE = np.s_[:, :]


@st.composite
def maps(draw: st.DrawFn) -> tuple[NDArray[np.uint8], NDArray[np.uint8], int]:
    """Class map and labels of blobs, alike in part, with holes of 255 and single pixels of it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape, classes = (draw(st.integers(1, 30)), draw(st.integers(1, 30))), draw(st.integers(2, 4))
    smooth = draw(st.floats(0, 3))
    fields = [ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, smooth, smooth)) for _ in range(2)]
    labels, class_map = (each.argmax(0).astype(np.uint8) for each in (fields[0], fields[0] + 0.4 * fields[1]))
    for values, share in ((labels, 0.1), (class_map, 0.05)):
        if draw(st.booleans()):
            values[rng.random(shape) < share] = 255
            values[: draw(st.integers(0, 4))] = 255
    return class_map, labels, classes


def band(values: NDArray[np.uint8], unseen: NDArray[np.bool_], value: int, distance: int) -> NDArray[np.bool_]:
    """The authors' `mask_to_boundary`: a ring of background, 3 x 3 erosions one by one, and the mask without that."""
    mask = np.pad((values == value) | unseen, 1)
    eroded = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=1)[1:-1, 1:-1]
    inside: NDArray[np.bool_] = (values == value) & ~unseen & ~eroded
    return inside


def direct(class_map: NDArray[np.uint8], labels: NDArray[np.uint8], distance: int, classes: int) -> NDArray[Any]:
    unseen = (class_map == 255) | (labels == 255)
    rows = []
    for value in range(classes):
        truth, predicted = (band(values, unseen, value, distance) for values in (labels, class_map))
        rows.append(((truth & predicted).sum(), truth.sum(), predicted.sum(), (truth | predicted).sum()))
    return np.array(rows).T


@given(maps(), st.integers(1, 6))
def test_it_is_the_authors_formula(given: tuple[Any, Any, int], distance: int) -> None:
    class_map, labels, classes = given
    found = count_boundary(class_map, labels, WHOLE, distance, classes)
    both, truth, predicted, union = direct(class_map, labels, distance, classes)
    for ours, theirs in ((found.both, both), (found.truth, truth), (found.predicted, predicted)):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == np.int64
    expected = np.where(union, both / np.maximum(union, 1), np.nan)
    np.testing.assert_allclose(found.iou, expected)
    assert found.mean_iou == pytest.approx(np.nanmean(expected) if union.any() else np.nan, nan_ok=True)


@given(maps(), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.randoms())
def test_blocks_add_up_to_the_whole(
    given: tuple[Any, Any, int], distance: int, rows: int, columns: int, more: int, order: Any
) -> None:
    class_map, labels, classes = given
    height, width = labels.shape
    parts, halo = [], distance + more
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            bottom, right = min(top + rows, height), min(left + columns, width)
            first, start = max(0, top - halo), max(0, left - halo)
            buffered = np.s_[first : bottom + halo, start : right + halo]
            core = np.s_[top - first : bottom - first, left - start : right - start]
            parts.append(count_boundary(class_map[buffered], labels[buffered], core, distance, classes))
    order.shuffle(parts)
    found, whole = reduce(add, parts), count_boundary(class_map, labels, WHOLE, distance, classes)
    for name in ("both", "truth", "predicted"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_a_square_that_lies_one_pixel_off() -> None:
    labels, class_map = np.zeros((2, 20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    class_map[5:15, 6:16] = 1
    found = count_boundary(class_map, labels, WHOLE, 1, 2)
    assert found.truth[1] == found.predicted[1] == 36
    assert found.both[1] == 18  # top and bottom rows, nine pixels each
    assert found.iou[1] == pytest.approx(18 / 54)


def test_a_class_that_fills_the_scene_has_the_scenes_edge_for_contour() -> None:
    full = np.ones((10, 12), np.uint8)
    found = count_boundary(full, full, WHOLE, 2, 2)
    assert found.both[1] == 10 * 12 - 6 * 8
    assert found.iou[1] == 1
    assert np.isnan(found.iou[0])


def test_no_contour_begins_where_nothing_was_seen() -> None:
    labels = np.ones((30, 30), np.uint8)
    labels[10:20, 10:20] = 255
    full = np.ones((30, 30), np.uint8)
    with_hole, without = (count_boundary(full, each, WHOLE, 2, 2) for each in (labels, full))
    np.testing.assert_array_equal(with_hole.truth, without.truth)
    unpredicted = count_boundary(labels, full, WHOLE, 2, 2)
    np.testing.assert_array_equal(unpredicted.predicted, without.predicted)


@pytest.mark.parametrize("distance", [0, -1])
def test_distances_from_one(distance: int) -> None:
    with pytest.raises(ValueError, match="not from 1"):
        count_boundary(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), WHOLE, distance, 2)


def test_other_distances_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Boundary.none(1, 2) + Boundary.none(2, 2)
