"""Splits by blocks and by scenes: no pixel in two parts, none lost, the same each time, and what is refused."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from helpers import GRID, UTM
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import CRS
from scipy.ndimage import maximum_filter

from models.errors import TrainingError
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.array import ArraySource
from train.config import Split
from train.config.schema import PARTS
from train.data.overlap import adjoining, overlapping
from train.data.samples import Sample
from train.data.splits import FoldGrid, disjoint_windows, group_of, maximal_windows, split_samples


class Blank:
    """Labels that are background everywhere."""

    def read(self, window):
        return np.zeros(window.shape, np.uint8)


def sample(name, height, width, transform=None, crs=None, areas=None):
    """A sample of no pixels: splits read none."""
    geobox = GeoBox(height, width, transform, CRS(crs).to_wkt() if crs else None)
    array = xr.DataArray(np.zeros((1, 1, 1), np.uint8), dims=("band", "y", "x"))
    source = ArraySource(array, geobox, ("grey",), (None,), (None,))
    return Sample(name, source, Blank(), areas or (Window(0, height, 0, width),))


def covered(areas, shape):
    """How many areas lie over each pixel."""
    counts = np.zeros(shape, int)
    for area in areas:
        assert 0 <= area.top < area.bottom <= shape[0]
        assert 0 <= area.left < area.right <= shape[1]
        counts[area.slices] += 1
    return counts


def parts_of(samples, split, chip=8, seed=0):
    """For each sample's name, the areas it has in each part."""
    drawn = split_samples(samples, split, chip, seed)
    assert tuple(drawn) == PARTS
    return {s.name: {p: next((m.areas for m in drawn[p] if m.name == s.name), ()) for p in PARTS} for s in samples}


def blocks_of(mask, grid, gap):
    """The pixels of some blocks that are at least `gap` away, in rows and columns, from every other block."""
    pixels = np.zeros((grid.rows[-1], grid.columns[-1]), bool)
    for row, column in zip(*np.nonzero(mask), strict=True):
        pixels[grid.rows[row] : grid.rows[row + 1], grid.columns[column] : grid.columns[column + 1]] = True
    return pixels & ~maximum_filter(~pixels, 2 * gap + 1, mode="nearest")


@st.composite
def scenes(draw):
    shapes = draw(st.lists(st.tuples(st.integers(16, 90), st.integers(16, 90)), min_size=1, max_size=4))
    return [sample(f"s{n}", *shape) for n, shape in enumerate(shapes)]


@given(scenes(), st.sampled_from([8, 16, 21]), st.integers(0, 3), st.integers(0, 5))
def test_no_pixel_is_in_two_parts_and_chips_find_room(made, side, gap, seed):
    split = Split(side=side, validate=0.3, test=0.2, gap=gap)
    try:
        drawn = parts_of(made, split, side - 2 * gap, seed)
    except TrainingError:  # too few blocks for three parts
        assume(False)
    for one in made:
        shape = one.geobox.shape
        counts = {part: covered(areas, shape) for part, areas in drawn[one.name].items()}
        for first, second in combinations(PARTS, 2):
            near = maximum_filter(counts[first] > 0, 4 * gap + 1)  # a gap on either side of the border
            assert not (near & (counts[second] > 0)).any()
        assert max(counts["validate"].max(), counts["test"].max()) <= 1  # or pixels would be scored twice
        if gap == 0:
            assert (sum(counts.values()) > 0).all()
        for areas in drawn[one.name].values():
            assert all(min(a.shape) >= min(side - 2 * gap, *shape) for a in areas)


@settings(max_examples=30)
@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_rectangles_lose_no_place_of_a_chip(data, rows, columns, gap):
    """Wherever a square lies in the allowed pixels, one of the largest rectangles holds it; none lies in another."""
    grid = FoldGrid.of((rows * 8 + 3, columns * 8 + 5), 8)
    some = data.draw(st.lists(st.booleans(), min_size=len(grid.places), max_size=len(grid.places)))
    blocks = {place for place, taken in zip(grid.places, some, strict=True) if taken}
    allowed = blocks_of(grid.mask(blocks), grid, gap)
    found = maximal_windows(grid, blocks, gap)
    assert ((covered(found, allowed.shape) > 0) == allowed).all()
    assert len(set(found)) == len(found)
    for one, other in combinations(found, 2):
        assert not holds(one, other)
        assert not holds(other, one)
    for side in (1, 5, 9, 17):
        for top, left in np.ndindex(max(0, allowed.shape[0] - side + 1), max(0, allowed.shape[1] - side + 1)):
            chip = Window(top, top + side, left, left + side)
            assert allowed[chip.slices].all() == any(holds(area, chip) for area in found)


@given(st.data(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 3))
def test_disjoint_rectangles_keep_the_middles(data, rows, columns, gap):
    grid = FoldGrid.of((rows * 8 + 3, columns * 8 + 5), 8)
    some = data.draw(st.lists(st.booleans(), min_size=len(grid.places), max_size=len(grid.places)))
    blocks = {place for place, taken in zip(grid.places, some, strict=True) if taken}
    allowed = blocks_of(grid.mask(blocks), grid, gap)
    counts = covered(disjoint_windows(grid, blocks, gap), allowed.shape)
    assert counts.max() <= 1
    assert not (counts[~allowed]).any()
    if gap == 0:
        assert (counts == allowed).all()
    middles = np.zeros(allowed.shape, bool)
    for row, column in blocks:
        ends = grid.rows[row], grid.rows[row + 1], grid.columns[column], grid.columns[column + 1]
        middles[ends[0] + gap : ends[1] - gap, ends[2] + gap : ends[3] - gap] = True
    assert counts[middles].all()


def holds(area, chip):
    rows = area.top <= chip.top and chip.bottom <= area.bottom
    return rows and area.left <= chip.left and chip.right <= area.right


def test_blocks_of_one_part_are_merged():
    """A whole scene of one part is one area, in which a chip may lie anywhere."""
    one = sample("s", 100, 130)
    assert parts_of([one], Split(side=16, validate=0.0))["s"]["train"] == (Window(0, 100, 0, 130),)
    assert disjoint_windows(FoldGrid.of((100, 130), 16), set(FoldGrid.of((100, 130), 16).places), 0) == [
        Window(0, 100, 0, 130)
    ]


@given(st.integers(0, 50), st.floats(0.05, 0.4), st.sampled_from([0, 0.1, 0.3]))
def test_parts_are_close_to_those_asked(seed, validate, test):
    made = [sample("a", 160, 160), sample("b", 320, 80), sample("c", 80, 240)]
    drawn = parts_of(made, Split(side=16, validate=validate, test=test), seed=seed)
    pixels = {p: sum((covered(drawn[s.name][p], s.geobox.shape) > 0).sum() for s in made) for p in PARTS}
    total, block = sum(pixels.values()), 16 * 16
    for part, share in zip(PARTS, (1 - validate - test, validate, test), strict=True):
        assert abs(pixels[part] - share * total) <= 2 * block


def test_every_scene_gives_to_every_part():
    made = [sample(f"s{n}", 160, 160) for n in range(6)]
    drawn = parts_of(made, Split(side=16, validate=0.2, test=0.1))
    assert all(areas for given_areas in drawn.values() for areas in given_areas.values())


def test_the_draw_depends_on_seed_and_names_alone():
    made = [sample(f"s{n}", 90, 90) for n in range(5)]
    split = Split(side=16, validate=0.3)
    first = parts_of(made, split, seed=1)
    assert parts_of(made[::-1], split, seed=1) == first
    assert parts_of(made, split, seed=2) != first
    renamed = [replace(one, name=f"t{one.name}") for one in made]
    assert list(parts_of(renamed, split, seed=1).values()) != list(first.values())


def test_the_draw_stays_what_it_was():
    """A later version must not move pixels from test into train."""
    drawn = parts_of([sample("scene", 64, 48)], Split(side=16, validate=0.25), seed=7)["scene"]
    assert drawn["validate"] == VALIDATED


VALIDATED = (Window(48, 64, 0, 16), Window(16, 48, 16, 32))


def test_areas_given_before_are_kept_to():
    one = sample("s", 64, 64, areas=(Window(10, 50, 0, 64),))
    drawn = parts_of([one], Split(side=16, validate=0.4))["s"]
    for areas in drawn.values():
        counts = covered(areas, (64, 64))
        assert not counts[:10].any()
        assert not counts[50:].any()


@pytest.mark.parametrize(("gap", "chip"), [(0, 17), (2, 13)])
def test_a_block_smaller_than_a_chip_is_refused(gap, chip):
    with pytest.raises(TrainingError, match=rf"side is 16 pixels.*chip of {chip}"):
        split_samples([sample("s", 64, 64)], Split(side=16, validate=0.3, gap=gap), chip, 0)
    split_samples([sample("s", 64, 64)], Split(side=16, validate=0.3, gap=gap), chip - 1, 0)


def test_a_part_that_comes_out_empty_is_refused():
    with pytest.raises(TrainingError, match=r"leaves validate empty: it was to be 0.2 of 1 blocks of 64 pixels"):
        split_samples([sample("s", 64, 64)], Split(side=64), 8, 0)
    with pytest.raises(TrainingError, match=r'leaves validate empty: .* 9 samples of 1 scene.*"blocks"'):
        split_samples([sample(f"r{n}_c0", 64, 64) for n in range(9)], Split(by="scenes"), 8, 0)


# by scenes


@pytest.mark.parametrize(
    ("name", "scene"),
    [
        ("patch_51_3_by_3_LC08_L1TP_011002_20160620_20170323_01_T1", "LC08_L1TP_011002_20160620_20170323_01_T1"),
        ("patch_7_1_by_7_LC08_L1TP_011002_20160620_20170323_01_T1", "LC08_L1TP_011002_20160620_20170323_01_T1"),
        ("Tile 1/image_part_001", "Tile 1/image"),
        ("Tile 2/image_part_001", "Tile 2/image"),
        ("r03_c05", ""),
        ("A_r03_c05", "A"),
        ("town-x512_y1024", "town"),
        ("oslo_tile_3_4", "oslo"),
        ("22678915_15", "22678915_15"),  # Massachusetts: tiles that overlap nowhere, and no scene is told
        ("austin12", "austin12"),
        ("scene_2020_05_12", "scene_2020_05_12"),
        ("textile_9", "textile_9"),
    ],
)
def test_names_tell_scenes(name, scene):
    assert group_of(name) == scene


def test_samples_of_one_scene_stay_together():
    made = [sample(f"{town}_tile_{n}", 40, 40) for town in ("oslo", "bonn", "rome", "bern", "kiev") for n in range(4)]
    drawn = split_samples(made, Split(by="scenes", validate=0.2, test=0.2), 8, 3)
    towns = {part: {s.name.split("_")[0] for s in given_samples} for part, given_samples in drawn.items()}
    assert sorted(town for some in towns.values() for town in some) == ["bern", "bonn", "kiev", "oslo", "rome"]
    assert [len(towns[part]) for part in PARTS] == [3, 1, 1]
    assert [s.name for s in drawn["train"]] == [s.name for s in made if s in drawn["train"]]  # in the order given


def east(columns, rows=0, scale=10.0):
    """The test grid, moved by pixels."""
    return GRID * Affine.translation(columns, rows) * Affine.scale(scale / 10)


def test_samples_that_touch_on_the_ground_stay_together():
    """A row of tiles that adjoin is one scene, whatever it is called; those apart are not."""
    row = [sample(f"a{n}", 40, 40, east(40 * n), UTM) for n in range(3)]
    apart = [sample(f"b{n}", 40, 40, east(1000 * n + 5000), UTM) for n in range(5)]
    for seed in range(8):
        drawn = split_samples([*row, *apart], Split(by="scenes", validate=0.3), 8, seed)
        assert len({part for part in drawn for s in drawn[part] if s.name.startswith("a")}) == 1


# the ground


def pairs(contacts):
    return {(c.first, c.second) for c in contacts}


def test_what_lies_over_and_beside_what():
    made = [
        sample("first", 40, 40, east(0), UTM),
        sample("beside", 40, 40, east(40), UTM),
        sample("corner", 40, 40, east(40, 40), UTM),
        sample("over", 40, 40, east(20, 10), UTM),
        sample("coarse", 10, 10, east(100, 0, 40.0), UTM),  # 100 to 140
        sample("nowhere", 40, 40),
    ]
    assert pairs(overlapping(made)) == {(0, 3), (1, 3), (2, 3)}
    assert pairs(adjoining(made)) == {(0, 1), (1, 2), (0, 3), (1, 3), (2, 3)}
    (share,) = [c.share for c in overlapping(made) if (c.first, c.second) == (0, 3)]
    assert share == pytest.approx(20 * 30 / 1600, abs=0.05)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32735", "EPSG:3031"])
def test_overlap_across_crs(crs):
    """A box around the same ground in another CRS overlaps; one a few scenes away does not."""
    from rasterio.warp import transform_bounds

    def boxed(name, columns):
        here = east(columns)
        left, top, right, bottom = *(here @ (0, 0)), *(here @ (400, 400))
        west, south, up, north = transform_bounds(UTM, crs, left, bottom, right, top)
        return sample(name, 100, 100, Affine((up - west) / 100, 0, west, 0, (south - north) / 100, north), crs)

    made = [sample("utm", 400, 400, east(0), UTM), boxed("same", 0), boxed("far", 5000)]
    assert pairs(overlapping(made)) == {(0, 1)}
    assert pairs(overlapping(made[::-1])) == {(1, 2)}


def test_overlap_with_a_map_of_the_world():
    world = sample("world", 180, 360, Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    made = [sample("utm", 400, 400, east(0), UTM), world]
    assert pairs(overlapping(made)) == {(0, 1)}


def test_overlap_at_the_antimeridian():
    """Two scenes on either side, in degrees and in metres; and one half around the Earth."""
    metres = sample("metres", 100, 100, Affine(1000, 0, 800_000, 0, -1000, 100_000), "EPSG:32660")  # past 180
    west = sample("west", 10, 10, Affine(0.01, 0, -179.9, 0, -0.01, 0.5), "EPSG:4326")
    far = sample("far", 10, 10, Affine(0.01, 0, 0.1, 0, -0.01, 0.5), "EPSG:4326")
    assert pairs(overlapping([metres, west, far])) == {(0, 1)}


def test_only_areas_count():
    """Two halves of one ground do not overlap, though their scenes do."""
    left = sample("left", 40, 40, east(0), UTM, areas=(Window(0, 40, 0, 20),))
    right = sample("right", 40, 40, east(0), UTM, areas=(Window(0, 40, 20, 30), Window(0, 40, 30, 40)))
    assert not overlapping([left, right])
    assert pairs(adjoining([left, right])) == {(0, 1)}
