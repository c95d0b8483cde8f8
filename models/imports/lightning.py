"""Checkpoints of Lightning: those of TorchGeo and TerraTorch tell their network, from others the weights are taken.

Hyperparameters are read as plain values; what they hold besides is named and left out (`checkpoint`).
Sources: TorchGeo 0.2 to 0.8, `trainers/segmentation.py`; TerraTorch 0.99 to 1.2, `tasks/segmentation_tasks.py` and
`models/smp_model_factory.py`; smp, `MODEL_ARCHITECTURES_MAPPING`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import BundleError
from ..metadata import MOST_CLASSES
from ..redact import printable
from .checkpoint import PlainValues, StandIn, is_checkpoint, read_checkpoint
from .found import Found
from .parts import UNUSABLE, bundle_name, class_tables, names_of, numbers, present, whole, z_score_of
from .state_dict import drop, read_state_dict, rename
from .weights import found_of_state

VERSION = "pytorch-lightning_version"
TORCHGEO = {"unet": "smp:Unet", "deeplabv3+": "smp:DeepLabV3Plus", "upernet": "smp:UPerNet",
            "segformer": "smp:Segformer", "dpt": "smp:DPT"}  # fmt: skip
OLD_NAMES = {"segmentation_model": "model", "encoder_name": "backbone"}  # of TorchGeo before 0.4
TASKS = ("binary", "multiclass", "multilabel")
# HLSBands of TerraTorch, by the common names of STAC
BANDS = {"COASTAL_AEROSOL": "coastal", "BLUE": "blue", "GREEN": "green", "RED": "red", "RED_EDGE_1": "rededge071",
         "RED_EDGE_2": "rededge075", "RED_EDGE_3": "rededge078", "NIR_BROAD": "nir", "NIR_NARROW": "nir08",
         "SWIR_1": "swir16", "SWIR_2": "swir22", "WATER_VAPOR": "nir09", "CIRRUS": "cirrus",
         "THERMAL_INFRARED_1": "lwir11",         "THERMAL_INFRARED_2": "lwir12"}  # fmt: skip
# what a module of Lightning holds beside its network
OF_TRAINING = r"(criterion|loss|loss_fn|train_loss_handler|(train|val|test)_metrics|metrics)\..*"
BUFFERS = "mean|std"  # of pixels, beside a network
MOST_CHANNELS = 4096
EXPORT = "or export it with torch.onnx.export, and import that"


def read_lightning(path: Path) -> Found | None:
    """Read what a checkpoint of Lightning tells; None: it is none.

    Raises
    ------
    BundleError
        It asks for code, is damaged, or has settings without end; or it is a checkpoint of no segmentation.
    """
    if not is_checkpoint(path):
        return None
    content = read_checkpoint(path)
    if not isinstance(content, Mapping) or VERSION not in content or not isinstance(content.get("state_dict"), Mapping):
        return None
    if any(isinstance(value, StandIn) for value in content["state_dict"].values()):
        raise BundleError(f"{path} holds objects among its weights, of which none is made; save its state dict alone")
    values = PlainValues(path)
    settings = values.table(content.get("hyper_parameters"))
    settings = {OLD_NAMES.get(key, key): value for key, value in settings.items()}
    data = values.table(content.get("datamodule_hyper_parameters"))
    notes = [f"{printable(where)} is left out: it is {printable(what)}, and only tensors and plain values are read"
             for where, what in values.left_out.items()]  # fmt: skip
    try:
        return _found(path, content, settings, data, notes)
    except UNUSABLE as error:
        raise BundleError(f"{path} is a checkpoint of Lightning with a setting that cannot be used: {error}") from error


def _found(path: Path, content: Mapping[str, Any], settings: Mapping[str, Any], data: Mapping[str, Any],
           notes: list[str]) -> Found:  # fmt: skip
    if isinstance(settings.get("model_args"), Mapping):
        kind, facts, inputs, outputs, more = _terratorch(path, settings)
    elif {"model", "backbone", "in_channels"} <= settings.keys():
        kind, facts, inputs, outputs, more = _torchgeo(path, settings)
    else:
        kind, facts, inputs, outputs, more = _by_its_weights(path, content["state_dict"], settings)
    sources = dict.fromkeys(facts, "its hyperparameters")
    facts = {"name": bundle_name(path.stem), "drop": [OF_TRAINING], **facts}
    sources |= {"name": "the file's name", "drop": "what Lightning keeps beside a network"}
    if scaling := _scaling(data, inputs):
        facts["scaling"], sources["scaling"] = scaling, "hyperparameters of its data module"
    provenance = {"file": path.name, "epoch": content.get("epoch"), "lightning": str(content[VERSION])[:40]}
    facts["provenance"] = {key: value for key, value in provenance.items() if isinstance(value, str | int)}
    sources["provenance"] = "the checkpoint"
    return Found(kind, "state", path, facts, sources, (*notes, *more), inputs, outputs)


def _by_its_weights(
    path: Path, state: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any], int | None, int | None, list[str]]:
    """Tell the network of a module of one's own by the keys and shapes of its weights."""
    named = ", ".join(map(printable, list(settings)[:8])) or "none"
    notes = [f"its class is not one of TorchGeo or TerraTorch; hyperparameters in it: {named}"]
    prefix = {r"(model|net|network)\.": ""}
    found = found_of_state(path, rename(drop(read_state_dict(path), [OF_TRAINING, BUFFERS]), prefix), "weights")
    facts: dict[str, Any] = {"drop": [OF_TRAINING, BUFFERS], "rename": prefix, **found.facts}
    if scaling := _buffers(state, found.inputs):
        facts["scaling"] = scaling
        notes.append("it holds mean and std, by which its pixels were probably scaled before its network: see to that")
    return "a checkpoint of Lightning", facts, found.inputs, found.outputs, [*notes, *found.notes]


def _buffers(state: Mapping[str, Any], bands: int | None) -> dict[str, list[float]] | None:
    """Return the scaling of a module that holds a mean and a deviation for each band, as smp's example does."""
    mean, deviation = state.get("mean"), state.get("std")
    if not isinstance(mean, torch.Tensor) or not isinstance(deviation, torch.Tensor):
        return None
    if bands is None or not mean.numel() == deviation.numel() == bands:
        return None
    return z_score_of(numbers(mean.flatten().tolist()), numbers(deviation.flatten().tolist()))


def _torchgeo(path: Path, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], int | None, int | None, list[str]]:
    kind = "a checkpoint of TorchGeo's SemanticSegmentationTask"
    model, task = str(settings["model"]), settings.get("task", "multiclass")
    if task not in TASKS or (model not in TORCHGEO and model != "fcn"):
        known = ", ".join([*TORCHGEO, "fcn"])
        raise BundleError(f"{path} is a checkpoint of TorchGeo for {printable(model)}, {printable(str(task))}; "
                          f"of its tasks SemanticSegmentationTask is read, with {known}")  # fmt: skip
    inputs = whole(settings["in_channels"], MOST_CHANNELS)
    outputs = whole(settings.get("num_classes") or settings.get("num_labels") or 1, MOST_CLASSES)
    facts: dict[str, Any] = {"rename": {r"model\.": ""}}
    facts["activation"] = "softmax" if outputs > 1 and task == "multiclass" else "sigmoid"
    notes = [] if settings.get("ignore_index") is None else [f"the training ignored class {settings['ignore_index']}"]
    if model in TORCHGEO:
        facts |= {"architecture": TORCHGEO[model], "options": {"encoder_name": str(settings["backbone"])}}
    else:
        notes.append(f"TorchGeo's FCN is built by no architecture here: give it by --factory, {EXPORT}")
    if facts["activation"] == "sigmoid" and outputs == 2:
        notes.append(
            "two labels by sigmoid are read as one channel of two classes: add a third class, or export one channel"
        )
    return kind, facts, inputs, outputs, notes


def _terratorch(
    path: Path, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any], int | None, int | None, list[str]]:
    kind, arguments = "a checkpoint of TerraTorch's SemanticSegmentationTask", settings["model_args"]
    if settings.get("task", "segmentation") != "segmentation":
        raise BundleError(f"{path} is a checkpoint of TerraTorch for {printable(str(settings['task']))}; "
                          "of its tasks segmentation is read")  # fmt: skip
    outputs = whole(arguments["num_classes"], MOST_CLASSES) if "num_classes" in arguments else None
    bands = next((arguments[key] for key in ("bands", "backbone_bands") if isinstance(arguments.get(key), list)), None)
    channels = next((arguments[key] for key in ("in_channels", "backbone_in_channels", "backbone_in_chans")
                     if arguments.get(key) is not None), None)  # fmt: skip
    inputs = len(bands) if bands else None if channels is None else whole(channels, MOST_CHANNELS)
    facts: dict[str, Any] = {"rename": {r"(model\.)?smp_model\.": "", r"model\.": ""}, "activation": "softmax"}
    notes = []
    if bands and all(isinstance(band, str) for band in bands):
        facts["bands"] = [BANDS.get(name, name) for name in names_of(bands)]
    elif bands:
        notes.append("its bands are numbers of the data set's; give their names, in that order")
    if isinstance(settings.get("class_names"), list) and settings["class_names"]:
        facts["classes"] = class_tables(settings["class_names"])
    factory = printable(str(settings.get("model_factory")))
    if factory == "SMPModelFactory":
        facts |= _smp(arguments)
    else:
        notes.append(f"its network is made by TerraTorch's {factory}: give it by --factory, {EXPORT}")
    return kind, facts, inputs, outputs, notes


def _smp(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return architecture and options of a network that TerraTorch has smp make."""
    given = {key.removeprefix("smp_"): value for key, value in arguments.items() if key.startswith("smp_")}
    options = {"encoder_name": str(arguments["backbone"]), **present(given, given)}
    return {"architecture": f"smp:{printable(str(arguments['model']))}", "options": options}


def _scaling(data: Mapping[str, Any], bands: int | None) -> dict[str, list[float]] | None:
    """Return the scaling of a data module that kept its means and deviations."""
    for means, deviations in (("means", "stds"), ("mean", "std")):
        if isinstance(data.get(means), list) and isinstance(data.get(deviations), list):
            return z_score_of(numbers(data[means], bands), numbers(data[deviations], bands))
    return None
