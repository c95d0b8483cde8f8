"""The OpenVINO engine, the fastest on most CPUs. The converted network stays in the user's cache between runs."""

import logging
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .encoding import NODATA, STEPS, Decision, Encoding, Prediction
from .errors import BundleError, EngineError
from .files import keep_file
from .graph_form import ONNX, check_side, fixed_shape, in_batches
from .openvino_core import CORE, ov
from .openvino_upsampling import same_bits_upsampling
from .quantised import QuantisedGraph, check_graph
from .system import cache_folder, usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")
ops = ov.opset13

GRAPH = 4  # counts up when the graph that is made of a bundle changes, so that no older one is taken from the cache
# int8: of what is not quantised
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
# raw types that the compiled graph takes as they are; others are made float32 on the host first
NATIVE = {np.dtype(t) for t in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")}


class OpenVINOEngine:
    """An `Engine` with a stream for each call at a time, so that cores do not wait for each other at every layer.

    There is one compiled graph per raw dtype and encoding, for tiles of any size.
    """

    def __init__(
        self, bundle: "Bundle", precision: str, slots: int, threads: int | None, int8: QuantisedGraph | None = None
    ) -> None:
        self._side, self._batch = fixed_shape(bundle.metadata)
        self.batch = self._batch or 1
        self._model = same_bits_upsampling(load_graph(bundle) if int8 is None else _int8(bundle, int8))
        # the CPU plugin compiles no graph in int8 that begins with another type than these
        self._native = NATIVE if int8 is None else {np.dtype("uint8"), np.dtype("float32")}
        self.slots = slots
        self._config = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "NUM_STREAMS": slots,
            "INFERENCE_NUM_THREADS": threads or usable_cpus(),
            "ENABLE_CPU_PINNING": False,  # workers share cores with those that read and write
        }
        self._compiled: dict[tuple[np.dtype[Any], Encoding | None], ov.CompiledModel] = {}
        self._compiling = threading.Lock()
        self._requests = threading.local()

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)`."""
        return self._run(pixels, None)[0]

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """Class map and probabilities of raw pixels `(n, band, y, x)`; see `Engine`."""
        class_map, *probability = self._run(pixels, encoding)
        return Prediction(class_map[:, 0], probability[0] if probability else None)

    def _run(self, pixels: NDArray[Any], encoding: Encoding | None) -> list[NDArray[Any]]:
        if pixels.dtype not in self._native or not pixels.dtype.isnative:
            pixels = pixels.astype(np.float32)
        check_side(self._side, pixels.shape)
        request = self._request(pixels.dtype, encoding)
        try:
            return in_batches(partial(_infer, request), pixels, self._batch)
        except RuntimeError as error:
            hint = "; use a smaller --tile" if "alloc" in str(error).lower() else ""
            raise EngineError(
                f"OpenVINO could not run a tile of {pixels.shape[2]} x {pixels.shape[3]} pixels{hint}: {_first(error)}"
            ) from error

    def _request(self, dtype: np.dtype[Any], encoding: Encoding | None) -> "ov.InferRequest":
        """Return this thread's own request, with its own buffers: requests are not shared, graphs are."""
        requests: dict[Any, ov.InferRequest] = self._requests.__dict__
        key = (dtype, encoding)
        if key not in requests:
            with self._compiling:
                if key not in self._compiled:
                    self._compiled[key] = self._compile(dtype, encoding)
            requests[key] = self._compiled[key].create_infer_request()
        return requests[key]

    def _compile(self, dtype: np.dtype[Any], encoding: Encoding | None) -> "ov.CompiledModel":
        steps = ov.preprocess.PrePostProcessor(self._model.clone())
        steps.input().tensor().set_element_type(ov.Type(dtype))
        model = steps.build()
        if encoding is not None:
            model = _encoded(model, encoding)
        return CORE.compile_model(model, "CPU", self._config)


def _infer(request: "ov.InferRequest", pixels: NDArray[Any]) -> list[NDArray[Any]]:
    results = request.infer(np.ascontiguousarray(pixels), share_inputs=True)
    return [np.asarray(results[place]) for place in range(len(results))]


def _encoded(model: "ov.Model", encoding: Encoding) -> "ov.Model":
    """Let a graph of probabilities end in class map uint8 `(n, 1, y, x)` and probabilities as they are kept."""
    probabilities = model.output(0).get_node().input_value(0)
    count = probabilities.get_partial_shape()[1].get_length()
    by_class = [ops.gather(probabilities, np.array([value]), np.array(1)) for value in range(count)]
    last = by_class[-1]  # of all classes or of none it is NaN, which `maximum` may drop
    known = ops.select(ops.equal(last, last), _classified(by_class, encoding.thresholds), np.float32(NODATA))
    outputs = [ops.convert(known, "u8")]
    if encoding.probability and encoding.kept:
        kept = ops.concat([by_class[value] for value in encoding.kept], 1)
        if encoding.probability == "uint8":  # a conversion cuts off what follows the point
            kept = ops.convert(ops.add(ops.multiply(kept, np.float32(STEPS)), np.float32(0.5)), "u8")
        elif encoding.probability == "float16":
            kept = ops.convert(kept, "f16")
        outputs.append(kept)
    return ov.Model(outputs, model.get_parameters())


def _classified(by_class: list[Any], thresholds: Decision | None) -> Any:
    """Return the class as a float32 `(n, 1, y, x)`: `encoding.classify` in the graph."""
    background = -1 if thresholds is None else thresholds.index(None)
    first, *others = (value for value in range(len(by_class)) if value != background)
    bounds = [np.float32(np.inf if bound is None else bound) for bound in thresholds or ()]
    best, classes, bound = by_class[first], np.float32(first), bounds[first] if bounds else None
    for value in others:
        above = ops.greater(by_class[value], best)
        classes, best = ops.select(above, np.float32(value), classes), ops.maximum(by_class[value], best)
        if bounds:
            bound = ops.select(above, bounds[value], bound)
    return ops.select(ops.greater(best, bound), classes, np.float32(background)) if bounds else classes


def _int8(bundle: "Bundle", graph: QuantisedGraph) -> "ov.Model":
    try:
        model = CORE.read_model(graph.xml, graph.weights)
    except (RuntimeError, TypeError) as error:
        raise BundleError(f"{bundle.path}: OpenVINO cannot read the int8 graph: {_first(error)}") from error
    check_graph(model, bundle)
    return model


def load_graph(bundle: "Bundle") -> "ov.Model":
    """Load the graph from float32 pixels to probabilities from the cache, else convert and keep it."""
    path = cache_folder("openvino") / f"{bundle.digest}-{GRAPH}-{ov.__version__.split('-')[0]}.xml"
    kept = _read(path)
    if kept is None:
        model = _convert(bundle)
        # the .xml is put in place last, since it is what later runs look for
        keep_file(path, "the converted network", lambda part: ov.save_model(model, part, compress_to_fp16=False))
        # read back, since a graph that was kept is rounded a little otherwise than one just converted
        kept = _read(path) or model
    return kept


def _read(path: Path) -> "ov.Model | None":
    if not path.exists() or not path.with_suffix(".bin").exists():
        return None
    try:
        return CORE.read_model(path)
    except RuntimeError as error:
        logger.info("the cached network %s cannot be read and is made anew: %s", path, error)
        return None


def _convert(bundle: "Bundle") -> "ov.Model":
    if bundle.metadata.architecture == ONNX:
        from .onnx_openvino import bundle_graph

        return bundle_graph(bundle)
    import torch  # only here: a network from the cache must not wait for torch

    metadata = bundle.metadata
    side = 2 * max(64, metadata.receptive_field.stride)
    shape = ov.PartialShape([-1, len(metadata.bands), -1, -1])
    segmenter = bundle.segmenter()  # whose errors are the bundle's, not OpenVINO's
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing
            example = torch.zeros(1, len(metadata.bands), side, side)
            return ov.convert_model(segmenter, example_input=example, input=[(shape, ov.Type.f32)])
    except Exception as error:
        raise EngineError(
            f"OpenVINO cannot take {metadata.architecture}; use --engine torch ({_first(error)})"
        ) from error


def _first(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
