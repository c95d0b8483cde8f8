"""Statistics, class counts and cells against numpy on whole arrays, whatever the blocks, areas and types."""

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from helpers import write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from models.errors import SceneError, TrainingError
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.array import array_source
from pipeline.io.radiometry import adjust
from pipeline.io.scene import open_source
from pipeline.io.source import Pixels
from train.config.schema import IGNORE
from train.data.classes import value_table
from train.data.samples import Sample
from train.data.statistics import balanced_weights, compute_statistics
from train.data.window_stats import DIGITS, HistogramSum, count_values, merged

CLASSES = 3
ERROR = 2.0 ** -(DIGITS + 1)


@dataclass(frozen=True)
class Given:
    """Labels that are there already."""

    values: np.ndarray

    def read(self, window):
        return self.values[window.slices]


@dataclass(frozen=True)
class Wrapped:
    """As labels of which a part alone counts; what they are is inside."""

    labels: Given

    def read(self, window):
        return self.labels.read(window)


def make_sample(name, pixels, labels, nodata=None, areas=None, valid=None):
    array = xr.DataArray(pixels, dims=("band", "y", "x"))
    if valid is not None:
        array = array.assign_coords(valid=(("y", "x"), valid))
    if nodata is not None:
        array.attrs["_FillValue"] = nodata
    source = array_source(array)
    return Sample(name, source, Given(labels), areas or (source.geobox.whole,))


def random_sample(name, shape, kind, seed, areas=None):
    random = np.random.default_rng(seed)
    pixels = random.normal(100, 40, (2, *shape))
    pixels[:, random.random(shape) < 0.004] *= 50  # outliers
    if kind == "float32":
        pixels[0, random.random(shape) < 0.1] = np.nan  # of one band alone
        pixels[:, random.random(shape) < 0.1] = np.nan
    pixels = pixels if kind.startswith("f") else pixels.clip(*((lambda i: (i.min, i.max))(np.iinfo(kind))))
    labels = random.integers(0, CLASSES + 1, shape).astype(np.uint8)
    labels[labels == CLASSES] = IGNORE
    valid = random.random(shape) < 0.9
    return make_sample(name, pixels.astype(kind), labels, areas=areas, valid=valid)


def reference(samples):
    """What numpy makes of whole arrays: values of each band, class counts, ignored and invalid pixels."""
    bands, counts, ignored, invalid = [[], []], np.zeros(CLASSES, int), 0, 0
    for sample in samples:
        inside = np.zeros(sample.geobox.shape, bool)
        for area in sample.areas:
            inside[area.slices] = True
        pixels = sample.source.array.values
        valid = sample.source.array.coords["valid"].values & np.isfinite(pixels.astype(float)).any(axis=0)
        labels = sample.labels.values
        for place, band in enumerate(pixels):
            bands[place].append(band[inside & valid & np.isfinite(band.astype(float))].astype(float))
        counts += [(inside & valid & (labels == value)).sum() for value in range(CLASSES)]
        ignored += (inside & valid & (labels == IGNORE)).sum()
        invalid += (inside & ~valid).sum()
    return [np.concatenate(band) for band in bands], counts, ignored, invalid


windows = st.builds(
    lambda t, h, le, w: Window(t, t + h, le, le + w),
    st.integers(0, 200), st.integers(1, 90), st.integers(0, 100), st.integers(1, 170),
)  # fmt: skip


@settings(max_examples=12)
@given(
    st.sampled_from(["uint8", "uint16", "int16", "int32", "float32", "float64"]),
    st.lists(windows, min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_measured_equals_numpy_on_whole_arrays(client, kind, areas, seed):
    """Areas overlap, cut cells and blocks, and are counted once."""
    samples = [
        random_sample("one", (290, 270), kind, seed, tuple(areas)),
        random_sample("two", (37, 150), kind, seed + 1),
    ]
    statistics = compute_statistics(samples, CLASSES, client, block=128)
    bands, counts, ignored, invalid = reference(samples)
    np.testing.assert_array_equal(statistics.class_pixels, counts)
    assert (statistics.ignored, statistics.invalid) == (ignored, invalid)
    error = ERROR if kind[0] == "f" or kind == "int32" else 0
    found = statistics.bands
    for place, values in enumerate(bands):
        low, high = np.quantile(values, [0.001, 0.999], method="inverted_cdf")
        clipped = values.clip(low, high)
        off = error * np.abs(clipped).max()
        assert found.low[place] == pytest.approx(low, rel=error, abs=0)
        assert found.high[place] == pytest.approx(high, rel=error, abs=0)
        assert found.mean[place] == pytest.approx(clipped.mean(), rel=1e-12, abs=off)
        assert found.stddev[place] == pytest.approx(clipped.std(), rel=1e-11, abs=2 * off)
    cells = statistics.cells[0]
    inside = np.zeros((290, 270), bool)
    for area in areas:
        inside[area.slices] = True
    for row, column in np.ndindex(cells.counts.shape[:2]):
        window = cells.window(row, column)
        here = samples[0].read(window).labels[inside[window.slices]]
        np.testing.assert_array_equal(cells.counts[row, column], [(here == v).sum() for v in range(CLASSES)])
    assert sum(np.prod(cells.window(r, c).shape) for r, c in np.ndindex(cells.counts.shape[:2])) == 290 * 270


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_blocks_and_workers_do_not_change_a_bit(client, kind):
    samples = [random_sample(f"s{n}", (500, 400 + n), kind, n) for n in range(3)]
    first = compute_statistics(samples, CLASSES, client, block=128)
    for block, workers in ((256, client), (1024, None)):
        other = compute_statistics(samples, CLASSES, workers, block=block)
        for name in ("mean", "stddev", "low", "high"):
            np.testing.assert_array_equal(getattr(first.bands, name), getattr(other.bands, name))
        for mine, theirs in zip(first.cells, other.cells, strict=True):
            np.testing.assert_array_equal(mine.counts, theirs.counts)
        assert [(c.name, c.ignored, c.invalid) for c in first.samples] == [
            (c.name, c.ignored, c.invalid) for c in other.samples
        ]


def test_counts_add_up_to_the_areas(client):
    sample = random_sample("s", (300, 300), "uint8", 0, (Window(10, 200, 20, 250), Window(150, 300, 0, 100)))
    count = compute_statistics([sample], CLASSES, client, block=128).samples[0]
    assert count.pixels == 190 * 230 + 150 * 100 - 50 * 80


def test_pixels_of_other_areas_are_not_seen(client):
    """A training's statistics must not know the blocks it is validated on."""
    pixels = np.full((1, 256, 256), 10, np.uint16)
    pixels[:, 128:] = 60000
    sample = make_sample("s", pixels, np.zeros((256, 256), np.uint8), areas=(Window(0, 128, 0, 256),))
    found = compute_statistics([sample], 2, client).bands
    assert (found.mean, found.stddev, found.low, found.high) == ([10], [0], [10], [10])


def test_nodata_and_outliers_do_not_decide(client):
    """In one band a sample is missing though the pixel is not; a few hot pixels are clipped."""
    pixels = np.random.default_rng(0).integers(100, 200, (2, 100, 100)).astype(np.int16)
    pixels[0, :30] = -9999
    pixels[:, 50:60] = -9999
    pixels[1, 99, :5] = 30000
    found = compute_statistics([make_sample("s", pixels, np.zeros((100, 100), np.uint8), nodata=-9999)], 2, client)
    assert found.invalid == 1000
    kept = pixels[0][pixels[0] != -9999]
    assert found.bands.mean[0] == pytest.approx(kept.mean(), abs=0.01)
    assert found.bands.high[1] == 199
    assert found.bands.stddev[1] < 30


def test_adjusted_sources_are_measured_as_they_are_read(client):
    sample = random_sample("s", (140, 150), "uint8", 3)
    adjusted = replace(sample, source=adjust(sample.source, 18.7, 756.0, "uint16"))
    plain, moved = (compute_statistics([one], CLASSES, client).bands for one in (sample, adjusted))
    np.testing.assert_allclose(moved.mean, plain.mean * 18.7 + 756, atol=0.5)


@dataclass(frozen=True)
class Endless:
    """Four bands and labels of any size, made when they are read."""

    side: int
    bands = ("a", "b", "c", "d")
    dtype = np.dtype("uint16")
    nodata = (None,) * 4

    @property
    def geobox(self):
        return GeoBox(self.side, self.side)

    def read(self, window):
        ramp = np.arange(window.left, window.right, dtype=np.uint16)
        return Pixels(np.broadcast_to(ramp, (4, *window.shape)).copy(), np.ones(window.shape, bool))


class Stripes:
    def read(self, window):
        return np.broadcast_to(np.arange(window.left, window.right) % 2, window.shape).astype(np.uint8)


def test_memory_does_not_grow_with_the_scene(client):
    """128 MB of pixels, in blocks of 2 MB."""
    small, sample = (Sample("s", source, Stripes(), (source.geobox.whole,)) for source in (Endless(256), Endless(4096)))
    compute_statistics([small], 2, client, block=512)
    tracemalloc.start()
    try:
        found = compute_statistics([sample], 2, client, block=512)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    assert found.class_pixels.tolist() == [2**23, 2**23]
    assert found.bands.mean == pytest.approx([2047.5] * 4)


def test_a_raster_is_measured_as_an_array(tmp_path, client):
    random = np.random.default_rng(1)
    pixels, labels = random.integers(1, 4000, (3, 300, 310)).astype(np.uint16), np.ones((300, 310), np.uint8)
    source = open_source(write_raster(tmp_path / "a.tif", pixels, nodata=0))
    found = compute_statistics([Sample("a", source, Given(labels), (source.geobox.whole,))], 2, client).bands
    np.testing.assert_allclose(found.mean, pixels.mean(axis=(1, 2)), rtol=1e-3)


def test_nothing_observed_is_not_a_number(client):
    pixels = np.full((1, 20, 20), np.nan, np.float32)
    found = compute_statistics([make_sample("s", pixels, np.zeros((20, 20), np.uint8))], 2, client)
    assert np.isnan([found.bands.mean, found.bands.stddev, found.bands.low]).all()
    assert found.invalid == 400


def test_samples_without_areas_are_counted_as_empty(client):
    none = replace(random_sample("none", (50, 50), "uint8", 0), areas=())
    found = compute_statistics([random_sample("some", (50, 50), "uint8", 1), none], CLASSES, client)
    assert found.samples[1].pixels == 0
    assert found.cells[1].counts.shape == (1, 1, CLASSES)


def test_what_cannot_be_measured_is_refused(client):
    sample = random_sample("s", (50, 50), "uint8", 0)
    with pytest.raises(TrainingError, match="no samples"):
        compute_statistics([], 2, client)
    one_band = make_sample("t", np.zeros((1, 50, 50), np.uint8), np.zeros((50, 50), np.uint8))
    with pytest.raises(TrainingError, match="t has 1 bands and s 2"):
        compute_statistics([sample, one_band], CLASSES, client)
    with pytest.raises(ValueError, match="multiple of 128"):
        compute_statistics([sample], CLASSES, client, block=100)
    with pytest.raises(TrainingError, match=r"s: label values that mean no class: 2 \(\d+ pixels\)"):
        compute_statistics([sample], 2, client)


class Broken:
    def read(self, window):
        raise SceneError("the disk is gone")


def test_going_on_notes_all_that_is_wrong(client):
    """Unknown codes of every sample, and parts that cannot be read, and the rest is counted."""
    labels = np.zeros((50, 50), np.uint8)
    labels[:2], labels[2:3] = 7, 9
    odd = make_sample("odd", np.ones((1, 50, 50), np.uint8), labels)
    broken = replace(make_sample("broken", np.ones((1, 50, 50), np.uint8), labels), labels=Broken())
    found = compute_statistics([odd, broken], 2, client, keep_going=True)
    assert found.samples[0].unknown == {"7": 100, "9": 50}
    assert found.samples[0].ignored == 150
    assert found.class_pixels.tolist() == [2350, 0]
    assert [(f.sample, str(f.error)) for f in found.errors] == [("broken", "the disk is gone")]
    with pytest.raises(SceneError, match="disk"):
        compute_statistics([broken], 2, client)


def test_codes_of_label_files_are_noted_too(tmp_path, client):
    """A label file says what it does not know; also where only a part of it counts."""
    from models import ClassInfo
    from train.data.labels import open_labels

    values = np.zeros((1, 60, 70), np.uint8)
    values[0, :10] = 200
    image = open_source(write_raster(tmp_path / "i.tif", np.ones((1, 60, 70), np.uint8)))
    table = value_table([ClassInfo("a", "000000"), ClassInfo("b", "FFFFFF")])
    labels = open_labels(str(write_raster(tmp_path / "l.tif", values)), image.geobox, table)
    for these in (labels, Wrapped(labels)):
        found = compute_statistics([Sample("s", image, these, (image.geobox.whole,))], 2, client, keep_going=True)
        assert found.samples[0].unknown == {"200": 700}
        assert found.class_pixels.tolist() == [3500, 0]


# histograms and weights


numbers = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=200)


@given(numbers, st.floats(0, 1))
def test_quantiles_are_those_of_the_values(values, share):
    exact = np.quantile(np.array(values, float), share, method="inverted_cdf")
    assert count_values(np.array(values, np.float32)).quantile(share) == pytest.approx(exact, rel=ERROR, abs=0)


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1), st.sampled_from(["int16", "int32", "float64"]))
def test_whole_numbers_are_counted_exactly(values, kind):
    small = np.array(values) // 4  # below 2^13, to which floats are exact too
    found = count_values(small.astype(kind))
    expected = np.unique(small, return_counts=True)
    np.testing.assert_array_equal(found.values, expected[0])
    np.testing.assert_array_equal(found.counts, expected[1])


@given(st.lists(numbers, max_size=5), st.randoms())
def test_histograms_add_up_in_any_order(parts, random):
    whole_one = count_values(np.array([value for part in parts for value in part], np.float64))
    random.shuffle(parts)
    growing = HistogramSum()
    for part in parts:
        growing.add(count_values(np.array(part)))
    for found in (merged(count_values(np.array(part, float)) for part in parts), growing.histogram()):
        np.testing.assert_array_equal(found.values, whole_one.values)
        np.testing.assert_array_equal(found.counts, whole_one.counts)


def test_both_zeros_are_one():
    assert count_values(np.array([0.0, -0.0])).values.tolist() == [0.0]


def test_balanced_weights_are_scikit_learns():
    pixels = np.array([900, 90, 10])
    labels = np.repeat([0, 1, 2], pixels)
    np.testing.assert_allclose(
        balanced_weights(pixels), compute_class_weight("balanced", classes=np.arange(3), y=labels)
    )
    assert balanced_weights(np.array([30, 0, 10]))[1] == 1
    with pytest.raises(TrainingError, match="no pixel is labelled"):
        balanced_weights(np.zeros(3, int))
