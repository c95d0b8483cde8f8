"""Buildings of real drone scenes, from the shipped bundle to objects and figures, beside what people drew."""

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from distributed import Client
from helpers import SHARED
from pyproj import Geod, Transformer
from skimage.measure import label

from models import load_bundle
from pipeline import (
    compute_statistics,
    five_panels,
    open_objects,
    run,
    write_clean,
    write_objects,
    write_report,
    write_vectors,
)

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
OAM = SHARED / "oam_buildings"
SMALLEST = 20  # m²
SHARE, COUNT, SIZE = 1.5, 2.0, 2.25  # factors by which figures may differ from those of the labels
# One bundle of 0.95 million weights, an IoU of 0.5. Where roofs touch, they are one object, so that objects are fewer
# and larger than those drawn one by one. Kampala b was kept apart for the test, and there half of the roofs are missed.
SHARES = {"kampala_ug_b_z21": 2.5}


@dataclass(frozen=True)
class Figures:
    """What is compared: share of land occupied, number of objects of at least 20 m², their mean size, area seen."""

    share: float
    count: int
    mean: float
    land: float

    def __str__(self) -> str:
        return f"{self.share:.1%} of {self.land:,.0f} m², {self.count} of {self.mean:.0f} m² on average"


def of_labels(name: str) -> tuple[Figures, Figures]:
    """Give the figures of what was drawn: by its raster and skimage, and by its polygons and geodesic areas."""
    geod = Geod(ellps="WGS84")
    with rasterio.open(OAM / f"scenes/{name}_label.tif") as file:
        mask, bounds, crs = file.read(1) == 1, file.bounds, file.crs
    there = Transformer.from_crs(crs, 4326, always_xy=True)
    scene = shapely.box(*there.transform(bounds.left, bounds.bottom), *there.transform(bounds.right, bounds.top))
    land = abs(geod.geometry_area_perimeter(scene)[0])
    sizes = np.bincount(label(mask, connectivity=1).ravel())[1:] * land / mask.size
    sizes = sizes[sizes >= SMALLEST]
    drawn = geopandas.read_file(OAM / f"{name.rsplit('_', 2)[0]}_labels.geojson").geometry.make_valid()
    drawn = drawn[drawn.intersects(scene)]
    parts = [abs(geod.geometry_area_perimeter(shape)[0]) for shape in drawn.intersection(scene)]
    whole = abs(geod.geometry_area_perimeter(drawn.union_all().intersection(scene))[0])
    large = [part for part in parts if part >= SMALLEST]
    return (
        Figures(float(mask.mean()), len(sizes), float(sizes.mean()), land),
        Figures(whole / land, len(large), float(np.mean(large)), land),
    )


def apart(one: float, other: float) -> float:
    return max(one / other, other / one)


@pytest.mark.parametrize("name", [
    "kampala_ug_b_z21",
    *[pytest.param(name, marks=pytest.mark.slow) for name in (
        "kampala_ug_a_z21", "zanzibar_tz_a_z20", "zanzibar_tz_b_z20",
    )],
])  # fmt: skip
def test_figures_are_plausible_beside_the_labels(name: str, tmp_path: Path, client: Client) -> None:
    more = {"client": client, "show": False}
    bundle = load_bundle("buildings")
    scene = OAM / f"scenes/{name}_image.tif"
    run(scene, bundle, tmp_path / "maps.zarr", block=1024, **more)
    keywords = {"threshold": dict(bundle.metadata.thresholds), "min_object": "20 m2", "min_hole": "20 m2"}
    write_clean(tmp_path / "maps.zarr", tmp_path / "clean.zarr", **keywords, **more)
    write_objects(tmp_path / "clean.zarr", tmp_path / "objects.zarr", **more)
    row = compute_statistics(tmp_path / "objects.zarr", **more).iloc[0]
    ours = Figures(row.building_share, int(row.building_count), row.building_size_mean_m2, row.area_m2)
    raster, polygons = of_labels(name)
    print(f"\n{name}\n  Swathe          {ours}\n  label raster    {raster}\n  label polygons  {polygons}")
    assert raster.share == pytest.approx(polygons.share, rel=0.01)  # both ways to look at the labels agree
    assert ours.land == pytest.approx(raster.land, rel=1e-3)  # EPSG:3857 stretches by 1.011 here, squared
    assert apart(ours.share, raster.share) < SHARES.get(name, SHARE)
    assert apart(ours.count, raster.count) < COUNT
    assert apart(ours.mean, raster.mean) < SIZE
    _same_by_other_means(tmp_path, row)
    _pages(scene, tmp_path)


def _same_by_other_means(folder: Path, row) -> None:
    """The table, the polygons and the map say the same."""
    maps, table = open_objects(folder / "objects.zarr")
    assert len(table) == row.building_count
    assert table.area_m2.sum() == pytest.approx(row.building_m2, rel=1e-9)
    assert table.area_m2.min() >= SMALLEST
    write_vectors(folder / "objects.zarr", folder / "buildings.parquet", show=False)
    frame = geopandas.read_parquet(folder / "buildings.parquet")
    geod = Geod(ellps="WGS84")
    drawn = [abs(geod.geometry_area_perimeter(shape)[0]) for shape in frame.to_crs(4326).geometry]
    np.testing.assert_allclose(drawn, frame.area_m2, rtol=1e-3)
    burnt = rasterio.features.rasterize(frame.geometry, maps.class_map.shape, transform=maps.rio.transform())
    np.testing.assert_array_equal(burnt, maps.class_map.values)


def _pages(scene: Path, folder: Path) -> None:
    page = write_report(folder / "clean.zarr", folder / "report.html", scene=scene, objects=folder / "objects.zarr")
    assert 100_000 < page.stat().st_size < 20_000_000
    picture = five_panels(scene, folder / "clean.zarr", folder / "panels.png", objects=folder / "objects.zarr")
    assert picture.stat().st_size > 100_000
