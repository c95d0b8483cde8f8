"""The power is cut: the raw image of a loop-mounted ext4 is copied in mid-run, and the run goes on from the copy.

What the kernel still held in memory is not in the copy, as after a power cut; mounting it replays its journal. The run
stands still while the image is copied, so that it is of one moment.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

from ..chaos_processes import Command, Place, end
from .trial import Skipped, Trial
from .verbs import VERBS, Case, Verb, other_than

PART, MEGABYTES = "power", 64
CUTS = 50
LATER = 10.0  # seconds after the end of a run within which the power may be cut
STORES = ("maps.zarr", "maps.tif", "clean.zarr", "objects.zarr")  # of many files, synced one by one: cut more often


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try it."""
    if os.geteuid():
        raise Skipped("only root mounts images")
    with _mounted(_make_image(folder / "try.img"), folder / "try") as mounted:
        if mounted is None:
            raise Skipped("no loop devices can be mounted here")
    drawn, case = random.Random(seed), Case(folder)
    for number, verb in enumerate(VERBS[:1] if quick else _turns()):
        later = drawn.uniform(0, LATER) if drawn.random() < 0.5 else 0
        moment = drawn.uniform(0.3, 1.0) * case.make(verb) + later
        yield _trial(verb, folder, folder / f"cut.{number}", moment)


def _turns() -> list[Verb]:
    """Return each verb twice, and those that write stores by turns until there are enough."""
    stores = cycle(verb for verb in VERBS if verb.output in STORES)
    return [*VERBS, *VERBS, *islice(stores, CUTS - 2 * len(VERBS))]


def _trial(verb: Verb, inputs: Path, here: Path, moment: float) -> Trial:
    here.mkdir()
    what = f"{verb.name} to {verb.output}, power cut after {moment:.1f} s"
    with _mounted(_make_image(here / "disk.img"), here / "disk") as disk:
        assert disk is not None
        words = [word.format(**{"in": inputs, "out": disk}) for word in verb.words]
        until = time.monotonic() + moment
        command = Command(Place(), verb.name, *words)
        command.wait(moment)
        ended = not command.is_running()
        time.sleep(max(0.0, until - time.monotonic()))
        _send(command, signal.SIGSTOP)
        shutil.copyfile(here / "disk.img", here / "after.img")
        end(command.process)
    with _mounted(here / "after.img", here / "again") as disk:
        assert disk is not None
        done = verb.run(inputs, disk)
        wrong = other_than(verb, inputs, disk) if done.code == 0 and done.is_clear else f"{done.code}: {done.last}"
    shutil.rmtree(here)
    return Trial(PART, what + (", when it had ended" if ended else ""), right=not wrong, detail=wrong)


def _send(command: Command, number: signal.Signals) -> None:
    if command.is_running():
        os.killpg(command.process.pid, number)


def _make_image(path: Path) -> Path:
    with open(path, "wb") as file:
        file.truncate(MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


@contextmanager
def _mounted(image: Path, where: Path) -> "Iterator[Path | None]":
    """Mount an image; None where that cannot be done. Its loop device goes with it."""
    where.mkdir()
    mounted = _run("mount", "-o", "loop", image, where)
    try:
        yield where if mounted else None
    finally:
        if mounted and not _run("umount", where):
            _run("umount", "-l", where)
        where.rmdir()


def _run(*words: "str | Path") -> bool:
    line: Sequence[str] = list(map(str, words))
    return subprocess.run(line, check=False, capture_output=True).returncode == 0
