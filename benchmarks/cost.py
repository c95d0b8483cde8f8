"""What `swathe plan --cost` says against the run that follows, on two worker processes of one thread each.

    python -m benchmarks.cost --size 4096

A scene as others (`benchmarks.scenes`), and one whose right half is nodata. For each the cost is estimated from some
blocks, and then the run is done on such workers: predicted and actual seconds, from start to end of the command, and
bytes of the shards. Promise: within 20 %.
"""

import argparse
import time
from pathlib import Path

import rasterio

from pipeline import estimate_cost, plan, run
from pipeline.cluster.options import Cluster
from pipeline.inference.prices import Prices

from .child import table, workplace
from .networks import make_bundle
from .scenes import write_scene

WORKERS = Cluster("local:2x1")
BLOCK = 512


def half_of(scene: Path, target: Path) -> None:
    """Write a scene again with its right half nodata."""
    with rasterio.open(scene) as file, rasterio.open(target, "w", **file.profile) as out:
        out.descriptions = file.descriptions
        for _, window in file.block_windows(1):
            if window.col_off < file.width // 2:
                out.write(file.read(window=window), window=window)


def shard_bytes(store: Path) -> int:
    """Return the bytes of all shards of a store."""
    files = (one for one in store.rglob("*") if one.is_file() and "c" in one.parent.parts and "blocks" not in one.parts)
    return sum(one.stat().st_size for one in files)


def compare(scene: Path, bundle: Path, store: Path, sampled: int | None) -> list[list[str]]:
    """Estimate, run, and return rows of what was predicted and what came."""
    cost = estimate_cost(plan(scene, bundle, block=BLOCK), Prices("EUR"), client=WORKERS, sampled=sampled, show=False)
    began = time.perf_counter()
    run(scene, bundle, store, client=WORKERS, block=BLOCK, show=False)
    taken = time.perf_counter() - began
    rows = []
    for name, guess, actual in (
        ("seconds", cost.hours.times(3600), taken),
        ("MB written", cost.written.times(1e-6), shard_bytes(store) / 1e6),
    ):
        rows.append([f"{scene.stem}, {name}", guess.describe(",.1f"), f"{actual:,.1f}", f"{guess.value / actual:.2f}"])
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a run was said to cost, and what it did.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--sampled", type=int, help="blocks that are done for the estimate (as many as it wants)")
    parser.add_argument("--folder", type=Path, help="where scenes, bundle and outputs go and stay")
    chosen = parser.parse_args(arguments)
    with workplace(chosen.folder) as folder:
        make_bundle(folder)
        whole, half = folder / "whole.tif", folder / "half-nodata.tif"
        write_scene(whole, chosen.size)
        half_of(whole, half)
        rows = []
        for scene in (whole, half):
            rows += compare(scene, folder / "simple-unet", folder / f"{scene.stem}.zarr", chosen.sampled)
        print(table(["", "predicted", "actual", "ratio"], rows))


if __name__ == "__main__":
    main()
