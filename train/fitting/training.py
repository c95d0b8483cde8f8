"""A training prepared: its samples, chips and loaders, the module with its first weights, and Lightning's trainer."""

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader
from typing_extensions import override

from models.errors import TrainingError
from models.metadata import Scaling, z_score
from models.receptive_field import measure_receptive_field
from models.segmenter import Segmenter
from pipeline.jobs.kept import mark_kept
from pipeline.store.files import Files

from ..config import Loop, Settings
from ..data.augment import Augmentation
from ..data.bands import band_orders
from ..data.chips import EpochNumbers, GridChips, RandomChips, begin_reader, stack
from ..data.datasets import gather
from ..data.remarks import describe_remarks, listed
from ..data.samples import Parts
from ..data.statistics import (
    BandStatistics,
    DatasetStatistics,
    balanced_weights,
    compute_statistics,
    label_remarks,
    means_of,
)
from .losses import make_loss
from .module import Averaging, SegmentationModule, round_up
from .networks import check_chips, check_network, make_network
from .run_folder import CHECKPOINTS, LAST, LOGS

PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@dataclass(frozen=True)
class Training:
    """A training that has not begun: samples found, their statistics computed.

    Parameters
    ----------
    settings
        Of the training.
    parts
        The samples by part.
    statistics
        Of the training samples.
    chips, grid
        Chips to train on, drawn at random; chips to validate on, which cover the validation samples.
    """

    settings: Settings
    parts: Parts
    statistics: DatasetStatistics
    chips: RandomChips
    grid: GridChips

    @property
    def epochs(self) -> int:
        """How many epochs it has."""
        return round_up(self.settings.loop.steps, self.settings.loop.check_every) // self.settings.loop.check_every

    @property
    def images(self) -> dict[str, Any]:
        """Statistics that tell the images from others, as JSON values: pixels of each class, mean and deviation."""
        return {
            "pixels": dict(zip(self.settings.class_names, self.statistics.class_pixels.tolist(), strict=True)),
            "mean": means_of(self.statistics.bands.mean.tolist()),
            "stddev": means_of(self.statistics.bands.stddev.tolist()),
        }

    def describe(self, numbers: list[int]) -> str:
        """Name chips with their files, for messages."""
        places = [self.chips.place(number) for number in numbers[:8]]
        texts = [f"{self.parts['train'][p.sample].paths[0]} rows {p.window.top}-{p.window.bottom}, "
                 f"columns {p.window.left}-{p.window.right}" for p in places]  # fmt: skip
        return "; ".join(texts)


def prepare(settings: Settings, *, show: bool = True) -> Training:
    """Find the samples of a training and compute their statistics. What can be refused is; nothing is written.

    Raises
    ------
    SwatheError
        Files, labels or settings that do not fit; devices that are not there, or that cannot share a batch.
    """
    loop, batch = settings.loop, settings.chips.batch
    if batch % loop.devices:
        raise TrainingError(f"chips.batch is {batch}, which {loop.devices} devices cannot share; make it a multiple")
    there = torch.cuda.device_count()
    if loop.device == "cuda" and loop.devices > there:
        raise TrainingError(f"loop.devices is {loop.devices} on cuda, where torch finds {there}; set loop.device to "
                            "auto or cpu, or loop.devices to fewer")  # fmt: skip
    check_network(settings)
    parts = gather(settings)
    if not parts["train"]:
        raise TrainingError("no sample to learn from; name some in data.train")
    statistics = compute_statistics(parts["train"], len(settings.classes), show=show)
    for text, called in band_orders(parts["train"], settings).items() if show else ():
        _note(f"bands of {listed(called)}: {text}")
    for text, _ in describe_remarks(label_remarks(parts["train"], statistics)) if show else ():
        _note(text)
    return training_of(settings, parts, statistics)


def training_of(settings: Settings, parts: Parts, statistics: DatasetStatistics) -> Training:
    """Return the training of samples that are found, with their statistics. Raises TrainingError for a single class."""
    pixels = statistics.class_pixels.tolist()
    found = [name for name, count in zip(settings.class_names, pixels, strict=True) if count]
    if len(found) < 2:
        what = f"only the class {found[0]!r}" if found else "no labelled pixel"
        raise TrainingError(f"the training images hold {what}; a network learns to tell two or more classes apart")
    loop, chips = settings.loop, settings.chips
    augment = Augmentation(settings.augment, statistics.bands)
    means = means_of(statistics.bands.mean.tolist())
    count = round_up(loop.steps, loop.check_every) * loop.accumulate * chips.batch
    drawn = RandomChips(parts["train"], statistics.cells, means, chips, augment, settings.seed, count)
    return Training(settings, parts, statistics, drawn, GridChips(parts["validate"], means, chips.size))


def scaling_of(statistics: BandStatistics) -> Scaling:
    """Return the scaling of a training and its bundle: by mean and standard deviation of each band."""
    stddev = [max(value, 1e-4) for value in means_of(statistics.stddev.tolist())]
    return z_score(means_of(statistics.mean.tolist()), stddev)


def make_module(training: Training, *, show: bool = False) -> SegmentationModule:
    """Build the module with its first weights, which the seed decides. `show`: print which weights were taken."""
    settings, pixels = training.settings, training.statistics.class_pixels
    torch.manual_seed(settings.seed)
    sizes = len(settings.bands), len(settings.classes)
    network = make_network(settings.network, *sizes, folder=settings.folder, note=_note if show else lambda line: None)
    receptive_field = measure_receptive_field(deepcopy(network), len(settings.bands))
    check_chips(network, len(settings.bands), settings.chips.size, settings.chips.batch, receptive_field.stride)
    segmenter = Segmenter(network, scaling_of(training.statistics.bands))
    if settings.loop.channels_last:
        segmenter = segmenter.to(memory_format=torch.channels_last)
    balanced = settings.loss.class_weights == "balanced"
    loss = replace(settings.loss, class_weights=balanced_weights(pixels)) if balanced else settings.loss
    module = SegmentationModule(settings, segmenter, receptive_field, make_loss(loss, len(pixels)), training.describe)
    if settings.loop.compile:
        module.segmenter.network.compile()
    return module


def _note(line: str) -> None:
    print(f"training: {line}", file=sys.stderr, flush=True)


def loaders(training: Training, trainer: "pl.Trainer | None" = None) -> tuple[Any, Any]:
    """Return the loaders of chips to train and to validate on; the latter None where there are none."""
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
    train = DataLoader(training.chips, sampler=numbers, **share)
    return train, DataLoader(training.grid, **share) if len(training.grid) else None


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, so that whoever is killed meanwhile keeps the old one.

    Lightning's own (2.6) writes into the system's folder for temporary files and moves it from there (fsspec's
    `LocalFileOpener.commit`); where that is another disk, the move is a copy, which a kill cuts short.
    """

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        folder, name = os.path.split(os.path.abspath(path))
        Files(folder).write(name, content.getvalue())
        mark_kept()


def make_trainer(loop: Loop, epochs: int, run: Path, *, validated: bool, show: bool) -> pl.Trainer:
    """Make Lightning's trainer as the settings say.

    Parameters
    ----------
    loop
        Settings of the training loop.
    epochs
        In all.
    run
        Folder for checkpoints and logs.
    validated
        Whether there is anything to validate on. If not, the last weights are the best.
    show
        Show progress: a bar in a terminal, else one line an epoch.
    """
    best = ModelCheckpoint(run / CHECKPOINTS, "best-{step}", monitor="iou", mode="max", save_top_k=loop.keep,
                           save_on_train_epoch_end=True, enable_version_counter=False)  # fmt: skip
    last = ModelCheckpoint(run / CHECKPOINTS, LAST.removesuffix(".ckpt"), save_on_train_epoch_end=True,
                           enable_version_counter=False)  # fmt: skip
    averaging = [Averaging(loop.ema)] if loop.ema else []
    patient = [EarlyStopping("iou", mode="max", patience=loop.patience)] if loop.patience else []
    bar = show and sys.stderr.isatty()
    shown = [RichProgressBar(console_kwargs={"stderr": True}) if bar else EpochLines(epochs)] if show else []
    number = len(list((run / LOGS).glob("*")))  # a new file each time: what was logged before an interruption stays
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(loop.device, loop.device),
        devices=loop.devices,
        precision=PRECISION[loop.precision],
        max_epochs=epochs,
        gradient_clip_val=loop.clip or None,
        accumulate_grad_batches=loop.accumulate,
        # the last checkpoint is written after the best, whose name it keeps
        callbacks=[*averaging, *([*patient, best] if validated else []), last, *shown],
        # named, since Lightning looks for Slurm by itself and warns or waits for other nodes where it finds `srun`
        plugins=[WholeCheckpoints(), LightningEnvironment()],
        logger=[CSVLogger(run, LOGS, f"{number:03}"), TensorBoardLogger(run, "tensorboard", "")],
        log_every_n_steps=min(50, loop.check_every),
        num_sanity_val_steps=0,
        limit_val_batches=None if validated else 0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=bar,
        default_root_dir=run,
    )


class EpochLines(Callback):
    """Progress for a log or notebook: one line an epoch, and every 20 seconds within a long one."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.started, self.first, self.last = epochs, 0.0, 0, 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started, self.first = time.monotonic(), trainer.current_epoch
        _note(f"epoch {self.first + 1} of {self.epochs} on {trainer.strategy.root_device}")

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        now = time.monotonic()
        if now - max(self.started, self.last) > 20:
            self.last = now
            share = (trainer.fit_loop.epoch_loop.batch_idx + 1) / trainer.num_training_batches
            _note(f"epoch {trainer.current_epoch + 1}, {share:.0%} of its steps")

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.last = time.monotonic()
        done = trainer.current_epoch + 1
        left = (self.last - self.started) / (done - self.first) * (self.epochs - done)
        minutes, seconds = divmod(int(left + 0.5), 60)
        clock = f"{minutes // 60}:{minutes % 60:02}" if minutes >= 60 else f"{minutes}"
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        scores = ", ".join(f"{name} {known[name]:.3f}" for name in ("loss", "iou") if name in known)
        _note(f"epoch {done} of {self.epochs}, step {trainer.global_step}, {scores}, {clock}:{seconds:02} left")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's own tips, advertisements, and advice on what was meant so."""
    names = ["lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"]
    levels = [(log := logging.getLogger(name), log.level) for name in names]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*num_workers.*")
        for log, _ in levels:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in levels:
                log.setLevel(level)
