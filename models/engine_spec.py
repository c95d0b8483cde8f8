"""Which engine a network shall run on, where, and how exactly. Facts only: no engine is touched."""

from dataclasses import dataclass
from typing import Literal, get_args

from .errors import EngineError

EngineName = Literal["auto", "torch", "openvino"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine, where, and how exactly. Small enough to send to every worker.

    Parameters
    ----------
    name
        `torch`, `openvino`, or `auto`: torch on CUDA where there is a GPU, else OpenVINO if it is installed.
    device
        `cpu`, `cuda`, or `auto`.
    precision
        `fp32`; `bf16` or `fp16` are faster on hardware that has them, and change probabilities by about 1e-2.
    threads
        Threads on a CPU; None: all that this process may use.
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
