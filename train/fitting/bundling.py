"""The best weights of a training into a bundle, with where they come from and how well they do. Knows no loop."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from models.bundle import WEIGHTS, Bundle, save_bundle
from models.errors import TrainingError
from models.metadata import Band, BundleMetadata, ReceptiveField, Scaling, z_score
from models.mlm import to_item

from ..data.statistics import BandStatistics, means_of
from ..evaluation.evaluation import choose_threshold
from .module import SegmentationModule
from .run_folder import best_step
from .training import Training


def scaling_of(statistics: BandStatistics) -> Scaling:
    """Give the scaling that a network learns with, and a bundle keeps: by mean and standard deviation per band."""
    stddev = [max(value, 1e-4) for value in means_of(statistics.stddev.tolist())]
    return z_score(means_of(statistics.mean.tolist()), stddev)


def check_kept(training: Training, receptive_field: ReceptiveField) -> None:
    """Refuse what no bundle could hold, before it is learnt. Raises SwatheError."""
    metadata = facts_of(training, receptive_field, {})
    try:
        json.dumps(to_item(metadata, WEIGHTS, 0, ""), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"provenance holds what a bundle cannot: {error}; give text or finite numbers") from error


def write_best(
    output: Path, training: Training, learner: SegmentationModule, run: Path, *, command: str = "", show: bool = True
) -> Bundle:
    """Write a bundle; the threshold is chosen, and scores found, on whole validation scenes.

    Parameters
    ----------
    output
        A folder, or a zip by its ending; what is there is replaced once the new one is whole.
    training, learner
        What was trained, with its best weights.
    run
        The training's folder; a bundle without scores is kept there as well.
    command
        That was typed, for the provenance.
    show
        Show progress.
    """
    network = learner.segmenter.network
    metadata = facts_of(training, learner.receptive_field, {"best step": best_step(run), "command": command})
    bundle = save_bundle(run / "bundle", network, metadata, overwrite=True)
    if training.parts["validate"]:
        metrics = choose_threshold(bundle, training.parts["validate"], run / "validation", show=show)
        metadata = replace(metadata, metrics=metrics)
    return save_bundle(output, network, metadata, overwrite=True)


def facts_of(training: Training, receptive_field: ReceptiveField, provenance: Mapping[str, Any]) -> BundleMetadata:
    """Give all that inference must know of a trained network, and what people want to know."""
    settings, statistics = training.settings, training.statistics
    means = means_of(statistics.bands.mean.tolist())
    return BundleMetadata(
        name=settings.name,
        architecture=settings.network.architecture,
        options=dict(settings.network.options),
        bands=tuple(Band(name, mean) for name, mean in zip(settings.bands, means, strict=True)),
        dtype=settings.dtype or str(training.parts["train"][0].source.dtype),
        scaling=scaling_of(statistics.bands),
        classes=settings.classes,
        receptive_field=receptive_field,
        resolution=settings.resolution,
        patch=settings.chips.size,
        description=settings.description,
        provenance={**settings.provenance, **_provenance(training), **provenance},
    )


def _provenance(training: Training) -> dict[str, Any]:
    import lightning

    settings = training.settings
    pixels = training.statistics.class_pixels.tolist()
    return {
        "config": Path(settings.path).name,
        "seed": settings.seed,
        "trained on": [sample.name for sample in training.parts["train"]],
        "chosen on": [sample.name for sample in training.parts["validate"]],
        "pixels": dict(zip(settings.class_names, pixels, strict=True)),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }
