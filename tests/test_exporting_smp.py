"""Bundles as folders of segmentation-models-pytorch: opened with smp itself, imported again, refused."""

import json
import re
from dataclasses import replace
from pathlib import Path

import click.testing
import pytest
import segmentation_models_pytorch as smp
import torch
from helpers import metadata, save

from models import Bundle, min_max
from models.bundle import load_bundle
from models.errors import BundleError, NetworkError
from models.exporting_smp import FILES, export_smp
from models.importing import import_model
from models.metadata import ReceptiveField
from pipeline.cli.models import MODEL_VERBS

OPTIONS = {"encoder_name": "tu-mobilenetv3_small_100", "decoder_channels": [16, 8, 8, 8, 8]}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    described = metadata(
        "smp:Unet", name="small", options=OPTIONS, receptive_field=ReceptiveField(32, None), activation="sigmoid",
        scaling=min_max([0.0, 100.0, 50.0], [4000.0, 3000.0, 5000.0]), thresholds={"class_1": 0.4},
        provenance={"imagery": "Sentinel-2, CC-BY-4.0"}, description="Finds nothing.", resolution=(10.0, 20.0),
    )  # fmt: skip
    return save(tmp_path_factory.mktemp("smp") / "bundle", described)


@pytest.fixture(scope="module")
def folder(bundle: Bundle) -> Path:
    path = bundle.path.parent / "folder"
    assert export_smp(bundle, path).difference == 0
    return path


def test_smp_opens_it_and_gives_our_probabilities_as_its_card_says(bundle, folder, capsys):
    assert {path.name for path in folder.iterdir()} == FILES
    pixels = torch.rand(2, 3, 64, 96) * 4000
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0].replace("THIS FOLDER", str(folder))
    found = {"pixels": pixels}
    with torch.inference_mode():
        exec(code, found)
        right = bundle.segmenter()(pixels)
    assert found["probabilities"].shape == (2, 1, 64, 96)
    torch.testing.assert_close(found["probabilities"][:, 0], right[:, 1], rtol=0, atol=1e-6)
    assert "mit" not in card.partition("---\n# ")[0]  # the weights' licence is not that of smp
    for said in ("red, green, blue (uint16)", "class_1 0.4", "10 to 20", "Sentinel-2, CC-BY-4.0", "Finds nothing."):
        assert said in card


def test_imported_again_it_is_the_same_bundle(bundle, folder, tmp_path, monkeypatch):
    field = bundle.metadata.receptive_field
    monkeypatch.setattr("models.importing.measure_receptive_field", lambda *_: field)  # a minute for large strides
    again = import_model(folder, tmp_path / "again")
    assert again.digest == bundle.digest
    assert replace(again.metadata, provenance={}) == replace(bundle.metadata, provenance={})
    assert bundle.metadata.provenance.items() <= again.metadata.provenance.items()


def test_given_again_it_is_complete_and_other_folders_are_kept(bundle, folder, tmp_path):
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}
    export_smp(bundle, folder)
    other = save(tmp_path / "other", bundle.metadata, seed=4)
    with pytest.raises(BundleError, match="exists"):
        export_smp(other, folder)
    assert before == {path: (path.stat().st_ino, path.read_bytes()) for path in folder.iterdir()}
    mine = export_smp(other, tmp_path / "folder").path
    export_smp(bundle, mine, overwrite=True)
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == {
        path.name: content for path, (_, content) in before.items()
    }
    (mine / "notes.txt").touch()
    with pytest.raises(BundleError, match=re.escape("also holds notes.txt; only a folder of smp is replaced")):
        export_smp(bundle, mine, overwrite=True)
    (tmp_path / "file").touch()
    for taken in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BundleError, match=r"is a file|cannot be written"):
            export_smp(bundle, taken)
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".sha256"} == {"other", "folder", "file"}


def test_what_smp_reads_otherwise_is_not_written(bundle, tmp_path, monkeypatch):
    wrong = smp.Unet(in_channels=3, classes=1, encoder_weights=None, **OPTIONS).eval()
    monkeypatch.setattr(smp, "from_pretrained", lambda _: wrong)
    with pytest.raises(NetworkError, match="differs from the bundle by"):
        export_smp(bundle, tmp_path / "folder")
    assert not list(tmp_path.iterdir())


def test_the_verb(bundle, folder, tmp_path):
    group = click.Group(commands={verb.name: verb for verb in MODEL_VERBS})

    def command(*words: object) -> click.testing.Result:
        return click.testing.CliRunner().invoke(group, ["export-model", *map(str, words)])

    found = command(bundle.path, "--for", "smp", "-o", folder)
    assert found.stdout.startswith(f"{folder} is already complete: ")
    assert "note: scaling and activation are not in smp's network" in found.stderr
    refused = command(bundle.path, "--for", "smp", "-o", tmp_path / "folder.onnx")
    assert (refused.exit_code, "must be a folder, for smp" in refused.stderr) == (2, True)
    shipped = command("buildings", "--for", "smp", "-o", tmp_path / "folder")
    assert "which segmentation-models-pytorch does not have" in str(shipped.exception)
    assert json.loads((folder / "config.json").read_text())["_model_class"] == "Unet"
    assert load_bundle(bundle.path).digest == bundle.digest
    assert not list(tmp_path.iterdir())
