"""Run many tasks on a cluster, of which few are known to it at a time."""

import operator
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from itertools import count, islice
from typing import Any, TypeVar

from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError

from models.errors import ClusterError, SwatheError

from ..cluster.check import WorkerCheck, is_of_unfit_worker, refuse_if_unfit
from ..cluster.current import current_check
from ..cluster.lost_gpus import LostGpus, failed_on_gpu
from ..cluster.options import options_of
from ..cluster.workers import naming_worker, no_worker, worker_threads
from .events import Event, Tell, tell_nobody

LOOK_EVERY = 5  # seconds between looks at the cluster while no task ends
AHEAD = 2  # tasks per thread that wait at the workers; enough to hide the way there and back
RETRIES = 2
LOST = "the Dask scheduler was lost; finished blocks are kept, run the same command again to continue"

Item = TypeVar("Item")
Result = TypeVar("Result")


def _named(run: str, function: Callable[[Any, Item], Result], shared: Any, item: Item) -> Result:
    refuse_if_unfit(run)
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


def map_bounded(
    client: Client,
    function: Callable[[Any, Item], Result],
    shared: Any,
    items: Iterable[Item],
    *,
    key: str,
    resources: Mapping[str, float] | None = None,
    check: WorkerCheck | None = None,
    tell: Tell = tell_nobody,
) -> Iterator[Result]:
    """Run `function(shared, item)` for every item on the cluster; yield results as they come.

    Only a window of tasks is ever known to the scheduler, so that its graph does not grow with the number of items.
    `items` may be an iterator that has nothing at one time and more after results were yielded: it is asked again each
    time, until it has nothing while no task is under way. Tasks are given to the workers that `check` allows, that of
    the run if none is given, and it looks at those that join. What happens beside results goes to `tell`.

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
    check = check or current_check(client)
    if check is not None:
        check.look(list(client.scheduler_info(n_workers=-1)["workers"]))

    def submit(tasks: Iterable[tuple[int, int, Item]]) -> None:
        for number, tries, item in tasks:
            future = client.submit(
                _named,
                check.run if check is not None else "",
                function,
                shared,
                item,
                key=f"{key}-{once}-{number}-{tries}",
                pure=False,
                retries=RETRIES,
                resources=resources,
                workers=check.allowed() if check is not None else None,
            )
            active[future] = (number, tries, item)
            future.add_done_callback(finished.put)

    try:
        submit((next(numbers), 0, item) for item in islice(waiting, window))
        while active:
            done = _next(finished, client, tell)
            lost = dict(failed_on_gpu(done))
            again = [active[future] for future in lost]
            for error, (_, tries, _) in zip(lost.values(), again, strict=True):
                gpus.replace(error, tries)
            unfit = [] if check is None else _of_unfit_workers(done, client, check)
            again += [active[future] for future in unfit]
            submit((number, tries + 1, item) for number, tries, item in again)
            for future in done:
                del active[future]
            yield from _results(client, [future for future in done if future not in lost and future not in unfit])
            if len(lost) + len(unfit) < len(done):
                gpus.succeeded()
            submit((next(numbers), 0, item) for item in islice(waiting, window - len(active)))
    finally:
        client.cancel(list(active), force=True)


def _of_unfit_workers(done: list[Future], client: Client, check: WorkerCheck) -> list[Future]:
    """Return the tasks that were given to workers which cannot do them, and look which those are."""
    failed = [future for future in done if future.status == "error" and is_of_unfit_worker(future.exception())]
    if failed:
        check.look(list(client.scheduler_info(n_workers=-1)["workers"]))
        check.require_any()
    return failed


def _next(finished: "queue.SimpleQueue[Future]", client: Client, tell: Tell) -> list[Future]:
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
            else:
                seconds = round(time.monotonic() - seen)
                tell(Event("waiting", f"no worker for {seconds} s", {"seconds": seconds}))
            if time.monotonic() - seen > options_of(client).patience:
                raise ClusterError(no_worker(client)) from None
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
