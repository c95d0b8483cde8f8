"""An ONNX file looked at without running it: inputs, layout, sides, what its answer is; and what is refused.

Nothing in the file decides how much is read: sizes are checked first, and data beside it only where it lies in its own
folder. What graphs mean: https://onnx.ai/onnx/repo-docs/IR.html
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import onnx

from .errors import NetworkError
from .graph_form import LARGEST_BATCH, LARGEST_SIDE, Layout, Output
from .limits import refuse_special
from .metadata import Activation, some_of

LARGEST_ONNX = 2**31 - 2**20  # bytes; protobuf takes no message of 2 GiB
MOST_NODES = 100_000  # of all graphs in a file; the largest networks have ten thousand
MOST_NUMBERS = 2**31  # that a constant may ask to be made at once
DEEPEST = 8  # graphs within graphs, as the branches of an `If`
MOST_AXES = 16
STANDARD = ("", "ai.onnx", "ai.onnx.ml")
ENDLESS = ("Loop", "Scan", "SequenceMap")
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
MADE_BY_SHAPE = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}  # and which input says the shape, or how often
# what stands between the last step that has a meaning and the output
PASSED = ("Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten")
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
    return describe(read_model(path), os.fspath(path), output_name, layout)


def describe(model: Any, name: str, output_name: str = "", layout: Layout | None = None) -> OnnxGraph:
    """As `inspect`, of a model that was read; `name` is that of its file, for messages."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        names = some_of([value.name for value in given]) or "none"
        raise NetworkError(f"{name} has {len(given)} inputs ({names}); Swathe runs networks of one, the pixels")
    if not graph.output:
        raise NetworkError(f"{name} has no output")
    shape, found = _shape(given[0], name), layout
    if len(shape) != 4:
        raise NetworkError(
            f"{name}: the input {given[0].name} has {len(shape)} axes; batch, bands, rows, columns are 4"
        )
    element = given[0].type.tensor_type.elem_type
    if element not in INPUTS:
        raise NetworkError(
            f"{name}: the input {given[0].name} is no tensor of pixels; Swathe gives {', '.join(INPUTS.values())}"
        )
    found = found or _layout(shape)
    bands, rows, columns = (shape[i] for i in ((3, 1, 2) if found == "NHWC" else (1, 2, 3)))
    if rows != columns:
        raise NetworkError(
            f"{name} takes {_said(rows)} rows and {_said(columns)} columns; tiles are squares: "
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


def _said(side: int | None) -> str:
    return "any number of" if side is None else str(side)


def _shape(value: Any, name: str) -> Shape:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise NetworkError(f"{name}: {value.name} does not say how many axes it has; export it with an input of 4")
    if len(tensor.shape.dim) > MOST_AXES:
        raise NetworkError(f"{name}: {value.name} has {len(tensor.shape.dim):,} axes, and is no image")
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _layout(shape: Shape) -> Layout | None:
    """Tell bands from sides: they are fixed where sides are not, or fewer."""
    first, last = shape[1], shape[3]
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
    raise NetworkError(f"{name} has no output {asked!r}; it has {some_of([value.name for value in graph.output])}")


def _ending(graph: Any, output: Any) -> tuple[Output, Activation | None]:
    """Find what the last step with a meaning makes of an output."""
    made_by = {result: node for node in graph.node for result in node.output}
    node = made_by.get(output.name)
    for _ in range(len(graph.node)):
        if node is None or node.op_type not in PASSED:
            break
        node = made_by.get(node.input[0])
    step = node.op_type if node is not None else ""
    if step == "ArgMax" or output.type.tensor_type.elem_type in COUNTS:
        return "classes", None
    if step in ("Softmax", "Sigmoid"):
        return "probabilities", "softmax" if step == "Softmax" else "sigmoid"
    return "logits", None


def _classes(output: Any, name: str, layout: Layout | None, kind: Output) -> int | None:
    if kind == "classes" or not output.type.tensor_type.HasField("shape"):
        return None
    shape = _shape(output, name)
    return shape[3 if layout == "NHWC" else 1] if len(shape) == 4 else None


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
            f"{name} brings operators of its own ({model.functions[0].name}): export it with them inlined"
        )
    nodes: list[Any] = []
    for graph in _graphs(model.graph, name):
        nodes += graph.node
        if graph.sparse_initializer:
            raise NetworkError(f"{name} holds sparse weights, which engines do not take: export it with dense ones")
        if len(nodes) > MOST_NODES:
            raise NetworkError(f"{name} has more than {MOST_NODES:,} operators, and is no network for images")
    _refuse_operators(nodes, name)
    _refuse_huge(nodes, _tensors(model, name), name)
    return model


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _graphs(graph: Any, name: str, depth: int = 0) -> Iterator[Any]:
    """Yield a graph and those within its operators."""
    if depth > DEEPEST:
        raise NetworkError(f"{name} has graphs within graphs, more than {DEEPEST} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner, name, depth + 1)


def _tensors(model: Any, name: str) -> dict[str, Any]:
    """Return the constants of a model by the names under which operators take them."""
    found: dict[str, Any] = {}
    for graph in _graphs(model.graph, name):
        found |= {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            for attribute in node.attribute:
                made = [attribute.t] if attribute.HasField("t") else []
                for place, tensor in enumerate((*made, *attribute.tensors)):
                    found[f"{node.output[0] if node.output else ''}{'' if place == 0 else f'#{place}'}"] = tensor
    return found


def _refuse_operators(nodes: Sequence[Any], name: str) -> None:
    foreign = sorted({f"{node.domain}::{node.op_type}" for node in nodes if node.domain not in STANDARD})
    if foreign:
        raise NetworkError(
            f"{name} needs the custom operators {some_of(foreign, 4)}, which ONNX does not define: "
            "export it with standard ones, before any runtime has optimised it"
        )
    for kinds, why in ((ENDLESS, "may never end"), (RANDOM, "gives other pixels each time")):
        if found := sorted({node.op_type for node in nodes if node.op_type in kinds}):
            raise NetworkError(f"{name} has the operator {found[0]}, which {why}: export it without")


def _refuse_huge(nodes: Sequence[Any], constants: Mapping[str, Any], name: str) -> None:
    """Refuse constants that would take more memory than any network's."""
    for said, tensor in constants.items():
        if any(side < 0 for side in tensor.dims) or prod(tensor.dims) > MOST_NUMBERS:
            raise NetworkError(f"{name}: the constant {said[:100]} has the shape {list(tensor.dims)[:8]}")
    for node in nodes:
        place = MADE_BY_SHAPE.get(node.op_type)
        if place is not None and len(node.input) > place and (shape := constants.get(node.input[place])) is not None:
            sides = _whole_numbers(shape)
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
    outside = [tensor for tensor in _tensors(model, str(path)).values() if _is_external(tensor)]
    folder, total = path.resolve().parent, path.stat().st_size
    for tensor in outside:
        said = {entry.key: entry.value for entry in tensor.external_data}
        place = folder / said.get("location", "")
        if not said.get("location") or not place.resolve().is_relative_to(folder):
            raise NetworkError(
                f"{path} keeps data in {said.get('location')!r}, outside of its folder: put it beside the file"
            )
        refuse_special(place, NetworkError)
        if not place.is_file():
            raise NetworkError(f"{path} keeps data in {said['location']!r}, which is missing: put it beside the file")
        total += _read_external(tensor, place, said, path, LARGEST_ONNX - total)


def _read_external(tensor: Any, place: Path, said: Mapping[str, str], path: Path, most: int) -> int:
    """Put the bytes of one tensor into it, and return how many they are."""
    try:
        begin = int(said.get("offset") or 0)
        length = int(said.get("length") or place.stat().st_size - begin)
        if begin < 0 or length < 0 or begin + length > place.stat().st_size:
            raise ValueError(f"{said['location']} is shorter than it says")
    except ValueError as error:
        raise NetworkError(f"{path}: the data of {tensor.name[:100]} cannot be read: {error}") from error
    if length > most:
        raise NetworkError(f"{path} has more than {LARGEST_ONNX:,} bytes with its data, the most that one file takes")
    with open(place, "rb") as file:
        file.seek(begin)
        tensor.raw_data = file.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return length


def refuse_external(model: Any, name: str) -> None:
    """Refuse data in other files, of a graph that lies in a bundle. Raises NetworkError."""
    if any(map(_is_external, _tensors(model, name).values())):
        raise NetworkError(f"{name} keeps data in other files, and a bundle's graph holds all of it")


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)
