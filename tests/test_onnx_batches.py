"""ONNX graphs given several tiles at once, whole numbers, and answers whose classes the graph does not count."""

from typing import Any

import numpy as np
import pytest
from helpers import pixels
from onnx import TensorProto, helper
from test_onnx_refused import FLOAT, SETTINGS, after, model

from models import load_bundle
from models.bundle import NETWORK
from models.encoding import NODATA, Encoding
from models.engine import EngineSpec, make_engine
from models.errors import EngineError, NetworkError
from models.importing import import_onnx
from models.onnx_openvino import read_graph


def mixed(kind: str, batch: Any) -> Any:
    """A graph in which a tile's answer depends on the others, or on its place among them."""
    nodes = {
        "mean": [helper.make_node("ReduceMean", ["c"], ["m"], axes=[0], keepdims=1)],
        "maximum": [helper.make_node("ReduceMax", ["c"], ["m"], axes=[0, 1, 2, 3], keepdims=1)],
        "next": [helper.make_node("Slice", ["c", "one", "all", "first"], ["a"]),
                 helper.make_node("Slice", ["c", "none", "one", "first"], ["b"]),
                 helper.make_node("Concat", ["a", "b"], ["m"], axis=0)],
        "place": [helper.make_node("Identity", ["places"], ["m"])],
    }[kind]  # fmt: skip
    return model(
        after(*nodes, helper.make_node("Add", ["c", "m"], ["y"])),
        {"x": [batch, 3, 64, 64]},
        {"one": np.array([1]), "all": np.array([99]), "none": np.array([0]), "first": np.array([0]),
         "places": np.float32([0, 0, 0, 9]).reshape(4, 1, 1, 1)},
        {"y": None},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mean", "maximum", "next", "place"])
def test_a_batch_whose_tiles_are_mixed_is_refused(kind, tmp_path):
    (tmp_path / "n.onnx").write_bytes(mixed(kind, 4).SerializeToString())
    said = r"takes 4 tiles at once, and its answer for one depends on the others given with it.*: export it with"
    with pytest.raises(NetworkError, match=said) as caught:
        import_onnx(tmp_path / "n.onnx", SETTINGS, tmp_path / "bundle")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_of_any_batch_that_would_mix_tiles_is_given_one_at_a_time(engine, tmp_path, threads):
    (tmp_path / "n.onnx").write_bytes(mixed("mean", "n").SerializeToString())
    bundle = import_onnx(tmp_path / "n.onnx", SETTINGS, tmp_path / "bundle")
    assert bundle.metadata.options["batch"] == 1
    made, values = make_engine(bundle, EngineSpec(engine, "cpu", threads=1)), pixels((2, 3, 64, 64), "float32")
    np.testing.assert_array_equal(made.predict(values)[1], made.predict(values[1:])[0])
    again = import_onnx(tmp_path / "n.onnx", {**SETTINGS, "options": bundle.metadata.options}, tmp_path / "again")
    assert again.metadata.options == bundle.metadata.options


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_whole_numbers_beyond_a_graphs_type_are_its_furthest(engine, tmp_path, threads):
    """A float32 of 3e9 made an int32 is the least of all, unless it is clipped first."""
    made = model(
        [
            helper.make_node("Cast", ["x"], ["f"], to=FLOAT),
            helper.make_node("Slice", ["f", "a", "b", "c"], ["t"]),
            helper.make_node("Mul", ["t", "small"], ["y"]),
        ],
        constants={
            "a": np.array([0]),
            "b": np.array([2]),
            "c": np.array([1]),
            "small": np.float32([1e-9, 2e-9]).reshape(2, 1, 1),
        },
    )
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
    (tmp_path / "n.onnx").write_bytes(made.SerializeToString())
    settings = {**SETTINGS, "options": {"output": "logits"}, "activation": "sigmoid"}
    bundle = import_onnx(tmp_path / "n.onnx", settings, tmp_path / "bundle")
    values = np.full((1, 3, 8, 8), 3e9, np.float32)
    values[:, 1] = -3e9
    found = make_engine(bundle, EngineSpec(engine, "cpu", threads=1)).predict(values)[0, :, 0, 0]
    np.testing.assert_allclose(found, 1 / (1 + np.exp([-2.1474835, 2 * 2.1474836])), atol=1e-5)


def uncounted(channels: int, held: int = 2, *ending: Any) -> Any:
    """A graph that takes the first of some channels, how many of which no runtime sees beforehand."""
    weight = np.random.default_rng(0).standard_normal((held, 3, 3, 3)).astype(np.float32)
    one = helper.make_node
    made = model(
        [one("Conv", ["x", "weight"], ["c"], pads=[1, 1, 1, 1]), one("ReduceMax", ["x"], ["m"], keepdims=0),
         one("Cast", ["m"], ["i"], to=TensorProto.INT64), one("Mul", ["i", "none"], ["z"]),
         one("Add", ["z", "count"], ["end"]), one("Slice", ["c", "none", "end", "axis"], ["s"]),
         *(ending or [one("Identity", ["s"], ["y"])])],
        constants={"weight": weight, "none": np.array([0]), "count": np.array([channels]), "axis": np.array([1])},
        outputs={"y": None},
    )  # fmt: skip
    assert not read_graph(made.SerializeToString(), "n").output(0).get_partial_shape()[1].is_static
    return made


@pytest.mark.parametrize(
    ("channels", "activation", "kind"),
    [(2, "softmax", ""), (1, "sigmoid", ""), (2, "sigmoid", ""), (1, "sigmoid", "Sigmoid"), (2, "sigmoid", "Sigmoid")],
)
def test_channels_that_a_graph_does_not_count_are_those_of_the_bundle(channels, activation, kind, tmp_path, threads):
    made = uncounted(channels, 2, *([helper.make_node(kind, ["s"], ["y"])] if kind else []))
    (tmp_path / "n.onnx").write_bytes(made.SerializeToString())
    settings = {**SETTINGS, "activation": activation}
    bundle = import_onnx(tmp_path / "n.onnx", settings, tmp_path / "bundle")
    engines = [make_engine(bundle, EngineSpec(name, "cpu", threads=1)) for name in ("openvino", "onnxruntime")]
    values = pixels((2, 3, 32, 48), "float32") / 10000
    found, right = (one.predict(values) for one in engines)
    assert found.shape == right.shape == (2, 2, 32, 48)
    np.testing.assert_allclose(found, right, atol=1e-5)
    maps = [one.segment(values, Encoding(None, "uint8", (1,))).class_map for one in engines]
    assert (maps[0] != maps[1]).mean() < 1e-3


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_more_channels_than_the_bundle_has_classes_give_no_class(activation, engine, tmp_path, threads):
    (tmp_path / "n.onnx").write_bytes(uncounted(2).SerializeToString())
    settings = {**SETTINGS, "activation": activation}
    bundle = import_onnx(tmp_path / "n.onnx", settings, tmp_path / "bundle")
    (bundle.path / NETWORK).write_bytes(uncounted(3, 3).SerializeToString())
    made = make_engine(load_bundle(bundle.path), EngineSpec(engine, "cpu", threads=1))
    values = pixels((1, 3, 32, 32), "float32")
    if engine == "openvino":
        assert np.isnan(made.predict(values)).all()
        assert (made.segment(values, Encoding(None, "uint8", (1,))).class_map == NODATA).all()
    else:
        with pytest.raises(EngineError, match="answers for 3 classes, and the bundle has 2"):
            made.predict(values)
