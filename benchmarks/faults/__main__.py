"""What can go wrong, done by the hundred: nothing may be lost, nothing wrong, nobody let in.

    python -m benchmarks.faults                       # all, for an hour or more
    python -m benchmarks.faults --quick               # some of each part, within minutes; CI runs this
    python -m benchmarks.faults --only kills tears --seed 7

`kills`: every verb that writes, killed. `power`: the power is cut (the image of a loop-mounted disk is copied in
mid-run; as root). `tears`: files of a running store that are empty, cut or zeros. `flips`: single bits of whatever we
write. `disks`: full ones. `s3`: storage behind a proxy that fails. `hostile`: files made to read, write or send what
they must not, in a namespace without network, with a trap (as root). `mutated`: inputs with random changes, and sizes
that no memory holds.

Each part tries faults that are drawn by the seed alone, and says of each what came of it. `right` is what README
promises; what is `wrong` is printed at once, and one of them makes this command end with 1. So does a part that tried
nothing; a part that cannot be tried here (root, loop devices) is left out with the reason.
"""

import argparse
import importlib
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..chaos_processes import end_all
from ..child import table, workplace
from .progress import shown
from .trial import Skipped, Trial

Run = Callable[[int, bool, Path], Iterator[Trial]]
PARTS = ("kills", "power", "tears", "flips", "disks", "s3", "hostile", "mutated")  # each a module with a function `run`


@dataclass(frozen=True)
class Part:
    """What came of a part; `skipped` is why it was not tried, or not to its end."""

    name: str
    trials: tuple[Trial, ...]
    skipped: str
    seconds: float

    @property
    def wrong(self) -> int:
        """How many trials were wrong."""
        return sum(not trial.right for trial in self.trials)

    @property
    def row(self) -> list[str]:
        """Its line in the table."""
        tried = len(self.trials)
        return [self.name, str(tried), str(tried - self.wrong), str(self.wrong), f"{self.seconds:.0f} s"]


def find_parts() -> dict[str, Run]:
    """Import the parts that there are."""
    names = {name: f"{__package__}.{name}" for name in PARTS}
    return {name: importlib.import_module(where).run for name, where in names.items() if find_spec(where)}


def do(name: str, run: Run, seed: int, quick: bool, folder: Path) -> Part:
    """Try a part to its end, in a folder of its own."""
    began, trials, skipped = time.monotonic(), list[Trial](), ""
    folder.mkdir()
    with shown(name) as progress:
        try:
            for trial in _all(name, run(seed, quick, folder)):
                trials.append(trial)
                progress.note(trial)
                if not trial.right:
                    print(f"WRONG {name}: {trial.what}: {trial.detail}", flush=True)
        except Skipped as reason:
            skipped = str(reason)
    return Part(name, tuple(trials), skipped, time.monotonic() - began)


def _all(name: str, trials: Iterator[Trial]) -> Iterator[Trial]:
    """Return trials, and one more that is wrong where there are none or an error ends them."""
    nothing = True
    try:
        for trial in trials:
            nothing = False
            yield trial
        if nothing:
            yield Trial(name, "the part", False, "tried nothing")
    except Skipped:
        raise
    except Exception as error:  # the other parts are tried all the same
        traceback.print_exc()
        yield Trial(name, "the part", False, f"ended with {error!r}")


def campaign(parts: dict[str, Run], seed: int, quick: bool, folder: Path) -> list[Part]:
    """Try all parts, one after the other."""
    done = []
    for name, run in parts.items():
        done.append(do(name, run, seed, quick, folder / name))
        print("  ".join(done[-1].row), flush=True)
    return done


def describe(done: Sequence[Part]) -> str:
    """Return the table, and below it what was left out."""
    rows = [part.row for part in done]
    sums = [str(sum(int(row[column]) for row in rows)) for column in (1, 2, 3)]
    all_ = ["all", *sums, f"{sum(part.seconds for part in done):.0f} s"]
    left_out = [f"{part.name} is left out: {part.skipped}" for part in done if part.skipped]
    return "\n".join([table(["", "tried", "right", "wrong", "time"], [*rows, all_]), *left_out])


def main(arguments: list[str] | None = None, parts: dict[str, Run] | None = None) -> int:
    """Do what the command line says; `parts` instead of those that there are."""
    parser = argparse.ArgumentParser("python -m benchmarks.faults", description="Nothing lost, nothing wrong.")
    names = list(PARTS if parts is None else parts)
    parser.add_argument("--quick", action="store_true", help="some of each part, within minutes")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PART", help="some parts")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--folder", type=Path, help="where all goes and stays")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}: {', '.join(chosen.only)}", flush=True)
    known = find_parts() if parts is None else parts
    with workplace(chosen.folder) as folder:
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what parts have mounted or started goes
        try:
            some = {name: run for name, run in known.items() if name in chosen.only}
            done = campaign(some, chosen.seed, chosen.quick, folder)
        finally:
            signal.signal(signal.SIGTERM, before)
            end_all()
    print(f"\nseed {chosen.seed}\n\n{describe(done)}")
    return int(any(part.wrong for part in done))


if __name__ == "__main__":
    sys.exit(main())
