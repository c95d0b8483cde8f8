"""What a process has left on disk: whether the same call would continue it, and what is done where it is damaged."""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from models.errors import DamagedStepError

TRIES = 3  # so often work is begun again of which one file was damaged; each time it is made anew
Result = TypeVar("Result")
logger = logging.getLogger("swathe")

_kept = threading.Event()


def mark_kept() -> None:
    """Say that something is finished which the same call need not do again."""
    _kept.set()


def is_anything_kept() -> bool:
    """Whether anything is."""
    return _kept.is_set()


def again_if_damaged(work: Callable[[], Result]) -> Result:
    """Do work that goes on where it was, again whenever a file of its steps turns out to be damaged or lost."""
    seen = Counter[str]()
    while True:
        try:
            return work()
        except DamagedStepError as error:
            seen[str(error)] += 1
            if seen[str(error)] > TRIES:
                raise
            logger.info("%s", error)
