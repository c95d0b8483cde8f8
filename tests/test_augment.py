"""Augmentation: labels move with their pixels, values vary as formulas say, chance is the seed's, pictures show it."""

import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from helpers import SHARED
from hypothesis import assume, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from matplotlib.image import imread
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision import tv_tensors

from models.errors import StoreError
from models.metadata import ClassInfo
from train.config import Augment
from train.config.schema import IGNORE
from train.data.augment import Augmentation, BandDrop, Noise, QuarterTurn, Radiometry, resize_chip
from train.data_qa.contact_sheet import Variation, augmentation_sheet, variations

STILL = Augment(flips=False, turns=False)
FULL = Augment(gain=0.3, bias=0.3, gamma=0.3, noise=0.2, drop_band=0.2)
CLASSES = (ClassInfo("background", "000000"), ClassInfo("building", "FF0000"))


@dataclass(frozen=True)
class Known:
    """As `train.data.statistics.BandStatistics`."""

    mean: NDArray[np.float64]
    stddev: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def known(bands: int) -> Any:
    random = np.random.default_rng(bands)
    low = random.uniform(-50, 1000, bands)
    mean = low + random.uniform(100, 900, bands)
    return Known(mean, random.uniform(20, 200, bands), low, mean + random.uniform(100, 3000, bands))


def measured(pixels: NDArray[Any]) -> Any:
    values = pixels.reshape(len(pixels), -1).astype(np.float64)
    low, high = np.quantile(values, (0.001, 0.999), axis=1)
    return Known(values.mean(1), values.std(1), low, high)


def chip(bands: int, height: int = 12, width: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values around the statistics', some far outside their range."""
    told, random = known(bands), np.random.default_rng(seed)
    pixels = random.normal(told.mean[:, None, None], 4 * told.stddev[:, None, None], (bands, height, width))
    labels = random.choice([0, 1, 2, IGNORE], (height, width))
    return torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(labels)


def places(bands: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A chip whose pixels and labels are their own numbers."""
    numbers = torch.arange(height * width).reshape(height, width)
    return numbers.float().expand(bands, -1, -1).clone(), numbers


@hypothesis(max_examples=100)
@given(
    bands=st.sampled_from([1, 3, 4, 13]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    flips=st.booleans(),
    turns=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_labels_move_with_their_pixels(
    bands: int, height: int, width: int, flips: bool, turns: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    pixels, labels = Augmentation(Augment(flips, turns), known(bands))(*places(bands, height, width))
    assert (pixels == labels).all()
    assert sorted(labels.ravel().tolist()) == list(range(height * width))
    assert labels.shape in {(height, width)} | ({(width, height)} if turns else set())
    steps = (labels.diff(dim=0).abs().unique(), labels.diff(dim=1).abs().unique())
    assert all(len(step) <= 1 for step in steps)  # neighbours stay neighbours


@hypothesis(max_examples=60)
@given(bands=st.sampled_from([1, 3, 4, 13]), seed=st.integers(0, 2**31))
def test_labels_stay_with_their_pixels_whatever_the_values_do(bands: int, seed: int) -> None:
    """Of a chip in which a value tells the label, each label still has one value of its own, in the same order."""
    told, (_, labels) = known(bands), chip(bands, seed=seed)
    steps = torch.from_numpy(told.stddev)[:, None, None]
    pixels = (torch.from_numpy(told.mean)[:, None, None] + steps * (labels % 7 - 1)).float()
    torch.manual_seed(seed)
    values, moved = Augmentation(Augment(gain=0.5, bias=0.5, gamma=0.5), told)(pixels, labels)
    for band in values:
        each = [band[moved == label] for label in (0, 1, 2)]
        assert all(float(found.max() - found.min()) < 0.01 for found in each)  # of hundreds: rounding
        assert each[0].max() < each[1].min() <= each[1].max() < each[2].min()


@pytest.mark.parametrize(
    ("flips", "turns", "count"), [(True, True, 8), (True, False, 4), (False, True, 4), (False, False, 1)]
)
def test_symmetries_are_equally_likely(flips: bool, turns: bool, count: int) -> None:
    augment, (pixels, labels) = Augmentation(Augment(flips, turns), known(1)), places(1, 2, 2)
    torch.manual_seed(0)
    times = 400 * count
    seen = Counter(tuple(augment(pixels, labels)[1].ravel().tolist()) for _ in range(times))
    assert len(seen) == count
    assert sum((found - 400) ** 2 / 400 for found in seen.values()) < 24.3  # chi squared, 7 degrees: p = 0.001


def by_formula(pixels: NDArray[Any], told: Any, gain: Any, bias: Any, gamma: Any) -> NDArray[np.float64]:
    """Gain and bias about the mean, then gamma over low to high; outside that range, distances stay."""
    made = np.empty(pixels.shape)
    for band in range(len(pixels)):
        mean, low, high = told.mean[band], told.low[band], told.high[band]
        for place, value in np.ndenumerate(pixels[band].astype(np.float64)):
            moved = mean + gain[band] * (value - mean) + bias[band] * told.stddev[band]
            if low < moved < high:
                moved = low + (high - low) * ((moved - low) / (high - low)) ** gamma[band]
            made[(band, *place)] = moved
    return made


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
@pytest.mark.parametrize("sizes", [(0.5, 0, 0), (0, 0.7, 0), (0, 0, 0.6), (0.4, 0.3, 0), (0.3, 0.3, 0.3)])
def test_radiometry_is_its_formula(bands: int, sizes: tuple[float, float, float]) -> None:
    told, (pixels, _) = known(bands), chip(bands, 6, 7)
    step = Radiometry(replace(STILL, gain=sizes[0], bias=sizes[1], gamma=sizes[2]), told)
    shift = np.random.default_rng(1).uniform(-1, 1, (3, bands))
    made = step.transform(tv_tensors.Image(pixels), {"shift": torch.from_numpy(shift)})
    wanted = by_formula(
        pixels.numpy(), told, np.exp(sizes[0] * shift[0]), sizes[1] * shift[1], np.exp(sizes[2] * shift[2])
    )
    assert made.dtype == torch.float32
    assert isinstance(made, tv_tensors.Image)
    span = (told.high - told.low)[:, None, None]
    np.testing.assert_allclose(made.numpy() / span, wanted / span, atol=2e-6, rtol=2e-6)
    assert np.abs(wanted - pixels.numpy()).max() > 1


def test_shifts_are_half_common_to_all_bands() -> None:
    torch.manual_seed(0)
    step = Radiometry(FULL, known(4))
    shifts = torch.stack([step.make_params([])["shift"] for _ in range(4000)]).numpy()  # (draw, 3, band)
    assert shifts.shape == (4000, 3, 4)
    assert np.abs(shifts).max() <= 1
    assert np.abs(shifts).max() > 0.95
    np.testing.assert_allclose(shifts.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(shifts.var(0), 1 / 6, rtol=0.08)  # of a sum of two, each uniform from -1/2 to 1/2
    for place in range(3):
        between = np.corrcoef(shifts[:, place].T)
        np.testing.assert_allclose(between[np.triu_indices(4, 1)], 0.5, atol=0.05)
    assert abs(np.corrcoef(shifts[:, 0, 0], shifts[:, 1, 0])[0, 1]) < 0.05  # gain says nothing of bias


@hypothesis(max_examples=100)
@given(values=st.lists(st.floats(-5000, 70000, width=32), min_size=2, max_size=40), seed=st.integers(0, 2**31))
def test_the_order_of_values_stays(values: list[float], seed: int) -> None:
    pixels = torch.tensor(sorted(values))[None, None]
    torch.manual_seed(seed)
    made, _ = Augmentation(replace(STILL, gain=1.0, bias=2.0, gamma=1.0), known(1))(pixels, torch.zeros(1, len(values)))
    assert (made.diff() >= -1e-3).all()  # of thousands: the rounding of float32
    assert torch.isfinite(made).all()


def test_values_beyond_the_range_are_not_cut_off() -> None:
    told = known(1)
    beyond = torch.tensor([[[told.high[0] * 3, told.high[0] * 4, told.low[0] - 900, told.low[0] - 1000]]]).float()
    torch.manual_seed(0)
    made, _ = Augmentation(replace(STILL, gain=0.3, gamma=1.0), told)(beyond, torch.zeros(1, 4))
    assert made.unique().numel() == 4


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_nothing_asked_for_changes_nothing(bands: int) -> None:
    pixels, labels = chip(bands)
    before = torch.random.get_rng_state()
    made, same = Augmentation(STILL, known(bands))(pixels, labels)
    assert torch.equal(made, pixels)
    assert torch.equal(same, labels)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_seeds_decide_and_what_is_given_stays(bands: int) -> None:
    augment, (pixels, labels) = Augmentation(FULL, known(bands)), chip(bands)
    kept, kept_labels, results = pixels.clone(), labels.clone(), []
    for seed, used in ((1, augment), (1, pickle.loads(pickle.dumps(augment))), (2, augment)):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - which must not matter
        results.append(used(pixels, labels))
    (one, one_labels), (same, same_labels), (other, _) = results
    assert torch.equal(one, same)
    assert torch.equal(one_labels, same_labels)
    assert not torch.equal(one, other)
    assert torch.equal(pixels, kept)
    assert torch.equal(labels, kept_labels)
    for made in (one, one_labels):
        assert type(made) is Tensor
        assert made.is_contiguous()
    assert one.dtype == torch.float32
    assert one_labels.dtype == torch.int64


@pytest.mark.parametrize("settings", [STILL, FULL, replace(STILL, noise=0.2)])
def test_layout_in_memory_changes_nothing(settings: Augment) -> None:
    """A transposed view is a chip like any other; torch draws noise for one in another order."""
    augment, (pixels, labels) = Augmentation(settings, known(3)), chip(3)
    views = pixels.mT.contiguous().mT, labels.mT.contiguous().mT
    assert not views[0].is_contiguous()
    results = []
    for given_ in ((pixels, labels), views):
        torch.manual_seed(3)
        results.append(augment(*given_))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
        assert other.is_contiguous()


def test_noise_is_white_and_of_the_size_asked_for() -> None:
    told = known(3)
    pixels = torch.zeros(3, 200, 200)
    torch.manual_seed(0)
    noise = Noise(replace(STILL, noise=0.5), told).transform(tv_tensors.Image(pixels), {"part": 0.5}).numpy()
    np.testing.assert_allclose(noise.std((1, 2)), 0.5 * told.stddev, rtol=0.03)
    np.testing.assert_allclose(noise.mean((1, 2)) / told.stddev, 0, atol=0.01)
    flat = noise.reshape(3, -1)
    assert abs(np.corrcoef(flat)[np.triu_indices(3, 1)]).max() < 0.03
    assert abs(np.corrcoef(flat[0, :-1], flat[0, 1:])[0, 1]) < 0.03


def test_parts_of_noise_reach_from_none_to_all() -> None:
    torch.manual_seed(0)
    step = Noise(replace(STILL, noise=0.5), known(3))
    parts = np.array([step.make_params([])["part"] for _ in range(2000)])
    np.testing.assert_allclose(np.quantile(parts, (0, 0.25, 0.5, 0.75, 1)), (0, 0.125, 0.25, 0.375, 0.5), atol=0.02)


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
@pytest.mark.parametrize("probability", [0.2, 0.99])
def test_bands_are_lost_but_never_all(bands: int, probability: float) -> None:
    told = known(bands)
    augment, (pixels, labels) = Augmentation(replace(STILL, drop_band=probability), told), chip(bands)
    torch.manual_seed(0)
    lost = np.zeros((1000, bands), bool)
    for row in lost:
        made, _ = augment(pixels, labels)
        row[:] = (made.numpy() == told.mean.astype(np.float32)[:, None, None]).all((1, 2))
        assert torch.equal(made[~row], pixels[~row])
    assert not lost.all(axis=1).any()
    # each by itself; of the cases in which all would go, one in `bands` keeps this one
    wanted = probability - probability**bands / bands
    np.testing.assert_allclose(lost.mean(0), wanted, atol=0.06)


def test_a_band_of_one_value_or_of_none_stays_finite() -> None:
    told = Known(np.array([5.0, np.nan]), np.array([0.0, np.nan]), np.array([5.0, np.nan]), np.array([5.0, np.nan]))
    torch.manual_seed(0)
    made, _ = Augmentation(replace(FULL, drop_band=0), told)(
        torch.tensor([5.0, 0]).expand(4, 4, 2).movedim(-1, 0), torch.zeros(4, 4)
    )  # type: ignore[arg-type]
    assert torch.isfinite(made).all()
    assert made[0] == pytest.approx(5, abs=1e-5)


def test_other_bands_than_the_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="1 bands of pixels, 3 of statistics"):
        Augmentation(FULL, known(3))(*chip(1))


@hypothesis(max_examples=100)
@given(bands=st.sampled_from([1, 4]), height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 40))
def test_chips_are_resized_on_one_grid_of_centres(bands: int, height: int, width: int, size: int) -> None:
    """Rows and columns as values: smoothed values are the centres' own places, labels the pixels these lie in."""
    assume((height, width) != (size, size))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for places_, count, axis in ((rows, height, 0), (columns, width, 1)):
        pixels = places_.float().expand(bands, -1, -1)
        values, labels = resize_chip(pixels, places_, size)
        assert values.shape == (bands, size, size)
        assert labels.dtype == torch.int64
        centres = (torch.arange(size, dtype=torch.float64) + 0.5) * count / size
        wanted = centres.reshape((-1, 1) if axis == 0 else (1, -1)).expand(size, size)
        assert (labels == wanted.floor()).all() or ((labels - wanted + 0.5).abs() <= 0.5 + 1e-9).all()
        reach = max(1.0, count / size)  # near the sides, what is averaged over is cut off
        inner = (wanted > reach) & (wanted < count - reach)
        torch.testing.assert_close(values[0].double()[inner] + 0.5, wanted[inner], atol=0.1 * reach, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(96, 64), (40, 64), (128, 64), (77, 64)])
def test_resized_labels_are_torchs_nearest_exact(side: int, size: int) -> None:
    _, labels = chip(1, side, side)
    _, made = resize_chip(torch.zeros(1, side, side), labels, size)
    wanted = interpolate(labels[None, None].to(torch.uint8), size=(size, size), mode="nearest-exact")[0, 0]
    assert torch.equal(made, wanted.long())
    assert IGNORE in made


def test_shrunk_values_are_means() -> None:
    pixels, labels = chip(3, 64, 64)
    values, _ = resize_chip(pixels, labels, 8)
    assert (values.std((1, 2)) < 0.2 * pixels.std((1, 2))).all()  # single pixels picked would vary as before
    torch.testing.assert_close(values.mean((1, 2)), pixels.mean((1, 2)), rtol=0.1, atol=20)
    flat, _ = resize_chip(torch.full((2, 50, 50), 4321.0), torch.zeros(50, 50), 33)
    torch.testing.assert_close(flat, torch.full((2, 33, 33), 4321.0))


def test_chips_of_the_size_stay() -> None:
    pixels, labels = chip(3)
    made, same = resize_chip(pixels, labels, 12)
    assert made is pixels
    assert same is labels


def shown_chip(bands: int, side: int = 96) -> tuple[Tensor, Tensor, Any]:
    """A bright block above and left of the middle, on noise; a corner that nobody judged."""
    random = np.random.default_rng(0)
    labels = np.zeros((side, side), np.int64)
    labels[side // 4 : side // 2, side // 4 : side // 2 + 8] = 1
    pixels = (random.normal(300, 40, (bands, side, side)) + 400 * labels).astype(np.float32)
    labels[:10, :10] = IGNORE
    return torch.from_numpy(pixels), torch.from_numpy(labels), measured(pixels)


@pytest.mark.parametrize("bands", [1, 3, 4, 13])
def test_each_variation_is_shown_at_its_largest(bands: int) -> None:
    pixels, labels, told = shown_chip(bands)
    seen = {one.title: one for one in variations(pixels, labels, FULL, told, (0.5, 1.5))}
    plain = seen.pop("as it is")
    assert plain.pixels.shape == (bands, 64, 64)
    assert torch.equal(plain.pixels, pixels[:, 16:80, 16:80])
    ones, none = np.ones(bands), np.zeros(bands)
    for title, gain, bias, gamma in [
        ("gain 0.3, up", np.exp(0.3) * ones, none, ones),
        ("gain 0.3, down", np.exp(-0.3) * ones, none, ones),
        ("bias 0.3, up", ones, 0.3 * ones, ones),
        ("bias 0.3, down", ones, -0.3 * ones, ones),
        ("gamma 0.3, up", ones, none, np.exp(0.3) * ones),
        ("gamma 0.3, down", ones, none, np.exp(-0.3) * ones),
    ]:
        wanted = by_formula(plain.pixels.numpy(), told, gain, bias, gamma)
        np.testing.assert_allclose(seen[title].pixels.numpy(), wanted, rtol=1e-4, atol=0.05)
    assert torch.equal(seen["left to right"].pixels, plain.pixels.flip(-1))
    assert torch.equal(seen["left to right"].labels, plain.labels.flip(-1))
    assert torch.equal(seen["upside down"].labels, plain.labels.flip(-2))
    assert torch.equal(seen["turned by 90°"].labels, plain.labels.rot90())
    assert torch.equal(seen["zoom 0.5"].labels, resize_chip(plain.pixels, plain.labels[16:48, 16:48], 64)[1])
    assert (seen["noise 0.2"].pixels - plain.pixels).std() == pytest.approx(0.2 * told.stddev.mean(), rel=0.1)
    assert ("first band lost" in seen) == ("gain 0.3, bands apart" in seen) == (bands > 1)
    drawn = [plain, *seen.values()]
    assert all(type(one.pixels) is Tensor for one in drawn)
    for place, one in enumerate(drawn):
        assert all(not same(one, other) for other in drawn[:place]), one.title


def same(one: Variation, other: Variation) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)


def panels_of(path: Path) -> list[NDArray[np.float32]]:
    """The panels of a sheet, which stand on white paper, row by row."""
    picture = imread(path)[..., :3]
    ink, _ = ndimage.label(ndimage.binary_closing(picture.min(axis=2) < 0.995, iterations=1))
    found = [box for box in ndimage.find_objects(ink) if min(s.stop - s.start for s in box) > 150]
    return [picture[box] for box in sorted(found, key=lambda box: (box[0].start // 50, box[1].start))]


@pytest.mark.parametrize("bands", [1, 3, 13])
def test_a_sheet_shows_each_variation(bands: int, tmp_path: Path) -> None:
    pixels, labels, told = shown_chip(bands)
    titles = [one.title for one in variations(pixels, labels, FULL, told)]
    path = augmentation_sheet(pixels, labels, FULL, told, tmp_path / "sheet.png", classes=CLASSES)
    panels = dict(zip(titles, panels_of(path), strict=True))
    side = min(min(panel.shape[:2]) for panel in panels.values())
    small = {title: panel[:side, :side] for title, panel in panels.items()}
    for place, title in enumerate(titles):
        for other in titles[:place]:
            assert np.abs(small[title] - small[other]).mean() > 0.004, (title, other)
    red = {
        title: np.argwhere(panel[..., 0] - panel[..., 1:].max(axis=2) > 0.9) / side for title, panel in small.items()
    }
    (top, left), (bottom, right) = red["as it is"].min(0), red["as it is"].max(0)
    np.testing.assert_allclose((top, bottom, left, right), (0.25, 0.5, 0.25, 0.583), atol=0.03)  # the block's outline
    np.testing.assert_allclose(red["left to right"].min(0), (0.25, 0.417), atol=0.03)
    np.testing.assert_allclose(red["upside down"].min(0), (0.5, 0.25), atol=0.03)
    np.testing.assert_allclose(red["turned by 90°"].min(0), (0.417, 0.25), atol=0.03)
    means = {title: panel.mean() for title, panel in small.items()}
    assert means["bias 0.3, down"] < means["as it is"] < means["bias 0.3, up"]
    assert means["gamma 0.3, up"] < means["as it is"] < means["gamma 0.3, down"]


def test_a_sheet_shows_only_what_is_asked_for() -> None:
    pixels, labels, told = shown_chip(3)
    titles = [one.title for one in variations(pixels, labels, replace(STILL, bias=0.1), told)]
    assert titles == [
        "as it is",
        *(f"bias 0.1, {text}" for text in ("up", "down", "bands apart")),
        *(f"all at once, seed {seed}" for seed in range(3)),
    ]


def test_a_sheet_without_labels_or_classes_is_drawn(tmp_path: Path) -> None:
    pixels, labels, told = shown_chip(2)
    for name, given_ in (("ignored", torch.full_like(labels, IGNORE)), ("empty", torch.zeros_like(labels))):
        assert panels_of(augmentation_sheet(pixels, given_, STILL, told, tmp_path / f"{name}.png"))


def test_a_sheet_replaces_nothing_unasked(tmp_path: Path) -> None:
    pixels, labels, told = shown_chip(1)
    path = tmp_path / "sheet.png"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        augmentation_sheet(pixels, labels, STILL, told, path)
    assert path.read_text() == "mine"
    augmentation_sheet(pixels, labels, STILL, told, path, overwrite=True)
    assert panels_of(path)


def test_sheets_leave_chance_alone() -> None:
    pixels, labels, told = shown_chip(3)
    before = torch.random.get_rng_state()
    list(variations(pixels, labels, FULL, told))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_sheets_of_real_chips(tmp_path: Path) -> None:
    """A drone's picture of three bands, and a 38-Cloud patch of four with values of 16 bits."""
    scene = "oam_buildings/scenes/kampala_ug_a_z21"
    patch = "patch_51_3_by_9_LC08_L1TP_032029_20160420_20170223_01_T1.TIF"
    bands = [f"cloud38/38-Cloud_training/train_{name}/{name}_{patch}" for name in ("red", "green", "blue", "nir")]
    for images, label in (
        ([f"{scene}_image.tif"], f"{scene}_label.tif"),
        (bands, f"cloud38/38-Cloud_training/train_gt/gt_{patch}"),
    ):
        window = rasterio.windows.Window(0, 0, 384, 384)
        pixels = np.concatenate([read(image, window) for image in images])
        labels = (read(label, window)[0] > 0).astype(np.int64)
        chip_ = torch.from_numpy(pixels.astype(np.float32)), torch.from_numpy(labels)
        path = augmentation_sheet(*chip_, FULL, measured(pixels), tmp_path / f"{len(pixels)}.png", zoom=(0.6, 1.5))
        panels = panels_of(path)
        assert len(panels) == 23
        assert all(panel.std() > 0.03 for panel in panels)


def read(name: str, window: Any) -> NDArray[Any]:
    with rasterio.open(SHARED / name) as source:
        values: NDArray[Any] = source.read(window=window)
    return values


def test_turning_keeps_the_kind() -> None:
    pixels, labels = chip(3)
    step = QuarterTurn()
    image, mask = step(tv_tensors.Image(pixels), tv_tensors.Mask(labels))
    assert isinstance(image, tv_tensors.Image)
    assert isinstance(mask, tv_tensors.Mask)
    lost = BandDrop(replace(STILL, drop_band=0.5), known(3)).transform(
        image, {"lost": torch.zeros(3, dtype=torch.bool)}
    )
    assert lost is image
