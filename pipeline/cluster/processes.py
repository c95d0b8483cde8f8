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
from distributed import Client, LocalCluster
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
}
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
    """So many worker processes on this machine, which share its cores; or of so many threads each."""

    count: int
    threads: int | None = None

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
def local_processes(processes: LocalProcesses, threads: int) -> Iterator[LocalCluster]:
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
        yield cluster
    finally:
        with suppress(TimeoutError):  # those that are left end with this process
            cluster.close(timeout=PATIENCE)


def _start(processes: LocalProcesses, threads: int) -> LocalCluster:
    before = dict(os.environ)
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), QUIET]))
    try:
        with _deaf_to_interrupts(), dask.config.set(LIGHT):
            return LocalCluster(
                n_workers=processes.count,
                threads_per_worker=min(threads, processes.threads or threads),
                processes=True,
                host="127.0.0.1",
                memory_limit=0,  # the plan bounds memory; dask's limit would count the engine's as a leak
                dashboard_address="127.0.0.1:0",  # by dask's defaults, both listen on all addresses
                worker_dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                scheduler_kwargs={"extensions": EXTENSIONS},
                env={MARK: "1"},
            )
    finally:  # dask puts there what only its workers should have, as OMP_NUM_THREADS=1
        os.environ.clear()
        os.environ.update(before)


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
