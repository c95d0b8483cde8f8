"""Answers of a network that are no numbers: where they are, and what becomes of these pixels.

A sample may be so large that a network overflows. What comes of it is no matter of looking at the answer: activations
of OpenVINO, and ranges of int8, make numbers of NaN. So such a sample never enters the network. Its band's mean stands
in, as for a missing one, and all pixels that would have seen it have no answer: the same ones in every engine, however
the scene is cut. What else is not finite, the engines say themselves (`models.engine`).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA
from models.errors import EngineError, SceneError
from models.metadata import BundleMetadata

from ..grid.geobox import GeoBox, Window
from ..grid.tiling import TilingPlan, reflected

OnNonfinite = Literal["fail", "nodata"]
LARGEST = 2.0**64  # of a scaled sample: squares of more, of which normalisations make means, are no float32
ADVICE = "mask it as nodata in the scene, or make such pixels nodata with --on-nonfinite nodata"


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Samples of a tile that no network takes.

    Parameters
    ----------
    mask
        Which pixels of the tile, halo and all, have one, bool `(y, x)`.
    band, value
        Of the first of them.
    """

    mask: NDArray[np.bool_]
    band: str
    value: float

    def reach(self, radius: int | None) -> NDArray[np.bool_]:
        """Return which pixels of the tile see one, bool `(y, x)`; a radius of None sees everything."""
        from scipy.ndimage import maximum_filter1d

        if radius is None:
            return np.ones(self.mask.shape, bool)
        seen = self.mask.astype(np.uint8)
        for axis in (0, 1):
            seen = maximum_filter1d(seen, 2 * radius + 1, axis, mode="constant")
        return np.asarray(seen != 0)

    def describe(self, tile: Window, plan: TilingPlan, geobox: GeoBox) -> str:
        """Say which the first one is, and where it lies in the scene; `tile` is the mask's window."""
        rows = reflected(tile.top, tile.bottom, plan.height)
        columns = reflected(tile.left, tile.right, plan.width)
        row, column = np.argwhere(self.mask)[0].tolist()
        where = place_of(int(rows[row]), int(columns[column]), geobox)
        return f"band {self.band} holds {self.value:g} at {where}, more than a network can take"


def take_out(
    filled: NDArray[Any], metadata: BundleMetadata, *, fresh: bool = False
) -> tuple[NDArray[Any], TooLarge | None]:
    """Put each band's mean where a sample is too large for any network.

    Parameters
    ----------
    filled
        Raw pixels `(band, y, x)` without missing samples.
    metadata
        Of the bundle: bands and scaling.
    fresh
        Whether the pixels may be changed themselves.

    Returns
    -------
    numpy.ndarray, TooLarge
        The pixels; None: there was nothing to take out.
    """
    if filled.dtype.kind != "f":
        return filled, None
    found: TooLarge | None = None
    scaling = metadata.scaling
    for place, (offset, divisor) in enumerate(zip(scaling.offset, scaling.divisor, strict=True)):
        low, high = _limits(offset, divisor)
        if low < float(filled[place].min()) and float(filled[place].max()) < high:
            continue
        wide = filled[place].astype(np.float64)
        mask = (wide <= low) | (wide >= high)
        if not fresh:
            filled, fresh = filled.copy(), True
        filled[place][mask] = metadata.bands[place].mean
        if found is None:
            found = TooLarge(mask, metadata.bands[place].name, float(wide[mask][0]))
        else:
            found.mask[mask] = True
    return filled, found


def _limits(offset: float, divisor: float) -> tuple[float, float]:
    """Return the raw values at which a band's samples begin to be too large."""
    reach, most = LARGEST * abs(divisor), float(np.finfo(np.float32).max)
    return max(offset - reach, -most), min(offset + reach, most)


@dataclass
class Nonfinite:
    """What of a window has no answer that is a number.

    Parameters
    ----------
    pixels
        How many observed pixels.
    said
        Where the first of them is, and why, if that is known.
    """

    pixels: int = 0
    said: str = field(default="")
    of_scene: bool = False

    def note(self, lacking: NDArray[np.bool_], cut: Window, geobox: GeoBox, cause: str) -> None:
        """Take note of pixels of a part of the scene; `cause` says which sample is to blame, if one is."""
        self.pixels += int(np.count_nonzero(lacking))
        if cause and not self.of_scene:
            self.said, self.of_scene = cause, True
        if not self.said:
            row, column = np.argwhere(lacking)[0].tolist()
            self.said = f"the network's answer is no number at {place_of(cut.top + row, cut.left + column, geobox)}"

    def settle(self, how: OnNonfinite) -> None:
        """Let a block fail that has such pixels, if it is to.

        Raises
        ------
        SceneError
            A sample is too large.
        EngineError
            The network's answer is not finite, for no reason that is seen in the scene.
        """
        if not self.pixels or how == "nodata":
            return
        many = f"{self.pixels:,} pixel{'s' * (self.pixels != 1)} of the block {'have' if self.pixels != 1 else 'has'}"
        raise (SceneError if self.of_scene else EngineError)(f"{self.said}; {many} no class for it: {ADVICE}")


def place_of(row: int, column: int, geobox: GeoBox) -> str:
    """Say where a pixel lies, in pixels and, if the scene has a position, in its coordinates."""
    said = f"row {row:,}, column {column:,}"
    if geobox.transform is None:
        return said
    x, y = geobox.to_map(column + 0.5, row + 0.5)
    return f"{said} (x {x:.10g}, y {y:.10g})"


def lacking_of(class_map: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return which observed pixels of an engine's class map have no class; None: all have one."""
    if class_map.max(initial=0) != NODATA:
        return None
    lacking: NDArray[np.bool_] = (class_map == NODATA) & valid
    return lacking if lacking.any() else None
