"""The rules by which a map is cleaned: settings with class values instead of names. Facts only."""

from dataclasses import dataclass
from typing import Literal

from .sizes import Size

Shape = Literal["disk", "square"]
Operation = Literal["erosion", "dilation", "opening", "closing"]
Connectivity = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings for the classes of one store, by value instead of by name. Small enough to send with each task.

    Parameters
    ----------
    num_classes
        Classes of the store; their values are 0 to one less.
    kept
        Class values of the probability's layers, in their order; empty where none are read.
    thresholds, low
        By class value; the first counts for nothing. None: not asked for.
    minimum, majority
        See `pipeline.postprocess.options.CleanOptions`.
    operations
        Name and radius of each morphological operation, in order.
    footprint, connectivity
        See `pipeline.postprocess.options.CleanOptions`.
    classes
        Values to which morphology and removal apply, ascending; never 0.
    min_object, min_hole
        None: nothing is removed, or filled.
    surrounding
        Whether removed objects become the class around them; else background.
    """

    num_classes: int
    kept: tuple[int, ...]
    thresholds: tuple[float, ...] | None
    low: tuple[float, ...] | None
    minimum: float | None
    majority: int | None
    operations: tuple[tuple[Operation, int], ...]
    footprint: Shape
    classes: tuple[int, ...]
    min_object: Size | None
    min_hole: Size | None
    connectivity: Connectivity
    surrounding: bool

    @property
    def hysteresis(self) -> bool:
        """Whether the start map needs components of the whole scene."""
        return self.low is not None
