"""Boundary IoU: how well the contours of classes lie. Numbers only.

From Cheng et al. 2021, Boundary IoU (arXiv:2103.16562): of truth and prediction only those pixels count that lie within
a distance of a class's contour, inside it. As in the authors' code, distances are those of a square (the greater of
rows and columns), and what lies beyond the image is background, so that its edge is a contour of all that touches it.
Their distance is 2 % of an image's diagonal; scenes have any size, so that here it is given in pixels.

Pixels that do not count, for want of a label or of a prediction, are taken to be of whatever class lies beside them:
where they begin no contour was seen.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.schema import IGNORE
from .confusion import Floats, Ints, Values, count, mean, ratio

DISTANCE = 2
_OUTSIDE = 255  # no class has this value

Core = tuple[slice, slice]


@dataclass(frozen=True, slots=True, eq=False)
class Boundary:
    """Pixels near contours by class. Two of them add up, in any order, to that of both areas.

    Parameters
    ----------
    distance
        How far in pixels a contour's band reaches into the class.
    both
        int64 `(class,)`: pixels in the band of truth and in that of prediction.
    truth, predicted
        int64 `(class,)`: pixels in either.
    """

    distance: int
    both: Ints
    truth: Ints
    predicted: Ints

    @classmethod
    def none(cls, distance: int, classes: int) -> Self:
        """Return that of no pixels."""
        return cls(distance, *(np.zeros(classes, np.int64) for _ in range(3)))

    def __add__(self, other: Self) -> Self:
        if (self.distance, len(self.both)) != (other.distance, len(other.both)):
            raise ValueError("boundaries of different distances or classes do not add up")
        both, truth, predicted = self.both + other.both, self.truth + other.truth, self.predicted + other.predicted
        return type(self)(self.distance, both, truth, predicted)

    @property
    def iou(self) -> Floats:
        """Boundary IoU of each class, `(class,)`."""
        return np.asarray(ratio(self.both, self.truth + self.predicted - self.both))

    @property
    def mean_iou(self) -> float:
        """Mean of `iou` over the classes that occur."""
        return float(mean(self.iou))


def count_boundary(class_map: Values, labels: Values, core: Core, distance: int, classes: int) -> Boundary:
    """Count the pixels of a block that lie near contours. Blocks add up to exactly what the whole scene gives.

    Parameters
    ----------
    class_map, labels
        `(y, x)` of the block and `distance` pixels more on each side, or as far as the scene reaches; 255 = does not
        count. Values below `classes`, as `confusion.confusion` makes sure.
    core
        Rows and columns of the block in them.
    distance
        In pixels, from 1.
    classes
        How many there are.
    """
    if distance < 1 or class_map.shape != labels.shape:
        raise ValueError(f"distance {distance} is not from 1, or {class_map.shape} is not {labels.shape}")
    unseen = (class_map == IGNORE) | (labels == IGNORE)
    near = [_near(values, unseen, distance)[core] & ~unseen[core] for values in (labels, class_map)]
    truth, predicted = labels[core], class_map[core]
    both = near[0] & near[1] & (truth == predicted)
    pairs = ((truth, both), (truth, near[0]), (predicted, near[1]))
    return Boundary(distance, *(count(values[where].astype(np.intp), classes) for values, where in pairs))


def _near(values: Values, unseen: NDArray[np.bool_], distance: int) -> NDArray[Any]:
    """Say which pixels have another class, or the scene's edge, within a distance.

    One look at the lowest and at the highest class around serves all classes. Pixels unseen must win neither.
    """
    from scipy import ndimage

    size = 2 * distance + 1
    lowest = ndimage.minimum_filter(np.where(unseen, np.uint8(255), values), size, mode="constant", cval=_OUTSIDE)
    highest = ndimage.maximum_filter(np.where(unseen, np.uint8(0), values), size, mode="constant", cval=_OUTSIDE)
    return np.asarray((lowest != values) | (highest != values))
