"""Polygons of objects: rasterised back they are the map, and however the scene is cut they are the same bytes."""

import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize, shapes
from skimage.filters import gaussian
from skimage.measure import label

from pipeline.grid.geobox import Window
from pipeline.vector.polygons import merge, merge_simplified, schema, trace, trace_simplified

KINDS = ("noise", "blobs", "chessboard", "spiral", "comb", "rings", "seams", "full", "empty", "diagonal")


def classes(kind: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """A class map (y, x): 0 is background."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((height, width))
    if kind == "noise":
        return (rng.random((height, width)) < rng.random()) * rng.integers(1, 3, (height, width))
    if kind == "blobs":
        return gaussian(rng.random((3, height, width)), (0, 1.5, 1.5)).argmax(0)
    if kind == "seams":
        return ((row % 8 < 2) | (column % 8 == 7)).astype(int)
    return {
        "chessboard": (row + column) % 2,
        "comb": (row % 2 == 0) | (column == 0),
        "rings": np.minimum.reduce([row, column, height - 1 - row, width - 1 - column]) % 2 == 0,
        "full": np.ones((height, width)),
        "empty": np.zeros((height, width)),
        "diagonal": abs(row - column) % 5 == 0,
        "spiral": spiral(height, width),
    }[kind].astype(int)


def spiral(height: int, width: int) -> np.ndarray:
    """One line, one pixel wide, with as much between its turns."""
    mask = np.zeros((height, width), bool)
    for k in range(0, (min(height, width) + 1) // 2, 2):
        mask[k, max(k - 2, 0) : width - k] = mask[k : height - k, width - k - 1] = True
        mask[height - k - 1, k : width - k] = mask[k + 2 : height - k, k] = True
    return mask


def label_whole(class_map: np.ndarray, connectivity: int = 4) -> np.ndarray:
    """Ids as `label_objects` gives them: 1 + the place of the first pixel."""
    objects = np.zeros(class_map.shape, np.int64)
    for value in np.unique(class_map[class_map > 0]):
        found = label(class_map == value, connectivity=connectivity // 4)
        _, first = np.unique(found, return_index=True)
        numbers = np.append(0, first[found.ravel()[first] > 0] + 1)
        objects += numbers[found]
    return objects


def cut(objects: np.ndarray, block: int) -> list[Window]:
    return list(Window.of(objects.shape).split(block))


def whole(objects: np.ndarray) -> pa.Table:
    return trace(objects, Window.of(objects.shape))


def in_blocks(objects: np.ndarray, block: int, some: int = 3) -> pa.Table:
    """Trace block by block and merge a few at a time, as the tree does."""
    tables = [trace(objects[window.slices], window) for window in cut(objects, block)]
    while len(tables) > 1:
        tables = [merge(pa.concat_tables(tables[n : n + some])) for n in range(0, len(tables), some)]
    return tables[0]


def geometries(table: pa.Table) -> np.ndarray:
    return shapely.from_wkb(table["geometry"].to_numpy())


def rasterised(table: pa.Table, shape: tuple[int, int]) -> np.ndarray:
    """Ids of the pixels whose centres polygons cover."""
    ids = np.append(0, table["id"].to_numpy())
    if not len(table):
        return np.zeros(shape, np.int64)
    return ids[rasterize(zip(geometries(table), range(1, len(ids)), strict=True), shape, dtype="int32")]


def objects_of(kind: str, height: int, width: int, seed: int, connectivity: int) -> np.ndarray:
    return label_whole(classes(kind, height, width, seed), connectivity)


some_objects = st.builds(
    objects_of,
    st.sampled_from(KINDS),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(0, 2**16),
    st.sampled_from([4, 8]),
)


@given(some_objects)
def test_polygons_rasterise_back_to_the_objects(objects):
    table = whole(objects)
    assert table.schema == schema()
    np.testing.assert_array_equal(table["id"].to_numpy(), np.unique(objects[objects > 0]))
    assert shapely.is_valid(geometries(table)).all()
    np.testing.assert_array_equal(rasterised(table, objects.shape), objects)


@given(some_objects, st.integers(1, 64), st.integers(2, 16))
@settings(max_examples=150)
def test_any_blocks_give_the_same_bytes(objects, block, some):
    assert in_blocks(objects, block, some).equals(whole(objects))


@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_objects_joined_by_sides_are_one_polygon_as_gdal_traces_them(kind, height, width, seed):
    class_map = classes(kind, height, width, seed)
    table = whole(label_whole(class_map))
    assert (shapely.get_type_id(geometries(table)) == shapely.GeometryType.POLYGON).all()
    traced = shapes(class_map.astype(np.uint8), class_map > 0, connectivity=4)
    theirs = shapely.normalize([shapely.geometry.shape(polygon) for polygon, _ in traced])
    ours = shapely.normalize(geometries(table))
    assert {g.wkb for g in ours} == {g.wkb for g in theirs}


def test_parts_that_meet_at_corners_are_a_multipolygon():
    (geometry,) = geometries(whole(np.eye(3, dtype=np.int64)))
    assert geometry.geom_type == "MultiPolygon"
    assert [part.bounds for part in geometry.geoms] == [(0, 0, 1, 1), (1, 1, 2, 2), (2, 2, 3, 3)]


def test_a_hole_that_touches_the_outline_stays_a_hole():
    mask = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 1]], np.int64)
    (geometry,) = geometries(whole(mask))
    assert geometry.geom_type == "Polygon"
    assert len(geometry.interiors) == 1


def test_parts_within_holes_keep_their_own_holes():
    """Frames within frames that meet at one corner each: a hole must not go to the frame around its own."""
    mask = np.zeros((17, 17), np.int64)
    for k in (0, 2, 4, 6):
        mask[k : 17 - k, k : 17 - k] = 1
        mask[k + 1 : 16 - k, k + 1 : 16 - k] = 0
        mask[k + 1, k + 1] = 1  # its corner meets the next frame's
    objects = label_whole(mask, 8)
    (geometry,) = geometries(whole(objects))
    assert [len(part.interiors) for part in geometry.geoms] == [1, 1, 1, 1]
    assert geometry.is_valid
    np.testing.assert_array_equal(rasterised(whole(objects), mask.shape), objects)


def test_rings_start_above_and_run_as_documented():
    (geometry,) = geometries(trace(np.ones((2, 3), np.int64), Window(5, 7, 10, 13)))
    assert shapely.get_coordinates(geometry).tolist() == [[10, 5], [13, 5], [13, 7], [10, 7], [10, 5]]


def test_large_ids_and_places_are_exact():
    objects = np.full((2, 2), 2**62, np.int64)
    table = trace(objects, Window(10**6, 10**6 + 2, 10**6, 10**6 + 2))
    assert table["id"].to_pylist() == [2**62]
    assert geometries(table)[0].bounds == (1e6, 1e6, 1e6 + 2, 1e6 + 2)


def test_nothing_gives_empty_tables():
    empty = trace(np.zeros((4, 5), np.int64), Window(0, 4, 0, 5))
    assert len(empty) == 0
    assert merge(empty).schema == merge_simplified(empty).schema == schema()
    assert len(trace_simplified(np.zeros((4, 5), np.int64), Window(0, 4, 0, 5), 2.0)) == 0


def simplified(objects: np.ndarray, block: int, tolerance: float, framed: bool) -> list[pa.Table]:
    around = np.pad(objects, 1, constant_values=-2)
    buffered = [(slice(w.top, w.bottom + 2), slice(w.left, w.right + 2)) for w in cut(objects, block)]
    cuts = [around[g] if framed else objects[w.slices] for g, w in zip(buffered, cut(objects, block), strict=True)]
    return [trace_simplified(c, w, tolerance) for c, w in zip(cuts, cut(objects, block), strict=True)]


@given(some_objects, st.integers(2, 64), st.sampled_from([0.0, 1.0, 3.0, 40.0]), st.booleans())
def test_simplified_neighbours_share_their_borders(objects, block, tolerance, framed):
    objects[:2, :2] = -1  # nodata
    wanted = np.unique(objects[objects > 0])
    tables = simplified(objects, block, tolerance, framed)
    for table in tables:
        assert shapely.is_valid(geometries(table)).all()
        assert shapely.coverage_is_valid(geometries(table))
    joined = merge_simplified(pa.concat_tables(tables))
    found = geometries(joined)
    np.testing.assert_array_equal(joined["id"].to_numpy(), wanted)  # none has vanished
    assert shapely.is_valid(found).all()
    assert not framed or shapely.coverage_is_valid(found)
    assert not len(shapely.STRtree(found).query(found, predicate="overlaps")[0])
    if not tolerance:
        np.testing.assert_array_equal(rasterised(joined, objects.shape), np.maximum(objects, 0))


def test_simplified_outlines_have_fewer_points_and_stay_near():
    objects = objects_of("blobs", 300, 300, 3, 4)
    exact, fewer = whole(objects), merge_simplified(pa.concat_tables(simplified(objects, 128, 2.0, True)))
    assert (
        shapely.get_num_coordinates(geometries(fewer)).sum()
        < 0.7 * shapely.get_num_coordinates(geometries(exact)).sum()
    )
    assert (rasterised(fewer, objects.shape) == objects).mean() > 0.9


def test_a_busy_block_takes_seconds():
    objects = label_whole(np.random.default_rng(0).random((2048, 2048)) < 0.6)
    start = time.perf_counter()
    table = whole(objects)
    assert len(table) > 50_000
    assert time.perf_counter() - start < 30  # 2 s on a quiet machine


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["comb", "spiral"])
def test_one_object_of_65_000_parts(kind):
    """Every block of 8 x 8 is crossed by about a thousand lines of the same object."""
    side, block = 16384, 2048
    mask = spiral(side, side) if kind == "spiral" else None
    if mask is None:
        mask = np.zeros((side, side), bool)
        mask[::2] = mask[:, 0] = True
    windows = [Window(y, y + block, x, x + block) for y in range(0, side, block) for x in range(0, side, block)]
    tables = [trace(mask[window.slices].astype(np.int64), window) for window in windows]
    parts = sum(int(shapely.get_num_geometries(geometries(table)).sum()) for table in tables)
    assert parts > 57_000
    tracemalloc.start()
    start = time.perf_counter()
    quarters = [
        merge(pa.concat_tables([tables[8 * (r + y) + c + x] for y in range(4) for x in range(4)]))
        for r in (0, 4)
        for c in (0, 4)
    ]
    table = merge(pa.concat_tables(quarters))
    assert time.perf_counter() - start < 60
    assert tracemalloc.get_traced_memory()[1] < 1e9
    tracemalloc.stop()
    (geometry,) = geometries(table)
    assert geometry.geom_type == "Polygon"
    assert geometry.is_valid
    assert geometry.area == np.count_nonzero(mask)
    np.testing.assert_array_equal(rasterize([geometry], mask.shape).astype(bool), mask)
