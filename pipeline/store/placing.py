"""Single files that a verb writes, on a local disk or in an object store: there whole and read back, or not at all.

In an object store a file appears when its upload ends: until then there is nothing, or what was there before.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TypeAlias

from models.errors import StoreError
from models.files import (
    DIGEST,
    check_output,
    digest_text,
    refuse_existing,
    replace_file,
    sha256_of,
    whole_file,
    write_digest,
    write_missing_digest,
)

from .files import SCHEME, Files, full_path
from .store import store_errors

Target: TypeAlias = Path | str
"""Where a file is to be: a local path, or the URL of an object."""
READ_ONLY = ("http://", "https://", "ftp://", "/vsi")


def check_target(output: str | os.PathLike[str], *, overwrite: bool) -> Target:
    """Refuse a file that exists, or a place where none can be, before any work is done for it.

    Raises
    ------
    StoreError
        It exists; its folder cannot be written to; or nothing can be written to such a URL.
    """
    text = os.fspath(output)
    if text.lower().startswith(READ_ONLY):
        raise StoreError(f"nothing can be written to {text}; give a local path, or a URL as s3://BUCKET/NAME")
    if Files(text).local:
        return check_output(full_path(text) if text.startswith(SCHEME) else text, overwrite=overwrite)
    if text.endswith("/"):
        raise StoreError(f"{text} is a folder; give the name of a file")
    with store_errors(text):
        if Files(text).exists() and not overwrite:
            refuse_existing(text)
    return text


@contextmanager
def work_folder(target: Target) -> Iterator[Path]:
    """Yield a local folder to make a file in, named `work.*` or `whole.*` there.

    For a local file it lies hidden beside it, and keeps other writers of that file out; what a killed run left there
    is removed, at the next run.

    Raises
    ------
    StoreError
        Another run writes the file, or there can be no folder.
    """
    if isinstance(target, str):
        with tempfile.TemporaryDirectory(prefix="swathe-") as made:
            yield Path(made)
        return
    folder = _hidden(target)
    try:
        release = Files(str(folder)).lock()
    except BlockingIOError as error:
        raise StoreError(f"{target} is being written by another run; wait for it, or end it") from error
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    try:
        _sweep(folder)
        yield folder
    finally:
        _sweep(folder)
        Files(str(folder)).remove_empty()
        release()


def _hidden(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def finish_placing(output: str | os.PathLike[str]) -> None:
    """Do for a local file what a run that was killed just after it had put it in place had still to do.

    Its work folder goes, and its digest is written, if it has none. Where that cannot be, all stays as it is.
    """
    if not Files(os.fspath(output)).local:
        return
    target = Path(full_path(output))
    side, hidden = target.with_name(target.name + DIGEST), f".{escape(target.name)}.{'[0-9a-f]' * 32}.partial{DIGEST}"
    with suppress(StoreError, OSError):
        if side.exists() and not _hidden(target).exists():
            return
        with work_folder(target):
            for cut_short in target.parent.glob(hidden):
                cut_short.unlink()
            beside = target.with_name(f"{target.name}.aux.xml")
            write_missing_digest(target, {path.name: path for path in (target, beside) if path.exists()})


def _sweep(folder: Path) -> None:
    """Remove our own files, and those that GDAL makes beside them."""
    for path in folder.iterdir():
        if path.name.startswith(("work.", "whole.")):
            path.unlink(missing_ok=True)


def place(whole: Path, target: Target) -> None:
    """Give a whole file its name, or upload it and read it back; what was there before is replaced.

    Raises
    ------
    StoreError
        The disk or the object store refuses.
    """
    if isinstance(target, str):
        with store_errors(target):
            Files(target).upload("", whole)
        return
    try:
        replace_file(whole, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from error


def write_bytes(target: Target, content: bytes) -> None:
    """Write a small file whole, in place of what was there before.

    Raises
    ------
    StoreError
        The disk or the object store refuses.
    """
    if isinstance(target, str):
        with store_errors(target):
            Files(target).write("", content)
        return
    with whole_file(target) as part:
        part.write_bytes(content)


@contextmanager
def with_digest(target: Target, files: Mapping[str, Path]) -> Iterator[None]:
    """Write NAME.sha256 beside a file that is put in place within; see `models.files.write_digest`."""
    if isinstance(target, Path):
        with write_digest(target, files):
            yield
        return
    side, text = Files(target + DIGEST), digest_text({name: sha256_of(path) for name, path in files.items()})
    with store_errors(target):
        side.remove("")
    yield
    with store_errors(target):
        side.write("", text)
