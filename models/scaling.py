"""How raw pixel values become the network's inputs: one affine step per band. Facts only, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from .errors import BundleError

Kind = Literal["z-score", "min-max", "scale"]
KINDS: tuple[Kind, ...] = ("z-score", "min-max", "scale")


@dataclass(frozen=True, slots=True)
class Scaling:
    """Per-band scaling, with the names that the STAC Machine Learning Model extension gives it.

    Parameters
    ----------
    kind
        `z-score`: (value - mean) / stddev. `min-max`: (value - minimum) / (maximum - minimum). `scale`: value / value0.
    first
        Per band: the mean, the minimum, or nothing that counts (`scale`).
    second
        Per band: the standard deviation, the maximum, or the divisor.
    """

    kind: Kind
    first: tuple[float, ...]
    second: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BundleError(f"unknown scaling {self.kind!r}; known: {', '.join(KINDS)}")
        if len(self.first) != len(self.second):
            raise BundleError(f"scaling has {len(self.first)} and {len(self.second)} numbers; give one per band")
        if not all(isfinite(v) for v in (*self.first, *self.second)) or 0 in self.divisor:
            raise BundleError(f"scaling {self.kind} has a number that is not finite, or divides by zero")

    @property
    def offset(self) -> tuple[float, ...]:
        """Per band: what is subtracted first."""
        return tuple(0.0 for _ in self.first) if self.kind == "scale" else self.first

    @property
    def divisor(self) -> tuple[float, ...]:
        """Per band: what is divided by afterwards."""
        if self.kind == "min-max":
            return tuple(high - low for low, high in zip(self.first, self.second, strict=True))
        return self.second


def z_score(mean: Sequence[float], stddev: Sequence[float]) -> Scaling:
    """Scale by mean and standard deviation, one of each per band."""
    return Scaling("z-score", tuple(mean), tuple(stddev))


def min_max(minimum: Sequence[float], maximum: Sequence[float]) -> Scaling:
    """Scale minimum to 0 and maximum to 1, one of each per band."""
    return Scaling("min-max", tuple(minimum), tuple(maximum))


def divide(value: Sequence[float]) -> Scaling:
    """Divide by a number per band, as 255 or 65535 in many articles."""
    return Scaling("scale", tuple(0.0 for _ in value), tuple(value))
