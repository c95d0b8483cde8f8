"""Processes of this machine with one GPU each: which GPUs there are, and who gets which.

A process sees its GPU alone, since `CUDA_VISIBLE_DEVICES` is set before anything in it asks for CUDA.
"""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

from models.hardware import may_have_cuda

from .launch import local_part
from .options import Cluster
from .processes import Workers

COUNT = "import torch; print(torch.cuda.device_count())"
COUNTING = 120  # seconds; torch is imported, from a disk that may be slow


@cache
def visible_gpus() -> tuple[str, ...]:
    """Name the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` does; none where torch has no CUDA.

    A process of its own counts them: what has asked for CUDA once holds some of each GPU's memory.
    """
    if not may_have_cuda():
        return ()
    command = [sys.executable, "-c", COUNT]
    try:
        count = int(subprocess.run(command, capture_output=True, text=True, timeout=COUNTING, check=True).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(named.split(",") if named else map(str, range(count)))[:count]


def on_gpus(where: Workers) -> Workers:
    """Give processes of this machine a GPU each, in turn; `local` means one for each GPU. What else there is, stays."""
    processes = local_part(where)
    gpus = visible_gpus() if processes is not None else ()
    if processes is None or not gpus:
        return where
    named = where.scheduler if isinstance(where, Cluster) else where
    return replace(processes, count=len(gpus) if named == "local" else processes.count, gpus=gpus)
