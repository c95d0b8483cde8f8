"""Overviews from what this process has in memory: halves of the blocks that it has just written."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from ..grid.block_result import BlockResult, empty_result
from .overviews import halve
from .store import BlockIndex, Store

LIMIT = 2**26  # bytes of halves that a process holds; what does not fit is read from the store
MOST = 512  # halves: those of small blocks take more memory than their pixels do
Key = tuple[str, str, BlockIndex]


@dataclass
class HalfCache:
    """Halved blocks, each by its store, the run that fills it, and its place; the oldest go when there is no room."""

    limit: int = LIMIT
    size: int = 0
    _halves: OrderedDict[Key, BlockResult] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: Key, half: BlockResult) -> None:
        """Keep a half; what was kept under the same key goes."""
        with self._lock:
            self._drop(key)
            self._halves[key] = half
            self.size += _size(half)
            while self.size > self.limit or len(self._halves) > MOST:
                self._drop(next(iter(self._halves)))

    def take(self, key: Key) -> BlockResult | None:
        """Give a half away, if it is there; it is needed once."""
        with self._lock:
            return self._drop(key)

    def _drop(self, key: Key) -> BlockResult | None:
        half = self._halves.pop(key, None)
        if half is not None:
            self.size -= _size(half)
        return half


def _size(half: BlockResult) -> int:
    return half.class_map.nbytes + (0 if half.probability is None else half.probability.nbytes)


_cache = HalfCache()


def keep_half(store: Store, block: BlockIndex, result: BlockResult, cache: HalfCache = _cache) -> None:
    """Keep the half of a block that has just been written and marked as done, for the overview above it."""
    if block[0] < store.levels and _even(store):
        cache.put((store.path, store.run, block), halve(result))


def make_overview(store: Store, block: BlockIndex, cache: HalfCache = _cache) -> BlockResult:
    """Compute a block of an overview from those below it, which are done: from memory, or else from the store."""
    level, row, column = block
    window = store.window(level, row, column)
    below = window.scale(2).clip(store.geobox.level(level - 1).shape)
    if not _even(store):
        return halve(store.read(level - 1, below))
    result = empty_result(window.shape, store.encoding)
    planned = store.planned(level - 1)
    for place in below.cells(store.plan.block):
        if not planned[place]:
            continue
        part, child = store.window(level - 1, *place), (level - 1, *place)
        half = cache.take((store.path, store.run, child)) or halve(store.read(level - 1, part))
        top, left, (height, width) = part.top // 2 - window.top, part.left // 2 - window.left, half.class_map.shape
        there = (..., slice(top, top + height), slice(left, left + width))
        result.class_map[there] = half.class_map
        if result.probability is not None:
            result.probability[there] = half.probability
    return result


def _even(store: Store) -> bool:
    """Whether no square of 2 x 2 pixels lies in two blocks; a network of stride 1 may be given blocks of any size."""
    return store.plan.block % 2 == 0
