"""Worker processes of this machine for one run: nobody outside it can reach them, and they end with the run."""

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, TypeAlias

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.scheduler import DEFAULT_EXTENSIONS
from distributed.spans import SpansSchedulerExtension
from typing_extensions import override

from models.errors import ClusterError
from models.system import usable_cpus

from .options import Cluster

MARK = "SWATHE_LOCAL_WORKER"  # in the environment of the processes that are started here
# what dask's monitors take from the engine's cores, 1 s in 14
LIGHT = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.scheduler.active-memory-manager.start": False,
    # of glibc: large arrays lie in huge pages. Else, the kernel hands memory out anew for each block, page by page
    "distributed.nanny.pre-spawn-environ.GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
}
# by dask's defaults, the dashboards of scheduler and workers listen on all addresses
HERE = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
# a nanny starts a killed one anew; dask ends it too where that takes more than 15 s, as on a busy machine
STARTED_ANEW = {"distributed.deploy.lost-worker-timeout": "10 minutes"}
PATIENCE = 20  # seconds that they have to end; dask kills them after nine
# a process that is stopped at once leaves semaphores behind; what tidies them up after it would complain
QUIET = "ignore::UserWarning:multiprocessing.resource_tracker"
UNGUARDED = (
    "worker processes import the script that starts them, and would start more: put what it does under "
    "`if __name__ == '__main__':`, or leave `workers` out"
)


class BoundedSpans(SpansSchedulerExtension):  # type: ignore[misc]  # which is not typed
    """Dask's spans without a note of each submission, of which it keeps all for as long as a run lasts."""

    @override
    def observe_tasks(self, tss: Any, code: Any, span_metadata: Any) -> Any:
        return super().observe_tasks(tss, code, {"collections": []})


EXTENSIONS = {**DEFAULT_EXTENSIONS, "spans": BoundedSpans}  # of the schedulers that a run starts itself


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """So many worker processes on this machine, which share its cores; or of so many threads each.

    Each sees one of `gpus`, as `CUDA_VISIBLE_DEVICES` names them, in turn; all that there are, where none is named.
    """

    count: int
    threads: int | None = None
    gpus: tuple[str, ...] = ()

    def share(self, threads: int) -> int:
        """Return each process's share of the threads, rounded up: a core too many costs less than an idle one."""
        return self.threads or -(-threads // self.count)


ClusterLike: TypeAlias = Client | str | Cluster
"""A cluster: its client, its scheduler's address or a `Cluster`, which may name other ways."""
Workers: TypeAlias = ClusterLike | LocalProcesses | None
"""Where tasks run: a cluster, processes of this machine, or this process."""


def workers_of(client: ClusterLike | None, workers: int | None) -> Workers:
    """Return where tasks run, of the two keywords that say so.

    Raises
    ------
    ClusterError
        Both are given; not a number of processes; or a script starts them while they import it.
    """
    if workers is None:
        return client
    if client is not None:
        raise ClusterError("workers are processes of this machine, client (--scheduler) is a cluster: give one of them")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ClusterError(f"workers is a number of processes, 1 or more; received {workers!r}")
    return some_processes(workers) if workers > 1 else None


def some_processes(count: int, threads: int | None = None) -> LocalProcesses:
    """Return processes of this machine, of so many threads each or sharing its cores.

    Raises
    ------
    ClusterError
        A script starts them while they import it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ClusterError(UNGUARDED)
    return LocalProcesses(count, threads)


def default_processes() -> LocalProcesses:
    """Return what `local` means: one process for each core that this one may use."""
    return some_processes(usable_cpus())


@contextmanager
def local_processes(processes: LocalProcesses, threads: int) -> Iterator[SpecCluster]:
    """Yield a cluster of worker processes of so many threads each. Killed ones are started again.

    Raises
    ------
    ClusterError
        They do not start.
    """
    try:
        cluster = _start(processes, threads)
    except (OSError, RuntimeError) as error:
        raise ClusterError(f"{processes.count} worker processes could not be started ({error}); {UNGUARDED}") from error
    try:
        with dask.config.set(STARTED_ANEW):
            yield cluster
    finally:
        with suppress(TimeoutError):  # those that are left end with this process
            cluster.close(timeout=PATIENCE)


def _start(processes: LocalProcesses, threads: int) -> SpecCluster:
    before = dict(os.environ)
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), QUIET]))
    try:
        with _deaf_to_interrupts(), dask.config.set(LIGHT):
            return SpecCluster(
                scheduler={"cls": Scheduler, "options": {**HERE, "dashboard": True, "extensions": EXTENSIONS}},
                workers={place: _worker(processes, place, threads) for place in range(processes.count)},
                silence_logs=logging.CRITICAL,
            )
    finally:  # dask puts there what only its workers should have, as OMP_NUM_THREADS=1
        os.environ.clear()
        os.environ.update(before)


def _worker(processes: LocalProcesses, place: int, threads: int) -> dict[str, Any]:
    """Return how one of the worker processes is started."""
    gpus = processes.gpus
    own: dict[str, Any] = {"env": {MARK: "1"}}
    if gpus:
        own = {"env": {MARK: "1", **gpu_environment(gpus[place % len(gpus)])}, "resources": {"GPU": 1}}
    bounds = {"nthreads": min(threads, processes.threads or threads), "memory_limit": 0}  # the plan bounds memory
    return {"cls": Nanny, "options": {**HERE, **bounds, **own, "dashboard": True, "silence_logs": logging.CRITICAL}}


def gpu_environment(gpu: str) -> dict[str, str]:
    """Return the variables of a process that sees one GPU alone; CUDA reads them at its first call."""
    return {"CUDA_VISIBLE_DEVICES": gpu}


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let processes that are started, now and by threads that are, ignore Ctrl-C: a terminal sends it to all.

    They end with this process, or when it says so; each would print a traceback of its own.
    """
    resource_tracker.ensure_running()  # which unblocks the signal as it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
