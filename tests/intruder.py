"""Asks a scheduler for its workers as whoever it is told to be; prints how many, or how it was refused.

    python intruder.py tcp://10.77.0.1:8786 plain
    python intruder.py tls://10.77.0.1:8786 FOLDER ...

FOLDER holds `ca.pem`, and of those who have a certificate `cert.pem` and `key.pem`.
"""

import asyncio
import ssl
import sys
from pathlib import Path

from distributed.core import rpc

PATIENCE = 3  # seconds that a refusal may take


async def main(address: str, folders: list[str]) -> None:
    for folder in folders:
        try:
            print(f"{folder}: {await asyncio.wait_for(ask(address, folder), PATIENCE)} workers", flush=True)
        except (OSError, TimeoutError) as error:
            print(f"{folder}: refused, {type(error).__name__}", flush=True)


async def ask(address: str, folder: str) -> int:
    plain = folder == "plain"
    address = address.replace("tls:", "tcp:") if plain else address
    options = {} if plain else {"ssl_context": context(Path(folder)), "require_encryption": True}
    async with rpc(address, connection_args=options) as scheduler:
        return len((await scheduler.identity(n_workers=-1))["workers"])


def context(folder: Path) -> ssl.SSLContext:
    """Dask's own takes no part in TLS without a certificate."""
    made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=folder / "ca.pem")
    made.check_hostname = False
    if (folder / "cert.pem").exists():
        made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return made


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
