"""Running a bundle: raw pixels in, probabilities out, behind one small protocol.

Says which engines there are and which serves best here. How each one works is in `engine_torch` and `engine_openvino`;
no CUDA and no torch is touched until an engine is made.
"""

import importlib.util
import os
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .engine_spec import Device, EngineSpec
from .errors import EngineError


class Engine(Protocol):
    """A network ready to run. Not safe for two threads at once: whoever shares one holds a lock."""

    batch: int
    """Tiles that it likes to be given together."""

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Give probabilities `(n, class, y, x)` float32 for raw pixels `(n, band, y, x)` of any real dtype.

        y and x are multiples of the network's stride. The pixels hold no NaN.
        """
        ...


def resolve(spec: EngineSpec) -> EngineSpec:
    """Replace every `auto` by what serves best in this process.

    Raises
    ------
    EngineError
        What is asked for is not available here.
    """
    device = _device(spec)
    name = spec.name
    if name == "auto":
        name = "openvino" if device == "cpu" and not spec.compile and _has_openvino() else "torch"
    if name == "openvino":
        if not _has_openvino():
            raise EngineError("engine openvino is not installed; pip install openvino, or use --engine torch")
        if device == "cuda":
            raise EngineError("engine openvino runs on CPUs; use --engine torch for a GPU")
        if spec.compile:
            raise EngineError("compile is torch's; use --engine torch with it")
    return replace(spec, name=name, device=device)


def make_engine(bundle: Bundle, spec: EngineSpec) -> Engine:
    """Load a bundle's network into an engine. Takes seconds; do it once per process.

    Raises
    ------
    EngineError, BundleError
        The engine is not available, or the weights do not fit.
    """
    spec = resolve(spec)
    if spec.name == "openvino":
        from .engine_openvino import OpenVINOEngine

        return OpenVINOEngine(bundle, spec)
    from .engine_torch import TorchEngine

    return TorchEngine(bundle, spec)


def _has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


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
