"""Open a finished store as xarray: the same Dataset as the lazy way gives, read from disk instead of computed."""

import os

import numpy as np
import xarray as xr

from .predict import NODATA
from .store import open_store, store_errors


def open_maps(store: str | os.PathLike[str], *, level: int = 0) -> xr.Dataset:
    """Open the maps of a finished store lazily.

    Parameters
    ----------
    store
        Path or URL.
    level
        0 for full resolution; each overview level halves the one before.

    Returns
    -------
    xarray.Dataset
        `class_map` uint8 (y, x), 255 = not observed; `probability`, if kept, float32 (class, y, x), NaN = not observed.
        Backed by dask; CRS and transform as `.rio` reads them.

    Raises
    ------
    StoreError
        It is missing, not finished, or has no such level.
    """
    path = os.fspath(store)
    opened, _ = open_store(path)
    with store_errors(path):
        if not 0 <= level <= opened.levels:
            raise ValueError(f"it has the levels 0 to {opened.levels}; received {level}")
        group = f"overviews/{level}" if level else None
        chunks = {"y": opened.plan.block, "x": opened.plan.block}
        dataset = xr.open_zarr(path, group=group, chunks=chunks, mask_and_scale=False)
        if "probability" in dataset:
            dataset["probability"] = _decoded(dataset["probability"])
        maps: xr.Dataset = dataset
        return maps


def _decoded(kept: xr.DataArray) -> xr.DataArray:
    """Give probabilities as float32 with NaN for nodata, whatever they are kept as."""
    scale = kept.attrs.get("scale_factor")
    values = kept.astype(np.float32)
    if scale is not None:
        values = values.where(kept != NODATA) * np.float32(scale)
    attributes = {k: v for k, v in kept.attrs.items() if k not in ("scale_factor", "add_offset", "_FillValue")}
    return values.assign_attrs(attributes)
