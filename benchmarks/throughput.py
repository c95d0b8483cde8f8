"""How fast a whole scene goes through: Swathe, its bare engine, and its peers. One run, one table.

    python -m benchmarks.throughput --size 4096 --repeats 3

Every contender does the same job: the same GeoTIFF and the same weights into a GeoTIFF of the class map.

swathe      `run` and `write_cog`, as `swathe segment scene.tif -o map.tif`: the class map, as a COG with overviews
auto        the same with `--precision auto`, once it was chosen, as `swathe plan` does: that is kept
auto-first  the same the first time: measuring the scene, and making the network in int8, are part of it
zarr        `run` into a Zarr store of class map, probabilities and overviews, as `-o maps.zarr`
engine      the bare engine, as many calls at a time as it has slots, on prepared tiles with their halo that are there
            in memory; it gives class maps, as in the run; nothing is read or written, pixels are counted without halo
engine-auto the bare engine in the precision that `auto` chose
monai, torchgeo, geoai, terratorch, dask    see `benchmarks.peers`; those not installed are skipped

The network is trained on scenes of this kind (`benchmarks.trained`), so that errors of other precisions mean something;
`--network` takes others, of random weights.

Each measurement is a fresh process that has imported, loaded the weights and warmed up on a small scene before
the clock starts. Rounds are interleaved, so that a slow minute of the machine meets all alike; medians are
given, with the fastest and slowest. `times` is how many times as long a contender took as swathe in this run, `of auto`
as `auto`. `cpu s` are the seconds of all its cores, which say more than the clock where others use the machine too, and
`Mpx/cpu s` are pixels by them. `agrees` is the share of pixels with swathe's class: the peers' tiles do not see a whole
halo. `memory` is the peak of the process.

Promises, on two cores: fp32 is 0.92 of the bare engine and 6.5 x MONAI and TorchGeo; auto is 12 x both and 7 x dask.
"""

import argparse
import importlib.util
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from models.bundle import Bundle, load_bundle
from models.engine import EngineName

from .child import Failed, cpu_seconds, measure, peak_bytes, report, table, workplace
from .networks import OPTIONS, make_bundle
from .scenes import write_scene
from .trained import NAME as TRAINED
from .trained import score, trained_bundle

RUNS = ("swathe", "unsynced", "auto", "auto-first", "zarr")
ENGINES = ("engine", "engine-auto")
PEERS = ("monai", "torchgeo", "geoai", "terratorch", "dask")
NAMES = (*RUNS, *ENGINES, *PEERS)
PYPI = {"geoai": "geoai-py"}  # where that has another name
WARM = 512  # side of the scene that each process warms up on
MOST_TILES = 16  # that the bare engine is given

AUTO = "auto"

Job = Callable[[Path, Path], int]
"""Scene and folder in, pixels done; what it leaves as `NAME.tif` in the folder is compared."""
Timed = Callable[[Path, Path], dict[str, Any]]
"""The same, and what was measured of it."""


def _swathe(bundle: Bundle, keywords: dict[str, Any], name: str, scene: Path, folder: Path) -> int:
    from pipeline import run, write_cog

    store = folder / f"{name}.zarr"
    if name == "zarr":
        return sum(run(scene, bundle, store, show=False, **keywords).pixels.values())
    done = run(scene, bundle, store, show=False, **keywords, probability=None, overviews=False)
    write_cog(store, folder / f"{name}.tif", overwrite=True)
    return sum(done.pixels.values())


def _peer(bundle: Bundle, name: str) -> Job:
    from .peers import PEERS

    segmenter, with_peer = bundle.segmenter(), PEERS[name]

    def job(scene: Path, folder: Path) -> int:
        with_peer(scene, segmenter, folder / f"{name}.tif")
        with rasterio.open(scene) as file:
            return int(file.height * file.width)

    return job


def _timed(job: Job, scene: Path, folder: Path) -> dict[str, Any]:
    before, started = cpu_seconds(), time.perf_counter()
    pixels = job(scene, folder)
    return {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - before, "pixels": pixels}


def _timed_engine(bundle: Bundle, keywords: dict[str, Any], scene: Path, folder: Path) -> dict[str, Any]:
    """Time nothing but an engine's calls, as many at a time as it takes; it is warm in this process."""
    from pipeline import plan
    from pipeline.inference.predict import fill_missing, read_buffered, shared_engine

    prepared = plan(scene, bundle, **keywords, probability=None)
    inference, cut, source = prepared.inference, prepared.plan, prepared.source
    windows = [tile for block in cut.blocks() for tile in cut.tiles(block.window)][:MOST_TILES]
    means = tuple(band.mean for band in bundle.metadata.bands)
    inputs = [fill_missing(read_buffered(source, cut, tile), source.nodata, means)[None] for tile in windows]
    engine = shared_engine(inference)
    gate = threading.Barrier(engine.slots + 1)

    def call(share: list[Any]) -> None:
        engine.segment(share[0], inference.encoding)  # engines prepare for each new shape, and for each thread
        gate.wait()
        for pixels in share:
            engine.segment(pixels, inference.encoding)

    threads = [
        threading.Thread(target=call, args=(inputs[n :: engine.slots] or inputs[:1],)) for n in range(engine.slots)
    ]
    for thread in threads:
        thread.start()
    gate.wait()
    before, started = cpu_seconds(), time.perf_counter()
    for thread in threads:
        thread.join()
    pixels = sum(height * width for height, width in (tile.shape for tile in windows))
    return {
        "seconds": time.perf_counter() - started, "cpu": cpu_seconds() - before, "pixels": pixels,
        "precision": inference.spec.precision,
    }  # fmt: skip


def _job(name: str, bundle: Bundle, engine: EngineName) -> Timed:
    keywords: dict[str, Any] = {"engine": engine, "precision": AUTO if "auto" in name else "fp32"}
    if name in ENGINES:
        return partial(_timed_engine, bundle, keywords)
    if name in RUNS:
        return partial(_timed, partial(_swathe, bundle, keywords | {"sync": name != "unsynced"}, name))
    return partial(_timed, _peer(bundle, name))


def run_one(name: str, folder: Path, engine: EngineName, network: str) -> None:
    """Measure one contender in this process and report it."""
    bundle = load_bundle(folder / network)
    timed = _job(name, bundle, engine)
    if name == "auto":
        from pipeline import plan

        plan(folder / "scene.tif", bundle, engine=engine, precision=AUTO)
    elif name == "auto-first":
        os.environ["SWATHE_CACHE"] = tempfile.mkdtemp(dir=folder)  # where no choice is kept
    for scene in ("warm.tif", "scene.tif"):
        shutil.rmtree(folder / f"{name}.zarr", ignore_errors=True)  # of the round before
        measured = timed(folder / scene, folder)
    report(**measured, peak=peak_bytes())


def run_difference(folder: Path, engine: EngineName, network: str) -> None:
    """Segment with probabilities, in fp32 and in the precision of `auto`, and report how much they differ."""
    from pipeline import run
    from pipeline.store.store import open_store

    stores, bundle = [], load_bundle(folder / network)
    for precision in ("fp32", AUTO):
        path = folder / f"difference-{precision}.zarr"
        shutil.rmtree(path, ignore_errors=True)
        run(folder / "scene.tif", bundle, path, show=False, engine=engine, precision=precision, probability="float16",
            overviews=False)  # fmt: skip
        stores.append(open_store(str(path)))
    (exact, _), (fast, metadata) = stores
    total = count = 0.0
    for place in exact.places(0):
        window = exact.window(0, *place)
        one, other = (store.read_array("probability", window).astype(np.float32) for store in (exact, fast))
        seen = np.isfinite(one)
        total += float(np.abs(one - other)[seen].sum(dtype=np.float64))
        count += int(seen.sum())
    report(mean=total / count, precision=metadata.identity["precision"])


def compare(size: int, repeats: int, names: list[str], engine: str, network: str, folder: Path) -> None:
    """Measure all contenders in turns and print the table."""
    if network == TRAINED:
        print(f"{network}: IoU of towns, held out, {score(trained_bundle(folder)):.3f}", flush=True)
    else:
        make_bundle(folder, network)
        print(f"{network}: random weights, whose errors in other precisions say nothing")
    write_scene(folder / "scene.tif", size)
    write_scene(folder / "warm.tif", min(size, WARM))
    settings = ("--folder", folder, "--engine", engine, "--network", network)
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        for name in [name for name in names if number == 0 or name in found]:
            try:
                found.setdefault(name, []).append(_measure(name, *settings))
            except Failed as error:
                print(f"{name} failed and is left out: {error}")
                found.pop(name, None)
    print(f"\n{size} x {size} pixels, {network}, engine {engine}, {repeats} rounds\n")
    print(table(*_rows(found, folder)))
    _print_ratios(found)
    if "auto" in found:
        differs = measure("benchmarks.throughput", "--difference", *settings)
        print(f"auto: {differs['precision']}; probabilities differ from fp32 by {differs['mean']:.5f} in the mean")


def _measure(name: str, *settings: object) -> dict[str, Any]:
    measured = measure("benchmarks.throughput", "--child", name, *settings)
    print(f"{name:11} {measured['seconds']:7.2f} s", flush=True)
    return measured


def _rows(found: dict[str, list[dict[str, Any]]], folder: Path) -> tuple[list[str], list[list[str]]]:
    heads = ["", "seconds", "from", "to", "Mpx/s", "times", "of auto", "cpu s", "Mpx/cpu s", "agrees", "memory"]
    rows = []
    for name, runs in found.items():
        spread, whole = sorted(run["seconds"] for run in runs), name not in ENGINES
        seconds = [_median(runs, "seconds"), spread[0], spread[-1]]
        rows.append(
            [
                name,
                *(f"{one:.2f}" if whole else "" for one in seconds),
                f"{_rate(runs):.2f}",
                *(_times(runs, found.get(base)) if whole else "" for base in ("swathe", "auto")),
                f"{_median(runs, 'cpu'):.1f}" if whole else "",
                f"{_rate(runs, 'cpu'):.2f}",
                _agreement(folder, name),
                f"{max(run['peak'] for run in runs) / 1e9:.2f} GB",
            ]
        )
    return heads, rows


def _times(runs: list[dict[str, Any]], base: list[dict[str, Any]] | None) -> str:
    return f"{_median(runs, 'seconds') / _median(base, 'seconds'):.2f}" if base else ""


def _median(runs: list[dict[str, Any]], figure: str) -> float:
    return float(statistics.median(run[figure] for run in runs))


def _rate(runs: list[dict[str, Any]], per: str = "seconds") -> float:
    """Return megapixels per second, the median."""
    return float(statistics.median(run["pixels"] / run[per] for run in runs)) / 1e6


def _agreement(folder: Path, name: str) -> str:
    """Return the share of pixels that have swathe's class, where both are there."""
    ours, theirs = folder / "swathe.tif", folder / f"{name}.tif"
    if name == "swathe" or not (ours.exists() and theirs.exists()):
        return ""
    equal = 0
    with rasterio.open(ours) as one, rasterio.open(theirs) as other:
        for _, window in one.block_windows():
            equal += int((one.read(1, window=window) == other.read(1, window=window)).sum())
        return f"{equal / (one.height * one.width):.4f}"


def _print_ratios(found: dict[str, list[dict[str, Any]]]) -> None:
    """Print what reading, moving and writing leave of the bare engine's speed."""
    print()
    for name, engine in (("swathe", "engine"), ("zarr", "engine"), ("auto", "engine-auto")):
        if name in found and engine in found:
            of = f"bare engine's pixels/s ({found[engine][0]['precision']})"
            print(f"{name}: {_rate(found[name]) / _rate(found[engine]):.2f} of the {of}")


def installed(names: list[str]) -> list[str]:
    """Leave out peers that are not installed, with a line for each."""
    there = [name for name in names if name not in PEERS or importlib.util.find_spec(name)]
    for name in names:
        if name not in there:
            print(f"{name} is not installed and is left out: pip install {PYPI.get(name, name)}")
    return there


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whole scenes through Swathe and its peers.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--engine", default="auto", help="of swathe and the bare engine: auto, torch or openvino")
    parser.add_argument("--network", default=TRAINED, choices=[TRAINED, *sorted(OPTIONS)])
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--difference", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.size < 64 or chosen.size % 64:
        parser.error("--size is a multiple of 64: the peers do not pad a scene to the network's stride")
    if set(chosen.only.split(",") if chosen.only else []) - set(NAMES):
        parser.error(f"--only takes some of {','.join(NAMES)}")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.child:
        run_one(chosen.child, chosen.folder, chosen.engine, chosen.network)
        return
    if chosen.difference:
        run_difference(chosen.folder, chosen.engine, chosen.network)
        return
    names = installed(chosen.only.split(",") if chosen.only else list(NAMES))
    with workplace(chosen.folder) as folder:
        compare(chosen.size, chosen.repeats, names, chosen.engine, chosen.network, folder)


if __name__ == "__main__":
    main()
