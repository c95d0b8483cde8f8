"""A training from settings to a bundle: what Lightning is told, and how it goes on after an interruption.

The folder `OUTPUT.training` beside the bundle keeps checkpoints, logs and the curve. Knows no pixels and no tensors.
"""

import os
import sys
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from models.bundle import Bundle, check_replaced
from models.errors import TrainingError
from models.files import refuse_existing
from models.receptive_field import measure_receptive_field
from models.segmenter import Segmenter
from models.system import usable_cpus

from ..config import Settings
from ..data.chips import EpochNumbers, begin_reader, reader_errors, stack
from ..data.statistics import balanced_weights
from .bundling import check_kept, scaling_of, write_best
from .curves import write_curves
from .losses import make_loss
from .module import SegmentationModule
from .networks import check_chips, make_network
from .run_folder import begin, best_checkpoint, check_fits, file_errors, last_checkpoint, read, run_folder, taken
from .trainer import make_trainer, quiet_lightning
from .training import Training, prepare


def train(settings: Settings, output: str | os.PathLike[str], *, restart: bool = False, overwrite: bool = False,
          show: bool = True, command: str = "") -> Bundle:  # fmt: skip
    """Train a network and write it as a bundle. Interrupted at any moment, the same call continues.

    On a CPU a continued training ends with the very bits of an uninterrupted one.

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
    _check_output(Path(output), overwrite=overwrite)
    training, run = prepare(settings, show=show), run_folder(output)
    learner = make_learner(training, show=show and is_first())
    check_kept(training, learner.receptive_field)
    with file_errors(run), taken(run) if is_first() else nullcontext():
        if is_first():
            begin(run, settings, restart=restart, images=training.images)
        fit(training, learner, run, show=show and is_first())
        if not is_first():
            raise SystemExit(0)  # a further process of Lightning's, on another device: what follows is the first's
        write_curves(run, settings.name)
        return write_best(Path(output), training, learner, run, command=command, show=show)


def is_first() -> bool:
    """Whether this is the process that was started, and not one that Lightning started beside it for another device."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def fit(training: Training, learner: SegmentationModule, run: Path, *, show: bool = True) -> None:
    """Run Lightning's loop, from the last checkpoint if there is one; the learner ends with the best weights."""
    loop = training.settings.loop
    torch.set_num_threads(loop.threads or usable_cpus())
    with quiet_lightning():
        trainer = make_trainer(loop, training.epochs, run, validated=len(training.grid) > 0, show=show)
        begun = last_checkpoint(run)
        if begun:
            check_fits(begun, read(begun), learner.state_dict())
        try:
            learn, validate = loaders(training, trainer)
            with reader_errors():
                trainer.fit(learner, learn, validate, ckpt_path=begun, weights_only=True)
        except SystemExit as end:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from end
    learner.load_state_dict(read(best_checkpoint(run))["state_dict"])


def make_learner(training: Training, *, show: bool = False) -> SegmentationModule:
    """Build the network with its first weights, which the seed decides. `show`: say which weights were taken."""
    settings = training.settings
    torch.manual_seed(settings.seed)
    sizes = len(settings.bands), len(settings.classes)
    network = make_network(settings.network, *sizes, folder=settings.folder, note=_told if show else _untold)
    receptive_field = measure_receptive_field(deepcopy(network), len(settings.bands))
    check_chips(network, len(settings.bands), settings.chips.size, settings.chips.batch, receptive_field.stride)
    segmenter = Segmenter(network, scaling_of(training.statistics.bands))
    if settings.loop.channels_last:
        segmenter = segmenter.to(memory_format=torch.channels_last)
    learner = SegmentationModule(settings, segmenter, receptive_field, _loss(training), training.describe)
    if settings.loop.compile:
        learner.segmenter.network.compile()
    return learner


def _loss(training: Training) -> nn.Module:
    told, pixels = training.settings.loss, training.statistics.class_pixels
    if told.class_weights == "balanced":
        told = replace(told, class_weights=balanced_weights(pixels))
    return make_loss(told, len(pixels))


def _told(line: str) -> None:
    print(f"training: {line}", file=sys.stderr, flush=True)


def _untold(line: str) -> None:
    pass


def loaders(training: Training, trainer: "pl.Trainer | None" = None) -> tuple[Any, Any]:
    """Give the loaders of chips to learn from and to validate on; the latter None where there are none."""
    chips, loop = training.settings.chips, training.settings.loop
    rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
    share: dict[str, Any] = {
        "batch_size": max(1, chips.batch // world),
        "collate_fn": stack,
        "num_workers": chips.workers,
        "persistent_workers": chips.workers > 0,
        "worker_init_fn": begin_reader,
    }
    numbers = EpochNumbers(loop.check_every * loop.accumulate * chips.batch, rank, world)
    learn = DataLoader(training.chips, sampler=numbers, **share)
    return learn, DataLoader(training.grid, **share) if len(training.grid) else None


def _check_output(output: Path, *, overwrite: bool) -> None:
    if "://" in os.fspath(output):
        raise TrainingError(f"{output} is not a local path; train into a local one, and copy that")
    if output.exists():
        if not overwrite:
            refuse_existing(output, error=TrainingError)
        check_replaced(output)
    parent = next(path for path in output.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TrainingError(f"{output} cannot be written: {parent} is no folder that you may write to")
