"""Contact sheets of training chips, for eyes before a training: chips beside their labels, and one chip augmented."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from models.errors import StoreError, TrainingError
from models.files import check_output, whole_file
from models.metadata import ClassInfo
from pipeline.io.band_names import rgb_places
from pipeline.viz.colors import RGB, limits, object_palette, paint, scale
from pipeline.viz.overlay import class_colours

from ..config import Augment
from ..config.schema import IGNORE
from ..data.augment import Augmentation, BandDrop, Noise, QuarterTurn, Radiometry, resize_chip

if TYPE_CHECKING:
    from matplotlib.patches import Patch

    from ..data.statistics import BandStatistics

SIDE = 256  # pixels of a chip in the contact sheet, at most
DPI = 100
INK, PAPER = "#1c2733", "#ffffff"
GAP, APART = 4, 16  # pixels between a chip and its labels, and between pairs
GREY, STRIPE = (0.62, 0.38), 8  # of what is ignored; pixels from one stripe to the next
FRAME = 0.8  # its grey: a chip may be as white as paper
MARGIN, TITLE, KEY = 16, 34, 30  # pixels around all, of the title, and of a row of the legend
ENTRY = 12  # pixels that a letter of the legend takes, at most
COLUMNS, PANEL, PANEL_TITLE = 5, 2.6, 0.3  # of the augmentation sheet: panels in a row; inches of each, and its title
IGNORED = (150, 150, 150)

Chip = tuple[Any, Any]
"""Raw pixels `(band, y, x)` and labels `(y, x)`, as arrays or as tensors on a CPU."""


Pair = tuple[NDArray[np.float32], NDArray[np.uint8]]
"""A chip as it is drawn: one or three bands `(band, y, x)`, and labels `(y, x)`, both `SIDE` pixels or less."""


def write_sheet(
    chips: Iterable[Chip],
    classes: Sequence[ClassInfo],
    path: str | os.PathLike[str],
    *,
    bands: Sequence[str] = (),
    title: str = "",
    count: int = 16,
    columns: int = 4,
    background: int | None = 0,
    overwrite: bool = False,
) -> Path:
    """Write a contact sheet: each chip as an image, and beside it with its classes over it.

    Parameters
    ----------
    chips
        Pixels `(band, y, x)` of raw values, and labels `(y, x)` with `IGNORE`; the first `count` of them are drawn.
    classes
        Names and colours.
    path
        The PNG to write.
    bands
        Names, to find red, green and blue by; else the first three bands are shown, or the first one in grey.
    title
        What stands over it.
    count, columns
        How many chips, and how many beside each other.
    background
        Value of the class that stays clear; None: all are painted.
    overwrite
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The file. Values are stretched alike in all chips, between percentiles 2 and 98 of what is not ignored, so that
        what augmentation does to brightness shows. What is ignored has grey stripes.

    Raises
    ------
    TrainingError
        There are no chips.
    StoreError
        The file exists, is no PNG, or cannot be written.
    """
    target = check_output(path, overwrite=overwrite)
    if target.suffix.lower() != ".png":
        raise StoreError(f"a sheet of chips is written as .png; received {target.name}")
    pairs = [_small(chip, bands) for chip in islice(chips, count)]
    if not pairs:
        raise TrainingError("there are no chips to show")
    figure = _figure(_mosaic(pairs, classes, columns, background), _legend(pairs, classes, background), title)
    with whole_file(target) as part:
        figure.savefig(part, dpi=DPI, metadata={"Software": "Swathe"})
    return target


def _small(chip: Chip, bands: Sequence[str]) -> Pair:
    """Take the bands that are shown, and every n-th pixel of large chips; repeat those of small ones."""
    pixels, labels = np.asarray(chip[0]), np.asarray(chip[1])
    places, longest = rgb_places(bands), max(labels.shape)
    shown = pixels[places if len(pixels) > max(places) else [0]]
    step, times = -(-longest // SIDE), max(1, SIDE // longest)
    image, classes = (part[..., ::step, ::step].repeat(times, -2).repeat(times, -1) for part in (shown, labels))
    return image.astype(np.float32), classes.astype(np.uint8)


def _mosaic(
    pairs: Sequence[Pair], classes: Sequence[ClassInfo], columns: int, background: int | None
) -> NDArray[np.float32]:
    """Lay chips, and beside them chips with their labels, in rows on paper, framed: float32 `(y, x, 3)`, 0 to 1."""
    height, width = (max(labels.shape[axis] for _, labels in pairs) for axis in (0, 1))
    across = min(columns, len(pairs))
    down = -(-len(pairs) // across)
    high, wide = height + APART, 2 * width + GAP + APART
    page = np.ones((down * high - APART + 2, across * wide - APART + 2, 3), np.float32)
    colours = class_colours(classes, [value for value in range(len(classes)) if value != background])
    values = np.concatenate([pixels.reshape(len(pixels), -1) for pixels, _ in pairs], axis=1)
    labelled = np.concatenate([labels.ravel() for _, labels in pairs]) != IGNORE
    ends = limits(values, labelled | ~labelled.any())  # what is ignored has no say, unless all is
    rows, columns_ = np.indices((height, width))
    stripes = np.where((rows + columns_) % STRIPE < STRIPE // 2, *GREY).astype(np.float32)[..., None]
    for number, (pixels, labels) in enumerate(pairs):
        shown, (below, beside) = scale(pixels, ends), labels.shape
        painted = np.where((labels == IGNORE)[..., None], stripes[:below, :beside], paint(shown, labels, colours))
        top, left = number // across * high + 1, number % across * wide + 1
        for image, start in ((shown, left), (painted, left + width + GAP)):
            page[top - 1 : top + below + 1, start - 1 : start + beside + 1] = FRAME
            page[top : top + below, start : start + beside] = image
    return page


def _legend(pairs: Sequence[Pair], classes: Sequence[ClassInfo], background: int | None) -> "list[Patch]":
    """Return a patch per class, with its share of the labelled pixels, and a striped one for what is ignored."""
    from matplotlib.patches import Patch

    counts = np.sum([np.bincount(labels.ravel(), minlength=256) for _, labels in pairs], axis=0)
    labelled, total = max(1, int(counts.sum() - counts[IGNORE])), int(counts.sum())
    patches = []
    for value, info in enumerate(classes):
        text = f"{info.name}  {100 * counts[value] / labelled:.1f} %" + (", not painted" if value == background else "")
        face = PAPER if value == background else f"#{info.color}"
        patches.append(Patch(facecolor=face, edgecolor=INK, linewidth=0.8, label=text))
    if counts[IGNORE]:
        text = f"ignored  {100 * counts[IGNORE] / total:.1f} % of all"
        patches.append(Patch(facecolor="#9e9e9e", edgecolor="#616161", hatch="////", linewidth=0, label=text))
    return patches


def _figure(page: NDArray[np.float32], legend: "Sequence[Patch]", title: str) -> Any:
    """Set a page pixel for pixel into a figure, with a title above and the legend below."""
    from matplotlib.figure import Figure

    height, width = page.shape[:2]
    wide = max(width, 520) + 2 * MARGIN
    columns = max(1, (wide - 2 * MARGIN) // (ENTRY * max(len(str(patch.get_label())) for patch in legend) + 40))
    above, below = (TITLE if title else 0) + MARGIN, -(-len(legend) // columns) * KEY + 2 * MARGIN
    high = height + above + below
    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((MARGIN / wide, below / high, width / wide, height / high))
    axes.imshow(page, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    if title:
        figure.text(MARGIN / wide, 1 - MARGIN / high, title, color=INK, fontsize=14, ha="left", va="top")
    figure.legend(handles=legend, loc="upper left", bbox_to_anchor=(MARGIN / wide, (below - MARGIN) / high),
                  ncols=columns, frameon=False, fontsize=12, borderaxespad=0, labelcolor=INK)  # fmt: skip
    return figure


@dataclass(frozen=True, slots=True)
class Variation:
    """A varied chip: what it shows, raw pixels `(band, y, x)` float32 and labels `(y, x)` int64."""

    title: str
    pixels: Tensor
    labels: Tensor


def augmentation_sheet(
    pixels: Tensor,
    labels: Tensor,
    settings: Augment,
    statistics: "BandStatistics",
    path: str | os.PathLike[str],
    *,
    zoom: tuple[float, float] = (1.0, 1.0),
    classes: Sequence[ClassInfo] = (),
    background: int | None = 0,
    overwrite: bool = False,
) -> Path:
    """Write a picture of a chip and of each variation that the settings ask for, labels outlined.

    Parameters
    ----------
    pixels, labels
        A square chip: raw values `(band, y, x)` float32, and labels `(y, x)` int64 with `IGNORE`, drawn grey. Drawn are
        the first three bands, or the first.
    settings, statistics, zoom
        As training has them; see `Augmentation` and `Chips`. Of a zoom above 1, the picture's chip is the
        middle of this one.
    path
        The PNG to write.
    classes
        For the colours of outlines. Empty: any colours.
    background
        Value of the class that has no outlines; None: all have.
    overwrite
        Replace an existing file.

    Raises
    ------
    StoreError
        The file exists, or cannot be written.
    """
    from matplotlib.figure import Figure

    target = check_output(path, overwrite=overwrite)
    drawn = list(variations(pixels, labels, settings, statistics, zoom))
    colours: dict[int, RGB] = {value: info.rgb for value, info in enumerate(classes) if value != background}
    if not classes:
        present = sorted(set(labels[labels != IGNORE].tolist()) - {background})
        palette = object_palette()[1:].tolist()
        colours = {value: tuple(palette[value % len(palette) - 1]) for value in present}
    shown = slice(3 if len(pixels) >= 3 else 1)
    chip = drawn[0].pixels.numpy()[shown]
    ends = limits(chip, np.ones(chip.shape[1:], bool))  # of the chip as it is, so that variations show
    rows = ceil(len(drawn) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL, rows * (PANEL + PANEL_TITLE)), facecolor=PAPER)
    # places by hand: matplotlib's own layouts take seconds for so many panels
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - PANEL_TITLE / figure.get_figheight(), wspace=0.04)
    for place, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).ravel()):
        axes.set_axis_off()
        if place < len(drawn):
            varied = drawn[place]
            image, classified = scale(varied.pixels.numpy()[shown], ends), varied.labels.numpy().astype(np.uint8)
            outlined = paint(image, classified, colours, "outline")
            axes.imshow(paint(outlined, classified, {IGNORE: IGNORED}, "mask", 0.5), interpolation="nearest")
            axes.text(0, 1.03, varied.title, transform=axes.transAxes, color=INK, fontsize=10)
    with whole_file(target) as part:
        figure.savefig(part, dpi=110, metadata={"Software": "Swathe"})
    return target


def variations(
    pixels: Tensor,
    labels: Tensor,
    settings: Augment,
    statistics: "BandStatistics",
    zoom: tuple[float, float] = (1.0, 1.0),
) -> Iterator[Variation]:
    """Return a chip and its variations as `augmentation_sheet` draws them, and last three of all at once, seeded."""
    chip = _middle(pixels, labels, int(min(labels.shape) / max(zoom[1], 1)))
    yield Variation("as it is", *chip)
    side = chip[1].shape[0]
    for factor in zoom:
        if factor != 1:
            around = _middle(pixels, labels, min(round(side * factor), *labels.shape))
            yield Variation(f"zoom {factor:g}", *resize_chip(*around, side))
    if side < min(labels.shape):
        yield Variation("another crop", pixels[:, :side, :side], labels[:side, :side])
    flips = (("left to right", functional.horizontal_flip), ("upside down", functional.vertical_flip))
    for title, flip in flips if settings.flips else ():
        yield Variation(title, *(flip(part) for part in chip))
    both = tv_tensors.Image(chip[0]), tv_tensors.Mask(chip[1])
    for quarters in (1, 2, 3) if settings.turns else ():
        turned = (QuarterTurn().transform(part, {"quarters": quarters}).as_subclass(Tensor) for part in both)
        yield Variation(f"turned by {90 * quarters}°", *turned)
    for title, varied in _recoloured(chip[0], settings, statistics):
        yield Variation(title, varied.as_subclass(Tensor), chip[1])
    augment = Augmentation(settings, statistics)
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield Variation(f"all at once, seed {seed}", *augment(*chip))


def _middle(pixels: Tensor, labels: Tensor, side: int) -> tuple[Tensor, Tensor]:
    top, left = ((count - side) // 2 for count in labels.shape)
    return pixels[:, top : top + side, left : left + side], labels[top : top + side, left : left + side]


def _recoloured(pixels: Tensor, settings: Augment, statistics: "BandStatistics") -> Iterator[tuple[str, Tensor]]:
    image, bands = tv_tensors.Image(pixels), len(pixels)
    ones = torch.ones(bands, dtype=torch.float64)
    shifts = [("up", ones), ("down", -ones)]  # the largest; and as far apart as bands can be
    if bands > 1:
        shifts.append(("bands apart", torch.where(torch.arange(bands) % 2 == 0, 0.5, -0.5).double()))
    for place, name in enumerate(("gain", "bias", "gamma")):
        size = getattr(settings, name)
        if size:
            alone = Radiometry(replace(Augment(), **{name: size}), statistics)
            for text, shift in shifts:
                drawn = torch.zeros(3, bands, dtype=torch.float64)
                drawn[place] = shift
                yield f"{name} {size:g}, {text}", alone.transform(image, {"shift": drawn})
    if settings.noise:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            noisy = Noise(settings, statistics).transform(image, {"part": settings.noise})
        yield f"noise {settings.noise:g}", noisy
    if settings.drop_band and bands > 1:
        lost = torch.arange(bands) == 0
        yield "first band lost", BandDrop(settings, statistics).transform(image, {"lost": lost})
