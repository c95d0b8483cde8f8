"""Damage in a running store, under a marker or a record of many: it is done again, or found by `verify`."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed import Client
from helpers import metadata, pixels, save, write_raster
from test_durable import content, stopped_after
from test_verify import flip

from models.errors import DamagedStepError
from pipeline import run, verify
from pipeline.jobs.kept import TRIES, again_if_damaged
from pipeline.store import ledger as ledgers

HOW = {"block": 128, "tile": 128, "engine": "torch", "threads": 1, "show": False}
SHARDS = ("class_map/c/0/1", "probability/c/0/0/2")


_METADATA = metadata("simple-unet")


def flipped(path: Path) -> None:
    flip(path, 1001)


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, client: Client) -> dict[str, Path]:
    """A whole store, and ones that were stopped when their markers lay in records, by how they were synced.

    The scene has 3 x 5 blocks, and 2 x 3 of its overview.
    """
    folder = tmp_path_factory.mktemp("torn")
    given = write_raster(folder / "scene.tif", pixels((3, 300, 530)), nodata=0), save(folder / "bundle", _METADATA)
    run(*given, folder / "whole.zarr", client=client, **HOW)
    for name, sync in (("synced", True), ("unsynced", False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledgers, "RECORD", 4)
            stopped_after(patch, 15)
            with pytest.raises(KeyboardInterrupt):
                run(*given, folder / f"{name}.zarr", client=client, sync=sync, **HOW)
        time.sleep(0.3)  # the worker is this process's: what it had begun, it ends
        assert len(list((folder / f"{name}.zarr/.swathe/records").iterdir())) >= 3
    return {path.stem: path for path in folder.iterdir()}


def go_on(begun: dict[str, Path], store: Path, client: Client) -> int:
    """Continue; return how many blocks had been done."""
    return run(begun["scene"], begun["bundle"], store, client=client, **HOW).resumed


@pytest.mark.parametrize("damage", [flipped, zeros, cut])
@pytest.mark.parametrize("shard", SHARDS)
def test_a_damaged_shard_that_is_recorded_is_done_again_where_it_was_not_synced(
    begun: dict[str, Path], tmp_path: Path, client: Client, shard: str, damage: Callable[[Path], None]
) -> None:
    store = shutil.copytree(begun["unsynced"], tmp_path / "m.zarr")
    damage(store / shard)
    assert go_on(begun, store, client) < 15
    assert content(store) == content(begun["whole"])


@pytest.mark.parametrize("damage", [flipped, zeros, cut])
@pytest.mark.parametrize("shard", SHARDS)
def test_a_damaged_shard_that_is_recorded_is_done_again_or_named_and_mended(
    begun: dict[str, Path], tmp_path: Path, client: Client, shard: str, damage: Callable[[Path], None]
) -> None:
    store = shutil.copytree(begun["synced"], tmp_path / "m.zarr")
    damage(store / shard)
    go_on(begun, store, client)
    found = verify(store, repair=True, client=client, show=False)
    assert found.whole, found.notes
    assert {one.name for one in found.repaired} <= {shard}
    if damage is cut:
        assert not found.repaired
    assert content(store) == content(begun["whole"])


def test_work_is_begun_again_for_each_step_that_is_damaged_and_ends_where_one_always_is() -> None:
    damaged = [f"step {number}" for number in range(300)]
    assert again_if_damaged(lambda: _do(damaged)) == "done"
    tried: list[int] = []
    with pytest.raises(DamagedStepError, match="always"):
        again_if_damaged(lambda: (tried.append(1), _do(["always"])))
    assert len(tried) == TRIES + 1


def _do(damaged: list[str]) -> str:
    if damaged:
        name = damaged[0] if damaged == ["always"] else damaged.pop()
        raise DamagedStepError(name)
    return "done"
