"""Metadata of a bundle beside its weights: bands, scaling, classes, receptive field, resolution. No files, no torch.

The contract between training and inference: which bands in which units, at which resolution, into which classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, get_args

from .errors import BundleError

Activation = Literal["softmax", "sigmoid"]
ScalingKind = Literal["z-score", "min-max", "scale"]
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # of a band's raw training values
BACKGROUNDS = {
    "background", "bg", "none", "nothing", "no data", "other", "others", "clear", "ground", "rest", "unclassified",
    "unlabeled", "unlabelled",
}  # fmt: skip
NO_CLASS = "nodata"  # the name under which pixels of no class are counted
OF_TRAINING = {"config", "seed", "pixels", "date", "torch", "lightning", "best step", "command"}  # of a provenance
LONGEST_OPTIONS = 2000  # characters; a list of a million widths must not be built
MOST_CLASSES = 255  # a class map is uint8, and 255 is nodata


@dataclass(frozen=True, slots=True)
class Scaling:
    """Raw pixel values to network inputs, one affine step per band, named as in the STAC extension for models (MLM).

    Parameters
    ----------
    kind
        `z-score`: (value - mean) / stddev. `min-max`: (value - minimum) / (maximum - minimum). `scale`: value / value0.
    first
        Per band: the mean, the minimum, or 0 (`scale`).
    second
        Per band: the standard deviation, the maximum, or the divisor.
    """

    kind: ScalingKind
    first: tuple[float, ...]
    second: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScalingKind):
            raise BundleError(f"unknown scaling {self.kind!r}; known: {', '.join(get_args(ScalingKind))}")
        if len(self.first) != len(self.second):
            raise BundleError(f"scaling has {len(self.first)} and {len(self.second)} numbers; give one per band")
        if not all(isfinite(v) for v in (*self.first, *self.second)) or 0 in self.divisor:
            raise BundleError(f"scaling {self.kind} has a number that is not finite, or divides by zero")

    @property
    def offset(self) -> tuple[float, ...]:
        """Per band: what is subtracted first."""
        return tuple(0.0 for _ in self.first) if self.kind == "scale" else self.first

    @property
    def divisor(self) -> tuple[float, ...]:
        """Per band: what is divided by afterwards."""
        if self.kind == "min-max":
            return tuple(high - low for low, high in zip(self.first, self.second, strict=True))
        return self.second


def z_score(mean: Sequence[float], stddev: Sequence[float]) -> Scaling:
    """Scale by mean and standard deviation.

    Parameters
    ----------
    mean, stddev
        In raw pixel values, one of each per band.
    """
    return Scaling("z-score", tuple(mean), tuple(stddev))


def min_max(minimum: Sequence[float], maximum: Sequence[float]) -> Scaling:
    """Scale minimum to 0 and maximum to 1.

    Parameters
    ----------
    minimum, maximum
        In raw pixel values, one of each per band.
    """
    return Scaling("min-max", tuple(minimum), tuple(maximum))


def divide(value: Sequence[float]) -> Scaling:
    """Divide by a number.

    Parameters
    ----------
    value
        One per band, as 255 or 65535 in many articles.
    """
    return Scaling("scale", tuple(0.0 for _ in value), tuple(value))


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The receptive field of a network's outputs, and its stride.

    Parameters
    ----------
    stride
        Pixels by which the input must be shifted for the output to shift along; input sizes are multiples of it.
    radius
        An output pixel depends on no input pixel further away than this, in rows or columns. None: there is no bound
        (instance norm, squeeze-and-excitation, global pooling: every output sees the whole input).
    """

    stride: int
    radius: int | None

    @property
    def halo(self) -> int | None:
        """The exact halo: the radius rounded up to the stride, in pixels per side. None where there is none."""
        return None if self.radius is None else -(-self.radius // self.stride) * self.stride


@dataclass(frozen=True, slots=True)
class Radiometry:
    """What a band's raw values mean: value * scale + offset is in `unit`.

    Parameters
    ----------
    scale, offset
        Finite; `scale` is not 0.
    unit
        `reflectance` (0 to 1), `radiance`, `dB`, `K`, or another word; empty: not said.
    """

    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not isfinite(self.scale) or not isfinite(self.offset) or self.scale == 0:
            raise BundleError(f"a scale of {self.scale} and an offset of {self.offset} make no values")


@dataclass(frozen=True, slots=True)
class Band:
    """One input band of a network.

    Parameters
    ----------
    name
        By which scenes' bands are found.
    mean
        The raw value that stands in for missing pixels.
    radiometry
        What the raw training values mean. None: not known.
    quantiles
        Of the raw training values, at `QUANTILES`. Empty: not known.
    """

    name: str
    mean: float
    radiometry: Radiometry | None = None
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class: its name and colour `RRGGBB`. Its value in the class map is its place in the list."""

    name: str
    color: str

    def __post_init__(self) -> None:
        if len(self.color) != 6 or any(c not in "0123456789abcdefABCDEF" for c in self.color):
            raise BundleError(f"class {self.name!r} has the colour {self.color!r}; give six hex digits, as FF8800")

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour as three numbers from 0 to 255."""
        red, green, blue = bytes.fromhex(self.color)
        return red, green, blue


@dataclass(frozen=True, slots=True)
class BundleMetadata:
    """All that inference needs of a trained network beside its weights.

    Parameters
    ----------
    name
        Letters, digits, `-`, `_` and `.`.
    architecture, options
        For `models.build.build`.
    bands
        The bands in the network's order.
    dtype
        Numeric type of the raw pixels that the scaling is for, as in `uint8`.
    scaling
        Raw value to network input, per band.
    classes
        In order of their values.
    activation
        `softmax` or `sigmoid`.
    receptive_field
        Stride and radius, as measured by `measure_receptive_field`.
    resolution
        Metres per pixel of the training images, finest and coarsest. None: unknown.
    patch
        Side of the training chips, in pixels.
    background
        Name of the class that is no object: what pixels become that are below a threshold or are removed. None: all
        classes are of equal standing. Left out: as `usual_background` has it.
    thresholds
        The decision: a pixel takes the likeliest class but the background, where its probability is above the class's
        number here; else the background. By name, for every class but the background. Empty: the likeliest class.
    description, provenance, metrics
        For people: what it is, from which data and under which licence, how well it does and where.
    """

    name: str
    architecture: str
    options: Mapping[str, Any]
    bands: tuple[Band, ...]
    dtype: str
    scaling: Scaling
    classes: tuple[ClassInfo, ...]
    receptive_field: ReceptiveField
    activation: Activation = "softmax"
    resolution: tuple[float, float] | None = None
    patch: int = 512
    background: str | None = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bands, classes = len(self.bands), len(self.classes)
        if self.background == "":
            object.__setattr__(self, "background", usual_background(self.class_names))
        if not self.name.strip(".") or not all(c.isalnum() or c in "-_." for c in self.name):
            raise BundleError(f"a bundle's name is letters, digits, '-', '_' and '.'; received {self.name!r}")
        if not bands or len({b.name for b in self.bands}) != bands:
            raise BundleError(f"a bundle needs bands of different names; received {[b.name for b in self.bands]}")
        if len(self.scaling.first) != bands:
            raise BundleError(f"{bands} bands, but scaling for {len(self.scaling.first)}: give one per band")
        if not 2 <= classes <= MOST_CLASSES or len({c.name for c in self.classes}) != classes:
            raise BundleError(f"a bundle needs 2 to {MOST_CLASSES} classes of different names; received {classes}")
        if said := unusable_name(self.class_names):
            raise BundleError(said)
        reserved = {"architecture", "bands", "classes"} & set(self.options)
        if reserved or len(str(self.options)) > LONGEST_OPTIONS:
            raise BundleError("the network's options are too long, or name what is not an option")
        if self.activation not in ("softmax", "sigmoid"):
            raise BundleError(f"unknown activation {self.activation!r}; known: softmax, sigmoid")
        if not all(isfinite(b.mean) for b in self.bands):
            raise BundleError("a band's mean is not a finite number")
        if any(b.quantiles and len(b.quantiles) != len(QUANTILES) for b in self.bands):
            raise BundleError(f"a band's quantiles are {len(QUANTILES)} numbers, at {QUANTILES}")
        if self.background is not None and self.background not in self.class_names:
            raise BundleError(
                f"the background {self.background!r} is none of the classes {', '.join(self.class_names)}"
            )
        if self.thresholds:
            check_thresholds(self.thresholds, self.class_names, self.background_value)

    def __repr__(self) -> str:
        bands, classes = map(some_of, (self.band_names, self.class_names))
        return f"<{self.name}, {self.architecture}: {bands} ({self.dtype}) to {classes}>"

    @property
    def background_value(self) -> int | None:
        """Value of the background in the class map; None where there is none."""
        return None if self.background is None else self.class_names.index(self.background)

    @property
    def channels(self) -> int:
        """Output channels of the network: one for a two-class sigmoid, else one per class."""
        return 1 if self.activation == "sigmoid" and len(self.classes) == 2 else len(self.classes)

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in the network's order."""
        return tuple(band.name for band in self.bands)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their values."""
        return tuple(info.name for info in self.classes)

    @property
    def about(self) -> dict[str, Any]:
        """What a result should say of its network: description, scores, and data with their licences and credits."""
        origin = {key: value for key, value in self.provenance.items() if key not in OF_TRAINING}
        told = {"description": self.description, "metrics": dict(self.metrics), "provenance": origin}
        return {key: value for key, value in told.items() if value}


def some_of(names: Sequence[str], most: int = 8) -> str:
    """Return the first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def unusable_name(class_names: Sequence[str]) -> str:
    """Say that a class is called as what is no class at all, in maps and in counts of pixels; empty: none is."""
    taken = next((name for name in class_names if name.strip().lower() == NO_CLASS), None)
    return "" if taken is None else f"a class cannot be called {taken!r}, which is what was not observed; rename it"


def usual_background(class_names: Sequence[str]) -> str | None:
    """Return the class that is the background where nothing says so.

    It is the first one of two, or where its name is a common word for background; else there is none.
    """
    first = class_names[0] if class_names else ""
    return first if len(class_names) == 2 or first.strip().lower() in BACKGROUNDS else None


def named_background(given: str | Literal[False] | None, class_names: Sequence[str]) -> str | None:
    """Return the class that is said to be the background.

    Parameters
    ----------
    given
        Its name. `none`, if no class is called so, or False: there is none. None: as `usual_background` has it.
    class_names
        By value.

    Raises
    ------
    BundleError
        No class has that name.
    """
    if given is None:
        return usual_background(class_names)
    if given in class_names:
        return str(given)
    if given is False or given == "none":
        return None
    raise BundleError(f"the background is one of the classes {', '.join(class_names)}, or none; received {given!r}")


def check_thresholds(thresholds: Mapping[str, float], class_names: Sequence[str], background: int | None) -> None:
    """Refuse thresholds that are not one probability for each class but the background. Raises BundleError."""
    if background is None:
        raise BundleError("thresholds need a background, which pixels below them become; there is none")
    foreground = [name for value, name in enumerate(class_names) if value != background]
    if set(thresholds) != set(foreground):
        raise BundleError(
            f"thresholds are one for each class but the background ({', '.join(foreground)}); "
            f"received {', '.join(thresholds) or 'none'}"
        )
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise BundleError(f"a threshold is a probability from 0 to 1; received {value} for {name!r}")
