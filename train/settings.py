"""What one training is told, read from a TOML file into frozen facts. Opens no raster, builds no network.

Every table of the file is a class here; its keys are the class's fields. An unknown key is refused, with the one that
was probably meant.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

from models.errors import SwatheError, TrainingError
from models.facts import ClassInfo

from .typed import change, made

Layout = Literal["scenes", "38-cloud", "massachusetts", "folders"]
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
NO_NAMES: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """How samples named in `train` are shared out, where `validate` and `test` name none.

    Parameters
    ----------
    by
        `blocks`: squares of each sample, so that neighbours never straddle two parts. `scenes`: whole samples.
    side
        Of a block, in pixels.
    validate, test
        Parts, from 0 to 1.
    gap
        Pixels along a block's sides next to another part that belong to neither.
    """

    by: Literal["blocks", "scenes"] = "blocks"
    side: int = 512
    validate: float = 0.2
    test: float = 0.0
    gap: int = 0

    def __post_init__(self) -> None:
        _check(self.side >= 1, "data.split.side", self.side, "at least 1")
        _check(0 <= self.validate < 1, "data.split.validate", self.validate, "from 0 to below 1")
        _check(0 <= self.test < 1 - self.validate, "data.split.test", self.test, "from 0 to below 1 - validate")
        _check(0 <= self.gap < self.side / 2, "data.split.gap", self.gap, "from 0 to below half of side")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One set of images with their labels, of one layout.

    Parameters
    ----------
    root
        Folder; in a file, relative to that file.
    layout
        `scenes`: `image` and `label` are patterns with `{name}`. `38-cloud` (also 95-Cloud), `massachusetts` and
        `folders`: as those sets are published; see `folders`.
    image, label
        Patterns below `root`. Several images: one file per band. A label is a raster of any CRS, or a vector file.
    bands
        Numbers or names of the files' bands, in the order of the network's. Empty: the first ones.
    values
        Label value to class name. Empty: a class's value is its place in the list.
    colors
        True: masks are coded with the classes' colours. A path: with those of this table (`name,r,g,b`).
    attribute, burn
        Of vector labels: the column that names the class, or the one class of all.
    unlabelled
        What pixels are outside the labels' coverage, that is under no polygon, or under a label raster's nodata or
        beyond its edge: `background`, or `ignore`. None: `background` for vectors, `ignore` for rasters.
    ignore
        Label values, or colours as hex digits, that count neither in loss nor in scores.
    nodata
        `white`, `zero` or a number: a pixel with this value in every band is not observed.
    gain, offset
        Raw value * gain + offset brings this set to the radiometry of the others.
    train, validate, test
        Names of samples, or patterns of names with `*`, `?` and `[...]`.
    split
        See `Split`.
    """

    root: str
    layout: Layout = "scenes"
    image: str | tuple[str, ...] = "{name}_image.tif"
    label: str = "{name}_label.tif"
    bands: tuple[int | str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    colors: bool | str = False
    attribute: str = ""
    burn: str = ""
    unlabelled: Literal["background", "ignore"] | None = None
    ignore: tuple[int | str, ...] = ()
    nodata: Literal["white", "zero"] | float | None = None
    gain: float = 1.0
    offset: float = 0.0
    train: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: Split | None = None

    def __post_init__(self) -> None:
        _check(isfinite(self.gain) and self.gain != 0, "data.gain", self.gain, "a number other than 0")
        _check(isfinite(self.offset), "data.offset", self.offset, "a number")
        if self.split and (self.validate or self.test):
            raise TrainingError("a set has validate or test names, and a split too: give one of them")


@dataclass(frozen=True, slots=True)
class Network:
    """Which network learns, and from which weights.

    Parameters
    ----------
    architecture, options
        For `models.build.build`.
    weights
        Begin with these: a bundle's name or path, a file of weights (`.safetensors`, `.pth`), or `hub` for what
        segmentation-models-pytorch fetches for the encoder. Empty: fresh.
    freeze
        Whether the encoder stays as it is; a whole number unfreezes it after that many epochs.
    encoder_rate
        The encoder's learning rate as a part of the others'.
    """

    architecture: str = "smp:Unet"
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    freeze: bool | int = False
    encoder_rate: float = 1.0

    def __post_init__(self) -> None:
        _check(0 < self.encoder_rate <= 1, "network.encoder_rate", self.encoder_rate, "above 0, at most 1")
        _check(self.freeze >= 0, "network.freeze", self.freeze, "true, false or a number of epochs")


@dataclass(frozen=True, slots=True)
class Chips:
    """How chips are drawn.

    Parameters
    ----------
    size
        Side of a chip in pixels, as the network sees it.
    batch
        Chips per step.
    zoom
        Smallest and largest ground size of a chip's pixel, relative to its scene's.
    draw
        Where: `class`, each class as likely as another at the pixel a chip is laid around; `area`, each labelled pixel.
    scenes
        `equal`: each sample as likely as another; `area`: by its labelled pixels.
    workers
        Processes that read chips ahead; 0: the training's own.
    """

    size: int = 256
    batch: int = 8
    zoom: tuple[float, float] = (1.0, 1.0)
    draw: Literal["class", "area"] = "class"
    scenes: Literal["equal", "area"] = "equal"
    workers: int = 0

    def __post_init__(self) -> None:
        _check(8 <= self.size <= 8192, "chips.size", self.size, "from 8 to 8192")
        _check(1 <= self.batch <= 4096, "chips.batch", self.batch, "from 1 to 4096")
        low, high = self.zoom
        _check(0.1 <= low <= high <= 10, "chips.zoom", list(self.zoom), "two numbers from 0.1 to 10, smaller first")
        _check(0 <= self.workers <= 64, "chips.workers", self.workers, "from 0 to 64")


@dataclass(frozen=True, slots=True)
class Augment:
    """How a chip is varied. Largest changes of each band; half of gain, bias and gamma is common to all bands.

    Parameters
    ----------
    flips, turns
        Mirror; turn by quarters.
    gain, gamma
        As a factor `exp(±g)`.
    bias
        In standard deviations of the band.
    noise
        Of white noise, in standard deviations; each chip draws its own from 0 to this.
    drop_band
        How likely a band is replaced by its mean; never all at once.
    """

    flips: bool = True
    turns: bool = True
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    drop_band: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "bias", "gamma", "noise"):
            _check(0 <= getattr(self, name) <= 5, f"augment.{name}", getattr(self, name), "from 0 to 5")
        _check(0 <= self.drop_band < 1, "augment.drop_band", self.drop_band, "from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Loss:
    """What is made small.

    Parameters
    ----------
    name
        See `losses`.
    class_weights
        Of cross-entropy and focal loss, one per class. Empty: equal.
    label_smoothing
        Of cross-entropy, from 0 to below 1.
    gamma
        Of focal loss.
    """

    name: Literal["dice", "cross-entropy", "focal", "dice+cross-entropy", "lovasz"] = "dice+cross-entropy"
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    gamma: float = 2.0

    def __post_init__(self) -> None:
        _check(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "from 0 to below 1")
        _check(0 <= self.gamma <= 10, "loss.gamma", self.gamma, "from 0 to 10")
        weights = self.class_weights
        _check(all(0 < weight < inf for weight in weights), "loss.class_weights", list(weights), "numbers above 0")


@dataclass(frozen=True, slots=True)
class Loop:
    """How long and how fast to learn.

    Parameters
    ----------
    steps
        Optimiser steps in all.
    check_every
        Steps of an epoch: at its end the network is validated and a checkpoint written.
    optimizer
        `adam` or `adamw`.
    learning_rate, weight_decay
        The learning rate is the schedule's peak.
    schedule, warmup
        `one-cycle` rises over the part `warmup` of all steps and falls as a cosine, `cosine` only falls.
    ema
        Decay of the running mean of the weights, which is what is validated and kept. 0: the weights themselves.
    precision
        `fp32`, `bf16` or `fp16` (mixed).
    clip
        Largest norm of a gradient; 0: any.
    accumulate
        Batches per optimiser step.
    patience
        Epochs without a better validation before training stops; 0: never.
    keep
        Best checkpoints kept, beside the last.
    threads
        Of torch on a CPU; 0: all. Bits may depend on it.
    device, devices
        `auto`, `cpu` or `cuda`; how many of them.
    channels_last, compile
        Memory layout of pixels; torch.compile.
    """

    steps: int = 1000
    check_every: int = 100
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    schedule: Literal["one-cycle", "cosine", "constant"] = "one-cycle"
    warmup: float = 0.1
    ema: float = 0.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    clip: float = 0.0
    accumulate: int = 1
    patience: int = 0
    keep: int = 1
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    channels_last: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        _check(self.steps >= 1, "loop.steps", self.steps, "at least 1")
        _check(self.check_every >= 1, "loop.check_every", self.check_every, "at least 1")
        _check(0 < self.learning_rate <= 1, "loop.learning_rate", self.learning_rate, "above 0, at most 1")
        _check(0 <= self.weight_decay < 1, "loop.weight_decay", self.weight_decay, "from 0 to below 1")
        _check(0 < self.warmup < 1, "loop.warmup", self.warmup, "between 0 and 1")
        _check(0 <= self.ema < 1, "loop.ema", self.ema, "from 0 to below 1")
        _check(self.clip >= 0, "loop.clip", self.clip, "0 or more")
        for name in ("accumulate", "keep", "devices"):
            _check(getattr(self, name) >= 1, f"loop.{name}", getattr(self, name), "at least 1")
        _check(self.patience >= 0, "loop.patience", self.patience, "0 or more")
        _check(0 <= self.threads <= 1024, "loop.threads", self.threads, "from 0 to 1024")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of one training.

    Parameters
    ----------
    name
        Of the bundle that comes out.
    bands, classes
        What goes in and comes out; the first class is the background.
    data
        Where from.
    dtype
        Of raw values, for the bundle. Empty: the first training image's.
    resolution
        Metres per pixel that this is for, finest and coarsest. None: unknown.
    path
        The file that these came from; paths in it are relative to its folder.
    """

    name: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    data: tuple[DataSet, ...]
    description: str = ""
    dtype: str = ""
    resolution: tuple[float, float] | None = None
    seed: int = 0
    network: Network = field(default_factory=Network)
    chips: Chips = field(default_factory=Chips)
    augment: Augment = field(default_factory=Augment)
    loss: Loss = field(default_factory=Loss)
    loop: Loop = field(default_factory=Loop)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""

    def __post_init__(self) -> None:
        _check(_is_name(self.name), "name", repr(self.name), "letters, digits, '-', '_' and '.'")
        _check(0 <= self.seed < 2**32, "seed", self.seed, f"from 0 to {2**32 - 1}")
        _check(self.dtype in ("", *DTYPES), "dtype", repr(self.dtype), f"one of {', '.join(DTYPES)}")
        low, high = self.resolution or (1.0, 1.0)
        _check(0 < low <= high < inf, "resolution", [low, high], "two numbers of metres above 0, smaller first")
        names = [info.name for info in self.classes]
        _check(len(names) >= 2, "classes", names, "two or more, the background first")
        for what, given in (("bands", self.bands), ("classes", names)):
            twice = sorted({name for name in given if list(given).count(name) > 1})
            _check(not twice, what, ", ".join(twice), "each name once")
        colors = [info.color.upper() for info in self.classes]
        twice = sorted({color for color in colors if colors.count(color) > 1})
        _check(not twice, "classes", ", ".join(twice), "each colour once")
        _check(bool(self.bands) and all(self.bands), "bands", list(self.bands), "one name or more")
        _check(bool(self.data), "data", "no set", "one [[data]] table or more")
        weights = self.loss.class_weights
        _check(len(weights) in (0, len(names)), "loss.class_weights", list(weights), f"one per class, {len(names)}")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their values."""
        return tuple(info.name for info in self.classes)

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return Path(self.path).parent if self.path else Path()


def _is_name(text: str) -> bool:
    return bool(text) and all(letter.isalnum() or letter in "-_." for letter in text)


def _check(good: bool, name: str, received: object, wanted: str) -> None:
    if not good:
        raise TrainingError(f"{name} is {received}; it must be {wanted}")


def read_settings(path: str | Path, changes: Sequence[str] = ()) -> Settings:
    """Read a training's settings.

    Parameters
    ----------
    path
        A TOML file whose tables are the classes of this file: `[[data]]`, `[data.split]`, `[network]`, `[chips]`,
        `[augment]`, `[loss]`, `[loop]`, `[provenance]`; see train/configs.
    changes
        What shall differ from the file: `loop.steps=500`, `data.0.root="elsewhere"`; values as in TOML, or bare text.

    Raises
    ------
    TrainingError
        Not TOML; a key that is unknown, missing, or of a value that makes no sense.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(f"{path} is not TOML: {error}") from error
    return settings_of(raw, str(path), changes)


def settings_of(raw: dict[str, Any], path: str = "", changes: Sequence[str] = ()) -> Settings:
    """Make settings of what a TOML file holds. Raises TrainingError, which names the file and the key."""
    try:
        for text in changes:
            change(raw, text)
        settings: Settings = made(Settings, {**raw, "path": path}, "")
    except SwatheError as error:
        raise TrainingError(f"{path}: {error}" if path else str(error)) from error
    return settings
