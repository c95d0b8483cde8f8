"""Local files and folders that appear under their name only when whole; what exists is not replaced unasked.

What has its name is on the disk: a power cut leaves what was there before, or all that is new.
"""

import errno
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import StoreError, SwatheError

logger = logging.getLogger("swathe")

NO_SYNC = {errno.EINVAL, errno.ENOTSUP}  # what disks answer, as some shares of a network, that cannot sync a folder


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until a file's content, or a folder's names, have reached the disk. Raises OSError where they cannot."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC or not os.path.isdir(path):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: str | os.PathLike[str]) -> None:
    """Wait until a folder and all that is in it have reached the disk."""
    for path, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(path, name))
        sync(path)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it that are missing; their names have reached the disk when this returns."""
    path, missing = os.path.abspath(folder), []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    for made in reversed(missing):
        sync(os.path.dirname(made))


def replace_file(part: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a whole file its name, in place of what was there before, when its content has reached the disk."""
    sync(part)
    os.replace(part, target)
    sync(os.path.dirname(os.path.abspath(target)))


def refuse_existing(output: str | os.PathLike[str], *, error: type[SwatheError] = StoreError) -> None:
    """Raise the error that says that an output is there already, and what to do."""
    raise error(f"{os.fspath(output)} exists; choose another output, or pass --overwrite to replace it")


def check_output(output: str | os.PathLike[str], *, overwrite: bool, error: type[SwatheError] = StoreError) -> Path:
    """Refuse a file that exists, or a place where none can be, before any work is done for it.

    Raises
    ------
    StoreError
        It is a URL or a folder, it exists, or its folder cannot be written to. `error`: another class.
    """
    text = os.path.expanduser(os.fspath(output))
    if "://" in text:
        raise error(f"{text} is not a local path; write to a local file, and copy that")
    target = Path(text)
    if target.is_dir():
        raise error(f"{target} is a folder; give the name of a file")
    if target.exists() and not overwrite:
        refuse_existing(target, error=error)
    make_parent(target, error=error)
    return target


def make_parent(target: Path, *, error: type[SwatheError] = StoreError) -> None:
    """Make the folder that a file or folder is to be in, and refuse one that cannot be written to."""
    try:
        make_folder(target.parent)
    except FileExistsError as caught:
        raise error(f"{target} cannot be written: {target.parent} is a file") from caught
    except OSError as caught:
        raise error(f"{target} cannot be written: {caught.strerror}") from caught
    if not os.access(target.parent, os.W_OK):
        raise error(f"{target} cannot be written: no permission in {target.parent}")


@contextmanager
def whole_file(target: Path, *, error: type[SwatheError] = StoreError) -> Iterator[Path]:
    """Yield a temporary path beside a file, with its ending; it takes the file's place when all went well.

    Raises
    ------
    StoreError
        The disk refuses; what was there before is as it was. `error`: another class.
    """
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.partial{target.suffix}")
    try:
        yield part
        replace_file(part, target)
    except OSError as caught:
        raise error(f"{target} could not be written: {caught.strerror or caught}") from caught
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def keep_file(target: Path, what: str, write: Callable[[Path], object]) -> None:
    """Write a file of the cache to a temporary path, put in place when whole, after others written beside it.

    Nothing depends on it: where it cannot be written, a line of the log says that `what` is not kept.
    """
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            write(Path(folder) / target.name)
            for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == target.name):
                replace_file(part, target.with_name(part.name))
    except (OSError, RuntimeError) as error:  # OpenVINO's, of a full disk
        logger.info("%s is not kept: %s", what, error)


def put_in_place(whole: Path, target: Path) -> None:
    """Move a whole file or folder to its name; a folder that is replaced is moved aside first and removed last."""
    if whole.is_dir():
        sync_tree(whole)
    else:
        sync(whole)
    aside = whole.with_name(f"{whole.name}.replaced")
    if target.is_dir():
        os.replace(target, aside)
    try:
        os.replace(whole, target)
    except OSError:
        if aside.exists():
            os.replace(aside, target)
        raise
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
