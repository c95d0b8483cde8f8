"""Foreign weights into a bundle, by a config that describes their network. Nothing in a checkpoint is ever run."""

import json
import os
import tomllib
from collections.abc import Mapping
from typing import Any

from .build import build
from .bundle import Bundle, save_bundle
from .errors import BundleError, NetworkError
from .metadata import Activation, Band, BundleMetadata, ClassInfo
from .receptive_field import measure_receptive_field
from .scaling import Scaling, divide, min_max, z_score
from .weights import compare, read_state_dict, rename, swap_halves

KEYS = ("name", "architecture", "options", "bands", "dtype", "scaling", "classes", "activation", "resolution", "patch",
        "description", "provenance", "metrics", "rename", "swap")  # fmt: skip


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
        and `color`), and, as needed, `activation`, `resolution`, `patch`, `means` in `scaling`, and `rename`: a table
        of regular expressions for the beginnings of keys, and what takes their place. `swap`: regular expressions for
        keys, as renamed, of convolutions whose two halves of inputs come in the other order, as in U-Nets that join
        (upsampled, skipped) and not (skipped, upsampled).
    output
        Folder or `.zip`.
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
    metadata = _facts(settings)
    network = build(metadata.architecture, len(metadata.bands), metadata.channels, **metadata.options)
    difference = compare(network, state)
    if difference:
        raise NetworkError(f"{os.fspath(checkpoint)} does not fit {metadata.architecture}: {difference}")
    network.load_state_dict(state)
    measured = measure_receptive_field(network, len(metadata.bands))
    return save_bundle(output, network, _with_footprint(metadata, measured), overwrite=overwrite)


def _read_config(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = json.load(file) if path.endswith(".json") else tomllib.load(file)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path} is not {'JSON' if path.endswith('.json') else 'TOML'}: {error}") from error
    unknown = sorted(set(content) - set(KEYS))
    if unknown:
        raise BundleError(f"{path} has the unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
    return dict(content)


def _facts(settings: Mapping[str, Any]) -> BundleMetadata:
    from .metadata import ReceptiveField

    try:
        names = [str(name) for name in settings["bands"]]
        scaling, means = _scaling(settings["scaling"], len(names))
        resolution = settings.get("resolution")
        return BundleMetadata(
            name=settings["name"],
            architecture=settings["architecture"],
            options=dict(settings.get("options", {})),
            bands=tuple(Band(name, mean) for name, mean in zip(names, means, strict=True)),
            dtype=str(settings["dtype"]),
            scaling=scaling,
            classes=tuple(ClassInfo(str(c["name"]), str(c["color"])) for c in settings["classes"]),
            receptive_field=ReceptiveField(1, None),  # measured once the weights are in
            activation=_activation(settings.get("activation", "softmax")),
            resolution=None if resolution is None else _pair(resolution),
            patch=int(settings.get("patch", 512)),
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


def _activation(name: str) -> Activation:
    known: dict[str, Activation] = {"softmax": "softmax", "sigmoid": "sigmoid"}
    if name in known:
        return known[name]
    raise BundleError(f"unknown activation {name!r}; known: softmax, sigmoid")


def _pair(value: Any) -> tuple[float, float]:
    finest, coarsest = value if isinstance(value, list) else (value, value)
    return float(finest), float(coarsest)


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


def _with_footprint(metadata: BundleMetadata, receptive_field: Any) -> BundleMetadata:
    from dataclasses import replace

    return replace(metadata, receptive_field=receptive_field)
