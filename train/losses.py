"""What training makes small. Knows tensors only."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from .datasets import IGNORE


def dice_and_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Add the soft Dice loss to the cross-entropy; ignored pixels count in neither.

    Cross-entropy judges each pixel, Dice each class as a whole: a small class weighs as much as a large one.

    Parameters
    ----------
    logits
        `(n, class, y, x)` floating.
    labels
        `(n, y, x)` int64, `IGNORE` where a pixel does not count.

    Returns
    -------
    Tensor
        One number, 0 where every pixel is ignored.
    """
    counted = labels != IGNORE
    if not counted.any():
        return logits.sum() * 0
    chosen = logits.movedim(1, -1)[counted].float()  # (pixel, class)
    truth = labels[counted]  # (pixel,)
    return cross_entropy(chosen, truth) + _dice(torch.softmax(chosen, dim=1), truth)


def _dice(probability: Tensor, truth: Tensor) -> Tensor:
    """One minus the mean over classes of (2 overlap + 1) / (sum + sum + 1); the ones serve absent classes."""
    exact = one_hot(truth, probability.shape[1]).to(probability.dtype)  # (pixel, class)
    overlap = (probability * exact).sum(dim=0)
    total = probability.sum(dim=0) + exact.sum(dim=0)
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()
