"""Dask, as we use it: found or said to be missing, one window of tasks, no ports, no noise, no endless waits."""

import logging
import operator
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import LocalCluster
from helpers import PAGE, metadata, pixels, save, write_raster

from models.errors import BundleError, ClusterError, SceneError
from pipeline import plan, run
from pipeline.cluster import probe
from pipeline.cluster.connect import check_client, dask_client
from pipeline.cluster.options import Cluster
from pipeline.cluster.processes import LocalProcesses
from pipeline.cluster.workers import gpu_resources, worker_threads
from pipeline.inference.run import Segmentation
from pipeline.jobs import watch
from pipeline.jobs.job import run_job
from pipeline.jobs.tasks import map_bounded

BIN = Path(sys.executable).parent


def double(factor, item):
    return factor * item


def refuse(_, item):
    raise SceneError(f"no {item}")


def fail(_, item):
    raise RuntimeError(f"defect {item}")


def exhaust(_, item):
    raise MemoryError


def hog(*_):
    held = [bytearray(os.urandom(2**20)) for _ in range(1500)]
    time.sleep(5)
    return len(held)


# an address


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "foo://host:1", "http://127.0.0.1:8787", " "])
def test_what_is_no_address_is_refused_at_once(address):
    began = time.monotonic()
    with pytest.raises(ClusterError, match="is not a scheduler's address; give one as tcp://host:8786"):
        dask_client(address, 1).__enter__()
    assert time.monotonic() - began < 2


def test_nobody_there(monkeypatch, capfd):
    monkeypatch.setattr(probe, "TIMEOUT", 1)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 within 1 s"):
        dask_client("tcp://127.0.0.1:9", 1).__enter__()
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_nobody_there_takes_no_longer_than_said():
    began = time.monotonic()
    with pytest.raises(ClusterError, match="within 10 s"):
        dask_client("tcp://127.0.0.1:9", 1).__enter__()
    assert time.monotonic() - began < 12


@pytest.mark.parametrize(
    ("says", "said"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, "is not Dask"), (b"", "answers at")]
)
def test_another_program_at_the_address(monkeypatch, says, said):
    monkeypatch.setattr(probe, "TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = threading.Thread(target=_answer, args=(server, says))
        answers.start()
        began = time.monotonic()
        with pytest.raises(ClusterError, match=said):
            dask_client(f"tcp://127.0.0.1:{server.getsockname()[1]}", 1).__enter__()
        assert time.monotonic() - began < 6
    answers.join()


def _answer(server: socket.socket, says: bytes) -> None:
    server.settimeout(2)
    held = []
    try:
        while len(held) < 20:
            held.append(server.accept()[0])
            held[-1].sendall(says)
    except OSError:
        pass
    for connection in held:
        connection.close()


# in this process


def test_no_port_is_open_to_others_and_all_ends_quietly(capfd):
    levels = [handler.level for handler in logging.getLogger("distributed").handlers]
    before = {c.laddr for c in psutil.Process().net_connections("inet")}
    with dask_client(None, 2) as client:
        there = [c for c in psutil.Process().net_connections("inet") if c.laddr not in before]
        assert {c.laddr.ip for c in there} <= {"127.0.0.1", "::1"}
        assert not [c for c in there if c.raddr and c.raddr.ip not in ("127.0.0.1", "::1")]
        assert worker_threads(client) == 2
        assert gpu_resources(client) is None
        assert list(map_bounded(client, operator.call, abs, [-3], key="once")) == [3]
    assert client.status == "closed"
    assert {c.laddr for c in psutil.Process().net_connections("inet")} <= before
    assert [handler.level for handler in logging.getLogger("distributed").handlers] == levels
    assert capfd.readouterr().err == ""


def test_a_client_that_is_given_stays_open(client):
    with dask_client(client, 1) as same:
        assert same is client
    assert client.status == "running"


# processes of this machine


def test_worker_processes_hear_this_machine_alone_and_end_with_the_run(capfd):
    before = dict(os.environ)
    with dask_client(LocalProcesses(2), 1) as client:
        assert dict(os.environ) == before
        pids = [
            client.submit(os.getpid, pure=False, workers=[address]).result()
            for address in client.scheduler_info()["workers"]
        ]
        assert len({os.getpid(), *pids}) == 3
        there = [c for pid in (os.getpid(), *pids) for c in psutil.Process(pid).net_connections("inet")]
        assert {c.laddr.ip for c in there} <= {"127.0.0.1", "::1"}
        assert worker_threads(client) == 2
        blocked = client.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result()
        assert signal.SIGINT in blocked  # which a terminal sends to all of them
        with pytest.raises(ClusterError, match=r"received int$"):  # and not on which worker: it is this machine
            list(map_bounded(client, operator.call, check_client, [3], key="once"))
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert capfd.readouterr().err == ""


def test_processes_write_the_same_bytes(scene, bundle_of, tmp_path):
    options = {"block": 32, "engine": "openvino", "threads": 2, "show": False}
    written = []
    for workers in (None, 2):
        store = tmp_path / f"{workers}.zarr"
        result = run(scene, bundle_of(), store, workers=workers, **options)
        assert (result.blocks, result.resumed) == (16, 0)
        shards = [path for name in ("class_map", "probability") for path in (store / name).rglob("*") if path.is_file()]
        written.append({path.relative_to(store): path.read_bytes() for path in shards})
    assert written[0] == written[1]
    again = run(scene, bundle_of(), store, workers=1, **options)  # how many there are does not decide pixels
    assert again.resumed == again.blocks


def test_each_process_has_its_share_of_the_cores(scene, bundle_of):
    job = Segmentation(plan(scene, bundle_of(), threads=6))
    assert job.share_among(LocalProcesses(4)).prepared.inference.spec.threads == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"workers": 0}, "workers is a number of processes, 1 or more; received 0"),
        ({"workers": 2.5}, "received 2.5"),
        ({"workers": 2, "client": "tcp://127.0.0.1:8786"}, "give one of them"),
    ],
)
def test_numbers_of_processes_that_make_no_sense_are_refused(tmp_path, more, said):
    with pytest.raises(ClusterError, match=said) as caught:
        run("nowhere.tif", "buildings", tmp_path / "o.zarr", **more)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_script_that_starts_processes_as_it_is_imported_ends_and_is_told(scene, bundle_of, tmp_path):
    script = (
        f"from swathe import run\nrun({str(scene)!r}, {str(bundle_of().path)!r}, 'o.zarr', workers=2, show=False)\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_quietly_and_the_same_command_goes_on(bundle_of, tmp_path):
    scene, store = write_raster(tmp_path / "scene.tif", pixels((3, 700, 900))), tmp_path / "o.zarr"
    command = [BIN / "swathe", "segment", scene, "-m", bundle_of().path, "-o", store, "--workers", "2", "--block", "64"]
    running = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, start_new_session=True)
    while len(list(store.glob(".swathe/0.*.json"))) < 10 and running.poll() is None:
        time.sleep(0.02)
    started = psutil.Process(running.pid).children(recursive=True)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: all of them
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "stopped; what is finished is kept, run the same command again to continue" in err
    assert "Traceback" not in err
    assert "leaked" not in err
    assert len(started) >= 2
    assert psutil.wait_procs(started, timeout=10)[1] == []
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "of them done before" in again.stdout


# the window of tasks


def test_every_item_once_and_few_at_a_time(client):
    taken = []

    def items():
        for item in range(200):
            taken.append(item)
            yield item

    results = map_bounded(client, double, 2, items(), key="double")
    first = next(results)
    assert len(taken) < 60  # nine wait at the workers, and as many again for each result that has come meanwhile
    assert sorted([first, *results]) == [2 * item for item in range(200)]


def test_nothing_to_do_is_no_result(client):
    assert list(map_bounded(client, double, 2, [], key="none")) == []


def test_what_becomes_ready_by_results_is_run_too(client):
    """A tree of sums from its leaves up: nothing is there to give, at times, while much is under way."""
    ready, given = list(range(16)), []

    def items():
        class Ready:
            def __iter__(self):
                return self

            def __next__(self):
                if not ready:
                    raise StopIteration
                given.append(ready.pop())
                return given[-1]

        return Ready()

    pairs: dict[int, int] = {}
    for result in map_bounded(client, double, 1, items(), key="ready"):
        above = 16 + result // 2
        pairs[above] = pairs.get(above, 0) + 1
        if pairs[above] == 2 and above < 31:
            ready.append(above)
    assert sorted(given) == list(range(31))


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [(refuse, SceneError, "no 0"), (exhaust, ClusterError, "memory is exhausted"), (fail, RuntimeError, "defect 0")],
)
def test_what_a_task_raises_arrives_and_the_rest_is_dropped(client, capfd, function, kind, said):
    with pytest.raises(kind, match=said):
        list(map_bounded(client, function, 2, [0] * 50, key=f"raise-{function.__name__}"))
    began = time.monotonic()
    while _waiting(client) and time.monotonic() - began < 10:
        time.sleep(0.05)
    assert not _waiting(client)
    assert capfd.readouterr().err == ""


def _waiting(client) -> list[str]:
    tasks = list(client.cluster.scheduler.tasks.values())
    return [task.key for task in tasks if task.state != "erred" and task.key.startswith("raise-")]


def test_a_cluster_without_workers_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.1)
    with (
        LocalCluster(
            n_workers=0, processes=False, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
        ) as empty,
        empty.get_client() as client,
        pytest.raises(ClusterError, match="no worker for 1 s; start workers and run the same command again"),
        dask_client(Cluster(client, patience=1), 1) as impatient,
    ):
        list(map_bounded(impatient, double, 2, [1], key="nobody"))


# what workers lack


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", pixels((3, 100, 100)))


def test_a_bundle_that_a_worker_does_not_have(scene, tmp_path, client):
    save(tmp_path / "bundle", metadata(), seed=41)
    prepared = plan(scene, tmp_path / "bundle", engine="torch", threads=1)
    shutil.rmtree(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"block 0, 0 \(rows 0 to 100, columns 0 to 100\): no bundle") as caught:
        run_job(Segmentation(prepared), tmp_path / "o.zarr", client=client, show=False)
    assert "\n" not in str(caught.value)


def test_a_bundle_that_is_another_one_there(scene, tmp_path, client):
    save(tmp_path / "bundle", metadata(), seed=42)
    prepared = plan(scene, tmp_path / "bundle", engine="torch", threads=1)
    shutil.rmtree(tmp_path / "bundle")
    save(tmp_path / "bundle", metadata(), seed=43)
    with pytest.raises(BundleError, match="is another one here: digest"):
        run_job(Segmentation(prepared), tmp_path / "o.zarr", client=client, show=False)


# clusters of processes


def processes(workers: int, **more):
    """A cluster as others start it, but open to this machine alone."""
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, **more,
    )  # fmt: skip


@pytest.mark.slow
def test_workers_out_of_memory():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        processes(1, memory_limit="500MB") as small,
        small.get_client() as client,
        pytest.raises(ClusterError, match=r"workers died again and again .*smaller --tile and --block"),
    ):
        list(map_bounded(client, hog, None, [0], key="hog"))


@pytest.mark.slow
def test_the_address_of_a_worker_is_not_the_schedulers():
    with processes(1) as some, some.get_client() as client:
        (address,) = client.scheduler_info()["workers"]
        with pytest.raises(ClusterError, match="is a Dask worker; give the scheduler's address"):
            dask_client(address, 1).__enter__()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["scheduler", "worker"])
def test_a_lost_cluster_ends_the_command_and_the_next_one_goes_on(tmp_path, lost):
    scene = write_raster(tmp_path / "scene.tif", pixels((3, 700, 900)))
    save(tmp_path / "bundle", metadata())
    address = f"tcp://127.0.0.1:{_free_port()}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path.parent}
    port = address.rsplit(":", 1)[1]
    scheduler = subprocess.Popen([BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", port, *PAGE], **quiet)
    worker = subprocess.Popen(
        [BIN / "dask", "worker", address, "--nthreads", "1", "--no-nanny", *PAGE, "--host", "127.0.0.1"],
        **quiet,
    )
    options = [
        "-m",
        tmp_path / "bundle",
        "-o",
        tmp_path / "o.zarr",
        "--block",
        "64",
        "--engine",
        "torch",
        "--threads",
        "1",
    ]
    command = [BIN / "swathe", "segment", scene, *options]
    try:
        process = subprocess.Popen([*command, "--scheduler", address], stdout=-1, stderr=-1, text=True)
        while len(list(tmp_path.glob("o.zarr/.swathe/*.json"))) < 5 and process.poll() is None:
            time.sleep(0.02)
        began = len(list(tmp_path.glob("o.zarr/.swathe/0.*.json")))
        (scheduler if lost == "scheduler" else worker).kill()
        if lost == "worker":  # a new one takes over what the old one had not ended
            worker.wait()
            worker = subprocess.Popen([BIN / "dask", "worker", address, "--nthreads", "1", *PAGE], **quiet)
        _, err = process.communicate(timeout=120)
        errors = [line for line in err.splitlines() if "segmenting" not in line and "overview" not in line]
        if lost == "worker":
            assert process.returncode == 0, err
            assert began >= 5
            return
        assert process.returncode == 1, err
        assert errors[-1].startswith("error: the Dask scheduler was lost; finished blocks are kept"), err
        assert "Traceback" not in err
        assert "distributed" not in err
        done = len(list(tmp_path.glob("o.zarr/.swathe/0.*.json")))
        again = subprocess.run(command, capture_output=True, text=True)
        assert f"{done} of them done before" in again.stdout, again.stderr
    finally:
        for process in (scheduler, worker):
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_three_runs_at_a_time_do_not_disturb_each_other(scene, tmp_path, client):
    save(tmp_path / "bundle", metadata())
    failures = []

    def one(number: int) -> None:
        try:
            run(scene, tmp_path / "bundle", tmp_path / f"{number}.zarr", client=client, show=False, block=32)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    shards = [
        sorted(p.read_bytes() for p in (tmp_path / f"{n}.zarr/class_map/c").rglob("*") if p.is_file()) for n in range(3)
    ]
    assert shards[0] == shards[1] == shards[2]
