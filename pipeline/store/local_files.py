"""A local file that appears under its name only when it is whole. Knows names and folders, not what is written."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.errors import StoreError


def check_output(output: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse a file that exists, or a place where none can be, before any work is done for it.

    Raises
    ------
    StoreError
        It is a URL or a folder, it exists, or its folder cannot be written to.
    """
    text = os.fspath(output)
    if "://" in text:
        raise StoreError(f"{text} is not a local path; write to a local file, and copy that")
    target = Path(text)
    if target.is_dir():
        raise StoreError(f"{target} is a folder; give the name of a file")
    if target.exists() and not overwrite:
        raise StoreError(f"{target} exists; choose another output, or pass --overwrite to replace it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StoreError(f"{target} cannot be written: {target.parent} is a file") from error
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK):
        raise StoreError(f"{target} cannot be written: no permission in {target.parent}")
    return target


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside a file, with its ending; it takes the file's place when all went well.

    Raises
    ------
    StoreError
        The disk refuses; what was there before is as it was.
    """
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.partial{target.suffix}")
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
