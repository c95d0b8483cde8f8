"""Region properties of a block's objects: pixels, moments, border, probability, depth, as partial rows of the table.

Numbers only: no store, no dask. A partial row holds sums over the object's pixels in one block, so that rows of one
object add up; `table` does that. The columns are chosen so that the whole gives what
`skimage.measure.regionprops_table` gives on the whole scene.

Borders are after Benkrid and Crookes, "Design and FPGA implementation of a perimeter estimator", as
`skimage.measure.perimeter` has it, for all objects of a block at once: only neighbours of the same object count, so
that objects may touch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import NODATA, STEPS, ClassMap

from ..grid.geobox import Window
from .label import RunLengths, run_lengths
from .table import LENGTHS, table_of

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
EDGE = 2  # pixels around a block that borders need: a border pixel's neighbours, and theirs
KINDS = np.zeros(25, np.uint8)  # of border pixels, by 5 x their diagonal + their straight neighbours on the border
KINDS[[2, 3, 7, 8, 12, 13]] = 1
KINDS[[10, 16]] = 2
KINDS[[6, 11]] = 3
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
    class_map: ClassMap
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
        As `table.PARTIAL` says: one row per object that has pixels in the core, sorted by id. Empty where
        there is none.
    """
    ids = _inner(patch.objects, patch.core.shape)
    if not ids.any():
        return table_of({})
    runs = cut_runs(ids)
    classes = _inner(patch.class_map, patch.core.shape)
    kinds = border_kinds(_inner(patch.objects, patch.core.shape, EDGE))
    columns = {
        "id": runs.ids,
        "class_value": classes.ravel()[runs.cut.starts[runs.order[runs.first]]],
        **_moments(runs, patch),
        **{name: runs.summed(kinds == kind, np.int64) for kind, name in enumerate(LENGTHS, start=1)},
        **_intensities(runs, patch.probability),
        "area_m2": runs.unknown if patch.areas is None else runs.summed(np.broadcast_to(patch.areas, runs.shape)),
        "depth_sum": _depths(runs, patch) if widths else runs.unknown,
    }
    return table_of(columns)


def own_probability(class_map: ClassMap, probability: NDArray[Any] | None, kept: Sequence[int]) -> NDArray[Any] | None:
    """Return each pixel's probability of its own class.

    Parameters
    ----------
    class_map
        uint8 `(y, x)`.
    probability
        `(class, y, x)`, as a store keeps it.
    kept
        The class values of its bands.

    Returns
    -------
    ndarray or None
        `(y, x)` of the same type; 255 or NaN where the pixel's class is not kept. None where no class is.
    """
    if probability is None or not len(kept):
        return None
    own = np.full(class_map.shape, NODATA if probability.dtype == np.uint8 else np.nan, probability.dtype)
    for band, value in zip(probability, kept, strict=True):
        np.copyto(own, band, where=class_map == value)
    return own


@dataclass(frozen=True, slots=True)
class Runs:
    """A block cut into runs of pixels of one row with one id. Sums over pixels go by runs, and then by objects.

    Runs are much fewer than pixels: everything that is sorted is sorted by runs.

    Parameters
    ----------
    cut
        All runs; ids of 0 have runs too.
    order
        The runs of objects, sorted by id.
    first
        Place in `order` of each object's first run.
    ids
        Of each object, ascending.
    shape
        The block's.
    """

    cut: RunLengths
    order: Ints
    first: Ints
    ids: Ints
    shape: tuple[int, ...]

    @property
    def unknown(self) -> NDArray[np.float64]:
        """NaN for each object."""
        return np.full(len(self.ids), np.nan)

    def joined(self, of_runs: NDArray[Any], how: np.ufunc = np.add) -> NDArray[Any]:
        """Return by objects what is given by runs in `order`."""
        return np.asarray(how.reduceat(of_runs, self.first))

    def summed(self, pixels: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
        """Add up `(y, x)` over each object's pixels."""
        return self.joined(np.add.reduceat(pixels.ravel(), self.cut.starts, dtype=dtype)[self.order])


def cut_runs(ids: Ints) -> Runs:
    """Cut ids int64 `(y, x)`, 0 for none, into runs. At least one pixel has an id."""
    cut = run_lengths(ids)
    found = np.flatnonzero(cut.owners)
    order = found[np.argsort(cut.owners[found], kind="stable")]
    owners = cut.owners[order]
    first = np.flatnonzero(np.diff(owners, prepend=0))
    return Runs(cut, order, first, owners[first], ids.shape)


def _inner(around: NDArray[Any], shape: tuple[int, int], halo: int = 0) -> NDArray[Any]:
    """Cut an array down to the core and `halo` pixels around it."""
    excess = (around.shape[0] - shape[0]) // 2 - halo
    if around.shape != (shape[0] + 2 * (excess + halo), shape[1] + 2 * (excess + halo)) or excess < 0:
        raise ValueError(f"{around.shape} is not {shape} with at least {halo} pixels more on every side")
    return np.ascontiguousarray(around[excess : excess + shape[0] + 2 * halo, excess : excess + shape[1] + 2 * halo])


def _moments(runs: Runs, patch: Patch) -> dict[str, NDArray[Any]]:
    """Pixels; bounding box, in the scene; means from the object's first pixel, and sums of squares about the mean.

    The sums are in integers up to the mean's fraction, so that nothing cancels; they hold blocks of up to 2^16 pixels a
    side.
    """
    top, left = patch.core.top, patch.core.left
    row, column = np.divmod(runs.cut.starts[runs.order], runs.shape[1])
    n = runs.cut.lengths[runs.order]
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
        "num_pixels": count,
        "bbox-0": runs.joined(row, np.minimum) + top,
        "bbox-1": runs.joined(column, np.minimum) + left,
        "bbox-2": runs.joined(row, np.maximum) + top + 1,
        "bbox-3": runs.joined(column + n, np.maximum) + left,
        "row_mean": (row_mean + top - first_row) + row_rest / count,
        "column_mean": (column_mean + left - first_column) + column_rest / count,
        "rows_m2": rows - row_rest * (row_rest / count),
        "columns_m2": columns - column_rest * (column_rest / count),
        "both_m2": both - row_rest * (column_rest / count),
    }


def _intensities(runs: Runs, probability: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
    """Sum and maximum of the probability; NaN where any pixel has none, as in skimage."""
    if probability is None:
        return {"intensity_sum": runs.unknown, "intensity_max": runs.unknown}
    sums = runs.summed(probability)
    highest = np.maximum.reduceat(probability.ravel(), runs.cut.starts)[runs.order]
    highest = runs.joined(highest.astype(np.float64), np.maximum)
    if probability.dtype == np.uint8:
        gaps = highest == NODATA
        sums, highest = (np.where(gaps, np.nan, values / STEPS) for values in (sums, highest))
    return {"intensity_sum": sums, "intensity_max": highest}


def _depths(runs: Runs, patch: Patch) -> NDArray[np.float64]:
    """Add up the distances to the nearest pixel of another class, less a half; NaN where one is beyond `DEPTH`."""
    from scipy import ndimage

    around, shape = _inner(patch.class_map, patch.core.shape, DEPTH), patch.core.shape
    inner = around[DEPTH:-DEPTH, DEPTH:-DEPTH]
    depths = np.zeros(shape)
    held = _inner(patch.objects, shape) != 0
    for value in np.flatnonzero(np.bincount(inner[held], minlength=NODATA + 1)):
        rows, columns = ndimage.find_objects((held & (inner == value)).view(np.uint8))[0]  # a rare class costs little
        near = around[rows.start : rows.stop + 2 * DEPTH, columns.start : columns.stop + 2 * DEPTH] == value
        distances = ndimage.distance_transform_edt(np.pad(near, 1))  # what is beyond is not of the class
        found = distances[DEPTH + 1 : -DEPTH - 1, DEPTH + 1 : -DEPTH - 1]
        np.copyto(depths[rows, columns], found, where=near[DEPTH:-DEPTH, DEPTH:-DEPTH])
    depths[depths > DEPTH] = np.nan
    return runs.summed(depths - 0.5)


def border_kinds(ids: Ints) -> NDArray[np.uint8]:
    """Return the kind of each pixel of a block.

    Parameters
    ----------
    ids
        int64 `(y, x)`: of the block and `EDGE` pixels around it; 0 for no object, and beyond the scene.

    Returns
    -------
    ndarray
        uint8 `(y, x)` of the block alone: 1 for border pixels of length 1, 2 of sqrt(2), 3 of (1 + sqrt(2)) / 2, and 0
        for all others. A border pixel has a 4-neighbour that is not of its object.
    """
    middle = ids[1:-1, 1:-1]
    inside = middle == ids[:-2, 1:-1]
    for other in (ids[2:, 1:-1], ids[1:-1, :-2], ids[1:-1, 2:]):
        inside &= middle == other
    border = np.pad(~inside & (middle != 0), 1)
    core = np.pad(border[EDGE:-EDGE, EDGE:-EDGE], EDGE)
    pixels = np.flatnonzero(core)  # few, of most objects: what follows goes by them alone
    kinds = np.zeros(ids.shape, np.uint8)
    flat, own, counted = ids.ravel(), ids.ravel()[pixels], np.zeros(len(pixels), np.uint8)
    width = ids.shape[1]
    straight, diagonal = (-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1)
    for step in straight + diagonal:  # neighbours on the border of the same object, as `KINDS` takes them
        near = pixels + step
        same = border.ravel()[near] & (flat[near] == own)
        counted += same * np.uint8(1 if step in straight else 5)
    kinds.ravel()[pixels] = KINDS[counted]
    return kinds[EDGE:-EDGE, EDGE:-EDGE]
