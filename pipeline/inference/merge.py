"""The answers of a network to several scenes merged, pixel by pixel: scenes come one after the other, in one order."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA, Encoding, classify, encode

from ..grid.block_result import BlockResult, empty_result
from ..grid.geobox import Window

Merge = Literal["inner", "mean", "max", "feather"]


class Merged:
    """What several scenes say of a window.

    Where one scene alone says something, or all say the same, that is what is kept, bit by bit: sums are float64, and
    weights so short that a product with a float32 is exact.

    Parameters
    ----------
    how
        `inner`: the answer with the largest weight, of equals the first. `mean`. `feather`: weighted.
        `max`: of each class, divided by their sum where they are of several scenes.
    classes, shape
        Number of classes; rows and columns of the window.
    inside
        Which pixels of the window count, bool `(y, x)`; None: all.
    """

    def __init__(
        self, how: Merge, classes: int, shape: tuple[int, int], inside: NDArray[np.bool_] | None = None
    ) -> None:
        self.how, self.inside = how, inside
        kind = np.float64 if how in ("mean", "feather") else np.float32
        self.probability: NDArray[Any] = np.zeros((classes, *shape), kind)
        self.weight: NDArray[Any] = np.zeros(shape, np.int64 if how == "inner" else kind)  # 0: nothing was observed
        self.mixed = np.zeros(shape if how == "max" else (0, 0), bool)
        self.nonfinite = 0  # pixels of scenes whose answer was left out, since it is no number

    def wanted(self, place: Window, weight: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pixels of a part of the window an answer of such weights may change, bool `(y, x)`."""
        found = weight > (self.weight[place.slices] if self.how == "inner" else 0)
        return found if self.inside is None else found & self.inside[place.slices]

    @property
    def any_wanted(self) -> bool:
        """Whether any pixel counts."""
        return self.inside is None or bool(self.inside.any())

    def add(self, place: Window, probability: NDArray[np.float32], weight: NDArray[Any]) -> None:
        """Add a scene's answer.

        Parameters
        ----------
        place
            The part of the window that it is of.
        probability
            `(class, y, x)`; anything where the weight is 0.
        weight
            Whole numbers `(y, x)`, up to 2^29 for `feather`; 0 where nothing was observed.
        """
        there = self.wanted(place, weight)
        kept, total_weight = self.probability[:, *place.slices], self.weight[place.slices]
        if self.how == "inner":
            np.copyto(kept, probability, where=there)
            np.copyto(total_weight, weight, where=there)
        elif self.how == "max":
            self._take_largest(place, probability, there)
        else:
            share = (weight * there if self.how == "feather" else there).astype(np.float64)
            for total, values in zip(kept, probability, strict=True):
                np.add(total, values * share, out=total, where=there)
            total_weight += share

    def _take_largest(self, place: Window, probability: NDArray[np.float32], there: NDArray[np.bool_]) -> None:
        kept, weight = self.probability[:, *place.slices], self.weight[place.slices]
        before, larger, smaller = weight > 0, np.zeros(there.shape, bool), np.zeros(there.shape, bool)
        for largest, values in zip(kept, probability, strict=True):
            larger |= values > largest
            smaller |= values < largest
            np.maximum(largest, values, out=largest, where=there)
        mixed = self.mixed[place.slices]
        np.copyto(mixed, smaller & before, where=there & larger)
        weight[there] = 1

    def encoded(self, encoding: Encoding) -> BlockResult:
        """Return what is kept of it; nodata where nothing was observed."""
        result, missing, probability = empty_result(self.weight.shape, encoding), self.weight == 0, self._merged()
        np.copyto(result.class_map, classify(probability, encoding.thresholds), where=~missing)
        result = replace(result, nonfinite=self.nonfinite)
        if result.probability is None:
            return result
        for target, value in zip(result.probability, encoding.kept, strict=True):
            target[...] = encode(probability[value], target.dtype)
            target[missing] = np.nan if target.dtype.kind == "f" else NODATA
        return result

    def _merged(self) -> NDArray[np.float32]:
        if self.how == "inner":
            return self.probability
        if self.how == "max":
            total = self.probability.sum(axis=0, dtype=np.float64)
            for values in self.probability:
                np.divide(values, total, out=values, where=self.mixed, casting="same_kind")
            return self.probability
        merged, weight = np.empty(self.probability.shape, np.float32), np.maximum(self.weight, 1)
        for target, total in zip(merged, self.probability, strict=True):
            target[...] = total / weight
        return merged
