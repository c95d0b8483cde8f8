"""Cells written in parts: the same figures as in memory, in the same order, in every format, killed or not."""

import time

import geopandas
import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from masks import blobs
from stores import write_store
from test_durable import content
from test_durable_verbs import stopped_after

from models.errors import SwatheError
from pipeline import compute_statistics, write_cells, write_objects
from pipeline.objects import tree as trees
from pipeline.objects.parts import METADATA
from pipeline.stats import cell_parts
from pipeline.stats.cells import Cells
from pipeline.stats.table import describe_statistics

QUICK = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.fixture(scope="module")
def case(tmp_path_factory, client):
    folder = tmp_path_factory.mktemp("cells")
    class_map = blobs((90, 110), width=2, share=0.4).astype(np.uint8)
    class_map[50:70, 20:60] = 2
    class_map[:20, :30] = 255
    write_store(folder / "maps.zarr", class_map, block=32)
    write_objects(folder / "maps.zarr", folder / "objects.zarr", client=client, show=False)
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of few cells, so that a small map has many."""
    monkeypatch.setattr(cell_parts, "SIDE", 24)
    monkeypatch.setattr(cell_parts, "MOST", (3, 3))


def assert_same(found: pandas.DataFrame, wanted: pandas.DataFrame) -> None:
    for name in wanted.columns.drop("geometry"):
        exact = name in ("row", "column") or name.endswith(("_pixels", "_count"))
        np.testing.assert_allclose(found[name], wanted[name], rtol=0 if exact else 1e-12, err_msg=name)


@given(cell=st.integers(1, 130), side=st.sampled_from([8, 24, 100]), most=st.integers(1, 5))
@settings(max_examples=3, phases=QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_cells_of_any_size_and_parts_are_those_of_memory(case, tmp_path_factory, client, cell, side, most):
    cell = max(cell, 14)
    path = tmp_path_factory.mktemp("any") / "c.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_parts, "SIDE", side)
        patch.setattr(cell_parts, "MOST", (most, 2 * most))
        made = write_cells(case / "objects.zarr", path, cell, client=client, show=False)
    wanted = compute_statistics(case / "objects.zarr", cell=cell, client=client, show=False)
    found = geopandas.read_parquet(path)
    assert_same(found, wanted)
    assert found.geometry.geom_equals_exact(wanted.geometry, 0).all()
    assert found.crs == wanted.crs
    assert made.rows == len(wanted)
    shown = describe_statistics(made.summary)
    if made.rows > 1:
        assert shown == describe_statistics(wanted)


@pytest.mark.parametrize("ending", ["csv", "gpkg", "parquet/"])
def test_cells_in_every_format(case, tmp_path, client, ending):
    made = write_cells(case / "objects.zarr", f"{tmp_path}/c.{ending}", 16, client=client, show=False)
    wanted = compute_statistics(case / "objects.zarr", cell=16, client=client, show=False)
    path = tmp_path / f"c.{ending}"
    if ending == "csv":
        found = pandas.read_csv(path)
        np.testing.assert_array_equal(found[["xmin", "ymin", "xmax", "ymax"]], wanted.bounds)
    elif ending == "gpkg":
        found = geopandas.read_file(path)
    else:
        found = geopandas.read_parquet(path).sort_values(["row", "column"], ignore_index=True)
        assert len(list(path.glob("part-*"))) > 4
        assert (path / METADATA).is_file()
    assert_same(found, wanted)
    assert made.rows == len(wanted)
    assert [one.name for one in tmp_path.iterdir() if one.suffix not in (".sha256", ".swathe")] == [path.name]


@pytest.mark.parametrize("output", ["c/", "c.csv"])
def test_stopped_and_continued(case, tmp_path, monkeypatch, client, output):
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, 3, "cells-write_part")
        with pytest.raises(KeyboardInterrupt):
            write_cells(case / "objects.zarr", f"{tmp_path}/{output}", 8, client=client, show=False)
    time.sleep(0.3)
    parts = {path: path.stat().st_ino for path in tmp_path.rglob("part-*")}
    assert len(parts) >= 3
    made = write_cells(case / "objects.zarr", f"{tmp_path}/{output}", 8, client=client, show=False)
    whole = tmp_path / "whole"
    whole.mkdir()
    write_cells(case / "objects.zarr", f"{whole}/{output}", 8, client=client, show=False)
    if output == "c/":
        assert content(tmp_path / "c") == content(whole / "c")
        assert {path: path.stat().st_ino for path in parts} == parts
        before = content(tmp_path / "c")
        again = write_cells(case / "objects.zarr", f"{tmp_path}/{output}", 8, client=client, show=False)
        pandas.testing.assert_frame_equal(again.summary, made.summary)
        assert content(tmp_path / "c") == before
        with pytest.raises(SwatheError, match="belongs to another run"):
            write_cells(case / "objects.zarr", f"{tmp_path}/{output}", 9, client=client, show=False)
    else:
        assert (tmp_path / output).read_bytes() == (whole / output).read_bytes()


def test_without_objects_and_without_a_position(tmp_path, client):
    write_store(tmp_path / "m.zarr", np.eye(40, dtype=np.uint8), block=16, crs=None, transform=None)
    made = write_cells(tmp_path / "m.zarr", tmp_path / "c.parquet", 10, client=client, show=False)
    wanted = compute_statistics(tmp_path / "m.zarr", cell=10, client=client, show=False)
    assert_same(geopandas.read_parquet(tmp_path / "c.parquet"), wanted)
    assert made.summary.attrs["notes"] == wanted.attrs["notes"]
    assert describe_statistics(made.summary) == describe_statistics(wanted)


@pytest.mark.parametrize(
    ("output", "message"),
    [("c.xyz", "choose an ending"), ("objects.zarr/c/", "would lie in the store"), ("c.gpkg/", "a folder of parts is")],
)
def test_refusals(case, client, output, message):
    with pytest.raises(SwatheError, match=message):
        write_cells(case / "objects.zarr", f"{case}/{output}", 16, client=client, show=False)


def test_a_scene_of_a_million_blocks_has_few_parts(monkeypatch):
    monkeypatch.undo()
    size = 2_048_000
    for side in (1000, 1, 64, 50_000):
        cells = Cells(size, size, side, side)
        down, across = cell_parts._shape(cells)
        rows, columns = down * side, across * side
        assert down <= cell_parts.MOST[0]
        assert across <= cell_parts.MOST[1]
        parts = -(-cells.rows // down) * -(-cells.columns // across)
        assert parts <= cell_parts.MOST_PARTS or (down, across) == cell_parts.MOST
        assert rows * columns <= max((2 * size / 64) ** 2, side**2)
