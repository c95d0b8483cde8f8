"""Bands of a set's images: which of them the network has, by name where names are known, and what is said of it."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from models.errors import SceneError, TrainingError
from pipeline.io.band_names import contradicts
from pipeline.io.scene import UNNAMED, AnyOpen, band_hint, take_bands, take_named

from ..config import DataSet, Settings
from .layouts import Pair
from .samples import Sample

OpenSource = AnyOpen
WRONG_ORDER = ", although their names say otherwise"


@dataclass(frozen=True)
class ChosenBands:
    """An image with the bands that the network is to have, and how they were found."""

    pair: Pair
    source: OpenSource
    taken: OpenSource
    by_name: bool

    @property
    def as_they_lie(self) -> bool:
        """Whether these are the image's first bands, in their order."""
        return self.taken.bands == self.source.bands[: len(self.taken.bands)]


def refuse_unlike(data: DataSet, one: ChosenBands, other: ChosenBands) -> None:
    """Refuse images whose bands are not those of the first, unless both have them by name."""
    if one.by_name and other.by_name:
        return
    alike = one.source.bands == other.source.bands or (data.bands and all(isinstance(band, str) for band in data.bands))
    unnamed = any(all(UNNAMED.fullmatch(band) for band in image.source.bands) for image in (one, other))
    # bands without names may be the same in the same order, and not where the others were put into another
    order = bool(data.bands) or all(image.as_they_lie or not image.by_name for image in (one, other))
    if alike or (unnamed and order and len(one.source.bands) == len(other.source.bands)):
        return
    raise TrainingError(
        f"{one.pair.images[0]} has the bands {', '.join(one.source.bands)};\n"
        f"{other.pair.images[0]} has {', '.join(other.source.bands)}. Give bands by names that all have, or two sets"
    )


def choose_bands(pair: Pair, source: OpenSource, data: DataSet, settings: Settings) -> ChosenBands:
    """Take the bands that the network is to have: those that are named, else by the network's names, else the first.

    Raises
    ------
    TrainingError
        They are too few; there are none such; or names say that the first ones are others.
    """
    wanted, count = settings.bands, len(settings.bands)
    shown = f"{pair.images[0]} has {len(source.bands)} bands, {', '.join(source.bands[:12])}"
    if data.bands and len(data.bands) != count:
        raise TrainingError(
            f"bands of a [[data]] set name {len(data.bands)}, but the network has {count}: {', '.join(wanted)}"
        )
    try:
        if data.bands:
            return ChosenBands(pair, source, take_bands(source, data.bands), by_name=False)
        if (taken := take_named(source, wanted)) is not None:
            return ChosenBands(pair, source, taken, by_name=True)
        if len(source.bands) < count:
            raise TrainingError(f"{shown}; the network has {count}: {', '.join(wanted)}")
        if contradicts(source.all_names, wanted, source.hints):
            hint = band_hint(source, wanted, "data.bands")
            raise TrainingError(
                f"{shown}; settings name {', '.join(wanted)}, which by their names these are not.\n{hint}"
            )
        return ChosenBands(pair, source, take_bands(source, source.numbers[:count]), by_name=False)
    except SceneError as error:
        reason = str(error)
    raise TrainingError(f"{pair.images[0]}: {reason}")


def band_orders(samples: Iterable[Sample], settings: Settings) -> dict[str, list[str]]:
    """Return from which bands of the files the network's are read, where they are called otherwise, with the samples.

    What their names say otherwise of is told.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        pairs = list(zip(settings.bands, sample.source.bands, strict=False))
        if any(name.lower() != own.lower() for name, own in pairs):
            text = ", ".join(f"{name} from {own}" for name, own in pairs)
            wrong = contradicts([(own,) for _, own in pairs], settings.bands, sample.source.paths)
            found[text + (WRONG_ORDER if wrong else "")].append(sample.name)
    return found
