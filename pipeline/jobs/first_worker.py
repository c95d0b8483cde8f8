"""Wait for the first worker of a cluster, and say so: jobs of a queue, or machines, may take long to come."""

from contextlib import nullcontext

from distributed import Client

from ..cluster.workers import wait_for_workers, worker_threads
from .events import Event
from .progress import no_progress, progress
from .run_log import RunLog


def wait_for_first_worker(client: Client, show: bool, log: RunLog) -> None:
    """Wait as long as the cluster's options allow.

    Raises
    ------
    ClusterError
        None comes.
    """
    if worker_threads(client):
        return
    shown = progress("waiting for the cluster", 1, 0, unit="workers") if show else nullcontext(no_progress)
    with shown as advance:

        def say(text: str) -> None:
            for tell in (log.tell, advance.tell):
                tell(Event("waiting", text))

        wait_for_workers(client, say)
        advance(1, 0)
