"""What of this computer decides the bits of an engine's answers: the instructions of its CPU, or its GPU."""

import os
import platform
from functools import cache
from pathlib import Path

# by what oneDNN, which both engines use on CPUs, chooses its kernels; the flag of /proc/cpuinfo, and its short name
FLAGS = {
    "avx2": "avx2",
    "avx512f": "avx512",
    "avx512_vnni": "vnni",
    "avx_vnni": "vnni",  # after it: a CPU that has both has the name of one that has the larger alone
    "avx512_bf16": "bf16",
    "avx512_fp16": "fp16",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
    "asimd": "neon",  # and those of 64-bit ARM
    "asimddp": "dot",
    "i8mm": "i8mm",
    "fphp": "fp16",
    "bf16": "bf16",
    "sve": "sve",
}
CPU_INFO = Path("/proc/cpuinfo")
# what a CPU needs so that a precision is faster than fp32: one of these
GAINS = {
    "int8": {"avx2", "avx512", "vnni", "amx-int8", "i8mm"},  # AVX2 alone makes it twice as fast
    "bf16": {"bf16", "amx-bf16"},
    "fp16": {"fp16", "amx-fp16"},
}


@cache
def cpu_name() -> str:
    """Name the CPU by the instructions that decide bits, as "x86_64 avx512+vnni+bf16"."""
    machine, found = platform.machine() or "cpu", dict.fromkeys(FLAGS[flag] for flag in FLAGS if flag in _flags())
    if "avx512" in found:  # which holds all of the older one
        found.pop("avx2", None)
    return f"{machine} {'+'.join(found)}" if found else machine


@cache  # one that has failed since cannot be asked any more
def gpu_name() -> str:
    """Name the GPU that torch uses, with its compute capability, as "NVIDIA H100 80GB HBM3 9.0"."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{torch.cuda.get_device_name()} {major}.{minor}"


def may_have_cuda() -> bool:
    """Whether it is worth the seconds to import torch and ask: a machine without a driver has none."""
    return os.path.exists("/proc/driver/nvidia") or os.path.exists("/dev/nvidiactl") or os.name == "nt"


def cpu_gains(precision: str) -> bool:
    """Whether this CPU has instructions for a precision, without which it is slower than fp32; if not known, it has."""
    kinds = cpu_name().partition(" ")[2].split("+")
    return precision not in GAINS or not CPU_INFO.exists() or not GAINS[precision].isdisjoint(kinds)


def _flags() -> set[str]:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()}
