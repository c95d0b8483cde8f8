"""Which of the networks that are built here has the keys and shapes of a state dict: the likely ones are built.

What neither keys nor shapes show, as dilation or the way of enlarging, is as by default.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..build import SMP, build_empty
from ..errors import NetworkError

DEPTHS = (18, 34, 50, 101)  # of `unet-resnet`
HEAD = "segmentation_head.0.weight"  # of segmentation-models-pytorch
MOST_TENSORS = 20_000
FAMILIES = {  # of encoders, by a key that the others have not
    "conv1.weight": ("resnet", "resnext"), "layer0.conv1.weight": ("se",), "features.conv0.weight": ("densenet",),
    "features.0.weight": ("vgg",), "features.0.0.weight": ("mobilenet",), "_conv_stem.weight": ("efficientnet",),
    "conv_stem.weight": ("timm-efficientnet", "timm-tf"), "patch_embed1.proj.weight": ("mit",),
}  # fmt: skip


@dataclass(frozen=True)
class Matched:
    """A network whose keys and shapes are those of a state dict, with its channels in and out."""

    architecture: str
    options: Mapping[str, Any]
    bands: int
    channels: int


def matching_network(state: Mapping[str, Tensor]) -> Matched | None:
    """Return the network that a state dict is of; None: none that is built here, or of options that are not usual."""
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if len(shapes) > MOST_TENSORS:
        return None
    with suppress(IndexError):  # keys of a network, and shapes of none
        return next((candidate for candidate in _candidates(shapes) if _shapes(candidate) == shapes), None)
    return None


def _shapes(candidate: Matched) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors; none where it cannot be built."""
    made_of = (candidate.architecture, candidate.bands, candidate.channels)
    try:
        return _shapes_of(build_empty(*made_of, **candidate.options))
    except NetworkError:
        return {}


def _shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def _candidates(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Matched]:
    """Yield networks that are likely by some of their keys."""
    if "contract1.0.weight" in shapes:
        widths = [shapes.get(f"contract{level}.0.weight", (0,))[0] for level in (1, 2, 3)]
        outputs = shapes.get("expand1.6.weight", (0, 0))[1]
        yield Matched("simple-unet", {"widths": widths}, shapes["contract1.0.weight"][1], outputs)
    if "down.0.0.weight" in shapes and "final.weight" in shapes:
        levels = sorted(
            {int(key.split(".")[1]) for key in shapes if key.startswith("down.") and key.split(".")[1].isdecimal()}
        )
        widths = [shapes.get(f"down.{level}.0.weight", (0,))[0] for level in levels]
        yield Matched("unet", {"widths": widths}, shapes["down.0.0.weight"][1], shapes["final.weight"][0])
    if "conv1.0.weight" in shapes and "final.weight" in shapes:
        for depth in DEPTHS:
            yield Matched("unet-resnet", {"depth": depth}, shapes["conv1.0.weight"][1], shapes["final.weight"][0])
    if HEAD in shapes and find_spec("segmentation_models_pytorch") is not None:
        yield from _of_smp(shapes)


def _of_smp(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Matched]:
    """Yield networks of segmentation-models-pytorch whose encoder fits."""
    import segmentation_models_pytorch as smp

    encoder = {key.removeprefix("encoder."): shape for key, shape in shapes.items() if key.startswith("encoder.")}
    first = next((shape for shape in encoder.values() if len(shape) == 4), None)
    if first is None:
        return
    likely = tuple(name for key, names in FAMILIES.items() if key in encoder for name in names)
    for name in (name for name in smp.encoders.get_encoder_names() if name.startswith(likely)):
        if _encoder_shapes(name, first[1]) == encoder:
            for architecture in _by_decoder(shapes):
                yield Matched(architecture, {"encoder_name": name}, first[1], shapes[HEAD][0])


def _by_decoder(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return architectures of segmentation-models-pytorch, first those whose decoders share most keys."""
    import segmentation_models_pytorch as smp

    def different(architecture: str) -> int:
        usual = _shapes(Matched(architecture, {"encoder_name": "resnet18"}, 3, 1))
        return len({key for key in usual if key.startswith("decoder.")} ^ keys)

    keys = {key for key in shapes if key.startswith("decoder.")}
    return sorted((f"{SMP}{made.__name__}" for made in smp.MODEL_ARCHITECTURES_MAPPING.values()), key=different)


def _encoder_shapes(name: str, bands: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of an encoder's tensors; none where it cannot be built."""
    import segmentation_models_pytorch as smp

    for device in ("meta", "cpu"):
        with suppress(Exception), torch.device(device):  # an encoder that lacks a package raises what it likes
            return _shapes_of(smp.encoders.get_encoder(name, in_channels=bands, weights=None))
    return {}
