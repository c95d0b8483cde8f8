"""Engines that run a bundle: which there are, their settings, and which serves best here. Raw pixels to probabilities.

The engines are in `engine_torch`, `engine_openvino` and `engine_onnx`; none of their libraries is imported until one is
made.
"""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from .encoding import Encoding, Prediction
from .errors import EngineError
from .graph_form import ONNX
from .hardware import cpu_gains, cpu_name, gpu_name, may_have_cuda
from .metadata import BundleMetadata
from .system import usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

EngineName = Literal["auto", "torch", "openvino", "onnxruntime"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
PrecisionOption = Literal["auto", "fp32", "bf16", "fp16", "int8"]
MOST_STREAMS = 8  # calls at a time on a CPU: each holds a tile's activations; with more cores, each has several
GPU_SLOTS = 3  # calls at a time: one is computed, one is on its way there, one on its way back


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine, on which device, and how exactly. Small enough to send to every worker.

    Parameters
    ----------
    name
        `torch`, `openvino`, `onnxruntime` (of bundles that hold an ONNX graph, on a CPU or CUDA), or `auto`: torch on
        CUDA where there is a GPU, else OpenVINO if it is installed; of an ONNX graph ONNX Runtime where that has a GPU.
    device
        `cpu`, `cuda`, or `auto`.
    precision
        `fp32`; `bf16` or `fp16` are faster on hardware that has them, and change probabilities by about 1e-2. `int8`:
        a graph that NNCF has quantised, in OpenVINO.
    threads
        Threads on a CPU, for all calls together; None: all that this process may use.
    compile
        Let `torch.compile` optimise the network (torch only; a minute at the start).
    fold
        Fold batch norms into convolutions (torch only).
    graph
        Digest of the graph in int8; see `models.quantised`.
    hardware
        What of CPU or GPU decides bits; `resolve` says it.
    onnx
        Whether the bundle holds an ONNX graph, which torch does not run.
    one_thread
        Whether each call on a CPU has one thread. So it must be of networks that see their whole tile: threads share
        out the sums over it, and their number would decide the last bits.
    """

    name: EngineName = "auto"
    device: Device = "auto"
    precision: Precision = "fp32"
    threads: int | None = None
    compile: bool = False
    fold: bool = True
    graph: str = ""
    hardware: str = ""
    onnx: bool = False
    one_thread: bool = False

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
    threads = spec.threads or usable_cpus()
    most = threads if spec.one_thread else MOST_STREAMS
    return GPU_SLOTS if spec.device == "cuda" else min(threads, most)


def sees_all(metadata: BundleMetadata) -> bool:
    """Whether each output of a network depends on the whole tile, as `EngineSpec.one_thread` asks."""
    return metadata.receptive_field.radius is None


def resolve(spec: EngineSpec) -> EngineSpec:
    """Replace every `auto` by what serves best in this process.

    Raises
    ------
    EngineError
        What is asked for is not available here.
    """
    if spec.onnx:
        return _resolved_onnx(spec)
    device, name = _device(spec), spec.name
    installed = find_spec("openvino") is not None
    if name == "onnxruntime":
        raise EngineError("engine onnxruntime runs bundles that hold an ONNX graph; use --engine auto for this one")
    if name == "auto":
        name = "openvino" if device == "cpu" and not spec.compile and installed else "torch"
    if name == "openvino":
        if not installed:
            raise EngineError("engine openvino is not installed; pip install openvino, or use --engine torch")
        if device == "cuda":
            raise EngineError("engine openvino runs on CPUs; use --engine torch for a GPU")
        if spec.compile:
            raise EngineError("compile is torch's; use --engine torch with it")
    return _resolved(spec, name, device)


def _resolved(spec: EngineSpec, name: EngineName, device: Device) -> EngineSpec:
    _check_precision(spec.precision, name, device)
    return replace(spec, name=name, device=device, hardware=hardware_name(device))


def _resolved_onnx(spec: EngineSpec) -> EngineSpec:
    """Choose among what runs an ONNX graph: ONNX Runtime where it has a GPU, else OpenVINO, else ONNX Runtime."""
    if spec.name == "torch" or spec.compile:
        raise EngineError(
            "the bundle holds an ONNX graph, which torch does not run; use --engine auto, without --compile"
        )
    installed, name = [each for each in ("openvino", "onnxruntime") if find_spec(each) is not None], spec.name
    if name not in ("auto", *installed) or not installed:
        asked = "an engine for ONNX graphs" if name == "auto" else f"engine {name}"
        raise EngineError(f"{asked} is not installed; pip install openvino, or 'swathe[onnx]' for ONNX Runtime")
    on_gpu = spec.device != "cpu" and name != "openvino" and "onnxruntime" in installed and _onnx_on_gpu()
    if spec.device == "cuda" and not on_gpu:
        raise EngineError("no ONNX Runtime with CUDA is here: pip install onnxruntime-gpu, or use --device cpu")
    if name == "auto":
        name = "onnxruntime" if on_gpu or "openvino" not in installed else "openvino"
    return _resolved(spec, name, "cuda" if on_gpu else "cpu")


def _onnx_on_gpu() -> bool:
    if not may_have_cuda():
        return False
    from onnxruntime import get_available_providers

    return "CUDAExecutionProvider" in get_available_providers()


def hardware_name(device: Device) -> str:
    """Name what decides bits here: the instructions of the CPU, or the GPU."""
    return gpu_name() if device == "cuda" else cpu_name()


def check_hardware(spec: EngineSpec) -> None:
    """Refuse to answer for other hardware in any precision but fp32, where answers differ by 1e-5 at most.

    Raises
    ------
    EngineError
        The engine of these settings was resolved on other hardware than this.
    """
    if spec.precision != "fp32" and spec.hardware not in ("", here := hardware_name(spec.device)):
        raise EngineError(
            f"{spec.precision} gives other pixels on other hardware: the run has {spec.hardware}, this worker {here}; "
            f"use workers of one kind, or --precision fp32"
        )


def _check_precision(precision: Precision, name: EngineName, device: Device) -> None:
    if name == "onnxruntime" and precision != "fp32":
        raise EngineError(f"ONNX Runtime runs an ONNX graph as it is, in fp32; for {precision} use --engine openvino")
    if precision == "int8" and name != "openvino":
        raise EngineError("int8 runs in OpenVINO on CPUs alone; use --engine openvino --device cpu, or bf16 or fp16")
    if device == "cpu" and not cpu_gains(precision):
        raise EngineError(
            f"{precision} is not faster on this CPU, which has no instructions for it ({cpu_name()}); "
            "use --precision fp32"
        )


def make_engine(bundle: "Bundle", spec: EngineSpec, graph: bytes = b"") -> Engine:
    """Load a bundle's network into an engine. Takes seconds; do it once per process.

    `graph` is the one in int8, packed; without it, it is looked for in the bundle and in the user's cache.

    Raises
    ------
    EngineError, BundleError
        The engine is not available, or the weights do not fit.
    """
    check_hardware(spec)
    spec = resolve(replace(spec, onnx=bundle.metadata.architecture == ONNX, one_thread=sees_all(bundle.metadata)))
    if spec.name == "openvino":
        from .engine_openvino import OpenVINOEngine
        from .quantised import graph_of

        int8 = graph_of(bundle, spec.graph, graph) if spec.precision == "int8" else None
        return OpenVINOEngine(bundle, spec.precision, slots_of(spec), spec.threads, int8)
    if spec.name == "onnxruntime":
        from .engine_onnx import OnnxEngine

        return OnnxEngine(bundle, spec.device, slots_of(spec), spec.threads)
    from .engine_torch import TorchEngine

    threads = 1 if spec.one_thread else spec.threads  # which calls share among them, by how many there are
    return TorchEngine(
        bundle, spec.device, spec.precision, slots_of(spec), threads, compile=spec.compile, fold=spec.fold
    )


def _device(spec: EngineSpec) -> Device:
    if spec.device == "cpu" or (spec.device == "auto" and (spec.name == "openvino" or not may_have_cuda())):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if spec.device == "cuda":
        raise EngineError("no CUDA device is visible here; use --device cpu, or look at nvidia-smi")
    return "cpu"
