"""Show the progress of a long run: a bar in a terminal, tqdm in a notebook, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any

ProgressCallback = Callable[[int, int], None]
"""Called after each block with the blocks and pixels it brings."""
ProgressFactory = Callable[[str, int, int], AbstractContextManager[ProgressCallback]]
"""Shows one stage: its title, all blocks, and those done before."""

LINE_EVERY = 10.0  # seconds between lines in a log


@contextmanager
def progress(
    label: str, blocks: int, done: int = 0, stream: IO[str] | None = None, *, unit: str = "blocks"
) -> Iterator[ProgressCallback]:
    """Show the progress of a run with its pixels per second and the time that is left.

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
    if _in_notebook():
        shown = _notebook(label, blocks, done, unit)
    elif stream.isatty():
        shown = _terminal(label, blocks, done, stream, unit)
    else:
        shown = _lines(label, blocks, done, stream, unit)
    with shown as advance:
        yield advance


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return type(ipython.get_ipython() if ipython else None).__name__ == "ZMQInteractiveShell"


@contextmanager
def _terminal(label: str, blocks: int, done: int, stream: IO[str], unit: str) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(),
    )
    started, pixels = time.monotonic(), 0
    with Progress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(label, total=blocks, completed=done, rate="")

        def advance(some: int, more: int) -> None:
            nonlocal pixels
            pixels += more
            bar.update(task, advance=some, rate=_rate(pixels, started))

        yield advance


@contextmanager
def _notebook(label: str, blocks: int, done: int, unit: str) -> Iterator[ProgressCallback]:
    from tqdm import tqdm  # the text bar: it needs no widgets, and stays readable in a stored notebook

    started, pixels = time.monotonic(), 0
    with tqdm(desc=label, total=blocks, initial=done, unit=unit.removesuffix("s"), file=sys.stdout) as bar:

        def advance(some: int, more: int) -> None:
            nonlocal pixels
            pixels += more
            bar.set_postfix_str(_rate(pixels, started), refresh=False)
            bar.update(some)

        yield advance


@contextmanager
def _lines(label: str, blocks: int, done: int, stream: IO[str], unit: str) -> Iterator[ProgressCallback]:
    started = last = time.monotonic()
    pixels, finished = 0, done
    print(f"{label}: {done} of {blocks} {unit} done", file=stream, flush=True)

    def advance(some: int, more: int) -> None:
        nonlocal pixels, finished, last
        pixels, finished, now = pixels + more, finished + some, time.monotonic()
        if now - last < LINE_EVERY and finished < blocks:
            return
        last = now
        left = (now - started) / max(1, finished - done) * (blocks - finished)
        rate = f"{_rate(pixels, started)}, " if pixels else ""
        line = f"{label}: {finished} of {blocks} {unit}, {rate}{_time(left)} left"
        print(line, file=stream, flush=True)

    yield advance


def _rate(pixels: int, started: float) -> str:
    """Return pixels per second; nothing for work that counts blocks alone."""
    return f"{pixels / max(1e-6, time.monotonic() - started) / 1e6:.2f} Mpx/s" if pixels else ""


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def no_progress(*_: Any, **__: Any) -> None:
    """Show nothing."""
