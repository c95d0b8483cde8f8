"""The training loop from settings to a bundle: `train`, its continuation after an interruption, and the bundle's facts.

The folder `OUTPUT.training` beside the bundle keeps checkpoints, logs and the curve.
"""

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import torch

from models.bundle import WEIGHTS, Bundle, check_replaced, finish_bundle, save_bundle
from models.errors import TrainingError
from models.files import local_path, refuse_existing, whole_file
from models.metadata import Band, BundleMetadata, ReceptiveField
from models.mlm import to_item
from models.system import usable_cpus
from pipeline.io.radiometry import meaningful
from pipeline.jobs.kept import mark_kept

from ..config import Settings
from ..data.chips import reader_errors
from ..evaluation.evaluation import choose_thresholds
from .module import SegmentationModule
from .run_folder import (
    WRITTEN,
    begin,
    best_checkpoint,
    file_errors,
    last_checkpoint,
    locked,
    read_checkpoint,
    run_folder,
    was_written,
    write_curves,
)
from .training import Training, loaders, make_module, make_trainer, prepare, quiet_lightning, scaling_of


def train(settings: Settings, output: str | os.PathLike[str], *, restart: bool = False, overwrite: bool = False,
          show: bool = True, command: str = "") -> Bundle:  # fmt: skip
    """Train a network and write it as a bundle. Interrupted at any moment, the same call continues.

    On a CPU a continued training ends with the very bits of an uninterrupted one. One that has ended is not done again:
    its bundle is returned.

    Parameters
    ----------
    settings
        See `read_settings`.
    output
        The bundle: a folder, or one file by the ending `.zip`. Beside it lies `OUTPUT.training`: checkpoints, logs
        (CSV, TensorBoard), the curve.
    restart
        Begin anew where a training was begun already.
    overwrite
        Replace a bundle that is there.
    show
        Show progress.
    command
        For the bundle's provenance.

    Raises
    ------
    SwatheError
        As `prepare`; the output exists; a training with other settings was begun there; the loss is not a number.
    """
    output = local_path(output, error=TrainingError)
    if not (overwrite or restart) and was_written(output, run_folder(output), settings):
        return finish_bundle(output)
    _check_output(output, overwrite=overwrite)
    # the process that was started, and not one that Lightning started beside it for another device
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    training, run = prepare(settings, show=show), run_folder(output)
    module = make_module(training, show=show and first)
    try:  # what no bundle could hold is refused before the training
        json.dumps(to_item(_metadata(training, module.receptive_field, {}), WEIGHTS, 0, ""), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"provenance holds what a bundle cannot: {error}; give text or finite numbers") from error
    with file_errors(run), locked(run) if first else nullcontext():
        if first:
            begin(run, settings, restart=restart, images=training.images)
        fit(training, module, run, show=show and first)
        if not first:
            raise SystemExit(0)  # what follows is the first process's
        write_curves(run, settings.name)
        return write_best(output, training, module, run, command=command, show=show)


def _check_output(output: Path, *, overwrite: bool) -> None:
    if output.exists():
        if not overwrite:
            refuse_existing(output, error=TrainingError)
        check_replaced(output)
    parent = next(path for path in output.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TrainingError(f"{output} cannot be written: {parent} is no folder that you may write to")


def fit(training: Training, module: SegmentationModule, run: Path, *, show: bool = True) -> None:
    """Run Lightning's loop, from the last checkpoint if there is one; the module ends with the best weights."""
    loop = training.settings.loop
    torch.set_num_threads(loop.threads or usable_cpus())
    with quiet_lightning():
        trainer = make_trainer(loop, training.epochs, run, validated=len(training.grid) > 0, show=show)
        begun = last_checkpoint(run, module.state_dict())
        if begun is not None:
            mark_kept()
        try:
            batches, validation = loaders(training, trainer)
            with reader_errors():
                trainer.fit(module, batches, validation, ckpt_path=begun, weights_only=True)
        except SystemExit as end:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from end
    module.load_state_dict(read_checkpoint(best_checkpoint(run))["state_dict"])


def write_best(
    output: Path, training: Training, module: SegmentationModule, run: Path, *, command: str = "", show: bool = True
) -> Bundle:
    """Write a bundle; its thresholds are chosen, and scores found, on whole validation scenes.

    Parameters
    ----------
    output
        A folder, or a zip by its ending; what is there is replaced once the new one is whole.
    training, module
        What was trained, with its best weights.
    run
        The training's folder; a bundle without scores is kept there as well.
    command
        That was typed, for the provenance.
    show
        Show progress.
    """
    network, step = module.segmenter.network, int(read_checkpoint(best_checkpoint(run))["global_step"])
    metadata = _metadata(training, module.receptive_field, {"best step": step, "command": command})
    bundle = save_bundle(run / "bundle", network, metadata, overwrite=True)
    if training.parts["validate"]:
        thresholds, metrics = choose_thresholds(bundle, training.parts["validate"], run / "validation", show=show)
        metadata = replace(metadata, thresholds=thresholds, metrics=metrics)
        bundle = save_bundle(run / "bundle", network, metadata, overwrite=True)
    with whole_file(run / WRITTEN) as part:  # before the bundle is there: the same command then knows it
        part.write_text(bundle.digest)
    return save_bundle(output, network, metadata, overwrite=True)


def _bands(training: Training) -> tuple[Band, ...]:
    """Return the bands of the bundle: their means, and what the values of the training images mean and are."""
    source, quantiles = training.parts["train"][0].source, training.statistics.bands.quantiles.tolist()
    facts = zip(training.settings.bands, training.images["mean"], source.radiometry, quantiles, strict=True)
    return tuple(
        Band(name, mean, meaningful(means), tuple(float(f"{value:.6g}") for value in values))
        for name, mean, means, values in facts
    )


def _metadata(training: Training, receptive_field: ReceptiveField, provenance: Mapping[str, Any]) -> BundleMetadata:
    """Return the metadata of the bundle: all that inference must know, and the provenance."""
    settings = training.settings
    origin = {
        "config": Path(settings.path).name,
        "seed": settings.seed,
        "trained on": [sample.name for sample in training.parts["train"]],
        "chosen on": [sample.name for sample in training.parts["validate"]],
        "pixels": training.images["pixels"],
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }
    return BundleMetadata(
        name=settings.name,
        architecture=settings.network.architecture,
        options=dict(settings.network.options),
        bands=_bands(training),
        dtype=settings.dtype or str(training.parts["train"][0].source.dtype),
        scaling=scaling_of(training.statistics.bands),
        classes=settings.classes,
        receptive_field=receptive_field,
        resolution=settings.resolution,
        patch=settings.chips.size,
        background=settings.background_name,
        description=settings.description,
        provenance={**settings.provenance, **origin, **provenance},
    )
