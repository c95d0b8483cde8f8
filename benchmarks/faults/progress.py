"""Says every few seconds how far a part of the campaign is: at once on a terminal's last line, seldom into a file."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .trial import Trial

SOON, SELDOM = 1.0, 30.0  # seconds between two lines, on a terminal and elsewhere


@dataclass
class Progress:
    """What a part has tried so far, and the last of it."""

    name: str
    tried: int = 0
    wrong: int = 0
    last: str = "begins"

    def note(self, trial: Trial) -> None:
        """Count one more."""
        self.tried, self.wrong, self.last = self.tried + 1, self.wrong + (not trial.right), trial.what

    def line(self, seconds: float) -> str:
        """Return it in words."""
        return f"{self.name}: {self.tried} tried, {self.wrong} wrong, {seconds:.0f} s; {self.last}"


@contextmanager
def shown(name: str) -> Iterator[Progress]:
    """Show what is noted of a part, on standard error, until its end."""
    progress, ended = Progress(name), threading.Event()
    teller = threading.Thread(target=_tell, args=(progress, ended), daemon=True)
    teller.start()
    try:
        yield progress
    finally:
        ended.set()
        teller.join()


def _tell(progress: Progress, ended: threading.Event) -> None:
    began, live = time.monotonic(), sys.stderr.isatty()
    while True:
        line = progress.line(time.monotonic() - began)
        print(f"\r\x1b[K{line[:100]}" if live else line, end="" if live else "\n", file=sys.stderr, flush=True)
        if ended.wait(SOON if live else SELDOM):
            break
    if live:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
