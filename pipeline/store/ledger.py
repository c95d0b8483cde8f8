"""Which blocks of a run are done: a marker for each, written by whoever does it, and records into which markers go.

A marker is a small file, `.swathe/LEVEL.ROW.COLUMN.json`. Files are slow to list and to read by the hundred thousand.
So the process that leads the run writes what it knows of every `RECORD` blocks into one record,
`.swathe/records/NAME.npz`, and removes their markers after that: in whatever order blocks are done, no more than
`RECORD` markers lie there, and those of blocks under way. A run that is continued reads them, and the records. Of a
marker or record that is damaged the blocks are done again. A block with both a marker and a place in a record counts
once. A block counts as done only while its shards are there, of the sizes that are known; on a disk, shards of blocks
that have a marker are read, and count only if they have the digests that the marker says. Those in a record have been
on the disk since before it was, unless some of the run was without sync: then they are read, too. Who finds one damaged
all the same, as when an overview is made of it, does it again; what nobody reads before the end, `verify` finds.

Requests to an object store. For each block: a PUT for each array and one for its marker, and a GET that asks whether
the run is still the one (`Store.check_run`); for an overview's block also a GET for each array of the blocks below it
that another worker wrote. For every `RECORD` blocks: a PUT, a GET, and a DELETE for each 1,000 markers. To continue: a
LIST for each 1,000 markers, a GET for each marker and record, and for each array a LIST for each 1,000 shards in a row
of blocks, at least one for a row that has planned blocks; these LISTs again to finish. Blocks that are not planned cost
nothing.
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .manifest import READERS, ShardSums, shard_checksums
from .planned import BlockMask
from .sealed import pack, unpack, unpack_unsealed
from .store import MARKERS, UNSYNCED, BlockIndex, Store, Summary, marker_name, store_errors

RECORD = 4096  # blocks in a record
RECORDS = f"{MARKERS}/records"
Shards: TypeAlias = tuple[tuple[int, int], ...]  # size and digest of the shard of each array
MARKER = re.compile(r"(\d+)\.(\d+)\.(\d+)\.json")


@dataclass(frozen=True, slots=True)
class Record:
    """Finished blocks as arrays.

    Parameters
    ----------
    places
        int32 (blocks, 3): level, row, column.
    pixels
        int64 (blocks, classes + 1): pixels per class, nodata last.
    seconds
        float32 (blocks,): what each took.
    sizes
        int64 (blocks, arrays): bytes of the shards, in the order of `Store.array_names`; 0 where it is not known. None:
        of no shard, as in records of before.
    digests
        uint32 (blocks, arrays): CRC-32C of the shards.
    nonfinite
        int64 (blocks,): pixels without an answer that is a number; None: there are none.
    """

    places: NDArray[np.int32]
    pixels: NDArray[np.int64]
    seconds: NDArray[np.float32]
    sizes: NDArray[np.int64] | None = None
    digests: NDArray[np.uint32] | None = None
    nonfinite: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, summaries: Sequence[Summary]) -> Self:
        """Put what single blocks say of themselves together; at least one."""
        arrays = max(len(one.shards) for one in summaries)
        shards = np.array([one.shards or ((0, 0),) * arrays for one in summaries], np.int64)
        shards = shards.reshape(len(summaries), arrays, 2)
        return cls(
            np.array([(one.level, one.row, one.column) for one in summaries], np.int32),
            np.array([one.pixels for one in summaries], np.int64),
            np.array([one.seconds for one in summaries], np.float32),
            shards[..., 0] if arrays else None,
            shards[..., 1].astype(np.uint32) if arrays else None,
            np.array([one.nonfinite for one in summaries]) if any(one.nonfinite for one in summaries) else None,
        )

    def to_bytes(self) -> bytes:
        """Return it as a compressed `.npz`, with a digest of it all at the end."""
        return pack({name: values for name, values in asdict(self).items() if values is not None})

    @classmethod
    def from_bytes(cls, content: bytes) -> Self | None:
        """Return what `to_bytes` made bytes of; None where it is damaged. Those of before have no digest."""
        arrays = unpack(content)
        if arrays is None:
            arrays = unpack_unsealed(content)
            if arrays is None or set(arrays) != {"places", "pixels", "seconds"}:
                return None
        return cls(**arrays)


@dataclass
class Ledger:
    """What is done of a run, in the process that leads it: a few bytes for each block.

    Parameters
    ----------
    store
        Which the run fills.
    done
        Done blocks by level.
    pixels
        int64 (classes + 1,): pixels of the done blocks of the full resolution per class, nodata last.
    seconds
        float32 (row, column): what each of these took; NaN elsewhere.
    shards
        Sizes and digests of the done blocks' shards, by level.
    """

    store: Store
    done: list[BlockMask]
    pixels: NDArray[np.int64]
    seconds: NDArray[np.float32]
    shards: tuple[ShardSums, ...]
    nonfinite: int = 0  # pixels of them that are nodata since the network's answer is no number
    unsynced: bool = False  # some of it is written without sync: a power cut may have emptied any shard
    _marked: list[Summary] = field(default_factory=list)  # that have a marker, and no place in a record

    @classmethod
    def read(cls, store: Store, classes: int) -> Self:
        """Read what is done of a run so far; many markers that it has left go into records.

        Raises
        ------
        StoreError
            It cannot be read.
        """
        grids = [store.grid(level) for level in range(store.levels + 1)]
        masks = [np.zeros(grid, bool) for grid in grids]
        shards = tuple(ShardSums.none(store, level) for level in range(store.levels + 1))
        made = cls(store, masks, np.zeros(classes + 1, np.int64), np.full(grids[0], np.nan, np.float32), shards)
        with store_errors(store.path):
            marked = [place for name in store.files.names(MARKERS) if (place := place_of(name)) is not None]
            records = store.files.names(RECORDS)
            made.unsynced = bool(records) and store.files.local and store.files.exists(UNSYNCED)
        if marked or records:
            there = [store.shard_sizes(level) for level in range(store.levels + 1)]
            for record in records:
                made._add_record(record, there)
            made._add_markers(marked, there)
        return made

    def add(self, summary: Summary) -> None:
        """Count a block that was just done and marked; many are put into a record. Raises StoreError."""
        level, place = summary.level, (summary.row, summary.column)
        if self.done[level][place]:
            return
        self.done[level][place] = True
        if summary.shards:
            self.shards[level].sizes[place], self.shards[level].digests[place] = zip(*summary.shards, strict=True)
        if level == 0:
            self.pixels += np.array(summary.pixels, np.int64)
            self.nonfinite += summary.nonfinite
            self.seconds[place] = summary.seconds
        self._marked.append(summary)
        if len(self._marked) == RECORD:
            self._fold()

    def _fold(self) -> None:
        """Write a record of all that is marked, and remove the markers; between the two, both count as one."""
        with store_errors(self.store.path):
            self.store.check_run()
            name = f"{RECORDS}/{uuid.uuid4().hex}.npz"
            self.store.files.write(name, Record.of(self._marked).to_bytes())
        self._unmark([(one.level, one.row, one.column) for one in self._marked])
        self._marked = []

    def _unmark(self, places: Sequence[BlockIndex]) -> None:
        with store_errors(self.store.path):
            self.store.files.remove_all([f"{MARKERS}/{marker_name(*place)}" for place in places])

    def _add_record(self, name: str, there: Sequence[NDArray[np.int64]]) -> None:
        with store_errors(self.store.path):
            record = Record.from_bytes(self.store.files.read(f"{RECORDS}/{name}"))
        if record is None:
            return
        levels, rows, columns = record.places.T
        for level in np.unique(levels).tolist():
            here = np.flatnonzero(levels == level)
            done, sums = self.done[level], self.shards[level]
            whole = _agree(
                there[level][rows[here], columns[here]], None if record.sizes is None else record.sizes[here]
            )
            here = here[whole & ~done[rows[here], columns[here]]]
            here = self._as_recorded(record, here) if self.unsynced else here
            done[rows[here], columns[here]] = True
            if record.sizes is not None and record.digests is not None:
                sums.sizes[rows[here], columns[here]] = record.sizes[here]
                sums.digests[rows[here], columns[here]] = record.digests[here]
            if level == 0:
                self.pixels += record.pixels[here].sum(axis=0)
                self.nonfinite += 0 if record.nonfinite is None else int(record.nonfinite[here].sum())
                self.seconds[rows[here], columns[here]] = record.seconds[here]

    def _as_recorded(self, record: Record, here: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of a record's blocks whose shards are as they were written."""
        if record.sizes is None or record.digests is None:
            return here
        sums = zip(record.sizes[here].tolist(), record.digests[here].tolist(), strict=True)
        shards = [tuple(zip(*one, strict=True)) for one in sums]
        places = [(level, row, column) for level, row, column in record.places[here].tolist()]
        with store_errors(self.store.path), ThreadPoolExecutor(READERS) as pool:
            right = list(pool.map(self._is_as_written, places, shards))
        return np.asarray(here[np.array(right, bool)])

    def _add_markers(self, places: Sequence[BlockIndex], there: Sequence[NDArray[np.int64]]) -> None:
        """Count blocks by their markers; those that a record has too lose theirs."""
        recorded = [place for place in places if self.done[place[0]][place[1:]]]
        self._unmark(recorded)
        left = sorted(set(places).difference(recorded))
        for start in range(0, len(left), RECORD):
            some = left[start : start + RECORD]
            with store_errors(self.store.path):
                texts = self.store.files.read_all([f"{MARKERS}/{marker_name(*place)}" for place in some])
            told = filter(None, map(Summary.from_marker, some, texts))
            found = [one for one in told if _agree(there[one.level][one.row, one.column], _sizes_of(one))]
            for summary in self._as_written(found):
                self.add(summary)

    def _as_written(self, summaries: list[Summary]) -> Iterator[Summary]:
        """Yield the blocks whose shards are as they were written, on a disk: there, shards were not whole at once."""
        if not self.store.files.local:
            yield from summaries
            return
        places = [(one.level, one.row, one.column) for one in summaries]
        with store_errors(self.store.path), ThreadPoolExecutor(READERS) as pool:
            right = pool.map(self._is_as_written, places, [one.shards for one in summaries])
            for summary, is_right in zip(summaries, right, strict=True):
                if is_right:
                    yield summary

    def _is_as_written(self, place: BlockIndex, shards: Shards) -> bool:
        return not any(size for size, _ in shards) or shard_checksums(self.store, place) == shards


def _sizes_of(summary: Summary) -> NDArray[np.int64] | None:
    return np.array(summary.shards)[:, 0] if summary.shards else None


def _agree(found: NDArray[np.int64], known: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """Return which blocks have all their shards `(..., array)`, of the sizes that are known, if any are."""
    there = found > 0
    return np.asarray((there if known is None else there & ((known == 0) | (known == found))).all(axis=-1))


def place_of(name: str) -> BlockIndex | None:
    """Return the block whose marker has a name; None: it is another file."""
    found = MARKER.fullmatch(name)
    return None if found is None else (int(found[1]), int(found[2]), int(found[3]))
