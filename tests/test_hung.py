"""What hangs is let go: schedulers and workers that are stopped, blocks that do not end."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dask
import psutil
import pytest
from clusters import heard, nap, processes
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


def hang_once(folder, item):
    """Hang at the first try of item 5, as on a disk that does not answer."""
    if item == 5:
        with suppress(FileExistsError):
            (Path(folder) / "hung").touch(exist_ok=False)
            time.sleep(3600)
    time.sleep(0.05)
    return item


def hang(_, item):
    while item == 5:
        time.sleep(0.1)
    return item


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_let_go_and_its_blocks_are_done_elsewhere(monkeypatch):
    monkeypatch.setattr(watch, "SILENT_WORKER", 4.0)
    told: list[watch.Event] = []
    with processes(2) as cluster, Client(cluster, set_as_default=False) as client:
        results = map_bounded(client, nap, 0.1, range(60), key="stopped", tell=heard(told))
        pid, item = next(results)
        os.kill(pid, signal.SIGSTOP)
        found = [item, *(item for _, item in results)]
        stuck = [event for event in told if event.kind == "worker-stuck"]
        assert sorted(found) == list(range(60))
        assert len(stuck) == 1
        assert "has been silent for 4 s" in stuck[0].text
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
        assert not psutil.pid_exists(pid)  # its nanny ended it, stopped as it was
        client.wait_for_workers(2, timeout=60)


@pytest.mark.slow
def test_a_block_that_hangs_is_done_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(watch, "HUNG_LEAST", 3.0)
    told: list[watch.Event] = []
    with dask.config.set(STARTED_ANEW), processes(2) as cluster, Client(cluster, set_as_default=False) as client:
        found = list(
            map_bounded(
                client,
                hang_once,
                str(tmp_path),
                range(12),
                key="hung",
                tell=heard(told),
            )
        )
        client.wait_for_workers(2, timeout=60)  # the nanny has not gone with the one that was let go
    assert sorted(found) == list(range(12))
    assert [event.facts["reason"] for event in told if event.kind == "worker-stuck"] == [
        "block 5 has not ended within 3 s"
    ]


@pytest.mark.slow
def test_a_block_that_hangs_everywhere_is_named(monkeypatch):
    monkeypatch.setattr(watch, "HUNG_LEAST", 2.0)
    with (
        dask.config.set(STARTED_ANEW),
        processes(2) as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"block 5 did not end within 8 s, nor on workers before \(tcp://") as caught,
    ):
        list(map_bounded(client, hang, None, range(12), key="hung"))
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
