"""Memory: which tiles and blocks are chosen within a budget, what an engine takes, and what bad budgets are told."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from distributed import LocalCluster
from helpers import pixels, write_raster
from hypothesis import given
from hypothesis import strategies as st

from models import load_bundle
from models.encoding import Prediction
from models.engine import EngineSpec, resolve
from models.engine_memory import FRUGAL, ON_GPU, UNKNOWN, EngineMemory, kept_memory, measure_memory
from models.errors import PlanError
from models.metadata import ReceptiveField
from pipeline import plan, run
from pipeline.grid.tile_cost import LARGEST_BLOCK, TileCost, cheapest_plan
from pipeline.grid.tiling import TilingPlan, make_plan
from pipeline.inference.calibrate import Calibration
from pipeline.inference.memory import PixelBytes, Resources, cut_scene
from pipeline.inference.options import SegmentOptions, parse_memory
from pipeline.inference.predict import share_engine
from pipeline.inference.worker_classes import WorkerClass
from pipeline.store.store import open_store

GB = 10**9
fields = st.builds(ReceptiveField, st.sampled_from([1, 2, 8, 12, 32, 64]), st.integers(0, 600))
shapes = st.tuples(st.integers(1, 30_000), st.integers(1, 30_000))


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """What `bundle_of()` was measured to take; to measure it again costs a process of some seconds."""
    for name in ("plan.measure_memory", "run.measured_memory"):
        monkeypatch.setattr(f"pipeline.inference.{name}", lambda *_: EngineMemory(1 << 27, 64))


@st.composite
def costs(draw: st.DrawFn, most: int = 9) -> TileCost:
    return TileCost(
        network=draw(st.integers(50, 2000)),
        raw=draw(st.integers(2, 40)),
        kept=draw(st.integers(1, 12)),
        fixed=draw(st.integers(0, GB)),
        budget=draw(st.integers(GB, 300 * GB)),
        slots=draw(st.integers(1, most)),
        sparing=draw(st.booleans()),
    )


def biggest_input(cut: TilingPlan) -> int:
    """Pixels of the largest tile of any block, halo included, counted tile by tile."""
    return max((t.shape[0] + 2 * cut.halo) * (t.shape[1] + 2 * cut.halo)
               for block in (cut.block_at(0, 0), cut.block_at(cut.rows - 1, cut.columns - 1))
               for t in cut.tiles(block.window))  # fmt: skip


@given(shapes, fields, costs())
def test_chosen_tiles_fit_the_blocks_the_stride_and_the_budget(shape, field, cost):
    cut = cheapest_plan(shape, field, cost)
    assert cut.exact
    assert cut.tile % cut.stride == cut.block % cut.chunk == cut.chunk % cut.stride == 0
    assert cut.tile <= cut.block <= max(LARGEST_BLOCK, cut.chunk)
    assert biggest_input(cut) == cut.largest_input[0] * cut.largest_input[1]
    held = cost.fixed + min(cost.slots, len(cut)) * biggest_input(cut) * cost.network
    assert held < cost.peak_bytes(cut)
    smallest = cheapest_plan(shape, field, replace(cost, budget=0))
    assert cost.peak_bytes(cut) <= max(cost.budget, cost.peak_bytes(smallest))


@given(shapes, fields, costs(most=1))
def test_tiles_by_cost_are_never_worse_than_the_plain_rule_in_as_much_memory(shape, field, cost):
    plain = make_plan(shape, field)
    cut = cheapest_plan(shape, field, replace(cost, budget=max(cost.budget, cost.peak_bytes(plain))))
    if cost.peak_bytes(cut) >= cost.peak_bytes(plain):
        # a block counts a little too, so that the largest blocks are not a loss
        assert cost.time(cut) <= cost.time(plain) * (1 + 1e-9)


@given(shapes, fields, costs(), st.integers(1, 8))
def test_more_memory_never_costs_time(shape, field, cost, times):
    tight, ample = (cheapest_plan(shape, field, replace(cost, budget=b)) for b in (cost.budget, cost.budget * times))
    assert cost.time(ample) <= cost.time(tight) * (1 + 1e-9) or cost.peak_bytes(tight) > cost.budget


@given(shapes, fields, costs())
def test_time_counts_what_the_network_sees(shape, field, cost):
    cut = cheapest_plan(shape, field, replace(cost, slots=1))
    seen = sum(
        (t.shape[0] + 2 * cut.halo) * (t.shape[1] + 2 * cut.halo) for b in cut.blocks() for t in cut.tiles(b.window)
    )
    assert cut.halo_overhead == pytest.approx(seen / (shape[0] * shape[1]))
    assert replace(cost, slots=1).time(cut) == pytest.approx(seen, rel=0.2, abs=1 << 20)


# what the shipped bundles and the benchmark's network take, as measured on a Zen 5 in float32


@pytest.mark.parametrize(
    ("field", "per_pixel", "most"),
    [
        (ReceptiveField(32, 219), 288, 1.3),
        (ReceptiveField(8, 51), 384, 1.12),
        (ReceptiveField(8, 58), 416, 1.13),
        (ReceptiveField(32, 900), 300, 3.7),
    ],
)
@pytest.mark.parametrize("size", [8192, 24576])
def test_halo_costs_little_on_a_machine_of_24_gib(field, per_pixel, most, size):
    engine, here = EngineMemory(GB // 5, per_pixel), Resources(24 << 30, 2)
    cut = cut_scene((size, size), field, SegmentOptions(), None, PixelBytes(7, 2), here, engine, pytest.fail)
    assert cut.plan.halo_overhead <= most
    assert cut.plan.halo_overhead < make_plan((size, size), field).halo_overhead
    assert cut.peak_bytes <= cut.cost.budget == int(0.6 * (24 << 30))
    assert cut.notes == ()


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_all_slots_have_work_on_scenes_of_a_few_tiles(slots):
    cost = TileCost(400, 7, 2, 0, 40 * GB, slots)
    assert len(cheapest_plan((4096, 4096), ReceptiveField(8, 58), cost)) >= slots
    assert len(cheapest_plan((300, 300), ReceptiveField(8, 58), cost)) == 1


def test_huge_scenes_are_planned_at_once():
    cut = cheapest_plan((10**6, 10**6), ReceptiveField(8, 58), TileCost(400, 7, 2, 0, 15 * GB, 2))
    assert cut.halo_overhead < 1.13


@pytest.mark.parametrize("options", [SegmentOptions(halo=100), SegmentOptions(halo=100, memory="40 GB")])
def test_where_the_cut_decides_pixels_nothing_measured_decides_the_cut(options):
    field = ReceptiveField(32, 219)
    for engine in (EngineMemory(GB, 100), EngineMemory(GB, 400), UNKNOWN):
        cut = cut_scene((9000, 9000), field, options, 100, PixelBytes(4, 2), Resources(64 * GB, 2), engine, pytest.fail)
        assert cut.plan == make_plan((9000, 9000), field, halo=100)


@pytest.mark.parametrize(("field", "most"), [(ReceptiveField(32, 219), 1.78), (ReceptiveField(8, 51), 1.17)])
def test_tiles_of_a_gpu_are_no_larger_than_before_and_see_less_twice(field, most):
    here, plain = Resources(128 * GB, 8), make_plan((20_000, 20_000), field)
    cut = cut_scene((20_000, 20_000), field, SegmentOptions(), None, PixelBytes(7, 2), here, ON_GPU, pytest.fail).plan
    assert cut.halo_overhead <= min(most, plain.halo_overhead)
    assert biggest_input(cut) <= 2048 * 2304
    assert cut.block == plain.block


def test_a_cluster_is_asked_for_its_own_memory(bundle_of, tmp_path):
    """A budget that is too small for this machine's slots may do for a worker's one thread, and the other way round."""
    scene, bundle = str(write_raster(tmp_path / "scene.tif", pixels((3, 600, 600)))), bundle_of()
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, memory_limit="16 GB",
                      dashboard_address="127.0.0.1:0") as some, some.get_client() as client:  # fmt: skip
        done = run(scene, bundle, tmp_path / "m.zarr", client=client, memory="1.6 GB", show=False)
        with pytest.raises(PlanError, match="GB of memory is too little"):
            run(scene, bundle, tmp_path / "n.zarr", client=client, memory="700 MB", show=False)
    here = run(scene, bundle, tmp_path / "h.zarr", show=False)
    assert done.pixels == here.pixels


def test_what_cannot_matter_is_not_measured():
    field, here = ReceptiveField(8, 58), Resources(24 * GB, 2)
    cut = cut_scene((700, 900), field, SegmentOptions(), None, PixelBytes(4, 2), here, None, pytest.fail)
    assert not cut.measured
    assert "a cautious guess" in cut.describe()
    measured = cut_scene((9000, 9000), field, SegmentOptions(), None, PixelBytes(4, 2), here, None, lambda: FRUGAL)
    assert measured.plan.halo_overhead < 1.2


def test_an_engine_is_measured_once(bundle_of, tmp_path, monkeypatch):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    bundle, spec = bundle_of(), resolve(EngineSpec(device="cpu", threads=1))
    assert kept_memory(bundle.digest, spec) is None
    found = measure_memory(bundle, spec)
    assert found.measured
    assert found.per_pixel % 16 == 0
    # a tiny network: no less than its input and its answer as float32, and far from the guess
    assert 16 < found.per_pixel < 500
    assert 30e6 < found.fixed < 1e9
    assert kept_memory(bundle.digest, spec) == kept_memory(bundle.digest, replace(spec, compile=True)) == found
    monkeypatch.setattr(subprocess, "run", pytest.fail)
    assert kept_memory(bundle.digest, spec) == found
    (kept,) = (tmp_path / "swathe" / "memory").iterdir()
    kept.write_text(json.dumps({"of another": "version"}))
    assert kept_memory(bundle.digest, spec) is None


def test_an_engine_that_cannot_be_measured_is_taken_for_a_large_one(bundle_of, tmp_path, monkeypatch):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    bundle, spec = bundle_of(), resolve(EngineSpec(device="cpu", threads=1))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert measure_memory(bundle, spec) == UNKNOWN
    assert kept_memory(bundle.digest, spec) is None


def test_a_run_stays_what_it_is_with_another_budget(bundle_of, tmp_path):
    """Killed or not: the store keeps its blocks, and tiles are no part of the identity."""
    scene, bundle = write_raster(tmp_path / "scene.tif", pixels((3, 1100, 700))), bundle_of()
    cuts = [plan(str(scene), bundle, memory=memory).plan for memory in ("2 GB", None)]
    first = run(str(scene), bundle, tmp_path / "m.zarr", memory="2 GB", show=False)
    again = run(str(scene), bundle, tmp_path / "m.zarr", show=False)
    assert (again.resumed, again.pixels) == (first.blocks, first.pixels)
    assert open_store(str(tmp_path / "m.zarr"))[1].plan.block == cuts[0].block


# budgets in words


@pytest.mark.parametrize(("given", "size"), [("6 GB", 6 * GB), ("800MB", 8 * 10**8), ("2 GiB", 2 << 30), (GB, GB)])
def test_sizes_are_read(given, size):
    assert parse_memory(given) == size


@pytest.mark.parametrize("given", ["much", "", "6 m2", "50%", "-2 GB", "6", 6, 0, True, None, ["6 GB"], "nan GB"])
def test_what_is_no_size_is_refused(given):
    with pytest.raises(PlanError, match=r"memory is a size with its unit, as '6 GB' or '800 MB'; received "):
        parse_memory(given)


@pytest.fixture
def scene(tmp_path):
    return str(write_raster(tmp_path / "scene.tif", pixels((3, 300, 300))))


def test_a_budget_that_is_too_small_is_told_what_is_needed(scene, bundle_of):
    with pytest.raises(
        PlanError, match=r"0.6 GB of memory is too little: the smallest tiles of this network need (.*?);"
    ) as told:
        plan(scene, bundle_of(), memory="600 MB")
    needed = str(told.value).split("need ")[1].split(";")[0]
    assert f"give --memory '{needed}'" in str(told.value)
    cut = plan(scene, bundle_of(), memory=needed)  # what it asks for is enough
    assert cut.memory <= parse_memory(needed)
    assert f"of {needed}" in str(cut)


def test_tiles_that_do_not_fit_the_budget_are_refused(scene, bundle_of):
    with pytest.raises(PlanError, match=r"its tiles need .* a smaller --tile"):
        plan(scene, bundle_of(), tile=256, memory="600 MB")


def test_a_budget_beyond_the_memory_is_noted(scene, bundle_of):
    assert "note     --memory is 9000.0 GB; here are" in str(plan(scene, bundle_of(), memory="9 TB"))


def test_a_machine_that_is_too_small_is_noted_and_tried(scene, bundle_of, monkeypatch):
    monkeypatch.setattr("pipeline.inference.plan.machine_memory", lambda: GB)
    cut = plan(scene, bundle_of())
    assert "more than the share of 0.6 GB that is its own by default" in str(cut)


def test_the_workers_of_a_cluster_say_what_they_have(monkeypatch):
    asked = EngineSpec(device="cpu", threads=2)
    with LocalCluster(n_workers=2, threads_per_worker=3, processes=False, memory_limit="2 GB",
                      dashboard_address="127.0.0.1:0") as some, some.get_client() as client:  # fmt: skip
        workers = WorkerClass.ask(client, asked, None)
        assert (workers.resources, workers.sharing, len(workers.addresses)) == ((Resources(2 * GB, 3),), 2, 2)
    monkeypatch.setattr("pipeline.inference.worker_classes.machine_memory", lambda: 10 * GB)
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, memory_limit=0,
                      dashboard_address="127.0.0.1:0") as some, some.get_client() as client:  # fmt: skip
        assert WorkerClass.ask(client, asked, None).resources == (Resources(5 * GB, 1),)


@pytest.mark.slow
def test_the_shipped_network_is_planned_by_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path))
    bundle, spec = load_bundle("buildings"), resolve(EngineSpec(device="cpu", threads=2))
    found = measure_memory(bundle, spec)
    assert 200 < found.per_pixel < 400
    assert measure_memory(bundle, spec) == found


# how long it takes


def test_a_calibration_says_seconds(bundle_of, tmp_path):
    scene = str(write_raster(tmp_path / "scene.tif", pixels((3, 700, 900))))
    prepared = plan(scene, bundle_of(), calibrate=True)
    found = prepared.calibration
    assert prepared.cut.measured
    assert found.observed == 1
    assert min(found.reading, found.network, found.writing) > 0
    assert found.network < 1e-4
    (said,) = [line for line in str(prepared).splitlines() if line.startswith("time")]
    cost = prepared.cut.cost
    seen, own = cost.time(prepared.plan), 700 * 900 / cost.slots
    total = seen * (found.network + found.reading) + own * found.writing
    assert f"about {total:.1f} s with {cost.slots} blocks at a time (network" in said
    assert plan(scene, bundle_of()).calibration is None


def test_a_calibration_projects_what_was_measured(bundle_of):
    cut, cost = make_plan((4096, 4096), ReceptiveField(8, 58)), TileCost(300, 7, 2, 0, GB, 4)
    said = Calibration(reading=1e-8, network=1e-6, writing=2e-8, observed=0.5).describe(cut, cost)
    seen = cost.time(cut)
    assert f"(network {seen * 5e-7:.1f}, reading {seen * 1e-8:.1f}, writing {4096**2 / 4 * 2e-8:.1f})" in said


def test_nothing_observed_is_nothing_to_calibrate_on(bundle_of, tmp_path):
    scene = write_raster(tmp_path / "scene.tif", np.zeros((3, 200, 200), np.uint16), nodata=0)
    with pytest.raises(PlanError, match="calibrate: no observed pixels were found"):
        plan(str(scene), bundle_of(), calibrate=True)


def test_the_engine_for_a_calibration_has_all_slots_at_work(bundle_of, tmp_path):
    """An engine that sleeps for each call, one at a time: two slots take twice as long, and the calibration says so."""

    class Sleeping:
        batch, slots = 1, 2
        lock = threading.Lock()

        def segment(self, given, encoding):
            with self.lock:
                time.sleep(0.05)
            answer = np.zeros((1, *given.shape[2:]), np.uint8)
            return Prediction(answer, answer[None])

    scene, bundle = str(write_raster(tmp_path / "scene.tif", pixels((3, 400, 400)))), bundle_of(seed=7)
    spec = resolve(EngineSpec(threads=2))
    share_engine(bundle.digest, spec, Sleeping())
    prepared = plan(scene, bundle, calibrate=True, threads=2)
    assert 0.1 <= prepared.calibration.network * 1024**2 < 0.2
