"""A few pixels of each sample: enough to tell copies from each other, and scenes of another radiometry. Over Dask.

64 windows of 32 pixels, spread evenly over the scene and the same for each scene of a size. What lies between them is
not seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.errors import SwatheError
from pipeline.grid.geobox import Window
from pipeline.io.source import Pixels, missing_samples
from pipeline.jobs.dask import map_bounded

from ..data.samples import Sample

ACROSS, LOOK = 8, 32  # windows along each axis, and pixels along each of their sides

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Glance:
    """What was seen of one sample.

    Parameters
    ----------
    digest
        Of the raw values seen, the shape and the type; empty where these are all alike, which says nothing.
    median, spread
        Per band of what was observed: the median, and the standard deviation, both float64 `(band,)`; NaN for none.
    """

    digest: str
    median: Floats
    spread: Floats


def glance_at(samples: Sequence[Sample], client: Client) -> list[Glance | None]:
    """Look at samples, over a Dask client. None for one that cannot be read."""
    seen: list[Glance | None] = [None] * len(samples)
    for number, glance in map_bounded(client, _look, None, enumerate(samples), key="swathe-glance"):
        seen[number] = glance
    return seen


def _look(_: None, numbered: tuple[int, Sample]) -> tuple[int, Glance | None]:
    number, sample = numbered
    try:
        reads = [sample.source.read(window) for window in _windows(sample.geobox.shape)]
    except SwatheError:  # measuring says why
        return number, None
    return number, _glance(sample, reads)


def _windows(shape: tuple[int, int]) -> Iterator[Window]:
    """Row by row, as files are laid out; a small scene is seen whole."""
    tops, lefts = (sorted({int(at) for at in np.linspace(0, max(0, size - LOOK), ACROSS)}) for size in shape)
    for top in tops:
        for left in lefts:
            yield Window.square(top, left, LOOK).clip(shape)


def _glance(sample: Sample, reads: Sequence[Pixels]) -> Glance:
    median, spread = [], []
    for place, nodata in enumerate(sample.source.nodata):
        values = np.concatenate([_observed(read, place, nodata) for read in reads]).astype(np.float64)
        median.append(float(np.median(values)) if values.size else np.nan)
        spread.append(float(values.std()) if values.size else np.nan)
    flat = not np.nan_to_num(spread).any()
    return Glance("" if flat else _digest(sample, reads), np.array(median), np.array(spread))


def _observed(read: Pixels, place: int, nodata: float | None) -> NDArray[np.generic]:
    band = read.data[place]
    missing = missing_samples(band, nodata)
    return band[read.valid if missing is None else read.valid & ~missing]  # type: ignore[no-any-return]


def _digest(sample: Sample, reads: Sequence[Pixels]) -> str:
    digest = blake2b(repr((sample.geobox.shape, str(sample.source.dtype))).encode(), digest_size=16)
    for read in reads:
        digest.update(np.ascontiguousarray(read.data).tobytes())
    return digest.hexdigest()
