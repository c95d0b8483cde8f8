"""Reductions over the tree of blocks: labels merged across blocks, and rows of tables merged, resumably.

`merge_labels` joins the components of blocks and hands their totals back; `tree_reduce` merges the rows of a table that
several blocks hold of one object. A step is a task whose file appears whole, and a step whose file is there is not done
again: killed at any moment, the same call continues. What is added up is the caller's.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, count, islice, product
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import NODATA
from models.errors import DamagedStepError

from ..grid.geobox import Window
from ..jobs.kept import mark_kept
from ..jobs.progress import ProgressFactory
from ..jobs.tasks import map_bounded
from ..store.sealed import seal, unseal
from ..store.store import MARKERS, BlockIndex, Store, store_errors
from .label import NONE, Region, Totals, edges
from .merge_labels import MergedRegion, merge_regions, pack, region_bytes, region_from, unpack

if TYPE_CHECKING:
    import pyarrow as pa

FAN = 4
READERS = 8  # files of steps that are read at a time
GROUP = 64  # nodes down and across whose files share a folder, so that no listing grows with the scene
MOST_PARTS = 4096  # files that a table is written in; a few more are of the objects that cross borders of these
ROWS = 2**16  # of a table in memory at a time
BESIDE = b"swathe:sides"  # among the metadata of a table's schema
SIDES = ("top", "bottom", "left", "right")  # of a block or node, as `edges` has them


@dataclass(frozen=True, slots=True)
class Tree:
    """A grid of blocks, and the nodes above it. Level 0 are the blocks."""

    rows: int
    columns: int

    @property
    def top(self) -> int:
        """The root's level."""
        return next(level for level in count() if self.shape(level) == (1, 1))

    def shape(self, level: int) -> tuple[int, int]:
        """Return rows and columns of a level."""
        side = FAN**level
        return -(-self.rows // side), -(-self.columns // side)

    def places(self, level: int) -> Iterator[BlockIndex]:
        """Yield a level's nodes, row by row."""
        rows, columns = self.shape(level)
        return ((level, row, column) for row in range(rows) for column in range(columns))

    def groups(self, level: int) -> Iterator[list[BlockIndex]]:
        """Yield a level's nodes by squares of `GROUP` nodes a side."""
        rows, columns = self.shape(level)
        for top, left in product(range(0, rows, GROUP), range(0, columns, GROUP)):
            down, across = range(top, min(top + GROUP, rows)), range(left, min(left + GROUP, columns))
            yield [(level, row, column) for row in down for column in across]

    @property
    def part_level(self) -> int:
        """The level whose nodes are the parts of a table: the lowest above the blocks with few enough nodes."""
        return next(level for level in count(min(1, self.top)) if prod(self.shape(level)) <= MOST_PARTS)

    def parts(self) -> Iterator[BlockIndex]:
        """Yield the parts of a table, in its order: nodes of `part_level`, and of each level above it."""
        return chain.from_iterable(map(self.places, range(self.part_level, self.top + 1)))

    def nodes_of(self, part: BlockIndex) -> Iterator[BlockIndex]:
        """Yield the nodes at which the objects of a part have ended, in the order of its rows.

        They are the part itself and, at `part_level`, all below it. So every object is in exactly one part.
        """
        level, row, column = part
        for below in range(0 if level == self.part_level else level, level + 1):
            side = FAN ** (level - below)
            rows, columns = self.shape(below)
            down, across = (range(n * side, min((n + 1) * side, end)) for n, end in ((row, rows), (column, columns)))
            yield from ((below, r, c) for r in down for c in across)

    def children(self, place: BlockIndex) -> list[list[BlockIndex]]:
        """Return the nodes below one, row by row."""
        level, row, column = place
        rows, columns = self.shape(level - 1)
        below = [range(n * FAN, min((n + 1) * FAN, end)) for n, end in ((row, rows), (column, columns))]
        return [[(level - 1, r, c) for c in below[1]] for r in below[0]]


@dataclass(frozen=True, slots=True)
class TreeJob:
    """What all tasks over the tree of a store's blocks share; `name` keeps their files apart from those of others."""

    store: Store
    name: str

    @property
    def tree(self) -> Tree:
        """The tree over the store's blocks."""
        return Tree(self.store.plan.rows, self.store.plan.columns)

    @property
    def folder(self) -> str:
        """The folder of the steps' files: the run's own, for a late task of a stopped one may still write to its."""
        return f"{MARKERS}/{self.name}.{self.store.run[:16]}"

    def write(self, kind: str, place: BlockIndex, content: bytes) -> None:
        """Write a step's file, with its digest. Raises StoreError, as where the disk is full."""
        with store_errors(self.store.path):
            self.store.files.unsynced.write(f"{self.folder}/{step_file(kind, place)}", seal(content))

    def read(self, kind: str, place: BlockIndex) -> bytes:
        """Read a step's file.

        Raises
        ------
        DamagedStepError
            It is damaged or lost, as when the power was cut. The files of the step are removed; see `again_if_damaged`.
        """
        with store_errors(self.store.path):
            try:
                content = unseal(self.store.files.read(f"{self.folder}/{step_file(kind, place)}"))
            except FileNotFoundError:
                content = None
        if content is None:
            self._forget(kind, place)
        return content

    def read_all(self, kind: str, places: Iterable[BlockIndex]) -> Iterator[bytes]:
        """Read the files of many nodes, some at the same time where an object store allows it. Raises as `read`."""
        waiting = iter(places)
        while some := list(islice(waiting, GROUP)):
            with ThreadPoolExecutor(READERS) as pool:
                yield from pool.map(partial(self.read, kind), some)

    def _forget(self, kind: str, place: BlockIndex) -> NoReturn:
        """Remove the files of a step of which one is not as it was: it counts as done no more."""
        name = step_file(kind, place)
        folder, end = f"{self.folder}/{os.path.dirname(name)}", ".{}.{}.{}".format(*place)
        with store_errors(self.store.path):
            for there in self.store.files.names(folder):
                if there.endswith(end) and (there.startswith("totals.") == (kind == "totals")):
                    self.store.files.remove(f"{folder}/{there}")
        raise DamagedStepError(f"{self.store.path}: {name} was damaged or lost; run the same command again to continue")

    def run(self, client: Client, steps: "Sequence[Step]", show: ProgressFactory, title: str) -> None:
        """Do for each level's nodes what is not done yet, one step after the other. Holds the names of one group."""
        count = left = 0
        for step in steps:
            for _, done in self._tasks(step):
                count, left = count + 1, left + (not done)
        if left < count:
            mark_kept()
        with show(title, count, count - left) as advance:
            for step in steps if left else ():
                key = f"swathe-{self.name}-{step.task.__name__}-{step.level}"
                missing = (place for place, done in self._tasks(step) if not done)
                for _ in map_bounded(client, step.task, self, missing, key=key, tell=advance.tell):
                    mark_kept()
                    advance(1, 0)

    def _tasks(self, step: "Step") -> Iterator[tuple[BlockIndex, bool]]:
        """Yield the nodes that a step is for, as they are come to, and whether it is done there."""
        for places in self.tree.groups(step.level):
            wanted = [place for place in places if self.has_task(place)]
            if not wanted:
                continue
            folder = _group(places[0])
            with store_errors(self.store.path):
                made = {f"{folder}/{name}" for name in self.store.files.names(f"{self.folder}/{folder}")}
            yield from ((place, made.issuperset(step.files(place))) for place in wanted)

    @property
    def blocks(self) -> Store:
        """The store that says which blocks are planned."""
        return self.store

    def is_planned(self, place: BlockIndex) -> bool:
        """Whether a node has any planned block below it; else it holds nothing, and no step is done for it."""
        level, row, column = place
        return not self.blocks.plan_digest or bool(_planned_nodes(self.blocks, level)[row, column])

    def has_task(self, place: BlockIndex) -> bool:
        """Whether steps are done for a node."""
        return self.is_planned(place)


@lru_cache(maxsize=64)
def _planned_nodes(store: Store, level: int) -> NDArray[np.bool_]:
    """Return which nodes of a level have planned blocks below them."""
    if level == 0:
        return store.planned(0)
    below = _planned_nodes(store, level - 1)
    rows, columns = below.shape
    whole = np.pad(below, ((0, -rows % FAN), (0, -columns % FAN)))
    return np.asarray(whole.reshape(-(-rows // FAN), FAN, -(-columns // FAN), FAN).any(axis=(1, 3)))


@dataclass(frozen=True, slots=True)
class PartsJob(TreeJob):
    """What all tasks share that write the parts of a table; the first is always written, for it has the columns."""

    @override
    def has_task(self, place: BlockIndex) -> bool:
        return self.is_planned(place) or self.is_first(place)

    def is_first(self, place: BlockIndex) -> bool:
        """Whether a part is the first."""
        return place == next(self.tree.parts())

    def tasks(self) -> Iterator[BlockIndex]:
        """Yield the parts that are written."""
        return filter(self.has_task, self.tree.parts())


@dataclass(frozen=True, slots=True)
class Step:
    """A task for each node of a level, and the files of a node that say that it is done."""

    task: Callable[[Any, BlockIndex], None]
    level: int
    files: Callable[[BlockIndex], list[str]]


def step_file(kind: str, place: BlockIndex) -> str:
    """Return the path of a node's file of a kind; totals lie with the files of the node above, which writes them."""
    level, row, column = place
    owner = (level + 1, row // FAN, column // FAN) if kind == "totals" else place
    return f"{_group(owner)}/{kind}.{level}.{row}.{column}"


def _group(place: BlockIndex) -> str:
    """Return the folder in which the files of a node lie."""
    level, row, column = place
    return f"{level}-{row // GROUP}-{column // GROUP}"


@dataclass(frozen=True, slots=True)
class LabelMerge(TreeJob):
    """What all tasks of one `merge_labels` share.

    Parameters
    ----------
    label
        Labels a block of the store, given row and column, and returns its region.
    connectivity
        4 or 8.
    """

    label: Callable[[Store, int, int], Region]
    connectivity: int


def merge_labels(client: Client, job: LabelMerge, show: ProgressFactory, title: str) -> None:
    """Merge the components of all blocks, and hand the totals of whole ones back; `merged_totals` then reads them.

    Parameters
    ----------
    client
        Where the tasks run.
    job
        The store whose blocks these are, which also keeps the files, and what labels a block.
    show, title
        For progress.
    """
    tree = job.tree
    steps = [Step(up_sweep, level, lambda place: [step_file("region", place)]) for level in range(tree.top + 1)]
    steps += [
        Step(
            down_sweep,
            level,
            lambda place: [
                step_file("totals", child) for child in chain(*tree.children(place)) if job.is_planned(child)
            ],
        )
        for level in range(tree.top, 0, -1)
    ]
    job.run(client, steps, show, title)


def up_sweep(job: LabelMerge, place: BlockIndex) -> None:
    """Write what a block or node tells the node above it. The region comes last: with it, the step is done."""
    level, row, column = place
    job.store.check_run()
    if level == 0:
        region = job.label(job.store, row, column)
    else:
        region, merged = merge_regions(_regions(job, place), job.connectivity)
        job.write("merged", place, merged.to_bytes())
    job.write("region", place, region_bytes(region))


def _regions(job: LabelMerge, place: BlockIndex) -> list[list[Region]]:
    """Return the regions of the nodes below one, row by row; of those that are not planned, empty ones."""
    lines = job.tree.children(place)
    known = {child: region_from(job.read("region", child)) for child in chain(*lines) if job.is_planned(child)}
    nothing = next(iter(known.values())).totals.take(np.zeros(0, np.int64))  # for as many classes
    return [[known.get(child) or _empty_region(job.store, child, nothing) for child in line] for line in lines]


def _empty_region(store: Store, place: BlockIndex, nothing: Totals) -> Region:
    """Return the region of a node that holds nothing but nodata."""
    level, row, column = place
    side, shape = store.plan.block * FAN**level, store.geobox.shape
    window = Window.square(row * side, column * side, side).clip(shape)
    values = edges(np.broadcast_to(np.uint8(NODATA), window.shape), window, shape)
    return Region(window, tuple(np.full(len(line), NONE, np.int32) for line in values), values, nothing)


def down_sweep(job: LabelMerge, place: BlockIndex) -> None:
    """Write for each child of a node the totals of its open components, which are those of the whole scene."""
    job.store.check_run()
    merged = MergedRegion.from_bytes(job.read("merged", place))
    whole = None if place[0] == job.tree.top else Totals(**unpack(job.read("totals", place)))
    for child, totals in zip(chain(*job.tree.children(place)), merged.part_totals(whole), strict=True):
        if job.is_planned(child):
            job.write("totals", child, pack(totals.arrays()))


def merged_totals(job: LabelMerge, row: int, column: int) -> Totals | None:
    """Return the totals of a block's open components, as `merge_labels` has found them; None for the only block."""
    return None if job.tree.top == 0 else Totals(**unpack(job.read("totals", (0, row, column))))


def merge_labels_in_memory(regions: list[list[Region]], connectivity: int) -> list[list[Totals]]:
    """Do what `merge_labels` does for blocks that are all at hand, given row by row; for lazy arrays."""
    tree = Tree(len(regions), len(regions[0]))
    known = {(0, r, c): region for r, line in enumerate(regions) for c, region in enumerate(line)}
    merged: dict[BlockIndex, MergedRegion] = {}
    for place in chain(*map(tree.places, range(1, tree.top + 1))):
        parts = [[known[child] for child in line] for line in tree.children(place)]
        known[place], merged[place] = merge_regions(parts, connectivity)
    totals = {(tree.top, 0, 0): known[tree.top, 0, 0].totals}
    for place in chain(*map(tree.places, range(tree.top, 0, -1))):
        totals |= dict(zip(chain(*tree.children(place)), merged[place].part_totals(totals[place]), strict=True))
    return [[totals[0, r, c] for c in range(tree.columns)] for r in range(tree.rows)]


@dataclass(frozen=True, slots=True)
class TreeReduce(TreeJob):
    """What all tasks of one `tree_reduce` share; `store` keeps the files.

    Parameters
    ----------
    objects
        The store with the ids at block edges.
    rows
        Returns a block's rows, one per object, with their `id`, given `store`, row and column.
    merge
        Merges rows of one id into one; sorted by id.
    """

    objects: Store
    rows: "Callable[[Store, int, int], pa.Table]"
    merge: "Callable[[pa.Table], pa.Table]"

    @property
    @override
    def blocks(self) -> Store:
        return self.objects


def tree_reduce(client: Client, job: TreeReduce, show: ProgressFactory, title: str) -> None:
    """Merge the rows of all blocks into one row per object; `reduced` then reads them part by part."""
    steps = [Step(reduce_rows, level, lambda place: [step_file("open", place)]) for level in range(job.tree.top + 1)]
    job.run(client, steps, show, title)


def reduce_rows(job: TreeReduce, place: BlockIndex) -> None:
    """Write the rows of objects that end in a block or node, and those of objects that may go on. The latter last."""
    import pyarrow as pa

    job.store.check_run()
    level, row, column = place
    if level == 0:
        window = job.objects.window(0, row, column)
        found = edges(job.objects.read_array("objects", window)[0], window, job.objects.geobox.shape)
        sides = {name: np.unique(side[side > 0]) for name, side in zip(SIDES, found, strict=True)}
        rows = job.rows(job.store, row, column)
    else:
        nothing = dict.fromkeys(SIDES, np.zeros(0, np.int64))
        lines_below = job.tree.children(place)
        read = {child: table_from(job.read("open", child)) for child in chain(*lines_below) if job.is_planned(child)}
        ids = [[unpack(read[child][1]) if child in read else nothing for child in line] for line in lines_below]
        lines = ids[0], ids[-1], [line[0] for line in ids], [line[-1] for line in ids]
        sides = {
            name: np.unique(np.concatenate([part[name] for part in line]))
            for name, line in zip(SIDES, lines, strict=True)
        }
        rows = job.merge(pa.concat_tables([table for table, _ in read.values()]))
    goes_on = np.isin(rows["id"].to_numpy(), np.concatenate(list(sides.values())))
    job.write("part", place, table_bytes(rows.filter(~goes_on)))
    job.write("open", place, table_bytes(rows.filter(goes_on), pack(sides)))


def reduced(job: TreeReduce, part: BlockIndex) -> Iterator["pa.Table"]:
    """Yield the merged rows of a part, some at a time, always in the same order; see `Tree.parts`."""
    for place in filter(job.is_planned, job.tree.nodes_of(part)):
        yield from tables_from(job.read("part", place))


def table_bytes(table: "pa.Table", extra: bytes = b"") -> bytes:
    """Return a table as bytes, for a file, with something of our own beside it."""
    import pyarrow as pa

    made = pa.BufferOutputStream()
    table = table.replace_schema_metadata({BESIDE: extra})
    with pa.ipc.new_stream(made, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, ROWS)
    return bytes(made.getvalue().to_pybytes())


def table_from(content: bytes) -> tuple["pa.Table", Any]:
    """Return the table that `table_bytes` made bytes of, and what was beside it."""
    import pyarrow as pa

    table = pa.ipc.open_stream(content).read_all()
    return table.replace_schema_metadata(None), table.schema.metadata[BESIDE]


def tables_from(content: bytes) -> Iterator["pa.Table"]:
    """Yield the rows of what `table_bytes` made bytes of, at most `ROWS` at a time."""
    import pyarrow as pa

    for batch in pa.ipc.open_stream(content):
        rows = pa.Table.from_batches([batch]).replace_schema_metadata(None)
        yield from (rows.slice(start, ROWS) for start in range(0, len(rows), ROWS))
