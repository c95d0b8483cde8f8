"""Bundles as deep learning packages of ArcGIS, whose function is called as Esri documents that ArcGIS does."""

import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
import torch
from helpers import metadata, pixels, save
from numpy.typing import NDArray

from models import Bundle
from models.encoding import classify, decision
from models.errors import BundleError
from models.exporting_arcgis import export_arcgis
from pipeline.cli.models import MODEL_VERBS


class ArcGIS:
    """What the tool does with a package: it unpacks it, and asks the function of the definition block by block."""

    def __init__(self, package: Path, folder: Path, **device: int) -> None:
        with zipfile.ZipFile(package) as archive:
            assert all("/" not in name for name in archive.namelist())
            archive.extractall(folder)
        (path,) = folder.glob("*.emd")
        self.told = json.loads(path.read_text())
        assert self.told["ModelType"] == "ImageClassification"
        assert (folder / self.told["ModelFile"]).is_file()
        source = folder / self.told["InferenceFunction"]
        module = importlib.util.module_from_spec(
            spec := importlib.util.spec_from_file_location(source.stem, source)  # type: ignore[arg-type]
        )
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        self.function = getattr(module, source.stem)()  # the class is called as its file
        self.function.initialize(model=str(path), **device)
        self.asked = {each["name"]: each for each in self.function.getParameterInfo()}
        assert {"raster", "model", "device"} <= self.asked.keys()
        assert self.asked["raster"]["dataType"] == "raster"
        scalars = {name: each["value"] for name, each in self.asked.items() if each["dataType"] == "numeric"}
        self.configured = self.function.getConfiguration(**scalars)
        self.output = self.function.updateRasterInfo(output_info={}, raster_info={})["output_info"]

    def run(self, image: NDArray[Any], mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Classes and mask `(y, x)` of an image and its mask `(band, y, x)`; beyond it, blocks are masked."""
        rim, tall, wide = (self.configured[key] for key in ("padding", "ty", "tx"))
        taken = list(self.configured["extractBands"])
        height, width = image.shape[1:]
        around = [(0, 0), (rim, rim + tall), (rim, rim + wide)]
        whole, seen = (np.pad(array[taken], around) for array in (image, mask))
        classes, observed = (np.zeros((height + tall, width + wide), np.uint8) for _ in range(2))
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                block = (..., slice(top, top + tall + 2 * rim), slice(left, left + wide + 2 * rim))
                given = {"raster_pixels": whole[block].copy(), "raster_mask": seen[block].copy()}
                found = self.function.updatePixels((left, top), (tall, wide), {"pixelType": "u1"}, **given)
                assert found["output_pixels"].shape == (self.output["bandCount"], tall, wide)
                assert found["output_pixels"].dtype == np.dtype(self.output["pixelType"])
                classes[top : top + tall, left : left + wide] = found["output_pixels"][0]
                observed[top : top + tall, left : left + wide] = found["output_mask"][0]
        return classes[:height, :width], observed[:height, :width]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    folder = tmp_path_factory.mktemp("arcgis")
    thresholds = {"class_1": 0.3, "class_2": 0.6}
    bundle = save(folder / "bundle", metadata("unet", bands=4, classes=3, thresholds=thresholds, description="Tiny"))
    return bundle, export_arcgis(bundle, folder / "model.dlpk").path


def test_block_by_block_it_gives_the_bundles_classes(made, tmp_path):
    bundle, package = made
    tool, described = ArcGIS(package, tmp_path), bundle.metadata
    image = pixels((4, 200, 168))
    found, observed = tool.run(image, np.ones_like(image, np.uint8))
    with torch.inference_mode():
        whole = bundle.segmenter()(torch.from_numpy(image.astype(np.float32))[None])[0].numpy()
    right = classify(whole, decision(described.thresholds, described.class_names, described.background_value))
    halo = described.receptive_field.halo or 0
    inside = (slice(halo, -halo), slice(halo, -halo))  # beyond the image the network sees means, not zeros
    assert (found[inside] == right[inside]).mean() > 0.9999
    assert len(np.unique(found)) == 3
    assert observed.all()


def test_missing_pixels_become_means_and_pixels_without_any_band_are_masked(made, tmp_path):
    bundle, package = made
    tool, image = ArcGIS(package, tmp_path), pixels((4, 72, 72), "float32") * 4000
    mask = np.ones_like(image, np.uint8)
    mask[0, 10:20], mask[:, 40:44, 40:44] = 0, 0
    image[1, 30, 30] = np.nan
    found, observed = tool.run(image, mask)
    filled = image.copy()
    for number, band in enumerate(bundle.metadata.bands):
        filled[number][(mask[number] == 0) | np.isnan(image[number])] = band.mean
    np.testing.assert_array_equal(found, tool.run(filled, np.ones_like(mask))[0])
    np.testing.assert_array_equal(observed == 0, (mask == 0).all(axis=0))


def test_what_the_definition_and_the_result_say(made, tmp_path):
    bundle, package = made
    tool = ArcGIS(package, tmp_path)
    side, rim = tool.told["ImageHeight"], tool.told["Padding"]
    assert tool.configured["tx"] == tool.configured["ty"] == side - 2 * rim
    assert (side % 4, rim % 4, rim >= bundle.metadata.receptive_field.radius) == (0, 0, True)
    assert tool.told["ExtractBands"] == [0, 1, 2, 3]
    assert [(each["Value"], each["Name"]) for each in tool.told["Classes"]] == list(
        enumerate(bundle.metadata.class_names)
    )
    rows = [row["attributes"] for row in json.loads(tool.output["rasterAttributeTable"])["features"]]
    assert [(row["Red"], row["Green"], row["Blue"]) for row in rows] == [info.rgb for info in bundle.metadata.classes]
    text = json.dumps(tool.told)
    tool.function.initialize(model=text)  # as a server gives it
    assert tool.function.definition == tool.told


def test_the_function_needs_nothing_of_swathe(made, tmp_path):
    _, package = made
    ArcGIS(package, tmp_path)
    code = "import SwatheClassifier, sys; assert not {'models', 'swathe', 'torch', 'arcgis'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={"PYTHONPATH": ""})


def test_given_again_it_is_complete_and_other_files_are_kept(made, tmp_path):
    bundle, package = made
    before = package.read_bytes()
    export_arcgis(bundle, package)
    with pytest.raises(BundleError, match="exists"):
        export_arcgis(save(tmp_path / "other", bundle.metadata, seed=3), package)
    assert package.read_bytes() == before
    with pytest.raises(BundleError, match=r"must end in \.dlpk"):
        export_arcgis(bundle, tmp_path / "m.onnx")
    group = click.Group(commands={verb.name: verb for verb in MODEL_VERBS})
    words = ["export-model", str(bundle.path), "-o", str(package)]
    found = click.testing.CliRunner().invoke(group, words)
    assert found.stdout.startswith(f"{package} is already complete: ")
    assert "note: it was not run in ArcGIS here" in found.stderr
