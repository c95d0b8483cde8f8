"""Segmenting, the durable way: blocks of a scene through the network into a store. The filling is `filling`'s."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

from distributed import Client

from models.cpu import usable_cpus

from ..grid.encoding import Answer
from ..grid.geobox import GeoBox
from ..grid.tiling import Plan
from ..io.array import ArraySource
from ..io.content_id import keepable
from ..io.scene import SceneLike
from ..io.source import RasterSource, Source
from ..jobs.dask import run_once, worker_nthreads
from ..jobs.job import Replacing, Report, fill
from ..jobs.progress import Shower
from ..store.lifecycle import create_store
from ..store.run_id import Identity
from ..store.store import Store
from .options import Wishes
from .plan import BundleLike, Prepared, plan
from .predict import Recipe, predict, settle_engine


def run(
    scene: SceneLike,
    bundle: BundleLike,
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
    **wishes: Unpack[Wishes],
) -> Report:
    """Segment a scene of any size into a Zarr store. Run again after any interruption, it continues.

    Parameters
    ----------
    scene
        See `open_scene`.
    bundle
        A bundle, or the name or path of one. On a cluster, its path must be reachable from the workers.
    output
        Path or URL of the store, ending in `.zarr` by custom. One run at a time may write to it.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    overwrite
        Replace a store of another run, and do a finished one again. What this very run has begun is continued all the
        same. Nothing is removed before scene, bundle and cluster have been found fit.
    show
        Show progress.
    **wishes
        See `pipeline.inference.options.Options`.

    Returns
    -------
    Report

    Raises
    ------
    SwatheError
        As `plan`; or the output belongs to another run; or a block failed after retries. Finished blocks stay.
    """
    return run_prepared(plan(scene, bundle, **wishes), output, client=client, overwrite=overwrite, show=show)


def run_prepared(
    prepared: Prepared,
    output: str | os.PathLike[str],
    *,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> Report:
    """As `run`, for a plan that has been looked at."""
    return run_replacing(prepared, output, "all" if overwrite else "nothing", client=client, show=show)


def run_replacing(
    prepared: Prepared,
    output: str | os.PathLike[str],
    replacing: Replacing,
    *,
    client: Client | str | None = None,
    show: bool = True,
) -> Report:
    """As `run_prepared`, with a finer choice of what may be replaced."""
    return fill(Segmentation(prepared), output, replacing, client=client, show=show)


@dataclass(frozen=True, slots=True)
class Network:
    """A `Painter`: a block is what the network says of it."""

    source: Source
    recipe: Recipe

    @property
    def heavy(self) -> bool:
        """See `Painter`: an array in memory is."""
        return isinstance(self.source, ArraySource)

    @property
    def on_gpu(self) -> bool:
        """See `Painter`."""
        return self.recipe.spec.device == "cuda"

    def answer(self, store: Store, row: int, column: int) -> Answer:
        """See `Painter`."""
        return predict(self.source, store.window(0, row, column), _with_threads(self.recipe))


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A `Work`: a run that was planned."""

    prepared: Prepared
    title = "segmenting"

    @property
    def geobox(self) -> GeoBox:
        """See `Work`."""
        return self.prepared.geobox

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Work`."""
        return tuple(_paths(self.prepared.source))

    @property
    def threads(self) -> int:
        """See `Work`: two on a CPU, one runs the engine while the other reads or writes. A GPU must be fed by more."""
        return 2 if self.prepared.recipe.spec.device == "cpu" else max(3, min(8, usable_cpus()))

    def identity(self) -> Mapping[str, Any]:
        """See `Work`."""
        return run_identity(self.prepared)

    def settled(self, client: Client) -> Self:
        """Let a worker say which engine serves best: this machine may have no GPU where the workers have."""
        spec = run_once(client, settle_engine, self.prepared.options.spec())
        return replace(self, prepared=replace(self.prepared, recipe=replace(self.prepared.recipe, spec=spec)))

    def create(self, path: str) -> Store:
        """See `Work`."""
        recipe, pyramid = self.prepared.recipe, self.prepared.options.pyramid
        about = {
            "identity": self.identity(),
            "bundle": _bundle_facts(recipe),
            "source": _source_facts(self.prepared.source),
        }
        classes = recipe.facts.classes
        return create_store(path, recipe.plan, self.geobox, recipe.encoding, classes, about, pyramid=pyramid)

    def before(self, client: Client, store: Store, show: Shower) -> None:
        """See `Work`: nothing."""

    def painter(self, store: Store) -> Network:
        """See `Work`."""
        recipe = replace(self.prepared.recipe, plan=_merged(self.prepared.plan, store.plan))
        return Network(self.prepared.source, recipe)

    def after(self, client: Client, store: Store, show: Shower) -> Mapping[str, Any]:
        """See `Work`: nothing."""
        return {}


def _merged(mine: Plan, theirs: Plan) -> Plan:
    """Take blocks from the store that is continued; tiles do not change pixels and may differ."""
    return replace(theirs, tile=min(mine.tile, theirs.block), tall=mine.tall)


def run_identity(prepared: Prepared) -> dict[str, Any]:
    """Give what decides the pixels of a run, as JSON values."""
    recipe, cut = prepared.recipe, prepared.plan
    identity = Identity(
        source=prepared.scene_identity,
        bundle=recipe.digest,
        engine=f"{recipe.spec.name} on {recipe.spec.device}",
        precision=recipe.spec.precision,
        compile=recipe.spec.compile,
        halo=cut.halo,
        cut={} if cut.exact else {"tile": cut.tile, "tall": cut.tall, "block": cut.block},
        encoding=recipe.encoding,
        shape=prepared.geobox.shape,
        overviews=prepared.options.pyramid,
    )
    return identity.facts()


def _bundle_facts(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.facts.name, "digest": recipe.digest, "architecture": recipe.facts.architecture}


def _source_facts(source: Source) -> dict[str, Any]:
    """Give what people want to know of the scene later; its files may have moved by then."""
    paths = [keepable(path) for path in _paths(source)]
    return {"bands": list(source.bands), "dtype": str(source.dtype), **({"path": paths} if paths else {})}


def _paths(source: Source) -> list[str]:
    if isinstance(source, RasterSource):
        return list(dict.fromkeys(layer.path for layer in source.layers))
    return [source.path] if isinstance(source, ArraySource) and source.path else []


def _with_threads(recipe: Recipe) -> Recipe:
    """Let the engine use as many threads as its worker may: workers on one machine must not fight for its cores."""
    threads = worker_nthreads()
    if threads is None or recipe.spec.threads is not None:
        return recipe
    return replace(recipe, spec=replace(recipe.spec, threads=threads))
