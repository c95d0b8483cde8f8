"""Radiometry of a training: sets whose values mean something else are brought to one scale and offset, or refused.

What the values of a set mean is said by its files, or by `data.radiometry`, which wins. All sets are brought to the
training's own `radiometry`; else to that of the first sample that says one. Sets with `gain` and `offset` are brought
there by these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from models.errors import TrainingError
from models.metadata import Radiometry
from pipeline.io.radiometry import (
    Rescaled,
    Said,
    alike,
    bring_to,
    describe_bands,
    describe_radiometry,
    meaningful,
    same_unit,
)
from pipeline.io.source import Source

from ..config import DataSet, Settings
from ..config.schema import PARTS
from .samples import Parts, Sample

COARSE = 0.01  # of reflectance: a type of whole numbers cannot hold values of which one is more


def said_of(source: Source, data: DataSet) -> Said:
    """Return what the values of an image mean, per band: by its set, else by its files. None: nothing says it."""
    if data.radiometry is None:
        return tuple(meaningful(one) for one in source.radiometry)
    return given(data.radiometry, len(source.bands), "data.radiometry")


def given(radiometry: Radiometry | tuple[Radiometry, ...], bands: int, name: str) -> Said:
    """Return what settings say, per band. Raises TrainingError where they do not say as many as there are bands."""
    several = radiometry if isinstance(radiometry, tuple) else (radiometry,) * bands
    if len(several) != bands:
        raise TrainingError(f"{name} lists {len(several)}; give one table, or one for each of the {bands} bands")
    return several


def harmonised(sets: Sequence[Parts], settings: Settings) -> list[Parts]:
    """Bring the samples of all sets to one radiometry and type, as the module says.

    Raises
    ------
    TrainingError
        Some say what their values mean and others do not; units differ; a type cannot hold the values.
    """
    samples = list(_each(sets))
    wanted = _wanted(samples, settings)
    if wanted is None:
        return list(sets)
    moved = {id(sample): _moves(sample, wanted) for sample in samples}
    kinds = {sample.source.dtype.name for sample in samples}
    kind = settings.dtype or ("float32" if any(moved.values()) or len(kinds) > 1 else kinds.pop())
    _refuse_coarse(wanted, kind, any(sample.source.dtype.kind == "f" for sample in samples))

    def brought(sample: Sample) -> Sample:
        source = _marked(sample.source, wanted)
        if moved[id(sample)]:
            source = bring_to(sample.source, sample.source.radiometry, wanted, kind)
        elif source.dtype != np.dtype(kind):
            count = len(source.bands)
            source = Rescaled(source, (1.0,) * count, (0.0,) * count, kind, wanted)
        return replace(sample, source=source)

    return [{part: [brought(sample) for sample in parts[part]] for part in PARTS} for parts in sets]


def _each(sets: Sequence[Parts]) -> Iterator[Sample]:
    """Yield all samples, those to learn from first."""
    for part in PARTS:
        for parts in sets:
            yield from parts[part]


def _wanted(samples: Sequence[Sample], settings: Settings) -> Said | None:
    """Return what the values of the training mean, per band; None where nothing says it."""
    if not samples:
        return None
    if settings.radiometry is not None:
        return given(settings.radiometry, len(settings.bands), "radiometry")
    open_ones = [sample for sample in samples if not _by_gain(sample.source)]
    telling = [sample for sample in open_ones if any(sample.source.radiometry)]
    if not telling:
        return None
    first = telling[0]
    silent = next((s for s in open_ones if not _as_telling(s.source.radiometry, first.source.radiometry)), None)
    if silent is not None:
        raise TrainingError(
            f"{first.paths[0]} says what its values mean ({_words(first)}), and {silent.paths[0]} does not "
            f"({_words(silent)}): say it in its [[data]] set, as radiometry = {{ scale = 0.0001, offset = 0.0 }}"
        )
    return first.source.radiometry


def _as_telling(one: Said, other: Said) -> bool:
    """Whether the same bands say what they mean."""
    return [band is None for band in one] == [band is None for band in other]


def _by_gain(source: Source) -> bool:
    """Whether a set's own gain and offset have brought it to the others."""
    return isinstance(source, Rescaled) and source.changes


def _words(sample: Sample) -> str:
    return describe_bands(sample.source.bands, sample.source.radiometry)


def _moves(sample: Sample, wanted: Said) -> bool:
    """Whether a sample's values become others. Raises TrainingError where units differ."""
    if _by_gain(sample.source):
        return False
    pairs = [(a, b) for a, b in zip(sample.source.radiometry, wanted, strict=True) if a and b]
    for own, its in pairs:
        if not same_unit(own, its):
            raise TrainingError(f"{sample.paths[0]} holds {own.unit}, and this training is of {its.unit}; convert it")
    return not all(alike(a, b) for a, b in pairs)


def _marked(source: Source, wanted: Said) -> Source:
    """Let a source whose values stay say what those of the training mean."""
    if source.radiometry == wanted:
        return source
    if isinstance(source, Rescaled):
        return replace(source, radiometry=wanted)
    count = len(source.bands)
    return Rescaled(source, (1.0,) * count, (0.0,) * count, source.dtype.name, wanted)


def _refuse_coarse(wanted: Said, kind: str, floats: bool) -> None:
    """Refuse whole numbers for reflectance from 0 to 1, and for fractions whose unit is not said."""
    units = ("reflectance", "") if floats else ("reflectance",)
    coarse = [one for one in wanted if one and one.unit in units and abs(one.scale) > COARSE]
    if coarse and np.dtype(kind).kind in "iu":
        raise TrainingError(
            f"{kind} holds whole numbers, and this training is of {describe_radiometry(coarse[0])}: set dtype = "
            "'float32', or a radiometry with a smaller scale"
        )
