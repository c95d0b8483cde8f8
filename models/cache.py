"""Where downloaded bundles and compiled networks are kept between runs. Losing it costs time, never data."""

import os
import tempfile
from pathlib import Path


def cache_folder(purpose: str) -> Path:
    """Give the folder for one purpose, made if need be: under `$SWATHE_CACHE`, else the user's cache folder.

    Where neither can be written, a temporary folder of this user serves.
    """
    base = os.environ.get("SWATHE_CACHE") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    for candidate in (root / "swathe", Path(tempfile.gettempdir()) / f"swathe-{os.getuid()}"):
        folder = candidate / purpose
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="swathe-"))
