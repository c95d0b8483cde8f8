"""One process with threads against several processes: from which network on `--workers` is worth its start.

    python -m benchmarks.workers --size 8192 --workers 2

The same scene by `run` in one process and in several, with a network that costs nothing (`benchmarks.host`), where
reading and writing are all there is and threads wait for each other most, and with SimpleUNet in fp32; into stores of
class map, probabilities and overviews.

`seconds` and `cpu s` are of a whole run, `start` of one over a scene of a single tile: processes must be started and
import what they need each time. `Mpx/s` is without that start, as a scene without end would have it. Each measurement
is a fresh process that has done the small scene before; rounds are interleaved, medians are given.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import dask

from models.system import usable_cpus

from .child import cpu_seconds, measure, report, table, workplace
from .networks import make_bundle
from .scenes import write_scene

NETWORKS = ("free", "simple-unet")
WARM = 512  # side of the scene that shows the start


def dask_setup(_: Any = None) -> None:
    """Let this process make an engine that costs nothing; Dask calls it in each worker that it starts."""
    import pipeline.inference.predict as predict

    from .host import FreeEngine

    predict.make_engine = lambda *_: FreeEngine()


def run_one(network: str, workers: int, folder: Path) -> None:
    """Measure runs in this process and those that it starts, and report them."""
    from pipeline import run

    if network == "free":
        dask_setup()
        dask.config.set({"distributed.worker.preload": ["benchmarks.workers"]})
    store, taken = folder / "out.zarr", []
    for name in ("warm.tif", "warm.tif", "scene.tif"):
        shutil.rmtree(store, ignore_errors=True)
        before, started = cpu_seconds(), time.perf_counter()
        done = run(folder / name, folder / "simple-unet", store, workers=workers, show=False)
        taken.append((time.perf_counter() - started, cpu_seconds() - before, sum(done.pixels.values())))
    (_, (start, _, few), (seconds, cpu, pixels)) = taken
    report(seconds=seconds, cpu=cpu, start=start, rate=(pixels - few) / (seconds - start) / 1e6)


def compare(size: int, workers: int, repeats: int, folder: Path) -> None:
    """Measure in turns and print the table."""
    make_bundle(folder)
    write_scene(folder / "warm.tif", WARM)
    write_scene(folder / "scene.tif", size)
    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for case in [(network, count) for network in NETWORKS for count in (1, workers)]:
            found.setdefault(case, []).append(measure("benchmarks.workers", "--child", *case, "--folder", folder))
            print(*case, f"{found[case][-1]['seconds']:.2f} s", flush=True)
    rows = [
        [f"{network}, {count} process{'es' * (count > 1)}", *_figures(runs)] for (network, count), runs in found.items()
    ]
    print(f"\n{size} x {size} pixels, {usable_cpus()} cores, {repeats} rounds\n")
    print(table(["", "seconds", "cpu s", "start", "Mpx/s"], rows))


def _figures(runs: list[dict[str, Any]]) -> list[str]:
    return [f"{statistics.median(run[name] for run in runs):.2f}" for name in ("seconds", "cpu", "start", "rate")]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One process against several.")
    parser.add_argument("--size", type=int, default=8192, help="rows and columns")
    parser.add_argument("--workers", type=int, default=2, help="processes, beside one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    parser.add_argument("--child", nargs=2, metavar=("NETWORK", "COUNT"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.child:
        network, count = chosen.child
        run_one(network, int(count), chosen.folder)
        return
    with workplace(chosen.folder) as folder:
        compare(chosen.size, chosen.workers, chosen.repeats, folder)


if __name__ == "__main__":
    main()
