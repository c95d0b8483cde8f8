"""The training loop: chips in, the weights that did best on the validation scenes out, as a bundle.

Everything random hangs on one seed. Knows no file but the bundle it writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.build import build
from models.bundle import Bundle, save_bundle
from models.facts import Band, Facts
from models.footprint import measure_footprint
from models.reach import Footprint
from models.scaling import Scaling, z_score
from models.segmenter import Segmenter

from .datasets import ChipSampler, LabelledScene, Statistics, measure
from .evaluate import best_threshold, foreground, score
from .losses import dice_and_cross_entropy
from .settings import Loop, Settings

Report = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """A network that a training gave, and what was known and measured along the way."""

    network: nn.Module
    footprint: Footprint
    statistics: Statistics
    dtype: str
    step: int
    metrics: Mapping[str, Any]


def fit(
    settings: Settings,
    scenes: Sequence[LabelledScene],
    validation: Sequence[LabelledScene],
    report: Report = print,
) -> Iterator[Fitted]:
    """Train a network from fresh weights, and give every one that does better than all before it: the last is the best.

    Parameters
    ----------
    settings
        See `Settings`.
    scenes
        What is learnt from.
    validation
        What the checkpoint and then the threshold are chosen on; nothing else is.
    report
        Receives one line at every look at the validation scenes.
    """
    torch.set_num_threads(settings.loop.threads)
    torch.manual_seed(settings.seed)
    statistics = measure(scenes)
    network = build(settings.architecture, len(settings.bands), len(settings.classes), **settings.options)
    footprint = measure_footprint(deepcopy(network), len(settings.bands))
    learner = Segmenter(network, _scaling(statistics)).to(memory_format=torch.channels_last)
    sampler = ChipSampler(scenes, statistics, settings.chips, settings.seed)
    best, dtype = -1.0, str(scenes[0].pixels.dtype)
    for step, loss, averaged in _learn(learner, sampler, settings.loop):
        found = [foreground(averaged, scene, statistics.mean, footprint) for scene in validation]
        scores = score(found, validation)  # at one half, where the class map is decided
        report(f"step {step}: loss {loss:.3f}, validation {scores.rounded()}")
        if scores.iou > best:
            best = scores.iou
            kept = deepcopy(averaged.network)
            yield Fitted(kept, footprint, statistics, dtype, step, _metrics(found, validation))


def _scaling(statistics: Statistics) -> Scaling:
    return z_score([round(v, 4) for v in statistics.mean.tolist()], [round(v, 4) for v in statistics.stddev.tolist()])


def _learn(learner: Segmenter, sampler: ChipSampler, loop: Loop) -> Iterator[tuple[int, float, Segmenter]]:
    """Take every step; give step, mean loss since the last look, and averaged weights whenever it is time to look."""
    averaged = deepcopy(learner)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=loop.learning_rate, weight_decay=loop.weight_decay)
    progress = _progress(loop)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: one_cycle(progress(step)))
    losses: list[float] = []
    for step, (pixels, labels) in enumerate(sampler, start=1):
        losses.append(_step(learner, optimiser, pixels, labels, loop.bf16))
        schedule.step()
        _follow(averaged, learner, min(loop.ema, step / (step + 10)))  # early weights are forgotten sooner
        done = progress(step) >= 1
        if step % loop.check_every == 0 or done:
            yield step, sum(losses) / len(losses), averaged
            losses.clear()
        if done:
            return


def _progress(loop: Loop) -> Callable[[int], float]:
    """Give how far along a step is, from 0 to 1: by the count of steps, or by the clock where that says more."""
    began, seconds = time.monotonic(), 60 * loop.minutes
    return lambda step: max(step / loop.steps, (time.monotonic() - began) / seconds if seconds else 0.0)


def one_cycle(progress: float, rise: float = 0.1) -> float:
    """Give the learning rate as a part of its peak: a line up for the first tenth, then a cosine down to zero."""
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - rise) / (1 - rise)))


def _step(learner: Segmenter, optimiser: torch.optim.Optimizer, pixels: Tensor, labels: Tensor, bf16: bool) -> float:
    learner.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = learner.logits(pixels.contiguous(memory_format=torch.channels_last))
    loss = dice_and_cross_entropy(logits, labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


@torch.no_grad()
def _follow(averaged: nn.Module, learner: nn.Module, decay: float) -> None:
    """Move the averaged weights towards the learner's; the batch norms' running means are already smooth."""
    for old, new in zip(averaged.parameters(), learner.parameters(), strict=True):
        old.lerp_(new, 1 - decay)
    for kept, latest in zip(averaged.buffers(), learner.buffers(), strict=True):
        kept.copy_(latest)


def _metrics(found: Sequence[NDArray[np.float32]], scenes: Sequence[LabelledScene]) -> dict[str, Any]:
    """Score at one half and at the threshold that does best here."""
    threshold = best_threshold(found, scenes)
    return {
        "threshold": threshold,
        "validation": score(found, scenes, threshold).rounded(),
        "validation at 0.5": score(found, scenes).rounded(),
    }


def save(path: Path, settings: Settings, fitted: Fitted, provenance: Mapping[str, Any]) -> Bundle:
    """Write what was fitted as a bundle; one that lies there is replaced.

    Parameters
    ----------
    path
        A folder, or a zip by its ending.
    provenance
        Joined to that of the settings.
    """
    means = fitted.statistics.mean.round(4).tolist()
    facts = Facts(
        name=settings.name,
        architecture=settings.architecture,
        options=dict(settings.options),
        bands=tuple(Band(name, mean) for name, mean in zip(settings.bands, means, strict=True)),
        dtype=fitted.dtype,
        scaling=_scaling(fitted.statistics),
        classes=settings.classes,
        footprint=fitted.footprint,
        resolution=settings.resolution,
        patch=settings.chips.size,
        description=settings.description,
        provenance={**settings.provenance, "seed": settings.seed, "best step": fitted.step, **provenance},
        metrics=fitted.metrics,
    )
    return save_bundle(path, fitted.network, facts, overwrite=True)
