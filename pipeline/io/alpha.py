"""Which bands that are tagged as alpha are masks, by a bounded look at their values.

GDAL tags the fourth of four 8-bit bands so, also where it is near infrared. Alpha takes two values, 0 and the largest,
and others only at edges: where it was resampled, or where it fades. The look is the same each time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader
from scipy.ndimage import maximum_filter, minimum_filter

from models.errors import SceneError

from ..grid.geobox import Window

WHOLE = 1024  # a raster, or an overview of it, of at most so many pixels per side is looked at whole
LOOKS, SIDE, STRIPE = 4, 256, 16  # else so many windows down and across, of so many pixels; of strips fewer rows
OPAQUE_SHARE = 0.2  # of what is not 0, so much at least is the largest value
EXPLAINED_SHARE = 0.9  # of the values between, so much at least lies at edges or in ramps
REACH = 8  # pixels at an edge to what is 0 and to what is opaque
BEND = 2 / 255  # of the largest value: how much a ramp may bend from a pixel to the next


EMPTY = "0 wherever it was looked at, where other bands are not"
NO_MASK = "its values are not those of a mask"


@dataclass(frozen=True, slots=True)
class AlphaBands:
    """Numbers of the bands that are masks, and of those that are tagged so and are none, with the reason."""

    masks: tuple[int, ...] = ()
    refuted: Mapping[int, str] = field(default_factory=dict)

    def notes(self, names: Mapping[int, str]) -> list[str]:
        """Say what was decided of each, and what decides otherwise; `names` are those of bands by number."""
        taken = "is alpha, 0 where nothing was observed; --alpha no reads it as a band"
        return [f"band {index} {taken}" for index in self.masks] + [
            f"band {index} is tagged as alpha, but {why}: it is the band {names[index]}; --alpha yes makes it the mask"
            for index, why in self.refuted.items()
        ]


def alpha_bands(dataset: DatasetReader, wish: bool | None) -> AlphaBands:
    """Tell masks from other bands among those tagged as alpha; call it within `run_with_env`.

    Parameters
    ----------
    dataset
        An open raster.
    wish
        True: all bands tagged as alpha are masks; False: none. None: those whose values look like a mask.

    Raises
    ------
    SceneError
        All bands are tagged so, and masks are wished for.
    """
    colors = zip(dataset.indexes, dataset.colorinterp, strict=True)
    tagged = [index for index, color in colors if color == ColorInterp.alpha]
    others = [index for index in dataset.indexes if index not in tagged]
    if wish and len(tagged) > 1 and not others:
        raise SceneError(f"{dataset.name}: all bands are tagged as alpha; take them as bands, with --alpha no")
    if wish is not None:
        return AlphaBands(tuple(tagged) if wish and others else ())
    reasons = {index: _why_no_mask(dataset, index, others) for index in tagged}
    masks = tuple(index for index in tagged if not reasons[index])
    return AlphaBands(masks, {index: reason for index, reason in reasons.items() if reason})


def _why_no_mask(dataset: DatasetReader, index: int, others: Sequence[int]) -> str:
    """Return why a band is no mask; empty: it looks like one."""
    if not others:
        return "there is no other band"
    looks = list(_look(dataset, [index]))
    if not any((look != 0).any() for look in looks):
        if any(look.any() for look in _look(dataset, others)):
            return EMPTY
        return ""
    bits = int(dataset.tags(index, ns="IMAGE_STRUCTURE").get("NBITS", 0))
    return "" if looks_like_mask([look[0] for look in looks], bits) else NO_MASK


def _look(dataset: DatasetReader, indexes: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Read bands whole, or an overview of them, or windows spread over them."""
    height, width = dataset.shape
    factors = [1, *sorted(dataset.overviews(indexes[0]))]
    factor = next((factor for factor in factors if max(height, width) <= WHOLE * factor), None)
    if factor is not None:
        shape = (-(-height // factor), -(-width // factor))
        yield dataset.read(indexes, out_shape=(len(indexes), *shape))
        return
    striped = dataset.block_shapes[indexes[0] - 1][1] > SIDE * LOOKS  # a window of a strip costs the whole strip
    tall, wide = min(height, STRIPE if striped else SIDE), min(width, SIDE)
    for row, column in product(range(LOOKS), repeat=2):
        top, left = (height - tall) * row // (LOOKS - 1), (width - wide) * column // (LOOKS - 1)
        yield dataset.read(indexes, window=Window(top, top + tall, left, left + wide).to_rasterio())


def looks_like_mask(looks: Sequence[NDArray[Any]], bits: int = 0) -> bool:
    """Whether parts `(y, x)` of a band look like alpha.

    It is 0 and one opaque value, that is 1, 255 or the largest of its type; or opaque alone. Values between lie at
    edges, or in ramps, in which they hardly bend.

    Parameters
    ----------
    looks
        Parts of one type.
    bits
        Of the values, where they are fewer than the type's; 0: as many.
    """
    dtype = looks[0].dtype
    largest = {2**bits - 1} if bits else {np.iinfo(dtype).max} if dtype.kind in "iu" else set[int]()
    looks = [np.nan_to_num(look.astype(np.float64)) for look in looks]
    opaque = max(float(look.max()) for look in looks)
    if opaque not in {1, 255} | largest:
        return False
    observed = sum(int((look != 0).sum()) for look in looks)
    between = [(look != 0) & (look != opaque) for look in looks]
    count = sum(int(some.sum()) for some in between)
    if count == 0:
        return True
    if observed - count < OPAQUE_SHARE * observed:
        return False
    pairs = zip(looks, between, strict=True)
    return sum(_explained(look, some, opaque) for look, some in pairs) >= EXPLAINED_SHARE * count


def _explained(look: NDArray[np.float64], between: NDArray[np.bool_], opaque: float) -> int:
    """Count the values between that lie at an edge, or bend little to those beside them."""
    solid = maximum_filter(look, 3) == 0, minimum_filter(look, 3) == opaque  # 3 x 3 pixels alike, so no noise
    clear, full = (maximum_filter(some, 2 * REACH + 1) for some in solid)
    padded = np.pad(look, 1, mode="reflect", reflect_type="odd")  # a ramp goes on beyond the sides
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    smooth = np.abs(4 * look - around) <= 4 * BEND * opaque
    return int((between & ((clear & full) | smooth)).sum())
