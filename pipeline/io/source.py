"""The protocol of what gives a scene's raw pixels by window, and which of its samples are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError
from models.metadata import Radiometry, some_of
from models.redact import printable, redact_url

from ..grid.geobox import GeoBox, Window
from .band_names import common_names

NEAR_LARGEST = 3.4e38  # programs write the largest float32 as nodata, and with as few digits as this into tags
BandNames = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Raw values `(band, y, x)` of a window, and its valid mask: bool `(y, x)`, True = observed.

    `fresh` data are held by nobody else, and may be written to.
    """

    data: NDArray[Any]
    valid: NDArray[np.bool_]
    fresh: bool = False


class Source(Protocol):
    """A scene's raw pixels, by window. It is sent to workers by value: it holds names and facts, never open files."""

    @property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of `read`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values."""

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel."""

    @property
    def radiometry(self) -> tuple[Radiometry | None, ...]:
        """Per band, what its raw values mean; None where nothing says so."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the scene, one line each."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it reads, each once; none for an array in memory."""

    @property
    def expensive_reads(self) -> bool:
        """Whether reading pixels a second time costs as much again: they are computed, and nothing keeps them."""

    @property
    def scatter_once(self) -> bool:
        """Whether it is sent to each worker once, and not with every task: it may hold pixels."""

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""

    def select(self, bands: BandNames) -> "Source":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""

    def identity(self) -> dict[str, Any]:
        """Return what tells this scene's pixels from another's, for the fingerprint of a run."""


class NamedSource(Source, Protocol):
    """A source whose bands can be told by several names."""

    @property
    def all_names(self) -> tuple[tuple[str, ...], ...]:
        """All names of each band, its own first."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number of each band, from 1."""

    @property
    def hints(self) -> tuple[str, ...]:
        """What may tell the sensor."""

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""


def describe_source(source: Source) -> str:
    """Return what a source is in one line, for its `repr`."""
    files = some_of([printable(redact_url(path).rsplit("/", 1)[-1]) for path in source.paths], 1)
    what = f"{source.geobox.describe()}; {source.dtype} {some_of(source.bands)}"
    return f"<{type(source).__name__} {what}{files and f'; {files}'}>"


def find_bands(
    names: Sequence[Sequence[str]], bands: BandNames, numbers: Sequence[int] | None = None, hints: Sequence[str] = ()
) -> list[int]:
    """Return the places of bands by name or number (from 1).

    A name that no band has is looked for by what it is commonly called: `red` finds B04 of Sentinel-2.

    Parameters
    ----------
    names
        All names of each band, its own first.
    bands
        Which.
    numbers
        Of each band. None: they count from 1.
    hints
        What may tell the sensor; see `band_names`.

    Raises
    ------
    SceneError
        No such band, or none asked for; the message lists those there are.
    """
    places, listed = [], [bands] if isinstance(bands, str | int) else list(bands)
    common, wanted = common_names(names, hints), common_names([(str(band),) for band in listed])
    for band, roles in zip(listed, wanted, strict=True):
        found: list[int] = []
        for fold in (str, str.lower) if isinstance(band, str) else ():  # exact first: B8a and B8A may be two bands
            found = found or [place for place, own in enumerate(names) if fold(str(band)) in map(fold, own)]
        if len(found) != 1 and str(band).isdecimal():
            found = [place for place, number in enumerate(numbers or range(1, len(names) + 1)) if number == int(band)]
        found = found or [place for place, own in enumerate(common) if own & roles]
        if len(found) != 1:
            shown = ", ".join(own[0] for own in names[:20]) + (", ..." if len(names) > 20 else "")
            raise SceneError(f"the scene has no band {band!r}; it has {len(names)}: {shown[:400]}")
        places += found
    if not places:
        raise SceneError("no bands asked for")
    return places


def observed(data: NDArray[Any], nodata: tuple[float | None, ...]) -> NDArray[np.bool_]:
    """Return the valid mask of raw values `(band, y, x)`: True where any band is neither nodata, NaN nor infinite.

    That any one band makes a pixel valid is GDAL's rule for the mask of a dataset: a dark pixel whose blue is 0 is not
    missing.
    """
    valid = np.zeros(data.shape[1:], bool)
    for band, sentinel in zip(data, nodata, strict=True):
        if (missing := missing_samples(band, sentinel)) is None:
            return np.ones(data.shape[1:], bool)
        valid |= ~missing
        if valid.all():  # most often after the first band
            break
    return valid


def missing_samples(band: NDArray[Any], sentinel: float | None) -> NDArray[np.bool_] | None:
    """Return which samples of one band are missing, bool of its shape; None if none can be."""
    if np.issubdtype(band.dtype, np.floating):
        missing: NDArray[np.bool_] = ~np.isfinite(band)
        if sentinel is not None:
            with np.errstate(over="ignore"):  # the value in the band's own type
                missing |= band == band.dtype.type(sentinel)
            if band.dtype == np.float32 and abs(sentinel) >= NEAR_LARGEST:
                missing |= np.abs(band) >= NEAR_LARGEST
        return missing
    info = np.iinfo(band.dtype)
    if sentinel is None or not float(sentinel).is_integer() or not info.min <= sentinel <= info.max:
        return None  # the type cannot hold it, and so no sample can equal it
    return np.asarray(band == band.dtype.type(int(sentinel)))


def missing_value(dtype: np.dtype[Any], sentinel: float | None) -> float:
    """Return what stands for a missing sample: nodata if the type can hold it; else NaN, or 0, which a mask hides."""
    if dtype.kind == "f":
        return float("nan") if sentinel is None else sentinel
    info = np.iinfo(dtype)
    held = sentinel is not None and float(sentinel).is_integer() and info.min <= sentinel <= info.max
    return int(sentinel) if held and sentinel is not None else 0
