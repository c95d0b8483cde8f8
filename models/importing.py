"""Foreign weights: read a state dict, rename its keys, and make a bundle of it by a config of its network.

Nothing in a checkpoint is ever run as code.
"""

import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from .build import build, compare, refuse_not_finite
from .bundle import DATES, Bundle, finish_bundle, load_bundle, save_bundle
from .errors import BundleError, NetworkError
from .files import refuse_existing
from .imports.found import Found
from .imports.settings import KEYS as KEYS
from .imports.settings import metadata_of, read_settings
from .limits import refuse_special
from .receptive_field import measure_receptive_field

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")  # that DataParallel, Lightning and compile put first


def import_bundle(
    checkpoint: str | os.PathLike[str],
    config: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Make a bundle of a state dict and a config.

    Parameters
    ----------
    checkpoint
        A torch checkpoint (read with `weights_only=True`) or `.safetensors`.
    config
        TOML or JSON: `name`, `architecture`, `options`, `bands` (names), `dtype`, `scaling` (a table of `mean` and
        `stddev`, of `minimum` and `maximum`, or of `divisor`; a number or one per band), `classes` (tables of `name`
        and `color`), and, as needed, `background` (a class's name; `none`, or false: there is none), `activation`,
        `resolution`, `patch`, `means` in `scaling`, and `rename`: a table
        of regular expressions for the beginnings of keys, and what takes their place. `swap`: regular expressions for
        keys, as renamed, of convolutions whose two halves of inputs come in the other order, as in U-Nets that join
        (upsampled, skipped) and not (skipped, upsampled). `radiometry`: what raw values mean, a table of `scale`,
        `offset` and `unit` (value * scale + offset is in the unit), or one per band; `quantiles`: per band, those of
        the training values at `models.metadata.QUANTILES`.
    output
        Folder or `.zip`. The very bundle that would be written is returned where it is there already.
    overwrite
        Replace a bundle that is there.

    Raises
    ------
    NetworkError
        The weights cannot be read, or do not fit: missing and unexpected keys are named.
    BundleError
        The config makes no sense.
    """
    return import_state(checkpoint, read_settings(config), output, overwrite=overwrite)


def import_settings(
    found: Found, settings: Mapping[str, Any], output: str | os.PathLike[str], overwrite: bool = False
) -> Bundle:
    """Make a bundle of what was recognised in a file and of settings.

    Parameters
    ----------
    found
        Of `models.imports.recognise.recognise`.
    settings
        The user's, with the keys of `import_bundle`'s config; each goes before what the file tells.
    output, overwrite
        As of `import_bundle`.

    Raises
    ------
    NetworkError, BundleError
        As `import_bundle`; or neither file nor settings tell what is needed.
    """
    merged = {**found.facts, **settings}
    if found.network == "state":
        return import_state(found.path, merged, output, overwrite=overwrite)
    raise BundleError(f"{found.path} is {found.kind}, which holds no weights: give the file that does")


def import_state(
    checkpoint: str | os.PathLike[str],
    settings: Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Make a bundle of a state dict and settings; see `import_bundle`, whose config holds them."""
    state = rename(read_state_dict(checkpoint), settings.get("rename", {}))
    state = swap_halves(state, settings.get("swap", []))
    metadata = metadata_of(settings)
    network = build(metadata.architecture, len(metadata.bands), metadata.channels, **metadata.options)
    difference = compare(network, state)
    if difference:
        raise NetworkError(f"{os.fspath(checkpoint)} does not fit {metadata.architecture}: {difference}")
    refuse_not_finite(state, os.fspath(checkpoint))
    network.load_state_dict(state)
    metadata = replace(metadata, receptive_field=measure_receptive_field(network, len(metadata.bands)))
    return keep_once(output, overwrite, lambda place: save_bundle(place, network, metadata, overwrite=overwrite))


def keep_once(output: str | os.PathLike[str], overwrite: bool, save: Callable[[Path], Bundle]) -> Bundle:
    """Write a bundle, or return the one that is there where it is the very one that would be written.

    `save`: writes it to a path. Raises BundleError where another one is there.
    """
    target = Path(output)
    if overwrite or not target.exists():
        return save(target)
    with tempfile.TemporaryDirectory() as folder:
        if not _is_same(save(Path(folder) / "bundle"), target):
            refuse_existing(output, error=BundleError)
    return finish_bundle(target)


def _is_same(made: Bundle, there: Path) -> bool:
    """Whether a bundle holds what another does, apart from the day on which it was made."""
    with suppress(BundleError):
        other = load_bundle(there)
        said = [{key: value for key, value in bundle.item["properties"].items() if key not in DATES}
                for bundle in (made, other)]  # fmt: skip
        return made.digest == other.digest and said[0] == said[1]
    return False


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors` or a torch checkpoint (with `weights_only=True`: no code is run).

    Raises
    ------
    NetworkError
        Not a file of weights, or one that would need code to be run.
    """
    name = os.fspath(path)
    refuse_special(name, NetworkError)
    try:
        if name.endswith(".safetensors"):
            content = safetensors.torch.load_file(name)
        else:
            content = torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise NetworkError(f"no such file: {name}") from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NetworkError(f"{name} cannot be read as weights alone, and no code in it is run: {reason}") from error
    state = _unwrap(content)
    if not state:
        raise NetworkError(f"{name} holds no tensors by name; Swathe reads a state dict or safetensors")
    return state


def _unwrap(content: object) -> dict[str, Tensor]:
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
            except re.error as error:
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
