"""Small files as other programs write them, for tests of imports: made by their documented formats, without them."""

import json
import pickle
import sys
import types
import zipfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

SIDES = ("height", "width")


@contextmanager
def foreign_class(name: str, **members: Any):
    """Give a class of a module that is not installed, so that an object of it can be pickled."""
    module_name, _, class_name = name.rpartition(".")
    module = types.ModuleType(module_name)
    made = type(class_name, (members.pop("base", object),), {"__module__": module_name, **members})
    setattr(module, class_name, made)
    parts = module_name.split(".")
    above = {".".join(parts[:end]): types.ModuleType(".".join(parts[:end])) for end in range(1, len(parts))}
    added = {**{name: one for name, one in above.items() if name not in sys.modules}, module_name: module}
    with mock.patch.dict(sys.modules, added):
        yield made


def save_lightning(path: Path, state: Mapping[str, torch.Tensor], **hyperparameters: Any) -> Path:
    """Write a checkpoint as Lightning's trainer does."""
    content = {"epoch": 3, "global_step": 30, "pytorch-lightning_version": "2.5.0", "state_dict": dict(state),
               "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": [], "hparams_name": "kwargs",
               "hyper_parameters": hyperparameters}  # fmt: skip
    torch.save(content, path)
    return path


def save_smp(folder: Path, weights: str = "model.safetensors", **changed: Any) -> Path:
    """Write a folder as smp's `save_pretrained` does; its weights are no network's."""
    config = {"_model_class": "Unet", "activation": None, "aux_params": None, "classes": 3, "encoder_name": "resnet18",
              "decoder_attention_type": None, "decoder_channels": [32, 16, 8, 8, 4], "encoder_depth": 5,
              "encoder_weights": "imagenet", "in_channels": 4, **changed}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / weights).write_bytes(b"weights")
    (folder / "README.md").write_text("---\nlibrary_name: segmentation-models-pytorch\nlicense: mit\n---\n# Card\n")
    return folder


def definition(**changed: Any) -> dict[str, Any]:
    """Return a model definition as arcgis.learn's UnetClassifier writes it of multispectral images."""
    statistics = {"band_min_values": [0, 10, 0, 100], "band_max_values": [1000, 1010, 100, 300],
                  "band_mean_values": None, "band_std_values": None, "scaled_min_values": [0, 0, 0, 0],
                  "scaled_max_values": [1, 1, 1, 1], "scaled_mean_values": [0.5, 0.25, 0.1, 0.5],
                  "scaled_std_values": [0.1, 0.2, 0.5, 0.25]}  # fmt: skip
    cell = {"x": 10, "y": 10, "spatialReference": {"wkid": 32636, "latestWkid": 32636}}
    classes = [
        {"Value": 2, "Name": "wheat", "Color": [255, 0, 10]},
        {"Value": 1, "Name": "maize", "Color": [0, 128, 0]},
    ]
    found = {"Framework": "arcgis.learn.models._inferencing", "ModelConfiguration": "_unet",
             "ModelType": "ImageClassification", "InferenceFunction": "ArcGISImageClassifier.py",
             "ExtractBands": [0, 1, 3], "Classes": classes, "ModelFile": "crops.pth", "ImageHeight": 256,
             "ImageWidth": 256, "ModelName": "UnetClassifier", "MinCellSize": cell, "MaxCellSize": cell,
             "ModelParameters": {"backbone": "resnet34"}, "IsMultispectral": True,
             "Bands": ["blue", "green", "red", "nir"], "NormalizationStats": statistics}  # fmt: skip
    return {key: value for key, value in (found | changed).items() if value is not None}


def save_package(path: Path, text: str | bytes, files: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    """Write a deep learning package of ArcGIS."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("crops.emd", text)
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def item(**changed: Any) -> dict[str, Any]:
    """Return a STAC Item of MLM 1.4 or later."""
    taken = {"name": "pixels", "bands": ["B04", "B08"],
             "input": {"shape": [-1, 2, 128, 128], "dim_order": ["batch", "bands", *SIDES], "data_type": "float32"},
             "value_scaling": [{"type": "z-score", "mean": 100, "stddev": 50}],
             "pre_processing_function": None}  # fmt: skip
    given = {"name": "classes", "tasks": ["semantic-segmentation"],
             "result": {"shape": [-1, 2, 128, 128], "dim_order": ["batch", "class", *SIDES], "data_type": "float32"},
             "classification:classes": [{"value": 1, "name": "water", "color_hint": "0000FF"},
                                        {"value": 0, "name": "background"}]}  # fmt: skip
    properties = {"datetime": "2024-01-01T00:00:00Z", "mlm:name": "Water Finder", "mlm:architecture": "U-Net",
                  "mlm:tasks": ["semantic-segmentation"], "mlm:framework": "pytorch", "mlm:input": [taken],
                  "mlm:output": [given]}  # fmt: skip
    asset = {"href": "./weights.pth", "roles": ["mlm:model", "mlm:weights"], "mlm:artifact_type": "torch.save",
             "raster:bands": [{"name": "B04", "data_type": "uint16", "scale": 0.0001, "offset": 0, "unit": "m"},
                              {"name": "B08", "data_type": "uint16", "scale": 0.0001, "offset": 0}],
             "eo:bands": [{"name": "B04", "common_name": "red"}, {"name": "B08", "common_name": "nir"}]}  # fmt: skip
    return {"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [],
            "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.4.0/schema.json"],
            "properties": properties, "assets": {"model": asset}, **changed}  # fmt: skip


class Asks:
    """An object whose pickle calls a function as it is read."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def raw_checkpoint(path: Path, content: Any, how: int = zipfile.ZIP_STORED) -> Path:
    """Write an object as `torch.save` packs it, with pickle's own code."""
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("a/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, 2))
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", "little")
    return path
