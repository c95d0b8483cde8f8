"""Blocks that are not planned: never computed nor written, and nodata to whoever reads."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import GRID, UTM
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from stores import TOWN
from typing_extensions import override

from models.encoding import NODATA, Encoding
from models.errors import StoreError
from models.metadata import ReceptiveField
from pipeline import compute_statistics, open_maps, open_objects, write_clean, write_cog, write_objects, write_report
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox
from pipeline.grid.tiling import make_plan
from pipeline.jobs.job import BlockFunction, BlockJob, run_job
from pipeline.store.lifecycle import check_whole
from pipeline.store.metadata import StoreMetadata, level_count
from pipeline.store.planned import above, by_level, count_below, places, recut
from pipeline.store.store import open_store

SHAPE, BLOCK = (440, 360), 64
WKT = CRS.from_string(UTM).to_wkt()
ENCODING = Encoding(None, "uint8", (1,))
ASKED: dict[str, list[tuple[int, int]]] = defaultdict(list)  # the worker is in this process


@dataclass(frozen=True)
class Given(BlockFunction):
    """A block is what an array has there; the blocks that were asked for are noted in `ASKED`, under a name."""

    probability: NDArray[np.uint8]
    name: str
    stop: int | None

    @override
    def compute_block(self, store, row, column):
        if len(ASKED[self.name]) == self.stop:
            raise StoreError("stopped")
        ASKED[self.name].append((row, column))
        part = self.probability[store.window(0, row, column).slices]
        return BlockResult(np.where(part == NODATA, NODATA, part > 125).astype(np.uint8), part[None])


@dataclass(frozen=True)
class GivenJob(BlockJob):
    """Maps that are given, of which some blocks are planned."""

    probability: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    name: str = ""
    stop: int | None = None
    block: int = BLOCK
    title = "copying"
    geobox = GeoBox(*SHAPE, GRID, WKT)

    @override
    def identity(self):
        return {"maps": "given"}

    @override
    def new_metadata(self):
        plan = make_plan(SHAPE, ReceptiveField(8, 8), tile=32, block=self.block)
        about = {"levels": level_count(self.geobox, 100), "bundle": {"name": "b", "digest": "d", "architecture": "a"}}
        return StoreMetadata(plan, ENCODING, TOWN[:2], self.identity(), **about)

    @override
    def planned_blocks(self, side):
        assert side == self.block
        return self.mask

    @override
    def block_function(self, store):
        return Given(self.probability, self.name, self.stop)


def some_blocks(seed: int, share: float = 0.4) -> NDArray[np.bool_]:
    rows, columns = (-(-size // BLOCK) for size in SHAPE)
    return np.random.default_rng(seed).random((rows, columns)) < share


def blobs_of(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 251, [size // 7 + 1 for size in SHAPE])
    return np.kron(coarse, np.ones((7, 7), int))[: SHAPE[0], : SHAPE[1]].astype(np.uint8)


def where_planned(values, mask, side=BLOCK):
    """What a store holds that was written whole, with nodata where no block is planned."""
    wide = np.kron(mask, np.ones((side, side), bool))[: values.shape[0], : values.shape[1]]
    return np.where(wide, values, NODATA).astype(np.uint8)


def shards(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("c/**/*") if path.is_file())


@pytest.fixture(scope="module")
def pair(tmp_path_factory, client):
    """A store of which 40 % of the blocks are planned, and the same maps written whole; with the plan."""
    folder, mask, values = tmp_path_factory.mktemp("pair"), some_blocks(1), blobs_of(2)
    results = [
        run_job(GivenJob(values, mask, "pair"), folder / "some.zarr", client=client, show=False),
        run_job(GivenJob(where_planned(values, mask), None), folder / "all.zarr", client=client, show=False),
    ]
    assert sorted(ASKED["pair"]) == [tuple(place) for place in np.argwhere(mask).tolist()]
    return folder, mask, results


def test_blocks_that_are_not_planned_are_not_written(pair):
    folder, mask, (some, every) = pair
    assert (some.blocks, every.blocks) == (mask.sum(), mask.size)
    assert some.pixels == every.pixels
    assert sum(some.pixels.values()) == SHAPE[0] * SHAPE[1]
    store, metadata = open_store(str(folder / "some.zarr"))
    assert dict(metadata.pixels) == some.pixels
    for level, planned in enumerate(by_level(mask, store.levels)):
        base = f"overviews/{level}/" if level else ""
        found = [name for name in shards(folder / "some.zarr") if name.startswith(f"{base}class_map/")]
        assert found == sorted(f"{base}class_map/c/{row}/{column}" for row, column in np.argwhere(planned))
        np.testing.assert_array_equal(store.planned(level), planned)
    check_whole(store)
    assert np.isnan(store.block_seconds()[~mask]).all()
    assert np.isfinite(store.block_seconds()[mask]).all()


def test_they_read_as_nodata(pair):
    folder = pair[0]
    stores = [open_store(str(folder / name))[0] for name in ("some.zarr", "all.zarr")]
    for level in range(stores[0].levels + 1):
        some, every = (open_maps(store.path, level=level) for store in stores)
        np.testing.assert_array_equal(some.class_map, every.class_map)
        np.testing.assert_array_equal(some.probability, every.probability)
        window = stores[0].geobox.level(level).whole
        one, other = (store.read(level, window) for store in stores)
        np.testing.assert_array_equal(one.probability, other.probability)


@pytest.mark.parametrize("cleaning", [
    {"threshold": 0.4, "closing": 3, "min_object": 80, "min_hole": 90},
    pytest.param({"threshold": 0.6, "hysteresis": 0.3, "majority": 3, "min_object": 5000}, marks=pytest.mark.slow),
])  # fmt: skip
def test_what_is_derived_is_the_same(pair, tmp_path, client, cleaning):
    folder, mask, _ = pair
    for name in ("some", "all"):
        clean = write_clean(folder / f"{name}.zarr", tmp_path / f"{name}.zarr", client=client, show=False, **cleaning)
        write_objects(clean.output, tmp_path / f"{name}-objects.zarr", client=client, widths=False, show=False)
        write_cog(clean.output, tmp_path / f"{name}.tif")
    some, every = (tmp_path / "some.zarr", tmp_path / "all.zarr")
    np.testing.assert_array_equal(open_store(str(some))[0].planned(0), mask)
    for level in (0, 1, 2):
        maps = [open_maps(path, level=level) for path in (some, every)]
        np.testing.assert_array_equal(maps[0].class_map, maps[1].class_map)
    assert open_store(str(some))[1].pixels == open_store(str(every))[1].pixels
    (ids, table), (whole_ids, whole_table) = (
        open_objects(tmp_path / f"{name}-objects.zarr") for name in ("some", "all")
    )
    np.testing.assert_array_equal(ids.objects, whole_ids.objects)
    assert len(table)
    assert table.equals(whole_table)
    statistics = [compute_statistics(tmp_path / f"{name}-objects.zarr", show=False) for name in ("some", "all")]
    assert statistics[0].drop(columns="geometry").equals(statistics[1].drop(columns="geometry"))
    with rasterio.open(tmp_path / "some.tif") as one, rasterio.open(tmp_path / "all.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_a_report_shows_them(pair, tmp_path):
    page = Path(write_report(pair[0] / "some.zarr", tmp_path / "page.html")).read_text("utf-8")
    assert f"of which {pair[1].sum()} were planned" in page


@pytest.mark.parametrize("name", ["class_map/c", "probability/c/0", "overviews/1/class_map/c"])
def test_a_shard_that_is_lost_where_one_is_planned_is_an_error(tmp_path, client, name):
    mask = some_blocks(1)
    run_job(GivenJob(blobs_of(2), mask), tmp_path / "s.zarr", client=client, show=False)
    level = int(name.startswith("overviews"))
    row, column = np.argwhere(by_level(mask, 1)[level])[-1]
    (tmp_path / "s.zarr" / name / str(row) / str(column)).unlink()
    array = "probability" if name.startswith("probability") else "class_map"
    with pytest.raises(StoreError, match="damaged"):
        open_maps(tmp_path / "s.zarr", level=level)[array].compute(scheduler="synchronous")
    with pytest.raises(StoreError, match=f"block {row}, {column}.* is missing"):
        run_job(GivenJob(blobs_of(2), mask), tmp_path / "s.zarr", client=client, show=False)


@pytest.mark.parametrize("block", [64, 256])
def test_no_block_at_all(tmp_path, client, block):
    mask = np.zeros([-(-size // block) for size in SHAPE], bool)
    job = GivenJob(blobs_of(2), mask, block=block)
    for _ in range(2):
        result = run_job(job, tmp_path / "s.zarr", client=client, show=False)
        assert (result.blocks, result.pixels["nodata"]) == (0, SHAPE[0] * SHAPE[1])
    for level in range(open_store(str(tmp_path / "s.zarr"))[0].levels + 1):
        assert (open_maps(tmp_path / "s.zarr", level=level).class_map.values == NODATA).all()
    assert write_clean(tmp_path / "s.zarr", tmp_path / "c.zarr", client=client, min_object=9, show=False).blocks == 0


def test_a_plan_of_all_blocks_is_none(tmp_path, client):
    run_job(GivenJob(blobs_of(2), some_blocks(0, 1.1)), tmp_path / "s.zarr", client=client, show=False)
    assert open_store(str(tmp_path / "s.zarr"))[0].plan_digest == ""
    assert not (tmp_path / "s.zarr/blocks/planned").exists()


def test_a_plan_that_is_lost_or_another_is_an_error(tmp_path, client):
    """A task that was sent out for a store must not take it, made anew under another plan, for nodata."""
    job = GivenJob(blobs_of(2), some_blocks(1))
    run_job(job, tmp_path / "s.zarr", client=client, show=False)
    before = open_store(str(tmp_path / "s.zarr"))[0]
    other = GivenJob(blobs_of(2), some_blocks(3))
    run_job(other, tmp_path / "s.zarr", "all", client=client, show=False)
    with pytest.raises(StoreError, match="made anew"):
        before.read_array("class_map", before.window(0, 0, 0))
    (tmp_path / "s.zarr/blocks/planned/c/0/0").unlink()
    run_job(other, tmp_path / "t.zarr", client=client, show=False)  # drops what this process keeps open
    with pytest.raises(StoreError, match="planned"):
        open_store(str(tmp_path / "s.zarr"))[0].planned(0)


def test_a_derived_run_that_was_begun_in_other_blocks_plans_what_touches(tmp_path, client):
    mask = some_blocks(1, 0.2)
    run_job(GivenJob(blobs_of(2), mask), tmp_path / "s.zarr", client=client, show=False)
    maps, _ = open_store(str(tmp_path / "s.zarr"))
    wide = np.kron(mask, np.ones((BLOCK, BLOCK), bool))[: SHAPE[0], : SHAPE[1]]
    for side in (40, 64, 100, 128, 1000):
        expected = [
            [wide[top : top + side, left : left + side].any() for left in range(0, SHAPE[1], side)]
            for top in range(0, SHAPE[0], side)
        ]
        np.testing.assert_array_equal(recut(maps.planned(0), BLOCK, side, SHAPE), expected)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_masks_by_level(rows, columns, seed, share):
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    higher, counts = above(mask), count_below(mask)
    for row, column in np.ndindex(higher.shape):
        below = mask[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert higher[row, column] == below.any()
        assert counts[row, column] == below.sum()
    assert list(places(mask)) == [tuple(place) for place in np.argwhere(mask)]
    assert sorted(places(mask, 3)) == list(places(mask))


@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 0.7]), st.integers(0, 30))
@settings(max_examples=3)
def test_whatever_is_planned_and_wherever_it_is_stopped(tmp_path_factory, client, seed, share, stop):
    """Stopped in a block, the same call continues, asks for no block twice, and ends with the same bytes."""
    folder, mask, values = tmp_path_factory.mktemp("any"), some_blocks(seed, share), blobs_of(seed)
    name, again = f"{folder} 1", f"{folder} 2"
    whole = run_job(GivenJob(values, mask), folder / "whole.zarr", client=client, show=False)
    if stop < mask.sum():
        with pytest.raises(StoreError, match="stopped"):
            run_job(GivenJob(values, mask, name, stop), folder / "s.zarr", client=client, show=False)
    result = run_job(GivenJob(values, mask, again), folder / "s.zarr", client=client, show=False)
    assert result.pixels == whole.pixels
    assert (result.blocks, result.resumed) == (mask.sum(), mask.sum() - len(ASKED[again]))
    for one, other in zip(*(sorted((folder / name).rglob("c/**/*")) for name in ("s.zarr", "whole.zarr")), strict=True):
        assert one.is_dir() or "seconds" in str(one) or one.read_bytes() == other.read_bytes()


def test_overviews_go_on_above_the_one_that_is_a_single_block(tmp_path, client):
    mask = np.array([[True, False], [True, True]])
    values = blobs_of(4)
    path = tmp_path / "large_blocks.zarr"
    run_job(GivenJob(values, mask, "large", block=256), path, client=client, show=False)
    store, metadata = open_store(str(path))
    assert metadata.levels > max(mask.shape).bit_length()
    assert store.planned(metadata.levels).tolist() == [[True]]
    expected = where_planned(values, mask, 256)
    np.testing.assert_array_equal(store.read_array("probability", GivenJob.geobox.whole)[0], expected)
    assert (open_maps(path, level=metadata.levels).class_map.values != NODATA).any()
