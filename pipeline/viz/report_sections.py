"""What a report says: classes, objects, blocks, provenance, as the template takes them. No files, no HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metadata import ClassInfo

from ..store.metadata import StoreMetadata
from .format import say_area, say_number, say_seconds, say_setting, say_share
from .report_objects import ObjectFigures

BARS = 24  # of a histogram
LEAST_DECADES = 1.0  # that its axis spans, so that it has marks where all sizes are alike
MOST_CELLS = 40  # of the map of blocks, along a side
WEAKEST = 0.08  # strength of the colour of the quickest block; 1 is the slowest's


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the class table; `share` of the observed pixels."""

    name: str
    colour: str
    pixels: int
    area: str
    share: str


def class_rows(
    classes: Sequence[ClassInfo], pixels: Mapping[str, int], areas: Mapping[str, float] | None
) -> list[ClassRow]:
    """Give the class table, the commonest class but the first on top; nodata, if any, last."""
    seen = max(1, sum(count for name, count in pixels.items() if name != "nodata"))
    order = sorted(classes[1:], key=lambda info: -pixels[info.name])
    rows = [_class_row(info, pixels[info.name], areas, pixels[info.name] / seen) for info in [*order, classes[0]]]
    if pixels.get("nodata"):
        rows.append(_class_row(None, pixels["nodata"], areas, None))
    return rows


def _class_row(info: ClassInfo | None, count: int, areas: Mapping[str, float] | None, share: float | None) -> ClassRow:
    name = info.name if info else "nodata"
    return ClassRow(
        name=name,
        colour=f"#{info.color}" if info else "",
        pixels=count,
        area=say_area(areas[name]) if areas else "",
        share="" if share is None else say_share(share),
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: its place and height in per cent, what it counts, from and to."""

    left: float
    width: float
    height: float
    count: int
    span: str


@dataclass(frozen=True, slots=True)
class ObjectPart:
    """The objects of one class: figures `(name, value)`, and their histogram with ticks `(per cent, text)`."""

    name: str
    colour: str
    figures: list[tuple[str, str]]
    bars: list[Bar]
    ticks: list[tuple[float, str]]

    @property
    def most(self) -> int:
        """What the tallest bar counts."""
        return max(bar.count for bar in self.bars)


def object_part(
    figures: ObjectFigures, info: ClassInfo, land: float | None, covered: float | None, share: float
) -> ObjectPart:
    """Describe the objects of one class.

    Parameters
    ----------
    figures, info
        Of the class.
    land, covered
        Observed area and that of the class, in m²; None where areas are not known.
    share
        Of the observed pixels that the class takes.
    """
    sizes = figures.sizes
    say = say_area if figures.metric else _say_pixels
    told = [("objects", f"{sizes.count:,}"), ("mean size", say(sizes.mean)), ("median size", say(sizes.median))]
    told.append(("of the land", say_share(covered / land if land and covered is not None else share)))
    if land:
        told.append(("per km²", say_number(sizes.count / (land / 1e6))))
    if figures.width is not None:
        told.append(("mean width", f"{say_number(figures.width)} {'m' if figures.metric else 'pixels'}"))
    bars, ticks = _histogram(figures, say)
    return ObjectPart(info.name, f"#{info.color}", told, bars, ticks)


def _say_pixels(size: float, digits: int = 3) -> str:
    return f"{say_number(size, digits)} pixels"


def _histogram(figures: ObjectFigures, say: Any) -> tuple[list[Bar], list[tuple[float, str]]]:
    """Count sizes in bars of equal width on a logarithmic axis, which holds a shed and a hangar alike."""
    low, high = np.log10(figures.sizes.smallest), np.log10(figures.sizes.largest)
    middle, half = (low + high) / 2, max(0.52 * (high - low), LEAST_DECADES / 2)
    edges = np.linspace(middle - half, middle + half, BARS + 1)
    counts = figures.sizes.between(10**edges)
    most = max(1, int(counts.max()))
    bars = [
        Bar(
            100 * n / BARS,
            100 / BARS,
            100 * int(count) / most,
            int(count),
            f"{say(10 ** edges[n])} to {say(10 ** edges[n + 1])}",
        )
        for n, count in enumerate(counts)
    ]
    return bars, _ticks(float(edges[0]), float(edges[-1]), say)


def _ticks(low: float, high: float, say: Any) -> list[tuple[float, str]]:
    """Mark round sizes: powers of ten if two or more of them are in sight, else their doubles and halves too."""
    margin = 0.04 * (high - low)  # so that no mark is cut off
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        places = [np.log10(step) + power for power in powers for step in steps]
        inside = [place for place in places if low + margin <= place <= high - margin]
        if len(inside) >= 3:
            break
    return [
        (100 * (place - low) / (high - low), say(10**place, 1)) for place in inside[:: max(1, -(-len(inside) // 6))]
    ]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the map of blocks: its place in pixels of the scene, how strong its colour is, what it says."""

    left: float
    top: float
    width: float
    height: float
    strength: float
    words: str


@dataclass(frozen=True, slots=True)
class BlockPart:
    """The map of blocks, with its legend."""

    cells: list[Cell]
    width: int
    height: int
    lowest: str
    highest: str
    words: str


def block_part(seconds: NDArray[np.floating[Any]], side: int, shape: tuple[int, int], command: str) -> BlockPart:
    """Draw how long each block took; neighbours are put together where there are too many to see.

    Parameters
    ----------
    seconds
        `(row, column)` of blocks.
    side, shape
        Of a block and of the scene, in pixels.
    command
        What took the time.
    """
    joined = -(-max(seconds.shape) // MOST_CELLS)
    means = _means(seconds, joined)
    rows, columns = means.shape
    low, high = float(means.min()), float(means.max())
    cells = [
        _cell(row, column, side * joined, shape, float(means[row, column]), (low, high))
        for row in range(rows)
        for column in range(columns)
    ]
    return BlockPart(
        cells, shape[1], shape[0], say_seconds(low), say_seconds(high), _block_words(seconds, joined, command)
    )


def _means(seconds: NDArray[Any], joined: int) -> NDArray[np.float64]:
    """Give the mean of each `joined` x `joined` blocks, of fewer at the right and lower edge."""
    ends = [(0, -side % joined) for side in seconds.shape]
    padded = np.pad(seconds.astype(np.float64), ends, constant_values=np.nan)
    rows, columns = (side // joined for side in padded.shape)
    means: NDArray[np.float64] = np.nanmean(padded.reshape(rows, joined, columns, joined), axis=(1, 3))
    return means


def _cell(
    row: int, column: int, side: int, shape: tuple[int, int], seconds: float, extremes: tuple[float, float]
) -> Cell:
    low, high = extremes
    top, left = row * side, column * side
    return Cell(
        left=left,
        top=top,
        width=min(side, shape[1] - left),
        height=min(side, shape[0] - top),
        strength=round(WEAKEST + (1 - WEAKEST) * ((seconds - low) / (high - low) if high > low else 0.5), 3),
        words=f"row {row}, column {column}: {say_seconds(seconds)}",
    )


def _block_words(seconds: NDArray[np.floating[Any]], joined: int, command: str) -> str:
    rows, columns = seconds.shape
    blocks = "1 block" if seconds.size == 1 else f"{seconds.size:,} blocks, {rows:,} down and {columns:,} across"
    together = f"; each cell stands for up to {joined} × {joined} of them" if joined > 1 else ""
    total = say_seconds(float(np.nansum(seconds)))
    return f"{blocks}{together}. In {command} they took {total} together; several may have run at the same time."


def provenance(metadata: StoreMetadata, source: str) -> list[tuple[str, str]]:
    """Say where a store comes from, from its own facts: scene, bundle, engine, settings of the segmentation."""
    bundle, seen, made = metadata.bundle, metadata.source, metadata.segmentation
    kept = made.get("encoding") or asdict(metadata.encoding)
    told = [
        ("scene", source),
        ("bands", f"{', '.join(seen['bands'])} ({seen['dtype']})" if seen else ""),
        ("bundle", " ".join(filter(None, (bundle.get("name", ""), bundle.get("architecture", ""))))),
        ("bundle digest", bundle.get("digest", "")),
        ("engine", made.get("engine", "")),
        ("precision", made.get("precision", "")),
        ("halo", f"{made['halo']} pixels" if "halo" in made else ""),
        ("threshold", "the likeliest class" if kept.get("threshold") is None else f"{kept['threshold']:g}"),
        ("probability", f"kept as {kept['probability']}" if kept.get("probability") else "not kept"),
        ("blocks", f"up to {metadata.plan.block:,} × {metadata.plan.block:,} pixels"),
    ]
    return [(name, value) for name, value in told if value]


def cleaning(metadata: StoreMetadata) -> list[tuple[str, str]]:
    """Say how a cleaned store was cleaned; nothing of others."""
    settings = metadata.cleaned or {}
    return [(str(name).replace("_", " "), say_setting(value)) for name, value in settings.items()]
