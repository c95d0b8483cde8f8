"""Tiles on one grid: where they lie and what they weigh, against counting; which grid a network gets; what it costs."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import metadata
from hypothesis import given
from hypothesis import strategies as st

from models.engine_memory import EngineMemory
from models.errors import PlanError
from models.metadata import ReceptiveField
from pipeline.grid.geobox import Window
from pipeline.grid.tile_cost import TileCost
from pipeline.grid.tile_grid import TileAxis, TileGrid
from pipeline.grid.tiling import make_plan
from pipeline.inference.grid_choice import choose_grid
from pipeline.inference.memory import PixelBytes, Resources, cut_scene
from pipeline.inference.options import SegmentOptions

UNBOUNDED = ReceptiveField(32, None)
GB = 1 << 30


@st.composite
def grids(draw: st.DrawFn, stride: int) -> TileGrid:
    steps = draw(st.integers(1, 9))
    overlap = draw(st.integers(0, 9)) * stride
    blend = draw(st.sampled_from(["crop", "feather"]))
    taper = draw(st.sampled_from(["linear", "cosine", "gaussian"])) if blend == "feather" else None
    before = draw(st.sampled_from([0, overlap // 2 // stride * stride]))
    return TileGrid(steps * stride + overlap, overlap, blend, taper, before, draw(st.booleans()))


@st.composite
def axes(draw: st.DrawFn) -> TileAxis:
    stride = draw(st.sampled_from([1, 4, 8, 32]))
    return TileAxis(draw(st.integers(1, 900)), stride, draw(grids(stride)))


@given(axes())
def test_inner_parts_are_the_scene_once_and_lie_in_their_tiles(axis):
    owners = np.zeros(axis.size, int)
    for number in range(len(axis)):
        first, stop = axis.inner(number)
        owners[max(0, first) : max(first, stop)] += 1
        seen = axis.seen(number)
        assert seen[1] - seen[0] == axis.side
        assert first >= stop or (seen[0] <= first and min(stop, axis.size) <= seen[1])
        assert (axis.start(number) + axis.grid.before) % axis.stride == 0
    assert (owners == 1).all()
    starts = [axis.start(number) for number in range(len(axis))]
    assert starts == sorted(set(starts))
    assert starts[:-1] == [number * axis.grid.step - axis.grid.before for number in range(len(axis) - 1)]
    assert 0 <= axis.seen(len(axis) - 1)[1] - axis.size - axis.grid.before < max(axis.side + 1, axis.stride)
    assert len(axis) == 1 or axis.seen(len(axis) - 1)[1] - axis.size - axis.grid.before < axis.stride


@given(axes(), st.data())
def test_the_tiles_of_a_window_are_all_that_have_to_do_with_it(axis, data):
    first = data.draw(st.integers(0, axis.size - 1))
    stop = data.draw(st.integers(first + 1, axis.size))
    part = axis.inner if axis.grid.blend == "crop" else axis.seen
    expected = [n for n in range(len(axis)) if part(n)[0] < stop and part(n)[1] > first]
    assert axis.tiles(first, stop) == expected != []


@given(axes())
def test_weights_add_up_to_one_and_are_never_zero(axis):
    total, alone = np.zeros(axis.size + 2000), np.zeros(axis.size + 2000, int)
    for number in range(len(axis)):
        weights = axis.weights(number)
        assert weights.dtype == np.float32
        assert (weights > 0).all()
        total[1000 + axis.start(number) : 1000 + axis.seen(number)[1]] += weights
        alone[1000 + axis.start(number) : 1000 + axis.seen(number)[1]] += 1
    scene = slice(1000, 1000 + axis.size)
    np.testing.assert_allclose(total[scene], 1, atol=1e-6)
    assert (total[scene][alone[scene] == 1] == 1).all()


@pytest.mark.parametrize(
    ("taper", "expected"),
    [
        ("linear", lambda d: d / 32),
        ("cosine", lambda d: np.sin(np.pi * d / 64) ** 2),
        ("gaussian", lambda d: 1 / (1 + np.exp((16 - d) * 64 / 12.0**2))),  # of two Gaussians 64 pixels apart
    ],
)
def test_weights_between_two_tiles_are_those_of_their_formula(taper, expected):
    axis = TileAxis(160, 32, TileGrid(96, 32, "feather", taper))
    assert [axis.start(number) for number in range(len(axis))] == [0, 64]
    np.testing.assert_allclose(axis.weights(1)[:32], expected(np.arange(32) + 0.5), rtol=1e-6)


def test_the_last_tile_is_moved_back_and_a_small_scene_is_one():
    grid = TileGrid(256, 64)
    assert [TileAxis(700, 32, grid).start(n) for n in range(len(TileAxis(700, 32, grid)))] == [0, 192, 384, 448]
    assert (len(TileAxis(256, 32, grid)), TileAxis(256, 32, grid).side) == (1, 256)
    assert (len(TileAxis(70, 32, grid)), TileAxis(70, 32, grid).side) == (1, 96)
    assert TileAxis(70, 32, replace(grid, fixed=True)).side == 256


@given(st.integers(1, 3000), st.integers(1, 3000), grids(8), st.integers(40, 3000))
def test_a_plan_counts_what_the_network_sees(height, width, grid, block):
    grid = replace(grid, before=0)
    plan = make_plan((height, width), ReceptiveField(8, None), block=block, grid=grid)
    assert not plan.exact
    windows = [one.window for one in plan.blocks()]
    if len(windows) * height * width / grid.step**2 > 2e6:
        return
    seen = [tile.seen for window in windows for tile in plan.tiles_of(window)]
    assert all(window.shape == plan.largest_input for window in seen)
    assert plan.halo_overhead == pytest.approx(sum(window.size for window in seen) / (height * width))
    assert plan.grid_overhead == pytest.approx(len(set(seen)) * seen[0].size / (height * width))
    for window in windows:
        tiles = list(plan.tiles_of(window))
        around = plan.context(window)
        assert all(around.contains(tile.seen) and window.contains(tile.kept) for tile in tiles)
        assert around.contains(window)
        assert window.buffer(plan.reach).contains(around.clip((height, width)))
        if grid.blend == "crop":
            assert sum(tile.kept.size for tile in tiles) == window.size
    cost = TileCost(network=100, raw=4, kept=2, fixed=0, budget=GB, slots=1)
    cost.time(plan)
    assert cost.peak_bytes(plan) > seen[0].size * cost.network


def test_no_more_calls_of_one_thread_than_the_memory_holds():
    here, engine = Resources(64 * GB, 64), EngineMemory(GB, 1500)
    cut = cut_scene((10_980, 10_980), UNBOUNDED, SegmentOptions(), None, PixelBytes(9, 1), here, engine, pytest.fail,
                    TileGrid(1024, 128))  # fmt: skip
    assert (8 < cut.cost.slots < 64, cut.peak_bytes <= cut.cost.budget, cut.notes) == (True, True, ())


def test_blocks_on_a_grid_are_free_and_cost_what_they_share():
    grid, here, pixel = TileGrid(256, 64), Resources(24 * GB, 2), PixelBytes(4, 2)
    plain = make_plan((9000, 9000), UNBOUNDED, grid=grid)
    cuts = [
        cut_scene((9000, 9000), UNBOUNDED, SegmentOptions(memory=memory), None, pixel, here, engine, pytest.fail, grid)
        for memory, engine in (("3 GB", EngineMemory(GB, 400)), ("20 GB", EngineMemory(GB, 100)))
    ]
    assert all(cut.plan.grid == grid and cut.peak_bytes <= cut.cost.budget for cut in cuts)
    assert cuts[1].plan.halo_overhead <= plain.halo_overhead
    assert plain.grid_overhead < cuts[1].plan.halo_overhead < 1.2 * plain.grid_overhead
    small = cut_scene((9000, 9000), UNBOUNDED, SegmentOptions(block=512), None, pixel, here, EngineMemory(GB, 400),
                      pytest.fail, grid).plan  # fmt: skip
    assert small.block == 512
    assert small.halo_overhead > 1.4 * plain.grid_overhead


def bundle(radius=None, side=None, patch=512, stride=32):
    options = {"widths": [4, 8, 8]} | ({} if side is None else {"side": side})
    return metadata(options=options, receptive_field=ReceptiveField(stride, radius), patch=patch)


@pytest.mark.parametrize(
    ("described", "options", "expected"),
    [
        (bundle(50), {}, None),
        (bundle(50), {"halo": 8}, None),
        (bundle(50), {"halo": "auto"}, None),
        (bundle(50), {"overlap": 64}, TileGrid(512, 64, before=32)),
        (bundle(50), {"overlap": 64, "blend": "feather"}, TileGrid(512, 64, "feather", "linear", 32)),
        (bundle(), {}, TileGrid(512, 128, before=64)),
        (bundle(patch=64), {}, TileGrid(256, 64, before=32)),
        (bundle(patch=300), {}, TileGrid(320, 96, before=32)),
        (bundle(), {"tile": 100}, TileGrid(128, 32)),
        (bundle(), {"tile": 256, "overlap": 0}, TileGrid(256, 0)),
        (bundle(), {"tile": 256, "overlap": 10}, TileGrid(256, 32)),
        (bundle(), {"halo": 32}, TileGrid(512, 64, before=32)),
        (bundle(), {"halo": 400}, TileGrid(1600, 800, before=384)),
        (bundle(side=256), {}, TileGrid(256, 64, before=32, fixed=True)),
        (bundle(side=250), {"tile": 250}, TileGrid(250, 90, before=32, fixed=True)),
        (bundle(side=256), {"blend": "feather", "taper": "gaussian", "overlap": 128},
         TileGrid(256, 128, "feather", "gaussian", 64, fixed=True)),
        (bundle(50, side=256), {}, TileGrid(256, 128, before=64, fixed=True)),
        (bundle(50, side=256), {"halo": 64}, TileGrid(256, 128, before=64, fixed=True)),
        (bundle(50, side=256), {"halo": 32}, TileGrid(256, 64, before=32, fixed=True)),
        (bundle(50, side=256), {"overlap": 64}, TileGrid(256, 64, before=32, fixed=True)),
        (bundle(200, side=256), {}, TileGrid(256, 64, before=32, fixed=True)),
        # a quarter of tiles of one stride is none of it: they lie side by side
        (bundle(side=32), {}, TileGrid(32, 0, fixed=True)),
        (bundle(side=40), {}, TileGrid(40, 8, fixed=True)),
        (bundle(), {"tile": 20}, TileGrid(32, 0)),
        (bundle(stride=300), {"tile": 300}, TileGrid(300, 0)),
    ],
)  # fmt: skip
def test_which_grid_a_network_gets(described, options, expected):
    assert choose_grid(described, SegmentOptions(**options)) == expected


@pytest.mark.parametrize(
    ("described", "options", "says"),
    [
        (bundle(50), {"blend": "feather"}, "has an exact halo, by which tiled equals whole: give --overlap N"),
        (bundle(50, side=256), {"blend": "feather"}, "has an exact halo"),
        (bundle(side=256), {"tile": 512}, "takes tiles of 256 x 256 pixels alone; --tile is 512"),
        (bundle(side=256), {"overlap": 256}, "an overlap of 256 leaves nothing of tiles of 256 pixels: at most 224$"),
        (bundle(), {"overlap": 250, "tile": 256}, "at most 224, or a larger --tile"),
    ],
)
def test_grids_that_cannot_be(described, options, says):
    with pytest.raises(PlanError, match=says):
        choose_grid(described, SegmentOptions(**options))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"overlap": -1}, "overlap is 'auto' or a number of pixels; received -1"),
        ({"overlap": True}, "overlap is 'auto' or a number of pixels; received True"),
        ({"overlap": "some"}, "received 'some'"),
        ({"overlap": 8, "halo": 8}, "a halo or an overlap: give one"),
        ({"blend": "max"}, "blend is crop, feather; received 'max'"),
        ({"taper": "hann", "blend": "feather"}, "taper is linear, cosine, gaussian; received 'hann'"),
        ({"taper": "cosine"}, "taper is of --blend feather"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(PlanError, match=says):
        SegmentOptions(**options)


def test_a_fixed_tile_under_its_exact_halo_is_exact():
    grid = choose_grid(bundle(50, side=256), SegmentOptions())
    plan = make_plan((700, 300), ReceptiveField(32, 50), grid=grid)
    assert (plan.exact, plan.halo) == (True, 64)
    for tile in plan.tiles_of(Window(0, 700, 0, 300)):
        assert tile.seen.shape == (256, 256)
        assert tile.seen.contains(tile.kept.buffer(64))
