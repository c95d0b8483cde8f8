"""A block of a class map as far as it can be decided alone, and what is open in it. Numbers only: no store, no dask.

Components that end in a block are decided there, and so are those of which the part in the block is enough. The others
wait for their totals; meanwhile their pixels are kept by the component's number, so that nothing is labelled twice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..objects.components import pack, unpack


@dataclass(frozen=True, slots=True)
class PendingBlock:
    """A block with open questions.

    Parameters
    ----------
    class_map
        uint8 (y, x): decided, but for some pixels.
    places
        int64 (n,): those pixels, counted row by row, ascending.
    owners
        int32 (n,): the number of the open component that each belongs to, as in the block's region.
    """

    class_map: NDArray[np.uint8]
    places: NDArray[np.int64]
    owners: NDArray[np.int32]

    def decided(self, becomes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give the block once it is known what each open component becomes: uint8 (open components,)."""
        made = self.class_map.copy()
        made.ravel()[self.places] = becomes[self.owners]
        return made


def leave_open(
    class_map: NDArray[np.uint8], labels: NDArray[np.int32], which: NDArray[np.int64], waits: NDArray[np.bool_]
) -> PendingBlock:
    """Note the pixels that wait.

    Parameters
    ----------
    class_map
        uint8 (y, x): decided as if all components ended in the block.
    labels
        int32 (y, x), from 1.
    which
        int64: the open components from 0, in the order of their numbers.
    waits
        bool, by open component: whether it is undecided.
    """
    numbers = np.full(int(labels.max(initial=0)) + 1, -1, np.int32)
    numbers[which[waits] + 1] = np.flatnonzero(waits)
    if not waits.any():
        return PendingBlock(class_map, np.zeros(0, np.int64), np.zeros(0, np.int32))
    places = np.flatnonzero((numbers >= 0)[labels])
    return PendingBlock(class_map, places, numbers[labels.ravel()[places]])


def undecided_bytes(block: PendingBlock) -> bytes:
    """Give a block as bytes, for a file."""
    steps = np.diff(block.places, prepend=0)  # nearly all alike: they take little room
    return pack({"class_map": block.class_map, "steps": steps, "owners": block.owners})


def undecided_from(content: bytes) -> PendingBlock:
    """Give the block that `undecided_bytes` made bytes of."""
    arrays = unpack(content)
    return PendingBlock(arrays["class_map"], np.cumsum(arrays["steps"]), arrays["owners"])
