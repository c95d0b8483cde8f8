"""From settings to what a training reads: samples found, shared out among train, validate and test, and measured.

Knows which file does what; reads no pixels itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SwatheError
from pipeline.grid.geobox import Window

from ..config import DataSet, Settings
from .folders import collect_errors, find_samples, merge
from .samples import IGNORE, LabelSource, Sample
from .splits import split_samples

PARTS = ("train", "validate", "test")


@dataclass(frozen=True, slots=True)
class Parts:
    """The samples that are learnt from, those that choose, and those that only judge at the very end."""

    train: tuple[Sample, ...]
    validate: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def named(self) -> dict[str, tuple[Sample, ...]]:
        """Give the parts by name."""
        return {"train": self.train, "validate": self.validate, "test": self.test}


@dataclass(frozen=True, slots=True)
class Restricted:
    """A `LabelSource` of which only some areas count: what lies outside belongs to another part."""

    labels: LabelSource
    areas: tuple[Window, ...]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """See `LabelSource`."""
        labels = self.labels.read(window)
        outside = np.ones(labels.shape, bool)
        for area in self.areas:
            if part := area.overlap(window):
                outside[part.within(window).slices] = False
        return np.where(outside, np.uint8(IGNORE), labels)


def gather(settings: Settings, *, only: str = "", faults: list[SwatheError] | None = None) -> Parts:
    """Find all samples that settings name, and share them out. Opens files, reads no pixels.

    Parameters
    ----------
    settings
        See `Settings`.
    only
        `test`, to look for that part alone. A split decides all parts, and finds them all.
    faults
        Where to put what is wrong with images, labels or whole sets, which are then left out. None: it is raised.

    Raises
    ------
    SwatheError
        Files that are missing, or that do not fit together.
    """
    sets, merged = [], {name: list[Sample]() for name in PARTS}
    for data in settings.data:
        with collect_errors(faults):
            sets.append(_parts(data, settings, only, faults))
    with collect_errors(faults):
        merged = merge(sets)
    return Parts(*(tuple(merged[name]) for name in PARTS))


def _parts(data: DataSet, settings: Settings, only: str, faults: list[SwatheError] | None) -> dict[str, list[Sample]]:
    if only and not data.split and any(getattr(data, name) for name in PARTS):  # else a set is shared as published
        if not getattr(data, only):
            return {name: [] for name in PARTS}
        others: dict[str, Any] = {name: () for name in PARTS if name != only}
        data = replace(data, **others)
    found = find_samples(data, settings, faults=faults)
    if data.split and (found["train"] or not faults):
        chip = round(settings.chips.size * settings.chips.zoom[0])
        shared = split_samples(found["train"], data.split, chip, settings.seed)
        found |= {name: [_restricted(sample) for sample in samples] for name, samples in shared.items()}
    return found


def _restricted(sample: Sample) -> Sample:
    if sample.areas == (sample.geobox.whole,):
        return sample
    return replace(sample, labels=Restricted(sample.labels, sample.areas))


def means_of(means: Sequence[float]) -> tuple[float, ...]:
    """Give band means as a bundle keeps them: to four digits."""
    return tuple(round(float(mean), 4) for mean in means)
