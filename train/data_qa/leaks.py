"""Data leakage: what samples of different parts share, so that scores would flatter; and samples of odd radiometry.

Copies and odd values are seen in thumbnails: 64 windows of 32 pixels, spread evenly over a scene and the same for
each scene of a size. What lies between them is not seen.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.errors import SwatheError
from pipeline.grid.geobox import Window
from pipeline.io.source import Pixels, missing_samples
from pipeline.jobs.tasks import map_bounded

from ..data.overlap import overlapping
from ..data.samples import Parts, Sample
from ..data.splits import group_of
from .checks import Finding, key_of, names

ACROSS, SIDE = 8, 32  # windows along each axis of a scene, and pixels along each of their sides
FAR = 5.0  # standard deviations

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A few pixels of one sample, summed up.

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


Thumbnails = Mapping[tuple[str, ...], Thumbnail | None]


def read_thumbnails(samples: Sequence[Sample], client: Client) -> list[Thumbnail | None]:
    """Read the thumbnails of samples, over a Dask client. None for one that cannot be read."""
    read = map_bounded(client, _read, None, enumerate(samples), key="swathe-thumbnail")
    return [thumbnail for _, thumbnail in sorted(read, key=lambda numbered: numbered[0])]


def _read(_: None, numbered: tuple[int, Sample]) -> tuple[int, Thumbnail | None]:
    number, sample = numbered
    # row by row, as files are laid out; a small scene is seen whole
    shape = sample.geobox.shape
    tops, lefts = (sorted({int(at) for at in np.linspace(0, max(0, size - SIDE), ACROSS)}) for size in shape)
    windows = [Window.square(top, left, SIDE).clip(shape) for top in tops for left in lefts]
    try:
        return number, _thumbnail(sample, [sample.source.read(window) for window in windows])
    except SwatheError:  # statistics say why
        return number, None


def _thumbnail(sample: Sample, reads: Sequence[Pixels]) -> Thumbnail:
    median, spread = [], []
    for place, nodata in enumerate(sample.source.nodata):
        observed = []
        for read in reads:
            band, missing = read.data[place], missing_samples(read.data[place], nodata)
            observed.append(band[read.valid if missing is None else read.valid & ~missing])
        values = np.concatenate(observed).astype(np.float64)
        median.append(float(np.median(values)) if values.size else np.nan)
        spread.append(float(values.std()) if values.size else np.nan)
    digest = blake2b(repr((sample.geobox.shape, str(sample.source.dtype))).encode(), digest_size=16)
    for read in reads:
        digest.update(np.ascontiguousarray(read.data).tobytes())
    flat = not np.nan_to_num(spread).any()
    return Thumbnail("" if flat else digest.hexdigest(), np.array(median), np.array(spread))


def find_leaks(parts: Parts, thumbnails: Thumbnails) -> list[Finding]:
    """Find what parts share.

    Parameters
    ----------
    parts
        Samples by part. One sample may be in several parts, with other windows in each.
    thumbnails
        By `key_of`.
    """
    return [*_shared_pixels(parts), *_copies(parts, thumbnails), *_shared_ground(parts), *_shared_scenes(parts)]


def _shared_pixels(parts: Parts) -> Iterator[Finding]:
    """Find files of two parts whose windows overlap; and files that one part has twice."""
    for (one, mine), (other, theirs) in combinations(parts.items(), 2):
        by_file = defaultdict(list)
        for sample in mine:
            for file in key_of(sample):
                by_file[file].append(sample)
        pairs = {
            (id(first), id(second)): (first, second)
            for second in theirs
            for file in key_of(second)
            for first in by_file.get(file, [])
        }
        met = [pair for pair in pairs.values() if _windows_overlap(*pair)]
        if met:
            called = names(list(dict.fromkeys(sample.name for pair in met for sample in pair)))
            text = f"pixels of {called} are in {one} and in {other} too; scores would flatter"
            yield Finding("error", "leakage", text)


def _windows_overlap(one: Sample, other: Sample) -> bool:
    import shapely

    def boxes(sample: Sample) -> Any:
        ends = np.array([(a.left, a.top, a.right, a.bottom) for a in sample.areas], float).reshape(-1, 4)
        return shapely.box(*(ends + np.array([0.25, 0.25, -0.25, -0.25])).T)  # so that those that touch do not meet

    return bool(shapely.STRtree(boxes(one)).query(boxes(other), predicate="intersects").size)


def _copies(parts: Parts, thumbnails: Thumbnails) -> Iterator[Finding]:
    """Find the same pixels under two names: across parts, or twice in one."""
    by_digest: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for part, samples in parts.items():
        for sample in samples:
            thumbnail = thumbnails.get(key_of(sample))
            if thumbnail and thumbnail.digest:
                by_digest[thumbnail.digest].append((part, sample))
    for alike in by_digest.values():
        if len({key_of(sample) for _, sample in alike}) > 1:
            called = names([f"{sample.name} ({part})" for part, sample in alike])
            text = f"copies of one image, by the pixels looked at: {called}"
            if len({part for part, _ in alike}) > 1:
                yield Finding("error", "leakage", f"{text}; keep one of them, scores would flatter")
            else:
                yield Finding("warning", "leakage", f"{text}; it counts more than others")


def _shared_ground(parts: Parts) -> Iterator[Finding]:
    """Find scenes of two parts that lie over each other, as two dates of one place do."""
    listed = [(part, sample) for part, samples in parts.items() for sample in samples]
    found = defaultdict(list)
    for contact in overlapping([sample for _, sample in listed]):
        (one, mine), (other, theirs) = listed[contact.first], listed[contact.second]
        if one != other and key_of(mine) != key_of(theirs):
            found[one, other].append((contact.share, f"{mine.name} and {theirs.name} ({contact.share:.0%})"))
    for (one, other), pairs in found.items():
        most = names([text for _, text in sorted(pairs, key=lambda pair: -pair[0])])
        text = f"scenes of {one} and {other} lie on the same ground, by their areas: {most}; scores may flatter"
        yield Finding("warning", "leakage", text)


def _shared_scenes(parts: Parts) -> Iterator[Finding]:
    """Note parts of the same scenes: the score is then of the same place, day and light."""
    scenes = {part: {group_of(sample.name): sample.name for sample in samples} for part, samples in parts.items()}
    for one, other in combinations(parts, 2):
        shared = sorted(set(scenes[one]) & set(scenes[other]))
        if shared:
            shown = names([scene or f"that of {scenes[one][scene]}" for scene in shared])
            text = f"{one} and {other} have parts of the same scenes, as names tell: {shown}; scores of {other} "
            yield Finding("note", "leakage", f"{text}hold for these scenes alone")


def find_odd_radiometry(seen: Sequence[tuple[Sample, Thumbnail | None]]) -> list[Finding]:
    """Find samples whose band medians lie more than 5 spreads from the middle one of all samples.

    A spread is the larger of the sample's own standard deviation and a typical one: the geometric mean of those of all
    samples, which a few samples of large values do not pull up.
    """
    known = [(s, t) for s, t in seen if t is not None and np.isfinite(t.median).all()]
    if len({len(thumbnail.median) for _, thumbnail in known}) != 1:
        return []
    medians, spreads = (np.array([getattr(t, name) for _, t in known]) for name in ("median", "spread"))
    some = spreads > 0
    logs = np.log(np.where(some, spreads, 1.0)).sum(axis=0)
    typical = np.where(some.any(axis=0), np.exp(logs / np.maximum(some.sum(axis=0), 1)), 0.0)
    middle = np.median(medians, axis=0)
    far = np.abs(medians - middle) / np.maximum(np.maximum(spreads, typical), 1e-12)
    texts = []
    for place in np.flatnonzero((far > FAR).any(axis=1)).tolist():
        sample, band = known[place][0], int(np.argmax(far[place]))
        median = f"median {medians[place, band]:.4g}, of most {middle[band]:.4g}"
        texts.append(f"{sample.name} ({sample.source.bands[band]}: {median})")
    text = (
        f"raw values of another radiometry than most: {names(texts)}; see data.radiometry, or data.gain and data.offset"
    )
    return [Finding("warning", "radiometry", text)] if texts else []
