"""The Lightning module: steps of training and validation, optimiser, schedule, and averaged weights.

The network stands inside the same `Segmenter` as in inference: raw pixels in, so that scaling cannot drift.
"""

from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from models.errors import TrainingError
from models.metadata import ReceptiveField
from models.segmenter import Segmenter

from ..config import Loop, Settings
from ..config.schema import IGNORE
from .networks import frozen_at, keep_frozen_in_eval, parameter_groups, set_frozen

Batch = Mapping[str, Tensor]


class SegmentationModule(pl.LightningModule):
    """A network in training.

    Parameters
    ----------
    settings
        Of the training.
    segmenter
        Scaling and network.
    receptive_field
        The network's, as measured.
    loss
        Of logits `(n, class, y, x)` and labels `(n, y, x)`.
    describe
        Names the chips of these numbers, with their files, for messages.
    """

    def __init__(self, settings: Settings, segmenter: Segmenter, receptive_field: ReceptiveField, loss: nn.Module,
                 describe: Callable[[list[int]], str]) -> None:  # fmt: skip
        super().__init__()
        self.settings, self.segmenter, self.receptive_field = settings, segmenter, receptive_field
        self.loss, self.describe = loss, describe
        self.confusion = MulticlassConfusionMatrix(len(settings.classes), ignore_index=IGNORE)
        self.validation_loss = MeanMetric()

    def training_step(self, batch: Batch, number: int) -> Tensor:
        """Return the loss of a batch. Raises TrainingError where it is not finite."""
        loss: Tensor = self.loss(self.segmenter.logits(self._laid_out(batch["pixels"])), batch["labels"])
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.global_step + 1}; make loop.learning_rate smaller, or "
                f"set loop.clip. The batch: {self.describe(batch['numbers'].tolist())}"
            )
        self.log("loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["labels"]))
        return loss

    def validation_step(self, batch: Batch, number: int) -> None:
        """Count right and wrong pixels of a batch."""
        logits = self.segmenter.logits(self._laid_out(batch["pixels"])).float()
        self.confusion.update(logits.argmax(dim=1), batch["labels"])
        self.validation_loss.update(self.loss(logits, batch["labels"]))

    def on_validation_epoch_end(self) -> None:
        """Log what was counted."""
        for name, value in scores_of(self.confusion.compute(), self.settings.background_value).items():
            self.log(name, value, prog_bar=name == "iou")
        self.log("validation_loss", self.validation_loss.compute())
        self.confusion.reset()
        self.validation_loss.reset()

    def on_train_epoch_start(self) -> None:
        """Begin every epoch's random numbers anew, so that none need be kept for a training that is resumed."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch)
        set_frozen(self.segmenter.network, frozen_at(self.settings.network.freeze, self.current_epoch))

    def train(self, mode: bool = True) -> "SegmentationModule":
        """Set the mode; the norms of a frozen encoder stay as they are."""
        super().train(mode)
        keep_frozen_in_eval(self.segmenter.network)
        return self

    def configure_optimizers(self) -> Any:
        """Return optimiser and schedule."""
        loop, network = self.settings.loop, self.settings.network
        groups = parameter_groups(self.segmenter.network, loop.learning_rate, network.encoder_rate, loop.weight_decay)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[loop.optimizer]
        optimizer = kind(groups, lr=loop.learning_rate)
        schedule = schedule_of(optimizer, loop, round_up(loop.steps, loop.check_every))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _laid_out(self, pixels: Tensor) -> Tensor:
        layout = torch.channels_last if self.settings.loop.channels_last else torch.contiguous_format
        return pixels.contiguous(memory_format=layout)


def round_up(steps: int, epoch: int) -> int:
    """Return the steps of whole epochs."""
    return -(-steps // epoch) * epoch


def scores_of(counts: Tensor, background: int | None = 0) -> dict[str, Tensor]:
    """Return scores of a confusion matrix `(truth, predicted)`: means over classes but the background, and accuracy."""
    counts = counts.double()
    hits, both = counts.diagonal(), counts.sum(dim=1) + counts.sum(dim=0)
    iou, f1 = hits / (both - hits), 2 * hits / both
    counted = [value for value in range(len(counts)) if value != background]
    # a class that neither is there nor was predicted has no score
    means = {name: values[counted].nanmean().nan_to_num(0) for name, values in (("iou", iou), ("f1", f1))}
    return {name: value.float() for name, value in {**means, "accuracy": hits.sum() / counts.sum()}.items()}


def schedule_of(optimizer: torch.optim.Optimizer, loop: Loop, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the learning rate, step by step, each group from its own peak."""
    schedulers = torch.optim.lr_scheduler
    if loop.schedule == "one-cycle":
        peaks = [group["lr"] for group in optimizer.param_groups]
        # PyTorch divides by the rise's steps less one
        warmup = loop.warmup * (1 - 1e-9) if loop.warmup * steps == 1 else loop.warmup
        return schedulers.OneCycleLR(optimizer, peaks, steps, pct_start=warmup, cycle_momentum=False)
    if loop.schedule == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, steps)
    return schedulers.ConstantLR(optimizer, factor=1.0, total_iters=0)


class Averaging(WeightAveraging):
    """Keeps a running mean of the weights, which is what is validated and kept; early weights are forgotten sooner."""

    def __init__(self, decay: float) -> None:
        def mean(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
            if not averaged.is_floating_point():
                return current
            kept = min(decay, (1 + int(count)) / (10 + int(count)))
            return torch.lerp(averaged, current, 1 - kept)

        super().__init__(avg_fn=mean)
