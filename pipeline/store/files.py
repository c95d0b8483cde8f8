"""Small files beside a store's arrays, on a local disk or an object store: written whole or not at all."""

import errno
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import IO, Any, Self

import fsspec
import google_crc32c

from models.errors import StoreError, require_s3
from models.files import make_folder, replace_file

SCHEME = "file://"
PIECE = 2**22  # bytes that are compared at a time
WRITES = 16  # files that are written at a time
LISTS = 16  # folders of an object store that are listed at a time
CUT_SHORT = re.compile(r"\.[0-9a-f]{32}\.partial$")  # how Zarr and `write` name a file that is not whole yet


@dataclass(frozen=True, slots=True)
class Files:
    """A folder on a local disk, or a prefix in an object store, by its path or URL.

    With `sync`, what is written there has reached the disk when a write returns.
    """

    root: str
    sync: bool = True

    @property
    def local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return "://" not in self.root or self.root.startswith(SCHEME)

    def holds(self, path: str) -> bool:
        """Whether a path names this place or one in it, by whatever links both are named."""
        other = Files(path)
        if not (self.local and other.local):
            return path.startswith(f"{self.root.rstrip('/')}/")
        here, there = (os.path.realpath(it._path("")) for it in (self, other))
        return there == here or there.startswith(f"{here}/")

    def same_as(self, other: "Files") -> bool:
        """Whether both are one place, by whatever links they are named."""
        one, two = (os.path.realpath(it._path("")) if it.local else it.root.rstrip("/") for it in (self, other))
        return self.local == other.local and one == two

    def write(self, name: str, content: bytes, *, make: bool = True) -> None:
        """Write a file whole: a reader sees all of it or nothing. `make`: its folder too, if there is none."""
        path = self._path(name)
        if not self.local:
            _filesystem(self.root).pipe_file(path, content)
            return
        try:
            with self.stream(name) as file:
                file.write(content)
        except FileNotFoundError:
            if not make:
                raise
            folder = os.path.dirname(path)
            if self.sync:
                make_folder(folder)
            else:
                os.makedirs(folder, exist_ok=True)
            self.write(name, content, make=False)

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Write many files, some at a time: to wait for a disk or an object store takes longer than to write."""
        with ThreadPoolExecutor(WRITES) as pool:
            list(pool.map(self.write, contents, contents.values()))

    @property
    def unsynced(self) -> Self:
        """The same place, for what may be lost when the power is cut."""
        return replace(self, sync=False)

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file of any size piece by piece: a reader sees all of it or nothing, and nothing if it fails."""
        path = self._path(name)
        if not self.local:  # by way of a local file: an upload that is broken off would count as whole
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                _filesystem(self.root).put_file(file.name, path)
            return
        part = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            with open(part, "wb") as file:
                yield file
            (replace_file if self.sync else os.replace)(part, path)
        except Exception:  # what a kill leaves, `remove_partial` removes
            with suppress(OSError):
                os.remove(part)
            raise

    def upload(self, name: str, path: str | os.PathLike[str]) -> None:
        """Put a local file into an object store and read it back: it appears there when the upload ends, whole.

        Raises
        ------
        StoreError
            What is there then is not what was sent; it is removed.
        """
        _filesystem(self.root).put_file(os.fspath(path), self._path(name))
        _filesystem(self.root).invalidate_cache()
        with open(path, "rb") as here, self.open(name) as there:
            same = all(there.read(len(part)) == part for part in iter(partial(here.read, PIECE), b""))
            same = same and not there.read(1)
        if not same:
            self.remove(name)
            raise StoreError(f"{self._path(name)} does not read back as it was written")

    def open(self, name: str) -> IO[bytes]:
        """Open a file of any size to read it piece by piece. Raises FileNotFoundError."""
        return _filesystem(self.root).open(self._path(name), "rb")  # type: ignore[no-any-return]

    def read(self, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        filesystem = _filesystem(self.root)
        return filesystem.cat_file(self._path(name), **_at_once(filesystem))  # type: ignore[no-any-return]

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """Read many files, at the same time where an object store allows it. Raises FileNotFoundError."""
        if self.local or not names:
            return [self.read(name) for name in names]
        filesystem = _filesystem(self.root)
        found = filesystem.cat([self._path(name) for name in names], **_at_once(filesystem))
        return [found[self._path(name)] for name in names] if isinstance(found, dict) else [found]

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, without what was cut short; none where there is no such folder."""
        try:
            found = _filesystem(self.root).ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = (os.path.basename(path.rstrip("/")) for path in found)
        return [name for name in names if not CUT_SHORT.search(name)]

    def entries(self, folder: str) -> list[tuple[str, bool]]:
        """Return the names in a folder, without what was cut short, and whether each is a folder."""
        found = _filesystem(self.root).ls(self._path(folder), detail=True, refresh=True)
        named = [(os.path.basename(entry["name"].rstrip("/")), entry["type"] == "directory") for entry in found]
        return [(name, is_folder) for name, is_folder in named if name and not CUT_SHORT.search(name)]

    def sizes(self, folder: str) -> dict[str, int]:
        """Return all files below a folder with their sizes in bytes, by their path from there."""
        filesystem, base = _filesystem(self.root), self._path(folder)
        filesystem.invalidate_cache()
        found = filesystem.find(base, detail=True)
        return {path[len(base) :].lstrip("/"): int(metadata["size"]) for path, metadata in found.items()}

    def size(self, name: str) -> int | None:
        """Return how many bytes a file has; None: there is none."""
        filesystem = _filesystem(self.root)
        filesystem.invalidate_cache()
        try:
            return int(filesystem.size(self._path(name)) or 0)
        except FileNotFoundError:
            return None

    def listed(self, folders: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yield for each of these folders the files in it by name, with their sizes; none where there is no folder.

        Of an object store several folders are listed at a time, each by one LIST for each 1,000 files.
        """
        if self.local:
            yield from map(self._listed, folders)
            return
        with ThreadPoolExecutor(LISTS) as pool:
            yield from pool.map(self._listed, folders)

    def _listed(self, folder: str) -> dict[str, int]:
        path = self._path(folder)
        try:
            if self.local:
                with os.scandir(path) as entries:
                    return {e.name: e.stat().st_size for e in entries if not CUT_SHORT.search(e.name)}
            filesystem = _filesystem(self.root)
            found = filesystem.ls(path, detail=True, refresh=True)
            filesystem.invalidate_cache(path)  # it would keep what it has listed
        except FileNotFoundError:
            return {}
        return {os.path.basename(entry["name"]): int(entry["size"] or 0) for entry in found}

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield what a file of any size holds. Raises FileNotFoundError."""
        with self.open(name) as file:
            yield from iter(partial(file.read, PIECE), b"")

    def checksum(self, name: str) -> tuple[int, int]:
        """Return the size and the CRC-32C of a file. Raises FileNotFoundError."""
        size, digest = 0, 0
        for piece in self.pieces(name):
            size, digest = size + len(piece), google_crc32c.extend(digest, piece)
        return size, digest

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        filesystem = _filesystem(self.root)
        filesystem.invalidate_cache()
        return bool(filesystem.exists(self._path(name)))

    def stamp(self) -> str:
        """Tell this very file from what may take its place later. Raises FileNotFoundError."""
        filesystem, path = _filesystem(self.root), self._path("")
        filesystem.invalidate_cache()
        metadata = filesystem.info(path)
        known = [
            str(metadata[key]) for key in ("size", "ino", "mtime", "ETag", "LastModified", "created") if key in metadata
        ]
        return " ".join(known)

    def remove(self, name: str) -> None:
        """Remove a file or folder with all it holds, if it is there."""
        filesystem = _filesystem(self.root)
        if self.exists(name):
            try:
                filesystem.rm(self._path(name), recursive=True)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                    raise
                time.sleep(0.1)  # a late task of a stopped run has just written there; the next one is refused
                self.remove(name)
            filesystem.invalidate_cache()

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove many files, those that are there; an object store is asked by the thousand."""
        paths = [self._path(name) for name in names]
        if not self.local and paths:
            with suppress(FileNotFoundError):
                _filesystem(self.root).rm(paths)
            return
        for path in paths:
            with suppress(FileNotFoundError):
                os.remove(path)

    def remove_empty(self) -> None:
        """Remove the folder itself if nothing is in it; an object store has no empty folders."""
        if self.local:
            with suppress(OSError):
                os.rmdir(self._path(""))

    def remove_partial(self) -> None:
        """Remove what killed writers left behind on a local disk: nothing reads it, it only takes room."""
        if not self.local:
            return
        for folder, _, names in os.walk(self._path("")):
            for name in filter(CUT_SHORT.search, names):
                with suppress(FileNotFoundError):  # its writer may live, and just have finished
                    os.remove(os.path.join(folder, name))

    def lock(self) -> Callable[[], None]:
        """Keep every other process out that asks for the same folder; return what ends this.

        A killed process keeps no lock. An object store, and a disk without locks, keep nobody out.

        Raises
        ------
        BlockingIOError
            Another process has it.
        """
        path = self._path("")
        if not self.local or os.path.isfile(path):  # nobody fills a file: who reads it next will say so
            return lambda: None
        import fcntl

        made = not os.path.isdir(path)
        os.makedirs(path, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)  # the folder itself: a file for the lock would be left behind
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:  # a network disk without locks
            pass

        def release() -> None:
            with suppress(OSError):  # closing is not enough where a process that was just forked has the handle too
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)
            if made:
                self.remove_empty()

        return release

    def _path(self, name: str) -> str:
        base = _base(self.root)
        return f"{base.rstrip('/')}/{name}" if name else base


def full_path(path: str | os.PathLike[str]) -> str:
    """Return a local path in full, also of a `file://` URL and with `~`: workers may run elsewhere. Other URLs stay."""
    text = os.fspath(path)
    if not Files(text).local:
        return text
    return os.path.abspath(_base(text) if text.startswith(SCHEME) else os.path.expanduser(text))


def _at_once(filesystem: Any) -> dict[str, int]:
    """Return what lets s3fs get a file by one request; it would ask for the size first, to get large ones in parts."""
    return {"max_concurrency": 1} if "s3" in filesystem.protocol else {}


@lru_cache(maxsize=64)
def _filesystem(root: str) -> Any:
    return _located(root)[0]


@lru_cache(maxsize=64)
def _base(root: str) -> str:
    return str(_located(root)[1])


def _located(root: str) -> tuple[Any, str]:
    require_s3(root)
    try:
        return fsspec.core.url_to_fs(root)  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        raise StoreError(f"{root} cannot be written to: {error}") from error
