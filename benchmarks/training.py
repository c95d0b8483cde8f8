"""How fast chips come, against how fast networks eat them, and against TorchGeo's sampler. One run, one table.

    python -m benchmarks.training --size 8192 --chips 256 --repeats 3

plain       Swathe's loader from a tiled GeoTIFF and its label raster: each class as likely as another, nothing varied
varied      the same with zoom, flips, turns, gain, bias, gamma and noise
torchgeo    TorchGeo's RandomGeoSampler over an intersection of two RasterDatasets: each place as likely as another,
            nothing varied; left out where TorchGeo is not installed
learning    a training step without its chips: forward, loss, backward and the optimiser, on one batch in memory

Chips of 256 x 256 in batches of 8, float32 of four bands from uint16. Each loader runs in this process on one core and
one thread, as a worker of `chips.workers` does; a network trains on all cores. By default the scene has twice the
bytes that GDAL may keep decoded (256 MiB, here for TorchGeo too), so that most reads decode. The networks are
SimpleUNet as it comes and those of the configs that are shipped, without their running mean of weights. Rounds are
interleaved, every round draws other chips; medians, with the slowest and the fastest. CPU time tells of a loader on a
machine that others use as well.

Promise: one core gives at least 3 x the chips that a network trains on with all cores.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from torch.utils.data import DataLoader

from models.metadata import ReceptiveField, z_score
from models.segmenter import Segmenter
from models.system import usable_cpus
from pipeline.io.scene import open_source
from train.config import Augment, Chips, Network, Settings, read_settings, settings_of
from train.data.augment import Augmentation
from train.data.chips import RandomChips, stack
from train.data.classes import value_table
from train.data.labels import open_labels
from train.data.samples import Sample
from train.data.statistics import DatasetStatistics, compute_statistics, means_of
from train.fitting.losses import make_loss
from train.fitting.module import SegmentationModule
from train.fitting.networks import make_network

from .child import cpu_seconds, table, workplace
from .scenes import BANDS, write_scene

SIZE, BATCH = 256, 8
BRIGHT = 1200  # red values above are the second class
CONFIGS = Path(__file__).parents[1] / "train/configs"
CLASSES = [{"name": "other", "color": "000000"}, {"name": "bright", "color": "FFFFFF"}]
PLAIN = Chips(size=SIZE, batch=BATCH)
ZOOMED = replace(PLAIN, zoom=(0.6, 1.5))
STILL = Augment(flips=False, turns=False)
VARIED = Augment(gain=0.3, bias=0.3, gamma=0.3, noise=0.1)


@dataclass(frozen=True, slots=True)
class Took:
    """What a round took: chips, and seconds by the clock and of all cores together."""

    chips: int
    wall: float
    cpu: float


Round = Callable[[], Took]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(work: Iterable[object], chips: int) -> Took:
    """Do all of some work."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    for _ in work:
        pass
    return Took(chips, time.perf_counter() - wall, cpu_seconds() - cpu)


def write_pair(folder: Path, size: int) -> tuple[Path, Path]:
    """Write a scene and labels that mark its bright pixels; 255 where nothing was observed."""
    image, label = folder / f"scene{size}.tif", folder / f"label{size}.tif"
    if image.exists() and label.exists():
        return image, label
    write_scene(image, size)
    with rasterio.open(image) as source:
        profile = {**source.profile, "count": 1, "dtype": "uint8", "nodata": 255, "predictor": 1}
        with rasterio.open(label, "w", **profile) as target:
            for _, window in source.block_windows(1):
                red = source.read(3, window=window)
                target.write(np.where(red == 0, 255, red > BRIGHT).astype(np.uint8), 1, window=window)
    return image, label


def open_sample(image: Path, label: Path) -> Sample:
    """Open the pair as a training does."""
    source = open_source(str(image))
    labels = open_labels(str(label), source.geobox, value_table(settings_for(Network()).classes))
    return Sample("scene", source, labels, (source.geobox.whole,))


def swathe_round(sample: Sample, statistics: DatasetStatistics, chips: Chips, augment: Augment, count: int) -> Round:
    """Make what reads chips through Swathe's loader."""
    means = means_of(statistics.bands.mean.tolist())
    vary, seeds = Augmentation(augment, statistics.bands), iter(range(10**6))

    def once() -> Took:
        drawn = RandomChips([sample], statistics.cells, means, chips, vary, next(seeds), count)
        with threads(1):
            return timed(DataLoader(drawn, batch_size=BATCH, collate_fn=stack), count)

    return once


def torchgeo_round(image: Path, label: Path, count: int) -> Round:
    """Make what reads chips through TorchGeo's datasets and its random sampler."""
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import RandomGeoSampler

    class Image(RasterDataset):  # type: ignore[misc]
        filename_glob = image.name

    class Mask(RasterDataset):  # type: ignore[misc]
        filename_glob = label.name
        is_image = False

    both = Image(str(image.parent)) & Mask(str(label.parent))

    def once() -> Took:
        sampler = RandomGeoSampler(both, size=SIZE, length=count)
        with threads(1):
            return timed(DataLoader(both, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples), count)

    return once


def step_round(settings: Settings, bf16: bool, steps: int) -> Round:
    """Make what trains on one batch over and over."""
    bands, classes = len(settings.bands), len(settings.classes)
    network = make_network(settings.network, bands, classes)
    segmenter = Segmenter(network, z_score([0.5] * bands, [0.3] * bands)).to(memory_format=torch.channels_last)
    module = SegmentationModule(settings, segmenter, ReceptiveField(1, None), make_loss(settings.loss, classes), str)
    optimizer = module.configure_optimizers()["optimizer"]
    pixels = torch.rand(BATCH, bands, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (BATCH, SIZE, SIZE))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = module.loss(segmenter.logits(pixels), labels)
        loss.backward()
        optimizer.step()

    def once() -> Took:
        with threads(settings.loop.threads or usable_cpus()):
            step()  # the first after others is slower
            return timed((step() for _ in range(steps)), BATCH * steps)

    return once


def settings_for(network: Network) -> Settings:
    """Return settings of a training on the generated scene."""
    raw: dict[str, Any] = {"name": "bench", "bands": list(BANDS), "classes": CLASSES, "data": [{"root": "."}]}
    return replace(settings_of(raw), network=network)


def contenders(image: Path, label: Path, chips: int, steps: int) -> Iterator[tuple[str, Round]]:
    """Return all rounds by name."""
    sample = open_sample(image, label)
    statistics = compute_statistics([sample], len(CLASSES))
    yield "plain", swathe_round(sample, statistics, PLAIN, STILL, chips)
    yield "varied", swathe_round(sample, statistics, ZOOMED, VARIED, chips)
    if importlib.util.find_spec("torchgeo"):
        yield "torchgeo", torchgeo_round(image, label, chips)
    networks = {"simple-unet": settings_for(Network("simple-unet"))}
    networks |= {path.stem: read_settings(path) for path in sorted(CONFIGS.glob("*.toml"))}
    for name, told in networks.items():
        for precision in ("fp32", "bf16"):
            yield f"learning {name} {precision}", step_round(told, precision == "bf16", steps)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Chips per second: loaders and networks.")
    parser.add_argument("--size", type=int, default=8192, help="side of the scene in pixels")
    parser.add_argument("--chips", type=int, default=256, help="chips that a loader gives in a round")
    parser.add_argument("--steps", type=int, default=3, help="training steps in a round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the scene here, and take it from here the next time")
    given = parser.parse_args(arguments)
    if given.size < 512:
        parser.error(f"--size is {given.size}; a zoomed chip needs 512 or more")
    with workplace(given.folder) as folder:
        rounds = dict(contenders(*write_pair(folder, given.size), given.chips, given.steps))
        found: dict[str, list[Took]] = {name: [] for name in rounds}
        for _ in range(given.repeats):
            for name, once in rounds.items():
                found[name].append(once())
    _print(found)


def _print(found: dict[str, list[Took]]) -> None:
    rates = {name: sorted(took.chips / took.wall for took in tooks) for name, tooks in found.items()}
    rows = [
        [name, f"{median(rate):.1f}", f"{rate[0]:.1f} to {rate[-1]:.1f}",
         f"{median(1000 * took.cpu / took.chips for took in found[name]):.1f}"]
        for name, rate in rates.items()
    ]  # fmt: skip
    print(table(["", "chips/s", "rounds", "CPU ms/chip"], rows))
    middle = {name: median(rate) for name, rate in rates.items()}
    for name in middle:
        if name.startswith(("learning", "torchgeo")):
            ratios = (f"{loader} {middle[loader] / middle[name]:.1f} x" for loader in ("plain", "varied"))
            print(f"against {name}: {', '.join(ratios)}")
    if "torchgeo" not in middle:
        print("torchgeo is not installed and is left out: pip install torchgeo")


if __name__ == "__main__":
    main()
