"""How well a bundle does on whole labelled scenes of any size, beside baselines that it must beat.

Scenes go through the same block function that segments them (`pipeline.inference.predict`), so that the scores are
those of the network run over each scene at once. What is computed is kept in a folder until the scores are whole: a
run that was stopped continues.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from models.bundle import Bundle, load_bundle
from models.encoding import Decision, Thresholds
from models.engine import Device, EngineName, PrecisionOption
from models.errors import StoreError, TrainingError
from models.metadata import some_of
from models.options import chosen, documents
from pipeline.cluster.connect import check_client, dask_client
from pipeline.cluster.processes import ClusterLike
from pipeline.grid.tile_grid import Blend, Taper
from pipeline.inference.options import Halo, Overlap, SegmentOptions
from pipeline.inference.plan import BundleLike, SegmentPlan, plan_source
from pipeline.inference.radiometry import doubts
from pipeline.inference.run import Segmentation
from pipeline.io.source import Source
from pipeline.jobs.job import BlockJob
from pipeline.store.work_folder import WorkFolder

from ..data.samples import Sample
from .baselines import BaselinePredictor
from .counts import rank_squares
from .jobs import Classes, Predictor
from .results import Evaluation, summary
from .runner import EvalOptions, Runner, prepare_samples
from .scorecard import check_folder, write_scorecard

FEW = 3  # samples of which every stage is shown
DISTANCE, SIDE = 2, 256  # pixels: width of a boundary; side of the squares that are resampled, and shown


@dataclass(frozen=True, slots=True)
class NetworkPredictor(Predictor):
    """A bundle, by the pipeline's own block function."""

    bundle: Bundle
    options: SegmentOptions

    @property
    @override
    def name(self) -> str:
        return self.bundle.metadata.name

    @override
    def metadata(self) -> Mapping[str, Any]:
        return {"digest": self.bundle.digest}

    def plan(self, source: Source, block: int | None = None) -> SegmentPlan:
        """Plan a scene; probabilities are kept.

        A precision that is measured is so by the thresholds that are given, or the bundle's own.
        """
        of, block = None if len(self.bundle.metadata.classes) == 2 else "all", block or self.options.block
        kept = replace(self.options, probability="float32", probability_of=of, overviews=False, block=block)
        prepared = plan_source(source, self.bundle, kept)
        kept = replace(kept, threshold="likeliest")
        inference = replace(prepared.inference, encoding=kept.encoding(self.bundle.metadata))
        return replace(prepared, options=kept, inference=inference)

    @override
    def job(self, source: Source, classes: Classes, block: int) -> BlockJob:
        return Segmentation(self.plan(source, block))  # of the labels, which may have been kept before


@documents(SegmentOptions, but=("threshold",))
def evaluate(
    bundle: BundleLike,
    samples: Sequence[Sample],
    output: str | os.PathLike[str] | None = None,
    *,
    threshold: Thresholds | Literal["likeliest"] | None = None,
    choose: bool = False,
    baselines: Sequence[BaselinePredictor] = (),
    distance: int = DISTANCE,
    side: int = SIDE,
    objects: bool = True,
    client: ClusterLike | None = None,
    overwrite: bool = False,
    settings: str = "",
    show: bool = True,
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
    allow_mismatch: bool = False,
    memory: str | int | None = None,
) -> Evaluation:
    """Score a bundle on labelled scenes, whole, as it would segment them. Memory does not grow with a scene.

    Parameters
    ----------
    bundle
        A bundle, or the name or path of one.
    samples
        Scored inside their areas; pixels with the label `IGNORE` and those not observed do not count.
    output
        Folder for `scores.json`, `scores.md` and `index.html`. What is computed lies in `OUTPUT.unfinished`
        meanwhile. None: nothing is written.
    threshold
        See `pipeline.inference.options.SegmentOptions`. None: the bundle's own.
    choose
        Take for each class the threshold with the highest IoU on these very samples: for validation, never for a test.
        Without a background it stays the likeliest class.
    baselines
        Fitted predictors that the bundle must beat; see `fit_brightness` and `fit_forest`.
    distance
        Width of a boundary in pixels, for boundary IoU.
    side
        Of the squares that are resampled for intervals and ranked for pictures, in pixels.
    objects
        Whether objects are matched, at an IoU of 0.5.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
    overwrite
        Replace an output that is there.
    settings
        Kept in `scores.json`: a digest of all that decides the scores, by which a caller tells that they are there.
    show
        Show progress.
    {SegmentOptions}

    Returns
    -------
    Evaluation

    Raises
    ------
    TrainingError
        No pixel is labelled; labels are of no class of the bundle.
    SwatheError
        The output exists; a scene or its labels cannot be read, or the scene does not fit the bundle. What is finished
        stays.
    """
    check_client(client)
    asked, few = chosen(SegmentOptions, locals()), len(samples) <= FEW
    options = EvalOptions(distance, side, objects, show and few, show and not few)
    network = NetworkPredictor(bundle if isinstance(bundle, Bundle) else load_bundle(bundle), asked)
    target = None if output is None else check_folder(output, overwrite=overwrite)
    plans = [network.plan(sample.source) for sample in samples]
    if not plans:
        raise TrainingError("there is no sample to evaluate on")
    # baselines, too, are scored on values such as the bundle's
    samples = [replace(sample, source=plan.source) for sample, plan in zip(samples, plans, strict=True)]
    doubtful = doubts([plan.source for plan in plans], network.bundle.metadata)
    with work_folder(target) as folder, dask_client(client, Segmentation(plans[0]).threads) as connection:
        classes, background = network.bundle.metadata.classes, network.bundle.metadata.background_value
        tiled = [(sample, plan.plan) for sample, plan in zip(samples, plans, strict=True)]
        prepared, notes = prepare_samples(connection, tiled, classes, background, folder, options)
        runner = Runner(connection, prepared, classes, background, options)
        scored, counts = runner.score(network, *_decision(runner, network, threshold, choose=choose))
        pairs = list(zip(prepared, counts, strict=True))
        found = Evaluation(
            network.bundle,
            scored,
            tuple(runner.score(baseline, None, "it decides itself")[0] for baseline in baselines),
            tuple(one.sample for one in prepared),
            rank_squares([(one.sample, part.cells) for one, part in pairs], side, background),
            distance,
            side,
            describe_engines({sample.name: plan for sample, plan in zip(samples, plans, strict=True)}),
            (*notes, *doubtful, *dict.fromkeys(note for plan in plans for note in plan.notes)),
            settings,
        )
        if target is not None:
            write_scorecard(found, {one.sample.name: part.stores for one, part in pairs}, target)
    return found


def describe_engines(plans: Mapping[str, SegmentPlan]) -> str:
    """Say on what, and in which precision samples are predicted; each by its name where they differ."""
    found: dict[str, list[str]] = {}
    for name, prepared in plans.items():
        found.setdefault(prepared.inference.spec.precision, []).append(name)
    spec = next(iter(plans.values())).inference.spec
    each = "; ".join(f"{precision} for {some_of(names)}" for precision, names in found.items())
    return f"{spec.name} on {spec.device}, {spec.precision if len(found) == 1 else each}"


@contextmanager
def work_folder(target: Path | None) -> Iterator[Path]:
    """Make a folder for stores: removed when all went well, kept where the same call can continue."""
    if target is None:
        with tempfile.TemporaryDirectory(prefix="swathe-") as name:
            yield Path(name)
        return
    work = WorkFolder(str(target), "evaluation")
    try:
        work.begin()
    except StoreError as error:
        raise TrainingError(str(error)) from error
    try:
        yield Path(work.folder)
    except TrainingError:  # of the samples themselves: there is nothing to continue
        work.remove()
        raise
    work.remove()


def finish(output: str | os.PathLike[str]) -> None:
    """Remove what a run has left that was killed when its scores were whole. Raises TrainingError if it is not ours."""
    target = Path(os.path.abspath(output))
    if os.path.exists(WorkFolder(str(target), "evaluation").folder):
        with work_folder(target):
            pass


def _decision(
    runner: Runner, network: NetworkPredictor, asked: Thresholds | Literal["likeliest"] | None, *, choose: bool
) -> tuple[Decision | None, str]:
    """Return the thresholds that are given, chosen here, or the bundle's own, and which of these they are."""
    if choose and asked is None:
        chosen = runner.best_thresholds(network)
        return chosen, "the likeliest class" if chosen is None else "chosen on these very samples"
    found = SegmentOptions(threshold=asked).decision(network.bundle.metadata)
    return found, "the likeliest class" if found is None else "the bundle's own" if asked is None else "given"


def choose_thresholds(
    bundle: BundleLike,
    samples: Sequence[Sample],
    output: str | os.PathLike[str],
    *,
    show: bool = True,
    engine: EngineName = "auto",
) -> tuple[dict[str, float], dict[str, Any]]:
    """Choose a bundle's thresholds on validation samples.

    Parameters
    ----------
    bundle, samples, output, show, engine
        See `evaluate`; an output that is there is replaced.

    Returns
    -------
    thresholds, metrics
        By class, for `BundleMetadata.thresholds`; empty: the likeliest class. `validation`: the scores there.
    """
    found = evaluate(bundle, samples, output, choose=True, overwrite=True, show=show, objects=False, engine=engine)
    return found.thresholds, {"validation": summary(found.network.pooled)}
