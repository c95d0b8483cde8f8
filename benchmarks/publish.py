"""How much quicker a store is published with several workers than with one.

    python -m benchmarks.publish --size 24576 --workers 2

A store of a class map as runs make it, of blobs of three classes, is published as 16 COGs by Dask workers of one
thread each, which are there and warm before the clock starts; rounds are interleaved, minima are given. `memory` is the
peak of a worker since it began, Python and its libraries with it.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from distributed import Client, LocalCluster
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from models.encoding import Encoding
from models.metadata import ClassInfo
from models.system import usable_cpus

from .child import measure, peak_bytes, report, table, workplace

UTM = "EPSG:32736"
CLASSES = (ClassInfo("ground", "000000"), ClassInfo("roof", "E4572E"), ClassInfo("water", "17BEBB"))
BLOCK = 1024
ACROSS = 4  # cells on each side


def blobs(side: int) -> NDArray[np.uint8]:
    """Return a class map of blobs, `(side, side)`."""
    smooth = gaussian_filter(np.random.default_rng(0).normal(size=(side, side)), 6, mode="wrap")
    edges = np.quantile(smooth, [0.6, 0.85])
    return np.digitize(smooth, edges).astype(np.uint8)


def write_store(path: Path, size: int) -> None:
    """Write a finished store of `size` x `size` pixels, as a run would leave it."""
    from pyproj import CRS

    from pipeline.grid.block_result import BlockResult
    from pipeline.grid.geobox import GeoBox
    from pipeline.grid.tiling import TilingPlan
    from pipeline.store.lifecycle import create_store, finish_store
    from pipeline.store.metadata import StoreMetadata

    plan = TilingPlan(size, size, stride=8, halo=32, tile=BLOCK, block=BLOCK, chunk=512, exact=True)
    geobox = GeoBox(size, size, Affine(1, 0, 0, 0, -1, 10 * size), CRS.from_user_input(UTM).to_wkt())
    metadata = StoreMetadata(
        plan, Encoding(None, None, ()), CLASSES, {"engine": "none", "precision": "fp32", "halo": 32}
    )
    store, pixels = create_store(str(path), geobox, metadata), blobs(BLOCK)
    for row, column in store.places(0):
        window = store.window(0, row, column)
        moved = np.roll(pixels, (37 * row, 91 * column), (0, 1))[: window.shape[0], : window.shape[1]]
        store.write(0, window, BlockResult(np.ascontiguousarray(moved), None))
    names = [*(info.name for info in CLASSES), "nodata"]
    finish_store(store, {"pixels": dict.fromkeys(names, 0)}, np.zeros((plan.rows, plan.columns), np.float32))


def run_one(workers: int, size: int, folder: Path) -> None:
    """Publish with so many workers, and report it."""
    from pipeline import publish

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        publish(folder / "warm.zarr", folder / f"warm-{workers}", side=512, client=client, show=False)
        started = time.perf_counter()
        made = publish(folder / "maps.zarr", folder / "out", side=size // ACROSS, client=client, show=False)
        seconds = time.perf_counter() - started
        memory = max(client.run(peak_bytes).values())
    for name in ("out", f"warm-{workers}"):
        shutil.rmtree(folder / name)
    report(seconds=seconds, memory=memory, files=made.files, size=made.size)


def compare(size: int, workers: int, repeats: int, folder: Path) -> None:
    """Measure in turns and print the table."""
    write_store(folder / "maps.zarr", size)
    write_store(folder / "warm.zarr", BLOCK)
    found: dict[int, list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for count in (1, workers):
            arguments = ("--child", count, "--size", size, "--folder", folder)
            found.setdefault(count, []).append(measure("benchmarks.publish", *arguments))
            print(f"{count} workers: {found[count][-1]['seconds']:.1f} s", flush=True)
    best = {count: min(run["seconds"] for run in runs) for count, runs in found.items()}
    rows = [
        [f"{count} worker{'s' * (count > 1)}", f"{best[count]:.1f}", f"{size**2 / best[count] / 1e6:.1f}",
         f"{max(run['memory'] for run in runs) / 1e6:.0f} MB", f"{best[1] / best[count]:.2f}"]
        for count, runs in found.items()
    ]  # fmt: skip
    files, total = (found[1][0][key] for key in ("files", "size"))
    print(
        f"\n{size} x {size} pixels as {files} COGs of {total / 1e6:.0f} MB, {usable_cpus()} cores, {repeats} rounds\n"
    )
    print(table(["", "seconds", "Mpx/s", "memory", "times as quick"], rows))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Publishing with one worker and with several.")
    parser.add_argument("--size", type=int, default=8192, help="rows and columns, a multiple of 2048")
    parser.add_argument("--workers", type=int, default=2, help="workers, beside one")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the store goes and stays")
    parser.add_argument("--child", type=int, metavar="COUNT", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.size < 2048 or chosen.size % 2048 or chosen.workers < 2 or chosen.repeats < 1:
        parser.error("--size is a multiple of 2048, --workers 2 or more, --repeats 1 or more")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.child:
        run_one(chosen.child, chosen.size, chosen.folder)
        return
    with workplace(chosen.folder) as folder:
        compare(chosen.size, chosen.workers, chosen.repeats, folder)


if __name__ == "__main__":
    main()
