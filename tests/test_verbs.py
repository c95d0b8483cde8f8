"""The verbs that begin with a finished store, as people type them: examples, progress, results, and all bad input."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
import shapely
from affine import Affine
from helpers import GRID, UTM
from masks import chessboard
from shell import Done, shell
from stores import TOWN, town, write_store

from pipeline import open_maps, open_objects

SWATHE = Path(sys.executable).with_name("swathe")
VERBS = ("clean", "objects", "vectorise", "stats", "report")
BOX = shapely.box(500_100, 8_998_500, 501_000, 8_999_800)
CROSSED = shapely.Polygon([(500_100, 8_999_000), (500_900, 8_999_800), (500_900, 8_999_000), (500_100, 8_999_800)])


@pytest.fixture(scope="module")
def swathe(tmp_path_factory):
    """Run the command in a folder with stores and zones, of which tests may not change what is there."""
    folder = tmp_path_factory.mktemp("verbs")
    make_stores(folder)
    make_zones(folder)
    for name in ("folder.tif", "folder.parquet", "folder.csv", "folder.html", "foreign.zarr"):
        (folder / name).mkdir()
    (folder / "foreign.zarr/mine.txt").write_text("mine")
    (folder / "file.txt").write_text("mine")
    with shell(folder) as run:
        done = run("objects", "maps.zarr", "-o", "objects.zarr", "-q")
        assert done == Done(0, done.out, "")
        yield run


def make_stores(folder: Path) -> None:
    classes = town(100, 150)
    two = np.where(classes == 2, 0, classes).astype(np.uint8)
    probability = np.where(two == 255, 255, np.where(two == 1, 230, 20)).astype(np.uint8)
    write_store(folder / "two.zarr", two, probability=probability, classes=TOWN[:2])
    write_store(folder / "maps.zarr", classes)
    write_store(folder / "nowhere.zarr", classes, crs=None, transform=None)
    write_store(folder / "turned.zarr", classes, transform=GRID * Affine.rotation(30))
    write_store(folder / "degrees.zarr", classes, crs="EPSG:4326", transform=Affine(1e-4, 0, 39, 0, -1e-4, -6))
    write_store(folder / "one.zarr", np.ones((1, 1), np.uint8))
    write_store(folder / "empty.zarr", np.zeros((70, 70), np.uint8))
    write_store(folder / "full.zarr", np.ones((150, 150), np.uint8))
    write_store(folder / "unobserved.zarr", np.full((70, 70), 255, np.uint8))
    write_store(folder / "chess.zarr", chessboard((130, 130)).astype(np.uint8))
    shutil.copytree(folder / "maps.zarr", folder / "begun.zarr")
    root = json.loads((folder / "begun.zarr/zarr.json").read_text())
    root["attributes"]["swathe"]["state"] = "running"
    (folder / "begun.zarr/zarr.json").write_text(json.dumps(root))


def make_zones(folder: Path) -> None:
    zones = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[BOX], crs=UTM)
    zones.to_file(folder / "zones.gpkg")
    zones.to_crs(4326).to_file(folder / "zones.geojson")
    zones.set_geometry(zones.translate(1e6, 0)).to_file(folder / "away.gpkg")
    zones.set_geometry([CROSSED], crs=UTM).to_file(folder / "crossed.gpkg")
    zones.set_geometry([shapely.Point(1, 1)], crs=UTM).to_file(folder / "points.gpkg")
    zones.iloc[:0].to_file(folder / "none.gpkg")
    zones.assign(many=[[1, 2]]).to_parquet(folder / "lists.parquet")
    zones.to_file(folder / "layers.gpkg", layer="one")
    zones.to_file(folder / "layers.gpkg", layer="two")
    zones.set_crs(None, allow_override=True).to_parquet(folder / "unplaced.parquet")


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """All files and folders, and when they changed."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


# the same command again


QUICK = ("o.gpkg", "cells.csv", "map.tif", "page.html")
REPEATED = {
    "o.parquet": ("vectorise maps.zarr", "--simplify 2"),
    "o.gpkg": ("vectorise maps.zarr --class building", "--connectivity 8"),
    "o.fgb": ("vectorise objects.zarr", "--right-angles"),
    "o.geojson": ("vectorise objects.zarr --simplify 1", "--class building"),
    "zones.csv": ("stats objects.zarr --zones zones.gpkg", "--layer zones --cell '9 px'"),
    "all.csv": ("stats objects.zarr", "--zones zones.gpkg"),
    "zones.geojson": ("stats maps.zarr --zones zones.geojson", None),
    "cells.csv": ("stats maps.zarr --cell '40 px'", "--cell '50 px'"),
    "cells.gpkg": ("stats objects.zarr --cell '40 px'", "--cell '50 px'"),
    "map.tif": ("export maps.zarr", "--opaque-background"),
    "p.tif": ("export two.zarr --array probability", "--array class_map"),
    "page.html": ("report maps.zarr", "--title Town"),
}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in REPEATED]
)
def test_the_same_command_again_is_complete_already(name, swathe, tmp_path):
    """It ends well, says so and changes nothing; with other settings, or where another file took its place, it refuses.

    So it does with --overwrite, which writes the same again.
    """
    line, other = REPEATED[name]
    output = tmp_path / name

    def run(line: str) -> Done:
        return swathe(*shlex.split(f"{line} -o {shlex.quote(str(output))}"))

    def refused(line: str) -> bool:
        return run(line).code in (1, 2) and everything(tmp_path) == before

    first = run(line)
    assert (first.code, f"wrote {output}" in first.out) == (0, True), first
    before, content = everything(tmp_path), output.read_bytes()
    again = run(line)
    assert (again.code, f"{output} is already complete" in again.out) == (0, True), again
    assert everything(tmp_path) == before
    assert other is None or refused(f"{line} {other}")
    verb, store, *rest = line.split(" ", 2)
    assert refused(" ".join([verb, "maps.zarr" if store == "objects.zarr" else "objects.zarr", *rest]))
    written = run(f"{line} --overwrite")
    assert (written.code, "wrote" in written.out) == (0, True), written
    assert name.endswith(".html") or output.read_bytes() == content
    output.write_bytes(b"mine")
    before = everything(tmp_path)
    assert refused(line)


# what is wrong: 1 or 2, one or two lines, nothing written


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        # names of classes, probabilities, sizes
        ("clean maps.zarr -o x.zarr --class river --min-object 5", 1, "no class 'river'; it has: background, building"),
        ("clean maps.zarr -o x.zarr --class background --min-object 5", 1, "'background' is the background"),
        ("clean two.zarr -o x.zarr --threshold 1.5", 1, "threshold is a probability from 0 to 1; received 1.5"),
        ("clean two.zarr -o x.zarr --threshold -0.1", 1, "from 0 to 1; received -0.1"),
        ("clean two.zarr -o x.zarr --threshold nan", 1, "from 0 to 1; received nan"),
        ("clean two.zarr -o x.zarr --threshold half", 1, "from 0 to 1; received 'half'"),
        ("clean two.zarr -o x.zarr --threshold river=0.4", 1, "no class 'river'"),
        ("clean two.zarr -o x.zarr --threshold 0.4 --threshold 0.5", 1, "one threshold for all, or NAME=NUMBER"),
        ("clean two.zarr -o x.zarr --minimum 2", 1, "minimum is a probability from 0 to 1"),
        ("clean two.zarr -o x.zarr --minimum 0.4 --threshold 0.4", 1, "two ways to decide"),
        ("clean two.zarr -o x.zarr --hysteresis 0.4", 1, "give threshold, the higher one"),
        ("clean two.zarr -o x.zarr --hysteresis 0.8 --threshold 0.4", 1, "0.8 is above threshold, 0.4"),
        ("clean maps.zarr -o x.zarr --min-object '20 acres'", 1, "no unit 'acres'.*'20 m2'"),
        ("clean maps.zarr -o x.zarr --min-object ''", 1, "a size is a number with a unit; received ''"),
        ("clean maps.zarr -o x.zarr --min-object -3", 1, "must not be negative"),
        ("clean maps.zarr -o x.zarr --min-hole 2m", 1, "min_hole: a size has no unit 'm'"),
        ("clean nowhere.zarr -o x.zarr --min-object '20 m2'", 1, "no CRS.*in pixels"),
        ("clean maps.zarr -o x.zarr --majority 4", 1, "odd; received 4"),
        ("clean maps.zarr -o x.zarr --opening 10000", 1, "from 0 to 256; received 10000"),
        ("clean maps.zarr -o x.zarr --opening -1", 2, "'--opening': -1"),
        ("clean maps.zarr -o x.zarr --connectivity 6", 2, "'6' is not one of '4', '8'"),
        ("vectorise maps.zarr -o x.parquet --class river", 1, "no objects are of class 'river'; the store has: "),
        ("vectorise maps.zarr -o x.parquet --simplify 0", 1, "above 0, at most 1000; received 0"),
        ("vectorise maps.zarr -o x.parquet --simplify nan", 1, "received nan"),
        ("vectorise degrees.zarr -o x.parquet --right-angles", 1, "degrees are not square on the ground"),
        ("vectorise nowhere.zarr -o x.parquet --right-angles", 1, "right angles need a CRS"),
        # stores
        ("clean maps.zarr -o x.zarr --threshold 0.7", 1, "no probabilities.*`swathe segment .*--probability uint8`"),
        *[
            (f"{verb} {store} {'' if verb == 'stats' else f'-o x{ending}'}", 1, said)
            for verb, ending in zip(VERBS, (".zarr", ".zarr", ".parquet", "", ".html"), strict=True)
            for store, said in (
                ("begun.zarr", "begun.zarr is not finished; run the same `swathe segment` command again"),
                ("none.zarr", "no such store: none.zarr$"),
                ("foreign.zarr", "foreign.zarr exists and is not a Zarr store of Swathe's; give one that"),
                ("file.txt", "file.txt exists and is not a Zarr store of Swathe's; give one that"),
            )
        ],
        # outputs
        ("clean two.zarr -o x", 2, "x must end in .zarr or .tif"),
        ("clean two.zarr -o x.png", 2, "x.png must end in .zarr or .tif"),
        ("clean two.zarr -o two.zarr --min-object 3 --overwrite", 1, "two.zarr is what is read"),
        ("clean two.zarr -o ../{folder}/two.zarr --min-object 3 --overwrite", 1, "two.zarr is what is read"),
        ("clean two.zarr -o maps.zarr --min-object 3", 1, "belongs to another run .of `swathe segment`.*--over"),
        ("clean two.zarr -o objects.zarr --min-object 3", 1, "belongs to another run .of `swathe objects`"),
        ("clean two.zarr -o foreign.zarr --overwrite", 1, "not a Zarr store of Swathe's; choose another output"),
        ("clean two.zarr -o folder.tif", 1, "folder.tif is a folder"),
        ("clean two.zarr -o file.txt/x.zarr", 1, "Not a directory"),
        ("objects maps.zarr -o x.tif", 2, "x.tif must end in .zarr; for polygons see `swathe vectorise`"),
        ("objects maps.zarr -o x.parquet", 2, "x.parquet must end in .zarr; for polygons see `swathe vectorise`"),
        ("objects maps.zarr -o maps.zarr --overwrite", 1, "maps.zarr is what is read"),
        ("vectorise maps.zarr -o x.shp", 1, "not written as '.shp'; choose one of .parquet"),
        ("vectorise maps.zarr -o x.csv", 1, "not written as '.csv'"),
        ("vectorise maps.zarr -o x", 1, "choose one of .parquet"),
        ("vectorise maps.zarr -o folder.parquet", 1, "folder.parquet is a folder"),
        ("vectorise maps.zarr -o none/x.parquet", 1, "there is no folder .*none"),
        ("vectorise maps.zarr -o lists.parquet", 1, "lists.parquet exists; choose another output"),
        ("vectorise objects.zarr -o objects.zarr/table.parquet --overwrite", 1, "would lie in the store that is read"),
        ("stats maps.zarr -o x.xlsx", 1, r"x.xlsx: choose an ending .*\.csv, \.parquet"),
        ("stats maps.zarr -o folder.csv", 1, "folder.csv is a folder"),
        ("stats maps.zarr -o none/x.csv", 1, "there is no folder .*none"),
        ("stats objects.zarr -o objects.zarr/table.parquet --overwrite", 1, "would lie in the store that is read"),
        ("report maps.zarr -o x", 2, "x must end in .html"),
        ("report maps.zarr -o x.png", 2, "x.png must end in .html"),
        ("report maps.zarr -o folder.html", 1, "folder.html is a folder"),
        ("report maps.zarr -o file.txt/x.html", 1, "file.txt/x.html cannot be written"),
        ("report maps.zarr -o x.html --scene none.tif", 1, "no such file: none.tif"),
        ("report maps.zarr -o x.html --objects none.zarr", 1, "no such store: none.zarr"),
        ("report maps.zarr -o x.html --objects two.zarr", 1, "two.zarr holds no objects; `swathe objects"),
        ("report one.zarr -o x.html --objects objects.zarr", 1, "one pixel|grid|size"),
        # zones and cells
        ("stats maps.zarr --zones unplaced.parquet", 1, "the zones have no CRS; give them theirs"),
        ("stats nowhere.zarr --zones zones.gpkg", 1, "this scene has no CRS.*use cells in pixels"),
        ("stats maps.zarr --zones points.gpkg", 1, "zones are polygons; received a Point"),
        ("stats maps.zarr --zones none.gpkg", 1, "there are no zones"),
        ("stats maps.zarr --zones missing.gpkg", 1, "no such file of zones: missing.gpkg"),
        ("stats maps.zarr --zones file.txt", 1, "file.txt cannot be read as zones"),
        ("stats maps.zarr --zones layers.gpkg", 1, "has the layers one, two; choose one with --layer"),
        ("stats maps.zarr --zones layers.gpkg --layer three", 1, "no layer 'three'; it has: one, two"),
        ("stats maps.zarr --layer one", 1, "no zones are given"),
        ("stats maps.zarr --zones lists.parquet -o x.gpkg", 1, "'.gpkg' cannot hold the column many .*choose .parquet"),
        ("stats maps.zarr --zones lists.parquet -o x.csv", 1, "'.csv' cannot hold the column many .*choose .parquet"),
        ("stats maps.zarr --zones zones.gpkg -o zones.gpkg --overwrite", 1, "is the file of zones"),
        ("stats maps.zarr --zones zones.gpkg --cell 10", 1, "give zones or a cell, not both"),
        ("stats maps.zarr --cell '500 acres'", 1, "received '500 acres'"),
        ("stats maps.zarr --cell 0", 1, "larger than nothing"),
        ("stats nowhere.zarr --cell '500 m'", 1, "need a scene with a CRS.*in pixels"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_or_two_lines_and_nothing_is_written(swathe, line, code, said):
    before = everything(swathe.folder)
    done = swathe(*shlex.split(line.replace("{folder}", swathe.folder.name)))
    assert everything(swathe.folder) == before
    assert (done.code, done.out) == (code, ""), done
    assert "Traceback" not in done.err
    assert "internal" not in done.err
    assert re.search(said, done.error), done.err
    told = done.err[done.err.lower().index("error: ") :].splitlines()
    assert 1 <= len(told) <= 2, done.err
    others = done.err.splitlines()[: -len(told)]
    assert all(line.startswith(("swathe: ", "Usage: ", "Try ")) or not line for line in others), done.err


# what works


def test_examples_of_the_help_run_as_printed(swathe, tmp_path):
    """Each in the order of the verbs: one's output is another's input."""
    for name, source in (("maps.zarr", "two.zarr"), ("districts.gpkg", "zones.gpkg")):
        copy = shutil.copytree if name.endswith("zarr") else shutil.copy
        copy(swathe.folder / source, tmp_path / name)
    with shell(tmp_path) as run:
        made = []
        for verb in VERBS:
            examples = re.findall(r"Example:\s+swathe ((?:.+\n?)+)", run(verb, "--help").out)
            assert examples
            for example in examples:
                done = run(*shlex.split(" ".join(example.split())))
                assert done.code == 0, (example, done.err)
                made += re.findall(r"-o (\S+)", example)
    assert all((tmp_path / name).exists() for name in made)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") or "unfinished" in path.name]
    assert len(geopandas.read_file(tmp_path / "buildings.gpkg")) == 1  # of 200 pixels and more


@pytest.mark.parametrize(
    ("line", "steps", "said"),
    [
        ("clean two.zarr -o c.zarr --threshold 0.7 --hysteresis 0.4 --opening 1 --min-object '9 ha' --min-hole 200",
         ["joining what is above the lower threshold", "joining objects", "joining holes", "cleaning"],
         r"wrote c\.zarr in [\d.]+ s: 6 blocks, [\d.]+ Mpx/s"),
        ("clean two.zarr -o c.tif --opening 1", ["cleaning"], r"wrote c\.tif in [\d.]+ s: 6 blocks, [\d.]+ Mpx/s"),
        ("objects maps.zarr -o o.zarr",
             ["finding objects", "numbering objects", "measuring objects", "writing the table"],
         r"wrote o\.zarr in [\d.]+ s, its table is o\.zarr/table\.parquet"),
        ("vectorise maps.zarr -o v.fgb --connectivity 8",
         ["finding objects", "numbering objects", "measuring objects", "writing the table", "drawing outlines",
              "writing polygons"],
         r"wrote v\.fgb in [\d.]+ s: 4 features"),
        ("stats objects.zarr -o s.csv", ["adding up"], ".*objects.zarr"),
    ],
)  # fmt: skip
def test_progress_goes_to_one_stream_and_results_to_the_other(swathe, line, steps, said):
    words = shlex.split(line)
    done = swathe(*words)
    assert done.code == 0, done.err
    first, *lines = done.err.splitlines()
    assert first.startswith("swathe: ")
    assert list(dict.fromkeys(line.split(":")[0] for line in lines)) == steps
    for begun, ended in zip(lines[::2], lines[1::2], strict=True):
        count = int(re.search(r": 0 of (\d+) blocks done$", begun)[1])
        assert re.search(rf": {count} of {count} blocks, ([\d.]+ Mpx/s, )?(\d+ in work, )?0:00 left$", ended)
    assert re.fullmatch(said, done.out.splitlines()[0]), done.out
    quiet = swathe(*words, "--overwrite", "-q")
    assert (quiet.code, quiet.err) == (0, "")
    output = swathe.folder / words[words.index("-o") + 1]
    shutil.rmtree(output) if output.is_dir() else output.unlink()
    Path(f"{output}.aux.xml").unlink(missing_ok=True)


def test_the_tables_of_clean_and_objects_are_true(swathe, tmp_path):
    done = swathe("clean", "maps.zarr", "-o", tmp_path / "c.zarr", "--min-object", "1000", "-q")
    table = {line.split()[0]: int(line.split()[1].replace(",", "")) for line in done.out.splitlines()[2:]}
    counts = np.bincount(open_maps(tmp_path / "c.zarr").class_map.values.ravel(), minlength=256)
    assert table == {"background": counts[0], "building": counts[1], "road": counts[2], "nodata": counts[255]}
    done = swathe("objects", "maps.zarr", "-o", tmp_path / "o.zarr", "-q")
    _, objects = open_objects(tmp_path / "o.zarr")
    told = {line.split(":")[0].strip(): int(line.split()[1]) for line in done.out.splitlines()[1:]}
    assert told == objects["class"].value_counts().to_dict()
    assert "1 object\n" in done.out


def test_a_geotiff_has_the_map_alone_and_nothing_was_made_for_nothing(swathe, tmp_path, monkeypatch):
    swathe("clean", "two.zarr", "-o", tmp_path / "c.zarr", "--min-object", "300", "-q")
    swathe("clean", "two.zarr", "-o", tmp_path / "c.tif", "--min-object", "300", "-q")
    with rasterio.open(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(1), open_maps(tmp_path / "c.zarr").class_map.values)
    again = swathe("clean", "two.zarr", "-o", tmp_path / "c.tif", "--min-object", "300", "-q")
    assert "6 of them done before" in again.out
    other = swathe("clean", "two.zarr", "-o", tmp_path / "c.tif", "--min-object", "301", "-q")
    assert (other.code, "c.tif exists" in other.error) == (1, True)


@pytest.mark.parametrize(("store", "count"), [
    ("one.zarr", 1),
    *[pytest.param(*one, marks=pytest.mark.slow) for one in (
        ("nowhere.zarr", 4), ("turned.zarr", 4), ("degrees.zarr", 4), ("empty.zarr", 0), ("full.zarr", 1),
        ("unobserved.zarr", 0),
        ("chess.zarr", 130 * 130 // 2),
    )],
])  # fmt: skip
def test_odd_stores_go_through_all_verbs(swathe, tmp_path, store, count):
    """Rotated, without CRS, in degrees, one pixel, nothing found, one object over all, nothing seen, a chessboard."""
    for line in (
        "clean {store} -o {folder}/c.zarr --opening 0 --min-hole 1 -q",
        "objects {folder}/c.zarr -o {folder}/o.zarr -q",
        "vectorise {folder}/o.zarr -o {folder}/v.parquet -q",
        "vectorise {folder}/o.zarr -o {folder}/v.geojson --simplify 1.5 -q",
        "stats {folder}/o.zarr -o {folder}/s.parquet -q",
        "stats {folder}/o.zarr --cell '50 px' -o {folder}/s.csv -q",
        "report {folder}/c.zarr --objects {folder}/o.zarr -o {folder}/r.html",
    ):
        done = swathe(*shlex.split(line.format(store=store, folder=tmp_path)))
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
        assert "Warning" not in done.err
    frame = geopandas.read_parquet(tmp_path / "v.parquet")
    _, table = open_objects(tmp_path / "o.zarr")
    assert len(frame) == len(table) == count
    whole = geopandas.read_parquet(tmp_path / "s.parquet")
    assert int(whole[["building_count", "road_count"]].sum(axis=1).iloc[0]) == count
    cells = pandas.read_csv(tmp_path / "s.csv")
    assert int(cells[["building_count", "road_count"]].sum().sum()) == count
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".sha256") == [
        "c.zarr", "o.zarr", "r.html", "s.csv", "s.csv.swathe", "s.parquet", "v.geojson", "v.parquet",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_component_that_fills_the_mosaic_and_a_chessboard(swathe, tmp_path):
    """Sizes just above and below: all goes or all stays."""
    for store, size, connectivity, left in (
        ("full.zarr", 150 * 150, 4, 150 * 150),
        ("full.zarr", 150 * 150 + 1, 4, 0),
        ("chess.zarr", 2, 4, 0),
        ("chess.zarr", 130 * 130 // 2, 8, 130 * 130 // 2),
        ("chess.zarr", 130 * 130 // 2 + 1, 8, 0),
    ):
        output = tmp_path / f"{size}.{connectivity}.{store}"
        words = ["--min-object", size, "--connectivity", connectivity, "-q"]
        assert swathe("clean", store, "-o", output, *words).code == 0
        assert int((open_maps(output).class_map.values == 1).sum()) == left


@pytest.mark.parametrize(("zones", "pixels", "said"), [
    ("zones.gpkg", 90 * 80, None), ("zones.geojson", 90 * 80, None), ("layers.gpkg --layer two", 90 * 80, None),
    ("away.gpkg", 0, "1 zone of 1 outside the scene"), ("crossed.gpkg", 3200, "1 zone with an invalid geometry mended"),
])  # fmt: skip
def test_zones_in_any_crs_outside_and_mended(swathe, tmp_path, zones, pixels, said):
    done = swathe("stats", "maps.zarr", "--zones", *zones.split(), "-o", tmp_path / "s.parquet")
    assert done.code == 0, done.err
    frame = geopandas.read_parquet(tmp_path / "s.parquet")
    shown = sum(frame[f"{name}_pixels"].iloc[0] for name in ("background", "building", "road"))
    assert shown + frame["nodata_pixels"].iloc[0] == pytest.approx(pixels, rel=2e-3)
    assert frame["name"].tolist() == ["a"]
    assert (said or "note: no object table") in done.out


def test_a_run_with_other_settings_is_told_which(swathe, tmp_path):
    """Also where the one before had a setting more: what is left out is not what was asked for."""
    output = tmp_path / "c.zarr"
    first = ["clean", "two.zarr", "-o", output, "--min-object", "300", "--min-hole", "40", "-q"]
    assert swathe(*first).code == 0
    before = everything(output)
    for words, named in (
        (["--min-object", "300"], r"min_hole None, there 40 px"),
        (["--min-object", "300", "--min-hole", "40", "--opening", "1"], r"opening 1, there None"),
        (["--min-object", "301", "--min-hole", "40"], r"min_object 301 px, there 300 px"),
        ([], r"min_object None, there 300 px; min_hole None, there 40 px"),
    ):
        done = swathe("clean", "two.zarr", "-o", output, *words, "-q")
        assert done.code == 1
        assert re.search(rf"belongs to another run .*{named}.*pass --overwrite", done.error), done.error
        assert everything(output) == before
    other = swathe("clean", "maps.zarr", "-o", output, *first[4:])
    assert other.code == 0 or "another" in other.error
    assert "6 of them done before" in swathe(*first).out
    assert swathe("clean", "two.zarr", "-o", output, "--min-object", "301", "--overwrite", "-q").code == 0
    assert swathe(*first).code == 1


def test_the_installed_command_is_the_same(swathe, tmp_path):
    """What the tests above run in forks, once in full."""
    words = ["stats", "objects.zarr", "-o", tmp_path / "s.csv", "-q"]
    real = subprocess.run([SWATHE, *words], cwd=swathe.folder, capture_output=True, text=True, timeout=120)
    again = swathe(*words, "--overwrite")
    assert (real.returncode, real.stdout, real.stderr) == (again.code, again.out, again.err)


def test_publish_says_what_there_is(swathe, tmp_path):
    out = tmp_path / "out"
    done = swathe("publish", "maps.zarr", "-o", out, "--side", 512)
    assert done.code == 0, done.err
    assert done.out.startswith(f"published {out} in ")
    assert f"file, 0.0 MB; open {out}/mosaic.vrt" in done.out or f"files, 0.0 MB; open {out}/mosaic.vrt" in done.out
    assert done.err.startswith("swathe: publishing maps.zarr\npublishing: 0 of ")
    again = swathe("publish", "maps.zarr", "-o", out, "--side", 512, "-q")
    assert (again.out.partition(":")[0], again.err) == (f"{out} is already complete", "")
    wrong = swathe("publish", "maps.zarr", "-o", out, "--side", 1000, "-q")
    assert (wrong.code, wrong.error) == (1, "error: side is a multiple of 512 pixels, at most 131,072; received 1000")
