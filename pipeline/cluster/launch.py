"""What `--scheduler` and `client` may name: an address, processes of this machine, or a cluster to start for one run.

`local`, `local:4` or `local:4x2`: processes of this machine, one for each core or GPU, four, or four of two threads
each. `tcp://host:8786` or `tls://host:8786`: a scheduler that runs. `slurm:FILE`, `pbs:`, `lsf:`, `sge:`,
`kubernetes:`, `coiled:` with a profile in TOML, `gateway:URL`, `ssh:HOST,HOST`: what `launchers` start.
"""

import difflib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from distributed import Client

from models.errors import ClusterError, SwatheError
from models.redact import remember_secrets

from .options import Cluster
from .processes import LocalProcesses, Workers, default_processes, some_processes
from .profiles import LAUNCHERS, launcher_module, read_profile, shown_name
from .tls import NEW, check_private

LOCAL = re.compile(r"local(?::(?P<count>\d+)(?:x(?P<threads>\d+))?)?")
ADDRESS = "give one as tcp://host:8786"


def local_part(client: Workers) -> LocalProcesses | None:
    """Return the processes of this machine that are meant, if they are.

    Raises
    ------
    ClusterError
        `local:` with something that is no number of processes.
    """
    named = client.scheduler if isinstance(client, Cluster) else client
    if not isinstance(named, str):
        return named if isinstance(named, LocalProcesses) else None
    if named.partition(":")[0] != "local" or named.startswith("local://"):
        return None
    found = LOCAL.fullmatch(named)
    if found is None or "0" in (found["count"], found["threads"]):
        raise ClusterError(f"{named!r} is not local, local:PROCESSES or local:PROCESSESxTHREADS, as local:4x2")
    if found["count"] is None:
        return default_processes()
    return some_processes(int(found["count"]), int(found["threads"]) if found["threads"] else None)


def check_named(options: Cluster) -> None:
    """Refuse, before anything is done, what names no cluster.

    Raises
    ------
    ClusterError
        Certificates for a client, which has its own; no address and no kind of cluster; a profile that is wrong; or
        what would listen to others without TLS.
    """
    if isinstance(options.scheduler, Client):
        if options.tls is not None:
            raise ClusterError(
                "this Dask client is connected already, and speaks as it was made: give its certificates to "
                "Client(..., security=...), or the scheduler's address with tls to Cluster"
            )
        return
    if local_part(options) is not None:
        if options.tls is not None:
            raise ClusterError("processes of this machine listen to it alone; leave --tls out")
    elif is_address(options.scheduler):
        _check_address(options.scheduler, options)
    else:
        _profile(options)


def _check_address(address: str, options: Cluster) -> None:
    if options.tls is None:
        return
    if not address.startswith(("tls://", "wss://")):
        raise ClusterError(f"{address} is without TLS, and --tls asks for it; give a tls:// address")
    if options.tls == NEW:
        raise ClusterError(f"--tls new is for a cluster that is started; give the folder that {address} has")


def is_address(scheduler: str) -> bool:
    """Whether a text is the address of a scheduler that runs; else it is a cluster to start.

    Raises
    ------
    ClusterError
        It is neither.
    """
    kind, colon, rest = scheduler.partition(":")
    if colon and kind in LAUNCHERS and not rest.startswith("//"):
        return False
    known = [*LAUNCHERS, "local"]
    if colon and not rest.startswith("//") and (close := difflib.get_close_matches(kind, known, 1)):
        raise ClusterError(f"{scheduler!r} is not a scheduler's address; did you mean {close[0]}:{rest}?")
    if "://" not in scheduler:
        raise ClusterError(f"{scheduler!r} is not a scheduler's address; {ADDRESS}")
    return True


def _profile(options: Cluster) -> Any:
    """Read the profile of what is started, and see that nobody else could speak to it."""
    kind, _, text = str(options.scheduler).partition(":")
    profile = read_profile(kind, text)
    remember_secrets(asdict(profile))
    if not (LAUNCHERS[kind].private or getattr(profile, "on_this_machine", False)):
        check_private(kind, options)
    return profile


@contextmanager
def launched(options: Cluster) -> Iterator[Any]:
    """Start a cluster for as long as the context lasts: an object of Dask's `Cluster` kind.

    Raises
    ------
    ClusterError
        As `check_named`; or it could not be started.
    """
    kind = str(options.scheduler).partition(":")[0]
    profile = _profile(options)
    try:
        cluster = launcher_module(kind).start(profile, options)
    except SwatheError:
        raise
    except Exception as error:  # of as many kinds as there are libraries
        what = shown_name(str(options.scheduler))
        raise ClusterError(f"{what} could not be started: {type(error).__name__}: {error}") from error
    try:
        yield cluster
    finally:
        with suppress(Exception):  # what is left ends with its scheduler; the run has ended, well or not
            cluster.close()
