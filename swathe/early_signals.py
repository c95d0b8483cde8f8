"""Ctrl-C, SIGTERM and SIGHUP while the command is still being imported: a word and the right exit code, no traceback.

Imports next to nothing, since what comes before it is not guarded. `pipeline.cli.app` takes over.
"""

import os
import signal
import sys
from types import FrameType


def guard_imports() -> None:
    """Let signals end this process at once, if it is the command `swathe` and not whoever imports this package."""
    is_command = sys.argv[:1] == ["-m"] or os.path.basename(sys.argv[0] if sys.argv else "") == "swathe"
    if not is_command or "multiprocessing" in sys.modules:  # a worker's process imports the command too
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, _leave)


def _leave(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"stopped before anything was begun\n")
    finally:
        os._exit(128 + number)
