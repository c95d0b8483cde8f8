"""GeoPackages with layers of the user's: ours is added or replaced, all else stays, or the file is left alone."""

import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
from shapely.geometry import box
from stores import UTM, town, write_store

from models.errors import SwatheError
from pipeline import write_statistics, write_vectors


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("town") / "town.zarr", town())


@pytest.fixture
def mine(tmp_path) -> Path:
    """A file with two layers, a table without shapes, and styles as QGIS keeps them."""
    path = tmp_path / "mine.gpkg"
    for layer, side in (("survey", 1), ("Roads of 2026", 2)):
        geopandas.GeoDataFrame({"n": [side]}, geometry=[box(0, 0, side, side)], crs=UTM).to_file(path, layer=layer)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE layer_styles (id INTEGER PRIMARY KEY, f_table_name TEXT, styleQML TEXT)")
        database.execute("INSERT INTO layer_styles VALUES (1, 'survey', '<qgis/>'), (2, 'mine', '<qgis/>')")
        database.execute("CREATE TABLE notes (line TEXT)")
        database.execute("INSERT INTO notes VALUES ('do not lose me')")
        database.commit()
    return path


def others(path: Path) -> list[str]:
    """All rows and tables of the user's, as SQL."""
    with closing(sqlite3.connect(path)) as database:
        lines = list(database.iterdump())
    names = ("survey", "Roads of 2026", "layer_styles", "notes")
    return [line for line in lines if any(f'"{name}' in line or f"'{name}'" in line for name in names)]


def write(verb, store, path, **more):
    if verb == "vectorise":
        return write_vectors(store, path, show=False, **more).notes
    return write_statistics(store, path, cell=50, show=False, **more).attrs["notes"]


@pytest.mark.parametrize("verb", ["vectorise", "stats"])
def test_one_layer_is_added_then_replaced_and_all_else_stays(store, mine, verb):
    before = others(mine)
    assert len(before) > 8
    for round in range(2):
        notes = write(verb, store, mine, overwrite=bool(round))
        assert any("holds more, which stays as it was: Roads of 2026, survey" in note for note in notes)
        assert {name for name, _ in pyogrio.list_layers(mine)} >= {"survey", "Roads of 2026", "mine"}
        assert others(mine) == before
    again = mine.with_name("again.gpkg")
    write(verb, store, again)
    found, right = pyogrio.read_dataframe(mine, layer="mine"), pyogrio.read_dataframe(again)
    assert found.equals(right)
    assert found.crs == right.crs
    assert [name for name, _ in pyogrio.list_layers(again)] == ["again"]
    assert not list(mine.parent.glob("*partial*"))
    assert not list(mine.parent.glob("*unfinished*"))


def test_a_layer_of_that_name_needs_overwrite(store, mine):
    write_vectors(store, mine, show=False)
    before = mine.read_bytes()
    with pytest.raises(SwatheError, match=r"has a layer 'mine'; .*pass --overwrite to replace that layer"):
        write_vectors(store, mine, connectivity=8, show=False)
    write_vectors(store, mine, show=False)  # the very same is there already
    alone = mine.with_name("alone.gpkg")
    write_vectors(store, alone, show=False)
    with pytest.raises(SwatheError, match=r"alone[.]gpkg exists; choose another output"):
        write_statistics(store, alone, show=False)
    assert mine.read_bytes() == before


def test_names_in_other_letters_and_tables_of_that_name(store, mine):
    other = mine.rename(mine.with_name("SURVEY.gpkg"))
    write_vectors(store, other, show=False, overwrite=True)
    assert sorted(name for name, _ in pyogrio.list_layers(other)) == [
        "Roads of 2026",
        "layer_styles",
        "notes",
        "survey",
    ]
    assert len(pyogrio.read_dataframe(other, layer="survey")) > 1
    table = other.rename(other.with_name("notes.gpkg"))
    before = table.read_bytes()
    with pytest.raises(SwatheError, match="has a table 'notes' that is no layer of shapes"):
        write_vectors(store, table, show=False, overwrite=True)
    assert table.read_bytes() == before


def _open_elsewhere(path):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("INSERT INTO notes VALUES ('from QGIS')")
    return database


def _locked(path):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    return database


@pytest.mark.parametrize(
    ("hold", "said"),
    [(_open_elsewhere, "is open in another program"), (_locked, "is being written by another program")],
)
@pytest.mark.parametrize("verb", ["vectorise", "stats"])
def test_a_file_in_use_is_left_alone(store, mine, hold, said, verb):
    with closing(hold(mine)) as database:
        before = mine.read_bytes()
        with pytest.raises(SwatheError, match=said):
            write(verb, store, mine, overwrite=True)
        assert mine.read_bytes() == before
        assert database.execute("SELECT count(*) FROM notes").fetchone()[0] >= 1
    assert sorted(path.name for path in mine.parent.iterdir() if path.suffix == ".gpkg") == ["mine.gpkg"]


def test_other_databases_and_damaged_ones_are_left_alone(store, tmp_path):
    tiles = tmp_path / "tiles.gpkg"
    with closing(sqlite3.connect(tiles)) as database:
        database.execute("CREATE TABLE tiles (data BLOB)")
        database.commit()
    damaged = tmp_path / "damaged.gpkg"
    damaged.write_bytes(b"SQLite format 3\0" + np.random.default_rng(0).bytes(5000))
    for path, said in ((tiles, "is a database, but no GeoPackage"), (damaged, "is damaged")):
        before = path.read_bytes()
        with pytest.raises(SwatheError, match=said):
            write_vectors(store, path, show=False, overwrite=True)
        assert path.read_bytes() == before


def test_what_is_changed_meanwhile_is_not_replaced(store, mine, monkeypatch):
    from pipeline.vector import write as writing

    count = writing._count

    def change(part, layer=None):
        with closing(sqlite3.connect(mine)) as database:
            database.execute("INSERT INTO notes VALUES ('meanwhile')")
            database.commit()
        return count(part, layer)

    monkeypatch.setattr(writing, "_count", change)
    with pytest.raises(SwatheError, match="was changed by another program meanwhile"):
        write_vectors(store, mine, show=False)
    assert "mine" not in {name for name, _ in pyogrio.list_layers(mine)}


def test_a_remote_file_keeps_its_layers_too(store, mine):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put_file(str(mine), "/maps/mine.gpkg")
    write_statistics(store, "memory://maps/mine.gpkg", show=False)
    memory.get_file("/maps/mine.gpkg", str(mine.with_name("back.gpkg")))
    assert others(mine.with_name("back.gpkg")) == others(mine)
    assert "mine" in {name for name, _ in pyogrio.list_layers(mine.with_name("back.gpkg"))}
    write_statistics(store, "memory://maps/mine.gpkg", show=False)  # the very same is there already
    with pytest.raises(SwatheError, match="has a layer 'mine'"):
        write_statistics(store, "memory://maps/mine.gpkg", cell=64, show=False)


@pytest.mark.slow
def test_a_file_of_that_layer_alone_is_made_anew(store, tmp_path):
    path = tmp_path / "o.gpkg"
    write_vectors(store, path, show=False)
    before = path.read_bytes()
    write_vectors(store, path, show=False, overwrite=True)
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE notes (line TEXT)")
        database.commit()
    write_vectors(store, path, show=False, overwrite=True)
    assert "notes" in {name for name, _ in pyogrio.list_layers(path)}
