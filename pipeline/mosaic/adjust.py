"""How the raw values of one scene become those of the mosaic: a gain and an offset, or a curve, for each band."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io.resample import as_type
from ..io.source import Pixels, missing_samples

TABLE_BYTES = 2  # integers of up to so many are looked up, value by value


@dataclass(frozen=True, slots=True)
class Linear:
    """Value * gain + offset."""

    gain: float = 1.0
    offset: float = 0.0

    def of(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return what values become; of any shape."""
        return np.asarray(values * self.gain + self.offset, np.float64)


@dataclass(frozen=True, slots=True)
class Curve:
    """Straight lines between points; beyond the first and the last, values are shifted as these are.

    Parameters
    ----------
    values
        Ascending, each once.
    become
        What each becomes; never descending.
    """

    values: tuple[float, ...]
    become: tuple[float, ...]

    def of(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return what values become; of any shape."""
        beyond = np.minimum(values - self.values[0], 0) + np.maximum(values - self.values[-1], 0)
        return np.asarray(np.interp(values, self.values, self.become) + beyond, np.float64)


Adjustment = tuple[Linear | Curve, ...]  # by band
UNCHANGED = Linear()


def adjust(pixels: Pixels, adjustment: Adjustment, nodata: tuple[float | None, ...]) -> Pixels:
    """Return pixels with each band adjusted, in its own type: rounded and clipped to it, missing samples as they were.

    A value that would become the nodata value becomes the next one to it.

    Parameters
    ----------
    pixels
        Of one scene, `(band, y, x)`.
    adjustment
        By band.
    nodata
        By band.
    """
    if all(by == UNCHANGED for by in adjustment):
        return pixels
    data = np.stack([_adjusted(*of) for of in zip(pixels.data, adjustment, nodata, strict=True)])
    return Pixels(data, pixels.valid, fresh=True)


def _adjusted(band: NDArray[Any], by: Linear | Curve, sentinel: float | None) -> NDArray[Any]:
    if by == UNCHANGED:
        return band
    if band.dtype.kind in "iu" and band.dtype.itemsize <= TABLE_BYTES:
        return np.asarray(_table(by, band.dtype, sentinel)[band.astype(np.int32) - np.iinfo(band.dtype).min])
    return _computed(band, by, sentinel)


@lru_cache(maxsize=64)
def _table(by: Linear | Curve, dtype: np.dtype[Any], sentinel: float | None) -> NDArray[Any]:
    """Return what each value of a type becomes, from its smallest."""
    info = np.iinfo(dtype)
    return _computed(np.arange(info.min, info.max + 1).astype(dtype), by, sentinel)


def _computed(values: NDArray[Any], by: Linear | Curve, sentinel: float | None) -> NDArray[Any]:
    missing = missing_samples(values, sentinel)
    kept = values if missing is None else np.where(missing, 0, values)
    made = as_type(by.of(kept.astype(np.float64)), values.dtype, sentinel)
    return made if missing is None else np.where(missing, values, made)
