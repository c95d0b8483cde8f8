"""Windows and geoboxes: their operations against sets of pixels, affine maps and pyproj."""

import math
import pickle

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from pipeline.grid.geobox import GeoBox, Window

UTM = CRS.from_epsg(32737).to_wkt()
SHAPE = 40, 50

starts, sides = st.integers(-20, 60), st.integers(1, 40)
windows = st.builds(lambda top, left, h, w: Window(top, top + h, left, left + w), starts, starts, sides, sides)
transforms = st.builds(
    lambda x, y, width, height, angle: Affine.translation(x, y) * Affine.rotation(angle) * Affine.scale(width, -height),
    st.floats(-1e6, 1e6),
    st.floats(-1e6, 1e6),
    st.floats(0.1, 100),
    st.floats(0.1, 100),
    st.floats(0, 360),
)


def pixels(window: Window) -> set[tuple[int, int]]:
    return {(row, column) for row in range(window.top, window.bottom) for column in range(window.left, window.right)}


@given(windows, sides, st.none() | sides)
def test_a_split_holds_each_pixel_once_in_windows_of_the_size(window, rows, columns):
    parts = list(window.split(rows, columns))
    assert sum(part.size for part in parts) == window.size == len(pixels(window))
    assert set().union(*map(pixels, parts)) == pixels(window)
    across = rows if columns is None else columns
    for part in parts:
        assert part.shape[0] == rows or part.bottom == window.bottom
        assert part.shape[1] == across or part.right == window.right
        assert part.shape[0] <= rows
        assert part.shape[1] <= across
    assert [(part.top, part.left) for part in parts] == sorted((part.top, part.left) for part in parts)


@given(windows, sides)
def test_cells_are_the_squares_that_a_window_touches(window, side):
    assert list(window.cells(side)) == sorted({(row // side, column // side) for row, column in pixels(window)})
    assert all(window.overlap(Window.square(row * side, column * side, side)) for row, column in window.cells(side))


@given(windows, windows)
def test_overlap_clip_and_contains_are_those_of_sets_of_pixels(one, other):
    shared = pixels(one) & pixels(other)
    assert pixels(one.clip(other)) == shared
    assert (pixels(found) if (found := one.overlap(other)) else set()) == shared
    assert one.contains(other) == (pixels(other) <= pixels(one))
    assert pixels(one.clip(SHAPE)) == pixels(one) & pixels(Window.of(SHAPE))


@given(windows, st.integers(0, 5), starts, starts)
def test_buffer_shift_scale_and_within(window, pixel, rows, columns):
    wide = window.buffer(pixel)
    assert wide.contains(window)
    assert wide.shape == (window.shape[0] + 2 * pixel, window.shape[1] + 2 * pixel)
    assert wide.buffer(-pixel) == window
    moved = window.shift(rows, columns)
    assert pixels(moved) == {(row + rows, column + columns) for row, column in pixels(window)}
    assert moved.within(window) == Window(rows, rows + window.shape[0], columns, columns + window.shape[1])
    assert window.scale(3).size == 9 * window.size


def test_a_window_for_numpy_for_rasterio_and_in_words():
    window = Window(3, 7, 5, 11)
    assert np.arange(2000).reshape(SHAPE)[window.slices].shape == window.shape == (4, 6)
    assert window.to_rasterio().toslices() == window.slices
    assert window.describe() == "rows 3 to 7, columns 5 to 11"
    assert Window.square(3, 5, 4) == Window(3, 7, 5, 9)
    assert GeoBox(*SHAPE).whole == Window.of(SHAPE) == Window(0, 40, 0, 50)
    assert pickle.loads(pickle.dumps(window)) == window


@given(transforms, st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_pixels_on_the_map_and_back(transform, column, row):
    box = GeoBox(*SHAPE, transform)
    x, y = box.to_map(column, row)
    assert (x, y) == tuple(transform * (column, row))
    assert box.to_pixels(x, y) == pytest.approx((column, row), abs=1e-6)
    many = box.to_map(np.array([column, 0.0]), np.array([row, 0.0]))
    assert [float(values[0]) for values in many] == [x, y]
    assert GeoBox(*SHAPE).to_map(column, row) == (column, row)


@given(transforms)
def test_bounds_hold_all_corners(transform):
    corners = [transform * (x, y) for x in (0, SHAPE[1]) for y in (0, SHAPE[0])]
    x, y = zip(*corners, strict=True)
    assert GeoBox(*SHAPE, transform, UTM).bounds() == (min(x), min(y), max(x), max(y))


def test_bounds_in_another_crs():
    box = GeoBox(1000, 2000, Affine(10, 0, 500_000, 0, -10, 9_300_000), UTM)
    west, south, east, north = box.bounds(4326)
    there = Transformer.from_crs(UTM, 4326, always_xy=True)
    assert there.transform_bounds(*box.bounds()) == (west, south, east, north)
    assert west == pytest.approx(39)
    assert east > west
    assert box.bounds(CRS.from_epsg(4326)) == box.bounds(CRS.from_epsg(4326).to_wkt()) == (west, south, east, north)
    assert box.bounds("ENGCRS[\"here\",EDATUM[\"here\"],CS[Cartesian,2],AXIS[\"x\",east],AXIS[\"y\",north],"
                      "LENGTHUNIT[\"metre\",1]]") is None  # fmt: skip
    fiji = GeoBox(100, 4000, Affine(0.01, 0, 170, 0, -0.01, -16), CRS.from_epsg(4326).to_wkt())
    assert fiji.bounds(4326)[2] == 210
    fiji = GeoBox(400, 400, Affine(1000, 0, 700_000, 0, -1000, 8_000_000), CRS.from_epsg(32760).to_wkt())
    west, _, east, _ = fiji.bounds(4326)
    assert west > east  # across the antimeridian


def test_a_place_on_the_earth_needs_crs_and_transform():
    transform = Affine(2, 0, 5, 0, -2, 7)
    assert GeoBox(*SHAPE, transform, UTM).georeferenced
    assert not any(box.georeferenced for box in (GeoBox(*SHAPE), GeoBox(*SHAPE, transform), GeoBox(*SHAPE, None, UTM)))


@given(sides, sides, st.integers(0, 6))
def test_levels_halve_and_round_up(height, width, number):
    box = GeoBox(height, width, Affine(2, 0, 5, 0, -2, 7), UTM)
    level = box.level(number)
    assert level.shape == (math.ceil(height / 2**number), math.ceil(width / 2**number))
    assert level.transform == Affine(2 * 2**number, 0, 5, 0, -2 * 2**number, 7)
    assert number == 0 or level == box.level(number - 1).level(1)
    assert GeoBox(height, width).level(number).transform is None
