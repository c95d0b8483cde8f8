"""One image with its labels, by window: what chips, statistics and scores are all made of. No torch, no networks."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.source import Pixels, Source

IGNORE = 255  # the label of a pixel that nobody judged, or that the scene did not observe


class LabelSource(Protocol):
    """Labels on a scene's grid, by window. Sent to workers by value: names and facts, never open files."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read class values `(y, x)` of a window inside the scene, `IGNORE` where not judged."""
        ...


@dataclass(frozen=True, slots=True)
class Labelled:
    """A window of a sample.

    Parameters
    ----------
    pixels
        Raw values `(band, y, x)`.
    labels
        Class values uint8 `(y, x)`; `IGNORE` where not judged or not observed.
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

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""
        return self.source.geobox

    def read(self, window: Window) -> Labelled:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        read, labels = self.source.read(window), self.labels.read(window)
        return Labelled(read.data, np.where(read.valid, labels, np.uint8(IGNORE)), read.valid)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """A `Source` whose raw values are brought to another radiometry, and whose blank pixels are not observed.

    Parameters
    ----------
    source
        What is read.
    gain, offset
        Raw value * gain + offset.
    blank
        A pixel with this raw value in every band is not observed. None: all are, as the source says.
    kind
        Type of the values given; integers are rounded and kept in the type's range.
    """

    source: Source
    gain: float
    offset: float
    blank: float | None
    kind: str

    @property
    def geobox(self) -> GeoBox:
        """See `Source`."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Source`."""
        return np.dtype(self.kind)

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """See `Source`: those of the source are known by the valid mask alone, since their values change."""
        return tuple(None for _ in self.bands) if self._changes else self.source.nodata

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Source`."""
        return self.source.notes

    @property
    def expensive_reads(self) -> bool:
        """See `Source`."""
        return self.source.expensive_reads

    @property
    def _changes(self) -> bool:
        return (self.gain, self.offset) != (1.0, 0.0) or self.dtype != self.source.dtype

    def read(self, window: Window) -> Pixels:
        """See `Source`."""
        read = self.source.read(window)
        valid = read.valid
        if self.blank is not None:
            valid = valid & (read.data != read.data.dtype.type(self.blank)).any(axis=0)
        return Pixels(self._adjusted(read.data) if self._changes else read.data, valid)

    def _adjusted(self, data: NDArray[Any]) -> NDArray[Any]:
        values = data * np.float64(self.gain) + self.offset
        if self.dtype.kind == "f":
            return values.astype(self.dtype)
        info = np.iinfo(self.dtype)
        return np.clip(np.rint(np.nan_to_num(values)), info.min, info.max).astype(self.dtype)

    def identity(self) -> dict[str, Any]:
        """See `Source`."""
        own = {"gain": self.gain, "offset": self.offset, "blank": self.blank, "kind": self.kind}
        return {**self.source.identity(), "adjusted": own}


def within(sample: Sample, areas: tuple[Window, ...]) -> Sample:
    """Give the same sample with chips only in some areas."""
    return replace(sample, areas=areas)
