"""Augmentation of chips: flips and turns together with their labels, radiometry and noise of values alone.

Built on torchvision's transforms v2, whose flips serve images of any number of bands. Its transforms of colour know
only one or three bands from 0 to 1, so those here are Swathe's own. All chance comes from torch's global random
numbers, which the caller seeds: one seed, one chip.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..config import Augment

if TYPE_CHECKING:
    from .statistics import BandStatistics

AugmentLike = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes and returns raw pixels `(band, y, x)` float32 and labels `(y, x)` int64."""


class Augmentation:
    """Varies one chip as a training's settings say. It can be sent to other processes.

    Parameters
    ----------
    settings
        Which variations, and how large.
    statistics
        Of the raw values per band; what bias and noise are relative to, and what gamma bends.

    Notes
    -----
    It takes raw pixels `(band, y, x)` float32, all of them finite, and labels `(y, x)` int64, returns the same,
    contiguous, and leaves its arguments as they are. Mirrored and turned, each of the square's eight symmetries is as
    likely as another; only mirrored or only turned, each of four. Then come gain, bias and gamma, then noise, then the
    loss of bands.
    """

    def __init__(self, settings: Augment, statistics: "BandStatistics") -> None:
        self.bands = len(statistics.mean)
        steps: list[v2.Transform] = []
        if settings.flips:
            steps += [v2.RandomHorizontalFlip(0.5), v2.RandomVerticalFlip(0.5)]
        if settings.turns:
            steps += [QuarterTurn()]
        if settings.gain or settings.bias or settings.gamma:
            steps += [Radiometry(settings, statistics)]
        if settings.noise:
            steps += [Noise(settings, statistics)]
        if settings.drop_band:
            steps += [BandDrop(settings, statistics)]
        self.steps = steps

    def __call__(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return a varied chip. Raises ValueError for pixels of other bands than the statistics'."""
        if len(pixels) != self.bands:
            raise ValueError(f"{len(pixels)} bands of pixels, {self.bands} of statistics")
        image, mask = tv_tensors.Image(pixels.contiguous()), tv_tensors.Mask(labels.contiguous())
        for step in self.steps:
            image, mask = step(image, mask)
        return _plain(image), _plain(mask)


class QuarterTurn(v2.Transform):  # type: ignore[misc]
    """Turns image and mask by 0 to 3 quarters, anticlockwise, each as likely as another."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the quarters."""
        return {"quarters": int(torch.randint(4, ()))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Turn one of the two."""
        turned = torch.rot90(_plain(inpt), params["quarters"], (-2, -1))
        # else it is a transposed view, in which torch draws noise ten times as slowly
        return _alike(turned.contiguous(), inpt)


class Radiometry(v2.Transform):  # type: ignore[misc]
    """Varies each band's gain, bias and gamma, half of it alike in all bands.

    With shifts s from -1 to 1: gain exp(s * gain) about the band's mean, bias s * bias standard deviations, gamma
    exp(s * gamma) over the range from the band's low to its high. Values outside that range keep their distance from
    it: nothing is cut off, and the order of values never changes.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, settings: Augment, statistics: "BandStatistics") -> None:
        super().__init__()
        self.settings = settings
        self.mean, self.stddev = _known(statistics.mean), _known(statistics.stddev)
        self.low = _known(statistics.low)
        span = _known(statistics.high) - self.low
        self.span = torch.where(span > 0, span, 1)  # a band of one value has no range to bend

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw `shift` `(3, band)`, of gain, bias and gamma: half of each band alone, half common to all."""
        alone, common = torch.rand(3, len(self.mean), dtype=torch.float64), torch.rand(3, 1, dtype=torch.float64)
        return {"shift": alone + common - 1}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Vary the image by `shift`."""
        settings, (gain_shift, bias_shift, gamma_shift) = self.settings, params["shift"]
        gain, gamma = torch.exp(settings.gain * gain_shift), torch.exp(settings.gamma * gamma_shift)
        bias = self.mean * (1 - gain) + settings.bias * bias_shift * self.stddev
        values = _plain(inpt)
        if not settings.gamma:
            return _alike(torch.addcmul(_column(bias), values, _column(gain)), inpt)
        unit = torch.addcmul(_column((bias - self.low) / self.span), values, _column(gain / self.span))
        bent = unit.clamp(0, 1)
        unit -= bent  # what lies outside the range
        bent.pow_(_column(gamma)).add_(unit)
        return _alike(bent.mul_(_column(self.span)).add_(_column(self.low)), inpt)


class Noise(v2.Transform):  # type: ignore[misc]
    """Adds white noise: normal, each value by itself, of a part of the band's standard deviation.

    The part is drawn from 0 to the settings' for each chip, so that clean chips are seen too.
    """

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, settings: Augment, statistics: "BandStatistics") -> None:
        super().__init__()
        self.largest, self.stddev = settings.noise, _known(statistics.stddev)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the part."""
        return {"part": self.largest * float(torch.rand((), dtype=torch.float64))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Add noise to the image."""
        values = _plain(inpt)
        noise = torch.randn_like(values)
        return _alike(torch.addcmul(values, noise, _column(params["part"] * self.stddev), out=noise), inpt)


class BandDrop(v2.Transform):  # type: ignore[misc]
    """Puts its mean in place of a band, each band with the settings' probability; never in place of all bands."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, settings: Augment, statistics: "BandStatistics") -> None:
        super().__init__()
        self.probability, self.mean = settings.drop_band, _known(statistics.mean)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw which bands are lost: bool `(band,)`."""
        drawn = torch.rand(len(self.mean), dtype=torch.float64)
        lost = drawn < self.probability
        lost[drawn.argmax()] = False  # where all would be lost, one is kept, each as likely as another
        return {"lost": lost}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Put the means in."""
        if not params["lost"].any():
            return inpt
        return _alike(torch.where(params["lost"][:, None, None], _column(self.mean), _plain(inpt)), inpt)


def resize_chip(pixels: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Bring a chip to `size` pixels a side: values smoothed, labels nearest, on the same centres.

    Parameters
    ----------
    pixels
        `(band, y, x)` floating. Shrunk, each new value is a mean over all that it covers (antialiased bilinear).
    labels
        `(y, x)` of any integer type. A new label is that of the pixel in which its centre lies.
    size
        Pixels a side. A chip that has it is given back as it is.
    """
    if labels.shape == (size, size):
        return pixels, labels
    values = interpolate(pixels[None], size=(size, size), mode="bilinear", antialias=True)[0]
    # in which pixels the centres of the new ones lie; whole numbers, as floats err at edges
    rows, columns = ((2 * torch.arange(size) + 1) * count // (2 * size) for count in labels.shape)
    return values, labels[rows][:, columns]


def _known(values: NDArray[np.float64]) -> Tensor:
    """Return a copy as float64 `(band,)`; 0 for a band of which nothing was observed."""
    return torch.from_numpy(np.nan_to_num(values.astype(np.float64)))


def _column(values: Tensor) -> Tensor:
    return values.float()[:, None, None]


def _plain(values: Tensor) -> Tensor:
    return values.as_subclass(Tensor)


def _alike(values: Tensor, like: Tensor) -> Tensor:
    """Return values marked as an image or a mask, as others are."""
    return tv_tensors.wrap(values, like=like)  # type: ignore[no-any-return]
