"""Small files beside a store's arrays, on a local disk or an object store: written whole or not at all.

Knows names and bytes, nothing of what they mean.
"""

import os
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fsspec

from models.errors import StoreError


@dataclass(frozen=True, slots=True)
class Files:
    """A folder on a local disk, or a prefix in an object store, by its path or URL."""

    root: str

    @property
    def local(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return "://" not in self.root

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole: a reader sees all of it or nothing."""
        path = self._path(name)
        if not self.local:
            _filesystem(self.root).pipe_file(path, content)
            return
        part = f"{path}.{uuid.uuid4().hex}.partial"
        try:
            with open(part, "wb") as file:
                file.write(content)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(part, "wb") as file:
                file.write(content)
        os.replace(part, path)

    def read(self, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        content: bytes = _filesystem(self.root).cat_file(self._path(name))
        return content

    def names(self, folder: str) -> list[str]:
        """Give the names of the files in a folder, without what was cut short; empty where there is no such folder."""
        try:
            found = _filesystem(self.root).ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return [
            name for name in (os.path.basename(path.rstrip("/")) for path in found) if not name.endswith(".partial")
        ]

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is there."""
        filesystem = _filesystem(self.root)
        filesystem.invalidate_cache()
        return bool(filesystem.exists(self._path(name)))

    def remove(self, name: str = "") -> None:
        """Remove a file or folder with all it holds, if it is there."""
        filesystem = _filesystem(self.root)
        if self.exists(name):
            filesystem.rm(self._path(name), recursive=True)
            filesystem.invalidate_cache()

    def remove_partial(self) -> None:
        """Remove what killed writers left behind on a local disk: nothing reads it, it only takes room."""
        if not self.local:
            return
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.endswith(".partial"):
                    os.remove(os.path.join(folder, name))

    def _path(self, name: str) -> str:
        base = _base(self.root)
        return f"{base.rstrip('/')}/{name}" if name else base


@lru_cache(maxsize=64)
def _filesystem(root: str) -> Any:
    return _located(root)[0]


@lru_cache(maxsize=64)
def _base(root: str) -> str:
    return str(_located(root)[1])


def _located(root: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(root)  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        raise StoreError(f"{root} cannot be written to: {error}") from error
