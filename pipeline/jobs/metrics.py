"""Counters for Prometheus of what a worker process does, at Dask's own endpoint: `/metrics` of its dashboard's port.

They are there where prometheus-client is installed and the worker is a process of a cluster.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from models.timing import PHASES

from ..store.store import Summary

_failed: deque[str] = deque(maxlen=100)  # keys of tasks, which Dask tries again under the same


@lru_cache
def _counters() -> "dict[str, Any] | None":
    """Return the counters of this process, registered once; None where the library is not installed."""
    if find_spec("prometheus_client") is None:
        return None
    from prometheus_client import Counter

    made: dict[str, Any] = {
        "blocks": Counter("swathe_blocks", "Blocks that are done, of all levels."),
        "failed": Counter("swathe_blocks_failed", "Tries of blocks that ended in an error."),
        "retried": Counter("swathe_blocks_retried", "Tries of blocks after the first."),
        "bytes_read": Counter("swathe_bytes_read", "Bytes of samples that were read and decoded."),
        "bytes_written": Counter("swathe_bytes_written", "Bytes of shards that were written."),
    }
    seconds = Counter("swathe_seconds", "Seconds of blocks by what they were at.", ["phase"])
    return made | {phase: seconds.labels(phase) for phase in PHASES}


@contextmanager
def counting_tries(worker: str, task: str) -> Iterator[None]:
    """Count a try of a task, by its key, that fails here, or that is not the first."""
    counters = _counters_at(worker)
    if counters is not None and (task in _failed or not task.endswith("-0")):  # keys end in the number of the try
        counters["retried"].inc()
    try:
        yield
    except Exception:
        if counters is not None:
            counters["failed"].inc()
            _failed.append(task)
        raise


def count_block(summary: Summary) -> None:
    """Count a block that this process has done, where it is a worker of a cluster."""
    counters = _counters_at(summary.worker)
    if counters is None:
        return
    counters["blocks"].inc()
    for name in (*PHASES, "bytes_read", "bytes_written"):
        counters[name].inc(getattr(summary.spent, name))


def _counters_at(worker: str) -> "dict[str, Any] | None":
    return None if not worker or worker.startswith("inproc://") else _counters()
