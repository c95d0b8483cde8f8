"""Chips: where they lie, that their numbers alone decide them, and that a grid counts every pixel once."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from models.errors import TrainingError
from pipeline.grid.geobox import Window
from pipeline.io.array import array_source
from train.config import Augment, Chips
from train.config.schema import IGNORE
from train.data.augment import Augmentation
from train.data.chips import EpochNumbers, GridChips, RandomChips, stack
from train.data.samples import Sample
from train.data.statistics import compute_statistics

MEANS = (40.0, 60.0)


@dataclass(frozen=True)
class ArrayLabels:
    labels: np.ndarray

    def read(self, window: Window) -> np.ndarray:
        return self.labels[window.slices]


def sample(height: int, width: int, areas=None, seed: int = 0, name: str = "s", nodata=None) -> Sample:
    """Band 0 holds rows, band 1 columns, so that a chip tells where it was cut."""
    import xarray as xr

    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows, columns]).astype(np.float32) + 1
    if nodata is not None:
        pixels[:, nodata] = np.nan
    labels = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, IGNORE], (height, width)).astype(np.uint8)
    source = array_source(xr.DataArray(pixels, dims=("band", "y", "x")))
    return Sample(name, source, ArrayLabels(labels), areas or (source.geobox.whole,))


def drawn(samples, count=50, seed=3, augment=None, **chips) -> RandomChips:
    statistics = compute_statistics(samples, 3)
    told = Chips(**{"size": 16, "batch": 2, **chips})
    vary = Augmentation(augment or Augment(flips=False, turns=False), statistics.bands)
    return RandomChips(samples, statistics.cells, MEANS, told, vary, seed, count)


def test_a_chip_is_what_the_scene_shows_there():
    chips = drawn([sample(40, 50)])
    for number in range(20):
        pixels, labels, same = chips[number]
        window = chips.place(number).window
        assert same == number
        assert window.shape == (16, 16)
        read = chips.samples[0].read(window)
        np.testing.assert_array_equal(pixels.numpy(), read.pixels)
        np.testing.assert_array_equal(labels.numpy(), read.labels)


@given(st.integers(16, 60), st.integers(16, 60), st.floats(0.5, 1), st.floats(1, 3), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_chips_stay_inside_their_areas(height, width, low, high, seed):
    areas = (Window(0, height, 0, width // 2 + 8), Window(height // 2 - 8, height, 0, width))
    fits = [a for a in areas if min(a.shape) >= round(16 * low)]
    one = sample(height, width, areas, seed)
    chips = drawn([one], seed=seed, zoom=(low, high))
    for number in range(10):
        window = chips.place(number).window
        assert any(a.top <= window.top and window.bottom <= a.bottom and a.left <= window.left
                   and window.right <= a.right for a in fits)  # fmt: skip
        pixels, labels, _ = chips[number]
        assert pixels.shape == (2, 16, 16)
        assert pixels.dtype == torch.float32
        assert set(labels.unique().tolist()) <= {0, 1, 2, IGNORE}


def test_a_number_decides_a_chip_whoever_reads_it():
    samples = [sample(40, 50, seed=n, name=f"s{n}") for n in range(3)]
    chips = drawn(samples, augment=Augment(gain=0.3, noise=0.2), zoom=(0.7, 1.3))
    torch.manual_seed(1)
    before = [chips[n] for n in (7, 8, 9)]
    torch.rand(5)
    state = torch.get_rng_state()
    after = [chips[n] for n in (9, 8, 7)][::-1]
    assert torch.equal(state, torch.get_rng_state())  # drawing a chip takes nothing from others' random numbers
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    assert not torch.equal(chips[1][0], chips[2][0])
    assert not torch.equal(drawn(samples, seed=4)[1][0], drawn(samples, seed=5)[1][0])


def test_worker_processes_give_the_same_batches():
    chips = drawn([sample(40, 50)], count=8, augment=Augment(noise=0.2))
    here, there = (list(DataLoader(chips, 2, collate_fn=stack, num_workers=n)) for n in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
        assert one["numbers"].tolist() == other["numbers"].tolist()


def test_classes_are_drawn_alike_however_rare():
    labels = np.zeros((200, 200), np.uint8)
    labels[100, 100] = 1
    one = replace(sample(200, 200), labels=ArrayLabels(labels))
    statistics = compute_statistics([one], 3)
    vary = Augmentation(Augment(flips=False, turns=False), statistics.bands)
    rare = RandomChips([one], statistics.cells, MEANS, Chips(size=16), vary, 0, 1)
    share = np.mean([(rare[n][1] == 1).any().item() for n in range(200)])
    assert 0.4 < share < 0.65  # half by its class, and few by chance
    even = RandomChips([one], statistics.cells, MEANS, Chips(size=16, draw="area"), vary, 0, 1)
    assert np.mean([(even[n][1] == 1).any().item() for n in range(200)]) < 0.1


def test_scenes_are_drawn_alike_or_by_their_area():
    samples = [sample(40, 40, name="small"), sample(160, 160, name="large")]
    for how, low, high in (("equal", 0.4, 0.6), ("area", 0.0, 0.12)):
        chips = drawn(samples, scenes=how, draw="area")
        assert low <= np.mean([chips.place(n).sample == 0 for n in range(300)]) <= high


def test_what_was_not_observed_is_the_mean_and_ignored():
    hidden = np.zeros((40, 40), bool)
    hidden[10:30, 10:30] = True
    chips = drawn([sample(40, 40, nodata=hidden)], size=32)
    pixels, labels, _ = chips[0]
    place = chips.place(0).window
    gone = torch.from_numpy(hidden[place.slices])
    assert gone.any()
    for band, mean in zip(pixels, MEANS, strict=True):
        assert (band[gone] == mean).all()
        assert torch.isfinite(band).all()
    assert (labels[gone] == IGNORE).all()


def test_a_chip_larger_than_a_scene_is_refused():
    with pytest.raises(TrainingError, match=r"a chip of 64 pixels is larger than s, where 40 fit"):
        drawn([sample(40, 50)], size=64)


def test_without_labels_there_is_nothing_to_draw():
    blank = replace(sample(40, 40), labels=ArrayLabels(np.full((40, 40), IGNORE, np.uint8)))
    with pytest.raises(TrainingError, match="no pixel of the training images is labelled"):
        drawn([blank])


@given(st.integers(3, 50), st.integers(3, 50), st.integers(8, 24))
@settings(max_examples=30, deadline=None)
def test_a_grid_counts_every_pixel_of_its_areas_once(height, width, size):
    areas = (Window(0, height, 0, width // 2), Window(1, height, width // 2, width))
    one = replace(sample(height, width, areas), labels=ArrayLabels(np.ones((height, width), np.uint8)))
    seen = np.zeros((height, width), int)
    for pixels, labels, _ in GridChips([one], MEANS, size):
        assert labels.shape == (size, size)
        assert pixels.shape == (2, size, size)
        counted = labels.numpy() == 1
        rows, columns = (pixels[band].numpy()[counted].astype(int) - 1 for band in (0, 1))
        np.add.at(seen, (rows, columns), 1)
    wanted = np.zeros((height, width), int)
    for area in areas:
        wanted[area.slices] = 1
    np.testing.assert_array_equal(seen, wanted)


def test_epochs_go_on_where_the_last_ended_and_are_shared_out():
    alone = EpochNumbers(12)
    assert list(alone) == list(range(12))
    alone.set_epoch(2)
    assert list(alone) == list(range(24, 36))
    parts = [EpochNumbers(12, rank, 3) for rank in range(3)]
    assert sorted(n for part in parts for n in part) == list(range(12))
    assert all(len(part) == 4 for part in parts)
