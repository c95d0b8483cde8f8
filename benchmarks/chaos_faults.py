"""The cluster that a lane of `benchmarks.chaos` has, and what is done to it."""

import asyncio
import math
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Self

from distributed.core import rpc

from pipeline.cluster.certificates import write_certificates

from .chaos_processes import Command, Hit, Host, Place, Scheduler, read_work, send, wait_until
from .chaos_scene import OPTIONS, bundle_path
from .two_hosts import Hosts, with_tls

WORKERS = 2  # of a host
DELAY = 0.15  # seconds that a block takes longer, so that faults find something
FIRST = 90  # seconds within which a block is begun


class Stage:
    """A scheduler and two hosts, on loopback or in namespaces, kept from run to run.

    Parameters
    ----------
    folder, shared
        Its own folder, and that of scene, bundle and reference.
    net
        Namespaces; None: all on loopback.
    delay
        Seconds that a block takes longer.
    """

    def __init__(self, folder: Path, shared: Path, net: Hosts | None = None, delay: float = DELAY) -> None:
        self.folder, self.shared, self.net, self.delay = folder, shared, net, delay
        self.hits: list[Hit] = []
        self.running: Command | None = None
        self.cut: set[int] = set()
        self.tls: Path | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.home, self.places = (net.home, net.workers) if net else (Place(), (Place(), Place()))
        if net:
            self.tls = folder / "tls"
            shutil.rmtree(self.tls, ignore_errors=True)
            write_certificates(self.tls)
            self.home, *places = (with_tls(place, self.tls) for place in (net.home, *net.workers))
            self.places = (places[0], places[1])
        self.scheduler = Scheduler(self.home, folder)
        self.hosts: list[Host] = [self.new_host(place) for place in self.places]

    def new_host(self, place: Place) -> Host:
        """Start a host."""
        return Host(self.scheduler, place, self.folder, workers=WORKERS, delay=self.delay)

    def __enter__(self) -> Self:
        wait_until(lambda: all(host.is_up() for host in self.hosts), "workers")
        return self

    def __exit__(self, *_: object) -> None:
        if self.running is not None:
            self.running.end(0)
        for host in self.hosts:
            host.kill()
        self.scheduler.kill()

    @property
    def log(self) -> Path:
        """Where workers note their blocks."""
        return self.folder / "blocks.log"

    @property
    def reference(self) -> Path:
        """The output that is right."""
        return self.shared / "reference.zarr"

    def begin(self, name: str) -> None:
        """Make ready for a run into an output of that name."""
        self.hits, self.output = [], self.folder / name
        self.mend()

    def command(self, *more: str) -> Command:
        """Start the command, the same each time but for more options."""
        tls = ("--tls", self.tls) if self.tls else ()
        where = ("-m", bundle_path(self.shared), "-o", self.output, "--scheduler", self.scheduler.address, *tls)
        self.running = Command(self.home, "segment", self.shared / "scene.tif", *where, *OPTIONS, *more)
        return self.running

    def finish(self, *, keep: bool, said: list[str]) -> None:
        """Remove the output, or keep it with what the commands said."""
        if keep:
            self.output.with_suffix(".said").write_text("\n".join(said))
        else:
            shutil.rmtree(self.output, ignore_errors=True)

    def mend(self) -> None:
        """Bring the cluster back to what it was."""
        for number in range(len(self.places)):
            self.mend_network(number)
        send(self.scheduler.process.pid, signal.SIGCONT)
        if self.scheduler.process.poll() is not None:
            self.scheduler.start()
            self.replace_all()
        for host in self.hosts:
            host.send(signal.SIGCONT)
        until = time.monotonic() + 5  # nannies may be about it
        while time.monotonic() < until and not all(host.is_up() for host in self.hosts):
            time.sleep(0.1)
        for number, host in enumerate(self.hosts):
            if not host.is_up():
                self.replace(number)
        wait_until(lambda: all(host.is_up() for host in self.hosts), "workers")

    def replace(self, number: int) -> None:
        """Kill what is left of a host, and start it."""
        self.hosts[number].kill()
        self.hosts[number] = self.new_host(self.places[number])

    def replace_all(self) -> None:
        """Replace all hosts."""
        for number in range(len(self.hosts)):
            self.replace(number)

    def hit(self, what: str, pids: list[int], *, lasts: bool = False) -> None:
        """Note that a fault meets worker processes now, or from now on."""
        now = time.time()
        self.hits.append(Hit(what, frozenset(pids), now, math.inf if lasts else now))

    def end_of_faults(self) -> None:
        """Note that those which last are over."""
        self.hits = [replace(hit, until=min(hit.until, time.time())) for hit in self.hits]

    def pids(self) -> list[int]:
        """Return all worker processes."""
        return [pid for host in self.hosts for pid in host.pids()]

    def cut_network(self, host: int) -> None:
        """Cut a host off."""
        assert self.net is not None
        self.net.cut(host)
        self.cut.add(host)

    def mend_network(self, host: int) -> None:
        """Undo it, if it is."""
        if self.net is not None and host in self.cut:
            self.net.mend(host)
            self.cut.discard(host)

    def wait_for_work(self, command: Command) -> bool:
        """Wait for the first block of a run, and see whether it still runs."""
        until = time.monotonic() + FIRST
        while command.wait(0.1) and time.monotonic() < until:
            if read_work(self.log, self.output.name):
                return True
        return False


Prepare = Callable[[Stage, Random], object]
Fault = Callable[[Stage, Random, Command], object]


def nothing(stage: Stage, random: Random) -> None:
    """Let the cluster be as it is."""


def kill(stage: Stage, random: Random, command: Command) -> None:
    """Kill workers: before there is anything to do, in the midst of it, while they start, and whole hosts."""
    if random.random() < 0.3:
        _kill_one(stage, random, "early")
        command.wait(random.uniform(0, 1))
    stage.wait_for_work(command)
    for _ in range(random.randint(1, 4)):
        if not command.wait(random.uniform(0, 1.5)):
            return
        if random.random() < 0.2:
            number = random.randrange(len(stage.hosts))
            stage.hit("host killed", stage.hosts[number].pids())
            stage.replace(number)
            continue
        host = _kill_one(stage, random, "killed")
        if random.random() < 0.5:
            before = set(host.pids())
            until = time.monotonic() + 3
            while time.monotonic() < until and not (new := set(host.pids()) - before):
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.3))
            for pid in new:
                stage.hit("killed while starting", [pid])
                send(pid, signal.SIGKILL)


def _kill_one(stage: Stage, random: Random, what: str) -> Host:
    host = random.choice(stage.hosts)
    for pid in random.sample(host.pids(), 1) if host.pids() else []:
        stage.hit(what, [pid])
        send(pid, signal.SIGKILL)
    return host


def kill_scheduler(stage: Stage, random: Random, command: Command) -> None:
    """Kill the scheduler at any time from the command's start on; in some runs another one comes at once."""
    if random.random() < 0.8:
        stage.wait_for_work(command)
    if command.wait(random.uniform(0, 4)):
        stage.hit("scheduler killed", stage.pids())
        stage.scheduler.kill()
        if random.random() < 0.3:
            stage.scheduler.start()
            stage.replace_all()


def stop(stage: Stage, random: Random, command: Command) -> None:
    """Stop a worker, a host or the scheduler; in some runs it goes on after a while."""
    stage.wait_for_work(command)
    if not command.wait(random.uniform(0, 2)):
        return
    host, what = random.choice(stage.hosts), random.choice(["worker", "worker", "host", "scheduler"])
    pids = {"worker": host.pids()[:1], "host": host.pids(), "scheduler": stage.pids()}[what]
    stopped = {"worker": pids, "host": [host.process.pid, *pids], "scheduler": [stage.scheduler.process.pid]}[what]
    stage.hit(f"{what} stopped", pids, lasts=True)
    for pid in stopped:
        send(pid, signal.SIGSTOP)
    if random.random() < 0.4:
        command.wait(random.uniform(1, 40))
        for pid in stopped:
            send(pid, signal.SIGCONT)
        stage.end_of_faults()


def cut(stage: Stage, random: Random, command: Command) -> None:
    """Cut the network of a host; in some runs it comes back after a while."""
    stage.wait_for_work(command)
    if not command.wait(random.uniform(0, 2)):
        return
    number = random.randrange(len(stage.hosts))
    stage.hit("host cut off", stage.hosts[number].pids(), lasts=True)
    stage.cut_network(number)
    if random.random() < 0.4:
        command.wait(random.uniform(1, 40))
        stage.mend_network(number)
        stage.end_of_faults()


def preempt(stage: Stage, random: Random, command: Command) -> None:
    """Ask a host to end, let another one come after a while; once or twice."""
    stage.wait_for_work(command)
    for _ in range(random.randint(1, 2)):
        if not command.wait(random.uniform(0, 2)):
            return
        number = random.randrange(len(stage.hosts))
        stage.hit("host asked to end", stage.hosts[number].pids())
        stage.hosts[number].terminate()
        command.wait(random.uniform(0.5, 4))
        stage.replace(number)


def leave_one(stage: Stage, random: Random) -> None:
    """Begin with one host or with none."""
    for host in stage.hosts[random.randint(0, 1) :]:
        host.kill()


def elastic(stage: Stage, random: Random, command: Command) -> None:
    """Let hosts come late, and retire a worker now and then, as adaptive scaling does."""
    for number, host in enumerate(stage.hosts):
        if host.process.poll() is not None:
            command.wait(random.uniform(1, 6))
            stage.hosts[number] = stage.new_host(stage.places[number])
    stage.wait_for_work(command)
    for _ in range(random.randint(1, 2)):
        if not command.wait(random.uniform(0.5, 3)):
            return
        stage.hit("worker retired", stage.pids())
        asyncio.run(_retire(stage.scheduler.address))


async def _retire(address: str) -> None:
    async with rpc(address) as scheduler:
        await scheduler.retire_workers(n=1, close_workers=True, remove=True)


FAULTS: dict[str, tuple[Prepare, Fault]] = {
    "kill": (nothing, kill),
    "scheduler": (nothing, kill_scheduler),
    "stop": (nothing, stop),
    "cut": (nothing, cut),
    "preempt": (nothing, preempt),
    "elastic": (leave_one, elastic),
}
