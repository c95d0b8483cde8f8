"""What hangs is let go: schedulers and workers that are stopped, blocks that do not end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dask
import psutil
import pytest
from clusters import hang, hang_once, heard, nap, processes
from distributed import Client
from helpers import PAGE

from models.errors import ClusterError
from pipeline.cluster import ask
from pipeline.cluster.processes import STARTED_ANEW
from pipeline.cluster.workers import worker_threads
from pipeline.jobs import watch
from pipeline.jobs.tasks import map_bounded

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.usefixtures("busy_machine")


@pytest.fixture(scope="module")
def two() -> Iterator[Client]:
    """Two worker processes that have imported what a task needs before they get one, also those that come later."""
    preload = {"distributed.worker.preload": ["pipeline.jobs.tasks"]}
    with (
        dask.config.set(STARTED_ANEW | preload),
        processes(2) as cluster,
        Client(cluster, set_as_default=False) as made,
    ):
        yield made


@pytest.fixture
def both(two: Client) -> Client:
    """The two, once those that a test before let go have come back."""
    two.wait_for_workers(2, timeout=120)
    return two


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_let_go_and_its_blocks_are_done_elsewhere(monkeypatch, both):
    monkeypatch.setattr(watch, "SILENT_WORKER", 4.0)
    told: list[watch.Event] = []
    results = map_bounded(both, nap, 0.1, range(60), key="stopped", tell=heard(told))
    pid, item = next(results)
    os.kill(pid, signal.SIGSTOP)
    found = [item, *(item for _, item in results)]
    stuck = [event for event in told if event.kind == "worker-stuck"]
    assert sorted(found) == list(range(60))
    assert len(stuck) == 1
    assert "has been silent for 4 s" in stuck[0].text
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not psutil.pid_exists(pid)  # its nanny ended it, stopped as it was
    both.wait_for_workers(2, timeout=60)


@pytest.mark.slow
def test_a_block_that_hangs_is_done_elsewhere(monkeypatch, tmp_path, both):
    monkeypatch.setattr(watch, "HUNG_LEAST", 3.0)
    told: list[watch.Event] = []
    found = list(map_bounded(both, hang_once, str(tmp_path), range(12), key="hung", tell=heard(told)))
    both.wait_for_workers(2, timeout=60)  # the nanny has not gone with the one that was let go
    assert sorted(found) == list(range(12))
    assert [event.facts["reason"] for event in told if event.kind == "worker-stuck"] == [
        "block 5 has not ended within 3 s"
    ]


@pytest.mark.slow
def test_a_block_that_hangs_everywhere_is_named(monkeypatch, both):
    monkeypatch.setattr(watch, "HUNG_LEAST", 2.0)
    named = r"block 5 did not end within 8 s, nor on workers before \(tcp://"
    with pytest.raises(ClusterError, match=named) as caught:
        list(map_bounded(both, hang, None, range(12), key="hung"))
    assert "\n" not in str(caught.value)


def test_what_is_waited_for_is_told(monkeypatch, client):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(watch, "TELL_EVERY", 0.4)
    told: list[watch.Event] = []
    assert len(list(map_bounded(client, nap, 1.2, [1], key="told", tell=heard(told)))) == 1
    told = [event for event in told if event.kind != "load"]
    assert 1 <= len(told) <= 3
    assert {event.kind for event in told} == {"waiting"}
    assert "no block has finished for" in told[-1].text
    assert "1 on " in told[-1].text


@pytest.mark.slow
@pytest.mark.parametrize("stopped_first", [True, False])
def test_a_scheduler_that_is_stopped_ends_the_map_in_a_line(monkeypatch, stopped_first):
    monkeypatch.setattr(watch, "SILENT_SCHEDULER", 4.0)
    monkeypatch.setattr(ask, "SILENT_SCHEDULER", 2)
    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    path = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parent.parent)))
    quiet = {"stdout": -3, "stderr": -3, "env": {**os.environ, "PYTHONPATH": path}}  # where `nap` is
    scheduler = subprocess.Popen(
        [BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), *PAGE], **quiet
    )
    worker = subprocess.Popen(
        [BIN / "dask", "worker", address, "--nthreads", "1", "--no-nanny", *PAGE, "--host", "127.0.0.1"],
        **quiet,
    )
    client = Client(address, set_as_default=False, timeout=60)
    try:
        client.wait_for_workers(1, timeout=60)
        if stopped_first:
            scheduler.send_signal(signal.SIGSTOP)
            with pytest.raises(ClusterError, match=rf"{address} does not answer within 2 s"):
                worker_threads(client)
        silent = (
            "does not answer within 2 s" if stopped_first else r"has not answered for \d+ s; finished blocks are kept"
        )
        with pytest.raises(ClusterError, match=f"{address} {silent}"):
            _stop_at_first(map_bounded(client, nap, 0.1, range(1000), key="silent"), scheduler)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
        with suppress(TimeoutError):
            client.close(timeout=2)


def _stop_at_first(results, process):
    for _ in results:
        process.send_signal(signal.SIGSTOP)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
