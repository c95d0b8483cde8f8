"""The parts of what Swathe has written, and whether each is as it was written."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import google_crc32c
import numpy as np

from models.errors import StoreError

from .files import Files
from .manifest import Manifest
from .metadata import StoreMetadata
from .store import COPY, MANIFEST, MARKERS, ROOT, BlockIndex, Store, store_from

SHARD = re.compile(r"(?:overviews/(\d+)/)?(class_map|probability|objects)/c/(?:0/)?(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """A file, and what it should be.

    Parameters
    ----------
    name
        Its path in the store or folder.
    size
        Bytes; None: not known.
    digest
        CRC-32C of a shard as 8 hexadecimal digits, else SHA-256.
    """

    name: str
    size: int | None
    digest: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A part that is not as it was written.

    Parameters
    ----------
    name
        Its path.
    what
        `missing`, `damaged` or `foreign`.
    """

    name: str
    what: Literal["missing", "damaged", "foreign"]

    def __str__(self) -> str:
        return f"{self.what}: {self.name}"


def opened_by(path: str, manifest: Manifest) -> tuple[Store, StoreMetadata]:
    """Open a store by what its manifest keeps of it, whatever has become of its own metadata. Raises StoreError."""
    reference = f"spatial_ref/{ROOT}"
    if not {ROOT, reference} <= manifest.kept.keys():
        raise StoreError(f"{path} has a manifest of before, without its metadata; make it anew to verify it")
    return store_from(path, json.loads(manifest.kept[ROOT])["attributes"], manifest.kept[reference])


def shard_places(name: str) -> tuple[BlockIndex, str] | None:
    """Return the block and the array that a shard's path is of; None: it is no shard's."""
    found = SHARD.fullmatch(name)
    return None if found is None else ((int(found[1] or 0), int(found[3]), int(found[4])), found[2])


def parts_of(store: Store, manifest: Manifest) -> Iterator[Part]:
    """Yield what a store should hold; not the manifest."""
    for name, (size, digest) in sorted(manifest.files.items()):
        yield Part(name, size, digest)
    for level, sums in enumerate(manifest.shards):
        for row, column, number in np.argwhere(sums.sizes > 0).tolist():
            name = store.shard_name(level, store.array_names[number], row, column)
            place = (row, column, number)
            yield Part(name, int(sums.sizes[place]), f"{int(sums.digests[place]):08x}")


def check_parts(files: Files, parts: Iterable[Part]) -> list[Problem]:
    """Read files; return what is wrong with them. Raises what a disk or an object store does."""
    return [problem for part in parts if (problem := _check(files, part)) is not None]


def _check(files: Files, part: Part) -> Problem | None:
    size, checksum, digest = 0, 0, hashlib.sha256()
    is_crc = len(part.digest) == 8
    try:
        for piece in files.pieces(part.name):
            size += len(piece)
            if is_crc:
                checksum = google_crc32c.extend(checksum, piece)
            else:
                digest.update(piece)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Problem(part.name, "missing")
    found = f"{checksum:08x}" if is_crc else digest.hexdigest()
    right = found == part.digest and part.size in (None, size)
    return None if right else Problem(part.name, "damaged")


def check_sizes(parts: Iterable[Part], there: Mapping[str, int]) -> list[Problem]:
    """Compare sizes alone; of a file whose size is not known, whether it is there and not empty."""
    found = []
    for part in parts:
        size = there.get(part.name)
        if size is None:
            found.append(Problem(part.name, "missing"))
        elif size != part.size and (part.size is not None or size == 0):
            found.append(Problem(part.name, "damaged"))
    return found


def foreign(names: Iterable[str], there: Iterable[str]) -> list[Problem]:
    """Return the files that are there and are none of these; what a run keeps beside is none of them either."""
    left = set(there).difference(names, (MANIFEST, COPY))
    return [Problem(name, "foreign") for name in sorted(left) if not name.startswith(f"{MARKERS}/")]
