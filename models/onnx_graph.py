"""What an ONNX file says of its network, without running it: input, layout, sides, what its answer is.

What graphs mean: https://onnx.ai/onnx/repo-docs/IR.html
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import onnx

from .errors import NetworkError
from .graph_form import LARGEST_BATCH, LARGEST_SIDE, Layout, Output
from .metadata import Activation
from .onnx_file import MOST_AXES, check_whole, names_said, read_model, said

# what stands between the last step that has a meaning and the output
PASSED = ("Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
# what takes some of the values, or values between them, so that probabilities stay such, if not one per class
KEEPING = ("Clip", "Resize", "Upsample", "Slice", "Gather", "Split", "DepthToSpace", "Dropout")
INPUTS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32",
}
COUNTS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.UINT8, onnx.TensorProto.INT8)

Shape = tuple[int | None, ...]  # None: of any size


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """What an ONNX file says of itself.

    Parameters
    ----------
    input, shape
        Name and shape of the one input; None: an axis of any size.
    dtype
        Of the input, as numpy calls it.
    layout
        Axes of the input. None: they cannot be told from its shape.
    bands, side, batch
        Of the input, where they are fixed.
    outputs
        Names of the outputs.
    output_name
        Of the output that was looked at: the only one, the one asked for, or the first.
    output
        What it ends in: `logits` where no softmax, sigmoid or choice of the largest is seen.
    activation
        Of an output of probabilities, else None.
    classes
        Channels of the output where they are fixed.
    parameters
        Numbers in its constants.
    producer
        The program that wrote it.
    properties
        Its `metadata_props`.
    """

    input: str
    shape: Shape
    dtype: str
    layout: Layout | None
    bands: int | None
    side: int | None
    batch: int | None
    outputs: tuple[str, ...]
    output_name: str
    output: Output
    activation: Activation | None
    classes: int | None
    parameters: int
    producer: str
    properties: Mapping[str, str] = field(default_factory=dict)


def inspect(path: str | os.PathLike[str], output_name: str = "", layout: Layout | None = None) -> OnnxGraph:
    """Look at an ONNX file, without running it.

    Parameters
    ----------
    path
        Of the file.
    output_name
        Of the output that is meant; empty: the first.
    layout
        Of the input, where it is known.

    Raises
    ------
    NetworkError
        It is no ONNX; it has several inputs, an unknown rank, operators that ONNX does not define, data outside of its
        folder; or it is larger or deeper than networks are.
    """
    model, name = read_model(path), os.fspath(path)
    found = describe(model, name, output_name, layout)
    check_whole(model, name)
    return found


def describe(model: Any, name: str, output_name: str = "", layout: Layout | None = None) -> OnnxGraph:
    """As `inspect`, of a model that was read; `name` is that of its file, for messages."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        names = names_said(value.name for value in given) or "none"
        raise NetworkError(f"{name} has {len(given)} inputs ({names}); Swathe runs networks of one, the pixels")
    if not graph.output:
        raise NetworkError(f"{name} has no output")
    shape, found = _shape(given[0], name), layout
    if len(shape) != 4:
        raise NetworkError(
            f"{name}: the input {said(given[0].name)} has {len(shape)} axes; batch, bands, rows, columns are 4"
        )
    element = given[0].type.tensor_type.elem_type
    if element not in INPUTS:
        raise NetworkError(
            f"{name}: the input {said(given[0].name)} is no tensor of pixels; Swathe gives {', '.join(INPUTS.values())}"
        )
    found = found or _layout(shape)
    bands, rows, columns = (shape[i] for i in ((3, 1, 2) if found == "NHWC" else (1, 2, 3)))
    if rows != columns:
        raise NetworkError(
            f"{name} takes {_size(rows)} rows and {_size(columns)} columns; tiles are squares: "
            "export it with equal or free sides"
        )
    for value, most, what in ((rows, LARGEST_SIDE, "rows"), (shape[0], LARGEST_BATCH, "tiles")):
        if value is not None and not 1 <= value <= most:
            raise NetworkError(f"{name} takes {value:,} {what} at once; at most {most:,} are given")
    chosen = _output(graph, name, output_name)
    kind, activation = _ending(graph, chosen)
    return OnnxGraph(
        input=given[0].name,
        shape=shape,
        dtype=INPUTS[element],
        layout=found,
        bands=bands if found else None,
        side=rows,
        batch=shape[0],
        outputs=tuple(value.name for value in graph.output),
        output_name=chosen.name,
        output=kind,
        activation=activation,
        classes=_classes(chosen, name, found, kind),
        parameters=sum(prod(tensor.dims) for tensor in graph.initializer),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        properties={entry.key: entry.value for entry in model.metadata_props},
    )


def _size(side: int | None) -> str:
    return "any number of" if side is None else str(side)


def _shape(value: Any, name: str) -> Shape:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise NetworkError(
            f"{name}: {said(value.name)} does not say how many axes it has; export it with an input of 4"
        )
    if len(tensor.shape.dim) > MOST_AXES:
        raise NetworkError(f"{name}: {said(value.name)} has {len(tensor.shape.dim):,} axes, and is no image")
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _layout(shape: Shape) -> Layout | None:
    """Tell bands from sides: sides are equal; else bands are fixed where sides are not, or fewer."""
    first, middle, last = shape[1:]
    if (first == middle) != (middle == last):
        return "NHWC" if first == middle else "NCHW"
    if first is None and last is None:
        return None
    if last is None or (first is not None and first <= last):
        return "NCHW"
    return "NHWC"


def _output(graph: Any, name: str, asked: str) -> Any:
    if not asked:
        return graph.output[0]
    for value in graph.output:
        if value.name == asked:
            return value
    raise NetworkError(f"{name} has no output {asked!r}; it has {names_said(value.name for value in graph.output)}")


def _ending(graph: Any, output: Any) -> tuple[Output, Activation | None]:
    """Find what the last step with a meaning makes of an output."""
    made_by = {result: node for node in graph.node for result in node.output}
    node = _before(PASSED, made_by.get(output.name), made_by)
    if (node is not None and node.op_type == "ArgMax") or output.type.tensor_type.elem_type in COUNTS:
        return "classes", None
    first, node = node, _before((*PASSED, *KEEPING), node, made_by)
    step = node.op_type if node is not None else ""
    if step not in ("Softmax", "Sigmoid"):
        return "logits", None
    if step == "Softmax":  # some of its classes alone no longer are one
        return "probabilities", "softmax" if node is first else None
    return "probabilities", "sigmoid"


def _before(passed: tuple[str, ...], node: Any, made_by: Mapping[str, Any]) -> Any:
    """Go back to the operator whose values those named in `passed` hand on; None: there is none."""
    for _ in range(len(made_by)):
        if node is None or node.op_type not in passed:
            break
        node = made_by.get(node.input[0]) if node.input else None
    return node


def _classes(output: Any, name: str, layout: Layout | None, kind: Output) -> int | None:
    if kind == "classes" or not output.type.tensor_type.HasField("shape"):
        return None
    shape = _shape(output, name)
    return shape[3 if layout == "NHWC" else 1] if len(shape) == 4 else None
