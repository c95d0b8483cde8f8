"""Workers that lack something are left out by name, and the others do the run: real worker processes."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest
from distributed import Client, get_worker
from helpers import PAGE, metadata, pixels, save, write_raster

from models.errors import ClusterError
from pipeline import run
from pipeline.cluster import check as checking
from pipeline.cluster.check import checked_workers
from pipeline.cluster.current import current_check
from pipeline.cluster.on_worker import Requirements
from pipeline.jobs.tasks import map_bounded

DASK = str(Path(sys.executable).parent / "dask")
NAMES = ("o.zarr", "here.zarr")
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("swathe", "pipeline", "models", "train"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
"""
OLD = "import swathe; swathe.__version__ = '0.0.9'"
OTHER_DASK = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: "2020.1" if name == "dask" else real(name)
"""
OTHER_GDAL = "import rasterio; rasterio.__gdal_version__ = '2.4.0'"


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[Client]:
    """A scheduler without workers, in a process of its own."""
    found = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", *PAGE, "--scheduler-file", str(found)]
    with _process([DASK, *command]), Client(scheduler_file=_wait_for(found), set_as_default=False) as client:
        yield client


def _wait_for(path: Path) -> str:
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return str(path)


@contextmanager
def _process(command: list[str], **more) -> Iterator[subprocess.Popen]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen([*command], **quiet, **more)
    try:
        yield started
    finally:
        started.kill()  # it ends one that is stopped, too
        started.wait()


@dataclass(frozen=True)
class Lack:
    """What is wrong with a worker: what it runs first, what is mounted over its paths, its environment."""

    preload: str = ""
    mounts: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def _workers(client: Client, folder: Path, **lacks: Lack) -> Iterator[dict[str, str]]:
    """Start workers, all at a time; yield their addresses by name when the scheduler knows them."""
    with ExitStack() as stack:
        for name, lack in lacks.items():
            command = [DASK, "worker", client.scheduler.address, "--name", name, "--nthreads", "1", "--no-nanny"]
            command += [*PAGE, "--host", "127.0.0.1", "--local-directory", str(folder / f"local-{name}")]
            if lack.preload:
                (folder / f"{name}.py").write_text(lack.preload)
                command += ["--preload", str(folder / f"{name}.py")]
            if lack.mounts:
                inside = " && ".join([*(f"mount {mount}" for mount in lack.mounts), f"exec {shlex.join(command)}"])
                command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", inside]
            stack.enter_context(_process(command, env={**os.environ, **lack.environment}))
        until = time.monotonic() + 60
        while not lacks.keys() <= (known := _named(client)).keys() and time.monotonic() < until:
            time.sleep(0.05)
        yield known
    while lacks.keys() & _named(client).keys():
        time.sleep(0.05)


def _named(client: Client) -> dict[str, str]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {worker["name"]: address for address, worker in workers.items()}


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", pixels((3, 100, 100)))


@pytest.fixture
def out(tmp_path):
    """A folder for outputs."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def own_mounts():
    """Skip where no process may have mounts of its own."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("only root may give a process mounts of its own")


def test_a_worker_without_swathe_is_named_and_left_out(scheduler, scene, out, tmp_path):
    (out / ".o.zarr.check").mkdir()  # as a killed run leaves it
    with _workers(scheduler, tmp_path, good=Lack(), bad=Lack(HIDE)) as known:
        with pytest.raises(ClusterError, match=r"GB of memory there, and this takes 1000000\.0 GB"):
            checked_workers(scheduler, Requirements(memory=10**15)).__enter__()
        with checked_workers(scheduler, Requirements((str(scene),)), str(out / "o.zarr")):
            check = current_check(scheduler)
            reason = f"no Swathe there (No module named 'swathe'); pip install swathe=={version('swathe')}"
            assert check.unfit == {known["bad"]: reason}
            assert check.allowed() == [known["good"]]
            assert check.news() == [(known["bad"], reason)]
            assert check.news() == []
            assert (out / ".o.zarr.check").is_dir()
        assert current_check(scheduler) is None
        assert _named(scheduler) == known  # others may use it
    assert list(out.iterdir()) == []
    assert _plugins(scheduler) == []


def _plugins(client: Client) -> list[str]:
    """Return what runs have left with the scheduler."""
    return client.run_on_scheduler(lambda dask_scheduler: [n for n in dask_scheduler.worker_plugins if "swathe" in n])


KILLED = """
import os, sys
from distributed import Client
from pipeline.cluster.check import checked_workers
from pipeline.cluster.on_worker import Requirements
client = Client(sys.argv[1], set_as_default=False)
with checked_workers(client, Requirements(), sys.argv[2], strict=False):
    while not client.run_on_scheduler(lambda dask_scheduler: any("swathe" in n for n in dask_scheduler.worker_plugins)):
        pass
    os._exit(9)
"""


def test_what_a_killed_client_leaves_with_the_scheduler_goes_with_the_next_run(scheduler, out):
    killed = subprocess.run([sys.executable, "-c", KILLED, scheduler.scheduler.address, str(out / "o.zarr")])
    assert killed.returncode == 9
    (left,) = _plugins(scheduler)
    with checked_workers(scheduler, Requirements(), str(out / "another.zarr"), strict=False):
        until = time.monotonic() + 60
        while (left in _plugins(scheduler) or not _plugins(scheduler)) and time.monotonic() < until:
            time.sleep(0.05)
        (own,) = _plugins(scheduler)  # that of a client that is there stays
        assert own != left
        with checked_workers(scheduler, Requirements(), str(out / "third.zarr"), strict=False):
            assert own in _plugins(scheduler)
    assert _plugins(scheduler) == []


@pytest.mark.slow
def test_none_that_is_fit_ends_before_anything_is_written(scheduler, scene, out, tmp_path, bundle_of):
    lacks = {"old": Lack(OLD), "gdal": Lack(OTHER_GDAL), "dask": Lack(OTHER_DASK), "bare": Lack(HIDE)}
    with _workers(scheduler, tmp_path, **lacks):
        with pytest.raises(ClusterError, match="no worker of the cluster can do this run: tcp://") as caught:
            run(scene, bundle_of(), out / "o.zarr", client=scheduler, show=False)
        reasons = {"no Swathe there", "Swathe 0.0.9 there, ", "GDAL 2.4 there, ", "dask 2020.1 there, "}
        assert sum(reason in str(caught.value) for reason in reasons) == 3
        assert "and 1 more" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_another_disk_another_scene_and_a_full_disk(own_mounts, scheduler, scene, out, tmp_path):
    other = write_raster(tmp_path / "other.tif", pixels((3, 100, 100), seed=1))
    (tmp_path / "local-full").mkdir()
    lacks = {
        "good": Lack(),
        "apart": Lack(mounts=(f"-t tmpfs none {out}",)),
        "readonly": Lack(mounts=(f"--bind {out} {out}", f"-o remount,ro,bind {out}")),
        "other": Lack(mounts=(f"--bind {other} {scene}",)),
        "full": Lack(mounts=(f"-t tmpfs -o size=1m none {tmp_path}/local-full",)),
    }
    with (
        _workers(scheduler, tmp_path, **lacks) as known,
        checked_workers(scheduler, Requirements((str(scene),)), str(out / "o.zarr")),
    ):
        check = current_check(scheduler)
        assert check.allowed() == [known["good"]]
        assert {name: check.unfit[known[name]] for name in ("apart", "readonly", "other")} == {
            "apart": f"{out} is not the same folder there; give an output on a disk that all workers share, or a URL",
            "readonly": f"{out} cannot be written to there: Read-only file system",
            "other": f"{scene} is another file there; workers read scenes by the same path",
        }
        assert f"1 MB are free in {tmp_path}/local-full/" in check.unfit[known["full"]]


@pytest.mark.slow
def test_a_bundle_that_workers_lack_is_given_to_them(own_mounts, scheduler, scene, out, tmp_path, bundle_of):
    bundle, other = save(tmp_path / "bundle", metadata(), seed=44).path, bundle_of().path
    lacks = {
        "without": Lack(mounts=(f"-t tmpfs none {bundle}",), environment={"SWATHE_CACHE": str(tmp_path / "one")}),
        "other": Lack(mounts=(f"--bind {other} {bundle}",), environment={"SWATHE_CACHE": str(tmp_path / "two")}),
        "bare": Lack(HIDE),
    }
    options = {"block": 32, "engine": "torch", "show": False}
    with _workers(scheduler, tmp_path, **lacks):
        run(scene, bundle, out / "o.zarr", client=scheduler, **options)
        assert len({path.stem for path in tmp_path.glob("*/swathe/bundles/*.zip")}) == 1
        assert len(list(tmp_path.glob("*/swathe/bundles/*.zip"))) == 2
    run(scene, bundle, out / "here.zarr", **options)
    shards = [sorted(p.read_bytes() for p in (out / name / "class_map/c").rglob("*") if p.is_file()) for name in NAMES]
    assert shards[0] == shards[1]
    assert sorted(path.name for path in out.iterdir()) == sorted(NAMES)


@pytest.mark.slow
def test_workers_that_come_late_are_looked_at_before_they_get_a_task(scheduler, scene, out, tmp_path):
    def where(_, item):
        time.sleep(0.05)
        return get_worker().name

    with (
        _workers(scheduler, tmp_path, good=Lack()),
        checked_workers(scheduler, Requirements((str(scene),)), str(out / "o.zarr")),
        closing(map_bounded(scheduler, where, None, iter(range(10**6)), key="late")) as results,
    ):
        assert next(results) == "good"
        with _workers(scheduler, tmp_path, late=Lack(), bare=Lack(HIDE), old=Lack(OLD)) as known:
            check, names = current_check(scheduler), []
            until = time.monotonic() + 120
            while not (names.count("late") > 5 and len(check.unfit) == 2) and time.monotonic() < until:
                names.append(next(results))
                if len(names) % 20 == 0:
                    check.look(list(known.values()))
            assert set(names) == {"good", "late"}
            assert check.unfit.keys() == {known["bare"], known["old"]}


@pytest.mark.slow
def test_a_worker_that_never_answers_is_not_waited_for(scheduler, scene, out, tmp_path, monkeypatch):
    monkeypatch.setattr(checking, "SILENT", 5)
    with _workers(scheduler, tmp_path, good=Lack(), stopped=Lack()) as known:
        with checked_workers(scheduler, Requirements()):
            assert current_check(scheduler).allowed() is None  # and what takes long is imported there
        (stopped,) = scheduler.run(os.getpid, workers=[known["stopped"]]).values()
        os.kill(stopped, signal.SIGSTOP)
        with checked_workers(scheduler, Requirements((str(scene),)), str(out / "o.zarr")):
            check = current_check(scheduler)
            assert check.allowed() == [known["good"]]
            assert check.unfit == {known["stopped"]: "it does not answer within 5 s"}
            os.kill(stopped, signal.SIGCONT)
            until = time.monotonic() + 60
            while check.unfit and time.monotonic() < until:
                check.look(list(known.values()))
                time.sleep(0.05)
            assert check.allowed() is None
