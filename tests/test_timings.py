"""Where the time of a block goes: phases that never count twice, and what blocks of a real run say of themselves."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from distributed import Client
from helpers import metadata, pixels, save, write_raster

from models import timing as timings
from models.timing import Spent, count_bytes, spending, timing
from pipeline import plan, run
from pipeline.inference.run import Segmentation
from pipeline.jobs import job as jobs
from pipeline.jobs.job import run_job
from pipeline.store.ledger import Ledger, place_of
from pipeline.store.store import Summary

CUT = {"block": 64, "tile": 64, "engine": "torch", "threads": 1}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(timings.time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_a_phase_within_another_interrupts_it(clock):
    with timing() as found:
        clock(1)
        with spending("predict"):
            clock(2)
            with spending("wait"):
                clock(4)
            clock(8)
        with spending("read"), suppress(ValueError), spending("write"):
            clock(16)
            raise ValueError
        count_bytes(read=5, written=3)
        count_bytes(written=4)
        clock(32)
    assert found.spent == Spent(read=0, wait=4, predict=10, write=16, bytes_read=5, bytes_written=7)


def test_what_nobody_asks_for_is_not_noted(clock):
    with spending("read"):
        clock(1)
        count_bytes(read=7)
    with timing() as found:
        pass
    assert found.spent == Spent()


def test_a_timing_within_another_counts_for_itself(clock):
    with timing() as outer:
        with timing() as inner, spending("read"):
            clock(1)
        with spending("write"):
            clock(2)
    assert (inner.spent.read, outer.spent.read, outer.spent.write) == (1, 0, 2)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    write_raster(folder / "scene.tif", pixels((3, 190, 250)), nodata=0)
    save(folder / "bundle", metadata("simple-unet"))
    return folder


@pytest.fixture
def summaries(monkeypatch: pytest.MonkeyPatch) -> list[Summary]:
    """What blocks said of themselves, of runs that follow."""
    found: list[Summary] = []
    add = Ledger.add
    monkeypatch.setattr(Ledger, "add", lambda ledger, one: found.append(one) or add(ledger, one))
    return found


def test_blocks_say_where_their_time_went(case, client: Client, summaries, tmp_path):
    prepared = plan(case / "scene.tif", case / "bundle", **CUT)
    result = run_job(Segmentation(prepared), tmp_path / "s.zarr", client=client, show=False)
    full = [one for one in summaries if one.level == 0]
    assert len(full) == result.blocks == 12
    for one in summaries:
        spent = one.spent
        phases = spent.read + spent.wait + spent.predict + spent.write
        assert 0 < phases <= one.seconds + 0.002  # those are rounded
        assert (spent.predict > 0) == (one.level == 0)
    assert {one.worker for one in summaries} <= set(client.scheduler_info(n_workers=-1)["workers"])
    halo, read = prepared.plan.halo, sum(one.spent.bytes_read for one in full)
    sample = 3 * prepared.source.dtype.itemsize
    assert sample * 190 * 250 < read <= sample * 12 * (64 + 2 * halo) ** 2
    shards = [path for path in (tmp_path / "s.zarr").rglob("c/**/*") if path.is_file() and "blocks" not in path.parts]
    pixel_shards = [path for path in shards if {"class_map", "probability"} & set(path.parts)]
    assert sum(one.spent.bytes_written for one in summaries) == sum(path.stat().st_size for path in pixel_shards)


def test_markers_say_no_times_but_the_sum(case, monkeypatch, tmp_path):
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(jobs, "finish_store", lambda store, *_: kept.update(markers(store.path)))
    run(case / "scene.tif", case / "bundle", tmp_path / "s.zarr", show=False, **CUT)
    assert len(kept) == 12
    for name, text in kept.items():
        assert set(json.loads(text)) == {"level", "row", "column", "pixels", "seconds", "shards", "crc32c"}
        place = place_of(name)
        assert place is not None
        read = Summary.from_marker(place, text)
        assert read is not None
        assert read.marker() == text
        assert Summary.from_marker((9, 9, 9), text) is None


def markers(store: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (Path(store) / ".swathe").glob("*.json")}
