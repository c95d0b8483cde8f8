"""Optional packages: what needs one that is missing says in one line which extra brings it."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import metadata, save

from models.metadata import ReceptiveField

ROOT = Path(__file__).parent.parent
SCENE = ROOT / "pipeline" / "cli" / "scenes" / "zanzibar_b.tif"
CONFIG = f"""
name = "forest"
bands = ["red", "green", "blue"]
classes = [{{ name = "background", color = "000000" }}, {{ name = "building", color = "E4572E" }}]

[[data]]
root = "{SCENE.parent}"
image = "{{name}}.tif"
label = "{{name}}.geojson"
burn = "building"
train = ["zanzibar_b"]
"""


def without(package: str, *words: str | Path) -> str:
    """Run `swathe` as if a package were not installed; return what it says, but for progress."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = {['swathe', *map(str, words)]!r}; "
        "from train.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize(("package", "options"), [("lightning", ()), ("torchmetrics", ["--find-rate"])])
def test_training(package, options, tmp_path):
    said = without(package, "train", ROOT / "train" / "configs" / "buildings.toml", "-o", tmp_path / "b.png", *options)
    assert said == f"error: training needs {package}: pip install 'swathe[train]'"


def test_forest_as_a_baseline(tmp_path):
    (tmp_path / "data.toml").write_text(CONFIG)
    labels, config = SCENE.with_suffix(".geojson"), tmp_path / "data.toml"
    said = without("sklearn", "evaluate", "buildings", SCENE, labels, "-o", tmp_path / "scores",
                   "--baseline", "forest", "--train", config)  # fmt: skip
    assert said == "error: a random forest needs sklearn: pip install 'swathe[train]'"


def test_bundle_of_a_foreign_architecture(tmp_path):
    field = ReceptiveField(32, None)
    options = {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]}
    described = metadata("smp:Unet", name="foreign", options=options, dtype="uint8", receptive_field=field)
    bundle = save(tmp_path / "bundle", described)
    said = without(
        "segmentation_models_pytorch", "segment", SCENE, "-m", bundle.path, "-o", tmp_path / "maps.zarr", "--halo", "32"
    )
    assert said.endswith("smp:Unet needs segmentation-models-pytorch: pip install 'swathe[train]'")


@pytest.mark.parametrize(
    "words",
    [
        ("info", "s3://nowhere/maps.zarr"),
        ("segment", SCENE, "-m", "buildings", "-o", "s3://nowhere/maps.zarr"),
        ("segment", SCENE, "-m", "s3://nowhere/bundle.zip", "-o", "maps.zarr"),
        ("segment", "s3://nowhere/scene.zarr", "-m", "buildings", "-o", "maps.zarr"),
        ("stats", "s3://nowhere/maps.zarr"),
    ],
)
def test_paths_on_s3(words):
    assert without("s3fs", *words).endswith("an s3:// path needs s3fs: pip install 'swathe[s3]'")


def test_graph_for_other_programs(tmp_path):
    said = without("onnxscript", "export-model", "buildings", "-o", tmp_path / "buildings.onnx")
    assert said == "error: ONNX needs onnxscript: pip install 'swathe[export]'"
