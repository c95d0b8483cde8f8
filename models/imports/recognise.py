"""What a foreign file or folder is, told by its content; what is no network is refused in one line that names it."""

import os
from dataclasses import replace
from pathlib import Path

from ..errors import BundleError
from ..limits import LARGEST_JSON, parse_json, read_small, refuse_special
from .arcgis import read_arcgis
from .content import Kind, content_kind, refuse_folder, refuse_json, refuse_zip
from .found import Found, Reader
from .hub import fetch_snapshot, is_reference, refuse_hub_folder, with_origin
from .lightning import read_lightning
from .mlm_item import read_mlm_item
from .onnx_file import read_onnx_file
from .program import read_program
from .smp_folder import read_smp_folder
from .weights import read_weights

# of kinds that tell more than their weights do; the first that knows it tells
READERS: tuple[Reader, ...] = (read_smp_folder, read_arcgis, read_mlm_item, read_lightning)


def recognise(model: str | os.PathLike[str]) -> Found:
    """Tell what a file or folder is, and what it says of its network. Nothing in it is run.

    Parameters
    ----------
    model
        A file or folder of any of the kinds in `models.imports.content.READ`; or `hf:owner/name[/file][@revision]`,
        which is fetched from the Hugging Face Hub.

    Raises
    ------
    BundleError
        It is no network, or one of a kind that is not read; the line names the kind, and says what to do.
    NetworkError
        It is weights, and damaged; or a pickle of more than weights.
    """
    if is_reference(model):
        snapshot = fetch_snapshot(os.fspath(model))
        return with_origin(recognise(snapshot.path), snapshot)
    path = _there(os.fspath(model))
    try:
        kind = None if path.is_dir() else content_kind(path)
        for read in READERS:
            if (found := read(path)) is not None:
                return _completed(found, path)
        return _by_kind(path, kind)
    except OSError as error:  # of whichever reader, as where there is no permission
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error


def _there(name: str) -> Path:
    """Return a path that leads to a file or folder. Raises BundleError where it leads nowhere."""
    if not name.strip():
        raise BundleError("no network is given: name a file or a folder, or hf:owner/name")
    path = Path(name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise BundleError(f"{path} is a link to {os.readlink(path)}, which is not there") from error
        raise BundleError(f"no such file or folder: {path}") from error
    except (OSError, ValueError) as error:  # too long a name, a link to itself; a name with a null
        raise BundleError(f"{path} cannot be read: {getattr(error, 'strerror', error)}") from error
    refuse_special(path, BundleError)
    return path


def _completed(found: Found, path: Path) -> Found:
    """Add what weights or a graph tell of themselves, where a description lies beside them and names no network."""
    if found.network == "item" or found.path == path or "architecture" in found.facts:
        return found
    own = _by_kind(found.path, content_kind(found.path))
    facts, sources = {**own.facts, **found.facts}, {**own.sources, **found.sources}
    return replace(found, network=own.network, facts=facts, sources=sources,
                   notes=(*found.notes, *own.notes), inputs=found.inputs or own.inputs,
                   outputs=own.outputs or found.outputs)  # fmt: skip


def _by_kind(path: Path, kind: Kind | None) -> Found:
    """Tell what a file is of which nothing is known but its kind; None: it is a folder."""
    match kind:
        case "safetensors" | "checkpoint":
            return read_weights(path)
        case "onnx":
            return read_onnx_file(path)
        case "program":
            return read_program(path)
        case "zip":
            raise refuse_zip(path)
        case "json":
            raise refuse_json(path, _json(path))
    refuse_hub_folder(path)
    raise refuse_folder(path)


def _json(path: Path) -> object:
    try:
        return parse_json(read_small(path, LARGEST_JSON, BundleError))
    except ValueError as error:
        raise BundleError(f"{path} looks like JSON, and is not: {error}") from error
