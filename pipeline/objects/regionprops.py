"""What a block says of its objects: pixels, moments, border, probability, depth, as partial rows. No store, no dask.

A partial row holds sums over the object's pixels in one block, so that rows of one object add up; `records` does that.
The columns are chosen so that the whole gives what `skimage.measure.regionprops_table` gives on the whole scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..grid.encoding import NODATA, STEPS
from ..grid.geobox import Window
from .borders import EDGE, border_kinds
from .runs import Ints, Runs, cut_runs
from .table import table_of

if TYPE_CHECKING:
    import pyarrow as pa

DEPTH = 64  # pixels of the class map around a block that mean widths need, and the deepest pixel that they know


@dataclass(frozen=True, slots=True)
class Patch:
    """The pixels of one block with some around, as far as its objects need them.

    Parameters
    ----------
    core
        The block, in the scene.
    width
        The scene's, in pixels: the id of an object is 1 + row * width + column of its first pixel.
    objects
        int64 `(y, x)`: ids of the core and at least `EDGE` pixels on every side, the same on each; 0 for none, and
        beyond the scene.
    class_map
        uint8 `(y, x)`: classes of the core, and for widths of at least `DEPTH` pixels on every side; 255 beyond the
        scene.
    probability
        `(y, x)` of the core alone: of each pixel's own class, as uint8 in steps of 1/250, 255 for none, or as float,
        NaN for none. None: not kept.
    areas
        In m², float64, of the core's shape or broadcast to it. None: not known.
    """

    core: Window
    width: int
    objects: NDArray[np.int64]
    class_map: NDArray[np.uint8]
    probability: NDArray[Any] | None = None
    areas: NDArray[np.float64] | None = None


def measure(patch: Patch, *, widths: bool = True) -> "pa.Table":
    """Measure the parts of objects that lie in a block.

    Parameters
    ----------
    patch
        See `Patch`.
    widths
        Whether to add up depths, from which the mean width follows; it takes as long as all else together.

    Returns
    -------
    pyarrow.Table
        As `records.partial_schema` says: one row per object that has pixels in the core, sorted by id. Empty where
        there is none.
    """
    ids = _inner(patch.objects, patch.core.shape)
    if not ids.any():
        return table_of({})
    runs = cut_runs(ids)
    classes = _inner(patch.class_map, patch.core.shape)
    columns = {
        "id": runs.ids,
        "class_value": classes.ravel()[runs.starts[runs.order[runs.first]]],
        **_counts(runs, patch),
        **_moments(runs, patch),
        **_perimeters(runs, patch.objects, patch.core.shape),
        **_intensities(runs, patch.probability),
        "area_m2": _areas(runs, patch),
        "depth_sum": _depths(runs, patch) if widths else runs.unknown,
    }
    return table_of(columns)


def own_probability(
    class_map: NDArray[np.uint8], probability: NDArray[Any] | None, kept: Sequence[int]
) -> NDArray[Any] | None:
    """Give each pixel's probability of its own class.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`.
    probability
        `(class, y, x)`, as a store keeps it.
    kept
        The class values of its layers.

    Returns
    -------
    ndarray or None
        `(y, x)` of the same type; 255 or NaN where the pixel's class is not kept. None where no class is.
    """
    if probability is None or not len(kept):
        return None
    own = np.full(class_map.shape, NODATA if probability.dtype == np.uint8 else np.nan, probability.dtype)
    for layer, value in zip(probability, kept, strict=True):
        np.copyto(own, layer, where=class_map == value)
    return own


def _inner(around: NDArray[Any], shape: tuple[int, int], halo: int = 0) -> NDArray[Any]:
    """Cut an array down to the core and `halo` pixels around it."""
    excess = (around.shape[0] - shape[0]) // 2 - halo
    if around.shape != (shape[0] + 2 * (excess + halo), shape[1] + 2 * (excess + halo)) or excess < 0:
        raise ValueError(f"{around.shape} is not {shape} with at least {halo} pixels more on every side")
    return np.ascontiguousarray(around[excess : excess + shape[0] + 2 * halo, excess : excess + shape[1] + 2 * halo])


def _counts(runs: Runs, patch: Patch) -> dict[str, NDArray[Any]]:
    """Pixels and bounding box, in the scene."""
    rows, columns, lengths = runs.spans()
    top, left = patch.core.top, patch.core.left
    return {
        "num_pixels": runs.joined(lengths),
        "bbox-0": runs.joined(rows, np.minimum) + top,
        "bbox-1": runs.joined(columns, np.minimum) + left,
        "bbox-2": runs.joined(rows, np.maximum) + top + 1,
        "bbox-3": runs.joined(columns + lengths, np.maximum) + left,
    }


def _moments(runs: Runs, patch: Patch) -> dict[str, NDArray[Any]]:
    """Means from the object's first pixel, and sums of squares about the mean.

    In integers up to the mean's fraction, so that nothing cancels; they hold blocks of up to 2^16 pixels a side.
    """
    row, column, n = runs.spans()
    count = runs.joined(n)
    row_sums, column_sums = n * row, n * column + n * (n - 1) // 2  # over each run
    squares = n * column**2 + column * n * (n - 1) + (n - 1) * n * (2 * n - 1) // 6
    row_mean, row_rest = np.divmod(runs.joined(row_sums), count)
    column_mean, column_rest = np.divmod(runs.joined(column_sums), count)
    rows = runs.joined(n * row**2) - 2 * row_mean * row_rest - count * row_mean**2
    columns = runs.joined(squares) - 2 * column_mean * column_rest - count * column_mean**2
    both = runs.joined(row * column_sums) - row_mean * column_rest - column_mean * row_rest
    both -= count * row_mean * column_mean
    first_row, first_column = np.divmod(runs.ids - 1, patch.width)
    return {
        "row_mean": (row_mean + patch.core.top - first_row) + row_rest / count,
        "column_mean": (column_mean + patch.core.left - first_column) + column_rest / count,
        "rows_m2": rows - row_rest * (row_rest / count),
        "columns_m2": columns - column_rest * (column_rest / count),
        "both_m2": both - row_rest * (column_rest / count),
    }


def _areas(runs: Runs, patch: Patch) -> NDArray[np.float64]:
    if patch.areas is None:
        return runs.unknown
    if patch.areas.shape[1] > 1:
        return runs.summed(np.broadcast_to(patch.areas, runs.shape))
    rows, _, lengths = runs.spans()  # all of a row are alike
    return runs.joined(np.broadcast_to(patch.areas, (runs.shape[0], 1))[rows, 0] * lengths)


def _intensities(runs: Runs, probability: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Sum and maximum of the probability; NaN where any pixel has none, as in skimage."""
    if probability is None:
        return {"intensity_sum": runs.unknown, "intensity_max": runs.unknown}
    sums = runs.summed(probability, np.float64)
    highest = np.maximum.reduceat(probability.ravel(), runs.starts)[runs.order].astype(np.float64)
    highest = runs.joined(highest, np.maximum)
    if probability.dtype == np.uint8:
        gaps = highest == NODATA
        sums, highest = (np.where(gaps, np.nan, values / STEPS) for values in (sums, highest))
    return {"intensity_sum": sums, "intensity_max": highest}


def _perimeters(runs: Runs, objects: Ints, shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """Count the three kinds of border pixels that have a length; see `borders`."""
    kinds = border_kinds(_inner(objects, shape, EDGE))
    names = ("perimeter_straight", "perimeter_diagonal", "perimeter_corner")
    return {name: runs.summed(kinds == kind, np.int64) for kind, name in enumerate(names, start=1)}


def _depths(runs: Runs, patch: Patch) -> NDArray[np.float64]:
    """Add up the distances to the nearest pixel of another class, less a half; NaN where one is beyond `DEPTH`."""
    around, shape = _inner(patch.class_map, patch.core.shape, DEPTH), patch.core.shape
    inner = around[DEPTH:-DEPTH, DEPTH:-DEPTH]
    depths = np.zeros(shape)
    held = _inner(patch.objects, shape) != 0
    for value in np.flatnonzero(np.bincount(inner[held], minlength=NODATA + 1)):
        rows, columns = _box(held & (inner == value))  # a rare class costs little
        near = around[rows.start : rows.stop + 2 * DEPTH, columns.start : columns.stop + 2 * DEPTH] == value
        found = _distances(near)[DEPTH + 1 : -DEPTH - 1, DEPTH + 1 : -DEPTH - 1]
        np.copyto(depths[rows, columns], found, where=near[DEPTH:-DEPTH, DEPTH:-DEPTH])
    depths[depths > DEPTH] = np.nan
    return runs.summed(depths - 0.5)


def _distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the distances to the nearest pixel that is not in the mask; around it nothing is."""
    from scipy.ndimage import distance_transform_edt

    distances: NDArray[np.float64] = distance_transform_edt(np.pad(mask, 1))
    return distances


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Give the rows and columns between which a mask holds anything."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
