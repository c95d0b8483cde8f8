"""What the parts of `benchmarks.faults` share: a trial, and the command in a child with limits."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..chaos_processes import BIN, ENVIRONMENT, end

SECONDS, MEMORY = 120.0, 4 << 30
TOO_LONG = 124


class Skipped(Exception):
    """Raised by a part that cannot be tried here; the message is the reason, such as `not root`."""


@dataclass(frozen=True)
class Trial:
    """One fault, and what came of it.

    Parameters
    ----------
    part
        The part it belongs to, such as `kills`.
    what
        The fault in some words, such as `segment killed after 1.3 s`.
    right
        Whether what is promised was kept.
    detail
        What was found instead, or whatever is worth a line.
    """

    part: str
    what: str
    right: bool
    detail: str = ""


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Parameters
    ----------
    code
        Its exit code; negative by a signal; 124 if it took too long.
    printed, said
        Its standard output and its standard error.
    seconds
        How long it took.
    memory
        The most bytes that its own process held.
    """

    code: int
    printed: str
    said: str
    seconds: float
    memory: int

    @property
    def last(self) -> str:
        """The last line of what it said."""
        return (self.said.strip().splitlines() or [""])[-1]

    @property
    def is_clear(self) -> bool:
        """Whether it ended by itself, well or with an error that is told and no traceback."""
        told = self.code == 0 or bool(self.last)
        return self.code >= 0 and self.code != TOO_LONG and told and "Traceback" not in self.said


def swathe(
    *arguments: object,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Done:
    """Run the command `swathe` in a child, until it ends.

    Parameters
    ----------
    arguments
        What stands after `swathe`.
    seconds
        After which it is killed, with all that it has started.
    memory
        How many bytes it, and each process that it starts, may ask for.
    folder
        Where it works.
    environment
        Variables to add.
    before
        What stands before it, such as `unshare -n`.
    """
    # set by a program before it: set from here, it might come after one that `before` sets, and fail
    line = ["prlimit", f"--data={memory}", *before, str(BIN / "swathe"), *map(str, arguments)]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as printed,
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        began = time.monotonic()
        child = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=printed, stderr=said, text=True, cwd=folder,
            env=os.environ | ENVIRONMENT | dict(environment or {}), start_new_session=True,
        )  # fmt: skip
        most, late = _watch(child, began + seconds)
        for file in (printed, said):
            file.seek(0)
        code = TOO_LONG if late else child.returncode
        return Done(code, printed.read(), said.read(), time.monotonic() - began, most)


def _watch(child: "subprocess.Popen[str]", until: float) -> tuple[int, bool]:
    """Wait for the end of a process; returns the most memory that was seen, and whether it was killed for its time."""
    most = 0
    try:
        seen = psutil.Process(child.pid)
        while child.poll() is None and time.monotonic() < until:
            most = max(most, seen.memory_info().rss)
            time.sleep(0.02)
    except psutil.NoSuchProcess:  # ended between two looks
        child.wait()
    late = child.poll() is None
    end(child)  # what it has started may be left, also where it ended by itself
    return most, late
