"""How class maps and probabilities are encoded: nodata, steps of 1/250, classes by threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, PlanError
from .metadata import check_thresholds

NODATA = 255  # in class maps, and in probabilities kept as uint8
STEPS = 250  # a uint8 probability counts 1/250, so that 0.5, 0.7 and every multiple of 0.004 are exact
# what readers multiply by: float32's number next below 1/250, so that no product, in float32 or in float64, is above
# the step that it stands for, and `probability > 0.7` leaves 175 out, as we do (175 * 0.004 is 0.7000000000000001)
SCALE = float(np.nextafter(np.float32(1 / STEPS), np.float32(0)))
ProbabilityType = Literal["uint8", "float16", "float32"]
ClassMap = NDArray[np.uint8]
Thresholds = float | Mapping[str, float]  # one for all classes but the background, or one for each by name
Decision = tuple[float | None, ...]  # thresholds by class value, None for the background


@dataclass(frozen=True, slots=True)
class Encoding:
    """What is kept of a network's output.

    Parameters
    ----------
    thresholds
        By class value, None for the background: the class map takes the likeliest class but the background, where its
        probability is above its threshold; else the background. None: the likeliest class.
    probability
        Type in which probabilities are kept; None: they are not.
    kept
        The classes, by value, whose probabilities are kept.
    objects
        Whether the ids of objects are kept, as `label_objects` gives them.
    """

    thresholds: Decision | None = None
    probability: ProbabilityType | None = None
    kept: tuple[int, ...] = ()
    objects: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values: one `threshold` where the first class is the background and all others have one."""
        values = {"probability": self.probability, "kept": list(self.kept), "objects": self.objects}
        first, *others = self.thresholds or (None, None)
        if first is None and len(set(others)) == 1:
            return {"threshold": others[0], **values}
        return {"thresholds": list(self.thresholds or ()), **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], classes: int) -> "Encoding":
        """Read what `to_json` gives for so many classes."""
        thresholds, one = values.get("thresholds"), values.get("threshold")
        if one is not None:
            thresholds = [None, *[one] * (classes - 1)]
        by_class = None if thresholds is None else tuple(thresholds)
        return cls(by_class, values["probability"], tuple(values["kept"]), values.get("objects", False))


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is kept of the network's answer to tiles, as an `Encoding` says.

    Class maps uint8 `(n, y, x)`; probabilities `(n, class, y, x)` of the classes that are kept, in the type in which
    they are, None where they are not. The class map is nodata where the network's answer is no number, and there alone;
    probabilities are anything there.
    """

    class_map: NDArray[np.uint8]
    probability: NDArray[Any] | None


def check_probability(name: str, given: Thresholds | None, *, otherwise: str = "") -> None:
    """Refuse what is no probability, alone or by class; `otherwise` says what else there may be. Raises PlanError."""
    numbers: list[Any] = list(given.values()) if isinstance(given, Mapping) else [] if given is None else [given]
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise PlanError(f"{name} is a probability from 0 to 1{otherwise}; received {value!r}")


def decision(given: Thresholds, class_names: Sequence[str], background: int | None) -> Decision:
    """Return thresholds by class value, None for the background.

    Parameters
    ----------
    given
        One for all classes but the background, or one for each of them by name.
    class_names, background
        Names by value; the value of the background, None where there is none.

    Raises
    ------
    PlanError
        There is no background; a class has no threshold, or there is none such; a threshold is not from 0 to 1.
    """
    foreground = [name for value, name in enumerate(class_names) if value != background]
    named = given if isinstance(given, Mapping) else dict.fromkeys(foreground, given)
    try:
        check_thresholds(named, class_names, background)
    except BundleError as error:
        raise PlanError(str(error)) from None
    return tuple(None if value == background else float(named[name]) for value, name in enumerate(class_names))


def describe_decision(thresholds: Decision | None, class_names: Sequence[str]) -> str:
    """Say in words how the class of a pixel is decided, as "building above 0.25, else background"."""
    if thresholds is None:
        return "the likeliest class"
    pairs = list(zip(class_names, thresholds, strict=True))
    above = ", ".join(f"{name} above {bound:g}" for name, bound in pairs if bound is not None)
    return f"{above}, else {next(name for name, bound in pairs if bound is None)}"


def classify(probabilities: NDArray[np.float32], thresholds: Decision | None = None) -> NDArray[np.uint8]:
    """Return the class map uint8 `(y, x)` of probabilities `(class, y, x)`, as `Encoding` says. Ties: the lower."""
    background = -1 if thresholds is None else thresholds.index(None)
    first, *others = (value for value in range(len(probabilities)) if value != background)
    best = probabilities[first]
    classes = np.full(best.shape, first, np.uint8)
    for value in others:
        np.putmask(classes, probabilities[value] > best, value)
        best = np.maximum(best, probabilities[value])
    if thresholds is not None:
        bounds = np.array([np.inf if bound is None else bound for bound in thresholds], np.float32)
        np.putmask(classes, ~(best > (bounds[classes] if others else bounds[first])), background)
    return classes


def encode(probability: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a probability as it is kept: in steps of 1/250 for uint8, rounded half up; else as a shorter float."""
    if dtype == np.uint8:
        return (probability * np.float32(STEPS) + np.float32(0.5)).astype(np.uint8)
    return probability.astype(dtype, copy=False)


def decode(kept: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities float32 of what is kept, NaN = nodata; of steps the greatest numbers not above them."""
    return _DECODED[kept] if kept.dtype == np.uint8 else kept.astype(np.float32, copy=False)


def _decoded() -> NDArray[np.float32]:
    exact = np.arange(NODATA + 1) / STEPS
    steps = exact.astype(np.float32)
    np.copyto(steps, np.nextafter(steps, np.float32(0)), where=steps > exact)
    steps[NODATA] = np.nan
    return steps


_DECODED = _decoded()
