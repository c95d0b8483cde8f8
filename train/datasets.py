"""Labelled scenes in memory, and random chips drawn from them. Knows rasters and numbers, no networks.

A chip is cut, resampled, turned and mirrored together with its labels; only its values are varied alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.io
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from models.errors import SceneError

from .settings import Chips

IGNORE = 255  # the label of a pixel that nobody judged, or that the scene did not observe


@dataclass(frozen=True)
class LabelledScene:
    """A whole scene with its labels.

    Parameters
    ----------
    name
        For reports.
    pixels
        Raw values `(band, y, x)` of any numeric dtype.
    labels
        Class values `(y, x)` uint8, `IGNORE` where they do not count.
    valid
        `(y, x)` bool, True where observed.
    """

    name: str
    pixels: NDArray[np.generic]
    labels: NDArray[np.uint8]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class Statistics:
    """Mean, standard deviation, smallest and largest observed value per band: `(band,)` float64 each."""

    mean: NDArray[np.float64]
    stddev: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def read_scene(image: Path, label: Path, bands: int, classes: int) -> LabelledScene:
    """Read an image and its labels whole.

    Parameters
    ----------
    image, label
        Two rasters on one geobox; the label's first band counts.
    bands, classes
        How many the image must have, and the labels may name.

    Raises
    ------
    SceneError
        Either cannot be read, they do not lie on the same geobox, or a label names no class.
    """
    try:
        with rasterio.open(image) as source, rasterio.open(label) as drawn:
            _check_geobox(source, drawn)
            pixels, valid = source.read(), source.dataset_mask() > 0
            labels = np.where(valid & (drawn.dataset_mask() > 0), drawn.read(1), IGNORE)
    except rasterio.errors.RasterioError as error:
        raise SceneError(f"{image} and its labels cannot be read: {error}") from error
    if len(pixels) != bands:
        raise SceneError(f"{image} has {len(pixels)} bands; the settings name {bands}")
    strange = np.setdiff1d(labels, [*range(classes), IGNORE])
    if len(strange):
        raise SceneError(f"{label} holds {strange.tolist()[:5]}; labels are 0 to {classes - 1}, or {IGNORE} to ignore")
    return LabelledScene(image.stem, pixels, labels.astype(np.uint8), valid)


def _check_geobox(image: rasterio.io.DatasetReader, label: rasterio.io.DatasetReader) -> None:
    same = image.crs == label.crs and image.shape == label.shape
    if not same or not image.transform.almost_equals(label.transform, precision=1e-6 * abs(image.transform.a)):
        raise SceneError(
            f"{label.name} does not lie on the grid of {image.name}: "
            f"{_geobox(label)}, but the image {_geobox(image)}; resample the labels"
        )


def _geobox(raster: rasterio.io.DatasetReader) -> str:
    return f"{raster.crs} {raster.shape} {tuple(raster.transform)[:6]}"


def measure(scenes: Sequence[LabelledScene]) -> Statistics:
    """Measure each band over the observed pixels of all scenes, every scene with the same weight."""
    seen = [scene.pixels[:, scene.valid].astype(np.float64) for scene in scenes]  # (band, pixel) each
    mean = np.mean([values.mean(axis=1) for values in seen], axis=0)
    square = np.mean([((values - mean[:, None]) ** 2).mean(axis=1) for values in seen], axis=0)
    low = np.min([values.min(axis=1) for values in seen], axis=0)
    high = np.max([values.max(axis=1) for values in seen], axis=0)
    return Statistics(mean, np.maximum(np.sqrt(square), 1e-6), low, np.maximum(high, low + 1e-6))


def filled(scene: LabelledScene, mean: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the scene's pixels `(band, y, x)` float32, with the band's mean where nothing was observed."""
    return np.where(scene.valid, scene.pixels, mean[:, None, None]).astype(np.float32)


class ChipSampler:
    """An endless, seeded stream of batches of chips.

    Every scene is as likely as another, and so is every class at the pixel a chip is laid around: rare
    classes and small scenes are seen often.

    Parameters
    ----------
    scenes
        Where chips come from.
    statistics
        Of those scenes.
    chips
        Size and variation.
    seed
        The same seed gives the same stream.
    """

    def __init__(self, scenes: Sequence[LabelledScene], statistics: Statistics, chips: Chips, seed: int) -> None:
        self.chips, self.statistics = chips, statistics
        self.random = np.random.default_rng(seed)
        self.pixels = [torch.from_numpy(filled(scene, statistics.mean)) for scene in scenes]
        self.labels = [torch.from_numpy(scene.labels) for scene in scenes]
        self.anchors = [_places_per_class(scene.labels) for scene in scenes]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give batches: raw pixels `(n, band, y, x)` float32 and labels `(n, y, x)` int64."""
        while True:
            pixels, labels = zip(*(self.chip() for _ in range(self.chips.batch)), strict=True)
            yield torch.stack(pixels), torch.stack(labels)

    def chip(self) -> tuple[Tensor, Tensor]:
        """Draw one chip: raw pixels `(band, y, x)` float32 and labels `(y, x)` int64."""
        pixels, labels = resample(*self._cut(), self.chips.size)
        pixels, labels = turn(pixels, labels, int(self.random.integers(4)), bool(self.random.integers(2)))
        return self._recolour(pixels), labels.to(torch.int64)

    def _cut(self) -> tuple[Tensor, Tensor]:
        index = int(self.random.integers(len(self.pixels)))
        pixels, labels = self.pixels[index], self.labels[index]
        side = min(self._side(), *labels.shape)
        place = self.random.choice(self.anchors[index][self.random.integers(len(self.anchors[index]))])
        # the anchor may lie anywhere in the chip, or objects would always be in its middle
        starts = np.array(divmod(int(place), labels.shape[1])) - self.random.integers(side, size=2)
        y, x = (int(v) for v in np.clip(starts, 0, np.array(labels.shape) - side))
        return pixels[:, y : y + side, x : x + side], labels[y : y + side, x : x + side]

    def _side(self) -> int:
        return round(self.chips.size * float(np.exp(self.random.uniform(*np.log(self.chips.zoom)))))

    def _recolour(self, pixels: Tensor) -> Tensor:
        """Vary each band's gain, bias and gamma within the range that the scenes' values have."""
        chips, known, bands = self.chips, self.statistics, len(pixels)
        shift = self.random.uniform(-1, 1, (3, bands)) + self.random.uniform(-1, 1, (3, 1))  # each alone, and together
        gain, gamma = np.exp(chips.gain * shift[0] / 2), np.exp(chips.gamma * shift[1] / 2)
        bias = known.mean * (1 - gain) + chips.bias * shift[2] / 2 * known.stddev
        span = known.high - known.low
        unit = (pixels * _column(gain) + _column(bias - known.low)) / _column(span)
        return unit.clamp(0, 1) ** _column(gamma) * _column(span) + _column(known.low)


def resample(pixels: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Bring a square chip to `size` pixels a side: values smoothed, labels nearest, on the same centres."""
    if labels.shape[0] == size:
        return pixels, labels
    values = interpolate(pixels[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return values, interpolate(labels[None, None], size=(size, size), mode="nearest-exact")[0, 0]


def turn(pixels: Tensor, labels: Tensor, quarters: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Turn by quarters and mirror: pixels `(band, y, x)` and labels `(y, x)` alike."""
    pixels, labels = torch.rot90(pixels, quarters, (-2, -1)), torch.rot90(labels, quarters, (-2, -1))
    return (pixels.flip(-1), labels.flip(-1)) if mirrored else (pixels, labels)


def _places_per_class(labels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    present = [value for value in np.unique(labels) if value != IGNORE]
    if not present:
        raise SceneError("a training scene has no labelled pixel")
    return [np.flatnonzero(labels == value) for value in present]


def _column(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[:, None, None]
