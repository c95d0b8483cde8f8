"""Which cluster a run uses and how it is treated: the scheduler, certificates, patience."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

from distributed import Client

from models.errors import ClusterError

PATIENCE = 600.0  # seconds
UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Read a time: seconds, or as `90s`, `10m`, `2h`.

    Raises
    ------
    ClusterError
        It is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text)
    if found is None or found[2] not in UNITS or not float(found[1]):
        raise ClusterError(f"{text!r} is no time above 0; give seconds, or as 90s, 10m, 2h")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Cluster:
    """A cluster to reach or to start.

    Parameters
    ----------
    scheduler
        A client; a scheduler's address, `tcp://host:8786` or `tls://host:8786`; or what is started for one run, see
        `pipeline.cluster.launch`.
    tls
        Folder of certificates (`ca.pem`, `cert.pem`, `key.pem`), or `new`: made for one run, of a cluster that it
        starts. None: those of Dask's configuration, if any; a client has its own.
    insecure
        Whether other machines may be spoken to without TLS where a run starts something that listens to them.
    patience
        Seconds without any worker, or without any word of the scheduler's queue, before a run gives up.
    """

    scheduler: Client | str
    tls: str | Path | None = None
    insecure: bool = False
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        number = isinstance(self.patience, int | float) and not isinstance(self.patience, bool)
        if not number or not self.patience > 0:
            raise ClusterError(f"patience is a number of seconds above 0; received {self.patience!r}")


_OPTIONS: WeakKeyDictionary[Client, Cluster] = WeakKeyDictionary()


def options_of(client: Client) -> Cluster:
    """Return how a cluster is to be treated: what was asked for when the client was made, else the defaults."""
    return _OPTIONS.get(client) or Cluster(client)


def remember_options(client: Client, given: object) -> None:
    """Keep how a cluster is to be treated; without the client itself, which would never be forgotten."""
    if isinstance(given, Cluster):
        _OPTIONS[client] = replace(given, scheduler=client.scheduler.address)
