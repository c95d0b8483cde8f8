"""Who answers at an address: asked before a client is made, which would try for long and complain again at its end."""

import asyncio
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import dask
import distributed
from distributed.comm.addressing import get_address_host_port
from distributed.core import rpc
from distributed.security import Security

from models.errors import ClusterError

from .tls import check_handshake, speaks_tls

TIMEOUT = 10  # seconds that a scheduler has to answer
HOW = "as tcp://host:8786"
OURS = {"Dask": distributed.__version__, "Python": platform.python_version()}

Answer: TypeAlias = Mapping[str, Any]


def check_scheduler(address: str, security: Security | None) -> None:
    """Refuse an address at which no scheduler of our Dask answers.

    Raises
    ------
    ClusterError
        No address; nobody there; another program; a worker; TLS where there should be none, and the reverse;
        certificates that do not fit; Dask or Python of another version.
    """
    try:
        host, port = get_address_host_port(address, strict=True)
    except ValueError as error:
        raise ClusterError(f"{address!r} is not a scheduler's address; give one {HOW}") from error
    if address.startswith("tls://"):
        check_handshake(host, port, security, TIMEOUT)
    identity, versions = _asked(address, host, port, security)
    if (kind := identity.get("type")) != "Scheduler":
        raise ClusterError(f"what answers at {address} is a Dask {str(kind).lower()}; give the scheduler's address")
    _check_versions(address, versions)


def _asked(address: str, host: str, port: int, security: Security | None) -> tuple[Answer, Answer]:
    """Ask who is there, in a loop of its own: a notebook's own thread has a loop already."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(asyncio.run, _ask(address, security)).result()
        except ValueError as error:  # a scheme that Dask does not know
            raise ClusterError(f"{address!r} is not a scheduler's address; give one {HOW}") from error
        except Exception as error:  # of many kinds: bytes of another protocol are taken for lengths and types
            if address.startswith("tcp://") and speaks_tls(host, port, TIMEOUT):
                raise ClusterError(
                    f"what answers at {address} speaks TLS: give tls://{address[6:]} with --tls FOLDER"
                ) from error
            if isinstance(error, OSError):
                raise ClusterError(
                    f"no Dask scheduler answers at {address} within {TIMEOUT} s; check the address, {HOW}"
                ) from error
            raise ClusterError(f"what answers at {address} is not Dask; a scheduler's address is {HOW}") from error


async def _ask(address: str, security: Security | None) -> tuple[Answer, Answer]:
    arguments = security.get_connection_args("client") if security else {}
    with dask.config.set({"distributed.comm.timeouts.connect": f"{TIMEOUT}s"}):
        async with rpc(address, timeout=TIMEOUT, connection_args=arguments) as server:
            identity = dict(await asyncio.wait_for(server.identity(), TIMEOUT + 1))
            versions = dict(await asyncio.wait_for(server.versions(), TIMEOUT + 1))
    return identity, versions


def _check_versions(address: str, versions: Answer) -> None:
    """Refuse a scheduler that would not read what this process writes: both read each other's pickles."""
    theirs = {"Dask": versions.get("packages", {}).get("distributed"), "Python": versions.get("host", {}).get("python")}
    for what, version in theirs.items():
        if str(version).split(".")[:2] != OURS[what].split(".")[:2]:
            raise ClusterError(
                f"the scheduler at {address} is of {what} {version}, this process of {OURS[what]}; "
                "install the same on both, and on the workers"
            )
