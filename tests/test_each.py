"""Segment, then merge: scenes of a mosaic through the network one by one, whatever the blocks."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import zarr
from affine import Affine
from helpers import GRID, UTM, pixels, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.coords import BoundingBox
from rasterio.enums import Resampling as Nearest
from rasterio.warp import calculate_default_transform, reproject
from scipy.ndimage import binary_dilation, distance_transform_cdt
from shapely.geometry import box

from models.encoding import NODATA
from models.errors import PlanError, StoreError
from pipeline import plan, run, segment
from pipeline.catalog.index import IndexedScene, content_digest, write_index
from pipeline.cluster.connect import dask_client
from pipeline.grid.geobox import GeoBox, Window
from pipeline.inference.each import expected_overlap
from pipeline.inference.options import SegmentOptions
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.area import Area
from pipeline.mosaic.harmonise import harmonise
from pipeline.mosaic.masking import BandMask
from pipeline.mosaic.order import order_of
from pipeline.mosaic.source import MosaicSource

MERGES = ["inner", "mean", "max", "feather"]
NAMES = ("red", "green", "blue")


def write_part(path, values, top, left, crs=UTM, transform=GRID):
    """Write values whose first pixel is at a row and column of the grid."""
    described = {"nodata": 0, "descriptions": NAMES[: len(values)], "crs": crs}
    return write_raster(path, values, transform=transform * Affine.translation(left, top), **described)


def mosaic_of(paths, folder, shape, at=(0, 0), **more):
    """The scenes of some files, in their order, on a grid whose first pixel is at a row and column of `GRID`."""
    sources = [open_rasters([str(path)]) for path in paths]
    scenes = [IndexedScene(f"s{n}", one, box(0, 0, 1, 1), digest=content_digest(one)) for n, one in enumerate(sources)]
    index = write_index(scenes, folder / "scenes.parquet")
    transform = GRID * Affine.translation(at[1], at[0])
    return MosaicSource(index, GeoBox(*shape, transform, sources[0].geobox.crs), tuple(range(len(paths))), **more)


def cut(values, folder, windows):
    """Write pieces of a scene."""
    return [write_part(folder / f"{n}.tif", values[:, *w.slices], w.top, w.left) for n, w in enumerate(windows)]


def answer(scene, bundle, **options):
    """Class map and probabilities, computed."""
    found = segment(scene, bundle, **options).compute(scheduler="synchronous")
    return found.class_map.values, found.probability.values


def same(one, other):
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, theirs)


HALO, STRIDE = 23, 4  # of the network of these tests, `unet`: 23 pixels are rounded up to 24
# each overlap is so wide that every pixel lies 24 pixels from the edges of some piece; cuts are off the stride
PIECES = [Window(top, bottom, left, right) for (top, bottom), (left, right) in product(
    [(0, 103), (53, 160)], [(0, 93), (41, 147), (95, 190)])]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bundle_of):
    """A scene of 160 x 190 pixels with a hole, its answer, its six pieces; and the bundle."""
    folder, bundle, values = tmp_path_factory.mktemp("each"), bundle_of("unet"), pixels((3, 160, 190))
    values[:, 70:75, 100:110] = 0
    scene = write_part(folder / "whole.tif", values, 0, 0)
    return bundle, values, answer(scene, bundle), mosaic_of(cut(values, folder, PIECES), folder, (160, 190))


def test_inner_of_pieces_off_the_stride_is_the_uncut_scene(whole):
    bundle, _, expected, mosaic = whole
    same(answer(mosaic, bundle, each="inner"), expected)


def test_other_merges_differ_from_the_uncut_scene_near_edges_of_pieces_alone(whole):
    bundle, values, (_, expected), mosaic = whole
    near = np.zeros(values.shape[1:], bool)
    for piece in PIECES:
        inside = np.zeros_like(near)
        inner = Window(piece.top + HALO * (piece.top > 0), piece.bottom - HALO * (piece.bottom < 160),
                       piece.left + HALO * (piece.left > 0), piece.right - HALO * (piece.right < 190))  # fmt: skip
        inside[piece.slices] = True
        inside[inner.slices] = False
        near |= inside
    for each in ("mean", "max", "feather"):
        _, found = answer(mosaic, bundle, each=each)
        np.testing.assert_array_equal(found[:, ~near], expected[:, ~near])
        assert (found[:, near] != expected[:, near]).any()
        np.testing.assert_allclose(np.nansum(found, axis=0)[np.isfinite(found[0])], 1, atol=1e-6)


@pytest.mark.parametrize("each", MERGES)
def test_one_scene_alone_is_answered_as_by_a_plain_run(whole, each, tmp_path):
    bundle, values, _, _ = whole
    alone = mosaic_of([write_part(tmp_path / "s.tif", values, 0, 0)], tmp_path, values.shape[1:])
    for name, scene, how in (("plain", tmp_path / "s.tif", None), ("each", alone, each)):
        run(scene, bundle, tmp_path / f"{name}.zarr", each=how, show=False, overviews=False)
    plain, merged = (zarr.open_group(tmp_path / f"{name}.zarr") for name in ("plain", "each"))
    for name in ("class_map", "probability"):
        np.testing.assert_array_equal(plain[name][:], merged[name][:])


@pytest.mark.parametrize("each", MERGES)
def test_a_scene_partly_outside_of_the_mosaic_is_computed_with_all_that_it_has(whole, each, tmp_path):
    bundle, values, expected, _ = whole
    part = mosaic_of([write_part(tmp_path / "s.tif", values, 0, 0)], tmp_path, (80, 64), (52, 48))
    same(answer(part, bundle, each=each), [layer[..., 52:132, 48:112] for layer in expected])


def test_scenes_of_one_merge_are_not_taken_for_those_of_another(whole, tmp_path):
    bundle, _, _, mosaic = whole
    run(mosaic, bundle, tmp_path / "m.zarr", each="mean", show=False, overviews=False)
    with pytest.raises(StoreError, match="belongs to another run"):
        run(mosaic, bundle, tmp_path / "m.zarr", each="max", show=False, overviews=False)


def test_a_single_scene_has_nothing_to_merge(whole, tmp_path):
    bundle, values, _, _ = whole
    with pytest.raises(PlanError, match="merges the scenes of a mosaic"):
        plan(write_part(tmp_path / "s.tif", values, 0, 0), bundle, each="inner")
    with pytest.raises(PlanError, match="each is inner, mean"):
        SegmentOptions(each="median")


def test_the_plan_says_how_often_pixels_are_computed(whole):
    bundle, _, _, mosaic = whole
    covered = np.zeros((160, 190))
    for piece in PIECES:
        covered[piece.slices] += 1
    assert expected_overlap(mosaic) == pytest.approx(covered.mean(), rel=0.1)
    assert "scenes a pixel, each computed, then merged by mean" in str(plan(mosaic, bundle, each="mean"))
    assert "scenes a pixel" not in str(plan(mosaic, bundle))


@pytest.mark.slow  # the network's memory is measured, in a process of its own
def test_halo_and_speed_are_measured_on_a_mosaic_of_scenes(whole):
    bundle, _, _, mosaic = whole
    told = str(plan(mosaic, bundle, each="mean", halo="auto", tolerance=0.5, calibrate=True))
    assert "halo auto: " in told
    assert "time     about " in told


@dataclass(frozen=True)
class Cuts:
    """Windows of scenes on a grid of 96 x 112 pixels, some of which reach out of it, and what each has as nodata."""

    windows: tuple[Window, ...]
    holes: tuple[Window, ...]


@st.composite
def cuts(draw):
    windows, holes = [], []
    for _ in range(draw(st.integers(1, 4))):
        top, left = draw(st.integers(-30, 70)), draw(st.integers(-30, 90))
        height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
        windows.append(Window(top, top + height, left, left + width))
        down, across = draw(st.integers(0, height)), draw(st.integers(0, width))
        holes.append(Window.square(down, across, draw(st.integers(0, 40))))
    return Cuts(tuple(windows), tuple(holes))


def write_cuts(given_cuts, folder):
    paths = []
    for number, (window, hole) in enumerate(zip(given_cuts.windows, given_cuts.holes, strict=True)):
        values = pixels((3, *window.shape), seed=number)
        values[:, *hole.slices] = 0
        paths.append(write_part(folder / f"{number}.tif", values, window.top, window.left))
    return paths


def blocks_do_not_matter(given_cuts, block, tile, each, bundle, folder):
    mosaic = mosaic_of(write_cuts(given_cuts, folder), folder, (96, 112))
    expected = answer(mosaic, bundle, each=each, block=512)
    same(answer(mosaic, bundle, each=each, block=block, tile=tile), expected)
    observed = np.zeros((96, 112), bool)
    for window, hole in zip(given_cuts.windows, given_cuts.holes, strict=True):
        there = np.ones(window.shape, bool)
        there[hole.slices] = False
        shared = window.overlap(Window(0, 96, 0, 112))
        if shared:
            observed[shared.slices] |= there[shared.within(window).slices]
    np.testing.assert_array_equal(expected[0] != NODATA, observed)


CHOICES = {"given_cuts": cuts(), "block": st.sampled_from([16, 40, 64]), "tile": st.integers(8, 64),
           "each": st.sampled_from(MERGES)}  # fmt: skip


@settings(max_examples=8)
@given(**CHOICES)
def test_blocks_do_not_matter(bundle_of, tmp_path_factory, given_cuts, block, tile, each):
    blocks_do_not_matter(given_cuts, block, tile, each, bundle_of("unet"), tmp_path_factory.mktemp("cuts"))


@pytest.mark.slow
@settings(max_examples=150)
@given(**CHOICES)
def test_blocks_do_not_matter_of_many(bundle_of, tmp_path_factory, given_cuts, block, tile, each):
    blocks_do_not_matter(given_cuts, block, tile, each, bundle_of("unet"), tmp_path_factory.mktemp("cuts"))


@pytest.mark.parametrize("each", MERGES)
def test_what_lies_outside_of_the_area_or_under_a_mask_is_missing(whole, each):
    bundle, values, (expected, _), mosaic = whole
    area = Area(box(40, 30, 121, 91).wkb)
    classes, _ = answer(replace(mosaic, area=area), bundle, each=each)
    there = np.zeros(classes.shape, bool)
    there[30:91, 40:121] = True
    np.testing.assert_array_equal(classes != NODATA, there & (expected != NODATA))
    masked = replace(mosaic, scene_masks=(BandMask("red", (2000.0,)),))
    classes, _ = answer(masked, bundle, each=each)
    np.testing.assert_array_equal(classes != NODATA, (expected != NODATA) & (values[0] != 2000))


ZONE = "EPSG:32637"  # next to that of `UTM`
ZONES = Affine(10, 0, 795_000, 0, -10, 9_000_000)  # a grid where both zones are at home
LEFT_ENDS, HOLE = 120, Window(48, 56, 100, 106)  # of the left scene: its last column, and what it did not observe


@pytest.fixture(scope="module")
def two_zones(tmp_path_factory, bundle_of):
    """A scene in one zone with its answer, and a mosaic of its left part and its right part, that in another zone."""
    folder, bundle, values = tmp_path_factory.mktemp("zones"), bundle_of("unet"), pixels((3, 120, 200))
    scene = write_part(folder / "whole.tif", values, 0, 0, transform=ZONES)
    left = values[..., :LEFT_ENDS].copy()
    left[:, *HOLE.slices] = 0
    paths = [write_part(folder / "left.tif", left, 0, 0, transform=ZONES), folder / "right.tif"]
    there, width, height = calculate_default_transform(UTM, ZONE, 150, 120, *BoundingBox(
        795_500, 9_000_000 - 1200, 797_000, 9_000_000), resolution=10)  # fmt: skip
    moved = np.zeros((3, height, width), values.dtype)
    reproject(values, moved, src_transform=ZONES, src_crs=UTM, dst_transform=there, dst_crs=ZONE, src_nodata=0,
              dst_nodata=0, resampling=Nearest.nearest)  # fmt: skip
    write_part(paths[1], moved, 0, 0, crs=ZONE, transform=there)
    mosaic = mosaic_of(paths, folder, values.shape[1:])
    mosaic = replace(mosaic, geobox=replace(mosaic.geobox, transform=ZONES))
    return bundle, answer(scene, bundle), mosaic


def distances(valid):
    """How far pixels of a scene lie from those missing and from its edge, rows or columns, counted up to 64."""
    return distance_transform_cdt(np.pad(valid, 1), metric="chessboard")[1:-1, 1:-1].clip(max=64)


def distances_on_the_grid(mosaic):
    """Per scene of `two_zones`, `distances`, each brought onto the grid of the mosaic by pixel centres; 0 beside it."""
    shape = mosaic.geobox.shape
    sources = [mosaic.scene(number).source for number in range(2)]
    left, right = (distances(source.read(source.geobox.whole).valid) for source in sources)
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    moved = Transformer.from_crs(UTM, ZONE, always_xy=True).transform(*(ZONES * (columns, rows)))
    column, row = (np.floor(at).astype(int) for at in ~sources[1].geobox.affine * moved)
    inside = (row >= 0) & (row < right.shape[0]) & (column >= 0) & (column < right.shape[1])
    there = np.where(inside, right[row.clip(0, right.shape[0] - 1), column.clip(0, right.shape[1] - 1)], 0)
    return np.pad(left, [(0, 0), (0, shape[1] - left.shape[1])]), there


def cut_off(shape):
    """Where the network sees what the left scene of `two_zones` lacks and the uncut one has: bool `(y, x)`."""
    lacking = np.zeros(shape, bool)
    lacking[:, LEFT_ENDS:] = True
    lacking[HOLE.slices] = True
    return binary_dilation(lacking, np.ones((2 * HALO + 1, 2 * HALO + 1)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_in_two_zones_each_pixel_is_that_of_the_scene_in_which_it_lies_farther_inside(two_zones, order):
    """Those of the scene on the grid, which are not resampled, are as uncut: alone, and in the overlap."""
    bundle, expected, mosaic = two_zones
    left, right = distances_on_the_grid(mosaic)
    found = answer(replace(mosaic, order=order), bundle, each="inner")
    alone = [answer(replace(mosaic, order=(number,)), bundle, each="inner") for number in range(2)]
    for chosen, of in ((left > right, 0), (right > left, 1)):
        same([layer[..., chosen] for layer in found], [layer[..., chosen] for layer in alone[of]])
    as_uncut = (left > right) & ~cut_off(left.shape)
    for part, share in ((right == 0, 0.2), (right > 0, 0.05)):  # only the scene on the grid lies there; both do
        assert (as_uncut & part).mean() > share
        same([layer[..., as_uncut & part] for layer in found], [layer[..., as_uncut & part] for layer in expected])
    np.testing.assert_array_equal(found[0] != NODATA, (left > 0) | (right > 0))
    taken = right > left + 8  # what was resampled differs, so that the choice shows
    assert (found[1][0, taken] != expected[1][0, taken]).mean() > 0.5


def test_in_two_zones_merged_before_pixels_that_see_one_scene_alone_are_as_uncut(two_zones):
    bundle, expected, mosaic = two_zones
    sees_left_alone = ~cut_off(mosaic.geobox.shape)
    assert 0.3 < sees_left_alone.mean() < 0.9
    found = answer(mosaic, bundle)
    same([layer[..., sees_left_alone] for layer in found], [layer[..., sees_left_alone] for layer in expected])


@pytest.mark.parametrize(("each", "resampling"), [("inner", "nearest"), ("mean", "bilinear"), ("feather", "cubic")])
def test_blocks_do_not_matter_on_another_grid(two_zones, each, resampling):
    bundle, _, mosaic = two_zones
    mosaic = replace(mosaic, resampling=resampling)
    expected = answer(mosaic, bundle, each=each)
    same(answer(mosaic, bundle, each=each, block=44, tile=32), expected)
    sums = expected[1].sum(axis=0)
    np.testing.assert_allclose(sums[np.isfinite(sums)], 1, atol=1e-5)


@dataclass(frozen=True)
class Rows:
    """What an index has of scenes beside their pixels, and another order of its rows."""

    dates: tuple[str, ...]
    priorities: tuple[int, ...]
    turned: tuple[int, ...]


@st.composite
def cuts_and_rows(draw):
    of = draw(cuts())
    # the first scene has a twin of other pixels, so that nothing but the order tells which of them is taken
    given_cuts = Cuts((*of.windows, of.windows[0]), (*of.holes, of.holes[0]))
    count = len(given_cuts.windows)
    dates = draw(st.tuples(*[st.sampled_from(["", "2020-06-01T00:00:00Z", "2021-06-01T00:00:00Z"])] * count))
    priorities = draw(st.tuples(*[st.integers(0, 1)] * count))
    return given_cuts, Rows(dates, priorities, tuple(draw(st.permutations(range(count)))))


def index_rows(paths, rows, places, folder):
    """Some scenes in the order of an index that has its rows in this order, on the grid of `cuts`."""
    scenes = []
    for place in places:
        source = open_rasters([str(paths[place])])
        described = {"datetime": rows.dates[place], "priority": rows.priorities[place]}
        scenes.append(IndexedScene(f"s{place}", source, box(0, 0, 1, 1), digest=content_digest(source), **described))
    index = write_index(scenes, folder / f"{'-'.join(map(str, places))}.parquet")
    order = tuple(order_of(index, "latest").tolist())
    return MosaicSource(index, GeoBox(96, 112, GRID, scenes[0].source.geobox.crs), order, composite="latest")


def files_of(store):
    """The bytes of all files of pixels."""
    found = {file.relative_to(store): file.read_bytes() for file in store.rglob("c/*/*") if file.is_file()}
    found |= {file.relative_to(store): file.read_bytes() for file in store.rglob("c/*/*/*") if file.is_file()}
    return {name: content for name, content in found.items() if "seconds" not in name.parts}


def rows_and_threads_do_not_matter(chosen, each, bundle, folder, clients):
    given_cuts, rows = chosen
    paths = write_cuts(given_cuts, folder)
    written, identities = [], []
    for number, (client, places) in enumerate(zip(clients, (range(len(paths)), rows.turned), strict=True)):
        mosaic = index_rows(paths, rows, places, folder)
        identities.append(mosaic.identity())
        run(mosaic, bundle, folder / f"{number}.zarr", each=each, block=48, client=client, show=False, overviews=False)
        written.append(files_of(folder / f"{number}.zarr"))
    assert written[0] == written[1]
    assert identities[0] == identities[1]
    assert written[0] or (zarr.open_group(folder / "0.zarr")["class_map"][:] == NODATA).all()


@pytest.fixture(scope="module")
def clients(client):
    """A cluster of one thread, and one of three."""
    with dask_client(None, 1) as single:
        yield single, client


@pytest.mark.parametrize("each", MERGES)
@settings(max_examples=2)
@given(chosen=cuts_and_rows())
def test_rows_of_the_index_and_worker_threads_do_not_matter(bundle_of, tmp_path_factory, clients, each, chosen):
    rows_and_threads_do_not_matter(chosen, each, bundle_of("unet"), tmp_path_factory.mktemp("rows"), clients)


@pytest.mark.slow
@pytest.mark.parametrize("each", MERGES)
@settings(max_examples=25)
@given(chosen=cuts_and_rows())
def test_rows_of_the_index_and_worker_threads_do_not_matter_of_many(bundle_of, tmp_path_factory, clients, each, chosen):
    rows_and_threads_do_not_matter(chosen, each, bundle_of("unet"), tmp_path_factory.mktemp("rows"), clients)


@pytest.mark.parametrize("each", MERGES)
def test_each_scene_is_harmonised_before_it_is_segmented(whole, each, tmp_path):
    bundle, values, _, _ = whole
    left, right = (values[:, *piece.slices] for piece in PIECES[:2])
    raw = [left, np.where(right > 0, np.rint(right * 1.25 + 90), 0).astype("uint16")]

    def written(name, of):
        (tmp_path / name).mkdir()
        named = enumerate(zip(PIECES, of, strict=False))
        paths = [write_part(tmp_path / name / f"{n}.tif", part, at.top, at.left) for n, (at, part) in named]
        return mosaic_of(paths, tmp_path / name, (103, 147))

    plain = written("plain", raw)
    mosaic = harmonise(plain, "moments")
    adjusted = [part.astype(float) for part in raw]
    for number, by in mosaic.adjustments.items():
        for band, line in zip(adjusted[number], by, strict=True):
            observed = band > 0
            band[observed] = np.rint(band[observed] * line.gain + line.offset).clip(1, 65535)
    assert any((before != after).any() for before, after in zip(raw, adjusted, strict=True))
    found = answer(mosaic, bundle, each=each)
    same(found, answer(written("adjusted", [part.astype("uint16") for part in adjusted]), bundle, each=each))
    assert (found[1] != answer(plain, bundle, each=each)[1]).any()
