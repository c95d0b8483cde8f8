"""Foreign networks: recognise what a file holds, and make a bundle of it and of settings that tell the rest.

Nothing in a file is run as code, but for programs of `torch.export` that the user says to trust.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .build import build, build_empty, compare, refuse_not_finite
from .bundle import DATES, Bundle, finish_bundle, load_bundle, save_bundle, save_onnx
from .errors import BundleError, NetworkError
from .factory import FACTORY, allow_factory, module_of, remember_factory
from .files import local_path, refuse_existing, sha256_of
from .graph_form import ONNX
from .imports.found import Found
from .imports.program import refuse_untrusted, write_program_as_onnx
from .imports.recognise import recognise
from .imports.settings import KEYS as KEYS
from .imports.settings import check_keys, metadata_of, read_settings, refuse_value
from .imports.skeleton import default_name, refuse_missing, skeleton
from .imports.state_dict import drop, restore_prefix
from .imports.state_dict import read_state_dict as read_state_dict
from .imports.state_dict import rename as rename
from .imports.state_dict import swap_halves as swap_halves
from .limits import bounded_memory
from .metadata import BundleMetadata
from .receptive_field import measure_receptive_field
from .system import bundles_folder
from .telling import tell


def import_model(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    trust: bool = False,
    factory: str = "",
    overwrite: bool = False,
) -> Bundle:
    """Make a bundle of a network that someone else has published.

    Parameters
    ----------
    model
        File or folder, told by its content: ONNX, safetensors, a state dict or checkpoint of torch, and what else
        `models.imports.content.READ` lists.
    output
        Folder or `.zip`. The very bundle that would be written is returned where it is there already. None: in the
        user's folder of bundles, under the bundle's name.
    config
        What the file does not tell, and what goes before that which it does; `describe_model` writes one to fill in.
        A mapping, or a file of TOML or JSON: `name`, `architecture`, `options`, `bands` (names), `dtype`, `scaling` (a
        table of `mean` and `stddev`, of `minimum` and `maximum`, or of `divisor`; a number or one per band), `classes`
        (tables of `name` and `color`), and, as needed, `background` (a class's name; `none`, or false: there is none),
        `activation`, `resolution`, `patch`, `means` in `scaling`, `thresholds` (the probability above which a pixel
        takes a class: one for all but the background, or a table by name), and `rename`: a table of regular expressions
        for the beginnings of keys, and what takes their place. `drop`: regular expressions for whole keys that are left
        out first, as those of a loss. `swap`: regular expressions for keys, as renamed, of convolutions whose two
        halves of inputs come in the other order, as in U-Nets that join (upsampled, skipped) and not (skipped,
        upsampled). `radiometry`: what raw values mean, a table of `scale`, `offset` and `unit` (value * scale + offset
        is in the unit), or one per band; `quantiles`: per band, those of the training values at
        `models.metadata.QUANTILES`.
    trust
        Load a program of `torch.export` (.pt2), which can run code that is in it. It is kept as ONNX, without code.
    factory
        `package.module:function` of the user's own: it makes the network that the weights are of. It is remembered
        for this user; elsewhere it is named in the environment variable `SWATHE_FACTORIES`.
    overwrite
        Replace a bundle that is there.

    Raises
    ------
    BundleError
        It is no network, and the line says what it is; or something is missing or makes no sense.
    NetworkError
        Weights do not fit the network: missing and unexpected keys are named.
    """
    if output is not None:
        output = local_path(output, error=BundleError)
    settings = _settings(config, factory)
    if factory:
        allow_factory(factory)
    found = recognise(model)
    for text in (f"it is {found.kind}", *found.notes):
        tell(text, always=True)
    made = import_settings(found, settings, output, overwrite, trust=trust)
    if factory:
        remember_factory(factory)
    return made


def describe_model(
    model: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    factory: str = "",
) -> str:
    """Return the settings of an import as TOML: what a file tells filled in, what is missing marked by "?".

    Parameters
    ----------
    model, config, factory
        As of `import_model`. Nothing is run.

    Raises
    ------
    BundleError, NetworkError
        It is no network; the line says what it is.
    """
    return skeleton(recognise(model), _settings(config, factory))


def _settings(config: str | os.PathLike[str] | Mapping[str, Any] | None, factory: str) -> dict[str, Any]:
    """Return what the user gives."""
    given = read_settings(config) if isinstance(config, str | os.PathLike) else check_keys(config or {}, "config")
    if not factory:
        return given
    module_of(factory)
    return {**given, "architecture": FACTORY, "options": {**_table(given, "options"), FACTORY: factory}}


def import_settings(
    found: Found,
    settings: Mapping[str, Any],
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    *,
    trust: bool = False,
) -> Bundle:
    """Make a bundle of what was recognised in a file and of settings.

    Parameters
    ----------
    found
        Of `models.imports.recognise.recognise`.
    settings
        The user's, with the keys of `import_model`'s config; each goes before what the file tells.
    output, overwrite, trust
        As of `import_model`.

    Raises
    ------
    NetworkError, BundleError
        As `import_model`; or neither file nor settings tell what is needed.
    """
    if found.network == "item":
        raise BundleError(f"{found.path} is {found.kind}, which holds no weights: give the file that does")
    if found.network == "program" and not trust:
        raise refuse_untrusted(found.path)
    if found.network != "state" and settings.get("architecture") == FACTORY:
        raise BundleError(f"{found.path} is {found.kind}, a network by itself: a factory is for weights alone")
    merged = {"name": default_name(found.path), **found.facts, **settings}
    refuse_missing(found.path, merged, found.network)
    output = bundles_folder() / str(merged["name"]) if output is None else output  # a name is checked before it is used
    merged["provenance"] = _origin(found) | _table(found.facts, "provenance") | _table(settings, "provenance")
    if found.network == "state":
        return import_state(found.path, merged, output, overwrite=overwrite)
    if found.network == "onnx":
        return import_onnx(found.path, merged, output, overwrite=overwrite)
    with tempfile.TemporaryDirectory() as folder:
        write_program_as_onnx(found.path, made := Path(folder) / "network.onnx")
        try:
            return import_onnx(made, merged, output, overwrite=overwrite)
        except (BundleError, NetworkError) as error:  # which name a file that the user has never seen
            raise type(error)(str(error).replace(str(made), str(found.path))) from error


def _origin(found: Found) -> dict[str, Any]:
    """Return which file a bundle was made of."""
    return {"imported from": found.path.name, "sha256": sha256_of(found.path)} if found.path.is_file() else {}


def _table(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a table among settings. Raises BundleError where it is none."""
    table = settings.get(key, {})
    if not isinstance(table, Mapping):
        raise refuse_value(key, "a table of keys and values", table)
    return dict(table)


def import_state(
    checkpoint: str | os.PathLike[str],
    settings: Mapping[str, Any],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Bundle:
    """Make a bundle of a state dict and settings; see `import_model`, whose config holds them."""
    metadata = metadata_of(settings)
    state = rename(drop(read_state_dict(checkpoint), settings.get("drop", [])), settings.get("rename", {}))
    made_of = (metadata.architecture, len(metadata.bands), metadata.channels)
    empty = build_empty(*made_of, **metadata.options)
    state = swap_halves(restore_prefix(state, empty.state_dict()), settings.get("swap", []))
    if difference := _other_channels(empty, state, metadata) or compare(empty, state):
        raise NetworkError(f"{os.fspath(checkpoint)} does not fit {metadata.architecture}: {difference}")
    refuse_not_finite(state, os.fspath(checkpoint))
    network = build(*made_of, **metadata.options)
    network.load_state_dict(state)
    metadata = replace(metadata, receptive_field=measure_receptive_field(network, len(metadata.bands)))
    return keep_once(output, overwrite, lambda place: save_bundle(place, network, metadata, overwrite=overwrite))


def _other_channels(network: nn.Module, state: Mapping[str, Tensor], metadata: BundleMetadata) -> str:
    """Say that weights are of another number of bands or classes, where that is all by which they differ."""
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    given = {key: tuple(tensor.shape) for key, tensor in state.items()}
    if wanted.keys() != given.keys():
        return ""
    pairs = [(given[key], wanted[key]) for key in wanted if given[key] != wanted[key]]
    bands = {had[1] for had, need in pairs if len(had) == len(need) > 1 and had[1] != need[1] == len(metadata.bands)}
    channels = {had[0] for had, need in pairs if had and need and had[0] != need[0] == metadata.channels}
    said = [f"it has {count} bands, and {len(metadata.bands)} are named" for count in list(bands)[:1]]
    if channels:
        said.append(f"its answer has {channels.pop()} channels, and {metadata.channels} are asked for, of "
                    f"{len(metadata.classes)} classes with {metadata.activation}")  # fmt: skip
    return "; ".join(said)


def import_onnx(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    output: str | os.PathLike[str],
    overwrite: bool = False,
) -> Bundle:
    """Make a bundle of an ONNX file, whose graph is kept as it is; data that lies beside the file goes into it.

    Parameters
    ----------
    path
        Of the ONNX file.
    settings
        As `config` of `import_model`, without `architecture`, `rename` and `swap`. `options` may say of the graph what
        it does not tell itself, see `GraphForm`: which output is meant, whether it gives logits or probabilities.
    output, overwrite
        See `import_model`.

    Raises
    ------
    NetworkError
        The file is not one that Swathe runs, see `models.onnx_graph.inspect`, or its bands or classes are not those of
        the settings.
    BundleError
        The settings make no sense.
    """
    from .onnx_import import read_onnx

    metadata_of({**settings, "architecture": ONNX, "options": {}})  # what makes no sense is said before anything is run
    try:
        with bounded_memory():
            read = read_onnx(path, settings)
    except MemoryError as error:
        raise NetworkError(
            f"{os.fspath(path)} asks for more memory than an import may take, {error}, for one tile: export it for "
            "smaller ones, or import it on a larger machine"
        ) from error
    metadata = replace(metadata_of(read.settings), receptive_field=read.receptive_field)
    return keep_once(
        output,
        overwrite,
        lambda place: save_onnx(place, read.content, read.parameters, metadata, overwrite=overwrite),
    )


def keep_once(output: str | os.PathLike[str], overwrite: bool, save: Callable[[Path], Bundle]) -> Bundle:
    """Write a bundle, or return the one that is there where it is the very one that would be written.

    `save`: writes it to a path. Raises BundleError where another one is there.
    """
    target = local_path(output, error=BundleError)
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
