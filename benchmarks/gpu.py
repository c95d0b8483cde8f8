"""The GPU in one call: whether its outputs are the CPU's, and how much of its speed a whole scene gets.

    python -m benchmarks.gpu --size 8192

For each of the three U-Nets and each precision:

difference   the largest change of any probability against the torch engine on the CPU in fp32, over one large tile
agrees       the share of that tile's pixels whose likeliest class is the same
batch        tiles that the engine passes at a time, by the GPU's memory
network      Mpx/s of the bare network: as the engine has it, such a batch of raw tiles already on the device
engine       Mpx/s of the engine, asked by as many threads as it has slots: tiles from, class maps and probabilities to
             the host's memory
scene        Mpx/s of `run`, a GeoTIFF into a Zarr store with probabilities and overviews
ratio        scene against network: what reading, moving and writing leave of the GPU's speed
busy         share of the time, from the first tile of a scene to the last, that the network computes, by CUDA's events

Pixels are counted without halo. Everything is warmed up first; the median of the repeats is given. Without a CUDA
device it says so and ends. `--device cpu` goes the same way on a CPU, to try the script; its figures mean little.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.bundle import Bundle
from models.engine import EngineSpec, Precision, make_engine
from models.engine_torch import TorchEngine
from models.gpu import CUDA
from pipeline import plan, run
from pipeline.grid.geobox import Window
from pipeline.inference.plan import SegmentPlan
from pipeline.inference.predict import share_engine

from .child import table, workplace
from .networks import OPTIONS, make_bundle
from .scenes import make_pixels, write_scene

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
HEADS = ["", "precision", "difference", "agrees", "batch", "network", "engine", "scene", "ratio", "busy"]
CALLS = 4  # for each slot, in a measurement of the engine


@dataclass(frozen=True)
class Setting:
    """What is measured, and how long."""

    device: Any
    size: int
    check: int
    repeats: int
    folder: Path


def measure_network(architecture: str, precisions: Iterable[Precision], setting: Setting) -> list[list[str]]:
    """Measure one network in several precisions; give the table's rows."""
    bundle = make_bundle(setting.folder, architecture, setting.device)
    piece = make_pixels(Window.square(0, 0, setting.check), setting.check)[None]
    reference = make_engine(bundle, EngineSpec("torch", "cpu")).predict(piece)
    rows = []
    for precision in precisions:
        row = _row(bundle, EngineSpec("torch", setting.device, precision), piece, reference, setting)
        rows.append([architecture, precision, *row])
        print("  ".join(rows[-1]), flush=True)
    return rows


def _row(
    bundle: Bundle, spec: EngineSpec, piece: NDArray[Any], reference: NDArray[np.float32], setting: Setting
) -> list[str]:
    prepared = plan(
        setting.folder / "scene.tif", bundle, engine="torch", device=setting.device, precision=spec.precision
    )
    engine = make_engine(bundle, prepared.inference.spec)
    assert isinstance(engine, TorchEngine)
    answer = engine.predict(piece)
    tiles, pixels = _tiles(prepared, engine, setting)
    network = pixels / _seconds(_bare(engine, tiles, setting), setting)
    moved = CALLS * engine.slots * pixels / _seconds(_asked(engine, tiles, prepared), setting)
    scene, busy = _scene_rate(bundle, prepared, engine, setting)
    return [
        f"{np.abs(answer - reference).max():.1e}",
        f"{(answer.argmax(axis=1) == reference.argmax(axis=1)).mean():.5f}",
        str(len(tiles)),
        *(f"{rate / 1e6:.1f}" for rate in (network, moved, scene)),
        f"{scene / network:.2f}",
        f"{busy:.2f}",
    ]


def _tiles(prepared: SegmentPlan, engine: TorchEngine, setting: Setting) -> tuple[NDArray[np.uint16], int]:
    """Return one batch of raw tiles `(n, band, y, x)` as a run would make them, and their pixels without halo."""
    cut = prepared.plan
    height, width = next(cut.tiles(cut.block_at(0, 0).window)).shape
    tile = make_pixels(Window(0, height + 2 * cut.halo, 0, width + 2 * cut.halo), setting.size)
    engine.segment(tile[None], prepared.inference.encoding)  # says how many fit
    return np.stack([tile] * engine.batch), engine.batch * height * width


def _bare(engine: TorchEngine, tiles: NDArray[np.uint16], setting: Setting) -> Callable[[], object]:
    """Return a call of the engine's network with its input on the device and its output left there."""
    inputs = torch.from_numpy(tiles).to(setting.device).float().contiguous(memory_format=torch.channels_last)
    kernels = CUDA().kernels if setting.device == "cuda" else nullcontext

    @torch.inference_mode()
    def answer() -> object:
        with kernels():
            return engine.place.network(inputs)

    return answer


def _asked(engine: TorchEngine, tiles: NDArray[np.uint16], prepared: SegmentPlan) -> Callable[[], object]:
    """Return a call that lets as many threads as the engine has slots ask it, several times each."""

    def ask(_: int) -> None:
        engine.segment(tiles, prepared.inference.encoding)

    def ask_all() -> None:
        with ThreadPoolExecutor(engine.slots) as pool:
            list(pool.map(ask, range(CALLS * engine.slots)))

    return ask_all


def _seconds(function: Callable[[], object], setting: Setting) -> float:
    """Return the median seconds of a call, after one to warm up."""
    taken = []
    for _ in range(setting.repeats + 1):
        _wait(setting.device)
        started = time.perf_counter()
        function()
        _wait(setting.device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def _wait(device: str) -> None:
    """Wait for the device: calls return before it has done its work."""
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass
class Timed:
    """A network that notes when the device begins and ends each call."""

    network: Callable[[Tensor], Tensor]
    device: str
    calls: list[tuple[Any, Any]] = field(default_factory=list)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Run the network."""
        began = self._now()
        probabilities = self.network(pixels)
        self.calls.append((began, self._now()))
        return probabilities

    def _now(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def busy(self) -> float:
        """Return the share of the time, from the first begin to the last end, in which any call was computed."""
        _wait(self.device)
        first = self.calls[0][0]
        spans = sorted((self._since(first, began), self._since(first, ended)) for began, ended in self.calls)
        computed, until = 0.0, spans[0][0]
        for began, ended in spans:
            computed += max(0.0, ended - max(began, until))
            until = max(until, ended)
        return computed / (until - spans[0][0])

    def _since(self, first: Any, moment: Any) -> float:
        return float(first.elapsed_time(moment) if self.device == "cuda" else moment - first)


def _scene_rate(bundle: Bundle, prepared: SegmentPlan, engine: TorchEngine, setting: Setting) -> tuple[float, float]:
    """Return pixels/s of whole runs over the scene, in a process whose engine is warm, and how busy the device was."""
    rates, shares, store = [], [], setting.folder / "out.zarr"
    spec, network = prepared.inference.spec, engine.place.network
    share_engine(bundle.digest, spec, engine)
    for name in ("warm.tif", *["scene.tif"] * setting.repeats):
        engine.place.network = timed = Timed(network, setting.device)
        started = time.perf_counter()
        done = run(
            setting.folder / name,
            bundle,
            store,
            show=False,
            engine="torch",
            device=spec.device,
            precision=spec.precision,
        )
        rates.append(sum(done.pixels.values()) / (time.perf_counter() - started))
        shares.append(timed.busy())
        shutil.rmtree(store)
    return statistics.median(rates[1:]), statistics.median(shares[1:])


def _describe(device: str) -> str:
    if device != "cuda":
        return f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    metadata = torch.cuda.get_device_properties(0)
    return f"{metadata.name}, {metadata.total_memory / 1e9:.0f} GB, torch {torch.__version__}"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The engine on a GPU: exactness and speed.")
    parser.add_argument("--networks", nargs="+", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--size", type=int, default=8192, help="rows and columns of the scene")
    parser.add_argument("--check", type=int, default=1024, help="side of the tile that is compared, a multiple of 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--folder", type=Path, help="where scene, bundles and outputs go and stay")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is visible here: nothing is measured")
        return
    print(_describe(chosen.device), flush=True)
    with workplace(chosen.folder) as folder:
        write_scene(folder / "scene.tif", chosen.size)
        write_scene(folder / "warm.tif", min(chosen.size, 1024))
        setting = Setting(chosen.device, chosen.size, chosen.check, chosen.repeats, folder)
        rows = [row for name in chosen.networks for row in measure_network(name, chosen.precisions, setting)]
    print(f"\n{chosen.size} x {chosen.size} pixels; Mpx/s without halo\n\n{table(HEADS, rows)}")


if __name__ == "__main__":
    main()
