"""ONNX files that are refused in one line, and hostile ones: nothing outside is read, and nothing huge is made."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import pixels
from onnx import TensorProto, helper, numpy_helper

import models.onnx_file as looking
from models import load_bundle
from models.bundle import ITEM, NETWORK, check_content
from models.encoding import NODATA, Encoding
from models.engine import EngineSpec, make_engine
from models.errors import BundleError, EngineError, NetworkError, SwatheError
from models.importing import import_onnx
from models.onnx_file import check_whole, parse
from models.onnx_graph import describe, inspect

FLOAT = TensorProto.FLOAT
SETTINGS: dict[str, Any] = {
    "name": "small",
    "bands": ["red", "green", "blue"],
    "dtype": "float32",
    "scaling": {"divisor": 1},
    "classes": ["a", "b"],
}
WEIGHT = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)


def model(
    nodes: list[Any] | None = None,
    inputs: dict[str, Any] | None = None,
    constants: dict[str, np.ndarray] | None = None,
    outputs: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """A convolution of three bands into two classes, or as changed."""
    given = {"x": ["n", 3, "h", "w"]} if inputs is None else inputs
    nodes = nodes or [helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])]
    held = {"weight": WEIGHT, **(constants or {})}
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in given.items()],
        [helper.make_tensor_value_info(name, FLOAT, shape)
         for name, shape in (outputs or {"y": ["n", None, None, None]}).items()],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


def after(*nodes: Any) -> list[Any]:
    """The convolution, and what makes `y` of it."""
    return [helper.make_node("Conv", ["x", "weight"], ["c"], pads=[1, 1, 1, 1]), *nodes]


def nested(depth: int) -> Any:
    """An `If` within an `If` within ..."""
    node = helper.make_node("Identity", ["c"], ["y"])
    for _ in range(depth):
        branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("y", FLOAT, None)])
        node = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return node


def with_functions() -> Any:
    """A model with an operator that it defines itself."""
    function = helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                    [helper.make_opsetid("", 17)])  # fmt: skip
    return model(after(helper.make_node("Twice", ["c"], ["y"], domain="own")), functions=[function])


def sparse() -> Any:
    made = model()
    made.graph.sparse_initializer.add().dims.extend([10**6, 10**6])
    return made


def sparse_constant() -> Any:
    held = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "v"), numpy_helper.from_array(np.zeros(1, np.int64), "i"),
        [10**5, 10**5],
    )  # fmt: skip
    return model(after(helper.make_node("Constant", [], ["big"], sparse_value=held),
                       helper.make_node("Add", ["c", "big"], ["y"])))  # fmt: skip


HUGE = np.array([10**6, 10**6], np.int64)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two inputs": (lambda: model(inputs={"x": ["n", 3, "h", "w"], "dem": ["n", 1, "h", "w"]}), r"2 inputs \(x, dem\)"),
    "no input": (lambda: model(inputs={}), r"0 inputs \(none\)"),
    "custom operators": (
        lambda: model(after(helper.make_node("FusedConv", ["c"], ["y"], domain="com.microsoft"))),
        "needs the custom operators com.microsoft::FusedConv",
    ),
    "dynamic rank": (lambda: model(inputs={"x": None}), "does not say how many axes"),
    "three axes": (lambda: model(inputs={"x": [3, 64, 64]}), "has 3 axes; batch, bands, rows, columns are 4"),
    "not square": (lambda: model(inputs={"x": [1, 3, 256, 512]}), "takes 256 rows and 512 columns; tiles are squares"),
    "huge sides": (lambda: model(inputs={"x": [1, 3, 10**6, 10**6]}), "1,000,000 rows at once; at most 8,192"),
    "own functions": (with_functions, r"operators of its own \(Twice\)"),
    "endless": (
        lambda: model(after(helper.make_node("Loop", ["m", "c"], ["y"]))),
        "operator Loop, which may never end",
    ),
    "random": (
        lambda: model(after(helper.make_node("RandomNormalLike", ["c"], ["y"]))),
        "gives other pixels each time",
    ),
    "deep": (lambda: model(after(nested(12))), "graphs within graphs, more than 8 deep"),
    "sparse": (sparse, "sparse weights"),
    "a sparse constant": (sparse_constant, "sparse weights"),
    "a huge constant": (
        lambda: model(after(helper.make_node("Expand", ["c", "to"], ["y"])), constants={"to": HUGE}),
        "Expand makes 1000000 x 1000000 numbers at once",
    ),
    "smaller answers": (
        lambda: model([helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])]),
        "answers with 128 x 128 pixels for a tile of 256 x 256",
    ),
    "two axes": (
        lambda: model(
            after(helper.make_node("ReduceMean", ["c"], ["y"], axes=[2, 3], keepdims=0)), outputs={"y": None}
        ),
        "answers with 2 axes, 1 x 2; a map has 4",
    ),
    "NaN": (
        lambda: model(constants={"weight": WEIGHT * np.float32("nan")}),
        "answers with NaN or infinity for ordinary pixels",
    ),
    "several outputs": (
        lambda: model(after(helper.make_node("Relu", ["c"], ["y"])), outputs={"y": None, "c": None}),
        "the outputs y, c; say in options.output_name which",
    ),
    "a softmax over columns": (
        lambda: model(after(helper.make_node("Softmax", ["c"], ["y"], axis=-1))),
        "ends in a softmax over another axis than that of its 2 channels",
    ),
    "what may be probabilities": (
        lambda: model(after(helper.make_node("HardSigmoid", ["c"], ["y"]))),
        r'answers with 0 to 1, which may be probabilities: say options = \{ output = "probabilities" \}, or "logits"',
    ),
    "a mask": (
        lambda: model(
            after(helper.make_node("Greater", ["c", "zero"], ["b"]), helper.make_node("Cast", ["b"], ["y"], to=FLOAT)),
            constants={"zero": np.float32([0])},
        ),
        "may be probabilities",
    ),
    "names of several lines": (
        lambda: model(inputs={"x\n\x1b[31m": ["n", 3, "h", "w"], "d" * 500: ["n", 1, "h", "w"]}),
        r"2 inputs \(x \[31m, d{100}\)",
    ),
    "outputs named in several lines": (
        lambda: model(after(helper.make_node("Relu", ["c"], ["y"])), outputs={"y": None, "c": None, "a\nb": None}),
        "the outputs y, c, a b; say",
    ),
    "operators named in several lines": (
        lambda: model(after(helper.make_node("Own\nOne", ["c"], ["y"], domain="org\n"))),
        "custom operators org ::Own One,",
    ),
    "an operator that takes other things": (
        lambda: model([helper.make_node("Conv", ["x"], ["y"])]),
        "is no sound ONNX graph: Node",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_network_for_pixels_is_named(kind, tmp_path):
    made, said = REFUSED[kind]
    (tmp_path / "n.onnx").write_bytes(made().SerializeToString())
    with pytest.raises(NetworkError, match=said) as caught:
        import_onnx(tmp_path / "n.onnx", SETTINGS, tmp_path / "bundle")
    assert str(caught.value).count("\n") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.onnx"]


def test_files_that_are_no_onnx_are_named(tmp_path):
    path = tmp_path / "n.onnx"
    for content in (b"", b"not a network", model().SerializeToString()[:-100], b"\xff" * 1000):
        path.write_bytes(content)
        with pytest.raises(NetworkError, match=r"is no ONNX file|is no sound|has 0 inputs"):
            inspect(path)
    with open(path, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(NetworkError, match="2,147,483,648 bytes; ONNX has at most"):
        inspect(path)
    os.mkfifo(tmp_path / "pipe")
    for other, said in ((tmp_path / "pipe", "is a pipe"), (tmp_path / "none", "cannot be read: No such file")):
        with pytest.raises(NetworkError, match=said):
            inspect(other)


def test_many_operators_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(looking, "MOST_NODES", 3)
    chain = [helper.make_node("Relu", [f"c{n}" if n else "c"], [f"c{n + 1}"]) for n in range(4)]
    with pytest.raises(NetworkError, match="more than 3 operators"):
        parse(model(after(*chain)).SerializeToString(), "n.onnx")


def external(folder: Path, location: str, **said: Any) -> Path:
    """A model whose weights are said to lie in another file."""
    made = model()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **said}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    (folder / "n.onnx").write_bytes(made.SerializeToString())
    return folder / "n.onnx"


def test_data_beside_a_file_comes_into_the_bundle(tmp_path, threads):
    (tmp_path / "weights.bin").write_bytes(b"\0" * 8 + WEIGHT.tobytes())
    path = external(tmp_path, "weights.bin", offset=8, length=WEIGHT.nbytes)
    bundle = import_onnx(path, SETTINGS, tmp_path / "bundle")
    (tmp_path / "whole.onnx").write_bytes(model().SerializeToString())
    assert import_onnx(tmp_path / "whole.onnx", SETTINGS, tmp_path / "whole").parameters == bundle.parameters == 54
    values = pixels((1, 3, 32, 32), "float32")
    answers = [make_engine(load_bundle(tmp_path / name), EngineSpec(threads=1)).predict(values)
               for name in ("bundle", "whole")]  # fmt: skip
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("location", "said", "refused"),
    [
        ("../secret.bin", {}, "outside of its folder"),
        ("/etc/passwd", {}, "outside of its folder"),
        ("link.bin", {}, "outside of its folder"),
        ("", {}, "outside of its folder"),
        ("missing.bin", {}, "which is missing"),
        ("weights.bin", {"offset": 200}, "too small for the declared shape"),
        ("weights.bin", {"length": 2**40}, "shorter than it says"),
        ("weights.bin", {"offset": -8}, "shorter than it says"),
        ("weights.bin", {"offset": "many"}, "cannot be read"),
        ("pipe", {}, "is a pipe"),
        ("loop.bin", {}, "is missing"),
    ],
)
def test_data_elsewhere_is_never_read(location, said, refused, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (folder / "weights.bin").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    os.mkfifo(folder / "pipe")
    (folder / "loop.bin").symlink_to("loop.bin")
    path = external(folder, location, **said)
    with pytest.raises(NetworkError, match=refused):
        import_onnx(path, SETTINGS, tmp_path / "bundle")


def with_twin_constants(location: str) -> Any:
    """An `If` whose branches each make a `w`, one of which is said to lie in another file."""
    elsewhere = numpy_helper.from_array(WEIGHT, "q")
    elsewhere.ClearField("raw_data")
    elsewhere.data_location = TensorProto.EXTERNAL
    entry = elsewhere.external_data.add()
    entry.key, entry.value = "location", location
    branches = [
        helper.make_graph([helper.make_node("Constant", [], ["w"], value=value)], "b", [],
                          [helper.make_tensor_value_info("w", FLOAT, WEIGHT.shape)])
        for value in (elsewhere, numpy_helper.from_array(WEIGHT, "q"))
    ]  # fmt: skip
    return model(
        [helper.make_node("If", ["no"], ["i"], then_branch=branches[0], else_branch=branches[1]),
         helper.make_node("Conv", ["x", "i"], ["y"], pads=[1, 1, 1, 1])],
        constants={"no": np.array(False)},
    )  # fmt: skip


def test_data_elsewhere_of_a_constant_named_as_another_is_not_overlooked(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (folder / "n.onnx").write_bytes(with_twin_constants("../secret.bin").SerializeToString())
    with pytest.raises(NetworkError, match="outside of its folder"):
        import_onnx(folder / "n.onnx", SETTINGS, tmp_path / "bundle")
    with pytest.raises(NetworkError, match="keeps data in other files"):
        check_whole(with_twin_constants("weights.bin"), "n.onnx")


def test_damaged_files_raise_our_errors_alone():
    """Bytes of a small model changed at random, and looked at as before any runtime has them."""
    random, whole = (
        np.random.default_rng(0),
        bytearray(model(after(helper.make_node("Softmax", ["c"], ["y"], axis=1))).SerializeToString()),
    )
    for _ in range(400):
        changed = bytearray(whole)
        for place in random.integers(0, len(whole), random.integers(1, 6)):
            changed[place] = random.integers(256)
        with suppress(SwatheError):
            made = parse(bytes(changed), "n.onnx")
            describe(made, "n.onnx")
            check_whole(made, "n.onnx")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    (folder / "n.onnx").write_bytes(model().SerializeToString())
    return import_onnx(folder / "n.onnx", SETTINGS, folder / "bundle")


@pytest.fixture
def bundle(made, tmp_path):
    """A copy that a test may damage."""
    return load_bundle(shutil.copytree(made.path, tmp_path / "bundle"))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_that_is_not_the_bundles_is_refused(engine, bundle, tmp_path):
    spec = EngineSpec(engine, "cpu", threads=1)
    other = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1])
    for made in (
        model([other], {"x": ["n", 4, "h", "w"]}, {"weight": np.zeros((2, 4, 3, 3), np.float32)}),
        model([other], constants={"weight": np.zeros((5, 3, 3, 3), np.float32)}),
        model(inputs={"x": ["n", 3, "h", "w"], "z": [1]}),
    ):
        (bundle.path / NETWORK).write_bytes(made.SerializeToString())
        with pytest.raises((BundleError, EngineError, NetworkError)):
            make_engine(load_bundle(bundle.path), spec).predict(pixels((1, 3, 32, 32), "float32"))
    shutil.copy(external(tmp_path, "weights.bin"), bundle.path / NETWORK)
    (bundle.path / "weights.bin").write_bytes(WEIGHT.tobytes())
    changed = load_bundle(bundle.path)
    with pytest.raises(BundleError, match="keeps data in other files"):
        make_engine(changed, spec)
    with pytest.raises(BundleError, match="keeps data in other files"):
        check_content(changed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"side": -1}, "a whole number up to 8192"),
        ({"side": True}, "a whole number up to 8192"),
        ({"batch": 10**9}, "a whole number up to 1024"),
        ({"layout": "CHW"}, "NCHW or NHWC; received 'CHW'"),
        ({"output_name": ["y"]}, "output_name is the name"),
        ({"script": "x"}, "no option 'script'"),
    ],
)
def test_options_of_a_hostile_item_are_refused_as_it_is_loaded(options, said, bundle):
    item = bundle.item
    item["properties"]["mlm:hyperparameters"] |= options
    (bundle.path / ITEM).write_text(json.dumps(item))
    with pytest.raises(BundleError, match=said):
        load_bundle(bundle.path)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_answers_that_are_no_number_are_nodata(engine, bundle, threads):
    made = make_engine(bundle, EngineSpec(engine, "cpu", threads=1))
    values = pixels((1, 3, 32, 32), "float32")
    values[0, 1, 10, 20] = np.inf
    class_map = made.segment(values, Encoding(None, "uint8", (1,))).class_map
    assert (class_map[0, 9:12, 19:22] == NODATA).all()
    assert (class_map == NODATA).sum() == 9


@pytest.mark.parametrize(
    ("shape", "layout"),
    [([1, 200, 128, 128], "NCHW"), ([1, 128, 128, 200], "NHWC"), (["n", "b", 64, 64], "NCHW"),
     ([1, 64, 64, 64], "NCHW"), (["n", "a", "b", "c"], None)],
)  # fmt: skip
def test_the_axis_of_bands_is_the_one_that_differs(shape, layout):
    assert describe(model(inputs={"x": shape}), "n.onnx").layout == layout


@pytest.mark.parametrize("first", ["Sigmoid", "Softmax"])
@pytest.mark.parametrize("last", ["Clip", "Slice", "Resize"])
def test_probabilities_are_seen_through_what_keeps_them(first, last, tmp_path):
    inputs = {"Clip": ["low", "high"], "Slice": ["from", "to", "axis"], "Resize": ["", "sizes"]}[last]
    constants = {"low": np.float32(1e-6), "high": np.float32(1 - 1e-6), "from": np.array([1]), "to": np.array([2]),
                 "axis": np.array([1]), "sizes": np.ones(4, np.float32)}  # fmt: skip
    axis = {"axis": 1} if first == "Softmax" else {}
    made = model(after(helper.make_node(first, ["c"], ["p"], **axis), helper.make_node(last, ["p", *inputs], ["y"])),
                 constants={name: constants[name] for name in inputs if name})  # fmt: skip
    (tmp_path / "n.onnx").write_bytes(made.SerializeToString())
    bundle = import_onnx(tmp_path / "n.onnx", SETTINGS, tmp_path / "bundle")
    assert bundle.metadata.options["output"] == "probabilities"
    assert bundle.metadata.activation == ("sigmoid" if first == "Sigmoid" or last == "Slice" else "softmax")


def test_an_output_that_is_said_is_taken(tmp_path):
    made = model(after(helper.make_node("HardSigmoid", ["c"], ["y"])))
    (tmp_path / "n.onnx").write_bytes(made.SerializeToString())
    for output in ("logits", "probabilities"):
        bundle = import_onnx(tmp_path / "n.onnx", {**SETTINGS, "options": {"output": output}}, tmp_path / output)
        assert bundle.metadata.options["output"] == output


def test_facts_of_a_file_are_read_without_running_it(tmp_path):
    made = model(after(helper.make_node("Softmax", ["c"], ["s"], axis=1), helper.make_node("Transpose", ["s"], ["y"])))
    made.producer_name, made.producer_version = "keras", "3.1"
    onnx.helper.set_model_props(made, {"model_type": "Segmentor"})
    (tmp_path / "n.onnx").write_bytes(made.SerializeToString())
    found = inspect(tmp_path / "n.onnx")
    assert (found.input, found.bands, found.side, found.batch, found.layout) == ("x", 3, None, None, "NCHW")
    assert (found.output, found.activation, found.parameters) == ("probabilities", "softmax", 54)
    assert (found.producer, dict(found.properties)) == ("keras 3.1", {"model_type": "Segmentor"})
