"""Two workers of one core against one, on a scheduler of its own: `python -m benchmarks.cluster_scaling`.

Scheduler and workers are started by Dask's own commands, as on a real cluster, each worker with one thread, a core of
its own, and huge pages, as `swathe cluster worker` has them. The scene is 4096 x 4096 pixels in blocks of 1024, from
GeoTIFF to Zarr with probabilities and overviews, by SimpleUNet in fp32. Before it is timed, each cluster has segmented
a smaller scene in the same blocks, so that engines are made and have their memory. Rounds alternate; medians are given.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path

from distributed import Client

from pipeline import run

from .child import table, workplace
from .networks import make_bundle
from .scale import cluster_processes
from .scenes import write_scene

BLOCK, SMALL = 1024, 2048


def seconds_with(workers: int, folder: Path) -> float:
    """Return how long a run takes on so many workers."""
    output = folder / "out.zarr"
    with cluster_processes(workers, own_core=True) as (address, *_), Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=120)
        for name in ("small", "scene"):
            shutil.rmtree(output, ignore_errors=True)
            started = time.perf_counter()
            run(folder / f"{name}.tif", folder / "simple-unet", output, client=client, block=BLOCK, show=False)
        return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Two workers of one core against one.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    chosen = parser.parse_args(arguments)
    taken: dict[int, list[float]] = {1: [], 2: []}
    with workplace(chosen.folder) as folder:
        make_bundle(folder)
        write_scene(folder / "small.tif", SMALL)
        write_scene(folder / "scene.tif", chosen.size)
        for _ in range(chosen.repeats):
            for workers, found in taken.items():
                found.append(seconds_with(workers, folder))
                print(f"{workers} worker{'s' * (workers > 1)}: {found[-1]:.2f} s", flush=True)
    one, two = (statistics.median(found) for found in taken.values())
    print(table(["workers", "seconds"], [["1", f"{one:.2f}"], ["2", f"{two:.2f}"]]))
    print(f"two are {one / two:.2f} times as fast as one")


if __name__ == "__main__":
    main()
