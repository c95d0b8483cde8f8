"""An ONNX graph that carries a NaN from each input to all outputs that depend on it, to measure its receptive field.

Runtimes drop a NaN where they take a maximum: in ReLU, pooling, softmax and clamps. In the graph made here, such steps
are replaced by ones that look at the same pixels and only add and multiply. Steps that are neither known to hand a NaN
on, nor to be replaced, are refused, so that no radius is found.

A product with zero is NaN for NaN. Where a runtime leaves it out, the answer does not depend on that pixel either.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .errors import NetworkError
from .onnx_file import said

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
NO_PIXELS = ("Shape", "Size", "EyeLike")  # what these give does not depend on what pixels are
# arithmetic, in which each input that is NaN makes all that is made of it NaN
ARITHMETIC = {
    "Add", "BatchNormalization", "Concat", "Conv", "ConvTranspose", "Einsum", "Gemm", "GroupNormalization",
    "InstanceNormalization", "LayerNormalization", "MatMul", "Mean", "Mul", "Sub", "Sum",
}  # fmt: skip
# of the first input as well; others say where from or how, and are no pixels. Two pixels divided may be 0 / 0, so that
# they are joined
MOVING = {
    "AveragePool", "Cast", "CumSum", "DepthToSpace", "Div", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "GlobalAveragePool", "Identity", "LRN", "MeanVarianceNormalization", "Pad", "ReduceMean", "ReduceSum", "Reshape",
    "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
}  # fmt: skip
# of one pixel alone, and of what other inputs have at its place
POINTWISE = {
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Ceil", "Clip", "Cos", "Cosh", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Neg", "PRelu", "Reciprocal",
    "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan",
    "Tanh", "ThresholdedRelu", "Dropout", "Not", "BitwiseNot", "IsNaN", "IsInf", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
JOINING = {
    "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Min", "Mod", "Or", "Pow", "Where", "Xor",
}  # fmt: skip
# operators that look at what another does, and which of its attributes that one knows; None: all
ADDING: Mapping[str, tuple[str, tuple[str, ...] | None]] = {
    "MaxPool": ("AveragePool", ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "dilations")),
    "GlobalMaxPool": ("GlobalAveragePool", ()),
    **dict.fromkeys(
        ("ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
         "ReduceSumSquare"), ("ReduceMean", None),
    ),
}  # fmt: skip
SPREADING = ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")  # of all values along an axis, at each of them
AXES_AS_INPUT = 13  # opset from which ReduceSum takes axes as an input, and Softmax one axis

Carried = dict[str, int]  # values that depend on pixels, and which float type they have


def carrying(model: Any) -> bytes:
    """Return an ONNX model in which nothing that depends on a pixel drops a NaN, as bytes.

    Parameters
    ----------
    model
        `onnx.ModelProto` that holds all its data, with one input. Inputs and outputs that are whole numbers become
        floats.

    Raises
    ------
    NetworkError
        It has operators of which it is not known that they hand a NaN on.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    opset = max((one.version for one in made.opset_import if one.domain in ("", "ai.onnx")), default=1)
    constants = {tensor.name for tensor in graph.initializer}
    pixels = [value for value in graph.input if value.name not in constants]
    carried = {value.name: _made_float(value) for value in pixels}
    nodes = [each for node in graph.node for each in _carried_on(node, carried, opset)]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # types and shapes of what was replaced
    for value in graph.output:
        if value.name in carried:
            value.type.tensor_type.elem_type = carried[value.name]
    return bytes(made.SerializeToString())


def _made_float(value: Any) -> int:
    """Give a graph's input a type that has NaN, and return it."""
    kind = value.type.tensor_type
    if kind.elem_type not in FLOATS:
        kind.elem_type = onnx.TensorProto.FLOAT
    return int(kind.elem_type)


def _carried_on(node: Any, carried: Carried, opset: int) -> list[Any]:
    """Return what stands in place of an operator, and add what it makes of pixels to `carried`."""
    if not carried.keys() & set(_taken(node)) or node.op_type in NO_PIXELS:
        return [node]
    made = _replaced(node, carried, opset)
    kind = next(carried[name] for name in node.input if name in carried)
    if made == [node] and node.op_type == "Cast":
        kind = helper.get_node_attr_value(node, "to")
    carried.update(dict.fromkeys(filter(None, node.output), kind))
    return made


def _taken(node: Any) -> Iterator[str]:
    """Yield the names of what an operator takes, and of what graphs within it take."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (value.name for value in inner.output)
            for each in inner.node:
                yield from _taken(each)


def _replaced(node: Any, carried: Carried, opset: int) -> list[Any]:
    """Return what stands in place of an operator; the operator itself where it drops no NaN."""
    kind, result = node.op_type, node.output[0]
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    first_alone = [place for place, name in enumerate(node.input) if name in carried] == [0]
    if node.domain in ("", "ai.onnx"):
        if (kind in POINTWISE or (kind == "Cast" and attributes["to"] not in FLOATS)) and first_alone:
            return [helper.make_node("Identity", node.input[:1], [result])]
        if kind in ARITHMETIC or (kind in MOVING and first_alone):
            return [node]
        if kind == "Where" and node.input[0] not in carried:  # of places, not of pixels
            return [node]
        if kind in POINTWISE or kind in JOINING or kind == "Div":
            return _joined(node, carried)
        if kind in SPREADING:
            return _spread(node, attributes, opset)
        if kind in ("ArgMax", "ArgMin"):
            return _summed(node.input[0], [attributes.get("axis", 0)], result, attributes.get("keepdims", 1), opset)
        if kind in ADDING and first_alone:
            return [_adding(node)]
    raise NetworkError(f"of the operator {said(kind)} it is not known how a NaN goes through it")


def _joined(node: Any, carried: Carried) -> list[Any]:
    """Return the nodes that add up all inputs, so that the result has the shape that it has."""
    result, nodes, terms = node.output[0], [], []
    names = [name for name in node.input if name]
    kind = next(carried[name] for name in names if name in carried)
    for place, name in enumerate(names):
        term = name
        if name not in carried:  # whatever its type is; as 0 or 1, since an infinite constant would be handed on as NaN
            nodes.append(helper.make_node("Cast", [name], [f"{result}/{place}/bool"], to=onnx.TensorProto.BOOL))
            term = f"{result}/{place}/bool"
        if name not in carried or carried[name] != kind:
            nodes.append(helper.make_node("Cast", [term], [f"{result}/{place}"], to=kind))
            term = f"{result}/{place}"
        terms.append(term)
    return [*nodes, helper.make_node("Sum", terms, [result])]


def _spread(node: Any, attributes: Mapping[str, int], opset: int) -> list[Any]:
    """Return the nodes that add to each value the sum along the axis."""
    result, one_axis = node.output[0], opset >= AXES_AS_INPUT or node.op_type == "LpNormalization"
    axis = attributes.get("axis", -1 if one_axis else 1)
    axes = [axis] if one_axis or axis in (-1, 3) else [1, 2, 3]
    total = helper.make_node("Add", [node.input[0], f"{result}/sum"], [result])
    return [*_summed(node.input[0], axes, f"{result}/sum", 1, opset), total]


def _adding(node: Any) -> Any:
    """Return the operator that looks at the same pixels, and adds."""
    other, kept = ADDING[node.op_type]
    made = helper.make_node(other, node.input, node.output[:1])
    for each in node.attribute:
        usual = each.name == "dilations" and set(each.ints) == {1}  # which average pooling knows from opset 19 on
        if (kept is None or each.name in kept) and not usual:
            made.attribute.append(each)
    return made


def _summed(name: str, axes: list[int], result: str, keep: int, opset: int) -> list[Any]:
    """Return the nodes that add up along axes."""
    if opset < AXES_AS_INPUT:
        return [helper.make_node("ReduceSum", [name], [result], keepdims=keep, axes=axes)]
    tensor = numpy_helper.from_array(np.array(axes, np.int64))
    return [
        helper.make_node("Constant", [], [f"{result}/axes"], value=tensor),
        helper.make_node("ReduceSum", [name, f"{result}/axes"], [result], keepdims=keep),
    ]
