"""The search for a learning rate: a short training whose rate rises with every step, by Lightning's tuner.

Source of the method: L. Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), arXiv:1506.01186.
"""

import io
import os
import sys
import tempfile
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.tuner.tuning import Tuner

from models.errors import TrainingError
from models.system import usable_cpus

from ..data.chips import reader_errors
from .run_folder import panels, save_figure
from .training import Training, loaders, make_module, make_trainer, quiet_lightning


@dataclass(frozen=True, slots=True)
class Rates:
    """What a search found.

    Parameters
    ----------
    suggested
        Where the loss falls fastest; None where it never falls.
    tried, losses
        Learning rates, and the smoothed loss at each.
    """

    suggested: float | None
    tried: tuple[float, ...]
    losses: tuple[float, ...]


def find_rate(training: Training, *, steps: int = 100, show: bool = True) -> Rates:
    """Search for a learning rate; nothing is kept of the training.

    Parameters
    ----------
    training
        As `prepare` returns it.
    steps
        How many rates are tried, from 1e-6 to 1 on a logarithmic scale; the search ends where the loss explodes.
    show
        Show progress.

    Raises
    ------
    TrainingError
        The loss is not a number from the first steps on.
    """
    torch.set_num_threads(training.settings.loop.threads or usable_cpus())
    module, (batches, _) = make_module(training), loaders(training)
    epochs = -(-steps // training.settings.loop.check_every) + 1  # a short training's own would end the search
    silent = nullcontext() if show else redirect_stderr(io.StringIO())  # the tuner's bar cannot be turned off
    with tempfile.TemporaryDirectory(prefix="swathe-rates-") as folder, quiet_lightning(), silent, reader_errors():
        trainer = make_trainer(training.settings.loop, epochs, Path(folder), validated=False, show=False)
        finder = Tuner(trainer).lr_find(module, batches, min_lr=1e-6, max_lr=1.0, num_training=steps, update_attr=False)
    if show:
        print(file=sys.stderr)  # the bar leaves its line open
    if finder is None or not finder.results["loss"]:
        raise TrainingError("no learning rate could be tried; look at the data with --check")
    suggested = finder.suggestion(skip_begin=min(10, len(finder.results["loss"]) // 4), skip_end=1)
    return Rates(suggested, tuple(finder.results["lr"]), tuple(finder.results["loss"]))


def draw_rates(rates: Rates, path: str | os.PathLike[str]) -> Path:
    """Draw the loss over the learning rates that were tried, and the one suggested, into a picture (`.png`)."""
    figure, (axes,) = panels("learning rate", 1)
    axes.plot(rates.tried, rates.losses)
    if rates.suggested is not None:
        axes.axvline(rates.suggested, linestyle="--", color="0.3", label=f"suggested: {rates.suggested:.2g}")
        axes.legend(frameon=False)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(alpha=0.3)
    return save_figure(figure, Path(path))
