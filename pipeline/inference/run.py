"""Segment a scene of any size on Dask, resumably: its blocks through the network into a Zarr store or a GeoTIFF."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import ProbabilityType, Thresholds
from models.engine import Device, EngineName, EngineSpec, PrecisionOption
from models.engine_memory import UNKNOWN, EngineMemory
from models.errors import SwatheError
from models.options import chosen, documents
from models.redact import redact_url
from models.system import usable_cpus
from models.timing import spending

from ..cluster.ask import ask_workers
from ..cluster.connect import check_client
from ..cluster.gpu_workers import on_gpus
from ..cluster.on_worker import Requirements
from ..cluster.processes import ClusterLike, LocalProcesses, workers_of
from ..cluster.workers import own_facts
from ..grid.block_result import BlockResult
from ..grid.geobox import GeoBox
from ..grid.tile_grid import Blend, Taper
from ..grid.tiling import TilingPlan
from ..io.gdal import CACHE, close_files
from ..io.radiometry import Rescaled
from ..io.raster import RasterSource
from ..io.resample import Resampling
from ..io.scene import SceneLike
from ..io.source import Source
from ..io.untrusted import end_children
from ..jobs.job import BlockFunction, BlockJob, RunResult, filled_store, run_job
from ..jobs.progress import ProgressFactory
from ..jobs.run_log import RunLog
from ..jobs.skipped import OnError
from ..mosaic.open import MosaicLike
from ..mosaic.seams import measure
from ..mosaic.source import MosaicSource
from ..store.metadata import GRID, StoreMetadata, level_count
from ..store.store import Store, read_metadata
from .each import mosaic_of, predict_block
from .kept_precision import GRAPH, BegunRun
from .memory import Resources, machine_memory
from .merge import Merge
from .nonfinite import OnNonfinite
from .options import OPTIONS, Halo, Overlap, SegmentOptions
from .plan import BundleLike, SegmentPlan, blocks_at_once, plan_scene
from .predict import InferenceSpec, measured_memory
from .worker_classes import EngineRequirement, WorkerClass, identity_of
from .worker_tiles import OwnTiles, own_recipe

FILE_BLOCK = 512  # side of what files are usually decoded by
MEASURING = 300  # seconds that a worker has to measure what its engine takes


@documents(SegmentOptions)
def run(
    scene: SceneLike | MosaicLike,
    bundle: BundleLike,
    output: str | os.PathLike[str],
    *,
    client: ClusterLike | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    opaque_background: bool = False,
    sync: bool = True,
    show: bool = True,
    note: Callable[[str], object] | None = None,
    log: RunLog | None = None,
    on_error: OnError = "fail",
    bands: Sequence[str | int] | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    reflectance: bool = False,
    tile: int | None = None,
    block: int | None = None,
    halo: Halo = "exact",
    overlap: Overlap | None = None,
    blend: Blend = "crop",
    taper: Taper = "linear",
    tolerance: float = 0.004,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: PrecisionOption = "fp32",
    threads: int | None = None,
    compile: bool = False,
    threshold: Thresholds | Literal["likeliest"] | None = None,
    probability: ProbabilityType | None = "uint8",
    probability_of: str | None = None,
    overviews: bool = True,
    allow_mismatch: bool = False,
    memory: str | int | None = None,
    each: Merge | None = None,
    untrusted: bool = False,
    on_nonfinite: OnNonfinite = "fail",
) -> RunResult:
    """Segment a scene of any size into a Zarr store or a GeoTIFF. Run again after any interruption, it continues.

    Parameters
    ----------
    scene
        See `open_scene`.
    bundle
        A bundle, or the name or path of one. On a cluster, its path must be reachable from the workers.
    output
        Path or URL of the store, ending in `.zarr` by custom; or a local path that ends in `.tif`: a Cloud-Optimized
        GeoTIFF of the class map alone. One run at a time may write to it.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: this machine.
    workers
        Processes of this machine, which share its cores and memory and end with the run. Starting one takes two to
        three seconds of a core, and on two cores they gave nothing back (`benchmarks.workers`). They are for many
        cores and fast networks, where one process cannot read and write as fast as its engine computes. None: one,
        this one. A script that asks for more does so under `if __name__ == "__main__":`.
    overwrite
        Replace the output of another run, and do a finished one again. What this very run has begun is continued all
        the same. Nothing is removed before scene, bundle and cluster have been found fit.
    opaque_background
        Of a `.tif`: whether the background is shown in its colour and hides what lies below; else it is transparent.
    sync
        Whether what is written has reached the disk before it counts as done, so that a power cut loses nothing.
    show
        Show progress.
    note
        Called with the plan in words before the blocks, and with what follows them.
    log
        An empty `RunLog`: filled with what is known of the run, also if it fails; `write_run_report` makes a page.
    on_error
        What becomes of a block that fails after its retries. `fail`: the run ends. `skip`: it is set aside, and is
        nodata; the store lists it, and the same call later tries just such blocks again. Where more than half of the
        blocks fail, of twenty or more, or all of them, the run ends all the same. A `.tif` is not written while any
        are lacking: what is done stays beside it.
    {SegmentOptions}

    Returns
    -------
    RunResult

    Raises
    ------
    SwatheError
        As `plan`; or the output belongs to another run; or a block failed after retries. Finished blocks stay.
    """
    where = workers_of(client, workers)
    check_client(where)
    options = chosen(SegmentOptions, locals())
    measures = options.precision in ("auto", "int8") or "auto" in (options.halo, options.overlap)
    begun = _begun(output, overwrite=overwrite) if measures else None
    prepared = plan_scene(scene, bundle, options, elsewhere=where is not None, begun=begun)
    if note is not None:
        note(str(prepared))
    else:
        prepared.log_doubts()
    if prepared.inference.spec.device == "cuda":
        where = on_gpus(where)
    try:
        return run_job(
            Segmentation(prepared, None if where is None else _begun_identity(output, overwrite=overwrite)),
            output,
            "all" if overwrite else "nothing",
            client=where,
            show=show,
            opaque_background=opaque_background,
            sync=sync,
            note=note,
            log=log,
            on_error=on_error,
        )
    finally:
        close_files()
        end_children()


def _begun(output: str | os.PathLike[str], *, overwrite: bool) -> BegunRun | None:
    """Return what a run finds at its output; a complete one that is done again begins anew."""
    found = BegunRun.read(filled_store(output))
    return None if found is not None and found.complete and overwrite else found


def _begun_identity(output: str | os.PathLike[str], *, overwrite: bool) -> Mapping[str, Any] | None:
    """Return the identity of what a run finds at its output, which decides whose engine leads."""
    try:
        metadata = read_metadata(filled_store(output))
    except (SwatheError, OSError):  # whoever writes there says what is wrong
        return None
    return None if metadata is None or (metadata.state == "complete" and overwrite) else metadata.identity


@dataclass(frozen=True, slots=True)
class Network(BlockFunction):
    """A block is what the network predicts for it."""

    source: Source
    inference: InferenceSpec
    own: OwnTiles | None = None  # None: all processes are alike

    @property
    @override
    def scatter_once(self) -> bool:
        return self.source.scatter_once or bool(self.inference.graph)

    @property
    @override
    def on_gpu(self) -> bool:
        return self.inference.spec.device == "cuda"

    @override
    def across(self, store: Store) -> int:
        """As many as GDAL keeps decoded, so that blocks of a file below the halos of two rows are decoded once."""
        rows = store.plan.block + 2 * max(store.plan.halo, FILE_BLOCK)
        pixel = len(self.source.bands) * self.source.dtype.itemsize
        return max(1, CACHE // (rows * store.plan.block * pixel))

    @override
    def compute_block(self, store: Store, row: int, column: int) -> BlockResult:
        window, worker = store.window(0, row, column), own_facts()
        if worker is None or self.own is None:
            return predict_block(self.source, window, self.inference)
        inference = self.inference
        if inference.spec.threads is None:  # workers of one machine share its cores
            inference = replace(inference, spec=replace(inference.spec, threads=worker.nthreads))
        recipe = own_recipe(worker, inference, self.own)
        with spending("wait"):
            recipe.room.acquire()
        try:
            return predict_block(self.source, window, replace(inference, plan=recipe.plan))
        finally:
            recipe.room.release()


@dataclass(frozen=True, slots=True)
class Segmentation(BlockJob):
    """A run that was planned."""

    prepared: SegmentPlan
    begun: Mapping[str, Any] | None = None  # the identity of what lies at the output
    own: OwnTiles | None = None
    title = "segmenting"

    @property
    @override
    def geobox(self) -> GeoBox:
        return self.prepared.geobox

    @property
    @override
    def reads(self) -> tuple[str, ...]:
        return self.prepared.source.paths

    @property
    @override
    def threads(self) -> int:
        cut, spec = self.prepared.cut, self.prepared.inference.spec
        most = blocks_at_once(spec)
        return min(most, cut.cost.fitting(cut.plan) if spec.device == "cuda" else cut.cost.slots)

    @override
    def identity(self) -> Mapping[str, Any]:
        inference, cut = self.prepared.inference, self.prepared.plan
        identity = {
            "source": self.prepared.scene_identity,
            "bundle": inference.digest,
            **identity_of(inference.spec),
            "precision": inference.spec.precision,
            "compile": inference.spec.compile,
            "halo": cut.halo,
            "cut": _cut_identity(cut),
            "encoding": inference.encoding.to_json(),
            "shape": self.geobox.shape,
            "overviews": self.prepared.options.overviews,
            **({"graph": inference.spec.graph} if inference.spec.graph else {}),
            **({"each": inference.each} if inference.each else {}),
        }
        return json.loads(json.dumps(identity))  # type: ignore[no-any-return]

    @override
    def requirements(self) -> Requirements:
        inference = self.prepared.inference
        probe = EngineRequirement(self._asked, None if self.own is None else inference.spec)  # chosen by asking them
        return Requirements(self.reads, (inference.bundle, inference.digest), probe, self.prepared.cut.cost.fixed)

    @property
    def _asked(self) -> EngineSpec:
        chosen = self.prepared.inference.spec
        return replace(
            self.prepared.options.spec(self.prepared.inference.metadata), precision=chosen.precision, graph=chosen.graph
        )

    @override
    def bind_to_cluster(self, client: Client) -> Self:
        """Let workers say which engine serves best, and cut for their memory: this machine may have another."""
        prepared = self.prepared
        workers = WorkerClass.ask(client, self._asked, self.begun)
        inference = replace(prepared.inference, spec=workers.spec)
        prepared = prepared.for_classes(workers.spec, workers.resources, lambda: _measured(client, inference, workers))
        own = OwnTiles(prepared.options.tile, prepared.options.memory, prepared.pixel, workers.sharing)
        return replace(self, prepared=prepared, own=own)

    @override
    def share_among(self, processes: LocalProcesses) -> Self:
        spec = self.prepared.inference.spec
        spec = replace(spec, threads=processes.share(spec.threads or usable_cpus()))
        inference = replace(self.prepared.inference, spec=spec)
        each = Resources(machine_memory() // processes.count, blocks_at_once(spec))
        return replace(self, prepared=self.prepared.for_workers(spec, each, lambda: measured_memory(inference)))

    @property
    def _mosaic(self) -> MosaicSource | None:
        return mosaic_of(self.prepared.source)

    @override
    def planned_blocks(self, side: int) -> NDArray[np.bool_] | None:
        return None if self._mosaic is None else self._mosaic.blocks_touched(side)

    @override
    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        mosaic = self._mosaic if self.prepared.inference.each is None else None  # else pixels are of no one scene
        found = None if mosaic is None else measure(client, store, mosaic, show)
        return {} if found is None else {"seams": found.to_json()}

    @override
    def map_only(self) -> Self:
        options, inference = replace(self.prepared.options, probability=None, overviews=False), self.prepared.inference
        inference = replace(inference, encoding=options.encoding(inference.metadata))
        return replace(self, prepared=replace(self.prepared, options=options, inference=inference))

    @override
    def new_metadata(self) -> StoreMetadata:
        inference, bundle = self.prepared.inference, self.prepared.inference.metadata
        brought = self.prepared.source
        source = brought.source if isinstance(brought, Rescaled) else brought
        paths = [redact_url(path) for path in source.paths]
        scene: dict[str, Any] = {"bands": list(source.bands), "dtype": str(source.dtype)}
        if paths:
            scene["path"] = paths
        if isinstance(source, RasterSource) and source.resampled:
            scene["resampling"] = source.resampling
        if isinstance(brought, Rescaled) and (changed := brought.describe()):
            scene["rescaled"] = changed
        if self.prepared.options.alpha is not None:  # for pictures of the scene
            scene["alpha"] = self.prepared.options.alpha
        if self.prepared.options.untrusted:
            scene["untrusted"] = True
        scene[OPTIONS], scene["bundle"] = self.prepared.options.kept(), redact_url(inference.bundle)
        return StoreMetadata(
            inference.plan,
            inference.encoding,
            bundle.classes,
            self.identity(),
            bundle.background_value,
            level_count(self.geobox) if self.prepared.options.overviews else 0,
            bundle={"name": bundle.name, "digest": inference.digest, "architecture": bundle.architecture}
            | bundle.about,
            source=scene,
            precision={} if self.prepared.choice is None else asdict(self.prepared.choice),
            overlap={} if self.prepared.overlap is None else asdict(self.prepared.overlap),
        )

    @override
    def kept(self) -> Mapping[str, bytes]:
        graph = self.prepared.inference.graph
        return {GRAPH: graph} if graph else {}

    @override
    def block_function(self, store: Store) -> Network:
        mine, theirs = self.prepared.plan, store.plan  # tiles do not change pixels and may differ from the store's
        plan = replace(theirs, tile=min(mine.tile, theirs.block), tile_aspect=mine.tile_aspect)
        return Network(self.prepared.source, replace(self.prepared.inference, plan=plan), self.own)


def _cut_identity(cut: TilingPlan) -> Mapping[str, Any]:
    """Return what of a cut decides pixels: nothing under the exact halo, and of tiles on a grid the grid alone."""
    if cut.exact:
        return {}
    if cut.grid is None:
        return {"tile": cut.tile, "tall": cut.tile_aspect, "block": cut.block}
    grid = {GRID: cut.grid.side, "overlap": cut.grid.overlap, "blend": cut.grid.blend}
    return grid | ({} if cut.grid.taper is None else {"taper": cut.grid.taper})


def _measured(client: Client, inference: InferenceSpec, workers: WorkerClass) -> EngineMemory:
    """Measure what an engine takes on the first of some workers that can."""
    for address in workers.addresses:
        (answer,) = ask_workers(client, _measure, inference, workers=[address], patience=MEASURING).values()
        if isinstance(answer, EngineMemory):
            return answer
    return UNKNOWN


async def _measure(inference: InferenceSpec) -> EngineMemory:
    return await asyncio.to_thread(measured_memory, inference)
