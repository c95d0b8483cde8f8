"""Samples: an image with its labels, read by window. Chips, statistics and scores are all made of them. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.source import Source

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
