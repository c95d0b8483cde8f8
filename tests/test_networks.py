"""The network that learns: weights it begins with, what is frozen, its parameters' groups, and chips it can take."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import segmentation_models_pytorch as smp
import timm
import torch
import torchvision
from click.testing import CliRunner, Result
from helpers import SHARED, metadata, save
from safetensors.torch import save_file
from sklearn.metrics import jaccard_score
from torch import Tensor, nn

from models import load_bundle, measure_receptive_field, save_bundle
from models.build import build
from models.errors import BundleError, NetworkError, SwatheError, TrainingError
from models.importing import import_model, swap_halves
from models.segmenter import Segmenter
from pipeline.cli.app import cli
from train.config import Network
from train.fitting.networks import (
    check_chips,
    encoder_of,
    frozen_at,
    keep_frozen_in_eval,
    make_network,
    parameter_groups,
    set_frozen,
)
from train.fitting.pretrained import adapt_bands

CHECKPOINT = SHARED / "checkpoints/tristangiando_simple_unet_v2/simple_unet_v2_subset100_epoch10.pth"
CLOUDS = SHARED / "cloud38/38-Cloud_training"
SMALL: dict[str, dict[str, Any]] = {
    "simple-unet": {"widths": [4, 8, 8]},
    "unet": {"widths": [4, 8, 8]},
    "unet-resnet": {"depth": 18},
    "smp:Unet": {"encoder_name": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]},
    "smp:FPN": {"encoder_name": "efficientnet-b0"},
}
LARGE = ("unet-resnet", "smp:FPN")
SIZES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in SMALL]
FIRST = {
    "simple-unet": "contract1.0.weight",
    "unet": "down.0.0.weight",
    "unet-resnet": "conv1.0.weight",
    "smp:Unet": "encoder.conv1.weight",
    "smp:FPN": "encoder._conv_stem.weight",
}
HEAD = {
    "simple-unet": ("expand1.",),
    "unet": ("final.",),
    "unet-resnet": ("final.",),
    "smp:Unet": ("segmentation_head.",),
    "smp:FPN": ("segmentation_head.",),
}


def settings_of(architecture: str, weights: str | Path = "") -> Network:
    return Network(architecture, SMALL[architecture], weights=str(weights))


def kept(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Save a network's weights, each number another, so that nothing fits by chance."""
    state = {
        key: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(n))
        if tensor.is_floating_point()
        else tensor
        for n, (key, tensor) in enumerate(network.state_dict().items())
    }
    torch.save({"state_dict": state, "epoch": 3}, path)
    return state


def plain_adaptation(weight: np.ndarray, bands: int) -> np.ndarray:
    """By the definition, one band at a time."""
    out, given, rows, columns = weight.shape
    made = np.zeros((out, bands, rows, columns))
    for band in range(bands):
        made[:, band] = weight[:, band % given] * given / bands
    return weight.sum(1, keepdims=True) if bands == 1 else made


@pytest.mark.parametrize("architecture", SIZES)
def test_a_whole_network_of_other_bands_and_classes(architecture, tmp_path):
    """All is taken: the first convolution adapted, the head alone left."""
    given = kept(build(architecture, 3, 2, **SMALL[architecture]), tmp_path / "w.pth")
    notes: list[str] = []
    made = make_network(settings_of(architecture, tmp_path / "w.pth"), 5, 4, note=notes.append).state_dict()
    for key, tensor in made.items():
        if key == FIRST[architecture]:
            np.testing.assert_allclose(tensor, plain_adaptation(given[key].numpy(), 5), rtol=1e-6)
        elif not key.startswith(HEAD[architecture]):
            assert torch.equal(tensor, given[key]), key
        elif tensor.ndim:
            assert not np.isin(tensor.numpy(), given[key].numpy()).any(), key
    assert f"adapted to the bands: {FIRST[architecture]}" in notes[0]
    assert f"begin fresh: {HEAD[architecture][0]}" in notes[0]


@pytest.mark.parametrize("architecture", SIZES)
def test_the_same_bands_and_classes_are_taken_whole(architecture, tmp_path):
    given = kept(build(architecture, 4, 3, **SMALL[architecture]), tmp_path / "w.pth")
    made = make_network(settings_of(architecture, tmp_path / "w.pth"), 4, 3).state_dict()
    assert all(torch.equal(tensor, given[key]) for key, tensor in made.items())


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7])
def test_adaptation_is_timms_and_smps(bands):
    weight = torch.randn(8, 3, 7, 7)
    torch.testing.assert_close(adapt_bands(weight, bands), timm.models.adapt_input_conv(bands, weight))
    patched = nn.Sequential(nn.Conv2d(3, 8, 7, bias=False))
    patched[0].weight = nn.Parameter(weight)
    smp.encoders._utils.patch_first_conv(patched, bands, 3, pretrained=True)
    torch.testing.assert_close(adapt_bands(weight, bands), patched[0].weight.detach())


@pytest.mark.parametrize("given", [1, 2, 4])
@pytest.mark.parametrize("bands", [1, 2, 3, 6])
def test_adaptation_keeps_the_mean_response(given, bands):
    """Over equal filters exactly; and from any number of bands."""
    weight = torch.randn(8, 1, 3, 3).expand(8, given, 3, 3).double()
    adapted = adapt_bands(weight, bands)
    torch.testing.assert_close(adapted.sum((1, 2, 3)), weight.sum((1, 2, 3)))
    assert adapted.shape == (8, bands, 3, 3)


ENCODERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "torchvision": lambda: torchvision.models.resnet18(num_classes=7).state_dict(),
    "timm": lambda: timm.create_model("resnet18").state_dict(),
    "smp": lambda: smp.encoders.get_encoder("resnet18").state_dict(),
    "torchgeo": lambda: {f"backbone.{k}": v for k, v in torchvision.models.resnet18().state_dict().items()},
    "whole smp": lambda: build("smp:FPN", 3, 5, encoder_name="resnet18").state_dict(),
}


@pytest.mark.parametrize(
    ("source", "into"),
    [
        *[(source, "smp:Unet") for source in ENCODERS],
        ("timm", "tu"),
        ("torchvision", "unet-resnet"),
        pytest.param("smp", "smp:DeepLabV3Plus", marks=pytest.mark.slow),
        pytest.param("whole smp", "unet-resnet", marks=pytest.mark.slow),
        pytest.param("torchgeo", "tu", marks=pytest.mark.slow),
    ],
)
def test_an_encoder_alone(source, into, tmp_path):
    given = {key: tensor.contiguous() for key, tensor in ENCODERS[source]().items()}
    save_file(given, tmp_path / "e.safetensors")
    options = (
        {"depth": 18} if into == "unet-resnet" else {"encoder_name": "tu-resnet18" if into == "tu" else "resnet18"}
    )
    architecture = "smp:Unet" if into == "tu" else into
    made = make_network(Network(architecture, options, weights=str(tmp_path / "e.safetensors")), 4, 3).state_dict()
    prefix = {"torchgeo": "backbone.", "whole smp": "encoder."}.get(source, "")
    outer = {"unet-resnet": "", "tu": "encoder.model."}.get(into, "encoder.")
    ours = {
        "conv1": "conv1.0",
        "bn1": "conv1.1",
        "layer1": "conv2",
        "layer2": "conv3",
        "layer3": "conv4",
        "layer4": "conv5",
    }
    count = 0
    for key, tensor in torchvision.models.resnet18().state_dict().items():
        head, _, rest = key.partition(".")
        name = f"{outer}{ours[head] if into == 'unet-resnet' else head}.{rest}" if head != "fc" else ""
        if name and tensor.ndim:
            right = given[prefix + key].numpy()
            right = plain_adaptation(right, 4) if key == "conv1.weight" else right
            np.testing.assert_allclose(made[name], right, rtol=1e-6)
            count += 1
    assert count == 100


def test_a_bundle_begins_the_next_training(tmp_path):
    bundle = save(tmp_path / "settings" / "b.zip", metadata("unet", bands=3, classes=2))
    network = settings_of("unet", "b.zip")
    made = make_network(network, 3, 2, folder=tmp_path / "settings").state_dict()
    assert all(torch.equal(tensor, made[key]) for key, tensor in bundle.network().state_dict().items())
    shipped = load_bundle("buildings")
    taken = make_network(Network("unet", dict(shipped.metadata.options), weights="buildings"), 3, 2).state_dict()
    assert torch.equal(taken["final.weight"], shipped.network().state_dict()["final.weight"])


def test_weights_that_do_not_fit(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "r18.pth")
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("weights")
    wrong: list[tuple[Network, type[SwatheError], str]] = [
        (Network("smp:Unet", {"encoder_name": "resnet34"}, str(tmp_path / "r18.pth")), TrainingError,
         r"fits neither smp:Unet nor its encoder: missing encoder\.layer1\.2\.conv1\.weight"),
        (Network("unet", SMALL["unet"], str(tmp_path / "r18.pth")), TrainingError, r"neither .* missing down\.0\.0"),
        (Network("unet", {"widths": [4, 8, 12]}, "buildings"), TrainingError, "fits neither .* of another shape"),
        (Network("unet", SMALL["unet"], str(tmp_path / "none.pth")), NetworkError, "holds no tensors"),
        (Network("unet", SMALL["unet"], str(tmp_path / "text.pth")), NetworkError, "cannot be read as weights"),
        (Network("unet", SMALL["unet"], str(tmp_path / "missing.pth")), NetworkError, "no such file"),
        (Network("unet", SMALL["unet"], "no-such-bundle"), BundleError, "no bundle 'no-such-bundle'"),
        (Network("unet", SMALL["unet"], "hub"), TrainingError, "no hub has weights of unet"),
        (Network("nothing", {}, ""), NetworkError, "unknown network"),
    ]  # fmt: skip
    for network, kind, says in wrong:
        with pytest.raises(kind, match=says) as caught:
            make_network(network, 3, 2)
        assert len(str(caught.value).splitlines()) <= 2
        assert len(str(caught.value)) < 900


@pytest.mark.parametrize(
    "network", [Network("smp:FPN", {"encoder_name": "resnet18"}, "hub"), Network("unet-resnet", {"depth": 18}, "hub")]
)
def test_the_hub_where_there_is_no_network(network, monkeypatch):
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nmore of it")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
    with pytest.raises(
        TrainingError, match="could not fetch the weights 'imagenet' of resnet18: Name or service"
    ) as caught:
        make_network(network, 4, 2)
    assert "give a file" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("architecture", ["smp:FPN", "unet-resnet"])
def test_the_hub_where_there_is_one(architecture, monkeypatch, tmp_path):
    """What the hub would send is made here."""
    given = {key: torch.randn(tensor.shape) if tensor.ndim else tensor
             for key, tensor in smp.encoders.get_encoder("resnet18").state_dict().items()}  # fmt: skip
    save_file(given, tmp_path / "model.safetensors")
    asked: list[str] = []

    def download(repository: str, filename: str, revision: str) -> str:
        asked.append(repository)
        return str(tmp_path / filename)

    monkeypatch.setattr(smp.encoders, "hf_hub_download", download)
    options = {"depth": 18} if architecture == "unet-resnet" else {"encoder_name": "resnet18"}
    made = make_network(Network(architecture, options, "hub"), 4, 2).state_dict()
    assert set(asked) == {"smp-hub/resnet18.imagenet"}
    prefix, first = (
        ("conv5.", "conv1.0.weight") if architecture == "unet-resnet" else ("encoder.layer4.", "encoder.conv1.weight")
    )
    assert torch.equal(made[f"{prefix}1.conv2.weight"], given["layer4.1.conv2.weight"])
    np.testing.assert_allclose(made[first], plain_adaptation(given["conv1.weight"].numpy(), 4), rtol=1e-6)


def test_fresh_weights_come_from_the_seed():
    def once(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return make_network(settings_of("unet"), 3, 2).state_dict()["final.weight"]

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


@pytest.mark.parametrize("architecture", SIZES)
def test_a_frozen_encoder_stays_as_it_is(architecture):
    """Two steps of training: frozen, all of the encoder is unchanged, running statistics too; the rest learns."""
    torch.manual_seed(0)
    made = make_network(settings_of(architecture), 3, 2)
    set_frozen(made, True)
    parts = list(encoder_of(made))
    before = [{k: v.clone() for k, v in part.state_dict().items()} for part in parts]
    everything = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    optimiser = torch.optim.AdamW(parameter_groups(made, 0.1, 0.5, 0.1))
    step(made, optimiser)
    for part, old in zip(parts, before, strict=True):
        assert all(torch.equal(tensor, old[key]) for key, tensor in part.state_dict().items())
    changed = [key for key, tensor in made.state_dict().items() if not torch.equal(tensor, everything[key])]
    assert changed
    set_frozen(made, False)
    step(made, optimiser)
    for part, old in zip(parts, before, strict=True):
        trained = {k for k, _ in part.named_parameters()}
        moved = {key for key, tensor in part.state_dict().items() if not torch.equal(tensor, old[key])}
        assert moved & trained
        assert any("running_mean" in key for key in moved)


def step(made: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    made.train()
    keep_frozen_in_eval(made)
    loss = made(torch.randn(2, 3, 64, 64)).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def test_freezing_for_some_epochs():
    assert [frozen_at(True, n) for n in (0, 9)] == [True, True]
    assert [frozen_at(False, n) for n in (0, 9)] == [False, False]
    assert [frozen_at(2, n) for n in (0, 1, 2, 3)] == [True, True, False, False]
    assert [frozen_at(1, n) for n in (0, 1)] == [True, False]


@pytest.mark.parametrize("architecture", SIZES)
def test_each_parameter_is_in_exactly_one_group(architecture):
    made = make_network(settings_of(architecture), 3, 2)
    set_frozen(made, True)
    groups = parameter_groups(made, 0.5, 0.1, 0.01)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in made.parameters())
    by_name = {group["name"]: group for group in groups}
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.05, 0.01), (0.05, 0.0), (0.5, 0.01), (0.5, 0.0)]
    undecayed = {id(p) for name, group in by_name.items() if "no decay" in name for p in group["params"]}
    for module in made.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, nn.BatchNorm2d | nn.GroupNorm)
            assert (id(parameter) in undecayed) == (is_norm or name == "bias")
    inside = {id(p) for part in encoder_of(made) for p in part.parameters()}
    assert {id(p) for name, g in by_name.items() if name.startswith("encoder") for p in g["params"]} == inside
    torch.optim.AdamW(groups)


def test_the_encoder_of_what_holds_a_network():
    inner = make_network(settings_of("smp:Unet"), 3, 2)
    assert encoder_of(Segmenter(inner, metadata("unet").scaling)) == [inner.encoder]
    assert encoder_of(torch.compile(Segmenter(torch.compile(inner), metadata("unet").scaling))) == [inner.encoder]
    with pytest.raises(TrainingError, match="Linear has no encoder"):
        encoder_of(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("architecture", "stride", "size", "batch", "says"),
    [
        ("simple-unet", 8, 100, 2, r"chips of 100 pixels are no multiple .* 8\nset size to 96 or 104"),
        ("unet-resnet", 64, 250, 4, "set size to 192 or 256"),
        ("smp:Unet", 32, 20, 4, r"set size to 32 in"),
        ("unet-resnet", 8, 72, 4, "cannot learn from 4 x 72 x 72 pixels: Sizes of tensors must match"),
        ("smp:DeepLabV3", 32, 64, 1, r"(?s)Expected more than 1 value per channel.*set batch to 2"),
    ],
)
def test_chips_that_a_network_cannot_take(architecture, stride, size, batch, says):
    made = make_network(Network(architecture, SMALL.get(architecture, {"encoder_name": "resnet18"})), 3, 2)
    with pytest.raises(TrainingError, match=says):
        check_chips(made, 3, size, batch, stride)


@pytest.mark.parametrize("architecture", SIZES)
def test_chips_that_it_can_take_leave_it_alone(architecture):
    made = make_network(settings_of(architecture), 3, 2)
    before = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    check_chips(made, 3, 64, 1, 64 if architecture == "unet-resnet" else 32)
    assert made.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in made.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(smp.MODEL_ARCHITECTURES_MAPPING))
def test_every_architecture_of_smp(architecture, tmp_path):
    """Built for four bands, measured, trained for a step, saved, loaded, the same."""
    options = {"encoder_name": "resnet18"}
    if architecture == "dpt":  # for timm's encoders only; a convolutional one has no prefix tokens to read out
        options = {"encoder_name": "tu-resnet18", "decoder_readout": "ignore"}
    torch.manual_seed(0)
    made = make_network(Network(f"smp:{architecture}", options), 4, 3)
    found = measure_receptive_field(made, 4)
    if architecture in ("dpt", "segformer"):  # what resizes grids with the whole input has no bound
        assert found.radius is None
    check_chips(made.train(), 4, 128, 2, found.stride)
    made(torch.randn(2, 4, 128, 128)).mean().backward()
    described = metadata(
        f"smp:{architecture}", name=architecture, bands=4, classes=3, options=options, receptive_field=found
    )
    bundle = save_bundle(tmp_path / "b", made, described)
    pixels = torch.randn(1, 4, 8 * found.stride, 10 * found.stride)  # PAN pools what is left of it thrice
    with torch.no_grad():
        assert torch.equal(bundle.network()(pixels), made.eval()(pixels))
    parameter_groups(made, 0.1)


IMPORT = """
name = "clouds4"
architecture = "unet"
bands = ["red", "green", "blue", "nir"]
dtype = "uint16"
activation = "sigmoid"
resolution = 30
options = { widths = [32, 64, 128] }
scaling = { divisor = 65535 }
classes = [{ name = "clear", color = "000000" }, { name = "cloud", color = "FFFFFF" }]
swap = ['merge\\.\\d\\.0\\.weight']  # it joins what comes up before what was skipped
[rename]
'enc1\\.' = "down.0."
'enc2\\.' = "down.1."
'bottleneck\\.' = "down.2."
'up1\\.' = "up.0."
'up2\\.' = "up.1."
'dec1\\.' = "merge.0."
'dec2\\.' = "merge.1."
"""


@pytest.mark.parametrize("name", ["own", "own.zip"])
def test_weights_that_were_imported_are_imported_once(name, tmp_path):
    """A command that was killed at its very end, or is given twice, ends well; with another config it is refused."""
    torch.save(build("unet", 4, 1, widths=(4, 8, 8)).state_dict(), tmp_path / "w.pth")
    config = IMPORT.replace("[32, 64, 128]", "[4, 8, 8]").partition("swap")[0]
    words = ["import", str(tmp_path / "w.pth"), "--config", str(tmp_path / "c.toml"), "-o",
             str(tmp_path / name)]  # fmt: skip

    def given(text: str) -> Result:
        (tmp_path / "c.toml").write_text(text)
        return CliRunner().invoke(cli, words)

    assert given(config).stdout.startswith("wrote")
    (tmp_path / f"{name}.sha256").unlink()
    assert "already complete" in given(config).output
    assert (tmp_path / f"{name}.sha256").exists()
    for other in (config.replace("cloud", "haze"), config + 'description = "mine"\n'):
        assert "exists" in str(given(other).exception)


class SimpleUNetV2(nn.Module):
    """As its author describes it: double convolutions, two poolings, (upsampled, skipped) joined in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.enc1, self.enc2, self.bottleneck = twice(4, 32), twice(32, 64), twice(64, 128)
        self.up1, self.up2 = nn.ConvTranspose2d(128, 64, 2, 2), nn.ConvTranspose2d(64, 32, 2, 2)
        self.dec1, self.dec2, self.final = twice(128, 64), twice(64, 32), nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        full = self.enc1(x)
        half = self.enc2(nn.functional.max_pool2d(full, 2))
        up = self.up1(self.bottleneck(nn.functional.max_pool2d(half, 2)))
        up = self.up2(self.dec1(torch.cat([up, half], dim=1)))
        return torch.sigmoid(self.final(self.dec2(torch.cat([up, full], dim=1))))


def twice(inputs: int, outputs: int) -> nn.Sequential:
    layers = [[nn.Conv2d(i, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()] for i in (inputs, outputs)]
    return nn.Sequential(*layers[0], *layers[1])


@pytest.mark.skipif(not CHECKPOINT.exists() or not CLOUDS.exists(), reason="needs ../shared/data")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
def test_the_mit_checkpoint_segments_clouds(tmp_path):
    """Over the seven patches of 38-Cloud that are here; the same answers as its author's network in plain torch."""
    (tmp_path / "network.toml").write_text(IMPORT)
    bundle = import_model(CHECKPOINT, tmp_path / "b", config=tmp_path / "network.toml")
    theirs = SimpleUNetV2().eval()
    theirs.load_state_dict(torch.load(CHECKPOINT, map_location="cpu", weights_only=True))
    segmenter = bundle.segmenter()
    found, right = [], []
    patches = sorted(path.name.removeprefix("gt_") for path in (CLOUDS / "train_gt").iterdir())
    assert len(patches) == 7
    for patch in patches:
        pixels = np.stack([band(name, patch) for name in bundle.metadata.band_names])
        with torch.inference_mode():
            answer = segmenter(torch.from_numpy(pixels.astype(np.float32))[None])[0, 1]
            plain = theirs(torch.from_numpy(pixels / np.float32(65535))[None])[0, 0]
        np.testing.assert_allclose(answer, plain, atol=1e-5)
        found.append(answer.numpy().ravel() > 0.5)
        right.append(band("gt", patch).ravel() > 0)
    assert jaccard_score(np.concatenate(right), np.concatenate(found)) > 0.65  # seen: 0.681
    assert jaccard_score(right[1], found[1]) > 0.9  # the cloudiest patch; seen: 0.933


def band(name: str, patch: str) -> np.ndarray:
    with rasterio.open(CLOUDS / f"train_{name}" / f"{name}_{patch}") as file:
        return file.read(1)


def test_swapping_halves():
    state = {
        "a.weight": torch.arange(4.0).reshape(1, 4, 1, 1),
        "a.bias": torch.ones(1),
        "b.weight": torch.zeros(1, 3, 1, 1),
    }
    assert swap_halves(state, ["a.w.*"])["a.weight"].flatten().tolist() == [2, 3, 0, 1]
    assert swap_halves(state, []) == state
    for pattern, says in [
        ("c.*", "no key matches"),
        ("(", "not a regular"),
        ("b.*", "two halves"),
        ("a.bias", "two halves"),
    ]:
        with pytest.raises(NetworkError, match=says):
            swap_halves(state, [pattern])


@pytest.mark.parametrize(("architecture", "options", "says"), [
    ("smp:Unet", {"encoder_name": "tu-resnet18", "checkpoint_path": "other.bin"}, "takes no option checkpoint_path"),
    ("smp:Unet", {"encoder_name": "tu-resnet18", "pretrained_cfg": {"file": "a"}}, "takes no option pretrained_cfg"),
    ("torchvision:fcn_resnet50", {"weights_backbone": "DEFAULT"}, "weights_backbone would fetch weights"),
])  # fmt: skip
def test_options_that_would_read_or_fetch_other_weights(architecture, options, says):
    with pytest.raises(NetworkError, match=says):
        build(architecture, 3, 2, **options)


def test_networks_of_monai_are_never_pretrained(monkeypatch):
    class Made(nn.Conv2d):
        def __init__(self, in_channels: int, pretrained: bool = True, pretrained_url: str = "") -> None:
            super().__init__(in_channels, 2, 1)
            assert not pretrained

    package = ModuleType("monai.networks")
    package.nets = ModuleType("monai.networks.nets")  # type: ignore[attr-defined]
    package.nets.Made = Made
    monkeypatch.setitem(sys.modules, "monai", ModuleType("monai"))
    monkeypatch.setitem(sys.modules, "monai.networks", package)
    monkeypatch.setattr("models.libraries.require_package", lambda *_, **__: None)
    assert build("monai:Made", 3, 2)(torch.zeros(1, 3, 4, 4)).shape == (1, 2, 4, 4)
    with pytest.raises(NetworkError, match="pretrained_url would fetch weights"):
        build("monai:Made", 3, 2, pretrained_url="http://localhost/x.pth")
