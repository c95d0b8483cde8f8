"""Blocks that failed after all retries and are set aside, so that one bad tile does not stop a continent.

They are nodata in the map and in the overviews above them. Those overviews are written and not marked as done: the run
that tries the blocks again makes them anew. What all blocks have in common, as an output that cannot be written or a
cluster that is lost, ends a run all the same.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from models.errors import DeviceLostError, OutputError, SwatheError, UnfitWorkerError

from ..store.store import BlockIndex

OnError = Literal["fail", "skip"]
SEVERAL = 20  # failures up to which any share of the blocks may have failed
MEND = "see `swathe verify STORE --repair`, and run without"
REFUSED = "--on-error skip cannot be"  # of what goes over blocks
IN_COMMON = (OutputError, DeviceLostError, UnfitWorkerError)  # no block is to blame


@dataclass(frozen=True, slots=True)
class SkippedBlock:
    """A block that was set aside: its place, and why."""

    level: int
    row: int
    column: int
    reason: str

    @property
    def index(self) -> BlockIndex:
        """Level, row and column."""
        return self.level, self.row, self.column

    def to_json(self) -> dict[str, Any]:
        """Return it as a store keeps it."""
        return {"level": self.level, "row": self.row, "column": self.column, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Provisional:
    """A block of an overview above some that were set aside; `lacking` are those right below it."""

    index: BlockIndex
    lacking: tuple[BlockIndex, ...]


Item: TypeAlias = BlockIndex | Provisional


@dataclass
class Skips:
    """The blocks of a run that were set aside.

    One that all blocks fail for must not end as an empty map: after `SEVERAL` failures the run ends where more have
    failed than are done, also of before; and at its end where none is.

    Parameters
    ----------
    done
        Blocks of the full resolution that are done.
    """

    done: int
    blocks: dict[BlockIndex, SkippedBlock] = field(default_factory=dict)
    last: Exception | None = None

    def add(self, index: BlockIndex, error: Exception) -> SkippedBlock:
        """Set a block aside. Raises its error where that is no matter of single blocks."""
        if isinstance(error, IN_COMMON):
            raise error
        reason = str(error).strip() if isinstance(error, SwatheError) else f"{type(error).__name__}: {error}"
        self.blocks[index] = SkippedBlock(*index, " ".join(reason.split())[:500])
        self.last = error
        if len(self.blocks) >= SEVERAL and len(self.blocks) > self.done:
            raise self._all_of_them()
        return self.blocks[index]

    def check(self) -> None:
        """Refuse to end where no block is done. Raises SwatheError."""
        if self.blocks and not self.done:
            raise self._all_of_them()

    def _all_of_them(self) -> SwatheError:
        assert self.last is not None
        kind = type(self.last) if isinstance(self.last, SwatheError) else SwatheError
        count = len(self.blocks)
        return kind(f"{count} block{'s' * (count != 1)} failed and {self.done} did not, so it is no matter of single "
                    f"blocks; the last: {self.last}")  # fmt: skip

    def item(self, index: BlockIndex) -> Item:
        """Return what is to be done of a block: one above a block that was set aside is provisional."""
        level, row, column = index
        below = [one for one in self.blocks if one[0] < level
                 and (one[1] >> (level - one[0]), one[2] >> (level - one[0])) == (row, column)]  # fmt: skip
        return Provisional(index, tuple(one for one in below if one[0] == level - 1)) if below else index


def index_of(item: Item) -> BlockIndex:
    """Return the block of an item."""
    return item.index if isinstance(item, Provisional) else item
