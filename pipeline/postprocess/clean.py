"""Clean the map of a finished store, block by block, into another store or a GeoTIFF, resumably."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from distributed import Client
from typing_extensions import override

from models.encoding import Thresholds
from models.errors import PlanError
from models.options import chosen, documents

from ..cluster.processes import ClusterLike
from ..grid.pixel_area import pixel_areas
from ..jobs.job import DerivedJob, RunResult, run_job
from ..jobs.progress import ProgressFactory
from ..jobs.run_log import RunLog
from ..jobs.skipped import MEND, REFUSED, OnError
from ..objects.label import Connectivity
from ..objects.tree import merge_labels
from ..store.metadata import StoreMetadata, fingerprint
from ..store.store import Store, open_store
from .block import CleanBlock
from .options import CleanOptions, Element, Removed, SizeLike
from .sieve import Stage, scene_stages

COMMAND = "swathe clean"
TITLES: dict[Stage, str] = {
    "hysteresis": "joining what is above the lower threshold",
    "objects": "joining objects",
    "holes": "joining holes",
}


@documents(CleanOptions)
def write_clean(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    client: ClusterLike | None = None,
    overwrite: bool = False,
    opaque_background: bool = False,
    sync: bool = True,
    show: bool = True,
    on_error: OnError = "fail",
    log: RunLog | None = None,
    threshold: Thresholds | None = None,
    minimum: float | None = None,
    hysteresis: Thresholds | None = None,
    majority: int | None = None,
    erosion: int | None = None,
    dilation: int | None = None,
    opening: int | None = None,
    closing: int | None = None,
    element: Element = "disk",
    min_object: SizeLike | None = None,
    min_hole: SizeLike | None = None,
    connectivity: Connectivity = 4,
    classes: Sequence[str] | None = None,
    removed: Removed | None = None,
    background: str | Literal[False] | None = None,
) -> RunResult:
    """Clean the map of a finished store into another one or a GeoTIFF. Run again after any interruption, it continues.

    Parameters
    ----------
    store
        Path or URL of a finished store. It is only read.
    output
        Path or URL of the store to write: the cleaned class map, the probabilities as they were, overviews; or a local
        path that ends in `.tif`: a Cloud-Optimized GeoTIFF of the cleaned class map.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
    overwrite
        Replace the output of another run, and do a finished one again.
    opaque_background
        Of a `.tif`: whether the background is shown in its colour and hides what lies below; else it is transparent.
    sync
        Whether what is written has reached the disk before it counts as done, so that a power cut loses nothing.
    show
        Show progress.
    on_error
        See `run`. What reaches over blocks, as hysteresis and the sieve, needs all of them: it takes `fail` alone.
    log
        Filled with what is known of the run, also if it fails; `write_run_report` makes a page of it.
    {CleanOptions}

    Raises
    ------
    SwatheError
        An option makes no sense or does not fit the store; the store is missing or unfinished; the output belongs to
        another run.
    """
    options = chosen(CleanOptions, locals())
    maps, metadata = open_store(os.fspath(store))
    areas = pixel_areas(maps.geobox) if options.needs_areas else None
    kept = maps.encoding.kept if maps.encoding.probability else None
    resolved = options.resolve(metadata.class_names, kept, background=metadata.background, has_areas=areas is not None)
    job = CleanJob(maps, metadata, CleanBlock(maps, resolved, areas))
    if on_error == "skip" and scene_stages(resolved):
        raise PlanError(
            f"{REFUSED} of what goes over blocks (hysteresis, large min_object or min_hole): objects that reach into a "
            f"lacking block would be taken for small; {MEND}"
        )
    return run_job(
        job,
        output,
        "all" if overwrite else "nothing",
        client=client,
        show=show,
        opaque_background=opaque_background,
        sync=sync,
        on_error=on_error,
        log=log,
    )


@dataclass(frozen=True, slots=True)
class CleanJob(DerivedJob):
    """A store to be cleaned."""

    block: CleanBlock
    title = "cleaning"

    @override
    def identity(self) -> Mapping[str, Any]:
        return {
            "cleaned from": fingerprint(self.metadata.content)[:16],
            "cleaning": self.block.options.as_json(),
            "shape": list(self.geobox.shape),
            **self.metadata.background_identity,
        }

    @override
    def map_only(self) -> Self:
        return replace(self, block=replace(self.block, map_only=True))

    @override
    def new_metadata(self) -> StoreMetadata:
        encoding, levels = replace(self.maps.encoding, objects=False), self.metadata.levels
        if self.block.map_only:
            encoding, levels = replace(encoding, probability=None, kept=()), 0
        return self.metadata.derived(
            self.maps.path,
            identity=self.identity(),
            command=COMMAND,
            encoding=encoding,
            levels=levels,
            background=self.block.options.background_value,
            cleaned=self.block.options.as_json(),
            cleaned_from=self.maps.path,
        )

    @override
    def prepare(self, client: Client, store: Store, show: ProgressFactory) -> None:
        """Decide what reaches over blocks, stage after stage."""
        block = self.block_function(store)
        for stage in scene_stages(block.options):
            merge_labels(client, block.merge(store, stage), show, TITLES[stage])

    @override
    def block_function(self, store: Store) -> CleanBlock:
        return replace(self.block, maps=self.maps.cut_as(store))
