"""How well a network does on whole scenes: foreground against background. Knows networks, but no loop.

Every score is of whole scenes, each run at once with reflected edges as in inference, never a mean of chips.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.reach import Footprint
from models.segmenter import Segmenter

from .datasets import IGNORE, LabelledScene, filled

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True, slots=True)
class Scores:
    """Pixels right and wrong at one threshold: foreground found, foreground imagined, foreground missed."""

    hits: int
    false_alarms: int
    misses: int

    @property
    def iou(self) -> float:
        """Intersection over union."""
        return _ratio(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def precision(self) -> float:
        """How much of what was found is there."""
        return _ratio(self.hits, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        """How much of what is there was found."""
        return _ratio(self.hits, self.hits + self.misses)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.hits, 2 * self.hits + self.false_alarms + self.misses)

    def rounded(self) -> dict[str, float]:
        """Give the four ratios to four digits, by name."""
        return {name: round(getattr(self, name), 4) for name in ("iou", "precision", "recall", "f1")}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0  # nothing to find, nothing found


@torch.inference_mode()
def foreground(
    segmenter: Segmenter, scene: LabelledScene, mean: NDArray[np.float64], footprint: Footprint
) -> NDArray[np.float32]:
    """Run a whole scene at once and give how likely each pixel is not background.

    Parameters
    ----------
    segmenter
        Put in evaluation mode.
    scene, mean
        Unobserved pixels become the band's mean.
    footprint
        The scene is reflected by the exact halo, and then up to the next multiple of the stride.

    Returns
    -------
    ndarray
        `(y, x)` float32 from 0 to 1.
    """
    pixels = filled(scene, mean)  # (band, y, x)
    halo, rows, columns = footprint.halo or 0, *scene.labels.shape
    ends = [halo + -size % footprint.stride for size in (rows, columns)]
    padded = np.pad(pixels, ((0, 0), (halo, ends[0]), (halo, ends[1])), mode="reflect")
    batch = torch.from_numpy(padded)[None].contiguous(memory_format=torch.channels_last)
    background: NDArray[np.float32] = segmenter.eval()(batch)[0, 0].numpy()
    return 1 - background[halo : halo + rows, halo : halo + columns]


def score(found: Sequence[NDArray[np.float32]], scenes: Sequence[LabelledScene], threshold: float = 0.5) -> Scores:
    """Compare foreground probabilities `(y, x)`, one per scene, with the labels that are not ignored."""
    totals = np.zeros(3, np.int64)
    for probability, scene in zip(found, scenes, strict=True):
        counted = scene.labels != IGNORE
        says, truth = probability[counted] > threshold, scene.labels[counted] > 0
        totals += [(says & truth).sum(), (says & ~truth).sum(), (~says & truth).sum()]
    return Scores(*(int(total) for total in totals))


def best_threshold(
    found: Sequence[NDArray[np.float32]],
    scenes: Sequence[LabelledScene],
    thresholds: Iterable[float] = THRESHOLDS,
) -> float:
    """Give the threshold of the highest IoU. For validation scenes only: a test scene must choose nothing."""
    return max(thresholds, key=lambda threshold: score(found, scenes, threshold).iou)
