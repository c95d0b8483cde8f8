"""Whether anything grows while blocks go by and workers are killed: memory, threads, open files, sockets.

    python -m benchmarks.soak                                # 40,000 blocks: of usual ones, two hours' worth
    python -m benchmarks.soak --blocks 2500 --minutes 10     # the same output again and again, for ten minutes

One command on a scene of so many small blocks, with a scheduler and two hosts of two workers; those of one host are
killed at random, one every ten seconds or so. Of the command, the scheduler, the process that holds a host's nannies
and a worker that nobody kills, samples are taken every second: resident memory (RSS), its share of what is mapped by
several (PSS), threads, open files and sockets. The first half of the samples counts as warming up: the scheduler's
lists of what has happened are full after some 20,000 tasks. `from` and `to` are medians of the first and the last third
after that, `grows` is the slope of a line through it, times its time. The pixels are compared with those of one process
in larger blocks.

GDAL keeps up to 256 MB of decoded blocks in a process, which a worker fills in the course of a scene; here it may keep
32 MB (`GDAL_CACHEMAX`), so that what would grow for ever is seen. Dask's profiler, which keeps an hour of samples, is
off, as it is in workers that Swathe starts.

Dask keeps the names of the last 100,000 tasks, some 30 MB; the scheduler's list of them is filled beforehand.

Promise: by that line nothing grows by more than 5 % or 10 MB of memory, 2 threads, files or sockets.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import psutil
import zarr
from distributed import Client

from .chaos_faults import Stage
from .chaos_processes import Command, read_work, send
from .chaos_scene import make_reference
from .child import table, workplace

BLOCK, REFERENCE_BLOCK = 64, 512  # pixels
EVERY = 1.0  # seconds between samples
KILL = (5.0, 15.0)  # seconds between kills
WARM = 0.5  # of the samples
MB = 1e6
MOST: Mapping[str, float] = {"RSS": 10 * MB, "PSS": 10 * MB, "threads": 2, "files": 2, "sockets": 2}
SHARE = 0.05  # of the memory that it may grow by, where that is more


@dataclass
class Series:
    """What was seen of a process: seconds and values by name."""

    times: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MOST})

    def sample(self, process: psutil.Process) -> None:
        """Look at it once; a process that has ended is left as it was."""
        try:
            with process.oneshot():
                memory = process.memory_full_info()
                sockets = len(process.net_connections("all"))
                seen = (memory.rss, memory.pss, process.num_threads(), process.num_fds() - sockets, sockets)
        except psutil.Error:
            return
        self.times.append(time.monotonic())
        for name, value in zip(MOST, seen, strict=True):
            self.values[name].append(float(value))

    def growth(self, name: str) -> tuple[float, float, float]:
        """Return the medians of the first and the last third after warming up, and the rise of a line through that."""
        warm = int(WARM * len(self.times))
        times, values = np.array(self.times[warm:]), np.array(self.values[name][warm:])
        slope = np.polyfit(times - times[0], values, 1)[0]
        third = max(1, len(values) // 3)
        return (
            float(np.median(values[:third])),
            float(np.median(values[-third:])),
            float(slope * (times[-1] - times[0])),
        )

    def grows(self, name: str) -> bool:
        """Whether it grows by more than it may."""
        first, _, rise = self.growth(name)
        return rise > max(MOST[name], SHARE * first if name in ("RSS", "PSS") else 0)


def soak(folder: Path, blocks: int, minutes: float, seed: int) -> int:
    """Let blocks go by, print what grows; returns 1 if anything does or pixels are wrong."""
    random, side = Random(f"{seed} soak"), BLOCK * int(np.ceil(blocks**0.5))
    make_reference(folder, side, REFERENCE_BLOCK)
    seen: dict[tuple[str, int], Series] = {}
    killed, runs, until = 0, 0, time.monotonic() + 60 * minutes
    with Stage(folder / "soak", folder, delay=0) as stage:
        with Client(stage.scheduler.address, set_as_default=False) as client:
            client.run_on_scheduler(_fill_names)
        while runs == 0 or time.monotonic() < until:
            stage.begin("soak.zarr")
            command = stage.command("--overwrite")
            killed += _one_run(stage, command, random, seen)
            runs += 1
            if code := command.end(60):
                print("\n".join(command.lines))
                return code
        work = read_work(stage.log, "soak.zarr")
        same = _same_pixels(stage.output, stage.reference)
    tries = len({(one.block, one.pid, one.began) for one in work})
    print(f"{tries:,} blocks and overviews in {runs} runs, {killed} workers killed; {'right' if same else 'WRONG'}\n")
    longest = dict(_longest(seen))
    print(table(["", "from", "to", "grows"], _rows(longest)))
    return int(not same or any(series.grows(name) for series in longest.values() for name in MOST))


def _fill_names() -> None:
    """Fill the list of names that dask keeps of the last 100,000 tasks, so that it grows no more."""
    from dask.utils import key_split

    for number in range(100_000):
        key_split(f"swathe-block-{number:032x}-{number}")


def _one_run(stage: Stage, command: Command, random: Random, seen: dict[tuple[str, int], Series]) -> int:
    """Sample and kill until the command ends; returns how many were killed."""
    killed, next_kill = 0, time.monotonic() + random.uniform(*KILL)
    watched = {"command": command.process.pid, "scheduler": stage.scheduler.process.pid}
    watched |= {"nannies": stage.hosts[1].process.pid, "worker": stage.hosts[0].pids()[0]}
    processes = {(name, pid): psutil.Process(pid) for name, pid in watched.items()}
    stage.wait_for_work(command)
    while command.wait(EVERY):
        for key, process in processes.items():
            seen.setdefault(key, Series()).sample(process)
        victims = stage.hosts[1].pids()
        if victims and time.monotonic() > next_kill:
            send(random.choice(victims), signal.SIGKILL)
            killed, next_kill = killed + 1, time.monotonic() + random.uniform(*KILL)
    return killed


def _longest(seen: Mapping[tuple[str, int], Series]) -> Iterator[tuple[str, Series]]:
    """Yield of each kind of process that which was seen longest: each run is a command of its own."""
    for name in dict.fromkeys(name for name, _ in seen):
        yield name, max((some for (of, _), some in seen.items() if of == name), key=lambda some: len(some.times))


def _rows(longest: Mapping[str, Series]) -> list[list[str]]:
    rows = []
    for kind, series in longest.items():
        for name in MOST:
            unit, words = (MB, " MB") if name in ("RSS", "PSS") else (1, "")
            figures = [f"{value / unit:.1f}{words}" for value in series.growth(name)]
            rows.append([f"{kind}, {name}", *figures[:2], figures[2] + " !" * series.grows(name)])
    return rows


def _same_pixels(output: Path, reference: Path) -> bool:
    mine, theirs = (zarr.open_group(path, mode="r") for path in (output, reference))
    arrays: Any = [(mine[name], theirs[name]) for name in ("class_map", "probability")]
    return all(np.array_equal(one[:], other[:]) for one, other in arrays)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Whether anything grows.")
    parser.add_argument("--blocks", type=int, default=40_000, help="of one run")
    parser.add_argument("--minutes", type=float, default=0, help="runs are repeated for so long")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="where all goes and stays")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    os.environ.setdefault("GDAL_CACHEMAX", "32")
    os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")
    chosen = parse(arguments)
    print(f"seed {chosen.seed}", flush=True)
    with workplace(chosen.folder) as folder:
        return soak(folder, chosen.blocks, chosen.minutes, chosen.seed)


if __name__ == "__main__":
    sys.exit(main())
