"""Two hosts on one machine: network namespaces that reach each other through a bridge, whose cables can be pulled.

Takes root and `ip`; everything goes with the context.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cluster.tls import FILES

from .chaos_processes import Place

NETWORK = "10.77.0"


@dataclass(frozen=True)
class Hosts:
    """A namespace for scheduler and command, and two for workers."""

    name: str

    @property
    def home(self) -> Place:
        """Where scheduler and command run."""
        return self._place("h", 1)

    @property
    def workers(self) -> tuple[Place, Place]:
        """Where workers run."""
        return self._place("0", 2), self._place("1", 3)

    def _place(self, letter: str, number: int) -> Place:
        return Place(f"{NETWORK}.{number}", ("ip", "netns", "exec", f"{self.name}-{letter}"))

    def cut(self, host: int) -> None:
        """Let one host be reached by nobody; nobody is told."""
        _ip(f"-n {self.name}-h link set v{host} down")

    def mend(self, host: int) -> None:
        """Undo it."""
        _ip(f"-n {self.name}-h link set v{host} up")


def why_not() -> str:
    """Return why there can be no namespaces here; nothing, if there can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces take root and `ip`"
    name = f"sw{os.getpid()}-?"
    try:
        _ip(f"netns add {name}")
        _ip(f"netns del {name}")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"
    return ""


@contextmanager
def two_hosts(number: int = 0) -> Iterator[Hosts]:
    """Yield them; `number` tells those of one process apart."""
    hosts = Hosts(f"sw{os.getpid()}-{number}")
    home, *others = (f"{hosts.name}-{letter}" for letter in "h01")
    try:
        for name in (home, *others):
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        _ip(f"-n {home} link add bridge0 type bridge")
        for host, name in enumerate(others):
            _ip(f"-n {home} link add v{host} type veth peer name eth0 netns {name}")
            _ip(f"-n {home} link set v{host} master bridge0 up")
            _ip(f"-n {name} address add {NETWORK}.{host + 2}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")
        _ip(f"-n {home} address add {NETWORK}.1/24 dev bridge0")
        _ip(f"-n {home} link set bridge0 up")
        yield hosts
    finally:
        remove_hosts(hosts.name)


def remove_hosts(name: str = f"sw{os.getpid()}-") -> None:
    """Remove namespaces by how their names begin: all that this process has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        if line.startswith(name):
            subprocess.run(["ip", "netns", "del", line.split()[0]], capture_output=True, check=False)


def with_tls(place: Place, folder: Path) -> Place:
    """Return a place whose processes show the certificates of a folder."""
    authority, certificate, key = (str(folder / name) for name in FILES)
    return replace(place, tls=("--tls-ca-file", authority, "--tls-cert", certificate, "--tls-key", key))


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True)
