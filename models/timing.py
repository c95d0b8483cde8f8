"""Where the time of a piece of work goes: each thread notes what it spends, and who began the work reads the sum."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["read", "wait", "predict", "write"]
PHASES: tuple[Phase, ...] = ("read", "wait", "predict", "write")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a piece of work has spent, by what it was at.

    Parameters
    ----------
    read, wait, predict, write
        Seconds: reading and decoding pixels; waiting for a free slot of an engine or for memory; in the network;
        encoding and writing. What none of them was is the rest.
    bytes_read, bytes_written
        Decoded samples; encoded shards.
    """

    read: float = 0.0
    wait: float = 0.0
    predict: float = 0.0
    write: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0


NOTHING = Spent()


@dataclass(slots=True)
class _Watch:
    """What one thread notes. A phase within another interrupts it, so that no second counts twice."""

    phase: str = "rest"
    since: float = field(default_factory=time.perf_counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys((*PHASES, "rest"), 0.0))
    bytes_read: int = 0
    bytes_written: int = 0

    def turn_to(self, phase: str) -> str:
        now, before = time.perf_counter(), self.phase
        self.seconds[before] += now - self.since
        self.phase, self.since = phase, now
        return before

    def spent(self) -> Spent:
        self.turn_to(self.phase)
        seconds = {phase: round(self.seconds[phase], 6) for phase in PHASES}
        return Spent(**seconds, bytes_read=self.bytes_read, bytes_written=self.bytes_written)


class _Thread(threading.local):
    watch: _Watch | None = None


_thread = _Thread()


class Timing:
    """What `timing` gives: `spent` is there once its block has ended."""

    spent = NOTHING


@contextmanager
def timing() -> Iterator[Timing]:
    """Note what this thread spends within it; one that stands within another counts for itself alone."""
    found, outer = Timing(), _thread.watch
    watch = _thread.watch = _Watch()
    try:
        yield found
    finally:
        _thread.watch = outer
        found.spent = watch.spent()


class spending:
    """Count the seconds within it as those of a phase, where somebody asks; else it does nothing."""

    __slots__ = ("_before", "_phase", "_watch")

    def __init__(self, phase: Phase) -> None:
        self._phase, self._watch, self._before = phase, _thread.watch, ""

    def __enter__(self) -> None:
        if self._watch is not None:
            self._before = self._watch.turn_to(self._phase)

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.turn_to(self._before)


def count_bytes(*, read: int = 0, written: int = 0) -> None:
    """Count bytes that this thread has read or written, where somebody asks."""
    if (watch := _thread.watch) is not None:
        watch.bytes_read += read
        watch.bytes_written += written
