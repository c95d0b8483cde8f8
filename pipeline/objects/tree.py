"""Walks over the tree of blocks: labels merged across blocks, and rows of tables merged, resumably.

`merge_labels` joins the components of blocks and hands their totals back; `tree_reduce` merges the rows of a table that
several blocks hold of one object. A step is a task whose file appears whole, and a step whose file is there is not done
again: killed at any moment, the same call continues. What is counted is the caller's to know.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from ..jobs.dask import map_bounded
from ..jobs.progress import ProgressFactory
from ..store.store import MARKS, Place, Store, store_errors
from .components import (
    MergedRegion,
    Region,
    Totals,
    joint_bytes,
    joint_from,
    pack,
    region_bytes,
    region_from,
    totals_bytes,
    totals_from,
    unpack,
)
from .label import edges
from .merge_labels import join

if TYPE_CHECKING:
    import pyarrow as pa

FAN = 4
SIDES = b"swathe:sides"  # among the metadata of a table's schema


@dataclass(frozen=True, slots=True)
class Tree:
    """A grid of blocks, and the nodes above it. Level 0 are the blocks."""

    rows: int
    columns: int

    @property
    def top(self) -> int:
        """The root's level."""
        level = 0
        while self.shape(level) != (1, 1):
            level += 1
        return level

    def shape(self, level: int) -> tuple[int, int]:
        """Give rows and columns of a level."""
        side = FAN**level
        return -(-self.rows // side), -(-self.columns // side)

    def places(self, level: int) -> Iterator[Place]:
        """Give a level's nodes, row by row."""
        rows, columns = self.shape(level)
        return ((level, row, column) for row in range(rows) for column in range(columns))

    def children(self, place: Place) -> list[list[Place]]:
        """Give the nodes below one, row by row."""
        level, row, column = place
        rows, columns = self.shape(level - 1)
        below = [range(n * FAN, min((n + 1) * FAN, end)) for n, end in ((row, rows), (column, columns))]
        return [[(level - 1, r, c) for c in below[1]] for r in below[0]]


def tree_of(store: Store) -> Tree:
    """Give the tree over a store's blocks."""
    return Tree(store.plan.rows, store.plan.columns)


class BlockLabels(Protocol):
    """What a block tells of its components. Sent to every worker."""

    def region(self, store: Store, row: int, column: int) -> Region:
        """Label a block and give its open components."""
        ...


@dataclass(frozen=True, slots=True)
class LabelMerge:
    """What all tasks of one `merge_labels` share; `name` keeps its files apart from those of others."""

    store: Store
    name: str
    leaf: BlockLabels
    connectivity: int

    def file(self, kind: str, place: Place) -> str:
        """Give the name of a step's file."""
        return f"{folder_of(self)}/{kind}.{'.'.join(map(str, place))}"


def merge_labels(client: Client, what: LabelMerge, show: ProgressFactory, title: str) -> None:
    """Join the components of all blocks, and hand the totals of whole ones back; `merged_totals` then gives them.

    Parameters
    ----------
    client
        Where the tasks run.
    what
        The store whose blocks these are, which also keeps the files, and what labels a block.
    show, title
        For progress.
    """
    tree = tree_of(what.store)
    steps = [(up, level) for level in range(tree.top + 1)] + [(down, level) for level in range(tree.top, 0, -1)]
    made = _made(what)
    missing = [(step, [place for place in tree.places(level) if not _there(what, made, step, place)])
               for step, level in steps]  # fmt: skip
    count = sum(sum(1 for _ in tree.places(level)) for _, level in steps)
    todo = sum(len(places) for _, places in missing)
    with show(title, count, count - todo) as advance:
        for step, places in missing:
            for _ in map_bounded(client, step, what, places, key=f"swathe-{what.name}-{step.__name__}"):
                advance(1, 0)


def _there(what: LabelMerge, made: set[str], step: Callable[..., None], place: Place) -> bool:
    """Whether a step's files are there."""
    if step is up:
        return _base(what.file("up", place)) in made
    below = (child for row in tree_of(what.store).children(place) for child in row)
    return all(_base(what.file("down", child)) in made for child in below)


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _made(what: "LabelMerge | TreeReduce") -> set[str]:
    """Give the names of the files of all steps that are done."""
    with store_errors(what.store.path):
        return set(what.store.files.names(folder_of(what)))


def folder_of(what: "LabelMerge | TreeReduce") -> str:
    """Give the folder of the steps' files: the run's own, for a late task of a stopped one may still write to its."""
    return f"{MARKS}/{what.name}.{what.store.run[:16]}"


def keep(what: "LabelMerge | TreeReduce", kind: str, place: Place, content: bytes) -> None:
    """Write a step's file. Raises StoreError, as where the disk is full."""
    with store_errors(what.store.path):
        what.store.files.write(what.file(kind, place), content)


def kept(what: "LabelMerge | TreeReduce", kind: str, place: Place) -> bytes:
    """Read a step's file. Raises StoreError where it is lost."""
    with store_errors(what.store.path):
        return what.store.files.read(what.file(kind, place))


def up(what: LabelMerge, place: Place) -> None:
    """Write what a block or node tells the node above it. The region comes last: with it, the step is done."""
    level, row, column = place
    what.store.check_run()
    if level == 0:
        keep(what, "up", place, region_bytes(what.leaf.region(what.store, row, column)))
        return
    below = tree_of(what.store).children(place)
    parts = [[region_from(kept(what, "up", child)) for child in line] for line in below]
    joint = join(parts, what.connectivity)
    keep(what, "joint", place, joint_bytes(joint))
    keep(what, "up", place, region_bytes(joint.region))


def down(what: LabelMerge, place: Place) -> None:
    """Write for each child of a node the totals of its open components, which are those of the whole scene."""
    tree = tree_of(what.store)
    what.store.check_run()
    told = region_from(kept(what, "up", place))
    joint = joint_from(kept(what, "joint", place), told)
    above = told.totals if place[0] == tree.top else totals_from(kept(what, "down", place))
    below = [child for line in tree.children(place) for child in line]
    for child, totals in zip(below, joint.handed_down(above), strict=True):
        keep(what, "down", child, totals_bytes(totals))


def merged_totals(what: LabelMerge, row: int, column: int) -> Totals | None:
    """Give the totals of a block's open components, as `merge_labels` has found them; None for the only block."""
    if tree_of(what.store).top == 0:
        return None
    return totals_from(kept(what, "down", (0, row, column)))


def merge_labels_in_memory(regions: list[list[Region]], connectivity: int) -> list[list[Totals]]:
    """Do what `merge_labels` does for blocks that are all at hand, given row by row; for the lazy way."""
    tree = Tree(len(regions), len(regions[0]))
    told = {(0, r, c): part for r, line in enumerate(regions) for c, part in enumerate(line)}
    joints: dict[Place, MergedRegion] = {}
    for level in range(1, tree.top + 1):
        for place in tree.places(level):
            joints[place] = join([[told[child] for child in line] for line in tree.children(place)], connectivity)
            told[place] = joints[place].region
    totals = {(tree.top, 0, 0): told[tree.top, 0, 0].totals}
    for level in range(tree.top, 0, -1):
        for place in tree.places(level):
            below = [child for line in tree.children(place) for child in line]
            totals |= dict(zip(below, joints[place].handed_down(totals[place]), strict=True))
    return [[totals[0, r, c] for c in range(tree.columns)] for r in range(tree.rows)]


class Rows(Protocol):
    """A table of objects, block by block. Sent to every worker."""

    def leaf(self, store: Store, row: int, column: int) -> "pa.Table":
        """Give a block's rows, one per object, with their `id`."""
        ...

    def merge(self, rows: "pa.Table") -> "pa.Table":
        """Merge rows of one id into one; sorted by id."""
        ...


@dataclass(frozen=True, slots=True)
class TreeReduce:
    """What all tasks of one `tree_reduce` share: `store` keeps the files, `objects` has the ids at block edges."""

    store: Store
    name: str
    rows: Rows
    objects: Store

    def file(self, kind: str, place: Place) -> str:
        """Give the name of a step's file."""
        return f"{folder_of(self)}/{kind}.{'.'.join(map(str, place))}"


def tree_reduce(client: Client, what: TreeReduce, show: ProgressFactory, title: str) -> None:
    """Merge the rows of all blocks into one row per object; `reduced` then gives them part by part."""
    tree = tree_of(what.objects)
    made = _made(what)
    missing = [
        [place for place in tree.places(level) if _base(what.file("open", place)) not in made]
        for level in range(tree.top + 1)
    ]
    count = sum(1 for level in range(tree.top + 1) for _ in tree.places(level))
    with show(title, count, count - sum(map(len, missing))) as advance:
        for level, places in enumerate(missing):
            for _ in map_bounded(client, gather, what, places, key=f"swathe-{what.name}-{level}"):
                advance(1, 0)


def gather(what: TreeReduce, place: Place) -> None:
    """Write the rows of objects that end in a block or node, and those of objects that may go on. The latter last."""
    what.store.check_run()
    rows, sides = _leaf(what, place) if place[0] == 0 else _node(what, place)
    ids = rows["id"].to_numpy()
    open_ids = np.unique(np.concatenate(sides))
    goes_on = np.isin(ids, open_ids)
    keep(what, "part", place, table_bytes(rows.filter(~goes_on)))
    named = dict(zip(("top", "bottom", "left", "right"), sides, strict=True))
    keep(what, "open", place, table_bytes(rows.filter(goes_on), pack(named)))


Ids = NDArray[np.int64]


def _leaf(what: TreeReduce, place: Place) -> tuple["pa.Table", tuple[Ids, Ids, Ids, Ids]]:
    _, row, column = place
    window = what.objects.window(0, row, column)
    sides = edges(what.objects.read_layer("objects", window)[0], window, what.objects.geobox.shape)
    top, bottom, left, right = (np.unique(side[side > 0]) for side in sides)
    return what.rows.leaf(what.store, row, column), (top, bottom, left, right)


def _node(what: TreeReduce, place: Place) -> tuple["pa.Table", tuple[Ids, Ids, Ids, Ids]]:
    import pyarrow as pa

    below = tree_of(what.objects).children(place)
    read = [[table_from(kept(what, "open", child)) for child in line] for line in below]
    sides = [[unpack(extra) for _, extra in line] for line in read]
    lines = (
        ("top", sides[0]),
        ("bottom", sides[-1]),
        ("left", [line[0] for line in sides]),
        ("right", [line[-1] for line in sides]),
    )
    top, bottom, left, right = (np.unique(np.concatenate([s[name] for s in line])) for name, line in lines)
    rows = pa.concat_tables([table for line in read for table, _ in line])
    return what.rows.merge(rows), (top, bottom, left, right)


def reduced(what: TreeReduce) -> Iterator["pa.Table"]:
    """Give the merged rows part by part: always in the same order, each part sorted by id."""
    tree = tree_of(what.objects)
    for level in range(tree.top + 1):
        for place in tree.places(level):
            yield table_from(kept(what, "part", place))[0]


def table_bytes(table: "pa.Table", extra: bytes = b"") -> bytes:
    """Give a table as bytes, for a file, with something of our own beside it."""
    import pyarrow as pa

    made = pa.BufferOutputStream()
    table = table.replace_schema_metadata({SIDES: extra})
    with pa.ipc.new_stream(made, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    content: bytes = made.getvalue().to_pybytes()
    return content


def table_from(content: bytes) -> tuple["pa.Table", Any]:
    """Give the table that `table_bytes` made bytes of, and what was beside it."""
    import pyarrow as pa

    table = pa.ipc.open_stream(content).read_all()
    return table.replace_schema_metadata(None), table.schema.metadata[SIDES]
