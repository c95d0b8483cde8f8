"""Samples judged: their truths kept, predictors run over them, blocks counted, counts made into scores.

Drives `works` and `passes` through the stores of one evaluation; knows neither bundles nor reports.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from dask.base import tokenize
from distributed import Client

from models.errors import PlanError, TrainingError
from models.metadata import ClassInfo
from pipeline.grid.tiling import TilingPlan
from pipeline.io.gdal import file_stamp
from pipeline.jobs.job import make_progress, run_job
from pipeline.objects.objects import write_objects
from pipeline.store.metadata import fingerprint
from pipeline.store.store import Store, open_store

from ..data.samples import Sample
from ..metrics.scores import Scores, intervals
from .counts import Cell, Counted, Counts, Kept, Pass, add_up, count_sample, sweep_sample
from .jobs import decided_job, truth_job
from .predictors import Predictor

Item = TypeVar("Item")
TELL_EVERY = 5.0  # seconds between lines that count samples


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What an evaluation is asked for, checked."""

    distance: int
    side: int
    objects: bool
    show: bool  # every stage of every sample
    count: bool = False  # samples alone: of many small ones, stages would fill the screen

    def __post_init__(self) -> None:
        for name, value in (("distance", self.distance), ("side", self.side)):
            if value < 1:
                raise PlanError(f"{name} is a number of pixels of at least 1; received {value}")


@dataclass(frozen=True, slots=True)
class PreparedSample:
    """A sample with its truth, kept in a folder of its own."""

    sample: Sample
    folder: Path
    truth: Store
    objects: Store | None


def judge(
    client: Client,
    samples: Sequence[Sample],
    plans: Sequence[TilingPlan],
    classes: tuple[ClassInfo, ...],
    folder: Path,
    asked: EvalOptions,
) -> tuple[list[PreparedSample], list[str]]:
    """Keep the labels of every sample, and number their objects.

    Parameters
    ----------
    client, asked
        Where and what is worked out.
    samples, plans, classes
        Samples, how each is cut, and the classes by value.
    folder
        For the stores.

    Returns
    -------
    list of Judged, list of str
        Samples without a judged pixel are left out, and named in the notes.

    Raises
    ------
    TrainingError
        None is left; or a label is of no class.
    """
    judged, notes = [], []
    for sample, plan in counted(list(zip(samples, plans, strict=True)), "reading labels", show=asked.count):
        one = _truth(client, sample, plan, classes, folder, asked)
        if one is None:
            notes.append(f"{sample.name} is left out: none of its pixels are judged")
        else:
            judged.append(one)
    if not judged:
        raise TrainingError(
            f"{samples[0].name}{' and the others have' if len(samples) > 1 else ' has'} no judged pixel: "
            "labels are ignored, or the scene is not observed there"
        )
    return judged, notes


def _truth(
    client: Client, sample: Sample, cut: TilingPlan, classes: tuple[ClassInfo, ...], folder: Path, asked: EvalOptions
) -> PreparedSample | None:
    metadata = _truth_facts(sample)
    own = folder / f"sample-{fingerprint(metadata)[:16]}"
    job = truth_job(sample, cut, classes, metadata)
    report = run_job(job, own / "truth.zarr", "others", client=client, show=asked.show)
    if not any(count for name, count in report.pixels.items() if name != "nodata"):
        return None
    objects = _objects(client, own / "truth.zarr", own / "truth-objects.zarr", asked)
    return PreparedSample(sample, own, open_store(report.output)[0], objects)


def _truth_facts(sample: Sample) -> dict[str, Any]:
    """Give what tells a sample's truth from another's: where labels come from, which files, which pixels count."""
    return {
        "labels of": tokenize(sample.name, sample.labels, sample.areas),
        "files": [[path, file_stamp(path)] for path in sample.paths],
        "source": sample.source.identity(),
    }


def _objects(client: Client, maps: Path, output: Path, asked: EvalOptions) -> Store | None:
    """Find and number the objects of a map, if they are asked for."""
    if not asked.objects:
        return None
    write_objects(maps, output, widths=False, client=client, overwrite=False, show=asked.show)
    return open_store(os.fspath(output))[0]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one predictor.

    Parameters
    ----------
    name
        Of the predictor.
    threshold
        At which classes were decided; None: the likeliest class.
    threshold_from
        Who chose it, in words.
    pooled
        Of all samples together, with intervals.
    samples
        Of each, by its name.
    facts
        What is worth to know of the predictor, as JSON values.
    graded
        Whether its probabilities are more than 0 and 1.
    """

    name: str
    threshold: float | None
    threshold_from: str
    pooled: Scores
    samples: Mapping[str, Scores]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    graded: bool = True


@dataclass(frozen=True, slots=True)
class Runner:
    """Scores one predictor after the other on the same truths."""

    client: Client
    judged: Sequence[PreparedSample]
    classes: tuple[ClassInfo, ...]
    asked: EvalOptions

    def maps(self, predictor: Predictor, one: PreparedSample) -> Store:
        """Predict one sample, where anything is judged."""
        job, path = predictor.job(one.sample.source), self._folder(predictor, one) / "maps.zarr"
        report = run_job(job, path, "others", client=self.client, show=self.asked.show, mask=one.truth)
        return open_store(report.output)[0]

    def _folder(self, predictor: Predictor, one: PreparedSample) -> Path:
        return one.folder / fingerprint({"name": predictor.name})[:16]

    def decided(self, predictor: Predictor, one: PreparedSample, maps: Store, threshold: float | None) -> Kept:
        """Decide on the map that is judged, and number its objects."""
        folder = self._folder(predictor, one)
        metadata = {"maps": fingerprint(open_store(maps.path)[1].identity)}
        job = decided_job(maps, one.truth, threshold, self.classes, metadata)
        report = run_job(job, folder / "decided.zarr", "others", client=self.client, show=self.asked.show)
        objects = folder / f"objects-{fingerprint(job.identity())[:16]}.zarr"
        numbered = _objects(self.client, folder / "decided.zarr", objects, self.asked)
        return Kept(one.truth, maps, open_store(report.output)[0], one.objects, numbered)

    def kept(self, predictor: Predictor, one: PreparedSample) -> Kept:
        """Give the stores of a sample that was scored; without objects."""
        folder = self._folder(predictor, one)
        maps, decided = (open_store(os.fspath(folder / f"{name}.zarr"))[0] for name in ("maps", "decided"))
        return Kept(one.truth, maps, decided)

    def best_threshold(self, predictor: Predictor) -> float | None:
        """Give the threshold with the highest IoU over all samples; None where there is nothing to find."""
        told = counted(self.judged, f"segmenting with {predictor.name}", show=self.asked.count)
        sweeps = [sweep_sample(self.client, self.maps(predictor, one), one.truth) for one in told]
        best = add_up(sweeps).best()
        return None if best is None else best.threshold

    def score(self, predictor: Predictor, threshold: float | None, chosen: str) -> tuple[Scored, list[Counted]]:
        """Score a predictor on all samples."""
        told = counted(self.judged, f"scoring {predictor.name}", show=self.asked.count)
        parts = [self._count(predictor, one, threshold) for one in told]
        names = tuple(info.name for info in self.classes)
        tally, objects = parts[0].tally, parts[0].objects
        for more in parts[1:]:
            tally = tally + more.tally
            objects = None if objects is None or more.objects is None else objects + more.objects
        cells = [counts for part in parts for counts in _in_order(part.cells)]
        pooled = Scores(names, tally, objects, intervals(np.stack(cells)))
        each = {
            one.sample.name: Scores(names, part.tally, part.objects)
            for one, part in zip(self.judged, parts, strict=True)
        }
        return Scored(predictor.name, threshold, chosen, pooled, each, predictor.metadata(), predictor.graded), parts

    def _count(self, predictor: Predictor, one: PreparedSample, threshold: float | None) -> Counted:
        kept = self.decided(predictor, one, self.maps(predictor, one), threshold)
        what = Pass(kept, len(self.classes), self.asked.distance, self.asked.side)
        return count_sample(self.client, what, make_progress(self.asked.show), f"scoring {predictor.name}")


def counted(items: Sequence[Item], title: str, *, show: bool) -> Iterator[Item]:
    """Give items one by one; tell every few seconds how many there were."""
    told = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if show and (time.monotonic() - told > TELL_EVERY or number == len(items)):
            told = time.monotonic()
            print(f"{title}: {number} of {len(items)} samples", file=sys.stderr, flush=True)


def _in_order(cells: Mapping[Cell, Counts]) -> list[Counts]:
    """Give counts by place: blocks end in any order, and what is drawn at random must not depend on it."""
    return [cells[cell] for cell in sorted(cells)]
