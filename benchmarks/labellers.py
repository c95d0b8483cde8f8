"""Two jobs by Swathe, scikit-image, dask-image and rasterio: a store's mask cleaned, or labelled, into a Zarr array.

clean   objects of fewer pixels than asked removed, then holes of fewer filled: uint8
label   connected regions numbered: int64

All read the same array, compressed in the same chunks, and write one that is cut and compressed alike. Each is written
as a user who knows the library would write it; where a setting was open, the fastest on two cores was taken. All have
4 neighbours. Libraries are imported when they are asked for, so that a missing one is skipped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from distributed import Client
from numpy.typing import NDArray

from pipeline.jobs.job import run_job
from pipeline.jobs.progress import ProgressFactory
from pipeline.objects.objects import LabelJob, label_job
from pipeline.store.manifest import TABLE
from pipeline.store.store import Store

if TYPE_CHECKING:
    import dask.array as da

CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
Job = Callable[[Path, Path, int], str]
"""Store of the mask, output, and the size below which what is found is small; gives the array's name in the output."""


def _swathe_clean(source: Path, output: Path, small: int) -> str:
    """Run the durable verb, with its marks and checks."""
    from pipeline import write_clean

    write_clean(source, output, min_object=small, min_hole=small, show=False)
    return "class_map"


@dataclass(frozen=True, slots=True)
class OnlyLabels(LabelJob):
    """`write_objects` with an empty table: what is numbered is not measured."""

    def finalize(self, client: Client, store: Store, show: ProgressFactory) -> Mapping[str, Any]:
        """Write an empty file where the table belongs."""
        store.files.write(TABLE, b"")
        return {"objects": {}}


def _swathe_label(source: Path, output: Path, small: int) -> str:
    """Run two of the three parts of the durable verb; its store has the class map beside the ids."""
    asked = label_job(source, widths=False)
    run_job(OnlyLabels(asked.maps, asked.metadata, asked.connectivity, asked.widths), output, show=False)
    return "objects"


def _skimage_clean(source: Path, output: Path, small: int) -> str:
    """Clean the whole array at once; sizes up to `max_size` go."""
    from skimage.morphology import remove_small_holes, remove_small_objects

    mask = _mask(source)[:] == 1
    remove_small_objects(mask, max_size=small - 1, connectivity=1, out=mask)
    remove_small_holes(mask, max_size=small - 1, connectivity=1, out=mask)
    _like(source, output, "uint8")[:] = mask.view(np.uint8)
    return ""


def _skimage_label(source: Path, output: Path, small: int) -> str:
    """Label the whole array at once."""
    from skimage.measure import label

    _like(source, output, "int64")[:] = label(_mask(source)[:] == 1, connectivity=1)
    return ""


def _rasterio_clean(source: Path, output: Path, small: int) -> str:
    """Sieve the whole array at once: GDAL merges each small region into its largest neighbour, holes or objects."""
    from rasterio.features import sieve

    _like(source, output, "uint8")[:] = sieve(_mask(source)[:], size=small, connectivity=4)
    return ""


def _dask_clean(source: Path, output: Path, small: int) -> str:
    """Labels are kept in memory between counting and mapping: half as long as finding them twice."""
    mask = _without_small(_dask_mask(source), small)
    mask = ~_without_small(~mask, small)
    mask.astype(np.uint8).to_zarr(_like(source, output, "uint8"))
    return ""


def _without_small(mask: "da.Array", small: int) -> "da.Array":
    """Label, count pixels by label, look up."""
    import dask
    import dask.array as da
    from dask_image.ndmeasure import label

    labels, count = dask.persist(*label(mask, structure=CROSS))
    kept = da.bincount(labels.ravel(), minlength=int(count) + 1).compute() >= small
    kept[0] = False
    found: da.Array = labels.map_blocks(lambda block: kept[block], dtype=bool)
    return found


def _dask_label(source: Path, output: Path, small: int) -> str:
    from dask_image.ndmeasure import label

    labels, _ = label(_dask_mask(source), structure=CROSS)
    labels.astype(np.int64).to_zarr(_like(source, output, "int64"))
    return ""


def _mask(source: Path) -> "zarr.Array[Any]":
    return zarr.open_array(source / "class_map", mode="r")


def _dask_mask(source: Path) -> "da.Array":
    import dask.array as da

    pixels = _mask(source)
    mask: da.Array = da.from_array(pixels, chunks=pixels.shards) == 1
    return mask


def _like(source: Path, output: Path, dtype: str) -> "zarr.Array[Any]":
    """Make an array that is cut and compressed as the mask is."""
    mask = _mask(source)
    return zarr.create_array(
        output, shape=mask.shape, chunks=mask.chunks, shards=mask.shards, dtype=dtype, compressors=mask.compressors
    )


JOBS: dict[str, dict[str, Job]] = {
    "clean": {
        "swathe": _swathe_clean,
        "skimage": _skimage_clean,
        "dask_image": _dask_clean,
        "rasterio": _rasterio_clean,
    },
    "label": {"swathe": _swathe_label, "skimage": _skimage_label, "dask_image": _dask_label},
}


def difference(job: str, ours: NDArray[Any], theirs: NDArray[Any]) -> str:
    """Say what a result differs by from ours; of labels, whether they are the same up to renaming."""
    if job == "label":
        return "agrees" if _same_labels(ours, theirs) else "DOES NOT AGREE"
    differing = int((ours != theirs).sum())
    return f"differs in {differing:,} pixels, {differing / ours.size:.4%}" if differing else "agrees"


def _same_labels(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Whether labels are the same up to renaming, where ours are 1 + the place of the first pixel."""
    found = np.unique(ours[ours > 0])
    names = theirs.ravel()[found - 1]  # theirs of each of our objects, by its first pixel
    if len(np.unique(names)) != len(names) or not np.array_equal(ours > 0, theirs > 0):
        return False
    return all(
        np.array_equal(theirs.ravel()[np.maximum(line - 1, 0)] * (line > 0), other)
        for line, other in zip(ours, theirs, strict=True)
    )
