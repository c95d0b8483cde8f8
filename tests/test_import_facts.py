"""What foreign files tell of their networks: each reader on files made by its documented format."""

import hashlib
import json
import zipfile
from argparse import Namespace
from collections import defaultdict
from enum import Enum
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from foreign import definition, foreign_class, item, save_lightning, save_package, save_smp
from helpers import metadata

from models.build import build
from models.importing import import_settings, read_state_dict
from models.imports.arcgis import read_arcgis
from models.imports.checkpoint import PlainValues, read_checkpoint
from models.imports.deepness import deepness_facts
from models.imports.lightning import read_lightning
from models.imports.mlm_item import read_mlm_item
from models.imports.own import settings_of
from models.imports.parts import bundle_name, class_tables
from models.imports.recognise import recognise
from models.imports.settings import KEYS, metadata_of
from models.imports.smp_folder import read_smp_folder
from models.mlm import to_item

STATE = {"model.encoder.weight": torch.ones(2, 2)}
TORCHGEO = {"model": "unet", "backbone": "resnet18", "in_channels": 4, "task": "multiclass", "num_classes": 5,
            "num_labels": None, "num_filters": 3, "loss": "ce", "class_weights": torch.ones(5), "ignore_index": 0,
            "lr": 0.001, "patience": 10, "freeze_backbone": False, "freeze_decoder": False}  # fmt: skip
TERRATORCH = {"task": "segmentation", "model_factory": "SMPModelFactory",
              "class_names": ["background", "field", "water"],
              "model_args": {"model": "Unet", "backbone": "resnet18", "bands": ["RED", "NIR_NARROW"], "in_channels": 2,
                             "num_classes": 3, "pretrained": False, "smp_encoder_depth": 4}}  # fmt: skip


class Bands(Enum):
    RED = "RED"
    NIR_NARROW = "NIR_NARROW"


def test_facts_have_the_keys_of_settings(tmp_path):
    (tmp_path / "crops.pth").write_bytes(b"w")
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "a.emd").write_text(json.dumps(definition()))
    (tmp_path / "item.json").write_text(json.dumps(item()))
    found = [read_smp_folder(save_smp(tmp_path / "smp")), read_arcgis(tmp_path / "a.emd"),
             read_mlm_item(tmp_path / "item.json"),
             read_lightning(save_lightning(tmp_path / "a.ckpt", STATE, **TORCHGEO)),
             deepness_facts({"model_type": '"Segmentor"'}, tmp_path / "a.onnx")]  # fmt: skip
    for one in found:
        assert one is not None
        assert set(one.facts) <= set(KEYS)
        assert set(one.sources) == set(one.facts)


@pytest.mark.parametrize("read", [read_smp_folder, read_arcgis, read_mlm_item, read_lightning])
def test_what_is_something_else_is_left_to_others(read, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.txt").write_text("weights")
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "scene.json").write_text(json.dumps({"type": "Feature", "properties": {"eo:cloud_cover": 3}}))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    for path in sorted(tmp_path.iterdir()):
        assert read(path) is None


# segmentation-models-pytorch


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_folder_of_smp(weights, tmp_path):
    folder = save_smp(tmp_path / "My Net", weights)
    found = read_smp_folder(folder)
    assert found is not None
    assert found.path == folder / weights
    assert found.facts["architecture"] == "smp:Unet"
    assert found.facts["options"] == {
        "encoder_name": "resnet18",
        "decoder_channels": [32, 16, 8, 8, 4],
        "encoder_depth": 5,
    }
    assert (found.facts["name"], found.inputs, found.outputs) == ("my-net", 4, 3)
    assert "activation" not in found.facts
    assert read_smp_folder(folder / weights) == found  # its weights lead to the folder


@pytest.mark.parametrize(("classes", "activation", "told"), [(1, None, "sigmoid"), (1, "sigmoid", "sigmoid"),
                                                             (3, "softmax2d", "softmax")])  # fmt: skip
def test_activation_of_smp(classes, activation, told, tmp_path):
    found = read_smp_folder(save_smp(tmp_path / "a", classes=classes, activation=activation))
    assert found is not None
    assert found.facts["activation"] == told


def test_labels_of_whole_images_are_dropped(tmp_path):
    found = read_smp_folder(save_smp(tmp_path / "a", aux_params={"classes": 2}))
    assert found is not None
    assert found.facts["drop"] == [r"classification_head\..*"]
    assert "left out" in found.notes[0]


# Lightning


@pytest.mark.parametrize(("changed", "architecture", "activation", "outputs"), [
    ({}, "smp:Unet", "softmax", 5),
    ({"model": "deeplabv3+"}, "smp:DeepLabV3Plus", "softmax", 5),
    ({"task": "binary", "num_classes": None}, "smp:Unet", "sigmoid", 1),
    ({"task": "multilabel", "num_classes": None, "num_labels": 4}, "smp:Unet", "sigmoid", 4),
    ({"model": "fcn"}, None, "softmax", 5),
])  # fmt: skip
def test_checkpoint_of_torchgeo(changed, architecture, activation, outputs, tmp_path):
    found = read_lightning(save_lightning(tmp_path / "a.ckpt", STATE, **{**TORCHGEO, **changed}))
    assert found is not None
    assert found.kind == "a checkpoint of TorchGeo's SemanticSegmentationTask"
    assert found.facts.get("architecture") == architecture
    assert (found.facts["activation"], found.inputs, found.outputs) == (activation, 4, outputs)
    if architecture:
        assert found.facts["options"] == {"encoder_name": "resnet18"}
    else:
        assert any("--factory" in note for note in found.notes)


def test_checkpoint_of_torchgeo_before_0_4(tmp_path):
    old = {"segmentation_model": "unet", "encoder_name": "resnet50", "in_channels": 13, "num_classes": 7, "loss": "ce"}
    found = read_lightning(save_lightning(tmp_path / "a.ckpt", STATE, **old))
    assert found is not None
    assert (found.facts["architecture"], found.facts["options"]) == ("smp:Unet", {"encoder_name": "resnet50"})


@pytest.mark.parametrize("as_enumeration", [False, True])
def test_checkpoint_of_terratorch(as_enumeration, tmp_path):
    given = {**TERRATORCH, "model_args": dict(TERRATORCH["model_args"])}
    if as_enumeration:  # as TerraTorch's own configurations have them
        given["model_args"]["bands"] = [Bands.RED, Bands.NIR_NARROW]
    found = read_lightning(save_lightning(tmp_path / "a.ckpt", STATE, **given))
    assert found is not None
    assert found.facts["bands"] == ["red", "nir08"]
    assert found.facts["classes"] == ["background", "field", "water"]
    assert (found.facts["architecture"], found.facts["options"]) == (
        "smp:Unet",
        {"encoder_name": "resnet18", "encoder_depth": 4},
    )
    assert (found.inputs, found.outputs, found.notes) == (2, 3, ())


def test_networks_that_terratorch_alone_builds(tmp_path):
    given = {"model_factory": "EncoderDecoderFactory", "model_args": {"backbone": "prithvi_eo_v2_300", "num_classes": 3,
             "backbone_bands": ["BLUE"], "decoder": "UperNetDecoder"}}  # fmt: skip
    found = read_lightning(save_lightning(tmp_path / "a.ckpt", STATE, **given))
    assert found is not None
    assert "architecture" not in found.facts
    assert any("EncoderDecoderFactory" in note for note in found.notes)


def test_settings_of_other_classes_become_plain_values(tmp_path):
    def state(self):
        return self.__dict__.copy()

    with (
        foreign_class("omegaconf.dictconfig.DictConfig", __getstate__=state) as table,
        foreign_class("omegaconf.nodes.AnyNode", __getstate__=state) as node,
        foreign_class("lightning.fabric.utilities.data.AttributeDict", base=dict) as attributes,
        foreign_class("mine.Loss", __getstate__=state) as loss,
    ):
        leaf, config, mine = node(), table(), loss()
        leaf._val, mine.weight = 18, torch.ones(3)
        config._content, config._parent = {"depth": leaf}, config
        path = save_lightning(tmp_path / "a.ckpt", STATE, config=config, more=Namespace(rate=0.1), loss=mine,
                              seen=Bands.RED,
                              at=PurePosixPath("/a/b"), own=attributes(a=1), many=defaultdict(list, a=[1]),
                              weights=torch.tensor([1.0, 2.0]), large=torch.zeros(5000))  # fmt: skip
    values = PlainValues(path)
    told = values.table(read_checkpoint(path)["hyper_parameters"])
    assert told == {"config": {"depth": 18}, "more": {"rate": 0.1}, "seen": "RED", "at": "/a/b", "own": {"a": 1},
                    "many": {"a": [1]}, "weights": [1.0, 2.0]}  # fmt: skip
    assert values.left_out == {"loss": "mine.Loss", "large": "a tensor of 5,000 numbers"}
    found = read_lightning(path)
    assert found is not None
    assert "loss is left out: it is mine.Loss, and only tensors and plain values are read" in found.notes
    assert set(read_state_dict(path)) == {"encoder.weight"}


def test_checkpoint_with_loss_and_classes_becomes_a_bundle(tmp_path):
    network = build("unet", 4, 3, widths=[4, 8]).eval()
    state = {f"model.{key}": tensor for key, tensor in network.state_dict().items()}
    state |= {"criterion.weight": torch.ones(3), "mean": torch.zeros(1, 4, 1, 1), "std": torch.full((1, 4, 1, 1), 1e4)}
    with foreign_class("mine.Settings") as settings:
        path = save_lightning(tmp_path / "a.ckpt", state, settings=settings())
    found = recognise(path)
    assert (found.facts["architecture"], found.facts["options"]) == ("unet", {"widths": [4, 8]})
    assert found.facts["scaling"] == {"mean": [0, 0, 0, 0], "stddev": [10_000] * 4}
    told = {"bands": ["red", "green", "blue", "nir"], "dtype": "uint16", "thresholds": 0.4, "background": "a",
            "classes": ["a", "b", "c"]}  # fmt: skip
    bundle = import_settings(found, told, tmp_path / "bundle")
    pixels = torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(1)) * 10_000
    with torch.no_grad():
        np.testing.assert_allclose(bundle.segmenter()(pixels), network(pixels / 10_000).softmax(1), atol=1e-6)
    assert bundle.metadata.thresholds == {"b": 0.4, "c": 0.4}
    assert bundle.metadata.provenance["epoch"] == 3


# ArcGIS


def test_model_definition_of_arcgis(tmp_path):
    (tmp_path / "crops.pth").write_bytes(b"w")
    (tmp_path / "crops.emd").write_text(json.dumps(definition()))
    found = read_arcgis(tmp_path / "crops.emd")
    assert found is not None
    assert (found.network, found.path, found.inputs) == ("state", tmp_path / "crops.pth", 3)
    assert found.facts["bands"] == ["blue", "green", "nir"]
    # (value - minimum) / range, then by mean and deviation, of bands 1, 2 and 4
    assert found.facts["scaling"] == {"mean": [500, 260, 200], "stddev": [100, 200, 50]}
    assert found.facts["classes"] == ["background", {"name": "maize", "color": "008000"},
                                      {"name": "wheat", "color": "FF000A"}]  # fmt: skip
    assert (found.facts["patch"], found.facts["resolution"]) == (256, [10, 10])
    assert "--factory" in found.notes[0]


def test_package_of_arcgis_with_a_graph(tmp_path):
    text = json.dumps(definition(ONNX={"INFER": ".\\onnx\\crops.onnx"}))
    path = save_package(
        tmp_path / "crops.dlpk", text, {"crops.pth": b"w", "onnx/crops.onnx": b"graph", "a.py": b"import os"}
    )
    found = read_arcgis(path)
    assert found is not None
    assert (found.network, found.path.suffix, found.path.read_bytes()) == ("onnx", ".onnx", b"graph")
    assert sorted(one.name for one in found.path.parent.iterdir()) == ["weights.onnx"]  # and none of its code


@pytest.mark.parametrize(("changed", "fact", "told"), [
    ({"NormalizationStats": None, "ExtractBands": [0, 1, 2]}, "scaling",
     {"mean": [123.675, 116.28, 103.53], "stddev": [58.395, 57.12, 57.375]}),
    ({"ExtractBands": ["nir", "red"]}, "bands", ["nir", "red"]),
    ({"ExtractBands": ["nir", "red"]}, "scaling", {"mean": [200, 10], "stddev": [50, 50]}),
    ({"Classes": [{"Value": 0, "Name": "bare", "Color": [1, 2, 3]}, {"Value": 1, "Name": "corn"}]}, "classes",
     [{"name": "bare", "color": "010203"}, "corn"]),
    ({"Classes": [{"ClassValue": 1, "ClassName": "corn", "Color": [1, 2, 3]}]}, "classes",
     ["background", {"name": "corn", "color": "010203"}]),
    ({"MinCellSize": {"x": 1e-6, "spatialReference": {"wkid": 4326}}}, "resolution", None),
    ({"ImageWidth": 512}, "patch", None),
    ({"Bands": None}, "bands", None),
])  # fmt: skip
def test_facts_of_arcgis(changed, fact, told, tmp_path):
    (tmp_path / "crops.pth").write_bytes(b"w")
    (tmp_path / "crops.emd").write_text(json.dumps(definition(**changed)))
    found = read_arcgis(tmp_path / "crops.emd")
    assert found is not None
    assert found.facts.get(fact) == told


# Deepness


def test_metadata_of_deepness(tmp_path):
    properties = {"model_type": '"Segmentor"', "class_names": '{"0": "not_road", "1": "road"}', "resolution": "21",
                  "tile_size": "512", "tiles_overlap": "15", "seg_thresh": "0.6", "seg_small_segment": "11",
                  "standardization_mean": "[0.5, 0.4, 0.0]", "standardization_std": "[0.2, 0.1, 1.0]"}  # fmt: skip
    found = deepness_facts(properties, tmp_path / "Roads v2.onnx", 3, 2)
    assert found is not None
    assert found.facts["scaling"] == {"mean": [127.5, 102, 0], "stddev": [51, 25.5, 255]}
    assert (found.facts["resolution"], found.facts["patch"], found.facts["thresholds"]) == (0.21, 512, 0.6)
    assert found.facts["classes"] == ["not_road", "road"]
    assert (found.facts["dtype"], found.facts["name"]) == ("uint8", "roads-v2")


@pytest.mark.parametrize(("properties", "channels", "fact", "told"), [
    ({"model_type": "Segmentor", "names": "{0: 'road'}"}, 1, "activation", "sigmoid"),  # as early models have it
    ({"seg_thresh": "0.5", "tiles_size": "256"}, None, "patch", 256),
    ({"seg_thresh": "0.5"}, None, "scaling", {"divisor": 255}),
    ({"model_type": '"segmentor"', "standardization_mean": "[0, 0]", "standardization_std": "[1, 1]"}, None,
     "scaling", {"divisor": 255}),
    ({"model_type": '"Segmentor"', "class_names": '{"0": "x", "1": "y", "2": "z"}', "seg_thresh": "0.5"}, 3,
     "thresholds", None),
])  # fmt: skip
def test_facts_of_deepness(properties, channels, fact, told, tmp_path):
    found = deepness_facts(properties, tmp_path / "a.onnx", None, channels)
    assert found is not None
    assert found.facts.get(fact) == told


def test_one_class_of_deepness_stands_beside_the_background(tmp_path):
    found = deepness_facts({"model_type": '"Segmentor"', "class_names": '{"0": "road"}'}, tmp_path / "a.onnx", 3, 1)
    assert found is not None
    assert found.facts["classes"] == ["background", "road"]


@pytest.mark.parametrize(
    "properties", [{}, {"names": "{0: 'car'}", "stride": "32"}, {"resolution": "1"}, {"swathe": "{}"}]
)
def test_metadata_of_others_is_not_of_deepness(properties, tmp_path):
    assert deepness_facts(properties, tmp_path / "a.onnx") is None


# STAC Items


def test_item_of_a_model(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(item()))
    found = read_mlm_item(tmp_path / "item.json")
    assert found is not None
    assert (found.network, found.path, found.inputs, found.outputs) == ("state", tmp_path / "weights.pth", 2, 2)
    assert found.facts["scaling"] == {"mean": [100, 100], "stddev": [50, 50]}
    assert (found.facts["bands"], found.facts["dtype"], found.facts["patch"]) == (["red", "nir"], "uint16", 128)
    assert found.facts["classes"] == ["background", {"name": "water", "color": "0000FF"}]
    assert found.facts["radiometry"] == [{"scale": 0.0001, "offset": 0, "unit": ""}] * 2
    assert found.facts["name"] == "water-finder"


SCALINGS = [
    ({"value_scaling": [{"type": "min-max", "minimum": 0, "maximum": 255}]},
     {"minimum": [0, 0], "maximum": [255, 255]}),
    ({"value_scaling": [{"type": "scale", "value": 10}, {"type": "scale", "value": 20}]}, {"divisor": [10, 20]}),
    ({"value_scaling": [{"type": "offset", "value": 10}, {"type": None}]}, {"mean": [10, 0], "stddev": [1, 1]}),
    ({"value_scaling": None}, {"divisor": 1}),
    ({"value_scaling": [{"type": "clip", "minimum": 0, "maximum": 1}]}, None),
    ({"value_scaling": [{"type": "processing", "format": "gdal-calc", "expression": "A"}]}, None),
    ({"pre_processing_function": {"format": "python", "expression": "my.code:run"}}, None),
    # before 1.4
    ({"norm_type": "z-score", "statistics": [{"mean": 1, "stddev": 2}, {"mean": 3, "stddev": 4}]},
     {"mean": [1, 3], "stddev": [2, 4]}),
    ({"norm_type": "min-max", "statistics": [{"minimum": 1, "maximum": 2}]}, {"minimum": [1, 1], "maximum": [2, 2]}),
    ({"norm_type": "clip", "norm_clip": [10_000, 5_000]}, {"divisor": [10_000, 5_000]}),
    ({"norm_type": None}, None),
    ({"norm_type": "l2"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "told"), SCALINGS)
def test_scaling_of_items(changed, told, tmp_path):
    whole = item()
    taken = whole["properties"]["mlm:input"][0]
    if "norm_type" in changed:
        del taken["value_scaling"]
    taken |= changed
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(whole))
    found = read_mlm_item(tmp_path / "item.json")
    assert found is not None
    assert found.facts.get("scaling") == told
    if changed.get("pre_processing_function"):
        assert "my.code:run first, which is not run" in found.notes[0]


def test_weights_elsewhere_are_named(tmp_path):
    whole = item()
    whole["assets"]["model"]["href"] = "https://user:secret@example.com/a.pth?token=secret"
    (tmp_path / "item.json").write_text(json.dumps(whole))
    found = read_mlm_item(tmp_path / "item.json")
    assert found is not None
    assert (found.network, found.path) == ("item", tmp_path / "item.json")
    assert "https://example.com/a.pth: fetch them" in found.notes[0]
    assert "secret" not in found.notes[0]


def test_checksum_of_an_asset_is_held(tmp_path):
    whole = item()
    whole["assets"]["model"]["file:checksum"] = "1220" + hashlib.sha256(b"w").hexdigest()
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(whole))
    assert read_mlm_item(tmp_path / "item.json") is not None


def test_item_of_a_bundle_tells_all(tmp_path):
    bundle = metadata("unet", name="mine", options={"widths": [4, 8]}, description="of tests", resolution=(0.5, 2.0))
    (tmp_path / "weights.safetensors").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(to_item(bundle, "weights.safetensors", 1, "2024-01-01T00:00:00Z")))
    found = read_mlm_item(tmp_path / "item.json")
    assert found is not None
    again = metadata_of(found.facts)
    assert settings_of(again) == found.facts == settings_of(bundle)


# names


@pytest.mark.parametrize(
    ("text", "name"), [("Wald & Wiese", "wald-wiese"), ("../../etc", "etc"), ("", "imported"), ("ü", "imported")]
)
def test_names_of_bundles(text, name):
    assert bundle_name(text) == name


def test_names_and_colours_of_classes():
    assert class_tables(["a", "a"], [None, "FF0000"]) == ["a", {"name": "a_1", "color": "FF0000"}]
    given = {"name": "a", "architecture": "unet", "bands": ["red"], "dtype": "uint8", "scaling": {"divisor": 1}}
    made = metadata_of({**given, "classes": class_tables([f"class {number}" for number in range(60)])})
    assert len({one.color for one in made.classes}) == 60
