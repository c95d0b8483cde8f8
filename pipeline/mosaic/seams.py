"""How visible the borders between the scenes of a mosaic are in its map: steps of the probability across them."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.encoding import decode

from ..grid.geobox import Window
from ..jobs.progress import ProgressFactory, no_progress
from ..jobs.tasks import map_bounded, share_once
from ..store.store import Store
from .source import MosaicSource

MOST_BLOCKS = 256  # that are looked at, spread over the mosaic
MOST_ASKED = 16 * MOST_BLOCKS  # whether several scenes touch them


@dataclass(frozen=True, slots=True)
class Seams:
    """Steps of the probability between pixels side by side: the largest change of any class that is kept.

    Parameters
    ----------
    border, interior
        How many pairs of pixels were looked at: of two scenes, and of one.
    border_step, interior_step
        Their mean steps; NaN without pairs.
    """

    border: int = 0
    interior: int = 0
    border_step: float = nan
    interior_step: float = nan

    @property
    def ratio(self) -> float:
        """How many times larger steps are across borders; 1: they cannot be seen. NaN: not known."""
        return self.border_step / self.interior_step if self.interior_step else nan

    def to_json(self) -> dict[str, float]:
        """Return it as JSON values."""
        steps = {"border_step": self.border_step, "interior_step": self.interior_step}
        return {"border_pairs": self.border, "interior_pairs": self.interior,
                **{name: round(step, 6) for name, step in steps.items() if step == step}}  # fmt: skip


def describe_seams(kept: Mapping[str, float]) -> str:
    """Describe in a line what `Seams.to_json` gave; empty where no borders were looked at."""
    if "border_step" not in kept:
        return ""
    across, inside = kept["border_step"], kept.get("interior_step", nan)
    times = f", {across / inside:.2f} times that" if inside > 0 else ""
    return f"mean step of the probability {inside:.4f} inside scenes, {across:.4f} across their borders{times}"


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks share."""

    store: Store
    mosaic: MosaicSource


def measure(client: Client, store: Store, mosaic: MosaicSource, show: ProgressFactory | None = None) -> Seams | None:
    """Measure the seams of a map.

    Parameters
    ----------
    client
        Whose workers read map and scenes.
    store
        Of the map, whole.
    mosaic
        What it was made of, on the store's grid.
    show
        Shows progress.

    Returns
    -------
    Seams or None
        Of at most 256 blocks that several scenes touch, spread evenly: memory and time are bounded. None: probabilities
        are not kept, or pixels are made of several scenes, so that there are no borders.

    Raises
    ------
    SwatheError
        Store or scenes cannot be read.
    """
    if not store.encoding.probability or not mosaic.chooses:
        return None
    windows = list(_where_scenes_meet(store, mosaic))
    shown = show("looking for seams", len(windows), 0) if show and windows else nullcontext(no_progress)
    shared = share_once(client, Task(store, mosaic)) if windows else None
    sums: list[tuple[float, ...]] = []
    with shown as advance:
        for found in map_bounded(client, add_steps, shared, windows, key="swathe-seams", tell=advance.tell):
            sums.append(found)
            advance(1, int(found[0] + found[1]))
    border, interior, across, inside = np.array(sorted(sums)).reshape(-1, 4).sum(axis=0).tolist()  # in one order
    return Seams(int(border), int(interior), across / border if border else nan, inside / interior if interior else nan)


def _where_scenes_meet(store: Store, mosaic: MosaicSource) -> Iterator[Window]:
    places = np.argwhere(store.planned(0))
    asked = places[np.unique(np.linspace(0, max(0, len(places) - 1), min(len(places), MOST_ASKED)).astype(int))]
    windows = [store.window(0, row, column) for row, column in asked.tolist()]
    meeting = [window for window in windows if len(mosaic.scenes_at(window)) > 1]
    for place in np.unique(np.linspace(0, max(0, len(meeting) - 1), min(len(meeting), MOST_BLOCKS)).astype(int)):
        yield meeting[place]


def add_steps(task: Task, window: Window) -> tuple[float, ...]:
    """Add up a block: pairs across borders, others, the sums of their steps; up to the next block's first pixels."""
    reached = Window(window.top, window.bottom + 1, window.left, window.right + 1).clip(task.store.geobox.shape)
    probability = decode(task.store.read_array("probability", reached))
    chosen, sums = task.mosaic.chosen(reached), np.zeros(4)
    height, width = window.shape
    for part, scenes in (  # each pair belongs to one block
        (probability[:, :, :width], chosen[:, :width]),
        (probability[:, :height].transpose(0, 2, 1), chosen[:height].T),
    ):
        steps = np.abs(np.diff(part, axis=1)).max(axis=0)
        known = np.isfinite(steps) & (scenes[1:] >= 0) & (scenes[:-1] >= 0)
        border = known & (scenes[1:] != scenes[:-1])
        sums += _summed(steps, border, known & ~border)
    return tuple(sums.tolist())


def _summed(steps: NDArray[Any], border: NDArray[np.bool_], interior: NDArray[np.bool_]) -> NDArray[np.float64]:
    across, inside = (steps[where].sum(dtype=np.float64) for where in (border, interior))
    return np.array([border.sum(), interior.sum(), across, inside])
