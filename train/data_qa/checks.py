"""What is wrong with the data of a training, all of it at once: sizes, bands, labels, classes, leaks, radiometry.

Looks and says; changes nothing and refuses nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from distributed import Client

from models.errors import SwatheError
from models.system import usable_cpus
from pipeline.jobs.dask import dask_client

from ..config import Settings
from ..data.classes import total
from ..data.samples import Sample
from ..data.statistics import MOST_TASKS, Measured, measure
from ..data.window_counts import inner
from .findings import Finding, Level, describe, names
from .leaks import Glances, Parts, find_leaks, key_of
from .radiometry import find_odd
from .thumbnails import glance_at

RARE = 0.001  # of the labelled pixels; a class with less is said to be rare
SLACK = 1.25  # by which a resolution may lie beyond those that settings name
MOST_CODES = 12


def check(
    parts: Parts,
    settings: Settings,
    measured: Mapping[str, Measured] | None = None,
    client: Client | str | None = None,
    *,
    show: bool = False,
) -> list[Finding]:
    """Look for what is wrong with the samples of a training. Reads all pixels once.

    Parameters
    ----------
    parts
        Samples by part: `train`, `validate`, `test`.
    settings
        Of the training.
    measured
        What `measure` made of parts, so that it is not made again.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    show
        Show progress.

    Returns
    -------
    list of Finding
        In no order of weight; see `describe`. What cannot be read is a finding too.

    Raises
    ------
    ClusterError
        Workers are lost.
    """
    found = [*_parts(parts), *_bands(parts, settings), *_sizes(parts, settings), *_resolutions(parts, settings)]
    with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection:
        told = _measured(parts, settings, measured or {}, connection, show=show) if _alike(parts) else {}
        glances = _glances(parts, connection)
    found += _unknown(parts, told)
    for part, of_part in told.items():
        found += _of_part(part, of_part, settings)
    odd = find_odd([(sample, glances[key_of(sample)]) for sample in _all(parts)])
    return [*_once(found), *find_leaks(parts, glances), *odd]


def _measured(
    parts: Parts, settings: Settings, given: Mapping[str, Measured], client: Client, *, show: bool
) -> dict[str, Measured]:
    """Measure the parts that have samples and were not measured before."""
    classes = len(settings.classes)
    return {
        part: given.get(part) or measure(samples, classes, client, show=show, keep_going=True)
        for part, samples in parts.items()
        if samples
    }


def _once(found: Sequence[Finding]) -> list[Finding]:
    """Say once what a sample of several parts would say in each."""
    return list(dict.fromkeys(found))


def _alike(parts: Parts) -> bool:
    return len({len(sample.source.bands) for sample in _all(parts)}) == 1


def _all(parts: Parts) -> list[Sample]:
    """Give each scene once."""
    return list({key_of(sample): sample for sample in chain(*parts.values())}.values())


def _glances(parts: Parts, client: Client) -> Glances:
    samples = _all(parts)
    seen = glance_at(samples, client) if samples else []
    return {key_of(sample): glance for sample, glance in zip(samples, seen, strict=True)}


# without pixels


def _parts(parts: Parts) -> Iterator[Finding]:
    for part, remedy in (("train", "name some in data.train"), ("validate", "name some in data.validate, or split")):
        if not parts.get(part):
            yield Finding(_grave(part), "parts", f"{part} has no samples; {remedy}")


def _grave(part: str) -> Level:
    """Say how grave it is that a part lacks something: without it train is nothing, and another part is odd."""
    return "error" if part == "train" else "warning"


def _bands(parts: Parts, settings: Settings) -> Iterator[Finding]:
    """Find samples whose bands are not those of the settings, or of most others."""
    samples = _all(parts)
    wanted = len(settings.bands)
    other = [f"{s.name} ({len(s.source.bands)})" for s in samples if len(s.source.bands) != wanted]
    if other:
        text = f"settings name {wanted} bands; samples with another number: {names(other)}; choose by data.bands"
        yield Finding("error", "bands", text)
    yield from _unlike("bands", [(s, ", ".join(s.source.bands)) for s in samples])
    yield from _unlike("dtype", [(s, str(s.source.dtype)) for s in samples])
    own = [band.lower() for band in settings.bands]
    for sample in samples:
        theirs = [band.lower() for band in sample.source.bands]
        if theirs != own and sorted(theirs) == sorted(own):
            text = f"{sample.name} has its bands as {', '.join(theirs)}, settings as {', '.join(own)}; see data.bands"
            yield Finding("error", "bands", text)


def _unlike(what: str, told: Sequence[tuple[Sample, str]]) -> Iterator[Finding]:
    """Name the samples that differ from most."""
    counts = Counter(text for _, text in told)
    for text, count in counts.most_common()[1:]:
        most, _ = counts.most_common(1)[0]
        some = names([sample.name for sample, its in told if its == text])
        yield Finding("warning", "bands", f"{what} of {count} of {len(told)} samples: {text}; of most: {most} ({some})")


def _sizes(parts: Parts, settings: Settings) -> Iterator[Finding]:
    """Find samples in which a chip has no room."""
    chips = settings.chips
    smallest, largest = (round(chips.size * zoom) for zoom in chips.zoom)
    for part, samples in parts.items():
        need = smallest if part == "train" else chips.size
        small = [f"{s.name} ({_room(s)})" for s in samples if _room(s) < need]
        if small and part == "train":
            text = f"a chip of {need} pixels is larger than the areas of {names(small)}; make chips.size smaller"
            yield Finding("error", "size", text)
        elif small:
            text = f"{part}: a chip of {need} pixels is larger than {names(small)}; they are reflected at their sides"
            yield Finding("note", "size", text)
    cut = [s.name for s in parts.get("train", ()) if smallest <= _room(s) < largest]
    if cut:
        text = f"chips.zoom asks for {largest} pixels, for which there is no room in {names(cut)}; less is taken there"
        yield Finding("note", "size", text)


def _room(sample: Sample) -> int:
    return max((min(area.shape) for area in sample.areas), default=0)


def _resolutions(parts: Parts, settings: Settings) -> Iterator[Finding]:
    known = [(sample, metres) for sample in _all(parts) if (metres := sample.geobox.resolution())]
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


# what was measured


def _of_part(part: str, measured: Measured, settings: Settings) -> Iterator[Finding]:
    yield from _faults(measured)
    yield from _empty(part, measured, settings)
    yield from _classes(part, measured, settings)
    if part == "train":
        yield from _flat_bands(measured, settings)


def _faults(measured: Measured) -> Iterator[Finding]:
    """Say once per sample and reason what cannot be read."""
    alike = Counter((fault.sample, str(fault.error)) for fault in measured.faults)
    for (sample, text), count in alike.items():
        more = f" ({count} windows of it)" if count > 1 else ""
        yield Finding("error", "reading", f"{sample} cannot be read{more}: {text}")


def _unknown(parts: Parts, measured: Mapping[str, Measured]) -> Iterator[Finding]:
    """List the codes of labels that mean nothing, over all files, the commonest first."""
    codes: dict[tuple[str, ...], dict[str, int]] = {}
    called: dict[str, list[str]] = defaultdict(list)
    for part, told in measured.items():
        for sample, count in zip(parts[part], told.samples, strict=True):
            if count.unknown and key_of(sample) not in codes:
                codes[key_of(sample)] = _counted(sample, count.unknown)
                for code in codes[key_of(sample)]:
                    called[code].append(sample.name)
    if called:
        sums = total(codes.values())
        common = sorted(sums, key=lambda code: -sums[code])
        listed = "\n".join(f"{code}: {sums[code]:,} pixels, in {names(called[code])}" for code in common[:MOST_CODES])
        more = f"\nand {len(common) - MOST_CODES} more" if len(common) > MOST_CODES else ""
        text = f"labels that mean no class; say what they are in data.values or data.ignore\n{listed}{more}"
        yield Finding("error", "labels", text)


def _counted(sample: Sample, seen: dict[str, int]) -> dict[str, int]:
    """Count a sample's codes over all of it, each pixel once, where its labels can; else give what was seen."""
    labels = inner(sample.labels)
    try:
        codes: dict[str, int] = labels.unknown() if hasattr(labels, "unknown") else seen
    except SwatheError:
        return seen
    return codes


def _empty(part: str, measured: Measured, settings: Settings) -> Iterator[Finding]:
    """Find samples that teach nothing."""
    counts = [count for count in measured.samples if count.pixels]
    blank = [count.name for count in counts if count.invalid == count.pixels]
    silent = [c.name for c in counts if not c.class_pixels.any() and c.invalid < c.pixels]
    plain = [c.name for c in counts if c.class_pixels[0] and not c.class_pixels[1:].any()]
    if blank:
        yield Finding("warning", "labels", f"{part}: no pixel is observed in {names(blank)}; leave them out")
    if silent:
        yield Finding("warning", "labels", f"{part}: no pixel is labelled in {names(silent)}; are the labels theirs?")
    if plain:
        held = f"{len(plain)} of {len(counts)} samples hold nothing but {settings.class_names[0]!r}"
        text = f"{part}: {held}: {names(plain)}"
        yield Finding("note", "labels", text)


def _classes(part: str, measured: Measured, settings: Settings) -> Iterator[Finding]:
    """Give the shares of classes, and find those that are missing or rare."""
    pixels = measured.class_pixels
    labelled, total = int(pixels.sum()), sum(count.pixels for count in measured.samples)
    if not labelled:
        yield Finding("error", "classes", f"{part} has no labelled pixel")
        return
    told = ", ".join(f"{name} {_percent(n / labelled)}" for name, n in zip(settings.class_names, pixels, strict=True))
    others = f"{_percent(measured.ignored / total)} ignored, {_percent(measured.invalid / total)} not observed"
    yield Finding("note", "classes", f"{part}: {told} of {labelled:,} labelled pixels; {others} of {total:,}")
    seen = [name for name, n in zip(settings.class_names, pixels, strict=True) if n]
    level = _grave(part)
    if len(seen) == 1:
        yield Finding(level, "classes", f"{part} holds only the class {seen[0]!r}: nothing to tell apart")
        return
    missing = [name for name in settings.class_names if name not in seen]
    if missing:
        yield Finding(level, "classes", f"{part} has no pixel of {names(missing)}")
    rare = [name for name, n in zip(settings.class_names, pixels, strict=True) if 0 < n < RARE * labelled]
    if rare:
        yield Finding("warning", "classes", f"{part}: {names(rare)} is rarer than {_percent(RARE)} of the pixels")


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _flat_bands(measured: Measured, settings: Settings) -> Iterator[Finding]:
    for name, mean, stddev in zip(settings.bands, measured.statistics.mean, measured.statistics.stddev, strict=False):
        if np.isnan(mean):
            yield Finding("error", "bands", f"the band {name} is observed nowhere in train")
        elif stddev == 0:
            yield Finding("error", "bands", f"the band {name} is {mean:g} everywhere in train: nothing to learn from")


__all__ = ["Finding", "check", "describe"]
