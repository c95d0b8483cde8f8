"""A geobox as coordinates and `spatial_ref` of xarray objects."""

from typing import Any

import numpy as np
import rioxarray  # noqa: F401 -- registers `.rio`, also for those who open maps
from numpy.typing import NDArray

from .geobox import GeoBox


def coordinates(geobox: GeoBox) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """Return x and y of pixel centres, for xarray; none where the grid is rotated or has no position."""
    if geobox.transform is None or not geobox.rectilinear:
        return {}
    x, _ = geobox.to_map(np.arange(geobox.width) + 0.5, 0)
    _, y = geobox.to_map(0, np.arange(geobox.height) + 0.5)
    return {"x": ("x", x), "y": ("y", y)}


def with_georeference(array: Any, geobox: GeoBox) -> Any:
    """Write CRS and transform into a DataArray's or Dataset's `spatial_ref`, as rioxarray reads them."""
    if geobox.crs is not None:
        array = array.rio.write_crs(geobox.crs)
    return array if geobox.transform is None else array.rio.write_transform(geobox.transform)
