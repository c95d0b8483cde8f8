"""How a training shows itself: a bar in a terminal, one line an epoch in a log or notebook. Knows only counts."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, RichProgressBar


class EpochLines(Callback):
    """Prints one line an epoch, and after the first steps that it is under way."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.started, self.first, self.last = epochs, 0.0, 0, 0.0

    def on_train_start(self, trainer: pl.Trainer, learner: pl.LightningModule) -> None:
        """Say where it begins."""
        self.started, self.first = time.monotonic(), trainer.current_epoch
        self._print(f"training: epoch {self.first + 1} of {self.epochs} on {trainer.strategy.root_device}")

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Say how a long epoch goes on."""
        now = time.monotonic()
        if now - max(self.started, self.last) > 20:
            self.last = now
            share = (trainer.fit_loop.epoch_loop.batch_idx + 1) / trainer.num_training_batches
            self._print(f"training: epoch {trainer.current_epoch + 1}, {share:.0%} of its steps")

    def on_train_epoch_end(self, trainer: pl.Trainer, learner: pl.LightningModule) -> None:
        """Print what an epoch gave."""
        self.last = time.monotonic()
        done = trainer.current_epoch + 1
        left = (self.last - self.started) / (done - self.first) * (self.epochs - done)
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        told = ", ".join(f"{name} {known[name]:.3f}" for name in ("loss", "iou") if name in known)
        self._print(f"training: epoch {done} of {self.epochs}, step {trainer.global_step}, {told}, {_time(left)} left")

    @staticmethod
    def _print(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def progress_callback(epochs: int) -> Callback:
    """Give what shows progress best here."""
    return RichProgressBar(console_kwargs={"stderr": True}) if sys.stderr.isatty() else EpochLines(epochs)


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
