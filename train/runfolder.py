"""The folder beside a bundle in which a training keeps its settings, checkpoints and logs. Knows names and bytes.

A folder belongs to one training: another's settings are refused, with what differs.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.errors import TrainingError

from .settings import Settings

SETTINGS, CHECKPOINTS, LAST, LOGS = "settings.json", "checkpoints", "last.ckpt", "logs"
FREE = ("path", "provenance", "description")  # what a continued training may have changed
FREE_LOOP = ("device", "devices", "keep")


def run_folder(output: str | os.PathLike[str]) -> Path:
    """Give the folder that belongs to a bundle."""
    return Path(f"{os.fspath(output).rstrip('/')}.training")


def last_checkpoint(run: Path) -> Path | None:
    """Give the checkpoint to go on from, if there is one. Raises TrainingError if it is damaged."""
    path = run / CHECKPOINTS / LAST
    if not path.exists():
        return None
    read(path)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, without running any code that is in it. Raises TrainingError if it is damaged."""
    import torch

    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is cut short makes of torch, zipfile and pickle
        raise TrainingError(f"{path} is damaged and cannot be continued; begin anew with --restart") from error
    return content


def best_checkpoint(run: Path) -> Path:
    """Give the checkpoint that did best, or the last where nothing was validated."""
    last = run / CHECKPOINTS / LAST
    states = read(last)["callbacks"]
    best = [s["best_model_path"] for name, s in states.items() if "'monitor': 'iou'" in name and "best_model_path" in s]
    return last.with_name(Path(best[0]).name) if best and best[0] else last


def best_step(run: Path) -> int:
    """Give the step at which the best checkpoint was written."""
    return int(read(best_checkpoint(run))["global_step"])


def begin(run: Path, settings: Settings, *, restart: bool) -> None:
    """Take the folder for these settings. Raises TrainingError where a training with others was begun there."""
    wanted, file = deciding(settings), run / SETTINGS
    if file.exists() and not restart:
        before = json.loads(file.read_text(encoding="utf-8"))
        different = differences(before, wanted)
        if different:
            raise TrainingError(
                f"{run} holds a training with other settings: {'; '.join(different[:5])}. "
                "Give another output, or --restart to begin anew"
            )
        return
    if run.exists():
        shutil.rmtree(run)
    run.mkdir(parents=True)
    part = file.with_suffix(".partial")
    part.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    part.replace(file)


def deciding(settings: Settings) -> dict[str, Any]:
    """Give what decides the weights that come out, as JSON values."""
    values = {key: value for key, value in asdict(settings).items() if key not in FREE}
    values["loop"] = {key: value for key, value in values["loop"].items() if key not in FREE_LOOP}
    values["data"] = [{**data, "root": os.path.abspath(settings.folder / data["root"])} for data in values["data"]]
    decided: dict[str, Any] = json.loads(json.dumps(values))
    return decided


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """List where two settings differ, by key."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [text for key in keys
                for text in differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)]  # fmt: skip
    return [] if before == now else [f"{where} {before!r}, now {now!r}"]


@contextmanager
def file_errors(run: Path) -> Iterator[None]:
    """Turn what disks raise into one line; what was written before stays."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(
            f"{run} cannot be written: {reason}; the last whole checkpoint stays, mend it and run the same again"
        ) from error
