"""What is asked of a worker first: whether it has what is needed to ask more.

`check` sends this file as text. A worker may have no Swathe to read anything else with, and the bytecode of one Python
means something else to another. So nothing is imported here that a Dask worker need not have.
"""

import asyncio
import pickle
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Worker, WorkerPlugin

VERDICTS = "swathe_verdicts"  # attribute of a worker: why it is unfit, by run; "": it is fit


def version_here(package: str) -> str:
    """Return the version of an installed package; "": it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _look(wanted: Mapping[str, Any], worker: Worker) -> str:
    """Say why a worker is unfit, "" if it is not."""
    python = ".".join(map(str, sys.version_info[:2]))
    if python != wanted["python"]:
        return f"Python {python} there, {wanted['python']} here"
    for package, here in wanted["packages"].items():
        there = version_here(package)
        if there.split(".")[:2] != here.split(".")[:2]:
            return f"{package} {there or 'is missing'} there, {here} here"
    try:
        there = import_module("swathe").__version__
    except PackageNotFoundError:  # it is on the path, and not installed
        there = ""
    except ImportError as error:
        return f"no Swathe there ({error}); pip install swathe=={wanted['swathe']}"
    if there != wanted["swathe"]:
        return f"Swathe {there} there, {wanted['swathe']} here; pip install swathe=={wanted['swathe']}"
    closer = import_module("pipeline.cluster.on_worker")
    memory = worker.memory_manager.memory_limit or 0
    return str(closer.look(pickle.loads(wanted["requirements"]), worker.local_directory, memory))


async def _verdict(wanted: Mapping[str, Any], worker: Worker) -> str:
    try:  # in a thread, since a disk may hang; the worker goes on
        return await asyncio.wait_for(asyncio.to_thread(_look, wanted, worker), wanted["limit"])
    except TimeoutError:
        return f"scene, output and bundle cannot be looked at within {wanted['limit']} s there"
    except Exception as error:  # whatever it is, no task of ours would fare better
        return f"{type(error).__name__}: {error}"


async def judge(wanted: Mapping[str, Any], worker: Worker, again: bool) -> str:
    """Return why a worker is unfit for a run, "" if it is not. It is looked at once, else only `again`."""
    verdicts, run = vars(worker).setdefault(VERDICTS, {}), wanted["run"]
    if run not in verdicts or (again and verdicts[run].done()):
        verdicts[run] = asyncio.ensure_future(_verdict(wanted, worker))
    return str(await asyncio.shield(verdicts[run]))


def question(wanted: Mapping[str, Any], again: bool) -> Callable[..., Any]:
    """Return what Dask runs on a worker to get its verdict."""

    async def ask(dask_worker: Worker) -> str:
        return await judge(wanted, dask_worker, again)

    return ask


class Judge(WorkerPlugin):  # type: ignore[misc]  # which is not typed
    """Lets each worker that comes be looked at before its first task."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self.wanted = wanted

    async def setup(self, worker: Worker) -> None:
        """Look at it; whatever is found, the worker starts, since others may use it."""
        await judge(self.wanted, worker, False)

    def teardown(self, worker: Worker) -> None:
        """Forget the verdict: the run has ended."""
        vars(worker).get(VERDICTS, {}).pop(self.wanted["run"], None)
