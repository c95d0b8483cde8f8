"""Figures by scene, cell and zone against straightforward references, on small stores of all kinds of grids."""

import json
import math
from itertools import product

import geopandas
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from helpers import GRID, SHARED, UTM
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod, Transformer
from shapely.geometry import MultiPolygon, Point, Polygon, box

from models import ClassInfo
from models.encoding import NODATA, Encoding
from models.errors import StatisticsError, StoreError, SwatheError
from models.metadata import ReceptiveField
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox, Window
from pipeline.grid.tiling import make_plan
from pipeline.stats import object_stats, sums
from pipeline.stats import zones as zonal
from pipeline.stats.cells import make_cells, pixel_sides
from pipeline.stats.object_stats import Sizes
from pipeline.stats.stats import compute_statistics, write_statistics
from pipeline.stats.table import describe_statistics
from pipeline.stats.zones import ZoneShapes, place_zones
from pipeline.store.lifecycle import create_store, finish_store
from pipeline.store.metadata import StoreMetadata
from pipeline.store.store import Summary

CLASSES = (ClassInfo("background", "102030"), ClassInfo("building", "E4572E"), ClassInfo("main road", "FFCC00"))
SHAPE = (90, 130)
GRIDS = {
    "utm": (GRID, UTM),
    "south-up": (Affine(10, 0, 500_000, 0, 10, 9_000_000), UTM),
    "rotated": (Affine(7, 3, 500_000, 3, -7, 9_000_000), UTM),
    "degrees": (Affine(0.002, 0, 24.0, 0, -0.001, 60.5), "EPSG:4326"),
    "mercator": (Affine(40, 0, 2_700_000, 0, -40, 8_450_000), "EPSG:3857"),  # at 60 degrees north
}
NOTHING = Encoding(None, None, ())


def make_store(path, class_map, transform=GRID, crs=UTM, block=32, classes=CLASSES):
    """Finish a store that holds a class map."""
    plan = make_plan(class_map.shape, ReceptiveField(8, 8), tile=32, block=block)
    geobox = GeoBox(*class_map.shape, transform, CRS(crs).to_wkt() if crs else None)
    store = create_store(str(path), geobox, StoreMetadata(plan, NOTHING, classes, {"halo": 8}))
    for row, column in store.places(0):
        window = store.window(0, row, column)
        store.write(0, window, BlockResult(class_map[window.slices], None))
        store.mark_done(Summary(0, row, column, (1,), 0.1))
    finish_store(store, {"pixels": {}}, np.zeros((plan.rows, plan.columns), np.float32))
    return store


def random_map(shape=SHAPE, seed=0, nodata=0.1):
    random = np.random.default_rng(seed)
    class_map = random.integers(0, len(CLASSES), shape).astype(np.uint8)
    class_map[random.random(shape) < nodata] = NODATA
    return class_map


def write_table(path, class_map, areas, seed=0, rows=400):
    """Write an object table of made-up objects; figures do not ask whether they are in the map."""
    random = np.random.default_rng(seed)
    table = {
        "id": np.arange(rows),
        "class": random.choice(["building", "main road"], rows),
        "class_value": random.integers(1, 3, rows).astype(np.uint8),
        "area_px": random.integers(1, 50, rows),
        "centroid_y_px": random.uniform(0, class_map.shape[0] - 1, rows),
        "centroid_x_px": random.uniform(0, class_map.shape[1] - 1, rows),
        "mean_width_m": random.uniform(1, 30, rows),
    }
    table["area_m2"] = table["area_px"] * 99.5 * random.uniform(0.99, 1.01, rows) if areas else np.full(rows, np.nan)
    table["mean_width_m"][::7] = np.nan
    frame = pandas.DataFrame(table)
    arrow = pa.Table.from_pandas(frame, preserve_index=False)  # NaN becomes null, as in the real table
    pq.write_table(arrow, f"{path}/table.parquet", row_group_size=100)
    return frame


def geodesic_areas(shape, transform, crs):
    """The area of every pixel by its outline on the ellipsoid: slow, and independent of `pixel_areas`."""
    there = Transformer.from_crs(crs, CRS(crs).geodetic_crs, always_xy=True)
    geod, steps = Geod(ellps="WGS84"), np.linspace(0, 1, 5)[:-1]
    ring = [(t, 0) for t in steps] + [(1, t) for t in steps] + [(1 - t, 1) for t in steps] + [(0, 1 - t) for t in steps]
    made = np.zeros(shape)
    for row, column in product(*map(range, shape)):
        x, y = np.transpose([transform * (column + right, row + down) for right, down in ring])
        made[row, column] = abs(geod.polygon_area_perimeter(*there.transform(x, y))[0])
    return made


def parts_of_pixels(shape, polygon):
    """How much of each pixel lies in a polygon in pixels (x right, y down), by shapely."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = shapely.box(columns, rows, columns + 1, rows + 1)
    return shapely.area(shapely.intersection(pixels, polygon))


def assert_figures(frame, class_map, weights, areas, *, rtol=1e-9, atol=1e-9):
    """Compare each row with the sums over the whole map, of which `weights` (row, y, x) count."""
    for row, part in zip(frame.to_dict("records"), weights, strict=True):
        observed = [(part * (class_map == value)).sum() for value in range(len(CLASSES))]
        square = [(part * areas * (class_map == value)).sum() for value in range(len(CLASSES))]
        for value, name in enumerate(("background", "building", "main_road")):
            assert row[f"{name}_pixels"] == pytest.approx(observed[value], rel=rtol, abs=atol)
            assert row[f"{name}_m2"] == pytest.approx(square[value], rel=rtol, abs=atol * 1e4)
            if sum(square) > 1:
                assert row[f"{name}_share"] == pytest.approx(square[value] / sum(square), rel=1e-5, abs=1e-5)
        assert row["area_m2"] == pytest.approx(sum(square), rel=rtol, abs=atol * 1e4)
        missing = part * (class_map == NODATA)
        assert row["nodata_pixels"] == pytest.approx(missing.sum(), rel=rtol, abs=atol)
        assert row["nodata_m2"] == pytest.approx((missing * areas).sum(), rel=rtol, abs=atol * 1e4)


def map_polygon(polygon, transform):
    """Bring a polygon from pixels to the map."""
    return shapely.affinity.affine_transform(
        polygon, [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f]
    )


def star(x, y, inner, outer, tips=7):
    turns = np.linspace(0, 2 * math.pi, 2 * tips, endpoint=False)
    radii = np.tile([outer, inner], tips)
    return Polygon(np.stack([x + radii * np.cos(turns), y + radii * np.sin(turns)], axis=1))


# the whole scene


@pytest.mark.parametrize("kind", GRIDS)
def test_areas_of_a_scene_are_those_on_the_ellipsoid(tmp_path, client, kind):
    transform, crs = GRIDS[kind]
    class_map = random_map((24, 40))
    make_store(tmp_path / "s.zarr", class_map, transform, crs, block=16)
    frame = compute_statistics(tmp_path / "s.zarr", client=client, show=False)
    assert len(frame) == 1
    assert frame.crs == CRS(crs)
    assert_figures(
        frame, class_map, [np.ones(class_map.shape)], geodesic_areas(class_map.shape, transform, crs), rtol=1e-5
    )
    if kind == "mercator":  # as drawn, it would be four times as much
        drawn = 40 * 40 * (class_map != NODATA).sum()
        assert drawn / frame.area_m2[0] == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize(("transform", "crs"), [(GRID, None), (None, None)])
def test_without_a_crs_there_are_pixels_and_shares(tmp_path, client, transform, crs):
    class_map = random_map((24, 40))
    make_store(tmp_path / "s.zarr", class_map, transform, crs, block=16)
    write_table(tmp_path / "s.zarr", class_map, areas=False)
    frame = compute_statistics(tmp_path / "s.zarr", cell=16, client=client, show=False)
    assert len(frame) == 6
    assert frame.crs is None
    for name in (
        "area_m2",
        "nodata_m2",
        "building_m2",
        "building_size_mean_m2",
        "building_per_km2",
        "building_size_p10_m2",
    ):
        assert frame[name].isna().all()
    first = class_map[:16, :16]
    assert frame.building_pixels[0] == (first == 1).sum()
    assert frame.building_share[0] == pytest.approx((first == 1).sum() / (first != NODATA).sum())
    assert frame.building_count.sum() + frame.main_road_count.sum() == 400
    assert "no CRS" in describe_statistics(frame)
    with pytest.raises(StatisticsError, match="no CRS"):
        compute_statistics(tmp_path / "s.zarr", zones=geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=UTM))
    with pytest.raises(StatisticsError, match="give cells in pixels"):
        compute_statistics(tmp_path / "s.zarr", cell="500 m")


@pytest.mark.parametrize("value", [0, 1, NODATA])
def test_a_scene_of_one_pixel(tmp_path, client, value):
    make_store(tmp_path / "s.zarr", np.array([[value]], np.uint8), block=8)
    frame = compute_statistics(tmp_path / "s.zarr", client=client, show=False)
    assert frame.building_pixels[0] == (value == 1)
    assert frame.nodata_pixels[0] == (value == NODATA)
    assert (frame.area_m2[0] == 0) == (value == NODATA)
    shares = frame[["background_share", "building_share", "main_road_share"]].to_numpy()
    assert np.isnan(shares).all() if value == NODATA else shares.sum() == 1
    assert compute_statistics(tmp_path / "s.zarr", cell="5 km", client=client, show=False).building_pixels[0] == (
        value == 1
    )
    describe_statistics(frame)


def test_what_a_terminal_shows(tmp_path, client):
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    text = describe_statistics(compute_statistics(tmp_path / "s.zarr", client=client, show=False))
    assert "swathe objects" in text
    assert "objects  per km²" not in text
    write_table(tmp_path / "s.zarr", class_map, areas=True)
    one = describe_statistics(compute_statistics(tmp_path / "s.zarr", client=client, show=False))
    many = describe_statistics(compute_statistics(tmp_path / "s.zarr", cell="40 px", client=client, show=False))
    for text in (one, many):
        assert "objects  per km²" in text
        assert any(line.startswith("building ") for line in text.splitlines())
    assert "12 rows, added up" in many
    area = [line.split("observed")[0] for line in (one.splitlines()[1], many.splitlines()[1])]
    assert area[0] == area[1]


# cells


@settings(max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    cell=st.integers(1, 80),
    block=st.sampled_from([16, 24, 64]),
    kind=st.sampled_from([*GRIDS, "none"]),
    seed=st.integers(0, 9),
)
def test_cells_equal_slices_and_add_up_to_the_scene(tmp_path_factory, client, shape, cell, block, kind, seed):
    path = tmp_path_factory.mktemp("s") / "s.zarr"
    transform, crs = GRIDS.get(kind, (None, None))
    class_map = random_map(shape, seed)
    make_store(path, class_map, transform, crs, block)
    objects = write_table(path, class_map, areas=crs is not None, seed=seed, rows=50)
    frame = compute_statistics(path, cell=cell, client=client, show=False)
    whole = compute_statistics(path, client=client, show=False)
    for row in frame.to_dict("records"):
        part = np.s_[row["row"] * cell : (row["row"] + 1) * cell, row["column"] * cell : (row["column"] + 1) * cell]
        counts = np.bincount(class_map[part].ravel(), minlength=256)
        names = ("background_pixels", "building_pixels", "main_road_pixels", "nodata_pixels")
        assert [row[name] for name in names] == [*counts[:3], counts[NODATA]]
        places = (
            np.floor((objects[f"centroid_{'yx'[n]}_px"] + 0.5) / cell) == row[name]
            for n, name in enumerate(("row", "column"))
        )
        inside = np.logical_and(*places)
        assert row["building_count"] == (inside & (objects.class_value == 1)).sum()
    for name in [n for n in frame if n.endswith(("_pixels", "_m2", "_count")) and "_size_" not in n]:
        if not frame[name].isna().all():
            assert frame[name].sum() == pytest.approx(whole[name][0], rel=1e-12)
    outlines = map_polygon(box(0, 0, *shape[::-1]), transform or Affine.identity())
    assert frame.geometry.union_all().symmetric_difference(outlines).area <= 1e-9 * outlines.area


def test_figures_are_the_same_to_the_last_bit_each_time(tmp_path, client):
    make_store(tmp_path / "s.zarr", random_map((200, 300)), *GRIDS["degrees"], block=40)
    some = [compute_statistics(tmp_path / "s.zarr", cell="50 px", client=client, show=False) for _ in range(3)]
    pandas.testing.assert_frame_equal(some[0], some[1], check_exact=True)
    pandas.testing.assert_frame_equal(some[0], some[2], check_exact=True)


@pytest.mark.parametrize(
    ("kind", "cell", "expected"),
    [
        ("utm", "500 m", (50, 50)),
        ("utm", ".1 km", (10, 10)),
        ("utm", 7, (7, 7)),
        ("utm", "1 m", (1, 1)),
        ("utm", "1e", None),
        ("rotated", "381 m", (50, 50)),  # pixels of 7.62 m
        ("mercator", "500 m", (25, 25)),  # as drawn it would be 12
        ("degrees", "600 m", (5, 5)),  # 0.001 degrees of latitude are 111 m, 0.002 of longitude 110 m at 60 degrees
    ],
)
def test_sides_of_cells(kind, cell, expected):
    transform, crs = GRIDS[kind]
    geobox = GeoBox(100, 100, transform, CRS(crs).to_wkt())
    if expected is None:
        with pytest.raises(StatisticsError, match="side with a unit"):
            make_cells(geobox, cell, 4)
        return
    cells = make_cells(geobox, cell, 4)
    assert (cells.down, cells.across) == expected


def test_sides_of_pixels_in_grads_and_feet():
    degrees = pixel_sides(GeoBox(2, 2, Affine(0.01, 0, 2, 0, -0.01, 48), CRS(4275).to_wkt()))
    paris = pixel_sides(GeoBox(2, 2, Affine(0.01 / 0.9, 0, 0, 0, -0.01 / 0.9, 48 / 0.9), CRS(4807).to_wkt()))
    assert paris == pytest.approx(degrees, rel=1e-6)
    feet = pixel_sides(GeoBox(2, 2, Affine(1, 0, 1e6, 0, -1, 2e5), CRS(2263).to_wkt()))
    assert feet == pytest.approx((0.3048006, 0.3048006), rel=1e-6)


@pytest.mark.parametrize(
    "cell", ["", "500 miles", "-3 px", "0", 0, -1, "2.5 px", 1.5, "abc", "5 m m", float("nan"), True, "0 km"]
)
def test_cells_that_cannot_be(tmp_path, cell):
    geobox = GeoBox(*SHAPE, GRID, CRS(UTM).to_wkt())
    with pytest.raises(StatisticsError):
        make_cells(geobox, cell, 4)


def test_too_many_cells_are_refused():
    with pytest.raises(StatisticsError, match="larger cells"):
        make_cells(GeoBox(100_000, 100_000, GRID, CRS(UTM).to_wkt()), "1 px", 4)


# zones


@st.composite
def polygons(draw):
    """Polygons in pixels, some of them on pixel borders, some far outside."""
    x, y = draw(st.floats(-30, 160)), draw(st.floats(-30, 120))
    size = draw(st.floats(0.01, 90))
    kind = draw(st.sampled_from(["star", "box", "aligned", "hole", "two"]))
    if kind == "aligned":
        return box(round(x), round(y), round(x) + math.ceil(size), round(y) + math.ceil(size))
    if kind == "star":
        return star(x, y, size / 3, size)
    if kind == "hole":
        return Point(x, y).buffer(size).difference(Point(x, y).buffer(size / 2))
    if kind == "two":
        return MultiPolygon([star(x, y, size / 3, size), box(x + size + 1, y, x + size + 5.5, y + 3.3)])
    return box(x, y, x + size, y + size / 3)


@pytest.mark.parametrize("kind", ["utm", "rotated", "mercator"])
@settings(max_examples=6)
@given(
    shapes=st.lists(polygons(), min_size=1, max_size=5),
    block=st.sampled_from([40, 64, 512]),
    piece=st.sampled_from([7, 40, 512]),
)
def test_zones_count_the_exact_part_of_each_pixel(tmp_path_factory, client, kind, shapes, block, piece):
    path = tmp_path_factory.mktemp("s") / "s.zarr"
    transform, crs = GRIDS[kind]
    class_map = random_map(seed=len(shapes))
    store = make_store(path, class_map, transform, crs, block)
    zones = geopandas.GeoDataFrame(geometry=[map_polygon(shape, transform) for shape in shapes], crs=crs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "PIECE", piece)
        patch.setattr(zonal, "SIMPLE", 20)
        frame = compute_statistics(path, zones=zones, client=client, show=False)
    weights = [parts_of_pixels(SHAPE, shape) for shape in shapes]
    from pipeline.grid.pixel_area import pixel_areas

    areas = np.broadcast_to(pixel_areas(store.geobox).of(store.geobox.whole), SHAPE)
    assert_figures(frame, class_map, weights, areas, rtol=2e-6, atol=2e-5)


def test_zones_equal_exactextract_on_the_whole_raster(tmp_path, client):
    from exactextract import exact_extract
    from exactextract.raster import NumPyRasterSource

    class_map = random_map((300, 400))
    make_store(tmp_path / "s.zarr", class_map, block=64)
    shapes = [star(x, y, 30, 80) for x, y in ((100, 100), (200, 150), (390, 290), (0, 0))]
    zones = geopandas.GeoDataFrame({"name": list("abcd")}, geometry=[map_polygon(s, GRID) for s in shapes], crs=UTM)
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    right, bottom = GRID * (400, 300)
    for value, name in enumerate(("background", "building", "main_road")):
        grid = NumPyRasterSource(
            (class_map == value).astype(float), GRID.c, bottom, right, GRID.f, srs_wkt=zones.crs.to_wkt()
        )
        expected = exact_extract(grid, zones, ["sum"], output="pandas")["sum"]
        np.testing.assert_allclose(frame[f"{name}_pixels"], expected, rtol=1e-6)


def test_zones_that_divide_a_scene_agree_with_cells(tmp_path, client):
    """Every object belongs to one, even where its centroid lies on a border; and whole pixels stay whole."""
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    objects = write_table(tmp_path / "s.zarr", class_map, areas=True)
    for name in ("centroid_y_px", "centroid_x_px"):
        objects[name] = (objects[name] * 2).round() / 2  # on corners and sides of pixels
    pq.write_table(pa.Table.from_pandas(objects, preserve_index=False), tmp_path / "s.zarr/table.parquet")
    cells = compute_statistics(tmp_path / "s.zarr", cell=20, client=client, show=False)
    zones = compute_statistics(tmp_path / "s.zarr", zones=cells[["geometry"]], client=client, show=False)
    assert zones.building_count.sum() + zones.main_road_count.sum() == 400
    mine = cells.drop(columns=["row", "column", "geometry"])
    pandas.testing.assert_frame_equal(zones[mine.columns], mine, check_dtype=False, rtol=1e-12)
    np.testing.assert_array_equal(zones.building_pixels, mine.building_pixels)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("other", ["EPSG:4326", "EPSG:3857", "neighbour"])
def test_zones_in_another_crs(tmp_path, client, kind, other):
    """A densely drawn polygon gives the same in any CRS; a coarse one keeps its own straight lines."""
    transform, crs = GRIDS[kind]
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map, transform, crs)
    drawn = [map_polygon(star(70, 40, 20, 45), transform), map_polygon(box(-20, -20, 60, 40), transform)]
    zones = geopandas.GeoDataFrame(geometry=shapely.segmentize(drawn, 0.5 * abs(transform.a)), crs=crs)
    expected = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    if other == "neighbour":
        other = "EPSG:32634" if kind in ("degrees", "mercator") else "EPSG:32735"
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones.to_crs(other), client=client, show=False)
    for name in ("background_pixels", "building_pixels", "area_m2"):
        np.testing.assert_allclose(frame[name], expected[name], rtol=1e-5)
    assert frame.crs == CRS(other)


def test_straight_lines_in_degrees_bend_on_the_map(tmp_path, client):
    """A parallel at 60 degrees leaves its chord on the map by pixels over some hundred kilometres."""
    class_map = np.ones((300, 1200), np.uint8)
    transform = Affine(200, 0, 380_000, 0, -200, 6_690_000)
    make_store(tmp_path / "s.zarr", class_map, transform, "EPSG:32635", block=512)
    zone = geopandas.GeoDataFrame(geometry=[box(25.2, 60.0, 28.8, 60.2)], crs="EPSG:4326")
    frame = compute_statistics(tmp_path / "s.zarr", zones=zone, client=client, show=False)
    dense = zone.set_geometry(shapely.segmentize(zone.geometry, 0.0005)).to_crs("EPSG:32635")
    expected = dense.geometry[0].area / 200**2
    assert frame.building_pixels[0] == pytest.approx(expected, rel=1e-6)
    coarse = zone.to_crs("EPSG:32635").geometry[0].area / 200**2
    assert coarse != pytest.approx(expected, rel=2e-4)
    exact = abs(Geod(ellps="WGS84").geometry_area_perimeter(shapely.segmentize(zone.geometry[0], 0.001))[0])
    assert frame.area_m2[0] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("kind", GRIDS)
def test_area_of_a_known_polygon_is_geodesic(tmp_path, client, kind):
    transform, crs = GRIDS[kind]
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8), transform, crs)
    zones = geopandas.GeoDataFrame(geometry=[map_polygon(star(65, 45, 15, 40), transform)], crs=crs).to_crs(4326)
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    dense = shapely.segmentize(zones.geometry[0], 1e-3)
    exact = abs(Geod(ellps="WGS84").geometry_area_perimeter(dense)[0])
    assert frame.building_m2[0] == pytest.approx(exact, rel=1e-5)
    assert frame.area_m2[0] == frame.building_m2[0]


def test_the_whole_world_as_a_zone(tmp_path, client):
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    world = geopandas.GeoDataFrame({"name": ["world"]}, geometry=[box(-180, -90, 180, 90)], crs="EPSG:4326")
    frame = compute_statistics(tmp_path / "s.zarr", zones=world, client=client, show=False)
    whole = compute_statistics(tmp_path / "s.zarr", client=client, show=False)
    assert frame.area_m2[0] == pytest.approx(whole.area_m2[0], rel=1e-12)
    assert frame.building_pixels[0] == whole.building_pixels[0]
    assert frame.crs == CRS("EPSG:4326")
    assert frame.geometry[0].equals(world.geometry[0])


def test_a_scene_across_the_antimeridian(tmp_path, client):
    transform = Affine(1000, 0, 450_000, 0, -1000, 8_000_000)  # around 177 degrees east is the middle of zone 60
    make_store(tmp_path / "s.zarr", np.ones((100, 200), np.uint8), transform, "EPSG:32660", block=64)
    world = geopandas.GeoDataFrame(
        geometry=[box(-180, -80, 180, 80), box(-180, 0, 0, 89), box(0, 0, 180, 89)], crs=4326
    )
    frame = compute_statistics(tmp_path / "s.zarr", zones=world, client=client, show=False)
    assert frame.building_pixels[0] == pytest.approx(20_000)
    assert frame.building_pixels[1] > 1000
    assert frame.building_pixels[1] + frame.building_pixels[2] == pytest.approx(20_000)


def test_odd_zones_stay_as_rows(tmp_path, client):
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8))
    butterfly = Polygon([(10, 10), (30, 30), (30, 10), (10, 30)])
    spike = Polygon([(10, 10), (30, 10), (30, 30), (10, 30), (10, 10), (0, 0), (10, 10)])
    shapes = [
        box(0, 0, 4, 3),
        butterfly,
        None,
        Polygon(),
        box(500, 500, 510, 510),
        MultiPolygon([box(0, 0, 1, 1)]),
        spike,
    ]
    placed = [shape if shape is None or shape.is_empty else map_polygon(shape, GRID) for shape in shapes]
    zones = geopandas.GeoDataFrame({"n": range(7)}, geometry=placed, crs=UTM, index=list("abcdefg"))
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    assert list(frame.n) == list(range(7))
    np.testing.assert_allclose(frame.building_pixels, [12, 200, 0, 0, 0, 1, 400], atol=1e-5)
    assert frame.building_share[[2, 3, 4]].isna().all()
    notes = " ".join(frame.attrs["notes"])
    assert "2 zones with an invalid geometry mended (row 1, 6)" in notes
    assert "2 zones without geometry" in notes
    assert "1 zone of 7 outside the scene" in notes
    assert "note: " in describe_statistics(frame)


def test_all_zones_outside(tmp_path, client):
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    write_table(tmp_path / "s.zarr", class_map, areas=True)
    for crs, where in ((UTM, box(0, 0, 1, 1)), ("EPSG:4326", box(100, 50, 101, 51)), ("EPSG:3857", box(0, 0, 9, 9))):
        zones = geopandas.GeoDataFrame(geometry=[where], crs=crs)
        frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
        assert frame.area_m2[0] == 0
        assert frame.building_count[0] == 0
        assert math.isnan(frame.building_size_mean_m2[0])
        assert "outside the scene" in frame.attrs["notes"][0]
        describe_statistics(frame)


def test_attributes_are_kept_and_names_that_collide_are_changed(tmp_path, client):
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8))
    given_ = {
        "name": ["a", "b"],
        "area_m2": [1, 2],
        "Building_M2": [3, 4],
        "area_m2_zone": [5, 6],
        "when": pandas.Timestamp("2020-01-01"),
    }
    places = [map_polygon(box(0, 0, 2, 2), GRID), map_polygon(box(1, 1, 3, 4), GRID)]  # they overlap
    zones = geopandas.GeoDataFrame(given_, geometry=places, crs=UTM).rename_geometry("where")
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    assert list(frame.columns[:5]) == ["name", "area_m2_zone", "Building_M2_zone", "area_m2_zone_zone", "when"]
    assert frame.columns[-1] == "geometry"
    assert list(frame.area_m2_zone) == [1, 2]
    assert list(frame.building_pixels) == [4, 6]


def test_names_of_classes_become_columns(tmp_path, client):
    names = ("area", "a b", "a,b", "A B", "--", "nodata")
    classes = tuple(ClassInfo(name, "102030") for name in names)
    make_store(tmp_path / "s.zarr", np.zeros((8, 8), np.uint8), block=8, classes=classes)
    frame = compute_statistics(tmp_path / "s.zarr", client=client, show=False)
    assert [one["column"] for one in frame.attrs["classes"]] == ["area_0", "a_b", "a_b_2", "A_B_3", "class", "nodata_5"]
    assert frame.columns.is_unique


def zones_file(path, **how):
    frame = geopandas.GeoDataFrame({"name": ["a"]}, geometry=[map_polygon(box(0, 0, 2, 2), GRID)], crs=UTM)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path, engine="pyogrio", **how)
    return path


@pytest.mark.parametrize("name", ["z.gpkg", "z.fgb", "z.shp", "z.parquet", "z.geojson"])
def test_files_of_zones(tmp_path, client, name):
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8))
    path = zones_file(tmp_path / name)
    frame = compute_statistics(tmp_path / "s.zarr", zones=path, client=client, show=False)
    assert frame.name[0] == "a"
    assert frame.building_pixels[0] == pytest.approx(4, abs=1e-3)  # GeoJSON keeps 7 digits of a degree


def test_files_of_zones_that_cannot_be_used(tmp_path):
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8))

    def refused(zones, match, layer=None):
        with pytest.raises(StatisticsError, match=match):
            compute_statistics(tmp_path / "s.zarr", zones=zones, layer=layer, show=False)

    refused(tmp_path / "none.gpkg", "no such file")
    (tmp_path / "text.gpkg").write_text("hello")
    (tmp_path / "text.parquet").write_text("hello")
    refused(tmp_path / "text.gpkg", "cannot be read")
    refused(tmp_path / "text.parquet", "cannot be read")
    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    refused(tmp_path / "plain.parquet", "cannot be read|without geometry")
    (tmp_path / "plain.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "plain.csv", "without geometry")
    two = zones_file(tmp_path / "two.gpkg", layer="one")
    zones_file(two, layer="two")
    refused(two, "has the layers one, two; choose one with --layer")
    refused(two, "has no layer 'three'", layer="three")
    refused(None, "no zones are given", layer="three")
    square = map_polygon(box(0, 0, 2, 2), GRID)
    refused(geopandas.GeoDataFrame(geometry=[square]), "no CRS")
    refused(geopandas.GeoDataFrame(geometry=[square, Point(1, 1)], crs=UTM), "received a Point at row 1")
    refused(geopandas.GeoDataFrame(geometry=[], crs=UTM), "no zones in it")
    refused(pandas.DataFrame({"a": [1]}), "without geometry")
    far = Polygon([(0, 0), (1, np.inf), (1, 1)])
    refused(geopandas.GeoDataFrame(geometry=[far], crs=UTM), "not finite")
    with pytest.raises(StatisticsError, match="not both"):
        compute_statistics(tmp_path / "s.zarr", zones=two, cell=8)


def test_one_layer_of_several(tmp_path, client):
    make_store(tmp_path / "s.zarr", np.ones(SHAPE, np.uint8))
    two = zones_file(tmp_path / "two.gpkg", layer="one")
    zones_file(two, layer="two")
    assert len(compute_statistics(tmp_path / "s.zarr", zones=two, layer="two", client=client, show=False)) == 1


def test_stores_that_cannot_be_used(tmp_path, client):
    with pytest.raises(StoreError, match="no such store"):
        compute_statistics(tmp_path / "none.zarr")
    make_store(tmp_path / "s.zarr", random_map())
    attributes = json.loads((tmp_path / "s.zarr/zarr.json").read_text())
    attributes["attributes"]["swathe"]["state"] = "running"
    (tmp_path / "s.zarr/zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match="not finished"):
        compute_statistics(tmp_path / "s.zarr")
    make_store(tmp_path / "t.zarr", random_map())
    next(p for p in (tmp_path / "t.zarr/class_map/c").rglob("*") if p.is_file()).unlink()
    with pytest.raises(StoreError):
        compute_statistics(tmp_path / "t.zarr", client=client, show=False)


def test_a_zone_over_everything_asks_for_no_coverage(tmp_path, client, monkeypatch):
    """Where a zone covers a piece wholly, its pixels are added up as they are: no time or memory for fractions."""
    asked = []
    monkeypatch.setattr(sums, "PIECE", 32)
    real = zonal.coverage
    monkeypatch.setattr(zonal, "coverage", lambda window, shapes: asked.append(len(shapes)) or real(window, shapes))
    make_store(tmp_path / "s.zarr", np.ones((512, 512), np.uint8), block=128)
    zones = geopandas.GeoDataFrame(
        geometry=[map_polygon(box(-9, -9, 600, 600.5), GRID), map_polygon(Point(256, 256).buffer(250), GRID)], crs=UTM
    )
    frame = compute_statistics(tmp_path / "s.zarr", zones=zones, client=client, show=False)
    assert frame.building_pixels[0] == 512 * 512
    assert sum(asked) < 70  # of 512 pieces and zones: those on the circle


def test_zones_of_many_vertices_travel_cut():
    rough = shapely.segmentize(Point(5000, -5000).buffer(4000), 1)
    part = ZoneShapes(np.array([rough])).part(Window(1000, 1512, 4500, 5012))
    assert len(part.shapes[0]) < len(shapely.to_wkb(rough)) / 10


# objects


def test_figures_of_objects_equal_pandas(tmp_path, client):
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    objects = write_table(tmp_path / "s.zarr", class_map, areas=True)
    frame = compute_statistics(tmp_path / "s.zarr", cell=64, client=client, show=False)
    places = [np.floor((objects[f"centroid_{'yx'[n]}_px"] + 0.5) / 64) for n in (0, 1)]
    for row in frame.to_dict("records"):
        for value, name in ((1, "building"), (2, "main_road")):
            here = objects[(places[0] == row["row"]) & (places[1] == row["column"]) & (objects.class_value == value)]
            sizes = here.area_m2
            assert row[f"{name}_count"] == len(here)
            assert row[f"{name}_per_km2"] == pytest.approx(len(here) / row["area_m2"] * 1e6)
            expected = [sizes.mean(), *sizes.quantile([0.1, 0.5, 0.9]), sizes.min(), sizes.max()]
            for what, one in zip(("mean", "p10", "median", "p90", "min", "max"), expected, strict=True):
                assert row[f"{name}_size_{what}_m2"] == pytest.approx(one, rel=1e-12, nan_ok=True)
            wide = here[here.mean_width_m.notna()]
            width = np.average(wide.mean_width_m, weights=wide.area_m2) if len(wide) else np.nan
            assert row[f"{name}_width_mean_m"] == pytest.approx(width, rel=1e-12, nan_ok=True)


def test_an_empty_object_table(tmp_path, client):
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    write_table(tmp_path / "s.zarr", class_map, areas=True, rows=0)
    frame = compute_statistics(tmp_path / "s.zarr", cell=64, client=client, show=False)
    assert (frame.building_count == 0).all()
    assert (frame.building_per_km2 == 0).all()
    assert frame.building_size_median_m2.isna().all()


@pytest.mark.parametrize("content", ["text", "columns"])
def test_a_damaged_object_table(tmp_path, client, content):
    make_store(tmp_path / "s.zarr", random_map())
    if content == "text":
        (tmp_path / "s.zarr/table.parquet").write_text("hello")
    else:
        pandas.DataFrame({"id": [1]}).to_parquet(tmp_path / "s.zarr/table.parquet")
    with pytest.raises(StatisticsError, match=r"table\.parquet"):
        compute_statistics(tmp_path / "s.zarr", client=client, show=False)


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9) | st.floats(0.1, 1e9)), max_size=20),
        min_size=1,
        max_size=6,
    )
)
def test_quantiles_of_sizes_equal_numpy(batches):
    sizes = Sizes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(object_stats, "BATCH", 5)
        for batch in batches:
            sizes.add(np.array([b for b, _ in batch], np.int64), np.array([v for _, v in batch], np.float64))
        found = sizes.quantiles((0.1, 0.5, 0.9), 5)
    for number in range(5):
        values = [value for batch in batches for place, value in batch if place == number]
        expected = np.quantile(values, (0.1, 0.5, 0.9)) if values else [np.nan] * 3
        np.testing.assert_allclose(found[:, number], expected, rtol=1e-12)


def test_beyond_the_memory_for_sizes_quantiles_stay_close():
    random = np.random.default_rng(0)
    values = random.lognormal(4, 2, 200_000)
    sizes = Sizes(most=10_000)
    for part in np.split(values, 10):
        sizes.add(np.zeros(len(part), np.int64), part)
    found = sizes.quantiles((0.1, 0.5, 0.9), 1)[:, 0]
    assert sizes.coarse
    assert len(sizes.values) < 100_000
    np.testing.assert_allclose(found, np.quantile(values, (0.1, 0.5, 0.9)), rtol=2e-4)


# files


@pytest.mark.parametrize("name", ["o.csv", "o.parquet", "o.gpkg", "o.fgb", "o.geojson"])
@pytest.mark.parametrize("by", ["scene", "cell", "zones"])
def test_files_of_figures(tmp_path, client, name, by):
    pytest.importorskip("pipeline.vector.write")
    class_map = random_map()
    make_store(tmp_path / "s.zarr", class_map)
    write_table(tmp_path / "s.zarr", class_map, areas=True)
    how = {"scene": {}, "cell": {"cell": "300 m"}, "zones": {"zones": zones_file(tmp_path / "z.gpkg")}}[by]
    output = tmp_path / name
    frame = write_statistics(tmp_path / "s.zarr", output, client=client, show=False, **how)
    if name == "o.csv":
        there = pandas.read_csv(output)
        np.testing.assert_allclose(there[["xmin", "ymin", "xmax", "ymax"]], frame.geometry.bounds)
    else:
        there = geopandas.read_parquet(output) if name == "o.parquet" else geopandas.read_file(output)
        if name != "o.fgb":  # whose order is that of its index
            assert there.geometry.to_crs(UTM).geom_equals_exact(
                frame.geometry.to_crs(UTM).normalize(), 0.1
            ).size == len(frame)
    assert len(there) == len(frame)
    assert set(frame.columns) - {"geometry"} <= set(there.columns)
    assert there.building_m2.sum() == pytest.approx(frame.building_m2.sum(), rel=1e-9)
    written = output.read_bytes()
    write_statistics(tmp_path / "s.zarr", output, client=client, show=False, **how)  # complete already
    assert output.read_bytes() == written
    write_statistics(tmp_path / "s.zarr", output, client=client, show=False, overwrite=True, **how)


def test_files_that_cannot_be_written_are_refused_before_any_block_is_read(tmp_path):
    pytest.importorskip("pipeline.vector.write")
    make_store(tmp_path / "s.zarr", random_map())
    next(p for p in (tmp_path / "s.zarr/class_map/c").rglob("*") if p.is_file()).write_bytes(b"damaged")
    for name in ("o.xlsx", "o", "none/../o.doc"):
        with pytest.raises(SwatheError) as caught:
            write_statistics(tmp_path / "s.zarr", tmp_path / name, show=False)
        assert "o" in str(caught.value)
        assert not isinstance(caught.value, StoreError) or "damaged" not in str(caught.value)
    assert not list(tmp_path.glob("*o*x*"))


# real data


def test_labels_of_zanzibar_as_zones(tmp_path, client):
    """The labels, burnt into a map and asked for as zones, are buildings nearly all over; and areas are geodesic."""
    path = SHARED / "oam_buildings/zanzibar_tz_labels.geojson"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    from rasterio.features import rasterize

    labels = geopandas.read_file(path).head(300)
    labels = labels[labels.geom_type.isin(["Polygon", "MultiPolygon"]) & labels.is_valid]
    local = labels.to_crs(labels.estimate_utm_crs())
    left, bottom, right, top = local.total_bounds
    transform = Affine(0.25, 0, left - 5, 0, -0.25, top + 5)
    shape = math.ceil((top - bottom + 10) / 0.25), math.ceil((right - left + 10) / 0.25)
    if shape[0] * shape[1] > 3e8:
        pytest.skip("the first labels lie too far apart")
    class_map = rasterize(local.geometry, shape, transform=transform, dtype="uint8")
    make_store(tmp_path / "s.zarr", class_map, transform, local.crs, block=2048)
    frame = compute_statistics(tmp_path / "s.zarr", zones=path, client=client, show=False).loc[labels.index]
    geod = Geod(ellps="WGS84")
    exact = np.array([abs(geod.geometry_area_perimeter(shape)[0]) for shape in labels.geometry])
    np.testing.assert_allclose(frame.area_m2, exact, rtol=5e-3)
    assert frame.building_m2.sum() / frame.area_m2.sum() > 0.97


def test_places_of_zones_follow_pixels_exactly():
    geobox = GeoBox(*SHAPE, Affine(0.3, 0, 500_000.1, 0, -0.3, 9_000_000.7), CRS(UTM).to_wkt())
    zones = geopandas.GeoDataFrame(geometry=[map_polygon(box(3, 4, 50, 60), geobox.transform)], crs=UTM)
    assert place_zones(zones, geobox).shapes[0].equals(box(3, -60, 50, -4))
