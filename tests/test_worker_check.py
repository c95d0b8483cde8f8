"""Workers that lack something are left out by name, and the others do the run: real worker processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from distributed import Client
from helpers import pixels, write_raster

from models.errors import ClusterError
from pipeline import run
from pipeline.cluster.check import checked_workers
from pipeline.cluster.current import current_check
from pipeline.cluster.on_worker import Requirements

PYTHON = Path(sys.executable)
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
    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(found)]
    with _process(command), Client(scheduler_file=_wait_for(found), set_as_default=False) as client:
        yield client


def _wait_for(path: Path) -> str:
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return str(path)


@contextmanager
def _process(command: list[str], *before: str, **more) -> Iterator[subprocess.Popen]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen([*before, str(PYTHON.parent / "dask"), *command], **quiet, **more)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGCONT)
        started.kill()
        started.wait()


@contextmanager
def _worker(client: Client, *before: str, preload: str = "", **more) -> Iterator[str]:
    """Start a worker; yield its address when the scheduler knows it."""
    known = set(client.scheduler_info(n_workers=-1)["workers"])
    command = ["worker", client.scheduler.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    command += ["--host", "127.0.0.1", *(["--preload", preload] if preload else [])]
    with _process(command, *before, **more):
        until = time.monotonic() + 60
        while not (new := set(client.scheduler_info(n_workers=-1)["workers"]) - known) and time.monotonic() < until:
            time.sleep(0.05)
        (address,) = new
        yield address


@pytest.fixture(scope="module")
def good(scheduler) -> Iterator[str]:
    """A worker that has everything."""
    with _worker(scheduler) as address:
        yield address


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", pixels((3, 100, 100)))


def test_a_worker_without_swathe_is_left_out_and_the_others_do_the_run(scheduler, good, scene, tmp_path, bundle_of):
    (tmp_path / "hide.py").write_text(HIDE)
    with _worker(scheduler, preload=str(tmp_path / "hide.py")) as bad:
        with checked_workers(scheduler, Requirements((str(scene),)), str(tmp_path / "o.zarr")):
            check = current_check(scheduler)
            reason = f"no Swathe there (No module named 'swathe'); pip install swathe=={version('swathe')}"
            assert check.unfit == {bad: reason}
            assert check.allowed() == [good]
            assert check.news() == [(bad, reason)]
            assert check.news() == []
            assert (tmp_path / ".o.zarr.check").is_dir()
        assert current_check(scheduler) is None
        result = run(scene, bundle_of(), tmp_path / "o.zarr", client=scheduler, show=False, block=32, engine="torch")
        assert result.blocks == 16
        assert bad in scheduler.scheduler_info(n_workers=-1)["workers"]  # which others may use
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hide.py", "o.zarr", "scene.tif"]
    assert _plugins(scheduler) == []


def _plugins(client: Client) -> list[str]:
    """Return what runs have left with the scheduler."""
    return client.run_on_scheduler(lambda dask_scheduler: [n for n in dask_scheduler.worker_plugins if "swathe" in n])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preload", "said"), [(OLD, "Swathe 0.0.9 there"), (OTHER_GDAL, "GDAL 2.4 there, "), (OTHER_DASK, "dask 2020.1")]
)
def test_none_that_is_fit_ends_before_anything_is_written(scheduler, scene, tmp_path, bundle_of, preload, said):
    (tmp_path / "preload.py").write_text(preload)
    with _worker(scheduler, preload=str(tmp_path / "preload.py")):
        with pytest.raises(ClusterError, match=f"no worker of the cluster can do this run: tcp://.*: {said}") as caught:
            run(scene, bundle_of(), tmp_path / "o.zarr", client=scheduler, show=False)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preload.py", "scene.tif"]
