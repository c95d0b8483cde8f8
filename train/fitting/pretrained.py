"""Pretrained weights of a bundle, a file or a hub, into a network of other bands, classes or another decoder.

Tensors are matched by name and shape. Only `hub` asks a server for anything.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.build import SMP, build, compare
from models.bundle import load_bundle
from models.errors import NetworkError, TrainingError
from models.importing import read_state_dict, rename

from ..config import Network

Tensors = Mapping[str, Tensor]
Names = frozenset[str]  # of tensors

HUB = "hub"
LISTED = 3  # tensors that a message names
FILES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")
_OUTER = r"(?:encoder\.model\.|encoder\.|backbone\.)?"  # what others put before the keys of an encoder
CANDIDATES: tuple[Mapping[str, str], ...] = (
    {},  # a whole network of the same kind
    {_OUTER: "encoder."},  # an encoder of torchvision, timm or TorchGeo under segmentation-models-pytorch
    {rf"{_OUTER}(stages|layers|blocks)\.": r"encoder.model.\1_", _OUTER: "encoder.model."},  # under its `tu-` encoders
    {  # a residual network of any of them in our UNetResNet
        rf"{_OUTER}conv1\.": "conv1.0.",
        rf"{_OUTER}bn1\.": "conv1.1.",
        **{rf"{_OUTER}layer{n}\.": f"conv{n + 1}." for n in (1, 2, 3, 4)},
    },
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Which tensors took pretrained weights, by name.

    Parameters
    ----------
    taken
        As they are.
    adapted
        To another number of bands.
    fresh
        Of the network, that nothing was found for.
    left
        Of the weights, that the network has no place for.
    """

    taken: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.taken) + len(self.adapted)} tensors taken"]
        named = {"adapted to the bands": self.adapted, "begin fresh": self.fresh, "not used": self.left}
        for what, names in named.items():
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            parts += [f"{what}: {', '.join(names[:LISTED])}{more}"] if names else []
        return "; ".join(parts)


def load_weights(
    made: nn.Module, network: Network, bands: int, classes: int, encoder: Names, folder: Path = Path()
) -> Loaded:
    """Put the weights that `network.weights` names into a network, in place.

    A whole network of the same architecture is taken but for its head where classes differ. Otherwise the weights must
    hold all of the encoder, and only that is taken.

    Parameters
    ----------
    made
        The network that `network` describes, for `bands` and `classes`.
    encoder
        Names of the encoder's tensors in its state dict.
    folder
        What a relative path is relative to, where the file is there.

    Raises
    ------
    TrainingError
        They do not fit, or cannot be fetched. The network is unchanged then.
    SwatheError
        No such bundle or file, or one that is damaged.
    """
    state, sizes = _read(network, folder), ((bands, classes), (bands + 1, classes), (bands, classes + 1))
    here, *others = (_shapes(network, *size) for size in sizes)
    by_bands, by_classes = (frozenset(k for k, v in other.items() if v != here.get(k)) for other in others)
    fits = []
    for patterns in CANDIDATES:
        with suppress(NetworkError):  # two keys become one: not this kind
            fits.append(_fit(made.state_dict(), rename(state, patterns), by_bands, by_classes, encoder))
    best = max(fits, key=lambda fit: (fit.usable, len(fit.same) + len(fit.other_bands)))
    if not best.usable:
        known = best.head | best.other_bands
        given = {key: best.state[key] for key in best.state if key not in known}
        fitting = {key: tensor for key, tensor in made.state_dict().items() if key in known}
        raise TrainingError(
            f"{network.weights} fits neither {network.architecture} nor its encoder: "
            f"{compare(made, {**given, **fitting})}\n"
            "see architecture and options; keys of other names are renamed by `swathe import`"
        )
    own, taken = dict(made.state_dict()), best.same | best.other_bands
    adapted = {key: adapt_bands(best.state[key], bands) for key in best.other_bands}
    made.load_state_dict({**own, **{key: best.state[key] for key in best.same}, **adapted})
    fresh, left = (tuple(key for key in keys if key not in taken) for keys in (own, best.state))
    return Loaded(tuple(sorted(best.same)), tuple(sorted(best.other_bands)), fresh, left)


def adapt_bands(weight: Tensor, bands: int) -> Tensor:
    """Return a first convolution's weights for another number of bands.

    They are repeated in turn and scaled by old over new count, so that the mean response stays; for one band they are
    added up. As timm's `adapt_input_conv` and segmentation-models-pytorch's `patch_first_conv` do for three.

    Parameters
    ----------
    weight
        `(out, band, y, x)`.
    bands
        The new count.
    """
    given = weight.shape[1]
    if bands == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, torch.arange(bands, device=weight.device) % given] * (given / bands)


def _read(network: Network, folder: Path) -> dict[str, Tensor]:
    if network.weights == HUB:
        return _fetched(network)
    beside = folder / network.weights
    name = str(beside) if beside.exists() else network.weights
    if name.lower().endswith(FILES):
        return read_state_dict(name)
    return dict(load_bundle(name).network().state_dict())


def _fetched(network: Network) -> dict[str, Tensor]:
    """Fetch an encoder's weights, as segmentation-models-pytorch keeps them on Hugging Face."""
    import segmentation_models_pytorch as smp

    options: dict[str, Any]
    if network.architecture.startswith(SMP):
        options = {"encoder_name": "resnet34", **network.options}
        make = smp.MODEL_ARCHITECTURES_MAPPING[network.architecture.removeprefix(SMP).lower()]
    elif network.architecture == "unet-resnet":
        options, make = {"encoder_name": f"resnet{network.options.get('depth', 101)}"}, smp.Unet
    else:
        raise TrainingError(f'no hub has weights of {network.architecture}; give a bundle or a file, or weights = ""')
    encoder, tag = str(options["encoder_name"]), options.pop("encoder_weights", "imagenet")
    try:
        made = make(in_channels=3, classes=1, encoder_weights=True if encoder.startswith("tu-") else tag, **options)
    except Exception as error:  # of the network, of the hub, of the file that came
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise TrainingError(
            f"could not fetch the weights {tag!r} of {encoder}: {reason}\n"
            'give a file instead, as weights = "encoder.safetensors", or "" to begin fresh'
        ) from error
    return dict(made.encoder.state_dict())


def _shapes(network: Network, bands: int, classes: int) -> dict[str, torch.Size]:
    """Return the shapes of a network's tensors."""
    try:
        with torch.device("meta"):
            made = build(network.architecture, bands, classes, **network.options)
    except NetworkError:  # a few encoders compute while they are built
        made = build(network.architecture, bands, classes, **network.options)
    return {key: tensor.shape for key, tensor in made.state_dict().items()}


@dataclass(frozen=True, slots=True)
class _Fit:
    """How weights fit a network: names of the network's tensors by what was found for them."""

    state: Tensors
    same: Names
    other_bands: Names
    head: Names
    usable: bool = False


def _fit(wanted: Tensors, state: Tensors, by_bands: Names, by_classes: Names, encoder: Names) -> _Fit:
    """Sort a network's tensors; where not all fit but the encoder's, those alone are kept.

    Parameters
    ----------
    wanted, state
        Tensors of the network, and weights under the names that they would have in it.
    by_bands, by_classes, encoder
        Names of the tensors whose shapes depend on the number of bands, and of classes; and of the encoder's.
    """
    same = frozenset(key for key in wanted if key in state and state[key].shape == wanted[key].shape)
    bands = frozenset(key for key in by_bands - same if key in state and _adaptable(state[key], wanted[key]))
    head = by_classes if by_classes - same else frozenset()
    wrong = frozenset(key for key in wanted if not key.endswith("num_batches_tracked")) - same - bands - head
    if not wrong:
        return _Fit(state, same - head, bands, head, usable=True)
    if not encoder & wrong:
        return _Fit(state, same & encoder, bands & encoder, frozenset(), usable=True)
    return _Fit(state, same, bands, head)


def _adaptable(given: Tensor, wanted: Tensor) -> bool:
    return given.ndim == wanted.ndim == 4 and (given.shape[0], given.shape[2:]) == (wanted.shape[0], wanted.shape[2:])
