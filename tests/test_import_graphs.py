"""`swathe import` of graphs: ONNX and programs of torch.export, ours and others', give the same as before."""

import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import metadata, save

from models import Bundle, SwatheError, describe_model, import_model
from models.build import build
from models.engine import EngineSpec, make_engine
from models.exporting import export_onnx, export_program
from pipeline.cli.app import cli

SETTINGS = {
    "bands": ["red", "green", "blue"],
    "dtype": "uint8",
    "scaling": {"mean": [90, 100, 110], "stddev": [20, 30, 40]},
    "classes": ["ground", "roof", "road"],
}


def answer(bundle: Bundle, pixels: np.ndarray) -> np.ndarray:
    spec = EngineSpec(name="openvino" if bundle.metadata.architecture == "onnx" else "torch", threads=1)
    return make_engine(bundle, spec).predict(pixels)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return build("unet", 3, 3, widths=(4, 8, 8)).eval()


@pytest.fixture(scope="module")
def program(network, tmp_path_factory) -> Path:
    """A program that somebody has exported: scaled pixels in, logits out, height and width free."""
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    side = torch.export.Dim("side", min=2, max=512)
    shapes = ({0: torch.export.Dim("batch", max=64), 2: 4 * side, 3: 4 * side},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.export.export(network, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=shapes, strict=False)
        torch.export.save(made, path)
    return path


def test_a_program_is_loaded_only_where_it_is_trusted(program, tmp_path):
    words = ["import", str(program), "-o", str(tmp_path / "b")]
    assert "only with --trust" in CliRunner().invoke(cli, [*words[:2], "--describe"]).output
    with pytest.raises(SwatheError, match="loading it can run code that is in it, so it is loaded only with --trust"):
        import_model(program, tmp_path / "b", config=SETTINGS)
    assert not (tmp_path / "b").exists()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(program.read_bytes()[:-700])
    with pytest.raises(SwatheError, match="a zip without its end"):
        import_model(cut, tmp_path / "b", config=SETTINGS, trust=True)


@pytest.mark.slow
def test_a_trusted_program_becomes_a_graph_that_gives_the_same(program, network, tmp_path):
    bundle = import_model(program, tmp_path / "b", config=SETTINGS, trust=True)
    assert bundle.metadata.architecture == "onnx"
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"bundle.json", "network.onnx"}
    assert bundle.metadata.name == "net"
    again = import_model(program, tmp_path / "b", config=SETTINGS, trust=True)
    assert again.digest == bundle.digest
    with pytest.raises(SwatheError, match=f"^{program} takes 3 bands"):
        import_model(
            program, tmp_path / "c", config=SETTINGS | {"bands": ["a", "b"], "scaling": {"divisor": 9}}, trust=True
        )
    pixels = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 96)).astype(np.float32)
    scaled = torch.from_numpy(pixels) - torch.tensor([90, 100, 110])[:, None, None]
    with torch.inference_mode():
        expected = network(scaled / torch.tensor([20, 30, 40])[:, None, None]).softmax(1)
    np.testing.assert_allclose(answer(bundle, pixels), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_what_swathe_exports_is_imported_without_settings(ending, tmp_path):
    """All that they need is in it: raw pixels in, the same probabilities out."""
    bundle = save(tmp_path / "own", metadata("unet"))
    path = (export_onnx if ending == ".onnx" else export_program)(bundle, tmp_path / f"e{ending}").path
    known = tomllib.loads(describe_model(path))
    assert known["bands"] == list(bundle.metadata.band_names)
    made = import_model(path, tmp_path / "again", trust=True)
    assert made.metadata.class_names == bundle.metadata.class_names
    assert made.metadata.provenance["bundle"] == bundle.digest
    pixels = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 64)).astype(np.float32)
    np.testing.assert_allclose(answer(made, pixels), answer(bundle, pixels), atol=1e-5)
