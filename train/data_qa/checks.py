"""Data checks: findings about parts, bands, sizes, resolutions, labels and classes, and how they are described.

They change nothing and refuse nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from os.path import realpath
from pathlib import Path
from typing import Literal

import numpy as np

from models.errors import SwatheError
from pipeline.inference.radiometry import span
from pipeline.io.band_names import common_names
from pipeline.io.radiometry import describe_bands

from ..config import Settings
from ..data.bands import WRONG_ORDER, band_orders
from ..data.classes import total
from ..data.remarks import describe_remarks, listed
from ..data.samples import Parts, Sample, unrestricted
from ..data.statistics import DatasetStatistics, label_remarks

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MOST_NAMES = 4
MOST_ALIKE = 20  # findings of one kind in a text
MOST_CODES = 12
RARE = 0.001  # of the labelled pixels; a class with less is said to be rare
SLACK = 1.25  # by which a resolution may lie beyond those that settings name


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    level
        Severity. `error`: training on this is wrong or fails. `warning`: it may be. `note`: good to know.
    kind
        In a word, for sorting: `reading`, `labels`, `classes`, `bands`, `size`, `leakage`, `radiometry`, `parts`,
        `images`.
    text
        One or two lines: what, where, and what to do.
    """

    level: Level
    kind: str
    text: str


def describe(findings: Iterable[Finding]) -> str:
    """Return findings as text, errors first, and a last line with how many there are of each level."""
    found = list(findings)
    lines = []
    for level in LEVELS:
        of_level = [finding for finding in found if finding.level == level]
        for kind in dict.fromkeys(finding.kind for finding in of_level):
            alike = [finding.text.replace("\n", "\n" + " " * 9) for finding in of_level if finding.kind == kind]
            lines += [f"{level:7}  {text}" for text in alike[:MOST_ALIKE]]
            if len(alike) > MOST_ALIKE:
                lines.append(f"{level:7}  and {len(alike) - MOST_ALIKE} more about {kind}")
    counts = [(level, sum(finding.level == level for finding in found)) for level in LEVELS]
    summary = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts if count)
    return "\n".join([*lines, summary or "nothing found"])


def names(these: Sequence[str]) -> str:
    """List some names, the rest by their number."""
    rest = len(these) - MOST_NAMES
    return ", ".join(these[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def key_of(sample: Sample) -> tuple[str, ...]:
    """Return what tells a scene from others: its image files, or its name and paths where it is no file."""
    return tuple(dict.fromkeys(map(realpath, sample.source.paths))) or (sample.name, *sample.paths)


def each_scene(parts: Parts) -> list[Sample]:
    """Return each scene once."""
    return list({key_of(sample): sample for sample in chain(*parts.values())}.values())


def check_files(parts: Parts, settings: Settings) -> Iterator[Finding]:
    """Find what is wrong with parts, bands, sizes and resolutions. Reads no pixels."""
    for part, remedy in (("train", "name some in data.train"), ("validate", "name some in data.validate, or split")):
        if not parts.get(part):
            yield Finding(_severity(part), "parts", f"{part} has no samples; {remedy}")
    scenes = each_scene(parts)
    yield from _bands(scenes, settings)
    yield from _sizes(parts, settings)
    yield from _resolutions(scenes, settings)
    told: dict[str, list[str]] = defaultdict(list)
    for sample in scenes:
        for note in sample.source.notes:
            told[note].append(sample.name)
    for note, some in told.items():
        yield Finding("note", "images", f"{note} ({names(some)})")


def _severity(part: str) -> Level:
    """Return how severe it is that a part lacks something: without it train is nothing, and another part is odd."""
    return "error" if part == "train" else "warning"


def _bands(scenes: Sequence[Sample], settings: Settings) -> Iterator[Finding]:
    """Find samples whose bands are not those of the settings, or of most others."""
    count = len(settings.bands)
    other = [f"{s.name} ({len(s.source.bands)})" for s in scenes if len(s.source.bands) != count]
    if other:
        text = f"settings name {count} bands; samples with another number: {names(other)}; choose by data.bands"
        yield Finding("error", "bands", text)
    yield from _unlike("bands", [(s, _meaning(s)) for s in scenes])
    yield from _unlike("dtype", [(s, str(s.source.dtype)) for s in scenes])
    for text, called in band_orders(scenes, settings).items():
        if text.endswith(WRONG_ORDER):
            yield Finding("error", "bands", f"{names(called)}: {text}; see data.bands")
        else:
            yield Finding("note", "bands", f"bands of {names(called)}: {text}")


def _meaning(sample: Sample) -> str:
    """Return what a sample's bands are: what they are commonly called, as far as that is known."""
    own = sample.source.bands
    common = common_names([(band,) for band in own], sample.source.paths)
    return ", ".join("/".join(sorted(roles)) or band for band, roles in zip(own, common, strict=True))


def _unlike(what: str, described: Sequence[tuple[Sample, str]]) -> Iterator[Finding]:
    """Name the samples that differ from most."""
    counts = Counter(text for _, text in described).most_common()
    for text, count in counts[1:]:
        some = names([sample.name for sample, its in described if its == text])
        number = f"{count} of {len(described)} samples"
        yield Finding("warning", "bands", f"{what} of {number}: {text}; of most: {counts[0][0]} ({some})")


def _sizes(parts: Parts, settings: Settings) -> Iterator[Finding]:
    """Find samples in which a chip has no room."""

    def room(sample: Sample) -> int:
        return max((min(area.shape) for area in sample.areas), default=0)

    chips = settings.chips
    smallest, largest = (round(chips.size * zoom) for zoom in chips.zoom)
    for part, samples in parts.items():
        need = smallest if part == "train" else chips.size
        small = [f"{s.name} ({room(s)})" for s in samples if room(s) < need]
        if small and part == "train":
            text = f"a chip of {need} pixels is larger than the areas of {names(small)}; make chips.size smaller"
            yield Finding("error", "size", text)
        elif small:
            text = f"{part}: a chip of {need} pixels is larger than {names(small)}; they are reflected at their sides"
            yield Finding("note", "size", text)
    cut = [s.name for s in parts.get("train", ()) if smallest <= room(s) < largest]
    if cut:
        text = f"chips.zoom asks for {largest} pixels, for which there is no room in {names(cut)}; less is taken there"
        yield Finding("note", "size", text)


def _resolutions(scenes: Sequence[Sample], settings: Settings) -> Iterator[Finding]:
    known = [(sample, metres) for sample in scenes if (metres := sample.geobox.resolution())]
    if settings.resolution:
        low, high = settings.resolution
        off = [f"{s.name} ({metres:.3g} m)" for s, metres in known if not low / SLACK <= metres <= high * SLACK]
        if off:
            text = f"pixels of {names(off)} are not of the {low:g} to {high:g} m that resolution names"
            yield Finding("warning", "size", text)
    finest, coarsest = (pick([metres for _, metres in known], default=0.0) for pick in (min, max))
    if coarsest > 2 * finest:
        text = f"pixels are from {finest:.3g} to {coarsest:.3g} m; objects differ as much in size"
        yield Finding("note", "size", text)


def check_statistics(
    parts: Parts, statistics: Mapping[str, DatasetStatistics], settings: Settings
) -> Iterator[Finding]:
    """Find what is wrong with the pixels and labels of the parts whose statistics are given."""
    yield from _unknown_codes(parts, statistics)
    for part, found in statistics.items():
        yield from _unread(part, parts[part], found)
        for text, expected in describe_remarks(label_remarks(parts[part], found)):
            see = "" if expected else "; see data.values, data.ignore and data.unlabelled"
            yield Finding("note" if expected else "warning", "labels", f"{part}: {text}{see}")
        yield from _empty(part, found, settings)
        yield from _classes(part, found, settings)
        if part == "train":
            yield from _flat_bands(found, settings)
            yield from _values(parts[part], found, settings)


def _unread(part: str, samples: Sequence[Sample], statistics: DatasetStatistics) -> Iterator[Finding]:
    """Tell what could not be read; of samples with the same fault once."""
    paths = {sample.name: (*sample.source.paths, *sample.paths) for sample in samples}
    windows = Counter((error.sample, str(error.error)) for error in statistics.errors)
    alike: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (sample, text), count in windows.items():
        more = f" ({count} windows of it)" if count > 1 else ""
        general = re.sub(r"\(rows? \d.*?\)", "", text)
        for path in sorted(paths.get(sample, ()), key=len, reverse=True):
            general = general.replace(path, "*" + Path(path).suffix)
        alike[general].append((sample, f"{sample} cannot be read{more}: {text}"))
    for general, those in alike.items():
        called = list(dict.fromkeys(sample for sample, _ in those))
        text = those[0][1] if len(called) == 1 else f"{listed(called)} cannot be read: {general}"
        yield Finding("error", "reading", text)


def _unknown_codes(parts: Parts, statistics: Mapping[str, DatasetStatistics]) -> Iterator[Finding]:
    """List the codes of labels that mean nothing, over all files, the commonest first."""
    codes: dict[tuple[str, ...], dict[str, int]] = {}
    called: dict[str, list[str]] = defaultdict(list)
    for part, found in statistics.items():
        for sample, count in zip(parts[part], found.samples, strict=True):
            key = key_of(sample)
            if count.unknown and key not in codes:
                labels, codes[key] = unrestricted(sample.labels), count.unknown
                if hasattr(labels, "unknown"):  # over all of the sample, each pixel once
                    with suppress(SwatheError):
                        codes[key] = labels.unknown()
                for code in codes[key]:
                    called[code].append(sample.name)
    if called:
        sums = total(codes.values())
        common = sorted(sums, key=lambda code: -sums[code])
        listed = "\n".join(f"{code}: {sums[code]:,} pixels, in {names(called[code])}" for code in common[:MOST_CODES])
        more = f"\nand {len(common) - MOST_CODES} more" if len(common) > MOST_CODES else ""
        text = f"labels that mean no class; say what they are in data.values or data.ignore\n{listed}{more}"
        yield Finding("error", "labels", text)


def _empty(part: str, statistics: DatasetStatistics, settings: Settings) -> Iterator[Finding]:
    """Find samples that teach nothing."""
    counts = [count for count in statistics.samples if count.pixels]
    blank = [count.name for count in counts if count.invalid == count.pixels]
    bare = [c.name for c in counts if not c.class_pixels.any() and c.invalid < c.pixels]
    background, plain = settings.background_value, []
    if background is not None:
        plain = [
            c.name for c in counts if c.class_pixels[background] and not np.delete(c.class_pixels, background).any()
        ]
    if blank:
        yield Finding("warning", "labels", f"{part}: no pixel is observed in {names(blank)}; leave them out")
    if bare:
        yield Finding("warning", "labels", f"{part}: no pixel is labelled in {names(bare)}; are the labels theirs?")
    if plain:
        held = f"{len(plain)} of {len(counts)} samples hold nothing but {settings.background_name!r}"
        yield Finding("note", "labels", f"{part}: {held}: {names(plain)}")


def _classes(part: str, statistics: DatasetStatistics, settings: Settings) -> Iterator[Finding]:
    """Note the shares of classes, and find those that are missing or rare."""
    pixels = dict(zip(settings.class_names, statistics.class_pixels.tolist(), strict=True))
    labelled, all_pixels = sum(pixels.values()), sum(count.pixels for count in statistics.samples)
    if not labelled:
        yield Finding("error", "classes", f"{part} has no labelled pixel")
        return
    shares = ", ".join(f"{name} {_percent(count / labelled)}" for name, count in pixels.items())
    ignored, invalid = (_percent(count / all_pixels) for count in (statistics.ignored, statistics.invalid))
    others = f"{ignored} ignored, {invalid} not observed of {all_pixels:,}"
    yield Finding("note", "classes", f"{part}: {shares} of {labelled:,} labelled pixels; {others}")
    seen = [name for name, count in pixels.items() if count]
    level = _severity(part)
    if len(seen) == 1:
        yield Finding(level, "classes", f"{part} holds only the class {seen[0]!r}: nothing to tell apart")
        return
    missing = [name for name in pixels if name not in seen]
    if missing:
        yield Finding(level, "classes", f"{part} has no pixel of {names(missing)}")
    rare = [name for name, count in pixels.items() if 0 < count < RARE * labelled]
    if rare:
        yield Finding("warning", "classes", f"{part}: {names(rare)} is rarer than {_percent(RARE)} of the pixels")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _values(samples: Sequence[Sample], statistics: DatasetStatistics, settings: Settings) -> Iterator[Finding]:
    """Note what values the bands have, and what they mean; see `train.data.radiometry`."""
    quantiles = statistics.bands.quantiles
    if np.isfinite(quantiles).all() and len(quantiles) == len(settings.bands):
        spans = ", ".join(f"{name} {span(row)}" for name, row in zip(settings.bands, quantiles.tolist(), strict=True))
        means = describe_bands(settings.bands, samples[0].source.radiometry)
        yield Finding("note", "radiometry", f"values: 1 to 99 % of {spans}; they mean: {means}")


def _flat_bands(statistics: DatasetStatistics, settings: Settings) -> Iterator[Finding]:
    for name, mean, stddev in zip(settings.bands, statistics.bands.mean, statistics.bands.stddev, strict=False):
        if np.isnan(mean):
            yield Finding("error", "bands", f"the band {name} is observed nowhere in train")
        elif stddev == 0:
            yield Finding("error", "bands", f"the band {name} is {mean:g} everywhere in train: nothing to learn from")
