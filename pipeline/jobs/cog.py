"""The durable way to a GeoTIFF: a store beside the file until the file is whole. Killed, the same call continues."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

from distributed import Client

from ..store.cog import check_target, write_cog, written_before
from ..store.lifecycle import remove_store
from .job import BlockJob, RunResult, refuse_own, run_job


def run_job_to_cog(
    job: BlockJob,
    blocks: int,
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
    note: Callable[[str], object] = lambda _: None,
) -> RunResult:
    """Run a block job into a COG of the class map. Run again after any interruption, it continues.

    Parameters
    ----------
    job
        What is computed; overviews and probabilities of the store would be made for nothing.
    blocks
        How many it has.
    output
        Local path of the file; the store that is filled first lies beside it and is removed at the end.
    client, overwrite, show
        See `run`. A file that the very same run has finished is left as it is, unless `overwrite`.
    note
        Called with a line about what is done after the blocks.

    Raises
    ------
    SwatheError
        As `run_job` and `write_cog`.
    """
    refuse_own(job, os.fspath(output))
    started, store = time.monotonic(), f"{os.fspath(output)}.unfinished.zarr"
    pixels = None if overwrite else written_before(output, job.identity())
    if pixels is not None:
        remove_store(store)  # the run that wrote the file may have been killed just before
        return RunResult(os.fspath(output), blocks, blocks, pixels, time.monotonic() - started)
    target = check_target(output, overwrite=overwrite)
    report = run_job(job, store, "others" if overwrite else "nothing", client=client, show=show)
    note("writing the GeoTIFF and reading it back")
    write_cog(store, target, overwrite=overwrite)
    remove_store(store)
    return replace(report, output=os.fspath(output), seconds=time.monotonic() - started)
