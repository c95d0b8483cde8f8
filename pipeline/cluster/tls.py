"""TLS of clusters: whose certificates a run uses, and what it says where they do not fit."""

import socket
import ssl
from pathlib import Path

import dask
from distributed.security import Security

from models.errors import ClusterError

from .options import Cluster

NEW = "new"
FILES = ("ca.pem", "cert.pem", "key.pem")
NOT_YET, EXPIRED = 9, 10  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED
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
        The folder is not there, its files cannot be read, or they do not fit each other.
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
    security = Security(tls_ca_file=ca, require_encryption=True, **roles)
    try:
        _context(security)
    except ssl.SSLError as error:
        raise ClusterError(
            f"--tls {folder}: {', '.join(FILES)} are not an authority, its certificate and that one's key ({error})"
        ) from error
    return security


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


def check_handshake(host: str, port: int, security: Security | None, timeout: float) -> None:
    """Refuse a scheduler that takes no TLS, or whose certificate and ours do not fit each other.

    Who does not answer at all is left to be found by others.

    Raises
    ------
    ClusterError
        No certificates are given; the other side speaks plainly; or one of the two does not accept the other.
    """
    where = f"tls://{host}:{port}"
    if security is None or not security.tls_client_cert:
        raise ClusterError(f"{where} needs certificates: give --tls FOLDER, or name them in Dask's configuration")
    try:
        with _connection(host, port, timeout) as plain, _context(security).wrap_socket(plain) as private:
            private.recv(1)  # by TLS 1.3, our own certificate is refused only now
    except ssl.SSLCertVerificationError as error:
        raise ClusterError(
            f"the certificate of {where} is not accepted: {error.verify_message}; {_hint(error)}"
        ) from error
    except (ssl.SSLError, ConnectionResetError) as error:
        if (alert := _alert(error)) is not None:
            raise ClusterError(
                f"{where} does not accept our certificate ({alert}); give --tls the folder that the scheduler has"
            ) from error
        raise ClusterError(f"what answers at {where} does not speak TLS; is it tcp://{host}:{port}?") from error
    except OSError:
        return


def _hint(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (EXPIRED, NOT_YET):
        return "make new ones with `swathe cluster certificates`, and see that the clocks of both machines agree"
    return "it is of another authority; give --tls the folder that the scheduler has"


def _alert(error: OSError) -> str | None:
    """Return what the other side says against our certificate, in its protocol's words; None: it speaks none."""
    reason = getattr(error, "reason", None) or ""
    return reason.partition("ALERT_")[2].lower().replace("_", " ") if "ALERT_" in reason else None


def speaks_tls(host: str, port: int, timeout: float) -> bool:
    """Whether who answers there speaks TLS, whatever its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connection(host, port, timeout) as plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return _alert(error) is not None
    except OSError:
        return False


def _connection(host: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((host, port), timeout)


def _context(security: Security) -> ssl.SSLContext:
    context: ssl.SSLContext = security.get_connection_args("client")["ssl_context"]
    return context
