"""The workers of a cluster by what they would run: who leads a run, who gives the same bytes, who is left out.

Workers are of one class where engine, device and hardware are the same: a run's identity names all three, for another
GPU or CPU rounds float32 otherwise in the last digits. Memory and threads may differ within a class: they decide tiles,
which change no pixel.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from distributed import Client

from models.engine import EngineSpec, resolve
from models.errors import ClusterError, EngineError

from ..cluster.ask import ask_workers
from ..cluster.current import current_check
from ..cluster.workers import GPU_SHARE, WorkerFacts, worker_facts
from ..store.metadata import HARDWARE
from .memory import Resources, machine_memory


@dataclass(frozen=True, slots=True)
class Offer:
    """What a worker says of itself: the engine that it would run, and the bytes that its machine has."""

    spec: EngineSpec
    machine: int


async def make_offer(asked: EngineSpec) -> Offer:
    """Say what this process would run. Raises EngineError where it has not what is asked for."""
    return Offer(await asyncio.to_thread(resolve, asked), machine_memory())  # resolving may import torch


def identity_of(spec: EngineSpec) -> dict[str, str]:
    """Return what of a run's identity an engine decides: what has it in common gives the same bytes."""
    return {"engine": f"{spec.name} on {spec.device}", HARDWARE: spec.hardware}


@dataclass(frozen=True, slots=True)
class EngineRequirement:
    """That a worker would run what leads the run.

    Parameters
    ----------
    asked
        What is asked for; its `auto` is for each worker to resolve.
    leading
        What the run's identity has; None: that is not chosen yet, and anything that runs will do.
    """

    asked: EngineSpec
    leading: EngineSpec | None

    def __call__(self) -> str | None:
        """Return why this process cannot take part; None: it can."""
        try:
            return self.refuse(resolve(self.asked))
        except EngineError as error:
            return str(error)

    def refuse(self, offered: EngineSpec) -> str | None:
        """Return why a worker with this engine cannot take part; None: it can."""
        if self.leading is None or (mine := identity_of(offered)) == (theirs := identity_of(self.leading)):
            return None
        if offered.device != self.leading.device:
            here, there, way = ("CPU", "GPU", "cpu") if offered.device == "cpu" else ("GPU", "CPU", "cuda")
            return (
                f"it would compute on a {here}, the run does on a {there}, whose probabilities differ in the last "
                f"digits; --device {way} uses {here}s alone"
            )
        what = HARDWARE if mine["engine"] == theirs["engine"] else "engine"
        return f"its {what} is {mine[what]}, the run's {theirs[what]}: probabilities differ in the last digits"


@dataclass(frozen=True, slots=True)
class WorkerClass:
    """The workers that take part in a run, as far as they are there when it begins.

    Parameters
    ----------
    spec
        The engine of all of them, resolved.
    resources
        What the processes have, each kind once.
    sharing
        Workers on one machine, at most: those without a limit of memory share what it has.
    addresses
        Of the workers.
    """

    spec: EngineSpec
    resources: tuple[Resources, ...]
    sharing: int
    addresses: tuple[str, ...]

    @classmethod
    def ask(cls, client: Client, asked: EngineSpec, begun: Mapping[str, Any] | None) -> Self:
        """Ask the workers that are there what they would run, and choose which class leads.

        Raises
        ------
        EngineError
            None of them has what is asked for.
        ClusterError
            None answers.
        """
        facts = _fit(client, worker_facts(client))
        answers = ask_workers(client, make_offer, asked, workers=[worker.address for worker in facts])
        offers = {address: answer for address, answer in answers.items() if isinstance(answer, Offer)}
        if not offers:
            raise _nobody(answers)
        there = [worker for worker in facts if worker.address in offers]
        spec = leading_spec(there, offers, begun)
        some = [worker for worker in there if identity_of(offers[worker.address].spec) == identity_of(spec)]
        sharing = max(Counter(worker.host for worker in facts).values())
        resources = {worker_resources(worker, spec, offers[worker.address].machine // sharing) for worker in some}
        ordered = tuple(sorted(resources, key=lambda one: (one.memory, one.slots)))
        return cls(spec, ordered, sharing, tuple(worker.address for worker in some))


def _fit(client: Client, workers: list[WorkerFacts]) -> list[WorkerFacts]:
    """Return those workers that may have tasks: another may never answer, or lead a run that it takes no part in."""
    check = current_check(client)
    allowed = None if check is None else check.allowed()
    return [worker for worker in workers if allowed is None or worker.address in allowed] or workers


def leading_spec(
    workers: Collection[WorkerFacts], offers: Mapping[str, Offer], begun: Mapping[str, Any] | None
) -> EngineSpec:
    """Choose what a run computes by: what it has begun with, else GPUs, else what has most threads."""
    threads: Counter[tuple[str, ...]] = Counter()
    for worker in workers:
        threads[tuple(identity_of(offers[worker.address].spec).values())] += worker.nthreads

    def rank(address: str) -> tuple[bool, bool, int, tuple[str, ...]]:
        spec = offers[address].spec
        mine = identity_of(spec)
        same = begun is not None and all(begun.get(key) == value for key, value in mine.items())
        name = tuple(mine.values())
        return same, spec.device == "cuda", threads[name], name

    return offers[max((worker.address for worker in workers), key=rank)].spec


def worker_resources(worker: WorkerFacts, spec: EngineSpec, without_limit: int) -> Resources:
    """Return what a worker's process has for a run; `without_limit` bytes where nothing bounds its memory."""
    slots = worker.nthreads
    if spec.device == "cuda" and worker.gpus:
        slots = min(slots, int(worker.gpus / GPU_SHARE))
    return Resources(worker.memory or without_limit, max(1, slots))


def _nobody(answers: Mapping[str, Offer | BaseException]) -> Exception:
    """Return what to raise where no worker can take part."""
    for error in answers.values():
        if isinstance(error, EngineError):
            more = f" (so say all {len(answers)} workers)" if len(answers) > 1 else ""
            return type(error)(f"{error}{more}")
    address, error = next(iter(answers.items()))
    return ClusterError(f"no worker says which engine it has; {address}: {type(error).__name__}: {error}")
