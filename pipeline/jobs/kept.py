"""Whether this process has left on disk what the same call would continue: whoever stops it is told the truth."""

import threading

_kept = threading.Event()


def mark_kept() -> None:
    """Say that something is finished which the same call need not do again."""
    _kept.set()


def is_anything_kept() -> bool:
    """Whether anything is."""
    return _kept.is_set()
