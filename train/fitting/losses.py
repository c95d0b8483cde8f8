"""Losses: Dice, cross-entropy, both together, focal and Lovász.

All of them take a batch as one large image, count no ignored pixel, and compute in float32 or better whatever the
network's precision. They are written here because segmentation-models-pytorch 0.6, whose losses these would be, errs
where pixels are ignored or classes are absent; tests/test_losses.py holds ours to the papers' formulas, and to theirs
where theirs are right:

- `DiceLoss` lets an absent class cost nothing, so that nothing keeps a network from predicting it where it is not.
- `FocalLoss` takes each class's logit through a sigmoid of its own, while a bundle's probabilities are a softmax's; it
  is NaN where every pixel is ignored, and its weights are those of one-against-the-rest decisions.
- `LovaszLoss` gives an empty tensor where every pixel is ignored, and takes its gradient from differences of float32
  values near 1, which in a batch of half a million pixels are wrong by a percent.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import Loss
from ..config.schema import IGNORE


def make_loss(settings: Loss, classes: int) -> nn.Module:
    """Make the loss that a training's settings name.

    Parameters
    ----------
    settings
        Its name, and the class weights (numbers, not `balanced`), smoothing and gamma of those losses that have them.
    classes
        How many; the network gives as many channels.

    Returns
    -------
    torch.nn.Module
        Takes logits `(n, class, y, x)` of any floating type and labels `(n, y, x)` int64, which are class values or
        `IGNORE`; gives one number, float32 (float64 for logits of that type). Where all pixels are ignored that is 0,
        and so is every gradient. Its class weights move with `to(device)`.
    """
    return _BatchLoss(settings, classes)


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch as losses take it. What the network gave at ignored pixels is in none of these.

    Parameters
    ----------
    logs
        Logarithms of the classes' probabilities `(n, class, y, x)`; all classes alike at ignored pixels.
    exact
        Bool `(n, class, y, x)`, True for the class that a pixel has; nowhere at ignored pixels.
    counted
        Bool `(n, 1, y, x)`, False = ignored.
    """

    logs: Tensor
    exact: Tensor
    counted: Tensor


class _BatchLoss(nn.Module):
    def __init__(self, settings: Loss, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.weights: Tensor
        weights = torch.tensor(settings.class_weights or [1.0] * classes, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        settings, weights = self.settings, self.weights[:, None, None]
        # masks, not gathered pixels, which take several times as long
        counted = (labels != IGNORE)[:, None]
        exact = labels[:, None] == torch.arange(logits.shape[1], device=labels.device)[:, None, None]
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
        # before the softmax, or one NaN at an ignored pixel would be in every gradient: 0 * NaN is NaN
        batch = _Batch(precise.masked_fill(~counted, 0).log_softmax(1), exact, counted)
        match settings.name:
            case "dice":
                return _dice(batch)
            case "cross-entropy":
                return _cross_entropy(batch, weights, settings.label_smoothing)
            case "dice+cross-entropy":
                return _dice(batch) + _cross_entropy(batch, weights, settings.label_smoothing)
            case "focal":
                return _focal(batch, weights, settings.gamma)
            case "lovasz":
                return _lovasz(batch)


def _dice(batch: _Batch) -> Tensor:
    """Return one minus the mean over classes of (2 overlap + 1) / (sum + sum + 1); the ones serve absent classes.

    Soft Dice as Milletari et al. (V-Net, arXiv:1606.04797) have it, without their squares, over the batch and all
    classes. An absent class costs the more, the more of it is predicted.
    """
    probability = batch.logs.exp() * batch.counted
    overlap = (probability * batch.exact).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + batch.exact.sum((0, 2, 3))
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


def _cross_entropy(batch: _Batch, weights: Tensor, smoothing: float) -> Tensor:
    """Return the mean over pixels, each with its class's weight: what torch gives, but 0 where there is none.

    Label smoothing (Szegedy et al., arXiv:1512.00567) gives each class an equal part of `smoothing`.
    """
    weighted = batch.exact * weights
    loss = -(batch.logs * weighted).sum()
    if smoothing:
        even = -(batch.logs * weights * batch.counted).sum() / len(weights)
        loss = (1 - smoothing) * loss + smoothing * even
    return _over(loss, weighted.sum())


def _focal(batch: _Batch, weights: Tensor, gamma: float) -> Tensor:
    """Return the mean over pixels of -(1 - p)^gamma log p, where p is the probability of the pixel's class.

    Lin et al., arXiv:1708.02002, with a softmax. It is over the sum of weights, so that it is the cross-entropy where
    gamma is 0.
    """
    weighted = batch.exact * weights
    log = (batch.logs * batch.exact).sum(1, keepdim=True)  # of the pixel's class; 0 where ignored
    # a power below 1 is infinitely steep at 0, which is where certain pixels are: their gradient would be NaN
    doubt = (-torch.expm1(log)).clamp_min(1e-12)
    return _over(-(doubt**gamma * log * weighted.sum(1, keepdim=True)).sum(), weighted.sum())


def _over(total: Tensor, count: Tensor) -> Tensor:
    """Divide; 0 where there is nothing to divide by."""
    return total / torch.where(count > 0, count, torch.ones_like(count))


def _lovasz(batch: _Batch) -> Tensor:
    """Return the mean over the classes present of the Lovász extension of the Jaccard loss.

    Lovász-Softmax of Berman, Triki and Blaschko (arXiv:1705.08790), algorithm 1: each pixel's error counts by how much
    the Jaccard loss grows when that pixel is wrong besides all those with larger errors. A class that the batch has
    not, counts nothing.
    """
    exact = batch.exact.movedim(1, 0).flatten(1)  # (class, pixel)
    probability = batch.logs.exp().movedim(1, 0).flatten(1)
    errors = torch.where(exact, 1 - probability, probability)
    errors = errors.masked_fill(~batch.counted.flatten(), -1)  # after all others
    if len(exact) == 2:
        errors = errors[:1]  # what one class lacks the other has: the errors of both are the same
    # from large to small: the bits of floats order as integers do, which are sorted faster
    whole = torch.int64 if errors.dtype == torch.float64 else torch.int32
    order = errors.detach().view(whole).argsort(1, descending=True)
    steps = _jaccard_steps(exact.gather(1, order.expand_as(exact)), errors.dtype)
    losses = (errors.gather(1, order).relu() * steps).sum(1)
    return losses.sum() / exact.any(1).sum().clamp_min(1)


def _jaccard_steps(hits: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how much the Jaccard loss grows with each pixel, `(class, pixel)`; a hit is a pixel that has the class.

    The loss is 1 - I/U. A hit takes one from I: 1/U. Another pixel adds one to U: I/(U - 1) - I/U.
    """
    all_hits = hits.sum(1, keepdim=True)
    intersection = (all_hits - hits.cumsum(1)).to(dtype)
    union = (all_hits + (~hits).cumsum(1)).to(dtype)
    return torch.where(hits, 1 / union, intersection / (union * (union - 1)).clamp_min(1))
