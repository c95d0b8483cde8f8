"""Stores into polygons: whole across blocks, back to the same pixels, with their measures, in every format."""

import shutil

import geopandas
import numpy as np
import pytest
import rasterio.features
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import blobs, class_maps
from skimage.measure import label
from stores import write_store

from models.errors import PlanError, SwatheError
from pipeline import Outlines, open_objects, write_objects, write_vectors
from pipeline.store.store import open_store
from pipeline.store.work_folder import WorkFolder
from pipeline.vector import vectorise as vectors_file


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as made:
        yield made


def burnt(frame, column, shape, transform):
    """Rasterise polygons back."""
    if not len(frame):
        return np.zeros(shape, np.int64)
    numbers = np.arange(1, len(frame) + 1)
    pairs = zip(frame.geometry, numbers, strict=True)
    places = rasterio.features.rasterize(pairs, shape, transform=transform, dtype="int32")
    return np.append(0, frame[column].to_numpy())[places]


@settings(max_examples=12)
@given(
    class_map=class_maps(3),
    block=st.sampled_from([8, 16, 32, 512]),
    connectivity=st.sampled_from([4, 8]),
    straight=st.booleans(),
)
def test_polygons_are_the_map(tmp_path_factory, client, class_map, block, connectivity, straight):
    folder = tmp_path_factory.mktemp("vectors")
    store = write_store(folder / "maps.zarr", class_map, block=block, overviews=False)
    if straight:
        write_objects(store, folder / "o.zarr", connectivity=connectivity, client=client, show=False)
        store = folder / "o.zarr"
    made = write_vectors(store, folder / "v.parquet", connectivity=connectivity, client=client, show=False)
    frame = geopandas.read_parquet(folder / "v.parquet")
    seen = np.where(class_map == 255, 0, class_map)
    numbers, count = label(seen, background=0, connectivity=1 if connectivity == 4 else 2, return_num=True)
    assert made.features == len(frame) == count
    assert frame.is_valid.all()
    transform = open_store(str(store))[0].geobox.affine
    np.testing.assert_array_equal(burnt(frame, "class_value", class_map.shape, transform), seen)
    first = np.array([0, *(1 + np.flatnonzero(numbers == n)[0] for n in range(1, count + 1))])
    np.testing.assert_array_equal(burnt(frame, "id", class_map.shape, transform), first[numbers])
    np.testing.assert_allclose(frame.area, frame["area_px"] * abs(transform.determinant), rtol=1e-9)
    assert not (folder / "v.parquet.unfinished").exists()


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "fgb", "geojson"])
def test_every_format_has_all_of_it(tmp_path, client, ending):
    random = np.random.default_rng(0)
    class_map = (random.random((80, 90)) < 0.3).astype(np.uint8)
    store = write_store(tmp_path / "m.zarr", class_map, block=32)
    output = tmp_path / f"v.{ending}"
    made = write_vectors(store, output, client=client, show=False)
    frame = geopandas.read_parquet(output) if ending == "parquet" else geopandas.read_file(output)
    assert len(frame) == made.features == label(class_map, connectivity=1).max()
    assert int(frame["area_px"].sum()) == int(class_map.sum())
    assert frame.crs is not None
    with pytest.raises(SwatheError, match="exists"):
        write_vectors(store, output, connectivity=8, client=client, show=False)
    again = write_vectors(store, output, client=client, show=False)
    assert (again.features, again.notes) == (made.features, (vectors_file.ALREADY,))
    assert write_vectors(store, output, client=client, show=False, overwrite=True).features == made.features


def test_outlines_can_be_simplified_squared_and_chosen(tmp_path, client):
    class_map = np.zeros((100, 100), np.uint8)
    rows, columns = np.indices(class_map.shape)
    class_map[np.abs(rows - 50) + np.abs(columns - 50) < 30] = 1
    class_map[:10, :60] = 2
    store = write_store(tmp_path / "m.zarr", class_map, block=32)
    whole = write_and_read(store, tmp_path / "w.parquet", client)
    simple = write_and_read(store, tmp_path / "s.parquet", client, simplify=2.0)
    square = write_and_read(store, tmp_path / "a.parquet", client, right_angles=True, classes=("building",))
    assert list(simple["id"]) == list(whole["id"])
    assert simple.geometry.count_coordinates().sum() < whole.geometry.count_coordinates().sum() / 3
    assert list(square["class"]) == ["building"]
    assert square.geometry.count_coordinates().iloc[0] == 5
    assert simple.is_valid.all()


def write_and_read(store, output, client, **outlines):
    write_vectors(store, output, outlines=Outlines(**outlines), client=client, show=False)
    return geopandas.read_parquet(output)


def test_what_is_refused(tmp_path, client):
    degrees = write_store(tmp_path / "d.zarr", np.ones((9, 9), np.uint8), block=8, crs="EPSG:4326")
    for outlines, words in (
        (Outlines(right_angles=True), "degrees"),
        (Outlines(simplify=0), "above 0"),
        (Outlines(classes=("river",)), "'river'"),
    ):
        with pytest.raises(PlanError, match=words):
            write_vectors(degrees, tmp_path / "v.parquet", outlines=outlines, client=client, show=False)
    with pytest.raises(SwatheError, match=r"\.shp"):
        write_vectors(degrees, tmp_path / "v.shp", client=client, show=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.zarr"]


def test_nothing_found_is_a_valid_empty_file(tmp_path, client):
    store = write_store(tmp_path / "m.zarr", np.zeros((20, 20), np.uint8), block=8)
    assert write_vectors(store, tmp_path / "v.gpkg", client=client, show=False).features == 0
    assert len(geopandas.read_file(tmp_path / "v.gpkg")) == 0


def test_killed_after_the_file_was_whole(tmp_path, client, monkeypatch):
    store = write_store(tmp_path / "m.zarr", np.eye(40, dtype=np.uint8), block=16)
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_vectors(store, tmp_path / "v.parquet", client=client, show=False)
    before = (tmp_path / "v.parquet").read_bytes()
    assert write_vectors(store, tmp_path / "v.parquet", client=client, show=False).features == 40
    assert (tmp_path / "v.parquet").read_bytes() == before
    assert not (tmp_path / "v.parquet.unfinished").exists()
    _, table = open_objects(_objects(store, tmp_path, client))
    assert sorted(table["id"]) == sorted(geopandas.read_parquet(tmp_path / "v.parquet")["id"])


def _objects(store, folder, client):
    write_objects(store, folder / "o.zarr", client=client, show=False)
    return folder / "o.zarr"


def test_what_is_half_done_is_not_continued_with_other_blocks(tmp_path, client, monkeypatch):
    path, output = tmp_path / "m.zarr", tmp_path / "v.parquet"
    class_map = blobs((60, 70), 1, width=3).astype(np.uint8)

    def make(block):
        write_store(path, class_map, block=block, overviews=False)
        write_objects(path, tmp_path / "o.zarr", client=client, show=False, overwrite=True)

    def killed(*_, **__):
        raise KeyboardInterrupt

    make(16)
    with monkeypatch.context() as patched:
        patched.setattr(vectors_file, "write_features", killed)
        with pytest.raises(KeyboardInterrupt):
            write_vectors(tmp_path / "o.zarr", output, client=client, show=False)
    shutil.rmtree(tmp_path / "o.zarr")
    make(32)
    made = write_vectors(tmp_path / "o.zarr", output, client=client, show=False)
    assert made.features == len(open_objects(tmp_path / "o.zarr")[1])
    assert geopandas.read_parquet(output).area.sum() == class_map.sum() * 100
