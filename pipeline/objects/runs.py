"""Sums over the pixels of each object of a block, by runs of pixels along its rows. Knows nothing of what is added up.

A run is much shorter to write down than its pixels: everything that is sorted is sorted by runs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """A block cut into runs: pixels of one row with one id. Sums over pixels go by runs, and then by objects.

    Parameters
    ----------
    starts
        First pixel of each run, counted row by row; ids of 0 have runs too.
    order
        The runs of objects, sorted by id.
    first
        Place in `order` of each object's first run.
    ids
        Of each object, ascending.
    shape
        The block's.
    """

    starts: Ints
    order: Ints
    first: Ints
    ids: Ints
    shape: tuple[int, int]

    @property
    def unknown(self) -> NDArray[np.float64]:
        """NaN for each object."""
        return np.full(len(self.ids), np.nan)

    def joined(self, of_runs: NDArray[Any], how: np.ufunc = np.add) -> NDArray[Any]:
        """Give by objects what is given by runs in `order`."""
        joined: NDArray[Any] = how.reduceat(of_runs, self.first)
        return joined

    def summed(self, pixels: NDArray[Any], dtype: Any = np.float64) -> NDArray[Any]:
        """Add up `(y, x)` over each object's pixels."""
        return self.joined(np.add.reduceat(pixels.ravel(), self.starts, dtype=dtype)[self.order])

    def spans(self) -> tuple[Ints, Ints, Ints]:
        """Give row, first column and length of the runs in `order`."""
        lengths = np.diff(self.starts, append=self.shape[0] * self.shape[1])
        rows, columns = np.divmod(self.starts[self.order], self.shape[1])
        return rows, columns, lengths[self.order]


def cut_runs(ids: Ints) -> Runs:
    """Cut ids int64 `(y, x)`, 0 for none, into runs. At least one pixel has an id."""
    changed = np.ones(ids.shape, bool)  # rows begin runs
    np.not_equal(ids[:, 1:], ids[:, :-1], out=changed[:, 1:])
    starts = np.flatnonzero(changed)
    of_runs = ids.ravel()[starts]
    found = np.flatnonzero(of_runs)
    order = found[np.argsort(of_runs[found], kind="stable")]
    of_runs = of_runs[order]
    first = np.flatnonzero(np.diff(of_runs, prepend=0))
    return Runs(starts, order, first, of_runs[first], (ids.shape[0], ids.shape[1]))
