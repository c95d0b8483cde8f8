"""Run the network over one block of a scene: read with halo, fill missing samples, predict tile by tile.

The only file of `pipeline` that touches an engine. A process makes each engine once and shares it between its threads.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from types import EllipsisType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.bundle import bundle_at
from models.encoding import NODATA, Encoding
from models.engine import Engine, EngineSpec, make_engine
from models.engine_memory import EngineMemory, kept_memory, measure_memory
from models.errors import EngineError
from models.metadata import BundleMetadata
from models.quantised import QuantisedGraph, keep_graph
from models.system import keep_freed_memory
from models.timing import count_bytes, spending

from ..grid.block_result import BlockResult, empty_result
from ..grid.geobox import GeoBox, Window
from ..grid.tiling import Tile, TilingPlan, reflected
from ..io.source import Pixels, Source, missing_samples
from .feather import Feathered
from .merge import Merge
from .nonfinite import Nonfinite, OnNonfinite, TooLarge, lacking_of, take_out

Item = TypeVar("Item")


class Reader(Protocol):
    """What gives pixels by window: a `Source`, or a part of one that was read."""

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""


@dataclass(frozen=True, slots=True)
class InferenceSpec:
    """What every block of a run shares; small enough to send with each task. The network itself is never sent."""

    bundle: str
    digest: str
    metadata: BundleMetadata
    spec: EngineSpec
    plan: TilingPlan
    encoding: Encoding
    graph: bytes = field(default=b"", repr=False)  # in int8, packed; b"": the bundle's own, or none
    each: Merge | None = None  # how the answers to each scene of a mosaic are merged; None: its pixels are
    on_nonfinite: OnNonfinite = "fail"  # where the network's answer is no number


_engines: dict[tuple[str, EngineSpec], Engine] = {}
_making = threading.Lock()


def measured_memory(inference: InferenceSpec) -> EngineMemory:
    """Say what an engine takes of the memory of this machine; it is measured once."""
    if (kept := kept_memory(inference.digest, inference.spec)) is not None:
        return kept
    if inference.graph:
        keep_graph(QuantisedGraph.unpack(inference.graph))  # for the process that is measured
    return measure_memory(bundle_at(inference.bundle, inference.digest), inference.spec)


def own_engine(inference: InferenceSpec) -> Engine:
    """Make an engine that is not kept, to measure with."""
    return make_engine(bundle_at(inference.bundle, inference.digest), inference.spec, inference.graph)


def shared_engine(inference: InferenceSpec) -> Engine:
    """Return this process's engine for a bundle, made at the first call.

    Raises
    ------
    EngineError
        The hardware here is other than the run's, and the precision gives other pixels on other hardware.
    BundleError
        This machine has another bundle at the run's path, or none, and was not given it either.
    """
    path, digest, spec = inference.bundle, inference.digest, inference.spec
    with _making:
        key = (digest, spec)
        if not _engines:
            keep_freed_memory()
        if key not in _engines:
            _engines[key] = make_engine(bundle_at(path, digest), spec, inference.graph)
        return _engines[key]


def share_engine(digest: str, spec: EngineSpec, engine: Engine) -> None:
    """Let this process use an engine for a bundle, instead of one that it would make."""
    with _making:
        if not _engines:
            keep_freed_memory()
        _engines[digest, spec] = engine


def _forget(engine: Engine) -> None:
    """Let go of an engine that failed, so that another try makes a new one."""
    with _making:
        for key in [key for key, one in _engines.items() if one is engine]:
            del _engines[key]


def predict(
    source: Source, window: Window, inference: InferenceSpec, wanted: NDArray[np.bool_] | None = None
) -> BlockResult:
    """Read a window with its halo, run the network over its tiles, and keep what is asked for.

    Tiles are read one by one, so that the engine need not wait for the whole window, nor memory hold it. A tile with
    nothing valid runs nothing.

    Parameters
    ----------
    source
        Raw pixels.
    window
        Inside the scene; its origin is a multiple of the stride.
    inference
        See `InferenceSpec`.
    wanted
        Which pixels of the window are kept, bool `(y, x)`; others are context, and nodata in the result. None: all.

    Returns
    -------
    BlockResult
        Of the window's shape. Pixels that were not observed are nodata: 255, or NaN in float probabilities.

    Raises
    ------
    SwatheError
        The scene cannot be read, or the engine fails; or an answer is no number, and that is not to be nodata.
    """
    if wanted is not None and not wanted.any():
        return empty_result(window.shape, inference.encoding)
    held = CachedWindow.of(source, window, inference.plan) if source.expensive_reads else source
    result = predict_tiles(held, source.nodata, source.geobox, window, inference, wanted)
    if wanted is not None:
        result.class_map[~wanted] = NODATA
        if result.probability is not None:
            result.probability[:, ~wanted] = _missing(result.probability)
    return result


def predict_tiles(
    source: Reader,
    nodata: tuple[float | None, ...],
    geobox: GeoBox,
    window: Window,
    inference: InferenceSpec,
    wanted: NDArray[np.bool_] | None = None,
) -> BlockResult:
    """As `predict`, of anything that can be read.

    Parameters
    ----------
    source
        A scene of the plan's shape; the window may reach out of it, where its reflections stand.
    nodata
        Per band, the value that stands for a missing sample.
    geobox
        Of the scene.
    window
        Its first pixel is that of a stride of the network.
    inference
        See `InferenceSpec`.
    wanted
        Which pixels of the window count, bool `(y, x)`; tiles without any are nodata. None: all.
    """
    plan, nonfinite = inference.plan, Nonfinite()
    if plan.grid is not None and plan.grid.blend == "feather":
        return _feathered(source, nodata, geobox, window, inference, wanted)
    result = empty_result(window.shape, inference.encoding)
    for read, class_map, probability in _predicted(_seen(source, window, plan, wanted), nodata, inference):
        place, valid = read.tile.kept.within(window), read.valid
        if (lacking := lacking_of(class_map[read.core], valid)) is not None:
            valid = valid & ~lacking
            if wanted is not None:
                lacking &= wanted[place.slices]
            if lacking.any():
                nonfinite.note(lacking, read.tile.kept, geobox, read.describe_too_large(plan, geobox))
        _keep(result.class_map, class_map[read.core], valid, place)
        if result.probability is not None and probability is not None:
            _keep(result.probability, probability[read.core], valid, place)
    nonfinite.settle(inference.on_nonfinite)
    return replace(result, nonfinite=nonfinite.pixels)


def _feathered(
    source: Reader,
    nodata: tuple[float | None, ...],
    geobox: GeoBox,
    window: Window,
    inference: InferenceSpec,
    wanted: NDArray[np.bool_] | None,
) -> BlockResult:
    """As `predict_tiles`, of a plan whose tiles are put together by weights."""
    plan, classes, nonfinite = inference.plan, len(inference.metadata.classes), Nonfinite()
    blended = Feathered(classes, window, plan)
    plain = replace(inference, encoding=Encoding(None, "float32", tuple(range(classes))))
    for read, class_map, probability in _predicted(_seen(source, window, plan, wanted), nodata, plain):
        assert probability is not None  # as the encoding asks
        lacking, here = class_map[read.core] == NODATA, read.tile.kept.within(window).slices
        new = lacking & read.valid & ~blended.lacking[here]
        if wanted is not None:
            new &= wanted[here]
        if new.any():
            nonfinite.note(new, read.tile.kept, geobox, read.describe_too_large(plan, geobox))
        blended.add(read.tile, probability[read.core], read.valid, lacking)
    nonfinite.settle(inference.on_nonfinite)
    return replace(blended.encoded(inference.encoding), nonfinite=nonfinite.pixels)


@dataclass(frozen=True, slots=True)
class TileRead:
    """A tile as it was read: all pixels that the network sees; `too_large` is what of them it was not given."""

    pixels: Pixels
    tile: Tile
    too_large: TooLarge | None = None

    @property
    def core(self) -> tuple[EllipsisType, slice, slice]:
        """For indexing an answer `(..., y, x)`: what of it is kept."""
        return (..., *self.tile.kept.within(self.tile.seen).slices)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Which pixels of what is kept were observed, bool `(y, x)`."""
        rows, columns = self.core[1:]
        return self.pixels.valid[rows, columns]

    def describe_too_large(self, plan: TilingPlan, geobox: GeoBox) -> str:
        """Say where a sample is too large; empty: none is."""
        return "" if self.too_large is None else self.too_large.describe(self.tile.seen, plan, geobox)


def _seen(source: Reader, window: Window, plan: TilingPlan, wanted: NDArray[np.bool_] | None) -> Iterator[TileRead]:
    """Read the tiles of a window of which anything is kept that is wanted and valid."""
    for tile in plan.tiles_of(window):
        if wanted is not None and not wanted[tile.kept.within(window).slices].any():
            continue
        read = TileRead(read_reflected(source, plan, tile.seen), tile)
        if read.valid.any():
            yield read


@dataclass(frozen=True, slots=True)
class CachedWindow:
    """What a source gave for a window: tiles whose halos overlap must not compute a scene of dask's twice."""

    window: Window
    pixels: Pixels

    @classmethod
    def of(cls, source: Reader, window: Window, plan: TilingPlan, reach: int = 0) -> "CachedWindow":
        """Read all that the tiles of a window will ask for, and what of the scene lies `reach` pixels around it."""
        tiles, around = _inside(plan.context(window), plan), window.buffer(reach).clip((plan.height, plan.width))
        all_of_it = Window(
            min(tiles.top, around.top),
            max(tiles.bottom, around.bottom),
            min(tiles.left, around.left),
            max(tiles.right, around.right),
        )
        return cls(all_of_it, _read(source, all_of_it))

    def read(self, window: Window) -> Pixels:
        """See `Source`."""
        rows, columns = window.within(self.window).slices
        return Pixels(self.pixels.data[:, rows, columns], self.pixels.valid[rows, columns])


def read_buffered(source: Reader, plan: TilingPlan, window: Window) -> Pixels:
    """Read a window with its halo; beyond the scene's edges stand its reflections.

    Returns
    -------
    Pixels
        Of the shape of `plan.buffered(window)`. Missing samples are still as the file has them.
    """
    return read_reflected(source, plan, plan.buffered(window))


def read_reflected(source: Reader, plan: TilingPlan, buffered: Window) -> Pixels:
    """Read a window that may reach beyond the scene's edges, where its reflections stand."""
    inside = _inside(buffered, plan)
    read = source.read(inside) if isinstance(source, CachedWindow) else _read(source, inside)
    if inside == buffered:
        return read
    data, valid = (_reflect(values, inside, buffered, plan) for values in (read.data, read.valid))
    return Pixels(data, valid, fresh=True)


def _read(source: Reader, window: Window) -> Pixels:
    with spending("read"):
        pixels = source.read(window)
    count_bytes(read=pixels.data.nbytes)
    return pixels


def _inside(buffered: Window, plan: TilingPlan) -> Window:
    """Return the part of the scene that a grown window, reflections too, is made of."""
    rows, columns = (
        reflected(buffered.top, buffered.bottom, plan.height),
        reflected(buffered.left, buffered.right, plan.width),
    )
    return Window(int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)


def _reflect(values: NDArray[Any], inside: Window, buffered: Window, plan: TilingPlan) -> NDArray[Any]:
    """Return the values `([band,] y, x)` of a grown window, of those of the part that it is made of."""
    if inside == buffered.clip((plan.height, plan.width)):  # as it is but for windows narrower than their halo
        beyond = [
            (inside.top - buffered.top, buffered.bottom - inside.bottom),
            (inside.left - buffered.left, buffered.right - inside.right),
        ]
        return np.pad(values, [(0, 0)] * (values.ndim - 2) + beyond, mode="reflect")
    rows = reflected(buffered.top, buffered.bottom, plan.height) - inside.top
    columns = reflected(buffered.left, buffered.right, plan.width) - inside.left
    return np.take(np.take(values, rows, axis=-2), columns, axis=-1)  # indexing twice gives a layout that is slow


def network_input(
    pixels: Pixels, nodata: tuple[float | None, ...], metadata: BundleMetadata
) -> tuple[NDArray[Any], TooLarge | None]:
    """Return what the network is given of pixels `(band, y, x)`, and the samples that it cannot be given."""
    filled = fill_missing(pixels, nodata, tuple(band.mean for band in metadata.bands))
    return take_out(filled, metadata, fresh=pixels.fresh or filled is not pixels.data)


def fill_missing(pixels: Pixels, nodata: tuple[float | None, ...], means: tuple[float, ...]) -> NDArray[Any]:
    """Put each band's mean where its sample is missing or the pixel invalid, so that no NaN enters the network.

    The mean is rounded in integer bands. Fresh data are changed themselves, others copied where samples are missing.
    """
    data, invalid = pixels.data, ~pixels.valid
    any_invalid = bool(invalid.any())
    copied = pixels.fresh
    for place, (sentinel, mean) in enumerate(zip(nodata, means, strict=True)):
        missing = missing_samples(data[place], sentinel)
        missing = invalid if missing is None else missing | invalid
        if (missing is invalid and not any_invalid) or not missing.any():
            continue
        if not copied:
            data, copied = data.copy(), True
        np.copyto(data[place], _as_type(mean, data.dtype), where=missing)
    return data


def _as_type(value: float, dtype: np.dtype[Any]) -> Any:
    if np.issubdtype(dtype, np.floating):
        return dtype.type(value)
    info = np.iinfo(dtype)
    return dtype.type(int(min(max(round(value), info.min), info.max)))


def _predicted(
    reads: Iterator[TileRead], nodata: tuple[float | None, ...], inference: InferenceSpec
) -> Iterator[tuple[TileRead, NDArray[np.uint8], NDArray[Any] | None]]:
    """Yield each tile with the class map and the probabilities of all its pixels; equal tiles go in batches.

    The class map is nodata where the answer is no number, and where it would not be one.
    """
    radius = inference.metadata.receptive_field.radius
    for _, equal in groupby(reads, key=lambda read: read.pixels.valid.shape):
        engine = shared_engine(inference)
        for some in batched(equal, engine.batch):
            inputs = [network_input(read.pixels, nodata, inference.metadata) for read in some]
            try:
                with spending("predict"):
                    tiles = np.stack([data for data, _ in inputs]) if len(inputs) > 1 else inputs[0][0][None]
                    results = engine.segment(tiles, inference.encoding)
            except EngineError:
                _forget(engine)
                raise
            probability = results.probability if results.probability is not None else [None] * len(some)
            for read, (_, too_large), class_map, kept in zip(some, inputs, results.class_map, probability, strict=True):
                if too_large is not None:
                    class_map[too_large.reach(radius)] = NODATA
                yield replace(read, too_large=too_large), class_map, kept


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yield items in tuples of at most `size` (itertools has this from Python 3.12 on)."""
    rest = iter(items)
    while some := tuple(islice(rest, size)):
        yield some


def _keep(array: NDArray[Any], values: NDArray[Any], valid: NDArray[np.bool_], place: Window) -> None:
    """Put a tile's values `([class,] y, x)` where they belong, and nodata where nothing was observed."""
    target = array[..., *place.slices]
    target[...] = values
    if not valid.all():
        np.copyto(target, _missing(array), where=~valid)


def _missing(array: NDArray[Any]) -> float:
    """Return what stands in a result where nothing was observed."""
    return np.nan if array.dtype.kind == "f" else NODATA
