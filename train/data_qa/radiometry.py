"""Samples whose raw values are of another radiometry than most, as of another sensor, type or processing."""

from collections.abc import Sequence

import numpy as np

from ..data.samples import Sample
from .findings import Finding, names
from .thumbnails import Floats, Glance

FAR = 5.0  # standard deviations


def find_odd(seen: Sequence[tuple[Sample, Glance | None]]) -> list[Finding]:
    """Find samples whose band medians lie more than 5 spreads from the middle one of all samples.

    A spread is the larger of the sample's own standard deviation and a typical one: the geometric mean of those of all
    samples, which a few samples of large values do not pull up.
    """
    told = [(s, g) for s, g in seen if g is not None and np.isfinite(g.median).all()]
    if len({len(glance.median) for _, glance in told}) != 1:
        return []
    medians, spreads = (np.array([getattr(g, name) for _, g in told]) for name in ("median", "spread"))
    middle = np.median(medians, axis=0)
    far = np.abs(medians - middle) / np.maximum(np.maximum(spreads, _typical(spreads)), 1e-12)
    odd = np.flatnonzero((far > FAR).any(axis=1)).tolist()
    if not odd:
        return []
    text = names([_told(told[place][0], far[place], medians[place], middle) for place in odd])
    told_all = f"raw values of another radiometry than most: {text}; see data.gain and data.offset"
    return [Finding("warning", "radiometry", told_all)]


def _typical(spreads: Floats) -> Floats:
    """Give the geometric mean over samples `(sample, band)` of what is not 0; 0 where all are."""
    some = spreads > 0
    logs = np.log(np.where(some, spreads, 1.0)).sum(axis=0)
    typical: Floats = np.where(some.any(axis=0), np.exp(logs / np.maximum(some.sum(axis=0), 1)), 0.0)
    return typical


def _told(sample: Sample, far: Floats, median: Floats, middle: Floats) -> str:
    band = int(np.argmax(far))
    return f"{sample.name} ({sample.source.bands[band]}: median {median[band]:.4g}, of most {middle[band]:.4g})"
