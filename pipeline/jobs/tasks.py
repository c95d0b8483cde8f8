"""Run many tasks on a cluster, of which few are known to it at a time."""

import asyncio
import pickle
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from textwrap import shorten
from typing import Any, Generic, TypeVar

from distributed import Client, Future, KilledWorker
from distributed.comm import CommClosedError
from distributed.protocol.pickle import dumps

from models.errors import ClusterError, DeviceLostError, SwatheError

from ..cluster.check import WorkerCheck, is_of_unfit_worker, refuse_if_unfit
from ..cluster.current import current_check
from ..cluster.lost_gpus import LostGpus
from ..cluster.workers import naming_worker
from . import watch
from .events import Tell, tell_nobody
from .suspects import Suspects, killer
from .watch import HungTaskError, InWork, Watch

AHEAD = 2  # tasks per thread that wait at the workers; enough to hide the way there and back
LEAST = 4  # tasks that are known to the scheduler, also while it has no worker
TOGETHER = 0.01  # seconds within which tasks end whose results are fetched, and others submitted, at once
SUBMISSION = 2**20  # bytes of a submission of several tasks; Dask warns of 10 MB
RETRIES = 2
MISFITS = 3  # tries of a task that met a worker which cannot read it
LOST = "the Dask scheduler was lost; finished blocks are kept, run the same command again to continue"

Item = TypeVar("Item")
Result = TypeVar("Result")


# A worker unpickles what Dask itself sends as it comes from the network. There, what it cannot import ends it, and what
# it imports keeps it from all else. So the rest of a task comes as bytes, and is unpickled within the task.
# The scheduler pickles it anew for each task: what is made of builtins alone takes microseconds, a function that no
# module names would be looked for in all modules, which takes a millisecond or more.
CALL = partial(eval, "__import__('pickle').loads(call)(*shared)")


def _timed(run: str, given: bytes, item: Any, *shared: Any) -> tuple[Any, float]:
    refuse_if_unfit(run)
    function, *own = pickle.loads(given)
    started = time.perf_counter()
    with naming_worker():
        return function(*shared, *own, item), time.perf_counter() - started


def share_once(client: Client, value: Any) -> Future:
    """Send what a map's tasks share to the cluster once: as the result of a task, which outlives any worker."""
    check = current_check(client)
    fit = (check and check.fit) or None
    key = f"swathe-shared-{uuid.uuid4().hex[:8]}"
    return client.submit(pickle.loads, dumps(value), key=key, workers=fit, allow_other_workers=bool(fit))


def _short(item: Any) -> str:
    return f"block {shorten(str(item), 60)}"


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
    name: Callable[[Item], str] = _short,
    skip: Callable[[Item, Exception], object] | None = None,
) -> Iterator[Result]:
    """Run `function(shared, item)` for every item on the cluster; yield results as they come.

    `shared` may be what `share_once` has returned.

    Only a window of tasks is ever known to the scheduler, so that its graph does not grow with the number of items. It
    follows the workers, which may come and go. `items` may be an iterator that has nothing at one time and more after
    results were yielded: it is asked again each time, until it has nothing while no task is under way. Tasks are given
    to the workers that `check` allows, that of the run if none is given, and it looks at those that join. What happens
    beside results goes to `tell`, and `name` says what a task is called. With `skip`, a task that has failed for good
    is left out: it is called with the item and the error, and raises what is to end the map.

    Raises
    ------
    SwatheError
        What a task raised, after retries, and on which worker; tasks that are waiting are cancelled. A worker whose
        GPU failed is replaced before another try.
    ClusterError
        Workers keep dying on a task that is alone, or a task hangs on one after the other; none is left; or the
        scheduler is silent.
    """
    check = check or current_check(client)
    tasks = _Map(client, function, shared, items, key, resources, Watch(client, check, tell, name), skip)
    try:
        while tasks.submit():
            yield from tasks.results()
    finally:
        client.cancel(tasks.futures(), force=True)


@dataclass(slots=True, eq=False)
class _Task(Generic[Item]):
    """An item, and what happened to it so far."""

    number: int
    item: Item
    tries: int = 0
    lost_gpus: int = 0
    misfits: int = 0
    future: Future | None = None
    workers: list[str] | None = None  # that it may be given to


class _Map(Generic[Item, Result]):
    """A map under way: what is known to the scheduler, and what waits here."""

    def __init__(
        self,
        client: Client,
        function: Callable[[Any, Item], Result],
        shared: Any,
        items: Iterable[Item],
        key: str,
        resources: Mapping[str, float] | None,
        seen: Watch,
        skip: Callable[[Item, Exception], object] | None = None,
    ) -> None:
        self._client, self._resources = client, resources
        own, self._sent = ([], [shared]) if isinstance(shared, Future) else ([shared], [])
        self._given = dumps((function, *own))  # once for all tasks
        self._key = f"{key}-{uuid.uuid4().hex[:8]}"  # a cluster may still know tasks of a run that was interrupted
        self._watch, self._skip = seen, skip
        self._items, self._numbers = iter(items), count()
        self._again: deque[_Task[Item]] = deque()
        self._suspects: Suspects[_Task[Item]] = Suspects()
        self._gpus = LostGpus(client)
        self._ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._active: dict[str, _Task[Item]] = {}
        self._in_work: dict[str, InWork] = {}  # the same, as it is watched

    def futures(self) -> list[Future]:
        """Return the tasks that the scheduler knows."""
        return [task.future for task in self._active.values()]

    def submit(self) -> bool:
        """Submit tasks as far as the window reaches; whether any are under way or left."""
        if not self._suspects.alone:
            self._fill()
        if not self._active and not self._again and (suspect := self._suspects.next()):
            self._submit([suspect])
        return bool(self._active or self._again)

    def _fill(self) -> None:
        allowed = self._watch.allowed()
        window = max(LEAST, self._watch.threads() * (1 + AHEAD))
        if allowed is not None and not allowed:  # whom tasks would be given to is not known
            window = 0
            self._again.extend(self._new(0 if self._again else 1))
        again = [self._again.popleft() for _ in range(min(len(self._again), window - len(self._active)))]
        self._submit([*again, *self._new(window - len(self._active) - len(again))])

    def _new(self, most: int) -> Iterator[_Task[Item]]:
        return (_Task(next(self._numbers), item) for item in islice(self._items, max(0, most)))

    def _submit(self, tasks: Iterable[_Task[Item]]) -> None:
        """Submit tasks, together where they are small: a submission costs the scheduler as much as a task does."""
        together, size = list[tuple[_Task[Item], bytes]](), 0
        for task in tasks:
            call = dumps(partial(_timed, self._watch.run, self._given, task.item))
            if together and size + len(call) > SUBMISSION:
                self._submit_together(together)
                together, size = [], 0
            together.append((task, call))
            size += len(call)
        if together:
            self._submit_together(together)

    def _submit_together(self, calls: Sequence[tuple[_Task[Item], bytes]]) -> None:
        allowed = self._watch.allowed()
        keys = [f"{self._key}-{task.number}-{task.tries}" for task, _ in calls]
        futures = self._client.map(
            CALL,
            [{"call": call, "shared": self._sent} for _, call in calls],
            key=keys,
            pure=False,
            fifo_timeout=0,  # else those submitted shortly after would come between these
            retries=RETRIES,
            resources=self._resources,
            workers=allowed,
        )
        for (task, _), key, future in zip(calls, keys, futures, strict=True):
            task.future, task.workers, self._active[key] = future, allowed, task
            task.tries += 1
            self._in_work[key] = InWork(task.item, self._watch.now())
            future.add_done_callback(self._ended.put)

    def _forget(self, future: Future) -> _Task[Item]:
        del self._in_work[future.key]
        return self._active.pop(future.key)

    def results(self) -> list[Result]:
        """Wait for tasks that end; return their results. None: only the cluster has changed."""
        done = self._wait()
        while done:
            for future in [future for future in done if future.status == "error"]:
                self._try_again(future)
                done.remove(future)
            try:
                found = self._gather(done)
            except Exception:
                if any(future.status == "error" for future in done):
                    continue  # it was lost, done again, and has failed
                raise
            return [self._take(future, *result) for future, result in zip(done, found, strict=True)]
        return []

    def _take(self, future: Future, result: Result, seconds: float) -> Result:
        self._suspects.ended(self._forget(future))
        self._gpus.succeeded()
        self._watch.finished(seconds)
        return result

    def _wait(self) -> list[Future]:
        """Wait for tasks that end, and take all that have; or until workers come or go."""
        while True:
            done: list[Future] = []
            try:
                done.append(self._ended.get(timeout=watch.LOOK_EVERY))
                if len(self._active) > 1:  # else none can come
                    time.sleep(TOGETHER)
                while True:
                    done.append(self._ended.get_nowait())
            except queue.Empty:
                pass
            if self._client.status not in ("running", "connecting"):
                raise ClusterError(LOST)
            changed = self._look()
            if changed:
                self._withdraw()
            done = [future for future in done if future.key in self._active]
            if done or changed:
                return done

    def _look(self) -> bool:
        """Look at the cluster; whether it has changed. A task that hangs everywhere is left out, if it may be."""
        try:
            return self._watch.look(self._in_work)
        except HungTaskError as error:
            task = self._active.get(error.key)
            if self._skip is None or task is None:
                raise
            future = task.future
            self._suspects.ended(self._forget(future))
            self._client.cancel([future], force=True)
            self._skip(task.item, error)
            self._watch.let_go(error)
            return True

    def _withdraw(self) -> None:
        """Take back tasks whose workers have all gone: to other workers, the scheduler would not give them."""
        for task in list(self._active.values()):
            if task.workers is not None and not any(worker in self._watch.workers for worker in task.workers):
                future = task.future
                self._put_back(self._forget(future))
                self._client.cancel([future], force=True)

    def _try_again(self, future: Future) -> None:
        """Let a task that failed be tried again, if that was not its fault; else raise what it raised."""
        task, error = self._forget(future), future.exception()
        name = self._watch.name(task.item)
        if isinstance(error, DeviceLostError):
            self._gpus.replace(error, task.lost_gpus)
            task.lost_gpus += 1
        elif isinstance(error, KilledWorker):
            if self._suspects.is_alone(task):
                return self._give_up(task, killer(self._client, name, future.key), error)
            text = f"workers died while they had {name} and others; it is done alone at the end"
            self._watch.tell("retried", text, block=name, reason="workers died")
            self._suspects.set_aside(task)
            return
        elif error is not None and is_of_unfit_worker(error) and task.misfits + 1 < MISFITS:
            task.misfits += 1
            self._watch.check_again()
        elif self._skip is not None and isinstance(error, Exception):
            return self._give_up(task, error, None)
        else:
            self._gather([future])
        self._watch.tell("retried", f"{name} is tried again: {error}", block=name, reason=str(error))
        self._put_back(task)

    def _give_up(self, task: _Task[Item], error: Exception, cause: BaseException | None) -> None:
        """Leave out a task that has failed for good, or raise its error."""
        if self._skip is None:
            raise error from cause
        self._suspects.ended(task)
        self._skip(task.item, error)

    def _put_back(self, task: _Task[Item]) -> None:
        """Let a task be submitted again."""
        if self._suspects.is_alone(task):
            self._suspects.ended(task)
            self._suspects.set_aside(task)
        else:
            self._again.append(task)

    def _gather(self, done: list[Future]) -> list[tuple[Result, float]]:
        """Bring results here, and look at the cluster meanwhile: whoever has them may hang, and is then let go."""
        gathering = self._client.gather(done, asynchronous=True)
        answer = asyncio.run_coroutine_threadsafe(gathering, self._client.loop.asyncio_loop)
        try:
            while True:
                try:
                    return answer.result(watch.LOOK_EVERY)  # type: ignore[no-any-return]
                except TimeoutError:
                    if answer.done():
                        raise
                    self._look()
        except SwatheError:
            raise
        except MemoryError as error:
            raise ClusterError("memory is exhausted; use a smaller --tile and --block") from error
        except (CancelledError, CommClosedError) as error:
            raise ClusterError(LOST) from error
