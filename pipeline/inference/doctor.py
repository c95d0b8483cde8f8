"""Examine a cluster before a run: what its workers are, whether they are fit, and how fast they take tasks."""

import asyncio
import operator
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from distributed import Client
from distributed.versions import get_versions

from models.bundle import load_bundle

from ..cluster.ask import ask_workers, known_workers
from ..cluster.check import checked_workers
from ..cluster.connect import connected
from ..cluster.current import current_check
from ..cluster.launch import local_part
from ..cluster.on_worker import Requirements
from ..cluster.processes import ClusterLike
from ..cluster.workers import queue_words, wait_for_workers
from ..io.scene import open_source
from ..jobs.tasks import map_bounded
from ..store.files import full_path
from .options import SegmentOptions
from .plan import plan_scene
from .run import Segmentation
from .worker_classes import EngineRequirement, Offer, make_offer

TASKS = 100  # empty ones, which are timed
AT_ONCE = 4  # workers that are asked the time
TRIES = 3  # of a round trip, of which the quickest counts
ANSWERS = 20  # seconds that a worker has for one
SETTLED = 3  # seconds without another worker, after which those of a cluster that was started are taken to be all

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What there is to know of one worker; what it does not tell is empty or None.

    Parameters
    ----------
    versions
        By package: python, distributed.
    engine, hardware
        What it would compute with.
    memory
        Bytes that it may take; 0: nothing bounds them.
    gpus
        That it declares as a resource of Dask's.
    round_trip, clock
        Seconds there and back; and that its clock is ahead of ours.
    unfit
        Why it gets no tasks; empty: it is fit.
    """

    address: str
    host: str
    threads: int
    memory: int
    gpus: float
    versions: Mapping[str, str]
    engine: str
    hardware: str
    round_trip: float | None
    clock: float | None
    unfit: str


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What `examine_cluster` has found.

    Parameters
    ----------
    tasks_per_second
        Empty ones, through the way that blocks take; None: no worker is fit.
    queue
        What the queue of a cluster that was started is at; empty: nothing is waiting, or nothing known.
    """

    scheduler: str
    dashboard: str
    workers: tuple[WorkerReport, ...]
    tasks_per_second: float | None
    queue: str

    @property
    def fit(self) -> int:
        """How many workers are fit."""
        return sum(not worker.unfit for worker in self.workers)


def examine_cluster(
    cluster: ClusterLike,
    *,
    bundle: str | None = None,
    scene: str | None = None,
    output: str | None = None,
    say: Say | None = None,
) -> ClusterReport:
    """Reach or start a cluster, look at its workers as a run does, and time a hundred empty tasks.

    Parameters
    ----------
    cluster
        What `--scheduler` names, or a `Cluster`.
    bundle, scene, output
        Of a run to come: workers must have or reach them. Beside the output they write for a moment.
    say
        Called with a line about what is waited for.

    Raises
    ------
    ClusterError
        It cannot be reached or started, or has no worker for as long as its patience. Unfit workers raise nothing.
    """
    needed = _requirements(bundle, scene)
    with connected(cluster, 1) as client, ExitStack() as stack:
        started = client.cluster is not None and local_part(cluster) is None
        wait_for_workers(client, say or (lambda _: None), SETTLED if started else 0)
        place = full_path(output) if output else ""
        stack.enter_context(checked_workers(client, needed, place, strict=False))
        check = current_check(client)
        found = known_workers(client)
        unfit = {} if check is None else dict(check.unfit)
        workers = _reports(client, found, unfit)
        rate = _rate(client) if len(unfit) < len(found) else None
        return ClusterReport(client.scheduler.address, client.dashboard_link, workers, rate, queue_words(client))


def _requirements(bundle: str | None, scene: str | None) -> Requirements:
    """Return what a run with these would ask of its workers."""
    if bundle is not None and scene is not None:
        return Segmentation(plan_scene(scene, bundle, SegmentOptions(), elsewhere=True)).requirements()
    reads = () if scene is None else open_source(scene).paths
    if bundle is None:
        return Requirements(reads)
    loaded = load_bundle(bundle)
    return Requirements(
        reads, (str(loaded.path), loaded.digest), EngineRequirement(SegmentOptions().spec(loaded.metadata), None)
    )


def _rate(client: Client) -> float:
    """Run empty tasks, first some so that workers have imported what they need; return how many end in a second."""
    for count in (TASKS // 10, TASKS):
        began = time.perf_counter()
        list(map_bounded(client, operator.add, 0, range(count), key="swathe-doctor"))
    return TASKS / (time.perf_counter() - began)


def _reports(client: Client, found: Mapping[str, Any], unfit: Mapping[str, str]) -> tuple[WorkerReport, ...]:
    trips = client.sync(_trips, client, list(found))
    asked = [address for address in found if address not in unfit]  # others may not know what Swathe is
    offers = (
        ask_workers(client, make_offer, SegmentOptions().spec(), workers=asked, patience=3 * ANSWERS) if asked else {}
    )
    reports = []
    for address, worker in found.items():
        offer = offers.get(address)
        spec = offer.spec if isinstance(offer, Offer) else None
        trip, clock, versions = trips[address]
        reports.append(
            WorkerReport(
                address,
                str(worker["host"]),
                int(worker["nthreads"]),
                int(worker["memory_limit"] or 0),
                float(worker["resources"].get("GPU", 0)),
                versions,
                f"{spec.name} on {spec.device}" if spec else "",
                str(spec.hardware) if spec else "",
                trip,
                clock,
                unfit.get(address, ""),
            )
        )
    return tuple(sorted(reports, key=lambda report: (report.host, report.address)))


async def _trips(client: Client, workers: list[str]) -> dict[str, tuple[float | None, float | None, dict[str, str]]]:
    """Ask each worker the time, and its versions: by functions that every Dask has, for it may have no Swathe."""
    few = asyncio.Semaphore(AT_ONCE)

    async def ask(function: Callable[[], Any], address: str) -> Any:
        return (await asyncio.wait_for(client.run(function, workers=[address]), ANSWERS))[address]

    async def one(address: str) -> tuple[float | None, float | None, dict[str, str]]:
        trips = []
        async with few:
            try:
                for _ in range(TRIES):
                    sent, began = time.time(), time.perf_counter()
                    there = await ask(time.time, address)
                    took = time.perf_counter() - began
                    trips.append((took, there - sent - took / 2))
                facts = await ask(get_versions, address)
            except (OSError, TimeoutError, KeyError):  # it is stuck, or has gone
                return None, None, {}
        python = ".".join(str(facts["host"]["python"]).split(".")[:3])
        return *min(trips), {"python": python, "distributed": facts["packages"]["distributed"]}

    return dict(zip(workers, await asyncio.gather(*map(one, workers)), strict=True))
