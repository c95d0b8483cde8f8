"""The order in which a store reaches the disk: data, markers, `complete`; and that nothing waits without sync."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import metadata, pixels, save, write_raster
from test_durable import stopped_after

from pipeline import run
from pipeline.cli.app import cli

HOW = {"block": 128, "tile": 128, "engine": "torch", "threads": 1, "show": False}
SHARD = re.compile(r"(?:overviews/(\d+)/)?(?:class_map|probability)/c/(?:0/)?(\d+)/(\d+)")
Call = tuple[str, str]


class Recorded(NamedTuple):
    """What was synced and named in turn, what files were called before, and the markers at each change of the root."""

    calls: list[Call]
    parts: dict[str, str]
    markers: list[int]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A scene of 3 x 5 blocks and 2 x 3 of its overview, and a bundle."""
    folder = tmp_path_factory.mktemp("given")
    write_raster(folder / "scene.tif", pixels((3, 300, 530)), nodata=0)
    save(folder / "bundle", metadata("simple-unet"))
    return folder / "scene.tif", folder / "bundle"


@contextmanager
def recorded(store: Path) -> Iterator[Recorded]:
    """Record what is synced and named, by its path in the store."""
    calls: list[Call] = []
    parts: dict[str, str] = {}
    markers: list[int] = []
    fsync, replace, everything = os.fsync, os.replace, os.sync

    def inside(path: object) -> str:
        return os.path.relpath(os.fspath(path), store)  # type: ignore[call-overload]

    def synced(handle: int) -> None:
        fsync(handle)
        calls.append(("sync", inside(os.readlink(f"/proc/self/fd/{handle}"))))

    def replaced(part: object, target: object) -> None:
        replace(part, target)  # type: ignore[arg-type]
        calls.append(("name", inside(target)))
        parts[inside(target)] = inside(part)
        if inside(target) == "zarr.json":
            markers.append(len(list(store.glob(".swathe/*.json"))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "fdatasync", synced)
        patch.setattr(os, "sync", lambda: (everything(), calls.append(("sync", "everything"))))
        patch.setattr(os, "replace", replaced)
        yield Recorded(calls, parts, markers)


def test_data_are_synced_before_their_marker_and_all_before_complete(
    given: tuple[Path, Path], tmp_path: Path, client: Client
) -> None:
    store = tmp_path / "m.zarr"
    with recorded(store) as (calls, parts, markers):
        run(*given, store, client=client, **HOW)
    when = {call: number for number, call in enumerate(calls)}
    first = {call: number for number, call in reversed(list(enumerate(calls)))}
    complete = when["name", "zarr.json"]
    shards = [name for name in parts if SHARD.fullmatch(name)]
    assert len(shards) == 2 * (15 + 6)
    for name in shards:
        level, row, column = SHARD.fullmatch(name).groups()
        marker = when["name", f".swathe/{level or 0}.{row}.{column}.json"]
        named = when["name", name]
        assert first["sync", parts[name]] < named, name
        after = [n for n, call in enumerate(calls) if call == ("sync", os.path.dirname(name)) and n > named]
        assert after[0] < marker < complete, name
    for name in ("manifest.npz", "manifest.copy.npz", "blocks/seconds/c/0/0", "x/c/0", "class_map/zarr.json"):
        assert first["sync", parts[name]] < when["name", name] < complete
    assert first["sync", parts["zarr.json"]] < complete < when["sync", "."]  # the folder has its name
    assert markers == [0, 0, 15 + 6]  # they are there until it is complete
    folders = {os.path.dirname(name) for name in parts if not name.startswith(".swathe")}
    for folder in filter(None, folders):  # the folders' own names are on the disk, too
        above = os.path.dirname(folder) or "."
        assert ("sync", above) in first, folder
    for folder in {os.path.dirname(name) for name in shards}:  # also what a killed task may have named
        assert when["name", "manifest.copy.npz"] < when["sync", folder] < complete, folder


@pytest.mark.parametrize("how", ["python", "command"])
def test_nothing_waits_for_the_disk_without_sync(
    given: tuple[Path, Path], tmp_path: Path, client: Client, how: str
) -> None:
    store = tmp_path / "m.zarr"
    with recorded(store) as (calls, _, _):
        if how == "python":
            run(*given, store, client=client, sync=False, **HOW)
        else:
            words = ["segment", given[0], "-m", given[1], "-o", store, "--no-sync", "-q", "--engine", "torch"]
            done = CliRunner().invoke(cli, [str(word) for word in words])
            assert done.exit_code == 0, done.output
    assert ("name", "class_map/c/0/0") in calls
    assert [name for what, name in calls if what == "sync"] == []


def test_what_was_begun_without_sync_is_synced_as_a_whole_before_complete(
    given: tuple[Path, Path], tmp_path: Path, client: Client
) -> None:
    store = tmp_path / "m.zarr"
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            run(*given, store, client=client, sync=False, **HOW)
    with recorded(store) as (calls, _, _):
        run(*given, store, client=client, **HOW)
    when = {call: number for number, call in enumerate(calls)}
    assert when["sync", "everything"] < when["name", "zarr.json"]
