"""What a foreign file or folder is, told by its content; what is no network is refused in one line that names it."""

import os
from pathlib import Path

from ..errors import BundleError
from ..limits import refuse_special
from .found import Found, Reader

READERS: tuple[Reader, ...] = ()  # in this order: the first that knows it tells what it is


def recognise(model: str | os.PathLike[str]) -> Found:
    """Tell what a file or folder is, and what it says of its network. Nothing in it is run.

    Raises
    ------
    BundleError
        It is no network, or one of a kind that is not read; the line says which, and what to do.
    """
    path = Path(model)
    refuse_special(path, BundleError)
    if not path.exists():
        raise BundleError(f"no such file or folder: {path}")
    for read in READERS:
        if (found := read(path)) is not None:
            return found
    return Found("a state dict", "state", path)
