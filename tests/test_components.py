"""Components labelled by blocks and joined on the tree, against skimage on the whole array."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import label as whole_label

from pipeline.grid.geobox import Window
from pipeline.objects.label import Totals, foreground, summarize_block
from pipeline.objects.merge_labels import merge_regions, region_bytes, region_from
from pipeline.objects.tree import Tree, merge_labels_in_memory

CLASSES = 3


def blocks_of(shape, side):
    return [
        [Window(t, min(t + side, shape[0]), x, min(x + side, shape[1])) for x in range(0, shape[1], side)]
        for t in range(0, shape[0], side)
    ]


def settled(values, side, connectivity, above_high, background=0):
    """Give every pixel the totals of its component: an id, pixels, and so on."""
    found = []
    for line in blocks_of(values.shape, side):
        found.append([])
        for window in line:
            cut = values[window.slices]
            block = summarize_block(cut, window, values.shape, connectivity, foreground(cut, background),
                                    classes=CLASSES, areas=np.full((1, 1), 2.0),
                                    above_high=above_high[window.slices])  # fmt: skip
            if window.top == window.left:  # as files keep it; of all blocks, that would take most of the time
                block = replace(block, region=region_from(region_bytes(block.region)))
            found[-1].append(block)
    merged = merge_labels_in_memory([[block.region for block in line] for line in found], connectivity)
    return [
        [(block.labels, block.whole(totals)) for block, totals in zip(a, b, strict=True)]
        for a, b in zip(found, merged, strict=True)
    ]


def painted(settled_blocks, name):
    def paint(labels, totals: Totals):
        values = getattr(totals, name)
        return np.concatenate([np.zeros((1, *values.shape[1:]), values.dtype), values])[labels]

    return np.block([[paint(*block) for block in line] for line in settled_blocks])


def whole(values, connectivity, above_high, background):
    kinds = np.where((values == 255) | (values == background), -1, values.astype(int))
    labels, count = whole_label(kinds, background=-1, connectivity=1 if connectivity == 4 else 2, return_num=True)
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    pixels[0] = 0
    first, marked = np.zeros(count + 1, int), np.zeros(count + 1, bool)
    found, places = np.unique(labels, return_index=True)
    first[found[found > 0]] = places[found > 0]
    marked[np.setdiff1d(labels[above_high], 0)] = True
    return pixels[labels], first[labels], marked[labels], labels, count


@given(st.data())
def test_totals_are_those_of_whole_components(data):
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    seed, share = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.sampled_from([0.1, 0.4, 0.6, 0.9, 1.0]))
    random = np.random.default_rng(seed)
    kinds = data.draw(st.sampled_from([(1,), (1, 2), (1, 2, 255)]))
    background = data.draw(st.sampled_from([0, 2, None]))
    values = np.where(random.random(shape) < share, random.choice(kinds, shape), 0).astype(np.uint8)
    above_high = random.random(shape) < 0.05
    side, connectivity = data.draw(st.integers(1, 17)), data.draw(st.sampled_from([4, 8]))
    blocks = settled(values, side, connectivity, above_high, background)
    pixels, first, marked, labels, count = whole(values, connectivity, above_high, background)
    np.testing.assert_array_equal(painted(blocks, "pixels"), pixels)
    np.testing.assert_array_equal(painted(blocks, "first"), first)
    np.testing.assert_array_equal(painted(blocks, "above_high"), marked)
    np.testing.assert_array_equal(painted(blocks, "area"), pixels * 2.0)
    np.testing.assert_array_equal(painted(blocks, "value"), np.where(labels > 0, values, 0))
    borders = np.stack([_border(blocks, n) for n in range(CLASSES)])
    np.testing.assert_array_equal(borders, _whole_borders(values, labels, count))


def _border(blocks, n):
    lines = [[np.append(0, totals.borders[:, n])[labels] for labels, totals in line] for line in blocks]
    return np.block(lines)


def _whole_borders(values, labels, count):
    counts = np.zeros((CLASSES, count + 1), int)
    padded, around = np.pad(labels, 1), np.pad(values, 1, constant_values=255)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        beside = np.roll(around, (down, right), (0, 1))
        met = (padded > 0) & (beside != around) & (beside < CLASSES)
        np.add.at(counts, (beside[met], padded[met]), 1)
    return counts[:, labels]


def test_a_tree_has_one_root_and_all_blocks():
    for rows, columns in ((1, 1), (1, 5), (16, 17), (70, 3)):
        tree = Tree(rows, columns)
        assert len(list(tree.places(tree.top))) == 1
        for level in range(1, tree.top + 1):
            below = [child for place in tree.places(level) for line in tree.children(place) for child in line]
            assert sorted(below) == list(tree.places(level - 1))


def test_what_is_held_grows_with_the_outline_only():
    """A chessboard has as many components as half its pixels; a rectangle tells of those on its sides."""
    side = 256
    values = (np.indices((2 * side, 2 * side)).sum(axis=0) % 2).astype(np.uint8)
    told = []
    for line in blocks_of(values.shape, side):
        told.append([])
        for window in line:
            cut = values[window.slices]
            block = summarize_block(cut, window, (4 * side, 4 * side), 4, foreground(cut, 0), classes=2)
            assert len(block.totals) == side * side // 2
            told[-1].append(block.region)
    assert max(len(part.totals) for line in told for part in line) < 2.1 * side
    region, _ = merge_regions(told, 4)
    assert len(region.totals) < 2.1 * 2 * side
