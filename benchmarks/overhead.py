"""What Swathe itself costs per block: scheduling alone, and with the writes of an empty result.

    python -m benchmarks.overhead

`scheduling`: `pipeline.jobs.tasks.map_bounded` on the in-process cluster that `run` uses by default, with a real run's
task to send and a block function that returns at once. `writing`: the same, and each block writes an all-nodata
class map and probability into its shards of a real store and its mark beside it; `without sync`: as with `--no-sync`.
Milliseconds per block, and the process's peak memory after it.

Promise: scheduling under 5 ms a block, and as much for 100,000 blocks as for 1,000; to sync what a block wrote takes 15
ms a block at most. A block of 2,048 x 2,048 pixels takes the network seconds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from models.encoding import NODATA
from pipeline import plan
from pipeline.cluster.connect import dask_client
from pipeline.grid.block_result import BlockResult
from pipeline.grid.tiling import make_plan
from pipeline.inference.run import Network
from pipeline.jobs.job import Task
from pipeline.jobs.tasks import map_bounded
from pipeline.store.lifecycle import create_store
from pipeline.store.metadata import StoreMetadata
from pipeline.store.store import BlockIndex, Summary

from .child import peak_bytes, table, workplace
from .networks import make_bundle
from .scenes import write_scene

THREADS = 3  # as `run` has in its own process
ACROSS = 100  # blocks in a row
BLOCK = 64  # pixels


def return_at_once(task: Task, place: BlockIndex) -> Summary:
    """Do nothing with a block."""
    return Summary(*place, (0, 0, 0), 0.0)


def write_nothing(task: Task, place: BlockIndex) -> Summary:
    """Write nodata and the mark, as a block without observed pixels does."""
    window = task.store.window(*place)
    empty = np.full(window.shape, NODATA, np.uint8)
    task.store.write(place[0], window, BlockResult(empty, empty[None]))
    summary = Summary(*place, (0, 0, empty.size), 0.0)
    task.store.mark_done(summary)
    return summary


def make_task(folder: Path, blocks: int, *, sync: bool = True) -> Task:
    """Make what a real run of that many blocks sends with each of them, with an empty store."""
    write_scene(folder / "scene.tif", 256)
    prepared = plan(folder / "scene.tif", make_bundle(folder))
    shape = (-(-blocks // ACROSS) * BLOCK, ACROSS * BLOCK)
    cut = make_plan(shape, prepared.inference.metadata.receptive_field, tile=BLOCK, block=BLOCK)
    geobox = replace(prepared.geobox, height=shape[0], width=shape[1])
    inference = replace(prepared.inference, plan=cut)
    classes, path = inference.metadata.classes, str(folder / f"{blocks}.zarr")
    store = create_store(path, geobox, StoreMetadata(cut, inference.encoding, classes, {}), sync=sync)
    return Task(Network(prepared.source, inference), store, len(classes))


def seconds_for(function: Callable[[Any, BlockIndex], Summary], task: Task, blocks: int) -> float:
    """Run that many blocks through the cluster; starting and closing it does not count."""
    with dask_client(None, THREADS) as client:
        started = time.perf_counter()
        done = sum(1 for _ in map_bounded(client, function, task, _places(blocks), key=f"overhead-{blocks}"))
        seconds = time.perf_counter() - started
    if done != blocks:
        raise RuntimeError(f"{blocks} blocks went in, {done} came out")
    return seconds


def _places(blocks: int) -> Iterator[BlockIndex]:
    return ((0, *divmod(number, ACROSS)) for number in range(blocks))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The cost of scheduling and of writing a block.")
    parser.add_argument("--blocks", type=int, nargs="+", default=[1000, 10_000, 100_000], help="for scheduling")
    parser.add_argument("--writes", type=int, nargs="+", default=[1000, 10_000], help="for writing")
    parser.add_argument("--folder", type=Path, help="where the bundle and the empty stores go and stay")
    chosen = parser.parse_args(arguments)
    rows = []
    with workplace(chosen.folder) as folder:
        for name, function, counts in (
            ("scheduling", return_at_once, chosen.blocks),
            ("writing", write_nothing, chosen.writes),
            ("writing without sync", write_nothing, chosen.writes),
        ):
            for blocks in counts:
                seconds = seconds_for(function, make_task(folder, blocks, sync="without" not in name), blocks)
                each, peak = f"{seconds / blocks * 1e3:.2f}", f"{peak_bytes() / 1e9:.2f} GB"
                rows.append([name, f"{blocks:,}", f"{seconds:.1f}", each, peak])
                print(f"{name}: {blocks:,} blocks, {each} ms each", flush=True)
    print(f"\n{table(['', 'blocks', 'seconds', 'ms each', 'memory'], rows)}")


if __name__ == "__main__":
    main()
