"""The same job done with other libraries: a GeoTIFF and a network into a GeoTIFF of the class map.

Each as a user who knows the library would write it, with its usual settings: tiles of 512, a quarter of
overlap, batches of 4, torch's own number of threads, evaluation and inference mode. Where a setting was open,
the fastest on two cores was taken: see the comments. Libraries are imported when they are asked for, so that a
missing one is skipped.

All take the segmenter (raw pixels in, probabilities out), so that scaling and softmax are the same as in Swathe.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from models.segmenter import Segmenter

from .scenes import NODATA as MISSING

TILE, OVERLAP, BATCH = 512, 0.25, 4
DASK_CHUNK = 1024
NODATA = 255
STRIDE, MARGIN = int(TILE * (1 - OVERLAP)), int(TILE * OVERLAP / 2)
OUTPUT = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": NODATA, "tiled": True, "compress": "deflate"}

Peer = Callable[[Path, Segmenter, Path], None]


def with_monai(scene: Path, segmenter: Segmenter, output: Path) -> None:
    """MONAI's sliding window over the whole scene in memory; overlapping outputs are averaged."""
    from monai.inferers import sliding_window_inference

    with rasterio.open(scene) as file:
        image, profile = file.read(), file.profile
    with torch.inference_mode():
        inputs = torch.from_numpy(image.astype(np.float32))[None]
        answer = sliding_window_inference(inputs, TILE, BATCH, segmenter, overlap=OVERLAP)
        assert isinstance(answer, torch.Tensor)
        class_map = _classes(answer[0])
    class_map[(image == MISSING).all(axis=0)] = NODATA
    _write(output, class_map, profile)


def with_torchgeo(scene: Path, segmenter: Segmenter, output: Path) -> None:
    """TorchGeo's dataset, grid sampler and a DataLoader; the middle of each chip is kept.

    No worker processes: on two cores they take from the network what they give.
    """
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    with rasterio.open(scene) as file:
        profile = file.profile
    height, width = profile["height"], profile["width"]
    dataset = RasterDataset(paths=scene)
    sampler = GridGeoSampler(dataset, size=min(TILE, height), stride=STRIDE)
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler, collate_fn=stack_samples)
    class_map = np.full((height, width), NODATA, np.uint8)
    for batch in loader:
        with torch.inference_mode():
            answers = segmenter(batch["image"])
        for image, answer, bounds in zip(batch["image"], answers, batch["bounds"], strict=True):
            classes = _classes(answer)
            classes[(image == MISSING).all(dim=0).numpy()] = NODATA
            _put_middle(class_map, classes, *_place(bounds, profile["transform"]))
    _write(output, class_map, profile)


def _place(bounds: Any, transform: "rasterio.Affine") -> tuple[int, int]:
    """Return the first row and column of a chip from its bounds `(x, y, t)` in the map."""
    x, y = (bounds[0].start, bounds[1].stop) if isinstance(bounds[0], slice) else (float(bounds[0]), float(bounds[4]))
    return round((y - transform.f) / transform.e), round((x - transform.c) / transform.a)


def _put_middle(class_map: NDArray[np.uint8], chip: NDArray[np.uint8], top: int, left: int) -> None:
    """Put a chip into the map without its margins, but with those at the scene's edges."""
    height, width = class_map.shape
    rows, columns = _middle(top, chip.shape[0], height), _middle(left, chip.shape[1], width)
    class_map[slice(*rows), slice(*columns)] = chip[
        rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left
    ]


def _middle(start: int, side: int, size: int) -> tuple[int, int]:
    stop = start + side
    return max(0, start + MARGIN if start > 0 else 0), min(size, stop - MARGIN if stop < size else size)


def with_geoai(scene: Path, segmenter: Segmenter, output: Path) -> None:
    """GeoAI's `predict_geotiff`, which blends overlaps by a spline; its own tiles of 256 would see less context."""
    from geoai.inference import predict_geotiff

    with rasterio.open(scene) as file:
        seen = file.dataset_mask() > 0

    def classify(probabilities: NDArray[Any]) -> NDArray[np.uint8]:
        return np.where(seen, probabilities.argmax(axis=0), NODATA).astype(np.uint8)

    predict_geotiff(
        segmenter,
        str(scene),
        str(output),
        tile_size=TILE,
        overlap=int(TILE * OVERLAP),
        batch_size=BATCH,
        num_classes=2,
        output_dtype="uint8",
        output_nodata=NODATA,
        preprocess_fn=lambda tile: tile,  # scaling is the segmenter's
        postprocess_fn=classify,
        device="cpu",
        compress="deflate",
        verbose=False,
    )


def with_terratorch(scene: Path, segmenter: Segmenter, output: Path) -> None:
    """TerraTorch's `tiled_inference` of the whole scene in memory, with its usual padding and blending."""
    from terratorch.tasks.tiled_inference import tiled_inference

    with rasterio.open(scene) as file:
        image, profile = file.read(), file.profile
    with torch.inference_mode():
        inputs = torch.from_numpy(image.astype(np.float32))[None]
        answer = tiled_inference(segmenter, inputs, crop=TILE, stride=STRIDE, batch_size=BATCH)
        class_map = _classes(answer[0])
    class_map[(image == MISSING).all(axis=0)] = NODATA
    _write(output, class_map, profile)


def with_dask(scene: Path, segmenter: Segmenter, output: Path) -> None:
    """Plain dask and rioxarray: `map_overlap` in dask's threads, written chunk by chunk.

    Chunks are of 1,024 rather than 512: the overlap then costs a quarter and not half as much again.
    """
    import rioxarray

    chunks = {"band": -1, "y": DASK_CHUNK, "x": DASK_CHUNK}
    image = rioxarray.open_rasterio(scene, chunks=chunks, lock=False)

    def classify(block: NDArray[Any]) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return _classes(segmenter(torch.from_numpy(block.astype(np.float32))[None])[0])

    classes = image.data.map_overlap(
        classify,
        depth={0: 0, 1: MARGIN, 2: MARGIN},
        boundary={0: "none", 1: "reflect", 2: "reflect"},
        drop_axis=0,
        dtype=np.uint8,
        meta=np.empty((0, 0), np.uint8),
    )
    seen = (image != MISSING).any("band")
    class_map = seen.copy(data=classes).where(seen, NODATA).astype(np.uint8)
    class_map.attrs = {}  # the bands' names
    class_map = class_map.rio.write_nodata(NODATA)
    class_map.rio.to_raster(output, tiled=True, compress="deflate", lock=threading.Lock())


def _classes(probabilities: "torch.Tensor") -> NDArray[np.uint8]:
    classes: NDArray[np.uint8] = probabilities.argmax(dim=0).to(torch.uint8).numpy()
    return classes


def _write(output: Path, class_map: NDArray[np.uint8], profile: dict[str, Any]) -> None:
    place = {key: profile[key] for key in ("width", "height", "crs", "transform")}
    with rasterio.open(output, "w", **OUTPUT, **place) as file:
        file.write(class_map, 1)


PEERS: dict[str, Peer] = {
    "monai": with_monai,
    "torchgeo": with_torchgeo,
    "geoai": with_geoai,
    "terratorch": with_terratorch,
    "dask": with_dask,
}
