"""Show the progress of a long run: a bar in a terminal, tqdm in a notebook, plain lines in a log, or JSON."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import IO, Any

from typing_extensions import override

from .events import Event
from .json_log import JsonLog, json_log

LINE_EVERY = 10.0  # seconds between lines in a log, at least
SILENCE = 30.0  # seconds after which a log has another line, even if nothing has finished
TICK = 1.0


class Progress:
    """Told what finishes and what happens, it shows that; this one shows nothing."""

    def __call__(self, some: int, more: int) -> None:
        """Take note of blocks that have finished, and of the pixels that they bring."""

    def tell(self, event: Event) -> None:
        """Take note of what happens beside."""


ProgressFactory = Callable[[str, int, int], AbstractContextManager[Progress]]
"""Shows one stage: its title, all blocks, and those done before."""
no_progress = Progress()


@contextmanager
def progress(
    label: str, blocks: int, done: int = 0, stream: IO[str] | None = None, *, unit: str = "blocks"
) -> Iterator[Progress]:
    """Show the progress of a run: pixels per second, what is under way, what happens, and the time that is left.

    Parameters
    ----------
    label
        What is being done.
    blocks, done
        All blocks, and those done before.
    stream
        Where to, default standard error.
    unit
        What blocks are called, where they are something else.
    """
    stream = stream or sys.stderr
    stage = label, blocks, done, unit
    with ExitStack() as stack:
        if (log := json_log()) is not None:
            shown: Shown = JsonLines(log, *stage)
        elif _in_notebook():
            shown = Notebook(stack, *stage)
        elif stream.isatty():
            shown = Terminal(stack, stream, *stage)
        else:
            shown = Lines(stream, *stage)
        stack.enter_context(_ticking(shown))
        yield shown


@contextmanager
def _ticking(shown: "Shown") -> Iterator[None]:
    """Let it look at the clock meanwhile, in a thread: the one that runs tasks may wait for long."""
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(TICK):
            shown.tick()

    thread = threading.Thread(target=tick, daemon=True, name="swathe-progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Shown(Progress):
    """What is counted of one stage. How it is shown is what follows."""

    def __init__(self, label: str, blocks: int, done: int, unit: str) -> None:
        self.label, self.blocks, self.done, self.before, self.unit = label, blocks, done, done, unit
        self.pixels = self.in_work = self.retried = 0
        self.workers: Mapping[str, tuple[int, int]] = {}
        self.started = self.said = time.monotonic()
        self._lock = threading.RLock()

    @override
    def __call__(self, some: int, more: int) -> None:
        with self._lock:
            self.done += some
            self.pixels += more
            self._advance(some)

    @override
    def tell(self, event: Event) -> None:
        with self._lock:
            if event.kind == "load":
                self.in_work, self.workers = event.facts["in_work"], event.facts["workers"]
                return
            self.retried += event.kind == "retried"
            self._say(event)
            self.said = time.monotonic()

    def tick(self) -> None:
        """Say that it still goes on, where nothing was said for long."""
        with self._lock:
            if time.monotonic() - self.said >= SILENCE:
                self._go_on()

    def _advance(self, some: int) -> None:
        """Show that blocks have finished."""

    def _say(self, event: Event) -> None:
        """Show what happened."""

    def _go_on(self) -> None:
        """Show that it goes on."""

    @property
    def pixels_per_second(self) -> float:
        """Since the stage began."""
        return self.pixels / max(1e-6, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float | None:
        """By the blocks that have finished; None before any has."""
        finished = self.done - self.before
        return (time.monotonic() - self.started) / finished * (self.blocks - self.done) if finished else None

    def rate(self) -> str:
        """Return pixels per second; nothing for work that counts blocks alone."""
        return f"{self.pixels_per_second / 1e6:.2f} Mpx/s" if self.pixels else ""

    def load(self) -> str:
        """Return what is under way, and where."""
        if not self.workers:
            return ""
        busy = sum(running > 0 for running, _ in self.workers.values())
        alone = all(address.startswith("inproc://") for address in self.workers)
        where = "" if alone else f" on {busy} of {len(self.workers)} worker{'s' * (len(self.workers) != 1)}"
        return f"{self.in_work} in work{where}"

    def tries(self) -> str:
        """Return how many blocks were tried again, if any."""
        return f"{self.retried} retried" if self.retried else ""


class Lines(Shown):
    """Plain lines in a log."""

    def __init__(self, stream: IO[str], *stage: Any) -> None:
        super().__init__(*stage)
        self._stream = stream
        self._print(f"{self.label}: {self.done} of {self.blocks} {self.unit} done")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
        self.said = self._counted = time.monotonic()

    @override
    def _advance(self, some: int) -> None:
        if time.monotonic() - self._counted >= LINE_EVERY or self.done >= self.blocks:
            self._go_on()

    @override
    def _say(self, event: Event) -> None:
        print(f"{self.label}: {event.text}", file=self._stream, flush=True)

    @override
    def _go_on(self) -> None:
        left = "" if self.seconds_left is None else f"{_time(self.seconds_left)} left"
        parts = [f"{self.done} of {self.blocks} {self.unit}", self.rate(), self.load(), self.tries(), left]
        self._print(f"{self.label}: {', '.join(filter(None, parts))}")


class Terminal(Shown):
    """A bar, above which lines stand that tell what happened."""

    def __init__(self, stack: ExitStack, stream: IO[str], *stage: Any) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        super().__init__(*stage)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{self.unit}  {{task.fields[words]}}"),
            TimeRemainingColumn(),
        )
        self._bar = stack.enter_context(Bar(*columns, console=Console(file=stream)))
        self._task = self._bar.add_task(self.label, total=self.blocks, completed=self.done, words="")

    def _words(self) -> str:
        return "  ".join(filter(None, (self.rate(), self.load(), self.tries())))

    @override
    def _advance(self, some: int) -> None:
        self._bar.update(self._task, advance=some, words=self._words())

    @override
    def _say(self, event: Event) -> None:
        self._bar.console.print(f"{self.label}: {event.text}", markup=False, highlight=False)

    @override
    def tick(self) -> None:
        self._bar.update(self._task, words=self._words())


class Notebook(Shown):
    """The text bar of tqdm: it needs no widgets, and stays readable in a stored notebook."""

    def __init__(self, stack: ExitStack, *stage: Any) -> None:
        from tqdm import tqdm

        super().__init__(*stage)
        unit = self.unit.removesuffix("s")
        bar = tqdm(desc=self.label, total=self.blocks, initial=self.done, unit=unit, file=sys.stdout)
        self._bar = stack.enter_context(bar)

    @override
    def _advance(self, some: int) -> None:
        self._bar.set_postfix_str(", ".join(filter(None, (self.rate(), self.load(), self.tries()))), refresh=False)
        self._bar.update(some)

    @override
    def _say(self, event: Event) -> None:
        self._bar.write(f"{self.label}: {event.text}", file=sys.stdout)


class JsonLines(Shown):
    """Objects of a log in JSON: `stage`, then `progress` and what happens."""

    def __init__(self, log: JsonLog, *stage: Any) -> None:
        super().__init__(*stage)
        self._log = log
        log.write("stage", stage=self.label, done=self.done, total=self.blocks, unit=self.unit)

    @override
    def _advance(self, some: int) -> None:
        if time.monotonic() - self.said >= LINE_EVERY or self.done >= self.blocks:
            self._go_on()

    @override
    def _say(self, event: Event) -> None:
        self._log.write(event.kind, stage=self.label, text=event.text, **event.facts)

    @override
    def _go_on(self) -> None:
        left = self.seconds_left
        self._log.write(
            "progress",
            stage=self.label,
            done=self.done,
            total=self.blocks,
            unit=self.unit,
            mpx_per_s=round(self.pixels_per_second / 1e6, 3),
            in_work=self.in_work,
            workers={name: {"running": running, "threads": of} for name, (running, of) in self.workers.items()},
            retried=self.retried,
            eta_s=None if left is None else round(left, 1),
        )
        self.said = time.monotonic()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return type(ipython.get_ipython() if ipython else None).__name__ == "ZMQInteractiveShell"


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
