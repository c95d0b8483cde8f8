"""An ONNX graph that carries a NaN from each input to all outputs that depend on it, to measure its receptive field.

Runtimes drop a NaN where they take a maximum: in ReLU, pooling, softmax and clamps. In the graph made here, such steps
are replaced by ones that look at the same pixels and only add and multiply.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# of one pixel alone: they pass it on
POINTWISE = {
    "Abs", "Celu", "Ceil", "Clip", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log",
    "Mish", "Neg", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Softplus", "Softsign",
    "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Dropout", "Not", "IsNaN", "IsInf",
    "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
# operators that look at what another does, and which of its attributes that one knows
ADDING = {
    "MaxPool": ("AveragePool", ("kernel_shape", "strides", "pads", "auto_pad", "ceil_mode", "dilations")),
    "GlobalMaxPool": ("GlobalAveragePool", ()),
    "ReduceMax": ("ReduceMean", None),
    "ReduceMin": ("ReduceMean", None),
    "Max": ("Sum", ()),
    "Min": ("Sum", ()),
}
COMPARING = {
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
}  # as Where, if that chooses
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
NO_PIXELS = ("Shape", "Size")  # what these give does not depend on what pixels are
AXES_AS_INPUT = 13  # opset from which ReduceSum takes axes as an input, and Softmax one axis


def carrying(model: Any) -> bytes:
    """Return an ONNX model in which nothing that depends on a pixel drops a NaN, as bytes.

    Parameters
    ----------
    model
        `onnx.ModelProto` that holds all its data, with one input. Outputs that are whole numbers become floats.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, opset = (
        made.graph,
        max((one.version for one in made.opset_import if one.domain in ("", "ai.onnx")), default=1),
    )
    constants = {tensor.name for tensor in graph.initializer}
    carried = {value.name for value in graph.input if value.name not in constants}
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type not in NO_PIXELS and carried.intersection(node.input):
            nodes += _replaced(node, carried, opset)
            carried.update(node.output)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]  # types and shapes of what was replaced
    for value in graph.output:
        if value.name in carried and value.type.tensor_type.elem_type not in FLOATS:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return bytes(made.SerializeToString())


def _replaced(node: Any, carried: set[str], opset: int) -> list[Any]:
    """Return what stands in place of an operator; the operator itself where it drops no NaN."""
    kind, result = node.op_type, node.output[0]
    said = {attribute.name: attribute.i for attribute in node.attribute}
    if kind in POINTWISE or (kind == "Cast" and said["to"] not in FLOATS):
        return [helper.make_node("Identity", node.input[:1], [result])]
    if kind in COMPARING or (kind == "Where" and node.input[0] in carried):
        return [helper.make_node("Sum", [name for name in node.input if name in carried], [result])]
    if kind in ("Softmax", "LogSoftmax"):
        axis = said.get("axis", -1 if opset >= AXES_AS_INPUT else 1)
        axes = [axis] if opset >= AXES_AS_INPUT or axis in (-1, 3) else [1, 2, 3]
        total = f"{result}/sum"
        return [
            *_summed(node.input[0], axes, total, 1, opset),
            helper.make_node("Add", [node.input[0], total], [result]),
        ]
    if kind in ("ArgMax", "ArgMin"):
        return _summed(node.input[0], [said.get("axis", 0)], result, said.get("keepdims", 1), opset)
    if kind in ADDING:
        other, kept = ADDING[kind]
        changed = helper.make_node(other, node.input, [result])
        changed.attribute.extend([each for each in node.attribute if kept is None or each.name in kept])
        return [changed]
    return [node]


def _summed(name: str, axes: list[int], result: str, keep: int, opset: int) -> list[Any]:
    """Return the nodes that add up along axes."""
    if opset < AXES_AS_INPUT:
        return [helper.make_node("ReduceSum", [name], [result], keepdims=keep, axes=axes)]
    tensor = numpy_helper.from_array(np.array(axes, np.int64))
    return [
        helper.make_node("Constant", [], [f"{result}/axes"], value=tensor),
        helper.make_node("ReduceSum", [name, f"{result}/axes"], [result], keepdims=keep),
    ]
