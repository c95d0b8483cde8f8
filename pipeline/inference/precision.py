"""The fastest precision that is good enough, measured on the scene's own pixels against fp32.

What was chosen is kept, see `kept_precision`, the graph in int8 too, so that a plan, its run and a run that continues
it have the same. A precision is good enough if its error, in the worst of several groups of windows, is within the
tolerance.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.encoding import classify
from models.engine import Precision, PrecisionOption, resolve
from models.errors import EngineError, PlanError
from models.quantise import quantise_network
from models.quantised import NO_NNCF, QuantisedGraph, can_quantise, keep_graph, kept_graph

from ..io.source import Source
from .kept_precision import BegunRun, PrecisionChoice, asked_key, cache_key, keep_choice, kept_choice
from .options import SegmentOptions
from .predict import InferenceSpec, own_engine
from .samples import Sample, observed_windows, read_samples

WINDOWS, SIDE = 16, 256  # that are compared: how many, and their side in pixels
GROUPS = 4  # of which the worst counts
CALIBRATION, CALIBRATION_SIDE = 16, 256  # windows that set the ranges of int8; others than those compared
SPARED = (0, 1)  # convolutions at each end of the network that stay float32: none; where that is too coarse, one
LEAST = 1 << 14  # observed pixels on which an error is worth something
GAIN = 1.1  # times as fast as fp32, below which a precision is not worth its error
REPEATS = 2  # of each window, of which the faster counts
logger = logging.getLogger("swathe")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a precision changes against fp32, and how fast it is.

    Parameters
    ----------
    mean
        Mean change of a probability over observed pixels, of the class that changes most; in the worst group.
    changed
        Share of observed pixels whose class changes; in the worst group.
    iou
        Largest change of a class's expected IoU, see `expected_iou`; over all windows.
    speed
        Times as fast as fp32.
    """

    mean: float
    changed: float
    iou: float
    speed: float

    @property
    def error(self) -> float:
        """What counts against the tolerance: at 0.004, 99.8 % of the pixels keep their class."""
        return max(self.mean, 2 * self.changed, self.iou)

    def __str__(self) -> str:
        return f"{self.error:.4f}, {self.speed:.1f} times as fast as fp32"


def choose_precision(
    source: Source,
    bundle: Bundle,
    inference: InferenceSpec,
    options: SegmentOptions,
    begun: BegunRun | None = None,
) -> tuple[PrecisionChoice, InferenceSpec, BegunRun | None]:
    """Choose the precision of a run, and make its graph in int8 where that is it.

    Parameters
    ----------
    source
        The scene, in the bundle's values; some windows are read.
    bundle
        Of the network.
    inference
        In fp32, with the exact halo or the one that is asked for.
    options
        With the precision `int8`, which is taken whatever its error; or `auto`, and the largest error that it accepts,
        see `Measured`.
    begun
        What lies at the output; its choice is taken if it was made for the same scene, bundle and options.

    Returns
    -------
    choice, inference, begun
        `inference` in that precision. `begun`, if its choice was taken.

    Raises
    ------
    PlanError
        int8 is asked for, and there are too few observed pixels to set its ranges by.
    EngineError
        int8 is asked for, and does not run here, or NNCF is missing and there is no graph.
    """
    asked, facts = options.precision, (source, inference, options)
    if asked == "int8":
        resolve(replace(inference.spec, precision="int8"))
    if begun is not None and begun.choice.asked == asked_key(*facts):
        found = _as_begun(inference, bundle, begun)
        if found is not None:
            return begun.choice, found, begun
    if asked == "int8" and bundle.int8 is None and not can_quantise():
        raise EngineError(NO_NNCF)
    key = cache_key(*facts)
    choice = kept_choice(key)
    if choice is None or (choice.graph and _graph(bundle, choice.graph) is None):
        logger.info("measuring precisions of %s on the scene, once", bundle.metadata.name)
        choice = replace(_chosen(source, bundle, inference, asked, options.tolerance), asked=asked_key(*facts))
        keep_choice(key, choice)
    return choice, _in_precision(inference, bundle, choice), None


def _as_begun(inference: InferenceSpec, bundle: Bundle, begun: BegunRun) -> InferenceSpec | None:
    """Return what a run was begun with; None where that does not run here, or its graph is lost."""
    choice, carried = begun.choice, bundle.int8
    try:
        spec = resolve(replace(inference.spec, precision=choice.precision, graph=choice.graph))
        if begun.graph and QuantisedGraph.unpack(begun.graph).digest == choice.graph:
            return replace(inference, spec=spec, graph=begun.graph)
    except EngineError as error:
        logger.info("the precision that the run began with is not taken: %s", error)
        return None
    here = not choice.graph or begun.complete or (carried is not None and carried.digest == choice.graph)
    return replace(inference, spec=spec) if here else None


def _in_precision(inference: InferenceSpec, bundle: Bundle, choice: PrecisionChoice) -> InferenceSpec:
    spec = resolve(replace(inference.spec, precision=choice.precision, graph=choice.graph))
    graph = _graph(bundle, choice.graph) if choice.graph else None
    carried = graph is not None and bundle.int8 is not None and bundle.int8.digest == choice.graph
    return replace(inference, spec=spec, graph=b"" if graph is None or carried else graph.pack())


def _graph(bundle: Bundle, digest: str) -> QuantisedGraph | None:
    carried = bundle.int8
    return carried if carried is not None and carried.digest == digest else kept_graph(digest)


def _chosen(
    source: Source, bundle: Bundle, inference: InferenceSpec, asked: PrecisionOption, tolerance: float
) -> PrecisionChoice:
    windows = observed_windows(source, inference.plan, WINDOWS, SIDE)
    samples = read_samples(source, inference, windows)
    observed = sum(int(sample.valid.sum()) for sample in samples)
    if observed < LEAST:
        why = f"{observed:,} observed pixels were found to measure on, fewer than {LEAST:,}"
        if asked == "int8":
            if bundle.int8 is None:
                raise PlanError(f"int8 needs pixels to set its ranges by, and {why}; use --precision fp32")
            return PrecisionChoice("int8", bundle.int8.digest, 0.0,
                                   f"precision int8 by the bundle's graph, not compared with fp32: {why}")  # fmt: skip
        return PrecisionChoice("fp32", note=f"precision auto: fp32, since only {why}")
    comparison = Comparison.of(inference, samples)
    found = list(_candidates(source, bundle, inference, asked, comparison, tolerance))
    fits = [(how, one) for how, one in found if one.error <= tolerance and one.speed >= GAIN]
    if asked == "int8":
        how, one = min(found, key=lambda pair: pair[1].error)
        return replace(how, error=one.error, note=f"precision int8: measured error {one}")
    others = "; ".join(f"{how.precision} {one}" for how, one in found)
    if not fits:
        why = f"nothing faster is within it ({others})" if found else "nothing faster runs here"
        return PrecisionChoice("fp32", note=f"tolerance {tolerance:g}: precision fp32, since {why}")
    how, one = max(fits, key=lambda pair: pair[1].speed)
    rest = "; ".join(f"{other.precision} {two}" for other, two in found if other != how)
    note = f"tolerance {tolerance:g}: precision {how.precision} {one}" + (f" ({rest})" if rest else "")
    return replace(how, error=one.error, note=note)


def _candidates(
    source: Source,
    bundle: Bundle,
    inference: InferenceSpec,
    asked: PrecisionOption,
    comparison: "Comparison",
    tolerance: float,
) -> Iterator[tuple[PrecisionChoice, Measured]]:
    """Measure what runs here. Of int8 the plain graph first, and one that spares the ends of the network if needed."""
    for precision in ("int8", "bf16", "fp16"):
        if asked not in ("auto", precision):
            continue
        try:
            resolve(replace(inference.spec, precision=precision))
        except EngineError:
            continue
        if precision != "int8":
            yield PrecisionChoice(precision), comparison.measure(_with(inference, precision))
            continue
        for graph in _graphs(source, bundle, inference, asked):
            measured = comparison.measure_graph(graph)
            yield PrecisionChoice("int8", graph.digest), measured
            if measured.error <= tolerance or measured.speed < GAIN:
                break


def _graphs(
    source: Source, bundle: Bundle, inference: InferenceSpec, asked: PrecisionOption
) -> Iterator[QuantisedGraph]:
    if bundle.int8 is not None:
        yield bundle.int8
    elif can_quantise():
        tiles = calibration_tiles(source, inference)
        for spared in SPARED:
            try:
                graph = quantise_network(bundle, tiles, spared)
            except EngineError as error:
                if asked == "int8":
                    raise
                logger.info("int8 is left out: %s", error)
                return
            keep_graph(graph)
            yield graph


def calibration_tiles(source: Source, inference: InferenceSpec) -> list[NDArray[Any]]:
    """Read raw pixels `(band, y, x)` of windows spread over a scene, by which int8 sets its ranges."""
    windows = observed_windows(source, inference.plan, CALIBRATION, CALIBRATION_SIDE, seed=1)
    plain = replace(inference, plan=replace(inference.plan, halo=0))
    return [sample.pixels for sample in read_samples(source, plain, windows)]


def _with(inference: InferenceSpec, precision: Precision, graph: QuantisedGraph | None = None) -> InferenceSpec:
    digest, packed = ("", b"") if graph is None else (graph.digest, graph.pack())
    return replace(inference, spec=replace(inference.spec, precision=precision, graph=digest), graph=packed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Windows of a scene, and what fp32 says of them.

    Parameters
    ----------
    samples
        The windows.
    truth
        Probabilities `(class, pixel)` of the observed pixels of each in fp32.
    seconds
        That fp32 took.
    inference
        Whose decision tells the classes.
    """

    samples: Sequence[Sample]
    truth: Sequence[NDArray[np.float32]]
    seconds: float
    inference: InferenceSpec

    @classmethod
    def of(cls, inference: InferenceSpec, samples: Sequence[Sample]) -> "Comparison":
        """Run fp32 over windows."""
        truth, seconds = _answers(inference, samples)
        return cls(samples, truth, seconds, inference)

    def measure_graph(self, graph: QuantisedGraph) -> Measured:
        """Run the same network in int8."""
        return self.measure(_with(self.inference, "int8", graph))

    def measure(self, inference: InferenceSpec) -> Measured:
        """Run the same network in another precision."""
        answers, seconds = _answers(inference, self.samples)
        right, other = (np.concatenate(values, axis=1) for values in (self.truth, answers))
        thresholds = inference.encoding.thresholds
        classes = [classify(values[:, None], thresholds)[0] for values in (right, other)]
        change, changed = np.abs(right - other).max(axis=0), classes[0] != classes[1]
        group = np.repeat(np.arange(len(answers)) % GROUPS, [values.shape[1] for values in answers])
        count = np.bincount(group, minlength=GROUPS)
        means, shares = (
            np.bincount(group, weights=values, minlength=GROUPS) / np.maximum(count, 1) for values in (change, changed)
        )
        enough = count >= LEAST // GROUPS
        mean, share = (float(values[enough].max() if enough.any() else values.max()) for values in (means, shares))
        before, after = (expected_iou(right, mine) for mine in classes)
        return Measured(mean, share, float(np.abs(before - after).max()), self.seconds / seconds)


def expected_iou(probabilities: NDArray[np.float32], classes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the IoU of each class that a map would have if the probabilities were right.

    Parameters
    ----------
    probabilities
        `(class, pixel)`.
    classes
        The map, `(pixel,)`.
    """
    found = []
    for value, likely in enumerate(probabilities):
        taken = classes == value
        both, expected = likely[taken].sum(dtype=np.float64), likely.sum(dtype=np.float64)
        found.append(both / max(1.0, taken.sum() + expected - both))
    return np.array(found)


def _answers(inference: InferenceSpec, samples: Sequence[Sample]) -> tuple[list[NDArray[np.float32]], float]:
    """Return the probabilities `(class, pixel)` of the observed pixels of windows, and the seconds of the engine."""
    engine, found, seconds = own_engine(inference), [], 0.0
    engine.predict(samples[0].pixels[None])  # what is made ready at the first call is not counted
    for sample in samples:
        times = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            answer = engine.predict(sample.pixels[None])[0]
            times.append(time.perf_counter() - started)
        seconds += min(times)
        found.append(sample.core(answer)[:, sample.valid])
    return found, seconds
