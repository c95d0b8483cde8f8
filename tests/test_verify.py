"""Whether what was written is as it was, and what is damaged mended, to the bytes of before."""

from pathlib import Path

import numpy as np
import pytest
from stores import write_store

from pipeline import verify, write_objects
from pipeline.postprocess.clean import write_clean
from pipeline.store.manifest import COPY, MANIFEST

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store, cleaned, and its objects, with their table in one file."""
    folder = tmp_path_factory.mktemp("made")
    pixels = RNG.integers(0, 3, (40, 40)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    write_store(folder / "m.zarr", pixels, probability=RNG.integers(0, 250, pixels.shape).astype(np.uint8))
    write_clean(folder / "m.zarr", folder / "c.zarr", min_object=40, show=False)
    write_objects(folder / "c.zarr", folder / "o.zarr", show=False)
    return folder


def content(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def flip(path: Path, bit: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    path.write_bytes(damaged)


@pytest.mark.parametrize("name", ["c.zarr", "o.zarr"])
def test_every_file_that_is_flipped_is_named_and_made_again(made: Path, name: str) -> None:
    store, before = made / name, content(made / name)
    assert verify(store, show=False).whole
    for number, path in enumerate(before):
        flip(store / path, 7919 * number)
    found = verify(store, show=False)
    assert {problem.name for problem in found.problems} == {MANIFEST, COPY}
    assert "both copies of the manifest are lost" in found.notes  # nothing can be known without them
    (store / COPY).write_bytes(before[COPY])
    found = verify(store, repair=True, show=False)
    assert found.whole, (found.problems, found.notes)
    assert {problem.name for problem in found.repaired} == {*before} - {COPY}
    assert content(store) == before
