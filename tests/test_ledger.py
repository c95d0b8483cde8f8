"""What is done of a run: markers and the records that they go into, read again after any kill and any loss."""

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stores import TOWN
from test_durable import bucket  # noqa: F401

from models.encoding import Encoding
from models.metadata import ReceptiveField
from pipeline.cluster.connect import dask_client
from pipeline.grid.block_result import empty_result
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import make_plan
from pipeline.jobs.tasks import map_bounded
from pipeline.store import ledger as ledgers
from pipeline.store.files import Files
from pipeline.store.ledger import Ledger, Record, place_of
from pipeline.store.lifecycle import create_store, finish_store
from pipeline.store.metadata import StoreMetadata
from pipeline.store.store import BlockIndex, Store, Summary, marker_name

GEOBOX, BLOCK, LEVELS = GeoBox(100, 130), 16, 2


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def _small_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "RECORD", 7)


def begin(path: str, planned: NDArray[np.bool_] | None = None) -> Store:
    plan = make_plan(GEOBOX.shape, ReceptiveField(8, 8), tile=16, block=BLOCK)
    about = StoreMetadata(plan, Encoding(None, "uint8", (1,)), TOWN[:2], {"run": "this"}, levels=LEVELS)
    return create_store(path, GEOBOX, about, planned=planned)


def every_block(store: Store) -> list[BlockIndex]:
    return [(level, *place) for level in range(LEVELS + 1) for place in store.places(level)]


def summary_of(place: BlockIndex) -> Summary:
    level, row, column = place
    return Summary(*place, (row, column, level + 1), row + column / 100)


def do(store: Store, place: BlockIndex) -> Summary:
    """Do what a task does."""
    window = store.window(*place)
    store.write(place[0], window, empty_result(window.shape, store.encoding))
    store.mark_done(summary_of(place))
    return summary_of(place)


def markers(store: Store) -> list[str]:
    return [name for name in store.files.names(".swathe") if place_of(name)]


def check(found: Ledger, done: set[BlockIndex]) -> None:
    """A ledger knows these blocks and no others, and their totals."""
    for level, mask in enumerate(found.done):
        assert {(level, *place) for place in np.argwhere(mask).tolist()} == {p for p in done if p[0] == level}
    full = [summary_of(place) for place in done if place[0] == 0]
    assert found.pixels.tolist() == [sum(one.pixels[n] for one in full) for n in range(3)]
    for one in full:
        assert found.seconds[one.row, one.column] == np.float32(one.seconds)
    assert np.isfinite(found.seconds).sum() == len(full)


def test_markers_go_into_records(tmp_path):
    store = begin(str(tmp_path / "s.zarr"))
    mine, done = Ledger.read(store, 2), set()
    for number, place in enumerate(every_block(store), 1):
        mine.add(do(store, place))
        done.add(place)
        assert len(markers(store)) == number % 7
        assert len(store.files.names(".swathe/records")) == number // 7
    check(mine, done)
    check(Ledger.read(store, 2), done)


def test_markers_of_tasks_whose_client_has_gone_count_and_go_into_records(tmp_path):
    store, done = begin(str(tmp_path / "s.zarr")), set()
    for place in every_block(store)[:30]:
        do(store, place)
        done.add(place)
    assert len(markers(store)) == 30
    for _ in range(2):
        check(Ledger.read(store, 2), done)
        assert len(markers(store)) == 30 % 7


@pytest.mark.parametrize("way", ["missing", "empty"])
@pytest.mark.parametrize("name", ["class_map/c/0/1", "probability/c/0/0/1"])
def test_a_block_whose_shard_is_lost_is_open_again(tmp_path, way, name):
    store = begin(str(tmp_path / "s.zarr"))
    mine, done = Ledger.read(store, 2), set(every_block(store))
    for place in every_block(store):
        mine.add(do(store, place))
    shard = tmp_path / "s.zarr" / name
    shard.unlink() if way == "missing" else os.truncate(shard, 0)
    again = Ledger.read(store, 2)
    check(again, done - {(0, 0, 1)})
    again.add(do(store, (0, 0, 1)))
    check(again, done)
    check(Ledger.read(store, 2), done)


def test_what_cannot_be_read_is_done_again(tmp_path):
    """As after a power failure: a record or marker that is empty or cut."""
    store = begin(str(tmp_path / "s.zarr"))
    mine, blocks = Ledger.read(store, 2), every_block(store)
    for place in blocks[:16]:
        mine.add(do(store, place))
    records = sorted((tmp_path / "s.zarr/.swathe/records").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(records[0], 100)
    os.truncate(tmp_path / "s.zarr/.swathe" / marker_name(*blocks[15]), 0)
    check(Ledger.read(store, 2), {*blocks[7:15]})


@given(st.integers(1, 9), st.integers(1, 21), st.integers(0, 400), st.integers(0, 2**32))
def test_a_record_is_read_as_it_was_written_or_not_at_all(count, classes, cut, seed):
    random = np.random.default_rng(seed)
    numbers = random.integers(0, 2**40, (count, classes)).tolist()
    record = Record.of([Summary(0, n, 3, tuple(some), 0.5) for n, some in enumerate(numbers)])
    content = record.to_bytes()
    again = Record.from_bytes(content)
    assert again is not None
    np.testing.assert_array_equal(again.pixels, numbers)
    np.testing.assert_array_equal(again.places, record.places)
    assert Record.from_bytes(content[: min(cut, len(content) - 1)]) is None


def killed_at(patch: pytest.MonkeyPatch, write: int) -> None:
    """End the process before its nth change of what lies on the disk."""
    count = 0

    def stopping(function):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count > write:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    for name in ("replace", "remove"):
        patch.setattr(os, name, stopping(getattr(os, name)))


def kill_and_continue(path: str, planned: NDArray[np.bool_], seed: int, data: st.DataObject) -> None:
    """End the run again and again before any of its writes, and lose shards meanwhile; then let it end."""
    random, store = np.random.default_rng(seed), begin(path, planned)
    done, lost, begun = set[BlockIndex](), set[BlockIndex](), (0, 0, 0)
    for write in [*data.draw(st.lists(st.integers(0, 60), max_size=4)), 10_000]:
        with pytest.MonkeyPatch.context() as patch, suppress(Killed):
            killed_at(patch, write)
            mine = Ledger.read(store, 2)
            check(mine, done)
            left = [place for place in every_block(store) if place not in done]
            for number in random.permutation(len(left)).tolist():
                begun = left[number]
                summary = do(store, begun)
                done.add(begun)
                mine.add(summary)
        found = Ledger.read(store, 2)
        if begun in lost and found.done[begun[0]][begun[1:]]:
            done.add(begun)  # it was known to be done, and lacked nothing but the shards, which are there again
        check(found, done)
        if done and write < 10_000 and data.draw(st.booleans()):
            level, row, column = sorted(done)[data.draw(st.integers(0, len(done) - 1))]
            base = Path(path, "overviews", str(level)) if level else Path(path)
            (base / f"class_map/c/{row}/{column}").unlink()
            done.remove((level, row, column))
            lost.add((level, row, column))
    assert done == set(every_block(store))
    finish_store(store, {}, Ledger.read(store, 2).seconds)


def random_plan(share: float, seed: int) -> NDArray[np.bool_]:
    grid = (-(-GEOBOX.height // BLOCK), -(-GEOBOX.width // BLOCK))
    return np.random.default_rng(seed).random(grid) < share


@given(st.data(), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**32))
@settings(max_examples=6)
def test_killed_between_any_two_writes_nothing_that_is_done_is_lost(tmp_path_factory, data, share, seed):
    kill_and_continue(str(tmp_path_factory.mktemp("k") / "s.zarr"), random_plan(share, seed), seed, data)


@pytest.mark.slow
@given(st.data(), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**32))
@settings(max_examples=100)
def test_killed_between_any_two_writes_of_more_runs(tmp_path_factory, data, share, seed):
    kill_and_continue(str(tmp_path_factory.mktemp("k") / "s.zarr"), random_plan(share, seed), seed, data)


def test_in_an_object_store(tmp_path):
    store = begin("memory://swathe-ledger/s.zarr")
    mine, blocks = Ledger.read(store, 2), every_block(store)
    for place in blocks[:40]:
        mine.add(do(store, place))
    assert len(markers(store)) == 40 % 7
    check(Ledger.read(store, 2), set(blocks[:40]))
    Files(store.path).remove("class_map/c/0/2")
    check(Ledger.read(store, 2), set(blocks[:40]) - {(0, 0, 2)})
    Files(store.path).remove("")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of moto's
def test_the_requests_that_s3_is_asked(bucket, monkeypatch):  # noqa: F811
    """As the docstring of `ledger` says: per block few, and none for blocks that are not planned."""
    from aiobotocore.client import AioBaseClient

    planned = np.zeros((7, 9), bool)
    planned[2:5, 3:7] = True
    store = begin("s3://swathe-test/s.zarr", planned)
    asked: Counter[str] = Counter()
    real = AioBaseClient._make_api_call

    async def make_call(self, operation, *args):
        asked[operation] += 1
        return await real(self, operation, *args)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", make_call)
    mine, blocks = Ledger.read(store, 2), every_block(store)
    do(store, blocks[0])  # opens the arrays
    asked.clear()
    for place in blocks[1:7]:
        mine.add(do(store, place))
    assert asked == {"PutObject": 18, "GetObject": 6}
    asked.clear()
    mine.add(do(store, blocks[7]))
    assert asked == {"PutObject": 3 + 1, "GetObject": 1 + 1, "DeleteObjects": 1}
    assert len(markers(store)) == 1
    asked.clear()
    check(Ledger.read(store, 2), set(blocks[:8]))
    rows = sum(int(store.planned(level).any(axis=1).sum()) for level in range(LEVELS + 1))
    assert asked["GetObject"] == 2  # the record and the marker
    assert asked["ListObjectsV2"] <= 2 * 2 * rows + 2
    assert set(asked) == {"GetObject", "ListObjectsV2"}


def test_nothing_is_listed_where_nothing_is_planned(tmp_path, monkeypatch):
    planned = np.zeros((7, 9), bool)
    planned[4, 3] = True
    store = begin(str(tmp_path / "s.zarr"), planned)
    Ledger.read(store, 2).add(do(store, (0, 4, 3)))
    asked, real = [], Files._listed
    monkeypatch.setattr(Files, "_listed", lambda self, folder: asked.append(folder) or real(self, folder))
    check(Ledger.read(store, 2), {(0, 4, 3)})
    assert asked == [
        "class_map/c/4", "probability/c/0/4", "overviews/1/class_map/c/2", "overviews/1/probability/c/0/2",
        "overviews/2/class_map/c/1", "overviews/2/probability/c/0/1",
    ]  # fmt: skip


def test_the_scheduler_keeps_nothing_of_tasks_that_are_done():
    with dask_client(None, 2) as client:
        assert sorted(map_bounded(client, _item, None, range(120), key="swathe-flat")) == list(range(120))
        assert isinstance(client.cluster, LocalCluster)
        spans = client.cluster.scheduler.extensions["spans"].spans.values()
        assert 1 <= len(spans) <= 60  # far fewer than tasks; each moment without a task begins another
        assert sum(len(span.metadata["collections"]) for span in spans) == 0


def _item(_: None, item: int) -> int:
    return item
