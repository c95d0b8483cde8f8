"""A bundle's whole graph in the files of others: ONNX, and torch's own exported program. Raw pixels in, maps out.

Each file is run after it is written and compared with the bundle; only one that agrees gets its name. Knows bundles.
"""

import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bundle import Bundle
from .errors import BundleError, NetworkError, SwatheError, require_extra

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf takes no message of 2 GiB
CLOSE = 1e-5  # of a probability; what two libraries' orders of adding up may differ by
NOISE = 4  # times that float32 itself may be off, where a network magnifies rounding by more
SIDES = ((1, 1, 2), (3, 2, 1))  # batch, height and width of what is checked, sides in multiples of a tile
NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "onnxruntime")

Answer = Callable[["Tensor"], "Tensor"]


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written and checked.

    Parameters
    ----------
    path
        Where it is.
    difference
        The largest difference of any probability from the bundle's, on random pixels of several sizes.
    """

    path: Path
    difference: float


def export_onnx(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as one ONNX file: scaling, network, softmax or sigmoid.

    Its input `pixels` is `(batch, band, height, width)` float32 of raw values, height and width any multiples of the
    stride from twice on; its output `probabilities` is `(batch, class, height, width)` float32. `metadata_props` holds
    what `describe` gives.

    Parameters
    ----------
    path
        Ends in `.onnx`. Appears only when the file is whole and checked with ONNX Runtime.
    overwrite
        Replace a file that is there. Otherwise it is refused.

    Raises
    ------
    NetworkError
        A package is missing, the network has no ONNX graph, or the file does not answer as the bundle does.
    BundleError
        The path is taken, or its ending is another one.
    """
    _check_onnx(bundle)
    with _writing(path, ".onnx", overwrite) as part, _converting(bundle, "ONNX"):
        _write_onnx(bundle, part)
        difference = _difference(bundle, _onnx_answer(part))
    return Exported(Path(path), difference)


def export_program(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as a program of `torch.export`, as `export_onnx`. The extra file `swathe.json` holds `describe`.

    Parameters
    ----------
    path
        Ends in `.pt2`; read it with `torch.export.load`.
    overwrite
        Replace a file that is there.

    Raises
    ------
    NetworkError
        The network cannot be exported, or the file does not answer as the bundle does.
    BundleError
        The path is taken, or its ending is another one.
    """
    import torch

    with _writing(path, ".pt2", overwrite) as part, _converting(bundle, "torch.export"):
        content = io.BytesIO()  # torch's own writer ends the process where a disk is full (2.15)
        torch.export.save(_program(bundle), content, extra_files={"swathe.json": json.dumps(describe(bundle))})
        part.write_bytes(content.getbuffer())
        difference = _difference(bundle, torch.export.load(part).module())
    return Exported(Path(path), difference)


def describe(bundle: Bundle) -> dict[str, Any]:
    """Give what an exported file says of its bundle: bands, classes, scaling (which it does itself), sizes, digest."""
    metadata = bundle.metadata
    return {
        "name": metadata.name,
        "description": metadata.description,
        "digest": bundle.digest,
        "architecture": metadata.architecture,
        "bands": [{"name": band.name, "fill": band.mean} for band in metadata.bands],
        "classes": [{"name": info.name, "color": info.color.upper()} for info in metadata.classes],
        "dtype": metadata.dtype,
        "scaling": {
            "kind": metadata.scaling.kind,
            "offset": metadata.scaling.offset,
            "divisor": metadata.scaling.divisor,
        },
        "activation": metadata.activation,
        "stride": metadata.receptive_field.stride,
        "radius": metadata.receptive_field.radius,
        "resolution": metadata.resolution,
    }


def _check_onnx(bundle: Bundle) -> None:
    require_extra("export", "ONNX", "onnx", "onnxscript", "onnxruntime", error=NetworkError)
    if 4 * bundle.parameters > LARGEST_ONNX:
        raise NetworkError(
            f"{bundle.metadata.name} has {bundle.parameters:,} parameters, too many for ONNX: write a .pt2"
        )


@contextmanager
def _writing(path: str | os.PathLike[str], ending: str, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path in the folder of the right one, which it gets at the end."""
    target = Path(path)
    if "://" in os.fspath(path):
        raise BundleError(f"{os.fspath(path)} is not a local path; write to a local file, and copy that")
    if target.suffix.lower() != ending:
        raise BundleError(f"{target} must end in {ending}")
    if target.exists() and not overwrite:
        raise BundleError(f"{target} exists; choose another name, or pass overwrite to replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            part = Path(folder) / f"part{ending}"
            yield part
            os.replace(part, target)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from error


@contextmanager
def _converting(bundle: Bundle, what: str) -> Iterator[None]:
    """Keep the exporters' chatter from the terminal, and turn what they raise into one line."""
    loggers = [logging.getLogger(name) for name in NOISY]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (OSError, SwatheError):
        raise
    except Exception as error:  # of tracing, of operators that are missing, of constraints that do not hold
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise NetworkError(f"{bundle.metadata.architecture} cannot be exported by {what}: {reason}") from error
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _program(bundle: Bundle) -> "torch.export.ExportedProgram":
    import torch

    stride = bundle.metadata.receptive_field.stride
    # two of each, since one of anything would be taken for a constant
    example = torch.zeros(2, len(bundle.metadata.bands), 2 * _tile(bundle), 2 * _tile(bundle))
    # a side of one stride is one pixel in the depth of the network, which would be a case of its own
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    sizes = {0: torch.export.Dim("batch", min=1), 2: stride * rows, 3: stride * columns}
    with torch.no_grad():
        return torch.export.export(bundle.segmenter().requires_grad_(False), (example,), dynamic_shapes=(sizes,))


def _tile(bundle: Bundle) -> int:
    """Give a small side that a network can take: pyramid pooling and the like need more than their stride."""
    stride = bundle.metadata.receptive_field.stride
    return stride * max(2, -(-64 // stride))


def _write_onnx(bundle: Bundle, part: Path) -> None:
    import torch

    made = torch.onnx.export(
        _program(bundle),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    assert made is not None  # only None where a file is written at once
    made.model.metadata_props.update({key: _text(value) for key, value in describe(bundle).items()})
    made.save(part, external_data=False)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _onnx_answer(part: Path) -> Answer:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal; what goes wrong is raised too
    session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


def _difference(bundle: Bundle, answer: Answer) -> float:
    """Compare a file's answers with the bundle's on random pixels; give the largest difference of a probability."""
    import torch

    segmenter, exact = bundle.segmenter(), bundle.segmenter().double()
    random = torch.Generator().manual_seed(0)
    largest = allowed = 0.0
    for batch, rows, columns in SIDES:
        shape = (batch, len(bundle.metadata.bands), rows * _tile(bundle), columns * _tile(bundle))
        pixels = (torch.randn(shape, generator=random) + 0.5) * segmenter.divisor + segmenter.offset
        with torch.inference_mode():
            right = segmenter(pixels)
            allowed = max(CLOSE, allowed, NOISE * float((right - exact(pixels)).abs().max()))
            largest = max(largest, float((answer(pixels) - right).abs().nan_to_num(torch.inf).max()))
    if largest > allowed:
        raise NetworkError(f"the exported {bundle.metadata.name} differs from the bundle by {largest:.2g}: not written")
    return largest
