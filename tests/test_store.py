"""The store: what others read of it, what happens to it between two writes, and how damage shows."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
import zarr
from affine import Affine
from helpers import GRID, UTM
from rasterio.crs import CRS
from zarr.codecs import Crc32cCodec, ZstdCodec

from models import ClassInfo
from models.encoding import NODATA, Encoding
from models.errors import StoreError
from models.metadata import ReceptiveField
from pipeline import open_maps
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import make_plan
from pipeline.store.files import Files
from pipeline.store.ledger import Ledger
from pipeline.store.lifecycle import check_whole, create_store, finish_store, remove_store, resume_store
from pipeline.store.metadata import StoreMetadata, differences, fingerprint, level_count
from pipeline.store.overviews import halve
from pipeline.store.store import Store, Summary, open_store, read_metadata, sole_writer

WKT = CRS.from_string(UTM).to_wkt()
UINT8 = Encoding(None, "uint8", (1,))
ABOUT = {
    "identity": {"halo": 8},
    "bundle": {"name": "b", "digest": "d", "architecture": "a"},
    "source": {},
}
TWO = (ClassInfo("open ground", "102030"), ClassInfo("house, garden", "E4572E"))


def begin(path, shape=(150, 210), encoding=UINT8, transform=GRID, crs=WKT, overviews=False, classes=TWO, block=64):
    plan = make_plan(shape, ReceptiveField(8, 8), tile=32, block=block)
    geobox = GeoBox(*shape, transform, crs)
    levels = level_count(geobox) if overviews else 0
    return create_store(str(path), geobox, StoreMetadata(plan, encoding, classes, levels=levels, **ABOUT))


def answer(shape, encoding, seed=0):
    random = np.random.default_rng(seed)
    class_map = random.integers(0, 2, shape).astype(np.uint8)
    class_map[random.random(shape) < 0.05] = NODATA
    if not encoding.probability:
        return BlockResult(class_map, None)
    probability = random.integers(0, 251, (len(encoding.kept), *shape)).astype(np.float32)
    if encoding.probability == "uint8":
        probability[:, class_map == NODATA] = NODATA
        return BlockResult(class_map, probability.astype(np.uint8))
    probability[:, class_map == NODATA] = np.nan
    return BlockResult(class_map, (probability / 250).astype(encoding.probability))


def fill(store: Store, whole: BlockResult) -> None:
    """Do what a run does, without a network: write every block of every level, and mark it."""
    for level in range(store.levels + 1):
        for row, column in store.places(level):
            window = store.window(level, row, column)
            rows, columns = window.slices
            probability = None if whole.probability is None else whole.probability[:, rows, columns]
            store.write(level, window, BlockResult(whole.class_map[rows, columns], probability))
            store.mark_done(Summary(level, row, column, (1, 2, 3), 0.1))
        whole = halve(whole)


def finished(path, shape=(150, 210), encoding=UINT8, **more):
    store, whole = begin(path, shape, encoding, **more), answer(shape, encoding)
    fill(store, whole)
    seconds = np.zeros((store.plan.rows, store.plan.columns), np.float32)
    finish_store(store, {"pixels": {"a": 1, "b": 2, "nodata": 3}}, seconds)
    return store, whole


def shards(path, name="class_map"):
    return sorted(p for p in Path(path, name, "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("shape", [(150, 210), (64, 128), (5, 3)])
@pytest.mark.parametrize("encoding", [UINT8, Encoding(None, "float32", (0, 1)), Encoding(None, "float16", (1,)),
                                      Encoding(None, None, (), objects=True)])  # fmt: skip
def test_shards_are_those_that_zarr_writes(tmp_path, shape, encoding):
    mine, theirs = (begin(tmp_path / name, shape, encoding, block=64) for name in ("mine.zarr", "theirs.zarr"))
    whole = answer(shape, encoding)
    ids = np.arange(np.prod(shape)).reshape(shape) if encoding.objects else None
    layers = {"class_map": whole.class_map, "probability": whole.probability, "objects": ids}
    for row, column in mine.places(0):
        window = mine.window(0, row, column)
        parts = [None if layer is None else layer[(..., *window.slices)] for layer in layers.values()]
        mine.write(0, window, BlockResult(*parts))
    group = zarr.open_group(theirs.path, mode="r+")
    for name in mine.array_names:
        group[name].with_config({"write_empty_chunks": True})[...] = layers[name]
        found = {p.relative_to(mine.path): p.read_bytes() for p in shards(mine.path, name)}
        assert found == {p.relative_to(theirs.path): p.read_bytes() for p in shards(theirs.path, name)}
        assert len(found) == len(mine.plan)


# what others read


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (GRID, WKT),
        (Affine(10, 0, 500_000, 0, 10, 9_000_000), WKT),  # south up
        (Affine(7, 3, 500_000, 3, -7, 9_000_000), WKT),  # rotated
        (Affine(0.01, 0, -180, 0, -0.01, 90), CRS.from_epsg(4326).to_wkt()),
        (GRID, None),
        (None, None),
    ],
    ids=["north-up", "south-up", "rotated", "degrees", "no-crs", "nothing"],
)
def test_xarray_and_rioxarray_see_values_nodata_crs_and_transform(tmp_path, transform, crs):
    _, whole = finished(tmp_path / "s.zarr", transform=transform, crs=crs)
    dataset = xr.open_zarr(tmp_path / "s.zarr", consolidated=True, decode_coords="all")
    expected = np.where(whole.class_map == NODATA, np.nan, whole.class_map)
    np.testing.assert_array_equal(dataset.class_map.values, expected)
    expected = np.where(whole.probability == NODATA, np.nan, whole.probability / 250)
    np.testing.assert_allclose(dataset.probability.values, expected, atol=1e-7)
    assert dataset.class_map.rio.crs == (CRS.from_wkt(crs) if crs else None)
    assert dataset.class_map.rio.transform() == (transform or Affine.identity())
    assert np.isnan(dataset.class_map.rio.encoded_nodata) or dataset.class_map.rio.encoded_nodata == NODATA
    assert ("x" in dataset.coords) == (transform is not None and transform.b == 0)


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", None])
@pytest.mark.parametrize("kept", [(1,), (0, 1)])
def test_probabilities_of_every_kind_come_back(tmp_path, kind, kept):
    encoding = Encoding(None, kind, kept if kind else ())
    store, whole = finished(tmp_path / "s.zarr", encoding=encoding)
    maps = open_maps(tmp_path / "s.zarr")
    np.testing.assert_array_equal(maps.class_map.values, whole.class_map)
    assert maps.class_map.dtype == np.uint8
    if kind is None:
        assert "probability" not in maps
        return
    kept_as = whole.probability.astype(np.float32)
    expected = np.where(whole.probability == NODATA, np.nan, kept_as / 250) if kind == "uint8" else kept_as
    known = maps.probability if len(kept) == 2 else maps.probability[1:]
    np.testing.assert_allclose(known.values, expected, atol=1e-7)
    if len(kept) == 1:
        np.testing.assert_allclose(maps.probability[0].values, 1 - expected[0], atol=1e-6)
    assert maps.probability.dtype == np.float32
    assert list(maps["class"].values) == [info.name for info in TWO]
    assert store.array_names == ["class_map", "probability"]


def test_zarr_alone_reads_it_and_its_classes(tmp_path):
    _, whole = finished(tmp_path / "s.zarr")
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    listed = group.metadata.consolidated_metadata.flattened_metadata
    own = {"blocks", "blocks/seconds"}
    assert {"class_map", "probability", "class", "spatial_ref", "x", "y"} == set(listed) - own
    array = group["class_map"]
    np.testing.assert_array_equal(array[:], whole.class_map)
    assert array.attrs["flag_values"] == [0, 1]
    assert array.attrs["flag_colors"] == "#102030 #E4572E"
    assert len(array.attrs["flag_meanings"].split()) == 2  # CF: no blanks within a name
    assert list(group["class"][:]) == ["house, garden"]
    assert array.shards == (64, 64)
    sharding = array.metadata.codecs[0]
    assert [codec.checksum for codec in sharding.codecs if isinstance(codec, ZstdCodec)] == [True]
    assert any(isinstance(codec, Crc32cCodec) for codec in sharding.index_codecs)


@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:Object at")
def test_metadata_are_consolidated_as_zarr_does(tmp_path):
    finished(tmp_path / "s.zarr", (1100, 700), overviews=True, block=256)
    mine = json.loads((tmp_path / "s.zarr/zarr.json").read_text())
    zarr.consolidate_metadata(tmp_path / "s.zarr")
    assert mine == json.loads((tmp_path / "s.zarr/zarr.json").read_text())


def test_gdal_reads_it_where_its_zarr_driver_knows_shards(tmp_path):
    import rasterio

    _, whole = finished(tmp_path / "s.zarr")
    try:
        with rasterio.open(f'ZARR:"{tmp_path / "s.zarr"}":/class_map') as file:
            there = file.read(1)
    except rasterio.errors.RasterioError as error:
        pytest.skip(f"GDAL {rasterio.__gdal_version__} cannot read sharded Zarr v3: {error}")
    np.testing.assert_array_equal(there, whole.class_map)


def test_overviews_halve_what_lies_below(tmp_path):
    store, whole = finished(tmp_path / "s.zarr", shape=(700, 1030), overviews=True, block=256)
    assert store.levels == 2
    for level in range(store.levels + 1):
        maps = open_maps(tmp_path / "s.zarr", level=level)
        np.testing.assert_array_equal(maps.class_map.values, whole.class_map)
        assert maps.class_map.rio.transform() == GRID * Affine.scale(2**level)
        outside = xr.open_zarr(tmp_path / "s.zarr", group=f"overviews/{level}" if level else None)
        assert outside.class_map.shape == whole.class_map.shape
        whole = halve(whole)
    with pytest.raises(StoreError, match="levels 0 to 2; received 3"):
        open_maps(tmp_path / "s.zarr", level=3)


def test_lazy_maps_read_only_what_is_asked_for(tmp_path):
    _, whole = finished(tmp_path / "s.zarr")
    shards(tmp_path / "s.zarr")[-1].unlink()
    maps = open_maps(tmp_path / "s.zarr")
    np.testing.assert_array_equal(maps.class_map[3:40, 5:60].values, whole.class_map[3:40, 5:60])
    np.testing.assert_array_equal(maps.class_map[60:70, 60:70].values, whole.class_map[60:70, 60:70])


@pytest.mark.parametrize("key", [(5, slice(3, 150)), (5, 6), (slice(None, None, 7), slice(140, 2, -3)), (..., [1, 99])])
def test_lazy_maps_take_any_index(tmp_path, key):
    _, whole = finished(tmp_path / "s.zarr")
    maps = open_maps(tmp_path / "s.zarr")
    np.testing.assert_array_equal(maps.class_map[key].values, whole.class_map[key])
    np.testing.assert_array_equal(maps.class_map.data[key].compute(), whole.class_map[key])
    assert np.nansum(maps.probability[0][key].values) >= 0


SCHEMAS = {"multiscales": "multiscales", "geo-proj": "proj:", "spatial": "spatial:"}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("crs", [WKT, None, CRS.from_proj4("+proj=laea +lat_0=5 +lon_0=20").to_wkt()])
def test_geozarr_attributes_fit_the_conventions(tmp_path, name, crs):
    jsonschema = pytest.importorskip("jsonschema")
    mirror = Path("/work/.mirror") / f"zarr-conventions+{name}" / "repo"
    if not mirror.exists():
        pytest.skip("the conventions' schemas are not on this machine")
    if name == "geo-proj" and crs is None:
        pytest.skip("a scene without CRS has nothing of this convention to say")
    shown = subprocess.run(
        ["git", "--git-dir", mirror, "show", "HEAD:schema.json"], capture_output=True, check=True, text=True
    )
    finished(tmp_path / "s.zarr", shape=(700, 700), overviews=True, crs=crs, block=256)
    root = json.loads((tmp_path / "s.zarr/zarr.json").read_text())
    jsonschema.validate({k: v for k, v in root.items() if k != "consolidated_metadata"}, json.loads(shown.stdout))
    assert SCHEMAS[name] in [convention["name"] for convention in root["attributes"]["zarr_conventions"]]


# damage


def flip(path: Path, place: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.97, 1.0])
@pytest.mark.parametrize("name", ["class_map", "probability"])
def test_a_flipped_bit_is_noticed(tmp_path, name, place):
    store, _ = finished(tmp_path / "s.zarr")
    flip(shards(tmp_path / "s.zarr", name)[0], place)
    with pytest.raises(StoreError, match=r"s\.zarr") as caught:
        store.read_array(name, store.window(0, 0, 0))
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match=r"s\.zarr"):
        open_maps(tmp_path / "s.zarr")[name].compute(scheduler="synchronous")


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", ["class_map", "probability"])
@pytest.mark.parametrize("way", ["missing", "empty", "cut"])
def test_a_lost_shard_is_an_error_never_nodata(tmp_path, name, level, way):
    store, _ = finished(tmp_path / "s.zarr", shape=(600, 500), overviews=True, block=256)
    array = f"overviews/{level}/{name}" if level else name
    shard = shards(tmp_path / "s.zarr", array)[0]
    if way == "missing":
        shard.unlink()
    else:
        os.truncate(shard, 0 if way == "empty" else shard.stat().st_size // 2)
    with pytest.raises(StoreError, match=r"damaged|s\.zarr"):
        open_maps(tmp_path / "s.zarr", level=level)[name].compute(scheduler="synchronous")
    if way != "cut":  # what is cut, only reading tells
        with pytest.raises(StoreError, match=r"damaged: block 0, 0.* is missing"):
            check_whole(store)


def test_finishing_needs_every_shard(tmp_path):
    store = begin(tmp_path / "s.zarr")
    fill(store, answer((150, 210), UINT8))
    shards(tmp_path / "s.zarr")[3].unlink()
    assert np.argwhere(~Ledger.read(store, 2).done[0]).tolist() == [[0, 3]]
    with pytest.raises(StoreError, match="block 0, 3 is missing"):
        finish_store(store, {}, np.zeros((3, 4), np.float32))
    assert read_metadata(store.path).state == "running"


# between two writes


def interrupted(monkeypatch, after: int, action) -> bool:
    """Do something and stop it at its nth write or removal; whether it was stopped."""
    count = 0

    class Killed(BaseException):
        pass

    def stopping(function):
        def wrapped(*args, **kwargs):
            nonlocal count
            count += 1
            if count > after:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (Path, "replace"), (os, "unlink"), (os, "remove"), (os, "rmdir")):
            patch.setattr(owner, name, stopping(getattr(owner, name)))
        try:
            action()
        except Killed:
            return True
    return False


def test_creation_can_be_stopped_at_any_write(tmp_path, monkeypatch):
    path, after = tmp_path / "s.zarr", 0
    while interrupted(monkeypatch, after, lambda: begin(path, (60, 60), block=32)):
        own = read_metadata(str(path))
        assert own is None or own.state == "creating", after
        with pytest.raises(StoreError):
            open_store(str(path))
        after += 1
    assert after > 10
    assert read_metadata(str(path)).state == "running"
    whole = answer((60, 60), UINT8)
    fill(resume_store(str(path), read_metadata(str(path)), GeoBox(60, 60, GRID, WKT)), whole)
    finish_store(reopened(path), {}, np.zeros((1, 1), np.float32))
    assert not list(path.rglob("*.partial"))
    np.testing.assert_array_equal(open_maps(path).class_map.values, whole.class_map)


def reopened(path):
    return resume_store(str(path), read_metadata(str(path)), GeoBox(60, 60, GRID, WKT))


def test_finishing_can_be_stopped_at_any_write(tmp_path, monkeypatch):
    path, after = tmp_path / "s.zarr", 0
    fill(begin(path, (60, 60), block=32), answer((60, 60), UINT8))
    while interrupted(monkeypatch, after, lambda: finish_store(reopened(path), {}, np.zeros((1, 1), np.float32))):
        assert read_metadata(str(path)).state in ("running", "complete")
        assert zarr.open_group(path, mode="r").metadata.consolidated_metadata is not None
        after += 1
    assert after >= 2
    assert not (path / ".swathe").exists()


def test_replacing_can_be_stopped_at_any_removal(tmp_path, monkeypatch):
    path, after = tmp_path / "s.zarr", 0
    finished(path, (60, 60), block=32)
    while interrupted(monkeypatch, after, lambda: remove_store(str(path))):
        own = read_metadata(str(path))  # still known as ours, and not as whole once the first pixel is gone
        assert own is None or own.state == "creating" or len(shards(path)) == 4
        after += 7
    assert after > 20
    assert not path.exists()


def test_a_task_of_a_run_that_has_ended_writes_nothing(tmp_path):
    store, whole = finished(tmp_path / "s.zarr")
    window = store.window(0, 0, 0)
    before = shards(tmp_path / "s.zarr")[0].stat().st_mtime_ns
    with pytest.raises(StoreError, match="finished or replaced"):
        store.write(0, window, BlockResult(whole.class_map[:64, :64], whole.probability[:, :64, :64]))
    begin(tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="finished or replaced"):
        store.write(0, window, BlockResult(whole.class_map[:64, :64], whole.probability[:, :64, :64]))
    assert before
    assert not shards(tmp_path / "s.zarr")


# what is not ours


def test_what_swathe_did_not_write_is_never_removed(tmp_path):
    for name in ("foreign", "a.zarr", "b.zarr"):
        (tmp_path / name).mkdir()
    (tmp_path / "foreign/precious.txt").write_text("mine")
    zarr.create_group(tmp_path / "a.zarr", attributes={"mine": 1})
    (tmp_path / "b.zarr/zarr.json").write_text("[1, 2]")
    (tmp_path / "file.zarr").write_text("mine")
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr/download.partial").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for name in ("foreign", "a.zarr", "b.zarr", "file.zarr", "c.zarr"):
        for attempt in (read_metadata, remove_store):
            with pytest.raises(StoreError, match="choose another output"):
                attempt(str(tmp_path / name))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_put_into_a_store_keeps_it_from_being_replaced(tmp_path):
    finished(tmp_path / "s.zarr")
    (tmp_path / "s.zarr/notes.txt").write_text("mine")
    for attempt in (lambda: begin(tmp_path / "s.zarr"), lambda: remove_store(str(tmp_path / "s.zarr"))):
        with pytest.raises(StoreError, match=r"also holds notes\.txt, which Swathe did not write"):
            attempt()
    assert open_maps(tmp_path / "s.zarr").class_map.shape == (150, 210)


def test_a_link_to_a_folder_on_another_disk_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "s.zarr").symlink_to(tmp_path / "disk", target_is_directory=True)
    finished(tmp_path / "s.zarr")
    finished(tmp_path / "s.zarr")
    assert (tmp_path / "s.zarr").is_symlink()
    assert (tmp_path / "disk/zarr.json").exists()


def test_one_writer_at_a_time(tmp_path):
    path = str(tmp_path / "s.zarr")
    with sole_writer(path):
        with pytest.raises(StoreError, match="another run is writing"), sole_writer(path):
            raise AssertionError
        assert Path(path).is_dir()
    assert not Path(path).exists()
    with sole_writer(path):
        begin(path)
    assert read_metadata(path).state == "running"


# small things


def test_metadata_are_read_as_they_were_first_written():
    """Of release 0.1.0: later ones must read these names."""
    old = {
        "format": 1,
        "state": "complete",
        "segmented": {"engine": "torch on cpu"},
        "bundle": {"name": "buildings", "digest": "b0f7", "architecture": "unet"},
        "source": {"bands": ["red"], "dtype": "uint8", "path": ["scene.tif"]},
        "made_from": "m.zarr",
        "identity": {"cleaned from": "f1d8", "cleaning": {}, "shape": [60, 70]},
        "cleaned": {},
        "cleaned_from": "m.zarr",
        "command": "swathe clean",
        "plan": {"height": 60, "width": 70, "stride": 32, "halo": 224, "tile": 1024, "block": 1536, "chunk": 512,
                 "exact": True, "tall": 2},
        "levels": 2,
        "encoding": {"threshold": None, "probability": "uint8", "kept": [1], "objects": False},
        "classes": [{"name": "background", "color": "000000"}, {"name": "building", "color": "E4572E"}],
        "results": {"pixels": {"background": 1, "building": 2, "nodata": 0}},
    }  # fmt: skip
    metadata = StoreMetadata.from_json(old)
    assert metadata.plan.tile_aspect == 2
    assert metadata.class_names == ("background", "building")
    assert metadata.segmentation == {"engine": "torch on cpu"}
    now = {**old, "background": 0}
    assert json.loads(json.dumps(metadata.to_json())) == now
    one = {**old, "encoding": {**old["encoding"], "threshold": 0.25}}
    assert StoreMetadata.from_json(one).encoding.thresholds == (None, 0.25)
    for thresholds in (None, (None, 0.25), (None, 0.5, 0.7), (0.5, None, 0.5)):
        encoding = Encoding(thresholds, "uint8", (1,))
        assert Encoding.from_json(json.loads(json.dumps(encoding.to_json())), len(thresholds or (0, 1))) == encoding
    segmented = {
        key: now[key] for key in ("format", "state", "identity", "plan", "levels", "encoding", "classes", "background")
    }
    assert StoreMetadata.from_json(segmented).command == "swathe segment"
    assert json.loads(json.dumps(StoreMetadata.from_json(segmented).to_json())) == segmented


@pytest.mark.parametrize("key", ["plan", "encoding", "classes", "identity"])
def test_metadata_that_lack_something_are_refused(tmp_path, key):
    finished(tmp_path / "s.zarr")
    content = json.loads((tmp_path / "s.zarr/zarr.json").read_text())
    del content["attributes"]["swathe"][key]
    (tmp_path / "s.zarr/zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="another version of Swathe has written; give one that"):
        open_store(str(tmp_path / "s.zarr"))


def test_differences_name_settings_with_both_values():
    mine = {"engine": "torch on cpu", "encoding": {"threshold": 0.5}, "source": {"a": 1}, "halo": 8}
    theirs = {"engine": "openvino on cpu", "encoding": {"threshold": None}, "source": {"a": 2}, "halo": 8}
    assert differences(mine, theirs) == [
        "engine torch on cpu, there openvino on cpu",
        "threshold 0.5, there None",
        "another source, or one that has changed",
    ]
    assert differences(mine, json.loads(json.dumps(mine))) == []
    assert fingerprint(mine) == fingerprint(dict(reversed(mine.items()))) != fingerprint(theirs)


def test_files_in_memory_and_on_disk_behave_alike(tmp_path):
    for root in (str(tmp_path / "f"), "memory://swathe-test/f", f"file://{tmp_path}/g"):
        files = Files(root)
        assert not files.exists()
        assert files.names("deep") == []
        files.write("deep/a", b"12")
        files.write("deep/b", b"3")
        assert sorted(files.names("deep")) == ["a", "b"]
        assert files.sizes("deep") == {"a": 2, "b": 1}
        assert files.read_all(["deep/b", "deep/a"]) == [b"3", b"12"]
        files.remove("deep")
        assert not files.exists("deep/a")
        with pytest.raises(FileNotFoundError):
            files.read("deep/a")


def test_a_store_in_an_object_store(tmp_path):
    path = "memory://swathe-test/s.zarr"
    store, whole = finished(path)
    assert store.missing() == []
    np.testing.assert_array_equal(open_maps(path).class_map.values, whole.class_map)
    Files(path).remove("class_map/c/0/0")
    with pytest.raises(StoreError, match="damaged"):
        open_maps(path).class_map.compute(scheduler="synchronous")
    remove_store(path)
    assert read_metadata(path) is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12, which fears threads
def test_a_lock_ends_though_a_forked_process_still_has_its_handle(tmp_path):
    release = Files(str(tmp_path)).lock()
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # it does nothing but hold what it was born with
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    release()
    Files(str(tmp_path)).lock()()
    os.write(go[1], b"1")
    os.waitpid(child, 0)
