"""Networks as libraries and people leave them, each with its own answer: what `swathe import` must come to.

One function makes one row of the table in docs/imports.md. Weights are random; the files are the libraries' own.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from helpers import balance, lively, network
from numpy.typing import NDArray
from torch import Tensor, nn

MEAN, STDDEV = 2000.0, 800.0  # of what `helpers.pixels` makes
COLOURS = ("202020", "E4572E", "2E86E4")
Answer = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """A file or folder, what it does not tell, and what the library that made it answers.

    Parameters
    ----------
    path
        What `swathe import` is given.
    toml
        The settings that the file does not tell.
    scores
        Scaled pixels `(n, band, y, x)` to what the network gives: logits or probabilities `(n, channel, y, x)`.
    finish
        What makes probabilities of that.
    words
        Further words of the command.
    whole
        As `scores`, for pixels of any size, where what was made takes tiles of one size alone.
    mean, stddev
        The scaling of its inputs.
    """

    path: Path
    toml: str
    scores: Answer
    finish: Callable[[Tensor], Tensor]
    words: tuple[str, ...] = ()
    whole: Answer | None = None
    mean: float = MEAN
    stddev: float = STDDEV

    def probabilities(self, pixels: NDArray[Any], *, whole: bool = False) -> NDArray[np.float32]:
        """The library's own probabilities of raw pixels `(n, band, y, x)`; `whole`: of any size."""
        scaled = (pixels.astype(np.float32) - np.float32(self.mean)) / np.float32(self.stddev)
        scores = (whole and self.whole) or self.scores
        made: NDArray[np.float32] = self.finish(torch.from_numpy(scores(scaled))).numpy()
        return made


def settings(classes: int = 3, bands: int = 3, **more: Any) -> str:
    """Write the TOML of an import: bands, scaling and classes, and what else is given."""
    named = ", ".join(f'{{ name = "class_{n}", color = "{COLOURS[n]}" }}' for n in range(classes))
    lines = [
        'name = "row"',
        f"bands = {list(('red', 'green', 'blue', 'nir')[:bands])}",
        'dtype = "uint16"',
        f"scaling = {{ mean = {MEAN}, stddev = {STDDEV} }}",
        f"classes = [{named}]",
        *(f"{key} = {_inline(value)}" for key, value in more.items()),
    ]
    return "\n".join(lines) + "\n"


def _inline(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f'"{key}" = {_inline(one)}' for key, one in value.items()) + " }"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def softmax(scores: Tensor) -> Tensor:
    return scores.softmax(1)


def two_of_one(scores: Tensor) -> Tensor:
    """Background and foreground of a sigmoid of one channel."""
    return torch.cat([1 - scores.sigmoid(), scores.sigmoid()], 1)


def of_torch(network: nn.Module, *, key: str | None = None) -> Answer:
    """Return the answer of a module; `key`: the name of its scores, where it answers with a dict."""

    @torch.inference_mode()
    def scores(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        made = network(torch.from_numpy(pixels))
        return (made if key is None else made[key]).numpy()  # type: ignore[no-any-return]

    return scores


def of_onnx(path: Path) -> Answer:
    """Return the answer of ONNX Runtime, for graphs of either layout."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def scores(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        last = given.shape[3] == pixels.shape[1]
        shown = np.moveaxis(pixels, 1, -1) if last else pixels
        made = session.run(None, {given.name: np.ascontiguousarray(shown)})[0]
        return np.ascontiguousarray(np.moveaxis(made, -1, 1) if last else made)

    return scores


def by_windows(scores: Answer, side: int, margin: int) -> Answer:
    """Let what takes tiles of one side alone answer for more pixels, by windows of which `margin` is thrown away."""

    def whole(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = pixels.shape[2:]
        around = np.pad(pixels, [(0, 0), (0, 0), (margin, side), (margin, side)])
        inner, rows = side - 2 * margin, []
        for top in range(0, height, inner):
            tiles = [scores(around[:, :, top : top + side, left : left + side]) for left in range(0, width, inner)]
            rows.append(np.concatenate([tile[:, :, margin:-margin, margin:-margin] for tile in tiles], 3))
        return np.concatenate(rows, 2)[:, :, :height, :width]

    return whole


def evenly(network: nn.Module, bands: int) -> None:
    """Give deep networks weights that are random but for their batch norms, which else let them magnify rounding."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    balance(network.eval(), bands)


def make_smp(name: str = "Unet", encoder: str = "mobilenet_v2", bands: int = 3, classes: int = 3) -> nn.Module:
    """A small network of segmentation-models-pytorch."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    return lively(getattr(smp, name)(encoder, **SMALL, in_channels=bands, classes=classes), bands)


SMALL: dict[str, Any] = {"encoder_depth": 3, "encoder_weights": None, "decoder_channels": [16, 8, 8]}
OPTIONS = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}


def smp_state_dict(folder: Path) -> Row:
    """`torch.save` of a state dict, as DataParallel and a training script leave it."""
    made = make_smp(classes=1)
    state = {f"module.{key}": value for key, value in made.state_dict().items()}
    torch.save({"model_state_dict": state, "epoch": 7}, folder / "best.pth")
    options = {"encoder_name": "mobilenet_v2", **OPTIONS}
    toml = settings(2, architecture="smp:Unet", options=options, activation="sigmoid")
    return Row(folder / "best.pth", toml, of_torch(made), two_of_one)


def smp_folder(folder: Path) -> Row:
    """`save_pretrained`: `config.json` and `model.safetensors`, which tell the network."""
    made = make_smp(bands=4)
    made.save_pretrained(folder / "saved")  # type: ignore[operator]
    return Row(folder / "saved", settings(bands=4), of_torch(made), softmax)


def timm_universal(folder: Path) -> Row:
    """Any encoder of timm, as segmentation-models-pytorch takes it."""
    made = make_smp(encoder="tu-mobilenetv2_035")
    made.save_pretrained(folder / "saved")  # type: ignore[operator]
    return Row(folder / "saved", settings(), of_torch(made), softmax)


def timm_squeezed(folder: Path) -> Row:
    """An encoder with squeeze-and-excite, which sees its whole input: there is no exact halo."""
    made = make_smp(encoder="tu-mobilenetv3_small_050")
    made.save_pretrained(folder / "saved")  # type: ignore[operator]
    return Row(folder / "saved", settings(), of_torch(made), softmax)


class Scores(nn.Module):
    """torchvision's networks without the dict around their answer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        scores: Tensor = self.network(pixels)["out"]
        return scores


def torchvision_network(folder: Path) -> Row:
    """torchvision's LR-ASPP, which answers with a dict of `out`."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    made = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    evenly(Scores(made), 3)
    torch.save(made.state_dict(), folder / "lraspp.pth")
    toml = settings(architecture="torchvision:lraspp_mobilenet_v3_large")
    return Row(folder / "lraspp.pth", toml, of_torch(made, key="out"), softmax)


def monai_unet(folder: Path) -> Row:
    """MONAI's UNet."""
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    options = {"channels": [8, 16, 16], "strides": [2, 2], "num_res_units": 1, "norm": "batch"}
    torch.manual_seed(0)
    made = lively(nets.UNet(spatial_dims=2, in_channels=3, out_channels=3, **options), 3)
    torch.save(made.state_dict(), folder / "monai.pt")
    return Row(folder / "monai.pt", settings(architecture="monai:UNet", options=options), of_torch(made), softmax)


def monai_class(folder: Path) -> Row:
    """A class of a package, named by the user: MONAI's UNet with instance norms, which see their whole input."""
    nets = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    options = {"spatial_dims": 2, "in_channels": 3, "out_channels": 3, "channels": [8, 16, 16], "strides": [2, 2]}
    torch.manual_seed(0)
    made = lively(nets.UNet(**options), 3)
    torch.save(made.state_dict(), folder / "monai.pt")
    return Row(folder / "monai.pt", settings(options=options), of_torch(made), softmax,
               ("--factory", "monai.networks.nets:UNet"))  # fmt: skip


OWN = """
import torch
from torch import nn

class Dilated(nn.Module):
    def __init__(self, bands, width=8, classes=3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(bands, width, 3, padding=1), nn.BatchNorm2d(width), nn.ELU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.GELU())
        self.last = nn.Conv2d(2 * width, classes, 1)

    def forward(self, pixels):
        first = self.first(pixels)
        return self.last(torch.cat([first, self.second(first)], 1))

class Whole(nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.model = Dilated(*sizes)

    def forward(self, pixels):
        return {"out": self.model(pixels), "aux": None}

def make(bands=3, width=8, classes=3):
    return Whole(bands, width, classes)
"""


def own_class(folder: Path) -> Row:
    """A class of one's own in a module of one's own, which Python finds; all of its keys begin with `model.`."""
    import importlib

    (folder / "my_networks.py").write_text(OWN)
    torch.manual_seed(0)
    made = importlib.import_module("my_networks").make(width=6)
    lively(Scores(made), 3)
    torch.save(made.state_dict(), folder / "own.pth")
    return Row(folder / "own.pth", settings(options={"width": 6}), of_torch(made, key="out"), softmax,
               ("--factory", "my_networks:make"))  # fmt: skip


def save_with_lightning(module: Any, path: Path) -> Path:
    """Save a checkpoint as Lightning's trainer does; nothing is trained."""
    import lightning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no data was given
        trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False,
                                    enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.strategy.connect(module)
        trainer.save_checkpoint(path)
    return path


def lightning_checkpoint(folder: Path) -> Row:
    """A checkpoint of Lightning: the state dict lies below `model.`, hyperparameters are plain values."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, width: int, learning_rate: float) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = make_smp(encoder="tu-mobilenetv2_035")

    module = Module(8, 1e-3)
    path = save_with_lightning(module, folder / "epoch=3-step=40.ckpt")
    toml = settings(architecture="smp:Unet", options={"encoder_name": "tu-mobilenetv2_035", **OPTIONS})
    return Row(path, toml, of_torch(module.model), softmax)


def torchgeo_task(folder: Path) -> Row:
    """TorchGeo's SemanticSegmentationTask, whose hyperparameters tell network and classes."""
    trainers = pytest.importorskip("torchgeo.trainers", reason="TorchGeo is not installed")
    torch.manual_seed(0)
    task = trainers.SemanticSegmentationTask(
        model="unet", backbone="tu-mobilenetv2_035", in_channels=3, num_classes=3, loss="ce"
    )
    evenly(task.model, 3)
    path = save_with_lightning(task, folder / "torchgeo.ckpt")
    return Row(path, settings(), of_torch(task.model), softmax)


def terratorch_task(folder: Path) -> Row:
    """TerraTorch's SemanticSegmentationTask of a network of segmentation-models-pytorch."""
    tasks = pytest.importorskip("terratorch.tasks", reason="TerraTorch is not installed")
    torch.manual_seed(0)
    arguments = {"model": "Unet", "backbone": "mobilenet_v2", "bands": ["RED", "GREEN", "BLUE"], "in_channels": 3,
                 "num_classes": 3, "pretrained": False, "smp_encoder_depth": 3,
                 "smp_decoder_channels": [16, 8, 8]}  # fmt: skip
    task = tasks.SemanticSegmentationTask(model_args=arguments, model_factory="SMPModelFactory",
                                          class_names=["class_0", "class_1", "class_2"])  # fmt: skip
    made = lively(task.model.smp_model, 3)
    path = save_with_lightning(task, folder / "terratorch.ckpt")
    return Row(path, settings(), of_torch(made), softmax)


class ChannelsLast(nn.Module):
    """As Keras has it: pixels `(n, y, x, band)` in, probabilities `(n, y, x, class)` out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels.permute(0, 3, 1, 2)).softmax(1).permute(0, 2, 3, 1)  # type: ignore[no-any-return]


def export(network: nn.Module, path: Path, shape: tuple[int, ...], *, dynamo: bool, free: tuple[int, ...]) -> Path:
    """Write ONNX with torch's exporters: by tracing, or by `torch.export` (`dynamo`)."""
    names = {axis: f"side_{axis}" if axis else "batch" for axis in free}
    given: dict[str, Any] = (
        {"dynamic_shapes": (dict.fromkeys(free, torch.export.Dim.DYNAMIC),)}
        if dynamo
        else {"dynamic_axes": {"input": names, "output": names}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and that the older exporter is the older one
        torch.onnx.export(network.eval(), (torch.zeros(shape),), path, input_names=["input"], output_names=["output"],
                          dynamo=dynamo, **given, **({"verbose": False} if dynamo else {}))  # fmt: skip
    return path


def onnx_traced(folder: Path) -> Row:
    """ONNX by torch's older exporter, sides and batch free."""
    path = export(make_smp(), folder / "traced.onnx", (1, 3, 64, 64), dynamo=False, free=(0, 2, 3))
    return Row(path, settings(), of_onnx(path), softmax)


def onnx_exported(folder: Path) -> Row:
    """ONNX by torch's newer exporter, sides and batch free."""
    path = export(network("unet", 3, 3), folder / "exported.onnx", (2, 3, 64, 64), dynamo=True, free=(0, 2, 3))
    return Row(path, settings(), of_onnx(path), softmax)


def onnx_fixed(folder: Path) -> Row:
    """ONNX of one fixed size, one image at a time; of a network with a finite receptive field."""
    made = make_smp()
    path = export(made, folder / "fixed.onnx", (1, 3, 256, 256), dynamo=False, free=())
    return Row(path, settings(), of_onnx(path), softmax, whole=of_torch(made))


def onnx_channels_last(folder: Path) -> Row:
    """ONNX as converters of Keras leave it: bands last, probabilities out."""
    path = export(ChannelsLast(make_smp()), folder / "keras.onnx", (1, 64, 64, 3), dynamo=False, free=(0, 1, 2))
    return Row(path, settings(), of_onnx(path), lambda answered: answered)


def keras_file(_: Path) -> Row:
    """What Keras 3.15.1 wrote with `model.export(path, format="onnx")`: a small U-Net, random weights, 256 x 256."""
    path = Path(__file__).parent / "data/keras_unet.onnx"
    answer = of_onnx(path)
    return Row(path, settings(), answer, lambda answered: answered, whole=by_windows(answer, 256, 32))


def deepness(folder: Path) -> Row:
    """ONNX with the metadata of QGIS's Deepness: its values are divided by 255 before they are standardised."""
    made = make_smp()
    path = export(made, folder / "deepness.onnx", (1, 3, 256, 256), dynamo=False, free=(0,))
    graph = onnx.load(path)
    told = {
        "model_type": "Segmentor",
        "class_names": '{"0": "class_0", "1": "class_1", "2": "class_2"}',
        "resolution": "1000",
        "tile_size": "256",
        "tiles_overlap": "20",
        "standardization_mean": str([MEAN / 255] * 3),
        "standardization_std": str([STDDEV / 255] * 3),
    }
    onnx.helper.set_model_props(graph, told)
    onnx.save(graph, path)
    return Row(path, settings(), of_onnx(path), softmax, whole=of_torch(made))


def mlm_item(folder: Path) -> Row:
    """A STAC Item of the Machine Learning Model extension, written after its README, with safetensors beside it."""
    made = make_smp()
    safetensors.torch.save_file(made.state_dict(), folder / "weights.safetensors")
    names = ("red", "green", "blue")
    shape = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    classes = [{"value": n, "name": f"class_{n}", "color_hint": COLOURS[n]} for n in range(3)]
    properties = {
        "datetime": "2026-11-29T00:00:00Z",
        "mlm:name": "row",
        "mlm:architecture": "segmentation_models_pytorch.Unet",
        "mlm:framework": "pytorch",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [{
            "name": "pixels",
            "bands": [{"name": name} for name in names],
            "input": {"shape": [-1, 3, 128, 128], **shape},
            "value_scaling": [{"type": "z-score", "mean": MEAN, "stddev": STDDEV}] * 3,
        }],
        "mlm:output": [{
            "name": "classes",
            "tasks": ["semantic-segmentation"],
            "result": {"shape": [-1, 3, 128, 128], **shape},
            "classification:classes": classes,
        }],
    }  # fmt: skip
    asset = {"href": "./weights.safetensors", "roles": ["mlm:model", "mlm:weights"],
             "bands": [{"name": name, "eo:common_name": name, "data_type": "uint16"} for name in names]}  # fmt: skip
    item = {"type": "Feature", "stac_version": "1.1.0", "id": "row", "geometry": None, "links": [],
            "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.0/schema.json"],
            "properties": properties, "assets": {"weights": asset}}  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    toml = f'options = {_inline({"encoder_name": "mobilenet_v2", **OPTIONS})}\ndtype = "uint16"\n'
    return Row(folder / "item.json", toml, of_torch(made), softmax)


def torch_program(folder: Path) -> Row:
    """What `torch.export.save` writes, loaded with --trust alone."""
    made = network("unet", 3, 3)
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(made, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=(free,))
    torch.export.save(program, folder / "network.pt2")
    return Row(folder / "network.pt2", settings(), of_torch(made), softmax, ("--trust",))


def mit_checkpoint(_: Path) -> Row:
    """A third party's U-Net for clouds, trained on 38-Cloud, as its author left it."""
    from test_networks import CHECKPOINT, IMPORT, SimpleUNetV2

    if not CHECKPOINT.exists():
        pytest.skip(f"{CHECKPOINT.name} is in ../shared/data, which is not here")
    theirs = SimpleUNetV2().eval()
    theirs.load_state_dict(torch.load(CHECKPOINT, map_location="cpu", weights_only=True))

    def two(probability: Tensor) -> Tensor:
        return torch.cat([1 - probability, probability], 1)

    return Row(CHECKPOINT, IMPORT, of_torch(theirs), two, mean=0, stddev=65535)
