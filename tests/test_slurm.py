"""Runs whose workers are jobs of a real Slurm on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, takewhile
from pathlib import Path

import psutil
import pytest
from clusters import nap
from slurm_cluster import jobs, say, slurm

from benchmarks.chaos_scene import OPTIONS, bundle_path, difference, make_reference
from benchmarks.chaos_worker import DELAY, LOG
from models.errors import ClusterError
from pipeline import Cluster
from pipeline.cluster.connect import connected
from pipeline.cluster.launchers import jobqueue, queue_watch
from pipeline.cluster.workers import wait_for_workers
from pipeline.jobs.tasks import map_bounded

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PROFILE = """
interface = "lo"
cores = 1
memory = "4GB"
jobs = 2
environment = [
    "export DASK_DISTRIBUTED__WORKER__PRELOAD=benchmarks.chaos_worker PYTHONPATH={root}",
    "export {DELAY}=0.4 {LOG}={folder}/work.log",
]
"""


@pytest.fixture(scope="module", autouse=True)
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    with slurm(folder):
        yield folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("scene")
    make_reference(made)
    return made


def wait_for(condition: Callable[[], object], command: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert command.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@contextmanager
def running(folder: Path, log: Path, output: Path, before: str = "") -> Iterator["subprocess.Popen[bytes]"]:
    """Start a run whose workers are two jobs; some Python may run before."""
    profile = folder / "slurm.toml"
    profile.write_text(PROFILE.format(root=ROOT, folder=folder, DELAY=DELAY, LOG=LOG))
    program = f"import {jobqueue.__name__}, swathe.__main__; {before or None}; swathe.__main__.main()"
    words = [sys.executable, "-c", program, "segment", folder / "scene.tif", "--model", bundle_path(folder),
             "-o", output, "--scheduler", f"slurm:{profile}", *OPTIONS]  # fmt: skip
    with log.open("wb") as out:
        command = subprocess.Popen(list(map(str, words)), stdout=out, stderr=out, cwd=folder)
    try:
        yield command
    finally:
        command.kill()
        command.wait()


def test_a_queue_that_opens_late_and_a_job_that_is_cancelled(folder: Path) -> None:
    log, work, output = (folder / name for name in ("run.out", "work.log", "o.zarr"))
    say("scontrol", "update", "partition=main", "state=DOWN")
    with running(folder, log, output) as command:
        wait_for(lambda: "2 Slurm jobs pending (PartitionDown)" in log.read_text(), command, log)
        first = jobs("PENDING")
        say("scontrol", "update", "partition=main", "state=UP")
        wait_for(lambda: work.exists() and "end" in work.read_text(), command, log)
        heard_by = listeners(os.environ["SLURM_CONF"])
        assert len(heard_by) > 4  # Slurm's two, Dask's scheduler, and nannies and workers
        assert {address for _, address in heard_by} == {"127.0.0.1"}
        say("scancel", first[0])
        assert command.wait(120) == 0, log.read_text()
    workers = {line.split()[2] for line in work.read_text().splitlines()}
    assert len(workers) == 3, log.read_text()  # two, and who came for the one that was cancelled
    assert difference(folder / "reference.zarr", output) == ""
    assert not list(folder.glob("slurm-*.out"))
    assert jobs("PENDING,RUNNING") == []


def test_workers_leave_before_their_wall_time_and_others_come(tmp_path: Path) -> None:
    profile = tmp_path / "slurm.toml"
    profile.write_text(f"""
interface = "lo"
cores = 1
memory = "1GB"
walltime = "00:01:00"
shared_folder = "{tmp_path}"
environment = ["export PYTHONPATH={ROOT}:{ROOT}/tests"]
""")
    before = set(jobs("all"))
    with ExitStack() as stack, connected(Cluster(f"slurm:{profile}", tls="new"), 1) as client:
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        for part in ("ca_file", "cert", "key"):  # which dask-jobqueue leaves to the garbage collector
            stack.callback(getattr(client.cluster, f"_job_{part}").close)
        pids, found = set[int](), list[int]()
        end = time.monotonic() + 240
        more = takewhile(lambda _: len(pids) < 2 and time.monotonic() < end, count())
        for pid, item in map_bounded(client, nap, 1.0, more, key="nap"):
            pids.add(pid)
            found.append(item)
    assert sorted(found) == list(range(len(found)))
    assert len(pids) == 2
    states = say("squeue", "-h", "--states=all", "-o", "%i %T")
    ended = dict(line.split() for line in states.splitlines())
    states = {state for number, state in ended.items() if number not in before}
    assert "COMPLETED" in states
    assert "TIMEOUT" not in states


def listeners(word: str) -> set[tuple[int, str]]:
    """Return the processes whose environment or command line has a word, with each address that they listen at."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(word in text for text in (*process.cmdline(), *process.environ().values())):
                there = process.net_connections("inet")
                found |= {(process.pid, one.laddr.ip) for one in there if one.status == psutil.CONN_LISTEN}
    return found


def test_as_many_jobs_as_the_work_needs(tmp_path: Path) -> None:
    profile = tmp_path / "slurm.toml"
    profile.write_text(f"""
interface = "lo"
cores = 1
memory = "1GB"
maximum_jobs = 3
environment = ["export PYTHONPATH={ROOT}:{ROOT}/tests"]
""")
    with connected(Cluster(f"slurm:{profile}"), 1) as client:
        wait_for_workers(client, print)
        assert len(jobs("PENDING,RUNNING")) == 1
        pids, most = set[int](), 0
        end = time.monotonic() + 240
        more = takewhile(lambda _: len(pids) < 3 and time.monotonic() < end, count())
        for pid, _ in map_bounded(client, nap, 0.5, more, key="many"):
            pids.add(pid)
            most = max(most, len(client.scheduler_info(n_workers=-1)["workers"]))
        assert len(pids) == most == 3
        until = time.monotonic() + 120
        while len(jobs("PENDING,RUNNING")) > 1:
            assert time.monotonic() < until
            time.sleep(0.5)
    assert jobs("PENDING,RUNNING") == []


def test_jobs_end_by_themselves_where_a_run_was_killed(folder: Path) -> None:
    """Those that run see that their scheduler has ended; one that starts later waits for it for a while."""
    log, work = folder / "killed.out", folder / "work.log"
    say("scontrol", "update", "partition=main", "state=DOWN")
    try:
        with running(folder, log, folder / "killed.zarr", before=f"{jobqueue.__name__}.ALONE = 10") as command:
            wait_for(lambda: len(jobs("PENDING")) == 2, command, log)
            _, second = jobs("PENDING")
            say("scontrol", "hold", second)
            say("scontrol", "update", "partition=main", "state=UP")
            wait_for(lambda: work.exists() and "killed.zarr" in work.read_text(), command, log)
            assert second in jobs("PENDING")
            command.kill()
        say("scontrol", "release", second)
        until = time.monotonic() + 120
        while jobs("PENDING,RUNNING"):
            assert time.monotonic() < until, say("squeue")
            time.sleep(0.5)
    finally:
        say("scontrol", "update", "partition=main", "state=UP")
    states = dict(line.split() for line in say("squeue", "-h", "--states=all", "-o", "%i %T").splitlines())
    assert states[second] in ("COMPLETED", "FAILED")  # it was there, and has ended by itself


def test_a_queue_that_takes_no_job(tmp_path: Path) -> None:
    profile = tmp_path / "slurm.toml"
    profile.write_text('interface = "lo"\ncores = 1\nmemory = "1GB"\nqueue = "nope"\n')
    with pytest.raises(ClusterError, match=r"^Slurm takes no job: sbatch: error: invalid partition.*"):
        connected(Cluster(f"slurm:{profile}"), 1).__enter__()


def test_jobs_that_end_before_a_worker_comes_are_not_submitted_for_ever(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(queue_watch, "LOOK", 0.2)
    monkeypatch.setattr(queue_watch, "FRUITLESS", 2)
    profile = tmp_path / "slurm.toml"
    profile.write_text('interface = "lo"\ncores = 1\nmemory = "1GB"\npython = "/bin/false"\n')
    before = set(jobs("all"))
    said = "no worker for 20 s; 3 Slurm jobs ended before a worker came, the last"
    options = Cluster(f"slurm:{profile}", patience=20)
    with connected(options, 1) as client, pytest.raises(ClusterError, match=said):
        wait_for_workers(client, print)
    assert len(set(jobs("all")) - before) == 3


def test_jobs_are_cancelled_as_a_run_is_interrupted(folder: Path) -> None:
    log = folder / "interrupted.out"
    say("scontrol", "update", "partition=main", "state=DOWN")
    try:
        with running(folder, log, folder / "interrupted.zarr") as command:
            wait_for(lambda: "2 Slurm jobs pending" in log.read_text(), command, log)
            assert len(jobs("PENDING")) == 2
            command.send_signal(signal.SIGINT)
            assert command.wait(60) == 130
            said = "stopped; what was finished before, if anything, is kept: run the same command again"
            assert log.read_text().splitlines()[-1] == said
    finally:
        say("scontrol", "update", "partition=main", "state=UP")
    assert jobs("PENDING,RUNNING") == []
