"""What samples of different parts share, so that a score would flatter: pixels, files, copies, ground, scenes."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from os.path import realpath
from typing import Any

import numpy as np

from pipeline.io.source import RasterSource

from ..data.overlap import overlapping
from ..data.samples import Sample
from ..data.splits import group_of
from .findings import Finding, names
from .thumbnails import Glance

Parts = Mapping[str, Sequence[Sample]]
Glances = Mapping[tuple[str, ...], Glance | None]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two samples, and the parts that they are in."""

    first: Sample
    second: Sample
    parts: tuple[str, str]


def key_of(sample: Sample) -> tuple[str, ...]:
    """Give what tells a scene from others: its files and bands, or its name where it is no file."""
    return image_files(sample) or (sample.name, *sample.paths)


def image_files(sample: Sample) -> tuple[str, ...]:
    """Give the files that a sample's pixels, not its labels, come from; empty where they come from none."""
    source: Any = sample.source
    while hasattr(source, "source"):  # as `Adjusted` has
        source = source.source
    if isinstance(source, RasterSource):
        return tuple(dict.fromkeys(realpath(layer.path) for layer in source.layers))
    path = getattr(source, "path", None)
    return (realpath(path),) if path else ()


def find_leaks(parts: Parts, glances: Glances) -> list[Finding]:
    """Find what parts share.

    Parameters
    ----------
    parts
        Samples by part. One sample may be in several parts, with other areas in each.
    glances
        By `key_of`.
    """
    return [
        *_shared_pixels(parts),
        *_copies(parts, glances),
        *_shared_ground(parts),
        *_shared_scenes(parts),
    ]


def _across(parts: Parts) -> Iterator[tuple[tuple[str, str], Sequence[Sample], Sequence[Sample]]]:
    for one, other in combinations(parts, 2):
        yield (one, other), parts[one], parts[other]


def _shared_pixels(parts: Parts) -> Iterator[Finding]:
    """Find files of two parts whose areas overlap; and files that one part has twice."""
    for both, mine, theirs in _across(parts):
        for pair in _of_one_file(both, mine, theirs):
            if _areas_overlap(pair.first, pair.second):
                called = names(list(dict.fromkeys((pair.first.name, pair.second.name))))
                text = f"pixels of {called} are in {both[0]} and in {both[1]} too; scores would flatter"
                yield Finding("error", "leakage", text)


def _of_one_file(both: tuple[str, str], mine: Sequence[Sample], theirs: Sequence[Sample]) -> list[Pair]:
    having = defaultdict(list)
    for sample in mine:
        for file in image_files(sample) or key_of(sample):
            having[file].append(sample)
    found = {}
    for sample in theirs:
        for file in image_files(sample) or key_of(sample):
            for other in having.get(file, []):
                found[id(other), id(sample)] = Pair(other, sample, both)
    return list(found.values())


def _areas_overlap(one: Sample, other: Sample) -> bool:
    import shapely

    def boxes(sample: Sample) -> Any:
        ends = np.array([(a.left, a.top, a.right, a.bottom) for a in sample.areas], float).reshape(-1, 4)
        return shapely.box(*(ends + np.array([0.25, 0.25, -0.25, -0.25])).T)  # so that those that touch do not meet

    return bool(shapely.STRtree(boxes(one)).query(boxes(other), predicate="intersects").size)


def _copies(parts: Parts, glances: Glances) -> Iterator[Finding]:
    """Find the same pixels under two names: across parts, or twice in one."""
    having: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for part, samples in parts.items():
        for sample in samples:
            glance = glances.get(key_of(sample))
            if glance and glance.digest:
                having[glance.digest].append((part, sample))
    for alike in having.values():
        if len({key_of(sample) for _, sample in alike}) > 1:
            yield _copied(alike)


def _copied(alike: Sequence[tuple[str, Sample]]) -> Finding:
    across = len({part for part, _ in alike}) > 1
    called = names([f"{sample.name} ({part})" for part, sample in alike])
    text = f"copies of one image, by the pixels looked at: {called}"
    if across:
        return Finding("error", "leakage", f"{text}; keep one of them, scores would flatter")
    return Finding("warning", "leakage", f"{text}; it counts more than others")


def _shared_ground(parts: Parts) -> Iterator[Finding]:
    """Find scenes of two parts that lie over each other, as two dates of one place do."""
    listed = [(part, sample) for part, samples in parts.items() for sample in samples]
    found = defaultdict(list)
    for contact in overlapping([sample for _, sample in listed]):
        (one, mine), (other, theirs) = listed[contact.first], listed[contact.second]
        if one != other and key_of(mine) != key_of(theirs):
            found[one, other].append((contact.share, f"{mine.name} and {theirs.name} ({contact.share:.0%})"))
    for (one, other), pairs in found.items():
        most = names([text for _, text in sorted(pairs, key=lambda pair: -pair[0])])
        text = f"scenes of {one} and {other} lie on the same ground, by their areas: {most}; scores may flatter"
        yield Finding("warning", "leakage", text)


def _shared_scenes(parts: Parts) -> Iterator[Finding]:
    """Say where parts are of the same scenes: what is then judged is the same place, day and light."""
    scenes = {part: {group_of(sample.name): sample.name for sample in samples} for part, samples in parts.items()}
    for one, other in combinations(parts, 2):
        shared = sorted(set(scenes[one]) & set(scenes[other]))
        if shared:
            shown = names([scene or f"that of {scenes[one][scene]}" for scene in shared])
            text = f"{one} and {other} have parts of the same scenes, as names tell: {shown}; scores of {other} "
            yield Finding("note", "leakage", f"{text}hold for these scenes alone")
