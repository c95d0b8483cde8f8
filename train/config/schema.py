"""Schema of a training's settings: the tables `[[data]]`, `[network]`, `[chips]`, `[augment]`, `[loss]` and `[loop]`.

Frozen dataclasses whose fields are the keys of the TOML file, each checked for its range.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Literal

from models.errors import TrainingError
from models.metadata import Radiometry

PARTS = ("train", "validate", "test")  # of samples
IGNORE = 255  # the label of a pixel that nobody labelled, or that the scene did not observe
Layout = Literal["scenes", "38-cloud", "massachusetts", "folders"]


@dataclass(frozen=True, slots=True)
class Split:
    """How samples named in `train` are shared out, where `validate` and `test` name none.

    Parameters
    ----------
    by
        `blocks`: fold blocks, squares of each sample, so that neighbours never straddle two parts. `scenes`: whole
        samples.
    side
        Of a fold block, in pixels.
    validate, test
        Shares, from 0 to 1.
    gap
        Pixels along a fold block's sides next to another part that belong to neither.
    """

    by: Literal["blocks", "scenes"] = "blocks"
    side: int = 512
    validate: float = 0.2
    test: float = 0.0
    gap: int = 0

    def __post_init__(self) -> None:
        require(self.side >= 1, "data.split.side", self.side, "at least 1")
        require(0 <= self.validate < 1, "data.split.validate", self.validate, "from 0 to below 1")
        require(0 <= self.test < 1 - self.validate, "data.split.test", self.test, "from 0 to below 1 - validate")
        require(0 <= self.gap < self.side / 2, "data.split.gap", self.gap, "from 0 to below half of side")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One set of images with their labels, of one layout.

    Parameters
    ----------
    root
        Folder; in a file, relative to that file.
    layout
        `scenes`: `image` and `label` are patterns with `{name}`. `38-cloud` (also 95-Cloud), `massachusetts` and
        `folders`: as those sets are published; see `layouts`.
    image, label
        Patterns below `root`. Several images: one file per band. A pattern that ends in `/`, `.SAFE` or `.zarr` is of
        folders, each a scene. A label is a raster of any CRS, or a vector file.
    bands
        Numbers or names of the files' bands, in the order of the network's. Empty: the first ones.
    resampling
        How bands of coarser pixels are brought onto the finest grid of those taken.
    alpha
        Whether bands of images that are tagged as alpha are masks. None: by their values.
    values
        Label value to class name. Empty: a class's value is its place in the list.
    colors
        True: masks are coded with the classes' colours. A path: with those of this table (`name,r,g,b`). False: with
        values. None: with values, but palettes that hold the classes' colours are read by colour.
    attribute, burn
        Of vector labels: the column that names the class, or the one class of all.
    layer
        Of vector labels: which layer, where a file has several.
    width
        Of vector labels: how wide lines and points are drawn; a number of metres, or of pixels as `3 px`.
    unlabelled
        What pixels are outside the labels' coverage, that is under no polygon, or under a label raster's nodata or
        beyond its edge: `background`, or `ignore`. None: `background` for vectors if there is one, else `ignore`.
    ignore
        Label values, or colours as hex digits, that count neither in loss nor in scores.
    nodata
        `white`, `zero` or a number: a pixel with this value in every band is not observed.
    gain, offset
        Raw value * gain + offset brings this set to the radiometry of the others, where nothing says what values mean.
    radiometry
        What this set's values mean: a table of `scale`, `offset` and `unit` (value * scale + offset is in the unit), or
        one for each band. It wins over what files say. None: as they say. See `train.data.radiometry`.
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
    resampling: Literal["nearest", "bilinear", "cubic"] = "nearest"
    alpha: bool | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    colors: bool | str | None = None
    attribute: str = ""
    burn: str = ""
    layer: str = ""
    width: float | str | None = None
    unlabelled: Literal["background", "ignore"] | None = None
    ignore: tuple[int | str, ...] = ()
    nodata: Literal["white", "zero"] | float | None = None
    gain: float = 1.0
    offset: float = 0.0
    radiometry: tuple[Radiometry, ...] | Radiometry | None = None
    train: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: Split | None = None

    def __post_init__(self) -> None:
        require(isfinite(self.gain) and self.gain != 0, "data.gain", self.gain, "a number other than 0")
        require(isfinite(self.offset), "data.offset", self.offset, "a number")
        if self.radiometry is not None and (self.gain, self.offset) != (1.0, 0.0):
            raise TrainingError("a set has gain and offset, and radiometry too: give one of them")
        if self.split and (self.validate or self.test):
            raise TrainingError("a set has validate or test names, and a split too: give one of them")


def require(good: bool, name: str, received: object, wanted: str) -> None:
    """Refuse a value. Raises TrainingError, with what was received and what is wanted."""
    if not good:
        raise TrainingError(f"{name} is {received}; it must be {wanted}")


@dataclass(frozen=True, slots=True)
class Network:
    """Which network is trained, and from which weights.

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
        require(0 < self.encoder_rate <= 1, "network.encoder_rate", self.encoder_rate, "above 0, at most 1")
        require(self.freeze >= 0, "network.freeze", self.freeze, "true, false or a number of epochs")


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
        require(8 <= self.size <= 8192, "chips.size", self.size, "from 8 to 8192")
        require(1 <= self.batch <= 4096, "chips.batch", self.batch, "from 1 to 4096")
        low, high = self.zoom
        require(0.1 <= low <= high <= 10, "chips.zoom", list(self.zoom), "two numbers from 0.1 to 10, smaller first")
        require(0 <= self.workers <= 64, "chips.workers", self.workers, "from 0 to 64")


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
            require(0 <= getattr(self, name) <= 5, f"augment.{name}", getattr(self, name), "from 0 to 5")
        require(0 <= self.drop_band < 1, "augment.drop_band", self.drop_band, "from 0 to below 1")


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised.

    Parameters
    ----------
    name
        See `losses`.
    class_weights
        Of cross-entropy and focal loss, one per class. Empty: equal. `balanced`: the rarer a class in the training
        samples, the more.
    label_smoothing
        Of cross-entropy, from 0 to below 1.
    gamma
        Of focal loss.
    """

    name: Literal["dice", "cross-entropy", "focal", "dice+cross-entropy", "lovasz"] = "dice+cross-entropy"
    class_weights: tuple[float, ...] | Literal["balanced"] = ()
    label_smoothing: float = 0.0
    gamma: float = 2.0

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, "loss.label_smoothing", self.label_smoothing, "from 0 to below 1")
        require(0 <= self.gamma <= 10, "loss.gamma", self.gamma, "from 0 to 10")
        weights = self.class_weights
        sound = weights == "balanced" or all(0 < weight < inf for weight in weights)
        require(sound, "loss.class_weights", list(weights), "numbers above 0")


@dataclass(frozen=True, slots=True)
class Loop:
    """How long to train, and at which learning rate.

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
        require(self.steps >= 1, "loop.steps", self.steps, "at least 1")
        require(self.check_every >= 1, "loop.check_every", self.check_every, "at least 1")
        require(0 < self.learning_rate <= 1, "loop.learning_rate", self.learning_rate, "above 0, at most 1")
        require(0 <= self.weight_decay < 1, "loop.weight_decay", self.weight_decay, "from 0 to below 1")
        require(0 < self.warmup < 1, "loop.warmup", self.warmup, "between 0 and 1")
        require(0 <= self.ema < 1, "loop.ema", self.ema, "from 0 to below 1")
        require(self.clip >= 0, "loop.clip", self.clip, "0 or more")
        for name in ("accumulate", "keep", "devices"):
            require(getattr(self, name) >= 1, f"loop.{name}", getattr(self, name), "at least 1")
        require(self.patience >= 0, "loop.patience", self.patience, "0 or more")
        require(0 <= self.threads <= 1024, "loop.threads", self.threads, "from 0 to 1024")
