"""Samples shared out among train, validate and test, so that no pixel is in two parts. Reads no pixel.

The draw is decided by the seed and the samples' names alone. Blocks, or scenes, are put into an order by their digests
and given one by one to the part that is furthest behind what it was promised, counted in pixels: each sample gives to
each part what it can, and the whole comes as close to what was asked as one block allows.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from models.errors import TrainingError
from pipeline.grid.geobox import Window

from ..config import Split
from .overlap import adjoining
from .rectangles import Grid, disjoint, maximal
from .samples import Sample, within

Parts = dict[str, list[Sample]]
Item = TypeVar("Item")

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
        By `blocks`: each sample is cut into squares of `split.side` pixels, those at its lower and right end up to
        twice as long; a sample shorter than that is one block. `split.gap` pixels on either side of a border between
        two parts belong to neither.
        By `scenes`: samples that stem from one scene stay together: those of which `group_of` gives the same, and
        those that overlap or share a border on the ground.
    chip
        Largest side in pixels of a chip that must find room in a block.
    seed
        Decides the draw, with the samples' names.

    Returns
    -------
    dict
        `train`, `validate` and `test`, each with its samples in the order given. Areas of `train` may overlap each
        other, so that a chip can lie across blocks wherever no other part is; those of `validate` and `test` do not,
        so that each pixel is counted once.

    Raises
    ------
    TrainingError
        A block is smaller than a chip, or a part that was asked for comes out empty.
    """
    return _by_blocks(samples, split, chip, seed) if split.by == "blocks" else _by_scenes(samples, split, seed)


def group_of(name: str) -> str:
    """Say which scene a sample stems from, as far as its name tells; for most it is the name itself.

    A Landsat product's name anywhere in it (as in 38-Cloud's patches) is that product. A place at its end is left
    out: `tile_12`, `part_003`, `patch_3_by_7`, `r03_c05`, `x512_y1024`; names that are nothing else share one scene.
    """
    product = LANDSAT.search(name)
    return product.group() if product else PLACE_IN_SCENE.sub("", name)


# by blocks


@dataclass(frozen=True, slots=True)
class _Block:
    sample: Sample
    row: int
    column: int
    pixels: int


def _by_blocks(samples: Sequence[Sample], split: Split, chip: int, seed: int) -> Parts:
    _check_room(split, chip)
    grids = {sample.name: Grid.of(sample.geobox.shape, split.side) for sample in samples}
    blocks = [
        block
        for sample in _ordered(samples, lambda sample: sample.name, seed)
        for block in _ordered(
            _blocks(sample, grids[sample.name]), lambda b: f"{b.sample.name}/{b.row}/{b.column}", seed
        )
    ]
    drawn = _shared_out([(block, block.pixels) for block in blocks], _shares(split))
    _check_full(drawn, split, f"{len(blocks)} blocks of {split.side} pixels", "make data.split.side smaller")
    places: dict[str, dict[tuple[int, int], str]] = defaultdict(dict)
    for part, given in drawn.items():
        for block in given:
            places[block.sample.name][block.row, block.column] = part
    cut = [(sample, _areas(sample, grids[sample.name], places[sample.name], split.gap)) for sample in samples]
    return {part: [within(sample, areas[part]) for sample, areas in cut if areas[part]] for part in drawn}


def _blocks(sample: Sample, grid: Grid) -> list[_Block]:
    return [_Block(sample, row, column, grid.pixels(row, column)) for row, column in grid.places]


def _check_room(split: Split, chip: int) -> None:
    room = split.side - 2 * split.gap
    if room < chip:
        less = f" less a gap of {split.gap} on either side" if split.gap else ""
        raise TrainingError(
            f"data.split.side is {split.side} pixels{less}, which has no room for a chip of {chip}; "
            "make data.split.side larger or chips.size smaller"
        )


def _areas(sample: Sample, grid: Grid, parts: Mapping[tuple[int, int], str], gap: int) -> dict[str, tuple[Window, ...]]:
    """Give each part's areas of one sample, inside the areas that it had."""
    areas = {}
    for part in ("train", "validate", "test"):
        mine = {place for place, given in parts.items() if given == part}
        areas[part] = _clipped(maximal(grid, mine, gap) if part == "train" else disjoint(grid, mine, gap), sample.areas)
    return areas


def _clipped(areas: Iterable[Window], allowed: Sequence[Window]) -> tuple[Window, ...]:
    shared = (area.overlap(inside) for area in areas for inside in allowed)
    return tuple(dict.fromkeys(window for window in shared if window))


# by scenes


def _by_scenes(samples: Sequence[Sample], split: Split, seed: int) -> Parts:
    groups = _ordered(_groups(samples), lambda group: min(sample.name for sample in group), seed)
    sizes = [(group, sum(sample.geobox.height * sample.geobox.width for sample in group)) for group in groups]
    drawn = _shared_out(sizes, _shares(split))
    told = f"{len(samples)} samples of {len(groups)} scenes, as names and positions tell"
    _check_full(drawn, split, told, 'choose data.split.by = "blocks", to which a sample may be a block')
    chosen = {part: {sample.name for group in given for sample in group} for part, given in drawn.items()}
    return {part: [sample for sample in samples if sample.name in names] for part, names in chosen.items()}


def _groups(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Put samples of one scene together: of one name, or beside each other on the ground, directly or by others."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first: dict[str, int] = {}
    pairs = [(place, first.setdefault(group_of(sample.name), place)) for place, sample in enumerate(samples)]
    pairs += [(contact.first, contact.second) for contact in adjoining(samples)]
    rows, columns = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(samples), len(samples)))
    count, labels = connected_components(graph, directed=False)
    return [[samples[place] for place in np.flatnonzero(labels == number).tolist()] for number in range(count)]


# the draw


def _shares(split: Split) -> dict[str, float]:
    return {"train": 1 - split.validate - split.test, "validate": split.validate, "test": split.test}


def _ordered(items: Iterable[Item], name: Callable[[Item], str], seed: int) -> list[Item]:
    """Shuffle by digests of names: neither the order of files nor the machine changes it."""
    return sorted(items, key=lambda item: blake2b(f"{seed}/{name(item)}".encode(), digest_size=16).digest())


def _shared_out(items: Sequence[tuple[Item, int]], shares: Mapping[str, float]) -> dict[str, list[Item]]:
    """Give each item, in turn, to the part that is owed most."""
    owed = dict.fromkeys(shares, 0.0)
    given: dict[str, list[Item]] = {part: [] for part in shares}
    for item, size in items:
        for part, share in shares.items():
            owed[part] += share * size
        wanting = max((part for part in shares if shares[part] > 0), key=lambda part: owed[part])
        given[wanting].append(item)
        owed[wanting] -= size
    return given


def _check_full(drawn: Mapping[str, Sequence[object]], split: Split, told: str, remedy: str) -> None:
    for part, share in _shares(split).items():
        if share > 0 and not drawn[part]:
            raise TrainingError(
                f"the split by {split.by} leaves {part} empty: it was to be {share:.3g} of {told}; "
                f"{remedy}, ask for more, or name samples for {part}"
            )
