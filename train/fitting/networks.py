"""The network of a training: built as settings say, frozen in part, and its parameters in groups for an optimiser."""

import logging
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.build import build, unknown_options
from models.errors import NetworkError, TrainingError
from models.segmenter import Segmenter
from models.unet import SimpleUNet, UNet, UNetResNet

from ..config import Network, Settings
from .pretrained import load_weights

logger = logging.getLogger("swathe")


def make_network(
    network: Network, bands: int, classes: int, *, folder: Path = Path(), note: Callable[[str], None] = logger.info
) -> nn.Module:
    """Build the network that settings describe, with the weights that they name.

    Parameters
    ----------
    network
        Settings of the network. Fresh weights come from torch's global random state.
    bands, classes
        Channels in and out.
    folder
        What a relative path of weights is relative to.
    note
        Receives one line that says which pretrained weights were taken, adapted, and left.

    Returns
    -------
    torch.nn.Module
        Scaled pixels `(n, band, y, x)` float32 in, logits `(n, class, y, x)` out, in training mode; not yet frozen.

    Raises
    ------
    NetworkError
        Unknown architecture or options.
    TrainingError
        Weights that do not fit, or that cannot be fetched.
    """
    made = build(network.architecture, bands, classes, **network.options)
    if network.weights:
        names = {module: name for name, module in made.named_modules()}
        encoder = frozenset(f"{names[part]}.{key}" for part in encoder_of(made) for key in part.state_dict())
        loaded = load_weights(made, network, bands, classes, encoder, folder)
        note(f"weights of {network.weights}: {loaded}")
    return made.train()


def encoder_of(network: nn.Module) -> list[nn.Module]:
    """Return the part of a network that pretrained weights are for: its encoder, or contracting path.

    Parameters
    ----------
    network
        One of ours or of segmentation-models-pytorch, also inside a `Segmenter` or compiled.

    Raises
    ------
    TrainingError
        A network without one.
    """
    inner = network
    while isinstance(inner, Segmenter) or hasattr(inner, "_orig_mod"):
        inner = inner.network if isinstance(inner, Segmenter) else inner._orig_mod  # type: ignore[assignment]
    if isinstance(inner, SimpleUNet):
        return [inner.contract1, inner.contract2, inner.contract3]
    if isinstance(inner, UNet):
        return [inner.down]
    if isinstance(inner, UNetResNet):
        return [inner.conv1, inner.conv2, inner.conv3, inner.conv4, inner.conv5]
    if isinstance(getattr(inner, "encoder", None), nn.Module):
        return [inner.encoder]  # type: ignore[list-item]
    raise TrainingError(f"{type(inner).__name__} has no encoder that could be frozen or be given weights")


def frozen_at(freeze: bool | int, epoch: int) -> bool:
    """Whether the encoder is frozen in an epoch, counted from 0: always, never, or in the first `freeze` epochs."""
    return freeze if isinstance(freeze, bool) else epoch < freeze


def set_frozen(network: nn.Module, frozen: bool) -> None:
    """Freeze or unfreeze a network's encoder, in place. Call `keep_frozen_in_eval` after each `.train()`."""
    for part in encoder_of(network):
        part.requires_grad_(not frozen)
    if network.training:
        network.train()
        keep_frozen_in_eval(network)


def keep_frozen_in_eval(network: nn.Module) -> None:
    """Put a frozen encoder into evaluation mode, so that its batch norms' running statistics stay as they are."""
    for part in encoder_of(network):
        if not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()


def parameter_groups(
    network: nn.Module, rate: float, encoder_rate: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Sort a network's parameters into groups for an optimiser, frozen ones too.

    Parameters
    ----------
    rate
        Learning rate.
    encoder_rate
        The encoder's, as a part of it.
    weight_decay
        Of weights; biases, norms and other vectors have none (He et al. 2019, arXiv:1812.01187, section 3.1).

    Returns
    -------
    list of dict
        Up to four, each with `name`, `params`, `lr` and `weight_decay`: `encoder`, `encoder, no decay`, `decoder` and
        `decoder, no decay`. Each parameter is in exactly one.
    """
    encoder = {id(parameter) for part in encoder_of(network) for parameter in part.parameters()}
    sorted_out: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():  # names each shared parameter once
        sorted_out.setdefault((id(parameter) in encoder, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "name": ("encoder" if inside else "decoder") + ("" if decays else ", no decay"),
            "params": parameters,
            "lr": rate * encoder_rate if inside else rate,
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (inside, decays), parameters in sorted(sorted_out.items(), reverse=True)
    ]


def check_network(settings: Settings) -> None:
    """Refuse a network that cannot be built, or not be trained on chips of the settings. Takes a second, reads no data.

    Weights that lie in files are read; torch's random state stays as it is.

    Raises
    ------
    NetworkError, TrainingError
        An unknown architecture, encoder or option; weights that are not there or do not fit; chips of a wrong size.
    """
    network, size, batch = settings.network, settings.chips.size, settings.chips.batch
    bands, classes = len(settings.bands), len(settings.classes)
    if wrong := unknown_options(network.architecture, network.options):
        raise NetworkError(f"{network.architecture} has {wrong}\nmend options in [network]")
    offline = replace(network, weights="" if network.weights == "hub" else network.weights)
    with torch.random.fork_rng(devices=[]):
        sketch = make_network(offline, bands, classes, folder=settings.folder, note=lambda line: None).to("meta")
    if _refusal(sketch, bands, size, max(batch, 2)):
        fits = [n for n in _sizes_near(size) if not _refusal(sketch, bands, n, max(batch, 2))]
        if fits:
            near = " or ".join(map(str, fits[:2]))
            raise TrainingError(f"chips of {size} pixels do not fit {network.architecture}, which halves them often"
                                f"\nset size to {near} in [chips]")  # fmt: skip
    # the stride that an encoder of segmentation-models-pytorch tells; others are measured later
    check_chips(sketch, bands, size, batch, int(getattr(getattr(sketch, "encoder", None), "output_stride", 1)))


def _sizes_near(size: int) -> list[int]:
    """Return multiples of powers of two beside a size, those of small powers first."""
    powers = (2**n for n in range(1, 10))
    near = [fit for step in powers for fit in (size // step * step, -(-size // step) * step) if fit]
    return list(dict.fromkeys(near))


def check_chips(network: nn.Module, bands: int, size: int, batch: int, stride: int) -> None:
    """Refuse chips that a network cannot be trained on. Nothing is computed: shapes alone go through it.

    Parameters
    ----------
    network
        As `make_network` returns it; unchanged.
    bands
        Channels in.
    size
        Side of a chip in pixels.
    batch
        Chips in the smallest batch.
    stride
        As `measure_receptive_field` returns it.

    Raises
    ------
    TrainingError
        The size is no multiple of the stride, or a batch norm would see one value alone.
    """
    if size % stride:
        near = " or ".join(str(n) for n in (size // stride * stride, -(-size // stride) * stride) if n >= stride)
        raise TrainingError(f"chips of {size} pixels are no multiple of the network's stride {stride}\n"
                            f"set size to {near} in [chips]")  # fmt: skip
    sketch = deepcopy(network).to("meta").train()
    keep_frozen_in_eval(sketch)
    reason = _refusal(sketch, bands, size, batch)
    if reason:
        few = batch == 1 and not _refusal(sketch, bands, size, 2)
        hint = "set batch to 2 or more in [chips]" if few else "set another size in [chips], or another architecture"
        raise TrainingError(f"the network cannot learn from {batch} x {size} x {size} pixels: {reason}\n{hint}")


@torch.no_grad()
def _refusal(sketch: nn.Module, bands: int, size: int, batch: int) -> str:
    """Return why a network on the meta device cannot take chips. Empty: it can."""
    try:
        shape = sketch(torch.empty((batch, bands, size, size), device="meta")).shape
    except (RuntimeError, ValueError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return "" if tuple(shape[2:]) == (size, size) else f"it gives back {shape[3]} x {shape[2]} pixels"
