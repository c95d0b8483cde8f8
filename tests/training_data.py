"""Small scenes with labels, and settings that learn from them in seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from train.config import Settings, settings_of

CLASSES = [{"name": "ground", "color": "000000"}, {"name": "roof", "color": "FF0000"}]


def write_scene(folder: Path, name: str, seed: int = 0, size: int = 160, bands: int = 3) -> None:
    """Write bright squares on a noisy ground as `NAME_image.tif` (uint8), and as `NAME_label.tif` where they are."""
    random = np.random.default_rng(seed)
    label = np.zeros((size, size), np.uint8)
    for _ in range(size * size // 900):
        y, x, side = *random.integers(0, size, 2), random.integers(6, 16)
        label[y : y + side, x : x + side] = 1
    noise = random.normal(0, 12, (bands, size, size))
    pixels = np.clip(80 + 70 * label + noise + 10 * np.arange(bands)[:, None, None], 0, 255).astype(np.uint8)
    write_raster(folder / f"{name}_image.tif", pixels, seed)
    write_raster(folder / f"{name}_label.tif", label[None], seed)


def write_raster(path: Path, pixels: np.ndarray, east: int = 0, **more: Any) -> None:
    profile = {"driver": "GTiff", "height": pixels.shape[1], "width": pixels.shape[2], "count": len(pixels),
               "dtype": pixels.dtype, "crs": "EPSG:32736", "tiled": True, "blockxsize": 64, "blockysize": 64,
               "transform": Affine(1, 0, 500_000 + 1000 * east, 0, -1, 9_000_000)}  # fmt: skip
    with rasterio.open(path, "w", **{**profile, **more}) as target:
        target.write(pixels)


def small_settings(folder: Path, **more: Any) -> Settings:
    """Give settings of a small training on the scenes `a` and `b`, validated on `v`; `more` replaces keys of tables."""
    raw: dict[str, Any] = {
        "name": "roofs",
        "bands": ["red", "green", "blue"],
        "classes": [dict(one) for one in CLASSES],
        "seed": 5,
        "data": [{"root": str(folder), "train": ["a", "b"], "validate": ["v"]}],
        "network": {"architecture": "unet", "options": {"widths": [6, 8, 12]}},
        "chips": {"size": 32, "batch": 4, "zoom": [0.8, 1.25]},
        "augment": {"gain": 0.1, "bias": 0.1, "gamma": 0.1, "noise": 0.05},
        "loop": {"steps": 12, "check_every": 4, "learning_rate": 5e-3, "threads": 1, "ema": 0.9},
    }
    for key, value in more.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) and isinstance(raw.get(key), dict) else value
    return settings_of(raw)


def write_scenes(folder: Path) -> Path:
    """Write the scenes that `small_settings` names."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate("abv"):
        write_scene(folder, name, seed)
    return folder
