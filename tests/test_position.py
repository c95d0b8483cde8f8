"""Where pixels lie, by every way in which files say it or fail to: the same place in all verbs, or none and a note."""

import json
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
import zarr
from affine import Affine
from click.testing import CliRunner
from helpers import GRID, UTM, pixels, write_raster
from rasterio.control import GroundControlPoint
from stores import write_store

from models.errors import TrainingError
from pipeline import open_maps, open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.grid.geobox import IN_PIXELS, NO_TRANSFORM, GeoBox
from pipeline.inference.lazy import segment
from pipeline.io.scene import open_source

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
SHAPE = (40, 60)
HOUSE = (slice(5, 15), slice(20, 50))  # rows and columns of the one object below


def image() -> np.ndarray:
    return pixels((3, *SHAPE), "uint8")


def crs_alone(path: Path) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SHAPE[0], width=SHAPE[1], dtype="uint8", crs=UTM
    ) as out:
        out.write(image())
    return path


def test_a_crs_without_a_transform_is_no_position(tmp_path: Path, bundle_of: Any) -> None:
    """`open_scene`, `plan`, lazy `segment`, `run` into a store and a GeoTIFF: nothing lies at (0, 0) in UTM."""
    path = crs_alone(tmp_path / "scene.tif")
    scene = open_scene(path)
    assert scene.rio.crs is None
    assert scene.attrs["notes"] == [NO_TRANSFORM]
    assert {"x", "y"}.isdisjoint(scene.coords)
    bundle = bundle_of("simple-unet", bands=3, dtype="uint8")
    prepared = plan(path, bundle, engine="torch")
    assert prepared.geobox == GeoBox(*SHAPE)
    assert f"note     {NO_TRANSFORM}" in str(prepared).splitlines()
    assert segment(path, bundle, engine="torch").rio.crs is None
    run(path, bundle, tmp_path / "m.zarr", show=False, engine="torch")
    assert open_maps(tmp_path / "m.zarr").rio.crs is None
    assert "proj:code" not in zarr.open_group(tmp_path / "m.zarr").attrs
    run(path, bundle, tmp_path / "m.tif", show=False, engine="torch")
    with rasterio.open(tmp_path / "m.tif") as made:
        assert made.crs is None
        assert made.transform.is_identity


@pytest.mark.parametrize("suffix", ["tif", "vrt", "png"])
def test_other_files_with_a_crs_alone(tmp_path: Path, suffix: str) -> None:
    crs_alone(tmp_path / "scene.tif")
    path = tmp_path / f"other.{suffix}"
    if suffix == "vrt":
        path.write_text(
            f'<VRTDataset rasterXSize="60" rasterYSize="40"><SRS>{UTM}</SRS><VRTRasterBand dataType="Byte" band="1">'
            f"<SimpleSource><SourceFilename>{tmp_path}/scene.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
        )
    else:
        with rasterio.open(path, "w", driver="PNG" if suffix == "png" else "GTiff", count=1, height=40, width=60,
                           dtype="uint8", crs=UTM, transform=Affine.identity()) as out:  # fmt: skip
            out.write(image()[:1])
    source = open_source(path)
    assert source.geobox == GeoBox(*SHAPE)
    assert source.notes == (NO_TRANSFORM,)


def arrays() -> dict[str, xr.DataArray]:
    """A CRS, and coordinates that count pixels or none."""
    plain = xr.DataArray(image(), dims=("band", "y", "x"))
    counted = plain.assign_coords(y=np.arange(40), x=np.arange(60))
    centres = plain.assign_coords(y=np.arange(40) + 0.5, x=np.arange(60) + 0.5)
    as_read = centres.rio.write_crs(UTM).rio.write_transform(Affine.identity())  # as rioxarray opens such a file
    return {"none": plain.rio.write_crs(UTM), "numbers": counted.rio.write_crs(UTM),
            "centres": centres.rio.write_crs(UTM), "as read": as_read, "part": as_read[:, 10:, 20:]}  # fmt: skip


@pytest.mark.parametrize("kind", arrays())
def test_arrays_with_a_crs_alone(tmp_path: Path, kind: str) -> None:
    array = arrays()[kind]
    source = open_source(array)
    assert source.geobox == GeoBox(*array.shape[1:])
    assert source.notes == (NO_TRANSFORM,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array.rename("scene").to_dataset().to_zarr(tmp_path / "scene.zarr", zarr_format=2)
    assert open_source(tmp_path / "scene.zarr").geobox == GeoBox(*array.shape[1:])


def test_arrays_that_lie_somewhere_keep_their_place() -> None:
    """Pixels of one metre too, also south up."""
    for transform in (GRID, Affine(1, 0, 5e5, 0, 1, 9e6), Affine(1, 0, 0, 0, -1, 40)):
        placed = xr.DataArray(image(), dims=("band", "y", "x")).rio.write_crs(UTM).rio.write_transform(transform)
        assert open_source(placed).geobox.transform == transform
        x, y = (np.arange(n) + 0.5 for n in (60, 40))
        coords = {"x": transform.c + transform.a * x, "y": transform.f + transform.e * y}
        by_coords = xr.DataArray(image(), dims=("band", "y", "x"), coords=coords).rio.write_crs(UTM)
        assert open_source(by_coords).geobox.transform == transform
        assert open_source(by_coords).notes == ()


def test_a_transform_that_only_counts_pixels_is_doubted(tmp_path: Path) -> None:
    """With a CRS: without, it is as good as any."""
    upwards = Affine(1, 0, 0, 0, -1, 0)
    source = open_source(write_raster(tmp_path / "a.tif", image(), transform=upwards))
    assert source.geobox.transform == upwards
    (note,) = source.notes
    assert "only counts pixels, from (0, 0) of the CRS" in note
    assert open_source(write_raster(tmp_path / "b.tif", image(), transform=upwards, crs=None)).notes == ()


def test_control_points_alone_are_no_position_either(tmp_path: Path) -> None:
    points = [GroundControlPoint(r, c, 5e5 + c, 9e6 - r) for r in (0, 40) for c in (0, 60)]
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", driver="GTiff", count=3, height=40, width=60, dtype="uint8") as out:
        out.write(image())
        out.gcps = points, rasterio.CRS.from_user_input(UTM)
    source = open_source(path)
    assert source.geobox == GeoBox(*SHAPE)
    (note,) = source.notes
    assert "4 ground control points only, and is lost in the map: warp it first" in note


# later verbs, on a store without a position: also one of before, which kept the CRS


@pytest.fixture(scope="module", params=["now", "before"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    class_map = np.zeros(SHAPE, np.uint8)
    class_map[HOUSE] = 1
    path = write_store(tmp_path_factory.mktemp("store") / "m.zarr", class_map, crs=UTM, transform=None)
    if request.param == "before":
        file = path / "spatial_ref/zarr.json"
        kept = json.loads(file.read_text())
        kept["attributes"]["crs_wkt"] = rasterio.CRS.from_user_input(UTM).to_wkt()
        file.write_text(json.dumps(kept))
    return path


def swathe(*words: Any) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("ending", ["parquet", "gpkg", "geojson", "fgb"])
def test_outlines_are_in_pixels_counted_down(tmp_path: Path, store: Path, ending: str) -> None:
    told = swathe("vectorise", store, "-o", tmp_path / f"o.{ending}", "-q")
    assert f"note: {IN_PIXELS}" in told.splitlines()
    path = tmp_path / f"o.{ending}"
    frame = geopandas.read_parquet(path) if ending == "parquet" else geopandas.read_file(path)
    assert frame.crs is None or ending == "geojson"  # GDAL takes all GeoJSON for degrees
    assert frame.total_bounds.tolist() == [20, 5, 50, 15]
    assert frame["area_m2"].isna().all()


def test_statistics_are_of_pixels(tmp_path: Path, store: Path) -> None:
    told = swathe("stats", store, "--cell", 20, "-o", tmp_path / "s.parquet", "-q")
    assert f"note: {IN_PIXELS}" in told.splitlines()
    frame = geopandas.read_parquet(tmp_path / "s.parquet")
    assert frame.crs is None
    assert frame.total_bounds.tolist() == [0, 0, 60, 40]
    assert frame["area_m2"].isna().all()
    assert frame["building_pixels"].sum() == 300
    refused = CliRunner().invoke(cli, ["stats", str(store), "--cell", "20 m"])
    assert "need a scene with a CRS on the Earth" in str(refused.exception)


def test_the_other_verbs_say_it(tmp_path: Path, store: Path) -> None:
    assert "no CRS, no transform\nresolution  unknown" in swathe("info", store)
    for verb, output in (("export", "m.tif"), ("clean", "c.zarr"), ("objects", "o.zarr"), ("report", "r.html")):
        assert f"note: {IN_PIXELS}" in swathe(verb, store, "-o", tmp_path / output).splitlines(), verb
    with rasterio.open(tmp_path / "m.tif") as made:
        assert made.crs is None
    assert ">no CRS<" in (tmp_path / "r.html").read_text()


def test_polygons_are_no_labels_of_a_scene_without_a_position(tmp_path: Path) -> None:
    """They would lie at (0, 0) of its CRS; a raster of its size is taken as it is."""
    from train.data.classes import value_table
    from train.data.labels import open_labels

    geobox = open_source(crs_alone(tmp_path / "scene.tif")).geobox
    geopandas.GeoDataFrame(geometry=geopandas.points_from_xy([5], [5]).buffer(3), crs=UTM).to_file(tmp_path / "l.gpkg")
    table = value_table(write_classes())
    with pytest.raises(TrainingError, match="the image has no CRS"):
        open_labels(str(tmp_path / "l.gpkg"), geobox, table)
    truth = np.zeros((1, *SHAPE), np.uint8)
    truth[0][HOUSE] = 1
    labels = open_labels(str(write_raster(tmp_path / "l.tif", truth)), geobox, table)
    np.testing.assert_array_equal(labels.read(geobox.whole), truth[0])


def write_classes() -> Any:
    from models import ClassInfo

    return (ClassInfo("other", "000000"), ClassInfo("thing", "FFFFFF"))
