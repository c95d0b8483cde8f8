"""Cleaning: every operation on windows with their halo against scikit-image on the whole array, and every refusal."""

import inspect
import json
import pickle
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import one_threshold
from hypothesis import assume, given
from hypothesis import strategies as st
from masks import blobs, chessboard, class_maps, comb, join_hysteresis, masks, shapes, spiral
from scipy import ndimage
from skimage import filters, measure, morphology

from models.encoding import NODATA, classify
from models.errors import PlanError
from pipeline.objects.label import Totals
from pipeline.postprocess.morphology import local, local_halo, smooth
from pipeline.postprocess.options import CleanOptions, Size, parse_size, parse_thresholds
from pipeline.postprocess.sieve import (
    WIDEST_HALO,
    removal_halo,
    remove_by_halo,
    replace_components,
    replacement_class,
)
from pipeline.postprocess.threshold import above_high, apply_threshold

NEIGHBOURS = {4: 1, 8: 2}  # as scikit-image counts connectivity
NAMES = ("ground", "building", "road", "water")
radii = st.integers(0, 6)
small_sizes = st.integers(0, 7) | st.integers(0, 40)
connectivities = st.sampled_from([4, 8])
elements = st.sampled_from(["disk", "square"])


def rules_of(number=2, /, kept=None, own=0, **keywords):
    kept = tuple(range(number)) if kept is None else kept
    return CleanOptions(**keywords).resolve(NAMES[:number], kept, background=own, has_areas=True)


def by_windows(data, function, halo, *arrays):
    """Do it block by block, blocks cut anywhere, each with its halo, and put the cores together."""
    height, width = arrays[0].shape[-2:]
    result = np.empty((height, width), np.uint8)
    for top, bottom in pairwise(_cuts(data, height)):
        for left, right in pairwise(_cuts(data, width)):
            rows = slice(max(0, top - halo), bottom + halo)
            columns = slice(max(0, left - halo), right + halo)
            window = function(*(array[..., rows, columns] for array in arrays))
            inner = np.s_[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start]
            result[top:bottom, left:right] = window[inner]
    return result


def _cuts(data, size):
    return sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=4))})


def element(shape, radius):
    return morphology.disk(radius) if shape == "disk" else np.ones((2 * radius + 1,) * 2, np.uint8)


def no_smaller(size):
    """The argument of scikit-image's removal: up to 0.25 what is strictly smaller goes, from 0.26 on what is equal."""
    if "max_size" in inspect.signature(morphology.remove_small_objects).parameters:
        return {"max_size": size - 1}, {"max_size": size - 1}
    return {"min_size": size}, {"area_threshold": size}


# deciding


@given(st.integers(2, 4), shapes(20), st.integers(0, 999), st.data())
def test_a_threshold_decides_as_a_run_does(classes, shape, seed, data):
    random = np.random.default_rng(seed)
    probability = random.dirichlet(np.ones(classes), shape).transpose(2, 0, 1).astype(np.float32)
    seen = np.where(random.random(shape) < 0.1, NODATA, 0).astype(np.uint8)
    threshold = data.draw(st.integers(0, 100)) / 100
    found = apply_threshold(seen, probability, rules_of(classes, threshold=threshold))
    assert (found == np.where(seen == NODATA, NODATA, classify(probability, one_threshold(threshold, classes)))).all()


@given(st.integers(2, 4), shapes(20), st.integers(0, 999), st.integers(0, 250), st.data())
def test_kept_and_decoded_probabilities_decide_alike(classes, shape, seed, step, data):
    random = np.random.default_rng(seed)
    probability = random.integers(0, 251, (classes, *shape)).astype(np.uint8)
    decoded = probability / np.float32(250)
    seen = np.zeros(shape, np.uint8)
    wish = data.draw(st.sampled_from(["threshold", "minimum"]))
    rules = rules_of(classes, **{wish: step / 250})
    assert (apply_threshold(seen, probability, rules) == apply_threshold(seen, decoded, rules)).all()
    if classes == 2:  # the second says all
        probability[0] = 250 - probability[1]
        alone = rules_of(2, kept=(1,), **{wish: step / 250})
        assert (apply_threshold(seen, probability[1:], alone) == apply_threshold(seen, probability, rules)).all()


@given(st.integers(2, 4), shapes(20), st.integers(0, 999), st.integers(0, 100))
def test_a_minimum_leaves_the_unlikely_to_the_background(classes, shape, seed, percent):
    probability = np.random.default_rng(seed).dirichlet(np.ones(classes), shape).transpose(2, 0, 1).astype(np.float32)
    likeliest = probability.argmax(axis=0)
    expected = np.where(probability.max(axis=0) < np.float32(percent / 100), 0, likeliest)
    found = apply_threshold(np.zeros(shape, np.uint8), probability, rules_of(classes, minimum=percent / 100))
    assert (found == expected).all()


def test_each_class_may_have_its_threshold():
    probability = np.array([[[0.2, 0.2, 0.1]], [[0.5, 0.3, 0.3]], [[0.3, 0.5, 0.6]]], np.float32)
    rules = rules_of(3, threshold={"building": 0.4, "road": 0.5})
    assert apply_threshold(np.zeros((1, 3), np.uint8), probability, rules).tolist() == [[1, 0, 2]]


def test_the_layers_may_be_in_any_order_and_of_any_type():
    probability = np.random.default_rng(0).dirichlet(np.ones(3), (9, 9)).transpose(2, 0, 1).astype(np.float16)
    seen = np.zeros((9, 9), np.uint8)
    one = apply_threshold(seen, probability, rules_of(3, threshold=0.4))
    assert (apply_threshold(seen, probability[[2, 0, 1]], rules_of(3, kept=(2, 0, 1), threshold=0.4)) == one).all()
    assert (apply_threshold(seen, probability.astype(np.float64), rules_of(3, threshold=0.4)) == one).all()


def test_a_probability_that_is_missing_is_background():
    nothing = np.full((2, 1, 1), np.nan, np.float32)
    for keywords in ({"threshold": 0.0}, {"minimum": 0.0}):
        assert apply_threshold(np.zeros((1, 1), np.uint8), nothing, rules_of(2, **keywords)) == 0


def test_without_a_decision_the_map_stays_as_it_is():
    class_map = np.array([[0, 1, NODATA]], np.uint8)
    assert apply_threshold(class_map, None, rules_of(2, kept=())) is class_map


@given(masks(most=40), st.integers(0, 999), connectivities, st.tuples(st.integers(0, 250), st.integers(0, 250)))
def test_hysteresis_is_scikit_images(mask, seed, connectivity, steps):
    low, high = sorted(step / 250 for step in steps)
    smooth_noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(mask.shape), 1)
    image = np.round(250 * np.where(mask, smooth_noise, smooth_noise**3)).astype(np.uint8)
    rules = rules_of(2, kept=(1,), threshold=high, hysteresis=low, connectivity=connectivity)
    seen = np.zeros(mask.shape, np.uint8)
    candidates = apply_threshold(seen, image[None], rules)
    found = join_hysteresis(candidates, above_high(seen, image[None], rules), rules)
    value = image / np.float32(250)
    if connectivity == 4:  # the only one that it has
        expected = filters.apply_hysteresis_threshold(value, np.float32(low), np.float32(high))
    else:
        labels, _ = ndimage.label(value > np.float32(low), np.ones((3, 3)))
        expected = np.isin(labels, np.unique(labels[value > np.float32(high)])) & (labels > 0)
    assert (found == expected).all()


@given(shapes(30), st.integers(0, 999), st.floats(0.2, 0.6), st.floats(0.6, 0.9))
def test_hysteresis_of_many_classes_is_that_of_each_where_it_is_the_likeliest(shape, seed, low, high):
    random = np.random.default_rng(seed)
    raw = np.stack([ndimage.gaussian_filter(random.standard_normal(shape), 1) * 6 for _ in range(4)])
    probability = (np.exp(raw) / np.exp(raw).sum(axis=0)).astype(np.float32)
    rules = rules_of(4, threshold=high, hysteresis=low)
    seen = np.zeros(shape, np.uint8)
    found = join_hysteresis(apply_threshold(seen, probability, rules), above_high(seen, probability, rules), rules)
    likeliest = classify(probability, one_threshold(0.0, 4))
    for value in (1, 2, 3):
        alone = np.where(likeliest == value, probability[value], np.float32(-1))
        expected = filters.apply_hysteresis_threshold(alone, np.float32(low), np.float32(high))
        assert ((found == value) == expected).all()


# smoothing


@given(masks(), st.sampled_from(["erosion", "dilation", "opening", "closing"]), radii, elements, st.data())
def test_morphology_is_scikit_images(mask, operation, radius, shape, data):
    rules = rules_of(**{operation: radius}, element=shape)
    found = by_windows(data, lambda window: local(window, None, rules), local_halo(rules), mask.astype(np.uint8))
    transform = getattr(morphology, operation)
    assert (found == transform(mask, element(shape, radius), mode="ignore")).all()
    assert (found == transform(mask, element(shape, radius))).all()  # reflected: the same, elements being convex


@given(masks(most=30), st.sampled_from(["erosion", "dilation", "opening", "closing"]), radii, elements)
def test_nodata_counts_as_what_lies_outside(mask, operation, radius, shape):
    """A scene in a frame of nodata gives the same as the scene alone."""
    rules = rules_of(**{operation: radius}, element=shape)
    framed = np.pad(mask.astype(np.uint8), 5, constant_values=NODATA)
    found = smooth(framed, rules)
    assert (found[5:-5, 5:-5] == smooth(mask.astype(np.uint8), rules)).all()
    assert ((found == NODATA) == (framed == NODATA)).all()


@given(class_maps(4), radii, elements, st.sets(st.sampled_from(NAMES[1:]), min_size=1))
def test_classes_are_done_one_after_the_other_and_take_only_background(class_map, radius, shape, chosen):
    for operation in ("erosion", "dilation", "opening", "closing"):
        rules = rules_of(4, **{operation: radius}, element=shape, classes=sorted(chosen))
        expected = class_map.copy()
        for value in sorted(NAMES.index(name) for name in chosen):
            before = expected == value
            after = morphed(before, expected == NODATA, operation, element(shape, radius))
            expected[before & ~after] = 0
            expected[~before & after & (expected == 0)] = value
        assert (smooth(class_map, rules) == expected).all()


def morphed(mask, nodata, operation, around):
    """The definition: shrinking sees nodata as inside, growing as outside."""
    names = {"opening": ("erosion", "dilation"), "closing": ("dilation", "erosion")}.get(operation, (operation,))
    for name in names:
        seen = mask | nodata if name == "erosion" else mask
        mask = getattr(morphology, name)(seen, around, mode="ignore") & ~nodata
    return mask


@given(class_maps(4), st.sampled_from([1, 3, 5, 9, 15]), st.data())
def test_majority_is_scikit_images(class_map, side, data):
    rules = rules_of(4, majority=side)
    found = by_windows(data, lambda window: local(window, None, rules), local_halo(rules), class_map)
    valid = class_map != NODATA
    expected = filters.rank.majority(class_map, np.ones((side, side), np.uint8), mask=valid.astype(np.uint8))
    assert (found == np.where(valid, expected, NODATA)).all()


# removing


@given(masks(), small_sizes, small_sizes, connectivities, st.data())
def test_removal_is_scikit_images(mask, objects, holes, connectivity, data):
    rules = rules_of(min_object=objects, min_hole=holes, connectivity=connectivity)
    halo = removal_halo(rules)
    found = by_windows(data, lambda window: remove_by_halo(window, rules), halo, mask.astype(np.uint8))
    expected = removed_as_scikit_image(mask, objects, holes, connectivity)
    assume(expected is not None)
    assert (found == expected).all()


def removed_as_scikit_image(mask, objects, holes, connectivity):
    """None where nothing is left around holes: there the whole scene would count as one."""
    of_objects, _ = no_smaller(objects)
    _, of_holes = no_smaller(holes)
    kept = morphology.remove_small_objects(mask, connectivity=connectivity // 4, **of_objects) if objects else mask
    if not kept.any():
        return None
    return morphology.remove_small_holes(kept, connectivity=connectivity // 4, **of_holes) if holes else kept


@given(class_maps(4), small_sizes, small_sizes, connectivities, st.booleans(), st.data())
def test_removal_by_class_is_the_plain_definition(class_map, objects, holes, connectivity, surrounding, data):
    chosen = data.draw(st.sets(st.sampled_from(NAMES[1:]), min_size=1))
    rules = rules_of(
        4, min_object=objects, min_hole=holes, connectivity=connectivity, classes=sorted(chosen),
        removed="surrounding" if surrounding else "background",
    )  # fmt: skip
    found = by_windows(data, lambda window: remove_by_halo(window, rules), removal_halo(rules), class_map)
    expected = plainly_replaced(class_map, rules.values, objects, rules, lambda around: around if surrounding else 0)
    expected = plainly_replaced(expected, (0,), holes, rules, lambda around: around if around in rules.values else 0)
    assert (found == expected).all()


def plainly_replaced(class_map, values, size, rules, becomes):
    """One component after the other, each pixel's four neighbours in turn."""
    result = class_map.copy()
    for value in values:
        structure = ndimage.generate_binary_structure(2, NEIGHBOURS[rules.connectivity])
        labels, count = ndimage.label(class_map == value, structure)
        for number in range(1, count + 1):
            places = np.argwhere(labels == number)
            if len(places) < size:
                result[labels == number] = becomes(plain_surrounding(class_map, places))
    return result


def plain_surrounding(class_map, places):
    votes = np.zeros(256, int)
    own = class_map[tuple(places[0])]
    for row, column in places:
        for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= y < class_map.shape[0] and 0 <= x < class_map.shape[1] and class_map[y, x] not in (own, NODATA):
                votes[class_map[y, x]] += 1
    return int(votes.argmax())


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("mask", [spiral(41), spiral(40, 2), comb(30), chessboard(30), chessboard(30, 3), blobs(64)])
def test_snakes_of_the_very_size_are_told_apart(mask, connectivity):
    """A line of n pixels bent to stay near, and one that runs straight out of the window."""
    labels, _ = ndimage.label(mask, ndimage.generate_binary_structure(2, connectivity // 4))
    for size in {1, 2, *np.bincount(labels.ravel())[1:][:3].tolist()}:
        for wanted in (size, size + 1):
            rules = rules_of(min_object=wanted, connectivity=connectivity)
            expected = mask & (np.bincount(labels.ravel())[labels] >= wanted)
            assert (remove_by_halo(mask.astype(np.uint8), rules) == expected).all()


@pytest.mark.parametrize("length", [1, 2, 5, 17])
def test_the_halo_is_as_narrow_as_can_be(length):
    """A straight line of just the size, seen from the pixel at its end."""
    line = np.zeros((1, 40), np.uint8)
    line[0, :length] = 1
    for size, stays in ((length, True), (length + 1, False)):
        halo = removal_halo(rules_of(min_object=size))
        assert halo == size - 1
        assert remove_by_halo(line[:, : 1 + halo], rules_of(min_object=size))[0, 0] == stays


def test_what_a_small_object_becomes():
    class_map = np.array(
        [
            [0, 0, 2, 2, 2],
            [0, 1, 2, 3, 2],
            [0, 0, 2, 2, 2],
        ],
        np.uint8,
    )
    removed = remove_by_halo(class_map, rules_of(4, min_object=2, removed="surrounding"))
    assert removed[1].tolist() == [0, 0, 2, 2, 2]
    assert remove_by_halo(class_map, rules_of(4, min_object=2))[1].tolist() == [0, 0, 2, 0, 2]
    only = rules_of(4, min_object=2, classes=["water"], removed="surrounding")
    assert remove_by_halo(class_map, only)[1].tolist() == [0, 1, 2, 2, 2]


def test_of_equal_borders_the_lowest_class_wins():
    class_map = np.array([[2, 3, 1]], np.uint8)
    assert remove_by_halo(class_map, rules_of(4, min_object=2, classes=["water"], removed="surrounding")).tolist() == [
        [2, 1, 1]
    ]
    assert remove_by_halo(np.array([[2, 0, 1]], np.uint8), rules_of(4, min_hole=2)).tolist() == [[2, 1, 1]]


def test_a_hole_is_filled_only_by_a_chosen_class():
    hole = np.full((3, 3), 2, np.uint8)
    hole[1, 1] = 0
    assert remove_by_halo(hole, rules_of(3, min_hole=5))[1, 1] == 2
    assert remove_by_halo(hole, rules_of(3, min_hole=5, classes=["building"]))[1, 1] == 0


def test_without_neighbours_objects_vanish_and_holes_stay():
    island = np.full((3, 3), NODATA, np.uint8)
    for value, keywords in ((0, {"min_hole": 5}), (1, {"min_object": 5, "removed": "surrounding"})):
        island[1, 1] = value
        assert (remove_by_halo(island, rules_of(**keywords)) == np.where(island == NODATA, NODATA, 0)).all()


def test_square_metres_ask_for_areas():
    rules = rules_of(min_object="10 m2", min_hole="10 m2")
    value, pixels, area = np.array([1, 1], np.uint8), np.array([500, 5]), np.array([9.9, 10.0])
    objects = Totals(value, pixels, area, np.array([0, 9]), np.zeros(2, bool), np.zeros((2, 0), np.int64))
    assert replacement_class(objects, rules, "objects").tolist() == [0, 1]
    holes = replace(objects, value=0 * value, borders=np.array([[0, 3], [0, 3]]))
    assert replacement_class(holes, rules, "holes").tolist() == [1, 0]
    assert (replacement_class(objects, rules_of(), "objects") == value).all()


def test_a_replacement_changes_only_its_component():
    class_map, labels = np.array([[0, 1, 2, NODATA]], np.uint8), np.array([[0, 1, 2, 0]])
    assert replace_components(class_map, labels, np.array([0, 2], np.uint8)).tolist() == [[0, 0, 2, NODATA]]


@given(class_maps(3, most=40), st.data())
def test_all_together_by_windows_is_the_whole(class_map, data):
    keywords = {
        name: data.draw(st.none() | st.integers(0, 3)) for name in ("erosion", "dilation", "opening", "closing")
    }
    sizes = {name: data.draw(st.none() | st.integers(0, 6)) for name in ("min_object", "min_hole")}
    rules = rules_of(
        3, **keywords, **sizes, majority=data.draw(st.sampled_from([None, 3, 5])), element=data.draw(elements),
        connectivity=data.draw(connectivities), removed=data.draw(st.sampled_from(["background", "surrounding"])),
    )  # fmt: skip

    def clean(window):
        return remove_by_halo(local(window, None, rules), rules)

    found = by_windows(data, clean, local_halo(rules) + removal_halo(rules), class_map)
    assert (found == clean(class_map)).all()
    assert ((found == NODATA) == (class_map == NODATA)).all()


@pytest.mark.parametrize("block", [64, 250, 600])
def test_a_larger_scene_by_blocks_is_the_whole(block):
    class_map = blobs((600, 431), 1, width=3).astype(np.uint8)
    class_map[blobs((600, 431), 2, width=5, share=0.3)] = 2
    class_map[blobs((600, 431), 3, width=30, share=0.1)] = NODATA
    rules = rules_of(3, majority=5, opening=2, closing=5, min_object=60, min_hole=40, removed="surrounding")
    halo = local_halo(rules) + removal_halo(rules)
    found = np.empty_like(class_map)
    for top in range(0, 600, block):
        for left in range(0, 431, block):
            above, before = min(top, halo), min(left, halo)
            window = class_map[top - above : top + block + halo, left - before : left + block + halo]
            core = remove_by_halo(local(window, None, rules), rules)[above : above + block, before : before + block]
            found[top : top + block, left : left + block] = core
    assert (found == remove_by_halo(local(class_map, None, rules), rules)).all()
    assert (found != class_map).any()


def test_nothing_is_changed_in_place():
    class_map = blobs(40).astype(np.uint8)
    before = class_map.copy()
    class_map.setflags(write=False)
    rules = rules_of(majority=3, erosion=1, dilation=4, opening=1, closing=2, min_object=9, min_hole=9)
    remove_by_halo(smooth(class_map, rules), rules)
    assert (class_map == before).all()


# halos


@pytest.mark.parametrize(
    ("keywords", "halo"),
    [
        ({}, 0),
        ({"majority": 1}, 0),
        ({"majority": 7}, 3),
        ({"erosion": 2, "dilation": 3}, 5),
        ({"opening": 2, "closing": 3, "majority": 5}, 12),
    ],
)
def test_the_halo_of_smoothing_adds_up(keywords, halo):
    assert local_halo(rules_of(**keywords)) == halo


@pytest.mark.parametrize(
    ("keywords", "halo"),
    [
        ({}, 0),
        ({"min_object": 1}, 0),
        ({"min_object": 20}, 19),
        ({"min_object": 2.5}, 2),
        ({"min_object": 20, "min_hole": 30}, 48),
        ({"min_object": WIDEST_HALO + 1}, WIDEST_HALO),
        ({"min_object": WIDEST_HALO + 2}, None),
        ({"min_hole": "3 m2"}, None),
        ({"min_hole": 3, "threshold": 0.7, "hysteresis": 0.5}, None),
    ],
)
def test_the_halo_of_removal(keywords, halo):
    assert removal_halo(rules_of(**keywords)) == halo


# sizes


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        (200, Size(200)),
        ("200", Size(200)),
        (" 200 px ", Size(200)),
        (0, Size(0)),
        (2.5, Size(2.5)),
        (np.int64(7), Size(7)),
        ("20 m2", Size(20, "m2")),
        ("20m²", Size(20, "m2")),
        (".5 HA", Size(5000, "m2")),
        ("1e-3 km2", Size(1000, "m2")),
        ("2 km²", Size(2e6, "m2")),
        (Size(3, "m2"), Size(3, "m2")),
    ],
)
def test_sizes_are_read(wish, size):
    assert parse_size(wish) == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ("", "a number with a unit; received ''"),
        ("m2", "a number with a unit; received 'm2'"),
        (True, "a number with a unit; received True"),
        (None, "a number with a unit; received None"),
        ("20 m", "no unit 'm'"),
        ("20 acres", "no unit 'acres'"),
        ("20 m2 m2", "no unit 'm2 m2'"),
        ("1,5 m2", "no unit ',5 m2'"),
        (-1, "must not be negative"),
        ("-3 ha", "must not be negative"),
        (float("nan"), "must be finite; received nan"),
        ("inf px", "must be finite"),
        ("1e999", "must be finite"),
    ],
)
def test_wrong_sizes_are_refused(wish, reason):
    with pytest.raises(PlanError, match=f"{re.escape(reason)}.*Give pixels as 200 or '200 px', or an area as '20 m2'"):
        parse_size(wish)


# settings


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"threshold": 1.01}, "threshold is a probability from 0 to 1; received 1.01"),
        ({"threshold": {"road": -0.1}}, "threshold is a probability from 0 to 1; received -0.1"),
        ({"threshold": "0.7"}, "received '0.7'"),
        ({"threshold": True}, "received True"),
        ({"minimum": float("nan")}, "minimum is a probability from 0 to 1; received nan"),
        ({"minimum": {"road": 0.5}}, "minimum is one probability for all classes"),
        ({"minimum": 0.5, "threshold": 0.5}, "two ways to decide"),
        ({"hysteresis": 2, "threshold": 0.5}, "hysteresis is a probability from 0 to 1; received 2"),
        ({"hysteresis": 0.5}, "give threshold, the higher one, too"),
        ({"majority": 4}, "it is odd; received 4"),
        ({"majority": 515}, "whole number of pixels from 0 to 513; received 515"),
        ({"erosion": -1}, "erosion is a whole number of pixels from 0 to 256; received -1"),
        ({"closing": 257}, "closing is a whole number of pixels from 0 to 256; received 257"),
        ({"opening": 1.5}, "opening is a whole number of pixels from 0 to 256; received 1.5"),
        ({"dilation": True}, "received True"),
        ({"element": "star"}, "element is disk or square; received 'star'"),
        ({"removed": "road"}, "removed is background or surrounding; received 'road'"),
        ({"connectivity": 6}, "connectivity is 4 .* or 8 .*; received 6"),
        ({"classes": []}, "classes is empty"),
        ({"min_object": "20 m"}, "min_object: a size has no unit 'm'"),
        ({"min_hole": ""}, "min_hole: a size is a number"),
    ],
)
def test_wrong_wishes_are_refused(keywords, reason):
    with pytest.raises(PlanError, match=reason):
        CleanOptions(**keywords)


@pytest.mark.parametrize(
    ("keywords", "kept", "reason"),
    [
        ({"classes": ["roof"]}, None, "the store has no class 'roof'; it has: ground, building, road"),
        ({"classes": ["ground"]}, None, "'ground' is the background"),
        ({"threshold": {"roof": 0.5}}, (0, 1, 2), "no class 'roof'"),
        ({"threshold": {"ground": 0.5}}, (0, 1, 2), "'ground' is the background"),
        ({"threshold": {"road": 0.5}}, (0, 1, 2), r"^threshold: .*\(building, road\); received road"),
        ({"threshold": {"road": 0.5}, "classes": ["building"]}, (0, 1, 2), r"\(building\); received road"),
        ({"threshold": 0.5, "hysteresis": 0.6}, (1, 2), "0.6 is above threshold, 0.5, for 'building'"),
        ({"threshold": 0.5}, None, "no probabilities.*--probability uint8"),
        ({"minimum": 0.5}, (), "no probabilities.*--probability uint8"),
        ({"threshold": 0.5}, (1,), "lacks the probabilities of: road.*--probability-of all"),
        ({"minimum": 0.5}, (1, 2), "lacks the probabilities of: ground"),
        ({"min_object": "3 m2"}, None, "no CRS, so sizes in m² are unknown; give min_object and min_hole in pixels"),
    ],
)
def test_wishes_that_do_not_fit_a_store_are_refused(keywords, kept, reason):
    with pytest.raises(PlanError, match=reason):
        CleanOptions(**keywords).resolve(NAMES[:3], kept, background=0, has_areas=False)


def test_rules_are_settings_by_value():
    settings = CleanOptions(
        threshold={"road": 0.6}, hysteresis=0.5, opening=2, erosion=1, closing=0, classes="road",
        min_object="1 ha", min_hole=0, connectivity=8, removed="surrounding",
    )  # fmt: skip
    rules = settings.resolve(NAMES[:3], (1, 2), background=0, has_areas=True)
    assert (rules.thresholds, rules.low) == ((None, None, 0.6), (None, None, 0.5))
    both = CleanOptions(threshold={"road": 0.6, "building": 0.7}).resolve(
        NAMES[:3], (1, 2), background=0, has_areas=True
    )
    assert both.thresholds == (None, 0.7, 0.6)
    assert rules.radii == (("erosion", 1), ("opening", 2))
    assert (rules.values, rules.object_size, rules.hole_size) == ((2,), Size(10000, "m2"), None)
    assert (rules.connectivity, rules.removed, rules.hysteresis) == (8, "surrounding", 0.5)
    assert rules.as_json() == settings.as_json()
    assert pickle.loads(pickle.dumps(rules)) == rules
    assert settings.needs_areas
    assert settings.needs_probability


def test_facts_leave_out_what_is_as_by_default():
    assert CleanOptions().as_json() == {}
    assert not CleanOptions(min_object=5).needs_areas
    assert not CleanOptions(min_object=5).needs_probability
    for settings in (CleanOptions(min_object="5 px", classes=("road",)), CleanOptions(min_object=5, classes="road")):
        assert settings.as_json() == {"min_object": "5 px", "classes": ["road"]}
    keywords = {"threshold": {"road": 0.6}, "hysteresis": 0.5, "majority": 3, "min_hole": "20 m²", "connectivity": 8}
    assert CleanOptions(**keywords).as_json() == keywords
    odd = CleanOptions(threshold=np.float32(0.5), erosion=np.int64(2), opening=0, majority=0, min_hole=np.float64(3))
    assert json.dumps(odd.as_json()) == '{"threshold": 0.5, "erosion": 2, "min_hole": "3 px"}'


def test_thresholds_are_read_as_the_shell_gives_them():
    assert parse_thresholds(()) is None
    assert parse_thresholds(("0.7",)) == 0.7
    assert parse_thresholds(("a=b=0.7", "road=1")) == {"a=b": 0.7, "road": 1.0}
    for texts in (("0.7", "0.8"), ("0.7", "road=0.8"), ("road=0.7", "road=0.8"), ("=0.7",)):
        with pytest.raises(PlanError, match="give one threshold for all, or NAME=NUMBER once per class"):
            parse_thresholds(texts)
    for texts in (("high",), ("road=",)):
        with pytest.raises(PlanError, match=r"a threshold is a number from 0 to 1; received '(high)?'"):
            parse_thresholds(texts)


# the helpers of tests themselves


@pytest.mark.parametrize("shape", [1, 2, 9, (3, 20), (17, 4), 40])
def test_combs_and_spirals_are_one_component(shape):
    for gap in (1, 2, 3):
        assert measure.label(spiral(shape, gap), connectivity=1).max() == 1
        assert measure.label(comb(shape, gap), connectivity=1).max() == 1
    assert measure.label(chessboard(shape), connectivity=1).max() == chessboard(shape).sum()
