"""Clusters of worker processes for tests of what happens to these, and what their tasks do."""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from distributed import LocalCluster

LOCAL = {"dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}


def processes(count: int, **more) -> LocalCluster:
    return LocalCluster(n_workers=count, threads_per_worker=1, silence_logs=logging.CRITICAL, **LOCAL, **more)


def in_process(count: int) -> LocalCluster:
    return LocalCluster(
        n_workers=count, threads_per_worker=1, processes=False, memory_limit=0, silence_logs=logging.CRITICAL,
        dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0",
    )  # fmt: skip


def heard(told):
    """Keep the events that have words."""
    return lambda event: told.append(event) if event.text else None


def nap(seconds, item):
    time.sleep(seconds)
    return os.getpid(), item


def hang_once(folder, item):
    """Hang at the first try of item 5, as on a disk that does not answer."""
    if item == 5:
        with suppress(FileExistsError):
            (Path(folder) / "hung").touch(exist_ok=False)
            time.sleep(3600)
    time.sleep(0.05)
    return item


def hang(_, item):
    while item == 5:
        time.sleep(0.1)
    return item
