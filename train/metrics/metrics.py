"""All scores of a scene, or of many: counted block by block, added up, written down. Numbers only.

What each score is, `confusion`, `thresholds`, `boundaries`, `calibration`, `matching` and `bootstrap` say.
"""

from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..data.samples import IGNORE
from .bootstrap import Intervals
from .boundaries import DISTANCE, Boundary, Core, boundary_tally
from .calibration import Reliability, foreground_reliability, top_reliability
from .confusion import Confusion, confusion
from .object_matching import ObjectCounts
from .ratios import plain
from .thresholds import ThresholdCurve, foreground_of, sweep

Part = TypeVar("Part", ThresholdCurve, Reliability)


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What a block counts for the scores. Two of them add up, in any order, to that of both areas.

    Parameters
    ----------
    confusion, boundary
        Of class maps.
    sweep
        Of probabilities: any class but the first against it. None: probabilities were not kept.
    foreground
        Of the second class's probability; None as above, or with more than two classes.
    top
        Of the likeliest class's probability; None as above.
    """

    confusion: Confusion
    boundary: Boundary
    sweep: ThresholdCurve | None = None
    foreground: Reliability | None = None
    top: Reliability | None = None

    def __add__(self, other: Self) -> Self:
        maps = self.confusion + other.confusion, self.boundary + other.boundary
        sweeps = _both(self.sweep, other.sweep)
        return type(self)(*maps, sweeps, _both(self.foreground, other.foreground), _both(self.top, other.top))


def _both(one: Part | None, other: Part | None) -> Part | None:
    if one is None or other is None:
        if one is not other:
            raise ValueError("tallies with probabilities and without do not add up")
        return None
    return one + other


def block_tally(
    class_map: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    core: Core,
    *,
    classes: int,
    probabilities: NDArray[np.float32] | None = None,
    distance: int = DISTANCE,
) -> Tally:
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
    probabilities
        float32 `(class, y, x)` of the block alone; NaN does not count.
    distance
        See `boundaries`.

    Raises
    ------
    TrainingError
        Labels or class map hold a value that is no class.
    """
    maps = confusion(class_map[core], labels[core], classes), boundary_tally(class_map, labels, core, distance, classes)
    if probabilities is None:
        return Tally(*maps)
    truth = np.where(class_map[core] == IGNORE, np.uint8(IGNORE), labels[core])
    foreground = foreground_reliability(probabilities[1], truth) if classes == 2 else None
    return Tally(*maps, sweep(foreground_of(probabilities), truth), foreground, top_reliability(probabilities, truth))


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """All scores together.

    Parameters
    ----------
    names
        Of the classes, by value.
    tally
        Of all blocks.
    objects
        Of all scenes; None: objects were not matched.
    intervals
        None: not asked for.
    """

    names: tuple[str, ...]
    tally: Tally
    objects: ObjectCounts | None = None
    intervals: Intervals | None = None

    def as_dict(self) -> dict[str, Any]:
        """Give all of it for JSON: shares to four digits, None for a share of nothing; counts exactly."""
        boundary = self.tally.boundary
        return {
            **self.tally.confusion.overall(),
            "classes": {name: self._of_class(value) for value, name in enumerate(self.names)},
            "confusion": plain(self.tally.confusion.counts),
            "boundary": {"distance": boundary.distance, "mean_iou": plain(boundary.mean_iou)},
            **self._optional(),
        }

    def _of_class(self, value: int) -> dict[str, Any]:
        made = self.tally.confusion.of_class(value)
        made["boundary_iou"] = plain(self.tally.boundary.iou[value])
        if self.intervals:
            made["intervals"] = self.intervals.of_class(value)
        if self.objects and value:
            made["objects"] = self.objects.of_class(value)
        return made

    def _optional(self) -> dict[str, Any]:
        reliabilities = {"foreground": self.tally.foreground, "top": self.tally.top}
        calibration = {name: some.as_dict() for name, some in reliabilities.items() if some}
        return {
            **({"intervals": self.intervals.as_dict()} if self.intervals else {}),
            **({"thresholds": self.tally.sweep.as_dict()} if self.tally.sweep else {}),
            **({"calibration": calibration} if calibration else {}),
        }
