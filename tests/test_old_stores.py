"""Stores written before the release 0.1.0, with the names of then: they open, continue, and count as finished.

`data/stores_before_0_1.zip` was written by the code before all was renamed: a scene, its maps, these cleaned, their
objects, and a run that was stopped after three of nine blocks. `data/store_with_markers.zip` was written by the code
before markers went into records: a run of the same scene that was stopped after seven blocks.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from models import SwatheError, engine
from pipeline import compute_statistics, open_maps, open_objects, run, write_clean, write_objects, write_vectors
from pipeline.objects.table import COLUMNS
from pipeline.store.store import open_store, read_metadata

CLEANING = {"threshold": 0.3, "opening": 1, "element": "square", "min_object": 3}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.unpack_archive(Path(__file__).parent / "data" / "stores_before_0_1.zip", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}


def test_a_run_that_was_stopped_is_continued(folder: Path) -> None:
    result = run("scene.tif", "buildings", "begun.zarr", block=32, halo=0, threshold="likeliest", show=False)
    assert (result.blocks, result.resumed) == (9, 3)
    whole, continued = (open_maps(name).class_map.values for name in ("maps.zarr", "begun.zarr"))
    assert (whole == continued).mean() > 0.999  # another processor may round another way


@pytest.mark.parametrize("record", [4096, 3])
def test_a_run_whose_markers_no_record_has_is_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: int
) -> None:
    from pipeline.store import ledger

    shutil.unpack_archive(Path(__file__).parent / "data" / "store_with_markers.zip", folder)
    monkeypatch.setattr(ledger, "RECORD", record)
    begun = read_metadata("begun_markers.zarr")
    assert begun is not None
    monkeypatch.setattr(engine, "cpu_name", lambda: begun.identity["hardware"])  # as if it had begun on this machine
    result = run("scene.tif", "buildings", "begun_markers.zarr", block=32, halo=0, threshold="likeliest", show=False)
    assert (result.blocks, result.resumed) == (9, 7)
    whole, continued = (open_maps(name).class_map.values for name in ("maps.zarr", "begun_markers.zarr"))
    assert (whole == continued).mean() > 0.999
    assert result.pixels == {**open_store("begun_markers.zarr")[1].pixels}
    assert sum(result.pixels.values()) == whole.size


def test_finished_stores_count_as_finished(folder: Path) -> None:
    before = written(folder)
    again = run("scene.tif", "buildings", "maps.zarr", block=32, halo=0, threshold="likeliest", show=False)
    assert again.resumed == 9
    assert write_clean("maps.zarr", "clean.zarr", show=False, **CLEANING).resumed == 9
    assert write_objects("clean.zarr", "objects.zarr", show=False).resumed == 9
    assert written(folder) == before


def test_they_are_read_by_every_verb(folder: Path) -> None:
    maps, table = open_objects("objects.zarr")
    assert len(table) == 10
    assert len(np.unique(maps.objects)) == 11
    assert list(table.columns) == [column.name for column in COLUMNS]
    np.testing.assert_allclose(table.perimeter_m, table.perimeter_px * (table.area_m2 / table.area_px) ** 0.5)
    write_vectors("objects.zarr", "objects.geojson", show=False)
    assert len(json.loads((folder / "objects.geojson").read_text())["features"]) == 10
    assert compute_statistics("objects.zarr", show=False)["building_count"].tolist() == [10]


def test_other_settings_are_named_in_the_words_of_now(folder: Path) -> None:
    with pytest.raises(SwatheError, match="element"):
        write_clean("maps.zarr", "clean.zarr", show=False, **{**CLEANING, "element": "disk"})
