"""How long a plan takes here: a few real tiles of the scene are read, computed and written, and the time projected."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import PlanError

from ..grid.block_result import BlockResult
from ..grid.geobox import GeoBox, Window
from ..grid.tile_cost import TileCost
from ..grid.tiling import TilingPlan
from ..io.source import Pixels, Source
from ..store.lifecycle import create_store
from ..store.metadata import StoreMetadata, level_count
from .predict import InferenceSpec, fill_missing, predict, read_reflected, shared_engine

SAMPLES, TRIES = 3, 24
INPUT, LEAST = 1024, 256  # sides of a sample, in pixels: with its halo, and of what is kept of it
PYRAMID = 4 / 3  # what is written with overviews for each pixel of the full resolution


@dataclass(frozen=True, slots=True)
class Calibration:
    """What pixels cost on this machine, with all slots of the engine at work.

    Parameters
    ----------
    reading, network
        Seconds of a slot for a pixel that the network sees.
    writing
        Seconds of a slot for a pixel of the scene.
    observed
        Share of the samples that hold anything observed; others cost no network.
    """

    reading: float
    network: float
    writing: float
    observed: float

    def describe(self, plan: TilingPlan, cost: TileCost) -> str:
        """Say how long a plan takes in this process."""
        seen, own = cost.time(plan), plan.height * plan.width / cost.slots
        parts = {
            "network": seen * self.network * self.observed,
            "reading": seen * self.reading,
            "writing": own * self.writing,
        }
        slots = f"{cost.slots} block{'s' * (cost.slots != 1)} at a time"
        shares = ", ".join(f"{name} {seconds:,.1f}" for name, seconds in parts.items())
        return f"about {sum(parts.values()):,.1f} s with {slots} ({shares}), and the start"


def calibrate(source: Source, inference: InferenceSpec, geobox: GeoBox, slots: int, *, overviews: bool) -> Calibration:
    """Measure what pixels of a scene cost: reading, the network, writing.

    Parameters
    ----------
    source
        The scene; a few windows spread over it are read.
    inference
        With the plan.
    geobox
        Of the scene.
    slots
        Blocks in work at a time.
    overviews
        Whether the run writes them.

    Raises
    ------
    PlanError
        No observed pixels were found to measure on.
    SwatheError
        What a run would meet, too.
    """
    side = _up(max(LEAST, INPUT - 2 * inference.plan.halo), inference.plan.stride)
    sample = replace(inference, plan=replace(inference.plan, tile=side, tile_aspect=1))
    if sample.plan.grid is not None:
        side = max(sample.plan.largest_input)
    found = _read_samples(source, sample.plan, side)
    network = _time_network(sample, source, found.tile, slots)
    writing = _time_writing(predict(source, found.window, sample), inference, geobox) * (PYRAMID if overviews else 1)
    return Calibration(found.reading, network, writing, found.observed)


@dataclass(frozen=True, slots=True)
class Samples:
    """A window with its tile; the seconds that reading took for each pixel, and the share of windows with any."""

    window: Window
    tile: Pixels
    reading: float
    observed: float


def _read_samples(source: Source, plan: TilingPlan, side: int) -> Samples:
    """Read windows spread over the scene until some hold observed pixels; the same ones each time."""
    rows, columns = (range(0, max(1, size - side + 1), plan.stride) for size in (plan.height, plan.width))
    random = np.random.default_rng(0)
    found: list[tuple[Window, Pixels]] = []
    seconds: list[float] = []
    while len(found) < SAMPLES and len(seconds) < TRIES:
        window = Window.square(int(random.choice(rows)), int(random.choice(columns)), side)
        began = time.perf_counter()
        read = read_reflected(source, plan, plan.buffered(window) if plan.grid is None else window)
        seconds.append((time.perf_counter() - began) / read.valid.size)
        if read.valid.any():
            found.append((window.clip((plan.height, plan.width)), read))
    if not found:
        raise PlanError("calibrate: no observed pixels were found to measure on; leave --calibrate out")
    return Samples(*found[0], sum(seconds) / len(seconds), len(found) / len(seconds))


def _time_network(inference: InferenceSpec, source: Source, tile: Pixels, slots: int) -> float:
    """Return a slot's seconds per pixel while all slots are at work; what is made at the first call is not counted."""
    engine = shared_engine(inference)
    means = tuple(band.mean for band in inference.metadata.bands)
    filled: NDArray[Any] = np.stack([fill_missing(tile, source.nodata, means)] * max(1, engine.batch))

    def segment(_: int) -> None:
        engine.segment(filled, inference.encoding)

    with ThreadPoolExecutor(slots) as pool:
        times = []
        for _ in range(SAMPLES):
            began = time.perf_counter()
            list(pool.map(segment, range(slots)))
            times.append(time.perf_counter() - began)
    return min(times[1:]) / (len(filled) * tile.valid.size)


def _time_writing(result: BlockResult, inference: InferenceSpec, geobox: GeoBox) -> float:
    """Return the seconds per pixel of writing a block into a store, which is removed again."""
    height, width = result.class_map.shape
    block = _up(max(height, width), inference.plan.chunk)
    plan = replace(inference.plan, height=height, width=width, block=block, tile=min(inference.plan.tile, block))
    box = replace(geobox, height=height, width=width)
    metadata = StoreMetadata(plan, inference.encoding, inference.metadata.classes, {}, levels=level_count(box))
    with tempfile.TemporaryDirectory(prefix="swathe-") as folder:
        store = create_store(str(Path(folder) / "sample.zarr"), box, metadata)
        began = time.perf_counter()
        store.write(0, Window.of((height, width)), result)
        return (time.perf_counter() - began) / result.class_map.size


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
