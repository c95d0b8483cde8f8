"""Local files and folders that appear under their name only when whole; what exists is not replaced unasked.

What has its name is on the disk: a power cut leaves what was there before, or all that is new.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeAlias

from .errors import StoreError, SwatheError

logger = logging.getLogger("swathe")
DIGEST = ".sha256"  # ends the name of the side file that holds a file's digest, as `sha256sum -c` reads it

Stamp: TypeAlias = tuple[int, int, int]  # inode, size and time of a file
Digested: TypeAlias = tuple[bytes, dict[str, Stamp]]  # what a side file holds, and the stamps of what it names
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|/vsi")  # as `Path` leaves it of a URL, too, and of GDAL
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


def local_path(output: str | os.PathLike[str], *, error: type[SwatheError] = StoreError) -> Path:
    """Return where an output is to be, `~` being the user's home.

    Raises
    ------
    StoreError
        It is empty, an address, or no name that a disk takes. `error`: another class.
    """
    text = os.fspath(output)
    if not text.strip():
        raise error("the output is empty; give the path of a file or folder")
    if "://" in text or ADDRESS.match(text):
        raise error(f"{text} is not a local path; write to a local one, and copy that")
    path = Path(os.path.expanduser(text))
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as caught:  # too long a name, a link to itself
        raise error(f"{path} cannot be written: {getattr(caught, 'strerror', caught)}") from caught
    return path


def check_output(output: str | os.PathLike[str], *, overwrite: bool, error: type[SwatheError] = StoreError) -> Path:
    """Refuse a file that exists, or a place where none can be, before any work is done for it.

    Raises
    ------
    StoreError
        It is a URL or a folder, it exists, or its folder cannot be written to. `error`: another class.
    """
    target = local_path(output, error=error)
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
def whole_file(target: Path, *, error: type[SwatheError] = StoreError, digest: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside a file, with its ending; it takes the file's place when all went well.

    `digest`: see `write_digest`.

    Raises
    ------
    StoreError
        The disk refuses; what was there before is as it was. `error`: another class.
    """
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.partial{target.suffix}")
    try:
        yield part
        with write_digest(target, {target.name: part}) if digest else nullcontext():
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


@contextmanager
def write_digest(target: Path, files: Mapping[str, Path]) -> Iterator[None]:
    """Write NAME.sha256 beside a file that is put in place within, in the format of coreutils.

    The digest of what was there before goes first and the new one comes last: a file that is read meanwhile, or was
    left so by a kill, has none, and never another one's. Where the file cannot be replaced, the old digest is put back.

    Parameters
    ----------
    target
        The file.
    files
        Where the file, and what lies beside it under other names, are now.
    """
    text = digest_text({name: sha256_of(path) for name, path in files.items()})
    side = target.with_name(target.name + DIGEST)
    before = _digested(side)
    if before is not None:
        side.unlink()
        sync(side.parent)
    try:
        yield
    except BaseException:
        if before is not None and _stamps(side, before) == before[1]:
            with suppress(OSError, StoreError):
                _write_side(side, before[0])
        raise
    _write_side(side, text)


def write_missing_digest(target: Path, files: Mapping[str, Path]) -> None:
    """Write NAME.sha256 where a kill right after a file was put in place has left it without one; if it can be."""
    if not target.with_name(target.name + DIGEST).exists():
        with suppress(OSError, StoreError), write_digest(target, files):
            pass


def _write_side(side: Path, text: bytes) -> None:
    with whole_file(side) as part:
        part.write_bytes(text)


def _digested(side: Path) -> Digested | None:
    """Return what a side file holds, and the stamps of the files that it names; None: there is none to keep."""
    with suppress(FileNotFoundError):
        text = side.read_bytes()
        return text, _stamps(side, (text, {}))
    return None


def _stamps(side: Path, digested: Digested) -> dict[str, Stamp]:
    """Return by what each file that a side file names is told from one that takes its place."""
    found = {}
    with suppress(ValueError, OSError):
        for name in read_digests(digested[0]):
            stat = os.stat(side.parent / name)
            found[name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_text(digests: Mapping[str, str]) -> bytes:
    """Return digests by name as the command `sha256sum` writes them."""
    lines = []
    for name, digest in digests.items():
        escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        lines.append(f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n")
    return "".join(lines).encode(errors="surrogateescape")


def read_digests(text: bytes) -> dict[str, str]:
    """Return digests by name of what `sha256sum` has written. Raises ValueError where it is something else."""
    found = {}
    for line in text.decode(errors="surrogateescape").removesuffix("\n").split("\n"):
        escaped, (digest, between, name) = line.startswith("\\"), line.removeprefix("\\").partition("  ")
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef") or not between or not name:
            raise ValueError(f"{line[:80]!r} is no line of sha256sum")
        if escaped:
            name = name.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
        found[name] = digest
    return found
