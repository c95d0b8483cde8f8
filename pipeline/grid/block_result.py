"""What a block holds: class map, probabilities, ids of objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA, Encoding


@dataclass(frozen=True, slots=True)
class BlockResult:
    """Of a window: class map uint8 `(y, x)`, probabilities `(class, y, x)`, ids of objects int64 `(y, x)`.

    `nonfinite`: how many observed pixels are nodata since the network's answer is no number.
    """

    class_map: NDArray[np.uint8]
    probability: NDArray[Any] | None
    objects: NDArray[np.int64] | None = None
    nonfinite: int = 0


def empty_result(shape: tuple[int, int], encoding: Encoding) -> BlockResult:
    """Return a window in which nothing was observed: nodata in all that is kept."""
    probability = None
    if encoding.probability:
        fill = NODATA if encoding.probability == "uint8" else np.nan
        probability = np.full((len(encoding.kept), *shape), fill, encoding.probability)
    objects = np.zeros(shape, np.int64) if encoding.objects else None
    return BlockResult(np.full(shape, NODATA, np.uint8), probability, objects)
