"""The GPU in one call: whether its outputs are the CPU's, and how much of its speed a whole scene gets.

    python -m benchmarks.gpu --size 8192

For each of the three U-Nets and each precision:

difference   the largest change of any probability against the torch engine on the CPU in fp32, over one large tile
agrees       the share of that tile's pixels whose likeliest class is the same
network      Mpx/s of the bare network: folded, channels-last, raw tiles with their halo already on the device
engine       Mpx/s of the engine: the same tiles from and to the host's memory
scene        Mpx/s of `run`, a GeoTIFF into a Zarr store with probabilities and overviews
ratio        scene against network: what reading, moving and writing leave of the GPU's speed

Pixels are counted without halo. Everything is warmed up first; the median of the repeats is given. Without a CUDA
device it says so and ends. `--device cpu` goes the same way on a CPU, to try the script; its figures mean little.
"""

import argparse
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.bundle import Bundle
from models.engine import EngineSpec, Precision, make_engine
from models.engine_torch import AUTOCAST, CUDA_BATCH, fold_batch_norm
from pipeline import plan, run
from pipeline.grid.geobox import Window

from .child import table, workplace
from .networks import OPTIONS, make_bundle
from .scenes import make_pixels, write_scene

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
HEADS = ["", "precision", "difference", "agrees", "network", "engine", "scene", "ratio"]


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
    engine = make_engine(bundle, spec)
    answer = engine.predict(piece)
    tiles, pixels = _tiles(bundle, spec, setting)
    network = pixels / _seconds(_bare(bundle, spec, tiles), setting)
    moved = pixels / _seconds(lambda: engine.predict(tiles), setting)
    scene = _scene_rate(bundle, spec, setting)
    return [
        f"{np.abs(answer - reference).max():.1e}",
        f"{(answer.argmax(axis=1) == reference.argmax(axis=1)).mean():.5f}",
        *(f"{rate / 1e6:.1f}" for rate in (network, moved, scene)),
        f"{scene / network:.2f}",
    ]


def _tiles(bundle: Bundle, spec: EngineSpec, setting: Setting) -> tuple[NDArray[np.uint16], int]:
    """Return one batch of raw tiles `(n, band, y, x)` as a run would make them, and their pixels without halo."""
    cut = plan(setting.folder / "scene.tif", bundle, engine="torch", device=spec.device).plan
    height, width = next(cut.tiles(cut.block_at(0, 0).window)).shape
    tile = make_pixels(Window(0, height + 2 * cut.halo, 0, width + 2 * cut.halo), setting.size)
    count = CUDA_BATCH if spec.device == "cuda" else 1
    return np.stack([tile] * count), count * height * width


def _bare(bundle: Bundle, spec: EngineSpec, tiles: NDArray[np.uint16]) -> Callable[[], object]:
    """Make the network as the engine does, with its input on the device and its output left there."""
    segmenter = bundle.segmenter()
    segmenter.network = fold_batch_norm(segmenter.network)
    segmenter = segmenter.to(spec.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = torch.from_numpy(tiles).to(spec.device).float().contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def answer() -> object:
        with _autocast(spec):
            return segmenter(inputs)

    return answer


def _autocast(spec: EngineSpec) -> AbstractContextManager[Any]:
    return nullcontext() if spec.precision == "fp32" else torch.autocast(spec.device, dtype=AUTOCAST[spec.precision])


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


def _scene_rate(bundle: Bundle, spec: EngineSpec, setting: Setting) -> float:
    """Return pixels/s of whole runs over the scene, in a process whose engine is warm."""
    rates, store = [], setting.folder / "out.zarr"
    for name in ("warm.tif", *["scene.tif"] * setting.repeats):
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
        shutil.rmtree(store)
    return statistics.median(rates[1:])


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
