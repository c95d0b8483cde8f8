"""Trains a SimpleUNet on the generated scenes, so that errors of other precisions can be measured: a minute or two.

    python -m benchmarks.trained --folder kept

It finds towns among water, fields and forest. What it learns from and what it is scored on lie far from every scene
that is measured, and from each other: pixels are a function of their place. Seeded; the weights stay in the folder.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models import Bundle, load_bundle, save_bundle
from models.build import build
from pipeline.grid.geobox import Window

from .networks import describe_network
from .scenes import BANDS, NODATA, make_cover, make_pixels

NAME = "simple-unet-trained"
TOWN = 3  # of the covers
SIDE, CHIPS, STEPS = 96, 6, 240  # pixels, chips a step, steps
RATE = 1e-2  # the highest, of AdamW
LEARNING, HELD_OUT = 1 << 20, 1 << 21  # first column of what is learned from, and of what is scored
SPREAD = 1 << 16  # rows and columns that chips are drawn from
SCORED, SCORED_SIDE = 4, 512  # windows, and their side


@dataclass(frozen=True, slots=True)
class Chips:
    """Pixels `(n, band, y, x)` float32, whether each is of a town `(n, y, x)` int64, and where any was observed."""

    pixels: Tensor
    towns: Tensor
    valid: Tensor

    @classmethod
    def draw(cls, random: np.random.Generator, count: int, side: int, column: int) -> "Chips":
        """Take chips at random places."""
        places = random.integers(0, SPREAD, (count, 2))
        windows = [Window.square(int(top), column + int(left), side) for top, left in places]
        pixels = np.stack([make_pixels(window, 1) for window in windows])
        towns = np.stack([make_cover(window) == TOWN for window in windows])
        valid = (pixels != NODATA).any(axis=1)
        return cls(*map(torch.from_numpy, (pixels.astype(np.float32), towns.astype(np.int64), valid)))


def trained_bundle(folder: Path) -> Bundle:
    """Train and save the bundle as `folder/simple-unet-trained`, or take what is there."""
    path = folder / NAME
    return load_bundle(path) if path.exists() else _train(path)


def _train(path: Path) -> Bundle:
    random = np.random.default_rng(0)
    torch.manual_seed(0)
    sample = Chips.draw(random, 8 * CHIPS, SIDE, LEARNING)
    seen = sample.pixels.movedim(1, 0)[:, sample.valid]
    mean, spread = seen.mean(dim=1), seen.std(dim=1)
    network = build("simple-unet", len(BANDS), 2)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for chips in _steps(random):
        scaled = (chips.pixels - mean[:, None, None]) / spread[:, None, None]
        scaled[(~chips.valid)[:, None].expand_as(scaled)] = 0  # as a run puts a band's mean where nothing was observed
        loss = nn.functional.cross_entropy(network(scaled), chips.towns, reduction="none")[chips.valid].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    metadata = describe_network(NAME, "simple-unet", {}, network, mean, spread)
    return save_bundle(path, network.eval(), metadata)


def _steps(random: np.random.Generator) -> Iterator[Chips]:
    for _ in range(STEPS):
        yield Chips.draw(random, CHIPS, SIDE, LEARNING)


def score(bundle: Bundle) -> float:
    """Return the IoU of towns on windows that nothing was learned from."""
    segmenter, means = bundle.segmenter(), torch.tensor([band.mean for band in bundle.metadata.bands])
    both = either = 0
    chips = Chips.draw(np.random.default_rng(1), SCORED, SCORED_SIDE, HELD_OUT)
    for pixels, town, valid in zip(chips.pixels, chips.towns == 1, chips.valid, strict=True):
        filled = torch.where(valid, pixels, means[:, None, None])
        with torch.inference_mode():
            found = segmenter(filled[None])[0, 1] > 0.5
        both += int((found & town & valid).sum())
        either += int(((found | town) & valid).sum())
    return both / either


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the network that is measured.")
    parser.add_argument("--folder", type=Path, required=True, help="where the bundle stays")
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    print(f"{chosen.folder / NAME}: IoU of towns {score(trained_bundle(chosen.folder)):.3f}, held out")


if __name__ == "__main__":
    main()
