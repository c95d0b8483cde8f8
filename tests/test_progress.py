"""What a run shows while it goes: lines that never cease, events, load; the same as JSON; what is kept of it after."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from urllib.request import urlopen

import numpy as np
import pytest
from distributed import Client, LocalCluster
from helpers import metadata, pixels, save, write_raster
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from stores import town, write_store

from models.errors import StoreError, UnfitWorkerError
from models.timing import Spent
from pipeline import run, write_clean, write_objects, write_run_report
from pipeline.grid.geobox import GeoBox
from pipeline.jobs import json_log, metrics, progress, run_log
from pipeline.jobs.events import Event
from pipeline.jobs.json_log import JsonLog
from pipeline.jobs.run_log import RunLog
from pipeline.jobs.tasks import RETRIES
from pipeline.objects.tree import Step, TreeJob, step_file
from pipeline.store.store import Summary, open_store

LOAD = Event("load", "", {"in_work": 3, "workers": {"tcp://a:1": (2, 2), "tcp://b:1": (1, 2), "tcp://c:1": (0, 2)}})
RETRIED = Event("retried", "block 1, 2 is tried again: its worker died", {"block": "1, 2"})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_lines_do_not_cease_and_tell_what_happens(clock):
    stream = io.StringIO()
    shown = progress.Lines(stream, "segmenting", 10, 4, "blocks")
    clock(29)
    shown.tick()
    clock(2)
    shown.tick()
    shown.tell(LOAD)
    shown.tell(RETRIED)
    clock(9)
    shown(1, 4_000_000)
    clock(30)
    shown.tick()
    assert stream.getvalue().splitlines() == [
        "segmenting: 4 of 10 blocks done",
        "segmenting: 4 of 10 blocks",
        "segmenting: block 1, 2 is tried again: its worker died",
        "segmenting: 5 of 10 blocks, 0.06 Mpx/s, 3 in work on 2 of 3 workers, 1 retried, 5:50 left",
    ]


def test_a_thread_looks_at_the_clock(monkeypatch):
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    stream = io.StringIO()
    with progress.progress("segmenting", 3, stream=stream):
        while stream.getvalue().count("\n") < 3:
            progress.time.sleep(0.01)
    assert "segmenting: 0 of 3 blocks" in stream.getvalue().splitlines()


def test_events_stand_above_the_bar_of_a_terminal(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress.progress("segmenting", 2, stream=stream) as shown:
        shown.tell(RETRIED)
        shown.tell(LOAD)
        shown(1, 1000)
    text = stream.getvalue()
    assert "segmenting: block 1, 2 is tried again: its worker died\n" in text
    assert "3 in work on 2 of 3 workers" in text
    assert text.rindex("its worker died") < text.rindex("1/2")


def test_the_same_as_json(clock, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(json_log, "_log", JsonLog(stream))
    with progress.progress("segmenting", 10, 4) as shown:
        shown.tell(LOAD)
        shown.tell(RETRIED)
        clock(10)
        shown(1, 5_000_000)
    stage, retried, one = map(json.loads, stream.getvalue().splitlines())
    assert (stage["event"], stage["done"], stage["total"]) == ("stage", 4, 10)
    assert (retried["event"], retried["text"], retried["block"]) == ("retried", RETRIED.text, "1, 2")
    assert one["workers"]["tcp://b:1"] == {"running": 1, "threads": 2}
    wanted = {"done": 5, "total": 10, "mpx_per_s": 0.5, "in_work": 3, "retried": 1, "eta_s": 50.0}
    assert wanted.items() <= one.items()


def test_a_command_writes_nothing_but_json(tmp_path):
    write_raster(tmp_path / "scene.tif", pixels((3, 190, 250)), nodata=0)
    save(tmp_path / "bundle", metadata("simple-unet"))
    script = (
        "import os, sys, warnings; from pipeline.cli import commands; from train.cli.app import main;"
        "say = commands.note;"
        "commands.note = lambda *a: (say(*a), os.write(2, b'of a library'), warnings.warn('odd'));"
        "sys.argv[0] = 'swathe'; main()"
    )

    def swathe(*words: str) -> tuple[int, list[dict]]:
        done = subprocess.run(
            [sys.executable, "-c", script, "segment", "scene.tif", "-o", "s.zarr", "--log", "json", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]

    code, lines = swathe("-m", "bundle", "--block", "64", "--engine", "torch")
    kinds = [line["event"] for line in lines]
    assert code == 0
    assert [kind for kind in kinds if kind in ("start", "stage", "end")] == ["start", "stage", "end"]
    assert any("of a library" in line["text"] for line in lines if line["event"] == "stderr")
    start, end = lines[kinds.index("start")], lines[-1]
    assert start["identity"] == end["identity"] != ""
    assert end["done"] == end["blocks"] == start["blocks"] == 12
    assert end["predict"] > 0
    code, lines = swathe("-m", "bundle", "--halo", "7")
    assert (code, lines[-1]["event"], lines[-1]["code"]) == (1, "error", 1)
    assert swathe("--unknown")[1][-1]["code"] == 2


class Grid:
    """As much of a store as a log asks for."""

    geobox = GeoBox(128, 192)

    class plan:
        block = 64

    @staticmethod
    def grid(level: int) -> tuple[int, int]:
        return 2, 3


def summary(row: int, column: int, worker: str, level: int = 0) -> Summary:
    spent = Spent(read=1, wait=0.5, predict=2, write=0.25, bytes_read=1000, bytes_written=10)
    return Summary(level, row, column, (4000, 96, 0), 4.0, spent, worker)


def test_a_log_adds_up_by_worker_and_block(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    log = RunLog()
    with suppress(StoreError), log.run("segmenting", "s3://key:secret@bucket/out.zarr?sig=1", None):
        log.begin_blocks(Grid(), 6, 1)  # type: ignore[arg-type]
        log.tell(LOAD)
        now[0] = 5.0
        log.add(summary(0, 1, "tcp://a:1"))
        log.add(summary(0, 2, "tcp://a:1"))
        log.add(summary(0, 0, "tcp://b:1", level=1))
        log.tell(RETRIED)
        now[0] = 10.0
        raise StoreError("the disk is full")
    a = log.workers["tcp://a:1"]
    assert (a.blocks, a.busy, a.predict, a.rest, a.idle) == (2, 8, 4, 0.5, 2)
    assert np.array_equal(np.isfinite(log.seconds), [[False, True, True], [False] * 3])
    assert log.ended[0, 1] == 5
    found = log.facts()
    assert found["error"] == "the disk is full"
    assert (found["done"], found["retried"], found["failed"], found["bytes_read"]) == (3, 1, 1, 3000)
    assert "secret" not in found["output"]
    with log.run("cleaning", "other.zarr", None):
        pass
    assert (log.output, log.workers, log.error) == ("other.zarr", {}, "")


def test_prometheus_counts_at_the_endpoint_of_a_worker(tmp_path):
    write_raster(tmp_path / "scene.tif", pixels((3, 100, 130)), nodata=0)
    save(tmp_path / "bundle", metadata("simple-unet"))
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        log = RunLog()
        how = {"block": 64, "tile": 64, "engine": "torch", "threads": 1, "show": False}
        run(tmp_path / "scene.tif", tmp_path / "bundle", tmp_path / "s.zarr", client=client, log=log, **how)
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        with urlopen(f"http://127.0.0.1:{worker['services']['dashboard']}/metrics", timeout=60) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    found = {(s.name, s.labels.get("phase")): s.value for family in families for s in family.samples}
    assert found["swathe_blocks_total", None] == 6
    assert found["swathe_blocks_failed_total", None] == found["swathe_blocks_retried_total", None] == 0
    totals = log.totals()
    assert found["swathe_bytes_read_total", None] == totals["bytes_read"] > 0
    assert found["swathe_bytes_written_total", None] == totals["bytes_written"] > 0
    for phase in ("read", "wait", "predict", "write"):
        assert found["swathe_seconds_total", phase] == pytest.approx(totals[phase])
    (event,) = [event for _, event in log.happened if event.kind == "dashboard"]
    assert event.facts["url"].startswith("http://127.0.0.1:")


def test_tries_that_fail_and_those_that_follow_are_counted():
    def of(name: str) -> float:
        return REGISTRY.get_sample_value(f"swathe_blocks_{name}_total") or 0.0

    with metrics.counting_tries("tcp://a:1", "first-0"):
        failed, retried = of("failed"), of("retried")
    with suppress(StoreError), metrics.counting_tries("tcp://a:1", "second-0"):
        raise StoreError("gone")
    for task in ("second-0", "third-1", "fourth-0"):
        with metrics.counting_tries("tcp://a:1", task):
            pass
    assert (of("failed") - failed, of("retried") - retried) == (1, 2)


def test_a_report_of_a_run_is_a_page_and_json(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    log = RunLog()
    with suppress(StoreError), log.run("segmenting", "<b>out.zarr", None):
        log.begin_blocks(Grid(), 6, 0)  # type: ignore[arg-type]
        log.tell(LOAD)
        for column in range(3):
            now[0] += 10
            log.add(summary(0, column, "tcp://a:1"))
        log.tell(RETRIED)
        raise StoreError("the disk is full")
    page, data = write_run_report(log, tmp_path / "new" / "report.html")
    found = json.loads((tmp_path / "new" / "report.json").read_bytes())
    assert (page, data) == (str(tmp_path / "new" / "report.html"), str(tmp_path / "new" / "report.json"))
    assert (found["done"], found["error"], found["predict"]) == (3, "the disk is full", 6)
    assert sum(found["throughput"]["blocks_per_s"]) * 30 / len(found["throughput"]["until_s"]) == pytest.approx(
        3, abs=0.1
    )
    assert found["events"] == [{"second": 30.0, "event": "retried", "text": RETRIED.text, "block": "1, 2"}]
    assert found["slowest"][0] == {"row": 0, "column": 0, "seconds": 4.0}
    text = (tmp_path / "new" / "report.html").read_text("utf-8")
    assert "&lt;b&gt;out.zarr" in text
    assert "<b>" not in text
    for said in ("the disk is full", "row 0, column 2: 4", "tcp://c:1", RETRIED.text, "in the network: 6"):
        assert said in text
    assert write_run_report(RunLog(), tmp_path / "folder")[0] == str(tmp_path / "folder" / "run.html")


REFUSED: list[object] = []


def _refused_once(job: TreeJob, place: tuple[int, int, int]) -> None:
    if place == (0, 0, 0) and len(REFUSED) <= RETRIES:  # so often Dask's scheduler tries without a word
        REFUSED.append(place)
        raise UnfitWorkerError("it lacks a disk")
    job.write("step", place, b"done")


def test_steps_over_a_tree_of_blocks_tell_what_happens(client, tmp_path):
    class Told(progress.Progress):
        def tell(self, event: Event) -> None:
            told.append(event)

    told: list[Event] = []
    store = open_store(write_store(tmp_path / "town.zarr", town(96, 128)))[0]
    step = Step(_refused_once, 0, lambda place: [step_file("step", place)])
    TreeJob(store, "steps").run(client, [step], lambda *_: nullcontext(Told()), "steps")
    assert [event.facts["reason"] for event in told if event.kind == "retried"] == ["it lacks a disk"]


def test_clean_and_objects_are_logged_for_a_report(client, tmp_path):
    store, first, second = write_store(tmp_path / "town.zarr", town(96, 128)), RunLog(), RunLog()
    write_clean(store, tmp_path / "clean.zarr", closing=1, client=client, show=False, log=first)
    write_objects(store, tmp_path / "objects.zarr", client=client, show=False, log=second)
    for log in (first, second):
        assert log.done == log.blocks == 4
        write_run_report(log, tmp_path / f"{log.title}.html")
        assert json.loads((tmp_path / f"{log.title}.json").read_text())["done"] == 4
