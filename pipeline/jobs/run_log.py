"""What is known of a run while it goes and after: blocks, workers, what happened, and where the time went.

It is filled by the process that leads the run, whose clock all of its times are of.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.redact import redact_url, shown
from models.timing import PHASES

from ..store.store import Store, Summary
from .events import Event
from .json_log import JsonLog

MOST_EVENTS = 10_000  # that are kept, the latest


@dataclass(slots=True)
class WorkerLog:
    """What one worker has done in a run.

    Parameters
    ----------
    since, until
        Seconds of the run at which it was first and last there.
    threads
        Tasks that it runs at a time.
    blocks
        Of all levels.
    busy, read, wait, predict, write
        Seconds of its blocks in sum; see `models.timing.Spent`.
    bytes_read, bytes_written
        Likewise.
    """

    since: float
    until: float
    threads: int = 1
    blocks: int = 0
    busy: float = 0.0
    read: float = 0.0
    wait: float = 0.0
    predict: float = 0.0
    write: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def rest(self) -> float:
        """Seconds of its blocks that were none of the phases."""
        return max(0.0, self.busy - self.read - self.wait - self.predict - self.write)

    @property
    def idle(self) -> float:
        """Seconds of its threads, while it was there, in which they had no block."""
        return max(0.0, (self.until - self.since) * self.threads - self.busy)

    def add(self, summary: Summary) -> None:
        """Add a block."""
        self.blocks += 1
        self.busy += summary.seconds
        for each in fields(summary.spent):
            setattr(self, each.name, getattr(self, each.name) + getattr(summary.spent, each.name))


@dataclass
class RunLog:
    """What is known of a run; give an empty one to `run` or another durable function, which fills it.

    It is filled also where the run fails. `write_run_report` makes a page of it, and `facts` what it says in numbers.

    Parameters
    ----------
    title, output, identity
        What is done, where to, and the digest of what decides its pixels.
    begun
        When, in UTC.
    shape, block
        Pixels of the scene, and of a block's side.
    blocks, resumed, done
        Planned blocks of the full resolution; those of them that were there before; those that are done now.
    pixels
        Of the blocks of the full resolution that this run has done.
    seconds
        float32 (row, column): what each block of the full resolution took; NaN: not done in this run.
    ended
        Likewise, at which second of the run it was done.
    workers
        By address.
    happened
        Second and event.
    retried
        Blocks that were tried again.
    skipped
        Blocks that failed and were set aside.
    error
        What ended the run, if it failed.
    lasted
        Seconds up to its end, or to what was last seen.
    """

    title: str = ""
    output: str = ""
    identity: str = ""
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    shape: tuple[int, int] = (0, 0)
    block: int = 0
    blocks: int = 0
    resumed: int = 0
    done: int = 0
    pixels: int = 0
    seconds: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    ended: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    workers: dict[str, WorkerLog] = field(default_factory=dict)
    happened: deque[tuple[float, Event]] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS), repr=False)
    retried: int = 0
    skipped: int = 0
    error: str = ""
    lasted: float = 0.0
    _clock: float = field(default_factory=lambda: time.monotonic(), repr=False)
    _lines: JsonLog | None = field(default=None, repr=False)

    @contextmanager
    def run(self, title: str, output: str, lines: JsonLog | None) -> Iterator[None]:
        """Take note of a run's begin and end; what was noted of another one goes. Both are told to a log in JSON."""
        self.__dict__.update(vars(RunLog(title, shown(redact_url(output)))))
        self._lines = lines
        try:
            yield
        except BaseException as error:
            self._end(shown(str(error)) or type(error).__name__)
            raise
        self._end("")

    def _end(self, error: str) -> None:
        self._now()
        self.error = error
        if self._lines is not None:
            self._lines.write("end", **self.facts())

    def begin_blocks(self, store: Store, blocks: int, resumed: int) -> None:
        """Take note of what is to be done."""
        if self._lines is not None:
            about = {"command": self.title, "output": self.output, "identity": self.identity}
            self._lines.write("start", **about, blocks=blocks, resumed=resumed, shape=store.geobox.shape)
        self.shape, self.block = (store.geobox.shape[0], store.geobox.shape[1]), store.plan.block
        self.blocks, self.resumed, self.done = blocks, resumed, resumed
        self.seconds, self.ended = (np.full(store.grid(0), np.nan, np.float32) for _ in range(2))

    def add(self, summary: Summary) -> None:
        """Take note of a block that is done."""
        now = self._now()
        worker = self._worker(summary.worker, now)
        worker.since = min(worker.since, max(0.0, now - summary.seconds))
        worker.add(summary)
        if summary.level == 0:
            place = summary.row, summary.column
            self.done += 1
            self.pixels += sum(summary.pixels)
            self.seconds[place], self.ended[place] = summary.seconds, now

    def tell(self, event: Event) -> None:
        """Take note of what happened."""
        now = self._now()
        if event.kind == "load":
            for address, (_, threads) in event.facts["workers"].items():
                self._worker(address, now).threads = threads
            return
        self.retried += event.kind == "retried"
        self.skipped += event.kind == "skipped"
        self.happened.append((round(now, 3), event))

    def _now(self) -> float:
        self.lasted = time.monotonic() - self._clock
        return self.lasted

    def _worker(self, address: str, now: float) -> WorkerLog:
        worker = self.workers.setdefault(address, WorkerLog(now, now))
        worker.until = now
        return worker

    def totals(self) -> dict[str, float]:
        """Return seconds of all workers in sum, by what they were at, and bytes."""
        names = (*PHASES, "rest", "idle", "bytes_read", "bytes_written")
        return {name: sum(getattr(worker, name) for worker in self.workers.values()) for name in names}

    def facts(self) -> dict[str, Any]:
        """Return the run in a few numbers, as JSON values."""
        return {
            "command": self.title,
            "output": self.output,
            "identity": self.identity,
            "blocks": self.blocks,
            "resumed": self.resumed,
            "done": self.done,
            "failed": int(bool(self.error)),
            "retried": self.retried,
            "skipped": self.skipped,
            "seconds": round(self.lasted, 3),
            "mpx_per_s": round(self.pixels / max(1e-6, self.lasted) / 1e6, 3),
            "workers": {address: _rounded(worker) for address, worker in self.workers.items()},
            **{name: round(value, 3) for name, value in self.totals().items()},
            **({"error": self.error} if self.error else {}),
        }


def _rounded(worker: WorkerLog) -> dict[str, float]:
    names = [each.name for each in fields(worker)]
    return {name: round(getattr(worker, name), 3) for name in (*names, "rest", "idle")}
