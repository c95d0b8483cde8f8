"""What is seen of a cluster while a map over tasks runs: workers that come, go, or hang, and a scheduler that does.

The scheduler is asked about once a second, in the client's own event loop, and never waited for: so it is seen that it
does not answer. Seconds are those during which this process itself ran.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import Future as Answer
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from distributed import Client

from models.errors import ClusterError
from models.metadata import some_of

from ..cluster.as_text import TextFunction
from ..cluster.ask import SILENT_SCHEDULER, known_workers
from ..cluster.options import options_of
from ..cluster.workers import no_worker, queue_words
from .events import Event, EventKind, Tell

if TYPE_CHECKING:
    from ..cluster.check import WorkerCheck

LOOK_EVERY = 1.0  # seconds between looks at the cluster
STEP = 5.0  # seconds that pass at most between two looks: more is this process's own delay
TELL_EVERY = 20.0  # seconds without any result between words about what is waited for
SILENT_WORKER = 30.0  # seconds without a heartbeat, of which there are two a second, after which a worker is let go
PAUSED_WORKER = 120.0  # seconds that a worker may have paused for want of memory
HUNG_FIRST = 600.0  # seconds that a task may take before any has finished
HUNG_LEAST = 120.0  # and after that, at least
HUNG_MEDIANS = 20.0  # times the median of those that have finished
HUNG_TRIES = 3  # of one task, each with twice the time of the one before

UNDER_WAY = 0.5  # seconds until a worker has heard from its nanny that it is to end
# Dask's scheduler keeps for as long as it lives a note of every submission, 0.3 kB each, and a span, 2 kB, of all tasks
# between two moments without any. A worker may still have figures for those that were there at its last heartbeat.
TIDY_EVERY = 5000  # tasks
KEPT_NOTES, KEPT_SPANS = 100, 500
FORGET = """
def forget(dask_scheduler):
    kept = dask_scheduler.extensions["spans"]
    for span in kept.spans.values():
        if span._metadata:
            del span._metadata["collections"][notes:]
    in_use = {group.span_id for group in dask_scheduler.task_groups.values()}
    for span in list(kept.spans.values())[:-spans]:
        if span.name == ("default",) and span.id not in in_use:
            del kept.spans[span.id]
            for known in (kept.root_spans, kept.spans_search_by_name["default",], kept.spans_search_by_tag["default"]):
                known.remove(span)
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class InWork:
    """The item of a task that the scheduler knows, and since when."""

    item: Any
    since: float


class HungTaskError(ClusterError):
    """A task that did not end on several workers, the last of which is `worker`; `key` is Dask's name of it."""

    def __init__(self, said: str, key: str = "", worker: str = "") -> None:
        super().__init__(said)
        self.key, self.worker = key, worker


class Watch:
    """What is seen of one cluster during one map.

    Parameters
    ----------
    client
        The cluster.
    check
        Looks at workers that join, and says which are given tasks.
    tell
        Told of what happens.
    name
        Says what the task of an item is called.

    Raises
    ------
    ClusterError
        The scheduler does not answer.
    """

    def __init__(self, client: Client, check: "WorkerCheck | None", tell: Tell, name: Callable[[Any], str]) -> None:
        self._client, self._check, self._tell, self.name = client, check, tell, name
        self._clock, self._clock_read = 0.0, time.monotonic()
        self._asked: Answer[tuple[Mapping[str, Any], Mapping[str, list[str]]]] | None = None
        self._answered = self._staffed = self._finished = self._told = 0.0
        self._next_look = LOOK_EVERY
        self._beats: dict[str, tuple[float, float]] = {}  # by worker: its last heartbeat, and when it was first seen
        self._paused: dict[str, float] = {}
        self._placed: dict[tuple[str, str], float] = {}  # by task and worker: since when it is there
        self._processing: Mapping[str, list[str]] = {}
        self._count = 0  # of tasks that have finished
        self._durations: deque[float] = deque(maxlen=1000)
        self._hung: dict[str, list[str]] = {}  # by task: workers that were let go for it
        self._let_go: set[str] = set()
        self.workers: Mapping[str, Mapping[str, Any]] = {}
        self._join(known_workers(client), first=True)

    # what the map asks

    @property
    def run(self) -> str:
        """By what workers know what they were found to be."""
        return "" if self._check is None else self._check.run

    def allowed(self) -> list[str] | None:
        """Return the workers that tasks may be given to; None: all there are."""
        return None if self._check is None else self._check.allowed()

    def threads(self) -> int:
        """Return how many tasks the workers that may be given any run at a time."""
        allowed = self.allowed()
        names = self.workers if allowed is None else [name for name in allowed if name in self.workers]
        return sum(int(self.workers[name]["nthreads"]) for name in names)

    def now(self) -> float:
        """Return the seconds during which this process ran, since the map began."""
        now = time.monotonic()
        self._clock += min(now - self._clock_read, STEP)
        self._clock_read = now
        return self._clock

    def finished(self, seconds: float) -> None:
        """Take note of a task that has finished after so many seconds on its worker."""
        self._durations.append(seconds)
        self._count += 1
        if self._count % TIDY_EVERY == 0:
            forget = TextFunction("exec(text, globals()) or forget", text=FORGET, notes=KEPT_NOTES, spans=KEPT_SPANS)
            self._start(self._client.run_on_scheduler(forget, asynchronous=True))
        self._finished = self._told = self.now()

    def check_again(self) -> None:
        """Look at all workers once more, since a task met one that lacks something."""
        if self._check is not None:
            self._check.look(list(self.workers))
            self._check.require_any()

    def tell(self, kind: EventKind, text: str, **facts: Any) -> None:
        """Tell of something that happened."""
        self._tell(Event(kind, text, facts))

    def look(self, active: Mapping[str, InWork]) -> bool:
        """Look at the cluster, if it is time, while these tasks are known to it, by key; whether workers came or went.

        Raises
        ------
        ClusterError
            The scheduler is silent; there was no worker for too long; or a task hangs on one worker after another.
        """
        now = self.now()
        changed = self._listen(active, now)
        if self._asked is None and now >= self._next_look:
            self._next_look = now + LOOK_EVERY
            self._asked = self._start(_ask(self._client, self._wants_places(active, now)))
        if now - self._answered > SILENT_SCHEDULER:
            raise ClusterError(self._silence(now - self._answered))
        if now - self._told > TELL_EVERY:
            self._told = now
            self.tell("waiting", self._waiting(active, now), seconds=round(now - self._finished))
        if now - self._staffed > options_of(self._client).patience:
            if self._check is not None:
                self._check.require_any()
            raise ClusterError(no_worker(self._client))
        return changed

    def let_go(self, error: HungTaskError) -> None:
        """Let the worker go on which a task hangs that is given up."""
        if error.worker in self.workers:
            self._replace(error.worker, "a task on it does not end")

    # what is heard

    def _listen(self, active: Mapping[str, InWork], now: float) -> bool:
        """Take in the scheduler's answer, if there is one."""
        if self._asked is None or not self._asked.done():
            if self.threads():
                self._staffed = now
            return False
        asked, self._asked = self._asked, None
        if asked.exception() is not None:
            return False  # it is asked again; silence ends the map
        workers, self._processing = asked.result()
        self._answered = now
        changed = self._join(workers)
        self._tell_load(len(active))
        if self.threads():
            self._staffed = now
        self._let_silent_go(now)
        self._let_hung_go(active, now)
        return changed

    def _join(self, workers: Mapping[str, Mapping[str, Any]], *, first: bool = False) -> bool:
        """Take in which workers there are; whether others than before."""
        self._let_go &= set(workers)
        here = {name: worker for name, worker in workers.items() if name not in self._let_go}
        new, gone = here.keys() - self.workers.keys(), self.workers.keys() - here.keys()
        self.workers = here
        for name in gone:
            self._beats.pop(name, None)
            self.tell("worker-left", f"worker {name} has left; {_count(here)}", worker=name, workers=len(here))
        if self._check is not None:
            self._check.look(list(here))
            self._tell_unfit()
        if not first:
            for name in new:
                self.tell("worker-joined", f"worker {name} has joined; {_count(here)}", worker=name, workers=len(here))
        return bool(new or gone)

    def _tell_load(self, active: int) -> None:
        workers = {name: _running(worker) for name, worker in self.workers.items()}
        in_work = min(active, sum(running for running, _ in workers.values()))
        self._tell(Event("load", "", {"in_work": in_work, "workers": workers}))

    def _tell_unfit(self) -> None:
        for name, reason in self._check.news() if self._check else ():
            self.tell("worker-unfit", f"worker {name} is left out: {reason}", worker=name, reason=reason)

    # who hangs

    def _let_silent_go(self, now: float) -> None:
        for name, worker in list(self.workers.items()):
            beat = float(worker["last_seen"])
            before = self._beats.get(name)
            if before is None or before[0] != beat:
                self._beats[name] = beat, now
            elif now - before[1] > SILENT_WORKER:
                self._replace(name, f"it has been silent for {SILENT_WORKER:.0f} s")
                continue
            self._note_pause(name, worker["status"] == "paused", now)

    def _note_pause(self, name: str, paused: bool, now: float) -> None:
        if not paused:
            self._paused.pop(name, None)
        elif name not in self._paused:
            self._paused[name] = now
            self.tell("worker-stuck", f"worker {name} has paused for want of memory", worker=name, reason="memory")
        elif now - self._paused[name] > PAUSED_WORKER:
            del self._paused[name]
            self._replace(name, f"it has paused for want of memory for {PAUSED_WORKER:.0f} s")

    def _let_hung_go(self, active: Mapping[str, InWork], now: float) -> None:
        """Let workers go on which one of our tasks, and none of others' before it, does not end."""
        places = {(key, name) for name, keys in self._processing.items() for key in keys}
        self._placed = {place: self._placed.get(place, now) for place in places}
        for name, key in list(self._oldest(active)):
            tries, task = self._hung.get(key, []), self.name(active[key].item)
            limit = self._limit() * 2 ** len(tries)
            if name not in self.workers or now - self._placed[key, name] < limit or name.startswith("inproc://"):
                continue  # this very process cannot be replaced: it is said what is waited for
            self._hung[key] = [*tries, name]
            if len(tries) + 1 == HUNG_TRIES:
                raise HungTaskError(
                    f"{task} did not end within {limit:.0f} s, nor on workers before "
                    f"({some_of(self._hung[key])}); finished blocks are kept: see what it reads from, "
                    "and run the same command again",
                    key,
                    name,
                )
            self._replace(name, f"{task} has not ended within {limit:.0f} s")

    def _oldest(self, active: Mapping[str, InWork]) -> Iterator[tuple[str, str]]:
        """Yield each worker with the task that is there longest, if it is one of ours."""
        for name, keys in self._processing.items():
            since = [(self._placed[key, name], active[key].since if key in active else 0.0, key) for key in keys]
            oldest = min(since)[2] if since else None  # of those that came together, a worker takes the first submitted
            if oldest is not None and oldest in active:
                yield name, oldest

    def _limit(self) -> float:
        """Return the seconds that a task may take."""
        return max(HUNG_LEAST, HUNG_MEDIANS * median(self._durations)) if self._durations else HUNG_FIRST

    def _wants_places(self, active: Mapping[str, InWork], now: float) -> bool:
        """Whether any task takes long enough to ask where it is."""
        oldest = next(iter(active.values()), None)  # of those first submitted
        return oldest is not None and now - oldest.since > min(10.0, HUNG_LEAST / 4, TELL_EVERY / 2)

    def _replace(self, name: str, reason: str) -> None:
        """Take a worker's tasks from it, blaming none of them, and have it started anew by its nanny, if it has one."""
        worker = self.workers[name]
        self._let_go.add(name)
        self.workers = {other: facts for other, facts in self.workers.items() if other != name}
        self._beats.pop(name, None)
        text = f"worker {name} is let go and its blocks are done elsewhere: {reason}"
        self.tell("worker-stuck", text, worker=name, reason=reason)
        self._start(_remove(self._client, name, worker.get("nanny")))

    # in words

    def _waiting(self, active: Mapping[str, InWork], now: float) -> str:
        if now - self._answered > TELL_EVERY / 2:
            return self._silence(now - self._answered, last=False)
        seconds = round(now - self._finished)
        if not self.threads():
            words = [f"no worker for {round(now - self._staffed)} s", queue_words(self._client)]
            return "; ".join(filter(None, words))
        busy = {name: sum(key in active for key in keys) for name, keys in self._processing.items()}
        at = [f"{count} on {name}" for name, count in busy.items() if count]
        return f"no block has finished for {seconds} s: {some_of(at) if at else f'{len(active)} wait'}"

    def _silence(self, seconds: float, *, last: bool = True) -> str:
        said = f"the Dask scheduler at {self._client.scheduler.address} has not answered for {seconds:.0f} s"
        return said + "; finished blocks are kept, run the same command again to continue" * last

    def _start(self, coroutine: Awaitable[T]) -> Answer[T]:
        """Let the client's event loop do something, and do not wait for it."""
        return asyncio.run_coroutine_threadsafe(_awaited(coroutine), self._client.loop.asyncio_loop)


def _running(worker: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many tasks a worker runs, by its last heartbeat, and its threads."""
    tasks = worker.get("metrics", {}).get("task_counts", {})
    return int(tasks.get("executing", 0)), int(worker["nthreads"])


async def _awaited(coroutine: Awaitable[T]) -> T:
    return await coroutine


async def _ask(client: Client, places: bool) -> tuple[Mapping[str, Any], Mapping[str, list[str]]]:
    """Ask for the workers, and for the tasks at each of them."""
    identity = await client.scheduler.identity(n_workers=-1)
    return identity["workers"], await client.scheduler.processing() if places else {}


async def _remove(client: Client, name: str, nanny: str | None) -> None:
    """Take a worker out of the cluster. Its nanny ends the process, also one that is stopped, and starts another."""
    stimulus = f"swathe-{uuid4().hex[:8]}"
    killing = []
    if nanny is not None:
        msg = {"op": "kill", "reason": stimulus}
        killing = [asyncio.ensure_future(client.scheduler.proxy(msg=msg, worker=nanny))]
        await asyncio.sleep(UNDER_WAY)  # a worker that is told first to go by the scheduler has its nanny go as well
    await client.scheduler.unregister(address=name, stimulus_id=stimulus, expected=True, close=nanny is None)
    await asyncio.gather(*killing)


def _count(workers: Collection[str]) -> str:
    return f"{len(workers)} worker{'s' * (len(workers) != 1)} now"
