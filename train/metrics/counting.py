"""Pixels counted by what they hold, a strip at a time so that no block needs much memory. Knows no score."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import TrainingError

from ..data.samples import IGNORE
from .ratios import Floats, Ints

STRIP = 1 << 18  # pixels: few enough for the arrays of a strip to stay in a processor's cache

Indices = NDArray[np.intp]


def strips(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays `(..., y, x)` of equal last two axes into the same rows.

    Raises
    ------
    ValueError
        They differ in shape.
    """
    shapes = {array.shape[-2:] for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"arrays of one block differ in shape: {sorted(shapes)}")
    height, width = shapes.pop()
    rows = max(1, STRIP // max(1, width))
    for top in range(0, height, rows):
        yield tuple(array[..., top : top + rows, :] for array in arrays)


def count(indices: Indices, size: int) -> Ints:
    """Count how often each index from 0 to `size` - 1 occurs."""
    return np.bincount(indices.ravel(), minlength=size).astype(np.int64, copy=False)


def add_up(indices: Indices, values: Floats, size: int) -> Ints:
    """Add up whole numbers by index. Exact: a strip's sums stay far below 2^53, above which floats skip some."""
    return np.bincount(indices.ravel(), weights=values.ravel(), minlength=size).astype(np.int64)


def places(classes: int) -> Indices:
    """Give a table from values uint8 to places: a class has its own, IGNORE the next, any other value the last."""
    table = np.full(256, classes + 1, np.intp)
    table[:classes] = np.arange(classes)
    table[IGNORE] = classes
    return table


def truths(classes_found: int | None) -> Indices:
    """Give a table from labels uint8 to 0 = background, 1 = foreground, 2 = not judged.

    Parameters
    ----------
    classes_found
        The class that is foreground; None: all but the first.
    """
    table = np.zeros(256, np.intp)
    table[slice(1, None) if classes_found is None else classes_found] = 1
    table[IGNORE] = 2
    return table


def refuse_unknown(values: NDArray[np.uint8], classes: int, what: str) -> None:
    """Raise TrainingError that names the values which are no class."""
    seen = np.unique(values)
    unknown = ", ".join(str(value) for value in seen[(seen >= classes) & (seen != IGNORE)][:8])
    raise TrainingError(
        f"the {what} hold values that are no class: {unknown}. Classes are 0 to {classes - 1}; {IGNORE} is not judged"
    )
