"""Connect to a Dask cluster, or start one in this process; run many tasks of which few are known to it at a time."""

import asyncio
import logging
import operator
import os
import queue
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import count, islice
from typing import Any, TypeVar
from weakref import WeakSet

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, get_worker
from distributed.comm import CommClosedError
from distributed.core import rpc
from distributed.utils import silence_logging_cmgr

from models.errors import ClusterError, DeviceLostError, SwatheError

from .lost_gpus import LostGpus, failed_on_gpu
from .processes import EXTENSIONS, LIGHT, MARK, LocalProcesses, Workers, local_processes

TIMEOUT = 10  # seconds that a scheduler has to answer
PATIENCE = 120  # seconds without any worker before a run gives up
LOOK_EVERY = 5  # seconds between looks at the cluster while no task ends
AHEAD = 2  # tasks per thread that wait at the workers; enough to hide the way there and back
RETRIES = 2
GPU_SHARE = 1 / 8  # of a GPU that a task takes: only some at a time compute, the others read, wait or write
LOST = "the Dask scheduler was lost; finished blocks are kept, run the same command again to continue"

_PREPARED: WeakSet[Client] = WeakSet()

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def dask_client(client: Workers, threads: int) -> Iterator[Client]:
    """Yield a client.

    Parameters
    ----------
    client
        A client, which is left open; the address of a scheduler; processes to start on this machine; or None for a
        cluster of one worker in this process. The last two open no port to other machines.
    threads
        Tasks at a time of the worker in this process, or of each process that is started.

    Raises
    ------
    ClusterError
        The address does not answer; processes do not start; or as `check_client`.
    """
    check_client(client)
    if isinstance(client, Client):
        _load_own_packages(client)
        yield client
        return
    with silence_logging_cmgr(logging.CRITICAL), ExitStack() as stack:  # what matters comes as an error
        if client is None:
            cluster: LocalCluster | str = stack.enter_context(_in_process(threads))
        elif isinstance(client, LocalProcesses):
            cluster = stack.enter_context(local_processes(client, threads))
        else:
            _probe(client)
            cluster = client
        made = Client(cluster, timeout=TIMEOUT, set_as_default=False)
        try:
            if client is not None:
                _load_own_packages(made)
            yield made
        finally:
            made.close(timeout=2)


def check_client(client: Workers) -> None:
    """Refuse what no task can be sent by, before anything is done.

    Raises
    ------
    ClusterError
        An asynchronous client in its own event loop, which would wait for itself for ever; one that was closed;
        something else than a client.
    """
    if client is None or isinstance(client, str | LocalProcesses):
        return
    if not isinstance(client, Client):
        hint = ": give Client(it)" if hasattr(client, "scheduler_address") else ""
        raise ClusterError(
            f"client is a Dask Client, a scheduler's address or None; received {type(client).__name__}{hint}"
        )
    if client.asynchronous:
        raise ClusterError(
            "this Dask client is asynchronous, and Swathe waits for results, which would stop its event loop: "
            "call in a thread, as `await asyncio.to_thread(run, ..., client=client)`, or give a synchronous Client"
        )
    if client.status not in ("running", "connecting"):
        raise ClusterError(f"the Dask client is {client.status}; give one that is connected, or a scheduler's address")


def _load_own_packages(client: Client) -> None:
    """Let workers, also those that come later, find our packages before they read a task that names one of them.

    What lies in a worker's folder, or on the path that it has from a notebook, may be a user's own models.py.
    """
    if client in _PREPARED:
        return
    try:
        with suppress(OSError):  # a worker that is lost at this moment; the others have it, and who comes for it
            client.register_worker_callbacks(partial(import_module, "swathe"))
    except ImportError as error:
        raise ClusterError(f"a Dask worker cannot import Swathe: {error}") from error
    _PREPARED.add(client)


def _probe(address: str) -> None:
    """Ask who listens at an address, in a loop of its own: a Client that cannot connect complains again at its end."""
    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop already
        try:
            kind = pool.submit(asyncio.run, _kind(address)).result()
        except ValueError as error:
            raise ClusterError(f"{address!r} is not a scheduler's address; give one as tcp://host:8786") from error
        except OSError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address} within {TIMEOUT} s; check the address, as tcp://host:8786"
            ) from error
        except Exception as error:  # of many kinds: bytes of another protocol are taken for lengths and types
            raise ClusterError(
                f"what answers at {address} is not Dask; a scheduler's address is as tcp://host:8786"
            ) from error
    if kind != "Scheduler":
        raise ClusterError(f"what answers at {address} is a Dask {kind.lower()}; give the scheduler's address")


async def _kind(address: str) -> str:
    with dask.config.set({"distributed.comm.timeouts.connect": f"{TIMEOUT}s"}):
        async with rpc(address, timeout=TIMEOUT) as server:
            answer: Mapping[str, Any] = await asyncio.wait_for(server.identity(), TIMEOUT + 1)
            return str(answer["type"])


@contextmanager
def _in_process(threads: int) -> Iterator[LocalCluster]:
    with dask.config.set(LIGHT | {"distributed.scheduler.work-stealing": False}):
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit=0,  # the plan bounds memory; dask's limit would count the engine's as a leak
            dashboard_address="127.0.0.1:0",  # by dask's defaults, both listen on all addresses
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=False,  # `dask_client` does it
            scheduler_kwargs={"extensions": EXTENSIONS},
        )
    try:
        yield cluster
    finally:
        cluster.close(timeout=2)


def worker_threads(client: Client) -> int:
    """Return how many tasks the workers run at a time, now."""
    workers: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return sum(int(worker["nthreads"]) for worker in workers.values())


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker: its machine, its threads, and the bytes that it may take, 0 where nothing bounds them."""

    host: str
    nthreads: int
    memory: int


def worker_facts(client: Client) -> list[WorkerFacts]:
    """Return what there is to know of the workers that are there now.

    Raises
    ------
    ClusterError
        There is none for a long time.
    """
    until = time.monotonic() + PATIENCE
    while not (workers := client.scheduler_info(n_workers=-1)["workers"]):
        if time.monotonic() > until:
            raise ClusterError(_no_worker())
        time.sleep(0.2)
    return [WorkerFacts(w["host"], int(w["nthreads"]), int(w["memory_limit"] or 0)) for w in workers.values()]


def _no_worker() -> str:
    return f"the cluster has had no worker for {PATIENCE} s; start workers and run the same command again"


def worker_nthreads() -> int | None:
    """Threads of the worker that runs this task; None outside of one, and for those that a run has started itself."""
    worker = _worker()
    return None if worker is None else int(worker.state.nthreads)


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


def _address() -> str | None:
    """Return the address of the worker process that runs this task; None in the process of the run itself."""
    try:
        address: str = get_worker().address
    except ValueError:
        return None
    return None if address.startswith("inproc://") else address


def _named(function: Callable[[Any, Item], Result], shared: Any, item: Item) -> Result:
    with naming_worker():
        return function(shared, item)


def run_once(
    client: Client,
    function: Callable[[Item], Result],
    item: Item,
    resources: Mapping[str, float] | None = None,
) -> Result:
    """Run one small task on any worker, or on one with resources, and wait for it.

    Raises
    ------
    ClusterError
        As `map_bounded`.
    """
    result: Result
    (result,) = map_bounded(client, operator.call, function, [item], key="swathe-once", resources=resources)
    return result


def gpu_resources(client: Client) -> dict[str, float] | None:
    """Return a task's share of a GPU if workers declare that resource, so that they get the tasks; else None.

    Eight tasks at a time may use one: with one alone, nothing would be read while the GPU computes.
    """
    workers: Mapping[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return {"GPU": GPU_SHARE} if any("GPU" in worker.get("resources", {}) for worker in workers.values()) else None


def map_bounded(
    client: Client,
    function: Callable[[Any, Item], Result],
    shared: Any,
    items: Iterable[Item],
    *,
    key: str,
    resources: Mapping[str, float] | None = None,
) -> Iterator[Result]:
    """Run `function(shared, item)` for every item on the cluster; yield results as they come.

    Only a window of tasks is ever known to the scheduler, so that its graph does not grow with the number of items.
    `items` may be an iterator that has nothing at one time and more after results were yielded: it is asked again each
    time, until it has nothing while no task is under way.

    Raises
    ------
    SwatheError
        What a task raised, after retries, and on which worker; tasks that are waiting are cancelled. A worker whose
        GPU failed is replaced before another try.
    ClusterError
        Workers keep dying on a task, or none is left.
    """
    finished: queue.SimpleQueue[Future] = queue.SimpleQueue()
    once = uuid.uuid4().hex[:8]  # a cluster may still know tasks of a run that was interrupted
    waiting, numbers = iter(items), count()
    window = max(4, worker_threads(client) * (1 + AHEAD))
    active: dict[Future, tuple[int, int, Item]] = {}
    gpus = LostGpus(client)

    def submit(tasks: Iterable[tuple[int, int, Item]]) -> None:
        for number, tries, item in tasks:
            future = client.submit(
                _named,
                function,
                shared,
                item,
                key=f"{key}-{once}-{number}-{tries}",
                pure=False,
                retries=RETRIES,
                resources=resources,
            )
            active[future] = (number, tries, item)
            future.add_done_callback(finished.put)

    try:
        submit((next(numbers), 0, item) for item in islice(waiting, window))
        while active:
            done = _next(finished, client)
            lost = dict(failed_on_gpu(done))
            again = [active[future] for future in lost]
            for error, (_, tries, _) in zip(lost.values(), again, strict=True):
                gpus.replace(error, tries)
            submit((number, tries + 1, item) for number, tries, item in again)
            for future in done:
                del active[future]
            yield from _results(client, [future for future in done if future not in lost])
            if len(lost) < len(done):
                gpus.succeeded()
            submit((next(numbers), 0, item) for item in islice(waiting, window - len(active)))
    finally:
        client.cancel(list(active), force=True)


def _next(finished: "queue.SimpleQueue[Future]", client: Client) -> list[Future]:
    """Wait for one finished task and take all that have finished meanwhile."""
    seen = time.monotonic()  # when there last was a worker
    while True:
        try:
            done = [finished.get(timeout=LOOK_EVERY)]
            break
        except queue.Empty:
            if client.status not in ("running", "connecting"):
                raise ClusterError(LOST) from None
            if client.status == "running" and worker_threads(client):
                seen = time.monotonic()
            if time.monotonic() - seen > PATIENCE:
                raise ClusterError(_no_worker()) from None
    while not finished.empty():
        done.append(finished.get())
    return done


def _results(client: Client, done: list[Future]) -> list[Any]:
    try:
        return client.gather(done)  # type: ignore[no-any-return]
    except SwatheError:
        raise
    except KilledWorker as error:
        raise ClusterError(
            "workers died again and again on one block, most often for want of memory: "
            "give them more, or use a smaller --tile and --block"
        ) from error
    except MemoryError as error:
        raise ClusterError("memory is exhausted; use a smaller --tile and --block") from error
    except (CancelledError, CommClosedError) as error:
        raise ClusterError(LOST) from error
