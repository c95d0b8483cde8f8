"""Tables and polygons in parts: together they are the single file, however many tasks wrote them, killed or not."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from masks import blobs, spiral
from skimage.measure import regionprops_table
from stores import label_ids, write_store
from test_durable import SWATHE, content
from test_durable_verbs import stopped_after
from test_planned_blocks import GivenJob

from models.errors import SwatheError
from pipeline import Outlines, compute_statistics, open_objects, write_objects, write_vectors
from pipeline.grid.geobox import Window
from pipeline.jobs.job import run_job
from pipeline.objects import tree as trees
from pipeline.objects.parts import MANIFEST, METADATA, Dataset, table_files
from pipeline.objects.tree import FAN, Tree
from pipeline.stats.object_stats import read_objects

SHAPE = (100, 90)
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)  # an example takes a second: making it smaller takes minutes


@pytest.fixture(scope="module")
def case(tmp_path_factory, client):
    """Objects of 7 x 6 blocks, some of which cross the borders of parts, and their polygons as one file."""
    folder = tmp_path_factory.mktemp("parts")
    class_map = blobs(SHAPE, width=1.2, share=0.4).astype(np.uint8)
    class_map[30:90, 22:86] = 2 * spiral((60, 64), gap=7)
    class_map[:20, :20] = 255
    write_store(folder / "maps.zarr", class_map, block=16)
    write_objects(folder / "maps.zarr", folder / "objects.zarr", client=client, show=False)
    write_vectors(folder / "objects.zarr", folder / "one.parquet", client=client, show=False)
    return folder


def by_id(table: pandas.DataFrame) -> pandas.DataFrame:
    return table.sort_values("id", ignore_index=True)


def write(case: Path, output: str, **more) -> object:
    return write_vectors(case / "objects.zarr", output, show=False, **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@given(rows=st.integers(1, 400), columns=st.integers(1, 400), most=st.sampled_from([1, 7, 4096]))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_node_of_a_tree_is_of_exactly_one_part(rows, columns, most):
    tree = Tree(rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "MOST_PARTS", most)
        parts = list(tree.parts())
        found = [node for part in parts for node in tree.nodes_of(part)]
    every = [node for level in range(tree.top + 1) for node in tree.places(level)]
    assert sorted(found) == sorted(every)
    assert sum(part[0] == parts[0][0] for part in parts) <= most
    grouped = [node for level in range(tree.top + 1) for group in tree.groups(level) for node in group]
    assert sorted(grouped) == sorted(every)
    assert max(len(group) for group in tree.groups(0)) <= trees.GROUP**2


def test_the_table_of_many_blocks_is_in_parts_and_that_of_few_a_file(case, tmp_path, client):
    folder = case / "objects.zarr" / "table.parquet"
    parts = [name for name in names(folder) if name.startswith("part-")]
    assert len(parts) > 2
    assert names(folder)[: -len(parts)] == ["_common_metadata", METADATA]
    for frame in (pandas.read_parquet(folder), ds.parquet_dataset(folder / METADATA).to_table().to_pandas()):
        pandas.testing.assert_frame_equal(frame, open_objects(case / "objects.zarr")[1])
    write_store(tmp_path / "few.zarr", np.eye(60, dtype=np.uint8), block=16)
    write_objects(tmp_path / "few.zarr", tmp_path / "o.zarr", client=client, show=False)
    assert table_files(str(tmp_path / "o.zarr")) == ["table.parquet"]
    assert len(pq.read_table(tmp_path / "o.zarr" / "table.parquet")) == 60


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    block=st.sampled_from([8, 16, 32]),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=3, phases=QUICK, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_of_any_map_and_blocks_are_regionprops_of_the_whole(
    tmp_path_factory, client, height, width, block, share, seed
):
    folder, draw = tmp_path_factory.mktemp("any"), np.random.default_rng(seed)
    class_map = np.where(draw.random((height, width)) < share, draw.integers(1, 3, (height, width)), 0).astype(np.uint8)
    write_store(folder / "m.zarr", class_map, block=block, overviews=False)
    write_objects(folder / "m.zarr", folder / "o.zarr", client=client, show=False)
    made = write_vectors(folder / "o.zarr", f"{folder}/v/", client=client, show=False)
    write_vectors(folder / "o.zarr", folder / "v.parquet", client=client, show=False)
    ids = label_ids(class_map)
    wanted = regionprops_table(ids, properties=("label", "area", "centroid"))
    table, parts = by_id(open_objects(folder / "o.zarr")[1]), by_id(geopandas.read_parquet(folder / "v"))
    for frame in (table, parts):
        assert frame["id"].tolist() == wanted["label"].tolist()
        assert frame["area_px"].tolist() == wanted["area"].tolist()
        np.testing.assert_allclose(frame["centroid_y_px"], wanted["centroid-0"])
    np.testing.assert_allclose(parts.area, wanted["area"] * 100)  # pixels of 10 m
    pandas.testing.assert_frame_equal(parts, by_id(geopandas.read_parquet(folder / "v.parquet")))
    assert made.features == len(parts)


def test_a_dataset_is_the_single_file_in_every_reader(case, tmp_path, client):
    made = write(case, f"{tmp_path}/all.parquet/", client=client)
    folder, one = tmp_path / "all.parquet", geopandas.read_parquet(case / "one.parquet")
    assert names(tmp_path) == ["all.parquet"]
    found = geopandas.read_parquet(folder)
    pandas.testing.assert_frame_equal(found, one)  # row for row: the file has the parts in their order
    assert made.features == len(one)
    assert found.crs == one.crs
    assert ds.parquet_dataset(folder / METADATA).count_rows() == len(one)
    with duckdb.connect() as database:
        query = f"select count(*), sum(area_px) from read_parquet('{folder}/*.parquet')"
        assert database.execute(query).fetchone() == (len(one), one["area_px"].sum())
    geo = json.loads(pq.read_metadata(folder / METADATA).metadata[b"geo"])["columns"]["geometry"]
    assert geo["bbox"] == one.total_bounds.tolist()
    assert set(geo["geometry_types"]) == set(one.geom_type)
    west, south, _, _ = one.total_bounds
    near = geopandas.read_parquet(folder, bbox=(west, south, west + 300, south + 300))
    assert 0 < len(near) < len(one)
    boxes = one.bounds
    assert set(near["id"]) == set(one[(boxes.minx <= west + 300) & (boxes.miny <= south + 300)]["id"])


def test_each_object_is_in_the_part_in_which_it_ends(case, tmp_path, client):
    write(case, f"{tmp_path}/v/", client=client)
    tall = 16 * FAN
    for path in (tmp_path / "v").glob("part-*"):
        level, row, column = map(int, path.stem.split("-")[1:])
        rows = pq.read_table(path).to_pandas()
        places = [(rows[f"bbox_{side}_px"] - (side > "mi" and side[:3] == "max")) // tall for side in
                  ("miny", "maxy", "minx", "maxx")]  # fmt: skip
        inside = (places[0] == places[1]) & (places[2] == places[3])
        if level == 1:
            assert inside.all()
            assert (places[0] == row).all()
            assert (places[2] == column).all()
        else:
            assert (row, column) == (0, 0)
            assert not inside.all()


@pytest.mark.parametrize("output", ["v/", "v.parquet"])
def test_workers_and_their_order_change_no_byte(case, tmp_path, client, output):
    more = {"outlines": Outlines(simplify=1.5, classes=("road",))}
    for name, workers in (("a", client), ("b", None)):
        (tmp_path / name).mkdir()
        write(case, f"{tmp_path}/{name}/{output}", client=workers, **more)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert set(geopandas.read_parquet(tmp_path / "a" / output)["class"]) == {"road"}


def test_nothing_is_a_dataset_too(tmp_path, client):
    write_store(tmp_path / "m.zarr", np.zeros((100, 100), np.uint8), block=16)
    assert write_vectors(tmp_path / "m.zarr", f"{tmp_path}/v/", client=client, show=False).features == 0
    found = geopandas.read_parquet(tmp_path / "v")
    assert (len(found), found.crs) == (0, "EPSG:32736")
    assert [name for name in names(tmp_path / "v") if name.startswith("part-")] == ["part-01-000000-000000.parquet"]


def test_the_same_call_again_says_that_all_is_there(case, tmp_path, client):
    first = write(case, f"{tmp_path}/v/", client=client)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for output in (f"{tmp_path}/v/", tmp_path / "v"):  # a Path has no / at its end, and need not
        again = write(case, output, client=client)
        assert again.features == first.features
        assert again.notes == ("all of it was there already; --overwrite writes it again",)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    whole = content(tmp_path / "v")
    with pytest.raises(SwatheError, match="belongs to another run; choose another output, or pass --overwrite"):
        write(case, f"{tmp_path}/v/", client=client, outlines=Outlines(simplify=2))
    assert content(tmp_path / "v") == whole
    write(case, f"{tmp_path}/v/", client=client, outlines=Outlines(classes=("road",)), overwrite=True)
    assert set(geopandas.read_parquet(tmp_path / "v")["class"]) == {"road"}
    write(case, f"{tmp_path}/v/", client=client, overwrite=True)
    assert content(tmp_path / "v") == whole


@pytest.mark.parametrize(("key", "results"), [("polygons-reduce_rows-0", 20), ("features-write_part-1", 2)])
@pytest.mark.parametrize("output", ["v/", "v.gpkg"])
def test_stopped_and_continued(case, tmp_path, monkeypatch, client, output, key, results):
    whole = case / output.replace("/", "")
    if not whole.exists():
        write(case, f"{case}/{output}", client=client)
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, results, key)
        with pytest.raises(KeyboardInterrupt):
            write(case, f"{tmp_path}/{output}", client=client)
    time.sleep(0.3)  # what the worker had begun, it ends
    assert not (tmp_path / output.rstrip("/") / METADATA).exists()
    parts = {path: path.stat().st_ino for path in tmp_path.rglob("part-*.parquet")}
    assert len(parts) >= (results - 2 if "features" in key else 0)
    if output == "v/":  # as a kill leaves it
        (tmp_path / "v" / f"part-01-000000-000000.parquet.{'0' * 32}.partial").write_text("half")
    write(case, f"{tmp_path}/{output}", client=client)
    if output == "v/":
        assert content(tmp_path / "v") == content(whole)
        assert {path: path.stat().st_ino for path in parts} == parts
    else:
        pandas.testing.assert_frame_equal(geopandas.read_file(tmp_path / output), geopandas.read_file(whole))
    assert names(tmp_path) == (["v"] if output == "v/" else [output, f"{output}.sha256"])  # parts have no digests


def test_parts_that_were_removed_meanwhile_are_not_taken_for_written(case, tmp_path, monkeypatch, client):
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, 2, "features-write_part-1")
        with pytest.raises(KeyboardInterrupt):
            write(case, f"{tmp_path}/v/", client=client)
    time.sleep(0.3)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "v.unfinished", kept)
    next((tmp_path / "v").glob("part-*")).unlink()
    with pytest.raises(SwatheError, match=r"v has .* rows: parts were removed; pass --overwrite"):
        write(case, f"{tmp_path}/v/", client=client)
    shutil.rmtree(tmp_path / "v")  # all of it gone: it is written anew
    count = write(case, f"{tmp_path}/v/", client=client).features
    assert len(geopandas.read_parquet(tmp_path / "v")) == count == len(pq.read_table(case / "one.parquet"))


@pytest.mark.slow
def test_tables_of_before_are_read_in_their_own_order(case, tmp_path, monkeypatch, client):
    """They were one file, level by level of the tree, whatever the number of blocks."""
    with monkeypatch.context() as patch:
        patch.setattr(Tree, "part_level", property(lambda tree: 0))
        write_objects(case / "maps.zarr", tmp_path / "old.zarr", client=client, show=False)
    table = tmp_path / "old.zarr" / "table.parquet"
    rows = pq.read_table([table / name for name in names(table) if name.startswith("part-")])
    shutil.rmtree(table)
    pq.write_table(rows, table)
    assert rows["id"].to_pylist() != pq.read_table(case / "one.parquet")["id"].to_pylist()
    for output in ("v/", "v.parquet"):
        write_vectors(tmp_path / "old.zarr", f"{tmp_path}/{output}", client=client, show=False)
        found = geopandas.read_parquet(tmp_path / output.rstrip("/"))
        pandas.testing.assert_frame_equal(found, geopandas.read_parquet(case / "one.parquet"))
    pq.write_table(rows.slice(3), table)
    with pytest.raises(SwatheError, match="is damaged: its table"):
        write_vectors(tmp_path / "old.zarr", f"{tmp_path}/w/", client=client, show=False)


def test_a_part_of_the_table_that_is_lost_is_told(case, tmp_path, client):
    shutil.copytree(case / "objects.zarr", tmp_path / "o.zarr")
    next((tmp_path / "o.zarr" / "table.parquet").glob("part-01*")).unlink()
    with pytest.raises(SwatheError, match=r"o.zarr: No such file|o.zarr.*part-01"):
        open_objects(tmp_path / "o.zarr")
    with pytest.raises(SwatheError, match="its table and its objects do not fit"):
        write_vectors(tmp_path / "o.zarr", f"{tmp_path}/v/", client=client, show=False)


def test_statistics_read_tables_in_parts(case, client):
    found = compute_statistics(case / "objects.zarr", client=client, show=False).iloc[0]
    table = open_objects(case / "objects.zarr")[1]
    for name, rows in table.groupby("class"):
        assert found[f"{name}_count"] == len(rows)
        assert found[f"{name}_size_median_m2"] == rows["area_m2"].median()


@pytest.mark.parametrize("kind", ["parts", "file"])
def test_a_window_of_a_table_has_all_objects_whose_centroid_lies_in_it(case, tmp_path, kind):
    table = open_objects(case / "objects.zarr")[1]
    path = case / "objects.zarr" / "table.parquet"
    if kind == "file":
        path = tmp_path / "t.parquet"
        pq.write_table(pq.read_table(case / "objects.zarr" / "table.parquet"), path, row_group_size=10)
    window = Window(20, 50, 70, 90)
    inside = {(y, x) for y, x in zip(table["centroid_y_px"], table["centroid_x_px"], strict=True)
              if 20 <= y + 0.5 < 50 and 70 <= x + 0.5 < 90}  # fmt: skip
    read = {place for part in read_objects(str(path), window=window) for place in zip(part.row, part.column)}  # noqa: B905
    assert inside <= read
    assert 0 < len(inside) <= len(read) < len(table)


@pytest.mark.parametrize("share", [0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_blocks_that_are_not_planned_have_no_task(tmp_path, monkeypatch, client, share):
    draw = np.random.default_rng(1)
    mask = draw.random((7, 6)) < share
    probability = np.where(draw.random(GivenJob.geobox.shape) < 0.6, 250, 0).astype(np.uint8)
    there = np.kron(mask, np.ones((64, 64), bool))[: probability.shape[0], : probability.shape[1]]
    probability[~there] = 255
    done: dict[str, int] = {}
    real = trees.map_bounded

    def map_bounded(*args, **kwargs):
        for result in real(*args, **kwargs):
            done[kwargs["key"]] = done.get(kwargs["key"], 0) + 1
            yield result

    for name, planned in (("all", None), ("some", mask)):
        run_job(GivenJob(probability, planned), tmp_path / f"{name}.zarr", client=client, show=False)
        monkeypatch.setattr(trees, "map_bounded", map_bounded)
        done.clear()
        write_vectors(tmp_path / f"{name}.zarr", f"{tmp_path}/{name}/", client=client, show=False)
    for key in ("labels-up_sweep-0", "measures-reduce_rows-0", "polygons-reduce_rows-0"):
        assert done.get(f"swathe-{key}", 0) == mask.sum()
    some, every = (geopandas.read_parquet(tmp_path / name) for name in ("some", "all"))
    pandas.testing.assert_frame_equal(some, every)
    assert len(some) == len(np.unique(label_ids(np.where(probability == 255, 255, probability > 125)))) - 1


BAD = [
    ("file/", "is a file, and a name that ends in / is a folder"),
    ("foreign/", "foreign holds notes.txt, which Swathe did not write there"),
    ("table.gpkg/", "a folder of parts is Parquet"),
    ("none/v/", "there is no folder .*none; make it first"),
]


@pytest.mark.parametrize(("output", "message"), BAD)
def test_what_cannot_be_a_dataset_is_refused_before_anything_is_written(case, tmp_path, client, output, message):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    before = content(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(SwatheError, match=message):
            write(case, f"{tmp_path}/{output}", client=client, overwrite=overwrite)
    assert content(tmp_path) == before


def test_a_folder_of_ours_with_something_else_in_it_stays(case, tmp_path, client):
    write(case, f"{tmp_path}/v/", client=client)
    (tmp_path / "v" / "notes.txt").write_text("mine")
    with pytest.raises(SwatheError, match=r"holds notes.txt"):
        write(case, f"{tmp_path}/v/", client=client, overwrite=True)
    (tmp_path / "v" / "notes.txt").unlink()
    (tmp_path / "v" / MANIFEST).write_text("[]")
    with pytest.raises(SwatheError, match=r"which Swathe did not write there"):
        write(case, f"{tmp_path}/v/", client=client, overwrite=True)


def test_object_stores_hold_datasets(case, client):
    import fsspec

    files = fsspec.filesystem("memory")
    try:
        write(case, "memory://bucket/v.parquet/", client=client)
        with files.open("/bucket/v.parquet/_metadata") as file:
            assert pq.read_metadata(file).num_rows == len(pq.read_table(case / "one.parquet"))
        assert Dataset("memory://bucket/v.parquet", "x").check(overwrite=True) is None
        assert not files.exists("/bucket/v.parquet.unfinished")
    finally:
        files.rm("/bucket", recursive=True)


@pytest.mark.slow
def test_killed_again_and_again(case, tmp_path, client):
    write(case, f"{tmp_path}/whole/", client=client)
    command = [SWATHE, "vectorise", str(case / "objects.zarr"), "-o", f"{tmp_path}/v/", "-q"]
    draw = random.Random(0)
    for _ in range(6):
        with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            time.sleep(draw.uniform(1.5, 4))
            os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(command, check=True)
    assert content(tmp_path / "v") == content(tmp_path / "whole")
