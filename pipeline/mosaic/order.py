"""The order in which scenes of a mosaic are taken: a total one, the same for every window."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..catalog.index import SceneIndex

Composite = Literal["first", "latest", "least-cloudy", "median", "mean"]
COMPOSITES: tuple[Composite, ...] = get_args(Composite)


def order_of(index: SceneIndex, composite: Composite) -> NDArray[np.intp]:
    """Return the numbers of all scenes in their order; the first is taken before others.

    By priority, the highest first, and then: `latest`, newest first, the least cloudy first of one moment;
    `least-cloudy`, least cloudy first, newest first of as cloudy ones; all others oldest first, the least cloudy first
    of one moment. What is not known comes last, and names decide at the end.
    """
    moments, clouds = index.datetimes, index.cloud_covers
    seconds = moments.astype("datetime64[us]").astype(np.int64).astype(np.float64)
    when = np.where(np.isnat(moments), np.inf, seconds if composite not in ("latest", "least-cloudy") else -seconds)
    cloudy = np.where(np.isnan(clouds), np.inf, clouds)
    keys = (cloudy, when) if composite == "least-cloudy" else (when, cloudy)
    names = np.argsort(np.argsort(index.ids.astype(str), kind="stable"), kind="stable")
    return np.lexsort((names, keys[1], keys[0], -index.priorities))
