"""Splits: samples shared out among train, validate and test by fold blocks or whole scenes. Reads no pixel.

No pixel is in two parts. The draw is decided by the seed and the samples' names alone: fold blocks, or scenes, are put
into an order by their digests and given one by one to the part that is furthest behind its share, counted in pixels.
Each sample gives to each part what it can, and the whole comes as close to the shares as one fold block allows.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import astuple, dataclass, replace
from hashlib import blake2b
from itertools import pairwise, product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError
from pipeline.grid.geobox import Window

from ..config import Split
from ..config.schema import PARTS
from .overlap import adjoining
from .samples import Parts, Sample

Item = TypeVar("Item")
Place = tuple[int, int]  # row and column of a fold block

LANDSAT = re.compile(r"L[COETM]\d{2}_L\w{3}_\d{6}_\d{8}_\d{8}_\d{2}_\w{2}")  # as 38-Cloud names its scenes
PLACE_IN_SCENE = re.compile(
    r"(?:^|[\W_]+|(?<=\d))(?:"
    r"(?:part|tile|patch|chip|crop|block)[\W_]*\d+(?:[\W_]+(?:by[\W_]+)?\d+)*"  # tile_12, part_003, patch_3_by_7
    r"|r(?:ow)?[\W_]*\d+[\W_]*c(?:ol(?:umn)?)?[\W_]*\d+"  # r03_c05, row3col5
    r"|[xy][\W_]*\d+[\W_]*[xy][\W_]*\d+"  # x512_y1024
    r")$",
    re.IGNORECASE,
)


def split_samples(samples: Sequence[Sample], split: Split, chip: int, seed: int) -> Parts:
    """Share samples out.

    Parameters
    ----------
    samples
        Of one set.
    split
        By `blocks`: each sample is cut into fold blocks, squares of `split.side` pixels, those at its lower and right
        end up to twice as long; a sample shorter than that is one fold block. `split.gap` pixels on either side of a
        border between two parts belong to neither.
        By `scenes`: samples that stem from one scene stay together: those of which `group_of` returns the same, and
        those that overlap or share a border on the ground.
    chip
        Largest side in pixels of a chip that must find room in a fold block.
    seed
        Decides the draw, with the samples' names.

    Returns
    -------
    dict
        `train`, `validate` and `test`, each with its samples in the order given. Windows of `train` may overlap each
        other, so that a chip can lie across fold blocks wherever no other part is; those of `validate` and `test` do
        not, so that each pixel is counted once.

    Raises
    ------
    TrainingError
        A fold block is smaller than a chip, or a part with a share comes out empty.
    """
    return _by_blocks(samples, split, chip, seed) if split.by == "blocks" else _by_scenes(samples, split, seed)


def group_of(name: str) -> str:
    """Return which scene a sample stems from, as far as its name says; for most it is the name itself.

    A Landsat product's name anywhere in it (as in 38-Cloud's patches) is that product. A place at its end is left
    out: `tile_12`, `part_003`, `patch_3_by_7`, `r03_c05`, `x512_y1024`; names that are nothing else share one scene.
    """
    product = LANDSAT.search(name)
    return product.group() if product else PLACE_IN_SCENE.sub("", name)


def _by_blocks(samples: Sequence[Sample], split: Split, chip: int, seed: int) -> Parts:
    room = split.side - 2 * split.gap
    if room < chip:
        less = f" less a gap of {split.gap} on either side" if split.gap else ""
        raise TrainingError(
            f"data.split.side is {split.side} pixels{less}, which has no room for a chip of {chip}; "
            "make data.split.side larger or chips.size smaller"
        )
    grids = {sample.name: FoldGrid.of(sample.geobox.shape, split.side) for sample in samples}
    blocks = [
        (block, grids[sample.name].pixels(*block[1:]))
        for sample in _ordered(samples, lambda sample: sample.name, seed)
        for block in _ordered(
            [(sample.name, *place) for place in grids[sample.name].places],
            lambda block: "/".join(map(str, block)),
            seed,
        )
    ]
    drawn = _share_out(blocks, split, f"{len(blocks)} blocks of {split.side} pixels", "make data.split.side smaller")
    places: dict[tuple[str, str], set[Place]] = defaultdict(set)
    for part, given in drawn.items():
        for name, row, column in given:
            places[part, name].add((row, column))
    parts: dict[str, list[Sample]] = {part: [] for part in PARTS}
    for part, sample in product(PARTS, samples):
        choose = maximal_windows if part == "train" else disjoint_windows
        windows = choose(grids[sample.name], places[part, sample.name], split.gap)
        shared = (window.overlap(allowed) for window in windows for allowed in sample.areas)
        areas = tuple(dict.fromkeys(window for window in shared if window))
        if areas:
            parts[part].append(replace(sample, areas=areas))
    return parts


def _by_scenes(samples: Sequence[Sample], split: Split, seed: int) -> Parts:
    groups = _ordered(_groups(samples), lambda group: min(sample.name for sample in group), seed)
    sizes = [(group, sum(sample.geobox.height * sample.geobox.width for sample in group)) for group in groups]
    total = f"{len(samples)} samples of {len(groups)} scenes, as names and positions tell"
    drawn = _share_out(sizes, split, total, 'choose data.split.by = "blocks", to which a sample may be a block')
    chosen = {part: {sample.name for group in given for sample in group} for part, given in drawn.items()}
    return {part: [sample for sample in samples if sample.name in names] for part, names in chosen.items()}


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Put samples of one scene together: of one name, or beside each other on the ground, directly or by others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[str, int] = {}
    pairs = [(place, first.setdefault(group_of(sample.name), place)) for place, sample in enumerate(samples)]
    pairs += [(contact.first, contact.second) for contact in adjoining(samples)]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(samples), len(samples)))
    count, labels = connected_components(graph, directed=False)
    return [[samples[place] for place in np.flatnonzero(labels == number).tolist()] for number in range(count)]


def _ordered(items: Iterable[Item], name: Callable[[Item], str], seed: int) -> list[Item]:
    """Shuffle by digests of names: neither the order of files nor the machine changes it."""
    return sorted(items, key=lambda item: blake2b(f"{seed}/{name(item)}".encode(), digest_size=16).digest())


def _share_out(items: Sequence[tuple[Item, int]], split: Split, total: str, remedy: str) -> dict[str, list[Item]]:
    """Give each item, in turn, to the part that is owed most. Raise TrainingError where a part comes out empty."""
    shares = {"train": 1 - split.validate - split.test, "validate": split.validate, "test": split.test}
    owed = dict.fromkeys(PARTS, 0.0)
    given: dict[str, list[Item]] = {part: [] for part in PARTS}
    for item, size in items:
        for part, share in shares.items():
            owed[part] += share * size
        neediest = max((part for part in PARTS if shares[part] > 0), key=lambda part: owed[part])
        given[neediest].append(item)
        owed[neediest] -= size
    for part, share in shares.items():
        if share > 0 and not given[part]:
            raise TrainingError(
                f"the split by {split.by} leaves {part} empty: it was to be {share:.3g} of {total}; "
                f"{remedy}, ask for more, or name samples for {part}"
            )
    return given


@dataclass(frozen=True, slots=True)
class FoldGrid:
    """A scene cut into fold blocks.

    Parameters
    ----------
    rows, columns
        Where fold blocks begin along each axis, and where the last one ends.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, int], side: int) -> "FoldGrid":
        """Cut a scene of so many rows and columns into squares; what is left over belongs to the last ones."""
        rows, columns = ((*(side * n for n in range(max(1, size // side))), size) for size in shape)
        return cls(rows, columns)

    @property
    def places(self) -> list[Place]:
        """All fold blocks, row by row."""
        return list(product(range(len(self.rows) - 1), range(len(self.columns) - 1)))

    def pixels(self, row: int, column: int) -> int:
        """Return how many pixels a fold block has."""
        return (self.rows[row + 1] - self.rows[row]) * (self.columns[column + 1] - self.columns[column])

    def mask(self, blocks: Set[Place]) -> NDArray[np.bool_]:
        """Return some fold blocks as bool `(row, column)`."""
        mask = np.zeros((len(self.rows) - 1, len(self.columns) - 1), bool)
        mask[tuple(np.array(sorted(blocks), int).reshape(-1, 2).T)] = True
        return mask


def maximal_windows(grid: FoldGrid, blocks: Set[Place], gap: int) -> list[Window]:
    """Return all largest rectangles of pixels of some fold blocks, at least `gap` pixels from every other block.

    A rectangle of any size that lies in those pixels lies in one of them. They overlap each other. None is smaller
    than a fold block less `gap` at either end.
    """
    from scipy.ndimage import minimum_filter

    rows, columns, mask = grid.rows, grid.columns, grid.mask(blocks)
    if gap:  # blocks are taken apart into margins and middles, 3 x 3
        rows, columns = (
            (*(line for start, stop in pairwise(ends) for line in (start, start + gap, stop - gap)), ends[-1])
            for ends in (rows, columns)
        )
        mask = minimum_filter(mask.repeat(3, axis=0).repeat(3, axis=1), 3, mode="nearest")
    return [
        Window(rows[top], rows[bottom], columns[left], columns[right]) for top, bottom, left, right in _largest(mask)
    ]


def disjoint_windows(grid: FoldGrid, blocks: Set[Place], gap: int) -> list[Window]:
    """Return rectangles without overlap: each fold block less `gap` pixels along its sides next to others, merged.

    A block next to another one at a corner alone loses a whole side there too, so that what is left is a rectangle.
    """
    own = np.pad(grid.mask(blocks), 1, constant_values=True)
    trimmed = []
    for row, column in sorted(blocks):
        near = own[row : row + 3, column : column + 3]
        top, bottom, left, right = (0 if side.all() else gap for side in (near[0], near[2], near[:, 0], near[:, 2]))
        rows, columns = grid.rows[row : row + 2], grid.columns[column : column + 2]
        trimmed.append(Window(rows[0] + top, rows[1] - bottom, columns[0] + left, columns[1] - right))
    columns_merged = sorted(map(_transposed, _merged(trimmed)), key=astuple)
    return [_transposed(window) for window in _merged(columns_merged)]


def _merged(windows: list[Window]) -> list[Window]:
    """Join each window with the next one where they have the same rows and touch."""
    merged: list[Window] = []
    for new in windows:
        last = merged[-1] if merged else None
        if last and (last.top, last.bottom, last.right) == (new.top, new.bottom, new.left):
            merged[-1] = replace(last, right=new.right)
        else:
            merged.append(new)
    return merged


def _transposed(window: Window) -> Window:
    return Window(window.left, window.right, window.top, window.bottom)


def _largest(mask: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int]]:
    """Yield all rectangles of True that fit into no other one: first and last rows and columns, ends excluded.

    Row by row, with the height of True above each column; as in the stack algorithm for the largest rectangle of a
    histogram, where a bar that is closed gives the rectangle it carries. It is whole unless all of it goes on below.
    """
    rows, columns = mask.shape
    heights = np.zeros(columns, int)
    for row in range(rows):
        heights = np.where(mask[row], heights + 1, 0)
        below = mask[row + 1] if row + 1 < rows else np.zeros(columns, bool)
        stops = np.concatenate([[0], np.cumsum(~below)])  # of columns that do not go on
        open_bars: list[tuple[int, int]] = []  # where it begins, and its height
        for column, height in enumerate([*heights.tolist(), 0]):
            begin = column
            while open_bars and open_bars[-1][1] > height:
                begin, tall = open_bars.pop()
                if stops[column] > stops[begin]:
                    yield row + 1 - tall, row + 1, begin, column
            if height and (not open_bars or open_bars[-1][1] < height):
                open_bars.append((begin, height))
