"""What a finished store holds, to the byte: `manifest.npz`, written last but the root's metadata.

Of each shard its size and CRC-32C, by level; of each other file its size and SHA-256, and what it holds, but of the
table of objects. The root's metadata stand there as they are once the store is complete. `manifest.copy.npz` is the
same once more: whatever single file is damaged, what it was is known.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .files import Files
from .metadata import group_path
from .sealed import pack, unpack
from .store import COPY, MANIFEST, MARKERS, ROOT, BlockIndex, Store, store_errors

NO_MANIFEST = (
    "both copies of the manifest are lost: nothing says what the store was; what made it makes it anew with --overwrite"
)
TABLE = "table.parquet"  # of objects: of any size, and so not kept here
READERS = 8  # files that are read at a time
FileDigest: TypeAlias = tuple[int, str]  # bytes, SHA-256


@dataclass(frozen=True, slots=True)
class ShardSums:
    """Sizes and digests of the shards of a level.

    Parameters
    ----------
    sizes
        int64 (row, column, array), in the order of `Store.array_names`: bytes; 0 where it is not known, or not planned.
    digests
        uint32, the same: CRC-32C of the whole shard.
    """

    sizes: NDArray[np.int64]
    digests: NDArray[np.uint32]

    @classmethod
    def none(cls, store: Store, level: int) -> Self:
        """Return what is known of no shard."""
        shape = (*store.grid(level), len(store.array_names))
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.uint32))

    def unknown(self, store: Store, level: int) -> list[BlockIndex]:
        """Return the planned blocks of the level whose shards are not known."""
        lacking = store.planned(level) & (self.sizes == 0).any(axis=-1)
        return [(level, row, column) for row, column in np.argwhere(lacking).tolist()]


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a store holds.

    Parameters
    ----------
    shards
        By level.
    files
        Every other file by its path in the store; not the manifest itself.
    kept
        What these hold, but the table of objects.
    """

    shards: tuple[ShardSums, ...]
    files: Mapping[str, FileDigest]
    kept: Mapping[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return it as a sealed `.npz`."""
        levels = {f"{what}/{level}": getattr(one, what) for level, one in enumerate(self.shards)
                  for what in ("sizes", "digests")}  # fmt: skip
        files = np.frombuffer(json.dumps(dict(self.files), sort_keys=True).encode(), np.uint8)
        kept = np.frombuffer(b"".join(self.kept.values()), np.uint8)
        sizes = {name: len(content) for name, content in self.kept.items()}
        return pack(
            {**levels, "files": files, "kept": kept, "names": np.frombuffer(json.dumps(sizes).encode(), np.uint8)}
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Self | None:
        """Return what `to_bytes` made bytes of; None where it is damaged."""
        found = unpack(content)
        if found is None:
            return None
        files = {
            name: (int(size), str(digest)) for name, (size, digest) in json.loads(found["files"].tobytes()).items()
        }
        levels = range(sum(name.startswith("sizes/") for name in found))
        shards = tuple(ShardSums(found[f"sizes/{n}"], found[f"digests/{n}"]) for n in levels)
        return cls(shards, files, _unpack_kept(found))


def _unpack_kept(found: Mapping[str, NDArray[Any]]) -> dict[str, bytes]:
    if "kept" not in found:  # as manifests had it at first
        return {}
    content, kept, at = found["kept"].tobytes(), {}, 0
    for name, size in json.loads(found["names"].tobytes()).items():
        kept[name], at = content[at : at + size], at + size
    return kept


def find_manifest(files: Files) -> tuple[Manifest | None, list[str]]:
    """Read the manifest of a store, or its copy; and return the names of those that are missing or damaged.

    None and no names: there is neither, as in stores of before.
    """
    found, damaged = None, []
    for name in (MANIFEST, COPY):
        with store_errors(files.root):
            try:
                made = Manifest.from_bytes(files.read(name))
            except (FileNotFoundError, NotADirectoryError):
                made = None
        if made is None:
            damaged.append(name)
        found = found or made
    return found, [] if not files.exists(MANIFEST) and not files.exists(COPY) else damaged


def write_manifest(store: Store, shards: tuple[ShardSums, ...], root: bytes) -> None:
    """Write the manifest of a store whose other files are all there.

    Parameters
    ----------
    store
        Whose.
    shards
        What is known of its shards, by level; the others are read.
    root
        The metadata of its root as they are to be.
    """
    for level, known in enumerate(shards):
        _read_unknown(store, level, known)
    files = store.files
    with ThreadPoolExecutor(READERS) as pool:
        names = [name for name in other_files(store) if name not in (ROOT, MANIFEST, COPY)]
        small = [name for name in names if name.split("/")[0] != TABLE]
        large = [name for name in names if name not in small]
        found = dict(zip(large, pool.map(lambda name: file_digest(files, name), large), strict=True))
        kept = {ROOT: root, **dict(zip(small, pool.map(files.read, small), strict=True))}
    found |= {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in kept.items()}
    content = Manifest(shards, found, kept).to_bytes()
    for name in (COPY, MANIFEST):
        files.write(name, content)


def _read_unknown(store: Store, level: int, known: ShardSums) -> None:
    """Read the shards of which nothing is known, as those of a run that older code has begun."""
    blocks = known.unknown(store, level)
    with ThreadPoolExecutor(READERS) as pool:
        for place, found in zip(blocks, pool.map(lambda place: shard_checksums(store, place), blocks), strict=True):
            known.sizes[place[1:]], known.digests[place[1:]] = zip(*found, strict=True)


def shard_checksums(store: Store, place: BlockIndex) -> tuple[tuple[int, int], ...]:
    """Read the shards of a block, and return of each what `Store.write` did. Raises FileNotFoundError."""
    level, row, column = place
    return tuple(store.files.checksum(store.shard_name(level, name, row, column)) for name in store.array_names)


def file_digest(files: Files, name: str) -> FileDigest:
    """Return the size and the SHA-256 of a file of any size."""
    size, digest = 0, hashlib.sha256()
    for piece in files.pieces(name):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


def other_files(store: Store) -> list[str]:
    """Return the paths of all files of a store that are neither shards nor of the run, sorted."""
    chunks = {"/".join(filter(None, (group_path(level), name, "c"))) for level in range(store.levels + 1)
              for name in store.array_names}  # fmt: skip
    return sorted(_below(store.files, "", {MARKERS, *chunks}))


def _below(files: Files, folder: str, left_out: set[str]) -> list[str]:
    found = []
    for name, is_folder in files.entries(folder):
        path = f"{folder}/{name}" if folder else name
        if path not in left_out:
            found += _below(files, path, left_out) if is_folder else [path]
    return found
