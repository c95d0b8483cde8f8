"""The workers of a cluster: what there is to know of them, and in which of them a task runs."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import Client, Worker, get_worker

from models.errors import ClusterError, DeviceLostError, SwatheError

from .ask import known_workers
from .current import current_check
from .options import options_of
from .processes import MARK

SAY_EVERY = 5  # seconds between words on what is waited for
GPU_SHARE = 1 / 8  # of a GPU that a task takes: only some at a time compute, the others read, wait or write


def worker_threads(client: Client) -> int:
    """Return how many tasks the workers run at a time, now."""
    return sum(int(worker["nthreads"]) for worker in known_workers(client).values())


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker: its machine, threads, the bytes that it may take, 0 where nothing bounds them, and declared GPUs."""

    host: str
    nthreads: int
    memory: int
    address: str = ""
    gpus: float = 0


def worker_facts(client: Client) -> list[WorkerFacts]:
    """Return what there is to know of the workers that are there now, and fit for the run.

    Raises
    ------
    ClusterError
        There is none for a long time; or there are some, and none is fit.
    """
    workers = wait_for_workers(client, look=_fit_workers)
    return [
        WorkerFacts(w["host"], int(w["nthreads"]), int(w["memory_limit"] or 0), address, w["resources"].get("GPU", 0))
        for address, w in workers.items()
    ]


def _fit_workers(client: Client) -> Mapping[str, Any]:
    workers = known_workers(client)
    if (check := current_check(client)) is None:
        return workers
    check.look(workers)
    check.require_any()
    allowed = check.allowed()
    return workers if allowed is None else {address: workers[address] for address in allowed}


def wait_for_workers(
    client: Client,
    say: Callable[[str], object] = lambda _: None,
    settled: float = 0,
    look: Callable[[Client], Mapping[str, Any]] = known_workers,
) -> Mapping[str, Any]:
    """Wait for the first worker that a look finds, and until for so many seconds no other came; return them.

    Every few seconds it is said what is waited for.

    Raises
    ------
    ClusterError
        There is none for a long time.
    """
    began = said = joined = time.monotonic()
    there = 0
    while True:
        now, workers = time.monotonic(), look(client)
        if len(workers) > there:
            there, joined = len(workers), now
        if there and now - joined >= settled:
            return workers
        if not there and now - began > options_of(client).patience:
            raise ClusterError(no_worker(client))
        if now - said > SAY_EVERY:
            said = now
            queue = queue_words(client)
            say(f"{there or 'no'} worker{'s' * (there != 1)} after {now - began:.0f} s{f'; {queue}' if queue else ''}")
        time.sleep(0.2)


def no_worker(client: Client) -> str:
    """Say that there has been none for as long as the cluster's options allow, and what its queue is at."""
    said = f"the cluster has had no worker for {options_of(client).patience:g} s", queue_words(client)
    return "; ".join([*filter(None, said), "start workers and run the same command again"])


def queue_words(client: Client) -> str:
    """Say what the queue is at of the cluster that a run has started, as "2 Slurm jobs pending"; empty: nothing known.

    It may ask the queue, which takes a moment.
    """
    waiting_for = getattr(client.cluster, "waiting_for", None)
    return str(waiting_for()) if waiting_for is not None else ""


def own_facts() -> WorkerFacts | None:
    """Return the facts of the worker that runs this task; None outside of one, and for those of the run itself."""
    if (worker := _worker()) is None:
        return None
    gpus = worker.state.total_resources.get("GPU", 0)
    memory = int(worker.memory_manager.memory_limit or 0)
    return WorkerFacts(worker.ip, int(worker.state.nthreads), memory, worker.address, gpus)


def _worker() -> Worker | None:
    """Return the worker that runs this task; None outside of one, and for those that a run has started itself."""
    try:
        worker = get_worker()
    except ValueError:
        return None
    return None if worker.address.startswith("inproc://") or MARK in os.environ else worker


@contextmanager
def naming_worker() -> Iterator[None]:
    """Let an error say on which worker it was raised, and in which folder: the user's machine and paths are others."""
    try:
        yield
    except SwatheError as error:
        if isinstance(error, DeviceLostError):
            error.worker = _address()
        if (worker := _worker()) is None:
            raise
        where = f"on the Dask worker {worker.address}, of {socket.gethostname()} in the folder {os.getcwd()}"
        named = type(error)(f"{error}\n({where})")
        named.__dict__.update(error.__dict__)
        raise named from error


def own_address() -> str:
    """Return the address of the worker that runs this task, also of one in this process; empty outside of one."""
    try:
        return str(get_worker().address)
    except ValueError:
        return ""


def own_task() -> str:
    """Return the key of the task that runs in this thread; empty outside of one."""
    try:
        return str(get_worker().get_current_task())
    except ValueError:
        return ""


def _address() -> str | None:
    """Return the address of the worker process that runs this task; None in the process of the run itself."""
    address = own_address()
    return None if not address or address.startswith("inproc://") else address


def gpu_resources(client: Client) -> dict[str, float] | None:
    """Return a task's share of a GPU if workers declare that resource, so that they get the tasks; else None.

    Eight tasks at a time may use one: with one alone, nothing would be read while the GPU computes.
    """
    declared = any("GPU" in worker.get("resources", {}) for worker in known_workers(client).values())
    return {"GPU": GPU_SHARE} if declared else None
