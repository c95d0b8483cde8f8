"""Later verbs on a class map in a GeoTIFF: what they give on the store that the same map lies in."""

from pathlib import Path

import geopandas
import numpy as np
import pandas
import pytest
import rasterio
from masks import blobs
from stores import TOWN, write_store

from models.errors import PlanError, StoreError, SwatheError
from pipeline import (
    clean,
    compute_statistics,
    open_maps,
    open_objects,
    write_clean,
    write_cog,
    write_objects,
    write_report,
    write_vectors,
)

QUIET = {"show": False}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One map as a store, and as a COG."""
    folder = tmp_path_factory.mktemp("map")
    mask, other = blobs((150, 170), 1), blobs((150, 170), 2)
    values = np.where(mask, 1, np.where(other, 2, 0)).astype(np.uint8)
    values[:20, :30] = 255
    write_store(folder / "maps.zarr", values, block=64, probability=np.where(values == 255, 255, 200).astype(np.uint8))
    write_cog(folder / "maps.zarr", folder / "map.tif")
    return folder / "maps.zarr", folder / "map.tif"


def test_it_opens_as_the_store_does(pair):
    store, file = map(open_maps, pair)
    assert "probability" not in file
    assert (store.class_map.values == file.class_map.values).all()
    assert store.rio.crs == file.rio.crs
    assert store.rio.transform() == file.rio.transform()
    assert store.class_map.attrs == file.class_map.attrs
    assert (file.class_map[40:90, 30:99].values == file.class_map.values[40:90, 30:99]).all()


def test_every_verb_gives_the_same(pair, tmp_path, client):
    how, found = {"client": client, **QUIET}, []
    options = {"opening": 1, "min_object": 30, "min_hole": "2000 m2"}
    for name, maps in zip(("store", "file"), pair, strict=True):
        folder = tmp_path / name
        folder.mkdir()
        write_clean(maps, folder / "clean.zarr", **options, **how)
        write_clean(maps, folder / "clean.tif", **options, **how)
        write_objects(folder / "clean.tif", folder / "objects.zarr", **how)
        write_vectors(folder / "clean.tif", folder / "objects.gpkg", client=client, show=False)
        cleaned, table = open_objects(folder / "objects.zarr")
        with rasterio.open(folder / "clean.tif") as file:
            assert (file.read(1) == open_maps(folder / "clean.zarr").class_map.values).all()
        stats = compute_statistics(maps, cell="200 m", **how), compute_statistics(folder / "objects.zarr", **how)
        found.append((cleaned.objects.values, table, geopandas.read_file(folder / "objects.gpkg"), *stats))
        page = write_report(folder / "clean.tif", folder / "r.html", objects=folder / "objects.zarr", client=client)
        assert "building" in page.read_text()
    (ids, *tables), (other_ids, *other_tables) = found
    assert (ids == other_ids).all()
    assert len(tables[0]) > 3
    for one, other in zip(tables, other_tables, strict=True):  # blocks differ, and with them the order of sums
        pandas.testing.assert_frame_equal(pandas.DataFrame(one), pandas.DataFrame(other), rtol=1e-9)
    lazily = clean(open_maps(pair[1]), **options).class_map.values
    assert (lazily == open_maps(tmp_path / "file/clean.zarr").class_map.values).all()


def test_a_changed_file_is_another_map(pair, tmp_path, client):
    path = tmp_path / "map.tif"
    path.write_bytes(pair[1].read_bytes())
    write_clean(path, tmp_path / "clean.zarr", opening=1, client=client, **QUIET)
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        values = file.read(1)
        values[100:110, 100:110] = 1
        file.write(values, 1)
    with pytest.raises(StoreError, match="belongs to another run"):
        write_clean(path, tmp_path / "clean.zarr", opening=1, client=client, **QUIET)


def test_what_it_lacks_is_said(pair, tmp_path):
    with pytest.raises(PlanError, match="no probabilities"):
        write_clean(pair[1], tmp_path / "c.zarr", threshold=0.5, **QUIET)
    write_cog(pair[0], tmp_path / "p.tif", array="probability")
    with rasterio.open(pair[1]) as file, rasterio.open(tmp_path / "plain.tif", "w", **file.profile) as plain:
        plain.write(file.read())
    (tmp_path / "broken.tif").write_bytes(pair[1].read_bytes()[:200])
    for name, says in (
        ("p.tif", "holds probabilities"), ("plain.tif", "is not of Swathe"), ("none.tif", "no such file"),
        ("broken.tif", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(SwatheError, match=says):
            write_objects(tmp_path / name, tmp_path / "o.zarr", **QUIET)
    assert not (tmp_path / "o.zarr").exists()
    assert TOWN[1].name == "building"
