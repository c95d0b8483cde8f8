"""Areas of pixels against pyproj's geodesic areas of the same polygons."""

import pickle
from itertools import pairwise
from math import atanh, pi, sqrt

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer

from pipeline.grid.geobox import GeoBox, Window
from pipeline.grid.pixel_area import MOST_NODES, GridAreas, RowAreas, pixel_areas

TURNED = Affine.rotation(33) * Affine.scale(10, -12)
SCENES = {
    "degrees": ("EPSG:4326", Affine(1e-4, 0, 24.9, 0, -1e-4, 60.3), (900, 1300)),
    "fine degrees": ("EPSG:4326", Affine(1e-6, 0, -70.5, 0, -1e-6, -33.4), (900, 1300)),
    "coarse degrees": ("EPSG:4326", Affine(0.25, 0, -170, 0, -0.25, 89), (300, 1300)),
    "degrees south up": ("EPSG:4326", Affine(1e-3, 0, 5, 0, 1e-3, -81), (700, 800)),
    "turned degrees": ("EPSG:4326", Affine(1e-4, 3e-5, 24.9, 4e-5, -1e-4, 60.3), (900, 1300)),
    "grads from Paris": ("EPSG:4807", Affine(1e-4, 0, 1.1, 0, -1e-4, 54.2), (900, 1300)),
    "mercator": ("EPSG:3857", Affine(0.6, 0, 2_700_000, 0, -0.6, 9_000_000), (900, 1300)),
    "coarse mercator": ("EPSG:3857", Affine(8000, 0, -9_000_000, 0, -8000, 18_000_000), (2250, 2250)),
    "turned mercator": ("EPSG:3857", Affine.translation(2e6, 7e6) * TURNED, (900, 1300)),
    "utm": ("EPSG:32636", Affine(40, 0, 199_980, 0, -40, 9_990_240), (2745, 2745)),
    "fine utm": ("EPSG:32736", Affine(0.05, 0, 500_000, 0, -0.05, 9_300_000), (3000, 2000)),
    "wide utm": ("EPSG:32636", Affine(600, 0, -300_000, 0, -600, 7_000_000), (2500, 2500)),
    "turned utm": ("EPSG:32636", Affine.translation(4e5, 6e6) * TURNED, (900, 1300)),
    "utm south up": ("EPSG:32636", Affine(10, 0, 4e5, 0, 10, 6e6), (900, 1300)),
    "survey feet": ("EPSG:2263", Affine(0.5, 0, 1_000_000, 0, -0.5, 200_000), (2000, 2000)),
    "with heights": ("EPSG:7415", Affine(0.25, 0, 100_000, 0, -0.25, 500_000), (2000, 2000)),
    "polar": ("EPSG:3413", Affine(4000, 0, -4_000_000, 0, -4000, 4_000_000), (2000, 2000)),
    "equal areas": ("EPSG:3035", Affine(2000, 0, 2_500_000, 0, -2000, 5_500_000), (2000, 2000)),
    "on a sphere": (
        "+proj=sinu +R=6371007.181 +type=crs",
        Affine(463.3, 0, 1_111_950, 0, -463.3, 5_559_752),
        (2400, 2400),
    ),
}


def geobox(name: str) -> GeoBox:
    crs, transform, (height, width) = SCENES[name]
    return GeoBox(height, width, transform, CRS(crs).to_wkt())


def geodesic(box: GeoBox, corners: list[tuple[float, float]]) -> float:
    """The area of a polygon of (column, row), whose edges are followed in small steps."""
    crs = CRS(box.crs)
    crs = crs.sub_crs_list[0] if crs.is_compound else crs
    to = crs.geodetic_crs
    closed = [*corners, corners[0]]
    parts = [np.linspace(a, b, 2000, endpoint=False) for a, b in pairwise(closed)]
    column, row = np.concatenate(parts).T
    a, b, c, d, e, f = tuple(box.affine)[:6]
    x, y = a * column + b * row + c, d * column + e * row + f
    longitude, latitude = Transformer.from_crs(crs, to, always_xy=True).transform(x, y)
    degrees = np.degrees(to.axis_info[0].unit_conversion_factor)
    area, _ = Geod(crs.get_geod().initstring).polygon_area_perimeter(longitude * degrees, latitude * degrees)
    return abs(area)


@pytest.mark.parametrize("name", SCENES)
def test_a_polygon_has_its_geodesic_area(name: str) -> None:
    """An L of pixels with its corner cut out of the scene's lower right, where the map bends most."""
    box = geobox(name)
    areas = pixel_areas(box)
    assert areas is not None
    height, width = box.shape
    top, low, left, right = height // 3, 2 * height // 3, width // 2, 3 * width // 4
    whole = list(Window.of((height, width)).split(512, width))
    found = 0.0
    for window in whole:
        pixels = np.broadcast_to(areas.of(window), window.shape)
        above, below = max(0, min(low - window.top, len(pixels))), max(0, top - window.top)
        found += pixels[below:above, left:].sum() + pixels[above:, left:right].sum()
    corners = [(left, top), (width, top), (width, low), (right, low), (right, height), (left, height)]
    assert found == pytest.approx(geodesic(box, corners), rel=2e-5)


@pytest.mark.parametrize("name", SCENES)
def test_a_few_pixels_have_theirs(name: str) -> None:
    box = geobox(name)
    areas = pixel_areas(box)
    assert areas is not None
    size = 9 if box.resolution() and box.resolution() > 5 else 200  # pyproj's are good to a hundredth of a m²
    for row in (0, box.height // 2 + 1, box.height - size):
        column = box.width // 3
        window = Window.square(row, column, size)
        corners = [(column, row), (column + size, row), (column + size, row + size), (column, row + size)]
        found = np.broadcast_to(areas.of(window), window.shape).sum()
        assert found == pytest.approx(geodesic(box, corners), rel=1e-4)


def test_the_globe_has_the_surface_of_the_ellipsoid() -> None:
    areas = pixel_areas(GeoBox(720, 1440, Affine(0.25, 0, -180, 0, -0.25, 90), "EPSG:4326"))
    a, f = 6378137.0, 1 / 298.257223563
    e = sqrt(f * (2 - f))
    surface = 2 * pi * a**2 * (1 + (1 - e**2) / e * atanh(e))
    assert isinstance(areas, RowAreas)
    assert areas.total() == pytest.approx(surface, rel=1e-12)
    assert areas.of(Window(0, 720, 0, 1440)).sum() * 1440 == pytest.approx(surface, rel=1e-12)


def test_the_globe_in_web_mercator_ends_before_the_poles() -> None:
    side = 20037508.342789244
    mercator = pixel_areas(GeoBox(4000, 4000, Affine(side / 2000, 0, -side, 0, -side / 2000, side), "EPSG:3857"))
    _, north = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(0, side)
    degrees = pixel_areas(GeoBox(2, 1, Affine(360, 0, -180, 0, -north, north), "EPSG:4326"))
    assert mercator is not None
    assert degrees is not None
    assert mercator.total() == pytest.approx(degrees.total(), rel=1e-6)


@given(name=st.sampled_from(sorted(SCENES)), data=st.data())
def test_a_pixel_has_one_area_however_the_scene_is_cut(name: str, data: st.DataObject) -> None:
    box = geobox(name)
    areas = pixel_areas(box)
    assert areas is not None
    row, column = data.draw(st.integers(0, box.height - 40)), data.draw(st.integers(0, box.width - 40))
    whole = np.broadcast_to(areas.of(Window(row, row + 40, column, column + 40)), (40, 40))
    top, left = data.draw(st.integers(0, 39)), data.draw(st.integers(0, 39))
    bottom, right = data.draw(st.integers(top + 1, 40)), data.draw(st.integers(left + 1, 40))
    part = Window(row + top, row + bottom, column + left, column + right)
    other = pickle.loads(pickle.dumps(areas))  # as a worker has it
    assert np.array_equal(np.broadcast_to(other.of(part), part.shape), whole[top:bottom, left:right])


@pytest.mark.parametrize("name", ["degrees", "turned degrees", "mercator", "turned utm", "survey feet", "equal areas"])
def test_total_and_mean_are_those_of_the_pixels(name: str) -> None:
    box = geobox(name)
    areas = pixel_areas(box)
    assert areas is not None
    step = 500
    rows = range(0, box.height, step)
    total = sum(
        np.broadcast_to(
            areas.of(Window(r, min(r + step, box.height), 0, box.width)), (min(step, box.height - r), box.width)
        ).sum()
        for r in rows
    )
    assert areas.total() == pytest.approx(total, rel=1e-9)
    assert areas.mean() == pytest.approx(total / (box.height * box.width), rel=1e-9)


@pytest.mark.parametrize("name", SCENES)
def test_they_are_small_to_send(name: str) -> None:
    areas = pixel_areas(geobox(name))
    assert len(pickle.dumps(areas)) < 8 * MOST_NODES + 1000


def test_rows_alone_where_columns_are_alike() -> None:
    window = Window(3, 9, 2, 7)
    for name, shape in {"degrees": (6, 1), "mercator": (6, 1), "equal areas": (1, 1), "utm": (6, 5)}.items():
        areas = pixel_areas(geobox(name))
        assert areas is not None
        assert areas.of(window).shape == shape
        assert areas.of(window).dtype == np.float64


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3)])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32636"])
def test_slim_scenes(shape: tuple[int, int], crs: str) -> None:
    step = 1e-4 if crs == "EPSG:4326" else 10
    corner = (33, 20) if crs == "EPSG:4326" else (500_000, 2_000_000)
    box = GeoBox(*shape, Affine(step, 0, corner[0], 0, -step, corner[1]), crs)
    areas = pixel_areas(box)
    assert areas is not None
    found = np.broadcast_to(areas.of(Window.of(shape)), shape).sum()
    corners = [(0, 0), (shape[1], 0), shape[::-1], (0, shape[0])]
    assert found == pytest.approx(geodesic(box, corners), rel=2e-4, abs=0.02)
    assert areas.total() == pytest.approx(found)


def test_rows_beyond_the_poles_have_no_area() -> None:
    areas = pixel_areas(GeoBox(200, 360, Affine(1, 0, -180, 0, -1, 100), "EPSG:4326"))
    assert areas is not None
    rows = areas.of(Window(0, 200, 0, 360))
    assert not rows[:10].any()
    assert not rows[190:].any()
    assert (rows[10:190] > 0).all()


def test_off_the_maps_domain_the_nearest_area_stands() -> None:
    """A full disk as geostationary satellites see it: the corners are not on the Earth."""
    crs = "+proj=geos +h=35785831 +lon_0=0 +sweep=y +type=crs"
    box = GeoBox(3712, 3712, Affine(3000, 0, -5_568_000, 0, -3000, 5_568_000), CRS(crs).to_wkt())
    areas = pixel_areas(box)
    assert areas is not None
    assert (areas.of(Window(0, 64, 0, 3712)) > 0).all()
    middle = float(areas.of(Window(1856, 1857, 1856, 1857)).item())
    assert middle == pytest.approx(9e6, rel=0.01)


def test_rotated_poles() -> None:
    """Latitudes of a rotated pole are not the ellipsoid's: near its equator a degree is 111 km, wherever that lies."""
    crs = CRS.from_cf(
        {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": 39.25,
            "grid_north_pole_longitude": -162.0,
            "semi_major_axis": 6371000.0,
            "inverse_flattening": 0.0,
        }
    )
    areas = pixel_areas(GeoBox(400, 400, Affine(0.1, 0, -20, 0, -0.1, 20), crs.to_wkt()))
    assert isinstance(areas, GridAreas)
    expected = (np.radians(0.1) * 6371000) ** 2 * np.cos(np.radians(19.95))
    assert areas.of(Window(0, 1, 0, 1)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (None, "EPSG:4326"),
        (Affine(1, 0, 0, 0, -1, 0), None),
        (Affine(1, 0, 0, 0, -1, 0), 'LOCAL_CS["a drawing",UNIT["metre",1]]'),
        (Affine(1, 0, 0, 0, -1, 0), "EPSG:4978"),
        (Affine(1, 0, 0, 0, -1, 0), "no CRS at all"),
        (Affine(1, 0, 1e30, 0, -1, 1e30), "EPSG:32636"),
    ],
)
def test_scenes_without_a_place_have_no_areas(transform: Affine | None, crs: str | None) -> None:
    assert pixel_areas(GeoBox(10, 10, transform, crs)) is None
