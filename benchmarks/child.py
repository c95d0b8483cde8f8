"""Runs one measurement in a process of its own, so that no other leaves threads, caches or memory behind in it.

The child prints what it measured as one line of JSON, last; the parent reads it. Knows nothing of what is measured.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent


class Failed(Exception):
    """A child that ended with an error; the message is the last of what it said."""


def measure(module: str, *arguments: object) -> dict[str, Any]:
    """Run `python -m module arguments` and give what it reports.

    Raises
    ------
    Failed
        It ended with an error.
    """
    measured: dict[str, Any] = json.loads(run_module(module, *arguments).splitlines()[-1])
    return measured


def run_module(module: str, *arguments: object) -> str:
    """Run `python -m module arguments` and give what it prints. Raises Failed."""
    command = [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Failed(said[-1] if said else f"exit code {done.returncode}")
    return done.stdout.strip()


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """Return a folder to work in: the one that is named, which stays, or one that goes afterwards.

    Converted networks are cached there too, and not among the user's own.
    """
    with tempfile.TemporaryDirectory(prefix="swathe-bench-") as made:
        place = (folder or Path(made)).resolve()
        place.mkdir(parents=True, exist_ok=True)
        before = os.environ.get("SWATHE_CACHE")
        os.environ["SWATHE_CACHE"] = str(place / "cache")
        try:
            yield place
        finally:
            os.environ.pop("SWATHE_CACHE")
            os.environ |= {} if before is None else {"SWATHE_CACHE": before}


def report(**measured: Any) -> None:
    """Print what a child has measured."""
    print(json.dumps(measured), flush=True)


def peak_bytes() -> int:
    """Return the peak resident memory of this process since it began; nothing is subtracted."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """Return the seconds that all cores together have spent on this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Lay out text in columns: the first to the left, the others to the right."""
    widths = [max(len(row[n]) for row in [heads, *rows]) for n in range(len(heads))]

    def line(row: list[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *rest])

    return "\n".join([line(heads), line(["-" * width for width in widths]), *map(line, rows)])
