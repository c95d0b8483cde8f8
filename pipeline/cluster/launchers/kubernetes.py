"""Workers as pods of Kubernetes, by the operator of dask-kubernetes: a profile becomes a DaskCluster resource."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_kubernetes.operator import KubeCluster, make_cluster_spec

from models.errors import ClusterError

from ..options import Cluster
from .adaptive import check_range, follow_work


@dataclass(frozen=True)
class KubernetesProfile:
    """Worker pods of the operator of dask-kubernetes, which the cluster must have.

    Parameters
    ----------
    image
        Container image with this version of Swathe, see the Dockerfile.
    workers
        Pods.
    adapt
        If given, as [1, 40]: between so many pods, as there is work.
    cpus
        Cores of a worker, also its threads.
    memory
        Of a worker, as Kubernetes writes it.
    gpus
        GPUs of a worker: 0 or 1. More GPUs are more workers.
    namespace
        Where the pods are made; empty: that of the kubectl context.
    volume
        Name of a PersistentVolumeClaim with the scenes and outputs; empty: none, for object stores.
    mount
        Where that is seen in a pod; the command must see the same under the same path.
    service_account
        Under which the pods run; empty: the namespace's default.
    node_selector
        Labels that nodes must have.
    env
        Environment of the pods.
    """

    image: str = field(metadata={"example": "registry.example.org/swathe:0.1.0"})
    workers: int = 4
    adapt: tuple[int, ...] = field(default=(), metadata={"example": [1, 40]})
    cpus: int = 4
    memory: str = "16Gi"
    gpus: int = 0
    namespace: str = ""
    volume: str = field(default="", metadata={"example": "imagery"})
    mount: str = "/data"
    service_account: str = ""
    node_selector: Mapping[str, str] = field(
        default_factory=dict, metadata={"example": {"node.kubernetes.io/instance-type": "c7a.2xlarge"}}
    )
    env: Mapping[str, str] = field(default_factory=dict, metadata={"example": {"GDAL_HTTP_MAX_RETRY": "5"}})

    def __post_init__(self) -> None:
        check_range(self.adapt, "pods")
        if min(self.workers, self.cpus) < 1 or self.gpus not in (0, 1):
            raise ClusterError("workers and cpus are 1 or more, gpus is 0 or 1")


def start(profile: KubernetesProfile, options: Cluster) -> KubeCluster:
    """Make the resource and wait for its scheduler; the pods go when the cluster is closed.

    Raises
    ------
    ClusterError
        Certificates are given: the operator knows addresses without TLS alone.
    """
    if options.tls is not None:
        raise ClusterError(
            "the operator of dask-kubernetes has no TLS: close the namespace by a NetworkPolicy (docs/clusters.md) and "
            "give --insecure; or give the tls:// address of a scheduler that you start"
        )
    cluster = KubeCluster(
        custom_cluster_spec=manifest(profile, f"swathe-{uuid.uuid4().hex[:8]}"),
        namespace=profile.namespace or None,
        quiet=True,
    )
    follow_work(cluster, profile.adapt)
    return cluster


def manifest(profile: KubernetesProfile, name: str) -> dict[str, Any]:
    """Return the DaskCluster resource of a profile."""
    resources = {"cpu": str(profile.cpus), "memory": profile.memory}
    if profile.gpus:
        resources["nvidia.com/gpu"] = str(profile.gpus)
    made: dict[str, Any] = make_cluster_spec(
        name=name,
        image=profile.image,
        n_workers=profile.adapt[0] if profile.adapt else profile.workers,
        resources={"limits": resources, "requests": resources},
        env=[{"name": key, "value": value} for key, value in profile.env.items()],
        worker_command=["dask", "worker"],
    )
    worker, scheduler = (made["spec"][part]["spec"] for part in ("worker", "scheduler"))
    worker["containers"][0]["args"] += ["--nthreads", str(profile.cpus), "--death-timeout", "120"]
    if profile.gpus:
        worker["containers"][0]["args"] += ["--resources", f"GPU={profile.gpus}"]
    scheduler["containers"][0]["resources"] = {"requests": {"cpu": "1", "memory": "2Gi"}}
    for spec in (worker, scheduler):
        _place(spec, profile)
    return made


def _place(spec: dict[str, Any], profile: KubernetesProfile) -> None:
    """Give a pod its volume and its place."""
    if profile.volume:
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": profile.volume}}]
        spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": profile.mount}]
    if profile.service_account:
        spec["serviceAccountName"] = profile.service_account
    if profile.node_selector:
        spec["nodeSelector"] = dict(profile.node_selector)
