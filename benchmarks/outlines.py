"""Two more jobs of objects by Swathe, rasterio.features and xarray-spatial: polygons of a store's mask, sums in zones.

polygons   one for each connected region of the object's class, into a GeoParquet: ours have their measures as columns
zones      pixels of the object's class in diamonds that cover the mask, into a Parquet: ours count edge pixels by the
           part that lies inside, others by their centres

Each is written as a user who knows the library would write it: the mask whole in memory. Libraries are imported when
they are asked for, so that a missing one is skipped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio.features
import shapely
import zarr
from affine import Affine
from numpy.typing import NDArray

from pipeline.store.store import open_store

from .masks import CLASSES

ACROSS = 8  # zones side by side, and as many above each other
CLASS = CLASSES[1].name
FILES = {"polygons": "polygons.parquet", "zones": "zones.parquet"}
Job = Callable[[Path, Path], None]
"""Store of the mask, folder in which the file goes."""


def _swathe_polygons(source: Path, folder: Path) -> None:
    """Find the objects, measure them, and trace them, durably."""
    from pipeline import write_vectors

    write_vectors(source, folder / FILES["polygons"], overwrite=True, show=False)


def _rasterio_polygons(source: Path, folder: Path) -> None:
    mask, transform, crs = _mask(source)
    shapes = rasterio.features.shapes(mask, mask=mask.view(bool), connectivity=4, transform=transform)
    polygons = [shapely.geometry.shape(shape) for shape, _ in shapes]
    gpd.GeoDataFrame(geometry=polygons, crs=crs).to_parquet(folder / FILES["polygons"])


def _xrspatial_polygons(source: Path, folder: Path) -> None:
    import xarray as xr
    from xrspatial.experimental.polygonize import polygonize

    mask, transform, crs = _mask(source)
    pixels = xr.DataArray(mask.astype(np.int32), dims=("y", "x"))
    found = polygonize(pixels, mask=pixels == 1, transform=np.array(transform[:6]), return_type="geopandas")
    found.set_crs(crs).to_parquet(folder / FILES["polygons"])


def _swathe_zones(source: Path, folder: Path) -> None:
    from pipeline import compute_statistics

    found = compute_statistics(source, zones=zones_of(source), show=False)
    _keep_sums(folder, found[f"{CLASS}_pixels"].to_numpy())


def _rasterio_zones(source: Path, folder: Path) -> None:
    """Draw the zones into a raster, and count."""
    mask, _, _ = _mask(source)
    numbers = _zone_raster(source)
    _keep_sums(folder, np.bincount(numbers.ravel(), mask.ravel(), ACROSS**2 + 1)[1:])


def _xrspatial_zones(source: Path, folder: Path) -> None:
    """Draw the zones into a raster, and let it add up."""
    import xarray as xr
    from xrspatial.zonal import stats

    mask, _, _ = _mask(source)
    zones, values = (xr.DataArray(array, dims=("y", "x")) for array in (_zone_raster(source), mask.astype(np.int32)))
    found = stats(zones, values, zone_ids=list(range(1, ACROSS**2 + 1)), stats_funcs=["sum"])
    _keep_sums(folder, found.set_index("zone")["sum"].reindex(range(1, ACROSS**2 + 1)).to_numpy())


def zones_of(source: Path) -> gpd.GeoDataFrame:
    """Return diamonds that touch at their corners, in the CRS of a store."""
    geobox = open_store(str(source))[0].geobox
    side = geobox.shape[0] / ACROSS
    middle = (np.arange(ACROSS) + 0.5) * side
    across, down = (array.ravel() for array in np.meshgrid(middle, middle))
    corners = [
        (across, down - side / 2),
        (across + side / 2, down),
        (across, down + side / 2),
        (across - side / 2, down),
    ]
    rings = np.stack([np.stack(geobox.transform * corner, axis=-1) for corner in corners], axis=1)
    return gpd.GeoDataFrame(geometry=shapely.polygons(rings), crs=geobox.crs)


def _zone_raster(source: Path) -> NDArray[np.int32]:
    geobox = open_store(str(source))[0].geobox
    shapes = [(zone, number) for number, zone in enumerate(zones_of(source).geometry, 1)]
    drawn = rasterio.features.rasterize(shapes, geobox.shape, transform=geobox.transform, dtype="int32")
    return np.asarray(drawn, np.int32)


def _mask(source: Path) -> tuple[NDArray[np.uint8], Affine, str]:
    """Return the whole mask, where it lies, and its CRS."""
    geobox = open_store(str(source))[0].geobox
    pixels = np.asarray(zarr.open_array(source / "class_map", mode="r")[:], np.uint8)
    return pixels, geobox.transform, geobox.crs


def _keep_sums(folder: Path, sums: NDArray[Any]) -> None:
    pd.DataFrame({"sum": sums.astype(float)}).to_parquet(folder / FILES["zones"])


JOBS: dict[str, dict[str, Job]] = {
    "polygons": {"swathe": _swathe_polygons, "rasterio": _rasterio_polygons, "xrspatial": _xrspatial_polygons},
    "zones": {"swathe": _swathe_zones, "rasterio": _rasterio_zones, "xrspatial": _xrspatial_zones},
}


def difference(job: str, ours: Path, theirs: Path) -> str:
    """Say in words what the answer in one folder differs by from ours."""
    if job == "zones":
        one, other = (pd.read_parquet(folder / FILES[job])["sum"].to_numpy() for folder in (ours, theirs))
        return f"sum {other.sum() - one.sum():+,.1f} of {one.sum():,.1f} pixels, a zone by at most " + (
            f"{np.abs(other - one).max():,.1f}"
        )
    one, other = (gpd.read_parquet(folder / FILES[job]).geometry for folder in (ours, theirs))
    area = other.area.sum() - one.area.sum()
    return f"{len(other) - len(one):+,} of {len(one):,} polygons, area {area:+,.1f} of {one.area.sum():,.1f} m2"
