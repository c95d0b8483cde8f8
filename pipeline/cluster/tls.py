"""TLS of clusters: whose certificates a run uses, and what it says where they do not fit."""

from pathlib import Path

import dask
from distributed.security import Security

from models.errors import ClusterError

from .options import Cluster

NEW = "new"
FILES = ("ca.pem", "cert.pem", "key.pem")
UNSAFE = (
    "would listen to other machines without TLS: give --tls FOLDER (`swathe cluster certificates FOLDER` makes one), "
    "--tls new for this run alone, or --insecure"
)


def security_of(options: Cluster) -> Security | None:
    """Return the certificates to connect, and to start something, with; None: without TLS.

    Those of `--tls new` are made anew at each call, and hold texts in place of paths.

    Raises
    ------
    ClusterError
        The folder is not there, or its files cannot be read.
    """
    if options.tls == NEW:
        return Security.temporary()
    if options.tls is not None:
        return security_in(Path(options.tls))
    configured = Security()
    return configured if configured.tls_ca_file else None


def security_in(folder: Path) -> Security:
    """Return the certificates of a folder.

    Raises
    ------
    ClusterError
        The folder is not there, or its files cannot be read.
    """
    paths = [folder.expanduser().resolve() / name for name in FILES]
    for path in paths:
        try:
            path.read_bytes()
        except OSError as error:
            raise ClusterError(
                f"--tls {folder}: {path.name} cannot be read ({error.strerror}); it is a folder of {', '.join(FILES)}, "
                "`swathe cluster certificates` makes one"
            ) from error
    ca, cert, key = map(str, paths)
    roles = {f"tls_{role}_{what}": path for role in ("client", "scheduler", "worker")
             for what, path in (("cert", cert), ("key", key))}  # fmt: skip
    return Security(tls_ca_file=ca, require_encryption=True, **roles)


def check_private(what: str, options: Cluster) -> None:
    """Refuse to start what other machines could speak to without TLS, unless that was asked for.

    Raises
    ------
    ClusterError
        Neither certificates nor `insecure` are given, or both.
    """
    configured = bool(dask.config.get("distributed.comm.tls.ca-file", None))
    if options.insecure and options.tls is not None:
        raise ClusterError("--tls asks for TLS and --insecure for none: give one of them")
    if not (options.insecure or options.tls is not None or configured):
        raise ClusterError(f"{what} {UNSAFE}")
