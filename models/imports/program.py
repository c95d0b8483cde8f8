"""Programs of `torch.export` (.pt2): loaded only where the user trusts them, and kept as ONNX, without code."""

import logging
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError, NetworkError, require_extra
from ..limits import LARGEST_JSON, parse_json
from .found import Found
from .own_export import settings_of_export

NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
TRUST = "loading it can run code that is in it, so it is loaded only with --trust"
OWN = "swathe.json"  # the extra file of `swathe export-model`


SIDE = 256  # pixels, where a program that takes several sides does not hold an example


def read_program(path: Path) -> Found:
    """Tell that a file is a program, by its directory alone."""
    facts = settings_of_export(read_extra(path, OWN), path)
    sources = dict.fromkeys(facts, OWN)
    return Found("a program of torch.export", "program", path, facts, sources, (TRUST,))


def read_extra(path: Path, name: str) -> Any:
    """Return the JSON that was saved beside a program under a name; None: there is none. Nothing is run.

    Raises
    ------
    BundleError
        It is no JSON, or larger than any that is meant; or the file is damaged or encrypted.
    """
    ends = (f"/extra/{name}", f"extra_files/{name}")  # of torch 2.7 and later, and before
    try:
        with zipfile.ZipFile(path) as archive:
            member = next((each for each in archive.infolist() if f"/{each.filename}".endswith(ends)), None)
            if member is not None and member.file_size > LARGEST_JSON:
                raise BundleError(f"{path}: {name} has {member.file_size:,} bytes; at most {LARGEST_JSON:,} are read")
            return None if member is None else parse_json(archive.read(member))
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{path}: {name} is not JSON: {error}") from error
    except Exception as error:  # a damaged or encrypted zip raises errors of zipfile, zlib, lzma and builtin ones
        raise BundleError(f"{path}: {name} in it cannot be read: {_first_line(error)}; is it whole?") from error


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
            pixels, axes = _example(program)
            # traced again: of a loaded program some sizes are expressions that the converter does not take (torch 2.14)
            made = torch.onnx.export(program.module(), (pixels,), dynamic_shapes=(axes,), dynamo=True, verbose=False,
                                     input_names=["pixels"])  # fmt: skip
            if made is None:
                raise NetworkError("torch makes none")
            made.save(target)
    except Exception as error:  # of torch.export and its converters there is no common one
        raise NetworkError(f"{path} cannot be loaded and made into ONNX: {_first_line(error)}") from error
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _example(program: Any) -> tuple[Any, dict[int, Any]]:
    """Return pixels of a size that a program takes, and which of their axes may have another. Raises NetworkError."""
    import torch

    signature, nodes = program.graph_signature, {node.name: node for node in program.graph.nodes}
    if len(signature.user_inputs) != 1:
        raise NetworkError(f"it has {len(signature.user_inputs)} inputs, and a network of segmentation has one")
    value = nodes[signature.user_inputs[0]].meta["val"]
    if value.ndim != 4:
        raise NetworkError(f"its input has {value.ndim} axes, not the four of batch, band, y and x")
    free = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
    given = program.example_inputs
    usual = [SIDE if axis in free else size for axis, size in enumerate(value.shape)]
    sizes = list(given[0][0].shape) if given else usual
    if 0 in free:
        sizes[0] = 2  # one of anything would be taken for a constant
    return torch.zeros(sizes, dtype=value.dtype), dict.fromkeys(free, torch.export.Dim.AUTO)


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[0].split())[:200]
