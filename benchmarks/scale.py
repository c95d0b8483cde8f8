"""What a run of a continent costs beside its network: index, plan, resume, and the loop over blocks.

    python -m benchmarks.scale            # 10,000 scenes, 1,000,000 blocks
    python -m benchmarks.scale --quick    # a tenth of the scenes and blocks

Each part runs in a process of its own, and prints its seconds, those of CPU, and the peak memory of that process.

`index`: scenes in two UTM zones are written as an index and read again. They are rows alone: no scene has a file, and
none is opened, so that what `swathe index` takes for reading files is not in it.
`plan`: of that index and a grid of square shape, all of whose blocks some scene touches: the mosaic, its identity, its
planned blocks, and an empty store that keeps them.
`resume`: nine of ten blocks of such a store are done, in an order of strips; a generator has written records and
markers as a run does, and shards, for which the code looks by name and size: hard links to files of one byte
(`--files`: a file for each). The store is found, what is done is read, and the first block that is open is given out.
The network's own times are not in it, nor overviews.
`sea`: 2,000 planned blocks in a grid of about as many, and in that of `plan`: written empty by a run from its beginning
to its end.
`loop`: `map_bounded` over blocks that return at once, on a scheduler and two workers of one thread, each a process of
its own: CPU milliseconds a block of each, and the scheduler's resident memory after each eighth of the blocks.

Promise, for 10,000 scenes and 1,000,000 blocks: index, plan and resume at most 15 s and 0.5 GB each; for 100,000 empty
blocks, scheduler and two workers at most 4 ms of CPU a block in sum, and the scheduler's memory flat. Dask keeps the
last 100,000 names of tasks in a cache, some 30 MB: memory grows until then, and not after.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from distributed import Client
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from shapely.geometry import box
from typing_extensions import override

from models.encoding import Encoding
from models.metadata import ClassInfo, ReceptiveField
from pipeline.catalog.index import IndexedScene, read_index, write_index
from pipeline.grid.block_result import BlockResult, empty_result
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import make_plan
from pipeline.io.raster_files import open_rasters
from pipeline.jobs.block_order import BlockOrder
from pipeline.jobs.job import BlockFunction, BlockJob, run_job
from pipeline.jobs.tasks import map_bounded
from pipeline.mosaic.source import MosaicSource
from pipeline.store.ledger import RECORD, RECORDS, Ledger, Record
from pipeline.store.lifecycle import create_store, resume_store
from pipeline.store.metadata import StoreMetadata
from pipeline.store.planned import BlockMask, places
from pipeline.store.store import BlockIndex, Store, Summary, find_store

from .child import cpu_seconds, measure, peak_bytes, report, table, workplace
from .scenes import write_scene

PAGE = ("--dashboard-address", "127.0.0.1:0")  # without it on all addresses, also with --no-dashboard
MODULE = "benchmarks.scale"
PIXEL, BLOCK = 10, 64  # metres; pixels
WEST, NORTH = 200_000, 5_600_000  # of the grid, in UTM zone 33
ZONES = ("EPSG:32632", "EPSG:32633")
LINKS = 50_000  # names of one file; ext4 allows 65,000
STRIP = 8  # blocks side by side
CLASSES = (ClassInfo("open", "102030"), ClassInfo("house", "E4572E"))
IDENTITY = {"run": "of the benchmark"}
SEA = 2000
PARTS = ("index", "plan", "resume", "sea", "loop")


@dataclass(frozen=True)
class Nothing(BlockFunction):
    """A block is nodata."""

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        return empty_result(store.window(0, row, column).shape, store.encoding)


@dataclass(frozen=True)
class Empty(BlockJob):
    """Nodata where blocks are planned."""

    planned: BlockMask
    title = "writing nothing"

    @property
    @override
    def geobox(self) -> GeoBox:
        return grid_of(len(self.planned))

    @override
    def identity(self) -> dict[str, Any]:
        return IDENTITY

    @override
    def new_metadata(self) -> StoreMetadata:
        plan = make_plan(self.geobox.shape, ReceptiveField(8, 8), tile=BLOCK, block=BLOCK)
        return StoreMetadata(plan, Encoding(None, "uint8", (1,)), CLASSES, IDENTITY)

    @override
    def planned_blocks(self, side: int) -> BlockMask:
        return self.planned

    @override
    def block_function(self, store: Store) -> Nothing:
        return Nothing()


def grid_of(side: int) -> GeoBox:
    """Return the grid of so many by so many blocks."""
    size = side * BLOCK
    return GeoBox(size, size, Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH), CRS.from_user_input(ZONES[1]).to_wkt())


def synthetic_scenes(folder: Path, count: int, side: int) -> Iterator[IndexedScene]:
    """Yield scenes that cover the grid, each as large as its share of it and a third more, by turns in either zone."""
    write_scene(folder / "template.tif", 64)
    template = open_rasters([str(folder / "template.tif")])
    across = round(count**0.5)
    pitch = side * BLOCK * PIXEL / across
    size = int(pitch / PIXEL * 4 / 3)
    to_zone = Transformer.from_crs(ZONES[1], ZONES[0], always_xy=True)
    to_degrees = [Transformer.from_crs(zone, "EPSG:4326", always_xy=True) for zone in ZONES]
    wkt = [CRS.from_user_input(zone).to_wkt() for zone in ZONES]
    for number in range(across * across):
        row, column = divmod(number, across)
        x, y, zone = WEST + (column + 0.5) * pitch, NORTH - (row + 0.5) * pitch, number % 2
        if zone == 0:
            x, y = to_zone.transform(x, y)
        left, top = (round(value / PIXEL) * PIXEL for value in (x - size * PIXEL / 2, y + size * PIXEL / 2))
        geobox = GeoBox(size, size, Affine(PIXEL, 0, left, 0, -PIXEL, top), wkt[zone])
        west, south, east, north = to_degrees[zone].transform_bounds(left, top - size * PIXEL, left + size * PIXEL, top)
        digest = f"{number:032x}"
        yield IndexedScene(f"scene-{number}", replace(template, geobox=geobox), box(west, south, east, north),
                           datetime="2026-06-01T00:00:00Z", cloud_cover=5.0, digest=digest)  # fmt: skip


def index_part(folder: Path, scenes: int, side: int) -> None:
    """Write and read an index."""
    made = list(synthetic_scenes(folder, scenes, side))
    with measured() as spent:
        index = write_index(made, folder / "scenes.parquet")
    report(**spent, count=len(index))


def plan_part(folder: Path, side: int) -> None:
    """Plan the blocks of a mosaic and begin a store."""
    with measured() as spent:
        index = read_index(folder / "scenes.parquet")
        mosaic = MosaicSource(index, grid_of(side), tuple(range(len(index))))
        mosaic.identity()
        planned = mosaic.blocks_touched(BLOCK)
        job = Empty(planned)
        create_store(str(folder / "planned.zarr"), job.geobox, job.new_metadata(), planned=planned)
    report(**spent, count=int(planned.sum()))


def make_begun(path: Path, side: int, share: float, *, files: bool) -> int:
    """Write what a run leaves that was killed when a share of its blocks was done; return how many are."""
    job = Empty(np.ones((side, side), bool))
    store = create_store(str(path), job.geobox, job.new_metadata())
    done = np.array(list(islice(places(job.planned, STRIP), int(side * side * share))), np.int32)
    for name in ("class_map/c", "probability/c/0"):
        write_shards(path / name, done, path / "shard", files=files)
    for start in range(0, len(done), RECORD):
        some = done[start : start + RECORD]
        if len(some) < RECORD:
            for row, column in some.tolist():
                store.mark_done(Summary(0, row, column, (0, 0, BLOCK * BLOCK), 0.01))
            break
        whole = np.column_stack([np.zeros(len(some), np.int32), some]).astype(np.int32)
        pixels = np.tile(np.array([0, 0, BLOCK * BLOCK]), (len(some), 1))
        record = Record(whole, pixels, np.full(len(some), 0.01, np.float32))
        store.files.write(f"{RECORDS}/{start}.npz", record.to_bytes())
    return len(done)


def write_shards(folder: Path, done: NDArray[Any], one: Path, *, files: bool) -> None:
    """Write a name for each shard: a file of one byte, or a link to one."""
    for row in np.unique(done[:, 0]).tolist():
        (folder / str(row)).mkdir(parents=True, exist_ok=True)
    base = ""
    for number, (row, column) in enumerate(done.tolist()):
        if number % LINKS == 0 and not files:
            base = f"{one}.{folder.parts[-2]}.{number}"
            Path(base).write_bytes(b"1")
        place = f"{folder}/{row}/{column}"
        if files:
            Path(place).write_bytes(b"1")
        else:
            os.link(base, place)


def resume_part(folder: Path, side: int) -> None:
    """Continue a run, up to the first open block."""
    path, job = str(folder / "begun.zarr"), Empty(np.ones((side, side), bool))
    with measured() as spent:
        _, metadata = find_store(path, IDENTITY)
        if metadata is None:
            raise RuntimeError(f"{path} is not there")
        store = resume_store(path, metadata, job.geobox)
        ledger = Ledger.read(store, len(CLASSES))
        next(BlockOrder([store.planned(0) & ~ledger.done[0]], STRIP))
    report(**spent, count=int(ledger.done[0].sum()))


def sea_part(folder: Path, side: int) -> None:
    """Run a few planned blocks of a grid."""
    planned = np.zeros((side, side), bool)
    planned.ravel()[np.linspace(0, planned.size - 1, min(SEA, planned.size)).astype(int)] = True
    with measured() as spent:
        result = run_job(Empty(planned), folder / f"sea-{side}.zarr", show=False)
    report(**spent, count=result.blocks)


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure what is done inside, and fill in `seconds`, `cpu` and the `memory` that the process has had at most."""
    spent: dict[str, float] = {}
    started, used = time.perf_counter(), cpu_seconds()
    yield spent
    spent |= {"seconds": time.perf_counter() - started, "cpu": cpu_seconds() - used, "memory": peak_bytes()}


def _return_at_once(task: object, place: BlockIndex) -> Summary:
    return Summary(*place, (0, 0, BLOCK * BLOCK), 0.0)


def loop_part(blocks: int) -> None:
    """Run blocks that do nothing on a scheduler and two workers, each a process of its own as on a real cluster."""
    with cluster_processes(2) as (address, scheduler, workers), Client(address, set_as_default=False) as client:
        client.wait_for_workers(len(workers), timeout=60)
        numbers = ((0, *divmod(number, 1000)) for number in range(blocks))
        before, memory = [time.process_time(), *map(used_by, (scheduler, *workers))], list[int]()
        for count, _ in enumerate(map_bounded(client, _return_at_once, None, numbers, key="swathe-block"), 1):
            if count % (blocks // 8) == 0:
                memory.append(resident_bytes(scheduler))
        after = [time.process_time(), *map(used_by, (scheduler, *workers))]
    spent = [(end - start) / blocks * 1e3 for start, end in zip(before, after, strict=True)]
    report(client=spent[0], scheduler=spent[1], workers=sum(spent[2:]), resident=memory, memory=peak_bytes())


@contextmanager
def cluster_processes(workers: int, *, own_core: bool = False) -> Iterator[tuple[str, int, list[int]]]:
    """Start a scheduler and workers of one thread as Dask's own commands do; give address and process ids.

    With `own_core`, each worker has but one core, another for each, and huge pages, as `swathe cluster worker` has it.
    """
    dask = [sys.executable, "-W", "ignore", "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "scheduler.json"

        def start(*arguments: str, core: int | None = None) -> int:
            bind = None if core is None else partial(os.sched_setaffinity, 0, {core})
            process = subprocess.Popen([*dask, *arguments], preexec_fn=bind, **quiet)  # type: ignore[call-overload]
            stack.callback(process.wait)
            stack.callback(process.terminate)
            return int(process.pid)

        here = ("--host", "127.0.0.1", *PAGE)
        scheduler = start("scheduler", *here, "--port", "0", "--scheduler-file", str(file))
        while not file.exists():
            time.sleep(0.1)
        address = str(json.loads(file.read_text())["address"])
        each = ("worker", address, *here, "--no-nanny", "--nthreads", "1", "--local-directory", folder)
        if own_core:
            quiet["env"] = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        cores = sorted(os.sched_getaffinity(0))
        yield address, scheduler, [start(*each, core=cores[n] if own_core else None) for n in range(workers)]


def used_by(pid: int) -> float:
    """Return the CPU seconds of another process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def check_room(folder: Path, names: int, *, files: bool) -> None:
    """Refuse to fill a disk."""
    room = os.statvfs(folder)
    inodes, size = (names, names * 4096) if files else (names // LINKS, names * 64)
    if room.f_favail < 2 * inodes or room.f_bavail * room.f_frsize < 2 * size:
        raise SystemExit(f"{folder} has no room for {names:,} names; give another --folder, or --quick")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What a run of a continent costs beside its network.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the scenes and blocks")
    parser.add_argument("--scenes", type=int, help="scenes (10,000; with --quick 1,000)")
    parser.add_argument("--side", type=int, help="rows and columns of blocks (1,000; with --quick 320)")
    parser.add_argument("--loop", type=int, help="blocks of `loop` (100,000; with --quick 10,000)")
    parser.add_argument("--files", action="store_true", help="a file for each shard of `resume`, not a link")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts")
    parser.add_argument("--folder", type=Path, help="where all goes, and stays")
    chosen = parser.parse_args(arguments)
    scenes, side, loop = (1_000, 320, 10_000) if chosen.quick else (10_000, 1000, 100_000)
    scenes, side, loop = chosen.scenes or scenes, chosen.side or side, chosen.loop or loop
    with workplace(chosen.folder) as folder:
        parts: dict[str, Callable[[], list[list[str]]]] = {
            "index": lambda: [_row("index", measure(MODULE, "index", folder, scenes, side))],
            "plan": lambda: [_row("plan", measure(MODULE, "plan", folder, side))],
            "resume": lambda: [_resume(folder, side, files=chosen.files)],
            "sea": lambda: [
                _row(f"sea, {n * n:,} blocks", measure(MODULE, "sea", folder, n)) for n in (ceil(SEA**0.5), side)
            ],
            "loop": lambda: [_loop(measure(MODULE, "loop", loop), loop)],
        }
        rows = []
        for name in chosen.only:
            rows += parts[name]()
            print(f"{name} is done", file=sys.stderr, flush=True)
    print(table(["", "count", "seconds", "of CPU", "memory", ""], rows))


def _row(name: str, found: dict[str, Any]) -> list[str]:
    return [name, f"{found['count']:,}", f"{found['seconds']:.1f}", f"{found['cpu']:.1f}",
            f"{found['memory'] / 1e9:.2f} GB", ""]  # fmt: skip


def _resume(folder: Path, side: int, *, files: bool) -> list[str]:
    check_room(folder, 2 * side * side, files=files)
    done = make_begun(folder / "begun.zarr", side, 0.9, files=files)
    found = measure(MODULE, "resume", folder, side)
    if found["count"] != done:
        raise RuntimeError(f"{done} blocks were done, {found['count']} were found")
    return _row("resume", found)


def _loop(found: dict[str, Any], blocks: int) -> list[str]:
    parts = {name: found[name] for name in ("client", "scheduler", "workers")}
    told = ", ".join(f"{name} {spent:.2f}" for name, spent in parts.items())
    without = parts["scheduler"] + parts["workers"]
    said = f"{without:.2f} ms of CPU a block but the client's, {sum(parts.values()):.2f} with it ({told})"
    memory = " ".join(f"{one / 1e6:.0f}" for one in found["resident"])
    return ["loop", f"{blocks:,}", "", "", f"{found['memory'] / 1e9:.2f} GB", f"{said}; scheduler's MB: {memory}"]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["index", folder, scenes, side]:
            index_part(Path(folder), int(scenes), int(side))
        case ["plan", folder, side]:
            plan_part(Path(folder), int(side))
        case ["resume", folder, side]:
            resume_part(Path(folder), int(side))
        case ["sea", folder, side]:
            sea_part(Path(folder), int(side))
        case ["loop", blocks]:
            loop_part(int(blocks))
        case _:
            main()
