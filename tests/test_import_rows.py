"""Each row of the table in docs/imports.md: what a library or a person left is imported, and answers as there."""

from collections.abc import Callable
from pathlib import Path

import import_rows as rows
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from helpers import pixels
from import_rows import Row

from models import Bundle, load_bundle
from models.engine import EngineName, EngineSpec, make_engine
from pipeline import segment
from pipeline.cli.app import cli

Maker = Callable[[Path], Row]
TORCH: tuple[EngineName, ...] = ("torch", "openvino")
GRAPH: tuple[EngineName, ...] = ("openvino", "onnxruntime")
LIBRARY = 2e-4  # of a probability: two programs round sums of random weights otherwise; most differ by 1e-6
NEAR = {"torch": LIBRARY, "openvino": LIBRARY, "onnxruntime": 1e-5}  # the last one is the library itself
FINITE = {
    "smp, state dict": (rows.smp_state_dict, TORCH),
    "smp, folder": (rows.smp_folder, TORCH),
    "timm's encoders": (rows.timm_universal, TORCH),
    "MONAI": (rows.monai_unet, TORCH),
    "a class of one's own": (rows.own_class, TORCH),
    "Lightning": (rows.lightning_checkpoint, TORCH),
    "TorchGeo": (rows.torchgeo_task, TORCH),
    "TerraTorch": (rows.terratorch_task, TORCH),
    "ONNX, traced": (rows.onnx_traced, GRAPH),
    "ONNX, exported": (rows.onnx_exported, GRAPH),
    "ONNX, fixed": (rows.onnx_fixed, GRAPH),
    "ONNX, bands last": (rows.onnx_channels_last, GRAPH),
    "MLM Item": (rows.mlm_item, TORCH),
    "Keras": (rows.keras_file, GRAPH),
    "Deepness": (rows.deepness, GRAPH),
    ".pt2": (rows.torch_program, GRAPH),
    "the MIT checkpoint": (rows.mit_checkpoint, TORCH),
}
UNBOUNDED = {
    "squeeze and excite": (rows.timm_squeezed, TORCH),
    "torchvision": (rows.torchvision_network, TORCH),
    "MONAI, by its class": (rows.monai_class, TORCH),
}
SLOW = ("ONNX, exported", ".pt2", "TorchGeo", "TerraTorch")


def table(part: dict[str, tuple[Maker, tuple[EngineName, ...]]]) -> list[object]:
    return [pytest.param(*row, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, row in part.items()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules Python finds, as those of a user."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def imported(row: Row, folder: Path) -> Bundle:
    """Run the command."""
    (folder / "row.toml").write_text(row.toml)
    words = ["import", str(row.path), "-o", str(folder / "bundle"), "--config", str(folder / "row.toml"), *row.words]
    done = CliRunner().invoke(cli, words)
    if done.exception is not None:
        raise done.exception
    return load_bundle(folder / "bundle")


def spec(engine: EngineName) -> EngineSpec:
    return EngineSpec(name=engine, device="cpu", threads=1)


def answers_alike(row: Row, bundle: Bundle, engines: tuple[EngineName, ...], side: int) -> None:
    """Each engine gives the library's own probabilities of a tile."""
    raw = pixels((1, len(bundle.metadata.bands), side, side))
    right = row.probabilities(raw)
    assert right.std() > 0.1  # or nothing would be compared
    for engine in engines:
        found = make_engine(bundle, spec(engine)).predict(raw)
        np.testing.assert_allclose(found, right, atol=NEAR[engine], rtol=0)


@pytest.mark.parametrize(("make", "engines"), table(FINITE))
def test_a_network_with_a_halo(make: Maker, engines: tuple[EngineName, ...], folder: Path, threads: None) -> None:
    """Tiled, it is what the library gives on the whole reflected scene; and the engine's, on torch to the bit."""
    row = make(folder)
    bundle = imported(row, folder)
    field, side = bundle.metadata.receptive_field, bundle.metadata.options.get("side")
    assert field.halo is not None
    answers_alike(row, bundle, engines, side or 128)
    values = pixels((len(bundle.metadata.bands), 150, 206))
    scene, cuts = xr.DataArray(values, dims=("band", "y", "x")), {} if side else {"tile": 64}
    edges = [(0, 0), *((field.halo, field.halo + -size % field.stride) for size in values.shape[1:])]
    padded = np.pad(values, edges, mode="reflect")[None]
    core = np.s_[0, :, field.halo : field.halo + 150, field.halo : field.halo + 206]
    library = row.probabilities(padded, whole=True)[core]
    for engine in engines:
        found = segment(scene, bundle, block=128, engine=engine, device="cpu", threads=1, **cuts).probability.values
        np.testing.assert_allclose(found, library[-len(found) :], atol=LIBRARY, rtol=0)
        if not side:
            ours = make_engine(bundle, spec(engine)).predict(padded)[core][-len(found) :]
            np.testing.assert_allclose(found, ours, atol=0 if engine == "torch" else 1e-5, rtol=0)


@pytest.mark.parametrize(("make", "engines"), table(UNBOUNDED))
def test_a_network_without_one(make: Maker, engines: tuple[EngineName, ...], folder: Path, threads: None) -> None:
    """It answers as the library does on a tile; on a scene, blocks change no bit."""
    row = make(folder)
    bundle = imported(row, folder)
    assert bundle.metadata.receptive_field.radius is None
    answers_alike(row, bundle, engines, 128)
    scene = xr.DataArray(pixels((3, 300, 310)), dims=("band", "y", "x"))
    one, other = (
        segment(scene, bundle, block=block, engine="torch", device="cpu", threads=1).probability.values
        for block in (160, 320)
    )
    np.testing.assert_array_equal(one, other)
