"""Receptive fields of small ONNX graphs: none is called finite that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from test_onnx_refused import FLOAT, SETTINGS, after, model

from models.errors import NetworkError
from models.graph_form import GraphForm
from models.importing import import_onnx
from models.metadata import ReceptiveField
from models.onnx_footprint import carrying
from models.onnx_openvino import Answers, plain_graph

SIDE = 64
node = helper.make_node


def field_of(made: Any, folder: Path) -> ReceptiveField:
    """What an import measures; each graph answers with logits."""
    (folder / "n.onnx").write_bytes(made.SerializeToString())
    settings = {**SETTINGS, "options": {"output": "logits"}}
    return import_onnx(folder / "n.onnx", settings, folder / "bundle").metadata.receptive_field


def fixed(*nodes: Any, side: int = SIDE, **constants: np.ndarray) -> Any:
    return model(after(*nodes), {"x": [1, 3, side, side]}, constants, {"y": [1, None, side, side]})


def bounds(reduce: str, of: str, name: str) -> Any:
    return node(reduce, [of], [name], keepdims=0)


POSITIONS = np.linspace(0, 1, SIDE, dtype=np.float32)
LATE = (np.arange(SIDE) == SIDE - 8).astype(np.float32)  # one row alone has something of its own
WHOLE_TILE: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    # what comes after the convolution of a tile of fixed sides
    "a map of columns": ([node("Add", ["c", "map"], ["y"])], {"map": POSITIONS.reshape(1, 1, 1, SIDE)}),
    "a map of rows": ([node("Add", ["c", "map"], ["y"])], {"map": POSITIONS.reshape(1, 1, SIDE, 1)}),
    "one row": ([node("Add", ["c", "map"], ["y"])], {"map": LATE.reshape(1, 1, SIDE, 1)}),
    "clipped by the tile's bounds": (
        [bounds("ReduceMin", "x", "low"), bounds("ReduceMax", "x", "high"), node("Clip", ["c", "low", "high"], ["y"])],
        {},
    ),
}


@pytest.mark.parametrize("kind", WHOLE_TILE)
def test_fixed_tiles_in_which_the_place_matters_have_no_radius(kind, tmp_path):
    nodes, constants = WHOLE_TILE[kind]
    assert field_of(fixed(*nodes, **constants), tmp_path).radius is None


@pytest.mark.parametrize(("side", "field"), [(64, ReceptiveField(1, 1)), (3, ReceptiveField(1, None))])
def test_fixed_tiles_have_the_radius_that_can_be_checked_in_them(side, field, tmp_path):
    assert field_of(fixed(node("Relu", ["c"], ["y"]), side=side), tmp_path) == field


def reach(made: Any) -> int | None:
    """How far a row of NaN goes, in a graph of fixed sides that hands it on; None: to an edge, or not known."""
    form = GraphForm(side=SIDE, batch=1)
    pixels = np.zeros((1, 3, SIDE, SIDE), np.float32)
    pixels[:, :, SIDE // 2] = np.nan
    try:
        answer = Answers(plain_graph(carrying(made), "n.onnx", form, 3))(pixels)
    except NetworkError:
        return None
    rows = np.flatnonzero(np.isnan(answer)[0].any(axis=(0, 2)))
    return int(abs(rows - SIDE // 2).max()) if len(rows) and 0 < rows[0] <= rows[-1] < SIDE - 1 else None


def whole(name: str = "m", of: str = "c", kind: str = "ReduceMean") -> Any:
    """A number made of all pixels of a tile."""
    return node(kind, [of], [name], axes=[2, 3], keepdims=1)


ZERO, HALF, FEW = np.float32([0]), np.float32(0.5), np.array([4], np.int64)
NARROW = np.array([0, 1], np.int64)


def chosen(captured: str) -> Any:
    """An `If` whose inner graph uses a value of the outer one."""
    branch = helper.make_graph([node("Add", ["c", captured], ["b"])], "b", [],
                               [helper.make_tensor_value_info("b", FLOAT, None)])  # fmt: skip
    return node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)


GLOBAL: dict[str, tuple[list[Any], dict[str, np.ndarray]]] = {
    "clip": ([bounds("ReduceMax", "x", "high"), node("Clip", ["c", "", "high"], ["y"])], {}),
    "slope": ([whole(), node("PRelu", ["c", "m"], ["y"])], {}),
    "power": ([whole(), node("Pow", ["c", "m"], ["y"])], {}),
    "power of a constant": ([whole(), node("Pow", ["one", "m"], ["p"]), node("Add", ["c", "p"], ["y"])],
                            {"one": np.float32([1])}),
    "remainder": ([whole(), node("Mod", ["c", "m"], ["y"], fmod=1)], {}),
    "hardmax": ([node("Hardmax", ["c"], ["h"], axis=2), node("Add", ["c", "h"], ["y"])], {}),
    "norm": ([node("LpNormalization", ["c"], ["y"], axis=2)], {}),
    "maximum along": ([whole(kind="ReduceMax"), node("Less", ["c", "m"], ["l"]), node("Cast", ["l"], ["d"], to=FLOAT),
                       node("Add", ["c", "d"], ["y"])], {}),
    "logarithm of a sum": ([whole(kind="ReduceLogSumExp"), node("Add", ["c", "m"], ["y"])], {}),
    "the largest": ([node("TopK", ["c", "few"], ["t", "at"], axis=2), node("ReduceMean", ["t"], ["m"], axes=[2]),
                     node("Add", ["c", "m"], ["y"])], {"few": FEW}),
    "where the largest is": ([node("MaxPool", ["c"], ["p", "at"], kernel_shape=[SIDE, SIDE]),
                              node("Cast", ["at"], ["d"], to=FLOAT), node("Add", ["c", "d"], ["y"])], {}),
    "what is not zero": ([node("NonZero", ["c"], ["z"]), node("Cast", ["z"], ["f"], to=FLOAT),
                          node("ReduceMean", ["f"], ["m"]), node("Add", ["c", "m"], ["y"])], {}),
    "an inner graph": ([whole(kind="ReduceMax"), chosen("m")], {"yes": np.array(True)}),
    "an inner graph of pixels": ([chosen("zero")], {"yes": np.array(True), "zero": ZERO}),
    "normalised": ([node("MeanVarianceNormalization", ["c"], ["y"])], {}),
    "instances": ([node("InstanceNormalization", ["c", "ones", "ones"], ["y"])], {"ones": np.ones(2, np.float32)}),
    "pooled": ([node("GlobalMaxPool", ["c"], ["m"]), node("Mul", ["c", "m"], ["y"])], {}),
    "where": ([whole(), node("Greater", ["m", "zero"], ["g"]), node("Where", ["g", "c", "zero"], ["y"])],
              {"zero": ZERO}),
    "a running sum": ([node("CumSum", ["c", "axis"], ["y"])], {"axis": np.array(2)}),
    "rows chosen by pixels": ([whole(), node("Reshape", ["m", "flat"], ["f"]), node("Cast", ["f"], ["i"], to=7),
                               node("Gather", ["c", "i"], ["g"], axis=2), node("ReduceMean", ["g"], ["r"], axes=[2]),
                               node("Add", ["c", "r"], ["y"])], {"flat": np.array([-1])}),
}  # fmt: skip
LOCAL: dict[str, tuple[list[Any], dict[str, np.ndarray], int]] = {
    # and how far they see with the convolution
    "clip": ([node("Clip", ["c", "low", "high"], ["y"])], {"low": -HALF, "high": HALF}, 1),
    "slope": ([node("PRelu", ["c", "slope"], ["y"])], {"slope": np.ones((2, 1, 1), np.float32)}, 1),
    "square": ([node("Pow", ["c", "two"], ["y"])], {"two": np.float32([2])}, 1),
    "where": ([node("Greater", ["c", "two"], ["g"]), node("Where", ["g", "c", "two"], ["y"])],
              {"two": np.ones((1, 2, 1, 1), np.float32)}, 1),
    "chosen of constants": ([node("ArgMax", ["c"], ["a"], axis=1), node("Equal", ["a", "which"], ["e"]),
                             node("Where", ["e", "low", "high"], ["y"])],
                            {"which": np.arange(2).reshape(1, 2, 1, 1), "low": -HALF, "high": HALF}, 1),
    "hardmax": ([node("Hardmax", ["c"], ["y"], axis=1)], {}, 1),
    "norm": ([node("LpNormalization", ["c"], ["y"], axis=1)], {}, 1),
    "pooling": ([node("MaxPool", ["c"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[1, 1]),
                 node("ReduceL2", ["p"], ["n"], axes=[1]), node("Div", ["p", "n"], ["y"])], {}, 2),
    "shifted": ([node("Pad", ["c", "pads"], ["p"]), node("Slice", ["p", "from", "to", "axes"], ["y"])],
                {"pads": np.array([0, 0, 3, 0, 0, 0, 0, 0]), "from": np.array([0]), "to": np.array([SIDE]),
                 "axes": np.array([2])}, 4),
    "up and down": ([node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
                     node("Resize", ["p", "", "scales"], ["y"], mode="linear")],
                    {"scales": np.float32([1, 1, 2, 2])}, 3),
    "of blocks": ([node("SpaceToDepth", ["c"], ["s"], blocksize=2), node("DepthToSpace", ["s"], ["y"], blocksize=2)],
                  {}, 1),
    "of neighbouring channels": ([node("LRN", ["c"], ["y"], size=3)], {}, 1),
    "cubic": ([node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
               node("Resize", ["p", "", "scales"], ["y"], mode="cubic")],
              {"scales": np.float32([1, 1, 2, 2])}, 5),
    "transposed": ([node("AveragePool", ["c"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
                    node("ConvTranspose", ["p", "up"], ["y"], strides=[2, 2])],
                   {"up": np.ones((2, 2, 2, 2), np.float32)}, 2),
    "channels by product": ([node("Einsum", ["c", "up"], ["y"], equation="nchw,cd->ndhw")],
                            {"up": np.ones((2, 2), np.float32)}, 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", GLOBAL)
def test_what_sees_the_whole_tile_is_never_given_a_radius(kind):
    nodes, constants = GLOBAL[kind]
    assert reach(fixed(*nodes, **constants)) is None


@pytest.mark.parametrize("kind", LOCAL)
def test_what_sees_some_pixels_hands_nan_on_that_far(kind):
    nodes, constants, radius = LOCAL[kind]
    assert reach(fixed(*nodes, **constants)) == radius


def test_whole_numbers_given_to_a_graph_are_measured_as_others(tmp_path):
    made = fixed(node("Relu", ["c"], ["y"]))
    made.graph.node.insert(0, node("Cast", ["bytes"], ["x"], to=FLOAT))
    made.graph.input[0].name, made.graph.input[0].type.tensor_type.elem_type = "bytes", TensorProto.UINT8
    assert field_of(made, tmp_path) == ReceptiveField(1, 1)
