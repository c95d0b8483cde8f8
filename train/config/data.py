"""Where images and labels come from: the tables `[[data]]` and `[data.split]` of a training's settings. Facts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from models.errors import TrainingError

from .typed import require

Layout = Literal["scenes", "38-cloud", "massachusetts", "folders"]


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
        require(isfinite(self.gain) and self.gain != 0, "data.gain", self.gain, "a number other than 0")
        require(isfinite(self.offset), "data.offset", self.offset, "a number")
        if self.split and (self.validate or self.test):
            raise TrainingError("a set has validate or test names, and a split too: give one of them")
