"""What is seen of clusters: clocks that differ, nannies that are stopped, what a scheduler keeps."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import heard, in_process, nap
from distributed import Client, LocalCluster

from benchmarks.chaos_processes import Command, Host, Place, Scheduler, read_work, redone, send, wait_until
from benchmarks.chaos_scene import OPTIONS, bundle_path, difference, make_reference
from benchmarks.child import HERE
from models.errors import ClusterError
from pipeline import Cluster
from pipeline.cluster.connect import dask_client
from pipeline.jobs import watch
from pipeline.jobs.tasks import map_bounded

HOURS = 5
CLOCK = """
import os, time
right, nanoseconds, wrong = time.time, time.time_ns, int(os.environ["CLOCK"])
time.time, time.time_ns = lambda: right() + wrong, lambda: nanoseconds() + wrong * 10**9
"""


@dataclass(frozen=True)
class Hosts:
    """A scheduler, and hosts of one worker each whose clocks differ by hours."""

    folder: Path
    scheduler: Scheduler
    hosts: tuple[Host, ...]

    def stop(self, number: int) -> None:
        """Stop the nanny and the worker of a host."""
        self.hosts[number].send(signal.SIGSTOP)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "sitecustomize.py").write_text(CLOCK)  # which Python imports before all else
    scheduler = Scheduler(Place(), folder)
    hosts: list[Host] = []
    try:
        for hours in (0, HOURS, -HOURS):
            prefix = ("env", f"PYTHONPATH={folder}:{HERE}:{HERE}/tests", f"CLOCK={hours * 3600}")
            hosts.append(Host(scheduler, Place(prefix=prefix), folder, workers=1, delay=0.3))
        wait_until(lambda: all(host.is_up() for host in hosts), "workers")
        yield Hosts(folder, scheduler, tuple(hosts))
    finally:
        for host in hosts:
            host.kill()
        scheduler.kill()


@pytest.mark.slow
def test_clocks_that_differ_by_hours_let_no_worker_go(cluster: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(seconds: float, _: int) -> float:
        time.sleep(seconds)
        return time.time()

    monkeypatch.setattr(watch, "SILENT_WORKER", 4.0)
    monkeypatch.setattr(watch, "HUNG_LEAST", 4.0)
    told: list[watch.Event] = []
    with Client(cluster.scheduler.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=60)
        times = list(map_bounded(client, clock, 0.2, range(90), key="clock", tell=heard(told)))
    assert {round((there - time.time()) / 3600) for there in times} == {-HOURS, 0, HOURS}
    assert told == []


@pytest.mark.slow
def test_clocks_that_differ_by_hours_do_not_hinder_another_run(cluster: Hosts) -> None:
    folder, log, output = cluster.folder, cluster.folder / "blocks.log", cluster.folder / "o.zarr"
    make_reference(folder, size=256)
    words = ("segment", folder / "scene.tif", "-m", bundle_path(folder), "-o", output, *OPTIONS)
    first = Command(Place(), *words, "--scheduler", cluster.scheduler.address)
    wait_until(lambda: sum("end" in line for line in _lines(log)) > 3, "blocks")
    send(first.process.pid, signal.SIGINT)
    assert first.end(60) == 130, first.lines
    second = Command(Place(), *words, "--scheduler", cluster.scheduler.address)
    assert second.end(120) == 0, second.lines
    assert difference(folder / "reference.zarr", output) == ""
    work = read_work(log, output.name)
    assert len({one.pid for one in work}) == 3
    assert redone(work) <= 9  # of 16: those that three workers had


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_nannies_that_are_stopped_with_their_workers(cluster: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can end such a worker; its blocks are done elsewhere. Where no other is left, that is said."""
    monkeypatch.setattr(watch, "SILENT_WORKER", 4.0)
    told: list[watch.Event] = []
    with Client(cluster.scheduler.address, set_as_default=False) as client:
        client.wait_for_workers(3, timeout=60)
        send(cluster.hosts[0].process.pid, signal.SIGSTOP)
        found = list(map_bounded(client, nap, 0.1, range(90), key="nanny", tell=heard(told)))
        assert sorted(item for _, item in found) == list(range(90))
        assert told == []  # its worker works on
        results = map_bounded(client, nap, 0.1, range(90), key="both", tell=heard(told))
        found = [next(results)]
        cluster.stop(0)
        found += results
        assert sorted(item for _, item in found) == list(range(90))
        assert [event.kind for event in told] == ["worker-stuck"]
        with dask_client(Cluster(client, patience=3), 1) as impatient:
            results = map_bounded(impatient, nap, 0.1, range(1000), key="all")
            next(results)
            cluster.stop(1)
            cluster.stop(2)
            with pytest.raises(ClusterError, match="has had no worker for 3 s"):
                list(results)


def add(one: int, other: int) -> int:
    return one + other


def _kept(cluster: LocalCluster) -> tuple[int, int]:
    """Return how many spans, and notes of submissions in them, the scheduler keeps."""
    spans = cluster.scheduler.extensions["spans"].spans.values()
    return len(spans), sum(len(span._metadata["collections"]) for span in spans if span._metadata)


@pytest.mark.slow
def test_what_the_scheduler_keeps_does_not_grow_with_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("TIDY_EVERY", 100), ("KEPT_NOTES", 5), ("KEPT_SPANS", 5)):
        monkeypatch.setattr(watch, name, limit)
    kept = []
    with in_process(8) as cluster, Client(cluster, set_as_default=False) as client:
        for _ in range(50):
            assert sum(map_bounded(client, add, 1, range(200), key="notes")) == 20_100
            kept.append(_kept(cluster))
    assert max(spans for spans, _ in kept) <= 5 + 20, kept  # those of the last map are there
    assert max(notes for _, notes in kept) <= 5 * (5 + 20) + 100, kept  # a hundred tasks are a hundred notes at most
