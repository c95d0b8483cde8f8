"""Every verb that writes, killed at a moment that is drawn, and then the same command again."""

import random
from collections.abc import Iterator
from pathlib import Path

from .trial import TOO_LONG, Trial
from .verbs import VERBS, Case, Verb, other_than

PART, KILLS = "kills", 3  # trials of each verb, of two kills each
QUICK = [verb for verb in VERBS if "{in}/scene.tif" in verb.words or verb.words[0] == "{in}/maps.zarr"]


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try it."""
    drawn = random.Random(seed)
    case = Case(folder)
    verbs = [drawn.choice(QUICK)] if quick else [*VERBS] * KILLS
    for number, verb in enumerate(verbs):
        out = folder / f"out.{number}"
        out.mkdir()
        yield _trial(verb, folder, out, [drawn.uniform(0.2, 1) * case.make(verb) for _ in range(1 if quick else 2)])


def _trial(verb: Verb, inputs: Path, out: Path, moments: list[float]) -> Trial:
    what = f"{verb.name} to {verb.output} killed after {' and '.join(f'{moment:.1f}' for moment in moments)} s"
    for moment in moments:
        done = verb.run(inputs, out, seconds=moment)
        if done.code not in (0, TOO_LONG):
            return Trial(PART, what, right=False, detail=f"ended with {done.code}: {done.last}")
    done = verb.run(inputs, out)
    if done.code or not done.is_clear:
        return Trial(PART, what, right=False, detail=f"the same command ended with {done.code}: {done.last}")
    wrong = other_than(verb, inputs, out)
    return Trial(PART, what, right=not wrong, detail=wrong)
