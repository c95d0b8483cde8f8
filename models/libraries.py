"""Networks of torchvision and MONAI by their names, with fresh weights. Nothing is ever downloaded."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .errors import NetworkError, require_package
from .metadata import some_of

TORCHVISION, MONAI = "torchvision:", "monai:"
COLOURS = 3  # channels for which networks of torchvision are made


def torchvision_network(architecture: str) -> Callable[..., nn.Module]:
    """Return what makes a network of `torchvision.models.segmentation`, as `torchvision:fcn_resnet50`.

    Its state dict has the keys of torchvision's; the first convolution is made for the number of bands. Options are
    torchvision's: `aux_loss`.
    """
    import torchvision

    name, known = (
        architecture.removeprefix(TORCHVISION),
        torchvision.models.list_models(torchvision.models.segmentation),
    )
    if name not in known:
        raise NetworkError(f"torchvision has no network of segmentation {name!r}; it has {', '.join(known)}")

    def make(bands: int, classes: int, **options: Any) -> nn.Module:
        _refuse_pretrained(options)
        settings = {**options, "weights": None, "weights_backbone": None}
        network: nn.Module = torchvision.models.get_model(name, num_classes=classes, **settings)
        if bands != COLOURS:
            _replace_first(network, bands)
        return take_main_output(network)

    return make


def monai_network(architecture: str) -> Callable[..., nn.Module]:
    """Return what makes a network of `monai.networks.nets` in two dimensions, as `monai:UNet`."""
    require_package("monai", architecture, error=NetworkError)
    from monai.networks import nets

    name = architecture.removeprefix(MONAI)
    found = getattr(nets, name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise NetworkError(f"MONAI has no network {name!r}; it has {some_of(_of_monai(nets), 30)}")

    def make(bands: int, classes: int, **options: Any) -> nn.Module:
        asked = inspect.signature(found).parameters
        _refuse_pretrained(options)
        given = {"spatial_dims": 2, "in_channels": bands, "out_channels": classes, "pretrained": False}
        settings = {**options, **{name: value for name, value in given.items() if name in asked}}
        return take_main_output(found(**settings))

    return make


def _refuse_pretrained(options: Mapping[str, object]) -> None:
    """Refuse options by which a library downloads weights, or reads them from a file."""
    asked = sorted(name for name, value in options.items() if name.startswith(("pretrained", "weights")) and value)
    if asked:
        raise NetworkError(f"{', '.join(asked)} would fetch weights: leave it out, a network's weights are imported")


def take_main_output(network: nn.Module) -> nn.Module:
    """Let a network that returns several outputs return the one called `out`, or the first: that of full size."""

    def main(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, dict):
            output = output["out"] if "out" in output else next(iter(output.values()))
        return output[0] if isinstance(output, list | tuple) else output

    network.register_forward_hook(main)  # a wrapper would put a prefix before the keys of its weights
    return network


def _of_monai(nets: Any) -> list[str]:
    return sorted(name for name, made in vars(nets).items() if inspect.isclass(made) and issubclass(made, nn.Module)
                  and "spatial_dims" in inspect.signature(made).parameters)  # fmt: skip


def _replace_first(network: nn.Module, bands: int) -> None:
    """Put a convolution for so many bands in place of the first one."""
    name, first = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    made = nn.Conv2d(bands, first.out_channels, first.kernel_size, first.stride, first.padding, first.dilation,  # type: ignore[arg-type]
                     bias=first.bias is not None)  # fmt: skip
    network.set_submodule(name, made)
