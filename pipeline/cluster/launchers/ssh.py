"""Workers on hosts that are reached by ssh, by distributed's SSHCluster."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed import SSHCluster
from distributed.security import Security

from models.errors import ClusterError

from ..options import Cluster
from ..tls import NEW, security_of

LOOPBACK = ("127.0.0.1", "localhost")
ABANDONED = "1 hour"  # without tasks, after which a scheduler ends whose run was killed and could not say so


@dataclass(frozen=True)
class SshProfile:
    """Workers on hosts that are reached by ssh.

    Parameters
    ----------
    hosts
        Where workers run; the scheduler runs on the first. Named twice, a host has two.
    threads
        Of each worker.
    user
        Who logs in. Empty: who starts the run.
    port
        Of ssh.
    key
        File of the private key. Empty: those that ssh would take.
    known_hosts
        File of the hosts' keys; a host that is not in it is refused. Empty: that of ssh.
    python
        The interpreter on the hosts. Empty: the path of the one that starts the run.
    """

    hosts: tuple[str, ...] = field(metadata={"example": ("node-1", "node-2")})
    threads: int = 1
    user: str = field(default="", metadata={"example": "alice"})
    port: int = 22
    key: str = field(default="", metadata={"example": "~/.ssh/id_ed25519"})
    known_hosts: str = field(default="", metadata={"example": "~/.ssh/known_hosts"})
    python: str = field(default="", metadata={"example": "/shared/venv/bin/python"})

    def __post_init__(self) -> None:
        if not self.hosts or not all(self.hosts):
            raise ClusterError("hosts are one or more names, with commas between")
        if self.threads < 1 or not 0 < self.port < 65536:
            raise ClusterError("threads is 1 or more, port a port")

    @property
    def on_this_machine(self) -> bool:
        """Whether all that is started listens to this machine alone."""
        return all(host in LOOPBACK for host in self.hosts)


def arguments(profile: SshProfile, options: Cluster) -> dict[str, Any]:
    """Return what SSHCluster takes for a profile.

    Raises
    ------
    ClusterError
        `--tls new`, whose certificates the hosts would not have; or as `security_of`.
    """
    if options.tls == NEW:
        raise ClusterError("ssh: give --tls a folder that lies at the same path on all hosts")
    security = security_of(options)
    reach: dict[str, Any] = {"port": profile.port}
    reach |= {"username": profile.user} if profile.user else {}
    reach |= {"client_keys": [str(Path(profile.key).expanduser())]} if profile.key else {}
    reach |= {"known_hosts": str(Path(profile.known_hosts).expanduser())} if profile.known_hosts else {}
    both = {"protocol": "tls://" if security else "tcp://", "dashboard_address": "127.0.0.1:0"}
    first = profile.hosts[0]
    return {
        "hosts": [first, *profile.hosts],
        "connect_options": reach,
        "worker_options": both
        | {"nthreads": profile.threads, "death_timeout": 300}
        | ({"host": "127.0.0.1"} if profile.on_this_machine else {}),
        "scheduler_options": both
        | {"host": "127.0.0.1" if first in LOOPBACK else first, "port": 0, "idle_timeout": ABANDONED},
        "remote_python": profile.python or sys.executable,
        "security": security,
    }


def start(profile: SshProfile, options: Cluster) -> Any:
    """Start a scheduler on the first host and a worker on each.

    Raises
    ------
    ClusterError
        As `arguments`.
    """
    made = arguments(profile, options)
    with dask.config.set(_configuration(made["security"])):  # which SSHCluster hands to what it starts
        return SSHCluster(**made)


def _configuration(security: Security | None) -> dict[str, Any]:
    """Return Dask's configuration of certificates: SSHCluster sends arguments as JSON, which holds no `Security`."""
    if security is None:
        return {}
    roles = {
        f"distributed.comm.tls.{role}": {"cert": getattr(security, f"tls_{role}_cert"),
                                         "key": getattr(security, f"tls_{role}_key")}
        for role in ("scheduler", "worker")
    }  # fmt: skip
    return roles | {"distributed.comm.tls.ca-file": security.tls_ca_file, "distributed.comm.require-encryption": True}
