"""Datasets: the samples that settings name, found, opened, checked against each other, and in their parts.

Each image is opened for its facts only; labels are read when windows are.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import SceneError, SwatheError, TrainingError
from pipeline.io.radiometry import adjust
from pipeline.io.scene import open_source, opens_by_name
from pipeline.io.source import Source

from ..config import DataSet, Settings
from ..config.schema import PARTS
from .bands import ChosenBands, OpenSource, choose_bands, refuse_unlike
from .classes import ClassTable, color_table, read_colors, value_table
from .labels import open_labels
from .layouts import LISTED, Pair, find_pairs
from .radiometry import harmonised, said_of
from .samples import Parts, Restricted, Sample
from .splits import split_samples

TABLE = "label_class_dict.csv"
WHITE, RED = "FFFFFF", "FF0000"
BLANK = {"38-cloud": "zero", "massachusetts": "white"}  # what published sets have where nothing was observed


def gather(settings: Settings, *, only: str = "", errors: list[SwatheError] | None = None) -> Parts:
    """Find all samples that settings name, and share them out. Opens files, reads no pixels.

    Parameters
    ----------
    settings
        See `Settings`.
    only
        `test`, to look for that part alone. A split decides all parts, and finds them all.
    errors
        Where to put what is wrong with images, labels or whole sets, which are then left out. None: it is raised.

    Returns
    -------
    dict
        Samples of `train`, `validate` and `test`.

    Raises
    ------
    SwatheError
        Files that are missing, or that do not fit together.
    """
    sets: list[Parts] = []
    merged: Parts = {part: [] for part in PARTS}
    for data in settings.data:
        with collect_errors(errors):
            sets.append(_parts_of_set(data, settings, only, errors))
    with collect_errors(errors):
        sets = harmonised(sets, settings)
    with collect_errors(errors):
        merged = merge(sets)
    return merged


def _parts_of_set(data: DataSet, settings: Settings, only: str, errors: list[SwatheError] | None) -> Parts:
    if only and not data.split and any(getattr(data, part) for part in PARTS):  # else a set is shared as published
        if not getattr(data, only):
            return {part: [] for part in PARTS}
        others: dict[str, Any] = {part: () for part in PARTS if part != only}
        data = replace(data, **others)
    found = find_samples(data, settings, errors=errors)
    if not data.split or (errors and not found["train"]):
        return found
    shared = split_samples(
        found["train"], data.split, round(settings.chips.size * settings.chips.zoom[0]), settings.seed
    )
    return {
        part: [
            sample
            if sample.areas == (sample.geobox.whole,)
            else replace(sample, labels=Restricted(sample.labels, sample.areas))
            for sample in samples
        ]
        for part, samples in shared.items()
    }


def find_samples(
    data: DataSet, settings: Settings, dtype: str = "", *, errors: list[SwatheError] | None = None
) -> Parts:
    """Find the samples of a set, in their parts.

    Parameters
    ----------
    data
        The set. Where it names no samples, all are for training, or as the set is published.
    settings
        Of the training: bands, classes, and the folder that paths are relative to.
    dtype
        Of the raw values; empty: the settings', or that of the set's first image.
    errors
        Where to put what is wrong with one image or its label, which is then left out. None: it is raised.

    Returns
    -------
    dict
        `train`, `validate` and `test`: samples in the order of their names, each with the whole scene as its window.

    Raises
    ------
    TrainingError
        Names that match nothing or are in two parts; an image without label or a label without image; bands, types or
        sizes that differ; what `open_labels` refuses.
    SceneError
        An image that cannot be read.
    """
    root = settings.folder / Path(data.root).expanduser()
    pairs = share(data, find_pairs(data, root), root)
    if errors is None:
        _refuse_halves([pair for part in PARTS for pair in pairs[part]])
    opener = _Opener(data, settings, table_of(data, settings, root), dtype or settings.dtype)
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for part in PARTS:
        for pair in pairs[part]:
            with collect_errors(errors, pair):
                parts[part].append(opener.open(pair))
    return parts


@contextmanager
def collect_errors(errors: list[SwatheError] | None, pair: Pair | None = None) -> Iterator[None]:
    """Put what goes wrong into a list, and go on; without a list it is raised. `pair`: what it goes wrong with."""
    try:
        yield
    except SwatheError as error:
        if errors is None:
            raise
        errors.append(error if pair is None else PairError(str(error), pair))


class PairError(TrainingError):
    """What is wrong with one image or its label."""

    def __init__(self, text: str, pair: Pair) -> None:
        super().__init__(text)
        self.name = pair.name
        self.general = text  # without what is this pair's alone
        for path in sorted((path for path in (*pair.images, pair.label) if path), key=len, reverse=True):
            self.general = self.general.replace(path, "*" + Path(path).suffix)
        own = re.compile(rf"(?:(?<=/)|^){re.escape(pair.name)}(?![A-Za-z0-9])", re.MULTILINE)
        self.general = own.sub("*", self.general)


@dataclass
class _Opener:
    """Opens pairs of one set; the first image says what the others must be like."""

    data: DataSet
    settings: Settings
    table: ClassTable
    kind: str
    first: ChosenBands | None = None

    def open(self, pair: Pair) -> Sample:
        _refuse_halves([pair])
        data, images = self.data, list(pair.images)
        source = self._opened(images)
        kind, chosen = self.kind or source.dtype.name, choose_bands(pair, source, data, self.settings)
        first = self.first or chosen
        refuse_unlike(data, chosen, first)
        adjusted = _adjusted(pair, chosen.taken, data, self.settings, kind)
        labels = open_labels(
            pair.label,
            adjusted.geobox,
            self.table,
            unlabelled=data.unlabelled,
            attribute=data.attribute,
            burn=data.burn,
            background=self.settings.background_value,
            layer=data.layer,
            width=data.width,
        )
        self.first, self.kind = first, kind  # not before it is known to be sound
        return Sample(pair.name, adjusted, labels, (adjusted.geobox.whole,), (*pair.images, pair.label))

    def _opened(self, images: list[str]) -> OpenSource:
        """Open an image; of a STAC Item, which may have many more, only the bands that are named."""
        wanted, data = self.data.bands or self.settings.bands, self.data
        if not opens_by_name(images, wanted):
            return open_source(images, None, data.resampling, data.alpha)
        try:
            return open_source(images, wanted, data.resampling, data.alpha)
        except SceneError:
            if data.bands:
                raise
            return open_source(images, None, data.resampling, data.alpha)  # its bands may fit all the same


def share(data: DataSet, pairs: Sequence[Pair], root: Path) -> dict[str, list[Pair]]:
    """Share out pairs by the names that a set gives. Raises TrainingError where one matches nothing or two."""
    if not any(getattr(data, part) for part in PARTS):
        return {part: [pair for pair in pairs if (pair.part or "train") == part] for part in PARTS}
    parts = {part: _matching(getattr(data, part), pairs, root, part) for part in PARTS}
    for one, other in combinations(PARTS, 2):
        both = sorted({pair.name for pair in parts[one]} & {pair.name for pair in parts[other]})
        if both:
            raise TrainingError(f"{_listed(both)} in both {one} and {other}; give each sample once")
    return parts


def _matching(patterns: Iterable[str], pairs: Sequence[Pair], root: Path, part: str) -> list[Pair]:
    """Return the pairs whose name, or name after its published part as `train/*`, matches any pattern."""
    found: dict[str, Pair] = {}
    for pattern in patterns:
        matched = {
            pair.name: pair
            for pair in pairs
            for name in ((pair.name, f"{pair.part}/{pair.name}") if pair.part else (pair.name,))
            if name == pattern or fnmatchcase(name, pattern)
        }
        if not matched:
            names = [pair.name for pair in pairs]
            near = difflib.get_close_matches(pattern, names, 3, 0.5)
            hint = f"near: {', '.join(near)}" if near else f"there are {_listed(names)}"
            raise TrainingError(f"{part} names {pattern!r}, which no sample in {root} matches; {hint}")
        found |= matched
    return [found[name] for name in sorted(found)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f", ... ({len(names)} in all)" if len(names) > LISTED else "")


def _refuse_halves(pairs: Sequence[Pair]) -> None:
    halves = [pair for pair in pairs if pair.lacks]
    if halves:
        more = f"; so it is with {len(halves) - 1} more" if len(halves) > 1 else ""
        raise TrainingError(f"{halves[0].name} has {halves[0].lacks}{more}. Add the files, or name the samples to take")


def table_of(data: DataSet, settings: Settings, root: Path) -> ClassTable:
    """Return the table of what a set's labels mean; for published sets, as they are published where nothing is said."""
    classes = settings.classes
    if isinstance(data.colors, str):
        places = [folder / data.colors for folder in (root, settings.folder)]
        path = next((place for place in places if place.is_file()), places[0])
        return color_table(classes, read_colors(path), data.values, data.ignore)
    if data.colors:
        return color_table(classes, None, data.values, data.ignore)
    if data.layout == "massachusetts" and not data.values:
        return _massachusetts_table(data, settings, root)
    if data.layout == "38-cloud" and not data.values and len(classes) == 2:
        return value_table(classes, dict(zip(("0", "255"), _background_first(settings), strict=True)), data.ignore)
    return value_table(classes, data.values, data.ignore, palettes=data.colors is None)


def _background_first(settings: Settings) -> list[str]:
    """Return the names of the classes with that of the background first, as published sets have theirs."""
    return sorted(settings.class_names, key=lambda name: name != settings.background_name)


def _massachusetts_table(data: DataSet, settings: Settings, root: Path) -> ClassTable:
    """Return the table of Massachusetts, by its csv if there is one: objects are white, or red as in Mnih's own."""
    if (root / TABLE).is_file():
        colors = read_colors(root / TABLE)
    elif len(settings.classes) == 2:
        colors = dict(zip(("000000", WHITE), _background_first(settings), strict=True))
    else:
        raise TrainingError(f"{root} has no {TABLE}, and there are {len(settings.classes)} classes: give values")
    if WHITE in colors:
        colors = {RED: colors[WHITE], **colors}
    return color_table(settings.classes, colors, None, data.ignore)


def _adjusted(pair: Pair, source: Source, data: DataSet, settings: Settings, kind: str) -> Source:
    """Bring a source to the radiometry wanted, and leave out its blank pixels."""
    blank = _blank(data, source.dtype, pair)
    same, said = (data.gain, data.offset) == (1.0, 0.0), said_of(source, data)
    if same and all(said):  # what differs is brought together once all sets are found
        plain = blank is None and said == source.radiometry
        return source if plain else adjust(source, blank=blank, radiometry=said)
    if not same and not settings.dtype:
        raise TrainingError("gain and offset change the values' range; say their type then, as dtype = 'uint16'")
    if same and source.dtype != np.dtype(kind) and not (settings.dtype and np.can_cast(source.dtype, kind)):
        raise TrainingError(
            f"{pair.images[0]} is {source.dtype}, but this training is for {kind}; give gain and offset that bring its "
            "values to those of the others"
        )
    if same and source.dtype == np.dtype(kind) and blank is None:
        return source
    return adjust(source, data.gain, data.offset, kind, blank=blank, radiometry=said if same else None)


def _blank(data: DataSet, dtype: "np.dtype[Any]", pair: Pair) -> float | None:
    wish = BLANK.get(data.layout) if data.nodata is None else data.nodata
    if wish == "white":
        if dtype.kind not in "iu":
            raise TrainingError(f"{pair.images[0]} is {dtype}, which has no white; give nodata as a number")
        return float(np.iinfo(dtype).max)
    if wish is None:
        return None
    blank = 0.0 if wish == "zero" else float(wish)
    if dtype.kind in "iu" and not (blank.is_integer() and np.iinfo(dtype).min <= blank <= np.iinfo(dtype).max):
        raise TrainingError(f"nodata is {blank:g}, which no pixel of {pair.images[0]} can be: it is {dtype}")
    return blank


def merge(sets: Sequence[Parts]) -> Parts:
    """Put several sets' samples together; names that two sets have are numbered by their set.

    Raises
    ------
    TrainingError
        Two sets of different types, both files named.
    """
    # a split puts the same sample into several parts of one set
    taken = Counter(name for parts in sets for name in {sample.name for part in PARTS for sample in parts[part]})
    merged: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for number, parts in enumerate(sets, 1):
        for part in PARTS:
            for sample in parts[part]:
                name = f"{sample.name} ({number})" if taken[sample.name] > 1 else sample.name
                merged[part].append(replace(sample, name=name))
    every = [sample for part in PARTS for sample in merged[part]]
    for other in every[1:]:
        first = every[0]
        if first.source.dtype != other.source.dtype:
            raise TrainingError(
                f"{first.paths[0]} gives {first.source.dtype} values, {other.paths[0]} {other.source.dtype}; set "
                "dtype, and gain and offset of the set that differs"
            )
    return merged
