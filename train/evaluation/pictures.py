"""Pictures of a page of scores: squares of the samples as data URIs, and charts as points in per cent of an axis."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metadata import ClassInfo
from pipeline.grid.encoding import NODATA
from pipeline.io.source import missing_samples
from pipeline.stats.table import format_share
from pipeline.viz.colors import stretch
from pipeline.viz.preview import RGB_NAMES

from ..data.samples import Sample
from ..metrics.calibration import Reliability
from ..metrics.confusion import Confusion
from ..metrics.thresholds import ThresholdCurve
from .counts import SampleStores, ScoredSquare
from .results import NONE, format_score

GROUND = (222, 217, 206)  # the first class, which has no colour of its own on a map
UNKNOWN = (255, 255, 255)
ERROR_COLORS = {  # in the order of the codes of `errors`
    "right, first class": (236, 233, 226),
    "right": (74, 124, 89),
    "false alarm": (240, 178, 20),
    "missed": (46, 94, 170),
    "another class": (122, 59, 145),
}
PANELS = ("image", "truth", "map", "errors")
ERRORS = np.zeros((256, 3), np.uint8)
ERRORS[:5] = list(ERROR_COLORS.values())
ERRORS[NODATA] = UNKNOWN
FINE = tuple(step / 100 for step in range(101))  # thresholds of the lines
LARGEST_DOT, SMALLEST_DOT = 2.6, 0.9  # radius, in per cent of the chart


@dataclass(frozen=True, slots=True)
class Strip:
    """A square in pictures: where it is, how well it is mapped, and `(what, data URI)` of each panel."""

    square: ScoredSquare
    panels: tuple[tuple[str, str], ...]


def draw(
    squares: Sequence[ScoredSquare],
    samples: Sequence[Sample],
    stores: Mapping[str, SampleStores],
    classes: Sequence[ClassInfo],
) -> list[Strip]:
    """Draw squares; those of one sample are stretched alike, so that they can be compared.

    Parameters
    ----------
    squares
        Few enough for their pixels to be held together.
    samples, stores
        The squares' samples, and their stores by name.
    classes
        By value.
    """
    drawn = {}
    for sample in samples:
        inside = [square for square in squares if square.sample == sample.name]
        for square, image in zip(inside, _images(sample, inside), strict=True):
            drawn[square] = Strip(square, _panels(square, image, stores[sample.name], classes))
    return [drawn[square] for square in squares]


def _images(sample: Sample, squares: Sequence[ScoredSquare]) -> list[NDArray[np.float32]]:
    """Read squares and stretch them together, each `(y, x, 3)` of 0..1."""
    if not squares:
        return []
    shown = shown_bands(sample.source.bands)
    read = [sample.source.read(square.window) for square in squares]
    pixels = np.concatenate([part.data[shown].reshape(len(shown), 1, -1) for part in read], axis=-1).astype(np.float32)
    for band, place in zip(pixels, shown, strict=True):
        missing = missing_samples(band, sample.source.nodata[place])
        band[missing if missing is not None else ()] = np.nan
    together = stretch(pixels, np.concatenate([part.valid.reshape(1, -1) for part in read], axis=-1))[0]
    ends = np.cumsum([part.valid.size for part in read])[:-1]
    return [
        part.reshape(*square.window.shape, 3) for part, square in zip(np.split(together, ends), squares, strict=True)
    ]


def shown_bands(names: Sequence[str]) -> list[int]:
    """Return the places of red, green and blue by name, else of the first three bands, else of the first."""
    lower = [name.lower() for name in names]
    for wanted in RGB_NAMES:
        if all(lower.count(name) == 1 for name in wanted):
            return [lower.index(name) for name in wanted]
    return [0, 1, 2] if len(names) > 2 else [0]


def _panels(
    square: ScoredSquare, image: NDArray[np.float32], stores: SampleStores, classes: Sequence[ClassInfo]
) -> tuple[tuple[str, str], ...]:
    truth, decided = (store.read_array("class_map", square.window)[0] for store in (stores.truth, stores.decided))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [GROUND, *(info.rgb for info in classes[1:])]
    palette[NODATA] = UNKNOWN
    maps = ((truth, palette), (decided, palette), (errors(truth, decided), ERRORS))
    uris = (
        _data_uri((image * 255).round().astype(np.uint8), "webp", quality=82),
        *(_data_uri(index, "png", colors, optimize=True) for index, colors in maps),
    )
    return tuple(zip(PANELS, uris, strict=True))


def errors(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return codes `(y, x)`: 0 rightly the first class, 1 rightly another one, 2 false alarm, 3 missed, 4 confused."""
    index = np.full(truth.shape, 4, np.uint8)
    index[truth == found] = 1
    index[(truth == found) & (truth == 0)] = 0
    index[(truth == 0) & (found != 0)] = 2
    index[(truth != 0) & (found == 0)] = 3
    index[(truth == NODATA) | (found == NODATA)] = NODATA
    return index


def _data_uri(pixels: NDArray[np.uint8], kind: str, palette: NDArray[np.uint8] | None = None, **settings: Any) -> str:
    """Encode an image `(y, x, 3)`, or indices `(y, x)` into a palette `(256, 3)`."""
    from PIL import Image

    picture, content = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        picture.putpalette(palette.tobytes())
    picture.save(content, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


@dataclass(frozen=True, slots=True)
class Dot:
    """A bin of the reliability curve: its place, counted from the lower left, its radius, and its words."""

    x: float
    y: float
    radius: float
    words: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart: its name, and its points as SVG takes them, from the upper left."""

    name: str
    points: str


@dataclass(frozen=True, slots=True)
class ReliabilityChart:
    """Reliability as dots and a line, its summary, and rows `(predicted probability, observed frequency, pixels)`."""

    dots: tuple[Dot, ...]
    points: str
    words: str
    rows: tuple[tuple[str, str, str], ...]


def reliability_chart(curve: Reliability) -> ReliabilityChart | None:
    """Draw observed frequency over predicted probability; None where nothing was counted."""
    most = int(curve.count.max(initial=0))
    if not most:
        return None
    dots, rows = [], []
    columns = (part.tolist() for part in (curve.confidence, curve.frequency, curve.count))
    for said, true, pixels in zip(*columns, strict=True):
        if not pixels:
            continue
        cells = format_score(said), format_score(true), f"{int(pixels):,}"
        radius = SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * (pixels / most) ** 0.5
        dots.append(Dot(100 * said, 100 * true, radius, f"said {cells[0]}, is {cells[1]}: {cells[2]} pixels"))
        rows.append(cells)
    words = f"Expected calibration error {format_score(curve.ece)}, Brier score {format_score(curve.brier)}."
    return ReliabilityChart(tuple(dots), _points([(dot.x / 100, dot.y / 100) for dot in dots]), words, tuple(rows))


def _points(line: Sequence[tuple[float, float]]) -> str:
    """Return points of 0..1 as SVG takes them, in per cent from the upper left."""
    return " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in line if isfinite(x) and isfinite(y))


@dataclass(frozen=True, slots=True)
class ThresholdChart:
    """Scores by threshold: lines, the threshold in use (None: none), words, rows of numbers."""

    lines: tuple[Curve, ...]
    used: float | None
    words: str
    rows: tuple[tuple[str, ...], ...]


def threshold_chart(counts: ThresholdCurve, used: float | None) -> ThresholdChart | None:
    """Draw scores over the threshold; None where there is no foreground."""
    best = counts.best()
    if best is None:
        return None
    points, names = counts.curve(FINE), {"IoU": "iou", "precision": "precision", "recall": "recall"}
    lines = tuple(
        Curve(name, _points([(at.threshold, float(getattr(at, attribute))) for at in points]))
        for name, attribute in names.items()
    )
    words = (
        f"The highest IoU here would be {format_score(best.iou)}, at {best.threshold:g}. "
        f"Average precision {format_score(counts.average_precision.value)}."
    )
    rows = tuple(
        (f"{at.threshold:g}", *(format_score(value) for value in (at.iou, at.f1, at.precision, at.recall)))
        for at in points
        if round(at.threshold * 1000) % 100 == 0
    )
    return ThresholdChart(lines, used, words, rows)


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A cell of the confusion matrix: its share of the true class, in words and from 0 to 1, and pixels."""

    share: str
    strength: float
    pixels: str
    right: bool


def confusion_rows(counts: Confusion) -> list[list[MatrixCell]]:
    """Return the confusion matrix row by row, a row per true class."""
    rows = []
    for truth, line in enumerate(counts.counts.tolist()):
        total = sum(line)
        rows.append([
            MatrixCell(format_share(count / total) if total else NONE, count / total if total else 0.0, f"{count:,}",
                 truth == n)
            for n, count in enumerate(line)
        ])  # fmt: skip
    return rows
