"""Workers whose GPU failed are replaced: nothing that such a process does on a GPU will succeed again."""

from distributed import Client

from models.errors import DeviceLostError

from .ask import known_workers

TRIES = 2  # of a task on other workers, after the one whose GPU failed
RESTART = 20  # seconds that a worker has to come back, before other tasks are looked after again


class LostGpus:
    """Replaces workers of a cluster for one map over many tasks, as long as that helps."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._replaced: set[str] = set()
        self._most = TRIES * max(1, len(known_workers(client)))
        self._fruitless = 0  # workers replaced since any task succeeded

    def replace(self, lost: DeviceLostError, tries: int) -> None:
        """Replace the worker on which a task failed, so that it can be tried again; raise its error if that is vain."""
        if lost.worker is None or tries == TRIES or self._fruitless == self._most:
            raise lost
        if lost.worker not in self._replaced:
            replace_worker(self._client, lost.worker)
            self._replaced.add(lost.worker)
            self._fruitless += 1

    def succeeded(self) -> None:
        """Note that the cluster still gets on."""
        self._fruitless = 0


def replace_worker(client: Client, address: str) -> None:
    """Let a worker be started anew, or go, where it has no nanny that could do that."""
    if address not in known_workers(client):
        return
    try:
        client.restart_workers([address], timeout=RESTART, raise_for_error=False)
    except (ValueError, KeyError):  # no nanny; or it has gone meanwhile
        client.retire_workers([address])
