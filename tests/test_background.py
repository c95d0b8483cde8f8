"""What is background: the first class, another one, or none; in every verb that comes after a segmentation."""

from itertools import product

import dask.array as da
import geopandas
import numpy as np
import pytest
import xarray as xr
from helpers import metadata, pixels, save, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import masks, shapes
from scipy import ndimage
from skimage.measure import regionprops_table
from stores import label_ids, write_store
from test_cleaning import element, morphed

from models import BundleMetadata, ClassInfo
from models.encoding import NODATA
from models.errors import BundleError, PlanError
from models.metadata import named_background
from pipeline import (
    compute_statistics,
    open_maps,
    open_objects,
    run,
    segment,
    write_clean,
    write_objects,
    write_vectors,
)
from pipeline.postprocess.lazy import clean, label_objects
from pipeline.store.metadata import BACKGROUND
from pipeline.store.store import open_store
from pipeline.viz.overlay import overlay
from pipeline.viz.panels import five_panels
from pipeline.viz.report import write_report

LAND = (ClassInfo("Building", "E4572E"), ClassInfo("Road", "17BEBB"), ClassInfo("Land", "76B041"),
        ClassInfo("Water", "2E86AB"), ClassInfo("Tree", "8A4FFF"))  # fmt: skip
NAMES = [info.name for info in LAND]
BACKGROUNDS = pytest.mark.parametrize("background", [0, None, 2], ids=["first", "none", "third"])


def land_cover(seed=0, shape=(150, 130), classes=5):
    """Regions of all classes, and some that nobody observed."""
    random = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(random.standard_normal(shape), 3) for _ in range(classes)])
    class_map = smooth.argmax(axis=0).astype(np.uint8)
    class_map[smooth[0] < np.quantile(smooth[0], 0.05)] = NODATA
    shares = np.exp(12 * smooth) / np.exp(12 * smooth).sum(axis=0)
    return class_map, np.where(class_map == NODATA, NODATA, np.round(250 * shares)).astype(np.uint8)


# cleaning, against the definition of `CleanOptions` on the whole raster, pixel by pixel


def dataset_of(class_map, probability, background, chunks=(11, 13)):
    """Maps as `segment` gives them, in small blocks."""
    array = xr.DataArray(da.from_array(class_map, chunks), dims=("y", "x"))
    array.attrs = {
        "flag_meanings": " ".join(NAMES[: len(probability)]),
        BACKGROUND: -1 if background is None else background,
    }
    kept = xr.DataArray(probability, dims=("class", "y", "x"), coords={"class": NAMES[: len(probability)]})
    return xr.Dataset({"class_map": array, "probability": kept})


def plain_clean(class_map, probability, background, chosen, **asked):
    """Do what `CleanOptions` says, with loops; `chosen` are class values, `background` one or None."""
    made, part = class_map.copy(), [*chosen, *([] if background is None else [background])]
    if "minimum" in asked:
        for place in zip(*np.nonzero(np.isin(class_map, part)), strict=True):
            best = max(sorted(part), key=lambda value: probability[value][place])
            made[place] = best if probability[best][place] >= np.float32(asked["minimum"]) else background
    if "threshold" in asked:
        low, high = asked.get("hysteresis", asked["threshold"]), np.float32(asked["threshold"])
        sure = np.zeros(class_map.shape, bool)
        for place in zip(*np.nonzero(np.isin(class_map, part)), strict=True):
            best = max(sorted(chosen), key=lambda value: probability[value][place])
            made[place] = best if probability[best][place] > np.float32(low) else background
            sure[place] = probability[best][place] > high
        for value in chosen if "hysteresis" in asked else ():
            labels, _ = ndimage.label(made == value, np.ones((3, 3)) if asked["connectivity"] == 8 else None)
            made[(labels > 0) & ~np.isin(labels, np.unique(labels[sure]))] = background
    if "majority" in asked:
        before, reach = made.copy(), asked["majority"] // 2
        for row, column in zip(*np.nonzero(np.isin(before, part)), strict=True):
            around = before[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            votes = [(np.count_nonzero(around == value), -value) for value in part]
            made[row, column] = -max(votes)[1]
    for operation in ("erosion", "dilation", "opening", "closing"):
        for value in chosen if operation in asked else ():
            before = made == value
            after = morphed(before, made == NODATA, operation, element("disk", asked[operation]))
            made[before & ~after] = background
            made[after & (made == background)] = value
    surrounding = asked.get("removed", "surrounding" if background is None else "background") == "surrounding"
    if "min_object" in asked:
        made = plain_removal(made, chosen, asked["min_object"], asked["connectivity"], surrounding, background, None)
    if "min_hole" in asked:
        made = plain_removal(made, [background], asked["min_hole"], asked["connectivity"], True, background, chosen)
    return made


def plain_removal(class_map, values, size, connectivity, surrounding, background, fills):
    """Replace each small component; `fills`: the classes that may take its place, None for any."""
    made = class_map.copy()
    for value in values:
        labels, count = ndimage.label(class_map == value, np.ones((3, 3)) if connectivity == 8 else None)
        for number in range(1, count + 1):
            inside = labels == number
            if inside.sum() < size:
                made[inside] = around(class_map, inside, value, background, fills) if surrounding else background
    return made


def around(class_map, inside, own, background, fills):
    padded, lost = np.pad(class_map, 1, constant_values=NODATA), own if background is None else background
    votes = np.zeros(256, int)
    for row, column in np.argwhere(inside) + 1:
        for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            votes[padded[place]] += padded[place] not in (own, NODATA)
    return int(votes.argmax()) if votes.any() and (fills is None or votes.argmax() in fills) else lost


@st.composite
def cleanings(draw):
    """A background, classes or all, and what is asked for: with no background only what needs none."""
    background = draw(st.sampled_from([0, 2, None]))
    others = [value for value in range(4) if value != background]
    chosen = draw(st.none() | st.sets(st.sampled_from(others), min_size=1))
    optional = {"majority": st.sampled_from([3, 5]), "min_object": st.integers(2, 12)}
    if background is not None:
        radii = st.integers(1, 3)
        optional |= {
            "erosion": radii,
            "dilation": radii,
            "opening": radii,
            "closing": radii,
            "min_hole": st.integers(2, 12),
        }
        optional["removed"] = st.sampled_from(["background", "surrounding"])
    asked = draw(st.fixed_dictionaries({"connectivity": st.sampled_from([4, 8])}, optional=optional))
    if background is not None:
        asked |= draw(
            st.sampled_from([{}, {"threshold": 0.3}, {"threshold": 0.5, "hysteresis": 0.2}, {"minimum": 0.4}])
        )
    return background, chosen, asked


@st.composite
def covers(draw):
    """A class map of four classes, and probabilities that mostly agree with it, in steps of 1/250."""
    shape = draw(shapes(24))
    class_map = np.zeros(shape, np.uint8)
    for value in (1, 2, 3, NODATA):
        class_map[draw(masks(shape))] = value
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    raw = random.dirichlet(np.ones(4), shape).transpose(2, 0, 1) + 0.4 * (class_map == np.arange(4)[:, None, None])
    steps = np.floor(250 * raw / raw.sum(axis=0))
    return class_map, (steps / 250).astype(np.float32)


@settings(max_examples=60)
@given(covers(), cleanings())
def test_cleaning_is_its_definition(cover, cleaning):
    (class_map, probability), (background, chosen, asked) = cover, cleaning
    values = sorted(chosen) if chosen else [value for value in range(4) if value != background]
    expected = plain_clean(class_map, probability, background, values, **asked)
    maps = dataset_of(class_map, probability, background)
    named = {} if chosen is None else {"classes": [NAMES[value] for value in chosen]}
    found = clean(maps, **asked, **named)
    np.testing.assert_array_equal(found.class_map.values, expected)
    others = ~np.isin(class_map, [*values, NODATA if background is None else background])
    assert (found.class_map.values[others] == class_map[others]).all()  # of other classes nothing is touched
    assert found.class_map.attrs[BACKGROUND] == (-1 if background is None else background)


@BACKGROUNDS
@pytest.mark.parametrize("chosen", [None, "Road"])
def test_stores_are_cleaned_as_datasets(tmp_path, client, background, chosen):
    class_map, probability = land_cover(1)
    path = write_store(tmp_path / "m.zarr", class_map, classes=LAND, probability=probability, background=background)
    asked = {"min_object": 30, "majority": 3, "classes": chosen}
    if background is not None:
        asked |= {"threshold": 0.6, "hysteresis": 0.3, "closing": 2, "min_hole": 20}
    write_clean(path, tmp_path / "c.zarr", client=client, show=False, **asked)
    made = open_maps(tmp_path / "c.zarr").class_map
    values = [NAMES.index(chosen)] if chosen else [value for value in range(5) if value != background]
    kept = (probability / np.float32(250)).astype(np.float32)
    expected = plain_clean(class_map, kept, background, values, connectivity=4,
                           **{name: value for name, value in asked.items() if name != "classes"})  # fmt: skip
    np.testing.assert_array_equal(made.values, expected)
    np.testing.assert_array_equal(clean(open_maps(path), **asked).class_map.values, expected)
    assert open_store(str(tmp_path / "c.zarr"))[1].background == background
    assert made.attrs[BACKGROUND] == (-1 if background is None else background)


def test_a_background_may_be_named_for_a_cleaning(tmp_path, client):
    """It decides what removed pixels become, is kept in what is written, and makes another run."""
    class_map, probability = land_cover(2)
    path = write_store(tmp_path / "m.zarr", class_map, classes=LAND, probability=probability, background=None)
    how = {"client": client, "show": False, "min_object": 40}
    write_clean(path, tmp_path / "plain.zarr", **how)
    write_clean(path, tmp_path / "land.zarr", background="Land", opening=1, **how)
    kept = probability / np.float32(250)
    made = open_maps(tmp_path / "land.zarr").class_map
    expected = plain_clean(class_map, kept, 2, [0, 1, 3, 4], connectivity=4, opening=1, min_object=40)
    np.testing.assert_array_equal(made.values, expected)
    np.testing.assert_array_equal(
        open_maps(tmp_path / "plain.zarr").class_map.values,
        plain_clean(class_map, kept, None, range(5), connectivity=4, min_object=40),
    )
    lazy = clean(open_maps(path), background="Land", opening=1, min_object=40)
    np.testing.assert_array_equal(lazy.class_map.values, expected)
    assert (label_objects(lazy).values[expected == 2] == 0).all()
    assert open_store(str(tmp_path / "land.zarr"))[1].background == 2
    write_objects(tmp_path / "land.zarr", tmp_path / "o.zarr", client=client, show=False)
    assert set(open_objects(tmp_path / "o.zarr")[1]["class"]) <= {"Building", "Road", "Water", "Tree"}
    with pytest.raises(Exception, match="background Land"):
        write_clean(path, tmp_path / "plain.zarr", background="Land", **how)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"threshold": 0.5},
            "^threshold: .*none.*--background NAME.*Building, Road, Land, Water, Tree; or leave it out",
        ),
        ({"threshold": 0.0, "hysteresis": 0.0}, "^threshold, hysteresis: .*leave them out"),
        ({"minimum": 0.5}, "^minimum: "),
        ({"erosion": 1, "dilation": 1, "opening": 1, "closing": 1}, "^erosion, dilation, opening, closing: "),
        ({"min_hole": 5}, "^min_hole: "),
        ({"min_object": 5, "removed": "background"}, "^removed='background': "),
        ({"opening": 1, "background": "none"}, "^opening: "),
        ({"min_object": 5, "background": "Sea"}, "one of the classes Building, .*, or none; received 'Sea'"),
        ({"min_object": 5, "background": "Land", "classes": ["Land"]}, "'Land' is the background"),
    ],
)
def test_what_needs_a_background_is_refused_without_one(asked, said):
    class_map, probability = land_cover(3, (20, 20))
    maps = dataset_of(class_map, (probability / 250).astype(np.float32), None)
    with pytest.raises(PlanError, match=said):
        clean(maps, **asked)
    for harmless in ({"opening": 0, "min_hole": 0}, {"min_object": 5, "removed": "surrounding"}):
        assert clean(maps, **harmless).class_map.shape == (20, 20)


# objects


@settings(max_examples=40)
@given(covers(), st.sampled_from([0, 2, None]), st.sampled_from([4, 8]))
def test_objects_are_scikit_images_whatever_the_background(cover, background, connectivity):
    class_map, probability = cover
    found = label_objects(dataset_of(class_map, probability, background), connectivity=connectivity)
    np.testing.assert_array_equal(found.values, label_ids(class_map, background, connectivity))


@pytest.fixture(scope="module")
def places(tmp_path_factory, client):
    """A five-class map with Building first, by background: the scene, the maps, their objects."""
    folder, class_map = tmp_path_factory.mktemp("land"), land_cover()[0]
    write_raster(folder / "s.tif", np.full((3, *class_map.shape), 90, np.uint8))
    for background in (0, None, 2):
        place = folder / str(background)
        write_store(place / "m.zarr", class_map, classes=LAND, background=background, block=64)
        write_objects(place / "m.zarr", place / "o.zarr", client=client, show=False)
    return folder, class_map


def expected_objects(class_map, background):
    """The objects of each class by name: how many, and the pixels of each."""
    numbers = np.unique(label_ids(class_map, background), return_inverse=True)[1].reshape(class_map.shape)
    table = regionprops_table(numbers, class_map, properties=("num_pixels", "intensity_max"))
    return {
        name: sorted(table["num_pixels"][table["intensity_max"] == value].tolist())
        for value, name in enumerate(NAMES) if value != background
    }  # fmt: skip


@BACKGROUNDS
def test_every_class_but_the_background_has_objects(places, background):
    folder, class_map = places
    maps, table = open_objects(folder / str(background) / "o.zarr")
    expected = expected_objects(class_map, background)
    assert {name: sorted(rows["area_px"]) for name, rows in table.groupby("class")} == expected
    assert (table["class_value"].map(dict(enumerate(NAMES))) == table["class"]).all()
    np.testing.assert_array_equal(maps["objects"].values, label_ids(class_map, background))
    results = open_store(str(folder / str(background) / "o.zarr"))[1].results["objects"]
    assert results == {name: len(sizes) for name, sizes in expected.items()}
    assert list(results) == [name for value, name in enumerate(NAMES) if value != background]


@BACKGROUNDS
@pytest.mark.parametrize("simplify", [None, 1.0])
def test_polygons_of_every_class_but_the_background(places, tmp_path, client, background, simplify):
    from pipeline import Outlines

    folder, class_map = places
    output = tmp_path / "v.gpkg"
    made = write_vectors(
        folder / str(background) / "m.zarr", output, outlines=Outlines(simplify), client=client, show=False
    )
    frame, expected = geopandas.read_file(output), expected_objects(class_map, background)
    assert {name: sorted(rows["area_px"]) for name, rows in frame.groupby("class")} == expected
    if simplify is None:
        areas = {name: sorted((rows.area / 100).round().astype(int)) for name, rows in frame.groupby("class")}
        assert areas == expected  # pixels of 10 m
    assert [note for note in made.notes if "no background" in note] == ([made.notes[0]] if background is None else [])
    first = Outlines(classes=("Building",))
    if background == 0:
        with pytest.raises(
            PlanError, match="no objects are of class 'Building'; the store has: Road, Land, Water, Tree"
        ):
            write_vectors(folder / "0" / "o.zarr", tmp_path / "b.gpkg", outlines=first, client=client, show=False)
    else:
        write_vectors(
            folder / f"{background}" / "o.zarr", tmp_path / "b.gpkg", outlines=first, client=client, show=False
        )
        assert len(geopandas.read_file(tmp_path / "b.gpkg")) == len(expected["Building"])


@BACKGROUNDS
def test_statistics_of_objects(places, client, background):
    folder, class_map = places
    frame = compute_statistics(folder / str(background) / "o.zarr", client=client, show=False)
    expected = expected_objects(class_map, background)
    assert [name for name in NAMES if f"{name}_count" in frame] == list(expected)
    observed = (class_map != NODATA).sum()
    for name, sizes in expected.items():
        assert frame[f"{name}_count"].tolist() == [len(sizes)]
        assert frame[f"{name}_size_max_m2"][0] == pytest.approx(max(sizes) * 100, rel=2e-3)  # UTM's scale
        assert frame[f"{name}_share"][0] == pytest.approx(sum(sizes) / observed, rel=1e-3)
    cells = compute_statistics(folder / str(background) / "o.zarr", cell=40, client=client, show=False)
    assert {name: int(cells[f"{name}_count"].sum()) for name in expected} == {n: len(s) for n, s in expected.items()}
    assert any("no background: all classes" in note for note in frame.attrs["notes"]) == (background is None)


@BACKGROUNDS
@pytest.mark.parametrize("with_scene", [True, False])
def test_the_report_shows_every_class_but_the_background(places, tmp_path, background, with_scene):
    import re

    folder, class_map = places
    scene = {"scene": folder / "s.tif"} if with_scene else {}
    page = write_report(folder / str(background) / "o.zarr", tmp_path / "r.html", **scene).read_text()
    legend = re.search(r'<ul class="legend">(.*?)</ul>', page, re.DOTALL)[1]
    shown = {name for name in NAMES if name in legend}
    expected = expected_objects(class_map, background)
    assert shown == set(expected)
    headings = re.findall(r'<h3 id="kind-\d+" class="named">.*?</i>(\w+)</h3>', page)
    assert headings == list(expected)
    for name, sizes in expected.items():
        section = page.split(f"</i>{name}</h3>")[1]
        assert f"<dt>objects</dt><dd>{len(sizes)}</dd>" in section.split("</dl>")[0]


@BACKGROUNDS
def test_pictures_paint_every_class_but_the_background(places, tmp_path, background):
    folder, class_map = places
    picture = overlay(folder / "s.tif", folder / str(background) / "m.zarr", style="mask", opacity=1)
    from_dataset = overlay(folder / "s.tif", open_maps(folder / str(background) / "m.zarr"), style="mask", opacity=1)
    np.testing.assert_array_equal(picture, from_dataset)
    for value, info in enumerate(LAND):
        painted = (picture[class_map == value] == info.rgb).all(axis=-1)
        assert painted.all() if value != background else not painted.any()
    path = five_panels(folder / "s.tif", folder / str(background) / "m.zarr", tmp_path / "p.png")
    from PIL import Image

    drawn = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for value, info in enumerate(LAND):  # solid in the map, and in the legend
        assert ((drawn == info.rgb).all(axis=1).sum() > 50) == (value != background)


# where the fact comes from


def many(**changes):
    return metadata(classes=LAND, **changes)


@pytest.mark.parametrize(("background", "value"), [("Land", 2), (None, -1), ("Building", 0)])
def test_the_bundles_background_is_in_maps_lazy_and_kept(tmp_path, client, background, value):
    described = BundleMetadata(**{**_fields(metadata(classes=5)), "classes": LAND, "background": background})
    bundle = save(tmp_path / "b", described)
    scene = write_raster(tmp_path / "s.tif", pixels((3, 70, 60)), descriptions=("red", "green", "blue"))
    lazy = segment(scene, bundle)
    assert lazy.class_map.attrs[BACKGROUND] == value
    run(scene, bundle, tmp_path / "m.zarr", client=client, show=False, probability_of="all")
    durable = open_maps(tmp_path / "m.zarr")
    assert durable.class_map.attrs[BACKGROUND] == value
    assert xr.open_zarr(tmp_path / "m.zarr").class_map.attrs[BACKGROUND] == value
    asked = {"min_object": 20, "majority": 3}
    write_clean(tmp_path / "m.zarr", tmp_path / "c.zarr", client=client, show=False, **asked)
    np.testing.assert_array_equal(clean(lazy, **asked).class_map, open_maps(tmp_path / "c.zarr").class_map)
    np.testing.assert_array_equal(
        label_objects(lazy).values, label_ids(lazy.class_map.values, None if value < 0 else value)
    )


def _fields(described):
    return {name: getattr(described, name) for name in described.__dataclass_fields__}


def test_a_dataset_that_lost_the_attribute_is_read_by_the_names_of_its_classes():
    class_map = np.array([[0, 1, 2], [0, 1, 2]], np.uint8)
    for names, background in ((NAMES[:3], None), (["no_data", "a", "b"], 0), (["Background", "a", "b"], 0)):
        maps = xr.Dataset({"class_map": (("y", "x"), class_map, {"flag_meanings": " ".join(names)})})
        np.testing.assert_array_equal(label_objects(maps).values, label_ids(class_map, background))


def test_a_background_is_named():
    assert named_background("Land", NAMES) == "Land"
    assert named_background("none", NAMES) is None
    assert named_background(False, ["none", "Road"]) is None
    assert named_background("none", ["Road", "none", "Tree"]) == "none"
    assert [named_background(None, names) for names in (NAMES, NAMES[:2], ["Other", "a", "b"])] == [
        None,
        "Building",
        "Other",
    ]
    with pytest.raises(BundleError, match="received 'land'"):
        named_background("land", NAMES)


def test_verbs_say_that_there_is_no_background(places, tmp_path):
    from click.testing import CliRunner

    from pipeline.cli.app import cli

    folder, _ = places
    verbs = [["clean", "m.zarr", "-o", "c.zarr", "--min-object", "3"], ["objects", "m.zarr", "-o", "p.zarr"],
             ["vectorise", "o.zarr", "-o", "v.geojson"], ["stats", "o.zarr"], ["report", "o.zarr", "-o", "r.html"],
             ["info", "m.zarr"]]  # fmt: skip
    for background, (verb, store, *words) in product((None, 2), verbs):
        words = [str(tmp_path / f"{background}{word}") if word.endswith((".zarr", ".geojson", ".html")) else word
                 for word in words]  # fmt: skip
        done = CliRunner().invoke(cli, [verb, str(folder / str(background) / store), *words], catch_exceptions=False)
        said = [line for line in done.output.splitlines() if "no background" in line]
        assert done.exit_code == 0
        assert len(said) == (background is None), (verb, done.output)
        if verb == "clean" and said:
            assert "removed pixels become the class around them" in said[0]
    refused = CliRunner().invoke(cli, ["clean", str(folder / "None" / "m.zarr"), "-o", str(tmp_path / "x.zarr"),
                                       "--opening", "1"])  # fmt: skip
    assert "--background NAME" in str(refused.exception)
    done = CliRunner().invoke(cli, ["clean", str(folder / "None" / "m.zarr"), "-o", str(tmp_path / "x.zarr"),
                                    "--opening", "1", "--background", "Land"], catch_exceptions=False)  # fmt: skip
    assert done.exit_code == 0
    assert open_store(str(tmp_path / "x.zarr"))[1].background == 2


@pytest.mark.parametrize("background", [0, None, 1])
def test_a_geotiff_of_the_map_keeps_it(tmp_path, client, background):
    """Also of two classes, of which the first would be the background if nothing said otherwise."""
    class_map = land_cover(4, (60, 50), classes=2)[0]
    path = write_store(tmp_path / "m.zarr", class_map, classes=LAND[:2], background=background)
    write_clean(path, tmp_path / "c.tif", client=client, show=False)
    write_objects(tmp_path / "c.tif", tmp_path / "o.zarr", client=client, show=False)
    maps, table = open_objects(tmp_path / "o.zarr")
    np.testing.assert_array_equal(maps["objects"].values, label_ids(class_map, background))
    assert set(table["class_value"]) == {0, 1} - {background}
    np.testing.assert_array_equal(label_objects(open_maps(tmp_path / "c.tif")).values, label_ids(class_map, background))


def test_a_class_map_may_have_as_many_classes_as_there_are_values(tmp_path, client):
    """The last of 255 has the value 254, beside nodata."""
    classes = tuple(ClassInfo(f"c{n}", f"{n:06X}") for n in range(255))
    class_map = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 3, 0), 3, 1)
    path = write_store(tmp_path / "m.zarr", class_map, classes=classes, background=None)
    write_objects(path, tmp_path / "o.zarr", client=client, show=False)
    maps, table = open_objects(tmp_path / "o.zarr")
    assert table["class_value"].tolist() == list(range(255))
    assert (table["area_px"] == 9).all()
    np.testing.assert_array_equal(maps["objects"].values, label_ids(class_map, None))
