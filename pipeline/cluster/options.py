"""Which cluster a run uses and how it is treated: the scheduler, certificates, patience."""

from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from models.errors import ClusterError

PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Cluster:
    """A cluster to reach or to start.

    Parameters
    ----------
    scheduler
        A client; a scheduler's address, `tcp://host:8786` or `tls://host:8786`; or what is started for one run, see
        `pipeline.cluster.launch`.
    tls
        Folder of certificates (`ca.pem`, `cert.pem`, `key.pem`). None: those of Dask's configuration, if any.
    insecure
        Whether other machines may be spoken to without TLS where a run starts something that listens to them.
    patience
        Seconds without any worker, or without any word of the scheduler's queue, before a run gives up.
    """

    scheduler: Client | str
    tls: Path | None = None
    insecure: bool = False
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        if not self.patience > 0:
            raise ClusterError(f"patience is a number of seconds above 0; received {self.patience}")
