"""How well a bundle does on whole labelled scenes of any size, beside what it must beat.

Scenes go through the very function of blocks that segments them (`pipeline.inference.predict`), so that the scores are
those of the network run over each scene at once. What is worked out is kept in a folder until the scores are whole: a
run that was stopped continues.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client

from models.bundle import Bundle, load_bundle
from models.errors import StoreError, TrainingError
from pipeline.inference.plan import BundleLike, SegmentPlan
from pipeline.inference.run import Segmentation
from pipeline.jobs.dask import dask_client
from pipeline.store.work_folder import WorkFolder

from ..data.samples import Sample
from .baselines import Reference
from .counts import Counted
from .predictors import BaselinePredictor, Network
from .result import Evaluation, summary
from .runner import EvalOptions, Runner, Scored, judge
from .scorecard import check_folder, write_scorecard
from .worst_areas import rank_areas

FEW = 3  # samples of which every stage is shown
DISTANCE, SIDE = 2, 256  # pixels: width of a boundary; side of the squares that are drawn anew, and shown


def evaluate(
    bundle: BundleLike,
    samples: Sequence[Sample],
    output: str | os.PathLike[str] | None = None,
    *,
    threshold: float | None = None,
    choose: bool = False,
    references: Sequence[Reference] = (),
    distance: int = DISTANCE,
    side: int = SIDE,
    objects: bool = True,
    client: Client | str | None = None,
    overwrite: bool = False,
    show: bool = True,
    **keywords: Any,
) -> Evaluation:
    """Score a bundle on labelled scenes, whole, as it would segment them. Memory does not grow with a scene.

    Parameters
    ----------
    bundle
        A bundle, or the name or path of one.
    samples
        Scored inside their areas; pixels with the label `IGNORE` and those not observed do not count.
    output
        Folder for `scores.json`, `scores.md` and `index.html`. What is worked out lies in `OUTPUT.unfinished`
        meanwhile. None: nothing is written.
    threshold
        See `pipeline.grid.encoding.Encoding`. None: the bundle's own, by its metrics; else the likeliest class.
    choose
        Take the threshold with the highest IoU on these very samples: for validation, never for a test. With more
        than two classes it stays the likeliest class.
    references
        What the bundle must beat, fitted; see `references` and `forest`.
    distance
        Width of a boundary in pixels, for boundary IoU.
    side
        Of the squares that are resampled for intervals and ranked for pictures, in pixels.
    objects
        Whether objects are matched, at an IoU of 0.5.
    client, overwrite, show
        See `pipeline.run`.
    **wishes
        See `pipeline.inference.options.SegmentOptions`, but for what is kept.

    Returns
    -------
    Evaluation

    Raises
    ------
    TrainingError
        Nothing is judged; labels are of no class of the bundle.
    SwatheError
        The output exists; a scene or its labels cannot be read, or the scene does not fit the bundle. What is finished
        stays.
    """
    few = len(samples) <= FEW
    asked = EvalOptions(distance, side, objects, show and few, show and not few)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    network = Network(loaded, keywords)
    target = None if output is None else check_folder(output, overwrite=overwrite)
    plans = [network.prepared(sample.source) for sample in samples]
    if not plans:
        raise TrainingError("there is no sample to evaluate on")
    with workplace(target) as folder, dask_client(client, Segmentation(plans[0]).threads) as connection:
        cuts, classes = [prepared.plan for prepared in plans], loaded.metadata.classes
        judged, notes = judge(connection, samples, cuts, classes, folder, asked)
        runner = Runner(connection, judged, classes, asked)
        scored, counted = _network(runner, network, threshold, choose)
        rivals = [BaselinePredictor(reference, classes, cuts[0].block) for reference in references]
        beside = tuple(runner.score(rival, None, "it decides itself")[0] for rival in rivals)
        shown = rank_areas([(one.sample, part.cells) for one, part in zip(judged, counted, strict=True)], side)
        spec = plans[0].inference.spec
        kept = tuple(one.sample for one in judged)
        found = Evaluation(loaded, scored, beside, kept, shown, distance, side,
                           f"{spec.name} on {spec.device}, {spec.precision}", (*notes, *_said(plans)))  # fmt: skip
        if target is not None:
            write_scorecard(found, {one.sample.name: runner.kept(network, one) for one in judged}, target)
    return found


@contextmanager
def workplace(target: Path | None) -> Iterator[Path]:
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


def _said(plans: Sequence[SegmentPlan]) -> list[str]:
    return list(dict.fromkeys(note for prepared in plans for note in prepared.notes))


def _network(runner: Runner, network: Network, threshold: float | None, choose: bool) -> tuple[Scored, list[Counted]]:
    """Score the bundle at the threshold that is given, chosen here, or the bundle's own."""
    own = network.bundle.metadata.metrics.get("threshold")
    if threshold is not None:
        return runner.score(network, threshold, "given")
    if choose and len(runner.classes) == 2:
        return runner.score(network, runner.best_threshold(network), "chosen on these very samples")
    if not choose and isinstance(own, float | int) and 0 <= own <= 1:
        return runner.score(network, float(own), "the bundle's own")
    return runner.score(network, None, "the likeliest class")


def choose_threshold(
    bundle: BundleLike,
    samples: Sequence[Sample],
    output: str | os.PathLike[str] | None = None,
    *,
    show: bool = True,
    **keywords: Any,
) -> dict[str, Any]:
    """Choose a bundle's threshold on validation samples; give metrics for its facts.

    Parameters
    ----------
    bundle, samples, output, show, **wishes
        See `evaluate`; an output that is there is replaced.

    Returns
    -------
    dict
        `threshold` (of two classes), and `validation`: the scores there.
    """
    found = evaluate(bundle, samples, output, choose=True, overwrite=True, show=show, objects=False, **keywords)
    chosen = {} if found.threshold is None else {"threshold": found.threshold}
    return {**chosen, "validation": summary(found.network.pooled)}
