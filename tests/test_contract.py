"""Whether a scene fits a bundle: what does not is refused with what to do, and never silently scaled or guessed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from helpers import metadata, pixels, write_raster

from models import Bundle, SwatheError
from models.errors import BundleError
from pipeline import plan
from pipeline.grid.geobox import GeoBox
from pipeline.inference.plan import check_fit, fit_bands
from pipeline.io.scene import open_source

RGB = ("red", "green", "blue")


def source(tmp_path: Path, bands: int = 3, dtype: str = "uint16", **profile: Any) -> Any:
    return open_source(write_raster(tmp_path / "scene.tif", pixels((bands, 20, 30), dtype), **profile))


# scene's names (None: unnamed), wished bands, what is taken or what is said
FITS: list[tuple[Any, Any, Any]] = [
    (RGB, None, RGB),
    (("BLUE", "nir", "Green", "red"), None, ("red", "Green", "BLUE")),
    (None, None, ("band_1", "band_2", "band_3")),
    (("B4", "B3", "B2"), [1, 2, 3], ("B4", "B3", "B2")),
    (("B2", "B3", "B4", "B8"), ["B4", "b3", 1], ("B4", "B3", "B2")),
    (("B4", "B3", "B2"), None, "needs the bands red, green, blue; the scene has 3: B4, B3, B2.*--bands 1,2,3"),
    ((None,) * 4, None, "the scene has 4: band_1, band_2, band_3, band_4"),
    ((None,) * 2, None, "the scene has 2"),
    (RGB, [1, 2], "needs 3 bands .*--bands names 2"),
    (RGB, [1, 2, 3, 1], "--bands names 4"),
    (RGB, [1, 2, 9], "no band 9"),
    (RGB, ["red", "green", "pink"], "no band 'pink'"),
]


@pytest.mark.parametrize(("names", "wished", "expected"), FITS, ids=str)
def test_bands(tmp_path: Path, names: Any, wished: Any, expected: Any) -> None:
    named = names if names and all(names) else None
    scene = source(tmp_path, len(names or RGB), descriptions=named, photometric="minisblack")
    if isinstance(expected, tuple):
        assert fit_bands(scene, metadata(), wished).bands == expected
        return
    with pytest.raises(SwatheError, match=expected) as error:
        fit_bands(scene, metadata(), wished)
    assert len(str(error.value).splitlines()) <= 2


def test_taken_bands_are_read_in_the_networks_order(tmp_path: Path) -> None:
    scene = source(tmp_path, 4, descriptions=("blue", "nir", "green", "red"))
    taken = fit_bands(scene, metadata(), None)
    values = pixels((4, 20, 30))[[3, 2, 0]]
    from pipeline.grid.geobox import Window

    np.testing.assert_array_equal(taken.read(Window(0, 20, 0, 30)).data, values)


def test_an_absurd_number_of_bands_makes_no_absurd_message(tmp_path: Path) -> None:
    scene = open_source(write_raster(tmp_path / "m.tif", np.zeros((3000, 2, 2), np.uint16), photometric="minisblack"))
    with pytest.raises(BundleError, match="the scene has 3000") as error:
        fit_bands(scene, metadata(), None)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_another_dtype_is_refused_unless_allowed(tmp_path: Path, dtype: str) -> None:
    scene = source(tmp_path, dtype=dtype)
    with pytest.raises(BundleError, match=f"trained on uint16 values; the scene has {dtype}.*--allow-mismatch"):
        check_fit(scene, metadata())
    assert f"the scene has {dtype}" in check_fit(scene, metadata(), allow_mismatch=True)[0]


@pytest.mark.parametrize(
    ("trained", "fits"),
    [
        ((10, 10), True),
        ((5, 5), True),
        ((20, 20), True),
        ((0.1, 5), True),
        ((30, 40), False),
        ((0.5, 4), False),
        (None, True),
    ],
)
def test_resolution(tmp_path: Path, trained: Any, fits: bool) -> None:
    scene, bundle = source(tmp_path), metadata(resolution=trained)  # 10 m
    if fits:
        assert check_fit(scene, bundle) == []
        return
    with pytest.raises(BundleError, match="the scene has 10 m"):
        check_fit(scene, bundle)
    assert len(check_fit(scene, bundle, allow_mismatch=True)) == 1


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32736", Affine(10, 0, 5e5, 0, -10, 9e6), 10),
        ("EPSG:32736", Affine(8, 6, 5e5, 6, -8, 9e6), 10),
        ("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 0.001), 11.132),
        ("EPSG:4326", Affine(1e-4, 0, 10, 0, -1e-4, 60.001), 7.87),
        ("EPSG:2263", Affine(3, 0, 1e6, 0, -3, 2e5), 3 * 0.3048),  # New York, in feet
        (None, Affine(10, 0, 5e5, 0, -10, 9e6), None),
        ("EPSG:32736", None, None),
        ("EPSG:32736", Affine(float("nan"), 0, 0, 0, -1, 0), None),
        ('LOCAL_CS["nowhere",UNIT["metre",1]]', Affine(2, 0, 0, 0, -2, 9), 2),
        ("nonsense", Affine(2, 0, 0, 0, -2, 9), None),
    ],
    ids=str,
)
def test_resolution_in_metres(crs: str | None, transform: Affine | None, metres: float | None) -> None:
    from rasterio.crs import CRS

    wkt = CRS.from_string(crs).to_wkt() if crs and crs.startswith("EPSG") else crs
    box = GeoBox(20, 20, transform, wkt)
    assert box.resolution() == (None if metres is None else pytest.approx(metres, rel=0.01))
    assert "20 x 20 pixels" in box.describe()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
def test_a_scene_without_crs_is_allowed_and_noted(tmp_path: Path, bundle_of: Callable[..., Bundle]) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((3, 20, 30)), crs=None, transform=Affine.identity())
    prepared = plan(path, bundle_of())
    assert any("no CRS" in note for note in prepared.notes)
    assert "no CRS" in str(prepared)


@pytest.mark.parametrize(
    "other",
    [GeoBox(20, 31), GeoBox(20, 30, Affine(10, 0, 5, 0, -10, 0)), GeoBox(20, 30, Affine(10, 0, 5, 0, -10, 0), "x")],
    ids=str,
)
def test_grids(other: GeoBox) -> None:
    mine = GeoBox(20, 30)
    assert mine.same_grid(GeoBox(20, 30))
    assert not mine.same_grid(other)
    assert not other.same_grid(mine)
