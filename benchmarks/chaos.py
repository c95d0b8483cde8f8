"""What a run survives: workers and schedulers killed, stopped, cut off, preempted; workers that come late and leave.

    python -m benchmarks.chaos                       # 50 of `kill`, 20 of others, 10 of `stop` and `cut`
    python -m benchmarks.chaos --quick               # some of each
    python -m benchmarks.chaos --only kill stop --runs 5 --seed 7

Each run is the command `swathe segment` on a scene of a hundred blocks, with a scheduler and two hosts of two worker
processes that are real (`dask scheduler`, `dask worker`), and faults that are drawn by seed, kind and number alone. A
command that ends with an error is run once more, after the cluster was mended. `right` are outputs all of whose files
are those of a run in one process without faults; `silence` is the longest time in which a command said nothing,
`redone` how many blocks were begun more than once, and `in flight` how many were with the processes that the faults
met and had not been told of. Promises: no output is wrong, one restart at most, no silence over 60 s, and no more
redone than was in flight.

`kill`: worker processes, some of them while they start, and whole hosts. `scheduler`: it is killed. `stop`: workers,
hosts or the scheduler get SIGSTOP. `cut`: the network of one host goes down (network namespaces, TLS; as root).
`preempt`: a host gets SIGTERM, and another comes. `elastic`: all but one worker come late, and some are retired, as
adaptive scaling does it.
"""

import argparse
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from .chaos_faults import FAULTS, Stage
from .chaos_processes import end_all, in_flight, last_error, read_work, redone
from .chaos_scene import difference, make_reference
from .child import table, workplace
from .two_hosts import remove_hosts, two_hosts, why_not

RUNS = {"kill": 50, "scheduler": 20, "stop": 10, "preempt": 20, "elastic": 20, "cut": 10}
QUICK = {"kill": 2, "scheduler": 1, "stop": 1, "preempt": 1, "elastic": 1, "cut": 1}
LIMIT = 240  # seconds after which a command counts as hung
SILENCE = 60


@dataclass(frozen=True)
class Outcome:
    """What came of a run; nothing is `wrong` if it has the right bytes."""

    kind: str
    number: int
    faults: tuple[str, ...]
    wrong: str
    restarts: int
    silence: float
    redone: int
    in_flight: int
    seconds: float
    said: str

    @property
    def is_kept(self) -> bool:
        """Whether all promises were kept."""
        return not self.wrong and self.silence <= SILENCE and self.redone <= self.in_flight

    def describe(self) -> str:
        """Return a line."""
        return (
            f"{self.kind} {self.number}: {self.wrong or 'right'}, {self.restarts} restarts, {self.seconds:.0f} s, "
            f"silence {self.silence:.0f} s, {self.redone} redone of {self.in_flight} in flight; "
            f"{', '.join(self.faults)}{self.said and f' ({self.said})'}"
        )


def one_run(stage: Stage, kind: str, number: int, seed: int) -> Outcome:
    """Do one run with its faults."""
    random = Random(f"{seed} {kind} {number}")
    name = f"{kind}-{number}.zarr"
    stage.begin(name)
    started = time.monotonic()
    prepare, fault = FAULTS[kind]
    prepare(stage, random)
    commands = [stage.command()]
    fault(stage, random, commands[0])
    code = commands[0].end(LIMIT)
    stage.end_of_faults()
    if code:
        stage.mend()
        commands.append(stage.command())
        code = commands[1].end(LIMIT)
    seconds = time.monotonic() - started
    work = read_work(stage.log, name)
    wrong = last_error(commands[-1].lines) or str(code) if code else difference(stage.reference, stage.output)
    said = last_error(commands[0].lines) if commands[1:] else ""
    outcome = Outcome(
        kind, number, tuple(hit.what for hit in stage.hits), wrong, len(commands) - 1,
        max(command.silence for command in commands), redone(work), in_flight(work, stage.hits), seconds, said,
    )  # fmt: skip
    stage.finish(keep=not outcome.is_kept, said=[line for command in commands for line in command.lines])
    return outcome


class Lane(threading.Thread):
    """Does runs one after the other, on a cluster of its own; several lanes side by side."""

    def __init__(
        self, number: int, kinds: "queue.SimpleQueue[tuple[str, int]]", seed: int, folder: Path, found: list[Outcome]
    ) -> None:
        super().__init__(daemon=True)
        self.number, self.kinds, self.seed, self.folder, self.found = number, kinds, seed, folder, found
        self.error: BaseException | None = None

    def run(self) -> None:
        """See `Thread`."""
        try:
            with ExitStack() as stack:
                stage: Stage | None = None
                while not self.kinds.empty():
                    kind, number = self.kinds.get_nowait()
                    if stage is None or (stage.net is not None) != (kind == "cut"):
                        stack.close()  # a stage takes more than a gigabyte
                        hosts = stack.enter_context(two_hosts(self.number)) if kind == "cut" else None
                        folder = self.folder / f"lane-{self.number}-{'hosts' if hosts else 'here'}"
                        stage = stack.enter_context(Stage(folder, self.folder, hosts))
                    self.found.append(one_run(stage, kind, number, self.seed))
                    print(self.found[-1].describe(), flush=True)
        except queue.Empty:
            return
        except BaseException as error:  # shown by the thread that waits
            self.error = error


def campaign(runs: dict[str, int], seed: int, lanes: int, folder: Path) -> list[Outcome]:
    """Do all runs, in so many lanes."""
    kinds: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    for kind, count in runs.items():
        for number in range(count):
            kinds.put((kind, number))
    found: list[Outcome] = []
    working = [Lane(number, kinds, seed, folder, found) for number in range(lanes)]
    for lane in working:
        lane.start()
    for lane in working:
        lane.join()
    errors = [lane.error for lane in working if lane.error is not None]
    if errors:
        raise errors[0]
    return found


def rows_of(found: Sequence[Outcome]) -> list[list[str]]:
    """Return a row for each kind."""
    rows = []
    for kind in dict.fromkeys(one.kind for one in found):
        some = [one for one in found if one.kind == kind]
        right, kept = sum(not one.wrong for one in some), sum(one.is_kept for one in some)
        most = max(some, key=lambda one: one.redone)
        rows.append([
            kind, str(len(some)), str(right), str(len(some) - right), str(sum(one.restarts for one in some)),
            f"{max(one.silence for one in some):.0f} s", f"{most.redone} of {most.in_flight}",
            str(max(one.redone - one.in_flight for one in some)), f"{kept} of {len(some)}",
        ])  # fmt: skip
    return rows


HEADS = ["", "runs", "right", "wrong", "restarts", "silence", "most redone", "redone over flight", "kept"]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs with faults.")
    parser.add_argument("--quick", action="store_true", help="a few of each kind")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="KIND", help="some kinds")
    parser.add_argument("--runs", type=int, help="how many of each kind")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--lanes", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where all goes and stays")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    chosen = parse(arguments)
    print(f"seed {chosen.seed}", flush=True)
    with workplace(chosen.folder) as folder:
        make_reference(folder)
        runs = {
            kind: chosen.runs or count
            for kind, count in (QUICK if chosen.quick else RUNS).items()
            if kind in chosen.only
        }
        if "cut" in runs and (reason := why_not()):
            print(f"cut is left out: {reason}")
            del runs["cut"]
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            found = campaign(runs, chosen.seed, chosen.lanes, folder)
        finally:
            signal.signal(signal.SIGTERM, before)
            end_all()
            if "cut" in runs:
                remove_hosts()
    print(f"\nseed {chosen.seed}\n")
    print(table(HEADS, rows_of(found)))
    return int(not all(one.is_kept for one in found))


if __name__ == "__main__":
    sys.exit(main())
