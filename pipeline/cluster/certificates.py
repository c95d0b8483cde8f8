"""Certificates for a cluster: an authority of its own, and one certificate that scheduler, workers and client share."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ClusterError, require_extra
from models.files import make_parent, put_in_place

from .tls import FILES

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DAYS = 365
EARLIER = timedelta(hours=1)  # that a machine's clock may be behind


def write_certificates(folder: str | os.PathLike[str], *, days: int = DAYS) -> Path:
    """Write `ca.pem`, `cert.pem` and `key.pem` into a new folder: all there, or none.

    The authority's key is not kept, so that nobody can make another certificate that the cluster accepts.

    Parameters
    ----------
    folder
        To make. Whoever reads its `key.pem` can use the cluster; only its owner can.
    days
        How long they hold.

    Raises
    ------
    ClusterError
        The folder is there, or cannot be written; or cryptography is not installed.
    """
    require_extra("cluster", "making certificates", "cryptography", error=ClusterError)
    target = Path(folder).expanduser()
    if target.exists() or target.is_symlink():
        raise ClusterError(f"{target} exists, and certificates are not replaced; give the name of a new folder")
    make_parent(target, error=ClusterError)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, content in _made(days).items():
            mode = 0o600 if name == "key.pem" else 0o644
            with open(os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
        put_in_place(made, target)
    except OSError as error:
        raise ClusterError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def _made(days: int) -> Mapping[str, bytes]:
    """Return the contents of the files by their names."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID

    authority_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    authority = _certificate("Swathe cluster authority", "Swathe cluster authority", authority_key, days)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    own = _certificate("Swathe cluster", "Swathe cluster authority", key, days).add_extension(uses, critical=False)
    own = own.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    contents = [
        authority.sign(authority_key, None).public_bytes(Encoding.PEM),
        own.sign(authority_key, None).public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ]
    return dict(zip(FILES, contents, strict=True))


def _certificate(name: str, issuer: str, key: "Ed25519PrivateKey", days: int) -> "x509.CertificateBuilder":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    subject, signer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(signer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - EARLIER).not_valid_after(now + timedelta(days=days))
