"""A training that has not begun: samples found, their statistics computed. Learns nothing, writes nothing."""

from dataclasses import dataclass
from typing import Any

from models.errors import TrainingError

from ..config import Settings
from ..data.augment import Augmentation
from ..data.chips import GridChips, RandomChips
from ..data.datasets import gather
from ..data.samples import Parts
from ..data.statistics import DatasetStatistics, compute_statistics, means_of
from .module import round_up
from .trainer import check_devices


@dataclass(frozen=True)
class Training:
    """A training that has not begun: samples found, their statistics computed.

    Parameters
    ----------
    settings
        See `Settings`.
    parts
        The samples.
    statistics
        Of the training's samples.
    chips, grid
        What is learnt from, and validated on.
    """

    settings: Settings
    parts: Parts
    statistics: DatasetStatistics
    chips: RandomChips
    grid: GridChips

    @property
    def epochs(self) -> int:
        """How many epochs it has."""
        return round_up(self.settings.loop.steps, self.settings.loop.check_every) // self.settings.loop.check_every

    @property
    def images(self) -> dict[str, Any]:
        """What was found in the images, as JSON values: others have other values, or other pixels of some class."""
        return {
            "pixels": dict(zip(self.settings.class_names, self.statistics.class_pixels.tolist(), strict=True)),
            "mean": means_of(self.statistics.bands.mean.tolist()),
            "stddev": means_of(self.statistics.bands.stddev.tolist()),
        }

    def describe(self, numbers: list[int]) -> str:
        """Name chips with their files, for messages."""
        places = [self.chips.place(number) for number in numbers[:8]]
        texts = [f"{self.parts['train'][p.sample].paths[0]} rows {p.window.top}-{p.window.bottom}, "
                 f"columns {p.window.left}-{p.window.right}" for p in places]  # fmt: skip
        return "; ".join(texts)


def prepare(settings: Settings, *, show: bool = True) -> Training:
    """Find and compute all that a training needs. What can be refused is refused here; nothing is written.

    Raises
    ------
    SwatheError
        Files, labels or settings that do not fit.
    """
    check_devices(settings.loop, settings.chips.batch)
    parts = gather(settings)
    if not parts["train"]:
        raise TrainingError("no sample to learn from; name some in data.train")
    return training_of(settings, parts, compute_statistics(parts["train"], len(settings.classes), show=show))


def training_of(settings: Settings, parts: Parts, statistics: DatasetStatistics) -> Training:
    """As `prepare`, for samples that are found, with their statistics."""
    _check_classes(statistics, settings)
    loop, chips = settings.loop, settings.chips
    augment = Augmentation(settings.augment, statistics.bands)
    means = means_of(statistics.bands.mean.tolist())
    count = round_up(loop.steps, loop.check_every) * loop.accumulate * chips.batch
    drawn = RandomChips(parts["train"], statistics.cells, means, chips, augment, settings.seed, count)
    return Training(settings, parts, statistics, drawn, GridChips(parts["validate"], means, chips.size))


def _check_classes(statistics: DatasetStatistics, settings: Settings) -> None:
    seen = [name for name, count in zip(settings.class_names, statistics.class_pixels.tolist(), strict=True) if count]
    if len(seen) < 2:
        what = f"only the class {seen[0]!r}" if seen else "no labelled pixel"
        raise TrainingError(f"the training images hold {what}; a network learns to tell two or more classes apart")
