"""What `--check` finds: one broken set of data for each finding, none where all is well; and the sheet of chips."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from helpers import GRID, SHARED, UTM, write_raster
from PIL import Image

from models import ClassInfo
from models.errors import SceneError, StoreError, TrainingError
from pipeline.grid.geobox import Window
from pipeline.io.array import array_source
from pipeline.io.band_names import rgb_places
from pipeline.io.radiometry import adjust
from pipeline.io.scene import open_source
from train.config import settings_of
from train.config.schema import IGNORE
from train.data.classes import value_table
from train.data.labels import open_labels
from train.data.samples import Sample
from train.data.statistics import compute_statistics
from train.data_qa.checks import MOST_ALIKE, Finding, describe
from train.data_qa.contact_sheet import write_sheet
from train.data_qa.inspection import check
from train.data_qa.leaks import read_thumbnails

CLASSES = (ClassInfo("ground", "000000"), ClassInfo("building", "E4572E"), ClassInfo("road", "17BEBB"))
CONFIG = {
    "name": "test",
    "bands": ["red", "green"],
    "classes": [{"name": info.name, "color": info.color} for info in CLASSES],
    "data": [{"root": "."}],
    "chips": {"size": 64},
}


@dataclass(frozen=True)
class Given:
    values: np.ndarray

    def read(self, window):
        return self.values[window.slices]


class Gone:
    def read(self, window):
        raise SceneError("the disk is gone")


def make_sample(name, *, shape=(150, 140), labels=None, pixels=None, at=(0, 0), valid=None, names=None):
    """A sound sample of two bands and three classes, at its own place on the ground; arguments break it."""
    random = np.random.default_rng(sum(map(ord, name)))
    if pixels is None:
        pixels = random.normal(100, 20, (2, *shape)).clip(1, 250).astype(np.uint8)
    if labels is None:
        labels = random.integers(0, 3, pixels.shape[1:]).astype(np.uint8)
    bands = list(names or ("red", "green")[: len(pixels)])
    array = xr.DataArray(pixels, dims=("band", "y", "x"), coords={"band": bands})
    if valid is not None:
        array = array.assign_coords(valid=(("y", "x"), valid))
    transform = GRID * Affine.translation(*at)
    source = array_source(array.rio.write_crs(UTM).rio.write_transform(transform))
    source = replace(source, geobox=replace(source.geobox, transform=transform))
    return Sample(name, source, labels if hasattr(labels, "read") else Given(labels), (source.geobox.whole,))


def sound():
    """Parts in which nothing is wrong."""
    samples = [make_sample(name, at=(1000 * n, 0)) for n, name in enumerate(("oslo", "bonn", "rome", "kiev", "bern"))]
    return {"train": samples[:3], "validate": samples[3:4], "test": samples[4:]}


def config(**changes):
    return settings_of({**CONFIG, **changes})


def severe(findings):
    """All but notes."""
    return [(f.level, f.kind, f.text) for f in findings if f.level != "note"]


def only(parts, client, **changes):
    """The one severe finding, as level, kind and text."""
    (found,) = severe(check(parts, config(**changes), client=client))
    return found


def test_sound_data_have_nothing_wrong(client):
    findings = check(sound(), config(), client=client)
    assert severe(findings) == []
    text = describe(findings)
    assert "note     train: ground 33." in text
    assert text.endswith("4 notes")


def test_what_was_measured_is_not_measured_again(client):
    parts = sound()
    told = {part: compute_statistics(samples, 3, client, keep_going=True) for part, samples in parts.items()}
    lost = {part: [replace(sample, labels=Gone()) for sample in samples] for part, samples in parts.items()}
    assert severe(check(lost, config(), told, client)) == []
    assert check(lost, config(), told, client) == check(parts, config(), client=client)


# labels and classes


def test_nodata_over_labels_is_told_with_counts(tmp_path, client):
    """A class that is tagged nodata counts, which is noted; what is no class does not, which is a warning."""
    samples, values = [], np.random.default_rng(0).integers(0, 3, (1, 150, 140)).astype(np.uint8)
    for number, nodata in enumerate((0, 0, 77)):
        labels = values.copy()
        labels[0, :5] = nodata
        pixels = np.random.default_rng(number).integers(1, 250, (2, 150, 140)).astype(np.uint8)
        where = {"transform": GRID * Affine.translation(900 * number, 0)}
        image = open_source(write_raster(tmp_path / f"{number}.tif", pixels, descriptions=("red", "green"), **where))
        drawn = write_raster(tmp_path / f"{number}_l.tif", labels, nodata=nodata, **where)
        opened = open_labels(str(drawn), image.geobox, value_table(CLASSES))
        samples.append(Sample(f"s{number}", image, opened, (Window(0, 100, 0, 140),), (str(drawn),)))
    findings = check({"train": samples, "validate": samples[:0]}, config(), client=client)
    said = [(f.level, f.text) for f in findings if f.kind == "labels"]
    zeros = 2 * (5 * 140 + int((values[0, 5:100] == 0).sum()))
    tag = "which is nodata by the file's tag"
    assert said == [
        ("note", f"train: labels of s0, s1: {zeros:,} pixels ({100 * zeros / 28000:.3g} %) are 0, {tag}; it is the "
                 "class 'ground', and counts"),
        ("warning", f"train: labels of s2: 700 pixels (5 %) are 77, {tag}, and do not count; see data.values, "
                    "data.ignore and data.unlabelled"),
    ]  # fmt: skip


def test_unknown_codes_are_listed_over_all_files(tmp_path, client):
    """Each file's codes are counted once, over all of it, though two parts have pieces of it."""
    table, samples = value_table(CLASSES), []
    for number, name in enumerate(("a", "b")):
        pixels = np.random.default_rng(number).integers(1, 250, (2, 150, 140)).astype(np.uint8)
        values = np.random.default_rng(number).integers(0, 3, (1, 150, 140)).astype(np.uint8)
        values[0, :5], values[0, 149, : 7 * number] = 200, 77
        where = {"transform": GRID * Affine.translation(900 * number, 0)}
        image = open_source(write_raster(tmp_path / f"{name}.tif", pixels, descriptions=("red", "green"), **where))
        labels = open_labels(str(write_raster(tmp_path / f"{name}_l.tif", values, **where)), image.geobox, table)
        samples.append(Sample(name, image, labels, (Window(0, 75, 0, 140),), (str(tmp_path / f"{name}.tif"),)))
    other = [replace(sample, areas=(Window(75, 150, 0, 140),)) for sample in samples]
    level, kind, text = only({"train": samples, "validate": other}, client)
    assert (level, kind) == ("error", "labels")
    assert text.splitlines()[1:] == ["200: 1,400 pixels, in a, b", "77: 7 pixels, in b"]


def test_unknown_values_of_other_labels_are_listed(client):
    parts = sound()
    labels = parts["train"][0].labels.values.copy()
    labels[0, :9] = 3
    parts["train"][0] = replace(parts["train"][0], labels=Given(labels))
    assert only(parts, client)[2].splitlines()[1:] == ["3: 9 pixels, in oslo"]


def test_what_cannot_be_read_is_found(client):
    parts = sound()
    parts["validate"].append(make_sample("lost", at=(9000, 0), labels=Gone()))
    assert only(parts, client) == ("error", "reading", "lost cannot be read: the disk is gone")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": np.full((150, 140), IGNORE, np.uint8)}, "train: no pixel is labelled in odd"),
        ({"valid": np.zeros((150, 140), bool)}, "train: no pixel is observed in odd"),
    ],
)
def test_samples_that_teach_nothing(client, changes, text):
    parts = sound()
    parts["train"].append(make_sample("odd", at=(9000, 0), **changes))
    level, kind, told = only(parts, client)
    assert (level, kind) == ("warning", "labels")
    assert told.startswith(text)


def test_masks_of_background_alone_are_noted(client):
    parts = sound()
    parts["train"].append(make_sample("plain", at=(9000, 0), labels=np.zeros((150, 140), np.uint8)))
    findings = check(parts, config(), client=client)
    assert severe(findings) == []
    assert "train: 1 of 4 samples hold nothing but 'ground': plain" in [f.text for f in findings]


def recoded(parts, part, change):
    parts[part] = [replace(s, labels=Given(change(s.labels.values).astype(np.uint8))) for s in parts[part]]
    return parts


def test_classes_that_are_never_seen(client):
    never = recoded(sound(), "train", lambda labels: np.minimum(labels, 1))
    assert only(never, client) == ("error", "classes", "train has no pixel of road")
    never = recoded(sound(), "validate", lambda labels: np.minimum(labels, 1))
    assert only(never, client) == ("warning", "classes", "validate has no pixel of road")


def test_one_class_alone(client):
    level, kind, text = only(recoded(sound(), "train", np.zeros_like), client)
    assert (level, kind) == ("error", "classes")
    assert text == "train holds only the class 'ground': nothing to tell apart"


def test_no_labels_at_all(client):
    found = severe(check(recoded(sound(), "train", lambda v: v * 0 + IGNORE), config(), client=client))
    assert ("error", "classes", "train has no labelled pixel") in found


def test_rare_classes(client):
    def rare(labels):
        changed = np.minimum(labels, 1)
        changed[0, :5] = 2
        return changed

    assert only(recoded(sound(), "train", rare), client)[2] == "train: road is rarer than 0.1 % of the pixels"


# bands and sizes


def test_bands_that_differ_in_number(client):
    parts = sound()
    parts["validate"] = [make_sample("grey", pixels=np.ones((1, 150, 140), np.uint8))]
    found = severe(check(parts, config(), client=client))
    assert found[0][:2] == ("error", "bands")
    assert "settings name 2 bands; samples with another number: grey (1)" in found[0][2]


def test_bands_in_another_order(client):
    parts = sound()
    parts["test"].append(make_sample("swapped", at=(9000, 0), names=("green", "red")))
    found = severe(check(parts, config(), client=client))
    assert [level for level, _, _ in found] == ["warning", "error"]
    assert "swapped: red from green, green from red, although their names say otherwise" in found[1][2]


def test_types_that_differ(client):
    parts = sound()
    parts["test"].append(make_sample("wide", at=(9000, 0), pixels=make_sample("w").source.array.values.astype("int16")))
    assert only(parts, client) == ("warning", "bands", "dtype of 1 of 6 samples: int16; of most: uint8 (wide)")


def test_bands_that_say_nothing(client):
    parts = sound()
    for sample in parts["train"]:
        sample.source.array[1] = 7
    assert only(parts, client)[2] == "the band green is 7 everywhere in train: nothing to learn from"


def test_chips_larger_than_scenes(client):
    level, kind, text = only(sound(), client, chips={"size": 141})
    assert (level, kind) == ("error", "size")
    assert text.startswith("a chip of 141 pixels is larger than the areas of oslo (140), bonn (140), rome (140)")
    assert severe(check(sound(), config(chips={"size": 140}), client=client)) == []
    noted = [f.text for f in check(sound(), config(chips={"size": 140, "zoom": [0.5, 2.0]}), client=client)]
    assert any("asks for 280 pixels, for which there is no room in oslo" in text for text in noted)


def test_resolutions(client):
    assert severe(check(sound(), config(resolution=[8.5, 12.0]), client=client)) == []
    assert "not of the 0.5 to 1 m" in only(sound(), client, resolution=[0.5, 1.0])[2]


def test_parts_without_samples(client):
    found = severe(check({"train": [], "validate": []}, config(), client=client))
    assert [level for level, _, _ in found] == ["error", "warning"]


# leaks


def test_one_file_in_two_parts(tmp_path, client):
    """Areas that overlap are found, also under another name; those that only touch are not."""
    pixels = np.random.default_rng(0).integers(1, 250, (2, 150, 140)).astype(np.uint8)
    image = open_source(write_raster(tmp_path / "a.tif", pixels, descriptions=("red", "green")))
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    linked = open_source(tmp_path / "link.tif")
    labels = Given(np.random.default_rng(0).integers(0, 3, (150, 140)).astype(np.uint8))
    first = Sample("a", image, labels, (Window(0, 75, 0, 140),))
    beside = Sample("a", image, labels, (Window(75, 150, 0, 140),))
    over = Sample("b", adjust(linked, 1.0, 0.0, "uint8"), labels, (Window(74, 150, 139, 140),))
    assert severe(check({"train": [first], "validate": [beside]}, config(), client=client)) == []
    level, kind, text = only({"train": [first], "validate": [over]}, client)
    assert (level, kind) == ("error", "leakage")
    assert text.startswith("pixels of a, b are in train and in validate too")


def test_arrays_in_two_parts(client):
    parts = sound()
    parts["validate"] = parts["train"][:1]
    assert only(parts, client)[2].startswith("pixels of oslo are in train and in validate too")


def test_copies_under_other_names(client):
    parts = sound()
    copied = replace(parts["train"][0], name="copy")
    moved = replace(copied.source, geobox=replace(copied.source.geobox, transform=GRID * Affine.translation(77777, 0)))
    parts["validate"].append(replace(copied, source=moved))
    level, kind, text = only(parts, client)
    assert (level, kind) == ("error", "leakage")
    assert text.startswith("copies of one image, by the pixels looked at: oslo (train), copy (validate)")
    parts = sound()
    parts["train"].append(replace(copied, source=moved))
    assert only(parts, client)[:2] == ("warning", "leakage")


def test_blank_scenes_are_no_copies(client):
    blank = [make_sample(f"blank{n}", at=(9000 + 999 * n, 0), pixels=np.zeros((2, 150, 140), np.uint8)) for n in (0, 1)]
    parts = sound()
    parts["train"].append(blank[0])
    parts["test"].append(blank[1])
    assert not [found for found in severe(check(parts, config(), client=client)) if found[1] == "leakage"]


def test_scenes_on_the_same_ground(client):
    parts = sound()
    parts["validate"].append(make_sample("later", at=(1070, 0)))  # half over bonn, which lies at 1000
    level, kind, text = only(parts, client)
    assert (level, kind) == ("warning", "leakage")
    assert "bonn and later (49%)" in text  # half a pixel is rounding


def test_parts_of_one_scene_are_noted(client):
    parts = sound()
    parts["train"].append(make_sample("town_tile_1", at=(9000, 0)))
    parts["test"].append(make_sample("town_tile_2", at=(9500, 0)))
    findings = check(parts, config(), client=client)
    assert severe(findings) == []
    assert any(
        f.text.startswith("train and test have parts of the same scenes, as names tell: town;") for f in findings
    )


# radiometry


def test_another_radiometry(client):
    parts = sound()
    sample = make_sample("bright", at=(9000, 0))
    parts["validate"].append(replace(sample, source=adjust(sample.source, 40.0, 0.0, "uint8")))
    found = severe(check(parts, config(), client=client))
    assert found == [("warning", "radiometry", found[0][2])]
    assert "bright (red: median 255, of most 99.5)" in found[0][2]


def test_half_of_a_set_with_another_gain(client):
    """Two halves, neither of which is most: large values must not hide what is far from the others."""
    samples = [make_sample(f"town{n}", at=(1000 * n, 0)) for n in range(6)]
    for sample in samples[3:]:
        values = sample.source.array.values.astype(np.uint16) * 100
        object.__setattr__(sample.source, "arrays", (sample.source.array.copy(data=values),))
    object.__setattr__(samples[0].source, "arrays", (samples[0].source.array.astype(np.uint16),))
    found = severe(check({"train": samples[:5], "validate": samples[5:]}, config(), client=client))
    assert "radiometry" in [kind for _, kind, _ in found]


def test_a_thumbnail_is_the_same_whatever_holds_the_pixels(tmp_path, client):
    """Strips or tiles, packed or not; and another band, shape or type is another image."""
    pixels = np.random.default_rng(0).integers(0, 250, (2, 300, 310)).astype(np.uint8)
    plain = write_raster(tmp_path / "a.tif", pixels)
    tiled = write_raster(tmp_path / "b.tif", pixels, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    sources = [open_source(plain), open_source(tiled), open_source(write_raster(tmp_path / "c.tif", changed))]
    sources.append(sources[0].select([2, 1]))
    seen = read_thumbnails([Sample(str(n), s, Gone(), (s.geobox.whole,)) for n, s in enumerate(sources)], client)
    assert seen[0].digest == seen[1].digest
    assert len({thumbnail.digest for thumbnail in seen}) == 3
    np.testing.assert_allclose(seen[0].median, np.median(pixels, axis=(1, 2)), atol=2)


# words


def test_errors_come_first_and_many_of_a_kind_are_cut():
    findings = [Finding("note", "size", "fine")] + [
        Finding("error", "labels", f"odd {n}") for n in range(MOST_ALIKE + 3)
    ]
    lines = describe(findings).splitlines()
    assert lines[0] == "error    odd 0"
    assert lines[MOST_ALIKE] == "error    and 3 more about labels"
    assert lines[-2:] == ["note     fine", f"{MOST_ALIKE + 3} errors, 1 note"]
    assert describe([]) == "nothing found"


# the sheet


def chip(size=64, value=100.0, bands=3):
    """Dark to the left and bright to the right; a building in the middle, ignored at the bottom."""
    pixels = np.tile(np.linspace(0, value, size, dtype=np.float32), (bands, size, 1))
    labels = np.zeros((size, size), np.int64)
    labels[size // 4 : size // 2, size // 4 : size // 2] = 1
    labels[-size // 8 :] = IGNORE
    return pixels, labels


def drawn(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_a_sheet_shows_each_chip_with_its_labels(tmp_path):
    """At 256 pixels a chip is drawn pixel for pixel: the image, and beside it the same with colours and stripes."""
    pixels, labels = chip(256)
    path = write_sheet([(pixels, labels)], CLASSES, tmp_path / "sheet.png", bands=["red", "green", "blue"])
    page = drawn(path)
    top, left = 17, 17  # a margin and a frame
    image, painted = page[top : top + 256, left : left + 256], page[top : top + 256, left + 260 : left + 516]
    assert image[100, 3].max() < 5
    assert image[100, 252].min() > 250
    np.testing.assert_allclose(image[10], painted[10], atol=1)  # background is not painted
    inside = painted[90, 100]
    assert abs(inside - (0.4 * image[90, 100] + 0.6 * np.array([0xE4, 0x57, 0x2E]))).max() < 3
    np.testing.assert_array_equal(painted[64, 64], [0xE4, 0x57, 0x2E])  # its outline
    stripes = painted[240:250, 50:200].reshape(-1, 3)
    assert set(map(tuple, stripes)) == {(158, 158, 158), (96, 96, 96)}
    assert not (np.ptp(image[240:250, 50:200], axis=(0, 1)) == 0).all()  # the image itself is not hidden


def test_torch_chips_and_gray_ones_are_drawn(tmp_path):
    import torch

    pixels, labels = chip(64, bands=1)
    path = write_sheet([(torch.from_numpy(pixels), torch.from_numpy(labels))] * 3, CLASSES[:2], tmp_path / "s.png")
    page = drawn(path)
    image = page[17 : 17 + 256, 17 : 17 + 256]
    np.testing.assert_array_equal(image[..., 0], image[..., 2])
    np.testing.assert_array_equal(image[:, ::4], image[:, 3::4])  # each pixel four times


def test_chips_are_stretched_alike(tmp_path):
    """A darker chip looks darker, and what is ignored does not make all others dark."""
    bright, dark = chip(256, 100.0), chip(256, 50.0)
    bright[0][:, -32:] = 60000  # under the ignored rows
    page = drawn(write_sheet([bright, dark], CLASSES, tmp_path / "s.png", columns=2))
    far = 17 + 2 * 256 + 4 + 16
    assert page[20, 17 + 250].min() > 240
    assert 100 < page[20, far + 250].max() < 150


def test_missing_values_and_equal_ones_are_drawn(tmp_path):
    pixels, labels = chip()
    pixels[:, :10] = np.nan
    pixels[2] = 5
    write_sheet([(pixels, labels)], CLASSES, tmp_path / "s.png")
    write_sheet([(pixels * np.nan, np.full_like(labels, IGNORE))], CLASSES, tmp_path / "t.png")


def test_only_so_many_chips_are_asked_for(tmp_path):
    """Chips may come without end."""

    def endless():
        while True:
            yield chip()

    one, two = (drawn(write_sheet(endless(), CLASSES, tmp_path / f"{n}.png", count=n, columns=1)) for n in (1, 2))
    assert two.shape[0] - one.shape[0] == 256 + 16


@pytest.mark.parametrize(
    ("bands", "places"),
    [
        (["nir", "Blue", "Green", "Red"], [3, 2, 1]),
        (["B02", "B03", "B04", "B08"], [2, 1, 0]),
        (["a", "b", "c", "d"], [0, 1, 2]),
        (["a", "b"], [0]),
        (["a"], [0]),
        ([], [0, 1, 2]),
    ],
)
def test_bands_are_picked_by_name(bands, places):
    assert rgb_places(bands) == places


def test_sheets_that_cannot_be_written(tmp_path):
    with pytest.raises(TrainingError, match="no chips"):
        write_sheet([], CLASSES, tmp_path / "s.png")
    with pytest.raises(StoreError, match=r"as \.png"):
        write_sheet([chip()], CLASSES, tmp_path / "s.jpg")
    (tmp_path / "s.png").write_bytes(b"mine")
    with pytest.raises(StoreError, match="exists"):
        write_sheet([chip()], CLASSES, tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes() == b"mine"
    assert write_sheet([chip()], CLASSES, tmp_path / "s.png", overwrite=True).stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def test_many_classes_have_room_in_the_legend(tmp_path):
    many = [ClassInfo(f"a class with a long name {n}", f"{n * 2654435761 % 2**24:06X}") for n in range(30)]
    few = drawn(write_sheet([chip()], CLASSES, tmp_path / "few.png"))
    page = drawn(write_sheet([chip()], many, tmp_path / "many.png"))
    assert page.shape[0] > few.shape[0] + 300
    assert (page[-16:] > 250).all()  # nothing is cut off below
    assert (page[:, -5:] > 250).all()


# real data


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
def test_real_tiles_have_nothing_wrong_but_an_unlabelled_one(client):
    """Landsat tiles of sea and of cloud: clouds are bright, and not taken for another radiometry."""
    from train.data.datasets import gather

    tiles = {
        "root": str(SHARED / "landsat8_redcross/tiles/A"), "image": "{name}_image.png", "label": "{name}_label.png",
        "values": {"0": "clear", "255": "cloud"}, "ignore": [128],
        "train": ["r0[0-3]_*"], "validate": ["r04_*"],
    }  # fmt: skip
    classes = [{"name": "clear", "color": "000000"}, {"name": "cloud", "color": "17BEBB"}]
    settings = settings_of({"name": "c", "bands": ["red", "green", "blue"], "classes": classes, "data": [tiles]})
    findings = check(gather(settings), settings, client=client)
    assert [text for _, _, text in severe(findings)] == [
        "train: no pixel is labelled in r01_c02; are the labels theirs?",
    ] + [text for _, kind, text in severe(findings) if kind == "parts"]
