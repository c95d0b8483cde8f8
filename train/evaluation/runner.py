"""Samples prepared and predictors run over them: labels and maps into stores, blocks counted, scores computed."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from dask.base import tokenize
from distributed import Client

from models.encoding import Decision, Encoding
from models.errors import PlanError, TrainingError
from pipeline.grid.tiling import TilingPlan
from pipeline.io.gdal import file_stamp
from pipeline.jobs.job import make_progress, run_job
from pipeline.objects.objects import write_objects
from pipeline.store.metadata import fingerprint
from pipeline.store.store import Store, open_store

from ..data.remarks import count_remarks, describe_remarks
from ..data.samples import Sample
from ..metrics.scores import Scores, intervals
from ..metrics.thresholds import ClassCurves
from .counts import CountTask, SampleCounts, SampleStores, count_sample, count_thresholds
from .jobs import Classes, LabelFunction, Predictor, StoreJob, ThresholdFunction
from .results import PredictorScores

Item = TypeVar("Item")
LINE_EVERY = 5.0  # seconds between lines that count samples


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """Options of an evaluation, checked."""

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
    """A sample with its labels and their objects in stores, in a folder of its own."""

    sample: Sample
    folder: Path
    truth: Store
    objects: Store | None


def sample_identity(sample: Sample) -> dict[str, Any]:
    """Return what decides a sample's pixels and labels, as JSON values."""
    return {
        "labels of": tokenize(sample.name, sample.labels, sample.areas),
        "files": [[path, file_stamp(path)] for path in sample.paths],
        "source": sample.source.identity(),
    }


def prepare_samples(
    client: Client,
    tiled: Sequence[tuple[Sample, TilingPlan]],
    classes: Classes,
    background: int | None,
    folder: Path,
    options: EvalOptions,
) -> tuple[list[PreparedSample], list[str]]:
    """Keep the labels of every sample, and number their objects.

    Parameters
    ----------
    client, options
        Where and how.
    tiled, classes, background
        Samples, each with how it is tiled; the classes by value; the value of the background, None where there is none.
    folder
        For the stores.

    Returns
    -------
    list of PreparedSample, list of str
        Samples without a labelled pixel are left out, and named in the notes.

    Raises
    ------
    TrainingError
        None is left; or a label is of no class.
    """
    prepared, notes = [], []
    for sample, plan in counted(tiled, "reading labels", show=options.count):
        identity = sample_identity(sample)
        place = folder / f"sample-{fingerprint(identity)[:16]}"
        labels = LabelFunction(sample, len(classes))
        job = StoreJob("reading labels", sample.geobox, plan, classes, Encoding(), identity, labels, sample.paths,
                       background)  # fmt: skip
        result = run_job(job, place / "truth.zarr", "others", client=client, show=options.show)
        if any(count for name, count in result.pixels.items() if name != "nodata"):
            objects = _objects(client, place / "truth.zarr", place / "truth-objects.zarr", options)
            prepared.append(PreparedSample(sample, place, open_store(result.output)[0], objects))
        else:
            notes.append(f"{sample.name} is left out: none of its pixels are labelled")
    notes += [text for text, _ in describe_remarks(count_remarks(sample) for sample, _ in tiled)]
    if not prepared:
        raise TrainingError(
            f"{tiled[0][0].name}{' and the others have' if len(tiled) > 1 else ' has'} no labelled pixel: "
            "labels are ignored, or the scene is not observed there"
        )
    return prepared, notes


def _objects(client: Client, maps: Path, output: Path, options: EvalOptions) -> Store | None:
    """Find and number the objects of a map, if they are asked for."""
    if not options.objects:
        return None
    write_objects(maps, output, widths=False, client=client, overwrite=False, show=options.show)
    return open_store(os.fspath(output))[0]


@dataclass(frozen=True, slots=True)
class Runner:
    """Scores one predictor after the other on the same samples."""

    client: Client
    samples: Sequence[PreparedSample]
    classes: Classes
    background: int | None
    options: EvalOptions

    def maps(self, predictor: Predictor, one: PreparedSample) -> Store:
        """Predict one sample, where any pixel is labelled."""
        job = predictor.job(one.sample.source, self.classes, one.truth.plan.block)
        output, show = self._folder(predictor, one) / "maps.zarr", self.options.show
        return open_store(run_job(job, output, "others", client=self.client, show=show, mask=one.truth).output)[0]

    def _folder(self, predictor: Predictor, one: PreparedSample) -> Path:
        return one.folder / fingerprint({"name": predictor.name})[:16]

    def best_thresholds(self, predictor: Predictor) -> Decision | None:
        """Return each class's threshold with the highest IoU over all samples.

        None where there is no background, or no other class in the labels.
        """
        if self.background is None:
            return None
        total = ClassCurves.none(len(self.classes))
        for one in counted(self.samples, f"segmenting with {predictor.name}", show=self.options.count):
            maps = self.maps(predictor, one)
            total += count_thresholds(self.client, maps, one.truth, len(self.classes), self.background)
        return total.best(self.background)

    def score(
        self, predictor: Predictor, thresholds: Decision | None, threshold_from: str
    ) -> tuple[PredictorScores, list[SampleCounts]]:
        """Score a predictor on all samples; `threshold_from` says in words who chose the thresholds."""
        samples = counted(self.samples, f"scoring {predictor.name}", show=self.options.count)
        parts = [self._count(predictor, one, thresholds) for one in samples]
        names = tuple(info.name for info in self.classes)
        pixels = reduce(add, (part.pixels for part in parts))
        matched = [part.objects for part in parts if part.objects is not None]
        objects = reduce(add, matched) if len(matched) == len(parts) else None
        # in order of place: blocks end in any order, and what is drawn at random must not depend on it
        cells = [part.cells[cell] for part in parts for cell in sorted(part.cells)]
        pooled = Scores(names, pixels, objects, intervals(np.stack(cells)), self.background)
        each = (Scores(names, part.pixels, part.objects, None, self.background) for part in parts)
        by_name = dict(zip((one.sample.name for one in self.samples), each, strict=True))
        metadata, graded = predictor.metadata(), predictor.graded
        return PredictorScores(predictor.name, thresholds, threshold_from, pooled, by_name, metadata, graded), parts

    def _count(self, predictor: Predictor, one: PreparedSample, thresholds: Decision | None) -> SampleCounts:
        """Predict a sample, decide its classes at the thresholds, number the map's objects, and count."""
        maps, folder, show = self.maps(predictor, one), self._folder(predictor, one), self.options.show
        identity = {"maps": fingerprint(open_store(maps.path)[1].identity), "thresholds": thresholds}
        identity = json.loads(json.dumps(identity))
        decide, geobox, plan = ThresholdFunction(maps, one.truth, thresholds), maps.geobox, maps.plan
        job = StoreJob("deciding", geobox, plan, self.classes, Encoding(), identity, decide, (maps.path,),
                       self.background)  # fmt: skip
        decided = run_job(job, folder / "decided.zarr", "others", client=self.client, show=show).output
        numbered = folder / f"objects-{fingerprint(job.identity())[:16]}.zarr"
        objects = _objects(self.client, Path(decided), numbered, self.options)
        stores = SampleStores(one.truth, maps, open_store(decided)[0], one.objects, objects)
        task = CountTask(stores, len(self.classes), self.background, self.options.distance, self.options.side)
        return count_sample(self.client, task, make_progress(show), f"scoring {predictor.name}")


def counted(items: Sequence[Item], title: str, *, show: bool) -> Iterator[Item]:
    """Yield items one by one; print every few seconds how many there were."""
    printed = time.monotonic()
    for number, item in enumerate(items, 1):
        yield item
        if show and (time.monotonic() - printed > LINE_EVERY or number == len(items)):
            printed = time.monotonic()
            print(f"{title}: {number} of {len(items)} samples", file=sys.stderr, flush=True)
