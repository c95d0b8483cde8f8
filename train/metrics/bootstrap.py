"""How far scores would differ had other blocks been scored: intervals by bootstrap. Numbers only.

The percentile bootstrap of Efron & Tibshirani 1993 (An Introduction to the Bootstrap, chapter 13): blocks are drawn
with replacement, as many as there are; the middle 95 % of the scores of many such draws is the interval. Blocks, not
pixels, are what is drawn, because pixels beside each other are right or wrong together: intervals by pixels would be
far too narrow. Blocks of one scene are still alike in sensor, season and place: an interval says how sure the score is
of scenes like these, not how well the network does elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .confusion import OF_CLASSES, OVERALL
from .ratios import Floats, Ints, plain

FEW = 10  # blocks
MOST = 1 << 22  # draws held at once

Bounds = dict[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Between what scores lie.

    Parameters
    ----------
    level
        Share of the resamples between the bounds.
    resamples
        How often blocks were drawn.
    blocks
        How many were drawn from: those with pixels that count.
    low, high
        By score, float64 `(class,)`: those of `confusion.OF_CLASSES`. NaN where the score is nowhere defined, or with
        fewer than two blocks. A resample in which a score is not defined is left out for it.
    overall_low, overall_high
        By score, float64 `()`: those of `confusion.OVERALL`.
    """

    level: float
    resamples: int
    blocks: int
    low: Bounds
    high: Bounds
    overall_low: Bounds
    overall_high: Bounds

    @property
    def note(self) -> str:
        """One line to print beside the intervals, or nothing."""
        if self.blocks >= FEW:
            return ""
        return f"intervals from {self.blocks} blocks only: with fewer than {FEW} they are rough and mostly too narrow"

    def of_class(self, value: int) -> dict[str, Any]:
        """Give a class's intervals, for JSON."""
        return {name: [plain(self.low[name][value]), plain(self.high[name][value])] for name in self.low}

    def as_dict(self) -> dict[str, Any]:
        """Give what is said of all classes together, for JSON."""
        overall = {name: [plain(low), plain(self.overall_high[name])] for name, low in self.overall_low.items()}
        about = {"level": self.level, "resamples": self.resamples, "blocks": self.blocks, "note": self.note}
        return {**about, **overall}


def intervals(blocks: Ints, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Intervals:
    """Give intervals of all scores that follow from confusions.

    Parameters
    ----------
    blocks
        int64 `(block, truth, predicted)`: `Confusion.counts` of each block, or of each scene where there are many.
        Those without pixels are left out, since areas without labels tell nothing.
    level
        Share of the resamples between the bounds.
    resamples
        How often to draw.
    seed
        The same seed and blocks, in the same order, give the same intervals.
    """
    known = blocks[blocks.any((1, 2))]
    drawn = np.concatenate(list(_resampled(known, resamples, np.random.default_rng(seed))))
    edges = ((1 - level) / 2, (1 + level) / 2)
    of_classes = {name: _quantiles(formula(drawn), edges) for name, formula in OF_CLASSES.items()}
    overall = {name: _quantiles(np.asarray(formula(drawn)), edges) for name, formula in OVERALL.items()}
    sides = ({name: bounds[side] for name, bounds in some.items()} for some in (of_classes, overall) for side in (0, 1))
    return Intervals(level, resamples, len(known), *sides)


def _resampled(blocks: Ints, resamples: int, draw: np.random.Generator) -> Iterator[Ints]:
    """Give the confusions of resamples, `(some, truth, predicted)`, a part of them at a time."""
    number = len(blocks)
    if number < 2:
        yield np.zeros((1, *blocks.shape[1:]), np.int64)
        return
    flat = blocks.reshape(number, -1).astype(np.float64)  # sums of counts below 2^53 are exact, and multiply fast
    part = max(1, MOST // number)
    for start in range(0, resamples, part):
        some = min(part, resamples - start)
        which = draw.integers(0, number, (some, number)) + number * np.arange(some)[:, None]
        times = np.bincount(which.ravel(), minlength=some * number).reshape(some, number)
        yield (times.astype(np.float64) @ flat).astype(np.int64).reshape(some, *blocks.shape[1:])


def _quantiles(values: Floats, edges: tuple[float, float]) -> Floats:
    """Give quantiles over the first axis of what is not NaN, `(2, ...)`; NaN where all is."""
    nowhere = np.isnan(values).all(0)
    return np.where(nowhere, np.nan, np.nanquantile(np.where(nowhere, 0.0, values), edges, axis=0))
