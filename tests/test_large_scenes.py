"""Scenes of up to 600 pixels a side, in blocks of any size up to all of it: as scikit-image on the whole array."""

import geopandas
import numpy as np
import pytest
import rasterio.features
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import masks
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import remove_small_holes, remove_small_objects
from stores import TOWN, write_store

from pipeline import open_maps, open_objects, write_clean, write_objects, write_vectors
from pipeline.store.store import open_store

pytestmark = pytest.mark.slow
LARGE = 600
BLOCKS = st.sampled_from([64, 128, 256, 640])
CONNECTIVITY = st.sampled_from([4, 8])
NEIGHBOURS = {4: 1, 8: 2}


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as made:
        yield made


@settings(max_examples=8)
@given(mask=masks(most=LARGE), block=BLOCKS, size=st.sampled_from([3, 60, 900, 20_000]), connectivity=CONNECTIVITY)
def test_cleaning(tmp_path_factory, client, mask, block, size, connectivity):
    if not mask.any():
        return  # skimage would fill a scene without objects; see `remove_by_halo`
    folder = tmp_path_factory.mktemp("clean")
    store = write_store(folder / "m.zarr", mask.astype(np.uint8), block=block, classes=TOWN[:2], overviews=False)
    kept = remove_small_objects(mask, max_size=size - 1, connectivity=NEIGHBOURS[connectivity])
    if kept.any():
        kept = remove_small_holes(kept, max_size=size // 2 - 1, connectivity=NEIGHBOURS[connectivity])
    keywords = {"min_object": size, "min_hole": size // 2, "connectivity": connectivity}
    write_clean(store, folder / "c.zarr", client=client, show=False, **keywords)
    np.testing.assert_array_equal(open_maps(folder / "c.zarr").class_map.values, kept.astype(np.uint8))


@settings(max_examples=8)
@given(mask=masks(most=LARGE), block=BLOCKS, connectivity=CONNECTIVITY)
def test_objects_and_outlines(tmp_path_factory, client, mask, block, connectivity):
    folder = tmp_path_factory.mktemp("objects")
    store = write_store(folder / "m.zarr", mask.astype(np.uint8), block=block, classes=TOWN[:2], overviews=False)
    write_objects(store, folder / "o.zarr", connectivity=connectivity, client=client, show=False)
    maps, table = open_objects(folder / "o.zarr")
    numbers, count = label(mask, connectivity=NEIGHBOURS[connectivity], return_num=True)
    values, first = np.unique(numbers, return_index=True)
    ids = np.where(values == 0, 0, first + 1)
    np.testing.assert_array_equal(maps.objects.values, ids[np.searchsorted(values, numbers)])
    table = table.sort_values("id").reset_index()
    assert len(table) == count
    np.testing.assert_array_equal(table["area_px"], np.bincount(numbers.ravel(), minlength=count + 1)[1:])
    boxes = [(r.start, c.start, r.stop, c.stop) for r, c in ndimage.find_objects(numbers)]
    np.testing.assert_array_equal(
        table[[f"bbox_{side}_px" for side in ("miny", "minx", "maxy", "maxx")]], np.array(boxes).reshape(-1, 4)
    )
    write_vectors(folder / "o.zarr", folder / "v.parquet", client=client, show=False)
    frame = geopandas.read_parquet(folder / "v.parquet")
    assert len(frame) == count
    if count:
        transform = open_store(str(store))[0].geobox.affine
        pairs = zip(frame.geometry, np.arange(1, count + 1), strict=True)
        burnt = rasterio.features.rasterize(pairs, mask.shape, transform=transform, dtype="int32")
        np.testing.assert_array_equal(np.append(0, frame["id"])[burnt], maps.objects.values)
