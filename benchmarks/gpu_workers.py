"""Whether processes of one GPU each keep their GPUs busy: started by a run, and given to a user's scheduler.

    python -m benchmarks.gpu_workers --gpus 2 --rate 4

No GPU is needed: in each worker process stands an engine that sleeps as long as a GPU of some Mpx/s would compute, one
call at a time (`benchmarks.host`). Each notes which GPU its process was given by `CUDA_VISIBLE_DEVICES`, when its first
call began and its last ended, and how long it computed between them: `busy`. Ways:

- `local`: `run(client="local")` starts a process for each GPU;
- `GPU=1`: `swathe cluster worker` gives a process for each GPU, which declares it, to a scheduler that runs already;
- `a whole GPU a task`: the same where a task takes all of the declared GPU, so that nothing is read while it computes.

Promise: a GPU is busy 95 % of the time by the first two.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
from distributed import LocalCluster
from numpy.typing import NDArray

import models.engine as engines
import pipeline.inference.predict as prediction
from models.encoding import Encoding, Prediction
from models.engine import GPU_SLOTS, Device, EngineSpec
from pipeline import run
from pipeline.cluster import gpu_workers, serve_workers, workers

from .child import table, workplace
from .host import SleepingEngine
from .networks import make_bundle
from .scenes import write_scene

NOTES, RATE = "SWATHE_GPU_NOTES", "SWATHE_GPU_RATE"  # variables: a folder, Mpx/s
BLOCK = 512  # so that a small scene has many
STARTING = 60  # seconds that worker processes have to come
WAYS = ("local", "GPU=1", "a whole GPU a task")


class NotedEngine(SleepingEngine):
    """A sleeping engine that says in a file which GPU it has and how busy that was."""

    def __init__(self) -> None:
        super().__init__(float(os.environ[RATE]) * 1e6, slots=GPU_SLOTS)

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """See `models.engine.Engine`."""
        found = super().segment(pixels, encoding)
        facts = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "busy": self.busy, "pixels": self.computed * self.rate}
        part = Path(os.environ[NOTES]) / f"{os.getpid()}-{os.urandom(4).hex()}.part"
        part.write_text(json.dumps(facts))
        part.replace(part.with_name(f"{os.getpid()}.json"))
        return found

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """See `models.engine.Engine`."""
        raise NotImplementedError("runs ask for `segment`")


def _device(spec: EngineSpec) -> Device:
    return "cpu" if spec.device == "cpu" else "cuda"


def pretend(gpus: int) -> None:
    """Let this process believe that its machine has GPUs, which sleep."""
    engines._device = _device
    engines.gpu_name = lambda: "made up 9.0"
    prediction.make_engine = lambda *_: NotedEngine()
    gpu_workers.visible_gpus = lambda: tuple(map(str, range(gpus)))
    serve_workers.visible_gpus = gpu_workers.visible_gpus


def dask_setup(_: Any = None) -> None:
    """Dask calls it in each worker process; one without a GPU of its own has none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        pretend(1)


@contextmanager
def served(gpus: int) -> Iterator[str]:
    """Yield the address of a scheduler, with workers of one GPU each from another process."""
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        address: str = cluster.scheduler_address
        command = [sys.executable, "-m", "benchmarks.gpu_workers", "--serve", address, "--gpus", str(gpus)]
        serving = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + STARTING
            while len(cluster.scheduler_info["workers"]) < gpus and time.monotonic() < until:
                time.sleep(0.1)
            yield address
        finally:
            serving.terminate()
            serving.wait()


def measure_way(way: str, scene: Path, folder: Path, gpus: int) -> list[list[str]]:
    """Run once; return a row for each GPU."""
    notes = Path(os.environ[NOTES])
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir()
    store, options = folder / "gpu.zarr", {"engine": "torch", "device": "cuda", "block": BLOCK, "show": False}
    shutil.rmtree(store, ignore_errors=True)
    before = workers.GPU_SHARE
    started = time.perf_counter()
    if way == "local":
        done = run(scene, folder / "simple-unet", store, client="local", **options)
    else:
        with served(gpus) as address:
            workers.GPU_SHARE = before if way == "GPU=1" else 1
            started = time.perf_counter()
            done = run(scene, folder / "simple-unet", store, client=address, **options)
            workers.GPU_SHARE = before
    rate = sum(done.pixels.values()) / (time.perf_counter() - started) / 1e6
    found = sorted((json.loads(path.read_text()) for path in notes.glob("*.json")), key=lambda one: str(one["gpu"]))
    return [
        [way, one["gpu"], f"{one['busy']:.1%}", f"{one['pixels'] / 1e6:.0f}", f"{done.blocks}", f"{rate:.1f}"]
        for one in found
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Processes of one GPU each, which sleeps.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--rate", type=float, default=4, help="of each GPU, in Mpx/s")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    pretend(chosen.gpus)
    if chosen.serve:
        serve_workers.serve_workers(chosen.serve, serve_workers.WorkerOptions(), print)
        return
    with (
        workplace(chosen.folder) as folder,
        dask.config.set({"distributed.worker.preload": ["benchmarks.gpu_workers"]}),
    ):
        os.environ |= {
            NOTES: str(folder / "notes"),
            RATE: str(chosen.rate),
            "DASK_DISTRIBUTED__WORKER__PRELOAD": '["benchmarks.gpu_workers"]',
        }
        make_bundle(folder)
        scene = folder / f"scene-{chosen.size}.tif"
        if not scene.exists():
            write_scene(scene, chosen.size)
        rows = [row for way in chosen.ways for row in measure_way(way, scene, folder, chosen.gpus)]
        print(f"{chosen.size} x {chosen.size} pixels, {chosen.gpus} GPUs of {chosen.rate:g} Mpx/s that sleep\n")
        print(table(["way", "GPU", "busy", "Mpx seen", "blocks", "scene Mpx/s"], rows))


if __name__ == "__main__":
    main()
