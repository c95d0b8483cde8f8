"""What a foreign file or folder is, told by its content; what is no network is refused in one line that names it."""

import os
from pathlib import Path

from ..errors import BundleError
from ..limits import LARGEST_JSON, parse_json, read_small, refuse_special
from .content import Kind, content_kind, refuse_folder, refuse_json, refuse_zip
from .found import Found, Reader
from .onnx_file import read_onnx_file
from .program import read_program
from .weights import read_weights

READERS: tuple[Reader, ...] = ()  # of kinds that tell more than their weights do; the first that knows it tells


def recognise(model: str | os.PathLike[str]) -> Found:
    """Tell what a file or folder is, and what it says of its network. Nothing in it is run.

    Parameters
    ----------
    model
        A file or folder of any of the kinds in `models.imports.content.READ`.

    Raises
    ------
    BundleError
        It is no network, or one of a kind that is not read; the line names the kind, and says what to do.
    NetworkError
        It is weights, and damaged; or a pickle of more than weights.
    """
    path = Path(os.fspath(model))
    refuse_special(path, BundleError)
    if not path.exists():
        raise BundleError(f"no such file or folder: {path}")
    kind = None if path.is_dir() else content_kind(path)
    for read in READERS:
        if (found := read(path)) is not None:
            return found
    return _by_kind(path, kind)


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
    raise refuse_folder(path)


def _json(path: Path) -> object:
    try:
        return parse_json(read_small(path, LARGEST_JSON, BundleError))
    except ValueError as error:
        raise BundleError(f"{path} looks like JSON, and is not: {error}") from error
