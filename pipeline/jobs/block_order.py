"""In which order the blocks of a store are done: those of an overview as soon as those below them are."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self

from typing_extensions import override

from ..store.planned import BlockMask, count_below, places
from ..store.store import BlockIndex


class BlockOrder(Iterator[BlockIndex]):
    """Gives the blocks that are open and can be done; told of each that is, it has those above them to give.

    So it may have nothing to give at one time and more later. It holds two bytes a block, and those on their way up.

    Parameters
    ----------
    open_blocks
        By level, which blocks are to be done.
    across
        How many blocks of the full resolution are done side by side, before those below them: strips of columns.
    """

    def __init__(self, open_blocks: Sequence[BlockMask], across: int) -> None:
        self._open = open_blocks
        self._left = [count_below(blocks) for blocks in open_blocks[:-1]]  # of those below a block, how many are open
        at_once = [blocks & (left == 0) for blocks, left in zip(open_blocks[1:], self._left, strict=True)]
        overviews = ((level, *place) for level, ready in enumerate(at_once, 1) for place in places(ready))
        strips = places(open_blocks[0], across if across == 1 else across // 2 * 2)
        self._places: Iterator[BlockIndex] = chain(overviews, ((0, *place) for place in strips))
        self._ready: deque[BlockIndex] = deque()

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> BlockIndex:
        return self._ready.popleft() if self._ready else next(self._places)

    def finish(self, block: BlockIndex) -> None:
        """Take note that a block is done."""
        level, row, column = block
        if level == len(self._left):
            return
        place = row // 2, column // 2
        left = self._left[level]
        left[place] -= 1
        if left[place] == 0 and self._open[level + 1][place]:
            self._ready.append((level + 1, *place))
