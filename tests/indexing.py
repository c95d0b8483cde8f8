"""Rasters and STAC Items for tests of indexes."""

import json

import numpy as np
import rasterio
from affine import Affine

UTM = "EPSG:32633"


def write_raster(
    path, *, left=0, top=0, bands=2, size=(40, 60), crs=UTM, resolution=10.0, dtype="uint16", seed=1, **tags
):
    """Write a raster of random values, `left` and `top` pixels from (500 km, 5000 km)."""
    values = np.random.default_rng(seed).integers(1, 200, (bands, *size)).astype(dtype)
    transform = Affine(resolution, 0, 5e5 + resolution * left, 0, -resolution, 5e6 - resolution * top)
    profile = {"driver": "GTiff", "count": bands, "height": size[0], "width": size[1], "dtype": dtype, "nodata": 0}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as file:
        file.write(values)
        file.update_tags(**tags)
    return path


def item_of(name, hrefs, collection="s2", **properties):
    """Return a STAC Item as JSON has it, of files by key."""
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": collection, "links": [],
        "geometry": {"type": "Point", "coordinates": [15, 45]}, "bbox": [15, 45, 15, 45],
        "properties": {"datetime": "2024-05-01T10:00:00Z", **properties},
        "assets": {key: {"href": str(href), "type": "image/tiff; application=geotiff", "roles": ["data"]}
                   for key, href in hrefs.items()},
    }  # fmt: skip


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def collection_of(*items, **more):
    """Return an ItemCollection."""
    return {"type": "FeatureCollection", "features": list(items), **more}
