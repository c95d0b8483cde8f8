"""The processes that read chips ahead of a training: how they begin, and what becomes of their errors. No pixels."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from models.errors import SwatheError, TrainingError

CAUGHT = "Original Traceback"  # what torch puts into the message of an error that a process of a loader raised
DIED = "DataLoader worker"


def begin_reader(number: int) -> None:
    """Leave Ctrl-C to the training's own process, which ends this one: it alone has something to say."""
    signal.set_wakeup_fd(-1)  # inherited; the training would take our signals for its own
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def reader_errors() -> Iterator[None]:
    """Give errors of readers as they were raised there, without the traceback that torch writes into them.

    Raises
    ------
    SwatheError
        That of a reader.
    TrainingError
        A reader was killed.
    """
    try:
        yield
    except SwatheError as error:
        kind, text = type(error), str(error)
        if CAUGHT not in text:
            raise
    except RuntimeError as error:
        if DIED not in str(error):
            raise
        kind, text = TrainingError, "a process that reads chips ahead has died, perhaps for lack of memory; set " \
            "chips.workers to fewer, or to 0, and run the same again"  # fmt: skip
    else:
        return
    raise kind(text.rpartition(f"{kind.__name__}: ")[2].strip())
