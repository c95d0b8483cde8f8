"""Open a finished store as an xarray Dataset backed by dask."""

import os
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.errors import StoreError

from ..grid.encoding import NODATA, STEPS
from ..grid.geobox import Window
from .metadata import fingerprint, group_path
from .store import Store, open_store, store_errors


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
        `class_map` uint8 (y, x), 255 = not observed; `probability`, if kept, float32 (class, y, x), NaN = not observed;
        `objects`, in a store of objects, int64 (y, x), 0 = none.
        Backed by dask; CRS and transform as `.rio` reads them.

    Raises
    ------
    StoreError
        It is missing, not finished, or has no such level. What is damaged or lost is found when it is read.
    """
    path = os.fspath(store)
    opened, metadata = open_store(path)
    if not 0 <= level <= opened.levels:
        raise StoreError(f"{path} has the levels 0 to {opened.levels}; received {level}")
    with store_errors(path):
        dataset: xr.Dataset = xr.open_zarr(path, group=group_path(level) or None, chunks=None, mask_and_scale=False)
    for name in opened.array_names:
        stored = _StoredArray(opened, name, level, dataset[name].shape)
        chunks = {"y": opened.plan.block, "x": opened.plan.block}
        token = f"swathe-{fingerprint(metadata.identity)}-{name}-{level}-{path}"
        sides = [chunks.get(str(dim), -1) for dim in dataset[name].dims]
        lazy = da.from_array(stored, sides, name=token, getitem=_read)
        dataset[name] = dataset[name].copy(data=lazy)
    if "probability" in dataset:
        kept = dataset["probability"]
        values = kept.astype(np.float32)
        if "scale_factor" in kept.attrs:  # divided, since that is rounded once: 175 is 0.7 then, and no more
            values = values.where(kept != NODATA) / np.float32(STEPS)
        attributes = {k: v for k, v in kept.attrs.items() if k not in ("scale_factor", "add_offset", "_FillValue")}
        dataset["probability"] = values.assign_attrs(attributes)
    return dataset


class _StoredArray:
    """An array of the store, as dask cuts it up."""

    def __init__(self, store: Store, name: str, level: int, shape: tuple[int, ...]) -> None:
        self.store, self.name, self.level, self.shape = store, name, level, shape
        self.ndim = len(shape)
        kinds = {"class_map": "uint8", "probability": store.encoding.probability, "objects": "int64"}
        self.dtype = np.dtype(kinds[name])


def _read(stored: _StoredArray, key: tuple[slice, ...]) -> NDArray[Any]:
    """Read one of dask's chunks when asked, and say so where it is damaged. Its own getter would take any index."""
    *classes, rows, columns = (range(*part.indices(n)) for part, n in zip(key, stored.shape, strict=True))
    window = Window(rows.start, rows.stop, columns.start, columns.stop)
    pixels = stored.store.read_array(stored.name, window, stored.level)
    return pixels[list(classes[0])] if classes else pixels[0]
