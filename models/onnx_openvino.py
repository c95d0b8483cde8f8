"""An ONNX graph in OpenVINO, with scaling and activation around it: from raw pixels to probabilities.

OpenVINO's own layer for ONNX reads it; its shapes stay as they are, fixed sides and a fixed batch too.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError, NetworkError
from .graph_form import GraphForm, in_batches
from .metadata import Scaling
from .onnx_file import check_whole, parse
from .onnx_graph import describe
from .openvino_core import CORE, ov
from .redact import printable

if TYPE_CHECKING:
    from .bundle import Bundle

ops = ov.opset13
WHOLE = {
    "u8": (0, 255),
    "i8": (-128, 127),
    "u16": (0, 65535),
    "i16": (-(2**15), 2**15 - 1),
    "i32": (-(2**31), 2**31 - 128),
}
AXES = {"NHWC": (0, 3, 1, 2), "NCHW": (0, 1, 2, 3)}  # of a layout, in the order of NCHW


def read_graph(content: bytes, name: str) -> "ov.Model":
    """Read an ONNX graph that holds all its data. Raises NetworkError; `name` is for messages."""
    graph = parse(content, name)
    describe(graph, name)  # refuses several inputs, and what has no rows and columns
    check_whole(graph, name)
    try:
        return CORE.read_model(BytesIO(content))
    except Exception as error:  # of OpenVINO and of its bindings
        raise NetworkError(f"OpenVINO cannot take {name}: {said_by(error)}") from error


def said_by(error: Exception) -> str:
    """Return the line of OpenVINO's message that says what is wrong: the last, after those of places in its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable((lines[-1] if lines else type(error).__name__)[:300])


def bundle_graph(bundle: "Bundle") -> "ov.Model":
    """Return the graph of a bundle that holds an ONNX, from float32 raw pixels to probabilities, NCHW both.

    Raises
    ------
    BundleError
        It cannot be read, or is not from the bundle's bands to its classes.
    """
    metadata, form = bundle.metadata, GraphForm.of(bundle.metadata.options)
    try:
        model = read_graph(bundle.onnx(), f"{bundle.path}")
        pixels = _pixels(form, len(metadata.bands))
        channels = surround(model, form, _scaled(pixels, metadata.scaling))
        probabilities = _probabilities(channels, form, metadata.activation, len(metadata.classes))
        made = ov.Model([probabilities], [pixels])
        made.validate_nodes_and_infer_types()
    except NetworkError as error:
        raise BundleError(str(error)) from error
    except RuntimeError as error:
        raise BundleError(f"{bundle.path}: the graph is not what the bundle says: {said_by(error)}") from error
    count = made.output(0).get_partial_shape()[1]
    if count.is_static and count.get_length() != len(metadata.classes):
        raise BundleError(
            f"{bundle.path}: the graph answers for {count.get_length()} classes, not {len(metadata.classes)}"
        )
    return made


def plain_graph(content: bytes, name: str, form: GraphForm, bands: int) -> "ov.Model":
    """Return a graph from scaled pixels to channels float32, NCHW both. Raises NetworkError."""
    model, pixels = read_graph(content, name), _pixels(form, bands)
    try:
        return ov.Model([surround(model, form, pixels)], [pixels])
    except RuntimeError as error:
        raise NetworkError(f"{name} is not what its options say: {said_by(error)}") from error


def _pixels(form: GraphForm, bands: int) -> Any:
    side, batch = form.side or -1, form.batch or -1
    return ops.parameter([batch, bands, side, side], np.float32, name="pixels")


def _scaled(pixels: Any, scaling: Scaling) -> Any:
    offset, divisor = (
        np.array(values, np.float32).reshape(1, -1, 1, 1) for values in (scaling.offset, scaling.divisor)
    )
    return ops.divide(ops.subtract(pixels, offset), divisor)


def surround(model: "ov.Model", form: GraphForm, pixels: Any) -> Any:
    """Put a graph's pixels, NCHW float32, in place of its input; return its output as NCHW float32."""
    parameter = model.get_parameters()[0]
    kind = parameter.get_element_type().get_type_name()
    given = pixels
    if kind in WHOLE:
        given = ops.clamp(ops.round(given, "half_to_even"), *map(float, WHOLE[kind]))
    if kind != "f32":
        given = ops.convert(given, kind)
    if form.layout == "NHWC":
        given = ops.transpose(given, np.array([0, 2, 3, 1]))
    parameter.output(0).replace(given.output(0))
    output = model.output(form.output_name) if form.output_name else model.output(0)
    channels = ops.convert(output.get_node().input_value(0), "f32")
    if form.output_layout == "NHW":
        return ops.unsqueeze(channels, np.array(1))
    if form.output_layout == "NHWC":
        return ops.transpose(channels, np.array(AXES["NHWC"]))
    return channels


def _probabilities(channels: Any, form: GraphForm, activation: str, classes: int) -> Any:
    """Probabilities of what a graph answers; NaN in all classes where any of it is not finite."""
    if form.output == "classes":
        numbers = np.arange(classes, dtype=np.float32).reshape(1, -1, 1, 1)
        chosen = ops.convert(ops.equal(_counted(channels, 1, 1), numbers), "f32")
        return ops.divide(chosen, ops.reduce_sum(chosen, np.array([1]), keep_dims=True))  # NaN: no such class
    one_alone = activation == "sigmoid" and classes == 2  # of the second class, if it is one
    counted = _counted(channels, 1 if one_alone else classes, classes)
    total = ops.reduce_sum(counted, np.array([1]), keep_dims=True)
    if form.output == "probabilities":
        found = counted
    elif activation == "softmax":
        found = ops.softmax(counted, 1)
    else:
        found = ops.sigmoid(counted)
    found = ops.add(found, ops.subtract(total, total))
    count = channels.get_output_partial_shape(0)[1]
    if count.is_static and count.get_length() == 1:
        return ops.concat([ops.subtract(np.float32(1), found), found], 1)
    return _with_background(found, _count(channels)) if one_alone and count.is_dynamic else found


def _count(channels: Any) -> Any:
    return ops.gather(ops.shape_of(channels), np.array([1]), np.array(0))


def _counted(channels: Any, least: int, most: int) -> Any:
    """Return `most` channels of a graph that does not count them; all are NaN if it has more, or fewer than `least`.

    The last stands for those that are missing. A reshape would do, but the CPU plugin does not check it, and crashed.
    """
    if channels.get_output_partial_shape(0)[1].is_static:
        return channels
    count = _count(channels)
    taken = ops.gather(channels, ops.minimum(np.arange(most), ops.subtract(count, np.array([1]))), np.array(1))
    fits = ops.logical_and(ops.greater_equal(count, np.array([least])), ops.less_equal(count, np.array([most])))
    return ops.add(taken, ops.select(fits, np.float32(0), np.float32(np.nan)))


def _with_background(found: Any, count: Any) -> Any:
    """Put the first class before the second, where a graph answers for that alone, which only a run shows."""
    first, last = (ops.gather(found, np.array([place]), np.array(1)) for place in (0, 1))
    alone = ops.equal(count, np.array([1]))
    return ops.concat([ops.select(alone, ops.subtract(np.float32(1), last), first), last], 1)


class Answers:
    """A graph from scaled pixels `(n, band, y, x)` to channels `(n, channel, y, x)`, both float32, on this CPU."""

    def __init__(self, model: "ov.Model") -> None:
        try:
            hints = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
            self._compiled = CORE.compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise NetworkError(f"OpenVINO cannot run the graph: {said_by(error)}") from error
        batch = model.input(0).get_partial_shape()[0]
        self._batch = batch.get_length() if batch.is_static else None

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the graph answers. Raises ValueError where it takes no such size."""
        try:
            return in_batches(lambda part: [np.array(self._compiled(part)[0])], pixels, self._batch)[0]
        except RuntimeError as error:
            raise ValueError(said_by(error)) from error
