"""A source over an xarray DataArray: in memory, dask-backed, or lazily read from Zarr."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import tokenize

from models.errors import SceneError

from .geobox import GeoBox, Window
from .source import Pixels, observed


@dataclass(frozen=True)
class ArraySource:
    """See `Source`. The array has the dims `(band, y, x)`; a coordinate `valid` (y, x) may narrow what is observed."""

    array: xr.DataArray
    geobox: GeoBox
    bands: tuple[str, ...]
    nodata: tuple[float | None, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """See `Source`."""
        return self.array.dtype

    def read(self, window: Window) -> Pixels:
        """See `Source`. Dask-backed arrays are computed in this thread."""
        rows, columns = window.slices
        part = self.array.isel(y=rows, x=columns)
        try:
            data = np.asarray(part.drop_vars("valid", errors="ignore").compute(scheduler="synchronous").data)
            valid = observed(data, self.nodata)
            if "valid" in part.coords:
                valid = valid & np.asarray(part.coords["valid"].compute(scheduler="synchronous").data, bool)
        except SceneError:
            raise
        except Exception as error:
            raise SceneError(f"the scene's pixels could not be computed: {error}") from error
        return Pixels(data, valid)

    def identity(self) -> dict[str, Any]:
        """See `Source`: dask's token of the data, which is a hash of its content or of how it is made."""
        parts = [self.array.variable]
        if "valid" in self.array.coords:
            parts.append(self.array.coords["valid"].variable)
        return {"array": tokenize(*parts), "bands": list(self.bands)}
