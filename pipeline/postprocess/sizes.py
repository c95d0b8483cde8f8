"""A size that a person writes, as `200` or `20 m2`: a number of pixels or of square metres. Knows no pixels itself."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from models.errors import PlanError

Unit = Literal["px", "m2"]

SQUARE_METRES = {"m2": 1.0, "m²": 1.0, "ha": 1e4, "km2": 1e6, "km²": 1e6}
PIXELS = ("", "px")
ALLOWED = "pixels as 200 or '200 px', or an area as '20 m2', '1.5 ha' or '2 km2'"


@dataclass(frozen=True, slots=True)
class Size:
    """How large something is.

    Parameters
    ----------
    value
        Not negative, finite.
    unit
        `px`: pixels; `m2`: square metres on the ellipsoid.
    """

    value: float
    unit: Unit = "px"

    def __post_init__(self) -> None:
        if not isfinite(self.value) or self.value < 0:
            raise PlanError(f"a size must not be negative and must be finite; received {self.value}. Give {ALLOWED}")

    def __str__(self) -> str:
        return f"{self.value:.15g} {'px' if self.unit == 'px' else 'm²'}"


SizeLike = str | float | Size


def parse_size(wish: SizeLike) -> Size:
    """Read a size.

    Parameters
    ----------
    wish
        A number, bare or with `px`: pixels. With `m2`, `m²`, `ha`, `km2` or `km²`: an area. Case and spaces are free.

    Returns
    -------
    Size
        In pixels or square metres.

    Raises
    ------
    PlanError
        It is empty, has no number or another unit, or is negative or not finite.
    """
    if isinstance(wish, Size):
        return wish
    text = str(wish).strip()
    found = re.fullmatch(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|[+-]?inf)\s*(?P<unit>.*)", text, re.I)
    if isinstance(wish, bool) or not found:
        raise PlanError(f"a size is a number with a unit; received {wish!r}. Give {ALLOWED}")
    value, unit = float(found["number"]), found["unit"].lower()
    if unit in PIXELS:
        return Size(value)
    if unit not in SQUARE_METRES:
        raise PlanError(f"a size has no unit {found['unit']!r}; received {wish!r}. Give {ALLOWED}")
    return Size(value * SQUARE_METRES[unit], "m2")
