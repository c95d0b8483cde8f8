"""Makes bundles to measure with: any of the networks, random weights, the same every time.

Weights are seeded; batch norms take their statistics from a piece of the generated scene, and the last layer is
shifted and stretched so that both classes occur and most pixels are decided. A class map is then as varied as a
trained network's, and comparing two of them says something.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import Band, Bundle, BundleMetadata, ClassInfo, load_bundle, measure_receptive_field, save_bundle, z_score
from models.build import build
from models.metadata import ReceptiveField
from pipeline.grid.geobox import Window

from .scenes import BANDS, make_pixels

SIDE = 256  # of the piece of scene that statistics are taken from
OPTIONS: dict[str, dict[str, Any]] = {"simple-unet": {}, "unet": {}, "unet-resnet": {"depth": 34}}
# reach depends on kernels, not on widths: a thin twin is measured in a second
THIN: dict[str, dict[str, object]] = {"simple-unet": {"widths": (2,) * 3}, "unet": {"widths": (2,) * 5}}
SPREAD = 2.0  # standard deviation of the difference of the two logits


def make_bundle(
    folder: Path, architecture: str = "simple-unet", device: str = "cpu", widths: tuple[int, ...] = ()
) -> Bundle:
    """Make and save a bundle of two classes for the generated scenes, as `folder/architecture`, or take what is there.

    `device` is where the network runs while it is made; large ones take a minute on a CPU. `widths` are other ones than
    the architecture's own.
    """
    path = folder / architecture
    options = {"widths": list(widths)} if widths else OPTIONS[architecture]
    return load_bundle(path) if path.exists() else _make(path, architecture, device, options)


def _make(path: Path, architecture: str, device: str, options: dict[str, Any]) -> Bundle:
    torch.manual_seed(0)
    network = build(architecture, len(BANDS), 2, **options)
    sample = torch.from_numpy(make_pixels(Window(SIDE, 2 * SIDE, SIDE, 2 * SIDE), 8 * SIDE)).float()
    mean, spread = sample.mean(dim=(1, 2)), sample.std(dim=(1, 2))
    scaled = (sample - mean[:, None, None]) / spread[:, None, None]
    _settle(network.to(device), scaled[None].to(device))
    metadata = describe_network(f"random-{architecture}", architecture, options, network, mean, spread)
    return save_bundle(path, network, metadata)


def describe_network(
    name: str, architecture: str, options: dict[str, Any], network: nn.Module, mean: Tensor, spread: Tensor
) -> BundleMetadata:
    """Return what a bundle of two classes for the generated scenes says of itself; `mean`, `spread` are by band."""
    return BundleMetadata(
        name=name,
        architecture=architecture,
        options=options,
        bands=tuple(Band(name, round(float(value))) for name, value in zip(BANDS, mean, strict=True)),
        dtype="uint16",
        scaling=z_score(mean.tolist(), spread.tolist()),
        classes=(ClassInfo("background", "000000"), ClassInfo("object", "FFAA00")),
        receptive_field=_receptive_field(network, architecture),
        resolution=(10.0, 10.0),
    )


def _receptive_field(network: nn.Module, architecture: str) -> ReceptiveField:
    if architecture in THIN:
        return measure_receptive_field(build(architecture, 1, 2, **THIN[architecture]), 1)
    return measure_receptive_field(network, len(BANDS))


@torch.no_grad()
def _settle(network: nn.Module, scaled: Tensor) -> None:
    """Set batch norms by what they see, and the last layer so that the classes are balanced."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics become the mean of what was seen, which is this one piece
    network.train()(scaled)
    logits = network.eval()(scaled)
    difference = logits[:, 1] - logits[:, 0]
    last = _last_layer(network)
    stretch = SPREAD / difference.std()
    last.weight *= stretch
    last.bias *= stretch
    last.bias[1] -= difference.median() * stretch


def _last_layer(network: nn.Module) -> nn.Conv2d | nn.ConvTranspose2d:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
