"""A folder for unfinished work: made, kept where it can be continued, removed when it is done. Knows names only."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.errors import TrainingError

OURS = ".swathe-evaluation"  # marks a folder of unfinished work as one that may be removed


@contextmanager
def workplace(target: Path | None) -> Iterator[Path]:
    """Give a folder for stores; it is removed when all went well, and stays where a run can be continued."""
    if target is None:
        with tempfile.TemporaryDirectory(prefix="swathe-") as name:
            yield Path(name)
        return
    folder = target.with_name(f"{target.name}.unfinished")
    if folder.exists() and not (folder / OURS).exists():
        raise TrainingError(f"{folder} is not ours to work in; move it away, or choose another output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / OURS).touch()
    except OSError as error:
        raise TrainingError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield folder
    except TrainingError:  # of the samples themselves: there is nothing to continue
        _remove(folder)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove unfinished work, what marks it as ours last."""
    for part in folder.iterdir():
        if part.name != OURS:
            shutil.rmtree(part)
    shutil.rmtree(folder)
