"""Receptive fields of small ONNX graphs: none is called finite that is not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from test_onnx_refused import SETTINGS, after, model

from models.importing import import_onnx
from models.metadata import ReceptiveField

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
