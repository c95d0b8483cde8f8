"""A scene's values and a bundle's: brought to one radiometry where both are known, and compared by quantiles.

What a scene says of its values comes from its files, from its STAC Item, or from the user, whose word wins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError, PlanError, SceneError
from models.metadata import QUANTILES, Band, BundleMetadata, Radiometry

from ..grid.geobox import Window
from ..io.array import ArraySource
from ..io.radiometry import (
    Rescaled,
    Said,
    adjust,
    alike,
    bring_to,
    describe_bands,
    describe_radiometry,
    meaningful,
    same_unit,
)
from ..io.source import Source, missing_samples
from .options import SegmentOptions

SIDE, ACROSS = 64, 3  # a sample of a scene's values: windows of 64 x 64 pixels, 3 x 3 of them spread over it
ENOUGH = 256  # samples of a band, below which nothing is said of it
WIDER = 4.0  # times that values may spread as much as in training
PLAIN = SegmentOptions()
LARGEST_CHUNK = 2**24  # samples of an array that is computed by dask, beyond which it is not looked into


def bring_to_bundle(source: Source, metadata: BundleMetadata, options: SegmentOptions = PLAIN) -> Source:
    """Bring a scene's values to what the bundle's mean, where both are known; notes of the source say so.

    Parameters
    ----------
    source
        With the bands of the bundle, in its order.
    metadata
        Of the bundle.
    options
        Its `scale`, `offset` and `reflectance` win over what the source says.

    Returns
    -------
    Source
        float32 values, or `source` itself where none change.

    Raises
    ------
    BundleError
        Units differ; only some bands say what they mean; the user says it, and the bundle does not.
    PlanError
        Numbers of the user that are not one per band, or an offset without a scale.
    """
    trained = tuple(meaningful(band.radiometry) for band in metadata.bands)
    said, notes = _said(source, options)
    if options.says_radiometry and not any(trained):
        raise BundleError(
            f"{metadata.name} does not say what its values mean, so that scale, offset and reflectance of the scene "
            f"cannot be used; leave them out, and give the values that it was trained on{_training(metadata.bands)}"
        )
    if other := _other_units(metadata, said, trained):
        if options.allow_mismatch:
            return replace(adjust(source), said=(*notes, other))
        raise BundleError(f"{other}. Convert the scene, or pass --allow-mismatch if you know better")
    moved = [bool(a and b and not alike(a, b)) for a, b in zip(said, trained, strict=True)]
    unsaid = [n for n, a, b in zip(metadata.band_names, said, trained, strict=True) if b and not a]
    if any(moved) and unsaid:
        raise BundleError(
            f"the scene says what some bands mean ({describe_bands(metadata.band_names, said)}), but nothing of "
            f"{', '.join(unsaid)}; say it of all by --scale and --offset"
        )
    before, after = (describe_bands(metadata.band_names, each) for each in (said, trained))
    made = bring_to(source, said, trained, notes=[f"values of {before} are brought to the bundle's: {after}"])
    return replace(made, said=(*notes, *made.said)) if notes and isinstance(made, Rescaled) else made


def describe_values(source: Source, metadata: BundleMetadata) -> str:
    """Say what the values mean that the network gets, and whether the scene says so. Empty: the bundle does not."""
    means = tuple(meaningful(band.radiometry) for band in metadata.bands)
    if not any(means):
        return ""
    said = "" if all(map(meaningful, source.radiometry)) else ", as in training: the scene does not say"
    return f"values mean {describe_bands(metadata.band_names, means)}{said}"


def _other_units(metadata: BundleMetadata, said: Said, trained: Said) -> str:
    """Say where units of a scene and of a bundle differ. Empty: nowhere."""
    for name, own, its in zip(metadata.band_names, said, trained, strict=True):
        if own and its and not same_unit(own, its):
            return f"{metadata.name} was trained on {its.unit} in {name}, and the scene holds {own.unit}"
    return ""


def _said(source: Source, options: SegmentOptions) -> tuple[Said, list[str]]:
    """Return what a scene's values mean, by the user and else by its files; with a line where they contradict."""
    files = tuple(meaningful(one) for one in source.radiometry)
    if not options.says_radiometry:
        return files, []
    if options.reflectance:
        given: Said = tuple(Radiometry(unit="reflectance") for _ in files)
    else:
        scales, offsets = (_per_band(getattr(options, name), name, len(files)) for name in ("scale", "offset"))
        if offsets[0] is not None and scales[0] is None and None in files:
            raise PlanError("an offset needs a scale: a value times scale, plus offset. Give --scale too")
        given = tuple(_joined(one, s, o) for one, s, o in zip(files, scales, offsets, strict=True))
    overruled = [not alike(a, b) for a, b in zip(files, given, strict=True) if a and b]
    text = f"as asked for, values are taken to mean {describe_bands(source.bands, given)}"
    return given, [f"{text}; the scene itself says {describe_bands(source.bands, files)}"] if any(overruled) else []


def _per_band(given: float | Sequence[float] | None, name: str, count: int) -> list[float | None]:
    numbers: list[float | None] = [*given] if isinstance(given, Sequence) else [given] * count
    if len(numbers) != count:
        raise PlanError(f"--{name} is one number, or one for each of the {count} bands; received {len(numbers)}")
    return numbers


def _joined(own: Radiometry | None, scale: float | None, offset: float | None) -> Radiometry:
    """Return what the user says of a band, and for the rest what its file does."""
    own = own or Radiometry()
    return Radiometry(
        own.scale if scale is None else float(scale), own.offset if offset is None else float(offset), own.unit
    )


def units_known(source: Source, metadata: BundleMetadata) -> bool:
    """Whether all bands of a scene, as it was brought to the bundle, and of the bundle say what they mean."""
    return all(map(meaningful, (*source.radiometry, *(band.radiometry for band in metadata.bands))))


def _training(bands: Sequence[Band]) -> str:
    """Say what values bands had in training, where it is known."""
    texts = [f"{band.name} {span(band.quantiles)}" for band in bands if band.quantiles]
    return f" (1 to 99 %: {', '.join(texts)})" if texts else ""


def doubts(sources: Sequence[Source], metadata: BundleMetadata) -> list[str]:
    """Return what makes doubtful whether scenes hold such values as the bundle was trained on, one line each.

    Reads a few windows of each scene, the same ones each time. A scene that differs may be right all the same: one
    that is full of cloud does.

    Parameters
    ----------
    sources
        Scenes, brought to the bundle; their values are put together.
    metadata
        Of the bundle.
    """
    return [*_unused(sources, metadata), *_unlike(sources, metadata)]


def _unused(sources: Sequence[Source], metadata: BundleMetadata) -> list[str]:
    """Tell of scales that are not applied, since the bundle does not say what its values mean."""
    found = []
    for source in sources:
        own = [meaningful(one) for one in source.radiometry]
        idle = [a for a, band in zip(own, metadata.bands, strict=True) if a and not meaningful(band.radiometry)]
        if idle and not all(alike(one, Radiometry()) for one in idle):
            found.append(
                f"the scene has {describe_radiometry(idle[0])}, which is not applied: {metadata.name} does not say "
                "what its values mean"
            )
    return list(dict.fromkeys(found))


def _unlike(sources: Sequence[Source], metadata: BundleMetadata) -> list[str]:
    if not any(band.quantiles for band in metadata.bands):
        return []
    samples = _sample(sources, len(metadata.bands))
    unlike = []
    for band, values in zip(metadata.bands, samples, strict=True):
        here = tuple(np.quantile(values, QUANTILES, method="inverted_cdf").tolist()) if len(values) >= ENOUGH else ()
        if here and band.quantiles and far_apart(here, band.quantiles):
            unlike.append((band.name, f"{span(here)} here, {span(band.quantiles)} in training"))
    if not unlike:
        return []
    (name, first), *rest = unlike
    also = f" (and of {', '.join(other for other, _ in rest)})" if rest else ""
    known = any(band.radiometry for band in metadata.bands)
    advice = "say them by --scale and --offset, or --reflectance" if known else "convert the scene first"
    return [
        f"values of {name}{also} are unlike those of the training: 1 to 99 % are {first}; if the scene is in "
        f"another scale or offset, {advice}"
    ]


def far_apart(here: Sequence[float], trained: Sequence[float]) -> bool:
    """Whether quantiles of a scene, at `QUANTILES`, are unlike those of the training.

    They are where the scene's median lies outside of 1 to 95 % of the training; where all but 1 % of the scene is
    brighter than the training's median, as after an offset; or where values spread (5 to 95 %) four times as wide. That
    all is darker, or alike, is no sign: it is so over water.
    """
    low, high, middle = trained[0], trained[-2], trained[len(trained) // 2]
    median, spread = here[len(here) // 2], here[-2] - here[1]
    beyond = not low <= median <= high or here[0] > middle
    return beyond or spread > WIDER * (trained[-2] - trained[1]) > 0


def span(quantiles: Sequence[float]) -> str:
    """Return the least and the largest of quantiles, as "784 to 3,688"."""
    ends = (quantiles[0], quantiles[-1])
    return " to ".join(f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}" for value in ends)


def _sample(sources: Sequence[Source], count: int) -> list[NDArray[np.float64]]:
    """Return observed values of each band, of a few windows of each scene; what cannot be read is left out."""
    across = max(1, round(ACROSS / len(sources) ** 0.5))
    values: list[list[NDArray[np.float64]]] = [[] for _ in range(count)]
    for source in sources:
        if _costly_chunk(source) > LARGEST_CHUNK:
            continue
        for window in _windows(source.geobox.shape, across):
            try:
                read = source.read(window)
            except SceneError:  # told by the run, which may not need these pixels
                continue
            for place, sentinel in enumerate(source.nodata):
                missing = missing_samples(read.data[place], sentinel)
                there = read.valid if missing is None else read.valid & ~missing
                values[place].append(read.data[place][there].astype(np.float64))
    return [np.concatenate(parts) if parts else np.zeros(0) for parts in values]


def _costly_chunk(source: Source) -> int:
    """Return the samples that dask computes for one pixel of an array; 0 for what is read by window."""
    inner = source.source if isinstance(source, Rescaled) else source
    arrays = inner.arrays if isinstance(inner, ArraySource) else ()
    return max((prod(max(sizes) for sizes in array.chunks) for array in arrays if array.chunks), default=0)


def _windows(shape: tuple[int, int], across: int) -> Iterator[Window]:
    """Yield windows spread over a scene, each within one of the usual tiles of files; all of a small scene."""
    height, width = shape
    if height * width <= (4 * SIDE) ** 2:
        yield Window(0, height, 0, width)
        return
    rows, columns = (
        dict.fromkeys((2 * n + 1) * size // (2 * across) // SIDE * SIDE for n in range(across)) for size in shape
    )
    for top in rows:
        for left in columns:
            yield Window.square(top, left, SIDE).clip(shape)
