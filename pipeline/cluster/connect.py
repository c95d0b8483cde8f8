"""Reach a Dask cluster, or start one: what `--scheduler` and `client` name, as a client for as long as a run lasts."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any
from weakref import WeakSet

import dask
from distributed import Client, LocalCluster
from distributed.utils import silence_logging_cmgr

from models.errors import ClusterError

from . import probe
from .check import checked_workers
from .launch import check_named, is_address, launched, local_part
from .on_worker import Requirements
from .options import Cluster, remember_options
from .probe import check_scheduler
from .processes import EXTENSIONS, LIGHT, LocalProcesses, Workers, local_processes
from .tls import security_of

_PREPARED: WeakSet[Client] = WeakSet()


@contextmanager
def dask_client(client: Workers, threads: int) -> Iterator[Client]:
    """Yield a client whose workers have been looked at.

    Parameters
    ----------
    client
        A client, which is left open; what `launch` knows to reach or to start, or that in a `Cluster`; processes to
        start on this machine; or None for a cluster of one worker in this process. The last two open no port to other
        machines.
    threads
        Tasks at a time of the worker in this process, or of each process that is started.

    Raises
    ------
    ClusterError
        The address does not answer; nothing starts; no worker is fit; or as `check_client`.
    """
    with connected(client, threads) as made, ExitStack() as stack:
        if local_part(client) is not None:
            _load_own_packages(made)
        elif client is not None:
            stack.enter_context(checked_workers(made, Requirements()))
        yield made


@contextmanager
def connected(client: Workers, threads: int) -> Iterator[Client]:
    """Yield a client, as `dask_client`, and do not look at the workers."""
    check_client(client)
    options = client if isinstance(client, Cluster) else Cluster(client) if isinstance(client, Client | str) else None
    given = options.scheduler if options is not None else None
    if isinstance(given, Client):
        remember_options(given, client)
        yield given
        return
    with silence_logging_cmgr(logging.CRITICAL), ExitStack() as stack:  # what matters comes as an error
        made = stack.enter_context(_connected(client, options, threads))
        remember_options(made, client)
        yield made


@contextmanager
def _connected(client: Workers, options: Cluster | None, threads: int) -> Iterator[Client]:
    """Yield a new client of what is named, which is started first where it does not run."""
    security = None
    with ExitStack() as stack:
        if (processes := local_part(client)) is not None:
            cluster: Any = stack.enter_context(local_processes(processes, threads))
        elif options is None:
            cluster = stack.enter_context(_in_process(threads))
        elif is_address(cluster := str(options.scheduler)):
            security = security_of(options)
            check_scheduler(cluster, security)
        else:
            cluster = stack.enter_context(launched(options))
        made = Client(cluster, timeout=probe.TIMEOUT, set_as_default=False, security=security)
        try:
            yield made
        finally:
            with suppress(TimeoutError):  # of a busy machine: what was to be done is done
                made.close(timeout=2)


def check_client(client: Workers) -> None:
    """Refuse what no task can be sent by, before anything is done.

    Raises
    ------
    ClusterError
        An asynchronous client in its own event loop, which would wait for itself for ever; one that was closed;
        something else than a client; or as `check_named`.
    """
    if isinstance(client, str):
        client = Cluster(client)
    if isinstance(client, Cluster):
        check_named(client)
        client = client.scheduler
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
        with suppress(TimeoutError):
            cluster.close(timeout=2)
