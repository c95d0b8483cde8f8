"""Small ONNX files that ask for memory without bound: each is refused in one line, and no such memory is taken."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from test_onnx_refused import SETTINGS, after, model

import models.limits as limits
from models.errors import NetworkError
from models.importing import import_onnx
from models.system import forget_peak, peak_bytes

node = helper.make_node


def whole(*values):
    return np.array(values, np.int64)


def through(maker, *inputs, **constants):
    """What makes `big`, by a number or shape that only running the graph tells, and its sum added to the answer."""
    steps = [node("Identity", ["said"], ["told"]), node(maker, list(inputs), ["big"]),
             node("Cast", ["big"], ["f"], to=1), node("ReduceSum", ["f"], ["sum"], keepdims=0),
             node("Add", ["c", "sum"], ["y"])]  # fmt: skip
    return model(after(*steps), constants=constants)


def attention():
    """Each pixel of a tile with each other: 17 GB for one of 256 x 256."""
    steps = [node("Reshape", ["c", "flat"], ["q"]), node("Transpose", ["q"], ["k"], perm=[0, 2, 1]),
             node("MatMul", ["k", "q"], ["a"]), node("Softmax", ["a"], ["s"], axis=-1),
             node("MatMul", ["q", "s"], ["v"]), node("Shape", ["c"], ["shape"]),
             node("Reshape", ["v", "shape"], ["y"])]  # fmt: skip
    return model(after(*steps), constants={"flat": whole(0, 2, -1)})


def of_pixels():
    """A range as long as the largest pixel says."""
    steps = [node("ReduceMax", ["x"], ["most"], keepdims=0), node("Cast", ["most"], ["n"], to=TensorProto.INT64),
             node("Mul", ["n", "much"], ["to"]), node("Range", ["no", "to", "step"], ["big"]),
             node("Cast", ["big"], ["f"], to=1), node("ReduceSum", ["f"], ["sum"], keepdims=0),
             node("Add", ["c", "sum"], ["y"])]  # fmt: skip
    zero, one = np.int64(0), np.int64(1)
    return model(after(*steps), constants={"much": np.int64(4 * 10**8), "no": zero, "step": one})


HUGE = {
    "Range": lambda: through("Range", "no", "told", "step", said=np.int64(10**12), no=np.int64(0), step=np.int64(1)),
    "ConstantOfShape": lambda: through("ConstantOfShape", "told", said=whole(10**6, 10**6)),
    "Expand": lambda: through("Expand", "c", "told", said=whole(10**6, 1, 1, 1)),
    "Tile": lambda: through("Tile", "c", "told", said=whole(1, 1, 10**3, 10**3)),
    "Pad": lambda: through("Pad", "c", "told", said=whole(0, 0, 10**5, 10**5, 0, 0, 0, 0)),
    "Resize": lambda: through("Resize", "c", "", "", "told", said=whole(1, 2, 10**5, 10**5)),
    "attention": attention,
    "of pixels": of_pixels,
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_graph_that_asks_for_more_memory_than_there_is(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "total_memory", lambda: 2**33)
    (tmp_path / "n.onnx").write_bytes(HUGE[kind]().SerializeToString())
    before = forget_peak()
    with pytest.raises(NetworkError, match=r"n\.onnx.* more memory than an import may take") as caught:
        import_onnx(tmp_path / "n.onnx", SETTINGS, tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert peak_bytes() - before < limits.LEAST_BOUND
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]


def test_the_bound_of_memory_ends_with_what_it_is_for():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), limits.bounded_memory(2**28):
        bytearray(2**30)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(2**30)) == 2**30
