"""What workers of `benchmarks.chaos` load: each block is noted as it begins and ends, and takes a while.

As a preload of nannies it makes their processes start in a tenth of the time: they are forked from one that has
imported everything already.
"""

import os
import time
from collections.abc import Callable
from typing import Any

LOG, DELAY = "SWATHE_CHAOS_LOG", "SWATHE_CHAOS_DELAY"  # environment: a file; seconds that a block takes longer


def dask_setup(server: Any) -> None:
    """Dask calls it in nannies and in workers."""
    if type(server).__name__ == "Nanny":
        from distributed.utils import get_mp_context

        get_mp_context().set_forkserver_preload(["distributed", "benchmarks.chaos_worker", *IMPORTED])
        return
    from pipeline.jobs import job

    if job.run_block.__module__ != __name__:
        vars(job)["run_block"] = noted(job.run_block)


IMPORTED = ("pipeline.inference.predict", "pipeline.inference.run", "models.engine_openvino", "zarr", "rasterio")


def noted(run_block: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a `run_block` that writes down what it does; tasks name it, so that workers find this one."""

    def run_noted(task: Any, index: Any) -> Any:
        note("begin", task.store.path, index)
        time.sleep(float(os.environ[DELAY]))
        summary = run_block(task, index)
        note("end", task.store.path, index)
        return summary

    return run_noted


def note(what: str, store: str, index: tuple[int, int, int]) -> None:
    """Append a line; short writes to a file's end are whole, whoever else writes there."""
    line = f"{what} {time.time():.3f} {os.getpid()} {os.path.basename(store)} {'.'.join(map(str, index))}\n"
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
