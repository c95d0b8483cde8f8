"""Settings of one training, read from a TOML file into frozen dataclasses. Opens no raster, builds no network.

Every table of the file is a class of `schema`; its keys are the class's fields. Every key and value is checked, and
named where it is wrong; an unknown key is refused, with the one that was probably meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from models.errors import SwatheError, TrainingError
from models.limits import LARGEST_TOML, parse_toml, read_small
from models.metadata import ClassInfo, Radiometry, named_background, unusable_name, usual_background
from models.tables import from_table

from .schema import Augment, Chips, DataSet, Loop, Loss, Network, require

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Settings:
    """All of one training.

    Parameters
    ----------
    name
        Of the bundle that comes out.
    bands, classes
        What goes in and comes out.
    data
        Where from.
    background
        Name of the class that is no object: what pixels become that are below a threshold or are removed, and what may
        lie outside labels. `none`, if no class is called so, or False: all classes are of equal standing. Left out: the
        first of two classes, or one whose name is a common word for background, as `other`; else it must be said.
    dtype
        Of raw values, for the bundle. Empty: the first training image's; `float32` where sets are brought to one
        radiometry.
    radiometry
        What values mean, for the bundle and all sets: a table of `scale`, `offset` and `unit`, or one for each band.
        None: as the first set that says it.
    resolution
        Metres per pixel that this is for, finest and coarsest. None: unknown.
    path
        The file that these came from; paths in it are relative to its folder.
    """

    name: str
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    data: tuple[DataSet, ...]
    background: str | bool | None = None
    description: str = ""
    dtype: str = ""
    radiometry: tuple[Radiometry, ...] | Radiometry | None = None
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
        name = all(letter.isalnum() or letter in "-_." for letter in self.name)
        require(bool(self.name) and name, "name", repr(self.name), "letters, digits, '-', '_' and '.'")
        require(0 <= self.seed < 2**32, "seed", self.seed, f"from 0 to {2**32 - 1}")
        require(self.dtype in ("", *DTYPES), "dtype", repr(self.dtype), f"one of {', '.join(DTYPES)}")
        low, high = self.resolution or (1.0, 1.0)
        require(0 < low <= high < inf, "resolution", [low, high], "two numbers of metres above 0, smaller first")
        names = [info.name for info in self.classes]
        require(len(names) >= 2, "classes", names, "two or more")
        for what, given in (("bands", self.bands), ("classes", names)):
            twice = sorted({name for name in given if list(given).count(name) > 1})
            require(not twice, what, ", ".join(twice), "each name once")
        if said := unusable_name(names):
            raise TrainingError(said)
        colors = [info.color.upper() for info in self.classes]
        twice = sorted({color for color in colors if colors.count(color) > 1})
        require(not twice, "classes", ", ".join(twice), "each colour once")
        require(bool(self.bands) and all(self.bands), "bands", list(self.bands), "one name or more")
        require(bool(self.data), "data", "no set", "one [[data]] table or more")
        weights = self.loss.class_weights
        fits = weights == "balanced" or len(weights) in (0, len(names))
        require(fits, "loss.class_weights", list(weights), f"one per class, {len(names)}")
        self._check_background(names)

    def _check_background(self, names: Sequence[str]) -> None:
        """Refuse a background that is no class, or is not said and cannot be told; and what needs one without it."""
        said = f'a class\'s name, of {", ".join(names)}, or "none" where all classes are of equal standing'
        fits = self.background in (None, False, "none", *names)
        require(fits, "background", repr(self.background), said)
        if self.background is None and usual_background(names) is None:
            raise TrainingError(
                f"which class is the background is not said: give background = {said} (--background NAME)"
            )
        if self.background_name is None and any(data.unlabelled == "background" for data in self.data):
            raise TrainingError(
                "data.unlabelled is 'background', but there is none: say which class it is, or give 'ignore'"
            )

    @property
    def background_name(self) -> str | None:
        """Name of the background; None: there is none."""
        given = self.background
        return named_background(None if given is None else str(given) if given else False, self.class_names)

    @property
    def background_value(self) -> int | None:
        """Value of the background; None: there is none."""
        name = self.background_name
        return None if name is None else self.class_names.index(name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their values."""
        return tuple(info.name for info in self.classes)

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return Path(self.path).parent if self.path else Path()


def read_settings(path: str | Path, changes: Sequence[str] = ()) -> Settings:
    """Read a training's settings.

    Parameters
    ----------
    path
        A TOML file whose tables are the classes of `schema`: `[[data]]`, `[data.split]`, `[network]`, `[chips]`,
        `[augment]`, `[loss]`, `[loop]`, `[provenance]`; see train/configs.
    changes
        Changes to the file: `loop.steps=500`, `data.0.root="elsewhere"`; values as in TOML, or bare text.

    Raises
    ------
    TrainingError
        Not TOML; a key that is unknown, missing, or of a value that makes no sense.
    """
    try:
        raw = parse_toml(read_small(path, LARGEST_TOML, TrainingError))
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TrainingError(f"{path} is not TOML: {error}") from error
    return settings_of(raw, str(path), changes)


def settings_of(raw: dict[str, Any], path: str = "", changes: Sequence[str] = ()) -> Settings:
    """Return the settings of a training, checked.

    Parameters
    ----------
    raw
        What a TOML file holds, as a dict.
    path
        Of that file: relative paths begin in its folder, and errors name it. Empty: the working directory.
    changes
        `KEY=VALUE`, as `loop.steps=500`.

    Raises
    ------
    TrainingError
        A key is unknown or missing, or a value makes no sense; the message names the file and the key.
    """
    try:
        for text in changes:
            apply_change(raw, text)
        settings: Settings = from_table(Settings, {**raw, "path": path}, "")
    except SwatheError as error:
        raise TrainingError(f"{path}: {error}" if path else str(error)) from error
    return settings


def apply_change(raw: dict[str, Any], text: str) -> None:
    """Put one value, `key.key=value`, into what a file holds. Raises TrainingError where it names nothing."""
    name, equals, value = text.partition("=")
    *path, key = name.strip().split(".")
    if not equals or not key:
        raise TrainingError(f"{text!r} changes nothing; give KEY=VALUE, as loop.steps=500")
    table: Any = raw
    try:
        for part in path:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        table[key] = _toml_value(value)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise TrainingError(f"{name!r} names no setting; sets of data go by number, as data.0.root") from error


def _toml_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text.strip()
