"""The torch engine, on CPU or CUDA: batch norm folded, channels last, raw integers scaled on the device."""

import logging
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .deterministic import deterministic_convolutions, deterministic_upsampling
from .encoding import STEPS, Decision, Encoding, Prediction
from .errors import EngineError
from .system import usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CUDA_BATCH = 8
# torch moves and converts these; other types are made float32 on the host first
NATIVE = {np.dtype(t) for t in ("uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float16")}


class TorchEngine:
    """An `Engine` that on CUDA halves a batch that does not fit in memory, and tries again."""

    slots = 2  # one call computes while what comes before and after it is done for another

    def __init__(
        self, bundle: "Bundle", device: str, precision: str, threads: int | None, *, compile: bool, fold: bool
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.batch = CUDA_BATCH if device == "cuda" else 1
        self._lock = threading.Lock()  # torch's threads serve one call at a time best
        if device == "cpu":
            torch.set_num_threads(threads or usable_cpus())
        segmenter = bundle.segmenter()
        if fold:
            segmenter.network = fold_batch_norm(segmenter.network)
        if device == "cpu" and precision == "fp32" and not compile:
            segmenter.network = deterministic_convolutions(deterministic_upsampling(segmenter.network))
        segmenter = segmenter.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run: Callable[[Tensor], Tensor] = torch.compile(segmenter) if compile else segmenter

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)`."""
        return self._run_batches(pixels, lambda probabilities: [probabilities])[0]

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """Class map and probabilities of raw pixels `(n, band, y, x)`; see `Engine`."""
        class_map, *probability = self._run_batches(pixels, partial(_encoded, encoding=encoding))
        return Prediction(class_map, probability[0] if probability else None)

    def _run_batches(self, pixels: NDArray[Any], finish: Callable[[Tensor], list[Tensor]]) -> list[NDArray[Any]]:
        parts: list[list[NDArray[Any]]] = []
        start, batch = 0, max(1, min(self.batch, len(pixels)))
        with self._lock:
            while start < len(pixels):
                try:
                    parts.append(self._run_batch(pixels[start : start + batch], finish))
                except torch.cuda.OutOfMemoryError as error:
                    batch = self._halve(batch, pixels.shape, error)
                    continue
                start += batch
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _halve(self, batch: int, shape: tuple[int, ...], error: Exception) -> int:
        torch.cuda.empty_cache()
        if batch == 1:
            raise EngineError(
                f"one tile of {shape[2]} x {shape[3]} pixels does not fit in the GPU's memory; use a smaller --tile"
            ) from error
        self.batch = batch // 2
        logger.warning("GPU memory is short: %d tiles at a time instead of %d", self.batch, batch)
        return self.batch

    @torch.inference_mode()
    def _run_batch(self, pixels: NDArray[Any], finish: Callable[[Tensor], list[Tensor]]) -> list[NDArray[Any]]:
        with self._autocast():
            probabilities = self._run(self._to_device(pixels))
        return [result.contiguous().cpu().numpy() for result in finish(probabilities.to(torch.float32))]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32" and self.device.type == "cuda":
            # cuDNN's own default rounds float32 convolutions to 10 bits (TF32), and may choose among sums at random
            return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.precision])

    def _to_device(self, pixels: NDArray[Any]) -> Tensor:
        pixels = np.ascontiguousarray(pixels)
        if pixels.dtype not in NATIVE or not pixels.dtype.isnative:
            pixels = pixels.astype(np.float32)
        if not pixels.flags.writeable:
            pixels = pixels.copy()  # torch warns of read-only memory
        tensor = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(torch.float32).contiguous(memory_format=torch.channels_last)


def _encoded(probabilities: Tensor, encoding: Encoding) -> list[Tensor]:
    """Return class map uint8 `(n, y, x)`, and probabilities as they are kept, of probabilities `(n, class, y, x)`."""
    results = [_classified(probabilities, encoding.thresholds)]
    if encoding.probability and encoding.kept:
        kept = probabilities[:, list(encoding.kept)]
        results.append((kept * STEPS + 0.5).to(torch.uint8) if encoding.probability == "uint8" else
                       kept.to(getattr(torch, encoding.probability)))  # fmt: skip
    return results


def _classified(probabilities: Tensor, thresholds: Decision | None) -> Tensor:
    """Return the class uint8 `(n, y, x)`: `encoding.classify` on the device."""
    background = -1 if thresholds is None else thresholds.index(None)
    first, *others = (value for value in range(probabilities.shape[1]) if value != background)
    best = probabilities[:, first]
    classes = torch.full_like(best, first, dtype=torch.uint8)
    for value in others:
        classes.masked_fill_(probabilities[:, value] > best, value)
        best = torch.maximum(probabilities[:, value], best)
    if thresholds is not None:
        bounds = torch.tensor([torch.inf if bound is None else bound for bound in thresholds], device=best.device)
        classes.masked_fill_(~(best > (bounds[classes.long()] if others else bounds[first])), background)
    return classes


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it; a network that cannot be traced is returned as it is."""
    from torch.fx.experimental.optimization import fuse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: the network is compared, not the trace
            return fuse(network.eval(), inplace=False)
    except Exception as error:  # tracing raises whatever the network's own code raises
        logger.info("batch norms are not folded: %s", str(error).splitlines()[0] if str(error) else type(error))
        return network
