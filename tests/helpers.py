"""What many tests share: small bundles with random weights, and small rasters."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from torch import nn

from models import Band, Bundle, BundleMetadata, ClassInfo, measure_receptive_field, save_bundle, z_score
from models.build import build
from models.metadata import ReceptiveField

PAGE = ("--dashboard-address", "127.0.0.1:0")  # of dask's commands: else on all addresses, at a port that others want
SHARED = Path(__file__).parents[2] / "shared/data"
BANDS = ("red", "green", "blue", "nir", "swir1", "swir2")
CLASSES = tuple(ClassInfo(f"class_{n}", f"{n * 40:02X}80C0") for n in range(6))
TINY: dict[str, dict[str, Any]] = {
    "simple-unet": {"widths": [4, 8, 8]},
    "unet": {"widths": [4, 8, 8]},
    "unet-resnet": {"depth": 18},
}
RECEPTIVE_FIELDS = {  # measuring takes seconds; test_models does it
    "simple-unet": ReceptiveField(8, 58),
    "unet": ReceptiveField(4, 23),
    "unet-resnet": ReceptiveField(64, 468),
}
SPREAD = {"uint8": 80.0, "int8": 40.0, "float32": 0.3, "float64": 0.3}  # of the pixels that `pixels` makes
UTM = "EPSG:32736"
GRID = Affine(10, 0, 500_000, 0, -10, 9_000_000)


def network(architecture: str, bands: int, channels: int, seed: int = 0, **options: Any) -> nn.Module:
    """Random weights and random batch-norm statistics, so that leaving out any part of a network shows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return lively(build(architecture, bands, channels, **(options or TINY.get(architecture, {}))), bands)


def lively(made: nn.Module, bands: int) -> nn.Module:
    """Give any network of convolutions such weights."""
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)  # so that answers are not all one half
            with torch.no_grad():  # large means that cancel at the end would magnify rounding
                inputs = 0 if isinstance(module, nn.ConvTranspose2d) else 1
                module.weight -= module.weight.mean((inputs, 2, 3), keepdim=True)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, 0, 0.2)
    balance(made.eval(), bands)
    return made


@torch.no_grad()
def balance(made: nn.Module, bands: int) -> None:
    """Scale the last layer so that probabilities are neither all alike nor all 0 or 1."""
    last = [module for module in made.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)][-1]
    logits = made(torch.randn(1, bands, 128, 128))
    mean, spread = logits.mean((0, 2, 3)), logits.std() / 2
    last.weight /= spread
    last.bias.copy_((last.bias - mean) / spread)


@cache
def receptive_field(architecture: str) -> ReceptiveField:
    return RECEPTIVE_FIELDS.get(architecture) or measure_receptive_field(network(architecture, 1, 1), 1)


def metadata(architecture: str = "simple-unet", **changes: Any) -> BundleMetadata:
    """Metadata of a small bundle; `bands` and `classes` may be given as counts."""
    bands, classes = changes.pop("bands", 3), changes.pop("classes", 2)
    dtype = changes.get("dtype", "uint16")
    centre, spread = middle(dtype), SPREAD.get(dtype, 800.0)
    defaults: dict[str, Any] = {
        "name": f"tiny-{architecture}",
        "architecture": architecture,
        "options": TINY.get(architecture, {}),
        "bands": tuple(Band(name, centre + 0.1 * n * spread) for n, name in enumerate(BANDS[:bands])),
        "dtype": "uint16",
        "scaling": z_score([centre] * bands, [spread] * bands),
        "classes": CLASSES[:classes],
        "receptive_field": changes.get("receptive_field") or receptive_field(architecture),
        "patch": 64,
        "background": CLASSES[0].name,
    }
    return BundleMetadata(**{**defaults, **changes})


def one_threshold(threshold: float | None, classes: int) -> tuple[float | None, ...] | None:
    """Return a threshold for all classes but the first, as `classify` takes it."""
    return None if threshold is None else (None, *[threshold] * (classes - 1))


def save(path: Path, described: BundleMetadata, seed: int = 0) -> Bundle:
    """Save a bundle of random weights for some metadata."""
    options = dict(described.options)
    made = network(described.architecture, len(described.bands), described.channels, seed, **options)
    return save_bundle(path, made, described)


def middle(dtype: str) -> float:
    """The value around which `pixels` lie."""
    return {"uint8": 120.0, "int8": 0.0, "int16": 100.0, "float32": 0.2, "float64": 0.2}.get(dtype, 2000.0)


def pixels(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> np.ndarray:
    """Random pixels of any numeric dtype, spread as `metadata` scale them."""
    values = np.random.default_rng(seed).normal(middle(dtype), SPREAD.get(dtype, 800.0), shape)
    if np.issubdtype(dtype, np.integer):
        values = values.round().clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


def write_raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """Write values `(band, y, x)` as a GeoTIFF in UTM at 10 m; `profile` changes or adds what rasterio takes."""
    count, height, width = values.shape
    described = profile.pop("descriptions", None)
    settings = {"driver": "GTiff", "crs": UTM, "transform": GRID, "dtype": values.dtype.name, **profile}
    with rasterio.open(path, "w", count=count, height=height, width=width, **settings) as target:
        target.write(values)
        if described:
            target.descriptions = described
    return path


def write_item(path: Path, assets: dict[str, Any], version: str = "1.0.0") -> Path:
    """Write a STAC Item with these assets."""
    content = {"type": "Feature", "stac_version": version, "id": "scene", "geometry": None, "links": [],
               "properties": {"datetime": "2026-11-21T00:00:00Z"}, "assets": assets}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
