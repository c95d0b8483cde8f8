"""Clusters of a Dask Gateway, which starts them on its own machines and encrypts what is said to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_gateway import Gateway, GatewayCluster

from models.errors import ClusterError

from ..options import Cluster
from .adaptive import check_range, follow_work


@dataclass(frozen=True)
class GatewayProfile:
    """A cluster of a Dask Gateway.

    Parameters
    ----------
    address
        Of the gateway, as its administrator gives it.
    proxy_address
        Of its scheduler proxy, where that is another one; empty: the address.
    auth
        How the gateway knows you: `basic`, `kerberos` or `jupyterhub`; empty: by Dask's configuration.
    workers
        Worker processes.
    adapt
        If given, as [1, 40]: between so many workers, as there is work.
    options
        What the gateway lets its users choose, by its own names.
    """

    address: str = field(metadata={"example": "https://gateway.example.org"})
    proxy_address: str = ""
    auth: str = ""
    workers: int = 4
    adapt: tuple[int, ...] = field(default=(), metadata={"example": [1, 40]})
    options: Mapping[str, Any] = field(default_factory=dict, metadata={"example": {"worker_cores": 4}})

    def __post_init__(self) -> None:
        check_range(self.adapt, "workers")
        if self.workers < 1:
            raise ClusterError(f"workers is 1 or more; received {self.workers}")
        if not self.address.startswith(("http://", "https://")):
            raise ClusterError(f"the gateway's address is as https://gateway.example.org; received {self.address!r}")


def start(profile: GatewayProfile, options: Cluster) -> GatewayCluster:
    """Ask the gateway for a cluster of its own; it is ended with the run.

    Raises
    ------
    ClusterError
        The gateway lets nobody choose what the profile's options name.
    """
    where = {"address": profile.address, "proxy_address": profile.proxy_address or None, "auth": profile.auth or None}
    with Gateway(**where) as gateway:
        offered = gateway.cluster_options()
        unknown = [name for name in profile.options if name not in offered]
        if unknown:
            known = ", ".join(offered) or "none"
            raise ClusterError(f"the gateway has no option {unknown[0]!r}; it has: {known}")
        offered.update(profile.options)
    cluster = GatewayCluster(**where, cluster_options=offered, shutdown_on_close=True)
    if not profile.adapt:
        cluster.scale(profile.workers)
    follow_work(cluster, profile.adapt)
    return cluster
