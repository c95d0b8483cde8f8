"""What this machine lends to the process. Knows nothing else."""

import os


def usable_cpus() -> int:
    """Give how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
