"""Objects of whole mosaics: how much memory the worst masks take, and how fast others do the same where they fit.

    python -m benchmarks.objects --size 16384 --peers 8192 --repeats 3

First a spiral and a comb, lines one pixel wide that cross every block, through the verbs, each in a fresh process:

keep, remove, fill    `write_clean` with the largest sizes of objects and holes that change nothing, with one pixel more
                      for objects, so that all is gone, and with one more for holes, so that all is filled
objects               `write_objects` with mean widths
vectors               `write_vectors` of what `objects` left

Each result is checked against what is known of the mask: every pixel, the one id, the one row of the
table, the one polygon. `memory` is the peak of the process, nothing subtracted. Promise: right, and under 2 GB.

Then the jobs of `benchmarks.labellers` and `benchmarks.outlines` on masks of many objects. Rounds are interleaved, each
measurement is a fresh process that has done the job on a small mask before the clock starts; medians are given, with
the fastest and slowest. `times` is how many times as long a contender took as swathe in this run, `cpu s` the seconds
of all its cores, `answer` what a contender's answer differs by from ours: pixels (labels up to renaming), polygons and
their area, sums in zones. Those not installed are skipped. GDAL's sieve decides small objects and small holes together,
and not one after the other. xarray-spatial has no sieve; polygonize is experimental in it.
"""

import argparse
import importlib.util
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .child import Failed, cpu_seconds, measure, peak_bytes, report, run_module, table, workplace
from .masks import LINES, PIXEL, make_block, write_mask

VERBS = ("keep", "remove", "fill", "objects", "vectors")
CONTENDERS = ("swathe", "skimage", "dask_image", "rasterio", "xrspatial")
PYPI = {"skimage": "scikit-image", "dask_image": "dask-image", "xrspatial": "xarray-spatial"}
JOBS = {
    "clean": ("swathe", "skimage", "dask_image", "rasterio"),
    "label": ("swathe", "skimage", "dask_image"),
    "polygons": ("swathe", "rasterio", "xrspatial"),
    "zones": ("swathe", "rasterio", "xrspatial"),
}
KINDS: dict[str, tuple[str, ...]] = {"blobs": tuple(JOBS), "noise": ("clean", "label")}  # and the jobs done on them
SMALL = 500  # pixels: beyond the size that context around a block decides
WARM = 256  # side of the mask that each process warms up on


def run_verb(verb: str, kind: str, size: int, folder: Path) -> None:
    """Do a verb in this process, report, and check what it made."""
    started, before = time.perf_counter(), cpu_seconds()
    _do(verb, kind, size, folder)
    measured = {
        "seconds": time.perf_counter() - started, "cpu": cpu_seconds() - before, "peak": peak_bytes()
    }  # fmt: skip
    _check(verb, kind, size, folder)
    report(**measured)


def _do(verb: str, kind: str, size: int, folder: Path) -> None:
    from pipeline import write_clean, write_objects, write_vectors

    source, known = folder / f"{kind}.zarr", LINES[kind](size)
    if verb == "objects":
        write_objects(source, folder / "objects.zarr", show=False)
    elif verb == "vectors":
        write_vectors(folder / "objects.zarr", folder / "vectors.parquet", show=False)
    else:
        min_object, min_hole = known.pixels + (verb == "remove"), known.hole + (verb == "fill")
        write_clean(source, folder / f"{verb}.zarr", min_object=min_object, min_hole=min_hole, show=False)


def _check(verb: str, kind: str, size: int, folder: Path) -> None:
    """Raise AssertionError if what a verb made is not what is known."""
    expected: dict[str, Callable[[Any], Any]] = {
        "keep": lambda window: make_block(kind, window, size),
        "remove": lambda window: np.zeros(window.shape, np.uint8),
        "fill": lambda window: np.ones(window.shape, np.uint8),
        "objects": lambda window: make_block(kind, window, size).astype(np.int64),  # the only id is 1
    }
    if verb == "vectors":
        _check_polygon(kind, size, folder)
        return
    from pipeline.store.store import open_store

    store, _ = open_store(str(folder / f"{verb}.zarr"))
    for place in store.places(0):
        window = store.window(0, *place)
        pixels = store.read_array("objects" if verb == "objects" else "class_map", window)[0]
        assert np.array_equal(pixels, expected[verb](window)), f"{verb}: block {place} is wrong"
    if verb == "objects":
        _check_table(kind, size, folder)


def _check_table(kind: str, size: int, folder: Path) -> None:
    from pipeline.objects.objects import read_table

    (row,) = read_table(str(folder / "objects.zarr")).to_pylist()
    assert (row["id"], row["area_px"]) == (1, LINES[kind](size).pixels), row
    assert [row[f"bbox_{side}_px"] for side in ("miny", "minx", "maxy", "maxx")] == [0, 0, size, size], row


def _check_polygon(kind: str, size: int, folder: Path) -> None:
    import pyarrow.parquet as pq
    import shapely

    (row,) = pq.read_table(folder / "vectors.parquet", columns=["id", "geometry"]).to_pylist()
    polygon = shapely.from_wkb(row["geometry"])
    assert (row["id"], polygon.geom_type, len(polygon.interiors)) == (1, "Polygon", 0), row["id"]
    assert polygon.area == LINES[kind](size).pixels * PIXEL**2, polygon.area
    assert polygon.is_valid


def measure_lines(size: int, folder: Path) -> None:
    """Measure the verbs on the two lines and print the table."""
    rows = []
    for kind in LINES:
        run_module("benchmarks.objects", "--make", kind, size, folder / f"{kind}.zarr")
        for verb in VERBS:
            measured = measure("benchmarks.objects", "--verb", verb, kind, size, folder)
            rows.append([f"{kind}, {verb}", *_figures([measured]), f"{measured['peak'] / 1e9:.2f} GB"])
            print("  ".join(rows[-1]), flush=True)
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    print(f"\n{size} x {size} pixels\n\n{table(['', 'seconds', 'from', 'to', 'cpu s', 'memory'], rows)}\n")


def run_job(job: str, name: str, kind: str, folder: Path) -> None:
    """Do a job as one contender does it, in this process, and report it."""
    for mask, output in (("warm", f"{name}-warm.out"), ("mask", f"{name}.out")):
        shutil.rmtree(folder / output, ignore_errors=True)  # of the round before
        before, started = cpu_seconds(), time.perf_counter()
        layer = _done(job, name, folder / f"{kind}-{mask}.zarr", folder / output)
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - before
    report(seconds=seconds, cpu=cpu, peak=peak_bytes(), layer=layer)


def _done(job: str, name: str, source: Path, output: Path) -> str:
    """Do a job; give the path of an array in its output, where it is one."""
    from . import labellers, outlines

    if job in labellers.JOBS:
        return labellers.JOBS[job][name](source, output, SMALL)
    output.mkdir()
    outlines.JOBS[job][name](source, output)
    return ""


def run_check(job: str, ours: Path, theirs: Path) -> None:
    """Compare two results in this process."""
    from . import labellers, outlines

    if job in labellers.JOBS:
        import zarr

        one, other = (np.asarray(zarr.open_array(path, mode="r")[:]) for path in (ours, theirs))
        report(answer=labellers.difference(job, one, other))
    else:
        report(answer=outlines.difference(job, ours, theirs))


def compare(size: int, repeats: int, names: list[str], folder: Path) -> None:
    """Measure all contenders on all jobs in turns and print the table."""
    rows = []
    for kind in KINDS:
        for part, side in (("mask", size), ("warm", min(size, WARM))):
            run_module("benchmarks.objects", "--make", kind, side, folder / f"{kind}-{part}.zarr")
        for job in KINDS[kind]:
            found = _rounds(job, kind, repeats, [name for name in names if name in JOBS[job]], folder)
            answers = _answers(job, found, folder)
            for name, runs in found.items():
                rows.append([*_row(f"{kind}, {job}, {name}", runs, found.get("swathe")), answers.get(name, "")])
    print(f"\n{size} x {size} pixels, below {SMALL} pixels is small, {repeats} rounds\n")
    print(table(["", "seconds", "from", "to", "cpu s", "times", "memory", "answer"], rows))


def _rounds(job: str, kind: str, repeats: int, names: list[str], folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        for name in [name for name in names if number == 0 or name in found]:
            try:
                measured = measure("benchmarks.objects", "--job", job, name, kind, folder)
            except Failed as error:
                print(f"{name} failed at {job} of {kind} and is left out: {error}")
                found.pop(name, None)
                continue
            found.setdefault(name, []).append(measured)
            print(f"{kind}, {job}, {name:10} {measured['seconds']:7.2f} s", flush=True)
    return found


def _answers(job: str, found: dict[str, list[dict[str, Any]]], folder: Path) -> dict[str, str]:
    """Return what each contender's answer differs by from ours."""
    if "swathe" not in found:
        return {}
    ours, answers = folder / "swathe.out" / found["swathe"][0]["layer"], {}
    for name in [name for name in found if name != "swathe"]:
        checked = measure("benchmarks.objects", "--check", job, ours, folder / f"{name}.out")
        answers[name] = checked["answer"]
        print(f"{job}: {name} {answers[name]}", flush=True)
    return answers


def _row(title: str, runs: list[dict[str, Any]], ours: list[dict[str, Any]] | None) -> list[str]:
    times = f"{_median(runs, 'seconds') / _median(ours, 'seconds'):.2f}" if ours else ""
    return [title, *_figures(runs), times, f"{max(run['peak'] for run in runs) / 1e9:.2f} GB"]


def _figures(runs: list[dict[str, Any]]) -> list[str]:
    seconds = [run["seconds"] for run in runs]
    figures = _median(runs, "seconds"), min(seconds), max(seconds), _median(runs, "cpu")
    return [f"{figure:.2f}" for figure in figures]


def _median(runs: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(run[name] for run in runs))


def installed() -> list[str]:
    """Leave out what is not installed, with a line for each."""
    there = [name for name in CONTENDERS if name == "swathe" or importlib.util.find_spec(name)]
    for name in [name for name in CONTENDERS if name not in there]:
        print(f"{name} is not installed and is left out: pip install {PYPI[name]}")
    return there


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Objects of whole mosaics.")
    parser.add_argument("--size", type=int, default=16384, help="rows and columns of the two lines; 0: none")
    parser.add_argument("--peers", type=int, default=8192, help="those of the masks that others label too; 0: none")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where masks and outputs go while they are needed")
    for name, count in (("--make", 3), ("--verb", 4), ("--job", 4), ("--check", 3)):
        parser.add_argument(name, nargs=count, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.size % 4 or chosen.peers % 4 or min(chosen.size, chosen.peers) < 0:
        parser.error("--size and --peers are multiples of 4: so is the spiral's")
    return chosen


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.make:
        kind, size, path = chosen.make
        write_mask(path, kind, int(size))
    elif chosen.verb:
        verb, kind, size, folder = chosen.verb
        run_verb(verb, kind, int(size), Path(folder))
    elif chosen.job:
        job, name, kind, folder = chosen.job
        run_job(job, name, kind, Path(folder))
    elif chosen.check:
        job, ours, theirs = chosen.check
        run_check(job, Path(ours), Path(theirs))
    else:
        with workplace(chosen.folder) as folder:
            if chosen.size:
                measure_lines(chosen.size, folder)
            if chosen.peers:
                compare(chosen.peers, chosen.repeats, installed(), folder)


if __name__ == "__main__":
    main()
