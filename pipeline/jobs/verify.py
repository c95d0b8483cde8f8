"""Read everything that a store, a file or a folder should hold, in tasks on a Dask client, and say what is damaged.

What has been read is kept in the user's cache, so that the same call continues after an interruption.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.system import cache_folder, usable_cpus

from ..cluster.connect import dask_client
from ..cluster.launch import local_part
from ..cluster.processes import Workers
from ..store.check import Part, Problem, check_parts
from ..store.files import Files
from ..store.store import store_errors
from .progress import no_progress, progress
from .tasks import map_bounded

TOGETHER = 64  # files that a task reads
FEW = 256  # that are read here where no cluster is given, since it takes longer to start a worker
SAVE_EVERY = 5.0  # seconds
FORGET = 86_400.0  # seconds after which what was read is read again


@dataclass
class _Read:
    """What has been read so far, kept in a small file of the user's cache."""

    path: Path
    done: set[int] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    saved: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, root: str, digest: str) -> "_Read":
        name = hashlib.sha256(f"{root}\n{digest}".encode()).hexdigest()[:32]
        made = cls(cache_folder("verify") / f"{name}.json")
        with suppress(OSError, ValueError, LookupError, TypeError):
            if time.time() - made.path.stat().st_mtime < FORGET:
                found = json.loads(made.path.read_bytes())
                made.problems, made.done = [Problem(**one) for one in found["problems"]], set(found["done"])
        return made

    def add(self, number: int, problems: Sequence[Problem]) -> None:
        self.done.add(number)
        self.problems += problems
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        self.saved = time.monotonic()
        found = {"done": sorted(self.done), "problems": [asdict(one) for one in self.problems]}
        part = self.path.with_suffix(".partial")
        with suppress(OSError):  # then it begins anew
            part.write_text(json.dumps(found))
            part.replace(self.path)

    def end(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def read_parts(
    files: Files, parts: Sequence[Part], digest: str, *, client: Workers = None, show: bool = True
) -> list[Problem]:
    """Read parts wherever they lie, and return what is wrong with them, in the order of their names.

    Parameters
    ----------
    files
        Where they lie.
    parts
        In the same order each time.
    digest
        Of what says what they should be: another one begins anew.
    client
        Of `dask_client`; None: this process.
    show
        Show progress.

    Raises
    ------
    SwatheError
        The disk, the object store or the cluster fails. What has been read is kept.
    """
    state, tasks = _Read.begin(files.root, digest), list(enumerate(_cut(parts)))
    todo = (task for task in tasks if task[0] not in state.done)
    before = sum(len(task[1]) for task in tasks if task[0] in state.done)
    try:
        shown = progress("verifying", len(parts), before, unit="files") if show else nullcontext(no_progress)
        with shown as advance:
            for number, problems in _results(files, todo, client, few=len(parts) - before <= FEW):
                state.add(number, problems)
                advance(len(tasks[number][1]), 0)
    except BaseException:
        state.save()
        raise
    state.end()
    return sorted(state.problems, key=lambda problem: problem.name)


def _cut(parts: Sequence[Part]) -> list[tuple[Part, ...]]:
    return [tuple(parts[start : start + TOGETHER]) for start in range(0, len(parts), TOGETHER)]


def _results(files: Files, todo: Iterator[Any], client: Workers, *, few: bool) -> Iterator[tuple[int, list[Problem]]]:
    if client is None and few:
        yield from (check_task(files, task) for task in todo)
        return
    processes = local_part(client)
    with dask_client(client, processes.share(usable_cpus()) if processes else usable_cpus()) as connection:
        yield from map_bounded(connection, check_task, files, todo, key="swathe-verify", name=_name)


def check_task(files: Files, task: tuple[int, tuple[Part, ...]]) -> tuple[int, list[Problem]]:
    """Read some parts, wherever a worker does."""
    with store_errors(files.root):
        return task[0], check_parts(files, task[1])


def _name(task: tuple[int, tuple[Part, ...]]) -> str:
    return f"{task[1][0].name} and {len(task[1]) - 1} more"
