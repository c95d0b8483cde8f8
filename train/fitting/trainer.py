"""What Lightning is told: precision, callbacks, loggers, and when to be silent. Knows settings, no pixels."""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from models.errors import TrainingError
from pipeline.store.files import Files

from ..config import Loop
from .module import Averaging
from .progress import progress_callback
from .run_folder import CHECKPOINTS, LAST, LOGS

PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def check_devices(loop: Loop, batch: int) -> None:
    """Refuse devices that are not there, or that cannot share a batch. Raises TrainingError."""
    import torch

    if batch % loop.devices:
        raise TrainingError(f"chips.batch is {batch}, which {loop.devices} devices cannot share; make it a multiple")
    there = torch.cuda.device_count()
    if loop.device == "cuda" and loop.devices > there:
        raise TrainingError(
            f"loop.devices is {loop.devices} on cuda, where torch finds {there}; set loop.device to auto or cpu, or "
            "loop.devices to fewer"
        )


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, so that whoever is killed meanwhile keeps the old one.

    Lightning's own (2.6) writes into the system's folder for temporary files and moves it from there (fsspec's
    `LocalFileOpener.commit`); where that is another disk, the move is a copy, which a kill cuts short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """See Lightning's `CheckpointIO`."""
        import torch

        content = io.BytesIO()
        torch.save(checkpoint, content)
        folder, name = os.path.split(os.path.abspath(path))
        Files(folder).write(name, content.getvalue())


def make_trainer(loop: Loop, epochs: int, run: Path, *, validated: bool, show: bool) -> pl.Trainer:
    """Tell Lightning what the settings say.

    Parameters
    ----------
    loop
        See `Loop`.
    epochs
        In all.
    run
        Folder for checkpoints and logs.
    validated
        Whether there is anything to validate on. If not, the last weights are the best.
    show
        Show progress.
    """
    callbacks = _callbacks(loop, run, validated=validated)
    if show:
        callbacks.append(progress_callback(epochs))
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(loop.device, loop.device),
        devices=loop.devices,
        precision=PRECISION[loop.precision],
        max_epochs=epochs,
        gradient_clip_val=loop.clip or None,
        accumulate_grad_batches=loop.accumulate,
        callbacks=callbacks,
        # named, since Lightning looks for Slurm by itself and warns or waits for other nodes where it finds `srun`
        plugins=[WholeCheckpoints(), LightningEnvironment()],
        logger=_loggers(run),
        log_every_n_steps=min(50, loop.check_every),
        num_sanity_val_steps=0,
        limit_val_batches=None if validated else 0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        default_root_dir=run,
    )


def _callbacks(loop: Loop, run: Path, *, validated: bool) -> list[Any]:
    """Give the callbacks in their order: the last checkpoint is written after the best, whose name it keeps."""
    folder = run / CHECKPOINTS
    best = ModelCheckpoint(folder, "best-{step}", monitor="iou", mode="max", save_top_k=loop.keep,
                           save_on_train_epoch_end=True, enable_version_counter=False)  # fmt: skip
    last = ModelCheckpoint(folder, LAST.removesuffix(".ckpt"), save_on_train_epoch_end=True,
                           enable_version_counter=False)  # fmt: skip
    averaging = [Averaging(loop.ema)] if loop.ema else []
    patient = [EarlyStopping("iou", mode="max", patience=loop.patience)] if loop.patience else []
    return [*averaging, *([*patient, best] if validated else []), last]


def _loggers(run: Path) -> list[Any]:
    """Log into a new file each time: what was logged before an interruption stays."""
    number = len(list((run / LOGS).glob("*")))
    return [CSVLogger(run, LOGS, f"{number:03}"), TensorBoardLogger(run, "tensorboard", "")]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's own talk away: tips, advertisements, and advice on what was meant so."""
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
