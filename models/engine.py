"""Engines that run a bundle: which there are, their settings, and which serves best here. Raw pixels to probabilities.

The engines are in `engine_torch` and `engine_openvino`; neither torch nor OpenVINO is imported until one is made.
"""

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from .encoding import Encoding, Prediction
from .errors import EngineError
from .system import usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

EngineName = Literal["auto", "torch", "openvino"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
MOST_STREAMS = 8  # calls at a time on a CPU: each holds a tile's activations; with more cores, each has several
GPU_SLOTS = 3  # calls at a time: one is computed, one is on its way there, one on its way back


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine, on which device, and how exactly. Small enough to send to every worker.

    Parameters
    ----------
    name
        `torch`, `openvino`, or `auto`: torch on CUDA where there is a GPU, else OpenVINO if it is installed.
    device
        `cpu`, `cuda`, or `auto`.
    precision
        `fp32`; `bf16` or `fp16` are faster on hardware that has them, and change probabilities by about 1e-2.
    threads
        Threads on a CPU, for all calls together; None: all that this process may use.
    compile
        Let `torch.compile` optimise the network (torch only; a minute at the start).
    fold
        Fold batch norms into convolutions (torch only).
    """

    name: EngineName = "auto"
    device: Device = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    compile: bool = False
    fold: bool = True

    def __post_init__(self) -> None:
        for value, kinds in ((self.name, EngineName), (self.device, Device), (self.precision, Precision)):
            if value not in get_args(kinds):
                raise EngineError(f"unknown engine setting {value!r}; known: {', '.join(get_args(kinds))}")
        if self.threads is not None and self.threads < 1:
            raise EngineError(f"an engine needs at least one thread; received {self.threads}")


class Engine(Protocol):
    """A network ready to run. Threads may share it; a call lets other threads of Python run."""

    batch: int
    """Tiles that are best passed together."""

    slots: int
    """Calls at a time that keep the device busy; more wait."""

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)` of any real dtype.

        y and x are multiples of the network's stride. The pixels hold no NaN.
        """
        ...

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """Class map and probabilities of raw pixels as in `predict`, computed where the network runs.

        They are what `encoding.classify` and `encoding.encode` make of the probabilities: less leaves the device.
        """
        ...


def slots_of(spec: EngineSpec) -> int:
    """Return how many calls at a time keep an engine busy, of settings that are resolved; see `Engine.slots`."""
    return GPU_SLOTS if spec.device == "cuda" else min(spec.threads or usable_cpus(), MOST_STREAMS)


def resolve(spec: EngineSpec) -> EngineSpec:
    """Replace every `auto` by what serves best in this process.

    Raises
    ------
    EngineError
        What is asked for is not available here.
    """
    device, name = _device(spec), spec.name
    installed = find_spec("openvino") is not None
    if name == "auto":
        name = "openvino" if device == "cpu" and not spec.compile and installed else "torch"
    if name == "openvino":
        if not installed:
            raise EngineError("engine openvino is not installed; pip install openvino, or use --engine torch")
        if device == "cuda":
            raise EngineError("engine openvino runs on CPUs; use --engine torch for a GPU")
        if spec.compile:
            raise EngineError("compile is torch's; use --engine torch with it")
    return replace(spec, name=name, device=device)


def make_engine(bundle: "Bundle", spec: EngineSpec) -> Engine:
    """Load a bundle's network into an engine. Takes seconds; do it once per process.

    Raises
    ------
    EngineError, BundleError
        The engine is not available, or the weights do not fit.
    """
    spec = resolve(spec)
    if spec.name == "openvino":
        from .engine_openvino import OpenVINOEngine

        return OpenVINOEngine(bundle, spec.precision, slots_of(spec), spec.threads)
    from .engine_torch import TorchEngine

    return TorchEngine(
        bundle, spec.device, spec.precision, slots_of(spec), spec.threads, compile=spec.compile, fold=spec.fold
    )


def _device(spec: EngineSpec) -> Device:
    if spec.device == "cpu" or (spec.device == "auto" and (spec.name == "openvino" or not _may_have_cuda())):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if spec.device == "cuda":
        raise EngineError("no CUDA device is visible here; use --device cpu, or look at nvidia-smi")
    return "cpu"


def _may_have_cuda() -> bool:
    """Whether it is worth the seconds to import torch and ask: a machine without a driver has none."""
    return os.path.exists("/proc/driver/nvidia") or os.path.exists("/dev/nvidiactl") or os.name == "nt"
