"""Columns of the table of objects, block by block, against scikit-image on the whole scene."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from masks import blobs, chessboard, class_maps, spiral
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage.measure import label, regionprops_table

from models.encoding import NODATA, STEPS
from pipeline.grid.geobox import GeoBox, Window
from pipeline.objects.regionprops import DEPTH, EDGE, Patch, measure, own_probability
from pipeline.objects.table import COLUMNS, LENGTHS_M, PARTIAL, RENAMED, finish, merge, schema_of, with_new_names

CLASSES = ("none", "house", "street", "water")
EXACT = ("area_px", "bbox_minx_px", "bbox_miny_px", "bbox_maxx_px", "bbox_maxy_px")
PROPERTIES = ("label", "bbox", "centroid", "perimeter", "axis_major_length", "axis_minor_length", "eccentricity")
Ids = NDArray[np.int64]


def ids_of(class_map: NDArray[np.uint8], connectivity: int = 4) -> Ids:
    """Every object's id, from skimage's labels."""
    labels = label(np.where(class_map == NODATA, 0, class_map), background=0, connectivity=connectivity // 4)
    flat = labels.ravel()
    first = np.zeros(flat.max() + 1, np.int64)
    backwards = np.arange(flat.size)[::-1]
    first[flat[::-1]] = backwards + 1
    first[0] = 0
    return first[labels]


def expected(class_map: NDArray[np.uint8], ids: Ids, probability: NDArray[np.float32] | None = None) -> pd.DataFrame:
    """What skimage says of the whole scene, by id."""
    found, numbers = np.unique(ids, return_inverse=True)
    numbers = numbers.reshape(ids.shape) + (found[0] != 0)
    found = found[found != 0]
    if not len(found):
        return pd.DataFrame()
    properties = [*PROPERTIES, "num_pixels", *(["intensity_mean", "intensity_max"] if probability is not None else [])]
    table = pd.DataFrame(regionprops_table(numbers, probability, properties=properties))
    table["id"] = found[table.pop("label") - 1]
    table["class_value"] = class_map.ravel()[found - 1]
    return table.rename(columns=RENAMED).sort_values("id", ignore_index=True)


def patch(ids: Ids, class_map: NDArray[np.uint8], core: Window, **layers: Any) -> Patch:
    """One block, cut from whole layers."""
    around = np.pad(ids, EDGE)[core.top : core.bottom + 2 * EDGE, core.left : core.right + 2 * EDGE]
    classes = np.pad(class_map, DEPTH, constant_values=NODATA)
    classes = classes[core.top : core.bottom + 2 * DEPTH, core.left : core.right + 2 * DEPTH]
    cut = {name: layer[core.slices] for name, layer in layers.items() if layer is not None}
    return Patch(core, ids.shape[1], around, classes, **cut)


def blocks(shape: tuple[int, int], rows: list[int], columns: list[int]) -> list[Window]:
    """All blocks between some rows and some columns."""
    sides = [sorted({0, n, *(cut for cut in cuts if cut < n)}) for n, cuts in zip(shape, (rows, columns), strict=True)]
    return [Window(a, b, c, d) for a, b in pairwise(sides[0]) for c, d in pairwise(sides[1])]


def whole(ids: Ids, class_map: NDArray[np.uint8], widths: bool = True, **layers: Any) -> pa.Table:
    """Measured in one block."""
    return measure(patch(ids, class_map, Window.of(ids.shape), **layers), widths=widths)


def finished(rows: pa.Table, width: int, geobox: GeoBox | None = None) -> pd.DataFrame:
    return finish(rows, geobox or GeoBox(1, width), CLASSES).to_pandas()


def joined(parts: list[pa.Table], seed: int) -> pa.Table:
    """Merge tables in a random order and in random groups, as trees of any shape do."""
    random = np.random.default_rng(seed)
    while len(parts) > 1:
        some = int(random.integers(2, len(parts) + 1))
        parts = [parts[n] for n in random.permutation(len(parts))]
        parts = [merge(pa.concat_tables(parts[:some])), *parts[some:]]
    return merge(parts[0])


def assert_equal(found: pd.DataFrame, right: pd.DataFrame) -> None:
    """Counts and boxes exactly, all else to 1e-6; skimage's shorter axis of a line is off by the root of rounding."""
    assert len(found) == len(right)
    for name in right.columns:
        if name in (*EXACT, "id", "class_value"):
            assert found[name].tolist() == right[name].tolist(), name
        else:
            slack = 1e-6 * right["axis_major_length_px"] if name == "axis_minor_length_px" else 1e-6
            error = np.abs(found[name] - right[name])
            assert (error <= 1e-6 * np.abs(right[name]) + slack).all(), name
            assert found[name].isna().tolist() == right[name].isna().tolist(), name


cuts = st.lists(st.integers(1, 60), max_size=5)


@given(
    class_map=class_maps(4),
    connectivity=st.sampled_from([4, 8]),
    rows=cuts,
    columns=cuts,
    seed=st.integers(0, 2**16),
)
def test_blocks_in_any_order_give_what_skimage_gives_on_the_whole(
    class_map: NDArray[np.uint8], connectivity: int, rows: list[int], columns: list[int], seed: int
) -> None:
    ids = ids_of(class_map, connectivity)
    probability = np.random.default_rng(seed).integers(0, STEPS + 1, ids.shape).astype(np.uint8)
    decoded = probability.astype(np.float32) * np.float32(1 / STEPS)
    windows = blocks(ids.shape, rows, columns)
    parts = [measure(patch(ids, class_map, w, probability=probability), widths=False) for w in windows]
    assert all(part.schema == schema_of(PARTIAL) for part in parts)
    table = joined(parts, seed)
    assert table.schema == schema_of(PARTIAL)
    assert_equal(finished(table, ids.shape[1]), expected(class_map, ids, decoded))


@given(class_map=class_maps(3), rows=cuts, columns=cuts, seeds=st.tuples(st.integers(0, 999), st.integers(0, 999)))
def test_any_cut_and_any_order_of_merging_give_the_same_rows(
    class_map: NDArray[np.uint8], rows: list[int], columns: list[int], seeds: tuple[int, int]
) -> None:
    ids = ids_of(class_map)
    areas = np.random.default_rng(1).random(ids.shape) + 1
    float_probability = np.random.default_rng(2).random(ids.shape, np.float32)
    layers = {"areas": areas, "probability": float_probability}
    one = whole(ids, class_map, **layers).to_pandas()
    parts = [measure(patch(ids, class_map, w, **layers)) for w in blocks(ids.shape, rows, columns)]
    for seed in seeds:
        pd.testing.assert_frame_equal(joined(parts, seed).to_pandas(), one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize(
    "make",
    [
        lambda n: blobs(n, 3, width=4),
        lambda n: chessboard(n),
        lambda n: spiral(n),
        lambda n: np.eye(n, dtype=bool),
        lambda n: np.ones((n, n), bool),
        lambda n: np.hypot(*np.mgrid[:n, :n] - n / 2) < n / 3,
    ],
    ids=["blobs", "chessboard", "spiral", "diagonal", "full", "disk"],
)
def test_larger_scenes(make: Callable[[int], NDArray[np.bool_]], connectivity: int) -> None:
    class_map = make(320).astype(np.uint8)
    ids = ids_of(class_map, connectivity)
    parts = [measure(patch(ids, class_map, w), widths=False) for w in blocks(ids.shape, [100, 200, 300], [64, 130])]
    right = expected(class_map, ids) if len(np.unique(ids)) < 2000 else None
    found = finished(joined(parts, 5), 320)
    if right is None:  # 51,200 single pixels: skimage takes a minute
        assert (found["area_px"] == 1).all()
        assert (found["perimeter_px"] == 0).all()
        assert len(found) == class_map.sum()
    else:
        assert_equal(found, right)


def test_straight_lines_have_no_width_and_no_elongation() -> None:
    """The longer over the shorter axis of a line would be rounding's."""
    class_map = np.zeros((90, 400), np.uint8)
    class_map[3, 2:301] = 1
    class_map[5:80, 7] = 1
    class_map[np.arange(10, 80), np.arange(100, 170)] = 1
    class_map[np.arange(10, 80), np.arange(380, 310, -1)] = 1
    class_map[60, 60] = 1
    ids = ids_of(class_map, 8)
    parts = [measure(patch(ids, class_map, w)) for w in blocks(ids.shape, [17, 55], [33, 134, 219])]
    found = finish(joined(parts, 1), GeoBox(90, 400), CLASSES)
    assert found["axis_minor_length_px"].to_pylist() == [0] * 5
    assert found["elongation"].to_pylist() == [None] * 5
    assert found["eccentricity"].to_pylist() == [1, 1, 1, 1, 0]


def test_one_pixel() -> None:
    class_map = np.full((1, 1), 2, np.uint8)
    found = finish(whole(np.ones((1, 1), np.int64), class_map), GeoBox(1, 1), CLASSES)
    assert found.schema == schema_of(COLUMNS)
    row = found.to_pylist()[0]
    assert row == {
        **dict.fromkeys(schema_of(COLUMNS).names),
        **{"id": 1, "class": "street", "class_value": 2, "area_px": 1, "perimeter_px": 0, "mean_width_px": 2},
        **{"centroid_x_px": 0, "centroid_y_px": 0, "centroid_x": 0.5, "centroid_y": 0.5, "eccentricity": 0},
        **{"bbox_minx_px": 0, "bbox_miny_px": 0, "bbox_maxx_px": 1, "bbox_maxy_px": 1},
        **{"bbox_minx": 0, "bbox_miny": 0, "bbox_maxx": 1, "bbox_maxy": 1},
        **{"axis_major_length_px": 0, "axis_minor_length_px": 0},
    }


@pytest.mark.parametrize("filled", [0, NODATA])
def test_a_block_without_objects_gives_an_empty_table(filled: int) -> None:
    empty = whole(np.zeros((50, 70), np.int64), np.full((50, 70), filled, np.uint8), areas=np.ones((50, 1)))
    assert len(empty) == 0
    assert empty.schema == schema_of(PARTIAL)
    assert merge(empty).schema == schema_of(PARTIAL)
    table = finish(merge(pa.concat_tables([empty, empty])), GeoBox(50, 70), CLASSES)
    assert table.schema == schema_of(COLUMNS)
    assert len(table) == 0


def test_an_object_beside_the_block_is_no_part_of_it() -> None:
    class_map = np.ones((10, 10), np.uint8)
    class_map[4:6] = 0
    ids = ids_of(class_map)
    found = measure(patch(ids, class_map, Window(0, 5, 0, 10)))
    assert found["id"].to_pylist() == [1]


def test_objects_far_from_the_origin_lose_no_digits() -> None:
    """Rows and columns of 1e9, in a scene of 1e19 pixels that no id could count, but for its first rows."""
    class_map = blobs((80, 90), 4).astype(np.uint8)
    near = ids_of(class_map)
    width, top, left = 9_000_000_000, 1_000_000_000, 8_000_000_000
    rows, columns = np.divmod(near - 1, 90)
    far = np.where(near > 0, 1 + (rows + top) * width + columns + left, 0)
    assert far.max() < 2**63
    moved, parts = [], blocks(near.shape, [30], [40])
    for w in parts:
        here = patch(far, class_map, w)
        core = w.shift(top, left)
        moved.append(measure(Patch(core, width, here.objects, here.class_map)))
    found = finished(joined(moved, 0), width)
    right = finished(whole(near, class_map), 90)
    shifts = {
        f"{name}_px": top if "y" in name else left
        for name in ("centroid_x", "centroid_y", "bbox_minx", "bbox_miny", "bbox_maxx", "bbox_maxy")
    }
    for name, shift in shifts.items():
        found[name] -= shift
    same = [c for c in right if c != "id" and c not in {name.removesuffix("_px") for name in shifts}]
    pd.testing.assert_frame_equal(found[same], right[same], rtol=1e-9, atol=1e-5)


def test_a_giant_keeps_its_digits_when_its_parts_are_merged() -> None:
    """A filled square of a million pixels a side, of which only the rows exist: 1e12 pixels."""
    side, block = 1_000_000, 50_000
    count, spread = block * block, (block**2 - 1) / 12 * block * block
    at = np.arange(0, side, block, dtype=np.float64) + (block - 1) / 2
    rows, columns = (values.ravel() for values in np.meshgrid(at, at, indexing="ij"))
    n = len(rows)
    values: dict[str, Any] = {column.name: np.zeros(n) for column in PARTIAL}
    values |= {"id": np.ones(n), "num_pixels": np.full(n, count), "row_mean": rows, "column_mean": columns}
    values |= {"rows_m2": np.full(n, spread), "columns_m2": np.full(n, spread), "bbox-2": rows, "bbox-3": columns}
    schema = schema_of(PARTIAL)
    parts = pa.table([pa.array(np.asarray(values[f.name]).astype(f.type.to_pandas_dtype())) for f in schema], schema)
    for seed in range(3):
        found = finished(joined([parts[i::7] for i in range(7)], seed), side).loc[0]
        assert found["area_px"] == side**2
        assert found["centroid_y_px"] == pytest.approx((side - 1) / 2, rel=1e-12)
        assert found["axis_major_length_px"] == pytest.approx(4 * np.sqrt((side**2 - 1) / 12), rel=1e-12)
        assert found["eccentricity"] == pytest.approx(0, abs=1e-6)


def test_what_is_not_known_is_null() -> None:
    class_map = blobs((40, 50), 1).astype(np.uint8)
    table = finish(whole(ids_of(class_map), class_map, widths=False), GeoBox(40, 50), CLASSES)
    unknown = {name for name in table.column_names if table[name].null_count == len(table)}
    assert unknown == {"area_m2", "intensity_mean", "intensity_max", "mean_width_px"} | {
        f"{name}_m" for name in LENGTHS_M
    }


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_each_pixels_own_probability(dtype: str) -> None:
    class_map = np.array([[0, 1, 2, 3, NODATA]], np.uint8)
    layers = np.array([[[10, 20, 30, 40, 50]], [[60, 70, 80, 90, 100]]]).astype(dtype)
    own = own_probability(class_map, layers, (1, 3))
    assert own is not None
    assert own.dtype == dtype
    none = NODATA if dtype == "uint8" else np.nan
    np.testing.assert_array_equal(own, np.array([[none, 20, none, 90, none]], dtype))
    assert own_probability(class_map, None, ()) is None
    assert own_probability(class_map, layers[:0], ()) is None
    ids = np.where((class_map > 0) & (class_map < NODATA), 1 + np.arange(5), 0)
    table = finish(whole(ids, class_map, probability=own), GeoBox(1, 5), CLASSES)
    scale = STEPS if dtype == "uint8" else 1
    assert table["intensity_mean"].to_pylist() == [20 / scale, None, 90 / scale]
    assert table["intensity_max"].to_pylist() == [20 / scale, None, 90 / scale]


def test_areas_by_rows_by_pixels_and_all_alike() -> None:
    class_map = blobs((70, 60), 2).astype(np.uint8)
    ids = ids_of(class_map)
    random = np.random.default_rng(0)
    for areas in (random.random((70, 1)), random.random((1, 60)), np.full((1, 1), 2.5)):
        one = whole(ids, class_map, areas=areas)
        other = whole(ids, class_map, areas=np.broadcast_to(areas, ids.shape).copy())
        np.testing.assert_allclose(one["area_m2"].to_numpy(), other["area_m2"].to_numpy(), rtol=1e-12)
    assert other["area_m2"].to_pylist() == [2.5 * n for n in other["num_pixels"].to_pylist()]


def test_centroids_on_the_map() -> None:
    class_map = np.zeros((20, 30), np.uint8)
    class_map[4:8, 10:13] = 3
    box = GeoBox(20, 30, Affine(2, 0.5, 1000, -0.25, -2, 5000), "EPSG:32636")
    row = finish(whole(ids_of(class_map), class_map), box, CLASSES).to_pylist()[0]
    assert (row["centroid_x"], row["centroid_y"]) == tuple(box.affine * (11.5, 6))
    assert row["class"] == "water"


def test_boxes_on_the_map_hold_all_pixels_and_metres_follow_the_ellipsoid() -> None:
    class_map = np.zeros((20, 30), np.uint8)
    class_map[4:8, 10:13] = 3
    box = GeoBox(20, 30, Affine(2, 0.5, 1000, -0.25, -2, 5000), "EPSG:32636")
    row = finish(whole(ids_of(class_map), class_map, areas=np.full((1, 1), 4.0)), box, CLASSES).to_pylist()[0]
    corners = np.array([box.affine * corner for corner in ((10, 4), (13, 4), (13, 8), (10, 8))])
    assert [row[f"bbox_{side}"] for side in ("minx", "miny")] == corners.min(0).tolist()
    assert [row[f"bbox_{side}"] for side in ("maxx", "maxy")] == corners.max(0).tolist()
    for name in LENGTHS_M:  # pixels of 2 m
        assert row[f"{name}_m"] == pytest.approx(2 * row[f"{name}_px"], rel=1e-12)


def test_tables_of_before_come_with_the_names_of_now() -> None:
    class_map = blobs((40, 50), 1).astype(np.uint8)
    box = GeoBox(40, 50, Affine(2, 0, 1000, 0, -2, 5000), "EPSG:32636")
    now = finish(whole(ids_of(class_map), class_map, areas=np.full((1, 1), 4.0)), box, CLASSES)
    assert with_new_names(now, box) is now
    olds = {"id", "class", "class_value", "area_m2", "eccentricity", "elongation", "intensity_mean", "intensity_max",
            "mean_width_m", *RENAMED.values()}  # fmt: skip
    before = {name: old for old, name in RENAMED.items()}
    old = now.select([name for name in now.column_names if name in olds])
    old = old.rename_columns([before.get(name, name) for name in old.column_names])
    assert not {"centroid_x", "perimeter_m", "area_px"} & set(old.column_names)
    assert with_new_names(old, box).equals(now)
    assert not [name for name in now.column_names if not name.isidentifier()]


def brute_widths(class_map: NDArray[np.uint8], ids: Ids) -> dict[int, float]:
    """Mean widths from distances over the whole scene, class by class."""
    depths = np.zeros(ids.shape)
    for value in np.unique(class_map[ids > 0]):
        inside = class_map == value
        depths[inside] = distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1][inside]
    depths[depths > DEPTH] = np.nan
    return {int(i): 4 * float(np.mean(depths[ids == i] - 0.5)) for i in np.unique(ids[ids > 0])}


@given(class_map=class_maps(3), rows=cuts, columns=cuts)
def test_widths_are_the_same_in_blocks(class_map: NDArray[np.uint8], rows: list[int], columns: list[int]) -> None:
    ids = ids_of(class_map)
    parts = [measure(patch(ids, class_map, w)) for w in blocks(ids.shape, rows, columns)]
    found = finished(joined(parts, 0), ids.shape[1])
    right = brute_widths(class_map, ids)
    assert found["mean_width_px"].tolist() == pytest.approx([right[i] for i in found["id"]], rel=1e-9)


@pytest.mark.parametrize("half", [1, 10, 63, 64, 65, 90])
def test_widths_are_known_up_to_a_depth(half: int) -> None:
    class_map = np.zeros((2 * half + 6, 320), np.uint8)
    class_map[3 : 3 + 2 * half, 4:-4] = 1
    ids = ids_of(class_map)
    parts = [measure(patch(ids, class_map, w)) for w in blocks(ids.shape, [7, 90], [3, 150, 317])]
    found = finished(joined(parts, 0), 320)["mean_width_px"].tolist()
    assert found == pytest.approx(list(brute_widths(class_map, ids).values()), rel=1e-9, nan_ok=True)
    assert np.isnan(found[0]) == (half > DEPTH)


@pytest.mark.parametrize("width", [1, 2, 3, 8, 9])
def test_the_width_of_a_long_street(width: int) -> None:
    class_map = np.zeros((30, 6000), np.uint8)
    class_map[11 : 11 + width] = 2
    box = GeoBox(30, 6000, Affine(0.5, 0, 0, 0, -0.5, 0), "EPSG:32636")
    row = finish(whole(ids_of(class_map), class_map, areas=np.full((1, 1), 0.25)), box, CLASSES).to_pylist()[0]
    right = width if width % 2 == 0 else width + 1 / width
    assert row["mean_width_px"] == pytest.approx(right, rel=1e-3)
    assert row["mean_width_m"] == pytest.approx(right / 2, rel=1e-3)


def test_arrays_that_do_not_fit_are_a_defect() -> None:
    ids, classes, core = np.ones((12, 12), np.int64), np.ones((8, 8), np.uint8), Window(0, 8, 0, 8)
    assert len(measure(Patch(core, 8, ids, classes), widths=False)) == 1
    with pytest.raises(ValueError, match="at least 64 pixels more"):
        measure(Patch(core, 8, ids, classes))
    with pytest.raises(ValueError, match="at least 2 pixels more"):
        measure(Patch(core, 8, ids[1:-1, 1:-1], classes), widths=False)
    with pytest.raises(ValueError, match="pixels more"):
        measure(Patch(core, 8, ids[1:], classes), widths=False)


def test_columns_say_what_they_are() -> None:
    assert [column.name for column in COLUMNS] == schema_of(COLUMNS).names
    assert all(column.meaning for column in COLUMNS)
    assert len({column.name for column in PARTIAL}) == len(PARTIAL)
