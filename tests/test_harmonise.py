"""Scenes of a mosaic brought to one radiometry by their overlaps."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box
from skimage.exposure import match_histograms
from test_mosaic import write_piece

from models.errors import ArgumentError
from pipeline.catalog.index import IndexedScene, content_digest, write_index
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.raster_files import open_rasters
from pipeline.io.source import Pixels
from pipeline.mosaic.adjust import UNCHANGED, Curve, Linear, adjust
from pipeline.mosaic.harmonise import _balanced, harmonise
from pipeline.mosaic.open import open_mosaic
from pipeline.mosaic.overlaps import SIDE, WINDOWS, find_pairs
from pipeline.mosaic.source import MosaicSource

SHAPE = 120, 160
PLACES = [(0, 0), (0, 70), (50, 0), (50, 70)]
HEIGHT, WIDTH = 70, 90


@pytest.fixture(scope="module")
def ground():
    """A smooth scene with texture, float64 `(2, 120, 160)`, between 30 and 170."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    waves = np.stack([np.sin(rows / 9) * np.cos(columns / 11), np.cos(rows / 7 + columns / 13)])
    return 100 + 50 * waves + rng.uniform(-20, 20, waves.shape)


def mosaic_of(folder, parts, places=PLACES, shape=SHAPE):
    scenes = []
    for number, (part, (top, left)) in enumerate(zip(parts, places, strict=True)):
        source = open_rasters([str(write_piece(folder / f"{number}.tif", part, left, top))])
        scenes.append(IndexedScene(f"s{number}", source, box(0, 0, 1, 1), digest=content_digest(source)))
    index = write_index(scenes, folder / "scenes.parquet")
    first = index.scene(0).source.geobox
    return MosaicSource(index, GeoBox(*shape, first.transform, first.crs), tuple(range(len(parts))))


def cut(ground, places=PLACES):
    return [ground[:, top : top + HEIGHT, left : left + WIDTH] for top, left in places]


def overlaps_of(mosaic):
    """Yield the values of pairs of scenes where both lie, `(2, band, n)`."""
    whole = mosaic.geobox.whole
    read = [mosaic.read_one(number, whole) for number in mosaic.order]
    for one in range(len(read)):
        for other in range(one):
            both = read[one].valid & read[other].valid
            if both.any():
                yield np.stack([read[one].data[:, both], read[other].data[:, both]]).astype(float)


def test_moments_undo_gains_and_offsets(ground, tmp_path):
    gains, offsets = [1.0, 1.3, 0.8, 1.1], [0, -300, 200, 50]
    raw = [part * 20 * gain + offset for part, gain, offset in zip(cut(ground), gains, offsets, strict=True)]
    plain = mosaic_of(tmp_path, [np.rint(part).astype("uint16") for part in raw])
    mosaic = harmonise(plain, "moments")
    for here, there in overlaps_of(mosaic):
        assert np.abs(here - there).max() <= 2
    made = [mosaic.adjustments[number] for number in range(4)]
    for band in range(2):
        total = np.array([by[band].gain for by in made]) * gains
        np.testing.assert_allclose(total, total[0], rtol=2e-3)
    before, after = (each.read(each.geobox.whole).data.mean() for each in (plain, mosaic))
    assert after == pytest.approx(before, rel=0.1)


def test_histograms_become_the_reference_s_as_scikit_image_matches_them(ground, tmp_path):
    left, right = cut(ground, [(0, 0), (0, 70)])
    parts = [left.clip(1, 255).astype("uint8"), (255 * (right / 255) ** 1.6).clip(1, 255).astype("uint8")]
    mosaic = harmonise(mosaic_of(tmp_path, parts, PLACES[:2]), "histogram")
    (changed,) = mosaic.adjustments  # the other is the reference
    own, reference = parts[changed], parts[1 - changed]
    shared = [part[:, :, -20:] if number == 0 else part[:, :, :20] for number, part in enumerate((parts[0], parts[1]))]
    expected = match_histograms(shared[changed], shared[1 - changed], channel_axis=0)
    place = Window(0, HEIGHT, 70, 90)
    found = mosaic.read_one(changed, place).data
    assert np.abs(found.astype(float) - expected).max() <= 3
    assert np.abs(found.astype(float) - expected).mean() < 0.6
    np.testing.assert_array_equal(mosaic.read_one(1 - changed, place).data, shared[1 - changed])
    for band in range(2):
        by = mosaic.adjustments[changed][band]
        assert (np.diff(by.of(np.arange(256.0))) >= 0).all()
    assert own.shape == reference.shape


@pytest.mark.parametrize("method", ["moments", "histogram"])
def test_a_chain_of_scenes_agrees_and_groups_that_nothing_joins_keep_to_themselves(ground, tmp_path, method):
    places = [(0, 0), (0, 70), (50, 70), (300, 0), (300, 60)]
    parts = [*cut(ground, places[:3]), ground[:, :HEIGHT, :WIDTH], ground[:, :HEIGHT, 60 : 60 + WIDTH]]
    raw = [np.rint(part * gain).astype("uint16") for part, gain in zip(parts, [10, 13, 16, 50, 60], strict=True)]
    plain = mosaic_of(tmp_path, raw, places, (400, 200))
    mosaic = harmonise(plain, method)
    for here, there in overlaps_of(mosaic):
        assert np.median(np.abs(here - there)) <= (2 if method == "moments" else 40)
        assert here.mean() == pytest.approx(there.mean(), rel=0.005)
    means = [mosaic.read_one(number, mosaic.geobox.whole).data.max(axis=(1, 2)).mean() for number in mosaic.order]
    assert max(means[:3]) < 0.6 * min(means[3:])  # the bright group is not drawn to the dark one


@pytest.mark.parametrize("method", ["moments", "histogram"])
def test_scenes_that_agree_are_left_as_they_are(ground, tmp_path, method):
    plain = mosaic_of(tmp_path, [np.rint(part).astype("uint16") for part in cut(ground)])
    mosaic = harmonise(plain, method)
    assert mosaic == plain
    assert mosaic.identity() == plain.identity()


def test_what_is_found_is_a_function_of_scenes_and_grid_and_part_of_the_identity(ground, tmp_path):
    raw = [np.rint(part * (1 + n / 9)).astype("uint16") for n, part in enumerate(cut(ground))]
    plain = mosaic_of(tmp_path, raw)
    made = {method: harmonise(plain, method) for method in ("moments", "histogram")}
    assert made["moments"] == harmonise(plain, "moments")
    assert len({str(one.identity()) for one in (plain, *made.values())}) == 3
    turned = harmonise(replace(plain, order=plain.order[::-1]), "moments")
    for number, by in turned.adjustments.items():
        for band in range(2):
            assert by[band].gain == pytest.approx(made["moments"].adjustments[number][band].gain, rel=1e-6)
    whole = made["histogram"].read(plain.geobox.whole)
    window = Window(33, 90, 41, 120)
    np.testing.assert_array_equal(made["histogram"].read(window).data, whole.data[:, *window.slices])


def test_bands_are_taken_with_what_they_are_adjusted_by(ground, tmp_path):
    raw = [np.rint(part * np.array([[[1 + n / 9]], [[2]]])).astype("uint16") for n, part in enumerate(cut(ground))]
    mosaic = harmonise(mosaic_of(tmp_path, raw), "moments")
    whole = mosaic.read(mosaic.geobox.whole).data
    np.testing.assert_array_equal(mosaic.select([2, 1]).read(mosaic.geobox.whole).data, whole[::-1])
    np.testing.assert_array_equal(mosaic.select([1]).read(mosaic.geobox.whole).data, whole[:1])


def test_a_mosaic_is_opened_harmonised_and_says_so(ground, tmp_path):
    raw = [np.rint(part * (1 + n / 9)).astype("uint16") for n, part in enumerate(cut(ground))]
    index = mosaic_of(tmp_path, raw).index
    plain, mosaic = open_mosaic(index), open_mosaic(index, harmonise="moments")
    assert mosaic.adjustments == harmonise(plain, "moments").adjustments
    assert "scenes brought to one radiometry by moments" in mosaic.notes


def test_no_method_but_these(ground, tmp_path):
    plain = mosaic_of(tmp_path, [np.rint(part).astype("uint16") for part in cut(ground)])
    with pytest.raises(ArgumentError, match="moments, histogram"):
        harmonise(plain, "colour")


def test_pairs_that_contradict_each_other_are_balanced_as_by_least_squares():
    rng = np.random.default_rng(1)
    ends = np.array([(0, 1), (1, 2), (0, 2), (1, 3), (4, 5)])
    weights, wanted, masses = rng.uniform(1, 9, 5), rng.normal(size=5), rng.uniform(1, 2, 6)
    found = _balanced(ends, weights, wanted, masses, np.zeros(6))
    incidence = np.zeros((7, 6))
    incidence[np.arange(5), ends[:, 0]], incidence[np.arange(5), ends[:, 1]] = 1, -1
    incidence[:5] *= np.sqrt(weights)[:, None]
    incidence[5, :4], incidence[6, 4:] = masses[:4], masses[4:]  # that the means are 0 contradicts no pair
    expected = np.linalg.lstsq(incidence, [*(np.sqrt(weights) * wanted), 0, 0], rcond=None)[0]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_samples_are_bounded_and_scenes_stay_joined():
    outlines = [box(n, n, n + 3000, n + 3000) for n in range(40)] + [box(3028, 3020, 9000, 3300)]
    pairs = find_pairs(outlines, (10000, 10000))
    assert all(len(pair.windows) <= WINDOWS for pair in pairs)
    assert all(max(window.shape) <= SIDE for pair in pairs for window in pair.windows)
    assert len(pairs) < 41 * 16
    joined = {0}
    for _ in range(41):
        joined |= {end for pair in pairs for end in (pair.first, pair.second) if {pair.first, pair.second} & joined}
    assert joined == set(range(41))


@pytest.mark.parametrize("nodata", [0, 255, 7, None])
def test_missing_samples_stay_and_no_other_becomes_one(nodata):
    data = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    valid = np.ones((16, 16), bool)
    for by in (Linear(0.5, -9), Linear(2, 3), Curve((10, 20, 200), (0, 7, 255))):
        found = adjust(Pixels(data, valid), (by,), (nodata,)).data
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found == nodata, data == nodata)
        exact = np.floor(by.of(data.astype(float)) + 0.5).clip(0, 255)
        off = (found != exact) & (data != nodata)
        assert (exact[off] == nodata).all()  # those alone moved, to the next value
        assert (np.abs(found[off] - exact[off]) == 1).all()


@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]),
    gain=st.floats(0.2, 5),
    offset=st.floats(-100, 100),
    seed=st.integers(0, 99),
)
def test_any_type_is_adjusted_as_in_float64(dtype, gain, offset, seed):
    data = np.random.default_rng(seed).integers(-128 if dtype[0] != "u" else 0, 127, (2, 5, 6)).astype(dtype)
    by = Linear(gain, offset)
    found = adjust(Pixels(data, np.ones((5, 6), bool)), (by, UNCHANGED), (None, None)).data
    assert found.dtype == data.dtype
    np.testing.assert_array_equal(found[1], data[1])
    exact = data[0].astype(float) * gain + offset
    if dtype[0] in "iu":
        info = np.iinfo(dtype)
        assert np.abs(found[0] - exact.clip(info.min, info.max)).max() <= 0.5
    else:
        np.testing.assert_allclose(found[0], exact, rtol=1e-5, atol=1e-4)


def test_a_cloud_in_an_overlap_does_not_pass_for_contrast(ground, tmp_path):
    parts = [
        np.rint(part * 20 * gain).astype("uint16") for part, gain in zip(cut(ground), [1, 1.2, 1, 1.2], strict=True)
    ]
    parts[1][:, 10:14, 3:12] = 60000
    mosaic = harmonise(mosaic_of(tmp_path, parts), "moments")
    gains = [mosaic.adjustments[number][0].gain for number in range(4)]
    assert gains[0] / gains[1] == pytest.approx(1.2, abs=0.05)
