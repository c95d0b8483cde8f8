"""Object matching: predicted objects against true ones, and their scores. Memory grows with objects, not pixels.

From Kirillov et al. 2019, Panoptic Segmentation (arXiv:1801.00868): a predicted object and a true one of the same class
match where their IoU is above 0.5. No object has two matches: were a matched to b and to c, which do not overlap, more
than half of a's pixels would lie in b, and more than half in c, since |a ∩ b| > |a ∪ b| / 2 >= |a| / 2. So nothing need
be chosen.

Pixels that do not count are taken away from predicted objects before areas are compared; a predicted object that
matches nothing and of which more than half does not count is no false alarm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.schema import IGNORE
from .confusion import Counts, Floats, Indices, Ints, Values, plain, ratio, strips

UNIT = 1 << 30  # sums of IoUs are of whole numbers of 1/UNIT, so that no order of adding changes them
NOTHING = 0  # id of a pixel of no object
IGNORED = -1  # true id of a pixel that does not count

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Pixels that objects share, in rows sorted by ids. Two of them add up, in any order, to those of both areas.

    Parameters
    ----------
    predicted, truth
        int64 `(row,)`: ids of objects; 0 for none, -1 for pixels that do not count. No row is without an object.
    predicted_class, truth_class
        uint8 `(row,)`: their classes; 0 for none, 255 for pixels that do not count.
    pixels
        int64 `(row,)`.
    """

    predicted: Ids
    truth: Ids
    predicted_class: Values
    truth_class: Values
    pixels: Ints

    def __add__(self, other: Self) -> "Overlaps":
        return merged([self, other])

    def __len__(self) -> int:
        return len(self.pixels)


def overlaps(predicted_ids: Ids, truth_ids: Ids, class_map: Values, labels: Values) -> Overlaps:
    """Count the pixels that objects share in a block.

    Parameters
    ----------
    predicted_ids, truth_ids
        int64 `(y, x)`: ids of a scene's objects of class map and labels, the same in all its blocks; 0 = none.
    class_map, labels
        uint8 `(y, x)`; where either is 255 a pixel does not count.
    """
    return merged(_overlaps(*some) for some in strips(predicted_ids, truth_ids, class_map, labels))


def _overlaps(predicted: Ids, truth: Ids, class_map: Values, labels: Values) -> Overlaps:
    ignored = (class_map == IGNORE) | (labels == IGNORE)
    predicted, truth = predicted.ravel(), np.where(ignored, IGNORED, truth).ravel()
    starts = _changes(predicted, truth)  # stretches of equal pixels are few: only their starts are looked at
    lengths = np.diff(starts, append=predicted.size)
    kept = (predicted[starts] > NOTHING) | (truth[starts] > NOTHING)
    starts, lengths = starts[kept], lengths[kept]
    values = class_map.ravel()[starts], labels.ravel()[starts]
    return merged([Overlaps(predicted[starts], truth[starts], *values, lengths.astype(np.int64))])


def merged(parts: Iterable[Overlaps]) -> Overlaps:
    """Add up the overlaps of many areas of one scene at once: added one by one, all are sorted each time."""
    every = list(parts)
    names = ("predicted", "truth", "predicted_class", "truth_class", "pixels")
    types = (np.int64, np.int64, np.uint8, np.uint8, np.int64)
    columns = [np.concatenate([np.empty(0, kind), *(getattr(part, name) for part in every)])
               for name, kind in zip(names, types, strict=True)]  # fmt: skip
    order = np.lexsort((columns[1], columns[0]))
    predicted, truth, predicted_class, truth_class, pixels = (column[order] for column in columns)
    starts = _changes(predicted, truth)
    pixels = np.add.reduceat(pixels, starts) if len(starts) else pixels
    return Overlaps(predicted[starts], truth[starts], predicted_class[starts], truth_class[starts], pixels)


def _changes(predicted: Ids, truth: Ids) -> Indices:
    """Return the places at which either id is not the one before; the first place is one."""
    changed = (np.diff(predicted) != 0) | (np.diff(truth) != 0)
    return np.flatnonzero(np.concatenate([np.ones(predicted[:1].size, bool), changed]))


@dataclass(frozen=True, slots=True, eq=False)
class ObjectCounts(Counts):
    """Objects found and missed, by class.

    Parameters
    ----------
    matched, predicted, truth
        int64 `(class,)`: matches, and objects in the class map and in the labels. The background has none.
    overlap
        int64 `(class,)`: sum of the IoUs of matches, in 2^-30.
    """

    matched: Ints
    predicted: Ints
    truth: Ints
    overlap: Ints

    @classmethod
    def none(cls, classes: int) -> Self:
        """Return those of no objects."""
        return cls(*(np.zeros(classes, np.int64) for _ in range(4)))

    @property
    def precision(self) -> Floats:
        """Share of predicted objects that match a true one, `(class,)`."""
        return np.asarray(ratio(self.matched, self.predicted))

    @property
    def recall(self) -> Floats:
        """Share of true objects that match a predicted one, `(class,)`."""
        return np.asarray(ratio(self.matched, self.truth))

    @property
    def f1(self) -> Floats:
        """Harmonic mean of both, `(class,)`: the recognition quality of Kirillov et al."""
        return np.asarray(ratio(2 * self.matched, self.predicted + self.truth))

    @property
    def iou(self) -> Floats:
        """Mean IoU of matches, `(class,)`: the segmentation quality of Kirillov et al."""
        return np.asarray(ratio(self.overlap / UNIT, self.matched))

    @property
    def quality(self) -> Floats:
        """Panoptic quality, `(class,)`: `f1` times `iou`, and 0 where nothing matches."""
        return np.asarray(ratio(2 * self.overlap / UNIT, self.predicted + self.truth))

    def of_class(self, value: int) -> dict[str, Any]:
        """Return a class's counts and scores, for JSON."""
        names = ("precision", "recall", "f1", "iou", "quality", "matched", "predicted", "truth")
        return {name: plain(getattr(self, name)[value]) for name in names}


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Which objects of a scene match.

    Parameters
    ----------
    predicted, truth, iou
        int64, int64, float64 `(match,)`: ids, and how well they match.
    missed, false_alarms
        int64: ids of true objects and of predicted ones that match none.
    counts
        How many.
    """

    predicted: Ids
    truth: Ids
    iou: Floats
    missed: Ids
    false_alarms: Ids
    counts: ObjectCounts


@dataclass(frozen=True, slots=True)
class _Objects:
    """Objects of one side, sorted by id: class, and pixels that count and that do not."""

    ids: Ids
    value: Values
    counted: Ints
    ignored: Ints

    @classmethod
    def of(cls, ids: Ids, value: Values, rows: Overlaps) -> "_Objects":
        real = ids > NOTHING
        counted = (rows.truth != IGNORED)[real]
        known, first, which = np.unique(ids[real], return_index=True, return_inverse=True)
        pixels = rows.pixels[real]
        areas = (np.bincount(which, pixels * part, len(known)).astype(np.int64) for part in (counted, ~counted))
        return cls(known, value[real][first], *areas)


def match(rows: Overlaps, classes: int) -> Matches:
    """Match the objects of a scene.

    Parameters
    ----------
    rows
        Overlaps of all of it.
    classes
        How many there are.
    """
    predicted = _Objects.of(rows.predicted, rows.predicted_class, rows)
    truth = _Objects.of(rows.truth, rows.truth_class, rows)
    pair = (rows.predicted > NOTHING) & (rows.truth > NOTHING) & (rows.predicted_class == rows.truth_class)
    found, there, shared = rows.predicted[pair], rows.truth[pair], rows.pixels[pair]
    union = predicted.counted[np.searchsorted(predicted.ids, found)] - shared
    union += truth.counted[np.searchsorted(truth.ids, there)]
    matching = 2 * shared > union
    found, there, overlap = found[matching], there[matching], shared[matching] / union[matching]
    alarm = ~np.isin(predicted.ids, found) & (predicted.counted >= predicted.ignored)
    missed, value = ~np.isin(truth.ids, there), rows.truth_class[pair][matching]
    sides = value, predicted.value[alarm], truth.value[missed]
    number, false, lost = (np.bincount(values, minlength=classes) for values in sides)
    total = np.bincount(value, np.rint(overlap * UNIT), classes).astype(np.int64)
    counts = ObjectCounts(number, number + false, number + lost, total)
    return Matches(found, there, overlap, truth.ids[missed], predicted.ids[alarm], counts)
