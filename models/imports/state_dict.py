"""Read a state dict from a file of weights, without running anything in it, and rename its keys."""

import os
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ..errors import BundleError, NetworkError
from ..limits import refuse_special
from .checkpoint import as_checkpoint, check_packed, is_checkpoint, read_checkpoint
from .pickles import describe_pickle

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict
TAKEN = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16, torch.int32,
         torch.int64, torch.bool}  # fmt: skip
MOST_REPEATED, SMALL = 8, 2**30  # times that tensors of more bytes may hold the same numbers, as layers share them
DEEPEST = 32  # wrappers and prefixes about a state dict
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")  # that DataParallel, Lightning and compile put first


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors` or a torch checkpoint (with `weights_only=True`: no code is run).

    Raises
    ------
    NetworkError
        Not a file of weights, or one that would need code to be run.
    BundleError
        It is packed like a zip bomb.
    """
    name = os.fspath(path)
    refuse_special(name, NetworkError)
    try:
        if _is_safetensors(name):
            content: object = safetensors.torch.load_file(name)
        else:
            content = _load(name)
    except FileNotFoundError as error:
        raise NetworkError(f"no such file: {name}") from error
    except OSError as error:
        raise NetworkError(f"{name} cannot be read: {error.strerror or error}") from error
    except BundleError:
        raise
    except Exception as error:
        raise NetworkError(describe_pickle(Path(name))) from error
    state = _unwrap(content)
    if not state:
        raise NetworkError(f"{name} holds no tensors by name; Swathe reads a state dict or safetensors")
    _refuse_odd(state, name)
    _refuse_repeated(state, name)
    return state


def _refuse_odd(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors of kinds from which no network here is made: sparse, without numbers, complex, of 8 bits."""
    for key, tensor in state.items():
        kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
        if tensor.is_nested or tensor.is_meta or kind not in TAKEN:
            word = "nested" if tensor.is_nested else "meta, without its numbers" if tensor.is_meta else kind
            raise NetworkError(
                f"{name}: {key} is {str(word).removeprefix('torch.')}; save it as dense float32 or float16"
            )


def _refuse_repeated(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors of which a few numbers stand for many: a small file would make a network of any size."""
    storages = {one.data_ptr(): one.nbytes() for one in (tensor.untyped_storage() for tensor in state.values())}
    if sum(tensor.nbytes for tensor in state.values()) > max(SMALL, MOST_REPEATED * sum(storages.values())):
        key = max(state, key=lambda key: state[key].numel())
        raise NetworkError(f"{name} repeats its numbers: {key} is {state[key].numel():,} of them, and the file holds "
                           f"{sum(storages.values()):,} bytes; save its weights as they are")  # fmt: skip


def _is_safetensors(name: str) -> bool:
    """Tell whether a file begins with the header of safetensors, whatever it is called."""
    with open(name, "rb") as file:
        return file.read(9)[8:] == b"{"


def _load(name: str) -> object:
    """Read a checkpoint of torch; of one with other classes beside its weights, as of settings, the weights alone."""
    if is_checkpoint(Path(name)):
        check_packed(Path(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols of pickle, about which nobody can do anything here
            with as_checkpoint(Path(name)) as given:
                return torch.load(given, map_location="cpu", weights_only=True)
    except Exception:
        if not is_checkpoint(Path(name)):
            raise
        with suppress(BundleError):
            if _unwrap(content := read_checkpoint(Path(name))):
                return content
        raise


def _unwrap(content: object, depth: int = 0) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or depth > DEEPEST:  # one may hold itself
        return {}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return _unwrap(content[wrapper], depth + 1)
    state = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _unwrap({key.removeprefix(prefix): value for key, value in state.items()}, depth + 1)
    return state


def drop(state: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    """Leave out keys that a regular expression matches whole. Raises NetworkError where a pattern is none."""
    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except (re.error, TypeError) as error:
        raise NetworkError(f"drop: {error}; give a list of regular expressions for keys") from error
    return {key: tensor for key, tensor in state.items() if not any(one.fullmatch(key) for one in compiled)}


def restore_prefix(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Put back prefixes that were taken off, where the keys of the network begin so: MONAI's UNet is all `model.`."""
    if any(key in wanted for key in state):
        return dict(state)
    own, left = "", list(wanted)
    while prefix := next((each for each in PREFIXES if left and all(key.startswith(each) for key in left)), ""):
        own += prefix
        left = [key.removeprefix(prefix) for key in left]
    return {f"{own}{key}": tensor for key, tensor in state.items()}


def rename(state: Mapping[str, Tensor], patterns: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename keys. Each pattern is a regular expression for the beginning of a key, each value what takes its place.

    Raises
    ------
    NetworkError
        A pattern is no regular expression, or two keys become one.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        new = key
        for pattern, replacement in patterns.items():
            try:
                new, count = re.subn(rf"\A(?:{pattern})", replacement, key)
            except (re.error, IndexError) as error:  # the latter of groups that it does not name
                raise NetworkError(f"{pattern!r} is not a regular expression: {error}") from error
            if count:
                break
        if new in renamed:
            raise NetworkError(f"two keys become {new!r} when renamed; the second is {key!r}")
        renamed[new] = tensor
    return renamed


def swap_halves(state: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    """Exchange the two halves of the inputs of convolutions whose key a regular expression matches whole.

    For U-Nets that join what comes up and what was skipped in the other order than ours: shapes fit all the same.

    Raises
    ------
    NetworkError
        A pattern is no regular expression or matches nothing, or a tensor's inputs are no two halves.
    """
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
