"""Radiometry: raw values brought to another scale and offset, band by band, and what scenes say of theirs.

A band's value * scale + offset is in its unit (`models.metadata.Radiometry`). Values for another scale and offset of
the same unit are therefore value * gain + shift, with gain = scale / scale' and shift = (offset - offset') / scale'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metadata import Radiometry

from ..grid.geobox import GeoBox, Window
from .array_values import unit_of
from .source import BandNames, Pixels, Source, missing_samples

Said = tuple[Radiometry | None, ...]  # per band; None: nothing is said
UNNAMED = {"", "1", "-", "none", "n/a", "na", "unitless", "dimensionless", "dn", "count", "counts", "unknown"}
CLOSE = 1e-6  # relative: scales and offsets are written with 32 bits too


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A source whose raw values become value * gain + shift, band by band; missing samples stay missing.

    Parameters
    ----------
    source
        What is read.
    gains, shifts
        Per band.
    kind
        Type of the values: in floats a missing sample is NaN; integers are rounded and kept in the type's range, whose
        lowest value is left to missing samples, where there may be any.
    radiometry
        Per band, what the values mean then.
    blank
        A pixel with this raw value in every band is not observed. None: all are, as the source says.
    said
        Lines for the user about it, before the source's own.
    """

    source: Source
    gains: tuple[float, ...]
    shifts: tuple[float, ...]
    kind: str
    radiometry: Said
    blank: float | None = None
    said: tuple[str, ...] = ()

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""
        return self.source.geobox

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.source.bands

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values given."""
        return np.dtype(self.kind)

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing sample; None in floats, where NaN does."""
        if not self.changes:
            return self.source.nodata
        if self.dtype.kind == "f":
            return tuple(None for _ in self.bands)
        floats, lowest = self.source.dtype.kind == "f", float(np.iinfo(self.dtype).min)
        return tuple(lowest if floats or sentinel is not None else None for sentinel in self.source.nodata)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        return (*self.said, *self.source.notes)

    @property
    def expensive_reads(self) -> bool:
        """As the source has it."""
        return self.source.expensive_reads

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, each once."""
        return self.source.paths

    @property
    def scatter_once(self) -> bool:
        """As the source has it."""
        return self.source.scatter_once

    @property
    def changes(self) -> bool:
        """Whether values or their type become others."""
        return {*self.gains} != {1.0} or {*self.shifts} != {0.0} or self.dtype != self.source.dtype

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        return self.rescale(self.source.read(window))

    def rescale(self, read: Pixels) -> Pixels:
        """Return pixels that the source gave, with its values brought over."""
        valid = read.valid
        if self.blank is not None:
            valid = valid & (read.data != read.data.dtype.type(self.blank)).any(axis=0)
        if not self.changes:
            return Pixels(read.data, valid, read.fresh)
        made = np.empty(read.data.shape, self.dtype)
        for place, sentinel in enumerate(self.nodata):
            missing = missing_samples(read.data[place], self.source.nodata[place])
            made[place] = self._rescale(read.data[place], place, sentinel)
            if missing is not None:
                made[place][missing] = np.nan if sentinel is None else sentinel
        return Pixels(made, valid, fresh=True)

    def _rescale(self, band: NDArray[Any], place: int, sentinel: float | None) -> NDArray[Any]:
        with np.errstate(invalid="ignore", over="ignore"):  # of samples that are missing, and of float32's range
            values = band.astype(np.float64) * self.gains[place] + self.shifts[place]
            if self.dtype.kind == "f":
                return values.astype(self.dtype)
        info = np.iinfo(self.dtype)
        return np.clip(np.rint(np.nan_to_num(values)), info.min + (sentinel is not None), info.max).astype(self.dtype)

    def select(self, bands: BandNames) -> "Rescaled":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""
        asked = [bands] if isinstance(bands, str | int) else bands
        places = [self.bands.index(self.source.select([band]).bands[0]) for band in asked]
        facts: Any = {name: tuple(getattr(self, name)[p] for p in places) for name in ("gains", "shifts", "radiometry")}
        return replace(self, source=self.source.select(bands), **facts)

    def describe(self) -> dict[str, Any]:
        """Return what becomes of values, as JSON; empty where nothing does."""
        return {"gains": [*self.gains], "shifts": [*self.shifts], "dtype": self.kind} if self.changes else {}

    def identity(self) -> dict[str, Any]:
        """Return the source's identity, and what its values become where they change."""
        changed = self.describe()
        rescaled: dict[str, Any] = {"rescaled": changed} if changed else {}
        return self.source.identity() | rescaled | ({} if self.blank is None else {"blank": repr(self.blank)})


def adjust(
    source: Source,
    gain: float = 1.0,
    shift: float = 0.0,
    kind: str = "",
    *,
    blank: float | None = None,
    radiometry: Said | None = None,
) -> Rescaled:
    """Return a source whose values become value * gain + shift in all bands; see `Rescaled`."""
    count = len(source.bands)
    same = (gain, shift) == (1.0, 0.0)
    means = radiometry or (source.radiometry if same else (None,) * count)
    return Rescaled(source, (gain,) * count, (shift,) * count, kind or source.dtype.name, means, blank)


def bring_to(source: Source, said: Said, wanted: Said, kind: str = "float32", *, notes: Sequence[str] = ()) -> Source:
    """Bring values from what they mean to what they are wanted to mean.

    Parameters
    ----------
    source
        Of as many bands as `said` and `wanted`.
    said, wanted
        Per band, in the same unit. Where either is not known a band's values stay as they are.
    kind
        Type of the values, where any of them change.
    notes
        Lines for the user, where any of them change.

    Returns
    -------
    Source
        `source` itself where nothing changes; its very values where only what is said of them does.
    """
    pairs = [(a or b or Radiometry(), b or a or Radiometry()) for a, b in zip(said, wanted, strict=True)]
    now = tuple(b if a and b else a for a, b in zip(said, wanted, strict=True))
    if all(alike(a, b) for a, b in pairs):
        return source if said == tuple(map(meaningful, source.radiometry)) else adjust(source, radiometry=now)
    steps = [(1.0, 0.0) if alike(a, b) else (a.scale / b.scale, (a.offset - b.offset) / b.scale) for a, b in pairs]
    gains, shifts = zip(*((_plain(gain), _plain(shift)) for gain, shift in steps), strict=True)
    return Rescaled(source, gains, shifts, kind, now, said=tuple(notes))


def _plain(number: float) -> float:
    """Return the number of 12 digits that a quotient of decimal numbers stands for: -1000 and not -1000.0000000001."""
    return float(f"{number:.12g}")


def alike(one: Radiometry, other: Radiometry) -> bool:
    """Whether two bands' values mean the same, but for the unit."""
    pairs = ((one.scale, other.scale), (one.offset, other.offset))
    return all(abs(a - b) <= CLOSE * max(abs(a), abs(b)) for a, b in pairs)


def meaningful(radiometry: Radiometry | None) -> Radiometry | None:
    """Return what is said of a band; None where it is no more than that values are digital numbers."""
    if radiometry is None or not alike(radiometry, Radiometry()):
        return radiometry
    return None if radiometry.unit and not _unit(radiometry.unit) else radiometry


def same_unit(one: Radiometry, other: Radiometry) -> bool:
    """Whether two units are one, or either is not said."""
    a, b = (_unit(each.unit) for each in (one, other))
    return not a or not b or a == b


def _unit(text: str) -> str:
    word = text.strip().lower()
    return unit_of({"unit": word}) or ("" if word in UNNAMED else word)


def describe_radiometry(radiometry: Radiometry | None) -> str:
    """Say what a band's values mean, as "scale 0.0001, offset -0.1 (reflectance)"."""
    if radiometry is None:
        return "not said"
    unit = f" ({radiometry.unit})" if radiometry.unit else ""
    return f"scale {radiometry.scale:.8g}, offset {radiometry.offset:.8g}{unit}"


def describe_bands(names: Sequence[str], said: Said) -> str:
    """Say what bands' values mean, in one phrase where all mean the same."""
    texts = [describe_radiometry(one) for one in said]
    if len(set(texts)) <= 1:
        return texts[0] if texts else "not said"
    return "; ".join(f"{name}: {text}" for name, text in zip(names, texts, strict=True))
