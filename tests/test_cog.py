"""The COG: what GDAL, rasterio and rio-cogeo see of it, and what is left when its writing is stopped."""

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from helpers import GRID, UTM, pixels, write_raster
from rasterio.crs import CRS
from rio_cogeo import cog_validate
from stores import TOWN, write_store
from test_store import UINT8, WKT, answer, begin, fill, finished, shards

from models.encoding import NODATA, SCALE, Encoding
from models.errors import StoreError
from pipeline import run, write_clean, write_cog
from pipeline.grid.geobox import GeoBox
from pipeline.store import cog
from pipeline.store.cog import written_before
from pipeline.store.overviews import halve


@pytest.fixture
def store(tmp_path):
    finished(tmp_path / "s.zarr", (700, 1030), block=256)
    return tmp_path / "s.zarr"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (513, 511), (1300, 40)])
def test_any_shape_is_valid_and_reads_back(tmp_path, shape):
    _, whole = finished(tmp_path / "s.zarr", shape, block=256)
    made = write_cog(tmp_path / "s.zarr", tmp_path / "c.tif")
    valid, errors, warned = cog_validate(made, strict=True)
    if shape == (700, 1):  # rio-cogeo takes the factor of an overview from widths, which here are 1 and 1
        assert (errors, warned) == (["Invalid Decimation 1 for overview level 0"], [])
    else:
        assert (valid, errors, warned) == (True, [], [])
    with rasterio.open(made) as file:
        np.testing.assert_array_equal(file.read(1), whole.class_map)
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), NODATA)
        assert (file.crs, file.transform) == (CRS.from_string(UTM), GRID)
        assert bool(file.overviews(1)) == (max(shape) > 512)
        colours = file.colormap(1)
        assert colours[0] == (0x10, 0x20, 0x30, 0)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [(Affine(7, 3, 5e5, 3, -7, 9e6), WKT), (Affine(10, 0, 5e5, 0, 10, 9e6), WKT), (GRID, None)],
    ids=["rotated", "south-up", "no-crs"],
)
def test_the_grid_is_the_stores(tmp_path, transform, crs):
    finished(tmp_path / "s.zarr", transform=transform, crs=crs)
    with rasterio.open(write_cog(tmp_path / "s.zarr", tmp_path / "c.tif")) as file:
        assert file.transform == transform
        assert file.crs == (CRS.from_wkt(crs) if crs else None)


def test_a_scene_without_position_stays_without(tmp_path):
    finished(tmp_path / "s.zarr", transform=None, crs=None)
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(write_cog(tmp_path / "s.zarr", tmp_path / "c.tif")) as file,
    ):
        assert file.transform == Affine.identity()


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32"])
def test_probabilities_keep_names_scale_and_nodata(tmp_path, kind):
    _, whole = finished(tmp_path / "s.zarr", encoding=Encoding(None, kind, (0, 1)))
    made = write_cog(tmp_path / "s.zarr", tmp_path / "p.tif", array="probability")
    assert cog_validate(made, strict=True)[0]
    assert not Path(f"{made}.aux.xml").exists()
    with rasterio.open(made) as file:
        there = file.read()
        np.testing.assert_array_equal(there, whole.probability.astype(there.dtype))
        assert file.descriptions == ("open ground", "house, garden")
        assert file.nodata == NODATA if kind == "uint8" else np.isnan(file.nodata)
        assert file.scales == ((SCALE,) * 2 if kind == "uint8" else (1.0, 1.0))


def test_overviews_hold_the_most_frequent_class_without_nodata(tmp_path):
    store, whole = begin(tmp_path / "s.zarr", (1024, 1024), block=256), answer((1024, 1024), UINT8)
    whole.class_map[:] = 0
    whole.class_map[:, ::4] = 1
    fill(store, whole)
    cog_done(store)
    with rasterio.open(write_cog(store.path, tmp_path / "c.tif"), overview_level=0) as file:
        assert set(np.unique(file.read(1))) <= {0, 1}
        assert file.shape == (512, 512)


def cog_done(store):
    from pipeline.store.lifecycle import finish_store

    finish_store(
        store, {"pixels": {"a": 1, "b": 2, "nodata": 3}}, np.zeros((store.plan.rows, store.plan.columns), np.float32)
    )


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="gdalinfo is not installed")
def test_gdalinfo_sees_colours_names_and_table(store, tmp_path):
    made = write_cog(store, tmp_path / "c.tif")
    text = subprocess.run(["gdalinfo", made], capture_output=True, text=True, check=True).stdout
    assert "LAYOUT=COG" in text
    assert "NoData Value=255" in text
    assert "Color Table (RGB with 2 entries)" in text
    assert "1: 228,87,46,255" in text
    assert "Categories:\n      0: open ground\n      1: house, garden" in text
    assert "<GDALRasterAttributeTable" in text
    assert 'ID["EPSG",32736]' in text
    assert "Overviews: 515x350" in text


def test_tags_say_where_it_comes_from(store, tmp_path):
    with rasterio.open(write_cog(store, tmp_path / "c.tif")) as file:
        tags = file.tags()
    assert tags["TIFFTAG_SOFTWARE"] == "Swathe"
    assert tags["SWATHE_BUNDLE"] == "b d"
    assert tags["CLASS_1"] == "house, garden"
    assert json.loads(tags["SWATHE_PIXELS"]) == {"a": 1, "b": 2, "nodata": 3}
    assert written_before(tmp_path / "c.tif", {"halo": 8}) == {"a": 1, "b": 2, "nodata": 3}
    assert written_before(tmp_path / "c.tif", {"halo": 9}) is None
    assert written_before(tmp_path / "none.tif", {"halo": 8}) is None


def test_only_a_tiff_is_taken_for_a_finished_output(store, tmp_path):
    """A text that names other files, with our tags and under the output's name, is not even opened."""
    made = write_cog(store, tmp_path / "c.tif")
    rasterio.shutil.copy(made, tmp_path / "text.tif", driver="VRT")
    with rasterio.open(tmp_path / "text.tif") as file:
        assert file.tags()["SWATHE_PIXELS"]
    assert written_before(tmp_path / "text.tif", {"halo": 8}) is None


def test_the_same_store_gives_the_same_bytes(store, tmp_path):
    made = [write_cog(store, tmp_path / name).read_bytes() for name in ("a.tif", "b.tif")]
    assert made[0] == made[1]


# what is refused, and what is left


def test_bad_targets_and_stores_are_refused(store, tmp_path):
    (tmp_path / "there.tif").write_text("mine")
    (tmp_path / "folder.tif").mkdir()
    for target, said in (
        ("there.tif", "there.tif exists; choose another output, or pass --overwrite"),
        ("folder.tif", "is a folder"),
        ("there.tif/c.tif", "cannot be written: "),
    ):
        with pytest.raises(StoreError, match=said):
            write_cog(store, tmp_path / target)
    with pytest.raises(StoreError, match="nothing can be written to https"):
        write_cog(store, "https://example.com/c.tif")
    with pytest.raises(StoreError, match="no such store"):
        write_cog(tmp_path / "none.zarr", tmp_path / "deep/c.tif")
    assert not (tmp_path / "deep").exists()
    begin(tmp_path / "unfinished.zarr")
    with pytest.raises(StoreError, match="not finished"):
        write_cog(tmp_path / "unfinished.zarr", tmp_path / "c.tif")
    finished(tmp_path / "maps.zarr", encoding=Encoding(None, None, ()))
    with pytest.raises(StoreError, match="has no array 'probability'; it has: class_map"):
        write_cog(tmp_path / "maps.zarr", tmp_path / "c.tif", array="probability")
    assert (tmp_path / "there.tif").read_text() == "mine"


def test_a_new_file_replaces_an_old_one_with_its_names(store, tmp_path):
    write_cog(store, tmp_path / "c.tif")
    write_cog(store, tmp_path / "c.tif", array="probability", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.tif", "c.tif.sha256", "s.zarr"]


@pytest.mark.parametrize("step", ["write_tiles", "_put_together", "_read_back", "_put_in_place"])
def test_what_fails_leaves_the_old_file_and_nothing_else(store, tmp_path, monkeypatch, step):
    (tmp_path / "c.tif").write_text("mine")

    def failing(*_, **__):
        raise StoreError("failing")

    monkeypatch.setattr(cog, step, failing)
    with pytest.raises(StoreError, match="failing"):
        write_cog(store, tmp_path / "c.tif", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.tif", "s.zarr"]
    assert (tmp_path / "c.tif").read_text() == "mine"


def test_a_file_that_reads_back_otherwise_is_not_taken_for_whole(store, tmp_path, monkeypatch):
    put_together = cog._put_together

    def spoilt(whole, *more):
        put_together(whole, *more)
        with rasterio.open(whole, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.write(np.full((1, 3, 3), 7, np.uint8), window=rasterio.windows.Window(600, 600, 3, 3))

    monkeypatch.setattr(cog, "_put_together", spoilt)
    with pytest.raises(StoreError, match="does not read back"):
        write_cog(store, tmp_path / "c.tif")
    assert not list(tmp_path.glob("*c.tif*"))


def test_a_damaged_store_gives_no_file(store, tmp_path):
    shards(store)[1].unlink()
    with pytest.raises(StoreError, match=r"s\.zarr: the store is damaged: class_map/c/0/1 is missing"):
        write_cog(store, tmp_path / "c.tif")
    assert not list(tmp_path.glob("*c.tif*"))


def test_what_a_killed_writer_left_is_swept_but_not_what_is_anothers(store, tmp_path):
    folder = tmp_path / ".c.tif.partial"
    folder.mkdir()
    (folder / "work.tif").write_text("left")
    (folder / "whole.tif.ovr.tmp").write_text("left")
    write_cog(store, tmp_path / "c.tif")
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    write_cog(store, tmp_path / "c.tif", overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]


def test_what_a_writer_left_that_was_killed_at_its_very_end_is_done_by_the_next(store, tmp_path):
    write_cog(store, tmp_path / "c.tif")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("c.tif*")}
    (tmp_path / "c.tif.sha256").unlink()
    (tmp_path / ".c.tif.partial").mkdir()
    (tmp_path / ".c.tif.partial/whole.tif").write_text("left")
    (tmp_path / f".c.tif.{'0f' * 16}.partial.sha256").write_text("left")
    write_cog(store, tmp_path / "c.tif")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*c.tif*")} == before
    assert len(before) == 3


def test_two_writers_of_one_file_are_kept_apart(store, tmp_path, monkeypatch):
    def meanwhile(*_):
        monkeypatch.undo()
        with pytest.raises(StoreError, match="is being written by another run"):
            write_cog(store, tmp_path / "c.tif")
        raise StoreError("the first one")

    monkeypatch.setattr(cog, "_put_together", meanwhile)
    with pytest.raises(StoreError, match="the first one"):
        write_cog(store, tmp_path / "c.tif")
    write_cog(store, tmp_path / "c.tif")


def test_paths_with_blanks_and_other_alphabets(store, tmp_path):
    made = write_cog(store, tmp_path / "ein Ordner/карта é.tif")
    assert cog_validate(made, strict=True)[0]


MEASURE = """
import resource, sys
from pipeline import run, write_clean, write_cog
write_cog(sys.argv[1], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    peaks = []
    for side in (2048, 12288):
        store = begin(tmp_path / f"{side}.zarr", (side, side), Encoding(None, None, ()), block=1024)
        for row, column in store.places(0):
            store.write(0, store.window(0, row, column), answer((1024, 1024), Encoding(), seed=row))
        cog_done(store)
        command = [sys.executable, "-c", MEASURE, store.path, tmp_path / f"{side}.tif"]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] < peaks[0] + 300, peaks  # GDAL's cache of 256 MB fills; 12288² alone would be 144 MB a copy


@pytest.mark.parametrize(("side", "magic"), [(1000, 42), (70_000, 43)])
def test_a_file_that_may_pass_4_gigabytes_is_a_bigtiff(tmp_path, side, magic):
    profile = cog._profile(GeoBox(side, side), cog.ArrayFormat("class_map", "uint8", ("class",), NODATA))
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        rasterio.open(tmp_path / "w.tif", "w", sparse_ok=True, **profile),
    ):
        pass
    assert (tmp_path / "w.tif").read_bytes()[:4] == b"II" + bytes([magic, 0])


def shown(made: Path) -> tuple[dict[int, tuple[int, ...]], list[list[str]]]:
    """The colour table, and the rows of the attribute table, as GDAL gives them to QGIS."""
    with rasterio.open(made) as file:
        colours = file.colormap(1)
    table = ElementTree.parse(f"{made}.aux.xml").find(".//GDALRasterAttributeTable")
    return colours, [[cell.text for cell in row] for row in table.iter("Row")]


@pytest.mark.parametrize("background", [0, 1, None])
@pytest.mark.parametrize("opaque", [False, True])
def test_the_legend_has_the_classes_alone_and_the_background_is_transparent(tmp_path, background, opaque):
    class_map = np.random.default_rng(0).choice([0, 1, NODATA], (60, 70)).astype(np.uint8)
    write_store(tmp_path / "s.zarr", class_map, classes=TOWN[:2], background=background)
    made = write_cog(tmp_path / "s.zarr", tmp_path / "c.tif", opaque_background=opaque)
    assert cog_validate(made, strict=True)[0]
    colours, rows = shown(made)
    alphas = [0 if value == background and not opaque else 255 for value in range(2)]
    assert colours == {value: (*info.rgb, alphas[value]) for value, info in enumerate(TOWN[:2])}
    assert [row[:2] for row in rows] == [["0", "background"], ["1", "building"]]
    assert [tuple(map(int, row[2:])) for row in rows] == list(colours.values())
    if shutil.which("gdalinfo"):
        text = subprocess.run(["gdalinfo", made], capture_output=True, text=True, check=True).stdout
        assert "Color Table (RGB with 2 entries)" in text
        assert "building" in text
    with rasterio.open(made) as file:
        np.testing.assert_array_equal(file.read(1), class_map)
    Path(f"{made}.aux.xml").unlink()  # alone, the file has its palette still
    with rasterio.open(made) as file:
        assert file.colormap(1)[1] == (*TOWN[1].rgb, 255)
        assert file.colormap(1)[NODATA][3] == 0


def test_the_choice_can_be_changed_for_a_map_that_is_there(tmp_path, bundle_of):
    scene = write_raster(tmp_path / "s.tif", pixels((3, 40, 60)))
    store, made = tmp_path / "s.zarr", tmp_path / "map.tif"
    run(scene, bundle_of(), store, show=False)
    for write in (partial(run, scene, bundle_of(), made), partial(write_clean, store, tmp_path / "clean.tif")):
        for opaque in (False, True, False):
            output = write(show=False, opaque_background=opaque).output
            assert shown(output)[0][0][3] == (255 if opaque else 0)


# how it is put together


def levels_of(made: Path) -> list[np.ndarray]:
    """The pixels of the file and of its overviews, as GDAL reads them."""
    with rasterio.open(made) as file:
        levels, count = [file.read()], len(file.overviews(1))
    for level in range(count):
        with rasterio.open(made, overview_level=level) as file:
            levels.append(file.read())
    return levels


@pytest.mark.parametrize("bigtiff", ["no", "yes"])
@pytest.mark.parametrize(("array", "kind"), [("class_map", None), ("probability", "uint8"), ("probability", "float32")])
def test_levels_of_many_squares_are_those_of_a_store(tmp_path, monkeypatch, array, kind, bigtiff):
    """More than one square each way, odd sides, and overviews whose squares are made of one, two and four others."""
    profile = cog._profile
    monkeypatch.setattr(cog, "_profile", lambda *args: {**profile(*args), "bigtiff": bigtiff})
    encoding = Encoding(None, kind, (0, 1) if kind else ())
    _, whole = finished(tmp_path / "s.zarr", (1101, 2333), encoding, block=512)
    made = write_cog(tmp_path / "s.zarr", tmp_path / "c.tif", array=array)
    assert cog_validate(made, strict=True) == (True, [], [])
    assert made.read_bytes()[2] == (43 if bigtiff == "yes" else 42)
    found = levels_of(made)
    assert len(found) == 4
    for level in found:
        expected = whole.class_map[None] if array == "class_map" else whole.probability
        np.testing.assert_array_equal(level, expected)
        whole = halve(whole)


def test_more_cores_write_the_same_bytes(store, tmp_path, monkeypatch):
    written = []
    for cores in (1, 5):
        monkeypatch.setattr(cog, "usable_cpus", lambda cores=cores: cores)
        written.append(write_cog(store, tmp_path / f"{cores}.tif").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("place", [0.3, 0.9])  # of an overview, and of the full resolution
def test_one_wrong_byte_is_found(store, tmp_path, monkeypatch, place):
    put_together = cog._put_together

    def spoilt(whole, *more):
        put_together(whole, *more)
        content = bytearray(whole.read_bytes())
        content[int(place * len(content))] ^= 16
        whole.write_bytes(content)

    monkeypatch.setattr(cog, "_put_together", spoilt)
    with pytest.raises(StoreError, match=r"c\.tif could not be written|does not read back"):
        write_cog(store, tmp_path / "c.tif")
    assert not list(tmp_path.glob("*c.tif*"))
