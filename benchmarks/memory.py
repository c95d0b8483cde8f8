"""How much memory a whole run takes, and that the size of the scene does not matter.

    python -m benchmarks.memory --sizes 2048 8192 24576

For each size the scene is generated on disk by one process, and a fresh one segments it into a Zarr store with
probabilities and overviews, and writes the COG. `run` and `cog` are that process's peak resident memory after
each of the two, as the operating system counts it: interpreter, engine and GDAL included, nothing subtracted.
`plan` is what the plan said that the run would take, and `budget` what it may: `--memory`, or the default.
`times` is the peak against that of the size before.

Promise: from the size on at which all slots have whole blocks, a scene nine times as large takes at most 1.05 times as
much, and the peak is within the budget. The default needs 4 GB of disk and some minutes.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from models import load_bundle
from models.system import peak_bytes

from .child import measure, report, run_module, table, workplace

HEADS = ["scene", "run", "cog", "plan", "budget", "block, tile", "times", "seconds", "Mpx/s"]


def run_one(scene: Path, bundle: Path, options: dict[str, Any]) -> None:
    """Segment a scene and write its COG in this process; report the peaks."""
    from pipeline import plan, run, write_cog

    loaded, store = load_bundle(bundle), scene.with_suffix(".zarr")
    prepared = plan(scene, loaded, **options)
    cut = prepared.plan
    tile = f"{cut.tallest} x {cut.tile}"
    started = time.perf_counter()
    run(scene, loaded, store, show=False, **options)
    after_run = peak_bytes()
    write_cog(store, scene.with_name("map.tif"))
    seconds = time.perf_counter() - started
    expected, budget = prepared.memory, prepared.cut.cost.budget
    report(run=after_run, cog=peak_bytes(), plan=expected, budget=budget, tile=tile, block=cut.block, seconds=seconds)


def measure_size(size: int, folder: Path, engine: str, memory: str | None) -> dict[str, Any]:
    """Generate a scene, measure a run over it, and remove all of it."""
    here = folder / str(size)
    here.mkdir(exist_ok=True)
    scene = here / "scene.tif"
    run_module("benchmarks.scenes", size, scene)
    more = ["--memory", memory] if memory else []
    measured = measure("benchmarks.memory", "--child", scene, folder / "simple-unet", "--engine", engine, *more)
    shutil.rmtree(here)
    return measured


def _row(size: int, measured: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    return [
        f"{size} x {size}",
        f"{measured['run'] / 1e9:.2f} GB",
        f"{measured['cog'] / 1e9:.2f} GB",
        f"{measured['plan'] / 1e9:.2f} GB",
        f"{measured['budget'] / 1e9:.2f} GB",
        f"{measured['block']}, {measured['tile']}",
        f"{measured['cog'] / before['cog']:.2f}" if before else "",
        f"{measured['seconds']:.1f}",
        f"{size * size / measured['seconds'] / 1e6:.2f}",
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Peak memory of whole runs.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192, 24576], help="rows and columns")
    parser.add_argument("--engine", default="auto", help="auto, torch or openvino")
    parser.add_argument("--memory", help="budget of the run, as '6 GB'")
    parser.add_argument("--folder", type=Path, help="where scenes and outputs go while they are needed")
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        scene, bundle = chosen.child
        run_one(scene, bundle, {"engine": chosen.engine, "memory": chosen.memory})
        return
    from .networks import make_bundle  # not in a child: it brings torch, which a run with OpenVINO never imports

    with workplace(chosen.folder) as folder:
        make_bundle(folder)
        rows, before = [], None
        for size in chosen.sizes:
            measured = measure_size(size, folder, chosen.engine, chosen.memory)
            rows.append(_row(size, measured, before))
            before = measured
            print(f"{size}: {measured['cog'] / 1e9:.2f} GB, {measured['seconds']:.1f} s", flush=True)
    print(f"\n{table(HEADS, rows)}")


if __name__ == "__main__":
    main()
