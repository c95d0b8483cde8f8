"""What one training is told, read from a TOML file into frozen facts. Opens no raster, builds no network."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.errors import SwatheError
from models.facts import ClassInfo


@dataclass(frozen=True, slots=True)
class Chips:
    """How chips are drawn and varied.

    Parameters
    ----------
    size
        Side of a chip in pixels.
    batch
        Chips per step.
    zoom
        Smallest and largest ground size of a chip's pixel, relative to its scene's.
    gain, bias, gamma
        Largest change per band: gain and gamma as a factor `exp(±g)`, bias in standard deviations.
    """

    size: int = 256
    batch: int = 8
    zoom: tuple[float, float] = (1.0, 1.0)
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0


@dataclass(frozen=True, slots=True)
class Loop:
    """How long and how fast to learn.

    Parameters
    ----------
    steps
        Batches in all.
    minutes
        End by the clock where that comes first; the learning rate then falls with the clock, and the same seed no
        longer gives the same weights. 0: no such end.
    learning_rate, weight_decay
        AdamW's; the learning rate is the peak of one cycle.
    ema
        Decay of the running mean of the weights, which is what is scored and kept. 0: the weights themselves.
    check_every
        Steps between looks at the validation scenes.
    bf16
        Compute in bfloat16 where that is safe: twice as fast on processors that have it.
    threads
        Threads of torch.
    """

    steps: int = 1000
    minutes: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    ema: float = 0.995
    check_every: int = 100
    bf16: bool = False
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """All of one training.

    Scene `name` of `train`, `validate` and `test` is the files name + suffix in the folder `data`.
    """

    name: str
    data: str
    train: tuple[str, ...]
    validate: tuple[str, ...]
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    test: tuple[str, ...] = ()
    image_suffix: str = "_image.tif"
    label_suffix: str = "_label.tif"
    architecture: str = "simple-unet"
    options: Mapping[str, Any] = field(default_factory=dict)
    resolution: tuple[float, float] | None = None
    description: str = ""
    seed: int = 0
    chips: Chips = field(default_factory=Chips)
    loop: Loop = field(default_factory=Loop)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def read_settings(path: Path) -> Settings:
    """Read a training's settings.

    Parameters
    ----------
    path
        A TOML file with the names of `Settings`; `chips`, `loop`, `options` and `provenance` are tables.

    Raises
    ------
    SwatheError
        Not TOML, or a name that is unknown or missing.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SwatheError(f"{path} cannot be read as settings: {error}") from error
    try:
        raw["classes"] = tuple(ClassInfo(**item) for item in raw["classes"])
        raw["chips"] = Chips(**_tuples(raw.get("chips", {})))
        raw["loop"] = Loop(**raw.get("loop", {}))
        return Settings(**_tuples(raw))
    except (KeyError, TypeError) as error:
        known = ", ".join(item.name for item in fields(Settings))
        raise SwatheError(f"{path}: {error}. Known names: {known}") from error


def _tuples(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
