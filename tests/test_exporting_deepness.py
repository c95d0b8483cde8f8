"""Bundles for Deepness, read as the QGIS plugin reads them.

The reader here is written after the plugin's documentation of metadata (docs/source/creators, version 0.6.5): tiles of
one size in QGIS' order (y, x, band), divided by 255 and standardized; a threshold; one class a pixel; and of each tile
what lies nearer to it than to its neighbours.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from helpers import metadata, pixels, save
from numpy.typing import NDArray

from models import Bundle, min_max
from models.encoding import classify, decision
from models.errors import BundleError
from models.exporting import export_onnx, write_item
from models.exporting_deepness import deepness_texts, export_deepness, notes, overlap_pixels, tile
from models.metadata import BundleMetadata, ReceptiveField
from pipeline.cli.models import MODEL_VERBS


@dataclass
class Deepness:
    """What the plugin knows of a model file, and what it makes of an image."""

    path: Path

    def __post_init__(self) -> None:
        self.session = onnxruntime.InferenceSession(str(self.path), providers=["CPUExecutionProvider"])
        (self.given,), (self.result,) = self.session.get_inputs(), self.session.get_outputs()
        self.told = {key: json.loads(text) for key, text in self.session.get_modelmeta().custom_metadata_map.items()}
        assert str(self.told["model_type"]).capitalize() == "Segmentor"
        numbers = sorted((int(key), name) for key, name in self.told["class_names"].items())
        assert [number for number, _ in numbers] == list(range(len(numbers)))
        self.names = [name for _, name in numbers]
        self.mean, self.std = (
            np.array([float(value) for value in self.told[f"standardization_{key}"]], np.float32)
            for key in ("mean", "std")
        )
        self.side = int(self.told["tile_size"])
        # a side that is a name and no number fails in the plugin's window
        assert self.given.shape[-2:] == [self.side, self.side]
        assert isinstance(self.given.shape[0], str)

    def probabilities(self, tiles: NDArray[Any]) -> NDArray[np.float32]:
        """Of tiles `(n, y, x, band)`: as they come from QGIS."""
        scaled = np.float32(tiles[..., : self.given.shape[1]] * 1.0 / 255.0)
        standardized = (scaled - self.mean) / self.std
        found: NDArray[np.float32] = self.session.run(None, {self.given.name: standardized.transpose(0, 3, 1, 2)})[0]
        return found

    def decide(self, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
        kept = np.where(probabilities < float(self.told["seg_thresh"]), 0, probabilities)
        return (kept[:, 0] != 0).astype(int) if kept.shape[1] == 1 else kept.argmax(1)

    def run(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Of an image `(y, x, band)` that whole tiles fill: each pixel from the tile in whose middle it lies."""
        overlap = int(self.side * int(self.told["tiles_overlap"]) / 100 * 2) // 2
        step, rim = self.side - overlap, overlap // 2
        height, width = image.shape[:2]
        assert (height - self.side) % step == (width - self.side) % step == 0
        whole: NDArray[np.float32] = np.full((self.result.shape[1], height, width), np.nan, np.float32)
        for top in range(0, height - self.side + 1, step):
            for left in range(0, width - self.side + 1, step):
                found = self.probabilities(image[None, top : top + self.side, left : left + self.side])[0]
                ends = (top + self.side == height, left + self.side == width)
                rows = slice(rim if top else 0, self.side - (0 if ends[0] else rim))
                columns = slice(rim if left else 0, self.side - (0 if ends[1] else rim))
                whole[:, top:, left:][:, rows, columns] = found[:, rows, columns]
        return whole


def answer(bundle: Bundle, image: NDArray[Any]) -> NDArray[np.float32]:
    """The bundle's probabilities `(class, y, x)` of a whole image `(y, x, band)`."""
    raw = torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1)[None].copy())
    with torch.inference_mode():
        return bundle.segmenter()(raw)[0].numpy()


KINDS: dict[str, dict[str, Any]] = {
    "softmax of two": {"dtype": "uint8", "resolution": (0.1, 0.1), "thresholds": {"class_1": 0.3}},
    "sigmoid of one": {
        "activation": "sigmoid", "scaling": min_max([0] * 3, [4000] * 3), "background": "class_1",
        "thresholds": {"class_0": 0.6},
    },
    "softmax of three": {"classes": 3, "bands": 4, "dtype": "float32", "resolution": (10, 20)},
}  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=() if kind == "softmax of two" else pytest.mark.slow) for kind in KINDS],
)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    folder = tmp_path_factory.mktemp("deepness")
    bundle = save(folder / "bundle", metadata("unet", **KINDS[request.param]))
    return bundle, export_deepness(bundle, folder / "model.onnx").path


def test_tiles_fed_as_the_plugin_does_give_the_bundles_probabilities(made):
    bundle, path = made
    plugin = Deepness(path)
    step = plugin.side - overlap_pixels(plugin.side, plugin.told["tiles_overlap"])
    shape = (plugin.side + step, plugin.side + 2 * step, len(bundle.metadata.bands))
    image = pixels(shape, bundle.metadata.dtype)
    right = answer(bundle, image)
    if plugin.result.shape[1] == 1:
        right = right[[bundle.metadata.class_names.index(plugin.names[1])]]
    np.testing.assert_allclose(plugin.run(image), right, atol=3e-5, rtol=0)  # random weights magnify rounding


def test_its_map_is_ours(made):
    bundle, path = made
    plugin, described = Deepness(path), bundle.metadata
    image = pixels((plugin.side, plugin.side, len(described.bands)), described.dtype, seed=3)
    found = np.array(plugin.names)[plugin.decide(plugin.probabilities(image[None]))[0]]
    named = described.thresholds
    bounds = decision(named, described.class_names, described.background_value) if named else None
    right = classify(answer(bundle, image), bounds)
    assert (found == np.array(described.class_names)[right]).mean() > 0.9999  # a probability may lie on the threshold
    assert len(np.unique(found)) == len(described.classes)


def test_what_it_says_to_the_plugin(made):
    bundle, path = made
    told, described = Deepness(path).told, bundle.metadata
    assert (told.get("resolution"), told["seg_thresh"]) == {
        "uint8": (10.0, 0.3), "uint16": (None, 0.6), "float32": (1414.21, 0.0)
    }[described.dtype]  # fmt: skip
    assert told["swathe"]["digest"] == bundle.digest
    assert [band["name"] for band in told["swathe"]["bands"]] == list(described.band_names)
    assert any("set it in Deepness by hand" in note for note in notes(bundle)) is (described.resolution is None)
    assert any("documents uint8 alone" in note for note in notes(bundle)) is (described.dtype != "uint8")
    # shapes and types as ONNX has them, and no values beside the file
    onnx.checker.check_model(onnx.load(path), full_check=True)


FIELDS = [(4, 23), (8, 58), (32, 311), (64, 468), (32, None), (1, 0), (16, 16)]


@pytest.mark.parametrize(("stride", "radius"), FIELDS)
@pytest.mark.parametrize("patch", [64, 256, 500])
def test_tiles_lie_on_the_stride_and_their_rims_hold_the_halo(stride, radius, patch, tmp_path):
    described = metadata("unet", patch=patch, receptive_field=ReceptiveField(stride, radius))
    side, percent = tile(Bundle(described, tmp_path, ""))
    overlap = overlap_pixels(side, percent)
    assert side >= patch
    assert side % stride == (side - overlap) % stride == 0
    assert 0 <= percent <= 50
    assert overlap // 2 >= (side // 8 if radius is None else radius)
    assert side <= max(patch + 2 * stride, 4 * (radius or 0) + 4 * stride, 128)


@pytest.mark.parametrize(
    ("changes", "threshold", "alike"),
    [
        ({"classes": 2}, 0.5, True),
        ({"classes": 3}, 0.0, True),
        ({"classes": 3, "thresholds": {"class_1": 0.6, "class_2": 0.6}}, 0.6, True),
        ({"classes": 3, "thresholds": {"class_1": 0.3, "class_2": 0.3}}, 0.3, False),
        ({"classes": 3, "thresholds": {"class_1": 0.6, "class_2": 0.7}}, 0.7, False),
        ({"classes": 3, "background": "class_2", "thresholds": {"class_0": 0.6, "class_1": 0.6}}, 0.6, False),
    ],
)
def test_thresholds_that_deepness_does_not_have_are_said(changes, threshold, alike, tmp_path):
    described: BundleMetadata = metadata("unet", dtype="uint8", resolution=(1, 1), **changes)
    bundle = Bundle(described, tmp_path, "")
    assert json.loads(deepness_texts(bundle)["seg_thresh"]) == threshold
    assert bool(notes(bundle)) is not alike
    without = replace(described, receptive_field=ReceptiveField(4, None))
    assert any("no exact halo" in note for note in notes(Bundle(without, tmp_path, "")))


def test_given_again_it_is_complete_and_other_files_are_kept(made, tmp_path):
    bundle, path = made
    before = path.read_bytes()
    export_deepness(bundle, path)
    assert path.read_bytes() == before
    other = save(tmp_path / "other", bundle.metadata, seed=7)
    with pytest.raises(BundleError, match="exists"):
        export_deepness(other, path)
    with pytest.raises(BundleError, match="exists"):
        export_onnx(bundle, path)  # the same network, in another form
    with pytest.raises(BundleError, match=r"must end in \.onnx"):
        export_deepness(bundle, tmp_path / "m.pt2")
    assert path.read_bytes() == before
    assert "onnx" in json.loads(write_item(bundle, tmp_path / "item.json", [path]).read_text())["assets"]


def command(*words: str | Path) -> click.testing.Result:
    group = click.Group(commands={verb.name: verb for verb in MODEL_VERBS})
    return click.testing.CliRunner().invoke(group, [str(word) for word in words])


def test_the_verb(made, tmp_path):
    bundle, path = made
    words = ["export-model", bundle.path, "--for", "deepness", "-o", tmp_path / "m.onnx"]
    found = command(*words)
    assert found.stdout.startswith(f"wrote {tmp_path / 'm.onnx'}: ")
    assert found.stderr.splitlines()[1:] == [f"note: {text}" for text in notes(bundle)]
    assert Deepness(tmp_path / "m.onnx").told == Deepness(path).told
    words[-1] = path
    assert command(*words).stdout.startswith(f"{path} is already complete: ")
    refused = command(*words[:-1], tmp_path / "m.pt2")
    assert (refused.exit_code, "must end in .onnx" in refused.stderr) == (2, True)
