"""Right angles for buildings: known shapes come back, and nothing comes back broken."""

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from shapely import affinity
from test_polygons import geometries, label_whole, objects_of, whole

from pipeline.vector.regularize import orthogonalize, orthogonalize_table

BUILDINGS = {
    "box": shapely.box(-20, -12, 20, 12),
    "small": shapely.box(-8, -5, 8, 5),
    "L": shapely.Polygon([(-20, -15), (20, -15), (20, 0), (2, 0), (2, 15), (-20, 15)]),
    "U": shapely.Polygon([(-30, -20), (30, -20), (30, 20), (14, 20), (14, -4), (-14, -4), (-14, 20), (-30, 20)]),
    "court": shapely.box(-25, -20, 25, 20).difference(shapely.box(-10, -8, 10, 8)),
}


def traced(shape: shapely.Geometry, side: int = 120) -> np.ndarray:
    return geometries(whole(rasterize([shape], (side, side)).astype(np.int64)))


def largest_cosine(shape: shapely.Geometry) -> float:
    """How far the worst corner is from a right angle."""
    worst = 0.0
    for ring in shapely.get_rings(shape):
        step = np.diff(shapely.get_coordinates(ring), axis=0)
        following, length = np.roll(step, -1, axis=0), np.hypot(*step.T)
        worst = max(worst, float((abs((step * following).sum(1)) / length / np.roll(length, -1)).max()))
    return worst


def corner_distance(one: shapely.Geometry, other: shapely.Geometry) -> float:
    a, b = (shapely.get_coordinates(shape) for shape in (one, other))
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    return float(max(distance.min(0).max(), distance.min(1).max()))


@pytest.mark.parametrize("name", BUILDINGS)
@given(st.floats(0, 90), st.floats(0, 1), st.floats(0, 1))
def test_corners_come_back(name, angle, x, y):
    real = affinity.translate(affinity.rotate(BUILDINGS[name], angle, origin=(0, 0)), 60 + x, 60 + y)
    (found,) = orthogonalize(traced(real), 1.0)
    assert found.is_valid
    assert largest_cosine(found) < 1e-6
    assert corner_distance(found, real) < 1.5
    assert shapely.get_num_coordinates(found) == shapely.get_num_coordinates(real)


@given(
    st.sampled_from(["noise", "blobs", "spiral", "rings", "diagonal", "comb"]),
    st.integers(1, 60),
    st.integers(0, 999),
    st.sampled_from([4, 8]),
)
def test_whatever_comes_is_given_back_valid(kind, side, seed, connectivity):
    before = geometries(whole(objects_of(kind, side, side, seed, connectivity)))
    after = orthogonalize(before, 1.0)
    assert len(after) == len(before)
    assert shapely.is_valid(after).all()
    shared, total = shapely.intersection(before, after), shapely.union(before, after)
    assert (shapely.area(shared) >= 0.7 * shapely.area(total) - 1e-9).all()
    np.testing.assert_array_equal(shapely.get_num_geometries(after), shapely.get_num_geometries(before))


def test_a_circle_stays_and_so_does_an_empty_table():
    disc = traced(shapely.Point(60, 60).buffer(30))
    assert orthogonalize(disc, 1.0, least_iou=0.99)[0].equals(disc[0])
    empty = whole(np.zeros((3, 3), np.int64))
    assert orthogonalize_table(empty, 1.0).equals(empty)


def test_map_units_and_large_coordinates_change_nothing():
    real = affinity.translate(affinity.rotate(BUILDINGS["L"], 31, origin=(0, 0)), 60, 60)
    small = traced(real)
    large = shapely.transform(small, lambda points: points * 0.3 + [500_000, 9_000_000])
    table = pa.table({"id": [7], "geometry": pa.array(shapely.to_wkb(large), pa.binary()), "name": ["hut"]})
    found = orthogonalize_table(table, 0.3)
    assert found.schema == table.schema
    back = shapely.transform(geometries(found), lambda points: (points - [500_000, 9_000_000]) / 0.3)
    assert corner_distance(back[0], orthogonalize(small, 1.0)[0]) < 1e-5
    assert largest_cosine(geometries(found)[0]) < 1e-6


def test_thousands_of_buildings():
    rng = np.random.default_rng(0)
    boxes = [
        affinity.rotate(shapely.box(x, y, x + rng.uniform(8, 25), y + rng.uniform(8, 25)), rng.uniform(0, 90))
        for x in range(20, 2000, 40)
        for y in range(20, 2000, 40)
    ]
    before = geometries(whole(label_whole(rasterize(boxes, (2048, 2048)))))
    after = orthogonalize(before, 1.0)
    assert len(after) == len(before) > 2000
    assert max(largest_cosine(shape) for shape in after) < 1e-6
