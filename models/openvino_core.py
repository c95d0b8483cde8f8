"""OpenVINO's core, one for as long as this process lasts."""

import sys

# its converter would fork a process that reports to a server on the network; without it, a stub takes its place
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino as ov

__all__ = ["CORE", "ov"]  # what imports OpenVINO takes it from here

# The CPU plugin gives the thread that loads it a stack for signals and unmaps that with the last core, on whatever
# thread that happens: the next signal of the first thread, such as Ctrl-C, would end the process (SigAltStackSetup in
# OpenVINO's src/plugins/intel_cpu/src/plugin.cpp, seen with 2026.4).
CORE = ov.Core()
