"""What an ONNX file tells of its network: channels, sides, the form of its answer, and what was written beside it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import NetworkError, require_extra
from ..metadata import some_of
from ..redact import printable
from .deepness import deepness_facts
from .found import Found
from .own_export import read_texts

HERE = "what swathe export-model wrote"


def read_onnx_file(path: Path) -> Found:
    """Read what an ONNX file tells, without running it. Raises NetworkError where Swathe does not run such a one."""
    require_extra("export", "an ONNX file", "onnx", error=NetworkError)
    from ..onnx_graph import OnnxGraph, inspect  # a second to import

    graph: OnnxGraph = inspect(path)
    facts: dict[str, Any] = {"activation": graph.activation} if graph.activation else {}
    sources = dict.fromkeys(facts, "its last step")
    if not graph.dtype.startswith("float"):
        facts, sources = {**facts, "dtype": graph.dtype}, {**sources, "dtype": "its input"}
    kind = f"an ONNX graph of {graph.parameters:,} numbers" + (
        f", written by {printable(graph.producer)[:100]}" if graph.producer else ""
    )
    found = deepness_facts(graph.properties, path, graph.bands, graph.classes)
    told: tuple[Mapping[str, Any], Mapping[str, str], tuple[str, ...]] = (
        (found.facts, found.sources, found.notes) if found else ({}, {}, ())
    )
    own = read_texts(graph.properties, path)
    return Found(kind, "onnx", path, {**facts, **told[0], **own}, {**sources, **told[1], **dict.fromkeys(own, HERE)},
                 (*_notes(graph), *told[2]), graph.bands, graph.classes)  # fmt: skip


def _notes(graph: Any) -> Iterator[str]:
    axes = " x ".join("any" if side is None else str(side) for side in graph.shape)
    order = graph.layout or "in an order that is not told"
    yield f"its input {printable(graph.input[:100])!r} is {axes} of {graph.dtype}, {order}"
    if graph.side:
        yield f"tiles of {graph.side} x {graph.side} pixels alone"
    yield f"its output {printable(graph.output_name[:100])!r} gives {graph.output}"
    if len(graph.outputs) > 1:
        names = some_of([printable(name[:100]) for name in graph.outputs])
        yield f'of the outputs {names}: options = {{ output_name = "..." }} names another'
