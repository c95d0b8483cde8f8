"""Finished stores from arrays, without a network: what a run, `clean` and `objects` leave behind, in milliseconds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from affine import Affine
from helpers import GRID, UTM
from rasterio.crs import CRS
from skimage.measure import label, regionprops_table

from models import ClassInfo
from models.encoding import Encoding
from pipeline.grid.block_result import BlockResult
from pipeline.grid.geobox import GeoBox, Window
from pipeline.grid.tiling import TilingPlan
from pipeline.store.lifecycle import create_store, finish_store
from pipeline.store.metadata import StoreMetadata, level_count
from pipeline.store.overviews import halve

TOWN = (ClassInfo("background", "000000"), ClassInfo("building", "E4572E"), ClassInfo("road", "17BEBB"))


def write_store(
    path: Path,
    class_map: np.ndarray,
    *,
    classes: tuple[ClassInfo, ...] = TOWN,
    probability: np.ndarray | None = None,
    objects: bool = False,
    block: int = 64,
    crs: str | None = UTM,
    transform: Affine | None = GRID,
    overviews: bool = True,
    **metadata: Any,
) -> Path:
    """Write a finished store of a class map uint8 `(y, x)`.

    `probability` is uint8: `(y, x)` of class 1, or `(class, y, x)` of all.
    """
    height, width = class_map.shape
    ids = label_ids(class_map, metadata.get("background", 0)) if objects else None
    bands = None if probability is None else probability[None] if probability.ndim == 2 else probability
    kept = () if bands is None else (1,) if len(bands) == 1 else tuple(range(len(bands)))
    encoding = Encoding(None, None if bands is None else "uint8", kept, objects)
    about = {
        "identity": {"engine": "openvino on cpu", "precision": "fp32", "halo": 32},
        "bundle": {"name": "town", "digest": "0123456789abcdef" * 4, "architecture": "unet"},
        "source": {"bands": ["red", "green", "blue"], "dtype": "uint8"},
    }
    plan = TilingPlan(height, width, stride=8, halo=32, tile=block, block=block, chunk=block, exact=True)
    geobox = GeoBox(height, width, transform, None if crs is None else CRS.from_user_input(crs).to_wkt())
    levels = level_count(geobox) if overviews else 0
    store = create_store(
        str(path), geobox, StoreMetadata(plan, encoding, classes, levels=levels, **{**about, **metadata})
    )
    level = BlockResult(class_map, bands, ids)
    for number in range(store.levels + 1):
        level = (
            replace(halve(level), objects=None if ids is None else ids[:: 2**number, :: 2**number]) if number else level
        )
        for place in store.places(number):
            window = store.window(number, *place)
            store.write(number, window, _cut(level, window))
    names = [*(info.name for info in classes), "nodata"]
    counts = [int((class_map == value).sum()) for value in (*range(len(classes)), 255)]
    seconds = np.arange(1, plan.rows * plan.columns + 1, dtype=np.float32).reshape(plan.rows, plan.columns)
    if ids is not None:
        _write_table(path, class_map, ids, classes, geobox)
    finish_store(store, {"pixels": dict(zip(names, counts, strict=True))}, seconds)
    return path


def _cut(answer: BlockResult, window: Window) -> BlockResult:
    parts = (answer.class_map, answer.probability, answer.objects)
    return BlockResult(*(None if part is None else part[(..., *window.slices)] for part in parts))


def label_ids(class_map: np.ndarray, background: int | None = 0, connectivity: int = 4) -> np.ndarray:
    """Give the ids that Swathe gives: 1 + row * width + column of each object's first pixel."""
    values = np.where((class_map == 255) | (class_map == background), -1, class_map.astype(int))
    numbers = label(values, background=-1, connectivity=connectivity // 4)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return np.where(numbers == 0, 0, (1 + first)[inverse.reshape(numbers.shape)]).astype(np.int64)


def _write_table(path: Path, class_map: np.ndarray, ids: np.ndarray, classes: Any, geobox: GeoBox) -> None:
    numbers = np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    numbers = numbers if (ids == 0).any() else numbers + 1
    table = regionprops_table(numbers, class_map, properties=("num_pixels", "intensity_max", "centroid"))
    area = table["num_pixels"] * (100.0 if geobox.crs else np.nan)  # GRID is of 10 m
    values = table["intensity_max"].astype(np.uint8)
    columns = {
        "id": np.unique(ids[ids > 0]),
        "class": [classes[value].name for value in values],
        "class_value": values,
        "area_px": table["num_pixels"].astype(np.int64),
        "area_m2": pa.array(area, from_pandas=True),
        "centroid_y_px": table["centroid-0"],
        "centroid_x_px": table["centroid-1"],
        "mean_width_px": np.full(len(values), 4.0),
        "mean_width_m": pa.array(np.full(len(values), 40.0 if geobox.crs else np.nan), from_pandas=True),
    }
    pq.write_table(pa.table(columns), path / "table.parquet")


def town(height: int = 200, width: int = 300) -> np.ndarray:
    """A road, some houses of known sizes, and a corner that was not observed."""
    class_map = np.zeros((height, width), np.uint8)
    class_map[90:94] = 2
    for n, (row, column) in enumerate([(10, 10), (10, 60), (40, 110), (120, 40), (150, 200)]):
        class_map[row : row + 8 + 4 * n, column : column + 10 + 2 * n] = 1
    class_map[-30:, -40:] = 255
    return class_map


def town_image(class_map: np.ndarray) -> np.ndarray:
    """Green land, white houses, grey road: `(3, y, x)` uint8."""
    colours = np.array([[60, 110, 50], [240, 240, 235], [128, 128, 128]], np.uint8)
    noise = np.random.default_rng(0).integers(0, 15, (*class_map.shape, 3), np.uint8)
    return (colours[np.where(class_map == 255, 0, class_map)] + noise).transpose(2, 0, 1).copy()
