"""Which files a pattern names, and which lie in a folder or an archive: for scenes that are more than one file.

Archives are not unpacked: GDAL reads their files where they lie, by the prefixes `/vsizip/` and `/vsitar/`.
"""

import glob
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import fsspec

from models.errors import SceneError
from models.limits import refuse_special

from .content_id import fsspec_options
from .gdal import is_remote, natural_order, printable
from .places import reach

GDAL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]+:.+")  # as GTI:index.gpkg or NETCDF:file.nc:variable
MOST_FILES = 20_000
DEPTH = 6  # folders in folders: a SAFE folder has 5
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
LARGEST = 2**23  # bytes of a metadata file; those of ESA and USGS have some 100 kB


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder or an archive.

    Parameters
    ----------
    path
        Of the folder or archive, in full.
    names
        Of the files, relative to it, with `/` between folders; numbers sorted by value.
    root
        What GDAL opens the files under.
    """

    path: str
    names: tuple[str, ...]
    root: str

    def place(self, name: str) -> str:
        """Return the path by which GDAL opens a file."""
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """Return the bytes of a small file. Raises SceneError if it is large, or cannot be read."""
        try:
            with self._opened(name) as file:
                content = file.read(LARGEST + 1)
        except SceneError:
            raise
        except Exception as error:  # of zipfile, tarfile, fsspec and each kind of server
            raise SceneError(f"{self.place(name)} cannot be read: {printable(str(error))[:200]}") from error
        if len(content) > LARGEST:
            raise SceneError(f"{self.place(name)} is larger than metadata are: more than {LARGEST:,} bytes")
        return content

    @contextmanager
    def _opened(self, name: str) -> Iterator[IO[bytes]]:
        if self.root.startswith("/vsizip/"):
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
                yield file
        elif self.root.startswith("/vsitar/"):
            with tarfile.open(self.path, "r:") as tar:
                if (member := tar.extractfile(name)) is None:
                    raise FileNotFoundError(name)
                yield member
        elif is_remote(self.root):
            with fsspec.open(self.place(name), "rb", **fsspec_options(self.root)) as file:
                yield file
        else:
            refuse_special(self.place(name), SceneError)
            with open(self.place(name), "rb") as file:
                yield file


def is_archive(path: str) -> bool:
    """Whether a path is an archive's, by its ending."""
    return path.lower().endswith((".zip", ".tar", *COMPRESSED))


def list_files(path: str) -> Listing:
    """List a folder, also a remote one, or an archive.

    Raises
    ------
    SceneError
        It cannot be listed, or holds too many files; an archive is compressed as a whole, so that nothing can be read
        from its middle.
    """
    if is_remote(path):
        return _list_remote(path.rstrip("/"))
    path = os.path.abspath(path)
    if path.lower().endswith(COMPRESSED):
        raise SceneError(f"{path} is compressed as a whole: unpack it, and give the folder")
    if os.path.isdir(path):
        return Listing(path, _sorted(path, _walk(path)), path)
    refuse_special(path, SceneError)
    try:
        if path.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                names, root = [i.filename for i in archive.infolist() if not i.is_dir()], f"/vsizip/{path}"
        else:
            with tarfile.open(path, "r:") as archive:
                names, root = [m.name.removeprefix("./") for m in archive if m.isfile()], f"/vsitar/{path}"
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise SceneError(f"{path} cannot be read as an archive: {printable(str(error))[:200]}") from error
    return Listing(path, _sorted(path, iter(names)), root)


def _walk(path: str) -> Iterator[str]:
    for folder, folders, files in os.walk(path):
        inside = os.path.relpath(folder, path).replace(os.sep, "/")
        if inside.count("/") >= DEPTH - 1:
            folders.clear()
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if os.path.islink(whole := os.path.join(folder, name)) and not name.startswith("."):
                reach(whole, path)
            yield name if inside == "." else f"{inside}/{name}"


def _list_remote(path: str) -> Listing:
    if path.startswith(("http:", "https:", "/vsi")):
        raise SceneError(f"{path} cannot be listed, for web servers list nothing: give its files, or a STAC Item")
    try:
        filesystem, inside = fsspec.core.url_to_fs(path, **fsspec_options(path))
        found = [name.removeprefix(inside.rstrip("/") + "/") for name in filesystem.find(inside, maxdepth=DEPTH)]
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{path} cannot be listed: {printable(str(error))[:200]}") from error
    if not found:
        raise SceneError(f"no files under {path}")
    return Listing(path, _sorted(path, iter(found)), path)


def _sorted(path: str, names: Iterator[str]) -> tuple[str, ...]:
    """Leave out what leads out of the folder, and what is hidden."""
    kept = []
    for name in names:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts or not name.isprintable() or parts[-1].startswith("."):
            continue
        kept.append(name)
        if len(kept) > MOST_FILES:
            raise SceneError(f"{path} holds more than {MOST_FILES:,} files; give the folder of one scene")
    return tuple(sorted(kept, key=natural_order))


def expand(pattern: str) -> list[str]:
    """Return the files that a path or pattern names, in the order of their names, numbers by value.

    Raises
    ------
    SceneError
        Nothing there.
    """
    pattern = os.path.expanduser(pattern.removeprefix("file://"))
    if is_remote(pattern) and "*" in pattern and not pattern.startswith("http"):
        return _expand_remote(pattern)
    if is_remote(pattern) or os.path.isfile(pattern) or pattern.startswith("/vsi"):
        return [pattern]
    if os.path.isdir(pattern):
        raise SceneError(f"{pattern} is a folder: a scene is one folder, or files")
    found = [path for path in glob.glob(pattern) if os.path.isfile(path)]
    if found:
        return sorted(found, key=natural_order)
    if GDAL_NAME.fullmatch(pattern):
        return [pattern]
    folder = Path(pattern).parent
    why = "no file matches the pattern" if glob.has_magic(pattern) else "no such file"
    raise SceneError(f"{why}: {printable(pattern)}" + ("" if folder.exists() else f" (and no folder {folder})"))


def _expand_remote(pattern: str) -> list[str]:
    try:
        filesystem, inside = fsspec.core.url_to_fs(pattern, **fsspec_options(pattern))
        found = [filesystem.unstrip_protocol(path) for path in filesystem.glob(inside)]
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{pattern} cannot be listed: {printable(str(error))[:200]}") from error
    if not found:
        raise SceneError(f"no file matches the pattern: {pattern}")
    return sorted(found, key=natural_order)
