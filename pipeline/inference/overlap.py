"""How much a map depends on where its tiles lie, measured on the scene's own pixels; and the overlap that is enough.

Networks without an exact halo have no whole answer to compare with. So the same windows are answered by the grid and by
one that is moved by half a step down and right, where what was at tiles' edges is in their middle.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding, classify
from models.errors import PlanError
from models.files import keep_file
from models.system import cache_folder

from ..grid.geobox import Window
from ..grid.tile_grid import TileAxis, TileGrid
from ..grid.tiling import TilingPlan
from ..io.source import Source
from .grid_choice import choose_grid
from .kept_precision import digest_of, engine_facts, versions_here
from .options import SegmentOptions
from .predict import InferenceSpec, predict

PARTS, TRIES = 3, 8  # of the scene's rows and columns, of each of which a corner of tiles is looked at; to find pixels
EIGHTHS = (0, 1, 2, 3, 4)  # of a tile's side: the overlaps that are tried
METHOD = 2  # counts up when something else would be measured
logger = logging.getLogger("swathe")


@dataclass(frozen=True, slots=True)
class OverlapChoice:
    """What was measured of tiles on a grid.

    Parameters
    ----------
    overlap
        In pixels.
    change
        The mean change of a probability, of the class that changes most, or twice the share of pixels whose class
        changes, whichever is larger. None: there is but one tile.
    asked
        Digest of what the overlap was chosen for; empty: it was given.
    note
        For the user.
    """

    overlap: int
    change: float | None
    asked: str = ""
    note: str = ""


def choose_overlap(
    source: Source,
    inference: InferenceSpec,
    options: SegmentOptions,
    tolerance: float,
    begun: Mapping[str, Any] | None = None,
) -> OverlapChoice:
    """Choose the least overlap whose measured change is within a tolerance; where none is, the one of least change.

    Parameters
    ----------
    source
        The scene, in the bundle's values; some windows are read.
    inference
        With a plan on a grid, which says all but the overlap.
    options
        As they are asked for.
    tolerance
        What precision has left of it.
    begun
        What the store of a run that was begun says of its choice, which is taken if it was made for the same.

    Raises
    ------
    PlanError
        No observed pixels were found to measure on.
    """
    asked = _digest(source, inference, {"asked": options.overlap, "halo": options.halo, "tolerance": options.tolerance})
    if begun and begun.get("asked") == asked:
        return OverlapChoice(**begun)
    found: dict[int, float] = {}
    for grid in _candidates(inference, options):
        plan = replace(inference.plan, grid=grid, halo=grid.overlap // 2)
        change = measure_change(source, replace(inference, plan=plan))
        if change is None:
            return OverlapChoice(grid.overlap, None, asked)
        found[grid.overlap] = change
        if change <= tolerance:
            break
    best = min(found, key=lambda overlap: (found[overlap] > tolerance, found[overlap]))
    left = f"{tolerance:.2g}"
    if found[best] <= tolerance:
        note = f"overlap auto: {best} pixels, measured change {found[best]:.2g} within {left}"
    else:
        note = f"overlap auto: none is within {left}; {best} pixels have the least measured change, {found[best]:.2g}"
    return OverlapChoice(best, found[best], asked, note)


def _candidates(inference: InferenceSpec, options: SegmentOptions) -> list[TileGrid]:
    """Return the grids that are tried, by rising overlap."""
    grid = inference.plan.grid
    assert grid is not None
    tile = replace(options, tile=grid.side, halo="exact")
    found = [
        choose_grid(inference.metadata, replace(tile, overlap=grid.side * eighth // 8), grid.side * eighth // 8)
        for eighth in EIGHTHS
        if grid.side - grid.side * eighth // 8 >= inference.plan.stride
    ]
    return list(dict.fromkeys(one for one in found if one is not None))


def measure_change(source: Source, inference: InferenceSpec) -> float | None:
    """Measure how much a map depends on where its tiles lie, or take it from the user's cache.

    Parameters
    ----------
    source
        The scene, in the bundle's values; windows around up to nine corners of tiles are read.
    inference
        With a plan on a grid.

    Returns
    -------
    float
        See `OverlapChoice`. None: there is but one tile, which sees the whole scene.

    Raises
    ------
    PlanError
        No observed pixels were found to measure on.
    """
    if all(len(axis) == 1 for axis in inference.plan.axes):
        return None
    if (kept := kept_change(source, inference)) is not None:
        return kept
    overlap = inference.plan.grid.overlap if inference.plan.grid else 0
    logger.info("measuring on the scene, once, what moving the tiles with an overlap of %d pixels changes", overlap)
    change = _measured(source, inference)
    path, text = _path(source, inference), json.dumps({"change": change})
    keep_file(path, "the measured change", lambda part: part.write_text(text))
    return change


def kept_change(source: Source, inference: InferenceSpec) -> float | None:
    """Return what was measured before, from the user's cache; None: nothing was."""
    try:
        return float(json.loads(_path(source, inference).read_text())["change"])
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _path(source: Source, inference: InferenceSpec) -> Any:
    grid = {"grid": asdict(inference.plan.grid) if inference.plan.grid else None}
    here = {"hardware": inference.spec.hardware, "versions": versions_here()}
    return cache_folder("overlap") / f"{_digest(source, inference, grid | here)}.json"


def _digest(source: Source, inference: InferenceSpec, more: Mapping[str, Any]) -> str:
    grid = inference.plan.grid
    assert grid is not None
    facts = {
        "source": source.identity(),
        "bundle": inference.digest,
        "engine": engine_facts(inference.spec),
        "thresholds": inference.encoding.thresholds,
        "tiles": (grid.side, grid.blend, grid.taper),
        "method": METHOD,
    }
    return digest_of({**facts, **more})


def _measured(source: Source, inference: InferenceSpec) -> float:
    grid, plan, classes = inference.plan.grid, inference.plan, len(inference.metadata.classes)
    assert grid is not None
    half = grid.step // 2 // plan.stride * plan.stride or grid.step
    moved = replace(plan, grid=replace(grid, before=grid.before + half))
    every = replace(inference, encoding=Encoding(None, "float32", tuple(range(classes))), on_nonfinite="nodata")
    change, changed, count = 0.0, 0, 0
    for window in corners(source, plan):
        one, other = (_probability(source, replace(every, plan=cut), window) for cut in (plan, moved))
        seen = ~(np.isnan(one[0]) | np.isnan(other[0]))
        right, wrong = one[:, seen][:, None], other[:, seen][:, None]
        change += float(np.abs(right - wrong).max(axis=0).sum(dtype=np.float64))
        thresholds = inference.encoding.thresholds
        changed += int((classify(right, thresholds) != classify(wrong, thresholds)).sum())
        count += int(seen.sum())
    return max(change, 2.0 * changed) / max(1, count)


def _probability(source: Source, inference: InferenceSpec, window: Window) -> NDArray[np.float32]:
    probability = predict(source, window, inference).probability
    assert probability is not None  # asked for in `_measured`
    return probability


def corners(source: Source, plan: TilingPlan) -> list[Window]:
    """Return windows as large as a tile's step around corners where tiles meet, which hold observed pixels.

    At most one in each of nine parts of the scene; the same ones each time.

    Raises
    ------
    PlanError
        None was found.
    """
    random, found = np.random.default_rng(0), list[Window]()
    for row in range(PARTS):
        for column in range(PARTS):
            for _ in range(TRIES):
                spans = [_around(axis, random, part) for axis, part in zip(plan.axes, (row, column), strict=True)]
                window = Window(*spans[0], *spans[1])
                if source.read(window).valid.any():
                    found.append(window)
                    break
    if not found:
        raise PlanError("no observed pixels were found to measure an overlap on; give --overlap N")
    return list(dict.fromkeys(found))


def _around(axis: TileAxis, random: np.random.Generator, part: int) -> tuple[int, int]:
    """Draw the pixels around an edge of a tile's inner part, in one of the equal parts of an axis."""
    edges = len(axis) - 1
    low, high = edges * part // PARTS, max(edges * part // PARTS + 1, edges * (part + 1) // PARTS)
    number = int(random.integers(low, high))
    middle = axis.inner(min(number, edges))[1] if edges else axis.size // 2
    first = max(0, middle - axis.grid.step // 2)
    return first, min(axis.size, first + axis.grid.step)
