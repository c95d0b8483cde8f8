"""Labels: codes mean what a slow loop says, windows are cuts of the whole, GDAL's own warps and drawings agree."""

import io
import os
import pickle
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pyogrio
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from helpers import GRID, SHARED, UTM, write_raster
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.warp import reproject

import train.data.vector_labels
from models.errors import SwatheError, TrainingError
from models.metadata import ClassInfo
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.scene import open_source
from train.config.schema import IGNORE
from train.data.classes import OTHERS, ClassTable, color_table, pack, read_colors, total, value_table
from train.data.labels import RasterLabels, open_labels
from train.data.remarks import count_remarks, describe_remarks
from train.data.samples import LabelSource, Sample
from train.data.statistics import compute_statistics, label_remarks

CLASSES = (ClassInfo("ground", "000000"), ClassInfo("roof", "E4572E"), ClassInfo("water", "0000FF"))
TWO = CLASSES[:2]
SIZE = 40, 50
CRS_UTM = rasterio.crs.CRS.from_string(UTM).to_wkt()
SCENE = GeoBox(*SIZE, GRID, CRS_UTM)
NOWHERE = GeoBox(*SIZE)


def by_windows(labels: LabelSource, geobox: GeoBox, tall: int, wide: int) -> np.ndarray:
    read = np.full(geobox.shape, 77, np.uint8)
    for window in geobox.whole.split(tall, wide):
        read[window.slices] = labels.read(window)
    return read


# codes


def slow(codes: np.ndarray, meant: dict, ignored: set, shown, valid: np.ndarray | None = None):
    """Decode pixel by pixel."""
    labels, unknown = np.full(codes.shape, IGNORE, np.uint8), Counter()
    for place in np.ndindex(codes.shape):
        code = codes[place]
        if valid is not None and not valid[place]:
            continue
        if code in meant:
            labels[place] = meant[code]
        elif code not in ignored and code == code:
            unknown[shown(code)] += 1
    return labels, dict(unknown)


@given(st.data())
def test_colours_are_decoded_as_by_a_loop(data):
    three = st.tuples(*[st.integers(0, 255)] * 3)
    colors = data.draw(st.lists(three, min_size=5, max_size=8, unique=True))
    picked = data.draw(hnp.arrays(np.int8, (7, 9), elements=st.integers(0, len(colors) - 1)))
    alpha = data.draw(st.none() | hnp.arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 1, 255])))
    shown = [bytes(color).hex().upper() for color in colors]
    table = color_table([ClassInfo(f"c{n}", shown[n]) for n in range(3)], ignore=[shown[3], "#" + shown[3].lower()])
    mask = np.moveaxis(np.array(colors, np.uint8)[picked], -1, 0)
    decoded = table.decode_colors(mask if alpha is None else np.concatenate([mask, alpha[None]]))
    expected = slow(picked, {n: n for n in range(3)}, {3}, lambda n: shown[n], None if alpha is None else alpha > 0)
    assert (decoded.labels == expected[0]).all()
    assert decoded.unknown == expected[1]


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32"])
@given(data=st.data())
def test_values_are_decoded_as_by_a_loop(dtype, data):
    odd = [0, 1, 2, 3, -1, 127, 128, 255, 256, 32767, 65535, 65536 * 256, 2**31 - 1, 2**31]
    kind = np.dtype(dtype)
    if kind.kind == "f":
        possible = [*map(float, odd[:-2]), 0.5, -0.25, float("nan"), float("inf")]
    else:
        possible = [v for v in odd if np.array(v).astype(kind) == v]
    codes = np.array(data.draw(st.lists(st.sampled_from(possible), min_size=12, max_size=12)), kind).reshape(3, 4)
    keys = data.draw(st.permutations(["0", "1", "-1", "128", "255", "65535", "2147483647"]))
    table = value_table(CLASSES, {keys[0]: "roof", keys[1]: "water", keys[2]: "roof"}, [int(keys[3])])
    meant = {int(keys[0]): 1, int(keys[1]): 2, int(keys[2]): 1}
    decoded = table.decode(codes)
    labels, unknown = slow(codes, meant, {int(keys[3])}, lambda v: f"{v:.15g}" if kind.kind == "f" else str(int(v)))
    assert (decoded.labels == labels).all()
    assert decoded.unknown == unknown


def test_millions_of_colours_are_counted_in_bounded_memory():
    codes = np.arange(200_000, dtype=np.uint32).reshape(200, 1000)
    table = color_table(TWO)
    unknown = table.decode(codes).unknown
    assert len(unknown) <= 1001
    assert sum(unknown.values()) == 199_999  # black is known
    added = total([unknown, {"ABCDEF": 7, OTHERS: 3}, table.decode(codes + np.uint32(300_000)).unknown])
    assert len(added) <= 2001
    assert sum(added.values()) == 199_999 + 10 + 200_000
    assert added["ABCDEF"] == 7


def test_a_published_table_is_read(tmp_path):
    path = tmp_path / "label_class_dict.csv"
    path.write_text("\ufeffname, r, g, b\nBackground,0,0,0\nRoof, 255,0,128\n", encoding="utf-8")
    assert read_colors(path) == {"000000": "Background", "FF0080": "Roof"}
    table = color_table(TWO, read_colors(path), {"Background": "ground"})  # case of Roof does not matter
    assert table.decode_colors(np.array([[[0, 255]], [[0, 0]], [[0, 128]]], np.uint8)).labels.tolist() == [[0, 1]]
    table = color_table(TWO, read_colors(path), {"FF0081": "roof"}, ["Background"])
    assert table.decode_colors(np.array([[[0, 255]], [[0, 0]], [[0, 129]]], np.uint8)).labels.tolist() == [[255, 1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,r,g,b\nroof,1,2,3\nroof,4,5,6\n", "line 3: the name 'roof' is there twice"),
        ("name,r,g,b\nroof,1,2,3\nwater,1,2,3\n", "line 3: the colour 010203 is there twice"),
        ("name,r,g,b\nroof,1,2,300\n", "line 2: give name,r,g,b"),
        ("name,r,g,b\nroof,1,2\n", "line 2: give name,r,g,b"),
        ("name,red,green,blue\nroof,1,2,3\n", "line 2: give name,r,g,b"),
        ("name,r,g,b\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(TrainingError, match=says):
        read_colors(tmp_path / "t.csv")
    with pytest.raises(TrainingError, match="cannot be read as a table"):
        read_colors(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: value_table(CLASSES, {"1": "rof"}), "'rof', which is no class; did you mean 'roof'"),
        (
            lambda: value_table(CLASSES, {"1": 3}),
            "value 1 stands for 3, which is no class; the classes are ground, roof, water",
        ),
        (lambda: value_table(CLASSES, {"1": "roof"}, [1]), "1 is both in values and in ignore"),
        (lambda: value_table((CLASSES[0], CLASSES[0])), "classes of one name: ground"),
        (lambda: color_table(TWO, {"000000": "sky"}), "colour 000000 stands for 'sky', which is no class"),
        (lambda: color_table(TWO, None, {"E4572E": "ground"}), "colour E4572E is both roof and ground"),
        (lambda: color_table(TWO, None, {"roofs": "roof"}), "'roofs' is no colour"),
        (lambda: color_table(TWO, None, {}, [128]), "'128' is no colour"),
        (lambda: color_table(TWO, {"000000": "ground"}, {"FF0000": "roof"}, ["FF0000"]), "both roof and in ignore"),
    ],
)
def test_tables_that_make_no_sense_are_refused(make, says):
    with pytest.raises(TrainingError, match=says):
        make()


# rasters on the scene's grid


def written(path: Path, values: np.ndarray, **profile) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return str(write_raster(path, values if values.ndim == 3 else values[None], **profile))


def made(seed: int = 0, classes: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size).astype(np.uint8)


def test_a_raster_on_the_grid_is_read_as_it_is(tmp_path):
    values = made()
    labels = open_labels(written(tmp_path / "l.tif", values), SCENE, value_table(CLASSES))
    assert isinstance(labels, RasterLabels)
    assert not labels.warped
    assert (by_windows(labels, SCENE, 7, 11) == values).all()


def test_unknown_values_are_listed_for_the_whole_file(tmp_path):
    values = made(classes=2)
    values[:3] = 255
    values[-1, :4] = 9
    path = written(tmp_path / "l.tif", values)
    labels = open_labels(path, SCENE, value_table(TWO))
    with pytest.raises(TrainingError) as refusal:
        labels.read(Window(0, 5, 0, 5))
    assert "255 (150 pixels), 9 (4 pixels)" in str(refusal.value)
    assert 'values = { "0" = "ground", "255" = "roof" }' in str(refusal.value)
    assert path in str(refusal.value)
    assert str(refusal.value).count("\n") == 1
    assert labels.unknown() == {"255": 150, "9": 4}
    assert (labels.read(Window(3, 20, 0, 50)) == values[3:20]).all()  # where all is known, all is well
    told = open_labels(path, SCENE, value_table(TWO, {"0": "ground", "1": "roof", "255": "roof"}, [9])).read(
        SCENE.whole
    )
    assert (told == np.where(values == 255, 1, np.where(values == 9, IGNORE, values))).all()


@pytest.mark.parametrize(("unlabelled", "outside"), [(None, IGNORE), ("ignore", IGNORE), ("background", 0)])
def test_nodata_and_masks_are_not_labelled(tmp_path, unlabelled, outside):
    values = made() + np.uint8(1)
    values[:5] = 9
    hidden = np.zeros(SIZE, bool)
    hidden[:, :6] = True
    table = value_table(CLASSES, {"1": "ground", "2": "roof", "3": "water"})
    expected = np.where(values == 9, outside, values - 1)
    with_nodata = written(tmp_path / "n.tif", values, nodata=9)
    assert (open_labels(with_nodata, SCENE, table, unlabelled=unlabelled).read(SCENE.whole) == expected).all()
    masked = written(tmp_path / "m.tif", values)
    with rasterio.open(masked, "r+") as file:
        file.write_mask(~hidden & (values != 9))
    expected = np.where(hidden, outside, expected)
    assert (open_labels(masked, SCENE, table, unlabelled=unlabelled).read(SCENE.whole) == expected).all()


def test_nodata_that_is_named_as_a_class_counts(tmp_path):
    values = made()
    path = written(tmp_path / "l.tif", values, nodata=0)
    plain = open_labels(path, SCENE, value_table(CLASSES)).read(SCENE.whole)
    assert (plain == values).all()
    some = open_labels(path, SCENE, value_table(CLASSES, {"1": "roof", "2": "water"})).read(SCENE.whole)
    assert (some == np.where(values == 0, IGNORE, values)).all()
    named = value_table(CLASSES, {"0": "ground", "1": "roof", "2": "water"})
    assert (open_labels(path, SCENE, named).read(SCENE.whole) == values).all()
    shifted = GeoBox(*SIZE, GRID * Affine.translation(3, 5), CRS_UTM)
    warped = open_labels(path, shifted, named).read(shifted.whole)
    assert (warped[:-5, :-3] == values[5:, 3:]).all()
    assert (warped[-5:] == IGNORE).all()


def test_labels_of_large_types_and_floats(tmp_path):
    values = made().astype(np.float32)
    values[0] = np.nan
    path = written(tmp_path / "f.tif", values)
    expected = np.where(np.isnan(values), IGNORE, np.nan_to_num(values))
    assert (open_labels(path, SCENE, value_table(CLASSES)).read(SCENE.whole) == expected).all()
    path = written(tmp_path / "i.tif", np.where(made() == 2, 70_000, made().astype(np.int32) - 1).astype(np.int32))
    table = value_table(CLASSES, {"0": "roof", "70000": "water"}, [-1])
    expected = np.array([IGNORE, 1, 2])[made()]
    assert (open_labels(path, SCENE, table).read(SCENE.whole) == expected).all()


def remarks(labels: LabelSource, scene: GeoBox = SCENE) -> dict[str, int]:
    """What is said of pixels, and of how many."""
    sample = Sample("s", open_source(xr.DataArray(np.zeros(scene.shape), dims=("y", "x"))), labels, (scene.whole,))
    found = count_remarks(sample)
    return {remark.text: count for remark, count in found.counts.items()}


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_class_value_wins_over_a_nodata_tag_and_both_are_told(tmp_path, dtype, shift):
    """Whatever value is tagged: where it is a class's the labels are those of the file without the tag."""
    values = made().astype(dtype)
    scene = GeoBox(*SIZE, GRID * Affine.translation(shift, 0), CRS_UTM)
    plain = open_labels(written(tmp_path / "plain.tif", values), scene, value_table(CLASSES)).read(scene.whole)
    for nodata in (0, 2):
        path = written(tmp_path / f"{nodata}.tif", values, nodata=nodata)
        for table in (value_table(CLASSES), value_table(CLASSES, {"0": "ground", "1": "roof", "2": "water"})):
            labels = open_labels(path, scene, table)
            assert (labels.read(scene.whole) == plain).all()
            text, count = next(iter(remarks(labels, scene).items()))
            assert text == (
                f"are {nodata}, which is nodata by the file's tag; it is the class {CLASSES[nodata].name!r}, and counts"
            )
            assert count == (plain == nodata).sum()
        without = value_table(CLASSES, {str(1): "roof", str(2 - nodata): "water"})  # it is no class's then
        labels = open_labels(path, scene, without)
        hidden = np.full(SIZE, True)
        hidden[:, : SIZE[1] - shift] = values[:, shift:] == nodata
        assert (labels.read(scene.whole) == IGNORE)[hidden].all()
        if not shift:
            said = {f"are {nodata}, which is nodata by the file's tag, and do not count": int(hidden.sum())}
            assert remarks(labels, scene) == said
        else:
            assert list(remarks(labels, scene).values()) == [hidden.sum()]


def test_masks_alpha_and_nan_over_labels_are_told(tmp_path):
    values, hidden = made(), np.zeros(SIZE, bool)
    hidden[:, :6] = True
    masked = written(tmp_path / "m.tif", values, nodata=0)
    with rasterio.open(masked, "r+") as file:
        file.write_mask(~hidden)
    labels = open_labels(masked, SCENE, value_table(CLASSES))
    assert (labels.read(SCENE.whole) == np.where(hidden, IGNORE, values)).all()
    assert remarks(labels) == {
        "are 0, which is nodata by the file's tag; it is the class 'ground', and counts": (values == 0)[~hidden].sum(),
        "are under the file's mask, and do not count": hidden.sum(),
    }
    grey = Image.fromarray(np.stack([values, np.where(hidden, 0, 255).astype(np.uint8)], -1), "LA")
    grey.save(tmp_path / "la.png")
    labels = open_labels(str(tmp_path / "la.png"), SCENE, value_table(CLASSES), unlabelled="background")
    assert (labels.read(SCENE.whole) == np.where(hidden, 0, values)).all()
    assert remarks(labels) == {"are transparent, and count as 'ground'": hidden.sum()}
    floats = np.where(hidden, np.nan, values).astype(np.float32)
    labels = open_labels(written(tmp_path / "f.tif", floats), SCENE, value_table(CLASSES))
    assert (labels.read(SCENE.whole) == np.where(hidden, IGNORE, values)).all()
    assert remarks(labels) == {"are NaN, and do not count": hidden.sum()}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_transparent_class_of_a_palette_or_of_grey_counts(tmp_path):
    """PNG says by transparency what GeoTIFF says by nodata, and GDAL takes it for that."""
    values = made(classes=2)
    picture = Image.fromarray(values, "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "p.png", transparency=0)
    Image.fromarray(values, "L").save(tmp_path / "l.png", transparency=0)
    rgb = np.array([info.rgb for info in TWO], np.uint8)[values]
    Image.fromarray(rgb, "RGB").save(tmp_path / "c.png", transparency=(0, 0, 0))
    for name, table in (("p", value_table(TWO)), ("l", value_table(TWO)), ("c", color_table(TWO))):
        labels = open_labels(str(tmp_path / f"{name}.png"), SCENE, table)
        with rasterio.open(tmp_path / f"{name}.png") as file:
            assert file.nodata == 0
        assert (labels.read(SCENE.whole) == values).all()
        assert [*remarks(labels).values()] == [(values == 0).sum()]


def test_scale_and_offset_of_labels_are_told(tmp_path):
    path = written(tmp_path / "l.tif", made())
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5,), (3.0,)
    labels = open_labels(path, SCENE, value_table(CLASSES))
    assert (labels.read(SCENE.whole) == made()).all()
    assert "scale of 0.5 and an offset of 3, which are not used" in labels.notes[0]


def test_what_is_said_of_many_files_is_said_once(tmp_path):
    samples = []
    for number in range(5):
        labels = open_labels(written(tmp_path / f"{number}.tif", made(number), nodata=0), SCENE, value_table(CLASSES))
        image = open_source(written(tmp_path / f"image{number}.tif", made() + np.uint8(1)))
        samples.append(Sample(f"s{number}", image, labels, (SCENE.whole,)))
    zeros = sum(int((made(number) == 0).sum()) for number in range(5))
    ((text, expected),) = describe_remarks(map(count_remarks, samples))
    assert text.startswith(f"labels of 5 samples (s0, s1, s2, ...): {zeros:,} pixels (3")
    assert expected
    assert label_remarks(samples, compute_statistics(samples, 3)) == [count_remarks(sample) for sample in samples]


# colours


def coloured(values: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.array([info.rgb for info in CLASSES], np.uint8)[values], -1, 0)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_masks_of_colours(tmp_path, ending):
    values = made()
    grid = {} if ending == "tif" else {"driver": "PNG", "crs": None, "transform": None}
    path = written(tmp_path / f"c.{ending}", coloured(values), photometric="RGB", **grid)
    labels = open_labels(path, SCENE, color_table(CLASSES))
    assert (by_windows(labels, SCENE, 13, 17) == values).all()
    some = color_table(CLASSES[:2])
    with pytest.raises(TrainingError, match=rf"colours that mean no class: 0000FF \({(values == 2).sum()} pixels\)"):
        open_labels(path, SCENE, some).read(SCENE.whole)
    with pytest.raises(TrainingError, match="3 bands that differ: so they are colours"):
        open_labels(path, SCENE, value_table(CLASSES)).read(SCENE.whole)


def test_alpha_of_a_mask_is_where_it_is_labelled(tmp_path):
    values, alpha = made(), np.full(SIZE, 255, np.uint8)
    alpha[:9] = 0
    strange = coloured(values)
    strange[:, :9] = 17  # colours that nobody sees are not unknown
    path = written(tmp_path / "a.tif", np.concatenate([strange, alpha[None]]), photometric="RGB", alpha="YES")
    labels = open_labels(path, SCENE, color_table(CLASSES)).read(SCENE.whole)
    assert (labels == np.where(alpha == 0, IGNORE, values)).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_palettes_are_indices_or_colours(tmp_path):
    values = made()
    path = str(tmp_path / "p.png")
    with rasterio.open(path, "w", driver="PNG", height=SIZE[0], width=SIZE[1], count=1, dtype="uint8") as file:
        file.write_colormap(1, {n: (*info.rgb, 255) for n, info in enumerate([CLASSES[1], CLASSES[0], CLASSES[2]])})
        file.write(values[None])
    with rasterio.open(path) as file:
        assert file.colorinterp[0] == ColorInterp.palette
    by_color = np.array([1, 0, 2], np.uint8)[values]
    assert (open_labels(path, SCENE, value_table(CLASSES, palettes=False)).read(SCENE.whole) == values).all()
    for table in (color_table(CLASSES), value_table(CLASSES)):
        assert (open_labels(path, SCENE, table).read(SCENE.whole) == by_color).all()
    assert "read by colour" in open_labels(path, SCENE, value_table(CLASSES)).notes[0]
    with pytest.raises(TrainingError) as refusal:
        open_labels(path, SCENE, value_table(CLASSES, {"0": "ground", "1": "roof"}))
    assert "value 0 has the colour E4572E of 'roof'; by the classes, 0 is 'ground'.\nSay" in str(refusal.value)


GREYS = {n: (n, n, n) for n in range(256)}
OWN = {n: info.rgb for n, info in enumerate(CLASSES)}
MIXED = {0: CLASSES[2].rgb, 1: CLASSES[0].rgb, 2: CLASSES[1].rgb}


@pytest.mark.parametrize("ending", ["tif", "png"])
@pytest.mark.parametrize(
    ("palette", "by_color", "says"),
    [
        (OWN, {}, ""),
        (MIXED, {0: 2, 1: 0, 2: 1}, "read by colour"),
        ({0: CLASSES[1].rgb, 1: CLASSES[0].rgb}, {0: 1, 1: 0}, "read by colour"),  # a file without the third class
        ({0: CLASSES[1].rgb}, {0: 1}, "read by colour"),
        (GREYS, {}, "none of the classes' colours"),
        ({0: (9, 8, 7), 1: (70, 0, 0), 2: (0, 70, 0)}, {}, "read by value"),
        ({0: (0, 0, 0), 1: (255, 255, 255), 2: (1, 2, 3)}, {}, "other colours too"),
        ({**MIXED, 3: (1, 2, 3)}, None, "value 0 has the colour 0000FF of 'water'; by the classes, 0 is 'ground'"),
        ({0: (255, 255, 255), 1: (0, 0, 0)}, None, "value 1 has the colour 000000 of 'ground'; by the classes, 1 is"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_palettes_decide_only_where_they_are_the_classes_own(tmp_path, ending, palette, by_color, says):
    values = made(classes=min(3, len(palette)))
    path = str(tmp_path / f"p.{ending}")
    driver = {"tif": "GTiff", "png": "PNG"}[ending]  # a TIFF's palette has 256 colours, black at the end
    with rasterio.open(path, "w", driver=driver, height=SIZE[0], width=SIZE[1], count=1, dtype="uint8") as file:
        file.write_colormap(1, {n: (*color, 255) for n, color in palette.items()})
        file.write(values[None])
    if by_color is None:
        with pytest.raises(TrainingError) as refusal:
            open_labels(path, SCENE, value_table(CLASSES))
        assert says in str(refusal.value)
        assert str(refusal.value).count("\n") == 1
        return
    labels = open_labels(path, SCENE, value_table(CLASSES))
    expected = np.array([by_color.get(n, n) for n in range(3)], np.uint8)[values]
    assert (labels.read(SCENE.whole) == expected).all()
    assert says in " ".join(labels.notes)
    assert bool(labels.notes) == bool(says)
    plain = open_labels(path, SCENE, value_table(CLASSES, palettes=False))
    assert (plain.read(SCENE.whole) == values).all()
    assert plain.notes == ()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_indices_that_are_ignored_stay_so_where_colours_decide(tmp_path):
    values = np.where(made() == 2, 7, made()).astype(np.uint8)
    with rasterio.open(tmp_path / "p.png", "w", driver="PNG", height=40, width=50, count=1, dtype="uint8") as file:
        file.write_colormap(1, {0: (*CLASSES[1].rgb, 255), 1: (*CLASSES[0].rgb, 255), 7: (5, 5, 5, 255)})
        file.write(values[None])
    table = value_table(CLASSES, None, [*range(2, 8)])
    read = open_labels(str(tmp_path / "p.png"), SCENE, table).read(SCENE.whole)
    assert (read == np.select([values == 0, values == 1], [1, 0], IGNORE)).all()


def test_masks_of_one_bit_are_black_and_white(tmp_path):
    values = made(classes=2)
    Image.fromarray(values > 0).save(tmp_path / "b.png")
    for table in (value_table(TWO), color_table(TWO, {"000000": "ground", "FFFFFF": "roof"})):
        assert (open_labels(str(tmp_path / "b.png"), SCENE, table).read(SCENE.whole) == values).all()


def test_grey_masks_in_three_bands_and_black_and_white_ones(tmp_path):
    values = made(classes=2)
    grey = np.repeat(values[None] * np.uint8(255), 3, axis=0)
    table = value_table(TWO, {"0": "ground", "255": "roof"})
    black_and_white = color_table(TWO, {"000000": "ground", "FFFFFF": "roof"})
    three = written(tmp_path / "three.tif", grey, photometric="RGB")
    one = written(tmp_path / "one.tif", grey[:1])
    for path in (three, one):
        for meant in (table, black_and_white):
            assert (open_labels(path, SCENE, meant).read(SCENE.whole) == values).all()


@pytest.mark.parametrize("colour", [True, False])
def test_jpeg_is_refused(tmp_path, colour):
    values = coloured(made()) if colour else made()[None] * np.uint8(80)
    for name, profile in (
        ("l.jpg", {"driver": "JPEG", "crs": None, "transform": None}),
        ("l.tif", {"compress": "JPEG"}),
        ("l.webp", {"driver": "WEBP", "crs": None, "transform": None, "quality": 50}),
    ):
        if name == "l.webp" and not colour:
            continue
        path = written(tmp_path / name, values, **profile)
        for aux in tmp_path.glob("*.aux.xml"):
            aux.unlink()
        with pytest.raises(TrainingError, match="compressed with loss"):
            open_labels(path, SCENE, color_table(CLASSES) if colour else value_table(CLASSES))
    sound = written(tmp_path / "j.jp2", values, driver="JP2OpenJPEG", REVERSIBLE="YES", QUALITY="100")
    assert open_labels(sound, SCENE, color_table(CLASSES) if colour else value_table(CLASSES))


def test_masks_that_were_once_a_jpeg_are_told_from_others(tmp_path):
    values = np.zeros(SIZE, np.uint8)
    values[10:30, 10:40], values[30:] = 1, 2
    smeared = np.moveaxis(np.asarray(_through_jpeg(np.moveaxis(coloured(values), 0, -1))), -1, 0)
    path = written(tmp_path / "s.tif", smeared, photometric="RGB")
    with pytest.raises(TrainingError, match="most are nearly a class's colour") as refusal:
        open_labels(path, SCENE, color_table(CLASSES)).read(SCENE.whole)
    assert str(refusal.value).count("\n") == 1
    with pytest.raises(TrainingError) as other:
        open_labels(written(tmp_path / "o.tif", coloured(made()), photometric="RGB"), SCENE, color_table(TWO)).read(
            SCENE.whole
        )
    assert "JPEG" not in str(other.value)


def _through_jpeg(rgb: np.ndarray) -> Image.Image:
    content = io.BytesIO()
    Image.fromarray(rgb).resize((50, 40)).save(content, "JPEG", quality=97, subsampling=0)
    return Image.open(content)


def test_bands_that_no_mask_has_are_refused(tmp_path):
    two = written(tmp_path / "two.tif", np.stack([made(), made()]))
    with pytest.raises(TrainingError, match="has 2 bands; labels have one, or three"):
        open_labels(two, SCENE, value_table(CLASSES))
    wide = written(tmp_path / "wide.tif", made().astype(np.uint16))
    with pytest.raises(TrainingError, match="uint16 values; masks that are coded with colours are uint8"):
        open_labels(wide, SCENE, color_table(CLASSES))
    with pytest.raises(TrainingError, match="attribute, burn, layer and width are for vector labels"):
        open_labels(wide, SCENE, value_table(CLASSES), burn="roof")


# other grids


def test_labels_without_crs_need_the_scenes_size(tmp_path):
    path = written(tmp_path / "l.tif", made(), crs=None, transform=None)
    for scene in (SCENE, NOWHERE):
        assert (open_labels(path, scene, value_table(CLASSES)).read(scene.whole) == made()).all()
    with pytest.raises(TrainingError, match=r"not aligned with its image: labels 40 x 50 pixels, image 41 x 50"):
        open_labels(path, GeoBox(41, 50, GRID, CRS_UTM), value_table(CLASSES))
    placed = written(tmp_path / "p.tif", made())
    assert (open_labels(placed, NOWHERE, value_table(CLASSES)).read(NOWHERE.whole) == made()).all()
    with pytest.raises(TrainingError, match=r"not aligned with its image: labels 40 x 50 pixels, image 40 x 49"):
        open_labels(placed, GeoBox(40, 49), value_table(CLASSES))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, GRID * Affine.translation(50, 0)),
        (UTM, GRID * Affine.translation(0, 1e5)),
        ("EPSG:4326", Affine(1e-4, 0, -70, 0, -1e-4, 10)),
    ],
)
def test_labels_that_lie_elsewhere_are_refused(tmp_path, crs, transform):
    path = written(tmp_path / "l.tif", made(), crs=crs, transform=transform)
    with pytest.raises(TrainingError, match="lies elsewhere than its image"):
        open_labels(path, SCENE, value_table(CLASSES))


def opened_unless_elsewhere(path: str, table: ClassTable, *, there: bool, **options) -> LabelSource | None:
    """Open labels; None where they are refused since they lie elsewhere, which is wrong if they do not."""
    refusal = nullcontext() if there else suppress(TrainingError)
    with refusal:
        return open_labels(path, SCENE, table, **options)
    return None


LABEL_GRIDS = {  # CRS, and the size of about ten metres in it
    UTM: 10.0,
    "EPSG:32735": 10.0,
    "EPSG:4326": 9e-5,
    "EPSG:3857": 10.0,
}


def source_places(scene: GeoBox, crs: str, transform: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, not whole, of the scene's pixel centres in another grid: by pyproj, pixel for pixel."""
    columns, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
    x, y = scene.affine * (columns, rows)
    there = Transformer.from_crs(scene.crs, crs, always_xy=True)
    return ~transform * there.transform(x, y)


@settings(max_examples=25)
@given(
    crs=st.sampled_from(sorted(LABEL_GRIDS)),
    scale=st.sampled_from([0.31, 1.0, 2.7]),
    turn=st.sampled_from([0.0, 0.0, 8.0, 180.0]),
    shift=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    size=st.tuples(st.integers(60, 150), st.integers(60, 150)),
    tall=st.integers(7, 40),
    wide=st.integers(7, 50),
    nodata=st.sampled_from([None, 3]),
)
@example("EPSG:4326", 1.0, 0.0, (0, 0), (80, 90), 7, 9, None)
def test_warped_windows_are_cuts_of_the_whole_warped(tmp_path, crs, scale, turn, shift, size, tall, wide, nodata):
    centre = Transformer.from_crs(UTM, crs, always_xy=True).transform(*(GRID * (25, 20)))
    step = LABEL_GRIDS[crs] * scale
    transform = (
        Affine.translation(*centre)
        * Affine.rotation(turn)
        * Affine.scale(step, -step)
        * Affine.translation(-size[1] / 2 + shift[0] + 0.123, -size[0] / 2 + shift[1] + 0.321)
    )
    values = made(1, 4, size)
    path = written(tmp_path / "l.tif", values, crs=crs, transform=transform, nodata=nodata)
    named = None if nodata is None else {str(place): info.name for place, info in enumerate(CLASSES)}
    table = value_table((*CLASSES, ClassInfo("sand", "FFFF00")), named)  # where 3 is nodata, it is no class
    columns, rows = source_places(SCENE, crs, transform)
    inside = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    labels = opened_unless_elsewhere(path, table, there=bool(inside.any()))
    if labels is None:
        return
    read = by_windows(labels, SCENE, tall, wide)
    assert (read == labels.read(SCENE.whole)).all()

    gdal = np.full(SIZE, -1, np.int16)
    with rasterio.open(path) as file:
        reproject(rasterio.band(file, 1), gdal, dst_transform=GRID, dst_crs=UTM, dst_nodata=-1)
    edge = np.minimum(np.abs(columns - np.round(columns)), np.abs(rows - np.round(rows)))
    assert (read == np.where(gdal < 0, IGNORE, gdal))[edge > 0.13].all()  # rasterio's reproject is that exact
    found = values[np.clip(rows, 0, size[0] - 1).astype(int), np.clip(columns, 0, size[1] - 1).astype(int)]
    slow_way = np.where(inside & (found != (99 if nodata is None else nodata)), found, IGNORE)
    assert (read == slow_way)[edge > 1e-5].all()


def test_warped_masks_of_colours_and_palettes(tmp_path):
    values = made()
    shifted = GeoBox(*SIZE, GRID * Affine.translation(4, 2), CRS_UTM)
    expected = np.full(SIZE, IGNORE, np.uint8)
    expected[:-2, :-4] = values[2:, 4:]
    alpha = np.full((1, *SIZE), 255, np.uint8)
    alpha[:, 20:30] = 0
    rgb = written(tmp_path / "c.tif", coloured(values), photometric="RGB")
    rgba = written(tmp_path / "a.tif", np.concatenate([coloured(values), alpha]), photometric="RGB", alpha="YES")
    table = color_table(CLASSES)
    assert (by_windows(open_labels(rgb, shifted, table), shifted, 9, 31) == expected).all()
    expected[18:28] = IGNORE
    assert (open_labels(rgba, shifted, table).read(shifted.whole) == expected).all()


def test_labels_go_to_other_processes_and_threads(tmp_path):
    values = made(size=(300, 400))
    scene = GeoBox(300, 400, GRID, CRS_UTM)
    straight = open_labels(written(tmp_path / "l.tif", values), scene, value_table(CLASSES))
    east, north = Transformer.from_crs(UTM, "EPSG:32735", always_xy=True).transform(500_000, 9_000_000)
    other = written(tmp_path / "o.tif", values, crs="EPSG:32735", transform=Affine(10, 0, east, 0, -10, north))
    warped = open_labels(other, scene, value_table(CLASSES))
    polygons = frame([shapely.box(2, 3, 90, 80), shapely.box(50, 50, 390, 290)])
    drawn = open_labels(saved(polygons, tmp_path / "v.parquet"), scene, value_table(TWO))
    for labels in (straight, warped, drawn):
        copy = pickle.loads(pickle.dumps(labels))
        assert len(pickle.dumps(labels)) < 20_000
        cuts = [*scene.whole.split(50, 60)] * 2
        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(copy.read, cuts))
        expected = labels.read(scene.whole)
        assert all((one == expected[cut.slices]).all() for one, cut in zip(read, cuts, strict=True))


# vectors


def frame(shapes: list, crs: str | None = UTM, **columns) -> geopandas.GeoDataFrame:
    """Polygons given in pixels of the scene."""
    placed = [shapely.transform(shape, lambda xy: np.stack(GRID * (xy[:, 0], xy[:, 1]), 1)) for shape in shapes]
    return geopandas.GeoDataFrame({**columns, "geometry": placed}, geometry="geometry", crs=crs)


def saved(polygons: geopandas.GeoDataFrame, path: Path) -> str:
    if path.suffix == ".parquet":
        polygons.to_parquet(path)
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            polygons.to_file(path, engine="pyogrio")
    return str(path)


def hull(points: list[tuple[float, float]]) -> shapely.Geometry:
    return shapely.convex_hull(shapely.MultiPoint(points))


quarters = st.integers(-40, 240).map(lambda n: n / 4)
polygons = st.lists(
    st.lists(st.tuples(quarters, quarters), min_size=3, max_size=7).map(hull).filter(lambda shape: shape.area > 0),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("few", [0, 200])  # vertices of polygons that are drawn as they are
@settings(max_examples=10)
@given(shapes=polygons, data=st.data(), tall=st.integers(7, 40), wide=st.integers(7, 50))
def test_drawn_windows_are_cuts_of_the_whole_drawn(tmp_path, monkeypatch, few, shapes, data, tall, wide):
    monkeypatch.setattr(train.data.vector_labels, "FEW", few)
    kinds = data.draw(st.lists(st.sampled_from(["roof", "water", "?"]), min_size=len(shapes), max_size=len(shapes)))
    outside = data.draw(st.sampled_from(["background", "ignore", None]))
    made_of = frame(shapes, kind=kinds)
    path = saved(made_of, tmp_path / f"{data.draw(st.integers(0, 10**9))}.parquet")
    table = value_table(CLASSES, None, ["?"])
    there = shapely.box(0, 0, 50, 40).intersects(shapely.union_all(shapes))
    labels = opened_unless_elsewhere(path, table, there=bool(there), attribute="kind", unlabelled=outside)
    if labels is None:
        return
    value = {"roof": 1, "water": 2, "?": IGNORE}
    pairs = [(shape, value[kind]) for shape, kind in zip(made_of.geometry, kinds, strict=True)]
    fill = IGNORE if outside == "ignore" else 0
    expected = rasterize(pairs, SIZE, fill=fill, transform=GRID, dtype="uint8")  # in map coordinates, all at once
    assert (by_windows(labels, SCENE, tall, wide) == expected).all()


@pytest.mark.parametrize("seed", range(6))
def test_polygons_of_many_vertices_are_drawn_as_a_whole(tmp_path, seed):
    random = np.random.default_rng(seed)
    scene = GeoBox(150, 200, GRID, CRS_UTM)

    def star(x: float, y: float, radius: float) -> shapely.Geometry:
        angles = np.sort(random.uniform(0, 2 * np.pi, 700))
        lengths = radius * random.uniform(0.3, 1, 700)
        return shapely.Polygon(np.stack([x + lengths * np.cos(angles), y + lengths * np.sin(angles)], 1))

    ring = star(100, 75, 110).difference(star(110, 70, 30))
    both = shapely.union_all([star(20, 20, 60), star(190, 140, 50)])
    polygons = frame([ring, both], kind=["roof", "water"])
    labels = open_labels(saved(polygons, tmp_path / "v.parquet"), scene, value_table(CLASSES), attribute="kind")
    pairs = zip(polygons.geometry, (1, 2), strict=True)
    expected = rasterize(pairs, scene.shape, transform=GRID, dtype="uint8")
    assert set(np.unique(expected)) == {0, 1, 2}
    for tall, wide in ((11, 13), (60, 200), (150, 30)):
        assert (by_windows(labels, scene, tall, wide) == expected).all()


@pytest.mark.parametrize("name", ["v.geojson", "v.gpkg", "v.shp", "v.fgb", "v.parquet"])
def test_vector_formats(tmp_path, name):
    shapes = [shapely.box(1, 2, 9, 8), shapely.box(20, 20, 30, 35)]
    degrees = frame(shapes, kind=["roof", "water"]).to_crs(4326)
    path = saved(degrees, tmp_path / name)
    labels = open_labels(path, SCENE, value_table(CLASSES), attribute="kind")
    expected = np.zeros(SIZE, np.uint8)
    expected[2:8, 1:9], expected[20:35, 20:30] = 1, 2
    assert (labels.read(SCENE.whole) == expected).all()
    assert (open_labels(path, SCENE, value_table(CLASSES), burn="water").read(SCENE.whole) == 2 * (expected > 0)).all()
    assert (open_labels(path, SCENE, value_table(TWO)).read(SCENE.whole) == (expected > 0)).all()


def test_attributes_may_be_numbers_and_missing(tmp_path):
    shapes = [shapely.box(1, 2, 9, 8), shapely.box(20, 20, 30, 35), shapely.box(40, 0, 42, 2)]
    path = saved(frame(shapes, code=[6201.0, 2.0, None]), tmp_path / "v.gpkg")
    table = value_table(CLASSES, {"6201": "roof", "2": "water"}, [""])
    read = open_labels(path, SCENE, table, attribute="code").read(SCENE.whole)
    assert [read[3, 3], read[25, 25], read[1, 41], read[39, 49]] == [1, 2, IGNORE, 0]
    with pytest.raises(TrainingError, match=r"column 'code' holds what means no class: '6201' \(1 polygon\), '' \(1 p"):
        open_labels(path, SCENE, value_table(CLASSES), attribute="code")


def test_a_file_without_polygons_is_all_background(tmp_path):
    path = tmp_path / "v.geojson"
    path.write_text('{"type": "FeatureCollection", "features": []}')
    assert (open_labels(str(path), SCENE, value_table(TWO)).read(Window(3, 9, 4, 8)) == 0).all()


def test_later_polygons_lie_on_top(tmp_path):
    shapes = [shapely.box(0, 0, 20, 20), shapely.box(10, 10, 30, 30), shapely.box(12, 12, 15, 15)]
    path = saved(frame(shapes, kind=["roof", "water", "roof"]), tmp_path / "v.gpkg")
    read = open_labels(path, SCENE, value_table(CLASSES), attribute="kind").read(Window(10, 40, 10, 50))
    assert [read[0, 0], read[3, 3], read[6, 6], read[25, 25]] == [2, 1, 2, 0]


def test_a_large_file_is_cut_to_the_scene(tmp_path):
    far = [shapely.box(x, 60, x + 1, 61) for x in range(60, 1060)]
    path = saved(frame([*far, shapely.box(3, 3, 9, 9)]), tmp_path / "v.parquet")
    labels = open_labels(path, SCENE, value_table(TWO))
    expected = np.zeros(SIZE, np.uint8)
    expected[3:9, 3:9] = 1
    assert (labels.read(SCENE.whole) == expected).all()


def refused_vectors(folder: Path, polygons: geopandas.GeoDataFrame, says: str, **options) -> None:
    path = saved(polygons, folder / "v.gpkg")
    with pytest.raises(SwatheError, match=says) as refusal:
        open_labels(path, options.pop("scene", SCENE), value_table(CLASSES), **options).read(Window(0, 9, 0, 9))
    assert isinstance(refusal.value, TrainingError)
    assert "v.gpkg" in str(refusal.value)
    assert "zone" not in str(refusal.value)
    assert str(refusal.value).count("\n") <= 1


@pytest.mark.parametrize(
    ("shape", "options", "says"),
    [
        (shapely.box(0, 0, 9, 9), {}, "of which class. Give attribute .one of: kind., or burn"),
        (shapely.box(0, 0, 9, 9), {"attribute": "knd"}, "no column 'knd'; it has: kind"),
        (shapely.box(0, 0, 9, 9), {"attribute": "kind"}, r"'Roofs' \(1 polygon\)"),
        (shapely.box(0, 0, 9, 9), {"attribute": "kind", "burn": "roof"}, "give one of them"),
        (shapely.box(0, 0, 9, 9), {"burn": "roof", "scene": NOWHERE}, "image has no CRS"),
        (shapely.box(500, 500, 900, 900), {"burn": "roof"}, "lies elsewhere than its image"),
        (shapely.LineString([(0, 0), (9, 9)]), {"burn": "roof"}, "labels are polygons; received a LineString"),
    ],
)
def test_vectors_that_cannot_be_labels_are_refused(tmp_path, shape, options, says):
    refused_vectors(tmp_path, frame([shape], kind=["Roofs"]), says, **options)


def test_odd_vector_files_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="burn is 'rof', which is no class"):
        open_labels(saved(frame([shapely.box(0, 0, 9, 9)]), tmp_path / "a.gpkg"), SCENE, value_table(TWO), burn="rof")
    lost = saved(frame([shapely.box(0, 0, 9, 9)], crs=None), tmp_path / "b.shp")
    with pytest.raises(TrainingError, match="the labels have no CRS"):
        open_labels(lost, SCENE, value_table(TWO)).read(Window(0, 9, 0, 9))
    both = tmp_path / "c.gpkg"
    for layer in ("one", "two"):
        frame([shapely.box(0, 0, 9, 9)]).to_file(both, layer=layer, engine="pyogrio")
    with pytest.raises(TrainingError, match="has the layers one, two; choose one by layer"):
        open_labels(str(both), SCENE, value_table(TWO))
    (tmp_path / "d.geojson").write_text("{")
    for name in ("d.geojson", "e.geojson", "e.parquet"):
        with pytest.raises(TrainingError, match=name):
            open_labels(str(tmp_path / name), SCENE, value_table(TWO))


# lines, points, collections, layers, odd polygons


def centres(scene: GeoBox, shape: shapely.Geometry) -> np.ndarray:
    """How far each pixel's centre lies from a shape, in pixels `(y, x)`."""
    columns, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
    return shapely.distance(shapely.points(columns, rows), shape)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857"])
@pytest.mark.parametrize(("width", "pixels"), [("3 px", 3.0), (50, 5.0), ("35 m", 3.5), ("21.5", 2.15)])
def test_lines_and_points_are_drawn_with_a_width_on_the_ground(tmp_path, crs, width, pixels):
    """Whatever the CRS of the file: Mercator's metres are no metres on the ground."""
    line, point = shapely.LineString([(5, 7.5), (30, 20), (44, 11)]), shapely.Point(12, 32)
    path = saved(frame([line, point], kind=["roof", "water"]).to_crs(crs), tmp_path / "v.gpkg")
    table = value_table(CLASSES)
    labels = open_labels(path, SCENE, table, attribute="kind", width=width)
    read = by_windows(labels, SCENE, 13, 17)
    for value, shape in ((1, line), (2, point)):
        distance = centres(SCENE, shape)
        clear = np.abs(distance - pixels / 2) > 0.02  # pixels; UTM's scale is 0.9996
        assert ((read == value) == (distance < pixels / 2))[clear].all()
    assert labels.notes == (f"2 lines or points are drawn {width if width != 50 else '50 m'} wide".replace(
        " px", " pixels").replace("21.5 w", "21.5 m w"),)  # fmt: skip


def test_lines_without_a_width_are_refused_and_so_are_odd_widths(tmp_path):
    path = saved(frame([shapely.LineString([(0, 0), (9, 9)])] * 3), tmp_path / "v.gpkg")
    with pytest.raises(TrainingError, match=r"received a LineString, and 3 such rows. Say how wide .* width = 6"):
        open_labels(path, SCENE, value_table(TWO)).read(SCENE.whole)
    for width in ("wide", "0", "-3", "3 feet"):
        with pytest.raises(TrainingError, match="must be a number of metres or pixels above 0"):
            open_labels(path, SCENE, value_table(TWO), width=width)


def test_collections_give_their_polygons_and_with_a_width_their_lines(tmp_path):
    box, line = shapely.box(3, 3, 9, 8), shapely.LineString([(20, 10.5), (40, 10.5)])
    inner = shapely.GeometryCollection([shapely.box(30, 20, 35, 26)])
    mixed = shapely.GeometryCollection([box, line, inner])
    path = tmp_path / "v.geojson"
    saved(frame([mixed]).to_crs(4326), path)
    only = np.zeros(SIZE, np.uint8)
    only[3:8, 3:9] = only[20:26, 30:35] = 1
    labels = open_labels(str(path), SCENE, value_table(TWO))
    assert (labels.read(SCENE.whole) == only).all()
    assert labels.notes == ("of 1 label in collections only the polygons are taken, not 1 lines or points",)
    labels = open_labels(str(path), SCENE, value_table(TWO), width="2.8 px")
    only[9:12, 20:40] = 1
    both = labels.read(SCENE.whole)
    assert (both == only)[:, list(range(19)) + list(range(21, 39))].all()  # but for the line's round ends
    assert [both[10, 19], both[10, 18], both[8, 25], both[12, 25]] == [1, 0, 0, 0]


def test_layers_are_chosen_by_name_and_tables_of_styles_are_none(tmp_path):
    path = tmp_path / "v.gpkg"
    one, two = frame([shapely.box(0, 0, 9, 9)]), frame([shapely.box(20, 20, 30, 30)])
    one.to_file(path, layer="roofs", engine="pyogrio")
    pandas.DataFrame({"styleName": ["x"]}).pipe(pyogrio.write_dataframe, path, layer="layer_styles", append=True)
    assert open_labels(str(path), SCENE, value_table(TWO)).read(SCENE.whole).sum() == 81
    two.to_file(path, layer="wells", engine="pyogrio")
    with pytest.raises(TrainingError, match="has the layers roofs, wells; choose one by layer"):
        open_labels(str(path), SCENE, value_table(TWO))
    with pytest.raises(TrainingError, match="has no layer 'well'; it has: roofs, wells"):
        open_labels(str(path), SCENE, value_table(TWO), layer="well")
    for layer, count in (("roofs", 81), ("wells", 100)):
        assert open_labels(str(path), SCENE, value_table(TWO), layer=layer).read(SCENE.whole).sum() == count


def test_heights_broken_and_missing_shapes_of_labels(tmp_path):
    high = shapely.force_3d(shapely.box(0, 0, 9, 9), 12.5)
    bow = shapely.Polygon([(20, 20), (30, 30), (30, 20), (20, 30)])
    polygons = frame([high, bow], n=[1, 2])
    polygons.loc[2] = [3, None]
    labels = open_labels(saved(polygons.to_crs(4326), tmp_path / "v.gpkg"), SCENE, value_table(TWO))
    read = labels.read(SCENE.whole)
    assert read[:9, :9].all()
    assert [read[25, 21], read[25, 29], read[21, 25], read[29, 25]] == [1, 1, 0, 0]
    assert read.sum() == pytest.approx(81 + 50, abs=12)
    assert sorted(labels.notes) == [
        "1 label with an invalid geometry mended (row 1)",
        "1 of its 3 rows have no geometry, and label nothing",
    ]


# names of files that look like addresses


ODD_NAMES = ["a?b", "a#b", "a%20b", "a b&c=d", "ä ö 空", "a[1]", "a:b", "http", "a'b"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_of_files_are_no_addresses(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    values = made()
    scene = GeoBox(*SIZE, GRID * Affine.translation(2, 0), CRS_UTM)
    path = written(folder / f"{name}.tif", values, nodata=0)
    for geobox in (SCENE, scene):
        read = open_labels(path, geobox, value_table(CLASSES)).read(geobox.whole)
        shift = 2 * (geobox is scene)
        assert (read[:, : SIZE[1] - shift] == values[:, shift:]).all()
    for ending in ("geojson", "gpkg", "shp", "fgb", "parquet"):
        saved(frame([shapely.box(0, 0, 9, 9)]), tmp_path / f"plain.{ending}")
        for file in tmp_path.glob("plain.*"):
            file.rename(folder / f"{name}{file.suffix}")
        assert open_labels(str(folder / f"{name}.{ending}"), SCENE, value_table(TWO)).read(SCENE.whole).sum() == 81


@pytest.mark.parametrize("name", ["a!b", "a;b"])
def test_names_that_mean_archives_are_refused_rather_than_another_file_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    saved(frame([shapely.box(0, 0, 9, 9)]), tmp_path / "b.geojson")
    (tmp_path / "b.geojson").rename(tmp_path / f"{name}.geojson")
    saved(frame([shapely.box(0, 0, 30, 30)]), tmp_path / "b.geojson")
    with pytest.raises(TrainingError, match="rename it"):
        open_labels(f"{name}.geojson", SCENE, value_table(TWO))


def test_a_changed_vector_file_is_noticed(tmp_path):
    path = tmp_path / "v.gpkg"
    labels = open_labels(saved(frame([shapely.box(0, 0, 9, 9)]), path), SCENE, value_table(TWO))
    os.utime(path, (1, 1))
    with pytest.raises(TrainingError, match="has changed or gone"):
        labels.read(Window(0, 9, 0, 9))


# real files

real = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data, which a clone lacks")


@real
@pytest.mark.parametrize("name", ["kampala_ug_b_z21", "zanzibar_tz_b_z20"])
def test_footprints_agree_with_the_raster_made_of_them(name):
    folder = SHARED / "oam_buildings"
    scene = open_source(folder / f"scenes/{name}_image.tif").geobox
    drawn = open_labels(str(folder / f"{name[:-6]}_labels.geojson"), scene, value_table(TWO))
    raster = open_labels(str(folder / f"scenes/{name}_label.tif"), scene, value_table(TWO))
    one, other = by_windows(drawn, scene, 512, 700), raster.read(scene.whole)
    assert (one != other).mean() < 1e-4
    assert 0.1 < (other == 1).mean() < 0.7


@real
def test_a_real_mask_is_the_same_with_its_background_tagged_nodata(tmp_path):
    plain = SHARED / "oam_buildings/scenes/kampala_ug_b_z21_label.tif"
    with rasterio.open(plain) as file:
        values, profile = file.read(), {**file.profile, "nodata": 0}
    with rasterio.open(tmp_path / "l.tif", "w", **profile) as file:
        file.write(values)
    scene = open_source(plain).geobox
    one, two = (open_labels(str(path), scene, value_table(TWO)) for path in (plain, tmp_path / "l.tif"))
    assert (by_windows(one, scene, 700, 512) == by_windows(two, scene, 700, 512)).all()
    assert list(remarks(two, scene).values()) == [int((values == 0).sum())]


@real
def test_real_rasters():
    folder = SHARED / "sen1floods11"
    scene = open_source(folder / "Spain_7370579_S2Hand.tif").geobox
    path = str(folder / "Spain_7370579_LabelHand.tif")
    read = open_labels(path, scene, value_table(TWO, None, [-1])).read(scene.whole)
    assert [int((read == value).sum()) for value in (0, 1, IGNORE)] == [192_010, 70_035, 99]
    with pytest.raises(TrainingError, match=r"-1 \(99 pixels\)"):
        open_labels(path, scene, value_table(TWO)).read(scene.whole)

    building = SHARED / "oam_buildings/scenes/kampala_ug_b_z21_label.tif"
    with pytest.raises(TrainingError, match="lies elsewhere"):
        open_labels(str(building), scene, value_table(TWO))


@real
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_real_masks_of_colours():
    path = str(SHARED / "dubai_semseg/Tile 5/masks/image_part_001.png")
    rgb = rasterio.open(path).read()
    codes, counts = np.unique(pack(rgb), return_counts=True)
    table: ClassTable = color_table([ClassInfo("Land", "8429F6"), ClassInfo("Building", "3C1098")])
    unknown = table.decode_colors(rgb).unknown
    expected = {f"{code:06X}": int(count) for code, count in zip(codes, counts, strict=True)}
    assert unknown == {color: count for color, count in expected.items() if color not in ("8429F6", "3C1098")}
    assert len(unknown) >= 3
