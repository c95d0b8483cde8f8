"""Scores of a scene, or of many: counted block by block, added up, written down, with bootstrap intervals.

What each score is, `confusion`, `thresholds`, `boundaries`, `calibration` and `object_matching` say. Numbers only.

Intervals say how far scores would differ had other blocks been scored. They are the percentile bootstrap of Efron &
Tibshirani 1993 (An Introduction to the Bootstrap, chapter 13): blocks are drawn with replacement, as many as there are;
the middle 95 % of the scores of many such draws is the interval. Blocks, not pixels, are what is drawn, because pixels
beside each other are right or wrong together: intervals by pixels would be far too narrow. Blocks of one scene are
still alike in sensor, season and place: an interval says how sure the score is of scenes like these, not how well the
network does elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.schema import IGNORE
from .boundaries import DISTANCE, Boundary, Core, count_boundary
from .calibration import Reliability, foreground_reliability, top_reliability
from .confusion import OF_CLASSES, OVERALL, Confusion, Floats, Ints, Values, confusion, plain
from .object_matching import ObjectCounts
from .thresholds import ClassCurves, class_curves

FEW = 10  # blocks
MOST = 1 << 22  # draws held at once

Bounds = dict[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class BlockCounts:
    """What is counted in a block for the scores. Two of them add up, in any order, to that of both areas.

    Parameters
    ----------
    confusion, boundary
        Of class maps.
    thresholds
        Of probabilities, for each class but the background. None: probabilities were not kept.
    foreground
        Of the probability of the one class beside the background; None as above, or where there is no one.
    top
        Of the likeliest class's probability; None as above.
    """

    confusion: Confusion
    boundary: Boundary
    thresholds: ClassCurves | None = None
    foreground: Reliability | None = None
    top: Reliability | None = None

    def __add__(self, other: Self) -> Self:
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        if any((one is None) != (another is None) for one, another in pairs):
            raise ValueError("counts with probabilities and without do not add up")
        added: list[Any] = [None if one is None else one + another for one, another in pairs]
        return type(self)(*added)


def count_pixels(
    class_map: Values,
    labels: Values,
    core: Core,
    *,
    classes: int,
    background: int | None = 0,
    probabilities: NDArray[np.float32] | None = None,
    distance: int = DISTANCE,
) -> BlockCounts:
    """Count a block.

    Parameters
    ----------
    class_map, labels
        uint8 `(y, x)` of the block and `distance` pixels more on each side, or as far as the scene reaches; 255 = does
        not count.
    core
        Rows and columns of the block in them.
    classes
        How many there are.
    background
        Its value; None: there is none.
    probabilities
        float32 `(class, y, x)` of the block alone; NaN does not count.
    distance
        See `boundaries`.

    Raises
    ------
    TrainingError
        Labels or class map hold a value that is no class.
    """
    maps = confusion(class_map[core], labels[core], classes), count_boundary(class_map, labels, core, distance, classes)
    if probabilities is None:
        return BlockCounts(*maps)
    truth = np.where(class_map[core] == IGNORE, np.uint8(IGNORE), labels[core])
    curves, one = class_curves(probabilities, truth, background), one_foreground(classes, background)
    foreground = None if one is None else foreground_reliability(probabilities[one], truth, one)
    return BlockCounts(*maps, curves, foreground, top_reliability(probabilities, truth))


def one_foreground(classes: int, background: int | None) -> int | None:
    """Return the value of the one class beside the background; None where there is no background, or there are more."""
    return 1 - background if classes == 2 and background is not None else None


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Bootstrap intervals of scores.

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
        """Return a class's intervals, for JSON."""
        return {name: [plain(self.low[name][value]), plain(self.high[name][value])] for name in self.low}

    def as_dict(self) -> dict[str, Any]:
        """Return the intervals of all classes together, for JSON."""
        overall = {name: [plain(low), plain(self.overall_high[name])] for name, low in self.overall_low.items()}
        about = {"level": self.level, "resamples": self.resamples, "blocks": self.blocks, "note": self.note}
        return {**about, **overall}


def intervals(blocks: Ints, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Intervals:
    """Return intervals of all scores that follow from confusions.

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
    """Return the confusions of resamples, `(some, truth, predicted)`, a part of them at a time."""
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
    """Return quantiles over the first axis of what is not NaN, `(2, ...)`; NaN where all is."""
    nowhere = np.isnan(values).all(0)
    return np.where(nowhere, np.nan, np.nanquantile(np.where(nowhere, 0.0, values), edges, axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """All scores together.

    Parameters
    ----------
    names
        Of the classes, by value.
    counts
        Of all blocks.
    objects
        Of all scenes; None: objects were not matched.
    intervals
        None: none were computed.
    background
        Value of the class that is no object; None: there is none.
    """

    names: tuple[str, ...]
    counts: BlockCounts
    objects: ObjectCounts | None = None
    intervals: Intervals | None = None
    background: int | None = 0

    @property
    def foreground(self) -> int | None:
        """Value of the one class beside the background; None where there is no one: means over classes count then."""
        return one_foreground(len(self.names), self.background)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON: shares to four digits, None for a share of nothing; counts exactly."""
        boundary, curves, one = self.counts.boundary, self.counts.thresholds, self.foreground
        reliabilities = {"foreground": self.counts.foreground, "top": self.counts.top}
        calibration = {name: some.as_dict() for name, some in reliabilities.items() if some}
        return {
            **self.counts.confusion.overall(),
            "classes": {name: self._of_class(value) for value, name in enumerate(self.names)},
            "confusion": plain(self.counts.confusion.counts),
            "boundary": {"distance": boundary.distance, "mean_iou": plain(boundary.mean_iou)},
            **({"intervals": self.intervals.as_dict()} if self.intervals else {}),
            **({"thresholds": curves.of(one).as_dict()} if curves and one is not None else {}),
            **({"calibration": calibration} if calibration else {}),
        }

    def _of_class(self, value: int) -> dict[str, Any]:
        made = self.counts.confusion.of_class(value)
        made["boundary_iou"] = plain(self.counts.boundary.iou[value])
        if self.intervals:
            made["intervals"] = self.intervals.of_class(value)
        if value == self.background:
            return made
        if self.objects:
            made["objects"] = self.objects.of_class(value)
        if self.counts.thresholds and self.foreground is None:  # of two classes they stand above
            made["thresholds"] = self.counts.thresholds.of(value).as_dict()
        return made
