"""How fast a whole scene goes through: Swathe, its bare engine, and three peers. One run, one table.

    python -m benchmarks.throughput --size 4096 --repeats 3

Every contender does the same job: the same GeoTIFF and the same weights into a GeoTIFF of the class map.

swathe      `run` and `write_cog`, as `swathe segment scene.tif -o map.tif`: the class map, as a COG with overviews
zarr        `run` into a Zarr store of class map, probabilities and overviews, as `-o maps.zarr`
engine      the bare engine on prepared tiles with their halo, nothing read or written; pixels are counted without halo
monai, torchgeo, dask    see `benchmarks.peers`; those not installed are skipped

Each measurement is a fresh process that has imported, loaded the weights and warmed up on a small scene before
the clock starts. Rounds are interleaved, so that a slow minute of the machine meets all alike; medians are
given, with the fastest and slowest. `times` is how many times as long a contender took as swathe in this run.
`cpu s` are the seconds of all its cores, which say more than the clock where others use the machine too.
`agrees` is the share of pixels with swathe's class: it is below 1 because the peers' tiles do not see a whole
halo. `memory` is the peak of the process.

Promises, on two cores: 4 x MONAI and TorchGeo, 2 x dask, 0.85 of the bare engine.
"""

import argparse
import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import rasterio

from models.bundle import Bundle, load_bundle
from models.engine import EngineName

from .child import Failed, cpu_seconds, measure, peak_bytes, report, table, workplace
from .networks import OPTIONS, make_bundle
from .scenes import write_scene

OURS = ("swathe", "zarr", "engine")
NAMES = (*OURS, "monai", "torchgeo", "dask")
WARM = 512  # side of the scene that each process warms up on
MOST_TILES = 16  # that the bare engine is given

Job = Callable[[Path, Path], int]
"""Scene and folder in, pixels done; what it leaves as `NAME.tif` in the folder is compared."""


def _swathe(bundle: Bundle, keywords: dict[str, Any], name: str, scene: Path, folder: Path) -> int:
    from pipeline import run, write_cog

    store = folder / f"{name}.zarr"
    if name == "zarr":
        return sum(run(scene, bundle, store, show=False, **keywords).pixels.values())
    keywords = {**keywords, "probability": None, "overviews": False}
    done = run(scene, bundle, store, show=False, **keywords)
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


def _timed(job: Job, scene: Path, folder: Path) -> tuple[float, int]:
    started = time.perf_counter()
    pixels = job(scene, folder)
    return time.perf_counter() - started, pixels


def _timed_engine(bundle: Bundle, keywords: dict[str, Any]) -> Callable[[Path, Path], tuple[float, int]]:
    """Make the engine once; time nothing but its predictions."""
    from models.engine import make_engine
    from pipeline import plan
    from pipeline.inference.predict import fill_missing, read_buffered

    engines: list[Any] = []

    def timed(scene: Path, folder: Path) -> tuple[float, int]:
        prepared = plan(scene, bundle, **keywords)
        source, cut = prepared.source, prepared.plan
        if not engines:
            engines.append(make_engine(bundle, prepared.inference.spec))
        windows = [tile for block in cut.blocks() for tile in cut.tiles(block.window)][:MOST_TILES]
        means = tuple(band.mean for band in bundle.metadata.bands)
        inputs = [fill_missing(read_buffered(source, cut, tile), source.nodata, means)[None] for tile in windows]
        engines[0].predict(inputs[0])  # engines prepare for each new shape
        started = time.perf_counter()
        for pixels in inputs:
            engines[0].predict(pixels)
        return time.perf_counter() - started, sum(h * w for h, w in (tile.shape for tile in windows))

    return timed


def run_one(name: str, folder: Path, engine: EngineName, network: str) -> None:
    """Measure one contender in this process and report it."""
    bundle = load_bundle(folder / network)
    keywords: dict[str, Any] = {"engine": engine}
    if name == "engine":
        timed = _timed_engine(bundle, keywords)
    else:
        job = partial(_swathe, bundle, keywords, name) if name in OURS else _peer(bundle, name)
        timed = partial(_timed, job)
    for scene in ("warm.tif", "scene.tif"):
        shutil.rmtree(folder / f"{name}.zarr", ignore_errors=True)  # of the round before
        before = cpu_seconds()
        seconds, pixels = timed(folder / scene, folder)
    report(seconds=seconds, pixels=pixels, cpu=cpu_seconds() - before, peak=peak_bytes())


def compare(size: int, repeats: int, names: list[str], engine: str, network: str, folder: Path) -> None:
    """Measure all contenders in turns and print the table."""
    make_bundle(folder, network)
    write_scene(folder / "scene.tif", size)
    write_scene(folder / "warm.tif", min(size, WARM))
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        for name in [name for name in names if number == 0 or name in found]:
            try:
                found.setdefault(name, []).append(
                    _measure(name, "--folder", folder, "--engine", engine, "--network", network)
                )
            except Failed as error:
                print(f"{name} failed and is left out: {error}")
                found.pop(name, None)
    print(f"\n{size} x {size} pixels, {network}, engine {engine}, {repeats} rounds\n")
    print(table(*_rows(found, folder)))
    _print_ratio(found)


def _measure(name: str, *settings: object) -> dict[str, Any]:
    measured = measure("benchmarks.throughput", "--child", name, *settings)
    print(f"{name:9} {measured['seconds']:7.2f} s", flush=True)
    return measured


def _rows(found: dict[str, list[dict[str, Any]]], folder: Path) -> tuple[list[str], list[list[str]]]:
    base = _median(found["swathe"]) if "swathe" in found else None
    heads = ["", "seconds", "from", "to", "Mpx/s", "times", "cpu s", "agrees", "memory"]
    rows = []
    for name, runs in found.items():
        seconds, spread = _median(runs), sorted(run["seconds"] for run in runs)
        whole = name != "engine"
        rows.append(
            [
                name,
                f"{seconds:.2f}" if whole else "",
                f"{spread[0]:.2f}" if whole else "",
                f"{spread[-1]:.2f}" if whole else "",
                f"{_rate(runs):.2f}",
                f"{seconds / base:.2f}" if base and whole else "",
                f"{statistics.median(run['cpu'] for run in runs):.1f}" if whole else "",
                _agreement(folder, name),
                f"{max(run['peak'] for run in runs) / 1e9:.2f} GB",
            ]
        )
    return heads, rows


def _median(runs: list[dict[str, Any]]) -> float:
    return float(statistics.median(run["seconds"] for run in runs))


def _rate(runs: list[dict[str, Any]]) -> float:
    """Return megapixels per second, the median."""
    return float(statistics.median(run["pixels"] / run["seconds"] for run in runs)) / 1e6


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


def _print_ratio(found: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("swathe", "zarr"):
        if name in found and "engine" in found:
            print(f"\n{name}: {_rate(found[name]) / _rate(found['engine']):.2f} of the bare engine's pixels/s", end="")
    print()


def installed(names: list[str]) -> list[str]:
    """Leave out peers that are not installed, with a line for each."""
    there = [name for name in names if name in OURS or importlib.util.find_spec(name)]
    for name in names:
        if name not in there:
            print(f"{name} is not installed and is left out: pip install {name}")
    return there


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whole scenes through Swathe and its peers.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=f"some of {','.join(NAMES)}")
    parser.add_argument("--engine", default="auto", help="of swathe and the bare engine: auto, torch or openvino")
    parser.add_argument("--network", default="simple-unet", choices=sorted(OPTIONS))
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
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
    names = installed(chosen.only.split(",") if chosen.only else list(NAMES))
    with workplace(chosen.folder) as folder:
        compare(chosen.size, chosen.repeats, names, chosen.engine, chosen.network, folder)


if __name__ == "__main__":
    main()
