"""Networks by name and options, and how a state dict differs from what one needs. Nothing is ever downloaded here."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import BundleError, NetworkError, require_extra
from .factory import FACTORY, make_network
from .libraries import MONAI, TORCHVISION, monai_network, torchvision_network
from .metadata import some_of
from .unet import SimpleUNet, UNet, UNetResNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "simple-unet": SimpleUNet,
    "unet": UNet,
    "unet-resnet": UNetResNet,
}
SMP = "smp:"
# that smp passes on to timm or reads itself, beside those it names; others of timm's read files or download
PASSED_ON = {"decoder_use_batchnorm", "output_stride", "img_size", "patch_size", "window_size", "drop_rate",
             "drop_path_rate", "dynamic_img_size", "strict_img_size", "out_indices"}  # fmt: skip


def build(architecture: str, bands: int, classes: int, **options: object) -> nn.Module:
    """Build a network with fresh weights.

    Parameters
    ----------
    architecture
        `simple-unet`, `unet` or `unet-resnet`; or `smp:` and the name of any architecture of
        segmentation-models-pytorch, as in `smp:Unet`, whose encoder is the option `encoder_name`; `torchvision:` or
        `monai:` and the name of a network of these; `factory`: the option `factory` names a function of the user's.
    bands, classes
        Channels in and out.
    **options
        Passed to the network's constructor: `widths`, `depth`, `encoder_name`, ...

    Returns
    -------
    torch.nn.Module
        Scaled pixels `(n, band, y, x)` float32 in, logits `(n, class, y, x)` out.

    Raises
    ------
    NetworkError
        Unknown name, or options that the network does not take.
    """
    if bands < 1 or classes < 1:
        raise NetworkError(f"a network needs at least one band and one class; received {bands} and {classes}")
    make = NETWORKS.get(architecture) or _of_library(architecture)
    try:
        unknown = set(options) - set(inspect.signature(make).parameters)
        if unknown and architecture in NETWORKS:
            raise TypeError(f"it takes no option {', '.join(sorted(unknown))}")
        if architecture in NETWORKS:
            _check_widths(options.get("widths", (1,)))
        return make(bands=bands, classes=classes, **options)
    except NetworkError:
        raise
    except Exception as error:  # whatever a constructor makes of options that came from a file
        raise NetworkError(f"{architecture} cannot be built with {_shown(options)}: {_shown(error)}") from error


class _NumbersOfItsOwn(TorchFunctionMode):
    """Lets encoders read the rates that they space evenly while they are built, which "meta" alone does not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{"device": "cpu", **(kwargs or {})} if func is torch.linspace else kwargs or {})


def build_empty(architecture: str, bands: int, classes: int, **options: object) -> nn.Module:
    """Build a network without numbers, on the meta device, where absurd options take no memory; see `build`.

    One that computes with its numbers while it builds, as a factory of the user's own may, is built in full.
    """
    try:
        with torch.device("meta"), _NumbersOfItsOwn():
            return build(architecture, bands, classes, **options)
    except NetworkError as error:
        if architecture != FACTORY and "meta tensors" not in str(error):
            raise
        return build(architecture, bands, classes, **options)


def _of_library(architecture: str) -> Callable[..., nn.Module]:
    """Return what makes a network that a library, or the user, has."""
    if architecture == FACTORY:
        return make_network
    for prefix, find in ((SMP, _smp), (TORCHVISION, torchvision_network), (MONAI, monai_network)):
        if architecture.startswith(prefix):
            return find(architecture)
    names = ", ".join([*NETWORKS, f"{SMP}Unet (any of segmentation-models-pytorch)", f"{TORCHVISION}fcn_resnet50",
                       f"{MONAI}UNet", FACTORY])  # fmt: skip
    raise NetworkError(f"unknown network {architecture!r}; known: {names}")


def _check_widths(widths: object) -> None:
    if (
        not isinstance(widths, list | tuple)
        or not widths
        or any(type(width) is not int or width < 1 for width in widths)
    ):
        raise ValueError("widths are whole numbers above 0, as [32, 64, 128]")


def _shown(value: object) -> str:
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def _smp(architecture: str) -> Callable[..., nn.Module]:
    require_extra("train", architecture, "segmentation_models_pytorch", error=NetworkError)
    import segmentation_models_pytorch as smp

    name = architecture.removeprefix(SMP)
    known: Mapping[str, Callable[..., nn.Module]] = smp.MODEL_ARCHITECTURES_MAPPING
    if name.lower() not in known:
        raise NetworkError(f"segmentation-models-pytorch has no {name!r}; it has: {', '.join(sorted(known))}")

    def make(bands: int, classes: int, **options: object) -> nn.Module:
        _check_encoder(str(options.get("encoder_name", "")), smp.encoders.get_encoder_names())
        _check_passed_on(options, inspect.signature(known[name.lower()]).parameters)
        # encoder_weights=None: a bundle brings its weights, and a hub is never asked
        if ":" in str(options.get("encoder_name")):
            raise ValueError("an encoder's name has no ':', which would fetch it from a hub")
        settings = {**options, "encoder_weights": None, "activation": None}
        return known[name.lower()](in_channels=bands, classes=classes, **settings)

    return make


def _check_encoder(name: str, known: Sequence[str]) -> None:
    """Refuse an encoder that is not there, in fewer words than a list of all that are."""
    if name and ":" not in name and not name.startswith("tu-") and name not in known:
        near = difflib.get_close_matches(name, known, 4, 0.4) or list(known)[:4]
        raise ValueError(f"there is no encoder {name!r}; there are {', '.join(near)} and {len(known) - len(near)} more")


def _check_passed_on(options: Mapping[str, object], known: Mapping[str, object]) -> None:
    """Refuse options that timm would get unseen: with `checkpoint_path` it reads, and unpickles, any file."""
    unknown = sorted(set(options) - set(known) - PASSED_ON)
    if unknown:
        raise ValueError(f"it takes no option {', '.join(unknown)}")


def unknown_options(architecture: str, options: Mapping[str, object]) -> str:
    """Say which options a network would pass over, and what was probably meant. Empty: none.

    Those of segmentation-models-pytorch take any keyword, for encoders of timm (`tu-...`), and tell of none.

    Raises
    ------
    NetworkError
        Unknown name.
    """
    if not architecture.startswith(SMP) or str(options.get("encoder_name", "")).startswith("tu-"):
        return ""
    known = _smp_parameters(architecture)
    texts = []
    for name in sorted(set(options) - known.keys()):
        close = difflib.get_close_matches(name, known, 1)
        texts.append(
            f"no option {name!r}; " + (f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}")
        )
    return "; ".join(texts)


def _smp_parameters(architecture: str) -> Mapping[str, object]:
    import segmentation_models_pytorch as smp

    _smp(architecture)
    made: Any = smp.MODEL_ARCHITECTURES_MAPPING[architecture.removeprefix(SMP).lower()]
    fixed = ("in_channels", "classes", "encoder_weights", "activation", "kwargs")
    return {name: each for name, each in inspect.signature(made).parameters.items() if name not in fixed}


def refuse_not_finite(state: Mapping[str, Tensor], whose: str) -> None:
    """Refuse weights from which no network makes numbers: NaN, infinity, a variance below 0. Raises BundleError."""
    bad = [
        key
        for key, tensor in state.items()
        if tensor.is_floating_point()
        and not (tensor.isfinite().all() and (not key.endswith("running_var") or (tensor >= 0).all()))
    ]
    if bad:
        raise BundleError(
            f"{whose}: weights hold NaN, infinity or a variance below 0 in {some_of(bad, 5)}; "
            "a training went wrong, take an earlier checkpoint"
        )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def compare(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Say in words how a state dict differs from what a network needs: missing, unexpected, of another shape or kind.

    Empty where it fits.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)}, needs {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    kinds = [
        f"{key} {_kind(state[key])}, needs {_kind(wanted[key])}"
        for key in wanted
        if key in state and wanted[key].is_floating_point() and not state[key].is_floating_point()
    ]
    named = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another kind": kinds}
    return "; ".join(
        f"{label} {', '.join(keys[:5])}" + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        for label, keys in named.items()
        if keys
    )
