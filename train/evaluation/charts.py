"""Charts of scores as a page takes them: points in per cent of an axis, and words. Numbers and text only."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from pipeline.stats.table import format_share

from ..metrics.calibration import Reliability
from ..metrics.confusion import Confusion
from ..metrics.thresholds import ThresholdCurve, ThresholdPoint
from .table import NONE, say

FINE = tuple(step / 100 for step in range(101))  # thresholds of the lines
LARGEST_DOT, SMALLEST_DOT = 2.6, 0.9  # radius, in per cent of the chart


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
    """The reliability curve with its summary, and rows `(said, is, pixels)`."""

    dots: tuple[Dot, ...]
    line: Curve
    words: str
    rows: tuple[tuple[str, str, str], ...]


def reliability_chart(found: Reliability) -> ReliabilityChart | None:
    """Draw how often what is said to be likely is so; None where nothing was counted."""
    most = int(found.count.max(initial=0))
    if not most:
        return None
    filled = [place for place in range(len(found.count)) if found.count[place]]
    dots = tuple(_dot(found, place, most) for place in filled)
    rows = tuple(
        (say(found.confidence[place]), say(found.frequency[place]), f"{int(found.count[place]):,}") for place in filled
    )
    words = f"Expected calibration error {say(found.ece)}, Brier score {say(found.brier)}."
    return ReliabilityChart(dots, _curve("reliability", [(dot.x / 100, dot.y / 100) for dot in dots]), words, rows)


def _dot(found: Reliability, place: int, most: int) -> Dot:
    said, true, count = float(found.confidence[place]), float(found.frequency[place]), int(found.count[place])
    radius = SMALLEST_DOT + (LARGEST_DOT - SMALLEST_DOT) * (count / most) ** 0.5
    return Dot(100 * said, 100 * true, radius, f"said {say(said)}, is {say(true)}: {count:,} pixels")


def _curve(name: str, points: Sequence[tuple[float, float]]) -> Curve:
    known = [(x, y) for x, y in points if isfinite(x) and isfinite(y)]
    return Curve(name, " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in known))


@dataclass(frozen=True, slots=True)
class SweepChart:
    """Scores by threshold: lines, the threshold in use and the best one (None: none), words, rows of numbers."""

    lines: tuple[Curve, ...]
    used: float | None
    best: float | None
    words: str
    rows: tuple[tuple[str, ...], ...]


def sweep_chart(found: ThresholdCurve, used: float | None) -> SweepChart | None:
    """Draw how scores change with the threshold; None where there is nothing to find."""
    best = found.best()
    if best is None:
        return None
    curve = found.curve(FINE)
    lines = tuple(
        _curve(name, [(at.threshold, float(getattr(at, attribute))) for at in curve])
        for name, attribute in (("IoU", "iou"), ("precision", "precision"), ("recall", "recall"))
    )
    precision = found.average_precision
    words = (
        f"The highest IoU here would be {say(best.iou)}, at {best.threshold:g}. "
        f"Average precision {say(precision.value)}."
    )
    rows = tuple(_row(at) for at in curve if round(at.threshold * 1000) % 100 == 0)
    return SweepChart(lines, used, best.threshold, words, rows)


def _row(at: ThresholdPoint) -> tuple[str, ...]:
    return (f"{at.threshold:g}", *(say(value) for value in (at.iou, at.f1, at.precision, at.recall)))


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix: its share of the true class, in words and from 0 to 1, and pixels."""

    share: str
    strength: float
    pixels: str
    right: bool


def confusion_rows(counts: Confusion) -> list[list[Cell]]:
    """Give the confusion matrix row by row, a row per true class."""
    rows = []
    for truth, line in enumerate(counts.counts.tolist()):
        total = sum(line)
        rows.append([
            Cell(format_share(count / total) if total else NONE, count / total if total else 0.0, f"{count:,}",
                 truth == n)
            for n, count in enumerate(line)
        ])  # fmt: skip
    return rows
