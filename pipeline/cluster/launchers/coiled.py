"""Clusters of Coiled, in the user's own cloud account; what is said to them is encrypted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import coiled

from models.errors import ClusterError

from ..options import Cluster
from .adaptive import check_range, follow_work


@dataclass(frozen=True)
class CoiledProfile:
    """Machines that Coiled starts in a cloud account.

    Parameters
    ----------
    workers
        Machines.
    adapt
        If given, as [1, 40]: between so many machines, as there is work.
    container
        Image with this version of Swathe; empty: the packages of this environment are copied.
    region
        Of the cloud, best that of the scenes; empty: that of the workspace.
    cpus
        Cores of a machine, 0: as Coiled has it.
    memory
        Of a machine, as "16 GiB"; empty: as Coiled has it.
    gpu
        Whether machines have a GPU.
    spot
        Whether to take spot machines, which the cloud may take back: their blocks are done elsewhere.
    idle_timeout
        After which Coiled ends a cluster that nobody uses, should this process be lost.
    env
        Environment of the machines.
    workspace
        Of Coiled; empty: the default one.
    """

    workers: int = 4
    adapt: tuple[int, ...] = field(default=(), metadata={"example": [1, 40]})
    container: str = ""
    region: str = ""
    cpus: int = 0
    memory: str = field(default="", metadata={"example": "16 GiB"})
    gpu: bool = False
    spot: bool = True
    idle_timeout: str = "10 minutes"
    env: Mapping[str, str] = field(default_factory=dict, metadata={"example": {"GDAL_HTTP_MAX_RETRY": "5"}})
    workspace: str = ""

    def __post_init__(self) -> None:
        check_range(self.adapt, "machines")
        if self.workers < 1 or self.cpus < 0:
            raise ClusterError("workers is 1 or more, and cpus 0 or more")


def start(profile: CoiledProfile, options: Cluster) -> coiled.Cluster:
    """Start the machines; they are ended with the run."""
    cluster = coiled.Cluster(**arguments(profile))
    follow_work(cluster, profile.adapt)
    return cluster


def arguments(profile: CoiledProfile) -> dict[str, Any]:
    """Return what Coiled is asked for, without what its own defaults decide."""
    asked = {
        "n_workers": profile.adapt[0] if profile.adapt else profile.workers,
        "container": profile.container,
        "region": profile.region,
        "worker_cpu": profile.cpus,
        "worker_memory": profile.memory,
        "worker_gpu": profile.gpu,
        "spot_policy": "spot_with_fallback" if profile.spot else "on-demand",
        "idle_timeout": profile.idle_timeout,
        "environ": dict(profile.env),
        "workspace": profile.workspace,
    }
    return {name: value for name, value in asked.items() if value} | {"shutdown_on_close": True, "show_widget": False}
