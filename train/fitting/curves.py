"""The course of a training as a picture, from the logs it wrote; and that of a search for a learning rate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.files import whole_file

from .run_folder import LOGS

NAMES = {"loss": "training", "validation_loss": "validation", "iou": "IoU", "f1": "F1", "accuracy": "accuracy"}


def read_logs(run: Path) -> Any:
    """Read the logs of a training, of all its sittings: a pandas table, one row an epoch, the latest where two."""
    import pandas as pd

    tables = [pd.read_csv(path) for path in sorted(run.glob(f"{LOGS}/*/metrics.csv")) if path.stat().st_size]
    if not tables:
        return pd.DataFrame({"epoch": [], "step": []})
    # Lightning writes an epoch's validation and training into two rows
    return pd.concat([table.groupby("epoch").last() for table in tables]).groupby(level=0).last().reset_index()


def write_curves(run: Path, title: str) -> Path:
    """Draw losses and scores over the steps into `curves.png` in the run's folder."""
    table = read_logs(run)
    figure, (losses, scores) = _panels(title)
    for axes, names in ((losses, ("loss", "validation_loss")), (scores, ("iou", "f1", "accuracy"))):
        for name in (name for name in names if name in table):
            axes.plot(table["step"] + 1, table[name], marker=".", label=NAMES[name])
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    losses.set_ylabel("loss")
    scores.set(ylabel="on the validation samples", ylim=(0, 1))
    return _written(figure, run / "curves.png")


def write_rates(rates: Sequence[float], losses: Sequence[float], chosen: float | None, path: Path) -> Path:
    """Draw the loss over the learning rates that were tried, and the one suggested."""
    figure, (axes,) = _panels("learning rate", 1)
    axes.plot(rates, losses)
    if chosen is not None:
        axes.axvline(chosen, linestyle="--", color="0.3", label=f"suggested: {chosen:.2g}")
        axes.legend(frameon=False)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axes.grid(alpha=0.3)
    return _written(figure, path)


def _panels(title: str, count: int = 2) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * count, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _written(figure: Any, path: Path) -> Path:
    with whole_file(path) as part:
        figure.savefig(part, metadata={"Software": "Swathe"})
    return path
