"""The engine that runs a bundle's ONNX graph in ONNX Runtime, on a CPU, or on a GPU by CUDA or TensorRT."""

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .encoding import NODATA, Encoding, Prediction, classify, encode
from .errors import BundleError, EngineError, NetworkError
from .graph_form import GraphForm, check_side, in_batches
from .metadata import Activation
from .onnx_file import check_whole, parse
from .onnx_graph import describe
from .system import usable_cpus

if TYPE_CHECKING:
    from .bundle import Bundle

ON_GPU = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
)  # the first that are installed; CPU does what they cannot
ON_CPU = "CPUExecutionProvider"
GPU_BATCH = 4  # tiles passed to a GPU together
FATAL = 4  # of ONNX Runtime's log levels: what goes wrong is raised, too


class OnnxEngine:
    """An `Engine` of one session, which calls share. On a CPU each call computes in its own thread.

    On a CPU every call has one thread where there are as many calls as cores, so that cores do not wait for each other.
    Scaling and activation are numpy's, in float32.
    """

    def __init__(self, bundle: "Bundle", device: str, slots: int, threads: int | None) -> None:
        metadata = bundle.metadata
        self.slots, self._form = slots, GraphForm.of(metadata.options)
        self._activation, self._classes = metadata.activation, len(metadata.classes)
        self._offset, self._divisor = (
            np.array(values, np.float32).reshape(1, -1, 1, 1)
            for values in (metadata.scaling.offset, metadata.scaling.divisor)
        )
        self.batch = self._form.batch or (GPU_BATCH if device == "cuda" else 1)
        self._free = threading.Semaphore(slots)
        self._session, self._dtype = _session(bundle, device, max(1, (threads or usable_cpus()) // slots))
        self._input = self._session.get_inputs()[0].name

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities `(n, class, y, x)` float32 of raw pixels `(n, band, y, x)`."""
        check_side(self._form.side, pixels.shape)
        with self._free:
            scaled = (pixels.astype(np.float32) - self._offset) / self._divisor
            answer = in_batches(self._answer, scaled, self._form.batch)[0]
            found = probabilities_of(answer, self._form, self._activation, self._classes)
        if found.shape[1] != self._classes:
            raise EngineError(f"the graph answers for {found.shape[1]} classes, and the bundle has {self._classes}")
        return found

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """Class map and probabilities of raw pixels `(n, band, y, x)`; see `Engine`."""
        probabilities = self.predict(pixels)
        class_map = np.stack([classify(one, encoding.thresholds) for one in probabilities])
        class_map[np.isnan(probabilities).any(axis=1)] = NODATA
        if not (encoding.probability and encoding.kept):
            return Prediction(class_map, None)
        with np.errstate(invalid="ignore"):  # of NaN, which is anything there
            return Prediction(class_map, encode(probabilities[:, list(encoding.kept)], np.dtype(encoding.probability)))

    def _answer(self, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        given = pixels.transpose(0, 2, 3, 1) if self._form.layout == "NHWC" else pixels
        if self._dtype.kind != "f":
            bounds = np.iinfo(self._dtype)
            # of int32, the nearest float32 is one more than the most
            most = np.nextafter(np.float32(bounds.max), np.float32(0)) if bounds.bits > 24 else bounds.max
            given = np.clip(np.rint(given), bounds.min, most)
        names = [self._form.output_name] if self._form.output_name else None
        try:
            return list(self._session.run(names, {self._input: np.ascontiguousarray(given, self._dtype)})[:1])
        except Exception as error:  # of classes that ONNX Runtime does not export
            raise EngineError(
                f"ONNX Runtime could not run a tile of {pixels.shape[2]} x {pixels.shape[3]} pixels: {_first(error)}"
            ) from error


def _session(bundle: "Bundle", device: str, threads: int) -> tuple[Any, np.dtype[Any]]:
    """Load a bundle's graph; return its session, and the type that it takes."""
    content, name = bundle.onnx(), str(bundle.path)
    try:
        model = parse(content, name)
        check_whole(model, name)
        graph = describe(model, name)
    except NetworkError as error:
        raise BundleError(str(error)) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_mem_pattern = False  # with it, the second call takes half as much memory again, and is no faster
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # cores are shared with what reads and writes
    there = [one for one in ON_GPU if device == "cuda" and one in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=[*there, ON_CPU])
    except Exception as error:  # as above
        raise BundleError(f"{name}: ONNX Runtime cannot take the graph: {_first(error)}") from error
    if device == "cuda" and session.get_providers()[0] == ON_CPU:
        raise EngineError("ONNX Runtime found no GPU that it can use; use --device cpu")
    return session, np.dtype(graph.dtype)


def probabilities_of(
    answer: NDArray[Any], form: GraphForm, activation: Activation, classes: int
) -> NDArray[np.float32]:
    """Probabilities `(n, class, y, x)` of what a graph answers; NaN in all classes where any of it is not finite."""
    if form.output_layout == "NHW":
        answer = answer[:, None]
    ordered = answer.transpose(0, 3, 1, 2) if form.output_layout == "NHWC" else answer
    channels = np.array(ordered, np.float32)
    with np.errstate(all="ignore"):
        if form.output == "classes":
            numbers = np.arange(classes, dtype=np.float32).reshape(1, -1, 1, 1)
            chosen: NDArray[np.float32] = (channels == numbers).astype(np.float32)
            chosen /= chosen.sum(axis=1, keepdims=True)  # NaN: there is no such class
            return chosen
        total = channels.sum(axis=1, keepdims=True, dtype=np.float32)
        found: NDArray[np.float32] = channels if form.output == "probabilities" else _activated(channels, activation)
        found += total - total
        return found if found.shape[1] > 1 else np.concatenate([1 - found, found], axis=1)


def _activated(logits: NDArray[np.float32], activation: Activation) -> Any:
    if activation == "sigmoid":
        return np.reciprocal(1 + np.exp(-logits))
    powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True, dtype=np.float32)
    return powers


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
