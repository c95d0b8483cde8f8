"""In which order the blocks of a store are done: those of an overview as soon as those below them are."""

from collections import deque
from collections.abc import Iterator, Sequence, Set
from typing import Self

from typing_extensions import override

from ..store.store import BlockIndex, Store


class BlockOrder(Iterator[BlockIndex]):
    """Gives the blocks that are not done yet and can be; told of each that is, it has those above them to give.

    So it may have nothing to give at one time and more later. It holds what is on its way up, not all that is left.

    Parameters
    ----------
    store
        Whose blocks.
    across
        How many blocks of the full resolution are done side by side, before those below them: strips of columns.
    done
        By level, rows and columns of the blocks that were done before.
    """

    def __init__(self, store: Store, across: int, done: Sequence[Set[tuple[int, int]]]) -> None:
        self.sizes = [store.grid(level) for level in range(store.levels + 1)]
        self._done = done
        self._places = _strips(*self.sizes[0], across if across == 1 else across // 2 * 2)
        self._ready: deque[BlockIndex] = deque()
        self._below: dict[BlockIndex, int] = {}  # of blocks begun: how many below them are not done

    @override
    def __iter__(self) -> Self:
        return self

    @override
    def __next__(self) -> BlockIndex:
        while not self._ready:
            self._reach((0, *next(self._places)))
        return self._ready.popleft()

    def finish(self, block: BlockIndex) -> None:
        """Take note that a block is done."""
        level, row, column = block
        if level + 1 == len(self.sizes):
            return
        above = (level + 1, row // 2, column // 2)
        rows, columns = self.sizes[level]
        family = min(2, rows - row // 2 * 2) * min(2, columns - column // 2 * 2)
        left = self._below.pop(above, family) - 1
        if left:
            self._below[above] = left
        else:
            self._reach(above)

    def _reach(self, block: BlockIndex) -> None:
        """Put a block in the row of those to give, if it is not done."""
        if block[1:] in self._done[block[0]]:
            self.finish(block)
        else:
            self._ready.append(block)


def _strips(rows: int, columns: int, across: int) -> Iterator[tuple[int, int]]:
    for left in range(0, columns, across):
        for row in range(rows):
            for column in range(left, min(left + across, columns)):
                yield row, column
