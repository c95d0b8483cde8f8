"""Workers that feed a GPU: it never waits for them, and what happens when it fails. The GPU is made up."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from distributed import Client, LocalCluster
from helpers import pixels, write_raster

import models.engine as engines
import pipeline.inference.predict as prediction
from benchmarks.host import SleepingEngine
from models import Bundle
from models.encoding import Encoding, Prediction
from models.engine import GPU_SLOTS, EngineSpec, resolve
from models.engine_memory import EngineMemory
from models.errors import ClusterError, DeviceLostError, EngineError
from pipeline import plan, run
from pipeline.cluster import gpu_workers, lost_gpus, serve_workers, workers
from pipeline.cluster.connect import dask_client
from pipeline.cluster.gpu_workers import on_gpus
from pipeline.cluster.options import Cluster
from pipeline.cluster.processes import LocalProcesses
from pipeline.cluster.serve_workers import WorkerOptions, worker_settings
from pipeline.cluster.workers import GPU_SHARE, WorkerFacts, gpu_resources
from pipeline.grid.tiling import make_plan
from pipeline.inference import worker_classes
from pipeline.inference.memory import PixelBytes
from pipeline.inference.predict import InferenceSpec, share_engine
from pipeline.inference.run import Segmentation
from pipeline.inference.worker_classes import EngineRequirement, Offer, WorkerClass, identity_of, leading_spec
from pipeline.inference.worker_tiles import OwnTiles, Recipe, choose_recipe
from pipeline.jobs import tasks
from pipeline.jobs.tasks import map_bounded

ON_GPU = {"engine": "torch", "device": "cuda", "show": False, "overviews": False, "block": 64, "tile": 64}
BLOCKS = 30
SPEED = 64 * 64 * 40  # pixels a second: a block takes a fortieth


class Watched(SleepingEngine):
    """A device that notes how many calls are under way at a time, and how many others as each one ends."""

    def __init__(self) -> None:
        super().__init__(SPEED * 9, slots=GPU_SLOTS)  # the halo makes nine of each pixel
        self.under_way = self.most = 0
        self.others: list[int] = []
        self.counting = threading.Lock()

    def segment(self, values: np.ndarray, encoding: Encoding) -> Prediction:
        with self.counting:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            return super().segment(values, encoding)
        finally:
            with self.counting:
                self.under_way -= 1
                self.others.append(self.under_way)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plans believe in a GPU; no engine is made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engines, "gpu_name", lambda: "made up")
    monkeypatch.setattr(prediction, "_engines", {})


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", pixels((3, 5 * 64, 6 * 64)))


def put_in_place(engine: Any, scene: Path, bundle: Bundle) -> None:
    planned = {name: value for name, value in ON_GPU.items() if name != "show"}
    share_engine(bundle.digest, plan(scene, bundle, **planned).inference.spec, engine)


def declared(threads: int) -> LocalCluster:
    """A worker in this process that declares a GPU, as `dask worker --resources GPU=1` does."""
    return LocalCluster(
        n_workers=1, threads_per_worker=threads, processes=False, resources={"GPU": 1},
        dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
    )  # fmt: skip


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("where", ["in this process", "on a worker that declares a GPU"])
def test_the_next_block_waits_when_a_block_is_done(where, scene, tmp_path, bundle_of):
    """Counted, not timed: as nearly every call ended, others were under way. A serial host would never have any."""
    engine = Watched()
    put_in_place(engine, scene, bundle_of())
    if where == "in this process":
        assert Segmentation(plan(scene, bundle_of(), engine="torch", device="cuda")).threads > GPU_SLOTS
        done = run(scene, bundle_of(), tmp_path / "o.zarr", **ON_GPU)
    else:
        with declared(5) as made, made.get_client() as client:
            done = run(scene, bundle_of(), tmp_path / "o.zarr", client=client, **ON_GPU)
    assert (done.blocks, len(engine.others)) == (BLOCKS, BLOCKS)
    assert engine.most >= GPU_SLOTS
    assert sum(count > 0 for count in engine.others[:-1]) >= 0.8 * BLOCKS


# a declared GPU

MEETING = threading.Barrier(8)
HERE = threading.Semaphore(8)


def meet(_: object, item: int) -> int:
    """Come back only if eight are here at once, and refuse a ninth."""
    assert HERE.acquire(blocking=False), "more at a time than share a GPU"
    MEETING.wait(timeout=20)
    HERE.release()
    return item


def test_tasks_share_a_declared_gpu():
    with declared(12) as made, made.get_client() as client:
        assert gpu_resources(client) == {"GPU": GPU_SHARE}
        found = map_bounded(client, meet, None, range(32), key="meet", resources=gpu_resources(client))
        assert sorted(found) == list(range(32))


# workers of several classes

GPU, CPU = (EngineSpec("torch", "cuda", hardware="made up 9.0"), EngineSpec("openvino", "cpu", hardware="x86_64 avx2"))
NEWER = EngineSpec("openvino", "cpu", hardware="x86_64 avx512")
GB = 10**9


def classes(*workers: tuple[EngineSpec, int]) -> tuple[list[WorkerFacts], dict[str, Offer]]:
    """Return workers of some engines and threads, as they say it themselves."""
    facts = [WorkerFacts("host", threads, GB, str(place)) for place, (_, threads) in enumerate(workers)]
    return facts, {str(place): Offer(spec, 64 * GB) for place, (spec, _) in enumerate(workers)}


@pytest.mark.parametrize(
    ("workers", "begun", "leads"),
    [
        ([(CPU, 64), (GPU, 2)], None, GPU),  # whatever there is of CPUs
        ([(CPU, 64), (GPU, 2)], identity_of(CPU), CPU),  # a run goes on as it began
        ([(GPU, 2), (CPU, 64), (NEWER, 99)], identity_of(CPU), CPU),
        ([(CPU, 4), (NEWER, 3), (CPU, 4), (NEWER, 6)], None, NEWER),  # nine threads of eight
        ([(CPU, 4), (NEWER, 3)], identity_of(GPU), CPU),  # the store will refuse it, and say why
    ],
)
def test_which_class_leads(workers, begun, leads):
    assert leading_spec(*classes(*workers), begun) == leads


@pytest.mark.parametrize(
    ("leading", "offered", "said"),
    [
        (GPU, CPU, "it would compute on a CPU, the run does on a GPU, whose probabilities differ in the last digits; "
                   "--device cpu uses CPUs alone"),
        (CPU, GPU, "on a GPU, the run does on a CPU, .*; --device cuda uses GPUs alone"),
        (CPU, NEWER, "its hardware is x86_64 avx512, the run's x86_64 avx2: probabilities differ"),
        (CPU, replace(CPU, name="torch"), "its engine is torch on cpu, the run's openvino on cpu"),
    ],
)  # fmt: skip
def test_a_worker_of_another_class_is_told_why_it_is_left_out(leading, offered, said):
    assert re.search(said, str(EngineRequirement(EngineSpec(), leading).refuse(offered)))
    assert EngineRequirement(EngineSpec(), leading).refuse(replace(leading, threads=3)) is None


def test_a_worker_without_what_is_asked_for_cannot_take_part():
    asked = EngineSpec(device="cuda")
    assert "no CUDA device is visible here" in str(EngineRequirement(asked, GPU)())


def test_where_no_worker_has_what_is_asked_for_the_run_is_refused(client):
    with pytest.raises(EngineError, match="no CUDA device is visible here"):
        WorkerClass.ask(client, EngineSpec(device="cuda"), None)


def test_workers_that_are_left_out_do_not_lead(monkeypatch):
    there, _ = classes((GPU, 2), (CPU, 4))
    check = SimpleNamespace(allowed=lambda: ["1"])
    monkeypatch.setattr(worker_classes, "current_check", lambda _: check)
    assert worker_classes._fit(None, there) == there[1:]
    monkeypatch.setattr(worker_classes, "current_check", lambda _: None)
    assert worker_classes._fit(None, there) == there


def test_each_worker_has_tiles_by_its_own_memory(bundle_of):
    """And holds as many blocks as fit; all of them write the same blocks."""
    metadata = bundle_of().metadata
    cut = make_plan((4096, 4096), metadata.receptive_field, block=1024, tile=256)
    spec = resolve(EngineSpec(device="cpu", threads=1))
    inference = InferenceSpec("", bundle_of().digest, metadata, spec, cut, Encoding(None, None, ()))
    own = OwnTiles(None, None, PixelBytes(4, 2), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.inference.worker_tiles.kept_memory", lambda *_: EngineMemory(GB // 4, 2048))
        small, large = (
            choose_recipe(WorkerFacts("", threads, memory), inference, own)
            for threads, memory in ((4, 3 * GB), (4, 64 * GB))
        )
        few = choose_recipe(WorkerFacts("", 64, 2 * GB), inference, own)
        asked = choose_recipe(WorkerFacts("", 4, 64 * GB), inference, replace(own, tile=256))
    assert small.plan.block == large.plan.block == 1024
    assert small.plan.tile * small.plan.tile_aspect < large.plan.tile * large.plan.tile_aspect
    assert (room(large), room(asked)) == (4, 4)
    assert asked.plan == cut
    assert 1 <= room(few) < 64


def room(recipe: Recipe) -> int:
    """Count how many blocks it lets in at a time."""
    count = 0
    while recipe.room.acquire(blocking=False):
        count += 1
    return count


# processes of one GPU each


def on_machine_with(gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gpu_workers, serve_workers):
        monkeypatch.setattr(module, "visible_gpus", lambda: gpus)


def test_processes_of_this_machine_have_a_gpu_each(monkeypatch):
    on_machine_with((), monkeypatch)
    assert on_gpus("local:3") == "local:3"
    on_machine_with(("0", "GPU-1d2"), monkeypatch)
    assert on_gpus("local") == LocalProcesses(2, gpus=("0", "GPU-1d2"))
    assert on_gpus(Cluster("local:3x4")) == LocalProcesses(3, 4, ("0", "GPU-1d2"))
    assert on_gpus(LocalProcesses(2)) == LocalProcesses(2, gpus=("0", "GPU-1d2"))
    assert on_gpus("tcp://host:1") == "tcp://host:1"
    assert on_gpus(None) is None


@pytest.mark.parametrize(
    ("count", "named", "found"),
    [("2", None, ("0", "1")), ("2", "3,5", ("3", "5")), ("1", "GPU-a,GPU-b", ("GPU-a",)), ("0", "0,1", ()),
     ("no CUDA", None, ())],
)  # fmt: skip
def test_gpus_are_counted_in_another_process(count, named, found, monkeypatch):
    monkeypatch.setattr(gpu_workers, "may_have_cuda", lambda: True)
    monkeypatch.setattr(gpu_workers, "COUNT", f"print({count!r})")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpu_workers.visible_gpus.__wrapped__() == found


def test_workers_for_a_scheduler_are_one_for_each_gpu_or_share_of_the_cores(monkeypatch):
    on_machine_with(("0", "1"), monkeypatch)
    monkeypatch.setattr(serve_workers, "memory_limit", lambda: 64 * GB)
    monkeypatch.setattr(serve_workers, "usable_cpus", lambda: 12)
    first, second = worker_settings("tcp://127.0.0.1:8786", WorkerOptions())
    assert [one["env"] for one in (first, second)] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "01"]
    assert (first["resources"], first["nthreads"], first["memory_limit"]) == ({"GPU": 1}, 8, 32 * GB)
    assert (first["host"], first["dashboard_address"]) == ("127.0.0.1", "127.0.0.1:0")
    on_cores = worker_settings("tcp://127.0.0.1:8786", WorkerOptions(gpus=False, threads=5, memory="3 GB"))
    assert [(one["nthreads"], one["memory_limit"]) for one in on_cores] == [(5, 3 * GB)] * 2
    assert not any("resources" in one or "env" in one for one in on_cores)


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("tcp://127.0.0.1:1", {"gpus": True}, "no CUDA device is visible here"),
        ("tcp://127.0.0.1:1", {"memory": "much"}, "'much' is no size of memory"),
        ("tcp://127.0.0.1:1", {"threads": 0}, "at least one thread; received 0"),
        ("tcp://no.such.host.invalid:1", {}, "cannot be reached from here"),
    ],
)
def test_workers_that_cannot_be_started_are_refused(address, options, said, monkeypatch):
    on_machine_with((), monkeypatch)
    with pytest.raises(ClusterError, match=said):
        worker_settings(address, WorkerOptions(**options))


def see_gpu(seconds: float, item: int) -> str:
    time.sleep(seconds)
    return f"{os.environ.get('CUDA_VISIBLE_DEVICES')} {os.getppid()}"


def test_local_processes_see_one_gpu_each():
    with dask_client(LocalProcesses(2, gpus=("0", "7")), 3) as client:
        assert gpu_resources(client) == {"GPU": GPU_SHARE}
        found = set(map_bounded(client, see_gpu, 0.2, range(16), key="see", resources=gpu_resources(client)))
    assert {one.split()[0] for one in found} == {"0", "7"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") is None


SERVE = """
import sys
from pipeline.cluster import serve_workers as serving
if __name__ == "__main__":
    serving.visible_gpus, serving.GRACE = lambda: ("4", "5"), 100
    serving.serve_workers(sys.argv[1], serving.WorkerOptions(threads=2), lambda text: print(text, flush=True))
"""


@pytest.mark.slow
def test_workers_of_another_process_finish_and_leave_at_sigterm(tmp_path):
    """A queue may send it to all processes of a job, so all of them get it here; nothing is counted as a death."""
    (tmp_path / "serve.py").write_text(SERVE)
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    with (
        LocalCluster(
            n_workers=0,
            threads_per_worker=4,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as made,
        Client(made, set_as_default=False) as client,
    ):
        command = [sys.executable, str(tmp_path / "serve.py"), client.scheduler.address]
        serving = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        try:
            client.wait_for_workers(2, timeout=60)
            family = [psutil.Process(serving.pid), *psutil.Process(serving.pid).children(recursive=True)]
            listening = {c.laddr.ip for one in family for c in one.net_connections("inet") if c.status == "LISTEN"}
            assert listening == {"127.0.0.1"}
            found: list[str] = []
            results = map_bounded(client, see_gpu, 0.3, range(40), key="leave")
            reading = threading.Thread(target=lambda: found.extend(results))
            reading.start()
            while not found and reading.is_alive():
                time.sleep(0.05)
            os.killpg(serving.pid, signal.SIGTERM)
            assert serving.wait(timeout=150) == 0
            before = len(found)
            assert before < 40
            worst = client.run_on_scheduler(
                lambda dask_scheduler: max(task.suspicious for task in dask_scheduler.tasks.values())
            )
            assert worst == 0
            made.scale(1)  # which does what is left
            reading.join(timeout=60)
        finally:
            serving.kill()
            said = serving.communicate()[0].splitlines()
    assert len(found) == 40
    assert {one.split()[0] for one in found[:before]} == {"4", "5"}
    assert len(said) == 2
    assert said[0].startswith("2 workers with one GPU each, 2 threads and ")
    assert said[1] == "finishing the blocks that are computed, and leaving"
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)


# a GPU that fails


class Failing(SleepingEngine):
    """A device that fails at some call, and at every one after."""

    def __init__(self, after: int) -> None:
        super().__init__(1e9, latency=0)
        self.left, self.counting = after, threading.Lock()

    def segment(self, values: np.ndarray, encoding: Encoding) -> Prediction:
        with self.counting:
            self.left -= 1
            if self.left < 0:
                raise DeviceLostError("the GPU failed (made up): CUDA error: unspecified launch failure")
        return super().segment(values, encoding)


@pytest.mark.usefixtures("cuda")
def test_a_gpu_that_stays_lost_ends_the_run_and_the_same_call_goes_on(scene, tmp_path, bundle_of, monkeypatch):
    made = []
    monkeypatch.setattr(prediction, "make_engine", lambda *_: made.append(Failing(0)) or made[-1])
    put_in_place(Failing(after=12), scene, bundle_of())
    with pytest.raises(DeviceLostError) as caught:
        run(scene, bundle_of(), tmp_path / "o.zarr", **ON_GPU)
    said = str(caught.value)
    assert said.startswith("block ")
    assert said.endswith(
        "the GPU failed (made up): CUDA error: unspecified launch failure; "
        "finished blocks are kept, run the same command again to continue"
    )
    assert made, "the engine that failed was asked again"
    prediction._engines.clear()
    monkeypatch.setattr(prediction, "make_engine", lambda *_: Failing(BLOCKS))
    done = run(scene, bundle_of(), tmp_path / "o.zarr", **ON_GPU)
    assert done.blocks == BLOCKS
    assert 0 < done.resumed <= 12


@pytest.mark.usefixtures("cuda")
def test_an_engine_that_fails_once_is_made_anew(scene, tmp_path, bundle_of, monkeypatch):
    monkeypatch.setattr(prediction, "make_engine", lambda *_: Failing(BLOCKS))
    put_in_place(Failing(after=12), scene, bundle_of())
    done = run(scene, bundle_of(), tmp_path / "o.zarr", **ON_GPU)
    assert (done.blocks, done.resumed) == (BLOCKS, 0)


broken: dict[int, int] = {}


def fail_first(times: int, item: int) -> int:
    if item % 10 == 3:
        broken[item] = broken.get(item, 0) + 1
        if broken[item] <= times:
            raise DeviceLostError("the GPU failed")
    return item


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of workers that were replaced; the one worker in this process pretends to be another each time."""
    gone: list[str] = []
    broken.clear()
    monkeypatch.setattr(lost_gpus, "replace_worker", lambda _, address: gone.append(address))
    monkeypatch.setattr(workers, "_address", lambda: f"tcp://10.0.0.{len(gone) + 1}:1")
    return gone


def test_blocks_of_a_lost_gpu_go_to_another_worker(client, replaced):
    assert sorted(map_bounded(client, fail_first, tasks.RETRIES + 1, range(5), key="lost")) == list(range(5))
    assert replaced == ["tcp://10.0.0.1:1"]


def test_a_block_on_which_every_gpu_fails_ends_the_run(client, replaced):
    with pytest.raises(DeviceLostError, match="the GPU failed"):
        list(map_bounded(client, fail_first, 99, range(5), key="lost-all"))
    assert replaced == ["tcp://10.0.0.1:1", "tcp://10.0.0.2:1"]


class Scheduler:
    """Stands for a client of workers with or without nannies."""

    def __init__(self, nanny: bool) -> None:
        self.nanny, self.did = nanny, list[str]()

    def restart_workers(self, workers: list[str], **_: Any) -> None:
        if not self.nanny:
            raise ValueError("Restarting workers requires a nanny to be used.")
        self.did.append(f"restart {workers}")

    def retire_workers(self, workers: list[str]) -> None:
        self.did.append(f"retire {workers}")


@pytest.mark.parametrize(
    ("nanny", "address", "did"),
    [(True, "tcp://here:1", ["restart ['tcp://here:1']"]), (False, "tcp://here:1", ["retire ['tcp://here:1']"]),
     (True, "tcp://gone:1", [])],
)  # fmt: skip
def test_a_worker_is_started_anew_or_let_go(nanny, address, did, monkeypatch):
    monkeypatch.setattr(lost_gpus, "known_workers", lambda _: {"tcp://here:1": {}})
    scheduler: Any = Scheduler(nanny)
    lost_gpus.replace_worker(scheduler, address)
    assert scheduler.did == did


def process_of(folder: str, item: int) -> int:
    """Say which process did an item; the first one of all that is asked has a GPU that is lost for good."""
    claim = Path(folder) / "broken"
    try:
        with claim.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        pass
    if claim.read_text() == str(os.getpid()):
        raise DeviceLostError("the GPU failed")
    return os.getpid()


def lose_always(_: object, item: int) -> int:
    raise DeviceLostError("the GPU failed")


@pytest.mark.slow
@pytest.mark.parametrize("function", [process_of, lose_always])
def test_a_worker_process_whose_gpu_is_lost_is_replaced(function: Callable[..., int], tmp_path):
    options = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, silence_logs=logging.CRITICAL, **options) as made,
        Client(made, set_as_default=False) as far,
    ):
        results = map_bounded(far, function, str(tmp_path), range(12), key="replace")
        if function is lose_always:
            with pytest.raises(DeviceLostError, match=r"the GPU failed\n\(on the Dask worker tcp://127"):
                list(results)
            return
        found = list(results)
        first = int((tmp_path / "broken").read_text())
        assert len(found) == 12
        assert first not in found
        assert not psutil.pid_exists(first)
        assert len(far.scheduler_info()["workers"]) == 1


def test_other_errors_of_an_engine_are_not_taken_for_a_lost_gpu(client):
    def refuse(_: object, item: int) -> int:
        raise EngineError("one tile does not fit")

    with pytest.raises(EngineError, match="one tile does not fit") as caught:
        list(map_bounded(client, refuse, None, [0], key="fit"))
    assert type(caught.value) is EngineError
