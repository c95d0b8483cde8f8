"""Segment a scene of any size on Dask, resumably: its blocks through the network into a Zarr store or a GeoTIFF."""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.encoding import ProbabilityType, Thresholds
from models.engine import Device, EngineName, PrecisionOption
from models.options import chosen, documents
from models.system import usable_cpus

from ..cluster.connect import check_client
from ..cluster.processes import ClusterLike, LocalProcesses, workers_of
from ..cluster.workers import gpu_resources, worker_facts, worker_nthreads
from ..grid.block_result import BlockResult
from ..grid.geobox import GeoBox
from ..io.content_id import redact_url
from ..io.gdal import CACHE, close_files
from ..io.radiometry import Rescaled
from ..io.raster import RasterSource
from ..io.resample import Resampling
from ..io.scene import SceneLike
from ..io.source import Source
from ..jobs.job import BlockFunction, BlockJob, RunResult, filled_store, run_job
from ..jobs.progress import ProgressFactory
from ..jobs.tasks import run_once
from ..mosaic.open import MosaicLike
from ..mosaic.seams import measure
from ..mosaic.source import MosaicSource
from ..store.metadata import HARDWARE, StoreMetadata, level_count
from ..store.store import Store
from .each import mosaic_of, predict_block
from .kept_precision import GRAPH, BegunRun
from .memory import Resources, machine_memory
from .merge import Merge
from .options import Halo, SegmentOptions
from .plan import BundleLike, SegmentPlan, blocks_at_once, plan_scene
from .predict import InferenceSpec, measured_memory, resolve_engine

FILE_BLOCK = 512  # side of what files are usually decoded by


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
    show: bool = True,
    note: Callable[[str], object] | None = None,
    bands: Sequence[str | int] | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    reflectance: bool = False,
    tile: int | None = None,
    block: int | None = None,
    halo: Halo = "exact",
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
    show
        Show progress.
    note
        Called with the plan in words before the blocks, and with what follows them.
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
    begun = _begun(output, overwrite=overwrite) if options.precision in ("auto", "int8") else None
    prepared = plan_scene(scene, bundle, options, elsewhere=where is not None, begun=begun)
    if note is not None:
        note(str(prepared))
    else:
        prepared.log_doubts()
    try:
        return run_job(
            Segmentation(prepared),
            output,
            "all" if overwrite else "nothing",
            client=where,
            show=show,
            opaque_background=opaque_background,
            note=note,
        )
    finally:
        close_files()


def _begun(output: str | os.PathLike[str], *, overwrite: bool) -> BegunRun | None:
    """Return what a run finds at its output; a complete one that is done again begins anew."""
    found = BegunRun.read(filled_store(output))
    return None if found is not None and found.complete and overwrite else found


@dataclass(frozen=True, slots=True)
class Network(BlockFunction):
    """A block is what the network predicts for it."""

    source: Source
    inference: InferenceSpec

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
        inference, threads = self.inference, worker_nthreads()
        if threads is not None and inference.spec.threads is None:  # workers of one machine share its cores
            inference = replace(inference, spec=replace(inference.spec, threads=threads))
        return predict_block(self.source, store.window(0, row, column), inference)


@dataclass(frozen=True, slots=True)
class Segmentation(BlockJob):
    """A run that was planned."""

    prepared: SegmentPlan
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
        return blocks_at_once(self.prepared.inference.spec)

    @override
    def identity(self) -> Mapping[str, Any]:
        inference, cut = self.prepared.inference, self.prepared.plan
        identity = {
            "source": self.prepared.scene_identity,
            "bundle": inference.digest,
            "engine": f"{inference.spec.name} on {inference.spec.device}",
            "precision": inference.spec.precision,
            "compile": inference.spec.compile,
            "halo": cut.halo,
            # under the exact halo, tile and block do not change pixels
            "cut": {} if cut.exact else {"tile": cut.tile, "tall": cut.tile_aspect, "block": cut.block},
            "encoding": inference.encoding.to_json(),
            "shape": self.geobox.shape,
            "overviews": self.prepared.options.overviews,
            HARDWARE: inference.spec.hardware,
            **({"graph": inference.spec.graph} if inference.spec.graph else {}),
            **({"each": inference.each} if inference.each else {}),
        }
        return json.loads(json.dumps(identity))  # type: ignore[no-any-return]

    @override
    def bind_to_cluster(self, client: Client) -> Self:
        """Let a worker say which engine serves best, and cut for its memory: this machine may have another."""
        chosen = self.prepared.inference.spec
        asked = replace(self.prepared.options.spec(), precision=chosen.precision, graph=chosen.graph)
        spec = run_once(client, resolve_engine, asked, gpu_resources(client))
        inference = replace(self.prepared.inference, spec=spec)
        prepared = self.prepared.for_workers(
            spec, worker_resources(client), lambda: run_once(client, measured_memory, inference)
        )
        return replace(self, prepared=prepared)

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
        )

    @override
    def kept(self) -> Mapping[str, bytes]:
        graph = self.prepared.inference.graph
        return {GRAPH: graph} if graph else {}

    @override
    def block_function(self, store: Store) -> Network:
        mine, theirs = self.prepared.plan, store.plan  # tiles do not change pixels and may differ from the store's
        plan = replace(theirs, tile=min(mine.tile, theirs.block), tile_aspect=mine.tile_aspect)
        return Network(self.prepared.source, replace(self.prepared.inference, plan=plan))


def worker_resources(client: Client) -> Resources:
    """Return what the workers of a cluster have, each: of several kinds, the least memory and the most threads."""
    workers = worker_facts(client)
    limits = [worker.memory for worker in workers if worker.memory]
    if len(limits) < len(workers):  # some have no limit of their own, and share what their machine has
        machines = Counter(worker.host for worker in workers)
        limits.append(run_once(client, _machine_memory, None) // max(machines.values()))
    return Resources(min(limits), max(worker.nthreads for worker in workers))


def _machine_memory(_: None) -> int:
    return machine_memory()
