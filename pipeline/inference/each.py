"""Segment, then merge: each scene of a mosaic through the network on its own grid, and what it says put together.

What a scene says of a pixel is a function of the scene and of the mosaic's grid: no block changes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from models.encoding import Encoding

from ..grid.block_result import BlockResult
from ..grid.geobox import Window
from ..io.radiometry import Rescaled
from ..io.raster import RasterSource
from ..io.source import Pixels, Source
from ..mosaic.footprints import footprints
from ..mosaic.outline import window_on
from ..mosaic.positions import positions
from ..mosaic.sampling import Kernel, Samples, interpolate, is_inside, nearest
from ..mosaic.source import MosaicSource
from ..mosaic.warp import place_on, samples_under
from .edge_distance import edge_distance, rank_inner
from .merge import Merged
from .predict import CachedWindow, InferenceSpec, predict, predict_tiles

SPREAD = 4096  # points that are looked at for how much scenes overlap
LEAST_REACH = 64  # pixels over which scenes are feathered, of networks that see less far


def mosaic_of(source: Source) -> MosaicSource | None:
    """Return the mosaic that a source brought to a bundle is; None: it is no mosaic."""
    inner = source.source if isinstance(source, Rescaled) else source
    return inner if isinstance(inner, MosaicSource) else None


def predict_block(source: Source, window: Window, inference: InferenceSpec) -> BlockResult:
    """As `predict`; of a mosaic whose scenes are segmented each, see `predict_each`.

    Pixels outside of a mosaic's area are nodata in the result and seen by the network all the same: within the area
    the map is that of the whole mosaic, and maps of neighbouring areas fit.
    """
    if inference.each is not None:
        return predict_each(source, window, inference)
    mosaic = mosaic_of(source)
    if mosaic is None or mosaic.area is None:
        return predict(source, window, inference)
    inside, everywhere = mosaic.area.inside(window), replace(mosaic, area=None)
    whole = replace(source, source=everywhere) if isinstance(source, Rescaled) else everywhere
    return predict(whole, window, inference, inside)


def predict_each(source: Source, window: Window, inference: InferenceSpec) -> BlockResult:
    """Segment what each scene has of a window of the mosaic, one after the other, and merge the probabilities.

    Parameters
    ----------
    source
        The mosaic, brought to the bundle.
    window
        Of its grid.
    inference
        With `each`, how to merge.

    Returns
    -------
    BlockResult
        As of `predict`.
    """
    mosaic, classes = mosaic_of(source), len(inference.metadata.classes)
    assert mosaic is not None  # `plan_scene` has refused others
    assert inference.each is not None
    inside = None if mosaic.area is None else mosaic.area.inside(window)
    merged = Merged(inference.each, classes, window.shape, inside)
    plain = replace(inference, encoding=Encoding(None, "float32", tuple(range(classes))))
    for number in mosaic.scenes_at(window) if merged.any_wanted else ():
        scene = MosaicScene(source, mosaic, number)
        place = place_on(scene.source, mosaic.geobox)
        if place is None:
            _add_resampled(merged, scene, window, plain)
        elif (shared := place.overlap(window)) is not None:
            _add_as_it_is(merged, scene, place, shared, window, plain)
    return merged.encoded(inference.encoding)


@dataclass(frozen=True, slots=True)
class MosaicScene:
    """One scene of a mosaic on its own grid, its values as those of the mosaic are."""

    brought: Source
    mosaic: MosaicSource
    number: int

    @property
    def source(self) -> RasterSource:
        """The scene as it is."""
        return self.mosaic.scene(self.number).source

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing sample."""
        return self.brought.nodata

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        source = self.source
        taken = self.mosaic.taken(self.number, source.read(window), source.geobox, window)
        return self.brought.rescale(taken) if isinstance(self.brought, Rescaled) else taken


@dataclass(frozen=True, slots=True)
class ScenePart:
    """A window of a scene, read with all that its answer takes.

    Parameters
    ----------
    scene
        Whose pixels they are.
    window
        Inside the scene.
    start
        Row and column of the first pixel that the network gets: that of a stride, at or before the window's.
    held
        What was read.
    inference
        With the plan of the scene.
    """

    scene: MosaicScene
    window: Window
    start: tuple[int, int]
    held: CachedWindow
    inference: InferenceSpec

    @classmethod
    def of(cls, scene: MosaicScene, window: Window, phase: tuple[int, int], inference: InferenceSpec) -> "ScenePart":
        """Read a window; `phase` is a row and a column at which a stride of the network begins."""
        (height, width), plan = scene.source.geobox.shape, inference.plan
        plan = replace(plan, height=height, width=width)
        top, left = (
            start - (start - begun) % plan.stride for start, begun in zip((window.top, window.left), phase, strict=True)
        )
        if plan.grid is not None:  # which begins with the scene, whatever the mosaic's grid
            top, left = window.top, window.left
        held = CachedWindow.of(scene, Window(top, window.bottom, left, window.right), plan, reach_of(inference))
        return cls(scene, window, (top, left), held, replace(inference, plan=plan))

    def weight(self) -> NDArray[Any]:
        """Return what pixels count in a merge: how far they lie from the scene's edge and from nodata."""
        plan, held = self.inference.plan, (self.held.pixels.valid, self.held.window, self.window)
        shape = (plan.height, plan.width)
        distance = edge_distance(*held, shape, reach_of(self.inference))
        return rank_inner(distance, *held, shape, plan.halo) if self.inference.each == "inner" else distance

    def probability(self, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.float32], int]:
        """Return probabilities float32 `(class, y, x)`, and how many wanted pixels have none that is a number.

        NaN stands there, where nothing was observed, and maybe where not wanted.
        """
        top, left = self.start
        before = self.window.top - top, self.window.left - left
        wanted = np.pad(wanted, [(before[0], 0), (before[1], 0)])
        seen = Window(top, self.window.bottom, left, self.window.right)
        geobox = self.scene.source.geobox
        found = predict_tiles(self.held, self.scene.nodata, geobox, seen, self.inference, wanted)
        assert found.probability is not None  # asked for in `predict_each`
        return np.asarray(found.probability[:, before[0] :, before[1] :]), found.nonfinite


def reach_of(inference: InferenceSpec) -> int:
    """Return the distance from an edge, in pixels of a scene, from which on no larger one counts."""
    return max(LEAST_REACH, inference.plan.halo + 1)


def _add_as_it_is(
    merged: Merged, scene: MosaicScene, place: Window, shared: Window, window: Window, inference: InferenceSpec
) -> None:
    """Add a scene that lies on the mosaic's grid: strides of the network are counted from there."""
    part = ScenePart.of(scene, shared.within(place), (-place.top, -place.left), inference)
    here, weight = shared.within(window), part.weight()
    wanted = merged.wanted(here, weight)
    if wanted.any():
        answer, nonfinite = part.probability(wanted)
        merged.add(here, answer, _without(answer, weight, nonfinite))
        merged.nonfinite += nonfinite


def _without(answer: NDArray[np.float32], weight: NDArray[Any], nonfinite: int) -> NDArray[Any]:
    """Return weights that are 0 where a scene's answer is no number: it says nothing there, others may."""
    return np.where(np.isnan(answer[0]), 0, weight) if nonfinite else weight


def _add_resampled(merged: Merged, scene: MosaicScene, window: Window, inference: InferenceSpec) -> None:
    """Add a scene on another grid: strides are counted from its own first pixel, and probabilities are resampled."""
    own, geobox = scene.source.geobox, scene.mosaic.geobox
    shared = window_on(own, geobox).overlap(window)
    if shared is None:
        return
    scale = samples_under(own, geobox)
    kernel = Kernel.of("nearest" if scene.mosaic.resampling == "nearest" else "bilinear", scale)
    for piece in shared.split(max(1, int(inference.plan.block / max(1.0, *scale)))):
        for probability, weight in _resampled(merged, scene, piece, window, kernel, inference):
            merged.add(piece.within(window), probability, weight)


def _resampled(
    merged: Merged, scene: MosaicScene, piece: Window, window: Window, kernel: Kernel, inference: InferenceSpec
) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    """Yield probabilities and weights of a part of the mosaic's grid, if the scene has anything that counts there."""
    shape = scene.source.geobox.shape
    at = positions(scene.mosaic.geobox, piece, scene.source.geobox)
    needed = kernel.needs(at, shape)
    if needed is None:
        return
    part = ScenePart.of(scene, needed, (0, 0), inference)
    there = part.weight()
    weight = np.where(is_inside(at, shape), nearest(there, needed, at, shape), 0)
    if not merged.wanted(piece.within(window), weight).any():
        return
    answer, nonfinite = part.probability(there > 0)
    if nonfinite:
        there = _without(answer, there, nonfinite)
        weight = np.where(is_inside(at, shape), nearest(there, needed, at, shape), 0)
        merged.nonfinite += nonfinite
    if kernel.method == "nearest":
        yield nearest(answer, needed, at, shape), weight
        return
    probability = np.empty((len(answer), *piece.shape), np.float32)
    for target, values in zip(probability, answer, strict=True):
        target[...], lacking = interpolate(Samples(values, there == 0, needed), at, shape, kernel)
        weight[lacking] = 0
    yield probability, weight


def expected_overlap(mosaic: MosaicSource) -> float:
    """Return how many scenes a pixel that any scene covers lies in, on average: by points spread over some scenes."""
    found = footprints(mosaic.index, mosaic.geobox, mosaic.order)
    grid = shapely.box(0, 0, mosaic.geobox.width, mosaic.geobox.height)
    total = np.cumsum(shapely.area(found.shapes))
    chosen = np.searchsorted(total, total[-1] * (np.arange(SPREAD) + 0.5) / SPREAD)  # the larger, the more often
    west, north, east, south = shapely.bounds(found.shapes[chosen]).T
    at = np.random.default_rng(0).random((2, SPREAD))
    points = shapely.points(west + at[0] * (east - west), north + at[1] * (south - north))
    points = points[shapely.intersects(points, found.shapes[chosen]) & shapely.intersects(points, grid)]
    if not len(points):
        return 1.0
    count = np.bincount(found.tree.query(points, predicate="intersects")[0], minlength=len(points))
    return float(1 / np.mean(1 / count))  # of points of scenes: those in many are chosen as often
