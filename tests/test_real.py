"""Real scenes, opened right and run to a map: Landsat, OpenAerialMap, 38-Cloud, Sentinel-2, NAIP, Dubai."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from distributed import Client
from helpers import SHARED
from rasterio.enums import ColorInterp
from rio_cogeo import cog_validate
from test_odd import missing_in
from test_scene import write_index

from models import Bundle, SwatheError
from pipeline import allowing, open_scene, run, write_cog
from pipeline.grid.geobox import Window
from pipeline.io.scene import open_source

pytestmark = [
    pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio"),
]
OAM = [
    f"oam_buildings/scenes/{name}_image.tif"
    for name in ("kampala_ug_a_z21", "kampala_ug_b_z21", "zanzibar_tz_a_z20", "zanzibar_tz_b_z20")
]
LANDSAT = "landsat8_redcross/scenes/C_rgb_u16.tif"


def run_and_check(path: Path, bundle: Bundle, folder: Path, client: Client, **keywords: Any) -> None:
    """CRS, transform and nodata are the source's; the COG is strictly valid; other readers see classes and colours."""
    store, tif = folder / "out.zarr", folder / "out.tif"
    report = run(path, bundle, store, client=client, show=False, allow_mismatch=True, **keywords)
    write_cog(store, tif)
    valid, errors, _ = cog_validate(tif, strict=True, quiet=True)
    assert valid, errors
    with rasterio.open(path) as source, rasterio.open(tif) as made, xr.open_zarr(store, mask_and_scale=False) as maps:
        assert (made.shape, made.transform, made.crs, made.nodata) == (source.shape, source.transform, source.crs, 255)
        classes = made.read(1)
        np.testing.assert_array_equal(classes == 255, missing_in(source))
        np.testing.assert_array_equal(maps.class_map.values, classes)
        assert maps.rio.crs == source.crs
        if source.crs:
            assert maps.rio.transform().almost_equals(source.transform, precision=1e-9)
        assert sum(report.pixels.values()) == classes.size
        assert made.colorinterp[0] == ColorInterp.palette
        colours = made.colormap(1)
        for value, info in enumerate(bundle.metadata.classes):
            assert colours[value][:3] == info.rgb
    seen_by_gdal(tif, bundle)


def seen_by_gdal(tif: Path, bundle: Bundle) -> None:
    """QGIS shows what the auxiliary file says of categories; `rio info` and gdalinfo read the same."""
    text = Path(f"{tif}.aux.xml").read_text(encoding="utf-8")
    for info in bundle.metadata.classes:
        assert info.name in text
    if shutil.which("gdalinfo"):
        shown = subprocess.run(["gdalinfo", str(tif)], capture_output=True, text=True, check=True).stdout
        assert all(info.name in shown for info in bundle.metadata.classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", OAM)
def test_drone_orthophotos(name: str, tmp_path: Path, bundle_of: Callable[..., Bundle], client: Client) -> None:
    run_and_check(SHARED / name, bundle_of(dtype="uint8", bands=3), tmp_path, client)


@pytest.mark.slow
def test_a_whole_landsat_scene(tmp_path: Path, bundle_of: Callable[..., Bundle], client: Client) -> None:
    run_and_check(SHARED / LANDSAT, bundle_of(dtype="uint16", bands=3), tmp_path, client)


def test_a_small_part_of_the_same(tmp_path: Path, bundle_of: Callable[..., Bundle], client: Client) -> None:
    """As above, quick enough for every run of the tests: the smallest of the drone scenes' corners."""
    with rasterio.open(SHARED / OAM[3]) as source:
        window = rasterio.windows.Window(100, 50, 300, 260)
        profile = source.profile | {"width": 300, "height": 260, "transform": source.window_transform(window)}
        with rasterio.open(tmp_path / "part.tif", "w", **profile) as target:
            target.write(source.read(window=window))
    run_and_check(tmp_path / "part.tif", bundle_of(dtype="uint8", bands=3), tmp_path, client)


@pytest.mark.parametrize("name", [*OAM, LANDSAT])
def test_values_are_rasterios(name: str) -> None:
    source = open_source(SHARED / name)
    height, width = source.geobox.shape
    part = Window(height // 3, height // 3 + 300, width // 2, width // 2 + 200)
    with rasterio.open(SHARED / name) as file:
        window = part.to_rasterio()
        np.testing.assert_array_equal(source.read(part).data, file.read(window=window)[: len(source.bands)])
        assert (source.geobox.crs is None) == (file.crs is None)


def test_sentinel_bands_as_separate_files() -> None:
    scene = open_scene(SHARED / "s2_opengeo/data/sentinel-2/*.tiff", ["B04", "B03", "B02"])
    assert scene.shape == (3, 2201, 2629)
    assert scene.rio.crs == 4326
    with rasterio.open(SHARED / "s2_opengeo/data/sentinel-2/2018-10-13, Sentinel-2B L1C, B03.tiff") as file:
        assert scene.rio.transform() == file.transform
        np.testing.assert_array_equal(scene[1, 500:600, 700:800], file.read(1)[500:600, 700:800])


def test_cloud_patches_as_separate_files() -> None:
    folder = SHARED / "cloud38/38-Cloud_training"
    first = sorted((folder / "train_red").iterdir())[0].name
    names = ("red", "green", "blue", "nir")
    scene = open_scene([folder / f"train_{name}" / first.replace("red", name, 1) for name in names])
    assert scene.band.values.tolist() == list(names)
    assert (scene.shape, scene.dtype) == ((4, 384, 384), np.uint16)
    with rasterio.open(folder / "train_nir" / first.replace("red", "nir", 1)) as file:
        np.testing.assert_array_equal(scene[3], file.read(1))


def test_bands_on_grids_that_are_shifted_by_less_than_a_pixel_are_told(tmp_path: Path) -> None:
    paths = sorted((SHARED / "whole_scenes/naip_nd_timeseries").glob("*.tif"))
    parts = []
    for path in paths[:2]:
        with (
            rasterio.open(path) as source,
            rasterio.open(tmp_path / path.name, "w", **source.profile | {"count": 1}) as part,
        ):
            part.write(source.read([1]))
        parts.append(tmp_path / path.name)
    scene = open_scene(parts)
    assert scene.attrs["notes"] == ["resampled to the grid of 5 m, nearest: 20160816 (5 m)"]
    with rasterio.open(parts[0]) as first:
        assert scene.rio.transform() == first.transform
    for band, path in zip(scene, parts, strict=True):  # 0.6 m are an eighth of a pixel
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(band, file.read(1))


def test_tiles_of_other_pixels_are_refused(tmp_path: Path) -> None:
    paths = [SHARED / f"whole_scenes/adjoining/mosaic_cog{n}.tif" for n in (1, 2)]  # of 300.0387 and 300.0382 m
    with (
        allowing(str(SHARED)),
        pytest.raises(SwatheError, match=r"(?s)different grids.*300\.0386.*300\.0382.*gdalwarp"),
    ):
        open_source(write_index(tmp_path / "both.gti.gpkg", paths))


def test_dubai_pictures() -> None:
    paths = sorted((SHARED / "dubai_semseg").glob("Tile */images/*.jpg"))
    assert paths
    for path in paths[:3]:
        scene = open_scene(path)
        assert scene.band.values.tolist() == ["red", "green", "blue"]
        assert scene.rio.crs is None
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(scene.values, file.read())
