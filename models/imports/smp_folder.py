"""Folders that `save_pretrained` of segmentation-models-pytorch writes: `config.json` beside the weights.

Source: smp 0.3.4 to 0.6, `base/hub_mixin.py`; the weights' names are those of `huggingface_hub.PyTorchModelHubMixin`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..metadata import MOST_CLASSES
from ..redact import printable
from .found import Found
from .parts import UNUSABLE, bundle_name, file_in, name_of, present, read_table, whole
from .settings import read_settings

CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
SETTINGS = "swathe.json"
PATTERNS = ("drop", "rename", "swap")  # settings that are regular expressions
CLASS = "_model_class"
# what smp puts after a network, and the activation by which Swathe does the same
ACTIVATIONS = {"sigmoid": "sigmoid", "softmax": "softmax", "softmax2d": "softmax", "logits": None, "identity": None,
               None: None}  # fmt: skip
NO_OPTIONS = ("in_channels", "classes", "encoder_weights", "activation", "aux_params")
MOST_CHANNELS, MOST_OPTIONS = 4096, 100


def read_smp_folder(path: Path) -> Found | None:
    """Read what a folder of smp tells, or one of its weights; None: it is none.

    Raises
    ------
    BundleError
        Its description is hostile, or its weights are missing.
    """
    folder = path.parent if path.name in WEIGHTS and path.is_file() else path
    if not folder.is_dir() or not (folder / CONFIG).is_file():
        return None
    file_in(folder, CONFIG, f"the description in {folder}")
    config = read_table(folder / CONFIG)
    if config is None or not isinstance(config.get(CLASS), str):
        return None
    try:
        return _found(folder, config, path.name if path != folder else "")
    except UNUSABLE as error:
        raise BundleError(f"{folder / CONFIG} has a value that cannot be used: {error}") from error


def weights_in(folder: Path) -> Path:
    """Return the weights in a folder of the Hub's. Raises BundleError where there are none, or they lie elsewhere."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return file_in(folder, name, f"the weights in {folder}")
    raise BundleError(
        f"{folder} holds no {' or '.join(WEIGHTS)}: it has the description of a network without its weights"
    )


def _found(folder: Path, config: Mapping[str, Any], named: str) -> Found:
    activation = config.get("activation")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation {printable(str(activation))!r}; read are sigmoid, softmax and none")
    options = {key: value for key, value in present(config, config).items()
               if not key.startswith("_") and key not in NO_OPTIONS}  # fmt: skip
    if len(options) > MOST_OPTIONS:
        raise ValueError(f"{len(options):,} options; a network has at most {MOST_OPTIONS}")
    inputs, outputs = whole(config["in_channels"], MOST_CHANNELS), whole(config["classes"], MOST_CLASSES)
    facts: dict[str, Any] = {"architecture": f"smp:{name_of(config[CLASS])}", "options": options}
    said = ACTIVATIONS[activation] or ("sigmoid" if outputs == 1 else None)
    facts |= {"activation": said} if said else {}
    sources = dict.fromkeys(facts, CONFIG)
    if outputs == 1 and activation is None:
        sources["activation"] = "one output channel"
    facts["name"], sources["name"] = bundle_name(_title(folder)), "the folder's name"
    notes = []
    if isinstance(config.get("aux_params"), Mapping):
        facts["drop"], sources["drop"] = [r"classification_head\..*"], f"aux_params in {CONFIG}"
        notes.append("its second output, a label of the whole image, is left out")
    if (folder / SETTINGS).is_file():  # written by `swathe export-model --for smp`
        ours = read_settings(file_in(folder, SETTINGS, f"the settings in {folder}"))
        if patterns := [key for key in PATTERNS if key in ours]:  # some match for longer than any user waits
            raise BundleError(f"{folder / SETTINGS} has {patterns[0]}, which only --config may: leave it out there")
        facts, sources = facts | ours, sources | dict.fromkeys(ours, SETTINGS)
    kind = "a folder of segmentation-models-pytorch"
    return Found(
        kind,
        "state",
        file_in(folder, named, f"the weights in {folder}") if named else weights_in(folder),
        facts,
        sources,
        tuple(notes),
        inputs,
        outputs,
    )


def _title(folder: Path) -> str:
    """Return what a folder is called: of a snapshot in the Hub's cache, the repository's name."""
    whole_path = folder.absolute()
    if whole_path.parent.name == "snapshots":
        return whole_path.parent.parent.name.rpartition("--")[2]
    return whole_path.name
