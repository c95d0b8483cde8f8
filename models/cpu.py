"""What this machine lends to the process. Knows nothing else."""

import ctypes
import os
from contextlib import suppress

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def usable_cpus() -> int:
    """Give how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the next array; only glibc's allocator can be told so.

    By default each large array is given back to the kernel when it is freed, and the next one comes zeroed anew, page
    by page, though blocks need the same sizes again and again. The peak stays as it is.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
