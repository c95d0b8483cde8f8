"""What is to be said of samples' labels, once for all samples of which it is true."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from models.errors import SwatheError

from .classes import Remark
from .samples import LabelSource, Sample, unrestricted

FEW = 3  # names in a sentence
SIDE = 2048  # pixels; of the windows in which labels are counted


@dataclass(frozen=True, slots=True)
class LabelRemarks:
    """What is to be said of one sample's labels.

    Parameters
    ----------
    name
        The sample's.
    pixels
        How many it has.
    counts
        Of how many of them each remark is true.
    notes
        What is true of the whole file.
    """

    name: str
    pixels: int
    counts: Mapping[Remark, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def notes_of(labels: LabelSource) -> tuple[str, ...]:
    """Return what is to be said of labels before any pixel is read."""
    found: tuple[str, ...] = ()
    with suppress(SwatheError):  # what cannot be read is told elsewhere
        found = getattr(unrestricted(labels), "notes", ())
    return found


def count_remarks(sample: Sample) -> LabelRemarks:
    """Count the pixels of a sample's labels of which something is to be said. Reads no images."""
    decode: Any = getattr(unrestricted(sample.labels), "decode", None)
    counts = Counter[Remark]()
    windows = chain.from_iterable(area.split(SIDE) for area in sample.areas if decode is not None)
    for window in windows:
        counts.update({remark: int(where.sum()) for remark, where in decode(window).remarks.items()})
    return LabelRemarks(sample.name, sum(area.size for area in sample.areas), counts, notes_of(sample.labels))


def describe_remarks(samples: Iterable[LabelRemarks]) -> list[tuple[str, bool]]:
    """Return sentences, each with whether it was to be expected; of several samples one, with all their pixels."""
    names: dict[str | Remark, list[str]] = defaultdict(list)
    pixels, sizes = Counter[Remark](), Counter[Remark]()
    for one in samples:
        for note in one.notes:
            names[note].append(one.name)
        for remark, count in one.counts.items():
            if count:
                names[remark].append(one.name)
                pixels[remark] += count
                sizes[remark] += one.pixels
    said = []
    for what, of in names.items():
        if isinstance(what, Remark):
            text = f"{pixels[what]:,} pixels ({100 * pixels[what] / sizes[what]:.3g} %) {what.text}"
            said.append((f"labels of {listed(of)}: {text}", what.expected))
        else:
            said.append((f"labels of {listed(of)}: {what}", True))
    return said


def listed(names: Sequence[str]) -> str:
    """Return a few names, and their number where they are more."""
    return ", ".join(names) if len(names) <= FEW else f"{len(names)} samples ({', '.join(names[:FEW])}, ...)"
