"""Maps as an xarray Dataset backed by dask: how they look, whoever computes them; and those of a finished store."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.encoding import NODATA, STEPS, Encoding, decode
from models.errors import StoreError
from models.metadata import ClassInfo, usual_background

from ..grid.geobox import GeoBox, Window
from ..grid.xr import coordinates, with_georeference
from .metadata import BACKGROUND, JSON, class_map_attributes, fingerprint, objects_attributes, probability_attributes
from .store import Store, open_store

DIMS = {"class_map": ("y", "x"), "probability": ("class", "y", "x"), "objects": ("y", "x")}
DTYPES = {"class_map": np.uint8, "probability": np.float32, "objects": np.int64}


def open_maps(store: str | os.PathLike[str], *, level: int = 0) -> xr.Dataset:
    """Open the maps of a finished store lazily, as `segment` gives them.

    Parameters
    ----------
    store
        Path or URL.
    level
        0 for full resolution; each overview level halves the one before.

    Returns
    -------
    xarray.Dataset
        `class_map` uint8 (y, x), 255 = not observed; `probability`, if kept, float32 (class, y, x), NaN = not observed:
        of two classes of both, though one is kept. In steps of 1/250 they are the greatest numbers not above each step,
        so that `probability > 0.7` is what `clean` does at 0.7; at a step itself `>=` may be `>`.
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
    here, block = opened.geobox.level(level), opened.plan.block
    values = known_classes(opened.encoding.kept, len(metadata.classes))
    arrays = {}
    for name in opened.array_names:
        leading = (len(values),) if name == "probability" else ()
        stored = _StoredArray(opened, name, level, (*leading, *here.shape))
        token = f"swathe-{fingerprint(metadata.content)}-{name}-{level}-{path}"
        arrays[name] = da.from_array(stored, (*leading, block, block), name=token, getitem=_read)
    about = metadata.bundle
    bundle = {"bundle": about["name"], "digest": about["digest"]} if about else {}
    return maps_dataset(arrays, here, metadata.classes, metadata.background, values, bundle)


def known_classes(kept: Sequence[int], classes: int) -> tuple[int, ...]:
    """Return the values of the classes whose probabilities are known: those kept, and of two both."""
    return (0, 1) if classes == 2 and kept else tuple(kept)


def maps_dataset(
    arrays: Mapping[str, da.Array],
    geobox: GeoBox,
    classes: tuple[ClassInfo, ...],
    background: int | None,
    values: Sequence[int],
    bundle: Mapping[str, Any],
) -> xr.Dataset:
    """Make a Dataset of maps, the same whoever computes them.

    Parameters
    ----------
    arrays
        By name: `class_map`, and what there is of `probability` and `objects`.
    geobox
        Where they lie.
    classes, background
        Of the class map, by value; the value of the background, None where there is none.
    values
        Of the classes in `probability`.
    bundle
        What attributes are to say of it: `bundle` (its name) and `digest`.
    """
    # not text of a fixed length, which file formats have trouble with
    names = {"class": np.array([classes[value].name for value in values], dtype=object)}
    attributes = {
        "class_map": class_map_attributes(classes, background),
        "probability": probability_attributes(Encoding()),
        "objects": objects_attributes(),
    }
    dataset = xr.Dataset(
        {name: (DIMS[name], array, _decoded(attributes[name])) for name, array in arrays.items()},
        coords={**(names if "probability" in arrays else {}), **coordinates(geobox)},
        attrs={**bundle, "classes": [info.name for info in classes]},
    )
    return with_georeference(dataset, geobox)  # type: ignore[no-any-return]


def _decoded(attributes: JSON) -> JSON:
    """Return attributes without those that xarray keeps apart when it opens a file."""
    return {key: value for key, value in attributes.items() if key not in ("coordinates", "grid_mapping")}


def maps_background(maps: xr.Dataset) -> int | None:
    """Return the value of the background of maps, as `open_maps` or `segment` gives them; None: there is none.

    It is the attribute `flag_background` of the class map. Where that is lost, it is what the store says; else the
    first class, if there are two or its name is a common word for background.
    """
    flags, own = maps["class_map"].attrs, maps.attrs.get("swathe", {})
    if BACKGROUND in flags:
        value = int(flags[BACKGROUND])
        return None if value < 0 else value
    if "background" in own:
        return None if own["background"] is None else int(own["background"])
    names = [name.replace("_", " ") for name in str(flags.get("flag_meanings", "")).split()]
    return None if usual_background(names) is None else 0


class _StoredArray:
    """An array of the store, as dask cuts it up."""

    def __init__(self, store: Store, name: str, level: int, shape: tuple[int, ...]) -> None:
        self.store, self.name, self.level, self.shape = store, name, level, shape
        self.ndim, self.dtype = len(shape), np.dtype(DTYPES[name])


def _read(stored: _StoredArray, key: tuple[slice, ...]) -> NDArray[Any]:
    """Read one of dask's chunks when asked, and say so where it is damaged. Its own getter would take any index."""
    *classes, rows, columns = (range(*part.indices(n)) for part, n in zip(key, stored.shape, strict=True))
    window = Window(rows.start, rows.stop, columns.start, columns.stop)
    pixels = stored.store.read_array(stored.name, window, stored.level)
    if not classes:
        return np.asarray(pixels[0])
    return _completed(pixels, stored.store.encoding.kept, stored.shape[0])[list(classes[0])]


def _completed(kept: NDArray[Any], values: Sequence[int], classes: int) -> NDArray[np.float32]:
    """Decode probabilities `(class, y, x)`; of two classes of which one is kept, the other is what remains."""
    if len(kept) == classes:
        return decode(kept)
    remains: NDArray[Any]
    if kept.dtype == np.uint8:
        remains = np.where(kept == NODATA, NODATA, STEPS - kept).astype(np.uint8)
    else:
        remains = 1 - kept.astype(np.float32)
    return decode(np.concatenate([remains, kept] if values[0] else [kept, remains]))
