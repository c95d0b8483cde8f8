"""What `swathe export-model` writes for other programs, imported again without any settings: the same probabilities.

Of ONNX and programs for everyone: tests/test_import_graphs.py; of folders of smp: tests/test_exporting_smp.py.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import metadata, pixels, save

from models import Bundle, import_model, min_max
from models.engine import EngineSpec, make_engine
from models.errors import NetworkError
from models.exporting import export_onnx, export_program, write_item
from models.exporting_arcgis import export_arcgis
from models.exporting_deepness import export_deepness, tile
from models.exporting_smp import export_smp
from models.tracing import Exported

WAYS: dict[str, tuple[Callable[[Bundle, Path], Exported], str, dict[str, Any]]] = {
    "deepness, one class": (export_deepness, "m.onnx", {
        "activation": "sigmoid", "scaling": min_max([0] * 3, [4000] * 3), "background": "class_1",
        "thresholds": {"class_0": 0.6}, "resolution": (0.5, 0.5),
    }),
    "deepness, three classes": (export_deepness, "m.onnx", {"classes": 3, "background": None, "dtype": "uint8"}),
    "arcgis": (export_arcgis, "m.dlpk", {
        "classes": 3, "bands": 4, "thresholds": {"class_1": 0.3, "class_2": 0.6}, "resolution": (10, 20),
    }),
}  # fmt: skip


def answer(bundle: Bundle, image: np.ndarray) -> np.ndarray:
    """Probabilities `(class, y, x)` of one tile of raw pixels."""
    name = "openvino" if bundle.metadata.architecture == "onnx" else "torch"
    return make_engine(bundle, EngineSpec(name=name, threads=1)).predict(image[None])[0]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if way == "deepness, three classes" else ()) for way in WAYS]
)
def test_exported_and_imported_it_gives_the_same(way, tmp_path):
    export, name, changes = WAYS[way]
    bundle = save(tmp_path / "bundle", metadata("unet", **changes))
    again = import_model(export(bundle, tmp_path / name).path, tmp_path / "again")
    before, after = bundle.metadata, again.metadata
    assert (after.name, after.dtype, after.resolution) == (before.name, before.dtype, before.resolution)
    assert after.band_names == before.band_names
    assert (after.background, after.thresholds) == (before.background, before.thresholds)
    assert set(after.classes) == set(before.classes)
    assert [band.mean for band in after.bands] == [band.mean for band in before.bands]
    side = tile(bundle)[0]
    image = pixels((len(before.bands), side, side), before.dtype)
    found = answer(again, image)
    in_order = [after.class_names.index(name) for name in before.class_names]
    np.testing.assert_allclose(found[in_order], answer(bundle, image), atol=3e-5, rtol=0)
    if way == "arcgis":  # whose sides are free: the halo is exact again
        assert after.receptive_field == before.receptive_field
        packaged_or_refused(again, tmp_path)
    assert import_model(tmp_path / name, tmp_path / "again").digest == again.digest


def packaged_or_refused(graph: Bundle, folder: Path) -> None:
    """A bundle that holds a graph has an Item, and is exported no further: it is what others read."""
    asset = json.loads(write_item(graph, folder / "item.json").read_text())["assets"]["weights"]
    assert (folder / asset["href"]).stat().st_size == asset["file:size"]
    for export, name in ((export_onnx, "x.onnx"), (export_program, "x.pt2"), (export_arcgis, "x.dlpk"),
                         (export_deepness, "d.onnx"), (export_smp, "x")):  # fmt: skip
        with pytest.raises(NetworkError, match=r"holds an ONNX graph, as it came: take .*network\.onnx"):
            export(graph, folder / name)
        assert not (folder / name).exists()
