"""A bundle's network traced: as a program of `torch.export`, as ONNX; run, and compared with the bundle."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .bundle import NETWORK, Bundle
from .errors import BundleError, NetworkError, SwatheError
from .files import check_output, whole_file
from .graph_form import ONNX

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf takes no message of 2 GiB
CLOSE = 1e-5  # of a probability; what two libraries' orders of adding up may differ by
NOISE = 4  # times that float32 itself may be off, where a network magnifies rounding by more
SIDES = ((1, 1, 2), (3, 2, 1))  # batch, height and width of what is checked, sides in multiples of a tile
NOISY = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Exported:
    """A file or folder that was written and checked.

    Parameters
    ----------
    path
        Of the file or folder.
    difference
        The largest difference of any probability from the bundle's, on random pixels of several sizes.
    notes
        What a user should know of it, one line each.
    """

    path: Path
    difference: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """What a graph takes and gives: raw pixels `(batch, band, y, x)`, probabilities `(batch, class, y, x)`, float32.

    Parameters
    ----------
    side
        Of its input, in pixels. None: any multiples of the network's stride, from twice on.
    channel
        The one class, by value, whose probability it gives. None: all of them.
    """

    side: int | None = None
    channel: int | None = None


@contextmanager
def writing(path: str | os.PathLike[str], ending: str, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path in the folder of the target, which takes the target's name at the end.

    Raises
    ------
    BundleError
        The path is taken, or its ending is another one.
    """
    if Path(path).suffix.lower() != ending:
        raise BundleError(f"{os.fspath(path)} must end in {ending}")
    with whole_file(check_output(path, overwrite=overwrite, error=BundleError), error=BundleError) as part:
        yield part


@contextmanager
def converting(bundle: Bundle, what: str) -> Iterator[None]:
    """Keep the exporters' chatter from the terminal, and turn what they raise into one line, a NetworkError."""
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


def trace(bundle: Bundle, form: Form = Form()) -> "torch.export.ExportedProgram":
    """Trace scaling, network and activation of a bundle as one program. Raises NetworkError where it is a graph."""
    import torch

    refuse_graph(bundle)
    stride, side = bundle.metadata.receptive_field.stride, form.side or 2 * smallest_tile(bundle)
    # two of each, since one of anything would be taken for a constant
    example = torch.zeros(2, len(bundle.metadata.bands), side, side)
    sizes = {0: torch.export.Dim("batch", min=1)}
    if form.side is None:
        # a side of one stride is one pixel in the depth of the network, which would be a case of its own
        rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
        sizes |= {2: stride * rows, 3: stride * columns}
    with torch.no_grad():
        return torch.export.export(_module(bundle, form), (example,), dynamic_shapes=(sizes,))


def _module(bundle: Bundle, form: Form) -> "nn.Module":
    """Return a bundle's whole network, of which all classes come out, or one."""
    from torch import Tensor, nn

    class OneClass(nn.Module):
        """One class's probability `(n, 1, y, x)` of raw pixels."""

        def __init__(self, whole: nn.Module, channel: int) -> None:
            super().__init__()
            self.whole, self.channel = whole, channel

        def forward(self, pixels: Tensor) -> Tensor:
            probabilities: Tensor = self.whole(pixels)
            return probabilities[:, self.channel : self.channel + 1]

    whole = bundle.segmenter().requires_grad_(False)
    return whole if form.channel is None else OneClass(whole, form.channel)


def refuse_graph(bundle: Bundle) -> None:
    """Refuse a bundle that holds an ONNX graph, of which there is nothing to trace. Raises NetworkError."""
    if bundle.metadata.architecture == ONNX:
        where = bundle.path / NETWORK if bundle.path.is_dir() else f"{NETWORK} in {bundle.path}"
        raise NetworkError(
            f"{bundle.metadata.name} holds an ONNX graph, as it came: take {where}; other forms need weights"
        )


def smallest_tile(bundle: Bundle) -> int:
    """Side in pixels of a small tile for the network; pyramid pooling and the like need more than their stride."""
    stride = bundle.metadata.receptive_field.stride
    return stride * max(2, -(-64 // stride))


def write_onnx(bundle: Bundle, part: Path, texts: Mapping[str, str], form: Form = Form()) -> None:
    """Write a traced bundle as one ONNX file, from `pixels` to `probabilities`, with texts as its `metadata_props`."""
    import torch

    made = torch.onnx.export(
        trace(bundle, form),
        input_names=["pixels"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
        external_data=False,
    )
    assert made is not None  # only None where a file is written at once
    made.model.metadata_props.update(texts)
    made.save(part, external_data=False)


def refuse_large(bundle: Bundle) -> None:
    """Refuse a network that no ONNX file can hold. Raises NetworkError."""
    if 4 * bundle.parameters > LARGEST_ONNX:
        raise NetworkError(
            f"{bundle.metadata.name} has {bundle.parameters:,} parameters, too many for ONNX: write a .pt2"
        )


def run_onnx(part: Path) -> "Callable[[Tensor], Tensor]":
    """Return what runs an ONNX file on pixels, with ONNX Runtime."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal; what goes wrong is raised too
    session = onnxruntime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
    return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0])


def difference(bundle: Bundle, exported: "Callable[[Tensor], Tensor]", form: Form = Form()) -> float:
    """Run an exported graph and the bundle on random pixels; return the largest difference of a probability.

    Raises
    ------
    NetworkError
        It is more than what rounding explains.
    """
    import torch

    segmenter = bundle.segmenter()
    kept = slice(None) if form.channel is None else slice(form.channel, form.channel + 1)
    random = torch.Generator().manual_seed(0)
    largest, allowed = 0.0, CLOSE
    for batch, *sides in SIDES[:1] if form.side else SIDES:
        rows, columns = (form.side or side * smallest_tile(bundle) for side in sides)
        shape = (batch, len(bundle.metadata.bands), rows, columns)
        pixels = (torch.randn(shape, generator=random) + 0.5) * segmenter.divisor + segmenter.offset
        with torch.inference_mode():
            right = segmenter(pixels)[:, kept]
            off = float((exported(pixels) - right).abs().nan_to_num(torch.inf).max())
            if off > allowed:
                rounding = (right - bundle.segmenter().double()(pixels)[:, kept]).abs().max()
                allowed = max(allowed, NOISE * float(rounding))
            largest = max(largest, off)
    if largest > allowed:
        raise NetworkError(f"the exported {bundle.metadata.name} differs from the bundle by {largest:.2g}: not written")
    return largest
