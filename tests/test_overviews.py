"""Overviews made while the full resolution is: in which order, from memory or from the store, always the same bytes."""

import random
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import TOWN
from test_store import ABOUT, answer, begin, fill

from models.encoding import Encoding
from models.metadata import ReceptiveField
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import make_plan
from pipeline.jobs.block_order import BlockOrder
from pipeline.store.halves import HalfCache, keep_half, make_overview
from pipeline.store.ledger import Ledger
from pipeline.store.lifecycle import create_store
from pipeline.store.metadata import StoreMetadata
from pipeline.store.planned import by_level, count_below
from pipeline.store.store import Store, Summary

BOTH = Encoding(None, "uint8", (0, 1))


def pyramid(path: str, shape: tuple[int, int], *, block: int = 64, levels: int = 3, stride: int = 8) -> Store:
    """A store that is to be filled; `path` need not be there for what does no reading."""
    plan = make_plan(shape, ReceptiveField(stride, 8), tile=32, block=block)
    return Store(path, plan, GeoBox(*shape), BOTH, levels, "run")


def below(store: Store, block: tuple[int, int, int]) -> set[tuple[int, int, int]]:
    level, row, column = block
    rows, columns = store.grid(level - 1)
    four = ((2 * row + r, 2 * column + c) for r in (0, 1) for c in (0, 1))
    return {(level - 1, r, c) for r, c in four if r < rows and c < columns}


@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(0, 3), st.integers(1, 12), st.integers(0, 2**32), st.data()
)
def test_each_block_is_given_once_and_after_those_below_it(height, width, levels, across, seed, data):
    chance = random.Random(seed)
    store = pyramid("nowhere", (height, width), levels=levels)
    wanted = np.random.default_rng(seed).random(store.grid(0)) < data.draw(st.sampled_from([0.02, 0.5, 1.0]))
    planned = by_level(wanted, levels)
    every = [(level, *place) for level, mask in enumerate(planned) for place in np.argwhere(mask).tolist()]
    share = data.draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    done = {block for block in every if chance.random() < share}
    left = [mask.copy() for mask in planned]
    for level, row, column in done:
        left[level][row, column] = False
    order, finished, under_way, window = BlockOrder(left, across), set(done), [], chance.randint(1, 6)
    while True:
        while len(under_way) < window and (block := next(order, None)) is not None:
            assert block not in finished
            assert block[0] == 0 or below(store, block) & set(every) <= finished
            under_way.append(block)
        if not under_way:
            break
        block = under_way.pop(chance.randrange(len(under_way)))
        finished.add(block)
        order.finish(block)
    assert finished == set(every)


def test_few_blocks_wait_for_others():
    """What is held grows with a row of blocks, not with their number."""
    held = []
    for rows in (20, 80):
        store = pyramid("nowhere", (rows * 64, 30 * 64), levels=5)
        blocks = by_level(np.ones(store.grid(0), bool), 5)
        order, most = BlockOrder(blocks, 7), 0
        whole = count_below(blocks[0])
        for block in order:
            order.finish(block)
            left = order._left[0]
            most = max(most, int(((left > 0) & (left < whole)).sum()))
        held.append(most)
    assert held == [3, 3]  # seven across are taken for six: two rows of a strip make whole squares


def make_all(store: Store, whole: BlockResult, cache: HalfCache, seed: int, stop: int | None = None) -> None:
    """Do what a run does, one block at a time in any order that is allowed, until it is stopped."""
    order = BlockOrder([~done for done in Ledger.read(store, 2).done], 4)
    under_way, chance = [], random.Random(seed)
    for count in count_from(0):
        under_way += islice(order, 5 - len(under_way))
        if not under_way or count == stop:
            return
        block = under_way.pop(chance.randrange(len(under_way)))
        window = store.window(*block)
        if block[0]:
            result = make_overview(store, block, cache)
        else:
            result = BlockResult(whole.class_map[window.slices], whole.probability[(..., *window.slices)])
        store.write(block[0], window, result)
        store.mark_done(Summary(*block, (1, 2, 3), 0.1))
        keep_half(store, block, result, cache)
        order.finish(block)


def shards(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in Path(store.path).rglob("*")
        if path.is_file() and "c" in path.parts
    }


def made(path: Path, shape: tuple[int, int], *, block: int, stride: int) -> Store:
    plan = make_plan(shape, ReceptiveField(stride, 8), tile=32, block=block)
    about = {**ABOUT, "levels": 3}
    return create_store(str(path), GeoBox(*shape), StoreMetadata(plan, BOTH, TOWN[:2], **about))


@pytest.mark.parametrize(("block", "stride"), [(32, 8), (25, 1)])
@pytest.mark.parametrize("limit", [2**26, 3000, 0])
def test_memory_and_store_give_the_same_bytes(tmp_path, block, stride, limit):
    """Halves all in memory, some, or none; a block of an odd side, whose squares lie in two; stopped at any moment."""
    shape = (150, 211)
    whole, plain = answer(shape, BOTH), made(tmp_path / "plain.zarr", shape, block=block, stride=stride)
    fill(plain, whole)
    expected = shards(plain)
    for seed, stop in enumerate([None, 3, 20, 48, 57]):
        store = made(tmp_path / f"{stop}.zarr", shape, block=block, stride=stride)
        cache = HalfCache(limit)
        if stop is not None:
            make_all(store, whole, cache, seed, stop)
            cache = HalfCache(limit)  # of another process
        make_all(store, whole, cache, seed + 50)
        assert shards(store) == expected
        assert cache.size <= limit


def test_nothing_is_read_back_while_it_is_in_memory(tmp_path, monkeypatch):
    store, whole = made(tmp_path / "s.zarr", (150, 211), block=32, stride=8), answer((150, 211), BOTH)
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("it is read from the store"))
    cache = HalfCache()
    make_all(store, whole, cache, 0)
    assert cache.size == 0  # each half is taken once


def test_a_store_made_anew_gets_no_half_of_the_one_before(tmp_path):
    cache, shape = HalfCache(), (64, 64)
    old = begin(tmp_path / "s.zarr", shape, block=32)
    keep_half(replace(old, levels=1), (0, 0, 0), answer((32, 32), old.encoding), cache)
    assert cache.size
    new, whole = begin(tmp_path / "s.zarr", shape, block=32), answer(shape, old.encoding, seed=1)
    fill(new, whole)
    new = replace(new, levels=1)
    found, expected = make_overview(new, (1, 0, 0), cache), make_overview(new, (1, 0, 0), HalfCache())
    np.testing.assert_array_equal(found.class_map, expected.class_map)
    np.testing.assert_array_equal(found.probability, expected.probability)


def test_the_oldest_halves_go_when_there_is_no_room():
    cache = HalfCache(limit=250)
    half = BlockResult(np.zeros((10, 10), np.uint8), None)
    for column in range(3):
        cache.put(("s", "run", (0, 0, column)), half)
    assert cache.size == 200
    assert cache.take(("s", "run", (0, 0, 0))) is None
    assert cache.take(("s", "run", (0, 0, 2))) is half
    assert cache.take(("s", "run", (0, 0, 2))) is None
    cache.put(("s", "run", (0, 0, 1)), half)  # a block that was done twice
    assert cache.size == 100


def test_halves_that_no_overview_here_takes_do_not_pile_up():
    """Another worker makes the overview above a block; of blocks of 64 pixels, a hundred thousand have room by size."""
    cache, half = HalfCache(), BlockResult(np.zeros((32, 32), np.uint8), None)
    for column in range(2000):
        cache.put(("s", "run", (0, 0, column)), half)
    assert cache.size == 512 * 1024
    assert cache.take(("s", "run", (0, 0, 1999))) is half
