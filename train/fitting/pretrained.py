"""Weights to begin with: of a bundle, a file or a hub, into a network of other bands, classes or another decoder.

Knows networks by the names and shapes of their parameters. Only `hub` asks a server for anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.build import SMP, build, compare
from models.bundle import load_bundle
from models.errors import NetworkError, TrainingError
from models.importing import read_state_dict, rename

from ..config import Network

HUB = "hub"
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
    """What became of pretrained weights, by the names of tensors.

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
        return "; ".join(parts + [f"{what}: {_listed(names)}" for what, names in named.items() if names])


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def load_weights(
    made: nn.Module, network: Network, bands: int, classes: int, encoder: frozenset[str], folder: Path = Path()
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
    state = _read(network, folder)
    shapes = _Shapes.of(network, bands, classes)
    fits = [_fit(made.state_dict(), renamed, shapes, encoder) for renamed in _renamed(state)]
    best = max(fits, key=lambda fit: (fit.usable, len(fit.same) + len(fit.other_bands)))
    if not best.usable:
        raise TrainingError(_misfit(network, made, best))
    return _take(made, best, bands)


def adapt_bands(weight: Tensor, bands: int) -> Tensor:
    """Give a first convolution's weights for another number of bands.

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
    turns = torch.arange(bands, device=weight.device) % given
    return weight[:, turns] * (given / bands)


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
    encoder = _encoder_name(network)
    import segmentation_models_pytorch as smp

    options: dict[str, Any] = {**network.options} if network.architecture.startswith(SMP) else {"encoder_name": encoder}
    tag = options.pop("encoder_weights", "imagenet")
    make = smp.MODEL_ARCHITECTURES_MAPPING[network.architecture.removeprefix(SMP).lower()] \
        if network.architecture.startswith(SMP) else smp.Unet  # fmt: skip
    try:
        made = make(in_channels=3, classes=1, encoder_weights=True if encoder.startswith("tu-") else tag, **options)
    except Exception as error:  # of the network, of the hub, of the file that came
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise TrainingError(
            f"could not fetch the weights {tag!r} of {encoder}: {reason}\n"
            'give a file instead, as weights = "encoder.safetensors", or "" to begin fresh'
        ) from error
    state: dict[str, Tensor] = made.encoder.state_dict()
    return state


def _encoder_name(network: Network) -> str:
    if network.architecture == "unet-resnet":
        return f"resnet{network.options.get('depth', 101)}"
    if network.architecture.startswith(SMP):
        return str(network.options.get("encoder_name", "resnet34"))
    raise TrainingError(f'no hub has weights of {network.architecture}; give a bundle or a file, or weights = ""')


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Which tensors' shapes hang on the number of bands, and which on that of classes."""

    bands: frozenset[str]
    classes: frozenset[str]

    @classmethod
    def of(cls, network: Network, bands: int, classes: int) -> "_Shapes":
        here = _sketch(network, bands, classes)
        return cls(*(frozenset(k for k, v in other.items() if v != here.get(k)) for other in (
            _sketch(network, bands + 1, classes), _sketch(network, bands, classes + 1))))  # fmt: skip


def _sketch(network: Network, bands: int, classes: int) -> dict[str, torch.Size]:
    """Give the shapes of a network's tensors."""
    try:
        with torch.device("meta"):
            made = build(network.architecture, bands, classes, **network.options)
    except NetworkError:  # a few encoders compute while they are built
        made = build(network.architecture, bands, classes, **network.options)
    return {key: tensor.shape for key, tensor in made.state_dict().items()}


def _renamed(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Give the weights under the names that each kind of network would have for them."""
    found = []
    for patterns in CANDIDATES:
        try:
            found.append(rename(state, patterns))
        except NetworkError:  # two keys become one: not this kind
            continue
    return found


@dataclass(frozen=True, slots=True)
class _Fit:
    """How weights fit a network: names of the network's tensors by what was found for them."""

    state: Mapping[str, Tensor]
    same: frozenset[str]
    other_bands: frozenset[str]
    head: frozenset[str]
    wrong: frozenset[str] = field(default_factory=frozenset)
    usable: bool = False


def _fit(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], shapes: _Shapes, encoder: frozenset[str]) -> _Fit:
    """Sort a network's tensors; where not all fit but the encoder's, those alone are kept."""
    same = frozenset(key for key in wanted if key in state and state[key].shape == wanted[key].shape)
    bands = frozenset(key for key in shapes.bands - same if key in state and _adaptable(state[key], wanted[key]))
    head = shapes.classes if shapes.classes - same else frozenset()
    wrong = frozenset(key for key in wanted if not key.endswith("num_batches_tracked")) - same - bands - head
    if not wrong:
        return _Fit(state, same - head, bands, head, usable=True)
    if not encoder & wrong:
        return _Fit(state, same & encoder, bands & encoder, frozenset(), usable=True)
    return _Fit(state, same, bands, head, wrong)


def _adaptable(given: Tensor, wanted: Tensor) -> bool:
    return given.ndim == wanted.ndim == 4 and (given.shape[0], given.shape[2:]) == (wanted.shape[0], wanted.shape[2:])


def _take(made: nn.Module, fit: _Fit, bands: int) -> Loaded:
    state = dict(made.state_dict())
    fresh = tuple(key for key in state if key not in fit.same | fit.other_bands)
    left = tuple(key for key in fit.state if key not in fit.same | fit.other_bands)
    state |= {key: fit.state[key] for key in fit.same}
    state |= {key: adapt_bands(fit.state[key], bands) for key in fit.other_bands}
    made.load_state_dict(state)
    return Loaded(tuple(sorted(fit.same)), tuple(sorted(fit.other_bands)), fresh, left)


def _misfit(network: Network, made: nn.Module, fit: _Fit) -> str:
    state = {key: fit.state[key] for key in fit.state if key not in fit.head | fit.other_bands}
    kept = {key: tensor for key, tensor in made.state_dict().items() if key in fit.head | fit.other_bands}
    return (
        f"{network.weights} fits neither {network.architecture} nor its encoder: {compare(made, {**state, **kept})}\n"
        "see architecture and options; keys of other names are renamed by `swathe import-weights`"
    )
