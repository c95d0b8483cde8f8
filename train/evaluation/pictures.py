"""Pictures of a page of scores: squares of the samples as data URIs, and charts as points in per cent of an axis."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA
from models.metadata import ClassInfo
from pipeline.io.band_names import rgb_places
from pipeline.io.source import missing_samples
from pipeline.stats.table import format_share
from pipeline.viz.colors import GROUND, stretch
from pipeline.viz.page import data_uri

from ..data.samples import Sample
from ..metrics.calibration import Reliability
from ..metrics.confusion import Confusion
from ..metrics.thresholds import ThresholdCurve
from .counts import SampleStores, ScoredSquare
from .results import NONE, format_score

UNKNOWN = (255, 255, 255)
ERROR_COLORS = {  # in the order of the codes of `errors`
    "right, background": (236, 233, 226),
    "right": (74, 124, 89),
    "false alarm": (240, 178, 20),
    "missed": (46, 94, 170),
    "another class": (122, 59, 145),
}
ERRORS = np.zeros((256, 3), np.uint8)
ERRORS[:5] = list(ERROR_COLORS.values())
ERRORS[NODATA] = UNKNOWN
FINE = tuple(step / 100 for step in range(101))  # thresholds of the lines
LARGEST_DOT, SMALLEST_DOT = 2.6, 0.9  # radius, in per cent of the chart

Panels = list[tuple[str, str]]
"""What each panel of a square shows, and its data URI."""


def draw(
    squares: Sequence[ScoredSquare],
    samples: Sequence[Sample],
    stores: Mapping[str, SampleStores],
    classes: Sequence[ClassInfo],
    background: int | None = 0,
) -> list[tuple[ScoredSquare, Panels]]:
    """Draw image, truth, map and errors of squares; those of one sample are stretched alike, to be compared.

    Parameters
    ----------
    squares
        Few enough for their pixels to be held together.
    samples, stores
        The squares' samples, and their stores by name.
    classes, background
        By value; the value of the background, None where there is none.
    """
    drawn = {}
    for sample in samples:
        inside = [square for square in squares if square.sample == sample.name]
        for square, image in zip(inside, _images(sample, inside), strict=True):
            drawn[square] = _panels(square, image, stores[sample.name], classes, background)
    return [(square, drawn[square]) for square in squares]


def _images(sample: Sample, squares: Sequence[ScoredSquare]) -> list[NDArray[np.float32]]:
    """Read squares and stretch them together, each `(y, x, 3)` of 0..1."""
    if not squares:
        return []
    shown = rgb_places(sample.source.bands)
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


def _panels(
    square: ScoredSquare,
    image: NDArray[np.float32],
    stores: SampleStores,
    classes: Sequence[ClassInfo],
    background: int | None,
) -> Panels:
    truth, decided = (store.read_array("class_map", square.window)[0] for store in (stores.truth, stores.decided))
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [GROUND if n == background else info.rgb for n, info in enumerate(classes)]
    palette[NODATA] = UNKNOWN
    maps = ((truth, palette), (decided, palette), (errors(truth, decided, background), ERRORS))
    uris = (
        data_uri((image * 255).round().astype(np.uint8), "webp", quality=82),
        *(data_uri(index, "png", colors, optimize=True) for index, colors in maps),
    )
    return list(zip(("image", "truth", "map", "errors"), uris, strict=True))


def errors(truth: NDArray[np.uint8], found: NDArray[np.uint8], background: int | None = 0) -> NDArray[np.uint8]:
    """Return codes `(y, x)`: 0 rightly background, 1 rightly another class, 2 false alarm, 3 missed, 4 confused."""
    index = np.full(truth.shape, 4, np.uint8)
    index[truth == found] = 1
    if background is not None:
        index[(truth == found) & (truth == background)] = 0
        index[(truth == background) & (found != background)] = 2
        index[(truth != background) & (found == background)] = 3
    index[(truth == NODATA) | (found == NODATA)] = NODATA
    return index


def reliability_chart(curve: Reliability) -> dict[str, Any] | None:
    """Draw observed frequency over predicted probability; None where nothing was counted.

    Returns
    -------
    dict
        `dots`, a bin each: `(x, y, radius, words)` in per cent, counted from the lower left; `points` of the line;
        `words` for a summary; `rows` of `(predicted probability, observed frequency, pixels)`.
    """
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
        dots.append((100 * said, 100 * true, radius, f"said {cells[0]}, is {cells[1]}: {cells[2]} pixels"))
        rows.append(cells)
    words = f"Expected calibration error {format_score(curve.ece)}, Brier score {format_score(curve.brier)}."
    return {"dots": dots, "points": _points([(x / 100, y / 100) for x, y, *_ in dots]), "words": words, "rows": rows}


def _points(line: Sequence[tuple[float, float]]) -> str:
    """Return points of 0..1 as SVG takes them, in per cent from the upper left."""
    return " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in line if isfinite(x) and isfinite(y))


def threshold_chart(counts: ThresholdCurve, used: float | None) -> dict[str, Any] | None:
    """Draw scores over the threshold; None where there is no foreground.

    Returns
    -------
    dict
        `lines` of `(name, points)`; the threshold that is `used`, None for none; `words`; `rows` of numbers.
    """
    best = counts.best()
    if best is None:
        return None
    points, names = counts.curve(FINE), {"IoU": "iou", "precision": "precision", "recall": "recall"}
    lines = [
        (name, _points([(at.threshold, float(getattr(at, attribute))) for at in points]))
        for name, attribute in names.items()
    ]
    words = (
        f"The highest IoU here would be {format_score(best.iou)}, at {best.threshold:g}. "
        f"Average precision {format_score(counts.average_precision.value)}."
    )
    rows = [
        (f"{at.threshold:g}", *(format_score(value) for value in (at.iou, at.f1, at.precision, at.recall)))
        for at in points
        if round(at.threshold * 1000) % 100 == 0
    ]
    return {"lines": lines, "used": used, "words": words, "rows": rows}


def confusion_rows(counts: Confusion) -> list[list[dict[str, Any]]]:
    """Return the cells of the confusion matrix, a row per true class.

    Each has its `share` of the true class in words, `strength`, which is the share from 0 to 1, its `pixels`, and
    whether it is `right`.
    """
    rows = []
    for truth, line in enumerate(counts.counts.tolist()):
        total = sum(line)
        rows.append([
            {"share": format_share(count / total) if total else NONE, "strength": count / total if total else 0.0,
             "pixels": f"{count:,}", "right": truth == n}
            for n, count in enumerate(line)
        ])  # fmt: skip
    return rows
