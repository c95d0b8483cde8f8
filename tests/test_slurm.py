"""Runs whose workers are jobs of a real Slurm on this machine."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm_cluster import jobs, say, slurm

from benchmarks.chaos_scene import OPTIONS, bundle_path, difference, make_reference
from benchmarks.chaos_worker import DELAY, LOG

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


def test_a_queue_that_opens_late_and_a_job_that_is_cancelled(folder: Path) -> None:
    profile, log, work, output = (folder / name for name in ("slurm.toml", "run.out", "work.log", "o.zarr"))
    profile.write_text(PROFILE.format(root=ROOT, folder=folder, DELAY=DELAY, LOG=LOG))
    say("scontrol", "update", "partition=main", "state=DOWN")
    words = [sys.executable, "-m", "swathe", "segment", folder / "scene.tif", "--model", bundle_path(folder),
             "-o", output, "--scheduler", f"slurm:{profile}", *OPTIONS]  # fmt: skip
    with log.open("wb") as out:
        command = subprocess.Popen(list(map(str, words)), stdout=out, stderr=out, cwd=folder)
    try:
        wait_for(lambda: "2 Slurm jobs pending (PartitionDown)" in log.read_text(), command, log)
        first = jobs("PENDING")
        say("scontrol", "update", "partition=main", "state=UP")
        wait_for(lambda: "end" in work.read_text() if work.exists() else False, command, log)
        say("scancel", first[0])
        assert command.wait(120) == 0, log.read_text()
    finally:
        command.kill()
        command.wait()
    workers = {line.split()[2] for line in work.read_text().splitlines()}
    assert len(workers) == 3, log.read_text()  # two, and who came for the one that was cancelled
    assert difference(folder / "reference.zarr", output) == ""
    assert not list(folder.glob("slurm-*.out"))
    assert jobs("PENDING,RUNNING") == []
