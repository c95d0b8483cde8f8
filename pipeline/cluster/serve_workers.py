"""Workers that this machine gives to a scheduler elsewhere: one for each GPU, or for each share of its cores.

They listen on the address that leads to the scheduler and on no other, and leave without loss when they are told to.
"""

import asyncio
import logging
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import dask
from dask.utils import format_bytes, parse_bytes
from distributed import Nanny, Status, Worker
from distributed.comm import get_address_host
from distributed.security import Security
from distributed.system import memory_limit
from distributed.utils import get_ip, silence_logging_cmgr

from models.errors import ClusterError
from models.system import usable_cpus

from .gpu_workers import visible_gpus
from .processes import LIGHT, gpu_environment
from .workers import GPU_SHARE

ON_GPU = round(1 / GPU_SHARE)  # threads of a worker of one GPU: no more tasks share one
GRACE = 20.0  # seconds for blocks that are computed; Slurm and Kubernetes kill after 30
FETCHED = 5.0  # of them, for results to be fetched, which are a few numbers each
POLL = 0.2  # seconds
CLOSING = 8  # seconds for a worker's process to end
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `swathe cluster worker` starts.

    Parameters
    ----------
    threads
        Of each worker. None: of one with a GPU as many as can share it, else all cores.
    memory
        Bytes of each worker, as `16 GB`. None: its share of what this machine has.
    gpus
        Whether each worker has a GPU, and there are as many as GPUs; else as many as have `threads` cores each. None:
        where there are GPUs.
    lifetime
        Seconds, after which workers finish what they compute and leave. None: until they are told to, or the scheduler
        ends.
    security
        Certificates. None: without TLS.
    """

    threads: int | None = None
    memory: str | None = None
    gpus: bool | None = None
    lifetime: float | None = None
    security: Security | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ClusterError(f"a worker needs at least one thread; received {self.threads}")


def worker_settings(address: str, options: WorkerOptions) -> list[dict[str, Any]]:
    """Return the keywords of each worker's `Nanny`.

    Raises
    ------
    ClusterError
        There is no GPU though one is asked for; `memory` is no size; or no way leads to the scheduler's host.
    """
    gpus = visible_gpus() if options.gpus is not False else ()
    if options.gpus and not gpus:
        raise ClusterError("no CUDA device is visible here; look at nvidia-smi, or start workers without GPUs")
    threads = options.threads or (ON_GPU if gpus else usable_cpus())
    count = len(gpus) or max(1, usable_cpus() // threads)
    host = own_address(address)
    common = {
        "nthreads": threads,
        "memory_limit": _bytes(options.memory) if options.memory else memory_limit() // count,
        "host": host,
        "dashboard_address": f"{host}:0" if ":" not in host else f"[{host}]:0",
        "security": options.security,
        "silence_logs": logging.ERROR,
    }
    names = [f"{socket.gethostname()}-{os.getpid()}-{place}" for place in range(count)]
    if not gpus:
        return [{**common, "name": name} for name in names]
    return [
        {**common, "name": name, "env": gpu_environment(gpu), "resources": {"GPU": 1}}
        for name, gpu in zip(names, gpus, strict=True)
    ]


def own_address(scheduler: str) -> str:
    """Return this machine's address on the way to a scheduler: what its workers listen on, and nothing else.

    Raises
    ------
    ClusterError
        The scheduler's address is none, or its host is not known.
    """
    try:
        host = socket.gethostbyname(get_address_host(scheduler))
        return str(get_ip(host))
    except (ValueError, OSError) as error:
        raise ClusterError(
            f"{scheduler!r} cannot be reached from here ({error}); give it as tcp://host:8786"
        ) from error


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except ValueError as error:
        raise ClusterError(f"{text!r} is no size of memory; give one as 16GB") from error


def serve_workers(address: str, options: WorkerOptions, tell: Callable[[str], object]) -> None:
    """Start workers for a scheduler, and come back when they have ended: by SIGTERM, Ctrl-C, lifetime or its end.

    Both signals are heard by this process alone, also if a queue sends them to all: workers finish the blocks that they
    compute, for at most `GRACE` seconds, take no more, and leave. At a second signal they end at once.

    Parameters
    ----------
    address
        Of the scheduler.
    options
        See `WorkerOptions`.
    tell
        Called with what happens, in lines.

    Raises
    ------
    ClusterError
        As `worker_settings`; or the scheduler does not take the workers.
    """
    settings, told = worker_settings(address, options), threading.Event()
    with ThreadPoolExecutor(1) as pool, _heard(told), silence_logging_cmgr(logging.ERROR):
        resource_tracker.ensure_running()  # which unblocks signals as it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:  # the thread and the worker processes, whenever they are started, inherit it
            serving = pool.submit(asyncio.run, _serve(address, settings, options.lifetime, told, tell))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        serving.result()


@contextmanager
def _heard(told: threading.Event) -> Iterator[None]:
    """Set an event at the first SIGTERM or Ctrl-C, and end this process at the second; workers end with it."""

    def hear(number: int, _: object) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    watched = signal.set_wakeup_fd(-1)  # by which the command would end
    try:
        yield
    finally:
        signal.set_wakeup_fd(watched, warn_on_full_buffer=False)
        for number, handler in before.items():
            signal.signal(number, handler)


async def _serve(
    address: str,
    settings: list[dict[str, Any]],
    lifetime: float | None,
    told: threading.Event,
    tell: Callable[[str], object],
) -> None:
    with dask.config.set(LIGHT):
        nannies = [Nanny(address, **one) for one in settings]
    signalled = asyncio.ensure_future(asyncio.to_thread(told.wait))
    try:
        await _started(nannies, signalled)
        if not told.is_set():
            tell(_describe(settings))
            ended = asyncio.ensure_future(_ended(nannies))
            await asyncio.wait([signalled, ended], timeout=lifetime, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                tell("finishing the blocks that are computed, and leaving")
                await asyncio.gather(*map(_leave, nannies))
            ended.cancel()
    finally:
        told.set()  # nobody waits for a signal any more
        await asyncio.gather(*(nanny.close(timeout=CLOSING) for nanny in nannies))


async def _started(nannies: list[Nanny], signalled: asyncio.Future[Any]) -> None:
    """Wait until all have started, or a signal comes before."""
    starting: asyncio.Future[Any] = asyncio.gather(*nannies)
    await asyncio.wait([starting, signalled], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    try:
        await starting
    except (OSError, RuntimeError, TimeoutError) as error:
        raise ClusterError(f"the workers do not start: {error.__cause__ or error}") from error


async def _ended(nannies: list[Nanny]) -> None:
    await asyncio.gather(*(nanny.finished() for nanny in nannies))


def _describe(settings: list[dict[str, Any]]) -> str:
    one, count = settings[0], len(settings)
    each, them = (" each", "them") if count > 1 else ("", "it")
    gpu = f" with one GPU{each}" if "resources" in one else ""
    return (
        f"{count} worker{'s' * (count > 1)}{gpu}, {one['nthreads']} threads and {format_bytes(one['memory_limit'])} of "
        f"memory{each}, listening on {one['host']} alone; Ctrl-C or SIGTERM ends {them}"
    )


async def _leave(nanny: Nanny) -> None:
    """Let a worker finish what it computes, and be known to leave, so that nothing is counted as its death."""
    if nanny.worker_address is None:
        return
    worker, patience = nanny.rpc(nanny.worker_address), GRACE + CLOSING
    with suppress(OSError, TimeoutError):  # it has ended, or hangs: what it has is given to others
        await asyncio.wait_for(
            worker.run(function=pickle.dumps(finish_and_leave), args=pickle.dumps((GRACE,))), patience
        )


async def finish_and_leave(grace: float, dask_worker: Worker) -> None:
    """Begin no other task, wait for those that run and until their results are fetched or elsewhere, and leave."""
    end = time.monotonic() + grace
    dask_worker.status = Status.closing_gracefully
    await _until(lambda: not dask_worker.state.executing, end)
    # the scheduler may not know of the last results yet, and would forget the worker with them
    await _until(lambda: not dask_worker.data, min(end, time.monotonic() + FETCHED))
    dask_worker.periodic_callbacks["heartbeat"].stop()  # the scheduler would not know whose it is, and Dask complain
    while not await _leave_cluster(dask_worker) and time.monotonic() < end:
        await asyncio.sleep(POLL)


async def _until(met: Callable[[], bool], end: float) -> None:
    while not met() and time.monotonic() < end:
        await asyncio.sleep(POLL)


async def _leave_cluster(worker: Worker) -> bool:
    """Be forgotten by the scheduler; False: a result is nowhere else yet."""
    retired = await worker.scheduler.retire_workers(
        workers=[worker.address], close_workers=False, remove=True, stimulus_id=f"swathe-leaves-{time.time()}"
    )
    return bool(retired)
