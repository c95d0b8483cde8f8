"""The torch engine, on CPU or CUDA: batch norm folded, channels last, raw integers scaled on the device."""

import copy
import logging
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .deterministic import deterministic_convolutions, deterministic_upsampling
from .encoding import NODATA, STEPS, Decision, Encoding, Prediction
from .gpu import CUDA, GPU, NATIVE, Finish, raise_engine_error
from .segmenter import Segmenter
from .system import usable_cpus
from .timing import spending

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """An `Engine` on CUDA, see `models.gpu`, or on a CPU, see `CPU`.

    On a CPU, fp32 and bf16 give each pixel the same bits whatever tile it is in and however many threads there are. On
    CUDA the same batch gives the same bits; other tiles and batches differ in the last places of float32.
    """

    def __init__(
        self,
        bundle: "Bundle",
        device: str,
        precision: str,
        slots: int,
        threads: int | None,
        *,
        compile: bool,
        fold: bool,
    ) -> None:
        self.slots = slots
        try:
            network = prepared(bundle, device, precision, compile=compile, fold=fold)
            self.place: CPU | GPU = GPU(CUDA(), network, slots) if device == "cuda" else CPU(network, slots, threads)
        except RuntimeError as error:
            raise_engine_error(error, device)
        self.batch = self.place.batch

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)`."""
        return self._run(pixels, lambda probabilities: [probabilities])[0]

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """Class map and probabilities of raw pixels `(n, band, y, x)`; see `Engine`."""
        class_map, *probability = self._run(pixels, partial(_encoded, encoding=encoding))
        return Prediction(class_map, probability[0] if probability else None)

    def _run(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]]:
        results = self.place.run(pixels, finish)
        self.batch = self.place.batch
        return results


class CPU:
    """A network on a CPU. A call alone takes all threads; of several at a time each takes its share.

    So cores that work for one call need not wait for each other at every layer. torch's settings are those of a thread,
    and changing them makes oneDNN prepare its kernels anew.
    """

    batch = 1

    def __init__(self, network: Callable[[Tensor], Tensor], slots: int, threads: int | None) -> None:
        self.network, self._threads = network, threads or usable_cpus()
        self._free = threading.BoundedSemaphore(slots)
        self._counting = threading.Lock()
        self._calls = 0

    def run(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]]:
        """Run the network and `finish` over tiles `(n, band, y, x)`."""
        with spending("wait"):
            self._free.acquire()
        try:
            self._count(1)
            try:
                if torch.get_num_threads() != (share := max(1, self._threads // self._calls)):
                    torch.set_num_threads(share)
                return self._through(pixels, finish)
            finally:
                self._count(-1)
        finally:
            self._free.release()

    def _count(self, change: int) -> None:
        with self._counting:
            self._calls += change

    @torch.inference_mode()
    def _through(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]]:
        pixels = np.ascontiguousarray(pixels)
        if pixels.dtype not in NATIVE or not pixels.dtype.isnative:
            pixels = pixels.astype(np.float32)
        if not pixels.flags.writeable:
            pixels = pixels.copy()  # torch warns of read-only memory
        tiles = torch.from_numpy(pixels).to(torch.float32).contiguous(memory_format=torch.channels_last)
        return [result.contiguous().numpy() for result in finish(self.network(tiles).to(torch.float32))]


def prepared(bundle: "Bundle", device: str, precision: str, *, compile: bool, fold: bool) -> Callable[[Tensor], Tensor]:
    """Return the network of a bundle as a device runs it best: raw pixels float32 to probabilities."""
    segmenter = bundle.segmenter()
    if fold:
        segmenter.network = fold_batch_norm(segmenter.network)
    if device == "cpu" and not compile:  # in all precisions: sums of bf16 in another order differ by 1e-2
        segmenter.network = deterministic_upsampling(segmenter.network)
        if precision == "fp32":  # others always run in oneDNN
            segmenter.network = deterministic_convolutions(segmenter.network)
    segmenter = segmenter.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    autocast = precision != "fp32"
    if autocast and device == "cuda":
        autocast = not _shorten(segmenter, HALF[precision], bundle)
    network: Callable[[Tensor], Tensor] = torch.compile(segmenter) if compile else segmenter
    return partial(_autocast, network, device, HALF[precision]) if autocast else network


def _autocast(network: Callable[[Tensor], Tensor], device: str, dtype: torch.dtype, pixels: Tensor) -> Tensor:
    with torch.autocast(device, dtype=dtype):
        return network(pixels)


class Shortened(nn.Module):
    """A network whose weights are kept in half precision: autocast would convert them at every call.

    Scaling before it and softmax after it stay float32, as do the statistics of batch norms that are not folded.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network.to(dtype), dtype
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.float()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits of scaled pixels float32."""
        return self.network(pixels.to(self.dtype))  # type: ignore[no-any-return]


def _shorten(segmenter: Segmenter, dtype: torch.dtype, bundle: "Bundle") -> bool:
    """Shorten a network in place; one that makes float32 numbers of its own cannot be, and is left as it was."""
    side = 2 * max(64, bundle.metadata.receptive_field.stride)
    example = torch.zeros(1, len(bundle.metadata.bands), side, side, device=segmenter.offset.device)
    network = segmenter.network
    segmenter.network = Shortened(copy.deepcopy(network), dtype)
    try:
        with torch.inference_mode():
            segmenter(example.contiguous(memory_format=torch.channels_last))
    except RuntimeError as error:
        logger.info("weights stay in float32 and are converted at every call: %s", error)
        segmenter.network = network
        return False
    return True


def _encoded(probabilities: Tensor, encoding: Encoding) -> list[Tensor]:
    """Return class map uint8 `(n, y, x)`, and probabilities as they are kept, of probabilities `(n, class, y, x)`.

    Nothing here is made on the host, be it an index: a GPU's thread would wait until that has come over.
    """
    results = [_classified(probabilities, encoding.thresholds)]
    if encoding.probability and encoding.kept:
        kept = torch.stack([probabilities[:, value] for value in encoding.kept], 1)
        results.append((kept * STEPS + 0.5).to(torch.uint8) if encoding.probability == "uint8" else
                       kept.to(getattr(torch, encoding.probability)))  # fmt: skip
    return results


def _classified(probabilities: Tensor, thresholds: Decision | None) -> Tensor:
    """Return the class uint8 `(n, y, x)`: `encoding.classify` on the device; nodata where there is NaN."""
    background = -1 if thresholds is None else thresholds.index(None)
    bounds = [float(np.float32(np.inf if bound is None else bound)) for bound in thresholds or ()]
    first, *others = (value for value in range(probabilities.shape[1]) if value != background)
    best = probabilities[:, first]
    classes = torch.full_like(best, first, dtype=torch.uint8)
    bound = torch.full_like(best, bounds[first]) if bounds else best
    for value in others:
        above = probabilities[:, value] > best
        classes.masked_fill_(above, value)
        best = torch.maximum(probabilities[:, value], best)
        if bounds:
            bound.masked_fill_(above, bounds[value])
    if bounds:
        classes.masked_fill_(~(best > bound), background)
    return classes.masked_fill_(torch.isnan(best), NODATA)  # `maximum` hands NaN on, and one class has it with all


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it; a network that cannot be traced is returned as it is."""
    from torch.fx.experimental.optimization import fuse

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: the network is compared, not the trace
            folded: nn.Module = fuse(network.eval(), inplace=False)
            folded._forward_hooks.update(network._forward_hooks)  # of the network itself the trace has none
            return folded
    except Exception as error:  # tracing raises whatever the network's own code raises
        logger.info("batch norms are not folded: %s", str(error).splitlines()[0] if str(error) else type(error))
        return network
