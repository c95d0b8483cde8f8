"""Programs of `torch.export` (.pt2): loaded only where the user trusts them, and kept as ONNX, without code."""

import logging
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BundleError, NetworkError, require_extra
from ..limits import LARGEST_JSON, parse_json
from .found import Found

NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
TRUST = "loading it can run code that is in it, so it is loaded only with --trust"
EXTRAS = ("mlm-metadata", "swathe.json")  # extra files that hold JSON


def read_program(path: Path) -> Found:
    """Tell that a file is a program, by its directory alone."""
    held = [name for name in EXTRAS if read_extra(path, name) is not None]
    notes = (f"a program of torch.export: {TRUST}", *(f"it holds {name}" for name in held))
    return Found("a program of torch.export", "program", path, notes=notes)


def read_extra(path: Path, name: str) -> Any:
    """Return the JSON that was saved beside a program under a name; None: there is none. Nothing is run.

    Raises
    ------
    BundleError
        It is no JSON, or larger than any that is meant.
    """
    with suppress(zipfile.BadZipFile, OSError, StopIteration, NotImplementedError), zipfile.ZipFile(path) as archive:
        ends = (f"/extra/{name}", f"extra_files/{name}")  # of torch 2.7 and later, and before
        member = next(member for member in archive.infolist() if f"/{member.filename}".endswith(ends))
        if member.file_size > LARGEST_JSON:
            raise BundleError(f"{path}: {name} has {member.file_size:,} bytes; at most {LARGEST_JSON:,} are read")
        try:
            return parse_json(archive.read(member))
        except ValueError as error:
            raise BundleError(f"{path}: {name} is not JSON: {error}") from error
    return None


def refuse_untrusted(path: Path) -> BundleError:
    """Return the line that asks for trust."""
    return BundleError(f"{path} is a program of torch.export: {TRUST}; that its author can be trusted, you must know")


def write_program_as_onnx(path: Path, target: Path) -> None:
    """Load a program, which can run code that is in it, and write it as ONNX.

    Parameters
    ----------
    path
        Of the program: pixels `(n, band, y, x)` in, one tensor `(n, class, y, x)` out.
    target
        Of the ONNX file.

    Raises
    ------
    NetworkError
        It cannot be loaded, or torch makes no ONNX of it.
    """
    require_extra("export", "a program of torch.export", "onnx", "onnxscript", error=NetworkError)
    import torch

    levels = {name: logging.getLogger(name).level for name in NOISY}
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            made = torch.onnx.export(program, verbose=False, input_names=["pixels"], output_names=["answer"])
            if made is None:
                raise NetworkError(f"torch makes no ONNX of {path}")
            made.save(target)
    except Exception as error:  # of torch.export and its converters there is no common one
        raise NetworkError(f"{path} cannot be loaded and made into ONNX: {_first_line(error)}") from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:200]
