"""The answers to overlapping tiles of one grid put together by weights: each tile's fall towards its edges.

Weights depend on the grid alone, and sums are made in the grid's order: no block changes a bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding, classify, encode

from ..grid.block_result import BlockResult, empty_result
from ..grid.geobox import Window
from ..grid.tiling import Tile, TilingPlan

ROWS = 256  # of a block that are made into classes at a time, so that this takes little memory


class Feathered:
    """What the tiles of a window say together. A pixel has no answer where that of any of its tiles is no number.

    Parameters
    ----------
    classes
        Number of classes.
    window
        Inside the scene.
    plan
        With the grid.
    """

    def __init__(self, classes: int, window: Window, plan: TilingPlan) -> None:
        self.window, self.rows, self.columns = window, *plan.axes
        self.total = np.zeros((classes, *window.shape), np.float32)
        self.valid = np.zeros(window.shape, bool)  # of what was added
        self.lacking = np.zeros(window.shape, bool)

    def add(
        self, tile: Tile, probability: NDArray[np.float32], valid: NDArray[np.bool_], lacking: NDArray[np.bool_]
    ) -> None:
        """Add what is kept of a tile; tiles come in the grid's order.

        Parameters
        ----------
        tile
            With its place in the grid.
        probability
            float32 `(class, y, x)`.
        valid, lacking
            Which pixels were observed, and which have no answer that is a number, bool `(y, x)`.
        """
        here, (rows, columns) = tile.kept.within(self.window).slices, tile.kept.within(tile.seen).slices
        down = self.rows.weights(tile.place[0])[rows, None]
        across = self.columns.weights(tile.place[1])[columns]
        for total, values in zip(self.total, probability, strict=True):
            total[here] += values * down * across
        self.valid[here] |= valid
        self.lacking[here] |= lacking

    def encoded(self, encoding: Encoding) -> BlockResult:
        """Return what is kept of it; nodata where nothing was observed, or there is no answer."""
        result, there = empty_result(self.window.shape, encoding), self.valid & ~self.lacking
        np.minimum(self.total, 1.0, out=self.total)  # weights add up to 1 but for the last place
        np.copyto(self.total, 0.0, where=~there)
        for top in range(0, len(there), ROWS):
            rows = slice(top, top + ROWS)
            part = self.total[:, rows]
            np.copyto(result.class_map[rows], classify(part, encoding.thresholds), where=there[rows])
            kept: Any = () if result.probability is None else result.probability
            for target, value in zip(kept, encoding.kept if len(kept) else (), strict=True):
                np.copyto(target[rows], encode(part[value], target.dtype), where=there[rows])
        return result
