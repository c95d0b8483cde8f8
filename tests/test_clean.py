"""Cleaning and labelling stores and Datasets, by blocks, against skimage on the whole array."""

import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import blobs, class_maps, join_hysteresis, masks
from skimage.filters import apply_hysteresis_threshold
from skimage.measure import label, regionprops_table
from skimage.morphology import remove_small_holes, remove_small_objects
from stores import TOWN, write_store
from test_durable import content

from models.errors import PlanError, StoreError
from pipeline.jobs import job as filling
from pipeline.objects.objects import open_objects, write_objects
from pipeline.objects.table import RENAMED
from pipeline.postprocess.clean import write_clean
from pipeline.postprocess.lazy import clean, label_objects
from pipeline.postprocess.morphology import local, smooth
from pipeline.postprocess.options import CleanOptions
from pipeline.postprocess.sieve import remove_by_halo
from pipeline.postprocess.threshold import above_high, apply_threshold
from pipeline.store.dataset import open_maps

NAMES = [info.name for info in TOWN]


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0") as made:
        yield made


def whole(class_map, probability, **keywords):
    """Clean all at once: what blocks must give."""
    rules = CleanOptions(**keywords).resolve(NAMES[:2], (1,), background=0, has_areas=True)
    layers = None if probability is None else probability[None]
    if rules.low is not None:
        start = apply_threshold(class_map, layers, rules)
        made = smooth(join_hysteresis(start, above_high(class_map, layers, rules), rules), rules)
    else:
        made = local(class_map, layers, rules)
    return remove_by_halo(made, rules)


WISHES = st.fixed_dictionaries(
    {"connectivity": st.sampled_from([4, 8])},
    optional={
        "threshold": st.sampled_from([0.5, 0.7]),
        "opening": st.integers(1, 2),
        "closing": st.integers(1, 3),
        "majority": st.sampled_from([3, 5]),
        "min_object": st.sampled_from([2, 9, 40, 400, 5000]),
        "min_hole": st.sampled_from([2, 9, 40, 400, 5000]),
        "removed": st.sampled_from(["background", "surrounding"]),
    },
)
BLOCKS = st.sampled_from([8, 16, 32, 64, 512])


@settings(max_examples=15)
@given(data=st.data(), block=BLOCKS, keywords=WISHES, lower=st.booleans())
def test_stores_and_datasets_are_cleaned_as_the_whole(tmp_path_factory, client, data, block, keywords, lower):
    mask = data.draw(masks())
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    probability = np.where(mask, random.integers(120, 251, mask.shape), random.integers(0, 200, mask.shape))
    class_map = np.where(random.random(mask.shape) < 0.02, 255, mask).astype(np.uint8)
    probability = np.where(class_map == 255, 255, probability).astype(np.uint8)
    if lower and "threshold" in keywords:
        keywords = {**keywords, "hysteresis": 0.4}
    folder = tmp_path_factory.mktemp("clean")
    store = write_store(folder / "maps.zarr", class_map, probability=probability, block=block, classes=TOWN[:2],
                        overviews=False)  # fmt: skip
    expected = whole(class_map, probability, **keywords)
    write_clean(store, folder / "clean.zarr", client=client, show=False, **keywords)
    made = open_maps(folder / "clean.zarr")
    np.testing.assert_array_equal(made.class_map.values, expected)
    np.testing.assert_array_equal(made.probability.values, open_maps(store).probability.values)
    lazy = clean(open_maps(store), **keywords)
    np.testing.assert_array_equal(lazy.class_map.values, expected)


@settings(max_examples=30)
@given(mask=masks(), block=BLOCKS, size=st.sampled_from([3, 30, 300, 3000]), connectivity=st.sampled_from([4, 8]))
def test_two_classes_equal_skimage(tmp_path_factory, client, mask, block, size, connectivity):
    if not mask.any():
        return  # skimage would fill a scene without objects; see `remove_by_halo`
    folder = tmp_path_factory.mktemp("clean")
    store = write_store(folder / "maps.zarr", mask.astype(np.uint8), block=block, classes=TOWN[:2], overviews=False)
    neighbours = 1 if connectivity == 4 else 2
    kept = remove_small_objects(mask, max_size=size - 1, connectivity=neighbours)
    expected = remove_small_holes(kept, max_size=size // 2 - 1, connectivity=neighbours) if kept.any() else kept
    keywords = {"min_object": size, "min_hole": size // 2, "connectivity": connectivity}
    write_clean(store, folder / "clean.zarr", client=client, show=False, **keywords)
    np.testing.assert_array_equal(open_maps(folder / "clean.zarr").class_map.values, expected.astype(np.uint8))


def test_hysteresis_equals_skimage(tmp_path, client):
    random = np.random.default_rng(1)
    probability = random.integers(0, 251, (90, 130)).astype(np.uint8)
    store = write_store(tmp_path / "m.zarr", np.zeros(probability.shape, np.uint8), probability=probability, block=32,
                        classes=TOWN[:2])  # fmt: skip
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, threshold=0.9, hysteresis=0.5)
    expected = apply_hysteresis_threshold(probability / np.float32(250), np.float32(0.5), np.float32(0.9))
    np.testing.assert_array_equal(open_maps(tmp_path / "c.zarr").class_map.values, expected)


@settings(max_examples=12)
@given(class_map=class_maps(3), block=BLOCKS, connectivity=st.sampled_from([4, 8]))
def test_objects_equal_skimage_for_any_block(tmp_path_factory, client, class_map, block, connectivity):
    folder = tmp_path_factory.mktemp("objects")
    store = write_store(folder / "maps.zarr", class_map, block=block, overviews=False)
    write_objects(store, folder / "o.zarr", connectivity=connectivity, client=client, show=False)
    maps, table = open_objects(folder / "o.zarr")
    numbers, count = label(np.where(class_map == 255, 0, class_map), background=0, return_num=True,
                           connectivity=1 if connectivity == 4 else 2)  # fmt: skip
    first = np.array([0, *(1 + np.flatnonzero(numbers == n)[0] for n in range(1, count + 1))])
    np.testing.assert_array_equal(maps.objects.values, first[numbers])
    lazy = label_objects(open_maps(store), connectivity=connectivity)
    np.testing.assert_array_equal(lazy.values, first[numbers])
    table = table.sort_values("id")
    np.testing.assert_array_equal(table["id"], first[1:])
    if not count:
        return
    names = ["num_pixels", "bbox", "centroid", "perimeter", "axis_major_length"]
    for name, values in regionprops_table(numbers, properties=names).items():
        np.testing.assert_allclose(table[RENAMED[name]], values, rtol=1e-6, atol=1e-6)


def test_several_classes_take_the_class_around_them(tmp_path, client):
    class_map = np.ones((70, 70), np.uint8)
    class_map[30:34, 30:34] = 2  # across four blocks
    class_map[:, 60:] = 0
    store = write_store(tmp_path / "m.zarr", class_map, block=32)
    for removed, value in (("background", 0), ("surrounding", 1)):
        output = tmp_path / f"{removed}.zarr"
        write_clean(store, output, client=client, show=False, min_object="1700 m2", removed=removed)
        assert open_maps(output).class_map.values[31, 31] == value


def test_only_what_is_looked_at_is_computed():
    maps, seen = _watched()
    cleaned = clean(maps, threshold=0.5, min_object=20)
    assert not seen
    cleaned.class_map[:10, :10].compute(scheduler="synchronous")
    assert 0 < len(set(seen)) <= 4
    assert cleaned.class_map.rio.crs is None


def _watched():
    import dask.array as da

    seen = []

    def make(block_info=None):
        place = block_info[None]["chunk-location"]
        seen.append(place)
        shape = block_info[None]["chunk-shape"]
        return np.full(shape, 0.8, np.float32)

    probability = da.map_blocks(make, chunks=((1,), (64,) * 5, (64,) * 5), dtype=np.float32, meta=np.empty((0, 0, 0)))
    class_map = xr.DataArray(da.ones((320, 320), chunks=64, dtype=np.uint8), dims=("y", "x"))
    class_map.attrs = {"flag_values": [0, 1], "flag_meanings": "background building"}
    maps = xr.Dataset({"class_map": class_map, "probability": (("class", "y", "x"), probability)},
                      coords={"class": ["building"]})  # fmt: skip
    return maps, seen


def test_a_scene_of_one_pixel(tmp_path, client):
    store = write_store(tmp_path / "m.zarr", np.ones((1, 1), np.uint8), block=8)
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, min_object=2)
    assert open_maps(tmp_path / "c.zarr").class_map.values.tolist() == [[0]]
    write_objects(tmp_path / "c.zarr", tmp_path / "o.zarr", client=client, show=False)
    maps, table = open_objects(tmp_path / "o.zarr")
    assert len(table) == 0
    assert maps.objects.values.tolist() == [[0]]


def test_what_is_refused(tmp_path, client):
    store = write_store(tmp_path / "m.zarr", np.ones((20, 20), np.uint8), block=8, crs=None)
    for keywords, words in (
        ({"threshold": 0.7}, "no probabilities"),
        ({"min_object": "20 m2"}, "no CRS"),
        ({"min_object": 5, "classes": ["river"]}, "no class 'river'"),
    ):
        with pytest.raises(PlanError, match=words):
            write_clean(store, tmp_path / "c.zarr", client=client, show=False, **keywords)
    assert not (tmp_path / "c.zarr").exists()
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, min_object=5)
    with pytest.raises(StoreError, match="another run"):
        write_clean(store, tmp_path / "c.zarr", client=client, show=False, min_object=6)
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, min_object=6, overwrite=True)
    with pytest.raises(StoreError, match="holds no objects"):
        open_objects(tmp_path / "c.zarr")
    with pytest.raises(PlanError, match="connectivity is 4"):
        write_objects(store, tmp_path / "o.zarr", connectivity=6)


def _killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("keywords", [None, {"opening": 1}, {"min_object": 400, "min_hole": 300}])
def test_what_is_continued_keeps_its_blocks_when_the_maps_are_made_anew_with_others(
    tmp_path, client, monkeypatch, keywords
):
    class_map = blobs((100, 110), 1, width=3).astype(np.uint8)
    path, output, expected = (tmp_path / name for name in ("m.zarr", "made.zarr", "expected.zarr"))
    layer = "objects" if keywords is None else "class_map"

    def make(target):
        made = write_objects if keywords is None else write_clean
        made(path, target, client=client, show=False, **(keywords or {}))

    write_store(path, class_map, block=16, overviews=False)
    make(expected)
    with monkeypatch.context() as patched:
        patched.setattr(filling, "_all_levels", _killed)
        with pytest.raises(KeyboardInterrupt):
            make(output)
    write_store(path, class_map, block=32, overviews=False)
    make(output)
    np.testing.assert_array_equal(open_maps(output)[layer].values, open_maps(expected)[layer].values)


def test_the_store_that_is_read_is_never_written_over(tmp_path, client, monkeypatch):
    store = write_store(tmp_path / "m.zarr", np.eye(20, dtype=np.uint8), block=8)
    (tmp_path / "link.zarr").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    for name in (store, "m.zarr", f"file://{store}", "link.zarr", f"{store}/"):
        with pytest.raises(StoreError, match="is what is read"):
            write_clean(store, name, client=client, show=False, min_object=2, overwrite=True)
        with pytest.raises(StoreError, match="is what is read"):
            write_objects(name, store, client=client, show=False, overwrite=True)
    assert open_maps(store).class_map.values.sum() == 20


def test_paths_may_be_file_urls_or_relative_to_a_folder_that_workers_are_not_in(tmp_path, monkeypatch):
    store = write_store(tmp_path / "m.zarr", np.eye(20, dtype=np.uint8), block=8)
    with Client(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as elsewhere:
        monkeypatch.chdir(tmp_path)
        write_clean("m.zarr", "c.zarr", client=elsewhere, show=False, dilation=1, min_object=500)
        write_objects(f"file://{store}", f"file://{tmp_path}/o.zarr", client=elsewhere, show=False)
        assert int(open_maps("o.zarr").objects.max().compute()) == 400
    assert open_maps("c.zarr").class_map.values.sum() == 0
    assert len(open_objects("o.zarr")[1]) == 20


def test_a_store_of_objects_without_its_table_is_damaged(tmp_path, client):
    store = write_store(tmp_path / "m.zarr", np.eye(20, dtype=np.uint8), block=8)
    write_objects(store, tmp_path / "o.zarr", client=client, show=False)
    table = tmp_path / "o.zarr" / "table.parquet"
    whole = table.read_bytes()
    place = whole.index(b"background") if b"background" in whole else 200
    table.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(StoreError, match=r"o\.zarr"):
        open_objects(tmp_path / "o.zarr")
    table.unlink()
    with pytest.raises(StoreError, match=r"table\.parquet is missing"):
        write_objects(store, tmp_path / "o.zarr", client=client, show=False)
    write_objects(store, tmp_path / "o.zarr", client=client, show=False, overwrite=True)
    assert len(open_objects(tmp_path / "o.zarr")[1]) == 20


def test_the_same_pixels_elsewhere_are_of_other_areas(tmp_path):
    class_map = np.zeros((100, 100), np.uint8)
    class_map[40:60, 40:60] = 1  # 400 pixels of 100 m2
    maps = open_maps(write_store(tmp_path / "m.zarr", class_map, block=32))
    finer = maps.assign_coords(x=500_000 + (maps.x - 500_000) / 10, y=9_000_000 + (maps.y - 9_000_000) / 10)
    coarse, fine = (clean(one, min_object="1 ha").class_map for one in (maps, finer))
    sums = [int(made.sum()) for made in dask.compute(coarse, fine)]
    assert sums == [400, 0]


@pytest.mark.parametrize("wrong", ["decoded", "turned", "row", "none"])
def test_maps_that_are_none(tmp_path, wrong):
    class_map = np.zeros((20, 30), np.uint8)
    class_map[3:6, 4] = 1
    maps = open_maps(write_store(tmp_path / "m.zarr", class_map, block=8))
    if wrong == "turned":
        turned = maps.transpose("x", "y")
        assert clean(turned, min_object=2).class_map.dims == label_objects(turned).dims == ("y", "x")
        return
    changed = {"decoded": maps.astype(float), "row": maps.isel(y=0), "none": maps.drop_vars("class_map")}[wrong]
    for verb in (clean, label_objects):
        with pytest.raises(StoreError, match="class_map uint8"):
            verb(changed)


def test_info_describes_what_is_made_of_maps(tmp_path, client):
    from pipeline.cli.describe import describe

    store = write_store(tmp_path / "m.zarr", np.eye(20, dtype=np.uint8), block=8)
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, min_object=2, connectivity=8)
    write_objects(tmp_path / "c.zarr", tmp_path / "o.zarr", connectivity=8, client=client, show=False)
    assert "cleaned     min_object 2 px, connectivity 8" in describe(str(tmp_path / "c.zarr"))
    shown = describe(str(tmp_path / "o.zarr"))
    assert "objects     1 of building" in shown
    assert "arrays      class_map, objects" in shown


def test_a_store_that_says_footprint_is_the_same_run(tmp_path, client):
    """The word of stores of before 0.1.0 for the structuring element."""
    store = write_store(tmp_path / "m.zarr", np.eye(20, dtype=np.uint8), block=8)
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, dilation=1, element="square")
    root = tmp_path / "c.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"element"', '"footprint"'))
    before = content(tmp_path / "c.zarr")
    write_clean(store, tmp_path / "c.zarr", client=client, show=False, dilation=1, element="square")
    assert content(tmp_path / "c.zarr") == before
    with pytest.raises(StoreError, match=r"another run \(element None, there square\)"):
        write_clean(store, tmp_path / "c.zarr", client=client, show=False, dilation=1)
