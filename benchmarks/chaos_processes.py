"""The processes of `benchmarks.chaos`: a scheduler, hosts of workers, the command; what they did, read afterwards."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from .chaos_worker import DELAY, LOG
from .child import HERE

PAGE = ("--dashboard-address", "127.0.0.1:0")  # without it on all addresses, also with --no-dashboard
BIN = Path(sys.executable).parent
PRELOAD = "benchmarks.chaos_worker"
ENVIRONMENT = {
    "PYTHONPATH": str(HERE),
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver",
}
STARTED: "list[subprocess.Popen[str]]" = []  # all processes that were started here, each in a session of its own
JUST_NOW = 1.0  # seconds before a fault in which a result may not have reached the command yet, on a busy machine
START = 180.0  # seconds until processes are there, also on a loaded machine


@dataclass(frozen=True)
class Place:
    """Where processes run: this machine's loopback, or a network namespace.

    Parameters
    ----------
    ip
        Which they listen at.
    prefix
        What is put before their command lines.
    tls
        Options of `dask scheduler` and `dask worker`.
    """

    ip: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    tls: tuple[str, ...] = ()

    def popen(self, name: str, *arguments: object, **more: Any) -> "subprocess.Popen[str]":
        """Start a program of this environment here."""
        line = [*self.prefix, str(BIN / name), *map(str, arguments)]
        started = subprocess.Popen(line, text=True, start_new_session=True, **more)
        STARTED.append(started)
        return started


class Scheduler:
    """A scheduler that can be started again at the same address."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place, self.folder = place, folder
        self.port = free_port()
        self.start()

    @property
    def address(self) -> str:
        """Its address."""
        return f"{'tls' if self.place.tls else 'tcp'}://{self.place.ip}:{self.port}"

    def start(self) -> None:
        """Start it."""
        where = ("--host", self.place.ip, "--port", self.port, *PAGE, "--no-show")
        with (self.folder / "scheduler.log").open("a") as log:
            self.process = self.place.popen(
                "dask", "scheduler", *where, *self.place.tls,
                stdout=log, stderr=log, env=os.environ | ENVIRONMENT, cwd=self.folder,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill it."""
        end(self.process)


class Host:
    """A `dask worker` with some nannies, as one machine has them."""

    def __init__(self, scheduler: Scheduler, place: Place, folder: Path, *, workers: int, delay: float) -> None:
        self.workers = workers
        notes = {LOG: str(folder / "blocks.log"), DELAY: str(delay)}
        many = ("--nworkers", workers, "--nthreads", 1, "--nanny", "--memory-limit", 0, *PAGE)
        loads = ("--preload", PRELOAD, "--preload-nanny", PRELOAD, "--local-directory", folder / "local")
        with (folder / "workers.log").open("a") as log:
            self.process = place.popen(
                "dask", "worker", scheduler.address, "--host", place.ip, *many, *loads, *place.tls,
                stdout=log, stderr=log, env=os.environ | ENVIRONMENT | notes, cwd=folder,
            )  # fmt: skip

    def pids(self) -> list[int]:
        """Return its worker processes: what the process was forked from that has imported everything."""
        try:
            below = psutil.Process(self.process.pid).children()
            servers = [child for child in below if "multiprocessing.forkserver" in " ".join(child.cmdline())]
            return [worker.pid for server in servers for worker in server.children()]
        except psutil.Error:
            return []

    def is_up(self) -> bool:
        """Whether it has all its worker processes."""
        return len(self.pids()) == self.workers and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to nannies and workers alike."""
        for pid in [*self.pids(), self.process.pid]:
            send(pid, number)

    def terminate(self) -> None:
        """Ask it to end, as a queue does before it takes a machine away."""
        send(self.process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and its workers."""
        self.send(signal.SIGKILL)
        end(self.process)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process and all that it has started in its session."""
    for number in (signal.SIGCONT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
    process.wait()


def end_all() -> None:
    """Kill what still runs of all that was started."""
    for process in STARTED:
        if process.poll() is None:
            end(process)


class Command:
    """A run of `swathe`, with what it said and the longest time in which it said nothing."""

    def __init__(self, place: Place, *arguments: object) -> None:
        self.process = place.popen(
            "swathe", *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=os.environ | ENVIRONMENT,
        )  # fmt: skip
        self.lines: list[str] = []
        self.silence = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        last = time.monotonic()
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                now = time.monotonic()
                self.silence, last = max(self.silence, now - last), now
                self.lines.append(line.rstrip())
        self.silence = max(self.silence, time.monotonic() - last)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until it ends; returns whether it still runs."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def end(self, limit: float) -> int:
        """Wait for its end and return its code; it is killed after a limit."""
        if self.wait(limit):
            self.lines.append(f"killed by the benchmark after {limit:g} s")
            end(self.process)
        self._reader.join()
        return self.process.returncode


@dataclass(frozen=True)
class Hit:
    """A fault that met these worker processes: at a moment, or until some time; before that they may begin blocks."""

    what: str
    pids: frozenset[int]
    at: float
    until: float


@dataclass(frozen=True)
class Work:
    """One try at a block, in a worker process; `ended` is infinite if nobody saw its end."""

    block: str
    pid: int
    began: float
    ended: float


def read_work(log: Path, store: str) -> list[Work]:
    """Return what was done for a store."""
    open_: dict[tuple[str, int], float] = {}
    done = []
    for line in log.read_text().splitlines() if log.exists() else []:
        what, when, pid, name, block = line.split()
        if name == store and what == "begin":
            open_[block, int(pid)] = float(when)
        elif name == store:
            done.append(Work(block, int(pid), open_.pop((block, int(pid))), float(when)))
    return done + [Work(block, pid, began, float("inf")) for (block, pid), began in open_.items()]


def redone(work: Sequence[Work]) -> int:
    """Return how many tries were more than one for each block."""
    return len(work) - len({one.block for one in work})


def in_flight(work: Iterable[Work], hits: Sequence[Hit]) -> int:
    """Return how many tries were with processes that a fault met, so that their results may not have arrived."""

    def is_met(one: Work, hit: Hit) -> bool:
        return one.pid in hit.pids and one.ended > hit.at - JUST_NOW and one.began <= hit.until

    return sum(any(is_met(one, hit) for hit in hits) for one in work)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_until(is_so: Any, what: str, limit: float = START) -> None:
    """Wait for a condition. Raises TimeoutError."""
    until = time.monotonic() + limit
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {limit:g} s")
        time.sleep(0.1)


def last_error(lines: Sequence[str]) -> str:
    """Return what a command said last, without what changes from run to run."""
    return re.sub(r"\d{4,}", "N", lines[-1])[:150] if lines else ""
