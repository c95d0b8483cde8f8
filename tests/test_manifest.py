"""What a finished store says that it holds, and runs that older code has begun."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from test_ledger import begin, do, every_block

from pipeline.store.ledger import Ledger
from pipeline.store.lifecycle import finish_store
from pipeline.store.manifest import Manifest, find_manifest
from pipeline.store.store import COPY, MANIFEST, OF_BEFORE, Store, Summary, marker_name, open_store

Done = Callable[[Store], None]


def as_now(store: Store) -> None:
    for place in every_block(store):
        do(store, place)


def as_before(store: Store) -> None:
    """Without shards and checksums in the markers."""
    for place in every_block(store):
        summary = do(store, place)
        said = json.dumps({name: getattr(summary, name) for name in OF_BEFORE})
        store.files.write(f".swathe/{marker_name(*place)}", said.encode())


@pytest.mark.parametrize("mark", [as_now, as_before])
def test_a_manifest_names_every_file_with_its_size_and_digest(tmp_path: Path, mark: Done) -> None:
    store = begin(str(tmp_path / "s.zarr"))
    mark(store)
    ledger = Ledger.read(store, 2)
    assert all(level.all() for level in ledger.done)
    finish_store(store, {"pixels": {}}, ledger.seconds, ledger.shards)
    manifest, damaged = find_manifest(open_store(store.path)[0].files)
    assert manifest is not None
    assert not damaged
    root = Path(store.path)
    named = {}
    for level, row, column in every_block(store):
        for number, array in enumerate(store.array_names):
            sums = manifest.shards[level]
            named[store.shard_name(level, array, row, column)] = (
                sums.sizes[row, column, number],
                sums.digests[row, column, number],
            )
    for name, (size, digest) in named.items():
        content = (root / name).read_bytes()
        assert (size, digest) == (len(content), google_crc32c.value(content))
    for name, (size, digest) in manifest.files.items():
        content = (root / name).read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files == {*named, *manifest.files, MANIFEST, COPY}


def test_a_flipped_manifest_is_not_believed() -> None:
    content = bytearray(Manifest((), {"zarr.json": (2, "ab")}).to_bytes())
    assert Manifest.from_bytes(bytes(content)) is not None
    for place in range(len(content)):
        content[place] ^= 1 << place % 8
        assert Manifest.from_bytes(bytes(content)) is None
        content[place] ^= 1 << place % 8


def test_a_flipped_marker_is_not_believed() -> None:
    content = bytearray(Summary(0, 3, 4, (5, 6, 7), 0.25, shards=((100, 2**32 - 1), (70, 3))).marker())
    assert Summary.from_marker((0, 3, 4), bytes(content)) is not None
    for place in range(len(content)):
        for bit in range(8):
            content[place] ^= 1 << bit
            found = Summary.from_marker((0, 3, 4), bytes(content))
            assert found is None, (place, bit, bytes(content))
            content[place] ^= 1 << bit
    for nothing in (b"", b"{}", b"[]", b"null", b"3", bytes(40), bytes(content[:-9])):
        assert Summary.from_marker((0, 3, 4), nothing) is None


def test_seconds_of_blocks_are_kept(tmp_path: Path) -> None:
    store = begin(str(tmp_path / "s.zarr"))
    as_now(store)
    ledger = Ledger.read(store, 2)
    finish_store(store, {"pixels": {}}, ledger.seconds, ledger.shards)
    assert np.array_equal(open_store(store.path)[0].block_seconds(), ledger.seconds)
