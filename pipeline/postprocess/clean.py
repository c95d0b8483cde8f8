"""Cleaning, the durable way: the blocks of a finished store through `cleaning`'s operations into another store.

Work for `filling`; how a block is made is `stages`' to know.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack

from distributed import Client
from typing_extensions import override

from ..grid.encoding import BlockResult
from ..grid.geobox import GeoBox
from ..grid.pixel_area import pixel_areas
from ..jobs.job import BlockFunction, BlockJob, RunResult, run_job
from ..jobs.progress import ProgressFactory
from ..objects.tree import merge_labels
from ..store.metadata import StoreMetadata
from ..store.run_id import fingerprint
from ..store.store import Store, open_store
from .block import Block, Stage
from .options import CleanKeywords, CleanOptions

COMMAND = "swathe clean"
TITLES: dict[Stage, str] = {
    "hysteresis": "joining what is above the lower threshold",
    "objects": "joining objects",
    "holes": "joining holes",
}


def write_clean(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
    **keywords: Unpack[CleanKeywords],
) -> RunResult:
    """Clean the map of a finished store into another store. Run again after any interruption, it continues.

    Parameters
    ----------
    store
        Path or URL of a finished store. It is only read.
    output
        Path or URL of the store to write: the cleaned class map, the probabilities as they were, overviews.
    client, overwrite, show
        See `run`.
    **wishes
        See `pipeline.postprocess.options.CleanOptions`.

    Raises
    ------
    SwatheError
        The wishes make no sense or do not fit the store; the store is missing or unfinished; the output belongs to
        another run.
    """
    return run_job(cleaning(store, **keywords), output, "all" if overwrite else "nothing", client=client, show=show)


def cleaning(store: str | os.PathLike[str], **keywords: Unpack[CleanKeywords]) -> "Cleaning":
    """Check what `write_clean` is asked for, before anything is written."""
    settings = CleanOptions(**keywords)
    maps, metadata = open_store(os.fspath(store))
    areas = pixel_areas(maps.geobox) if settings.needs_areas else None
    kept = maps.encoding.kept if maps.encoding.probability else None
    rules = settings.rules(metadata.class_names, kept, has_areas=areas is not None or not settings.needs_areas)
    return Cleaning(maps, metadata, settings, Block(maps, rules, areas))


@dataclass(frozen=True, slots=True)
class Cleaned(BlockFunction):
    """Cleaned blocks, and their probabilities as they were, unless they are not `kept`."""

    block: Block
    kept: bool = True

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        maps = self.block.maps
        there = self.kept and maps.encoding.probability
        kept = maps.read_layer("probability", maps.window(0, row, column)) if there else None
        return BlockResult(self.block.made(store, row, column), kept)


@dataclass(frozen=True, slots=True)
class Cleaning(BlockJob):
    """A store to be cleaned. `map_only`: without probabilities and overviews, for a GeoTIFF."""

    maps: Store
    metadata: StoreMetadata
    settings: CleanOptions
    block: Block
    map_only: bool = False
    title = "cleaning"

    @property
    @override
    def geobox(self) -> GeoBox:
        return self.maps.geobox

    @property
    @override
    def reads(self) -> tuple[str, ...]:
        return (self.maps.path,)

    @override
    def identity(self) -> Mapping[str, Any]:
        return {
            "cleaned from": fingerprint(self.metadata.identity)[:16],
            "cleaning": self.settings.as_facts(),
            "shape": list(self.geobox.shape),
        }

    @override
    def new_metadata(self) -> StoreMetadata:
        encoding, levels = replace(self.maps.encoding, objects=False), self.metadata.levels
        if self.map_only:
            encoding, levels = replace(encoding, probability=None, kept=()), 0
        return self.metadata.derived(
            self.maps.path,
            identity=self.identity(),
            command=COMMAND,
            encoding=encoding,
            levels=levels,
            cleaned=self.settings.as_facts(),
            cleaned_from=self.maps.path,
        )

    @override
    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """Settle what reaches over blocks, stage after stage."""
        block = self._block(store)
        for stage in block.stages:
            merge_labels(client, block.settling(store, stage), show, TITLES[stage])

    @override
    def block_function(self, store: Store) -> Cleaned:
        return Cleaned(self._block(store), not self.map_only)

    def _block(self, store: Store) -> Block:
        return replace(self.block, maps=self.maps.cut_as(store))
