"""Samples: an image with its labels, read by window. Chips, statistics and scores are all made of them. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from models.metadata import Radiometry
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.source import BandNames, Pixels, Source

from ..config.schema import IGNORE


class LabelSource(Protocol):
    """Labels on a scene's grid, by window. Sent to workers by value: names and facts about files, never open ones."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read class values `(y, x)` of a window inside the scene, `IGNORE` where not labelled."""
        ...


@dataclass(frozen=True, slots=True)
class Labelled:
    """A window of a sample.

    Parameters
    ----------
    pixels
        Raw values `(band, y, x)`.
    labels
        Class values uint8 `(y, x)`; `IGNORE` where not labelled or not observed.
    valid
        Bool `(y, x)`, True = observed.
    """

    pixels: NDArray[Any]
    labels: NDArray[np.uint8]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image with its labels.

    Parameters
    ----------
    name
        For reports; no other sample of a training has it.
    source
        Raw pixels, with the bands in the network's order.
    labels
        On the source's grid.
    areas
        A chip lies whole inside one of these.
    paths
        The files, for messages.
    """

    name: str
    source: Source
    labels: LabelSource
    areas: tuple[Window, ...]
    paths: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Sample {self.name}: {self.source!r}>"

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""
        return self.source.geobox

    def read(self, window: Window) -> Labelled:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        read, labels = self.source.read(window), self.labels.read(window)
        return Labelled(read.data, np.where(read.valid, labels, np.uint8(IGNORE)), read.valid)


Parts = Mapping[str, Sequence[Sample]]
"""Samples by part: those of `train` are learnt from, `validate` chooses, `test` only scores at the very end."""


def inside(areas: Sequence[Window], window: Window) -> NDArray[np.bool_]:
    """Return which pixels of a window lie in any of some areas, bool `(y, x)`."""
    mask = np.zeros(window.shape, bool)
    for area in areas:
        shared = area.overlap(window)
        if shared:
            mask[shared.within(window).slices] = True
    return mask


@dataclass(frozen=True, slots=True)
class Restricted(LabelSource):
    """Labels of which only some areas count: what lies outside belongs to another part."""

    labels: LabelSource
    areas: tuple[Window, ...]

    @override
    def read(self, window: Window) -> NDArray[np.uint8]:
        return np.where(inside(self.areas, window), self.labels.read(window), np.uint8(IGNORE))


def unrestricted(labels: LabelSource) -> LabelSource:
    """Return the labels of the whole scene under those that a part of it has."""
    while hasattr(labels, "labels"):
        labels = labels.labels
    return labels


@dataclass(frozen=True, slots=True)
class Adjusted(Source):
    """Raw values brought to another radiometry, and blank pixels marked as not observed.

    Parameters
    ----------
    source
        What is read.
    gain, offset
        Raw value * gain + offset.
    blank
        A pixel with this raw value in every band is not observed. None: all are, as the source says.
    kind
        Type of the values returned; integers are rounded and kept in the type's range.
    """

    source: Source
    gain: float
    offset: float
    blank: float | None
    kind: str

    @property
    @override
    def geobox(self) -> GeoBox:
        return self.source.geobox

    @property
    @override
    def bands(self) -> tuple[str, ...]:
        return self.source.bands

    @property
    @override
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.kind)

    @property
    @override
    def nodata(self) -> tuple[float | None, ...]:
        # values that change leave the source's nodata to its valid mask alone
        return tuple(None for _ in self.bands) if self._changes else self.source.nodata

    @property
    @override
    def radiometry(self) -> tuple[Radiometry | None, ...]:
        return tuple(None for _ in self.bands) if self._changes else self.source.radiometry

    @property
    @override
    def notes(self) -> tuple[str, ...]:
        return self.source.notes

    @property
    @override
    def expensive_reads(self) -> bool:
        return self.source.expensive_reads

    @property
    @override
    def paths(self) -> tuple[str, ...]:
        return self.source.paths

    @property
    @override
    def scatter_once(self) -> bool:
        return self.source.scatter_once

    @override
    def select(self, bands: BandNames) -> "Adjusted":
        return replace(self, source=self.source.select(bands))

    @property
    def _changes(self) -> bool:
        return (self.gain, self.offset) != (1.0, 0.0) or self.dtype != self.source.dtype

    @override
    def read(self, window: Window) -> Pixels:
        read = self.source.read(window)
        valid = read.valid
        if self.blank is not None:
            valid = valid & (read.data != read.data.dtype.type(self.blank)).any(axis=0)
        if not self._changes:
            return Pixels(read.data, valid)
        values = read.data * np.float64(self.gain) + self.offset
        if self.dtype.kind != "f":
            info = np.iinfo(self.dtype)
            values = np.clip(np.rint(np.nan_to_num(values)), info.min, info.max)
        return Pixels(values.astype(self.dtype), valid)

    @override
    def identity(self) -> dict[str, Any]:
        own = {"gain": self.gain, "offset": self.offset, "blank": self.blank, "kind": self.kind}
        return {**self.source.identity(), "adjusted": own}
