"""Foreign weights: read a state dict without running any code from it, make its keys ours, say what does not fit."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .errors import NetworkError

if TYPE_CHECKING:
    from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict
PREFIXES = (
    "module.",
    "model.",
    "net.",
    "network.",
    "_orig_mod.",
)  # what DataParallel, Lightning and compile put before a key


def read_state_dict(path: str | os.PathLike[str]) -> "dict[str, Tensor]":
    """Read a state dict from `.safetensors` or a torch checkpoint (with `weights_only=True`: no code is run).

    Raises
    ------
    NetworkError
        Not a file of weights, or one that would need code to be run.
    """
    name = os.fspath(path)
    try:
        content = _read(name)
    except FileNotFoundError as error:
        raise NetworkError(f"no such file: {name}") from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NetworkError(f"{name} cannot be read as weights alone, and no code in it is run: {reason}") from error
    state = _unwrap(content)
    if not state:
        raise NetworkError(f"{name} holds no tensors by name; Swathe reads a state dict or safetensors")
    return state


def _read(name: str) -> object:
    if name.endswith(".safetensors"):
        import safetensors.torch

        return safetensors.torch.load_file(name)
    import torch

    return torch.load(name, map_location="cpu", weights_only=True)


def _unwrap(content: object) -> "dict[str, Tensor]":
    import torch

    if not isinstance(content, Mapping):
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper])
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _unwrap({key.removeprefix(prefix): value for key, value in state.items()})
    return state


def rename(state: "Mapping[str, Tensor]", patterns: Mapping[str, str]) -> "dict[str, Tensor]":
    """Rename keys: each pattern is a regular expression for a key's beginning, each value what takes its place.

    Raises
    ------
    NetworkError
        A pattern is no regular expression, or two keys become one.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        new = _rename_key(key, patterns)
        if new in renamed:
            raise NetworkError(f"two keys become {new!r} when renamed; the second is {key!r}")
        renamed[new] = tensor
    return renamed


def _rename_key(key: str, patterns: Mapping[str, str]) -> str:
    for pattern, replacement in patterns.items():
        try:
            new, count = re.subn(rf"\A(?:{pattern})", replacement, key)
        except re.error as error:
            raise NetworkError(f"{pattern!r} is not a regular expression: {error}") from error
        if count:
            return new
    return key


def swap_halves(state: "Mapping[str, Tensor]", patterns: Sequence[str]) -> "dict[str, Tensor]":
    """Exchange the two halves of the inputs of convolutions whose key a regular expression matches whole.

    For U-Nets that join what comes up and what was skipped in the other order than ours: shapes fit all the same.

    Raises
    ------
    NetworkError
        A pattern is no regular expression or matches nothing, or a tensor's inputs are no two halves.
    """
    import torch

    swapped = dict(state)
    for pattern in patterns:
        try:
            keys = [key for key in state if re.fullmatch(pattern, key)]
        except re.error as error:
            raise NetworkError(f"{pattern!r} is not a regular expression: {error}") from error
        if not keys:
            raise NetworkError(f"swap: no key matches {pattern!r}; give the keys as they are after renaming")
        for key in keys:
            if state[key].ndim != 4 or state[key].shape[1] % 2:
                raise NetworkError(f"swap: {key} {tuple(state[key].shape)} is no convolution of two halves")
            swapped[key] = torch.cat(state[key].chunk(2, dim=1)[::-1], dim=1)
    return swapped


def compare(network: "nn.Module", state: "Mapping[str, Tensor]") -> str:
    """Say how a state dict differs from what a network needs: missing, unexpected, other shapes. Empty: it fits."""
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)}, needs {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    named = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{label} {_listed(keys)}" for label, keys in named.items() if keys)


def _listed(keys: Sequence[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
