"""What one training is told, read from a TOML file into frozen facts. Opens no raster, builds no network.

Every table of the file is a class of this folder; its keys are the class's fields. An unknown key is refused, with the
one that was probably meant.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from models.errors import SwatheError, TrainingError
from models.metadata import ClassInfo

from .data import DataSet
from .fitting import Augment, Chips, Loop, Loss, Network
from .typed import change, made, require

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


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
        require(_is_name(self.name), "name", repr(self.name), "letters, digits, '-', '_' and '.'")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"from 0 to {2**32 - 1}")
        require(self.dtype in ("", *DTYPES), "dtype", repr(self.dtype), f"one of {', '.join(DTYPES)}")
        low, high = self.resolution or (1.0, 1.0)
        require(0 < low <= high < inf, "resolution", [low, high], "two numbers of metres above 0, smaller first")
        names = [info.name for info in self.classes]
        require(len(names) >= 2, "classes", names, "two or more, the background first")
        for what, given in (("bands", self.bands), ("classes", names)):
            twice = sorted({name for name in given if list(given).count(name) > 1})
            require(not twice, what, ", ".join(twice), "each name once")
        colors = [info.color.upper() for info in self.classes]
        twice = sorted({color for color in colors if colors.count(color) > 1})
        require(not twice, "classes", ", ".join(twice), "each colour once")
        require(bool(self.bands) and all(self.bands), "bands", list(self.bands), "one name or more")
        require(bool(self.data), "data", "no set", "one [[data]] table or more")
        weights = self.loss.class_weights
        fits = weights == "balanced" or len(weights) in (0, len(names))
        require(fits, "loss.class_weights", list(weights), f"one per class, {len(names)}")

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
