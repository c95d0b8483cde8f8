"""ONNX files read, and those refused that are no network for pixels: operators, sizes, depth, data in other files.

Nothing in a file decides how much is read: sizes are checked first, and data beside it is read only where it lies in
its own folder.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import onnx

from .errors import NetworkError
from .limits import refuse_special
from .metadata import some_of
from .redact import printable

LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf takes no message of 2 GiB
MOST_NODES = 100_000  # of all graphs in a file; the largest networks have ten thousand
MOST_NUMBERS = 2**31  # that a constant may ask to be made at once
DEEPEST = 8  # graphs within graphs, as the branches of an `If`
MOST_AXES = 16
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
ENDLESS = ("Loop", "Scan", "SequenceMap")
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
MADE_BY_SHAPE = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}  # and which input says the shape, or how often


def read_model(path: str | os.PathLike[str]) -> Any:
    """Read an ONNX file, with data that lies beside it, as one `onnx.ModelProto`; raises as `inspect`."""
    name = os.fspath(path)
    refuse_special(name, NetworkError)
    try:
        if (size := os.stat(name).st_size) > LARGEST_ONNX:
            raise NetworkError(f"{name} has {size:,} bytes; ONNX has at most {LARGEST_ONNX:,} in one file")
        content = Path(name).read_bytes()
    except OSError as error:
        raise NetworkError(f"{name} cannot be read: {error.strerror}") from error
    model = parse(content, name)
    _load_external(model, Path(name))
    return model


def parse(content: bytes, name: str) -> Any:
    """Read ONNX from bytes and refuse what no network needs; `name` is for messages. Raises NetworkError."""
    if len(content) > LARGEST_ONNX:
        raise NetworkError(f"{name} has more than {LARGEST_ONNX:,} bytes, the most that ONNX has in one file")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own class, which differs from one implementation to another
        raise NetworkError(f"{name} is no ONNX file, or damaged: {_first(error)}") from error
    if not model.graph.node or not model.opset_import:
        raise NetworkError(f"{name} is no ONNX file: it has no graph")
    if model.functions:
        raise NetworkError(
            f"{name} brings operators of its own ({said(model.functions[0].name)}): export it with them inlined"
        )
    model.ClearField("training_info")  # graphs that nothing here runs, with constants of their own
    nodes: list[Any] = []
    for graph in _graphs(model.graph, name):
        nodes += graph.node
        if _is_sparse(graph):
            raise NetworkError(f"{name} holds sparse weights, which engines do not take: export it with dense ones")
        if len(nodes) > MOST_NODES:
            raise NetworkError(f"{name} has more than {MOST_NODES:,} operators, and is no network for images")
    _refuse_operators(nodes, name)
    _refuse_huge_tensors(_tensors(model, name), name)
    _refuse_huge(nodes, _constants(model, name), name)
    return model


def _first(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).splitlines()[0][:200])


def said(name: str) -> str:
    """Return a name that a graph gives to something, as a message in one line may have it."""
    return printable(name[:100])


def names_said(names: Iterable[str]) -> str:
    """Return names that a graph gives to some things for a message."""
    return some_of([said(name) for name in names])


def _graphs(graph: Any, name: str, depth: int = 0) -> Iterator[Any]:
    """Yield a graph and those within its operators."""
    if depth > DEEPEST:
        raise NetworkError(f"{name} has graphs within graphs, more than {DEEPEST} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner, name, depth + 1)


def _tensors(model: Any, name: str) -> Iterator[Any]:
    """Yield every tensor that a model holds: two of one name in different graphs both count."""
    for graph in _graphs(model.graph, name):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors


def _constants(model: Any, name: str) -> dict[str, list[Any]]:
    """Return the constants of a model by the names under which operators take them, those of one name together."""
    found: dict[str, list[Any]] = {}
    for graph in _graphs(model.graph, name):
        made = [(node.output[0], each.t) for node in graph.node if node.output
                for each in node.attribute if each.HasField("t")]  # fmt: skip
        for label, tensor in (*((each.name, each) for each in graph.initializer), *made):
            found.setdefault(label, []).append(tensor)
    return found


def _is_sparse(graph: Any) -> bool:
    attributes = (attribute for node in graph.node for attribute in node.attribute)
    return bool(graph.sparse_initializer) or any(
        each.HasField("sparse_tensor") or each.sparse_tensors for each in attributes
    )


def _refuse_operators(nodes: Sequence[Any], name: str) -> None:
    foreign = sorted({said(f"{node.domain}::{node.op_type}") for node in nodes if node.domain not in STANDARD})
    if foreign:
        raise NetworkError(
            f"{name} needs the custom operators {some_of(foreign, 4)}, which ONNX does not define: "
            "export it with standard ones, before any runtime has optimised it"
        )
    for kinds, why in ((ENDLESS, "may never end"), (RANDOM, "gives other pixels each time")):
        if found := sorted({node.op_type for node in nodes if node.op_type in kinds}):
            raise NetworkError(f"{name} has the operator {found[0]}, which {why}: export it without")


def _refuse_huge_tensors(tensors: Iterable[Any], name: str) -> None:
    """Refuse constants that would take more memory than any network's."""
    for tensor in tensors:
        if any(side < 0 for side in tensor.dims) or prod(tensor.dims) > MOST_NUMBERS:
            raise NetworkError(f"{name}: the constant {said(tensor.name)} has the shape {list(tensor.dims)[:8]}")


def _refuse_huge(nodes: Sequence[Any], constants: Mapping[str, Sequence[Any]], name: str) -> None:
    """Refuse operators that would make of small constants what takes more memory than any network's."""
    for node in nodes:
        place = MADE_BY_SHAPE.get(node.op_type)
        if place is None or len(node.input) <= place:
            continue
        for sides in map(_whole_numbers, constants.get(node.input[place], ())):
            if prod(abs(side) for side in sides) > MOST_NUMBERS:
                raise NetworkError(f"{name}: {node.op_type} makes {' x '.join(map(str, sides[:8]))} numbers at once")


def _whole_numbers(tensor: Any) -> list[int]:
    if prod(tensor.dims) > MOST_AXES or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return []
    try:
        return [int(value) for value in onnx.numpy_helper.to_array(tensor).ravel()]
    except Exception:  # a tensor that is damaged, which the runtime refuses
        return []


def _load_external(model: Any, path: Path) -> None:
    """Read the data that tensors keep in other files of the model's own folder. Raises NetworkError."""
    outside = [tensor for tensor in _tensors(model, str(path)) if _is_external(tensor)]
    folder, total = path.resolve().parent, path.stat().st_size
    for tensor in outside:
        told = {entry.key: entry.value for entry in tensor.external_data}
        place = folder / told.get("location", "")
        where = said(told.get("location", ""))
        if not told.get("location") or not Path(os.path.realpath(place)).is_relative_to(folder):
            raise NetworkError(f"{path} keeps data in {where!r}, outside of its folder: put it beside the file")
        refuse_special(place, NetworkError)
        if not place.is_file():
            raise NetworkError(f"{path} keeps data in {where!r}, which is missing: put it beside the file")
        total += _read_external(tensor, place, told, path, LARGEST_ONNX - total)


def _read_external(tensor: Any, place: Path, told: Mapping[str, str], path: Path, most: int) -> int:
    """Put the bytes of one tensor into it, and return how many they are."""
    try:
        begin = int(told.get("offset") or 0)
        length = int(told.get("length") or place.stat().st_size - begin)
        if begin < 0 or length < 0 or begin + length > place.stat().st_size:
            raise ValueError(f"{said(told['location'])} is shorter than it says")
    except ValueError as error:
        raise NetworkError(f"{path}: the data of {said(tensor.name)} cannot be read: {error}") from error
    if length > most:
        raise NetworkError(f"{path} has more than {LARGEST_ONNX:,} bytes with its data, the most that one file takes")
    with open(place, "rb") as file:
        file.seek(begin)
        tensor.raw_data = file.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return length


def check_whole(model: Any, name: str) -> None:
    """Refuse a graph whose operators are not given what they take, or that keeps data in other files.

    Runtimes have been seen to crash on the first, and would look for the second wherever it is said to be.

    Raises
    ------
    NetworkError
        It is one; `name` is for the message.
    """
    if any(map(_is_external, _tensors(model, name))):
        raise NetworkError(f"{name} keeps data in other files, and a bundle's graph holds all of it")
    shapeless = [value for value in model.graph.output if not value.type.tensor_type.HasField("shape")]
    try:
        for value in shapeless:  # some exporters leave it out, which runtimes do not mind and the checker does
            value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(model)
    except Exception as error:  # of the checker, and of its bindings
        raise NetworkError(f"{name} is no sound ONNX graph: {_first(error)}") from error
    finally:
        for value in shapeless:
            value.type.tensor_type.ClearField("shape")


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)
