"""The folder `OUTPUT.training` beside a bundle: a training's settings, checkpoints and logs, and its curve.

A folder belongs to one training, at one time to one process: another's settings, images or networks are refused, with
what differs. A folder that no training has made is never touched.
"""

import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.bundle import load_bundle
from models.errors import BundleError, TrainingError
from models.files import whole_file
from pipeline.store.files import Files

from ..config import Settings

SETTINGS, CHECKPOINTS, LAST, LOGS = "settings.json", "checkpoints", "last.ckpt", "logs"
PART = "settings.partial"
WRITTEN = "written.sha256"  # the digest of the bundle that the training has written
FREE = ("path", "provenance", "description")  # what a continued training may have changed
FREE_LOOP = ("device", "devices", "keep")
NAMES = {"loss": "training", "validation_loss": "validation", "iou": "IoU", "f1": "F1", "accuracy": "accuracy"}


def run_folder(output: str | os.PathLike[str]) -> Path:
    """Return the training folder of a bundle."""
    return Path(f"{os.fspath(output).rstrip('/')}.training")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, without running any code that is in it. Raises TrainingError if it is damaged."""
    import torch

    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is cut short makes of torch, zipfile and pickle
        raise TrainingError(f"{path} is damaged and cannot be continued; begin anew with --restart") from error
    return content


def last_checkpoint(run: Path, state: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint to go on from, if there is one.

    Parameters
    ----------
    run
        The training's folder.
    state
        State dict of the module that is to go on.

    Raises
    ------
    TrainingError
        It is damaged, or of another network.
    """
    path = run / CHECKPOINTS / LAST
    if not path.exists():
        return None
    content = read_checkpoint(path)
    theirs = content.get("state_dict", {}) if isinstance(content, dict) else {}
    shapes, wanted = ({key: tuple(t.shape) for key, t in s.items() if hasattr(t, "shape")} for s in (theirs, state))
    if shapes == wanted and {"callbacks", "global_step"} <= content.keys():
        return path
    odd = sorted(key for key in shapes.keys() | wanted.keys() if shapes.get(key) != wanted.get(key))
    first = f": {odd[0]} is {shapes.get(odd[0], 'not there')}, here {wanted.get(odd[0], 'not there')}" if odd else ""
    raise TrainingError(
        f"{path} is a checkpoint of another network{first}. Put back the training's own, or begin anew with --restart"
    )


def best_checkpoint(run: Path) -> Path:
    """Return the checkpoint that did best, or the last where nothing was validated."""
    last = run / CHECKPOINTS / LAST
    states = read_checkpoint(last)["callbacks"]
    best = [s["best_model_path"] for name, s in states.items() if "'monitor': 'iou'" in name and "best_model_path" in s]
    path = last.with_name(Path(best[0]).name) if best and best[0] else last
    # on a GPU an epoch that is done again after a kill may not be the best again, whose file made way for it
    return path if path.exists() else last


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder. Raises TrainingError if one has it."""
    try:
        release = Files(os.path.abspath(run)).lock()
    except BlockingIOError as error:
        raise TrainingError(f"another training is writing to {run}; wait for it, or give another output") from error
    try:
        yield
    finally:
        release()


def begin(run: Path, settings: Settings, *, restart: bool, images: Mapping[str, Any] | None = None) -> None:
    """Take the folder for these settings.

    Parameters
    ----------
    run
        The folder, there or not.
    settings
        Of the training.
    restart
        Remove what was begun there.
    images
        Their statistics, as JSON values, so that a training does not go on with others.

    Raises
    ------
    TrainingError
        A training with other settings or images was begun there; or the folder is not a training's.
    """
    held = set(Files(os.path.abspath(run)).names(""))
    if held - {PART} and SETTINGS not in held:
        raise TrainingError(
            f"{run} is no training's folder: it holds {', '.join(sorted(held)[:3])}. Move it away, or give another "
            "output"
        )
    wanted = deciding(settings) | ({"images": json.loads(json.dumps(images))} if images else {})
    if SETTINGS in held and not restart:
        _check_same(run, wanted)
        Files(os.path.abspath(run)).remove_partial()  # what a kill has left
        return
    run.mkdir(parents=True, exist_ok=True)
    for path in sorted(run.iterdir()):
        if path.name != SETTINGS:  # which marks the folder as ours
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    Files(os.path.abspath(run)).write(SETTINGS, json.dumps(wanted, indent=1).encode())


def _check_same(run: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a training whose settings or images were others."""
    try:
        before = dict(json.loads((run / SETTINGS).read_text(encoding="utf-8")))
    except ValueError as error:
        raise TrainingError(f"{run / SETTINGS} is damaged; begin anew with --restart") from error
    before.setdefault("images", wanted.get("images"))  # not known of a training that an older version began
    different = differences(before, dict(wanted))
    if different:
        raise TrainingError(
            f"{run} holds a training with other settings or images: {'; '.join(different[:5])}. "
            "Give another output, or --restart to begin anew"
        )


def was_written(output: Path, run: Path, settings: Settings) -> bool:
    """Whether a bundle is there that a training with these very settings has written; its images are not looked at."""
    try:
        before = json.loads((run / SETTINGS).read_text(encoding="utf-8"))
        same = {key: value for key, value in before.items() if key != "images"} == deciding(settings)
        return same and (run / WRITTEN).read_text() == load_bundle(output).digest
    except (OSError, ValueError, AttributeError, BundleError):
        return False


def deciding(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide the weights, as JSON values."""
    values = {key: value for key, value in asdict(settings).items() if key not in FREE}
    if settings.background_value == 0:  # as it was for all trainings before it was said
        del values["background"]
    else:
        values["background"] = settings.background_name or "none"
    values["loop"] = {key: value for key, value in values["loop"].items() if key not in FREE_LOOP}
    values["data"] = [{**data, "root": os.path.abspath(settings.folder / data["root"])} for data in values["data"]]
    return dict(json.loads(json.dumps(values)))


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List where two settings differ, by key."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [text for key in keys
                for text in differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)]  # fmt: skip
    short = (text if len(text) <= 120 else f"{text[:120]}..." for text in (repr(before), repr(now)))
    return [] if before == now else [f"{where} {', now '.join(short)}"]


@contextmanager
def file_errors(run: Path) -> Iterator[None]:
    """Turn an OSError into one line; what was written before stays."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{run} cannot be written: {error.strerror or error}; the last whole checkpoint stays, mend it and run the "
            "same again"
        ) from error


def read_logs(run: Path) -> Any:
    """Read the logs of a training, interrupted or not.

    Parameters
    ----------
    run
        The folder `OUTPUT.training`.

    Returns
    -------
    pandas.DataFrame
        One row an epoch, the latest where there are two. What a power cut has left of a file is read as far as it is
        numbers.
    """
    import pandas as pd

    read = [_read_log(path) for path in sorted(run.glob(f"{LOGS}/*/metrics.csv"))]
    tables = [table for table in read if len(table) and {"epoch", "step"} <= set(table)]
    if not tables:
        return pd.DataFrame({"epoch": [], "step": []})
    # Lightning writes an epoch's validation and training into two rows
    return pd.concat([table.groupby("epoch").last() for table in tables]).groupby(level=0).last().reset_index()


def _read_log(path: Path) -> Any:
    """Read one log; a file that was being written when the power was cut may be empty, cut, or end in zeros."""
    import pandas as pd

    lines = path.read_bytes().replace(b"\0", b"").decode(errors="replace")
    try:
        return pd.read_csv(io.StringIO(lines), on_bad_lines="skip").apply(pd.to_numeric, errors="coerce")
    except ValueError:  # nothing in it, or no table: errors of pandas' parser are of this kind
        return pd.DataFrame()


def write_curves(run: Path, title: str) -> Path:
    """Draw losses and scores over the steps into `curves.png` in the run's folder."""
    table = read_logs(run)
    figure, (losses, scores) = panels(title)
    for axes, names in ((losses, ("loss", "validation_loss")), (scores, ("iou", "f1", "accuracy"))):
        for name in (name for name in names if name in table):
            axes.plot(table["step"] + 1, table[name], marker=".", label=NAMES[name])
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    losses.set_ylabel("loss")
    scores.set(ylabel="on the validation samples", ylim=(0, 1))
    return save_figure(figure, run / "curves.png")


def panels(title: str, count: int = 2) -> tuple[Any, Any]:
    """Return a figure, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * count, 3.6), dpi=110, layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def save_figure(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(path) as part:
        figure.savefig(part, metadata={"Software": "Swathe"})
    return path
