"""A picture of what augmentation does to one chip: each variation alone at its largest, then all at once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from models.metadata import ClassInfo
from pipeline.store.local_files import check_output, whole_file
from pipeline.viz.colors import object_palette, paint

from ..config import Augment
from ..data.augment import BandDrop, Noise, QuarterTurn, Radiometry, make_augment, resize_chip
from ..data.samples import IGNORE

if TYPE_CHECKING:
    from ..data.statistics import Statistics

INK, IGNORED = "#1c2733", (150, 150, 150)
COLUMNS, PANEL, TITLE = 5, 2.6, 0.3  # panels in a row; inches of each, and of its title


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
    statistics: "Statistics",
    path: str | os.PathLike[str],
    *,
    zoom: tuple[float, float] = (1.0, 1.0),
    classes: Sequence[ClassInfo] = (),
    overwrite: bool = False,
) -> Path:
    """Write a picture of a chip and of each variation that the settings ask for, labels outlined.

    Parameters
    ----------
    pixels, labels
        A square chip: raw values `(band, y, x)` float32, and labels `(y, x)` int64 with `IGNORE`, drawn grey. Drawn are
        the first three bands, or the first.
    settings, statistics, zoom
        As training has them; see `make_augment` and `settings.Chips`. Of a zoom above 1, the picture's chip is the
        middle of this one.
    path
        The PNG to write.
    classes
        For the colours of outlines; the first, which is the background, has none. Empty: any colours.
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
    colours = _colours(classes, int(labels[labels != IGNORE].max()) + 1 if (labels != IGNORE).any() else 1)
    limits = np.percentile(drawn[0].pixels.numpy()[:3], (2, 98), axis=(1, 2))
    rows = ceil(len(drawn) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * PANEL, rows * (PANEL + TITLE)), facecolor="white")
    # places by hand: matplotlib's own layouts take seconds for so many panels
    room = {"left": 0.01, "right": 0.99, "bottom": 0.01, "top": 1 - TITLE / figure.get_figheight(), "wspace": 0.04}
    for place, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False, gridspec_kw=room).ravel()):
        axes.set_axis_off()
        if place < len(drawn):
            axes.imshow(_panel(drawn[place], limits, colours), interpolation="nearest")
            axes.text(0, 1.03, drawn[place].title, transform=axes.transAxes, color=INK, fontsize=10)
    with whole_file(target) as part:
        figure.savefig(part, dpi=110, metadata={"Software": "Swathe"})
    return target


def variations(
    pixels: Tensor, labels: Tensor, settings: Augment, statistics: "Statistics", zoom: tuple[float, float] = (1.0, 1.0)
) -> Iterator[Variation]:
    """Give a chip and its variations as `augmentation_sheet` draws them, and last three of all at once, seeded."""
    chip = _middle(pixels, labels, int(min(labels.shape) / max(zoom[1], 1)))
    yield Variation("as it is", *chip)
    yield from _zoomed(pixels, labels, zoom, chip[1].shape[0])
    yield from _moved(*chip, settings)
    for title, varied in _recoloured(chip[0], settings, statistics):
        yield Variation(title, varied.as_subclass(Tensor), chip[1])
    augment = make_augment(settings, statistics)
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield Variation(f"all at once, seed {seed}", *augment(*chip))


def _middle(pixels: Tensor, labels: Tensor, side: int) -> tuple[Tensor, Tensor]:
    top, left = ((count - side) // 2 for count in labels.shape)
    return pixels[:, top : top + side, left : left + side], labels[top : top + side, left : left + side]


def _zoomed(pixels: Tensor, labels: Tensor, zoom: tuple[float, float], side: int) -> Iterator[Variation]:
    for factor in zoom:
        if factor != 1:
            around = _middle(pixels, labels, min(round(side * factor), *labels.shape))
            yield Variation(f"zoom {factor:g}", *resize_chip(*around, side))
    if side < min(labels.shape):
        yield Variation("another crop", pixels[:, :side, :side], labels[:side, :side])


def _moved(pixels: Tensor, labels: Tensor, settings: Augment) -> Iterator[Variation]:
    if settings.flips:
        for title, flip in (("left to right", functional.horizontal_flip), ("upside down", functional.vertical_flip)):
            yield Variation(title, flip(pixels), flip(labels))
    if settings.turns:
        for quarters in (1, 2, 3):
            told = {"quarters": quarters}
            turned = (
                QuarterTurn().transform(what, told) for what in (tv_tensors.Image(pixels), tv_tensors.Mask(labels))
            )
            yield Variation(f"turned by {90 * quarters}°", *(what.as_subclass(Tensor) for what in turned))


def _recoloured(pixels: Tensor, settings: Augment, statistics: "Statistics") -> Iterator[tuple[str, Tensor]]:
    image = tv_tensors.Image(pixels)
    for place, name in enumerate(("gain", "bias", "gamma")):
        size = getattr(settings, name)
        if size:
            alone = replace(Augment(), **{name: size})
            for text, shift in _shifts(len(pixels)):
                told = {"shift": torch.zeros(3, len(pixels), dtype=torch.float64)}
                told["shift"][place] = shift
                yield f"{name} {size:g}, {text}", Radiometry(alone, statistics).transform(image, told)
    if settings.noise:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            noisy = Noise(settings, statistics).transform(image, {"part": settings.noise})
        yield f"noise {settings.noise:g}", noisy
    if settings.drop_band and len(pixels) > 1:
        lost = torch.arange(len(pixels)) == 0
        yield "first band lost", BandDrop(settings, statistics).transform(image, {"lost": lost})


def _shifts(bands: int) -> Iterator[tuple[str, Tensor]]:
    """Give the largest shifts: all bands up, all down, and as far apart as bands can be."""
    ones = torch.ones(bands, dtype=torch.float64)
    yield "up", ones
    yield "down", -ones
    if bands > 1:
        yield "bands apart", torch.where(torch.arange(bands) % 2 == 0, 0.5, -0.5).double()


def _colours(classes: Sequence[ClassInfo], count: int) -> dict[int, tuple[int, int, int]]:
    if classes:
        return {value: info.rgb for value, info in enumerate(classes) if value}
    red, green, blue = (object_palette()[1:count].astype(int).T.tolist()) or ((), (), ())
    return dict(enumerate(zip(red, green, blue, strict=True), 1))


def _panel(
    varied: Variation, limits: NDArray[np.float64], colours: dict[int, tuple[int, int, int]]
) -> NDArray[np.float32]:
    """Draw a chip `(y, x, 3)` from 0 to 1, stretched as the chip that is not varied, so that variations show."""
    bands = [0, 1, 2] if len(varied.pixels) >= 3 else [0, 0, 0]
    low, high = (limit[bands] for limit in limits)
    shown = (np.moveaxis(varied.pixels.numpy()[bands], 0, -1) - low) / np.maximum(high - low, 1e-6)
    labels = varied.labels.numpy().astype(np.uint8)
    outlined = paint(np.clip(shown, 0, 1).astype(np.float32), labels, colours, "outline")
    return paint(outlined, labels, {IGNORE: IGNORED}, "mask", 0.5)
