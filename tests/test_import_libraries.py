"""What libraries themselves write is read as they mean it: the network that the facts name answers as theirs."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from models.build import build
from models.imports.found import Found
from models.imports.recognise import recognise
from models.imports.state_dict import drop, read_state_dict, rename

SIDES = ("height", "width")
SMALL = {"encoder_name": "resnet18", "encoder_weights": None, "decoder_channels": (16, 8, 8, 4, 4)}


def built(found: Found) -> nn.Module:
    """Build what facts name, with the weights."""
    state = rename(drop(read_state_dict(found.path), found.facts.get("drop", [])), found.facts.get("rename", {}))
    made = build(found.facts["architecture"], found.inputs or 0, found.outputs or 0, **found.facts["options"])
    made.load_state_dict(state)
    return made.eval()


def same_answer(found: Found, network: nn.Module) -> None:
    pixels = torch.rand(1, found.inputs or 0, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(built(found)(pixels), network.eval()(pixels), rtol=0, atol=0)


def save_task(task: Any, path: Path) -> Path:
    """Write a checkpoint as a trainer of Lightning does."""
    from lightning.pytorch import Trainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.strategy.connect(task)
        trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize(
    ("classes", "more"), [(1, {"activation": "sigmoid"}), (3, {"aux_params": {"classes": 2}}), (5, {})]
)
def test_folder_that_smp_saves(classes, more, tmp_path):
    network = smp.Unet(in_channels=4, classes=classes, **SMALL, **more)
    network.save_pretrained(tmp_path / "net")
    found = recognise(tmp_path / "net")
    assert found.facts["options"]["decoder_channels"] == [16, 8, 8, 4, 4]
    network.segmentation_head[-1] = nn.Identity()  # Swathe puts the activation there itself
    network.classification_head = None
    same_answer(found, network)


@pytest.mark.parametrize("model", ["unet", "deeplabv3+"])
def test_checkpoint_that_torchgeo_saves(model, tmp_path):
    trainers = pytest.importorskip("torchgeo.trainers", exc_type=ImportError)
    task = trainers.SemanticSegmentationTask(
        model, "resnet18", in_channels=4, num_classes=3, class_weights=torch.ones(3)
    )
    found = recognise(save_task(task, tmp_path / "a.ckpt"))
    assert "TorchGeo" in found.kind
    same_answer(found, task.model)


def test_checkpoint_that_terratorch_saves(tmp_path):
    tasks = pytest.importorskip("terratorch.tasks", exc_type=ImportError)
    arguments = {"model": "Unet", "backbone": "resnet18", "bands": ["RED", "GREEN"], "in_channels": 2, "num_classes": 3,
                 "pretrained": False}  # fmt: skip
    task = tasks.SemanticSegmentationTask(arguments, "SMPModelFactory", class_names=["a", "b", "c"])
    found = recognise(save_task(task, tmp_path / "a.ckpt"))
    assert (found.facts["bands"], found.facts["classes"]) == (["red", "green"], ["a", "b", "c"])
    same_answer(found, task.model.smp_model)


def test_item_that_stac_model_writes(tmp_path):
    inputs, outputs, schema = (
        pytest.importorskip(f"stac_model.{name}", exc_type=ImportError) for name in ("input", "output", "schema")
    )
    taken = inputs.ModelInput(
        name="pixels", bands=["B04", "B08"], resize_type=None, pre_processing_function=None,
        input=inputs.InputStructure(shape=[-1, 2, 64, 64], dim_order=["batch", "bands", *SIDES], data_type="float32"),
        value_scaling=[{"type": "z-score", "mean": 10, "stddev": 5}],
    )  # fmt: skip
    given = outputs.ModelOutput(
        name="classes", tasks={"semantic-segmentation"}, post_processing_function=None, classes=[],
        result=outputs.ModelResult(shape=[-1, 2, 64, 64], dim_order=["batch", "class", *SIDES], data_type="float32"),
    )  # fmt: skip
    properties = schema.MLModelProperties(name="fields", architecture="U-Net", tasks={"semantic-segmentation"},
                                          input=[taken], output=[given])  # fmt: skip
    told = json.loads(properties.model_dump_json(by_alias=True, exclude_unset=True))
    fields = {key if key.startswith("mlm:") else f"mlm:{key}": value for key, value in told.items()}
    whole = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "a",
        "geometry": None,
        "properties": fields,
        "assets": {},
    }
    (tmp_path / "item.json").write_text(json.dumps(whole))
    found = recognise(tmp_path / "item.json")
    assert (found.facts["bands"], found.inputs, found.outputs) == (["B04", "B08"], 2, 2)
    assert found.facts["scaling"] == {"mean": [10, 10], "stddev": [5, 5]}
