"""Plans: integer geometry against slow, plain references; and the halves of a pyramid likewise."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from helpers import pixels
from hypothesis import assume, given
from hypothesis import strategies as st

from models.encoding import NODATA
from models.errors import PlanError
from models.metadata import ReceptiveField
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import Window
from pipeline.grid.tiling import TilingPlan, make_plan, reflected
from pipeline.inference.predict import read_buffered
from pipeline.io.scene import open_source
from pipeline.store.overviews import halve, mean_of_four, mode_of_four

sides = st.integers(1, 3000)
given_sides = st.none() | st.integers(1, 2500)


@st.composite
def plans(draw: st.DrawFn) -> TilingPlan:
    receptive_field = ReceptiveField(draw(st.sampled_from([1, 2, 3, 8, 12, 64])), draw(st.integers(0, 300)))
    halo = draw(st.none() | st.integers(0, 700))
    cut = make_plan(
        (draw(sides), draw(sides)), receptive_field, halo=halo, tile=draw(given_sides), block=draw(given_sides)
    )
    assume(len(cut) <= 3000)
    return cut


def covered(windows: list[Window], height: int, width: int) -> np.ndarray:
    """How often each pixel of a scene lies in a window; windows may reach outside at the right and the bottom."""
    count = np.zeros((height, width), np.uint8)
    for window in windows:
        count[window.slices] += 1
    return count


@given(plans())
def test_blocks_tile_the_scene_once(plan):
    blocks = list(plan.blocks())
    assert len(blocks) == len(plan)
    assert (covered([block.window for block in blocks], plan.height, plan.width) == 1).all()
    assert all(block == plan.block_at(block.row, block.column) for block in blocks)


@given(plans())
def test_everything_is_a_multiple_of_the_stride(plan):
    assert plan.chunk % plan.stride == plan.halo % plan.stride == plan.tile % plan.stride == 0
    assert plan.block % plan.chunk == 0
    assert plan.tile <= plan.block
    for block in plan.blocks():
        assert block.window.top == block.row * plan.block
        assert block.window.left == block.column * plan.block
        assert max(block.window.shape) <= plan.block


@given(plans(), st.data())
def test_tiles_cover_a_block_once(plan, data):
    window = data.draw(st.sampled_from(list(plan.blocks()))).window
    tiles = list(plan.tiles(window))
    height, width = (-(-n // plan.stride) * plan.stride for n in window.shape)
    assert (covered([tile.within(window) for tile in tiles], height, width) == 1).all()
    assert sum(t.size for t in tiles) == height * width
    assert all(t.shape[0] <= plan.tile * plan.tile_aspect and t.shape[1] <= plan.tile for t in tiles)
    assert all(edge % plan.stride == 0 for t in tiles for edge in (t.top, t.left, *t.shape))
    for axis in (0, 1):
        lengths = {t.shape[axis] for t in tiles}
        assert max(lengths) - min(lengths) <= plan.stride


@given(plans(), st.data())
def test_buffered_holds_every_tile_with_its_halo(plan, data):
    window = data.draw(st.sampled_from(list(plan.blocks()))).window
    buffered = plan.buffered(window)
    tiles = list(plan.tiles(window))
    assert buffered.top == min(t.top for t in tiles) - plan.halo
    assert buffered.left == min(t.left for t in tiles) - plan.halo
    assert buffered.bottom == max(t.bottom for t in tiles) + plan.halo
    assert buffered.right == max(t.right for t in tiles) + plan.halo


@given(plans())
def test_extra_counts_what_the_network_sees(plan):
    assume(plan.height * plan.width // plan.tile**2 < 3000)
    tiles = [tile for block in plan.blocks() for tile in plan.tiles(block.window)]
    seen = sum((t.shape[0] + 2 * plan.halo) * (t.shape[1] + 2 * plan.halo) for t in tiles)
    assert plan.halo_overhead == pytest.approx(seen / (plan.height * plan.width))


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 200))
def test_reflected_is_numpys(size, before, after):
    np.testing.assert_array_equal(
        reflected(-before, size + after, size), np.pad(np.arange(size), (before, after), mode="reflect")
    )


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 99), st.integers(9, 40), st.sampled_from([1, 8]))
def test_a_tile_is_read_as_the_padded_scene_has_it(height, width, halo, tile, stride):
    values = pixels((2, height, width))
    source = open_source(xr.DataArray(values, dims=("band", "y", "x"), attrs={"nodata": 2000.0}))
    plan = make_plan((height, width), ReceptiveField(stride, 0), halo=halo, tile=tile, block=80)
    edges = [(plan.halo, plan.halo + -height % stride), (plan.halo, plan.halo + -width % stride)]
    padded = np.pad(values, [(0, 0), *edges], mode="reflect")
    for block in plan.blocks():
        for window in plan.tiles(block.window):
            read = read_buffered(source, plan, window)
            rows, columns = plan.buffered(window).shift(plan.halo, plan.halo).slices
            np.testing.assert_array_equal(read.data, padded[:, rows, columns])
            np.testing.assert_array_equal(read.valid, (padded[:, rows, columns] != 2000).any(axis=0))


@given(st.integers(0, 999), st.integers(1, 64), st.integers(0, 700))
def test_halo_is_exact_from_the_radius_on(radius, stride, halo):
    plan = make_plan((100, 100), ReceptiveField(stride, radius), halo=halo)
    assert halo <= plan.halo < halo + stride
    assert plan.exact == (plan.halo >= radius)
    assert make_plan((100, 100), ReceptiveField(stride, radius)).exact


@pytest.mark.parametrize(
    ("receptive_field", "wish", "says"),
    [
        (ReceptiveField(8, 20), {"tile": 0}, "tile must be at least 1"),
        (ReceptiveField(8, 20), {"block": -5}, "block must be at least 1"),
        (ReceptiveField(8, 20), {"halo": -1}, "halo must not be negative"),
        (ReceptiveField(32, None), {}, "no exact halo"),
    ],
)
def test_unsound_plans_are_refused(receptive_field, wish, says):
    with pytest.raises(PlanError, match=says):
        make_plan((100, 100), receptive_field, **wish)


def test_unbounded_network_takes_a_given_halo():
    plan = make_plan((100, 100), ReceptiveField(32, None), halo=100)
    assert (plan.halo, plan.exact) == (128, False)


def test_default_tiles_shrink_for_wide_halos():
    assert make_plan((9000, 9000), ReceptiveField(8, 58)).tile == 1024
    assert make_plan((9000, 9000), ReceptiveField(64, 700)).tile == 640
    assert make_plan((9000, 9000), ReceptiveField(64, 3000)).tile == 256


@pytest.mark.parametrize("receptive_field", [ReceptiveField(8, 58), ReceptiveField(64, 468)])
def test_plan_of_a_huge_scene_is_instant_and_small(receptive_field):
    plan = make_plan((10**6, 10**6), receptive_field)
    assert len(plan) == plan.rows * plan.columns > 200_000
    assert plan.block_at(plan.rows - 1, 0).window.bottom == 10**6


classes = st.sampled_from([0, 1, 2, NODATA])
small = st.tuples(st.integers(1, 7), st.integers(1, 7))


def squares(values: np.ndarray) -> list[list[np.ndarray]]:
    height, width = values.shape
    return [[values[y : y + 2, x : x + 2].ravel() for x in range(0, width, 2)] for y in range(0, height, 2)]


def slow_mode(square: np.ndarray) -> int:
    seen = [int(v) for v in square if v != NODATA]
    count = Counter(seen)
    return next((v for v in seen if count[v] == max(count.values())), NODATA)


@given(small, st.data())
def test_mode_is_the_most_frequent_of_what_was_observed(shape, data):
    count = shape[0] * shape[1]
    values = np.array(data.draw(st.lists(classes, min_size=count, max_size=count)), np.uint8)
    found = mode_of_four(values.reshape(shape))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[slow_mode(s) for s in row] for row in squares(values.reshape(shape))])


@given(small, st.integers(0, 999), st.sampled_from(["uint8", "float16", "float32"]))
def test_mean_is_of_what_was_observed(shape, seed, dtype):
    random = np.random.default_rng(seed)
    whole = dtype == "uint8"
    values = (random.integers(0, 251, shape) if whole else random.random(shape)).astype(dtype)
    hidden = random.random(shape) < 0.4
    values[hidden] = NODATA if whole else np.nan
    found = mean_of_four(values)
    assert found.dtype == dtype
    for y, row in enumerate(squares(np.where(hidden, np.nan, values.astype(float)))):
        for x, square in enumerate(row):
            seen = square[~np.isnan(square)]
            if not len(seen):
                assert found[y, x] == NODATA if whole else np.isnan(found[y, x])
            elif whole:
                assert found[y, x] == int(np.mean(seen) + 0.5)
            else:
                assert found[y, x] == pytest.approx(np.mean(seen), rel=2e-3 if dtype == "float16" else 1e-6)


def test_halving_halves_every_array():
    result = BlockResult(np.zeros((5, 4), np.uint8), np.arange(40, dtype=np.uint8).reshape(2, 5, 4))
    half = halve(result)
    assert half.class_map.shape == (3, 2)
    assert half.probability.shape == (2, 3, 2)
    np.testing.assert_array_equal(half.probability[1], mean_of_four(result.probability[1]))
    assert halve(BlockResult(result.class_map, None)).probability is None


@given(st.integers(1, 5000), st.integers(1, 600), st.sampled_from([1, 8, 64]))
def test_tiles_are_as_few_as_can_be(size, tile, stride):
    plan = make_plan((size, 1), ReceptiveField(stride, 0), tile=tile, block=5000)
    tops = [tile.top for tile in plan.tiles(plan.block_at(0, 0).window)]
    edges = [*tops, -(-size // stride) * stride]
    assert all(b > a for a, b in pairwise(edges))
    assert len(tops) == -(-edges[-1] // (plan.tile * plan.tile_aspect))
