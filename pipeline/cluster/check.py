"""Which workers of a cluster are fit for a run: looked at before any task is given to them."""

from collections.abc import Collection

from distributed import Client


class WorkerCheck:
    """The workers of one cluster, as far as they were looked at for one run."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.unfit: dict[str, str] = {}  # the reason, by the worker's address

    def look(self, workers: Collection[str]) -> None:
        """Look at those of these workers that are new."""

    def allowed(self) -> list[str] | None:
        """Return the workers that tasks may be given to; None: all there are."""
        return None
