"""Foreign weights: read a state dict, rename its keys, and make a bundle of it by a config of its network.

Nothing in a checkpoint is ever run as code.
"""

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
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
from .limits import LARGEST_TOML, parse_json, parse_toml, read_small, refuse_special
from .metadata import (
    Band,
    BundleMetadata,
    ClassInfo,
    Radiometry,
    ReceptiveField,
    Scaling,
    divide,
    min_max,
    named_background,
    z_score,
)
from .receptive_field import measure_receptive_field

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # where training scripts put the state dict
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")  # that DataParallel, Lightning and compile put first

RADIOMETRY = ("scale", "offset", "unit")
KEYS = ("name", "architecture", "options", "bands", "dtype", "scaling", "classes", "activation", "resolution", "patch",
        "background", "description", "provenance", "metrics", "rename", "swap", "radiometry", "quantiles")  # fmt: skip


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
    settings = _read_config(os.fspath(config))
    state = rename(read_state_dict(checkpoint), settings.get("rename", {}))
    state = swap_halves(state, settings.get("swap", []))
    metadata = _metadata(settings)
    network = build(metadata.architecture, len(metadata.bands), metadata.channels, **metadata.options)
    difference = compare(network, state)
    if difference:
        raise NetworkError(f"{os.fspath(checkpoint)} does not fit {metadata.architecture}: {difference}")
    refuse_not_finite(state, os.fspath(checkpoint))
    network.load_state_dict(state)
    metadata = replace(metadata, receptive_field=measure_receptive_field(network, len(metadata.bands)))
    if overwrite or not Path(output).exists():
        return save_bundle(output, network, metadata, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as folder:
        if not _is_same(save_bundle(Path(folder) / "bundle", network, metadata), Path(output)):
            refuse_existing(output, error=BundleError)
    return finish_bundle(Path(output))


def _is_same(made: Bundle, there: Path) -> bool:
    """Whether a bundle holds what another does, apart from the day on which it was made."""
    with suppress(BundleError):
        other = load_bundle(there)
        said = [{key: value for key, value in bundle.item["properties"].items() if key not in DATES}
                for bundle in (made, other)]  # fmt: skip
        return made.digest == other.digest and said[0] == said[1]
    return False


def _read_config(path: str) -> dict[str, Any]:
    try:
        text = read_small(path, LARGEST_TOML, BundleError)
        content = parse_json(text) if path.endswith(".json") else parse_toml(text)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} is not {'JSON' if path.endswith('.json') else 'TOML'}: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not a table of keys and values; known keys: {', '.join(KEYS)}")
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise BundleError(f"{path} has the unknown key {unknown[0][:100]!r}; known: {', '.join(KEYS)}")
    return dict(content)


def _metadata(settings: Mapping[str, Any]) -> BundleMetadata:
    try:
        names = [str(name) for name in settings["bands"]]
        scaling, means = _scaling(settings["scaling"], len(names))
        resolution = settings.get("resolution")
        finest, coarsest = resolution if isinstance(resolution, list) else (resolution or 0, resolution or 0)
        return BundleMetadata(
            name=settings["name"],
            architecture=settings["architecture"],
            options=dict(settings.get("options", {})),
            bands=tuple(map(Band, names, means, _radiometry(settings, len(names)), _quantiles(settings, len(names)))),
            dtype=str(settings["dtype"]),
            scaling=scaling,
            classes=tuple(ClassInfo(str(c["name"]), str(c["color"])) for c in settings["classes"]),
            receptive_field=ReceptiveField(1, None),  # measured once the weights are in
            activation=settings.get("activation", "softmax"),
            resolution=None if resolution is None else (float(finest), float(coarsest)),
            patch=int(settings.get("patch", 512)),
            background=named_background(settings.get("background"), [str(c["name"]) for c in settings["classes"]]),
            description=str(settings.get("description", "")),
            provenance=dict(settings.get("provenance", {})),
            metrics=dict(settings.get("metrics", {})),
        )
    except KeyError as error:
        raise BundleError(
            f"the config lacks {error}; it needs name, architecture, bands, dtype, scaling, classes"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"the config has a value that cannot be used: {error}") from error


def _radiometry(settings: Mapping[str, Any], bands: int) -> list[Radiometry | None]:
    """Read what values mean: a table for all bands, or one for each."""
    given = settings.get("radiometry")
    if given is None:
        return [None] * bands
    tables = given if isinstance(given, list) else [given] * bands
    if len(tables) != bands or not all(isinstance(one, Mapping) and set(one) <= {*RADIOMETRY} for one in tables):
        raise BundleError(
            f"radiometry is a table of {', '.join(RADIOMETRY)}, or a list of one for each of {bands} bands"
        )
    return [
        Radiometry(float(one.get("scale", 1)), float(one.get("offset", 0)), str(one.get("unit", ""))) for one in tables
    ]


def _quantiles(settings: Mapping[str, Any], bands: int) -> list[tuple[float, ...]]:
    given = settings.get("quantiles", [[]] * bands)
    if not isinstance(given, list) or len(given) != bands:
        raise BundleError(f"quantiles are a list for each of the {bands} bands")
    return [tuple(float(value) for value in values) for values in given]


def _scaling(table: Mapping[str, Any], bands: int) -> tuple[Scaling, tuple[float, ...]]:
    """Read scaling, and the band means that stand in for missing pixels: as given, else the middle of the range."""

    def per_band(key: str) -> tuple[float, ...]:
        value = table[key]
        return tuple(float(v) for v in value) if isinstance(value, list) else (float(value),) * bands

    if "stddev" in table:
        scaling = z_score(per_band("mean"), per_band("stddev"))
        middle = scaling.first
    elif "maximum" in table:
        scaling = min_max(per_band("minimum"), per_band("maximum"))
        middle = tuple((low + high) / 2 for low, high in zip(scaling.first, scaling.second, strict=True))
    elif "divisor" in table:
        scaling = divide(per_band("divisor"))
        middle = tuple(value / 2 for value in scaling.second)
    else:
        raise BundleError("scaling is mean and stddev, minimum and maximum, or divisor")
    return scaling, per_band("means") if "means" in table else middle


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
